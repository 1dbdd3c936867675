"""What was typed after a command: its options with their texts, each once, and what must stand without a name.

A word that begins with `-` and no digit or point is an option, so such a value is typed `--out=-x`.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping

from nachos_min.errors import InputError, shorten
from nachos_min.options import REQUIRED, SWITCH, Option, flag, options_of

PROGRAM = "python -m nachos_min"
_OPTION = re.compile(r"-[^\d.].*", re.DOTALL)
_ALIKE = 0.75  # of two names, the least share of letters in common: `--sede` has it with `--seed`


def read_line(name: str, words: Iterable[str], commands: Mapping[str, Callable[..., int]]) -> dict[str, str]:
    """Return parameter -> text of what was typed after command `name`, checked but for the texts themselves.

    A switch has the text true or false. InputError for an unknown option, one without its value or typed twice,
    and for too many or too few words without an option.
    """
    options = options_of(commands[name])
    found, surplus, left = dict[str, str](), list[str](), list(reversed(list(words)))

    def put(option: str, text: str) -> None:
        if option in found:
            raise InputError(f"{flag(option)} must be given once, got it twice")
        found[option] = text

    while left:
        word = left.pop()
        typed, given, value = word.partition("=")
        after = left[-1] if left else ""
        if word == "--":
            raise InputError("'--' must not be used: every word after a command is an option or its value")
        if not _OPTION.fullmatch(word):
            surplus.append(word)
        elif (option := _parameter(typed)) in options:
            if not given and options[option].kind is SWITCH:
                put(option, left.pop() if after.lower() in ("true", "false") else "true")
            elif not given and (not left or _OPTION.fullmatch(after)):
                meant = f"; if {shorten(after)} is the value, write {typed}={shlex.quote(after)}"
                advice = "" if after[:2] in ("", "--") else meant
                raise InputError(f"{typed} must be {options[option].kind.rule}, got no value{advice}")
            else:
                put(option, value if given else left.pop())
        elif option.startswith("no") and _is_switch(options, option[2:]):
            if given:
                raise InputError(f"{typed} must be given without a value, got {shorten(value)}")
            put(option[2:], "false")
        else:
            raise _unknown(name, typed, options, commands)
    needed = [option for option, each in options.items() if each.default is REQUIRED and option not in found]
    found |= zip(needed, surplus, strict=False)
    if len(surplus) != len(needed):
        raise _misplaced(name, options, surplus, needed)
    return found


def _parameter(typed: str) -> str:
    """Return the parameter that `typed` names; a text that is none without two dashes."""
    return typed[2:].replace("-", "_") if re.match(r"--[^-]", typed) else typed


def _is_switch(options: Mapping[str, Option], name: str) -> bool:
    return name in options and options[name].kind is SWITCH


def _unknown(
    name: str, typed: str, options: Mapping[str, Option], commands: Mapping[str, Callable[..., int]]
) -> InputError:
    """Return the error for an option that command `name` lacks."""
    option = _parameter(typed)
    others = [other for other, command in commands.items() if option in options_of(command)]
    switches = ("--no" + each for each in options if _is_switch(options, each))
    known = [*map(flag, options), *switches]
    advice = advise(typed, known, f"{PROGRAM} {name}")
    if others and advice.startswith("try"):
        advice = f"{', '.join(others)} take{'s' * (len(others) == 1)} it"
    return InputError(f"unknown option {typed}; {advice}")


def _misplaced(name: str, options: Mapping[str, Option], typed: list[str], needed: list[str]) -> InputError:
    """Return the error for too many or too few words without an option."""
    what = " and one ".join(option.upper() for option, each in options.items() if each.default is REQUIRED)
    if len(typed) < len(needed):
        got = f"only {shorten(typed[0])}" if typed else "none"
        return InputError(f"{name} needs a {what}, got {got}; try {PROGRAM} {name} --help")
    surplus = typed[len(needed) :]
    data = "data" in options and options["data"].default is not REQUIRED and len(surplus) == 1
    advice = f"; did you mean --data {shlex.quote(surplus[0])}?" if data else ""
    takes = f"one {what} and options" if what else "options only"
    return InputError(f"{name} takes {takes}, got {shorten(' '.join(surplus))}{advice}")


def advise(word: str, known: Iterable[str], program: str) -> str:
    """Return which of the names `known` may be meant by `word`, or where they stand.

    A name is offered if it begins with the same letter and differs in few, or else if it alone holds `word` as a
    part, is a part of it, or begins or continues it.
    """
    names, word = {each.lstrip("-"): each for each in known}, word.lstrip("-").replace("_", "-").lower()
    near = difflib.get_close_matches(word, [each for each in names if each[0] == word[:1]], 1, _ALIKE)
    pairs = ((each, *sorted((each, word), key=len)) for each in names)
    parts = [
        each
        for each, short, long in pairs
        if f"-{short}-" in f"-{long}-" or (len(short) > 2 and long.startswith(short))
    ]
    near = near or (parts if len(parts) == 1 else [])
    return f"did you mean {names[near[0]]}?" if near else f"try {program} --help"
