"""Every way a data file can be wrong is one clear line."""

import io as streams
import os
import zipfile
from contextlib import suppress
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
from scipy import io
from scipy.sparse import csc_matrix

from nachos_min.data import DataError, load
from nachos_min.data.limits import Room
from nachos_min.data.matlab import read_variables

IMAGES, LABELS = np.random.default_rng(0).normal(size=(30, 4, 4)), np.arange(30) % 3
TWO, THREE = np.zeros((2, 4, 4)), np.zeros((3, 4, 4))


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        labels = arrays["labels"][:, None] + 1
        io.savemat(path, {"X": arrays["images"][..., None].transpose(1, 2, 3, 0), "y": labels})
    else:
        with h5py.File(path, "w") as file:
            file.update(arrays)
    return path


def message(path, max_bytes=None):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        load(str(path), max_bytes=max_bytes)
    return str(caught.value).removeprefix(f"{path}: ")


def changed(index, value):
    return {"images": np.where(np.arange(480).reshape(30, 4, 4) == index, value, IMAGES)}


def for_test(images, *labels):
    return {"test_images": images, "test_labels": np.array(labels)}


def lacking(holds):
    known = "images and labels, x and y, data and target; also as x_train, test_images, val_labels"
    return f"images and labels are needed under known names ({known}); it holds {holds}"


