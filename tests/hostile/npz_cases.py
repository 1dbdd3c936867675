"""Damaged and hostile .npz, .npy files."""

from pathlib import Path
from random import Random

from hostile.cases import REFUSED, Case, hostile
from hostile.damage import damaged
from hostile.valid import valid


@hostile("npz", share=3)
def flipped(rng: Random, folder: Path) -> Case:
    (folder / "own.npz").write_bytes(damaged(rng, valid("own.npz").read_bytes()))
    return Case(["data", "own.npz"])


@hostile("npz")
def cut_short(rng: Random, folder: Path) -> Case:
    content = valid("own.npz").read_bytes()
    (folder / "own.npz").write_bytes(content[: rng.randrange(len(content) - 1)])
    return Case(["data", "own.npz"], REFUSED)
