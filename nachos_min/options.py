"""How an option is declared, once: its kind of value and its default. The docstring beside it has its meaning.

An option stands as `Annotated[type, Option(...)]` in a TypedDict or in a signature. The command line, the help,
the defaults and the checks in Python follow from it. Fire hands over the text that was typed, and the option's kind
reads it exactly: 2.7M is 2,700,000, and 2.7777777M is refused. Left out: rules that need more than the value.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from os import PathLike
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from nachos_min.errors import InputError, shorten

# What Fire hands over for an option without a value, `--seed`, and for its negation, `--noseed`.
BARE = ("True", "False")
REQUIRED: Any = inspect.Parameter.empty
SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def read_count(text: str) -> int:
    """Return the whole number that `text` states, exactly.

    >>> read_count("60k"), read_count("2.7M"), read_count("60000")
    (60000, 2700000, 60000)

    Raises:
        ValueError: unless `text` is digits with at most one decimal point, then k, M, G or nothing, and whole.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", text.lower())
    number = Fraction(match[1]) * SCALES[match[2]] if match else Fraction(1, 2)
    if number.denominator != 1:
        raise ValueError("not a whole number")
    return number.numerator


def show_count(count: int) -> str:
    """Return the shortest exact way to write `count` that `read_count` accepts.

    >>> show_count(60_000), show_count(2_700_000), show_count(60_001)
    ('60k', '2.7M', '60001')
    """
    written = [str(count)]
    for suffix in ("k", "M", "G"):
        scale = SCALES[suffix.lower()]
        whole, rest = divmod(count, scale)
        decimals = f".{rest:0{len(str(scale)) - 1}d}".rstrip("0") if rest else ""
        if whole:
            written.append(f"{whole}{decimals}{suffix}")
    return min(written, key=len)


