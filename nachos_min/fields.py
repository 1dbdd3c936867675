"""Checked fields of a table that a person wrote, as JSON or TOML; a complaint names place, rule and value."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nachos_min.errors import InputError, shorten

T = TypeVar("T")


def parse_json(content: bytes) -> Any:
    """Return what JSON says; ValueError if it is none, in UTF-8, or says a name twice, NaN or Infinity."""
    return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"field {shorten(twice)} must be given once, got it {times} times")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"numbers must be finite, got {word}")


@dataclass(frozen=True)
class Fields:
    """A table whose fields are taken out one by one and checked."""

    table: Mapping[str, Any]
    error: Callable[[str], InputError]  # makes the exception of a message
    bits: int  # integers are at most 2^bits
    inside: str = ""  # place of the table, such as "stem: "
    most: int = 1 << 20  # members of a list

    def fail(self, field: str, rule: str, value: object) -> InputError:
        """Return the exception for a field that breaks a rule."""
        try:
            shown = shorten(repr(value))
        except (ValueError, RecursionError):  # an integer of over 4,300 digits is not written
            shown = f"{type(value).__name__} that cannot be shown"
        return self.error(f"{self.inside}{field} must be {rule}, got {shown}")

    def only(self, *known: str) -> None:
        """Refuse fields that are not `known`."""
        if unknown := sorted(self.table.keys() - set(known)):
            raise self.fail("a field", f"one of {', '.join(known)}", unknown[0])

    def typed(self, field: str, kind: type[T], rule: str, absent: T | None = None) -> T:
        """Return a field of exactly type `kind`; `absent` if it is missing."""
        value = self.table.get(field, absent)
        if type(value) is not kind:
            raise self.fail(field, rule, value)
        return value

    def choice(self, field: str, *known: str) -> str:
        """Return one of the texts `known`."""
        value = self.table.get(field)
        if value not in known:
            raise self.fail(field, f"one of {', '.join(known)}", value)
        return str(value)

    def integer(self, field: str, least: int = 1, absent: int | None = None) -> int:
        """Return an integer from `least` to 2^bits."""
        rule = f"an integer from {least} to 2^{self.bits}"
        value = self.typed(field, int, rule, absent)
        if not least <= value <= 1 << self.bits:
            raise self.fail(field, rule, value)
        return value

    def odd(self, field: str) -> int:
        """Return an odd integer."""
        value = self.integer(field)
        if value % 2 == 0:
            raise self.fail(field, "odd", value)
        return value

    def listed(self, field: str, least: int = 0, absent: list[Any] | None = None) -> list[Any]:
        """Return a list of at least `least` members of any kind."""
        values = self.typed(field, list, "a list", absent)
        if len(values) < least:
            raise self.fail(field, f"a list of length >= {least}", values)
        if len(values) > self.most:
            raise self.fail(field, f"a list of length <= {self.most:,}", len(values))
        return values

    def integers(
        self, field: str, least: int = 0, absent: list[int] | None = None, *, ascending: bool = False
    ) -> tuple[int, ...]:
        """Return a list of at least `least` integers from 1 to 2^bits; `ascending` ones do not repeat."""
        values = self.listed(field, least, absent)
        if not all(type(value) is int and 1 <= value <= 1 << self.bits for value in values):
            raise self.fail(field, f"a list of integers from 1 to 2^{self.bits}", values)
        if ascending and sorted(set(values)) != values:
            raise self.fail(field, "in ascending order without repeats", values)
        return tuple(values)

    def nested(self, field: str) -> "Fields":
        """Return the table that a field is."""
        value = self.typed(field, dict, "a table of named fields")
        return replace(self, table=value, inside=f"{self.inside}{field}: ")

    def tables(self, values: list[Any], place: str) -> list["Fields"]:
        """Return `values`, each of which must be a table; in complaints they are `place` 1, `place` 2, ..."""
        named = {f"{place} {number}": value for number, value in enumerate(values, start=1)}
        around = replace(self, table=named)
        return [around.nested(name) for name in named]
