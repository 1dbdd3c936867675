"""Command lines in which a hostile file is named, and names of files."""

import os
from pathlib import Path
from random import Random

from hostile.damage import NAMES
from hostile.valid import put

# Of one network, for a data file that is accepted.
SEARCH = ["search", "--space", "micro", "--evaluations", "1", "--epochs", "1", "--finalists", "0", "--workers", "0"]
SEARCH += ["--max-macs", "1G", "--quiet", "--out", "new"]
FILE_NAMES = [each for each in NAMES if not {"/", "\0"} & {*each} and 0 < len(each) < 50 and each[0] not in "-."]


def file_name(rng: Random, ending: str, usual: str = "own") -> str:
    """Return the name of a file, mostly the usual one; it can be one argument and one file."""
    return (rng.choice(FILE_NAMES).strip(". ") or usual if rng.random() < 0.1 else usual) + ending


def of_data(rng: Random, folder: Path, name: str, search: float = 0.0) -> list[str]:
    """Return a line that reads the data set called `name`; `search`: the share of lines that train on it."""
    drawn = rng.random()
    if drawn < search:
        return [*SEARCH, "--data", name]
    if drawn < 0.1:
        put(folder, "run")
        return ["predict", "run#0", name, *rng.choice(([], ["--json"], ["--split", "all"]))]
    options = [[], [], ["--json"], ["--layout", rng.choice(("chw", "hwc", "signal"))], ["--resolution", "8"]]
    return ["data", name, *rng.choice(options)]


def write(rng: Random, folder: Path, ending: str, content: bytes, search: float = 0.0) -> list[str]:
    """Write a data file; return a line that reads it."""
    name = file_name(rng, ending)
    (folder / name).write_bytes(content)
    return of_data(rng, folder, name, search)


def special(rng: Random, path: Path, good: Path) -> None:
    """Put something else than a file at `path`: a pipe, a folder, a link, a device."""
    match rng.randrange(7):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("nowhere")
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem", "/dev/tty")))
        case 5:
            path.symlink_to(good)
        case _:
            path.write_bytes(b"")