# What is changed of a good file (None: left out), and what is said.
CASES = [
    ({"images": None}, lacking("labels [30] int64")),
    ({"images": None, "labels": None}, lacking("nothing")),
    ({"images": None, "labels": None, **{f"a{i:02}": LABELS for i in range(13)}},
     lacking(", ".join(f"a{i:02} [30] int64" for i in range(12)) + ", 1 more")),
    ({"images": None, "X": IMAGES, "data": IMAGES}, "one array must be the images, got X and data"),
    ({"test_labels": np.arange(3)}, "test_images and test_labels are needed together, found only test_labels"),
    ({"validation_difficulty": np.zeros(3)},
     "validation_images and validation_labels are needed together, found only validation_difficulty"),
    ({"images": np.zeros(30)}, "images must be [N, H, W] or [N, H, W, C], none 0, got shape (30,)"),
    ({"images": np.zeros((30, 3, 8, 9))}, "images are [30, 3, 8, 9]: say --layout chw for 3 channels of "
     "8x9 pixels, or --layout hwc for 9 channels of 3x8 pixels"),
    ({"images": np.zeros((30, 5000))}, "signals must have at most 4096 values, images have 5000; "
     "cut or average them before"),
    ({"images": np.zeros((0, 4, 4)), "labels": np.zeros(0, dtype=int)},
     "images must be [N, H, W] or [N, H, W, C], none 0, got shape (0, 4, 4)"),
    ({"images": np.zeros((30, 4, 4), complex)}, "images must be real numbers, got complex128"),
    (changed(118, np.nan), "images must be finite in float32, got nan at [7, 1, 2]"),
    (changed(118, -np.inf), "images must be finite in float32, got -inf at [7, 1, 2]"),
    (changed(0, 1e300), "images must be finite in float32, got 1e+300 at [0, 0, 0]"),
    ({"images": np.ones((30, 4, 4))}, "images must differ, but all 18 training images are the same in float32"),
    ({"labels": np.zeros((30, 3), int)},
     "labels must be [N], or [N, K] with one 1 and else 0 in each row, got shape (30, 3)"),
    ({"labels": np.full((30, 3), 1 / 3)},
     "labels must be [N], or [N, K] with one 1 and else 0 in each row, got shape (30, 3)"),
    ({"labels": np.zeros((30, 3, 1), int)}, "labels must be [N], got shape (30, 3, 1)"),
    ({"labels": np.arange(30) / 2}, "labels must be whole numbers or text, got 0.5"),
    ({"labels": np.where(np.arange(30) == 4, np.nan, 0)}, "labels must be whole numbers or text, got nan"),
    ({"labels": np.arange(30) * 1e16}, "labels must be whole numbers or text, got 1e+16"),
    ({"labels": np.arange(30) * 1j}, "labels must be integers, whole numbers, text or one-hot, got complex128"),
    ({"labels": np.where(np.arange(30) == 4, 2**63, 0).astype(np.uint64)},
     "labels must be below 2^63, got 9223372036854775808"),
    ({"labels": np.array([b"a", b"b", b" "] * 10)}, "labels must be text of 1 to 200 characters, row 2 has 0"),
    ({"labels": np.array([b"a", b"b" * 201] * 15)}, "labels must be text of 1 to 200 characters, row 1 has 201"),
    ({"labels": np.array([b"a", b"\xff"] * 15)}, "labels must be text in UTF-8, got other bytes"),
    ({"class_names": np.array([b"a", b"b"])},
     "labels must be whole numbers from 0 to 1, one for each of the class names, got 0 to 2"),
    ({"labels": np.arange(29) % 3}, "images and labels must be equally many, got 30 and 29"),
    ({"labels": np.zeros(30, int)}, "labels must name at least 2 classes, got 1"),
    ({"labels": np.array([0, 1] * 14 + [2, 2])},
     "every class must have at least 3 samples, one for each split that is made of them, class 2, one of 3, has 2"),
    ({"labels": np.array([0, 1] * 14 + [0, 2]), **for_test(THREE, 0, 1, 2)},
     "every class must have at least 2 samples, one for each split that is made of them, class 2, one of 3, has 1"),
    (for_test(np.zeros((2, 5, 4)), 0, 1), "test_images must be (4, 4, 1) like images, got (5, 4, 1)"),
    (for_test(TWO, 0), "test_images and test_labels must be equally many, got 2 and 1"),
    (for_test(TWO, 0, 3), "test_labels must each be one of the 3 labels of the training images, got 3"),
    (for_test(TWO, b"a", b"b"), "test_labels must each be one of the 3 labels of the training images, got a"),
    ({"validation_images": np.zeros((2, 5, 4)), "validation_labels": np.array([0, 1])},
     "validation_images must be (4, 4, 1) like images, got (5, 4, 1)"),
    ({"images": IMAGES * 1e-20, **for_test(TWO + 1e30, 0, 1)},
     "a feature of the test images lies too many deviations out for float32"),
    ({"difficulty": np.zeros(29)},
     "difficulty must be one number for each of 30 images, got float64 of shape (29,)"),
    ({"difficulty": np.zeros(30, "S3")},
     "difficulty must be one number for each of 30 images, got |S3 of shape (30,)"),
    ({"difficulty": np.arange(30.0)}, "difficulty must be from 0 to 1, got 2.0"),
    ({"difficulty": np.full(30, np.nan)}, "difficulty must be from 0 to 1, got nan"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), CASES, ids=[said for _, said in CASES])
@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_content_that_breaks_a_rule(tmp_path, changes, said, ending):
    arrays = {"images": IMAGES, "labels": LABELS} | changes
    given = {name: array for name, array in arrays.items() if array is not None}
    assert message(write(tmp_path / f"data{ending}", given)) == said


def test_a_place_that_is_no_data_set(tmp_path):
    for name in ("", "x" * 5000, "a\0b"):
        assert "data must be" in message(name)
    rule = f"data must be one of the built-in names (digits, digits32), a file ({ENDINGS}) or a folder"
    assert message("digit") == f"{rule}, got 'digit', which does not exist"
    assert "a data folder must be one of: " in message(tmp_path)
    (tmp_path / "data.tsv").write_text("1,2\n")
    assert message(tmp_path / "data.tsv") == f"a data file must end in one of {ENDINGS}, got '.tsv'"


ENDINGS = ".h5, .hdf5, .npz, .npy, .csv, .mat"
KINDS = {".h5": "HDF5 file", ".npz": ".npz file", ".mat": "MATLAB file of version 5 to 7"}


