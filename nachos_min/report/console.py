"""Where tables are printed: as wide as the terminal, or a pipe in which nothing is cut.

Read nothing before it.
"""

from typing import TextIO, final

from rich.console import Console

_UNBOUNDED = 10_000  # columns of a pipe: more than any row takes


@final
class Output(Console):
    """A console for which a reader that leaves early (`... | head -1`) is the caller's to deal with.

    Rich itself would end the program with status 1.
    """

    def on_broken_pipe(self) -> None:
        """Pass on what Rich caught.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


def output(stream: TextIO, narrowest: int) -> Output:
    """Return a console on `stream`.

    Args:
        stream: a terminal, a file or a pipe.
        narrowest: columns that tables need; in a narrower terminal lines wrap instead of losing digits.
    """
    terminal = Console(file=stream)
    width = max(terminal.width, narrowest) if terminal.is_terminal else _UNBOUNDED
    return Output(file=stream, width=width, highlight=False, markup=False)
