"""A search for people: its progress while it runs, then a table of the front, what it took and where it lies.

Progress goes to standard error and to a terminal only. In a terminal the table fits 80 columns or uses the width
there is; in a pipe a row is one line. Numbers are rounded for reading; `search --json` gives them exactly.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, TextIO, final

from rich.console import Group
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nachos_min.eenn.guarantee import fewest_samples
from nachos_min.errors import some
from nachos_min.nas.evaluation import CAUSES
from nachos_min.nas.gain import Gain, Measured, Retrained
from nachos_min.nas.result import Network, SearchResult, level_of
from nachos_min.nas.views import by_network, cells, setting_names
from nachos_min.report.console import Output, output, table
from nachos_min.terminal import Guard, tell

if TYPE_CHECKING:  # a stored run is shown without the loop
    from nachos_min.nas.plan import Plan
    from nachos_min.nas.progress import Progress
    from nachos_min.nas.retraining import Retraining

MISSED = "!"  # behind a test figure that misses its limit
NARROWEST = 72  # columns that the table needs
VERDICTS = {
    "better": "Training it again made it better.",
    "worse": "Training it again made it worse.",
    "no difference": "That it became better is not shown, nor that it became worse.",
}


@final
class SearchProgress:
    """A display to call with every `Progress` of a search, used as a context manager.

    It is shown on `stream`, or standard error, if that is a terminal, unless `quiet`, from the first call on.
    """

    def __init__(
        self, *, quiet: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.evaluated = 0
        self._spinner, self._clock, self._told_at = Spinner("line"), clock, 0.0
        self._progress: Progress | None = None
        console = Output(stream or sys.stderr)
        # transient: the lines vanish at the end. 8 a second keep the spinner turning while an epoch lasts.
        self._live = Live(console=console, transient=True, refresh_per_second=8, get_renderable=self._lines)
        self._shown = console.is_terminal and not quiet

    def __enter__(self) -> "SearchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, progress: "Progress") -> None:
        """Show `progress`, and remember how far the search is."""
        self.evaluated = progress.evaluated
        if self._shown:
            self._progress, self._told_at = progress, self._clock()
            self._live.start()
            self._live.refresh()
            for name in ("stdout", "stderr"):  # Rich takes them while the lines are shown, and gives them back
                if isinstance(proxy := getattr(sys, name), FileProxy):
                    setattr(sys, name, Guard(proxy))

    def _lines(self) -> Group:
        """Return what is shown now: the time left goes on while networks are trained."""
        progress = self._progress
        if progress is None:
            return Group()
        left, running = progress.seconds_left, progress.running
        if left is not None and running and not any(each.compiling for each in running):
            progress = replace(progress, seconds_left=max(0.0, left - (self._clock() - self._told_at)))
        activity = Table.grid(padding=(0, 1))
        activity.add_row(self._spinner, line(activity_text(progress)))
        networks = [line(f"  {running_text(progress)}")] if running else []
        return Group(activity, *networks, progress_row(progress))


def line(text: str) -> Text:
    """Return `text` in one line, cut where the terminal ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def activity_text(progress: "Progress") -> str:
    """Return what is being done, with what was reused or failed when there is any."""
    counts = ((progress.reused, "reused"), (progress.failed, "failed"))
    notes = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{progress.activity} ({notes})" if notes else progress.activity


def running_text(progress: "Progress") -> str:
    """Return which networks are being trained and how far they are: "networks 3 and 4 of 100: epoch 4 of 20"."""
    numbers = [each.number for each in progress.running]
    epochs = sorted({each.epoch for each in progress.running})
    most = max(each.epochs for each in progress.running)
    named = f"network{'s' if len(numbers) > 1 else ''} {_span(numbers)} of {progress.evaluations}"
    first = "a first run compiles the kernels; " if any(each.compiling for each in progress.running) else ""
    return f"{first}{named}: epoch{'s' if len(epochs) > 1 else ''} {_span(epochs)} of {most}"


def _span(numbers: Sequence[int]) -> str:
    """Return ascending numbers for reading: "3", "3 and 4", or "3 to 9" when there are more."""
    if len(numbers) < 3:
        return " and ".join(map(str, numbers))
    return f"{numbers[0]} to {numbers[-1]}"


def progress_row(progress: "Progress") -> Table:
    """Return the line with the bar: how much is done, how long it will take, the best so far."""
    best, row = progress.best, Table.grid(padding=(0, 2), expand=True)
    row.add_column(ratio=1)
    for _ in range(3):
        row.add_column(no_wrap=True)
    row.add_row(
        ProgressBar(total=1.0, completed=progress.share),
        f"{progress.evaluated}/{progress.evaluations} networks",
        time_left(progress.seconds_left),
        f"best {best.metric:.1%}, {best.average_macs:,.0f} MACs" if best else "none admissible yet",
    )
    return row


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


def show_plan(plan: "Plan | Retraining", stream: TextIO | None = None) -> None:
    """Print what a search is about to do to `stream` or standard error, also where that is no terminal."""
    tell(*plan.lines(), to=stream or sys.stderr)


