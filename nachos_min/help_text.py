"""The help a user reads, written from what the commands themselves say.

Fire's own help goes to standard error, through a pager, and spells `--max_macs`; this one goes to standard
output, fits 80 columns and spells options as they are typed. Nothing is stated twice: names, order and
defaults come from a command's signature, forms from its options' kinds (`options.py`), meanings from its
docstring.
"""

import textwrap
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from fire import docstrings

from nachos_min.options import Kind

PROGRAM = "python -m nachos_min"
WIDTH = 80
INDENT = 6


def program_help(purpose: str, commands: Mapping[str, Any]) -> str:
    """Return the help of the program: every command with its first line, and how to ask for more.

    Args:
        purpose: one sentence about the program.
        commands: name -> the command's function, whose docstring is its help.

    Returns:
        Text of at most 80 columns, without a final newline.
    """
    lines = [*_paragraph(purpose), "", f"usage: {PROGRAM} COMMAND [--option VALUE ...]", "", "commands:"]
    for name, function in commands.items():
        lines += [f"  {name}", *_paragraph(docstrings.parse(function.__doc__).summary, INDENT)]
    lines += ["", f"Every option of a command:  {PROGRAM} {next(iter(commands))} --help"]
    return "\n".join(lines)


def command_help(name: str, function: Any, kinds: Mapping[str, Kind], defaults: Mapping[str, object]) -> str:
    """Return the help of one command: what it does, then every option with its form, meaning and default.

    Args:
        name: the command's name.
        function: the command; its docstring gives the summary, the description and a text per option.
        kinds: option name as in the signature -> kind of its value, in the order to show.
        defaults: option name as in the signature -> default value, Parameter.empty for what must be given.

    Returns:
        Text of at most 80 columns, without a final newline.
    """
    told = docstrings.parse(function.__doc__)
    meanings = {argument.name: argument.description for argument in told.args or []}
    needed = [option for option, default in defaults.items() if default is Parameter.empty]
    words = " ".join([name, *(option.upper() for option in needed)])
    lines = [*_paragraph(told.summary), "", f"usage: {PROGRAM} {words} [--option VALUE ...]", "", "options:"]
    for option, kind in kinds.items():
        if option in needed:
            continue
        lines.append(f"  {' '.join([flag(option), kind.form]).strip()}  (default: {kind.show(defaults[option])})")
        lines += _paragraph(meanings[option], INDENT)
    for paragraph in (told.description or "").split("\n\n"):
        lines += ["", *_paragraph(paragraph)]
    return "\n".join(lines)


def flag(parameter: str) -> str:
    """Return the option for a parameter as it is typed.

    >>> flag("max_macs")
    '--max-macs'
    """
    return "--" + parameter.replace("_", "-")


def _paragraph(text: str, indent: int = 0) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
