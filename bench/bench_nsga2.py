"""Hypervolume and speed of NSGA-II, beside pymoo's when it is installed.

    python bench/bench_nsga2.py [--json] [--seeds 10] [--problems ZDT1,OSY]

The first table is the median hypervolume over the seeds (100 genomes, 250 generations: 25,000 evaluations); with
--seeds 0 it is left out. The second is the milliseconds of a non-dominated sort, of crowding distances and of a
whole generation; ours and pymoo's take turns and the best of the rounds counts, so that a busy machine slows both.
`random` points have many fronts, `layers` about ten, those on a `front` one. A generation is a run's time over its
number of generations; the objectives are the same vectorised NumPy on both sides.

There are two peers in sorting. `pymoo` is its NonDominatedSorting as it comes, which in 0.6.2 calls the C library
moocore whatever its `method` says; `deb` is the fast non-dominated sort that this argument names, compiled by
pymoo.
"""

import json as json_format
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from fire import Fire
from measuring import best_of_rounds, machine, show
from problems import PROBLEMS, Problem

from nachos_kernels.dominance import crowding_distance, non_dominated_ranks
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.nsga2 import minimize

try:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.functions import is_compiled, load_function
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
    from pymoo.optimize import minimize as pymoo_minimize
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    HAS_PYMOO = True
except ImportError:
    HAS_PYMOO = False

POPULATION, GENERATIONS = 100, 250
ALL = ",".join(problem.name for problem in PROBLEMS)


def ours(problem: Problem, seed: int, generations: int = GENERATIONS, population: int = POPULATION) -> np.ndarray:
    """Return the front found by this project."""
    return minimize(
        problem.evaluate,
        lower=problem.lower,
        upper=problem.upper,
        n_objectives=len(problem.reference),
        n_constraints=problem.constraints,
        population=population,
        generations=generations,
        seed=seed,
    ).F


def pymoos(problem: Problem, seed: int, generations: int = GENERATIONS, population: int = POPULATION) -> np.ndarray:
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
    found = pymoo_minimize(wrapped, NSGA2(pop_size=population), ("n_gen", generations), seed=seed)
    return np.empty((0, len(problem.reference))) if found.F is None else np.atleast_2d(found.F)


def hypervolumes(solve: Callable[[Problem, int], np.ndarray], problem: Problem, seeds: int) -> dict[str, float]:
    """Return median, smallest and largest hypervolume over the seeds."""
    values = [hypervolume(solve(problem, seed), problem.reference) for seed in range(seeds)]
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def points(kind: str, n: int, objectives: int) -> np.ndarray:
    """Return random points; on a sphere nobody dominates anybody, on ten spheres there are about ten fronts."""
    rng = np.random.default_rng(0)
    F = rng.random((n, objectives))
    if kind != "random":
        F /= np.linalg.norm(F, axis=1, keepdims=True)
    if kind == "layers":
        F *= 1 + 0.1 * rng.integers(0, 10, (n, 1))
    return F


def row(what: str, n: int, objectives: int, tasks: dict[str, Callable[[], Any]], parts: int = 1) -> dict[str, Any]:
    """Return the milliseconds of each task, best of as many rounds as two seconds have room for, 3 to 50."""
    begin = time.perf_counter()
    for task in tasks.values():
        task()
    rounds = int(np.clip(2.0 / (time.perf_counter() - begin), 3, 50))
    best = best_of_rounds(tasks, rounds, warm=1)
    seconds = {name: best[name] / parts if name in best else None for name in ("ours", "pymoo", "deb")}
    return {
        "what": what,
        "n": n,
        "objectives": objectives,
        "ms": seconds["ours"] * 1e3,
        "pymoo_ms": seconds["pymoo"] and seconds["pymoo"] * 1e3,
        "times": seconds["pymoo"] and seconds["pymoo"] / seconds["ours"],
        "deb_ms": seconds["deb"] and seconds["deb"] * 1e3,
        "times_deb": seconds["deb"] and seconds["deb"] / seconds["ours"],
    }


def speeds() -> list[dict[str, Any]]:
    """Return the time of each part, ours and (with pymoo) theirs."""
    rows = []
    sizes = [(n, objectives) for n in (100, 1000, 10_000) for objectives in (2, 3)]
    for n, objectives in sizes:
        for kind in ("random", "layers", "front"):
            F, free = points(kind, n, objectives), np.zeros(n)
            tasks: dict[str, Callable[[], Any]] = {"ours": partial(non_dominated_ranks, F, free)}
            if HAS_PYMOO:
                tasks["pymoo"] = partial(NonDominatedSorting().do, F)
                tasks["deb"] = partial(load_function("fast_non_dominated_sort"), F)
            rows.append(row(f"sort, {kind}", n, objectives, tasks))
    for n, objectives in sizes:
        F, one_front = points("front", n, objectives), np.zeros(n, dtype=np.int64)
        tasks = {"ours": partial(crowding_distance, F, one_front)}
        if HAS_PYMOO:
            tasks["pymoo"] = partial(get_crowding_function("cd").do, F)
        rows.append(row("crowding", n, objectives, tasks))
    by_objectives = {2: PROBLEMS[0], 3: PROBLEMS[-1]}
    for n, objectives in sizes:
        generations = {100: 50, 1000: 20, 10_000: 4}[n]
        problem = by_objectives[objectives]
        tasks = {"ours": partial(ours, problem, 0, generations, n)}
        if HAS_PYMOO:
            tasks["pymoo"] = partial(pymoos, problem, 0, generations, n)
        rows.append(row(f"generation, {problem.name}", n, objectives, tasks, generations))
    return rows


def main(seeds: int = 10, problems: str | tuple[str, ...] = ALL, json: bool = False) -> None:
    """Print hypervolumes over seeds, and speeds, as tables or as one JSON object.

    Args:
        seeds: runs per problem.
        problems: comma-separated names.
        json: print JSON.
    """
    names = problems.split(",") if isinstance(problems, str) else problems  # Fire makes a tuple of a,b

    facts = machine(threads=1)  # nothing here multiplies matrices, so that no library starts more
    if HAS_PYMOO:
        facts |= {"pymoo": version("pymoo"), "pymoo compiled": is_compiled()}
        facts |= {"moocore": version("moocore") if find_spec("moocore") else None}
    table = []
    for problem in (p for p in PROBLEMS if p.name in names and seeds):
        found = hypervolumes(ours, problem, seeds)
        theirs = hypervolumes(pymoos, problem, seeds)["median"] if HAS_PYMOO else None
        reached = found["median"] >= problem.target
        table.append(
            {"problem": problem.name, **found, "target": problem.target, "reached": reached, "pymoo": theirs}
        )
    timing = speeds()
    if json:
        print(json_format.dumps({"machine": facts, "hypervolume": table, "speed": timing}))
        return
    show(
        facts, [{key: f"{each:.6g}" if isinstance(each, float) else each for key, each in r.items()} for r in table]
    )
    print()
    show({}, timing)


if __name__ == "__main__":
    Fire(main)
