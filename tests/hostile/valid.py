"""Valid inputs, each made once when it is first asked for: what is damaged, and what comes of it undamaged."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from hashlib import sha256
from io import StringIO
from pathlib import Path

import numpy as np

# One folder for all processes that make cases together.
ROOT = Path(os.environ.get("HOSTILE_VALID") or Path(tempfile.mkdtemp(prefix="hostile-"), "valid")).absolute()
if "HOSTILE_VALID" not in os.environ:
    atexit.register(shutil.rmtree, ROOT.parent, ignore_errors=True)
MAKERS: dict[str, Callable[[Path], None]] = {}

# Searches of three networks, which end with the folder of the run.
_SHORT = ["search", "--data", "own.npz", "--evaluations", "3", "--finalists", "0", "--workers", "0", "--quiet"]
_SHORT += ["--max-macs", "1M", "--min-accuracy", "0", "--json"]
SEARCH = [*_SHORT, "--space", "micro", "--epochs", "1", "--out", "run"]
PAPER = [*_SHORT, "--space", "micro", "--epochs", "4", "--recipe", "paper", "--out", "run"]
TABLE = ["small.toml" if word == "micro" else word for word in PAPER[:-2]]
TABLE += ["--table", "table.h5", "--out", "run"]

SPACE = """\
depths = [1]
kernels = [3]
expansions = [1, 2]
resolutions = []
divisor = 4
exit_widths = []
stem = { channels = 4, kernel = 3, stride = 2, activation = "relu" }
stages = [
    { channels = 4, stride = 1, activation = "relu", squeeze_excite = false },
    { channels = 8, stride = 2, activation = "relu", squeeze_excite = false },
]
final = { expand = 12, mix = 0, activation = "relu" }
"""


def maker(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register the function that makes the file or folder of its name (`own_npz` makes own.npz)."""
    MAKERS[function.__name__.replace("_", ".")] = function
    return function


@cache
def valid(name: str) -> Path:
    """Return the path of a valid file or folder. It must not be changed: copy it."""
    path = ROOT / name
    if not path.exists():
        ROOT.mkdir(exist_ok=True)
        MAKERS[name](path)
    return path


def put(folder: Path, *names: str) -> None:
    """Copy valid files and folders into `folder`."""
    for name in names:
        copy = shutil.copytree if valid(name).is_dir() else shutil.copy
        copy(valid(name), folder / name)


@cache
def answer(line: tuple[str, ...], *names: str) -> str:
    """Return what a command prints as JSON in a folder that holds copies of valid things of these `names`."""
    kept = ROOT.with_name(f"answer-{sha256(repr((line, names)).encode()).hexdigest()}")
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            put(Path(folder), *names)
            found = command(*line, folder=Path(folder))
            (Path(folder) / "answer").write_text(found)
            shutil.move(Path(folder) / "answer", kept)
    return kept.read_text()


def command(*line: str, folder: Path = ROOT) -> str:
    """Return the standard output of a command run in `folder`, which must end with status 0."""
    from nachos_min.cli import main

    out, err = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        status = main(line)
    assert status == 0, err.getvalue()
    return out.getvalue()


def plain(text: str) -> object:
    """Return the JSON that a command printed, without what may differ: what was found, and where."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return {key: found[key] for key in found if key not in ("reused", "run")} if isinstance(found, dict) else found


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return 60 images of 8 x 8 pixels and their labels, 3 classes that can be learned."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    bright = labels[:, None, None] == np.arange(8)[None, :, None] % 3
    return (rng.integers(0, 60, (60, 8, 8)) + bright * 180).astype(np.uint8), labels


@maker
def own_npz(path: Path) -> None:
    images, labels = samples()
    np.savez(path, images=images, labels=labels)


@maker
def small_toml(path: Path) -> None:
    path.write_text(SPACE)


@maker
def run(path: Path) -> None:
    valid("own.npz")
    command(*SEARCH[:-1], path.name)


@maker
def other(path: Path) -> None:
    """Make a run with the same genomes and another seed."""
    valid("own.npz")
    command(*SEARCH[:-1], path.name, "--seed", "1", "--start", "rule")


@maker
def paper(path: Path) -> None:
    """Make a run that keeps its trained backbones."""
    valid("own.npz")
    command(*PAPER[:-1], path.name)


@maker
def gated_onnx(path: Path) -> None:
    """Make the file of a network whose exits are computed on a condition."""
    valid("run")
    command("export", "run#0", "--onnx", path.name, "--gated")


@maker
def table_h5(path: Path) -> None:
    from bench.tabulation import tabulate
    from nachos_min.eenn.recipes import PaperRecipe
    from nachos_min.nas.configuration import Configuration
    from nachos_min.nas.limits import Limits

    recipe = PaperRecipe(backbone_epochs=2, warmup_epochs=1, support_epochs=1)
    usual = {"recipe": recipe, "standardise": "channel", "validation": "whole", "aims": "ends"}
    named = str(valid("own.npz")), str(valid("small.toml"))
    with chdir(ROOT):
        asked = Configuration(*named, Limits(1_000_000, 0.0), 0, confidence="best", **usual)
        tabulate(asked, (0,), path, workers=0, versions={}, on_progress=lambda *_: None)
