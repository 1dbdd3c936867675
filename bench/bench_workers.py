"""What a search on a large data set takes before it trains, and the memory of its processes.

    python bench/bench_workers.py --workers 2 --images 50000

Images of 32x32x3 are generated. Each worker trains one network for one epoch, which takes as much memory as more.
Anonymous memory is what a process has written for itself. Pages of the shared files are mapped by all, and may be
taken back by the system; Pss counts a process's part of them.
"""

import os
import re
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fire import Fire
from measuring import on_threads

FIELDS = ("Anonymous", "Pss")


def memory(process: str) -> list[float]:
    """Return FIELDS of a process, in MB."""
    found = dict(re.findall(r"(\w+): +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text()))
    return [int(found[name]) / 1024 for name in FIELDS]


def watch(largest: dict[str, list[float]]) -> None:
    """Note the largest memory of this process and its workers, for ever."""
    while True:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, parent = stat.parent.name, stat.read_text().rpartition(")")[2].split()[1]
                worker = int(parent) == os.getpid() and "spawn_main" in (stat.parent / "cmdline").read_text()
                if worker or int(name) == os.getpid():
                    now = memory(name)
                    largest[name] = [max(pair) for pair in zip(largest.get(name, now), now, strict=True)]
            except (OSError, KeyError):  # it has ended
                continue
        time.sleep(0.05)


def main(workers: int = 2, images: int = 50_000) -> None:
    """Search, and print a table with a row for each process; Linux only."""
    begin = time.perf_counter()
    on_threads(1)
    import numpy as np
    from measuring import machine, show

    import nachos_min

    started: dict[str, float] = {}

    def note(_progress: Any) -> None:
        started.setdefault("first sign", time.perf_counter() - begin)

    largest: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        rng, file = np.random.default_rng(0), Path(folder) / "generated.npz"
        pixels = rng.integers(0, 256, (images * 5 // 4, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, len(pixels))
        parts = {"images": pixels[:images], "labels": labels[:images]}
        np.savez(file, **parts, test_images=pixels[images:], test_labels=labels[images:])
        del pixels, parts
        begin = time.perf_counter()
        threading.Thread(target=watch, args=(largest,), daemon=True).start()
        options: dict[str, Any] = {"min_accuracy": 0.0, "evaluations": workers, "finalists": 0, "epochs": 1}
        nachos_min.search(data=str(file), workers=workers, out=Path(folder) / "run", on_progress=note, **options)
    rows = []
    for process, found in largest.items():
        role = "parent" if int(process) == os.getpid() else "worker"
        rows.append(
            {"process": role} | {f"{name} MB": round(size) for name, size in zip(FIELDS, found, strict=True)}
        )
    show(machine(1) | {"workers": workers, "images": images} | started, rows)
    print(f"in all {time.perf_counter() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    Fire(main)
