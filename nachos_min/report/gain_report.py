"""What stands under the table of a network that was trained again: what each training gained."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nachos_min.errors import some
from nachos_min.nas.gain import Gain, Retrained

VERDICTS = {
    "better": "Training it again made it better.",
    "worse": "Training it again made it worse.",
    "no difference": "That it became better is not shown, nor that it became worse.",
}


def gain_lines(retrained: Retrained) -> Iterator[str | Table]:
    """Yield a heading, a table with a row for each training, and what the intervals show."""
    before = retrained.before
    yield f"{before['of']} after {some(before['epochs'], 'epoch')}, and trained again for {retrained.epochs:,}:"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("training", "#", "average\nMACs", "test\nMACs", "test\naccuracy", "gain in points (95%)"):
        table.add_column(heading, justify="right", no_wrap=True)
    macs = f"{round(before['shown_macs']):,}", f"{round(before['average_macs']):,}"
    table.add_row("before", "", *macs, f"{before['accuracy']:.1%}", "")
    for number, each in enumerate(retrained.trainings, 1):
        row, solution = each.network, "-" if each.solution is None else str(each.solution)
        macs = f"{round(row.average_macs):,}", f"{round(row.test.average_macs):,}"
        accuracy = f"{row.test.metric:.1%}{'' if each.kept and row.test.kept else ' !'}"
        table.add_row(str(number), solution, *macs, accuracy, gain_text(each.gain))
    if len(retrained.trainings) > 1:
        table.add_row("mean", "", "", "", "", gain_text(retrained.mean))
    yield table
    yield ""
    yield f"{VERDICTS[retrained.mean.verdict]} The intervals are over test images."


def gain_text(gain: Gain) -> str:
    """Return a gain in points with its interval.

    >>> gain_text(Gain(0.0123, (-0.001, 0.026)))
    '+1.23 (-0.10 to +2.60)'
    """
    low, high = gain.interval95
    return f"{100 * gain.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
