"""Where tables are printed: as wide as the terminal, or a pipe in which nothing is cut."""

from typing import TextIO, final

from rich.console import Console

_UNBOUNDED = 10_000  # columns of a pipe: more than any row takes


@final
class Output(Console):
    """A console that raises BrokenPipeError when its reader leaves, where Rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raise what Rich caught."""
        raise BrokenPipeError


def output(stream: TextIO, narrowest: int) -> Output:
    """Return a console on `stream`; in a terminal of fewer than `narrowest` columns lines wrap and lose nothing."""
    terminal = Console(file=stream)
    width = max(terminal.width, narrowest) if terminal.is_terminal else _UNBOUNDED
    return Output(file=stream, width=width, highlight=False, markup=False)
