"""Hostile .npz and .npy files."""

import io
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile.cases import EITHER, REFUSED, SAME, Case, hostile
from hostile.damage import FLOATS, damaged, name, number
from hostile.lines import of_data, special, write
from hostile.valid import answer, samples, valid

TYPES = [
    "<f4",
    ">f8",
    "<f2",
    "<f16",
    "|b1",
    "|i1",
    "|u1",
    ">u2",
    "<i8",
    "<u8",
    "<c8",
    "<c16",
    "|S0",
    "|S3",
    "<U2",
    "|V0",
    "|V7",
    "|O",
    "<M8[ns]",
    "<m8[s]",
    "<U99999999",
]
TYPES += [
    "('<f4', (3, 2))",
    "[('a', '<f4')]",
    "[('a', '|O')]",
    "3",
    "None",
    "'<f4",
    "f4,f4",
    "<f4" * 5000,
    "",
    "(" * 3000,
]
BLOCK = 1 << 24  # bytes


def npy(header: str, content: bytes = b"", version: bytes = b"\1\0", declared: int | None = None) -> bytes:
    """Return a .npy file with this header, which may declare another length of itself."""
    size = len(header) if declared is None else declared
    counted = struct.pack(
        "<H" if version == b"\1\0" else "<I", size & (0xFFFF if version == b"\1\0" else 0xFFFFFFFF)
    )
    return b"\x93NUMPY" + version + counted + header.encode("latin-1", "replace") + content


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for each, content in members.items():
            file.writestr(each, content)
    return stream.getvalue()


