"""Hostile MATLAB files."""

import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import damaged, name, number
from hostile.lines import special, write
from hostile.npz_cases import arrays, odd_images, odd_labels, zeros
from hostile.valid import samples, valid
from scipy import io as matlab
from scipy.sparse import csc_matrix

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def saved(given: dict[str, Any], *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    matlab.savemat(stream, given, do_compression=packed)
    return stream.getvalue()


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    declared = (len(content) if size is None else size) & 0xFFFFFFFF
    return struct.pack("<II", kind & 0xFFFFFFFF, declared) + content + bytes(-len(content) % 8)


def variable(rng: Random, called: bytes, array: Any) -> bytes:
    """Return a variable, one of whose parts may be another than the array has."""
    odd = rng.randrange(8)
    flags = struct.pack("<II", number(rng) % 2**32 if odd == 0 else 9, 0)
    sides = [number(rng) % 2**31 for _ in range(rng.choice((1, 3, 40)))] if odd == 1 else array.shape
    text = name(rng).encode("utf-8", "replace") if odd == 2 else called
    kind, content = (number(rng) if odd == 3 else 2), array.astype(np.uint8).tobytes("F")
    parts = [element(6, flags), element(5, struct.pack(f"<{len(sides)}I", *sides)), element(1, text)]
    parts.append(element(kind, content, number(rng) if odd == 4 else None))
    if odd == 5:
        parts.pop(rng.randrange(4))
    return element(14, b"".join(parts), number(rng) if odd == 6 else None)


@hostile("mat", share=2)
def flipped(rng: Random, folder: Path) -> Case:
    return Case(write(rng, folder, ".mat", damaged(rng, saved(arrays(), packed=rng.random() < 0.5))))


@hostile("mat", share=2)
def elements(rng: Random, folder: Path) -> Case:
    """Variables whose flags, shapes, types or sizes are wrong, in a file that is not, compressed or not."""
    images, labels = samples()
    made = [variable(rng, b"images", images), variable(rng, b"labels", labels[:, None])]
    made = (
        [element(15, zlib.compress(each))[: 8 + len(zlib.compress(each))] for each in made]
        if rng.random() < 0.5
        else made
    )
    return Case(write(rng, folder, ".mat", HEADER + b"".join(made) + rng.choice((b"", b"", rng.randbytes(20)))))


@hostile("mat")
def bombs(rng: Random, folder: Path) -> Case:
    """Variables that decompress to gigabytes, and cells in cells."""
    sides = struct.pack("<3I", *rng.choice(((60, 8, 8), (2**20, 2**5, 2**5), (60, 2**15, 2**15))))
    kind = rng.choice((1, 4, 5, 6, 9))
    front = element(6, struct.pack("<II", kind, 0)) + element(5, sides) + element(1, b"images")
    if rng.random() < 0.3:
        for _ in range(rng.choice((100, 5000))):
            front = element(
                14,
                element(6, struct.pack("<II", 1, 0))
                + element(5, struct.pack("<II", 1, 1))
                + element(1, b"x")
                + front,
            )
    packed = zeros(
        rng.choice((8, 64, 256)), 15, struct.pack("<II", 14, 2**32 - 1) + front + struct.pack("<II", 2, 2**32 - 1)
    )
    whole = element(15, packed)[: 8 + len(packed)]
    return Case(write(rng, folder, ".mat", HEADER + whole + saved({"labels": samples()[1]})[128:]), REFUSED)


@hostile("mat", share=3)
def absurd(rng: Random, folder: Path) -> Case:
    """Whole files with variables of odd kinds."""
    images, labels = samples()
    cells = np.array([(name(rng) or "x")[:300] for _ in range(60)], object)
    odd: list[Any] = [csc_matrix(labels[None, :].astype(float)), csc_matrix((10**6, 10**6)), cells, {"a": labels}]
    odd += [labels * 1j, labels > 1, "text", np.array(["a", "b"] * 30), np.array([[1, "a", [2]]], object), []]
    odd += [images.astype(float) * np.nan, np.moveaxis(images, 0, -1), cells.reshape(6, 10)]
    made = arrays(**{rng.choice(("images", "labels", "class_names", "X", "y")): rng.choice(odd)})
    if rng.random() < 0.3:
        made |= {"images": odd_images(rng)} if rng.random() < 0.5 else {"labels": odd_labels(rng)}
        made = {
            each: array
            for each, array in made.items()
            if getattr(array, "dtype", None) is None or array.dtype.kind in "uifcSUbO"
        }
    try:
        content = saved(made, packed=rng.random() < 0.5)
    except Exception:  # SciPy cannot write all of these
        content = saved(arrays(labels=csc_matrix(labels[None, :].astype(float))))
    return Case(write(rng, folder, ".mat", content, search=0.02), EITHER)


@hostile("mat")
def no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "own.mat", valid("own.npz"))
    return Case(["data", "own.mat"], REFUSED)