def unreadable(ending, because=""):
    return f"must be a whole {KINDS[ending]}, but it cannot be read ({because}"


@pytest.mark.parametrize("ending", KINDS)
def test_a_file_of_another_format_or_cut_short(tmp_path, ending):
    path = write(tmp_path / f"data{ending}", {"images": IMAGES, "labels": LABELS})
    whole = path.read_bytes()
    load(str(path))
    for content in (b"these are words\n" * 100, *(whole[: int(len(whole) * s)] for s in (0, 0.1, 0.5, 0.9, 0.99))):
        path.write_bytes(content)
        cut_between_variables = lacking("X [4, 4, 1, 30] double")
        assert message(path).startswith((unreadable(ending), cut_between_variables))


def test_a_group_is_no_array(tmp_path):
    path = write(tmp_path / "data.h5", {"images/inside": IMAGES, "labels": LABELS})
    assert message(path) == lacking("images (a group), labels [30] int64")
    for value, found in ((h5py.Empty("f4"), "[] float32"), (np.float32(3), "[] float32")):
        write(path, {"images": value, "labels": LABELS})
        assert message(path) == f"images must be an array of numbers or text, got {found}"
    with h5py.File(path, "w") as file:
        file["labels"] = LABELS
        file.create_dataset("images", (30,), h5py.vlen_dtype(np.uint8))
    assert message(path) == "images must be an array of numbers or text, got [30] of another type"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "data.npz", {"images": IMAGES, "labels": LABELS})
    monkeypatch.setattr(os, "open", Mock(side_effect=PermissionError(13, "Permission denied", str(path))))
    with pytest.raises(DataError, match=r"data.npz cannot be read: Permission denied\Z"):
        load(str(path))


def too_many(most, needed, what):
    return f"at most {most} bytes are decoded, got {needed} with {what}; --max-bytes raises the limit"


def test_an_enormous_declared_shape_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape=(10**9, 64, 64), chunks=(1, 64, 64), dtype="f4")
        file["labels"] = np.arange(3)
    assert path.stat().st_size < 10_000
    said = too_many("340,000,000", "16,384,000,000,000", "images of shape (1000000000, 64, 64)")
    assert message(path) == message(npz(tmp_path / "data.npz", (10**9, 64, 64), bytes(100))) == said
    said = "images declares shape (1000, 64, 64) of float32, but holds fewer bytes"
    assert message(npz(tmp_path / "data.npz", (1000, 64, 64), bytes(100))) == said
    path = write(tmp_path / "data.mat", {"images": IMAGES, "labels": LABELS})
    assert message(path, 100) == too_many(100, "3,840", "X")


def npz(path, shape, content, compression=zipfile.ZIP_STORED):
    """Write an archive whose images are `content` under a header of this shape, if one is given."""
    stream = streams.BytesIO()
    if shape:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", stream.getvalue() + content)
        archive.writestr("labels.npy", b"")
    return path


def test_an_npz_that_is_damaged_or_needs_more_than_reading(tmp_path):
    path = tmp_path / "data.npz"
    header = b"{'descr': '<f4', 'shape': (3,"  # ends too soon
    npz(path, None, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert message(path).startswith(unreadable(".npz"))
    spoilt = bytearray(npz(path, (2, 4, 4), bytes(range(128)), zipfile.ZIP_DEFLATED).read_bytes())
    spoilt[60:70] = bytes(10)
    path.write_bytes(spoilt)
    assert message(path).startswith(unreadable(".npz"))
    for local, central, value in ((6, 8, 1), (8, 10, 99), (8, 10, 12)):  # encrypted; by an unknown method; by bzip2
        content = bytearray(write(path, {"images": IMAGES, "labels": LABELS}).read_bytes())
        content[local] = content[content.index(b"PK\x01\x02") + central] = value  # both headers of the first member
        path.write_bytes(content)
        assert message(path) == "arrays must be stored or deflated and not encrypted, images is not"
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.arange(3))  # pickled: never loaded
    assert message(path).startswith("images must be numbers or text, got pickled objects; ")


