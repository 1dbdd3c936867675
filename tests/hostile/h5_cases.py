"""Hostile HDF5 files."""

import io
import os
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from h5py import h5s, h5t
from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import damaged, name, number
from hostile.lines import file_name, of_data, special, write
from hostile.npz_cases import arrays, odd_images, odd_labels
from hostile.valid import samples, valid


def saved(given: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for each, array in given.items():
            file.create_dataset(each, data=array, **(options if np.ndim(array) else {}))
    return stream.getvalue()


@hostile("h5", share=2)
def flipped(rng: Random, folder: Path) -> Case:
    options = rng.choice(({}, {"chunks": True}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}))
    return Case(write(rng, folder, ".h5", damaged(rng, saved(arrays(), **options))))


@hostile("h5", share=2)
def elsewhere(rng: Random, folder: Path) -> Case:
    """Links and storage that lead out of the file, nowhere, or in circles."""
    images, labels = samples()
    beside = folder.parent / "beside"
    (folder / "other.h5").write_bytes(saved(arrays()))
    os.mkfifo(folder / "pipe")
    aim = rng.choice(
        ["other.h5", "pipe", "/dev/zero", str(beside / "kept.h5"), "own.h5", name(rng).replace("\0", "")]
    )
    with h5py.File(folder / "own.h5", "w") as file:
        file["labels" if rng.random() < 0.7 else "y"] = labels
        match rng.randrange(7):
            case 0:
                file["images"] = h5py.ExternalLink(aim or "x", rng.choice(("images", "/", "a/b")))
            case 1:
                file["images"] = h5py.SoftLink(
                    rng.choice(("/labels", "/images", "/nowhere", "/", "..", "/images/images"))
                )
            case 2:
                layout = h5py.VirtualLayout((60, 8, 8), "u1")
                layout[:] = h5py.VirtualSource(rng.choice((aim or "x", ".")), "images", (60, 8, 8))
                file.create_virtual_dataset("images", layout)
            case 3:
                raw = [(aim.encode("utf-8", "replace") or b"x", 0, rng.choice((3840, 2**40)))]
                file.create_dataset("images", (60, 8, 8), "u1", external=raw)
            case 4:
                file.create_group("images")["images"] = file["/"]
                file["x"] = file["images"]
            case 5:
                layout = h5py.VirtualLayout((60, 8, 8), "u1")
                for row in range(60):
                    layout[row] = h5py.VirtualSource(".", rng.choice(("images", "labels")), (8, 8))
                file.create_virtual_dataset("images", layout)
            case _:
                file["deep/" * rng.choice((2, 500)) + "images"] = images
                file["images"] = h5py.SoftLink("/" + "deep/" * 2 + "images")
    return Case(of_data(rng, folder, "own.h5"), REFUSED)


@hostile("h5", share=2)
def large(rng: Random, folder: Path) -> Case:
    """Arrays that are declared, compressed, chunked, filled or pointed at so that reading them takes memory."""
    labels = samples()[1]
    many = rng.choice((2**14, 2**22, 2**30, 2**40))
    with h5py.File(folder / "own.h5", "w") as file:
        match rng.randrange(6):
            case 0:
                file.create_dataset("images", (many, 64, 64), "f4", chunks=(1, 64, 64))
            case 1:
                made = file.create_dataset(
                    "images", (many, 64, 64), "u1", chunks=(2**12, 64, 64), compression="gzip"
                )
                for place in range(0, min(many, 2**14), 2**12):
                    made[place] = 1
            case 2:
                made = file.create_dataset("class_names", (2048,), h5py.string_dtype())
                made[: rng.choice((3, 60))] = "x" * rng.choice((10**6, 10**7))
                file["images"] = samples()[0]
            case 3:
                file.create_dataset("images", (60, 8, 8), "u1", chunks=(2**10, 2**10, 2**10), maxshape=(None,) * 3)
            case 4:
                file.create_dataset("images", (many,), f"S{rng.choice((1, 10**6))}", chunks=(16,))
            case _:
                file.create_dataset("images", (min(many, 2**30), 8, 8), "u1", fillvalue=3)
        file["labels" if rng.random() < 0.8 else "unused"] = labels
        if rng.random() < 0.3:
            file.attrs[name(rng).replace("\0", "")[:60000] or "x"] = "y" * 60_000
    return Case(of_data(rng, folder, "own.h5"), REFUSED)


@hostile("h5", share=2)
def types(rng: Random, folder: Path) -> Case:
    """Types that are not plain, empty spaces, groups and named types in the place of arrays."""
    images, labels = samples()
    small = h5t.STD_I32LE.copy()
    small.set_size(3)
    drawn = [
        small,
        h5t.UNIX_D32LE,
        h5t.STD_REF_OBJ,
        h5t.create(h5t.OPAQUE, 8),
        h5t.array_create(h5t.STD_I8LE, (3, 2)),
    ]
    drawn += [
        h5t.vlen_create(h5t.STD_I8LE),
        h5t.special_dtype
        and h5t.py_create(h5py.enum_dtype({name(rng)[:99].replace("\0", "") or "x": 1}), logical=True),
    ]
    drawn += [h5t.py_create(np.dtype([("a", "f4"), ("b", "S3")])), h5t.IEEE_F64BE, h5t.STD_B8LE, h5t.NATIVE_LDOUBLE]
    with h5py.File(folder / "own.h5", "w") as file:
        called = rng.choice(("images", "labels"))
        match rng.randrange(5):
            case 0 | 1:
                shape = (60, 8, 8) if called == "images" else (60,)
                h5py.h5d.create(file.id, called.encode(), rng.choice(drawn), h5s.create_simple(shape))
            case 2:
                file[called] = h5py.Empty(rng.choice(("f4", "S3")))
            case 3:
                file[called] = rng.choice((np.dtype("f4"), np.float32(3), "text", np.void(b"abc")))
            case _:
                file.create_group(called)[name(rng).translate({0: "", 46: "", 47: ""})[:60000] or "x"] = images
        for each, array in (("images", images), ("labels", labels)):
            if each not in file:
                file[each] = array
    return Case(of_data(rng, folder, "own.h5"))


@hostile("h5", share=2)
def absurd(rng: Random, folder: Path) -> Case:
    """Whole files of odd arrays under odd names."""
    made = arrays()
    for each in rng.sample(["images", "labels", "names", "class_names"], 2):
        match each:
            case "images":
                made |= {each: odd_images(rng)}
            case "labels":
                made |= {each: odd_labels(rng)}
            case "names":
                made |= {
                    name(rng).replace("\0", "").replace(".", "_")[:60000].strip("/ ") or "x": number(rng) % 2**31
                }
            case _:
                made |= {each: [(name(rng).replace("\0", "") or "x")[:300] for _ in range(3)]}
    try:
        content = saved(made)
    except Exception:  # HDF5 has not all of NumPy's types
        content = saved(arrays(labels=np.array([b"a", b"\xff", b""] * 20)))
    path = file_name(rng, rng.choice((".h5", ".hdf5")))
    (folder / path).write_bytes(content)
    return Case(of_data(rng, folder, path, search=0.02), EITHER)


@hostile("h5")
def no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "own.h5", valid("own.npz"))
    return Case(["data", "own.h5"], REFUSED)
