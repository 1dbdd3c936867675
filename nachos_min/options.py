"""How an option is declared, once: its kind of value, its default, and in the docstring beside it its meaning.

An option stands as `Annotated[type, Option(...)]` in a TypedDict or in a signature. The command line, the help,
the defaults and the checks in Python follow from it. Left out: rules that need more than the value.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from numbers import Integral, Real
from os import PathLike, fsencode
from typing import Annotated, Any, TypeVar, Unpack, get_args, get_origin, get_type_hints

from nachos_min.errors import InputError, shorten

REQUIRED: Any = inspect.Parameter.empty
KINDS = POSITIONAL, KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
Function = TypeVar("Function", bound=Callable[..., Any])
SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def read_count(text: str) -> int:
    """Return the whole number that `text` states, exactly; ValueError if it states none.

    >>> read_count("60k"), read_count("2.7M"), read_count("60000")
    (60000, 2700000, 60000)
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", text.lower())
    number = Fraction(match[1]) * SCALES[match[2]] if match else Fraction(1, 2)
    if number.denominator != 1:
        raise ValueError("not a whole number")
    return number.numerator


def show_count(count: int) -> str:
    """Return `count` as `read_count` accepts it, with the largest suffix that needs no decimal point.

    >>> show_count(60_000), show_count(2_700_000), show_count(60_001)
    ('60k', '2700k', '60001')
    """
    suffix = next((suffix for suffix in "GMk" if count and count % SCALES[suffix.lower()] == 0), "")
    return f"{count // SCALES[suffix.lower()]}{suffix}"


def flag(parameter: str) -> str:
    """Return the option for a parameter as it is typed: max_macs is --max-macs."""
    return "--" + parameter.replace("_", "-")


