"""Hostile files of MNIST's and CIFAR's form, and folders of images."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import damaged, name, number
from hostile.lines import FILE_NAMES, of_data, special
from hostile.npz_cases import zeros
from hostile.valid import samples, valid
from PIL import Image


def idx(array: Any, kind: int = 8, shape: Any = None) -> bytes:
    shape = array.shape if shape is None else shape
    return bytes([0, 0, kind % 256, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


@hostile("idx", share=4)
def headers(rng: Random, folder: Path) -> Case:
    """One of the two files damaged, or with a header that declares something else; or a bomb."""
    images, labels = samples()
    files = {"train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(labels.astype(np.uint8))}
    hit = rng.choice(list(files))
    expected = EITHER
    match rng.randrange(5):
        case 0:
            files[hit] = damaged(rng, files[hit])
        case 1:
            shape = tuple(number(rng) % 2**32 for _ in range(rng.choice((1, 3, 4, 9))))
            files[hit] = idx(images, rng.choice((8, 9, 11, 12, 13, 14, 0, 255)), shape)
        case 2:
            many = rng.choice((128, 2**20, 2**24, 2**31))
            front = bytes([0, 0, 8, 3]) + struct.pack(">3I", many, 64, rng.choice((64, 16)))
            files[hit + ".gz"] = zeros(rng.choice((8, 64, 256)), 31, front)
            del files[hit]
            expected = REFUSED
        case 3:
            files[hit] = idx(rng.choice((images[:5], images[:, :0], images.astype(">f8"), images * 0)))
        case _:
            files[hit + ".gz"] = damaged(rng, gzip.compress(files.pop(hit), mtime=0))
    for each, content in files.items():
        (folder / each).write_bytes(content)
    if rng.random() < 0.1:
        special(
            rng, folder / f"t10k-{'images-idx3' if rng.random() < 0.5 else 'labels-idx1'}-ubyte", valid("own.npz")
        )
    return Case(of_data(rng, folder, rng.choice((".", *files)), search=0.01), expected)


class Hostile:
    """Pickles to the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def pickled(rng: Random) -> bytes:
    """Return a batch of the Python version that calls, nests, repeats or declares."""
    protocol = rng.randrange(5)
    batch: dict[Any, Any] = {b"data": np.zeros((10, 3072), np.uint8), b"labels": [*range(10)]}
    match rng.randrange(9):
        case 0:
            called = rng.choice(
                ((os.system, "touch pwned"), (open, "pwned", "w"), (bytearray, 2**34), (eval, "1/0"))
            )
            return pickle.dumps(batch | {b"data": Hostile(*called)}, protocol)
        case 1:
            return rng.choice(
                (
                    b"(" * 10**6,
                    b"]" * 10**5 + b".",
                    b"\x80\x04" + b"]\x94" * 10**5 + b".",
                    b"I" + b"9" * 10**6 + b"\n.",
                )
            )
        case 2:
            return b"\x80\x04\x8e" + struct.pack("<Q", number(rng) % 2**64) + b"x."
        case 3:
            return b"c__builtin__\nbytearray\n(I" + str(number(rng)).encode() + b"\ntR."
        case 4:
            return pickle.dumps(
                batch
                | {
                    rng.choice((b"data", b"labels")): rng.choice(
                        (None, [], {}, "x" * 10**6, np.zeros((10, 5)), [[1]] * 10, [name(rng)] * 10, [2**70] * 10)
                    )
                },
                protocol,
            )
        case 5:
            inner: Any = []
            for _ in range(300):
                inner = [inner, inner]
            return pickle.dumps(batch | {b"x": inner}, protocol)
        case 6:
            return pickle.dumps(rng.choice(([], None, {name(rng): 1}, {1: 2}, "x", {b"data": batch})), protocol)
        case 7:
            return pickle.dumps(batch | {b"data": np.array([{}] * 10, object)}, protocol)
        case _:
            return damaged(rng, pickle.dumps(batch, protocol))


@hostile("cifar", share=3)
def batches(rng: Random, folder: Path) -> Case:
    """The Python version, one of whose files is hostile; or the binary one, cut or too long."""
    names = [f"data_batch_{each}" for each in range(1, 6)] + ["test_batch"]
    good = pickle.dumps(
        {b"data": np.arange(30720, dtype=np.uint32).astype(np.uint8).reshape(10, 3072), b"labels": [*range(10)]}
    )
    binary = rng.random() < 0.3
    files = {each + ".bin" * binary: bytes(3073) * 9 + b"\1" * 3073 if binary else good for each in names}
    hit = rng.choice(list(files))
    files[hit] = damaged(rng, files[hit]) if binary else pickled(rng)
    meta = {b"label_names": [(name(rng) or "x").encode("utf-8", "replace") for _ in range(10)]}
    if rng.random() < 0.5:
        files["batches.meta.txt" if binary else "batches.meta"] = (
            b"\n".join(meta[b"label_names"]) if binary else rng.choice((pickle.dumps(meta), pickled(rng)))
        )
    for each, content in files.items():
        (folder / each).write_bytes(content)
    if rng.random() < 0.1:
        (folder / hit).unlink()
        special(rng, folder / hit, valid("own.npz"))
    return Case(of_data(rng, folder, rng.choice((".", hit))))


