"""Rules of the operators whose result is fixed before any sample comes: constants, shapes, ranges.

Read `call.py` first.
"""

from typing import Any

import numpy as np

from nachos_min.macs.onnx_reader.arrays import Array, checked_shape, constant, from_tensor
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.record import CountError


def given(call: Call) -> tuple[Array, ...]:
    """Return what Constant gives: a tensor, or a number, text or list of them."""
    attributes = call.attributes
    tensor = attributes.tensor("value")
    if tensor is not None:
        return (from_tensor(tensor, call.key, trainable=False),)
    for name, value in (
        ("value_int", attributes.integer("value_int", 0)),
        ("value_float", attributes.number("value_float", 0.0)),
        ("value_ints", attributes.integers("value_ints", ())),
        ("value_floats", attributes.numbers("value_floats")),
    ):
        if name in attributes:
            return (constant(np.array(value, dtype=np.float32 if "float" in name else np.int64), call.key),)
    if "value_string" in attributes:
        return (Array((), None, None, call.key),)
    raise CountError(f"a Constant must have a value of numbers, got attributes {sorted(attributes.protos)[:4]}")


def shape_of(call: Call) -> tuple[Array, ...]:
    """Return what Shape makes: the lengths of the axes from `start` to `end`."""
    shape = call.input().shape
    begin, end = call.attributes.integer("start", 0), call.attributes.integer("end", len(shape))
    return (constant(np.array(shape[begin:end], dtype=np.int64), call.key),)


def size_of(call: Call) -> tuple[Array, ...]:
    """Return what Size makes: the number of elements."""
    elements = call.input().elements
    checked_shape((elements,))
    return (constant(np.array(elements, dtype=np.int64), call.key),)


def constant_of_shape(call: Call) -> tuple[Array, ...]:
    """Return what ConstantOfShape makes; its values are written down if they are few."""
    shape = checked_shape(call.integers(0, "shape"))
    tensor = call.attributes.tensor("value")
    single = np.zeros(1, np.float32) if tensor is None else from_tensor(tensor, call.key, trainable=False).values
    if single is None or single.size != 1:
        return (Array(shape, None, None, call.key),)
    return (call.fixed(shape, lambda: np.full(shape, single)),)


def numbers_from_to(call: Call) -> tuple[Array, ...]:
    """Return what Range makes."""
    start, limit, step = (_number(call, index) for index in (0, 1, 2))
    steps = 0 if step == 0 else -((start - limit) // step)
    if step == 0 or not np.isfinite(float(steps)):
        raise CountError(f"step of Range must not be 0 or next to it, got {step}")
    length = max(0, int(steps))
    return (call.fixed((length,), lambda: [start + step * place for place in range(length)]),)


def places_of_ones(call: Call) -> tuple[Array, ...]:
    """Return what NonZero makes of a constant; of anything else it depends on the data."""
    values = call.input().values
    if values is None:
        raise CountError(f"no rule for {call.operator}: its output's shape depends on the data")
    shape = (values.ndim, int(np.count_nonzero(values)))
    return (call.fixed(shape, lambda: np.array(np.nonzero(values), dtype=np.int64)),)


def eye_like(call: Call) -> tuple[Array, ...]:
    """Return what EyeLike makes: a constant of the input's shape."""
    return (Array(call.input().shape, None, None, call.key),)


def _number(call: Call, index: int) -> Any:
    values = call.input(index).values
    if values is None or values.size != 1 or not np.isfinite(float(values.item())):
        raise CountError(
            f"a fixed number must be given as input {index + 1} of Range, got {call.input(index).shape}"
        )
    return values.item()