def show_result(
    result: SearchResult, stream: TextIO | None = None, *, pick: str | None = None, every: bool = False
) -> None:
    """Print the front of `result`, or what came closest, to `stream` or standard output.

    Of each network the rows of SETTINGS are shown, or one of them (`pick`), or `every` one.
    """
    console = output(stream or sys.stdout, NARROWEST)
    if result.front:
        chosen = result.settings if pick is None else [{pick: rows[pick]} for rows in result.settings]
        named = setting_names(chosen)
        shown = [row for row in result.front if every or row.solution in named]
        console.print(*front_table(shown, named), "", sep="\n")
        console.print(*shown_sentences(result, len(shown)), sep="\n")
    else:
        console.print(closest_sentence(result), style="bold")
    console.print(*summary(result), sep="\n")
    if result.retrained is not None:
        console.print("", *gain_lines(result.retrained), sep="\n")


def front_table(front: Iterable[Network], named: Mapping[int, str]) -> Iterator[Table | Text]:
    """Yield the headings, then for each network a line about it and a table of its rows."""
    networks = [(rows, [front_cells(row, named) for row in rows]) for rows in by_network(front).values()]
    balanced = any(row.balanced_accuracy is not None for rows, _ in networks for row in rows)
    of = "balanced" if balanced else ""
    heads = [
        ("", "", of, "average", f"test {of}".strip(), "test", ""),
        ("k", "setting", "accuracy", "MACs", "accuracy (95%)", "MACs", "leave after stage"),
    ]
    widths = [
        max(map(len, column)) for column in zip(*heads, *chain(*(lines for _, lines in networks)), strict=True)
    ]

    def grid(rows: Iterable[Sequence[str]]) -> Table:
        made = Table.grid(padding=(0, 1, 0, 0))
        for place, width in enumerate(widths[:-1]):
            made.add_column(width=width, justify="left" if place == 1 else "right", no_wrap=True)
        made.add_column(style="cyan")
        for row in rows:
            made.add_row(*row)
        return made

    yield grid(heads)
    for rows, lines in networks:
        yield Text(f"\n{network_line(rows[0])}", style="bold")
        yield grid(lines)


def network_line(row: Network) -> str:
    """Return what holds for a network under all thresholds."""
    costs = " ".join(f"{stage}:{cost:,}" for stage, cost in zip(row.exits, row.exit_costs, strict=True))
    trial = row.evaluation.trial
    longer = f", {trial.effort} x the epochs" if trial.effort > 1 else ""
    longer += f", training {trial.repeat + 1}" if trial.repeat else ""
    return f"{some(row.params, 'parameter')}{longer}; MACs after stage {costs}"


def front_cells(row: Network, named: Mapping[int, str]) -> tuple[str, ...]:
    """Return what stands in a row of the table; a mark behind each test figure that misses its limit."""
    limits = row.limits.on(row.test)
    right, spent = row.test.score >= limits.least_correct, limits.affordable(row.test)
    marks = " " if right else MISSED, " " if spent else MISSED
    return cells(row, named.get(row.solution, ""), exit_shares(row), marks)


def exit_shares(row: Network) -> str:
    """Return where samples of the validation split leave, such as "1:81% 2:10% 4:9%" (stage:share)."""
    pairs = zip(row.exits, row.exit_counts, strict=True)
    return " ".join(f"{stage}:{share(count, row.samples)}" for stage, count in pairs)


def share(count: int, total: int) -> str:
    """Return `count` of `total` in whole per cent; "<1%" and ">99%" keep some from reading as none or all.

    >>> share(1, 3), share(0, 3), share(1, 1000), share(999, 1000)
    ('33%', '0%', '<1%', '>99%')
    """
    percent = 100 * count / total
    if 0 < percent < 1:
        return "<1%"
    return ">99%" if 99 < percent < 100 else f"{percent:.0f}%"


def shown_sentences(result: SearchResult, shown: int) -> Iterator[str]:
    """Yield how many solutions there are, of which some are `shown`, and how many miss a limit."""
    rows, networks = len(result.front), len(by_network(result.front))
    part = f"; {shown} {'is' if shown == 1 else 'are'} shown, show --all lists every one" if shown < rows else ""
    yield f"{some(rows, 'solution')} of {some(networks, 'network')}{part}."
    if missed := sum(not row.test.kept for row in result.front):
        yield f"{missed} of {rows} miss{'es' if missed == 1 else ''} a limit on the test images, marked {MISSED}."


