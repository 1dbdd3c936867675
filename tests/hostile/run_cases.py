"""Damaged and forged runs, trained backbones and tables."""

import os
import shutil
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile.cases import EITHER, SAME, Case, hostile
from hostile.damage import changed, damaged, name, number, value
from hostile.lines import special
from hostile.valid import PAPER, SEARCH, TABLE, answer, put, valid

FILES = ("run.h5", "order.h5", "examples.h5")
READERS = (
    ("show", "run", "--json"), ("show", "run", "--json"), ("macs", "run#0", "--json"), ("macs", "run#1", "--json"),
    ("predict", "run#0", "own.npz", "--json"), ("compare", "run", "run", "--json"),
)  # fmt: skip


def reading(rng: Random, folder: Path, expected: str = SAME, search: float = 0.25) -> Case:
    """Return a command on the run in `folder`; SAME: it is refused, or tells what the undamaged run tells."""
    if not (folder / "own.npz").exists():
        put(folder, "own.npz")
    if rng.random() < search:
        return Case(SEARCH, expected, answer(tuple(SEARCH), "own.npz") if expected == SAME else "", ("run",))
    if expected == EITHER and rng.random() < 0.3:
        lines = [
            ["report", "run", "--to", "x.html"],
            ["export", "run#0", "--npz", "x.npz"],
            ["plot", "run", "--to", "x.svg"],
        ]
        return Case(
            rng.choice([*lines, ["show", "run"], ["show", "run", "--all"]]),
            expected,
            changes=("x.html", "x.npz", "x.svg"),
        )
    line = rng.choice(READERS)
    return Case([*line], expected, answer(line, "run", "own.npz") if expected == SAME else "")


def files(rng: Random, folder: Path) -> list[Path]:
    """Return the files of the run in `folder`, those that are read first most often."""
    own = [folder / "run" / each for each in FILES]
    return rng.choice((own[:1], own[1:], sorted((folder / "run" / "evaluations").iterdir())))


@hostile("runs", share=3)
def flipped(rng: Random, folder: Path) -> Case:
    """One file damaged: it is refused, or trained again."""
    put(folder, "run")
    path = rng.choice(files(rng, folder))
    path.write_bytes(damaged(rng, path.read_bytes()))
    return reading(rng, folder)


@hostile("runs", share=2)
def exchanged(rng: Random, folder: Path) -> Case:
    """A file in the place of another: of the same run, of another run, of a run of another recipe."""
    put(folder, "run")
    path = rng.choice(files(rng, folder))
    others = [each for run in ("run", "other", "paper") for each in sorted(valid(run).rglob("*.h5"))]
    alike = [
        each for each in others if each.name == path.name and not os.path.samefile(valid("run"), each.parents[0])
    ]
    source = rng.choice(alike if alike and rng.random() < 0.6 else others)
    shutil.copy(source, path)
    if source.read_bytes() == (valid("run") / path.relative_to(folder / "run")).read_bytes():
        return reading(rng, folder)
    # The order of another run may name the same networks: it is read as this run's.
    return reading(rng, folder, EITHER if path.name in FILES else SAME)


@hostile("runs", share=2)
def links(rng: Random, folder: Path) -> Case:
    """Something else in the place of a file or folder; links lead to good files, and must not be followed."""
    put(folder, "run", "other")
    shutil.move(folder / "other", folder.parent / "beside" / "other")
    aim = folder.parent / "beside" / "other"
    inside = [
        "lock",
        "evaluations",
        "backbones",
        "shared",
        *FILES,
        "x.h5.1.tmp",
        "evaluations/x.h5.1.2.tmp",
        "report.html",
    ]
    path = folder / "run" / rng.choice([*inside, rng.choice(files(rng, folder)).relative_to(folder / "run")])
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if rng.random() < 0.5:
        there = [
            aim / path.relative_to(folder / "run"),
            aim,
            aim / "evaluations",
            aim / "run.h5",
            aim / "made",
            "/dev/zero",
        ]
        path.symlink_to(rng.choice(there))
    else:
        special(rng, path, valid("own.npz"))
    return reading(rng, folder, EITHER, search=0.5)


