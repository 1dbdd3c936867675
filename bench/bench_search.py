"""The default search: seconds and memory, cold and warm, and where the time goes.

    python bench/bench_search.py [--evaluations 50,100,200,400] [--workers 1,2] [--cold] [--parts] [--json]

Each run is the command `python -m nachos_min search` in a fresh folder with the other options as they are. All
share one folder of compiled functions; a short run fills it first, unless `--cold`: then the first run compiles.
Memory is the most that each process had (VmHWM, Linux), looked at ten times a second. `CPU s` adds up all
processes: on a busy machine it tells more than the wall time. `--parts` evaluates ten random candidates in this
process, part by part, and runs the loop once more with the parts of the main process timed. For 200 evaluations on
two workers `must` is 60 s, `aim` 30 s. For the memory of one worker `must` is 400, `aim` 250 MB.
"""

import json as json_format
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fire import Fire
from measuring import THREADS, children, machine, on_threads, peak_megabytes, show

CANDIDATES = 10


def run(evaluations: int, workers: int, out: Path, cache: Path, what: str) -> dict[str, Any]:
    """Return the figures of one search, made by the command line."""
    options = ["--evaluations", str(evaluations), "--workers", str(workers), "--out", str(out), "--json", "--quiet"]
    command = [sys.executable, "-m", "nachos_min", "search", *options]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        main_peak, peaks = 0.0, dict[int, float]()
        while process.poll() is None:
            main_peak = max(main_peak, peak_megabytes(process.pid))
            for child in children(process.pid):
                peaks[child] = max(peaks.get(child, 0.0), peak_megabytes(child))
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        output = process.stdout.read() if process.stdout else ""
    if process.returncode not in (0, 3):
        raise SystemExit(f"the search ended with status {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json_format.loads(output)
    return {
        "run": what,
        "evaluations": found["evaluated"],
        "workers": workers,
        "s": seconds,
        "CPU s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "worker MB": max(peaks.values(), default=0.0),
        "main MB": main_peak,
        "hypervolume": found["hypervolume"]["admissible"],
    }


@contextmanager
def timed(owner: Any, names: dict[str, str], spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds of the functions `names` of `owner` up under other names."""
    saved = {name: getattr(owner, name) for name in names}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return saved[name](*given, **named)
            finally:
                spent[names[name]] = spent.get(names[name], 0.0) + time.perf_counter() - begin

        return call

    for name in names:
        setattr(owner, name, wrapped(name))
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(owner, name, function)


def parts_of_a_candidate() -> dict[str, float]:
    """Return milliseconds of each part of an evaluation, the mean of some random candidates."""
    import numpy as np

    from nachos_min.nas import evaluate as room
    from nachos_min.nas.configuration import Configuration, load_problem
    from nachos_min.nas.limits import Limits, StaticCheck

    problem = load_problem(Configuration("digits", "flex8", Limits(40_000, 0.9), 0))
    drawn = StaticCheck(problem.coder, problem.configuration.limits).drawn(np.random.default_rng(0))
    genomes = [next(genome for genome, admissible in drawn if admissible) for _ in range(CANDIDATES + 1)]
    spent: dict[str, float] = {}
    names = {
        "train_deep": "training",
        "exit_answers": "tables",
        "choose": "confidence, thresholds and curve",
        "measure": "figures of all splits",
    }
    exact = room.THRESHOLDS["exact"]

    def thresholds(*given: Any) -> Any:
        begin = time.perf_counter()
        found = exact(*given)
        spent["thresholds"] = spent.get("thresholds", 0.0) + time.perf_counter() - begin
        return found

    room.THRESHOLDS["exact"] = thresholds
    with timed(room, names, spent), timed(room, {"evaluate": "whole candidate"}, spent):
        for place, genome in enumerate(genomes):
            if place == 1:
                spent.clear()  # the first one compiled
            room.evaluate(problem.coder, problem.dataset, problem.configuration.acting, room.Trial(genome))
    room.THRESHOLDS["exact"] = exact
    return {name: 1e3 * value / CANDIDATES for name, value in spent.items()}


def parts_of_a_search(evaluations: int, workers: int, out: Path) -> dict[str, float]:
    """Return the seconds of each part of the main process, which waits for the workers in `training`."""
    from nachos_min.nas import aims, nachos, progress

    spent: dict[str, float] = {}
    with (
        timed(nachos, {"prepared": "loading", "search": "whole search"}, spent),
        timed(nachos.Loop, {"evaluate": "training", "search_surrogates": "NSGA-II"}, spent),
        timed(progress.Watch, {"_tell": "progress"}, spent),
        timed(nachos.Run, {"write": "store"}, spent),
        timed(aims, {"fit_models": "surrogates"}, spent),
    ):
        nachos.search(evaluations=evaluations, workers=workers, out=out)
    spent["training"] -= spent.get("store", 0.0)  # the store is written while workers go on
    return spent


def numbers(value: Any) -> list[int]:
    """Return the integers of what Fire made of `1` or `1,2`."""
    return [int(each) for each in (value if isinstance(value, tuple | list) else (value,))]


def main(
    evaluations: Any = (50, 100, 200, 400),
    workers: Any = (1, 2),
    cold: bool = False,
    parts: bool = False,
    json: bool = False,
) -> None:
    """Print seconds and megabytes of each run; with --json one JSON object.

    Args:
        evaluations: candidates of a run; several make a run each.
        workers: worker processes; several make a run each.
        cold: begin with no compiled function.
        parts: show where the time goes.
        json: print JSON.
    """
    on_threads(1)
    rows = []
    report: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cache").mkdir()
        if not cold:
            run(1, 1, folder / "warm", folder / "cache", "fills the cache")
        for place, (count, processes) in enumerate((e, w) for w in numbers(workers) for e in numbers(evaluations)):
            what = "cold" if cold and place == 0 else "warm"
            rows.append(run(count, processes, folder / f"run{place}", folder / "cache", what))
        if parts:
            os.environ["NUMBA_CACHE_DIR"] = str(folder / "cache")
            report["ms of a candidate"] = parts_of_a_candidate()
            most = max(numbers(evaluations)), max(numbers(workers))
            report["s of the main process"] = parts_of_a_search(*most, folder / "parts")
    facts = machine(int(os.environ[THREADS[0]]))
    if json:
        print(json_format.dumps({"machine": facts, "rows": rows, **report}))
        return
    show(facts, rows)
    for title, spent in report.items():
        print(title + ": " + ", ".join(f"{part} {value:.1f}" for part, value in spent.items()))


if __name__ == "__main__":
    Fire(main)