def _matching(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of texts that match `pattern`; `int` and `float` alone also take other scripts' digits."""

    def read(text: str) -> Any:
        if re.fullmatch(pattern, text) is None:
            raise ValueError("another form")
        return convert(text)

    return read


@dataclass(frozen=True)
class Kind:
    """A kind of option value.

    Attributes:
        form: how the help writes a value.
        rule: what a value must be, to follow "must be".
        read: text -> value; ValueError for a text of another form.
        holds: whether a value keeps the rule.
        show: value -> the text that a user would type.
        example: texts that state a value, to follow the rule.
    """

    form: str
    rule: str
    read: Callable[[str], Any]
    holds: Callable[[Any], bool]
    show: Callable[[Any], str] = str
    example: str = ""

    def typed(self, option: str, text: str) -> Any:
        """Return the value that `text` states for `option`, such as "--seed".

        Raises:
            InputError: if `text` breaks the rule; one line with the option, the rule and the text.
        """
        try:
            value = self.read(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            got = "no value" if text in BARE else shorten(text)
            raise InputError(f"{option} must be {self.rule}{self.example}, got {got}")
        return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int) -> Kind:
    """Return the kind of whole numbers >= `least` in plain digits."""
    read = _matching("[0-9]+", int)
    return Kind("N", f"a whole number >= {least}", read, lambda value: _is_whole(value) and value >= least)


def number(form: str, rule: str, holds: Callable[[float], bool]) -> Kind:
    """Return the kind of numbers for which `holds`."""
    read = _matching(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", float)
    return Kind(
        form,
        rule,
        read,
        lambda value: (_is_whole(value) or isinstance(value, float)) and holds(value),
        "{:g}".format,
    )


def choice(*names: str) -> Kind:
    """Return the kind of a few names."""
    return Kind("|".join(names), f"one of {', '.join(names)}", str, lambda value: value in names)


def text(noun: str) -> Kind:
    """Return the kind of names and paths: any text but the empty one. A folder called True is written ./True."""
    read = _matching(f"(?!({'|'.join(BARE)})$)(?s:.)*", str)

    def holds(value: Any) -> bool:
        return isinstance(value, str | PathLike) and bool(str(value).strip()) and "\0" not in str(value)

    return Kind(noun.upper().replace(" OR ", "|"), f"a {noun}", read, holds)


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.strip("()").split(","))


COUNT = Kind("COUNT", whole(1).rule, read_count, whole(1).holds, show_count, example=" such as 60000, 60k or 2.7M")
SHARE = number("SHARE", "a number from 0 to 1", lambda value: 0 <= value <= 1)
MARGIN = number("SHARE", "a number >= 0 and below 1", lambda value: 0 <= value < 1)
CHANCE = number("SHARE", "a number above 0 and below 1", lambda value: 0 < value < 1)
WEIGHT = number("NUMBER", "a number >= 0", lambda value: 0 <= value < inf)
# On when named, `--json`, and off when negated, `--nojson`; also as `--json=true`, `--json=false`.
SWITCH = Kind(
    "",
    "given without a value, or as true or false",
    _matching("(?i:true|false)", lambda text: text.lower() == "true"),
    lambda value: isinstance(value, bool),
    lambda value: "on" if value else "off",
)
SIDES = Kind(
    "N,N,...",
    "one to eight whole numbers from 1 to 2^40 with commas between them, such as 3,32,32",
    _matching(r"(\()?[0-9]{1,13}(, ?[0-9]{1,13}){0,7}(?(1)\))", _sides),
    lambda sides: all(1 <= side <= 1 << 40 for side in sides),
    lambda sides: ",".join(map(str, sides)),
)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        kind: of its values.
        default: value unless given; None: `absent` says in words what then holds.
        by: defaults of a recipe, a data set, or "RECIPE DATA"; the more special one counts.
        absent: the default in words where it is None.
    """

    kind: Kind
    default: Any = None
    by: Mapping[str, Any] = field(default_factory=dict)
    absent: str = "none"

    def default_of(self, recipe: str, data: str) -> Any:
        """Return the value unless given, for a recipe and a data set."""
        keys = (key for key in (f"{recipe} {data}", recipe, data) if key in self.by)
        return self.by.get(next(keys, ""), self.default)

    @property
    def default_text(self) -> str:
        """The default as the help gives it.

        >>> Option(COUNT, 40_000, {"digits32": 450_000}).default_text
        '40k; digits32: 450k'
        """
        usual = self.absent if self.default is None else self.kind.show(self.default)
        return "; ".join([usual, *(f"{key}: {self.kind.show(value)}" for key, value in self.by.items())])


Function = TypeVar("Function", bound=Callable[..., Any])


def declared_in(declared: Any) -> dict[str, Option]:
    """Return name -> option, of a TypedDict or of a function's parameters that are annotated with one."""
    hints = get_type_hints(declared, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}


def unpacked_in(function: Callable[..., Any]) -> Any:
    """Return the TypedDict of the function's `**options: Unpack[...]`, or None."""
    return next(iter(get_args(get_type_hints(function, include_extras=True).get("options"))), None)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Return name -> option of a function: those it unpacks, then those of its parameters with their defaults."""
    own, parameters = declared_in(function), inspect.signature(function).parameters
    unpacked = unpacked_in(function)
    own = {name: replace(option, default=parameters[name].default) for name, option in own.items()}
    return own if unpacked is None else declared_in(unpacked) | own


def spelt_out(function: Function) -> Function:
    """Return `function` with the options that it unpacks shown by `inspect.signature`, as for real parameters."""
    signature, unpacked = inspect.signature(function), unpacked_in(function)
    types, keyword = get_type_hints(unpacked), inspect.Parameter.KEYWORD_ONLY
    shown = [
        inspect.Parameter(name, keyword, default=option.default, annotation=types[name])
        for name, option in declared_in(unpacked).items()
    ]
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*shown, *own])  # type: ignore[attr-defined]  # inspect's
    return function
