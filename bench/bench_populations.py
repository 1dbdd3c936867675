"""Exact costs of random genomes by tables, beside counting them one by one, on one core.

    python bench/bench_populations.py [--json] [--genomes 1000000] [--spaces tiny,flex8]

Both give the MACs of every exit, the parameters, the peak of the activations, and which genomes keep the limits;
the first genomes are compared, integer for integer. Tables and counting take turns and the best of the rounds
counts. Tables are built with nothing counted before; counting starts with every part counted and remembered, as in
a long search. The limits on MACs and parameters are medians, so that most of the genomes are ruled out.
"""

import json as json_format
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from fire import Fire

from nachos_min.eenn.lowering import part_cost
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.populations import CostTables, PopulationCosts, count_each
from nachos_min.nas.space import load_space

ROUNDS = 5
COUNTED = 3000  # genomes counted one by one
IMAGES = {"flex16": (16, 16, 1), "flex32": (32, 32, 3), "ofa-mbv3": (32, 32, 3)}  # of the other spaces: the digits'
CLASSES = 10

# NumPy's libraries read these once, when they are loaded.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def seconds(task: Callable[[], Any]) -> float:
    """Return the seconds that `task` takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    described = Path("/proc/cpuinfo")
    names = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    models = [line.partition(":")[2].strip() for line in names if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def same(ours: PopulationCosts, theirs: PopulationCosts) -> bool:
    """Return whether all arrays are equal."""
    pairs = ((getattr(ours, field.name), getattr(theirs, field.name)) for field in fields(PopulationCosts))
    return all(np.array_equal(*pair) for pair in pairs)


def measured(name: str, n: int) -> dict[str, Any]:
    """Return the figures of `n` random genomes of one space."""
    coder = GenomeCoder(load_space(name), IMAGES.get(name, (8, 8, 1)), CLASSES)
    genomes = np.random.default_rng(0).integers(0, coder.upper, (n, coder.length), endpoint=True)
    few = genomes[:COUNTED]
    part_cost.cache_clear()
    start = time.perf_counter()
    tables = CostTables(coder)
    building = time.perf_counter() - start
    counted = count_each(coder, few)
    limits = Limits(int(np.median(counted.cheapest)), 0.9, max_params=int(np.median(counted.params)))
    by_table, by_count = [], []
    for _ in range(ROUNDS):
        by_table.append(seconds(lambda: limits.exceeded(tables.costs(genomes))))
        by_count.append(seconds(lambda: limits.exceeded(count_each(coder, few))))
    fast, slow = n / min(by_table), len(few) / min(by_count)
    return {
        "space": name,
        "genes": coder.length,
        "genomes": n,
        "build_seconds": building,
        "genomes_per_second": fast,
        "one_by_one_per_second": slow,
        "times_faster": fast / slow,
        "equal": same(tables.costs(few), counted),
    }


def main(
    genomes: int = 1_000_000, spaces: str | tuple[str, ...] = "micro,tiny,flex8,flex32,ofa-mbv3", json: bool = False
) -> None:
    """Print genomes counted per second, as a table or as one JSON object.

    Args:
        genomes: random genomes of each space.
        spaces: comma-separated names of shipped spaces.
        json: print JSON.
    """
    names = spaces.split(",") if isinstance(spaces, str) else spaces  # Fire makes a tuple of a,b
    rows = [measured(name, genomes) for name in names]
    if json:
        print(json_format.dumps({"machine": machine(), "cores": 1, "populations": rows}))
        return
    print(f"one core; {', '.join(f'{key} {value}' for key, value in machine().items())}")
    print(
        f"{'space':10}{'genes':>6}{'tables built':>14}{'genomes/s':>13}{'one by one/s':>14}{'times':>7}{'equal':>7}"
    )
    for row in rows:
        print(
            f"{row['space']:10}{row['genes']:6}{row['build_seconds'] * 1e3:11.1f} ms"
            f"{row['genomes_per_second']:13,.0f}{row['one_by_one_per_second']:14,.0f}"
            f"{row['times_faster']:7,.0f}{'yes' if row['equal'] else 'NO':>7}"
        )


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    Fire(main)
