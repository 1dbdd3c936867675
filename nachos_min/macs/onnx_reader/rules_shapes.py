"""Rules of the operators that give the same elements other axes: reshape, transpose, squeeze, expand, tile.

Read `call.py` first. On constants they are carried out, for that is how exported networks compute their shapes;
on anything else they move elements, which is no multiplication.
"""

from math import prod

import numpy as np

from nachos_min.macs.onnx_reader.arrays import Array, checked_shape
from nachos_min.macs.onnx_reader.call import Call, broadcast_any
from nachos_min.macs.onnx_reader.rules_norms import checked_axes
from nachos_min.macs.record import CountError


def identity(call: Call) -> tuple[Array, ...]:
    """Return the array itself."""
    return (call.input(),)


def dropout(call: Call) -> tuple[Array, ...]:
    """Return what Dropout makes when nothing is trained: the same elements."""
    x = call.input()
    return (call.move((x,), x.shape, lambda values: values),)


def reshape(call: Call) -> tuple[Array, ...]:
    """Return what Reshape makes; -1 is what remains, 0 is copied unless `allowzero` is set."""
    x = call.input()
    asked = call.setting("shape", 1, ())
    copies = not call.attributes.integer("allowzero", 0)
    lengths = [x.shape[axis] if not n and copies and axis < len(x.shape) else n for axis, n in enumerate(asked)]
    if -1 in lengths:
        known = -prod(lengths) if lengths.count(-1) == 1 else 0
        lengths[lengths.index(-1)] = x.elements // known if known > 0 else -1
    if min(lengths, default=0) < 0 or prod(lengths) != x.elements:
        raise CountError(f"shape {asked[:64]} must hold the {x.elements} elements of {x.shape}")
    shape = tuple(lengths)
    return (call.move((x,), shape, lambda values: values.reshape(shape)),)


def flatten(call: Call) -> tuple[Array, ...]:
    """Return what Flatten makes: the axes before `axis` as one, and the others as one."""
    x = call.input()
    axis = call.attributes.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise CountError(f"attribute 'axis' must name one of {len(x.shape)} axes, got {axis}")
    axis += len(x.shape) if axis < 0 else 0
    shape = (prod(x.shape[:axis]), prod(x.shape[axis:]))
    return (call.move((x,), shape, lambda values: values.reshape(shape)),)


def squeeze(call: Call) -> tuple[Array, ...]:
    """Return what Squeeze makes: without the axes named, or without all of length 1."""
    x = call.input()
    axes = checked_axes(call.setting("axes", 1, ()), len(x.shape))
    gone = axes or tuple(axis for axis, length in enumerate(x.shape) if length == 1)
    if any(x.shape[axis] != 1 for axis in gone):
        raise CountError(f"axes {axes} must have length 1, got {x.shape}")
    shape = tuple(length for axis, length in enumerate(x.shape) if axis not in gone)
    return (call.move((x,), shape, lambda values: values.reshape(shape)),)


def unsqueeze(call: Call) -> tuple[Array, ...]:
    """Return what Unsqueeze makes: with axes of length 1 put in."""
    x = call.input()
    asked = call.setting("axes", 1, ())
    axes = checked_axes(asked, len(x.shape) + len(asked))
    lengths = iter(x.shape)
    shape = tuple(1 if axis in axes else next(lengths) for axis in range(len(x.shape) + len(axes)))
    return (call.move((x,), shape, lambda values: values.reshape(shape)),)


def transpose(call: Call) -> tuple[Array, ...]:
    """Return what Transpose makes: the axes in another order, the reverse one if none is given."""
    x = call.input()
    order = checked_axes(call.attributes.integers("perm", tuple(range(len(x.shape)))[::-1]), len(x.shape))
    if len(order) != len(x.shape):
        raise CountError(f"attribute 'perm' must have {len(x.shape)} axes, got {order}")
    return (call.move((x,), tuple(x.shape[axis] for axis in order), lambda values: values.transpose(order)),)


def expand(call: Call) -> tuple[Array, ...]:
    """Return what Expand makes: repeated until it has the shape given."""
    x, asked = call.input(), checked_shape(call.integers(1, "shape"))
    shape = broadcast_any(x.shape, asked)
    if shape is None:
        raise CountError(f"{x.shape} must broadcast to the shape given, got {asked}")
    return (call.move((x,), shape, lambda values: np.broadcast_to(values, shape)),)


def tile(call: Call) -> tuple[Array, ...]:
    """Return what Tile makes: each axis repeated as often as given."""
    x, times = call.input(), call.integers(1, "repeats")
    if len(times) != len(x.shape) or min(times, default=0) < 0:
        raise CountError(f"repeats must be {len(x.shape)} integers >= 0, got {times[:64]}")
    shape = tuple(length * count for length, count in zip(x.shape, times, strict=True))
    return (call.move((x,), shape, lambda values: np.tile(values, times)),)
