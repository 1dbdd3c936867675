"""Tables, and where they are printed: as wide as the terminal, or a pipe in which nothing is cut."""

from collections.abc import Iterable
from typing import Literal, TextIO, final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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


def table(
    headings: Iterable[str], sides: str, rows: Iterable[Iterable[object]], *, gap: int = 2, edge: bool = False
) -> Table:
    """Return a table with columns to the left ("l") or right ("r"). Text on the left may take several lines.

    There are `gap` columns of space between two columns, and empty lines above and below with an `edge`.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=edge, caption_justify="left")
    for heading, side in zip(headings, sides, strict=True):
        justify: Literal["left", "right"] = "left" if side == "l" else "right"
        made.add_column(heading, justify=justify, no_wrap=side == "r", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made
