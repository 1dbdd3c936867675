"""What the peak term does: accuracy at equal MACs of the same networks, trained with it and without.

    python bench/bench_peak.py                                    # digits, micro: ten networks, ten seeds
    python bench/bench_peak.py --data digits32 --space small32 --max-macs 450000 --networks 3

Random networks are trained twice from the same backbone, with the peak term (gamma 1) and without (0). Each
training is a curve of accuracy against average MACs over all thresholds worth choosing on validation; the two are
compared at equal MACs, on validation and with the same thresholds on test. A figure is the mean over seeds of the
mean over networks; differences are paired. Read `bench_beta.py` first, where the networks come from.
"""

import json as json_format
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_beta import genomes, problem_of
from fire import Fire
from measuring import machine, on_threads, show

GAMMAS = (0.0, 1.0)
SPLITS = ("validation", "test")


def gains(data: str, space: str, max_macs: int, genome: Any, seed: int) -> list[float | None]:
    """Return how much more accurate one network is with the peak term at equal MACs, on validation and on test."""
    from intervals import gain_at_equal_macs

    from nachos_min.eenn.inference import exit_answers
    from nachos_min.eenn.lowering import static_costs
    from nachos_min.eenn.threshold_search import threshold_curve
    from nachos_min.eenn.thresholds import SplitLimits
    from nachos_min.nas.evaluate import Backbones, as_seen, train

    problem = problem_of(data, space, max_macs)
    settings = replace(problem.configuration, seed=seed, points="curve").acting
    curves: list[list[list[tuple[float, float]]]] = []
    with TemporaryDirectory(prefix="nachos_min-bench-") as folder:
        for gamma in GAMMAS:
            asked = replace(settings, recipe=replace(settings.recipe, gamma=gamma))
            network, _ = train(problem.coder, problem.dataset, asked, genome, Backbones(Path(folder)))
            seen = [as_seen(getattr(problem.dataset, split), network) for split in SPLITS]
            costs = static_costs(network.architecture).exit_costs
            tables = [exit_answers(network, one.images).tables() for one in seen]
            validation, test = [
                each.policy_tables(one.labels, costs) for each, one in zip(tables, seen, strict=True)
            ]
            points = threshold_curve(validation, SplitLimits(0, None))  # the whole curve; training had the budget
            figures = [point.figures for point in points], [test.figures(point.thresholds) for point in points]
            curves.append([[(m.average_macs, m.accuracy) for m in split] for split in figures])
    without, with_peak = curves
    return [gain_at_equal_macs(*each) for each in zip(with_peak, without, strict=True)]


def main(
    data: str = "digits",
    space: str = "micro",
    max_macs: int = 25_000,
    networks: int = 10,
    seeds: int = 10,
    workers: int = 2,
    json: bool = False,
) -> None:
    """Print the gain in accuracy at equal MACs; with --json one JSON object.

    Args:
        data: name or file.
        space: name or file.
        max_macs: the budget that the cost term compares with.
        networks: random networks trained with each seed.
        seeds: 0, 1, ...
        workers: processes that train.
        json: print JSON.
    """
    on_threads(1)
    import numpy as np
    from intervals import mean_interval

    from nachos_min.nas.pools import leave_with_parent

    chosen = genomes(data, space, max_macs, networks)
    asked = [(data, space, max_macs, genome, seed) for seed in range(seeds) for genome in chosen]
    found = []
    with ProcessPoolExecutor(workers, get_context("spawn"), leave_with_parent) as pool:
        for answer in pool.map(gains, *zip(*asked, strict=True)):
            found.append([np.nan if gain is None else gain for gain in answer])
            print(f"{len(found)} of {len(asked)} networks and seeds", file=sys.stderr)
    by_seed = np.nanmean(np.array(found).reshape(seeds, len(chosen), len(SPLITS)), axis=1)
    intervals = {split: mean_interval(by_seed[:, place].tolist()) for place, split in enumerate(SPLITS)}
    facts = machine(1)
    if json:
        print(json_format.dumps({"machine": facts, "data": data, "gain": intervals}, default=vars))
        return
    line: dict[str, Any] = {"data": data, "networks": len(chosen), "seeds": seeds}
    line |= {f"points at equal MACs, {split}": each.text(2, 100, "+") for split, each in intervals.items()}
    show(facts, [line])


if __name__ == "__main__":
    Fire(main)
