"""The true admissible front of a table for any limits, and what exact thresholds gain over grid-repair on it.

    python bench/table_front.py bench/micro-digits.h5
    python bench/table_front.py bench/micro-digits.h5 --max-macs 30000 --min-accuracy 0.95 --points best
    python bench/table_front.py bench/micro-digits.h5 --thresholds

Every member with early exits chooses its thresholds for the limits, exactly as in a search; the front is of those
that keep the limits on validation. `--thresholds` lets every training of every member choose twice, by the best
thresholds and by the paper's grid and repair, and compares the two on the same tables.
"""

import json as json_format
from typing import Any

from fire import Fire
from measuring import on_threads, show


def front(
    path: str, max_macs: int | None, min_accuracy: float, seed: int, points: str
) -> tuple[dict[str, Any], Any]:
    """Return the figures of the front in all, and one row a network."""
    from asked import of_table
    from tabulation import archive_of

    from nachos_min.nas.configuration import load_problem
    from nachos_min.nas.tabular import read_table

    table = read_table(path)
    problem = load_problem(of_table(table, max_macs, min_accuracy, seed, points=points))
    archive = archive_of(table, problem)
    admissible = archive.admissible
    hypervolume, (error, macs) = archive.hypervolume(admissible), archive.reference
    facts = {
        "table": table.name,
        "members": len(archive.evaluations),
        "admissible": len({found.genome for found in admissible}),
        "hypervolume": hypervolume,
        "share": hypervolume / (error * macs),
        "reference": list(archive.reference),
    }
    rows = [
        {
            "genome": "".join(map(str, found.genome)),
            "exits": "-".join(map(str, found.exits)),
            "accuracy": found.point.validation.accuracy,
            "average MACs": found.point.validation.average_macs,
            "test accuracy": found.test.accuracy,
            "test MACs": found.test.average_macs,
        }
        for found in archive.front(admissible)
    ]
    return facts, rows


def compare_thresholds(path: str, max_macs: int | None, min_accuracy: float) -> list[dict[str, Any]]:
    """Return one row a training: how often exact thresholds are better than grid-repair, and by how much."""
    import numpy as np
    from intervals import mean_interval

    from nachos_min.eenn.confidence import LEARNED
    from nachos_min.eenn.threshold_search import best_thresholds, grid_repair
    from nachos_min.eenn.thresholds import preference, split_limits
    from nachos_min.nas.tabular import read_table

    table, rows = read_table(path), []
    for training, seed in enumerate(table.about["seeds"]):
        keys, accuracy, macs, kept = [], [], [], []
        for member in table.members.values():
            stages = (np.flatnonzero(table.exit_costs[member]) + 1).tolist()
            if len(stages) == 1:
                continue
            tables = table.splits["validation"].tables(member, training, stages, LEARNED)
            costs = tuple(int(table.exit_costs[member, stage - 1]) for stage in stages)
            policy = tables.policy_tables(table.splits["validation"].labels, costs)
            limits = split_limits(max_macs, min_accuracy, policy.samples)
            best, paper = both = [choose(policy, limits).figures for choose in (best_thresholds, grid_repair)]
            keys.append([preference(each, limits) for each in both])
            kept.append([limits.affordable(each) for each in both])
            if all(kept[-1]):
                accuracy.append((best.correct - paper.correct) / best.samples)
                macs.append((best.total_macs - paper.total_macs) / best.samples)
        rows.append(
            {
                "seed": seed,
                "members": len(keys),
                "better": sum(best > paper for best, paper in keys),
                "equal": sum(best == paper for best, paper in keys),
                "worse": sum(best < paper for best, paper in keys),
                "within MACs": sum(best for best, _ in kept),
                "grid-repair": sum(paper for _, paper in kept),
                "points gained": mean_interval(accuracy).text(2, 100, "+"),
                "MACs more": mean_interval(macs).text(0, 1, "+"),
            }
        )
    return rows


def main(
    table: str,
    max_macs: int | None = 40_000,
    min_accuracy: float = 0.9,
    seed: int = 0,
    points: str = "curve",
    thresholds: bool = False,
    json: bool = False,
) -> None:
    """Print the front; with --json one JSON object.

    Args:
        table: the file.
        max_macs: limit on average MACs.
        min_accuracy: limit on accuracy.
        seed: run seed, which decides the training.
        points: curve or best, as of `search`.
        thresholds: compare exact thresholds with grid-repair instead.
        json: print JSON.
    """
    on_threads(1)
    if thresholds:
        facts, rows = {"table": table}, compare_thresholds(table, max_macs, min_accuracy)
    else:
        facts, rows = front(table, max_macs, min_accuracy, seed, points)
    if json:
        print(json_format.dumps(facts | {"rows": rows}))
    else:
        show(facts, rows)


if __name__ == "__main__":
    Fire(main)
