"""The command line: a typed line in, an exit status out.

Fire calls a command before it notices a misspelt option. So a command (`commands.py`) only reads and checks its
options and returns a frozen job; `main` lets Fire consume the whole line, then runs the job. Read `help_text.py`
for the help.

Results go to standard output, progress and messages to standard error; a user's mistake is one line there.
Exit status: 0 done, 2 bad usage or input, 3 finished without an admissible solution, 130 interrupted (the
same command continues).
"""

import difflib
import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import NoReturn

from fire import Fire
from fire.core import FireExit

from nachos_min.commands import COMMANDS, DONE, Interrupted, Job, needed, option_defaults, option_kinds
from nachos_min.errors import InputError, printable, shorten
from nachos_min.help_text import PROGRAM, command_help, flag, program_help
from nachos_min.options import Switch

PURPOSE = (
    "Neural architecture search for early-exit networks under limits on accuracy and multiply-accumulates "
    "(MACs): the NACHOS method, from scratch on NumPy and Numba."
)

BAD_INPUT, INTERRUPTED = 2, 130


def main(line: Sequence[str]) -> int:
    """Return the exit status of the command that `line` asks for.

    Args:
        line: what was typed after `python -m nachos_min`.

    Returns:
        0 done, 2 bad usage or input, 3 finished without an admissible solution, 130 interrupted.
    """
    try:
        status = _run(list(line))
        sys.stdout.flush()
    except InputError as error:
        print("error: " + printable(" ".join(str(error).split())), file=sys.stderr)
        return BAD_INPUT
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as in `... | head -1`
        _discard_output()
        return DONE
    except (OSError, MemoryError) as error:  # a full disk behind `> results.json`, no memory for another process
        _discard_output()
        reason = "no more memory" if isinstance(error, MemoryError) else error.strerror or error
        print(f"error: the system refused: {reason}", file=sys.stderr)
        return BAD_INPUT
    return status


def _discard_output() -> None:
    """Send what is still buffered for standard output nowhere: Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(line: list[str]) -> int:
    name = line[0] if line else ""
    wants_help = not {"-h", "--help"}.isdisjoint(line)
    if wants_help and name in COMMANDS:
        print(command_help(name, COMMANDS[name], option_kinds(COMMANDS[name]), option_defaults(COMMANDS[name])))
    elif wants_help or not line:
        print(program_help(PURPOSE, COMMANDS))
    elif name not in COMMANDS:
        what = "a command must come first" if name.startswith("-") else "unknown command"
        advice = _advice(name, COMMANDS, PROGRAM)
        raise InputError(f"{what}, got {shorten(name)}; {advice} (commands: {', '.join(COMMANDS)})")
    else:
        return _job(name, line[1:]).run()
    return DONE


def _job(name: str, rest: list[str]) -> Job:
    """Return the job of command `name` once Fire has consumed `rest` to the last argument."""
    if "--" in rest:
        raise InputError("'--' must not be used: it would separate options for the Fire library")
    # Fire would go on behind a lone "-" with the job itself; a separator nobody can type turns that off.
    closed = [name, *rest, "--", "--separator=\0"]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            job: Job = Fire(COMMANDS, command=closed, name=PROGRAM, serialize=lambda _job: None)
    except FireExit as refusal:
        _explain(name, refusal.trace.elements[-1].args)
    return job


def _explain(name: str, refused: list[str]) -> NoReturn:
    """Raise the InputError for arguments that Fire could not consume."""
    kinds = option_kinds(COMMANDS[name])
    options = [flag(option) for option in kinds]
    switches = ["--no" + option for option, kind in kinds.items() if isinstance(kind, Switch)]
    for argument in refused:
        option = argument.split("=")[0]
        if re.match("--|-[a-zA-Z]", option) and option.replace("_", "-") not in options:
            raise InputError(f"unknown option {option}; {_advice(option, options + switches, f'{PROGRAM} {name}')}")
    wanted = needed(COMMANDS[name])
    if wanted and not refused:
        raise InputError(f"{name} needs a {wanted[0].upper()}, got none; try {PROGRAM} {name} --help")
    takes = f"one {wanted[0].upper()} and options" if wanted else "options only"
    raise InputError(f"{name} takes {takes}, got {shorten(' '.join(refused))}")


def _advice(word: str, known: Iterable[str], program: str) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"try {program} --help"
