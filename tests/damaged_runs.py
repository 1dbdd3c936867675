"""Damage to run folders: every field of a record, sealed again, and every file of a folder.

Plain functions, for any test: each takes a generator of random numbers and a folder, or a record.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.store.values import decode, encode

Place = tuple[str | int, ...]


def sealed(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the record in a file, with a checksum that is right."""
    record = decode(file)
    change(record)
    file.write_bytes(encode(record))


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every field and item of a record, weights by some of them."""
    if place:
        yield place
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, item in items:
        yield from leaves(item, (*place, key))


def replaced(record: Any, place: Place, value: Any) -> Any:
    """Return the record with another value at a place; `...`: without it."""
    key, *rest = place
    inner = replaced(record[key], tuple(rest), value) if rest else value
    if isinstance(record, dict):
        changed = {name: inner if name == key else item for name, item in record.items()}
        return {name: item for name, item in changed.items() if item is not ...}
    items = [inner if position == key else item for position, item in enumerate(record)]
    return type(record)(item for item in items if item is not ...)


def others(value: Any, rng: random.Random) -> dict[str, Any]:
    """Return what may stand in the place of a value, by what was done: none of it is what a run stores there."""
    found: dict[str, Any] = {
        "removed": ...,
        "none": None,
        "object": {"x": 1},
        "deep": [[[[[[1]]]]]],
        "array": np.eye(3),
    }
    found |= {
        "text": "\x1b[31m" * 50,
        "truth": True,
        "long text": "x" * 1_000_000,
        "dates": np.array(["2020"], "M8[D]"),
    }
    if isinstance(value, bool):
        del found["truth"]
    if isinstance(value, str):
        del found["text"], found["long text"]
        found |= {"number": 7}
    if isinstance(value, int | float) and not isinstance(value, bool):
        found |= {"NaN": float("nan"), "infinite": float("inf"), "negative": -1, "huge": 10**40, "more": value + 1}
        found |= {"float": float(value) + 0.5, "less": value - 1}
    if isinstance(value, list | tuple):
        found |= {"list": list(value) if isinstance(value, tuple) else tuple(value), "empty": type(value)()}
        found |= {"longer": type(value)((*value, *value[:1])), "shorter": type(value)(value[:-1])}
    if isinstance(value, np.ndarray):
        found |= {"other type": value.astype("c16"), "text array": value.astype("U8"), "flat": value.ravel()[None]}
        found |= {"empty": value[:0], "one axis more": value[None], "negative": -1 - np.abs(value.astype("f8"))}
        found |= {
            "longer": np.concatenate([value, value[:1]]),
            "big-endian": value.astype(value.dtype.newbyteorder(">")),
        }
        if value.dtype.kind == "f":
            damaged = value.copy()
            damaged.flat[rng.randrange(value.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e30])
            found |= {"NaN inside": damaged, "other float": value.astype("f2")}
        if value.dtype.kind in "iu":
            damaged = value.astype("i8")
            damaged.flat[rng.randrange(value.size)] = 2**40
            found |= {"huge inside": damaged}
    return found


def damages(record: dict[str, Any], rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield damaged forms of a record with what was done: each field removed, of another type, shape or value."""
    for place in leaves(record):
        at: Any = record
        for key in place:
            at = at[key]
        for done, value in others(at, rng).items():
            yield f"{'.'.join(map(str, place))}: {done}", replaced(record, place, value)
    yield "an unknown field", record | {"unknown": 1}


def shuffled(record: dict[str, Any], _: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield forms of an evaluation of which two values of a field have changed places."""
    for place in leaves(record):
        at: Any = record
        for key in place:
            at = at[key]
        if isinstance(at, tuple) and len(set(at)) > 1:
            yield f"{'.'.join(map(str, place))}: reversed", replaced(record, place, at[::-1])
        if isinstance(at, np.ndarray) and at.ndim > 1:
            turned = at[:, ::-1] if at.ndim == 2 else at[::-1]
            if (turned != at).any():
                yield f"{'.'.join(map(str, place))}: turned", replaced(record, place, np.ascontiguousarray(turned))


def damaged_files(rng: random.Random, run: Path, other: Path | None = None) -> dict[str, Callable[[], Any]]:
    """Return what can be done to the files of a run, by name; `other`: a run of another configuration."""
    found: dict[str, Callable[[], Any]] = {}
    files = sorted([*run.glob("*.h5"), *run.glob("evaluations/*.h5")])
    for file in files:
        name, content = str(file.relative_to(run)), file.read_bytes()
        cut, flipped = rng.randrange(len(content)), bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        another = rng.choice([each for each in files if each != file])
        put = {"cut": content[:cut], "flipped": flipped, "another of the run": another.read_bytes(), "nothing": b""}
        if other is not None and file.name != "run.h5":
            put["of another run"] = rng.choice(sorted(other.glob("evaluations/*.h5"))).read_bytes()
        found |= {f"{name}: {done}": partial(file.write_bytes, bytes(content)) for done, content in put.items()}
        found |= {f"{name}: {kind}": partial(_instead, file, kind) for kind in KINDS}
    return found | {f"evaluations: {kind}": partial(_instead, run / "evaluations", kind) for kind in KINDS[:2]}


KINDS = ("link", "dangling link", "device", "pipe", "folder")


def _instead(place: Path, kind: str) -> None:
    """Put a link, a pipe, a folder or a file into the place of a file or folder, which is moved away."""
    away = place.parent.parent.parent / f"moved {place.name}"
    shutil.rmtree(away, ignore_errors=True)
    away.unlink(missing_ok=True)
    place.rename(away)
    if "link" in kind:
        place.symlink_to(away.with_name("nowhere") if "dangling" in kind else away)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_bytes(b"")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every regular file in a folder by its path."""
    found = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {str(file.relative_to(folder)): file.read_bytes() for file in [*found]}
