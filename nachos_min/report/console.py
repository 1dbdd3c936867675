"""Tables, and where they are printed: as wide as the terminal, or a pipe in which nothing is cut.

A text that came from outside breaks no line, steers no terminal and is not read as Rich's markup.
"""

from collections.abc import Iterable
from typing import Any, Literal, TextIO, final

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from nachos_min.errors import cut, printable
from nachos_min.terminal import unguarded

_UNBOUNDED = 10_000  # columns of a pipe: more than any row takes


@final
class Output(Console):
    """A console on which a string is one line, escaped and cut as a message is; a `Text` may have several.

    It raises BrokenPipeError when its reader leaves, where Rich would end the program.
    """

    def __init__(self, stream: TextIO, width: int | None = None, **how: Any) -> None:
        super().__init__(file=unguarded(stream), width=width, highlight=False, markup=False, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a string as it is laid out."""
        return super().render_str(cut(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is printed, Rich's own control codes and escaped texts."""
        for each in super().render(renderable, options):
            yield each if each.control else each._replace(text="\n".join(map(printable, each.text.split("\n"))))

    def on_broken_pipe(self) -> None:
        """Raise what Rich caught."""
        raise BrokenPipeError


def output(stream: TextIO, narrowest: int) -> Output:
    """Return a console on `stream`; in a terminal of fewer than `narrowest` columns lines wrap and lose nothing."""
    terminal = Output(stream)
    return Output(stream, max(terminal.width, narrowest) if terminal.is_terminal else _UNBOUNDED)


def table(
    headings: Iterable[str], sides: str, rows: Iterable[Iterable[object]], *, gap: int = 2, edge: bool = False
) -> Table:
    """Return a table with columns to the left ("l") or right ("r"). Text on the left may take several lines.

    There are `gap` columns of space between two columns, and empty lines above and below with an `edge`.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=edge, caption_justify="left")
    for heading, side in zip(headings, sides, strict=True):
        justify: Literal["left", "right"] = "left" if side == "l" else "right"
        made.add_column(Text(heading), justify=justify, no_wrap=side == "r", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made