X = np.zeros((4, 4, 3, 2))
ELSE = "labels stand in the last column, or in one that a first line calls label"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"X": X}, lacking("X [4, 4, 3, 2] double")),
        ({"X": np.zeros((4, 4)), "y": [[1], [2]]}, "images and labels must be equally many, got 4 and 2"),
        ({"X": X, "y": [[1.5], [2]]}, "labels must be whole numbers or text, got 1.5"),
        ({"X": X, "y": [[1.0], [np.nan]]}, "labels must be whole numbers or text, got nan"),
        ({"X": X, "y": np.array(["a", np.eye(2)], object)}, "y must be numbers or text, got cell"),
        ({"X": csc_matrix(np.eye(4)), "y": np.arange(4)}, "X must be numbers or text, got sparse"),
    ],
)
def test_mat_that_is_no_data_set(tmp_path, content, said):
    path = tmp_path / "data.mat"
    io.savemat(path, content)
    assert message(path) == said


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_mat_is_one_line_and_whole_values_are_scipys(tmp_path, packed):
    path, random = tmp_path / "data.mat", np.random.default_rng(0)
    texts = np.array(["ab", "c", "d\u00e9"] * 10)
    io.savemat(path, {"images": IMAGES, "labels": texts, "more": LABELS > 1}, do_compression=packed)
    read, expected = read_variables(path), io.loadmat(path)
    for name in read:
        assert read[name].values(Room(name)).tolist() == expected[name].tolist()
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(len(whole) if packed else 300, size=3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(128, 2 * len(whole))])
        with suppress(DataError):
            load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a table must have rows, got none"),
        ("a,b,label\n", "a table must have rows, got none"),
        ("1\n2\n", "a table must have features and a label in each row, got 1 column"),
        ("target,x,class\n1,2,3\n", "one column must hold the labels, got target, class"),
        ("1,2,a\n1,2\n", "line 2 must have 3 cells like the first, got 2"),
        ("1,2,a\n\n1,2,\n", "line 3 must have a label of 1 to 200 characters, got ''"),
        ("1,2,a\n1,,b\n", "a feature in one of the 2 rows up to line 2 must be a number, got ''"),
        ("a,2,0\nb,3,1\n", f"a feature in one of the 2 rows up to line 2 must be a number, got 'a'; {ELSE}"),
        ("1,2,0.5\n1,3,0\n", f"labels must be whole numbers or text, the last column has 0.5; {ELSE}"),
        ("1,nan,0\n1,3,0\n", "images must be finite in float32, got nan at [0, 1]"),
    ],
)
def test_a_table_that_breaks_a_rule(tmp_path, text, said):
    (tmp_path / "data.csv").write_text(text)
    assert message(tmp_path / "data.csv") == said


def test_npy_files_that_are_no_data_set(tmp_path):
    for name, array in {"X": IMAGES, "labels": LABELS, "other": LABELS}.items():
        np.save(tmp_path / name, array)
    assert message(tmp_path / "X.npy") == lacking("X [30, 4, 4] float64")  # labels belong to images
    rule = "a .npy file must be the training images, called images.npy, x.npy, data.npy or x_train.npy"
    assert message(tmp_path / "other.npy").startswith(rule)
    np.save(tmp_path / "y.npy", np.array([{}], object), allow_pickle=True)
    assert "y must be numbers or text, got pickled objects; save texts with .astype" in message(tmp_path / "X.npy")
    np.save(tmp_path / "y.npy", LABELS)
    load(tmp_path / "X.npy")
    whole = (tmp_path / "X.npy").read_bytes()
    (tmp_path / "X.npy").write_bytes(whole[:1000])
    assert "X declares shape (30, 4, 4) of float64, but holds fewer bytes" in message(tmp_path / "X.npy")
    said = too_many(100, "3,840", "X of shape (30, 4, 4)")
    assert message(tmp_path / "X.npy", 100).endswith(said)