@cache
def zeros(blocks: int, wbits: int = -15, before: bytes = b"") -> bytes:
    """Return DEFLATE of `before` and 16 MB of zeros for each of `blocks`."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    front = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return front + block * blocks + packer.flush()


def arrays(**changes: Any) -> dict[str, Any]:
    images, labels = samples()
    return {
        each: array for each, array in ({"images": images, "labels": labels} | changes).items() if array is not None
    }


def saved(**given: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **given)
    return stream.getvalue()


@hostile("npz", share=2)
def flipped(rng: Random, folder: Path) -> Case:
    (folder / "own.npz").write_bytes(damaged(rng, valid("own.npz").read_bytes()))
    line = ("data", "own.npz", "--json")
    return Case([*line], SAME, answer(line, "own.npz"))


@hostile("npz")
def cut_short(rng: Random, folder: Path) -> Case:
    content = valid("own.npz").read_bytes()
    return Case(write(rng, folder, ".npz", content[: rng.randrange(len(content) - 1)]), REFUSED)


@hostile("npz", share=2)
def headers(rng: Random, folder: Path) -> Case:
    """Headers of .npy files that declare what is not there, or are no headers."""
    images = samples()[0]
    odd = [f"({number(rng)}, {number(rng)}, {number(rng)})", f"({number(rng)},)", "()", "60", "('a',)"]
    odd += ["(60.0, 8, 8)", "(1,)" * 3, "(True, 8, 8)", "(" + "1," * rng.choice((5, 33, 5000)) + ")"]
    shape = rng.choice(odd) if rng.random() < 0.7 else "(60, 8, 8)"
    kind = rng.choice(TYPES) if rng.random() < 0.6 else "|u1"
    kind = kind if kind.startswith(("(", "[", "3", "None", "'")) else repr(kind)
    order = rng.choice(["False", "True", "0", "None", "'x'", repr(name(rng))])
    header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    if rng.random() < 0.3:
        header = rng.choice(
            [
                "{" * 500,
                "__import__('os').system('touch pwned')",
                repr(name(rng)),
                " " * 60_000,
                "{'descr': 3, " * 100,
            ]
        )
    version = rng.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\x09"])
    declared = rng.choice([None, None, None, 0, 65535, 2**32 - 1, 2**31])
    made = npy(header, images.tobytes()[: rng.choice((None, 100, 0))], version, declared)
    labels = io.BytesIO()
    np.save(labels, samples()[1])
    if rng.random() < 0.3:
        (folder / "labels.npy").write_bytes(labels.getvalue())
        (folder / "images.npy").write_bytes(made)
        return Case(of_data(rng, folder, rng.choice(("images.npy", "."))))
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return Case(write(rng, folder, ".npz", archive({"images.npy": made, "labels.npy": labels.getvalue()}, method)))


@hostile("npz")
def bombs(rng: Random, folder: Path) -> Case:
    """A few megabytes that decompress to gigabytes: as content, as a header, or beside what is used."""
    blocks = rng.choice((8, 64, 256))
    size = blocks * BLOCK
    header = npy(
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rng.choice((size, size // 64, 60))}, 8, 8)}}\n"
    )
    front = rng.choice([header, npy("", version=b"\2\0", declared=rng.choice((size, 2**32 - 1))), b""])
    packed = zeros(blocks, before=front)
    named = rng.choice((b"images.npy", b"labels.npy", b"class_names.npy", b"x_test.npy"))
    declared = rng.choice((size + len(front), 1000)) & 0xFFFFFFFF
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(packed), declared, len(named), 0) + named
    inner = archive({"labels.npy": b"x", "images.npy": b"y"}) if rng.random() < 0.2 else b""
    directory = struct.pack("<4sHHHHHHIII", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), declared)
    directory += struct.pack("<HHHHHII", len(named), 0, 0, 0, 0, 0, 0) + named
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(local) + len(packed), 0)
    return Case(write(rng, folder, ".npz", local + packed + directory + end + inner), REFUSED)


@hostile("npz", share=2)
def members(rng: Random, folder: Path) -> Case:
    """Archives whose members have odd names, are many, doubled, or no arrays."""
    good = {f"{each}.npy": npy_of(array) for each, array in arrays().items()}
    match rng.randrange(6):
        case 0:
            made = archive(
                good | {name(rng).replace("\0", "")[:60000] or "x": b"" for _ in range(rng.choice((1, 20)))}
            )
        case 1:
            made = archive(good | {f"{number}.npy": b"" for number in range(rng.choice((100, 20_000)))})
        case 2:
            made = archive({(rng.choice((each, name(rng)[:60000])) or "x"): good[each] for each in good})
        case 3:
            made = archive({each: rng.choice((good[each], b"", rng.randbytes(90))) for each in good})
        case 4:
            made = bytearray(archive(good))
            place = made.index(b"PK\1\2") + rng.randrange(4, 46)
            made[place] = rng.randrange(256)
        case _:
            made = archive(good | {"x_train.npy": good["images.npy"], "test_images.npy": good["labels.npy"]})
    return Case(write(rng, folder, ".npz", bytes(made)))


def npy_of(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def odd_images(rng: Random) -> Any:
    """Return images of an odd type, shape or content."""
    images = samples()[0]
    match rng.randrange(7):
        case 0:
            made = images.astype(np.float64)
            made[rng.randrange(60), rng.randrange(8)] = rng.choice(FLOATS)
            return made.astype(rng.choice((np.float64, np.float64, np.float32, np.longdouble, np.complex128)))
        case 1:
            return images.astype(rng.choice(("S3", "U3", "M8[s]", "?", "f2", ">i8", "u8", "V5")))
        case 2:
            return np.zeros([rng.choice((0, 1, 2, 60)) for _ in range(rng.randrange(7))], rng.choice("uif") + "4")
        case 3:
            return np.full((60, 8, 8), number(rng) % 2**63, rng.choice((np.int64, np.uint64, np.float32)))
        case 4:
            return images.reshape(60, -1)[:, : rng.choice((1, 2, 63))]
        case 5:
            return rng.choice(
                (images[:5], images[:, :1, :1], images[:, :, :0], np.zeros((60, 3, 8, 9)), images * 0)
            )
        case _:
            return np.array([{"a": 1}] * 60, object)


def odd_labels(rng: Random) -> Any:
    """Return labels of an odd type, shape or content."""
    labels = samples()[1]
    match rng.randrange(7):
        case 0:
            return np.array([(name(rng) or "x")[:300] for _ in range(3)])[labels]
        case 1:
            return labels.astype(rng.choice(("S1", "U9", "?", "f2", "c8", "M8[s]", "u8", ">i2")))
        case 2:
            return labels + rng.choice((2**62, -(2**63), 10**9, 0.5, np.nan, np.inf, 1j))
        case 3:
            return np.arange(60) if rng.random() < 0.5 else labels * 0
        case 4:
            return rng.choice((labels[:59], labels[:0], labels[:, None], labels.reshape(3, 20), np.zeros((60, 0))))
        case 5:
            return np.eye(3)[labels] * rng.choice((1, 2, 0.5, -1, np.nan))
        case _:
            return np.array([None, "a", 3], object)[labels]


@hostile("npz", share=3)
def absurd(rng: Random, folder: Path) -> Case:
    """Whole files of odd images, labels, splits, names of classes or difficulties."""
    made = arrays()
    for each in rng.sample(["images", "labels", "class_names", "difficulty", "test"], rng.choice((1, 1, 2))):
        match each:
            case "images":
                made |= {each: odd_images(rng)}
            case "labels":
                made |= {each: odd_labels(rng)}
            case "class_names":
                made |= {each: np.array([(name(rng) or "x")[:300] for _ in range(rng.choice((3, 3, 2, 0)))])}
            case "difficulty":
                made |= {each: rng.choice((np.full(60, rng.choice(FLOATS)), odd_labels(rng), np.zeros((60, 1))))}
            case _:
                split = rng.choice(("test_", "validation_"))
                made |= {f"{split}images": odd_images(rng), f"{split}labels": odd_labels(rng)}
    return Case(write(rng, folder, ".npz", saved(**made), search=0.03), EITHER)


@hostile("npz")
def no_file(rng: Random, folder: Path) -> Case:
    """Something else in the place of a file; a link to a good file is accepted."""
    special(rng, folder / "own.npz", valid("own.npz"))
    return Case(of_data(rng, folder, "own.npz"))
