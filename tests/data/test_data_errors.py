"""Every way a data file can be wrong is one clear line."""

import io as streams
import zipfile
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
from scipy import io

from nachos_min.data import DataError, load, readers

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


def message(path):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        load(str(path))
    return str(caught.value).removeprefix(f"{path}: ")


def changed(index, value):
    return {"images": np.where(np.arange(480).reshape(30, 4, 4) == index, value, IMAGES)}


def for_test(images, *labels):
    return {"test_images": images, "test_labels": np.array(labels)}


# What is changed of a good file (None: left out), and what is said.
CASES = [
    ({"images": None}, "arrays 'images' and 'labels' are needed, found labels"),
    ({"images": None, "images/inside": IMAGES}, "arrays 'images' and 'labels' are needed, found labels"),  # a group
    ({"images": None, "labels": None}, "arrays 'images' and 'labels' are needed, found neither"),
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
    ({"images": np.ones((30, 4, 4))}, "images must differ, but all 18 training images are the same"),
    ({"labels": np.zeros((30, 3), int)}, "labels must be [N], got shape (30, 3)"),
    ({"labels": np.arange(30) / 2}, "labels must be integers, got float64"),
    ({"labels": np.arange(30) % 3 - 1}, "labels must be 0 .. number of classes - 1, got -1"),
    ({"labels": np.where(np.arange(30) == 4, 2**63, 0).astype(np.uint64)},
     "labels must be 0 .. number of classes - 1, got 9223372036854775808"),
    ({"labels": np.arange(29) % 3}, "images and labels must be equally many, got 30 and 29"),
    ({"labels": np.arange(30) % 3 * 2}, "labels must use every class 0 .. 4, none is 1"),
    ({"labels": np.zeros(30, int)}, "labels must name at least 2 classes, got 1"),
    ({"labels": np.array([0, 1] * 14 + [2, 2])},
     "every class must have at least 3 samples, one for each split that is made of them, class 2 has 2"),
    ({"labels": np.array([0, 1] * 14 + [0, 2]), **for_test(THREE, 0, 1, 2)},
     "every class must have at least 2 samples, one for each split that is made of them, class 2 has 1"),
    (for_test(np.zeros((2, 5, 4)), 0, 1), "test_images must be (4, 4, 1) like images, got (5, 4, 1)"),
    (for_test(TWO, 0), "test_images and test_labels must be equally many, got 2 and 1"),
    (for_test(TWO, 0, 3), "test_labels must be below 3, got 3"),
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
    rule = "data must be one of the built-in names (digits, digits32), a file (.h5, .hdf5, .npz, .mat) or a folder"
    assert message("digit") == f"{rule}, got 'digit', which does not exist"
    assert "a data folder must be one of: " in message(tmp_path)
    (tmp_path / "data.csv").write_text("1,2\n")
    rule = "a data file must end in one of .h5, .hdf5, .npz, .mat, got '.csv'"
    assert message(tmp_path / "data.csv") == rule


KINDS = {".h5": "HDF5 file", ".npz": ".npz file", ".mat": "MATLAB file of version 7 or before"}


def unreadable(ending, because=""):
    return f"must be a whole {KINDS[ending]}, but it cannot be read ({because}"


@pytest.mark.parametrize("ending", KINDS)
def test_a_file_of_another_format_or_cut_short(tmp_path, ending):
    path = write(tmp_path / f"data{ending}", {"images": IMAGES, "labels": LABELS})
    whole = path.read_bytes()
    load(str(path))
    for content in (b"these are words\n" * 100, *(whole[: int(len(whole) * s)] for s in (0, 0.1, 0.5, 0.9, 0.99))):
        path.write_bytes(content)
        assert message(path).startswith(unreadable(ending))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "data.npz", {"images": IMAGES, "labels": LABELS})
    monkeypatch.setattr(zipfile, "ZipFile", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert message(path) == unreadable(".npz", "[Errno 13] Permission denied)")


TOO_MANY = "images must have at most 2147483648 values, it declares shape (1000000000, 64, 64)"


def test_an_enormous_declared_shape_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape=(10**9, 64, 64), chunks=(1, 64, 64), dtype="f4")
        file["labels"] = np.arange(3)
    assert path.stat().st_size < 10_000
    assert message(path) == message(npz(tmp_path / "data.npz", (10**9, 64, 64), bytes(100))) == TOO_MANY
    said = "images declares shape (1000, 64, 64) of float32, but holds only 228 bytes"
    assert message(npz(tmp_path / "data.npz", (1000, 64, 64), bytes(100))) == said
    monkeypatch.setattr(readers, "MAX_VALUES", 100)
    path = write(tmp_path / "data.mat", {"images": IMAGES, "labels": LABELS})
    assert message(path) == "X must have at most 100 values, it declares shape (4, 4, 1, 30)"


def npz(path, shape, content, compression=zipfile.ZIP_STORED):
    """Write an archive whose images are `content` under a header of this shape, if one is given."""
    stream = streams.BytesIO()
    if shape:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", stream.getvalue() + content)
    return path


def test_an_npz_that_is_damaged_or_needs_more_than_reading(tmp_path):
    path = tmp_path / "data.npz"
    header = b"{'descr': '<f4', 'shape': (3,"  # ends too soon
    npz(path, None, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert message(path).startswith(unreadable(".npz"))
    spoilt = bytearray(npz(path, (2, 4, 4), bytes(128), zipfile.ZIP_LZMA).read_bytes())
    spoilt[60:70] = bytes(10)
    path.write_bytes(spoilt)
    assert message(path).startswith(unreadable(".npz"))
    for local, central, value in ((6, 8, 1), (8, 10, 99)):  # encrypted; by an unknown method
        content = bytearray(write(path, {"images": IMAGES, "labels": LABELS}).read_bytes())
        content[local] = content[content.index(b"PK\x01\x02") + central] = value  # both headers of the first member
        path.write_bytes(content)
        assert message(path).startswith(unreadable(".npz"))
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.arange(3))  # pickled: never loaded
    assert message(path).startswith(unreadable(".npz", "Object arrays cannot be loaded"))


X = np.zeros((4, 4, 3, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"X": X}, "variables X [H, W, C, N] and y [N, 1] are needed, as in SVHN"),
        ({"X": np.zeros((4, 4)), "y": [[1], [2]]}, "X must be [H, W, C, N], got shape (4, 4)"),
        ({"X": X, "y": [[1.5], [2]]}, "y must be whole numbers >= 0 below 2147483648, got 1.5"),
        ({"X": X, "y": [[1], [-2]]}, "y must be whole numbers >= 0 below 2147483648, got -2"),
        ({"X": X, "y": [[1.0], [np.nan]]}, "y must be whole numbers >= 0 below 2147483648, got nan"),
        ({"X": X, "y": ["a", "b"]}, "y must be numbers, got <U1"),
    ],
)
def test_mat_that_is_not_laid_out_like_svhn(tmp_path, content, said):
    path = tmp_path / "data.mat"
    io.savemat(path, content)
    assert message(path) == said
