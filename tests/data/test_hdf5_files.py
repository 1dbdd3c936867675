"""Users' HDF5 files: what is odd or damaged is refused in one line, and cannot end or hold up the program."""

import os
import random
from contextlib import suppress

import h5py
import numpy as np
import pytest
from hostile.odd_hdf5 import IMAGES, ODD, SAMPLES, write

from nachos_min.data import DataError, hdf5_file
from nachos_min.data.readers import read


def message(path):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_refused(tmp_path, odd):
    write(tmp_path / "elsewhere.h5")
    said = message(write(tmp_path / "own.h5", ODD[odd]))
    assert "cannot be read" not in said, "a rule refuses it before the library meets it"
    assert said.startswith(("images ", "labels ")) or "images of shape" in said


def test_what_other_programs_write_is_read(tmp_path):
    texts = np.array([f"class {number % 3}" for number in range(SAMPLES)])

    def add(file):
        file.create_dataset(
            "images", data=IMAGES, chunks=(7, 3, 4), compression="lzf", shuffle=True, fletcher32=True
        )
        del file["labels"]
        file.create_dataset("labels", data=texts.astype(object), dtype=h5py.string_dtype(), chunks=(7,))
        file["test_images"] = IMAGES.astype(">f2")
        file["test_labels"] = texts.astype("S")
        file["difficulty"] = h5py.SoftLink("/nowhere")
        file["more/inside"] = h5py.Empty("f4")

    for layout in ({}, {"libver": "latest"}, {"userblock_size": 1024}, {"track_order": True}):
        arrays = read(write(tmp_path / "own.h5", add, **layout))
        assert sorted(arrays) == ["images", "labels", "test_images", "test_labels"]
        assert all((arrays[name] == IMAGES).all() for name in ("images", "test_images"))
        assert arrays["images"].dtype == np.uint8
        assert arrays["test_images"].dtype == ">f2"
        assert (arrays["labels"].astype(str) == texts).all()
        assert (arrays["test_labels"].astype(str) == texts).all()


def test_arrays_of_any_shape_come_whole(tmp_path, monkeypatch):
    """Rows are sent in blocks; an array may have no rows, or rows of nothing."""
    monkeypatch.setattr(
        hdf5_file, "_PROGRAM", f"import nachos_min.data.hdf5_file as of; of._BLOCK = 100; {hdf5_file._PROGRAM}"
    )
    rng = np.random.default_rng(0)
    for shape, chunks in (
        ((9, 5, 3), None),
        ((9, 5, 3), (2, 5, 3)),
        ((7, 50), (7, 1)),
        ((0, 4), None),
        ((4, 0), None),
        ((5,), None),
    ):
        images = rng.normal(size=shape)
        with h5py.File(tmp_path / "own.h5", "w") as file:
            file.create_dataset("images", data=images, chunks=chunks)
            file["labels"] = images > 0
        arrays = hdf5_file.read_apart(tmp_path / "own.h5", 1 << 20, labelled=True)
        assert np.array_equal(arrays["images"], images)
        assert np.array_equal(arrays["labels"], images > 0)
        assert arrays["labels"].dtype == bool


def test_bytes_of_all_arrays_are_counted(tmp_path):
    path = write(tmp_path / "own.h5")
    bytes_of = IMAGES.nbytes + SAMPLES * 8
    assert hdf5_file.read_apart(path, bytes_of, labelled=True).keys() == {"images", "labels"}
    with pytest.raises(DataError, match="at most 719 bytes are decoded, got 720 with labels of shape"):
        hdf5_file.read_apart(path, bytes_of - 1, labelled=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limits of this kind")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process that read it ended with SIGSEGV"),
        ("from nachos_min.data.hdf5_file import limit; limit(0, 1 << 28)\nwhile True: pass", "ended with SIGXCPU"),
        ('print(\'["images", "|u1", [9]]\\n123\')', "the process that read it ended with 0"),
    ],
)
def test_the_end_of_the_process_that_reads_is_an_answer(tmp_path, monkeypatch, program, said):
    monkeypatch.setattr(hdf5_file, "_PROGRAM", program)
    assert said in message(write(tmp_path / "own.h5"))


def test_damage_is_refused_or_read(tmp_path):
    content, rng = bytearray(write(tmp_path / "own.h5").read_bytes()), random.Random(0)
    for _ in range(12):
        damaged = content.copy()
        damaged[rng.randrange(800)] ^= 1 << rng.randrange(8)
        (tmp_path / "own.h5").write_bytes(damaged)
        with suppress(DataError):
            assert "images" in read(tmp_path / "own.h5")