@hostile("cifar", share=2)
def tars(rng: Random, folder: Path) -> Case:
    """Archives with links, devices, absolute or climbing names, wrong sizes, bombs."""
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    ) as file:
        for each in rng.sample([f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"], 6):
            member = tarfile.TarInfo(f"cifar/{each}")
            content = bytes(3073) * 9 + b"\1" * 3073
            member.size = len(content)
            if rng.random() < 0.3:
                member.name = rng.choice(
                    (f"/{each}", f"../{each}", f"a/../../beside/{each}", each + name(rng).replace("\0", ""), each)
                )
            if rng.random() < 0.3:
                member.type = rng.choice(
                    (
                        tarfile.SYMTYPE,
                        tarfile.LNKTYPE,
                        tarfile.CHRTYPE,
                        tarfile.FIFOTYPE,
                        tarfile.DIRTYPE,
                        b"S",
                        b"?",
                    )
                )
                member.linkname = rng.choice(
                    ("/etc/hostname", "../beside/kept.h5", each, name(rng).replace("\0", ""))
                )
            if rng.random() < 0.1:
                member.pax_headers = {"comment": "x" * 10**6, "size": str(number(rng))}
            file.addfile(member, io.BytesIO(content))
    made = stream.getvalue()
    match rng.randrange(4):
        case 0:
            made = damaged(rng, made)
        case 1:
            made = zeros(rng.choice((8, 64, 256)), 31, made[:-10240])
        case 2:
            made = damaged(rng, gzip.compress(made, mtime=0))
        case _:
            made = gzip.compress(made, mtime=0)
    (folder / "own.tar.gz").write_bytes(made)
    return Case(of_data(rng, folder, "own.tar.gz"))


def picture(rng: Random, ending: str = ".png") -> bytes:
    stream = io.BytesIO()
    mode = rng.choice(("L", "RGB", "RGBA", "P", "1", "I;16", "LA", "CMYK", "F"))
    side = rng.choice((8, 8, 8, 1, 200))
    try:
        Image.new(mode, (8, side)).save(stream, {".jpg": "JPEG", ".ppm": "PPM"}.get(ending, ending[1:].upper()))
    except (OSError, KeyError, ValueError):  # a format has not every mode
        Image.new("L", (8, 8), rng.randrange(256)).save(stream, "PNG")
    return stream.getvalue()


def png(width: int, height: int, content: bytes, kind: int = 0, bits: int = 8, extra: bytes = b"") -> bytes:
    def chunk(called: bytes, inside: bytes) -> bytes:
        return struct.pack(">I", len(inside)) + called + inside + struct.pack(">I", zlib.crc32(called + inside))

    head = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@hostile("images", share=4)
def pictures(rng: Random, folder: Path) -> Case:
    """Folders of images, one of which is damaged, enormous, of another kind, or no file."""
    for label in rng.sample(FILE_NAMES, 2) if rng.random() < 0.4 else ("cats", "dogs"):
        (folder / "own" / label).mkdir(parents=True, exist_ok=True)
        for each in range(15):
            stream = io.BytesIO()
            Image.fromarray(samples()[0][each]).save(stream, "PNG")
            (folder / "own" / label / f"{each:02}.png").write_bytes(stream.getvalue())
    ending = rng.choice((".png", ".jpg", ".gif", ".bmp", ".webp", ".ppm"))
    place = (
        folder
        / "own"
        / min(each.name for each in (folder / "own").iterdir() if each.is_dir())
        / rng.choice((f"9{ending}", rng.choice(FILE_NAMES)[:90] + ending))
    )
    expected = EITHER
    match rng.randrange(9):
        case 0 | 1:
            place.write_bytes(damaged(rng, picture(rng, ending)))
        case 2:
            place.write_bytes(
                png(
                    number(rng),
                    number(rng),
                    zlib.compress(bytes(100)),
                    rng.choice((0, 2, 3, 6)),
                    rng.choice((1, 8, 16)),
                )
            )
        case 3:
            side = rng.choice((8, 3000, 20_000, 60_000))
            place.write_bytes(png(side, side, zeros(rng.choice((1, 8, 64)), 15), rng.choice((0, 2))))
        case 4:
            text = struct.pack(">I", 4 + 2 + len(zeros(64, 15))) + b"zTXt" + b"a\0\0"[:2] + zeros(64, 15) + bytes(4)
            place.write_bytes(png(8, 8, zlib.compress(bytes(72)), extra=text))
        case 5:
            place.write_bytes(picture(rng, ending))
        case 6:
            special(rng, place, valid("own.npz"))
        case 7:
            place.write_bytes(
                f"P{rng.randrange(1, 8)}\n{number(rng)} {number(rng)}\n{number(rng)}\n".encode() + bytes(100)
            )
        case _:
            deep = folder / "own" / "cats" / "/".join("x" * rng.choice((1, 200)) for _ in range(10))
            deep.mkdir(parents=True)
            (folder / "own" / "loop").symlink_to(rng.choice((".", "..", "../own", "/", "/proc")))
            expected = EITHER
    return Case(of_data(rng, folder, rng.choice(("own", "own", os.path.relpath(place, folder)))), expected)
