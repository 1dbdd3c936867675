"""Malformed inputs by the thousand: a class and a number are one input, always the same.

A generator draws a malformation and writes what it needs into an empty folder. It is registered by its class:

    @hostile("npz")
    def cut_short(rng: Random, folder: Path) -> Case:
        content = valid("npz").read_bytes()
        (folder / "own.npz").write_bytes(content[: rng.randrange(len(content))])
        return Case(["data", "own.npz"], REFUSED)

and stands in a file `*_cases.py` of this folder. `child.py` runs the line there and judges what came of it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

REFUSED = "refused"  # the malformation certainly breaks a rule: exit status 2
EITHER = "either"  # refused, or accepted for what it has become
SAME = "same"  # refused, or standard output is that of `Case.truth`


@dataclass(frozen=True)
class Case:
    """A malformed input: a command line to be run in its folder, and what must come of it."""

    line: list[str]
    expected: str = EITHER
    truth: str = ""  # of `SAME`: the JSON that the undamaged input leads to
    changes: tuple[str, ...] = ("new",)  # names in the folder that the command may write


Generator = Callable[[Random, Path], Case]
GENERATORS: dict[str, list[Generator]] = {}  # class -> its generators
SHARES: dict[str, int] = {}  # class -> its share of all cases, relative to the others


def hostile(kind: str, share: int = 1) -> Callable[[Generator], Generator]:
    """Return a decorator that registers a generator of the class `kind`; shares of generators add up."""

    def register(generator: Generator) -> Generator:
        GENERATORS.setdefault(kind, []).extend([generator] * share)
        SHARES[kind] = len(GENERATORS[kind])
        return generator

    return register


def load() -> dict[str, list[Generator]]:
    """Return all generators by class."""
    for file in sorted(Path(__file__).parent.glob("*_cases.py")):
        import_module(f"hostile.{file.stem}")
    return GENERATORS


def numbers(cases: int) -> dict[str, int]:
    """Return how many of `cases` each class has."""
    load()
    whole, done, found = sum(SHARES.values()), 0, {}
    for kind in sorted(SHARES):
        found[kind] = cases * (done + SHARES[kind]) // whole - cases * done // whole
        done += SHARES[kind]
    return found


def write(seed: int, kind: str, number: int, folder: Path) -> Case:
    """Write the files of one case into an empty folder; generators of a class take turns."""
    generators = load()[kind]
    return generators[number % len(generators)](random.Random(f"{seed} {kind} {number}"), folder)


def name_of(kind: str, number: int) -> str:
    """Return the name of the generator of a case."""
    generators = load()[kind]
    return generators[number % len(generators)].__name__
