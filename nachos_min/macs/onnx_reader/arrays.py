"""What a count knows of an array: its shape, where it comes from, and its values if they are few and fixed.

Read `record.py` first. Exported networks compute shapes as they run (`x.view(x.shape[0], -1)` is four operators
in a file), so small constants carry their values and operators on them are carried out by NumPy (`rules_*.py`).
No array is ever made because a file states its shape: above `FEW` elements there are no values.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nachos_min.macs.onnx_reader.labels import quoted
from nachos_min.macs.onnx_reader.wire import MAX_AXES
from nachos_min.macs.record import CountError, Shape

Values = NDArray[Any]
FEW: Final = 4096
_MAX_LENGTH: Final = 2**63 - 1  # ONNX shapes are int64

FLOATS: Final = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16
DTYPES: Final[dict[int, str]] = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?"} | {
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}
_TYPED = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}


@dataclass(frozen=True)
class Array:
    """An array of a network that is being read.

    Args:
        shape: all axes; () for a single number.
        node: position of the node that makes it, -1 for the network's input, None for a constant that no node
            stands for (yet).
        values: of a constant with few elements, or of what was computed from such alone.
        key: the same for two constants if they have the same elements, whatever their axes.
        trained: whether it is a constant that training has found: an initialiser of floating point numbers.
    """

    shape: Shape
    node: int | None = None
    values: Values | None = None
    key: str = ""
    trained: bool = False

    @property
    def constant(self) -> bool:
        """Whether it is there before any sample comes."""
        return self.node is None

    @property
    def weight(self) -> "Array":
        """The same array as a layer's weights, which are trained wherever a file keeps them."""
        return replace(self, trained=self.constant)

    @property
    def number(self) -> bool:
        """Whether it is a constant without axes, which Python code would write as a number."""
        return self.constant and self.shape == ()

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def checked_shape(shape: Shape) -> Shape:
    """Return the shape, if an ONNX file can have it.

    Args:
        shape: Python integers.

    Raises:
        CountError: more than 16 axes, or an axis that is negative or longer than 2**63 - 1.
    """
    if len(shape) > MAX_AXES:
        raise CountError(f"an array must have at most {MAX_AXES} axes, got {len(shape)}")
    for length in shape:
        if not 0 <= length <= _MAX_LENGTH:
            raise CountError(f"an axis must have 0 to 2**63 - 1 elements, got {length}")
    return shape


def constant(values: Values, key: str) -> Array:
    """Return a constant of known values."""
    return Array(tuple(values.shape), None, values, key)


def from_tensor(tensor: Any, key: str, trainable: bool) -> Array:
    """Return the constant that an onnx.TensorProto describes.

    Args:
        tensor: the TensorProto.
        key: as of `Array`.
        trainable: whether it is trained if it has floating point numbers, and more than one: one is a factor.

    Raises:
        CountError: a shape no array can have, or values in a file outside the model's folder.
    """
    for entry in tensor.external_data:
        if entry.key == "location":
            _check_location(tensor.name, entry.value)
    shape = checked_shape(tuple(int(length) for length in tensor.dims))
    trained = trainable and tensor.data_type in FLOATS and prod(shape) > 1
    return Array(shape, None, _values(tensor, shape), key, trained)


def _check_location(name: str, location: str) -> None:
    parts = location.replace("\\", "/").split("/")
    if location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise CountError(
            f"the data of {quoted(name)} must be in a file beside the model or below, got {quoted(location)}"
        )


def _values(tensor: Any, shape: Shape) -> Values | None:
    """Return the values that `wire.py` has left in a tensor, if its type has a NumPy equivalent."""
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or prod(shape) > FEW or tensor.external_data or tensor.data_location:
        return None
    try:
        if tensor.raw_data:
            return np.frombuffer(tensor.raw_data, dtype).reshape(shape)
        typed = getattr(tensor, _TYPED.get(tensor.data_type, "int32_data"))
        stored = np.array(typed, dtype="<u2" if tensor.data_type == 10 else dtype)
        return stored.view(dtype).reshape(shape)
    except (ValueError, OverflowError):
        return None  # left out by `wire.py`, or out of its type's range
