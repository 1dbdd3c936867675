"""The result of a search for people: a table of the front, then what it took and where it lies.

In a terminal the table fits 80 columns or uses the width there is; in a pipe every solution is one line,
without colours, and nothing is cut. Numbers here are rounded for reading; `search --json` gives them exactly.
Read `nas/result.py` for what a solution holds.
"""

import sys
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nachos_min.eenn.guarantee import fewest_samples
from nachos_min.nas.result import SearchResult, Solution, level_of
from nachos_min.report.console import output

MOST = 20  # solutions shown: a network's whole curve can have a hundred, each hardly different from the next
MISSED = " !"  # behind the test figures of a row that misses a limit on the test split
NARROWEST = 72  # columns the table needs; a narrower terminal wraps its lines instead of losing digits


def show_result(result: SearchResult, stream: TextIO | None = None) -> None:
    """Print the front of `result` as a table, or what came closest when no solution is admissible.

    Args:
        result: of a finished search.
        stream: where to; standard output unless given.
    """
    console = output(stream or sys.stdout, NARROWEST)
    if result.front:
        console.print(front_table(some_of(result.front)), "", sep="\n")
    else:
        console.print(closest_sentence(result), style="bold")
    console.print(summary(result))


def some_of(front: tuple[Solution, ...]) -> tuple[Solution, ...]:
    """Return at most MOST of the solutions that no other of `front` beats, evenly spaced from first to last."""
    best, chosen = float("inf"), []
    for solution in sorted(front, key=lambda row: (-row.accuracy, row.average_macs)):
        if solution.average_macs < best:
            best = solution.average_macs
            chosen.append(solution)
    front = tuple(chosen)
    if len(front) <= MOST:
        return front
    return tuple(front[round(place * (len(front) - 1) / (MOST - 1))] for place in range(MOST))


def front_table(front: tuple[Solution, ...]) -> Table:
    """Return the table of a front: one row per solution, most accurate first, as the front is ordered.

    Args:
        front: the admissible non-dominated solutions.

    Returns:
        A Rich table; printed at a small width, a cell that lists exits or an interval takes several lines.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("leave after stage", style="cyan", min_width=6)
    for heading in ("accuracy", "average\nMACs", "worst\nMACs", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("test accuracy (95%)", justify="right", style="bold", min_width=11)
    table.add_column("test\nMACs", justify="right", no_wrap=True)
    for solution in front:
        test = solution.test
        low, high = test.interval95
        table.add_row(
            str(solution.solution),
            exit_shares(solution),
            f"{solution.accuracy:.1%}",
            f"{round(solution.average_macs):,}",
            f"{solution.worst_macs:,}",
            f"{solution.params:,}",
            f"{test.accuracy:.1%} ({low * 100:.1f}-{high * 100:.1f}){'' if test.kept else MISSED}",
            f"{round(test.average_macs):,}",
        )
    return table


def exit_shares(solution: Solution) -> str:
    """Return where samples of the validation split leave, such as "1:81% 2:10% 4:9%" (stage:share)."""
    pairs = zip(solution.exits, solution.exit_counts, strict=True)
    return " ".join(f"{stage}:{share(count, solution.samples)}" for stage, count in pairs)


def share(count: int, total: int) -> str:
    """Return `count` of `total` in whole per cent; "<1%" and ">99%" keep some from reading as none or all.

    >>> share(1, 3), share(0, 3), share(1, 1000), share(999, 1000)
    ('33%', '0%', '<1%', '>99%')
    """
    percent = 100 * count / total
    if 0 < percent < 1:
        return "<1%"
    return ">99%" if 99 < percent < 100 else f"{percent:.0f}%"


def closest_sentence(result: SearchResult) -> str:
    """Return why a search found nothing admissible, and which candidate came closest to the limits.

    Args:
        result: of a search whose front is empty.

    Returns:
        One to three sentences on one line.
    """
    limits = f"accuracy >= {result.min_accuracy}"
    if result.max_macs is not None:
        limits += f" at <= {result.max_macs:,} average MACs"
    if result.guarantee is not None:
        limits += f", guaranteed with probability {result.guarantee}"
    if result.margin:
        limits += f", both by a margin of {result.margin}"
    if result.closest is None:
        return f"No admissible solution ({limits}): no network could be evaluated, {causes(result)}."
    closest = result.closest
    return (
        f"No admissible solution ({limits}): the closest of {result.evaluated} networks has accuracy "
        f"{closest.accuracy:.4f} at {closest.average_macs:,.0f} average MACs.{_samples_short(result, closest)}"
    )


def _samples_short(result: SearchResult, closest: Solution) -> str:
    """Return the sentence that too few images are left to certify any row on, or nothing."""
    if result.guarantee is None:
        return ""
    needed = fewest_samples(min(result.min_accuracy + result.margin, 1.0), level_of(result.guarantee))
    if needed is None:
        return " No number of images can guarantee an accuracy of 1."
    if closest.samples >= needed:
        return ""
    return f" Such a guarantee takes at least {needed:,} images that chose nothing; there are {closest.samples:,}."


def causes(result: SearchResult) -> str:
    """Return how many candidates were lost and how, as in "2 failed; 31 ruled out untrained"."""
    why = f" (the first: {' '.join(result.failure.split())})" if result.failure else ""
    untrained = "" if result.inadmissible is None else f"; {result.inadmissible:,} ruled out untrained"
    return f"{result.failed} failed{why}{untrained}"


def summary(result: SearchResult) -> str:
    """Return the lines under the table: hypervolume, what the search took, where the run lies.

    Args:
        result: of a search.

    Returns:
        Three lines; one more if solutions share networks, if rows miss a limit, and if a table answered.
    """
    networks = len({solution.genome for solution in result.front})
    shared = ""
    if networks < len(result.front):
        of = "one network" if networks == 1 else f"{networks} networks"
        shared = f"{len(result.front)} solutions: {of}, under different thresholds."
        shown = len(some_of(result.front))
        shared += f" {shown} are shown, --json lists all.\n" if shown < len(result.front) else "\n"
    missed = sum(not solution.test.kept for solution in result.front)
    if missed:
        shared += (
            f"{missed} of {len(result.front)} rows miss a limit on the test images; they are marked{MISSED}.\n"
        )
    error, macs = result.reference
    area = error * macs
    trained = ""
    if result.table is not None:
        name, limit, seed = (result.table[key] for key in ("name", "trained_with_max_macs", "trained_with_seed"))
        trained = f"Answered from table {name} (trained with max_macs {limit}, seed {seed}), nothing was trained.\n"
    return (
        f"{shared}"
        f"Hypervolume (of error {error:g} x {macs:,} MACs): "
        f"admissible {result.hypervolume_admissible / area:.4f}, all {result.hypervolume_all / area:.4f}.\n"
        f"{result.evaluated:,} evaluated ({result.reused} reused), {result.admissible} admissible, "
        f"{causes(result)}.\n"
        f"{trained}"
        f"Run: {result.run}"
    )