@hostile("runs", share=3)
def forged(rng: Random, folder: Path) -> Case:
    """A record with some other content, sealed as this program seals it."""
    from nachos_min.store.values import StoreError, decode, encode

    put(folder, "run")
    path = rng.choice(files(rng, folder))
    record: Any = decode(path)
    for _ in range(rng.choice((1, 1, 3))):
        record = forge(rng, record)
    try:
        path.write_bytes(encode(record if isinstance(record, dict) else {"format": record}))
    except (StoreError, ValueError, OverflowError, OSError):  # what cannot be stored
        path.write_bytes(encode({"format": "nachos_min run", "version": number(rng)}))
    return reading(rng, folder, EITHER)


def forge(rng: Random, record: Any) -> Any:
    """Return a record with one place changed; arrays keep their kind more often than not."""
    if isinstance(record, dict) and record and rng.random() < 0.9:
        key = rng.choice(list(record))
        if isinstance(record[key], dict | np.ndarray) or rng.random() < 0.2:
            return record | {key: forge(rng, record[key])}
        return changed(rng, record) if rng.random() < 0.3 else record | {key: changed(rng, record[key])}
    if isinstance(record, np.ndarray):
        kinds = ("f8", "f4", "i8", "u1", "S3", "?", "c16", "U2", "M8[s]")
        match rng.randrange(6):
            case 0:
                return record[: rng.randrange(len(record) + 1)] if record.ndim else record
            case 1:
                return record.astype(rng.choice(kinds), copy=True) if record.dtype.kind in "fiub" else record
            case 2:
                return np.zeros([rng.choice((0, 1, 2, 3, 60)) for _ in range(rng.randrange(5))], rng.choice(kinds))
            case 3:
                return record[None]
            case 4 if record.dtype.kind in "fiu":
                made = record.copy()
                with np.errstate(all="ignore"):
                    made.flat[: rng.choice((1, made.size))] = np.float64(
                        rng.choice((-1, 9, 1e30, np.nan, np.inf))
                    ).astype(made.dtype)
                return made
            case _:
                return value(rng)
    return changed(rng, record)


@hostile("runs")
def sealed(rng: Random, folder: Path) -> Case:
    """HDF5 that is hostile itself, under a seal that fits."""
    import h5py

    from nachos_min.store.values import _seal  # as whoever forges a record has it

    put(folder, "run")
    path = rng.choice(files(rng, folder))
    with h5py.File(path, "r+") as file:
        keys: list[str] = []
        file.visit(keys.append)
        key = rng.choice(keys)
        parent, _, last = key.rpartition("/")
        group = file[parent or "/"]
        match rng.randrange(7):
            case 0:
                del group[last]
                group.create_dataset(last, (rng.choice((2**30, 2**40)), 64), "f4", chunks=(16, 64))
            case 1:
                del group[last]
                group[last] = rng.choice(
                    (h5py.ExternalLink("/dev/zero", "x"), h5py.SoftLink("/"), h5py.SoftLink("/x/y"))
                )
            case 2:
                del group[last]
                group[last] = file["/"]
            case 3:
                group[(name(rng).replace("\0", "").replace("/", "") or "x")[:60000]] = rng.choice(
                    (3, "text", np.bytes_(b"{"), h5py.Empty("f4"))
                )
            case 4:
                del group[last]
                text = rng.choice(
                    (
                        b'{"tuple": 3}',
                        b'{"a": 1}',
                        b"[" * 5000,
                        b"1" * 5000,
                        b"NaN",
                        b"\xff",
                        b'{"tuple": [' * 500,
                        b"null",
                    )
                )
                group[last] = np.bytes_(text)
            case 5:
                file[key].attrs["sequence"] = rng.choice(("tuple", "list", "set", 3, "x" * 60000))
                file[key].attrs["dtype"] = rng.choice(
                    ("'O'", "[('a', '|O')]", "'<f4'", "__import__('os')", "(" * 5000)
                )
                file[key].attrs["shape"] = rng.choice(([2**40, 2**40], [-1], [3.5], "x"))
            case _:
                del group[last]
                group.create_dataset(last, data=np.zeros(10**6), compression="gzip")
    content = path.read_bytes()[512:]
    path.write_bytes(_seal(content) + content)
    return reading(rng, folder, EITHER)


