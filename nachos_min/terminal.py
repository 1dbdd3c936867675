"""Standard output and error: nothing that is printed there steers the terminal.

Every text passes here: what a command prints, warnings and prints of libraries, and tracebacks.
"""

import io
import os
import sys
import warnings
from contextlib import suppress
from typing import Any, TextIO, final

from nachos_min.errors import cut, message, printable


@final
class Guard:
    """A stream that shows letters which would steer a terminal as escapes; line ends pass.

    One that is `optional` ends in silence where it cannot be written: a full disk behind a log stops no search.
    """

    def __init__(self, stream: Any, *, optional: bool = False) -> None:
        self.guarded = stream  # Rich writes its colours here, around texts that it escapes itself
        self._passed = OSError if optional else ()

    def write(self, text: str) -> int:
        """Write `text` escaped; return its length, as streams do."""
        try:
            self.guarded.write(text if text.isprintable() else "\n".join(map(printable, text.split("\n"))))
        except self._passed:
            silence(self.guarded)
        return len(text)

    def flush(self) -> None:
        """Write what is kept back."""
        try:
            self.guarded.flush()
        except self._passed:
            silence(self.guarded)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded, name)


def guard() -> None:
    """Make standard output and error guarded, and their warnings one line.

    Python has None for a stream that the shell has closed, `>&-`. A path may hold a character that the terminal's
    encoding lacks: that must not lose the output.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115  (open until the end)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream if isinstance(stream, Guard) else Guard(stream, optional=name == "stderr"))
    warnings.formatwarning = lambda told, *_, **__: message(f"warning: {told}") + "\n"


def silence(stream: Any) -> None:
    """Send what is still buffered for a stream nowhere: Python would complain once more at its end."""
    with suppress(OSError):  # a stream without a number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unguarded(stream: Any) -> Any:
    """Return the stream below a guard, for a writer that escapes by itself."""
    return stream.guarded if isinstance(stream, Guard) else stream


def tell(*lines: object, to: TextIO | None = None) -> None:
    """Print lines of any text, each cut to the length of a message, to a stream or standard output."""
    print(*(cut(str(line)) for line in lines), sep="\n", file=to or sys.stdout, flush=True)
