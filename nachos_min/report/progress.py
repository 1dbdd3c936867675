"""What a search is doing while it runs, on standard error: two lines in place that vanish at the end.

Shown in a terminal only, so that logs and pipes hold results and nothing else. Read `Progress` in
`nas/nachos.py` for what is reported.
"""

import sys
from types import TracebackType
from typing import TextIO, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nachos_min.nas.nachos import Progress


@final
class SearchProgress:
    """A display to call with every `Progress` of a search, used as a context manager.

    Nothing appears before the first call: a search that refuses its options prints its one line alone.
    """

    def __init__(self, *, quiet: bool, stream: TextIO | None = None) -> None:
        """Prepare the display.

        Args:
            quiet: show nothing.
            stream: where to; standard error unless given. Shown only when it is a terminal.
        """
        self.evaluated = 0
        console = Console(file=stream or sys.stderr)
        # transient: the lines vanish at the end. 8 a second keep the spinner turning while a kernel compiles.
        self._live = Live(console=console, transient=True, refresh_per_second=8)
        self._shown = console.is_terminal and not quiet
        self._spinner = Spinner("line")

    def __enter__(self) -> "SearchProgress":
        """Return the display."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the lines away, however the search ended."""
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, and remember how far the search is."""
        self.evaluated = progress.evaluated
        if self._shown:
            self._live.start()
            self._spinner.update(text=Text(activity_text(progress), no_wrap=True, overflow="ellipsis"))
            self._live.update(Group(self._spinner, progress_row(progress)))


def progress_row(progress: Progress) -> Table:
    """Return the line with the bar: how much is done, how long it will take, the best so far."""
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(ratio=1)
    for _ in range(3):
        row.add_column(no_wrap=True)
    bar = ProgressBar(total=progress.evaluations, completed=progress.evaluated)
    done = f"{progress.evaluated}/{progress.evaluations} networks"
    row.add_row(bar, done, time_left(progress.seconds_left), best_text(progress))
    return row


def activity_text(progress: Progress) -> str:
    """Return what is being done, with what was reused or failed when there is any."""
    counts = ((progress.reused, "reused"), (progress.failed, "failed"))
    notes = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{progress.activity} ({notes})" if notes else progress.activity


def time_left(seconds: float | None) -> str:
    """Return the time left for reading.

    >>> time_left(None), time_left(75.2), time_left(7384)
    ('-:-- left', '1:15 left', '2:03:04 left')
    """
    if seconds is None:
        return "-:-- left"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d} left" if hours else f"{minute}:{second:02d} left"


def best_text(progress: Progress) -> str:
    """Return the accuracy and average MACs of the best admissible network so far."""
    best = progress.best
    return "none admissible yet" if best is None else f"best {best.accuracy:.1%}, {best.average_macs:,.0f} MACs"
