"""What every operator's record has in common, and the checks that its fields pass once, when it is made.

A record knows shapes of one sample and gives exact Python integers. Read this before `windows.py` and `ops.py`,
which have the records themselves. Fields must be Python integers: a NumPy integer would overflow silently
above 2**63, so it is refused.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

from nachos_min.errors import InputError

Shape = tuple[int, ...]  # of one sample: (H, W, C) for a map, (..., features) for anything else
Pair = tuple[int, int]  # height, width
Padding = tuple[int, int, int, int]  # top, bottom, left, right


class CountError(InputError):
    """Something that cannot be counted; the message gives the value and the rule it breaks."""


@dataclass(frozen=True)
class Operator(ABC):
    """What one operator does to one sample. A record states its fields and overrides what is not zero."""

    @property
    @abstractmethod
    def operands(self) -> tuple[Shape, ...]:
        """Shapes of the arrays it reads, in order."""

    @property
    @abstractmethod
    def output(self) -> Shape:
        """Shape of the array it writes."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates, taps on padded zeros included."""
        return 0

    @property
    def valid_macs(self) -> int:
        """Multiply-accumulates without taps on padded zeros."""
        return self.macs

    @property
    def params(self) -> int:
        """Number of trained values (running statistics are measured, not trained)."""
        return 0

    @property
    def columns(self) -> dict[str, int]:
        """Work that is not a MAC: the columns this operator touches, by name."""
        return {}

    def check_operands(self, shapes: tuple[Shape, ...]) -> None:
        """Check that the arrays that arrive are the ones this record was made for.

        Args:
            shapes: shapes of the arrays that arrive, in order.

        Raises:
            CountError: their number or a shape differs from `operands`.
        """
        if shapes != self.operands:
            raise CountError(f"{name(self)}: must read {_listed(self.operands)}, got {_listed(shapes)}")


@dataclass(frozen=True)
class UnaryOperator(Operator):
    """An operator that reads one array and, unless it says otherwise, writes one of the same shape."""

    input: Shape

    def __post_init__(self) -> None:
        check_shape(self, "input", self.input)

    @property
    def operands(self) -> tuple[Shape, ...]:
        return (self.input,)

    @property
    def output(self) -> Shape:
        return self.input


def name(record: object) -> str:
    """Return the operator's name as messages and tables show it."""
    return type(record).__name__


def check_number(record: Operator, field: str, value: object, least: int) -> None:
    """Check that `value` is a Python integer >= `least`; CountError otherwise."""
    if type(value) is not int or value < least:
        raise CountError(f"{name(record)}: {field} must be a Python integer >= {least}, got {value!r}")


def check_numbers(record: Operator, field: str, values: object, count: int, least: int) -> None:
    """Check that `values` is a tuple of `count` Python integers >= `least`; CountError otherwise."""
    if not _are_numbers(values, least) or len(values) != count:
        raise CountError(f"{name(record)}: {field} must be {count} Python integers >= {least}, got {values!r}")


def check_shape(record: Operator, field: str, shape: object) -> None:
    """Check that `shape` is a tuple of at least one Python integer, all >= 1; CountError otherwise."""
    if not _are_numbers(shape, 1) or len(shape) == 0:
        raise CountError(f"{name(record)}: {field} must be a tuple of Python integers >= 1, got {shape!r}")


def check_map(record: UnaryOperator) -> None:
    """Check that the input is (H, W, C); CountError otherwise."""
    check_shape(record, "input", record.input)
    if len(record.input) != 3:
        raise CountError(f"{name(record)}: input must be (H, W, C), got {record.input}")


def check_word(record: Operator, field: str, word: str) -> None:
    """Check that `word` is a name in small letters, such as "hswish" or "nearest-exact"; CountError otherwise."""
    if not re.fullmatch("[a-z][a-z0-9_-]*", word):
        raise CountError(f"{name(record)}: {field} must be a name in small letters, got {word!r}")


def broadcast(left: Shape, right: Shape) -> Shape | None:
    """Return the shape that both broadcast to by NumPy's rule, or None."""
    axes = max(len(left), len(right))
    pairs = zip((1,) * (axes - len(left)) + left, (1,) * (axes - len(right)) + right, strict=True)
    shape = tuple(max(a, b) if 1 in (a, b) else a * (a == b) for a, b in pairs)
    return None if 0 in shape else shape


def _are_numbers(values: object, least: int) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(type(value) is int and value >= least for value in values)


def _listed(shapes: Iterable[Shape]) -> str:
    return " and ".join(str(shape) for shape in shapes) or "nothing"
