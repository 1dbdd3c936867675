"""What stands under the table of a network that was trained again: what each training gained."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nachos_min.errors import some
from nachos_min.nas.gain import Gain, Measured, Retrained

VERDICTS = {
    "better": "Training it again made it better.",
    "worse": "Training it again made it worse.",
    "no difference": "That it became better is not shown, nor that it became worse.",
}


def gain_lines(retrained: Retrained) -> Iterator[str | Table]:
    """Yield a heading, a table with a row for each training, and what the intervals show."""
    yield f"{_heading(retrained)}:"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("training", "k", "average\nMACs", "test\nMACs", "test\naccuracy", "gain in points (95%)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("before", "", *_shown(retrained.before), "")
    for number, each in enumerate(retrained.trainings, 1):
        macs, test_macs, accuracy = _shown(each)
        solution = "-" if each.solution is None else str(each.solution)
        accuracy += "" if each.kept else " !"
        table.add_row(str(number), solution, macs, test_macs, accuracy, gain_text(each.gain))
    if len(retrained.trainings) > 1:
        table.add_row("mean", "", "", "", "", gain_text(retrained.mean))
    yield table
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
