"""What the records of all operators have in common, and the rule of each field, checked when a record is made.

A record knows the shapes of one sample, channels last, and gives exact Python integers. Its fields must be Python
integers, too: a NumPy integer would overflow silently above 2**63.
"""

import re
from dataclasses import dataclass
from math import prod
from typing import ClassVar, TypeGuard, dataclass_transform

from nachos_min.errors import InputError

Shape = tuple[int, ...]  # of one sample: (L, C), (H, W, C) or (D, H, W, C) for a map, else (..., features)

# Rules of fields by name, the same in every record.
_READ = ("input", "left", "right")
_SHAPES = (*_READ, "shape", "result")
_NUMBERS = dict.fromkeys(("out_channels", "out_features", "groups", "axes", "end"), 1)
_NUMBERS |= dict.fromkeys(("hidden", "length", "products"), 1)
_NUMBERS |= dict.fromkeys(("features", "begin", "trained", "projection", "biases"), 0)
_TUPLES = {  # how many numbers for each axis of the map, and the least of them
    **dict.fromkeys(("kernel", "size", "stride", "dilation"), (1, 1)),
    **dict.fromkeys(("padding", "zeros"), (2, 0)),
    "output_padding": (1, 0),
}
_WORDS = ("kind", "mode")
_INTEGERS = frozenset((int,))


class CountError(InputError):
    """Something that cannot be counted; the message gives the value and the rule it breaks."""


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Operator:
    """What one operator does to one sample. A record states its fields and overrides what is not zero.

    Every class is a frozen dataclass. Its head gives `plural`, what to call its kind in a sentence, and `column`,
    where the elements that it writes are counted; "{0.kind}" in them stands for the field. A kind with a plural is
    final. CountError names a rule that its fields break.
    """

    plural: ClassVar[str] = ""
    column: ClassVar[str] = ""

    def __init_subclass__(cls, plural: str = "", column: str = "") -> None:
        if cls.plural:
            raise TypeError(f"a kind of operator must not derive from another, got {cls.__name__}")
        cls.plural, cls.column = plural, column or cls.column
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        spatial = self.spatial
        for field, value in vars(self).items():
            if rule := _broken_rule(field, value, spatial):
                raise CountError(f"{name(self)}: {field} must be {rule}, got {value!r}")

    @property
    def spatial(self) -> int:
        """Axes of the map that it reads; 0 for what reads no map."""
        return 0

    @property
    def operands(self) -> tuple[Shape, ...]:
        """Shapes of the arrays it reads, in order: its fields `input`, `left`, `right` and those in `shapes`."""
        fields = vars(self)
        return (*(fields[each] for each in _READ if each in fields), *fields.get("shapes", ()))

    @property
    def output(self) -> Shape:
        """Shape of the array it writes: its field `result`, or that of the first array it reads."""
        found: Shape = vars(self).get("result") or self.operands[0]
        return found

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
        """Work that is not a MAC: the columns this operator touches, by name; a field `bias` is one."""
        column = self.column or ("bias_adds" if vars(self).get("bias") else "")
        return {column.format(self): prod(self.output)} if column else {}

    def require(self, sound: bool, rule: str, got: object) -> None:
        """Raise CountError with the rule and the value unless `sound`."""
        if not sound:
            raise CountError(f"{name(self)}: {rule}, got {got}")


class UnaryOperator(Operator):
    """An operator that reads one array and, unless it says otherwise, writes one of the same shape."""

    input: Shape


class MapOperator(UnaryOperator):
    """An operator whose input is a map of 1, 2 or 3 axes: (L, C), (H, W, C) or (D, H, W, C)."""

    def __post_init__(self) -> None:
        is_map = _is_shape(self.input) and 2 <= len(self.input) <= 4
        self.require(is_map, "input must be (L, C), (H, W, C) or (D, H, W, C)", self.input)
        super().__post_init__()

    @property
    def spatial(self) -> int:
        return len(self.input) - 1 if isinstance(self.input, tuple) else 0


def name(record: object) -> str:
    """Return the operator's name as messages and tables show it, a convolution's with its axes: Conv2d."""
    kind = type(record).__name__
    return f"{kind}{record.spatial}d" if kind.startswith("Conv") and isinstance(record, MapOperator) else kind


def broadcast(*shapes: Shape) -> Shape | None:
    """Return the shape that all broadcast to by NumPy's rule, or None."""
    axes = max(map(len, shapes))
    found = []
    for lengths in zip(*((1,) * (axes - len(shape)) + shape for shape in shapes), strict=True):
        found.append(max(lengths) if 0 not in lengths else 0)
        if not set(lengths) <= {1, found[-1]}:
            return None
    return tuple(found)


def _broken_rule(field: str, value: object, spatial: int) -> str:
    """Return what the value of a field must be, "" if it is or if there is no rule."""
    sound, rule = True, ""
    if field in _SHAPES:
        sound, rule = _is_shape(value), "a tuple of Python integers >= 0"
    elif field == "shapes":
        sound, rule = isinstance(value, tuple) and all(map(_is_shape, value)), "a tuple of tuples of integers >= 0"
    elif field in _NUMBERS:
        sound, rule = _are_numbers((value,), _NUMBERS[field]), f"a Python integer >= {_NUMBERS[field]}"
    elif field in _TUPLES:
        times, least = _TUPLES[field]
        count = times * spatial
        sound, rule = _are_numbers(value, least) and len(value) == count, f"{count} Python integers >= {least}"
    elif field in _WORDS:
        sound = isinstance(value, str) and re.fullmatch("[a-z][a-z0-9_-]*", value) is not None
        rule = "a name in small letters"
    return "" if sound else rule


def _is_shape(value: object) -> bool:
    return _are_numbers(value, 0) and len(value) > 0


def _are_numbers(values: object, least: int) -> TypeGuard[tuple[int, ...]]:
    if not isinstance(values, tuple) or not set(map(type, values)) <= _INTEGERS:
        return False
    return not values or bool(min(values) >= least)