@hostile("runs")
def tidied(rng: Random, folder: Path) -> Case:
    """Files removed, added or renamed; what is left of a killed process."""
    put(folder, "run")
    run, odd = folder / "run", rng.choice(("-1-0", "x", "0-0.x4", "9" * 200, "a b", "\u202ex", "run", "0.r1"))
    found = rng.choice(sorted((run / "evaluations").iterdir()))
    match rng.randrange(6):
        case 0:
            found.unlink()
        case 1:
            (run / rng.choice(FILES)).unlink()
        case 2:
            shutil.copy(found, found.with_name(f"{odd}.h5"))
        case 3:
            found.rename(found.with_name(f"{odd}.h5"))
        case 4:
            for leftover in ("run.h5.1.2.tmp", "evaluations/x.h5.3.4.tmp", f"evaluations/{found.name}.9.8.tmp"):
                (run / leftover).write_bytes(b"half")
        case _:
            (run / rng.choice(("shared", "backbones"))).mkdir()
            (run / rng.choice(("notes.txt", "evaluations/notes.txt"))).write_text("mine")
    return reading(rng, folder, EITHER, search=0.4)


@hostile("backbones", share=3)
def backbones(rng: Random, folder: Path) -> Case:
    """Trained backbones damaged or exchanged: the search trains again, and its result is the same."""
    from nachos_min.store.values import decode, encode

    put(folder, "own.npz", "paper")
    (folder / "paper").rename(folder / "run")
    for each in (folder / "run" / "evaluations").iterdir():
        if rng.random() < 0.7:
            each.unlink()
    found = sorted((folder / "run" / "backbones").iterdir())
    for path in rng.sample(found, rng.choice((1, 1, len(found)))):
        content = path.read_bytes()
        match rng.randrange(8):
            case 0 | 1 | 2:
                path.write_bytes(damaged(rng, content))
            case 3:
                path.write_bytes(rng.choice((b"", content[: rng.randrange(len(content))], b"x" * 100)))
            case 4:
                path.write_bytes(rng.choice(found).read_bytes())
            case 5:
                record = decode(path)
                weights = record["weights"]
                odd = (weights[:-1], weights.astype("f8"), weights + np.nan, np.array(3), None, {"a": weights})
                path.write_bytes(
                    encode(
                        record
                        | rng.choice(
                            (
                                {"weights": rng.choice(odd)},
                                {"of": rng.choice((None, {}, "x", {"run": "", "genes": (0,)}))},
                            )
                        )
                    )
                )
            case 6:
                path.unlink()
                special(rng, path, valid("own.npz"))
            case _:
                flipped_at = bytearray(content)
                flipped_at[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
                path.write_bytes(flipped_at)
    return Case(PAPER, SAME, answer(tuple(PAPER), "own.npz"), ("run",))


@cache
def table() -> dict[str, Any]:
    from nachos_min.store.values import decode

    return decode(valid("table.h5"), given=True)


@hostile("tables", share=2)
def table_flipped(rng: Random, folder: Path) -> Case:
    put(folder, "own.npz", "small.toml", "table.h5")
    content = valid("table.h5").read_bytes()
    if rng.random() < 0.2:
        (folder / "table.h5").unlink()
        special(rng, folder / "table.h5", valid("own.npz"))
    else:
        (folder / "table.h5").write_bytes(damaged(rng, content))
    return Case(TABLE, SAME, answer(tuple(TABLE), "own.npz", "small.toml", "table.h5"), ("run",))


@hostile("tables", share=3)
def table_forged(rng: Random, folder: Path) -> Case:
    from nachos_min.store.values import StoreError, encode

    put(folder, "own.npz", "small.toml")
    record: Any = table()
    for _ in range(rng.choice((1, 1, 3))):
        record = forge(rng, record)
    try:
        content = encode(record if isinstance(record, dict) else {"format": record})
    except (StoreError, ValueError, OverflowError, OSError):  # what cannot be stored
        content = encode({"format": name(rng), "version": 1})
    (folder / "table.h5").write_bytes(content)
    return Case(TABLE, EITHER, changes=("run",))