def _reader(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of texts that match `pattern`; `int` and `float` alone also take other scripts' digits."""
    return lambda text: convert(text) if re.fullmatch(pattern, text) else None


@dataclass(frozen=True)
class Kind:
    """A kind of option value."""

    form: str  # how the help writes a value
    rule: str  # what a value must be, to follow "must be"
    read: Callable[[str], Any]  # text -> value; ValueError or None for a text of another form
    holds: Callable[[Any], bool]  # whether a value keeps the rule
    show: Callable[[Any], str] = str  # value -> the text that a user would type
    example: str = ""  # texts that state a value, to follow the rule

    def typed(self, option: str, text: str) -> Any:
        """Return the value that `text` states for `option`, such as "--seed"; InputError if it breaks the rule."""
        try:
            value = self.read(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise InputError(f"{option} must be {self.rule}{self.example}, got {shorten(text)}")
        return value


def whole(least: int, bits: int = 63) -> Kind:
    """Return the kind of whole numbers >= `least`, below 2 ** `bits`, in plain digits."""
    holds = _is(Integral, lambda value: least <= value < 1 << bits)
    return Kind("N", f"a whole number from {least} to 2^{bits} - 1", _reader("[0-9]+", int), holds)


def number(form: str, rule: str, within: Callable[[float], bool]) -> Kind:
    """Return the kind of numbers that are `within` a range."""
    read = _reader(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", float)
    return Kind(form, rule, read, _is(Real, within), "{:g}".format)


def _is(kind: Any, within: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return whether a value is of `kind`, and no truth value, and `within` a range."""
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and within(value)


def choice(*names: str) -> Kind:
    """Return the kind of a few names."""
    return Kind("|".join(names), f"one of {', '.join(names)}", str, _is(str, names.__contains__))


def text(noun: str) -> Kind:
    """Return the kind of names and paths: any text but the empty one that the system could take as a path."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str | PathLike) and bool(str(value).strip()) and b"\0" not in fsencode(value)
        except UnicodeEncodeError:
            return False

    article = "an" if noun.startswith(("a", "e", "i", "o", "u")) else "a"
    return Kind(noun.upper().replace(" OR ", "|"), f"{article} {noun}", str, holds)


# Values that are no text, such as arrays, are checked where they are loaded.
DATA = replace(
    text("name or file"), holds=lambda value: text("").holds(value) or not isinstance(value, str | PathLike)
)
COUNT = replace(whole(1), form="COUNT", read=read_count, show=show_count, example=" such as 60000, 60k or 2.7M")
PASSES, PROCESSES = whole(1, 20), whole(0, 12)  # more would fill the memory before anything is trained
SHARE = number("SHARE", "a number from 0 to 1", lambda value: 0 <= value <= 1)
MARGIN = number("SHARE", "a number >= 0 and below 1", lambda value: 0 <= value < 1)
CHANCE = number("SHARE", "a number above 0 and below 1", lambda value: 0 < value < 1)
WEIGHT = number("NUMBER", "a number >= 0", lambda value: 0 <= value < inf)
RATE = number("NUMBER", "a number above 0", lambda value: 0 < value < inf)
# On when named, `--json`, and off when negated, `--nojson`; also as `--json=true`, `--json=false`.
SWITCH = Kind(
    "",
    "given without a value, or as true or false",
    _reader("(?i:true|false)", lambda text: text.lower() == "true"),
    lambda value: isinstance(value, bool),
    lambda value: "on" if value else "off",
)
SIDES = Kind(
    "N,N,...",
    "one to eight whole numbers from 1 to 2^40 with commas between them, such as 3,32,32",
    _reader(
        r"(\()?[0-9]{1,13}(, ?[0-9]{1,13}){0,7}(?(1)\))", lambda text: tuple(map(int, text.strip("()").split(",")))
    ),
    lambda sides: all(1 <= side <= 1 << 40 for side in sides),
    lambda sides: ",".join(map(str, sides)),
)


@dataclass(frozen=True)
class Option:
    """One option."""

    kind: Kind
    default: Any = None
    by: Mapping[str, Any] = field(default_factory=dict)  # of a recipe, a data set, or both as "RECIPE DATA"
    absent: str = "none"  # the default in words where it is None
    group: str = "Options"  # the heading under which the help lists it
    meaning: str = ""  # for the help, from the docstring where the option is declared

    def default_of(self, recipe: str, data: str) -> Any:
        """Return the default for a recipe and a data set: the most special one."""
        return next((self.by[key] for key in (f"{recipe} {data}", recipe, data) if key in self.by), self.default)

    @property
    def default_text(self) -> str:
        """The default as the help gives it.

        >>> Option(COUNT, 40_000, {"digits32": 450_000}).default_text
        '40k; digits32: 450k'
        """
        usual = self.absent if self.default is None else self.kind.show(self.default)
        others = (f"{key.replace(' ', ' on ')}: {self.kind.show(value)}" for key, value in self.by.items())
        return "; ".join([usual, *others])


def options_of(declared: Any) -> dict[str, Option]:
    """Return name -> option of a TypedDict, or of a function: those that it unpacks, then its own parameters'."""
    hints = get_type_hints(declared, include_extras=True)
    meanings = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(declared) or "", re.MULTILINE))
    parameters = {} if isinstance(declared, type) else inspect.signature(declared).parameters
    unpacked, own = {}, {}
    for name, hint in hints.items():
        if get_origin(hint) is Unpack:
            unpacked = options_of(get_args(hint)[0])
        elif get_origin(hint) is Annotated:
            option = replace(hint.__metadata__[0], meaning=" ".join(meanings[name].split()))
            own[name] = replace(option, default=parameters[name].default) if name in parameters else option
    return unpacked | own


def taking(options: Mapping[str, Option]) -> Callable[[Function], Function]:
    """Return a decorator that shows `options` in place of a function's `**options` to Fire and `help`."""

    def decorate(function: Function) -> Function:
        signature, shown = inspect.signature(function), []
        for name, option in options.items():
            kind = POSITIONAL if option.default is REQUIRED else KEYWORD
            shown.append(inspect.Parameter(name, kind, default=option.default))
        first, last = ([each for each in signature.parameters.values() if each.kind is kind] for kind in KINDS)
        shows: Any = function
        shows.__signature__ = signature.replace(parameters=[*first, *shown, *last])
        return function

    return decorate
