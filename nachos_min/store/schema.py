"""What the fields of a record must be: a table says it, and `check` holds a record against the table.

A table has for each field the rule of its value, or the table of a record inside. A name that ends in "?" may be
missing; "*" is every other field. Axes of tuples and arrays have names: those of the same name have the same
length, in the whole record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from nachos_min.errors import shorten
from nachos_min.store.values import StoreError

Table = Mapping[str, Any]  # name -> Rule or Table
LARGEST = 2**62
_NUMBERS = {"whole": (int,), "float": (float,), "number": (int, float), "plain": (int, bool, str), "text": (str,)}
_NUMBERS |= {"truth": (bool,)}


@dataclass(frozen=True)
class Rule:
    """What a value must be: one, or a tuple or list of them, or an array."""

    # whole, float, number, plain, text or truth; "plain values", which are no array and hold none; or the types of
    # an array, such as "uint8 float32"
    kind: str
    axes: tuple[str | int, ...] | None = None  # one: a tuple; None: a single value, or an array of any shape
    least: float = 0
    most: float = LARGEST
    none: bool = False  # whether None, or in an array NaN, may stand there, too
    sequence: type[tuple[Any, ...]] | type[list[Any]] = tuple

    def holds(self, value: Any, sizes: dict[str, int]) -> bool:
        """Return whether `value` keeps the rule; `sizes` has the lengths of axes, and gets those not known yet."""
        if self.kind == "plain values":
            return _is_plain(value)
        if self.kind not in _NUMBERS:
            return isinstance(value, np.ndarray) and self._holds_array(value, sizes)
        if self.axes is None:
            return (self.none and value is None) or self._all_hold((value,))
        if not isinstance(value, self.sequence):
            return False
        return _fit(self.axes, (len(value),), sizes) and self._all_hold(value)

    def _holds_array(self, value: np.ndarray[Any, Any], sizes: dict[str, int]) -> bool:
        if str(value.dtype) not in self.kind.split():
            return False
        if self.axes is not None and not _fit(self.axes, value.shape, sizes):
            return False
        ends = (np.fmin, np.fmax) if self.none else (np.minimum, np.maximum)
        least, most = (each.reduce(value, axis=None).item() if value.size else 0 for each in ends)
        empty = not value.size or (self.none and least != least)
        return empty or (least >= self.least and most <= self.most)  # a NaN fails

    def _all_hold(self, values: tuple[Any, ...] | list[Any]) -> bool:
        if not all(type(each) in _NUMBERS[self.kind] for each in values):
            return False
        if self.kind not in ("whole", "float", "number") or not values:
            return True
        return self.least <= min(values) and max(values) <= self.most and all(map(isfinite, values))

    def __str__(self) -> str:
        """Return the rule in words, to follow "must be"."""
        if self.kind == "plain values":
            return self.kind
        within = "" if self.kind in ("plain", "text", "truth", "bool") else f" from {self.least:,} to {self.most:,}"
        what, shape = (
            ("", "")
            if self.axes is None
            else (f"a {self.sequence.__name__} of ", f", of shape ({', '.join(map(str, self.axes))})")
        )
        what = what if self.kind in _NUMBERS else "an array of "
        return f"{what}{self.kind}{within}{shape}{' or None' if self.none else ''}"


def _is_plain(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return not isinstance(value, np.ndarray) and all(map(_is_plain, inside))


def _fit(axes: tuple[str | int, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Return whether `shape` has the lengths that `axes` name; those without one get it."""
    return len(axes) == len(shape) and all(
        length == (axis if isinstance(axis, int) else sizes.setdefault(axis, length))
        for axis, length in zip(axes, shape, strict=True)
    )


def check(record: Any, table: Table, sizes: dict[str, int], place: str = "", *, others: bool = False) -> None:
    """Raise a StoreError that names place, rule and value unless `record` is as `table` says.

    `sizes` has lengths of axes that are known, and gets the others. `others`: fields that the table lacks may be
    there, too.
    """
    if not isinstance(record, dict):
        raise broken(place.rstrip(".") or "a record", "named fields", record)
    rules = {name.rstrip("?"): rule for name, rule in table.items()}
    rest = rules.pop("*", None)
    unknown = sorted(record.keys() - rules.keys())
    if rest is not None:
        rules |= dict.fromkeys(unknown, rest)
    elif unknown and not others:
        raise broken(f"{place}{unknown[0]}", "a field of another name", record[unknown[0]])
    for field, rule in rules.items():
        if field not in record:
            if field in table:
                raise StoreError(f"{place}{field} must be there, got none")
        elif isinstance(rule, Rule):
            if not rule.holds(record[field], sizes):
                raise broken(f"{place}{field}", rule, record[field])
        else:
            check(record[field], rule, sizes, f"{place}{field}.", others=others)


def broken(place: str, rule: object, value: object) -> StoreError:
    """Return the error of a value that breaks its rule."""
    if isinstance(value, np.ndarray):
        value = f"{value.dtype} {value.shape}, such as {value.flat[:3].tolist()}"
    return StoreError(f"{place} must be {rule}, got {shorten(value if isinstance(value, str) else repr(value))}")
