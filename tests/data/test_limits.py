"""Small files that would take much memory or time are one line, and what is accepted is counted once."""

import csv
import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest
from scipy import io as matlab
from scipy.sparse import csc_matrix

from nachos_min.data import DataError, load
from nachos_min.data.dataset import Images, chunks, statistics
from nachos_min.data.limits import Asked, Room
from nachos_min.data.readers import read

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
LABELS = np.arange(30) % 3


def message(path, max_bytes=10**6):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        load(str(path), max_bytes=max_bytes)
    return str(caught.value).removeprefix(f"{path}: ")


def npz(path, images, method=zipfile.ZIP_DEFLATED):
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", images)
        archive.writestr("y.npy", labels.getvalue())
    return path


def test_descriptions_of_arrays_are_short(tmp_path):
    long = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * 1000
    assert "its description must have at most 10,000 bytes, it declares 4,294,967,295" in message(
        npz(tmp_path / "own.npz", long)
    )
    wide = io.BytesIO()
    np.lib.format.write_array_header_1_0(wide, {"descr": "<U9000000", "fortran_order": False, "shape": (30,)})
    said = (
        "at most 1,000,000 bytes are decoded, got 1,080,000,000 with x of shape (30,); --max-bytes raises the limit"
    )
    assert message(npz(tmp_path / "own.npz", wide.getvalue())) == said
    assert "arrays must be stored or deflated" in message(npz(tmp_path / "own.npz", b"", zipfile.ZIP_BZIP2))


@pytest.mark.parametrize("packed", [False, True])
def test_values_of_a_mat_file_are_counted_once(tmp_path, packed):
    matlab.savemat(tmp_path / "own.mat", {"x": IMAGES, "y": LABELS.astype(np.uint8)}, do_compression=packed)
    room = Room("own.mat")
    read(tmp_path / "own.mat", Asked(room))
    assert IMAGES.nbytes <= room.taken <= IMAGES.nbytes + 30 * 64 + 500
    matlab.savemat(tmp_path / "own.mat", {"x": IMAGES, "y": csc_matrix(LABELS)}, do_compression=packed)
    assert message(tmp_path / "own.mat") == "y must be numbers or text, got sparse"


def test_lines_of_a_table_and_its_labels(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("1," * 600_000 + "a\n")
    assert message(path) == "line 1 must have at most 1,048,576 characters, it has more"
    path.write_text("\n" * 10_000)
    assert message(path).startswith("at most 1,000,000 bytes are decoded, got 1,000,200 with the table")
    path.write_text("1,{}\n2,b\n".format("a" * 200) * 1000)
    assert message(path).endswith("with the labels; --max-bytes raises the limit")
    path.write_text("1,{}\n".format("a" * 201))
    assert message(path).startswith("line 1 must have a label of 1 to 200 characters, got 'aaa")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[0.5, -0.0, 1, "a"], [3, 4, 5, "b"]] * 40_000)
    room = Room("own.csv")
    table = read(path, Asked(room))["images"]
    assert table.dtype == np.float32
    assert np.signbit(table[0]).tolist() == [False, True, False]


def test_steps_of_a_pickle_are_counted(tmp_path):
    for content, said in (
        (b"\x80\x02" + b"]" * 1_100_000, "it takes more than 1,048,576 steps"),
        (b"\x80\x02})" + b"\x85" * 2000 + b"K\x01s.", "it takes more than 1,048,576 steps"),
        (
            pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + (10**12).to_bytes(8, "little"),
            "it has a step that makes more",
        ),
    ):
        (tmp_path / "data_batch_1").write_bytes(content)
        assert said in message(tmp_path / "data_batch_1", 10**9)


def test_a_packed_file_of_several_members(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\0") * 2)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\0"))
    assert "more follows the end of its packed content" in message(tmp_path)


def test_too_many_classes(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.arange(40_000, dtype=np.uint8)[:, None, None], y=np.arange(40_000))
    said = "labels must name at least 2 classes, and at most 32,768, got 40,000"
    assert message(tmp_path / "own.npz", 10**8) == said
    np.savez(tmp_path / "own.npz", x=IMAGES, y=LABELS, class_names=np.arange(40_000))
    assert message(tmp_path / "own.npz", 10**8).startswith("class_names must be at most 32,768")
    np.savez(tmp_path / "own.npz", x=IMAGES, y=np.zeros((0, 0), np.uint8))
    assert "with one 1 and else 0 in each row" in message(tmp_path / "own.npz")


@pytest.mark.parametrize("channels", [1, 3])
def test_sums_are_those_of_1024_images_at_once(channels):
    images = np.random.default_rng(0).normal(3, 2, (1030, 40, 40, channels)).astype(np.float32)
    assert channels == 1 or chunks(images.shape)[0].stop < 1024
    groups = [images[:1024], images[1024:]]
    mean = sum(each.sum(axis=(0, 1, 2), dtype=np.float64) for each in groups) / (1030 * 40 * 40)
    squares = sum(np.square(each - mean).sum(axis=(0, 1, 2)) for each in groups)
    found = statistics(Images(images), "channel")
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.inverse, 1 / np.sqrt(squares / (1030 * 40 * 40)))
