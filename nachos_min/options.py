"""The kinds of value an option takes: each reads the text a user typed, or says which rule it breaks.

Fire would guess a type from the text (`--out 123` an integer, `--out a,b` a tuple, a bare `--seed` True).
Here Fire hands over the text itself and the option's kind reads it, exactly: 2.7M is 2,700,000, 2.7777777M
is refused, because it is no whole number. Read `commands.py` for how a command declares its options with these.
Left out: rules that need more than the text, such as whether a data set exists; the data room checks that.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import final

from nachos_min.errors import InputError, shorten

# What Fire hands over for an option without a value, `--seed`, and for its negation, `--noseed`.
BARE = ("True", "False")

SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def read_count(text: str) -> int:
    """Return the whole number that `text` states, exactly.

    >>> read_count("60k"), read_count("2.7M"), read_count("60000")
    (60000, 2700000, 60000)

    Args:
        text: digits, optionally with a decimal point, then optionally k, M or G in either case.

    Returns:
        The number, an int.

    Raises:
        ValueError: when `text` has another form, or states no whole number.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", text.lower())
    if match is None:
        raise ValueError("not a count")
    number = Fraction(match[1]) * SCALES[match[2]]
    if number.denominator != 1:
        raise ValueError("not whole")
    return number.numerator


def read_number(text: str) -> float:
    """Return the number that `text` states, infinite if it is too large for a double.

    Args:
        text: digits with a sign, a decimal point and an exponent as wanted.

    Raises:
        ValueError: when `text` has another form.
    """
    # float() also takes "nan", "1_0" and digits of every script: ask for the plain form first.
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text) is None:
        raise ValueError("not a number")
    return float(text)


def show_count(count: int) -> str:
    """Return the shortest exact way to write `count` that `read_count` accepts.

    >>> show_count(60_000), show_count(2_700_000), show_count(60_001)
    ('60k', '2.7M', '60001')

    Args:
        count: int, >= 0.

    Returns:
        Text; `read_count` of it is `count` again.
    """
    written = [str(count)]
    for suffix in ("k", "M", "G"):
        scale = SCALES[suffix.lower()]
        whole, rest = divmod(count, scale)
        decimals = f".{rest:0{len(str(scale)) - 1}d}".rstrip("0") if rest else ""
        if whole:
            written.append(f"{whole}{decimals}{suffix}")
    return min(written, key=len)


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """A kind of option value: `read` turns text into the value or raises `InputError`."""

    absent: str = "none"
    """What the help gives as the default when the default is None."""

    @property
    @abstractmethod
    def form(self) -> str:
        """How the help writes the value."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """What a value must be, to follow 'must be'."""

    @abstractmethod
    def parse(self, text: str) -> object:
        """Return the value; raise ValueError when `text` breaks the rule."""

    def show(self, value: object) -> str:
        """Return the text a user would type for `value`, or `absent` for None."""
        return self.absent if value is None else str(value)

    def read(self, option: str, text: str) -> object:
        """Return the value that `text` states for `option`.

        Args:
            option: as typed, such as "--seed"; named in the message.
            text: the value as typed, or one of `BARE`.

        Returns:
            The value, of the kind's own type.

        Raises:
            InputError: when `text` breaks the rule; one line with the option, the rule and the value.
        """
        try:
            return self.parse(text)
        except ValueError:
            got = "no value" if text in BARE else shorten(text)
            raise InputError(f"{option} must be {self.rule}, got {got}") from None


@final
@dataclass(frozen=True)
class Count(Kind):
    """A whole number of something, in any of the forms of `read_count`."""

    least: int = 1

    @property
    def form(self) -> str:
        return "COUNT"

    @property
    def rule(self) -> str:
        return f"a whole number >= {self.least} such as 60000, 60k or 2.7M"

    def parse(self, text: str) -> int:
        count = read_count(text)
        if count < self.least:
            raise ValueError("too small")
        return count

    def show(self, value: object) -> str:
        return show_count(value) if isinstance(value, int) else self.absent


@final
@dataclass(frozen=True)
class WholeNumber(Kind):
    """A whole number in plain digits: no sign, point, exponent or suffix."""

    least: int

    @property
    def form(self) -> str:
        return "N"

    @property
    def rule(self) -> str:
        return f"a whole number >= {self.least}"

    def parse(self, text: str) -> int:
        if re.fullmatch("[0-9]+", text) is None:
            raise ValueError("not digits")
        number = int(text)
        if number < self.least:
            raise ValueError("too small")
        return number


@final
@dataclass(frozen=True)
class Share(Kind):
    """A number from 0 to 1."""

    @property
    def form(self) -> str:
        return "SHARE"

    @property
    def rule(self) -> str:
        return "a number from 0 to 1"

    def parse(self, text: str) -> float:
        share = read_number(text)
        if not 0 <= share <= 1:
            raise ValueError("out of range")
        return share


@final
@dataclass(frozen=True)
class Weight(Kind):
    """A number that is not negative."""

    @property
    def form(self) -> str:
        return "NUMBER"

    @property
    def rule(self) -> str:
        return "a number >= 0"

    def parse(self, text: str) -> float:
        weight = read_number(text)
        if not 0 <= weight < inf:
            raise ValueError("out of range")
        return weight


@final
@dataclass(frozen=True)
class Choice(Kind):
    """One of a few names."""

    names: tuple[str, ...]

    @property
    def form(self) -> str:
        return "|".join(self.names)

    @property
    def rule(self) -> str:
        return " or ".join(self.names)

    def parse(self, text: str) -> str:
        if text not in self.names:
            raise ValueError("not a name")
        return text


@final
@dataclass(frozen=True)
class Text(Kind):
    """A name or a path: any text but the empty one. A folder called True is written ./True."""

    noun: str

    @property
    def form(self) -> str:
        return self.noun.upper().replace(" OR ", "|")

    @property
    def rule(self) -> str:
        return f"a {self.noun}"

    def parse(self, text: str) -> str:
        if not text.strip() or text in BARE or "\0" in text:
            raise ValueError("nothing to name")
        return text


@final
@dataclass(frozen=True)
class Switch(Kind):
    """On when named, `--json`, and off when negated, `--nojson`; also as `--json=true`, `--json=false`."""

    @property
    def form(self) -> str:
        return ""

    @property
    def rule(self) -> str:
        return "given without a value, or as true or false"

    def parse(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("neither true nor false")
        return text.lower() == "true"

    def show(self, value: object) -> str:
        return "on" if value else "off"


@final
@dataclass(frozen=True)
class Sides(Kind):
    """The shape of an array: whole numbers >= 1 with commas, such as 3,32,32."""

    @property
    def form(self) -> str:
        return "N,N,..."

    @property
    def rule(self) -> str:
        return "one to eight whole numbers from 1 to 2^40 with commas between them, such as 3,32,32"

    def parse(self, text: str) -> tuple[int, ...]:
        if re.fullmatch(r"(\()?[0-9]{1,13}(, ?[0-9]{1,13}){0,7}(?(1)\))", text) is None:
            raise ValueError("not a shape")
        sides = tuple(int(side) for side in text.strip("()").split(","))
        if not all(1 <= side <= 1 << 40 for side in sides):
            raise ValueError("out of range")
        return sides

    def show(self, value: object) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else self.absent
