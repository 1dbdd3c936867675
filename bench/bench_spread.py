"""Do members of a space differ by more than chance? The spread of fresh accuracy at equal MACs, beside its noise.

    python bench/bench_spread.py letters.npz --spaces small32,flex16 --max-macs 60000

Random members of a space are each trained twice, by the default recipe. Within a budget of average MACs a training
shows the point with the best figure on the validation split; its accuracy on the test split is what is compared:

    spread    standard deviation over members of the mean of both trainings, the noise left in it taken out
    noise     standard deviation of one training about the mean of its member
    tau       Kendall's, of the first trainings with the second
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fire import Fire
from measuring import on_threads


def main(
    data: str, spaces: Any = "small32,flex16", max_macs: int = 60_000, members: int = 24, workers: int = 2
) -> None:
    """Train, and print a table with a row for each space and budget.

    Args:
        data: a file with a test split that is large, such as `fresh_data.py` makes.
        spaces: whose members are drawn, comma-separated.
        max_macs: the largest of three budgets.
        members: drawn from each space.
        workers: processes that train.
    """
    on_threads(1)
    import numpy as np
    from measuring import machine, show

    from nachos_min.nas.configuration import FAR, Configuration, load_problem
    from nachos_min.nas.evaluation import Evaluation, Trial
    from nachos_min.nas.limits import Limits, StaticCheck
    from nachos_min.nas.sampling import random_genomes
    from nachos_min.nas.surrogates.surrogate import kendall_tau
    from nachos_min.nas.workers import Workers

    rows = []
    for space in spaces.split(",") if isinstance(spaces, str) else spaces:
        limits = Limits(max_macs, 0.0, FAR * max_macs)
        problem = load_problem(Configuration(data, space, limits, 0))
        genomes = random_genomes(StaticCheck(problem.coder, limits), members, np.random.default_rng(0))
        trials = [Trial(genome, 1, repeat) for genome in genomes for repeat in (0, 1)]
        settings = problem.configuration.acting
        with (
            TemporaryDirectory() as folder,
            Workers(workers, problem.coder, problem.dataset, settings, Path(folder)) as pool,
        ):
            trained = {each.trial: each for each in pool.evaluate(trials)}
        for budget in limits.budgets(max_macs):
            pairs = []
            for genome in genomes:
                both = [trained[Trial(genome, 1, repeat)] for repeat in (0, 1)]
                shown = [within(each, budget) for each in both if isinstance(each, Evaluation)]
                if len(shown) == 2 and None not in shown:
                    pairs.append(shown)
            if len(pairs) < 3:
                continue
            found = np.array(pairs, np.float64)
            noise = float(np.sqrt(((found[:, 0] - found[:, 1]) ** 2).mean() / 2))
            spread = float(np.sqrt(max(0.0, found.mean(axis=1).var(ddof=1) - noise**2 / 2)))
            rows.append(
                {
                    "space": space,
                    "budget": f"{budget:,.0f}",
                    "members": len(found),
                    "mean %": float(found.mean()),
                    "spread": spread,
                    "noise": noise,
                    "tau": kendall_tau(found[:, 0], found[:, 1]),
                }
            )
            print(rows[-1], file=sys.stderr)
    show(machine(1) | {"workers": workers, "of": os.path.basename(data)}, rows)


def within(found: Any, budget: float) -> float | None:
    """Return the fresh accuracy in % of the point that looks best within a budget, or None if none is within it."""
    points = [point for point in found.points if point.validation.average_macs <= budget]
    if not points:
        return None
    return 100 * float(max(points, key=lambda point: point.validation.accuracy).test.accuracy)


if __name__ == "__main__":
    Fire(main)