def closest_sentence(result: SearchResult) -> str:
    """Return why a search whose front is empty found nothing, and which candidate came closest to the limits."""
    accuracy = "accuracy" if result.metric == "accuracy" else "balanced accuracy"
    given = [f"{accuracy} >= {result.limits.min_accuracy}"] if result.limits.min_accuracy else []
    given += [f"<= {result.limits.max_macs:,} average MACs"] if result.limits.max_macs is not None else []
    limits = " at ".join(given) or "no limits"
    if result.guarantee is not None:
        limits += f", guaranteed with probability {result.guarantee}"
    if result.margin:
        limits += f", both by a margin of {result.margin}"
    begun = result.inadmissible is not None  # by this search, and not read from a folder
    if result.closest is None and not result.failed and (result.unfinished or not begun):
        return f"No network is trained yet ({limits})."
    if result.closest is None:
        return f"No admissible solution ({limits}): no network could be evaluated, {causes(result)}."
    closest = result.closest
    lack, samples = "", closest.samples
    if result.guarantee is not None:
        needed = fewest_samples(min(result.limits.min_accuracy + result.margin, 1.0), level_of(result.guarantee))
        if needed is None:
            lack = " No number of images can guarantee an accuracy of 1."
        elif samples < needed:
            lack = f" Such a guarantee takes at least {needed:,} images that chose nothing; there are {samples:,}."
    both = "" if closest.point.calibration is None else " Both halves of the validation split must keep them."
    best, share = result.best_accuracy, result.largest_class
    reached = "" if best is None else f" The best {accuracy} at any cost is {best:.4f}."
    reached += "" if share is None or result.metric != "accuracy" else f" The largest class's share is {share:.4f}."
    return (
        f"No admissible solution ({limits}): the closest of {some(result.evaluated, 'network')} has {accuracy} "
        f"{closest.metric:.4f} at {closest.average_macs:,.0f} average MACs.{both}{reached}{lack}"
    )


def causes(result: SearchResult) -> str:
    """Return how many candidates were lost and how, as in "2 failed (2 diverged, ...); 31 ruled out untrained"."""
    counts = ", ".join(f"{count} {CAUSES[cause]}" for cause, count in result.failures.items())
    why = f" ({counts}; the first: {result.failure}; --retry-failed trains again)" if counts else ""
    untrained = "" if result.inadmissible is None else f"; {result.inadmissible:,} ruled out untrained"
    return f"{result.failed} failed{why}{untrained}"


def summary(result: SearchResult) -> list[str]:
    """Return the lines under the table: hypervolume, what the search took, where the run lies."""
    error, macs = result.reference
    admissible, every = (area / (error * macs) for area in (result.hypervolume_admissible, result.hypervolume_all))
    lines = [
        f"Hypervolume (of error {error:g} x {macs:,} MACs): admissible {admissible:.4f}, all {every:.4f}.",
        f"{result.evaluated:,} evaluated ({result.reused} reused), {result.admissible} admissible, "
        f"{causes(result)}.",
        *result.warnings,
    ]
    if result.table is not None:
        name, limit, seed = (result.table[key] for key in ("name", "trained_with_max_macs", "trained_with_seed"))
        trained = f"(trained with max_macs {limit}, seed {seed}), nothing was trained."
        lines.append(f"Answered from table {name} {trained}")
    if result.unfinished:
        left = some(result.unfinished, "network")
        lines.append(f"The time was up before {left} could begin. The same command continues.")
    use = " (predict, export, retrain and macs take a row as RUN#k)" if result.front else ""
    return [*lines, f"Run: {result.run}{use}"]


def gain_lines(retrained: Retrained) -> Iterator[str | Table]:
    """Yield a heading, a table with a row for each training, and what the intervals show."""
    yield f"{_heading(retrained)}:"
    rows: list[tuple[str, ...]] = [("before", "", *_shown(retrained.before), "")]
    for number, each in enumerate(retrained.trainings, 1):
        macs, test_macs, accuracy = _shown(each)
        solution = "-" if each.solution is None else str(each.solution)
        accuracy += "" if each.kept else " !"
        rows.append((str(number), solution, macs, test_macs, accuracy, gain_text(each.gain)))
    if len(retrained.trainings) > 1:
        rows.append(("mean", "", "", "", "", gain_text(retrained.mean)))
    heads = "training", "k", "average\nMACs", "test\nMACs", "test\naccuracy", "gain in points (95%)"
    yield table(heads, "rrrrrr", rows, gap=1)
    yield ""
    yield f"{VERDICTS[retrained.verdict]} The intervals are over test images."


def gain_sentence(retrained: Retrained) -> str:
    """Return what was gained in short."""
    trainings = some(len(retrained.trainings), "training")
    gain = f"{gain_text(retrained.mean)} points of test accuracy in the mean of {trainings}"
    return f"{_heading(retrained)}: {gain}. {VERDICTS[retrained.verdict]}"


def _heading(retrained: Retrained) -> str:
    had = some(retrained.epochs_before, "epoch")
    return f"{retrained.of} after {had}, and trained again for {retrained.epochs:,}"


def _shown(row: Measured) -> tuple[str, str, str]:
    return f"{round(row.average_macs):,}", f"{round(row.test_average_macs):,}", f"{row.test_accuracy:.1%}"


def gain_text(gain: Gain) -> str:
    """Return a gain in points with its interval.

    >>> gain_text(Gain(0.0123, (-0.001, 0.026)))
    '+1.23 (-0.10 to +2.60)'
    """
    low, high = gain.interval95
    return f"{100 * gain.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
