"""What is read is what runs: two searches call every function that the table of equations names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
README = ROOT / "nachos_min" / "README.md"
SPY = """
import os, sys, threading
called, file = set(), open(os.environ["CALLED"], "a", buffering=1)
def note(frame, event, arg):
    code = frame.f_code
    if event == "call" and code not in called:
        called.add(code)
        print(code.co_filename, code.co_qualname, sep="|", file=file)
sys.setprofile(note)
threading.setprofile(note)
"""
SEARCHES = {
    "default": "--epochs 1 --min-accuracy 0 --max-macs 40k --evaluations 12 --finalists 1 --guarantee 0.5",
    "paper": "--epochs 2 --recipe paper --space micro --min-accuracy 0 --max-macs 20k --evaluations 42 "
    "--points best --start random --backbone frozen --thresholds grid-repair --standardise pixel "
    "--constraints adaptive-penalty --metric balanced",
}


def named() -> set[tuple[str, str]]:
    """File and name of each row of the table, the name empty where a whole file is meant."""
    table = README.read_text(encoding="utf-8").split("## Equations")[1].split("\n## ")[0]
    return set(re.findall(r"`([\w/]+\.py)`(?: `(\w+)`)?", table))


def test_two_searches_call_every_function_of_the_equation_table(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).normal(size=(60, 8, 8, 1)) + labels[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=images.astype(np.float32), labels=labels)
    (tmp_path / "sitecustomize.py").write_text(SPY)  # which every interpreter imports, the workers' too
    paths = [str(tmp_path), str(ROOT), str(ROOT / "kernels")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "CALLED": str(tmp_path / "called"),
        "NUMBA_DISABLE_JIT": "1",
    }
    for name, options in SEARCHES.items():
        command = [sys.executable, "-m", "nachos_min", "search", "--data", "data.npz", "--out", name]
        done = subprocess.run(
            [*command, "--workers", "2", *options.split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr

    called = {tuple(line.split("|")) for line in (tmp_path / "called").read_text().splitlines()}
    rows = named()
    assert len(rows) > 15
    missing = [
        (file, name)
        for file, name in sorted(rows)
        if not any(path.endswith(file) and name in function.split(".") for path, function in called)
    ]
    assert not missing
