"""Searches for the method's benchmark: each is run once, measured, and kept as one line of a results file.

A run is known by what was asked for: the options of the search, its seed, and the table that answered. The
command that is given again, after a kill too, finds what is there and runs the rest. Read `bench_method.py` first.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One search: its options as `nachos_min.search` takes them, and the table that answers, if any."""

    options: Mapping[str, Any]
    table: str | None = None
    sha256: str | None = None

    @property
    def key(self) -> str:
        """What the run is known by in the results file."""
        return json.dumps({"options": dict(self.options), "table": self.sha256}, sort_keys=True)


class Results:
    """The runs in a results file, by their keys. A last line cut by a kill counts as not there."""

    def __init__(self, path: Path) -> None:
        """Read what is in the file; it is made with its folder if it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.records = path, dict[str, Record]()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.records[found["key"]] = found["record"]

    def add(self, key: str, record: Record) -> None:
        """Keep a record, on the disk first."""
        with open(self.path, "a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END) is not None) and file.read(1) != b"\n":
                file.write(b"\n")  # behind a line that was cut
            file.write(json.dumps({"key": key, "record": record}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[key] = record


def run(job: Job, workers: int = 1) -> Record:
    """Return the figures of one search: hypervolume after every evaluation, and the front it returned."""
    import nachos_min
    from nachos_min.nas import nachos
    from nachos_min.nas.result import Archive, result_of

    kept: list[Archive] = []

    def watched(archive: Archive, *others: Any, **named: Any) -> Any:
        kept.append(archive)
        return result_of(archive, *others, **named)

    nachos.result_of = watched  # the archive knows the order of the evaluations, the result does not
    begin = time.perf_counter()
    try:
        with TemporaryDirectory(prefix="nachos_min-bench-") as folder:
            table = {} if job.table is None else {"table": job.table}
            found = nachos_min.search(**job.options, **table, workers=workers, out=Path(folder) / "run")
    finally:
        nachos.result_of = result_of
    seconds = time.perf_counter() - begin
    (archive,) = kept
    return {
        "seconds": seconds,
        "truth": None if job.table is None else truth(job.table, archive.problem),
        "evaluated": found.evaluated,
        "failed": found.failed,
        "admissible": found.admissible,
        "reference": list(found.reference),
        "hypervolume": list(growth(archive)),
        "front": [described(solution, found) for solution in found.front],
    }


def growth(archive: Any) -> Iterator[float]:
    """Yield the admissible hypervolume, as a share of the reference area, after each evaluation of `archive`."""
    from nachos_min.nas.result import Archive

    error, macs = archive.reference
    front: list[Any] = []
    for found in archive.evaluations:
        before = Archive(archive.problem, [found])
        front = archive.front([*front, *before.admissible])  # what is dominated once stays so
        yield archive.hypervolume(front) / (error * macs)


def truth(path: str, problem: Any) -> Record:
    """Return what all members of the table at `path` together reach under the limits and seed of `problem`.

    Returns:
        Admissible hypervolume as a share of the reference area; (average MACs, accuracy) of the front, the most
        accurate first; how many members there are, and how many are admissible.
    """
    asked = problem.configuration
    plain = type(asked)(
        asked.data, asked.space, asked.limits, asked.seed
    )  # what candidates are chosen by: as default
    same = ("recipe", "method", "thresholds", "points", "aims", "margin", "confidence", "standardise", "validation")
    asked = replace(plain, seed=_table(path).training(asked.seed), **{name: getattr(asked, name) for name in same})
    return _truth(path, asked)


@lru_cache(maxsize=64)
def _truth(path: str, configuration: Any) -> Record:
    from tabulation import archive_of

    from nachos_min.nas.configuration import load_problem

    problem = load_problem(configuration)
    archive = archive_of(_table(path), problem)
    admissible = archive.admissible
    error, macs = archive.reference
    front = archive.front(admissible)
    return {
        "hypervolume": archive.hypervolume(front) / (error * macs),
        "front": [[each.point.validation.average_macs, each.point.validation.accuracy] for each in front],
        "members": len(archive.evaluations),
        "admissible": len({found.genome for found in admissible}),
    }


@lru_cache(maxsize=4)
def _table(path: str) -> Any:
    from nachos_min.nas.tabular import read_table

    return read_table(path)


def described(solution: Any, found: Any) -> Record:
    """Return one network of a front, and whether the limits hold on the test split, too.

    `kept_on_test`: both figures themselves; `kept_within_interval`: average MACs, and the accuracy's 95 % interval
    reaches the limit.
    """
    test, limits = solution.test, found.limits
    within = limits.max_macs is None or test.total_macs <= limits.max_macs * test.samples
    return {
        "genome": list(solution.genome),
        "exits": list(solution.exits),
        "accuracy": solution.accuracy,
        "macs": solution.average_macs,
        "test_accuracy": test.accuracy,
        "test_macs": test.average_macs,
        "kept_on_test": within and test.accuracy >= limits.min_accuracy,
        "kept_within_interval": within and test.interval95[1] >= limits.min_accuracy,
    }


def run_all(jobs: Sequence[Job], results: Results, workers: int, tell: Callable[[str], None]) -> None:
    """Run those of `jobs` that are not among the `results`, and add them.

    Searches on a table go side by side, one in a process; searches that train go one by one, each with `workers`.
    """
    from nachos_min.nas.pools import leave_with_parent

    missing = [job for job in {job.key: job for job in jobs}.values() if job.key not in results.records]
    begin = time.monotonic()

    def keep(job: Job, record: Record, done: int) -> None:
        results.add(job.key, record)
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        tell(f"{done} of {len(missing)} searches, all in {left:.0f} s more")

    done = 0
    quick = [job for job in missing if job.table is not None]
    if quick:
        with ProcessPoolExecutor(workers, get_context("spawn"), leave_with_parent) as pool:
            asked = {pool.submit(run, job): job for job in quick}
            for future in as_completed(asked):
                done += 1
                keep(asked[future], future.result(), done)
    for job in missing:
        if job.table is None:
            done += 1
            keep(job, run(job, workers), done)
