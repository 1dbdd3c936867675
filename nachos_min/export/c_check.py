"""What a C compiler makes of an exported network: its sizes, and its answers to images."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.eenn.inference import Answers
from nachos_min.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class CompilerError(InputError):
    """There is no C compiler, or it refuses the source; the message has the first error."""


def has_compiler() -> bool:
    """Return whether there is a C compiler: the program cc."""
    return shutil.which("cc") is not None


def c_answers(
    folder: str | Path, images: Array, exits: int, flags: Sequence[str] = ("-O2",)
) -> tuple[Answers, Array]:
    """Return what the network in a folder of `write_c` answers, and the confidence (N, E) at each of its `exits`.

    The compiler gets `flags` beside STRICT. CompilerError if there is none, or if it refuses the source.
    """
    with tempfile.TemporaryDirectory() as place:
        program = Path(place, "example")
        sources = [str(Path(folder, name)) for name in ("example.c", "network.c")]
        _run(["cc", *STRICT, *flags, "-o", str(program), *sources, "-lm"])
        own = _answers(program, images)
        staying = [2.0] * exits  # no confidence is that large
        forced = [staying[:index] + [0.0] * (exits - index) for index in range(exits)]
        confidences = np.stack([_answers(program, images, each).confidence for each in forced], axis=1)
    return own, confidences


def c_size(folder: str | Path, compiler: Sequence[str] = ("cc",)) -> tuple[int, int] | None:
    """Return bytes of flash and RAM of the exported network at -Os, or None without the program `size` of binutils.

    `compiler` is the command, which may be for another processor. Errors are as of `c_answers`.
    """
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "network.o")
        _run([*compiler, *STRICT, "-Os", "-c", "-o", str(made), str(Path(folder, "network.c"))])
        if not shutil.which("size"):
            return None
        printed = subprocess.run(["size", str(made)], capture_output=True, text=True, check=True).stdout
    if printed.split()[:3] != ["text", "data", "bss"]:
        return None
    text, data, bss = map(int, printed.splitlines()[1].split()[:3])
    return text + data, data + bss


def _run(command: Sequence[str]) -> None:
    """Run a compiler."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompilerError(f"the C compiler {command[0]} cannot be run: {error.strerror or error}") from None
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise CompilerError(f"the C compiler {command[0]} refuses the source: {line}")


def _answers(program: Path, images: Array, thresholds: Sequence[float] = ()) -> Answers:
    """Return what the example prints of the images."""
    command = [str(program), *map(repr, thresholds)]
    done = subprocess.run(command, input=np.ascontiguousarray(images).tobytes(), capture_output=True, check=True)
    rows = re.findall(rb"^(\d+)\t.*?\t(\d+)\t(\S+)$", done.stdout, re.MULTILINE | re.DOTALL)  # names may hold tabs
    labels, left, confidence = np.array(rows).T
    return Answers(labels.astype(np.int64), left.astype(np.int64), confidence.astype(np.float64))
