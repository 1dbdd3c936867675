"""How long one waits: for help, a count, a stored run, the first evaluation; and what compiling takes.

    python bench/bench_start.py [--rounds 3] [--json]

Each command is a fresh interpreter, once with an empty folder for Numba's compiled functions (`cold`) and then with
the folder the cold run left (`warm`, best of the rounds). `compiling` is a process of its own that does what one
worker and the main process of the default search do, one candidate and one surrogate search: cold less warm is what
compiling takes. `must` is 25 s, `aim` 10 s. The run that is shown has 100 networks; `MB` is the most memory.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fire import Fire
from measuring import THREADS, machine, tell

TABLE = Path(__file__).parent / "micro-digits.h5"
EVERYTHING = """
import numpy as np
from nachos_min.nas.configuration import Configuration, load_problem
from nachos_min.nas.evaluate import evaluate
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.limits import Limits
from nachos_min.nas.nsga2 import minimize
problem = load_problem(Configuration("digits", "flex8", Limits(40_000, 0.9), 0))
genome = tuple(problem.coder.canonical(np.array([problem.coder.upper]))[0].tolist())
evaluate(problem.coder, problem.dataset, problem.configuration.acting, Trial(genome))
minimize(lambda X: (np.hstack([X, -X]), X - 5), lower=[0], upper=[9], n_objectives=2, n_constraints=1)
"""


def architecture_file(folder: Path) -> Path:
    """Return a file with the largest architecture of the default space."""
    script = """
import numpy as np, sys
from nachos_min.eenn.architecture import architecture_to_json
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space
coder = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
print(architecture_to_json(coder.decode(tuple(coder.canonical(np.array([coder.upper]))[0].tolist()))))
"""
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    path = folder / "network.json"
    path.write_text(found.stdout, encoding="utf-8")
    return path


def taken(command: list[str], cache: Path) -> tuple[float, float]:
    """Return the seconds that a fresh interpreter takes for the command, and the megabytes."""
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"NUMBA_CACHE_DIR": str(cache)}
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return time.perf_counter() - begin, used.ru_maxrss / 1024


def main(rounds: int = 3, json: bool = False) -> None:
    """Print seconds cold and warm; with --json one JSON object."""
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        module = ["-m", "nachos_min"]
        search = [*module, "search", "--evaluations", "1", "--workers", "1", "--quiet", "--min-accuracy", "0"]
        table = ["--space", "micro", "--table", str(TABLE), "--method", "random", "--evaluations", "100"]
        taken([*module, "search", *table, "--workers", "0", "--quiet", "--out", str(folder / "run")], folder)
        commands = {
            "--help": [*module, "--help"],
            "macs FILE": [*module, "macs", str(architecture_file(folder))],
            "show RUN": [*module, "show", str(folder / "run")],
            "first evaluation": [*search, "--max-macs", "1M", "--out"],
            "everything": ["-c", EVERYTHING],
        }
        for place, (what, command) in enumerate(commands.items()):
            cache, runs = folder / f"cache{place}", folder / f"runs{place}"
            cache.mkdir()

            def once(turn: int, command: list[str] = command, cache: Path = cache, runs: Path = runs) -> Any:
                return taken([*command, str(runs / str(turn))] if command[-1] == "--out" else command, cache)

            cold, _ = once(0)
            warm, memory = min(once(turn) for turn in range(1, rounds + 1))
            rows.append({"what": what, "cold s": cold, "warm s": warm, "compiling s": cold - warm, "MB": memory})
    tell(machine(1), rows, json)


if __name__ == "__main__":
    Fire(main)
