"""Hypervolume and speed of NSGA-II, beside pymoo's when it is installed.

    python bench/bench_nsga2.py [--json] [--seeds 10] [--problems ZDT1,OSY]

The first table is the median hypervolume over the seeds (100 genomes, 250 generations: 25,000 evaluations), the
second the time of a sort, a crowding distance and a whole generation; ours and pymoo's take turns and the best of
the rounds counts, so that a busy machine slows both.
"""

import json as json_format
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fire import Fire
from problems import PROBLEMS, Problem

from nachos_kernels.dominance import crowding_distance, non_dominated_ranks
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.nsga2 import minimize

try:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
    from pymoo.optimize import minimize as pymoo_minimize
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    HAS_PYMOO = True
except ImportError:
    HAS_PYMOO = False

POPULATION, GENERATIONS = 100, 250
ALL = ",".join(problem.name for problem in PROBLEMS)


def ours(problem: Problem, seed: int, generations: int = GENERATIONS) -> np.ndarray:
    """Return the front found by this project."""
    return minimize(
        problem.evaluate,
        lower=problem.lower,
        upper=problem.upper,
        n_objectives=len(problem.reference),
        n_constraints=problem.constraints,
        population=POPULATION,
        generations=generations,
        seed=seed,
    ).F


def pymoos(problem: Problem, seed: int, generations: int = GENERATIONS) -> np.ndarray:
    """Return the front found by pymoo's NSGA2 with its default operators on the same function."""

    class Wrapped(PymooProblem):
        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"], out["G"] = problem.evaluate(x)

    wrapped = Wrapped(
        n_var=len(problem.lower),
        n_obj=len(problem.reference),
        n_ieq_constr=problem.constraints,
        xl=np.array(problem.lower, dtype=float),
        xu=np.array(problem.upper, dtype=float),
    )
    found = pymoo_minimize(wrapped, NSGA2(pop_size=POPULATION), ("n_gen", generations), seed=seed)
    return np.empty((0, len(problem.reference))) if found.F is None else np.atleast_2d(found.F)


def hypervolumes(solve: Callable[[Problem, int], np.ndarray], problem: Problem, seeds: int) -> dict[str, float]:
    """Return median, smallest and largest hypervolume over the seeds."""
    values = [hypervolume(solve(problem, seed), problem.reference) for seed in range(seeds)]
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def best_of(rounds: int, *candidates: Callable[[], Any]) -> list[float]:
    """Return the best seconds of every candidate; they take turns, after one call each to warm up."""
    best = [np.inf] * len(candidates)
    for warm in range(rounds + 1):
        for i, candidate in enumerate(candidates):
            start = time.perf_counter()
            candidate()
            if warm:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def speeds() -> list[dict[str, Any]]:
    """Return the seconds of each part, ours and (with pymoo) theirs."""
    rng = np.random.default_rng(0)
    rows = []
    for objectives, n in ((2, 200), (3, 200), (2, 2000), (3, 2000)):
        F, free = rng.random((n, objectives)), np.zeros(n)
        one_front = np.zeros(n, dtype=np.int64)
        candidates: list[tuple[str, list[Callable[[], Any]]]] = [
            (f"sort {n} x {objectives}", [lambda F=F, free=free: non_dominated_ranks(F, free)]),
            (f"crowding {n} x {objectives}", [lambda F=F, front=one_front: crowding_distance(F, front)]),
        ]
        if HAS_PYMOO:
            candidates[0][1].append(lambda F=F: NonDominatedSorting().do(F))
            candidates[1][1].append(lambda F=F: get_crowding_function("cd").do(F))
        rows += [(name, best_of(20 if n < 1000 else 5, *pair), 1) for name, pair in candidates]
    zdt1 = PROBLEMS[0]
    runs = [lambda: ours(zdt1, 0, 50)] + ([lambda: pymoos(zdt1, 0, 50)] if HAS_PYMOO else [])
    rows.append(("generation of ZDT1", best_of(3, *runs), 50))
    return [
        {
            "what": name,
            "seconds": seconds[0] / parts,
            "pymoo_seconds": seconds[1] / parts if HAS_PYMOO else None,
            "times_faster": seconds[1] / seconds[0] if HAS_PYMOO else None,
        }
        for name, seconds, parts in rows
    ]


def main(seeds: int = 10, problems: str | tuple[str, ...] = ALL, json: bool = False) -> None:
    """Print hypervolumes over seeds, and speeds, as tables or as one JSON object.

    Args:
        seeds: runs per problem.
        problems: comma-separated names.
        json: print JSON.
    """
    names = problems.split(",") if isinstance(problems, str) else problems  # Fire makes a tuple of a,b

    table: list[dict[str, Any]] = []
    if not json:
        print(f"{'problem':8}{'median':>10}{'min':>10}{'max':>10}{'target':>10}{'reached':>9}{'pymoo median':>14}")
    for problem in (p for p in PROBLEMS if p.name in names):
        row = {"problem": problem.name, **hypervolumes(ours, problem, seeds), "target": problem.target}
        row["reached"] = row["median"] >= problem.target
        row["pymoo"] = hypervolumes(pymoos, problem, seeds) if HAS_PYMOO else None
        table.append(row)
        if not json:
            theirs = f"{row['pymoo']['median']:14.6g}" if row["pymoo"] else f"{'not installed':>14}"
            figures = "".join(f"{row[key]:10.6g}" for key in ("median", "min", "max", "target"))
            print(f"{problem.name:8}{figures}{'yes' if row['reached'] else 'NO':>9}{theirs}", flush=True)
    timing = speeds()
    if json:
        print(json_format.dumps({"hypervolume": table, "speed": timing}))
        return
    print(f"\n{'what':22}{'ours':>12}{'pymoo':>12}{'times faster':>14}")
    for row in timing:
        theirs = (
            f"{row['pymoo_seconds'] * 1e3:9.3f} ms{row['times_faster']:14.1f}"
            if HAS_PYMOO
            else f"{'-':>12}{'-':>14}"
        )
        print(f"{row['what']:22}{row['seconds'] * 1e3:9.3f} ms{theirs}")


if __name__ == "__main__":
    Fire(main)
