"""What the cost term does: average MACs and accuracy of the same networks trained with different weights beta.

    python bench/bench_beta.py                             # digits, micro: three networks, ten seeds, five betas
    python bench/bench_beta.py --max-macs 30000 --seeds 3 --figures figures

A search chooses thresholds that use up the budget, whatever the loss taught; so here thresholds are not chosen but
fixed at one half, the same for all: a sample leaves where it has more likely than not left by the loss's own
probabilities. The same random networks are trained with the same seeds for every beta, so that differences are
paired. MACs and accuracy are of the validation split; a row gives the mean over seeds of the mean over networks.

The budget must bind: the term is 0 while a batch's expected MACs are within it. The first exits of the three
members of micro that are trained here cost 24,576 MACs and answer most digits, so that a budget of 40,000 is kept
without being asked for.
"""

import json as json_format
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fire import Fire
from measuring import machine, on_threads, show

HALF = 0.5


@lru_cache(maxsize=1)
def problem_of(data: str, space: str, max_macs: int) -> Any:
    """Return the problem of a search with seed 0, no limit on accuracy, and the data set's own recipe."""
    from asked import configuration

    from nachos_min.nas.configuration import load_problem

    return load_problem(configuration(data, space, max_macs))


def trained(data: str, space: str, max_macs: int, betas: list[float], genome: Any, seed: int) -> list[list[float]]:
    """Return (average MACs, accuracy) of one network for each beta; its backbone is trained once."""
    from nachos_min.eenn.inference import exit_answers
    from nachos_min.eenn.lowering import static_costs
    from nachos_min.nas.evaluate import Backbones, as_seen, train

    problem = problem_of(data, space, max_macs)
    settings = replace(problem.configuration, seed=seed).acting
    figures = []
    with TemporaryDirectory(prefix="nachos_min-bench-") as folder:
        for beta in betas:
            asked = replace(settings, recipe=replace(settings.recipe, beta=beta))
            network, _ = train(problem.coder, problem.dataset, asked, genome, Backbones(Path(folder)))
            split = as_seen(problem.dataset.validation, network)
            tables, costs = exit_answers(network, split.images).tables(), static_costs(network.architecture)
            policy = tables.policy_tables(split.labels, costs.exit_costs)
            found = policy.figures([HALF] * len(costs.exit_costs))
            figures.append([found.average_macs, found.accuracy])
    return figures


def genomes(data: str, space: str, max_macs: int, count: int) -> list[Any]:
    """Return random networks that can exceed the budget and need not: others do not feel the cost term."""
    import numpy as np

    from nachos_min.nas.limits import StaticCheck

    problem = problem_of(data, space, max_macs)
    check, found = StaticCheck(problem.coder, problem.configuration.limits), []
    for genome, admissible in check.drawn(np.random.default_rng(0)):
        costs, _ = check.population(np.array([genome]))
        if admissible and costs.worst_macs[0] > max_macs and genome not in found:
            found.append(genome)
        if len(found) == count:
            break
    return found


def main(
    data: str = "digits",
    space: str = "micro",
    max_macs: int = 25_000,
    betas: Any = (0.0, 0.5, 1.0, 2.0, 4.0),
    networks: int = 3,
    seeds: int = 10,
    workers: int = 2,
    figures: str = "",
    json: bool = False,
) -> None:
    """Print average MACs and accuracy for each beta; with --json one JSON object.

    Args:
        data: name or file.
        space: name or file.
        max_macs: the budget that the cost term compares with.
        betas: weights of the cost term; the first is the one that others are compared with.
        networks: random networks trained with each seed.
        seeds: 0, 1, ...
        workers: processes that train.
        figures: folder for macs-against-beta, PNG and SVG.
        json: print JSON.
    """
    on_threads(1)
    import numpy as np
    from intervals import mean_interval, paired_interval

    from nachos_min.nas.pools import leave_with_parent

    weights = [float(beta) for beta in (betas if isinstance(betas, tuple | list) else (betas,))]
    chosen = genomes(data, space, max_macs, networks)
    asked = [(data, space, max_macs, weights, genome, seed) for seed in range(seeds) for genome in chosen]
    found = []
    with ProcessPoolExecutor(workers, get_context("spawn"), leave_with_parent) as pool:
        for answer in pool.map(trained, *zip(*asked, strict=True)):
            found.append(answer)
            print(f"{len(found)} of {len(asked)} networks and seeds", file=sys.stderr)
    shape = (seeds, len(chosen), len(weights), 2)
    by_seed = np.array(found).reshape(shape).mean(axis=1)  # seeds x betas x (MACs, accuracy)
    rows = []
    for place, beta in enumerate(weights):
        macs, accuracy = by_seed[:, place].T.tolist()
        row = {"beta": beta, "macs": mean_interval(macs), "accuracy": mean_interval(accuracy)}
        base_macs, base_accuracy = by_seed[:, 0].T.tolist()
        row |= {"fewer": paired_interval(macs, base_macs), "given up": paired_interval(accuracy, base_accuracy)}
        rows.append(row)
    if figures:
        from method_figures import against_beta, saved

        Path(figures).mkdir(parents=True, exist_ok=True)
        saved(against_beta(rows), Path(figures) / "macs-against-beta")
    facts = machine(1)
    if json:
        print(json_format.dumps({"machine": facts, "rows": rows}, default=vars))
        return
    printed = [
        {
            "beta": row["beta"],
            "average MACs": row["macs"].text(0),
            f"against beta {weights[0]}": row["fewer"].text(0, sign="+"),
            "accuracy %": row["accuracy"].text(2, 100),
            "points": row["given up"].text(2, 100, "+"),
        }
        for row in rows
    ]
    show(facts, printed)


if __name__ == "__main__":
    Fire(main)
