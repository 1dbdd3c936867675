"""What the benchmarks share: the machine in words, rounds that take turns, memory of processes, a table.

Imports nothing that reads the number of threads, so that `on_threads` may be called first.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The libraries of linear algebra read these once, when they are loaded.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def on_threads(count: int) -> None:
    """Let linear algebra, ours and PyTorch's, run on `count` threads. To be called before NumPy is imported."""
    assert "numpy" not in sys.modules
    os.environ.update(dict.fromkeys(THREADS, str(count)))


def peer_on_threads(count: int) -> bool:
    """Return whether PyTorch is installed; if so, let it run on `count` threads."""
    if find_spec("torch") is None:
        return False
    import torch

    torch.set_num_threads(count)
    return True


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures were measured on: processor, load, threads and versions."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": threads,
        "python": platform.python_version(),
    }
    for package in ("numpy", "numba", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def best_of_rounds(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, *, warm: int = 2, settle: float = 0.0
) -> dict[str, float]:
    """Return the seconds of each task's best round; the tasks take turns, so that a busy machine slows all alike.

    Args:
        tasks: by name.
        rounds: how often each is measured.
        warm: calls of each before anything is measured.
        settle: seconds to wait, and then one more call, before each measured one. Threads that have nothing to do
            go on asking for work for a while; those of one task must not take a processor from the next task.
    """
    best = dict.fromkeys(tasks, float("inf"))
    for task in tasks.values():
        for _ in range(warm):
            task()
    for _ in range(rounds):
        for name, task in tasks.items():
            if settle:
                time.sleep(settle)
                task()
            begin = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def peak_megabytes(process: int | str = "self") -> float:
    """Return the most memory the process has had so far (Linux, VmHWM); 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def children(process: int) -> list[int]:
    """Return the workers that `process` has started: its children but for multiprocessing's resource tracker."""
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
        return [int(child) for child in listed if "resource_tracker" not in command_of(child)]
    except OSError:
        return []


def command_of(process: str) -> str:
    """Return the command line of a process, its arguments separated by NUL."""
    return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")


def show(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the machine, then rows under their keys; numbers with three significant digits."""
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if rows:
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def tell(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print the machine and the rows: as `show` does, or as one JSON object."""
    if as_json:
        print(json.dumps({"machine": facts, "rows": rows}))
    else:
        show(facts, rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}") if isinstance(value, float) else str(value)