MASKED = np.ma.masked_array(IMAGES, IMAGES > 3)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (7, "data must be a name, a path, (images, labels), a mapping of splits to such pairs, or a Dataset, "
         "got int"),
        ((IMAGES, LABELS.tolist()), "labels must be a NumPy array, got list; numpy.asarray makes one"),
        ((MASKED, LABELS), "images must be a NumPy array, got MaskedArray"),
        ((IMAGES, LABELS, LABELS), "train must be (images, labels), got 3 values"),
        ((IMAGES, LABELS + np.float16(0.5)), "arrays: labels must be whole numbers or text, got 0.5"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b", "a"])},
         "arrays: class names must differ, got 'a' more than once"),
        ({"train": (IMAGES, LABELS), "test": (IMAGES, np.array(["a\nb"] * 30))},
         "arrays: test_labels must each be one of the 3 labels of the training images, got a b"),
        (os.devnull, "data must be one of the built-in names (digits, digits32), a file (.h5, .hdf5, .npz, .npy, "
         f".csv, .mat) or a folder, got '{os.devnull}', which is a pipe or a device"),
        ((IMAGES.astype(object), LABELS), "arrays: images must be real numbers, got object"),
        ((IMAGES, np.array([[1], [2, 3]] * 15, object)),
         "arrays: labels must be integers, whole numbers, text or one-hot, got object"),
        ({"training": (IMAGES, LABELS)}, "splits of data must be train, and if given validation and test, "
         "got ['training']"),
        ({"x_train": IMAGES}, f"arrays: {lacking('x_train ndarray')}"),
    ],
)  # fmt: skip
def test_arrays_in_memory_that_break_a_rule(source, said):
    with pytest.raises(DataError) as caught:
        load(source)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layout": "nchw"}, "layout must be one of chw, hwc, signal, got 'nchw'"),
        ({"layout": "chw"}, "arrays: images must be [N, C, H, W], none 0, got shape (30, 4, 4)"),
        ({"resolution": 0}, "resolution must be a whole number >= 1, got 0"),
        ({"resolution": True}, "resolution must be a whole number >= 1, got True"),
        ({"resolution": 10**6}, "arrays: resized images must have at most 2147483648 values in all, and signals "
         "4096 each, resolution 1000000 makes them 1000000x1000000"),
        ({"resolution": 9999, "layout": "signal"},
         "arrays: resized images must have at most 2147483648 values in all, and "
         "signals 4096 each, resolution 9999 makes them 1x9999"),
    ],
)  # fmt: skip
def test_options_that_break_a_rule(options, said):
    with pytest.raises(DataError) as caught:
        load((IMAGES, LABELS), **options)
    assert str(caught.value) == said


def test_a_dataset_was_laid_out_and_resized_before():
    with pytest.raises(DataError, match="layout and resolution must not be given with a Dataset, got None and 8"):
        load(load("digits"), resolution=8)


def test_a_folder_with_a_data_file_names_it(tmp_path):
    (tmp_path / "own.csv").write_text("1,a\n")
    assert message(tmp_path).endswith("it holds something else; is it the file own.csv?")


def test_hdf5_that_declares_more_than_it_can_hold(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("images", (2**17, 32, 32), "u1", chunks=(32, 32, 32))
        file["labels"] = LABELS
    said = "images declares shape (131072, 32, 32) of 1-byte values, but holds only 0 bytes"
    assert message(tmp_path / "data.h5") == said


def test_values_without_a_byte_are_no_labels(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    empty = streams.BytesIO()
    np.lib.format.write_array_header_1_0(empty, {"descr": "|V0", "fortran_order": False, "shape": (2**31,)})
    (tmp_path / "y.npy").write_bytes(empty.getvalue())
    said = "y must be an array of numbers or text, got |V0 of shape (2147483648,)"
    assert message(tmp_path / "x.npy").endswith(said)
