"""What stands under the table of a network that was trained again: what each training gained."""

from collections.abc import Iterator

from rich.table import Table

from nachos_min.errors import some
from nachos_min.nas.gain import Gain, Measured, Retrained
from nachos_min.report.console import table

VERDICTS = {
    "better": "Training it again made it better.",
    "worse": "Training it again made it worse.",
    "no difference": "That it became better is not shown, nor that it became worse.",
}


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
