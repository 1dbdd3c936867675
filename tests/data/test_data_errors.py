"""Every way a data file can be wrong is one clear line."""

import io as streams
import zipfile

import h5py
import numpy as np
import pytest
from scipy import io

from nachos_min.data import DataError, arrays, load
from nachos_min.data.load import BUILT_IN

FORMATS = [".h5", ".npz", ".mat"]


def _arrays(**changes):
    images = np.random.default_rng(0).normal(size=(30, 4, 4))
    arrays = {"images": images, "labels": np.arange(30) % 3} | changes
    return {name: array for name, array in arrays.items() if array is not None}


def _write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        labels = arrays["labels"][:, None] + 1
        io.savemat(path, {"X": arrays["images"][..., None].transpose(1, 2, 3, 0), "y": labels})
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def _message(path):
    with pytest.raises(DataError) as caught:
        load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def _changed(index, value):
    images = _arrays()["images"]
    images[index] = value
    return images


CASES = {
    "no images": (
        {"images": None},
        "arrays 'images' and 'labels' are needed, found labels",
    ),
    "nothing known": (
        {"images": None, "labels": None},
        "arrays 'images' and 'labels' are needed, found neither",
    ),
    "half a test split": (
        {"test_labels": np.arange(3)},
        "test_images and test_labels are needed together, found only test_labels",
    ),
    "images of two axes": (
        {"images": np.zeros((30, 16))},
        "images must be [N, H, W] or [N, H, W, C], none 0, got shape (30, 16)",
    ),
    "no sample": (
        {"images": np.zeros((0, 4, 4)), "labels": np.zeros(0, dtype=int)},
        "images must be [N, H, W] or [N, H, W, C], none 0, got shape (0, 4, 4)",
    ),
    "complex images": (
        {"images": np.zeros((30, 4, 4), complex)},
        "images must be real numbers, got complex128",
    ),
    "not a number": (
        {"images": _changed((7, 1, 2), np.nan)},
        "images must be finite in float32, got nan at [7, 1, 2]",
    ),
    "infinite": (
        {"images": _changed((7, 1, 2), -np.inf)},
        "images must be finite in float32, got -inf at [7, 1, 2]",
    ),
    "beyond float32": (
        {"images": _changed((0, 0, 0), 1e300)},
        "images must be finite in float32, got 1e+300 at [0, 0, 0]",
    ),
    "labels of two axes": ({"labels": np.zeros((30, 3), int)}, "labels must be [N], got shape (30, 3)"),
    "labels of no integers": ({"labels": np.arange(30) / 2}, "labels must be integers, got float64"),
    "negative label": (
        {"labels": np.arange(30) % 3 - 1},
        "labels must be 0 .. number of classes - 1, got -1",
    ),
    "enormous label": (
        {"labels": np.where(np.arange(30) == 4, 2**63, 0).astype(np.uint64)},
        "labels must be 0 .. number of classes - 1, got 9223372036854775808",
    ),
    "different counts": (
        {"labels": np.arange(29) % 3},
        "images and labels must be equally many, got 30 and 29",
    ),
    "a class without samples": (
        {"labels": np.arange(30) % 3 * 2},
        "labels must use every class 0 .. 4, none is 1",
    ),
    "a single class": ({"labels": np.zeros(30, int)}, "labels must name at least 2 classes, got 1"),
    "a class too small for three splits": (
        {"labels": np.array([0, 1] * 14 + [2, 2])},
        "every class must have at least 3 samples, one for each split that is made of them, class 2 has 2",
    ),
    "a class too small for two splits": (
        {
            "labels": np.array([0, 1] * 14 + [0, 2]),
            "test_images": np.zeros((3, 4, 4)),
            "test_labels": np.array([0, 1, 2]),
        },
        "every class must have at least 2 samples, one for each split that is made of them, class 2 has 1",
    ),
    "test images unlike the others": (
        {"test_images": np.zeros((2, 5, 4)), "test_labels": np.array([0, 1])},
        "test_images must be (4, 4, 1) like images, got (5, 4, 1)",
    ),
    "test counts": (
        {"test_images": np.zeros((2, 4, 4)), "test_labels": np.array([0])},
        "test_images and test_labels must be equally many, got 2 and 1",
    ),
    "test label of no class": (
        {"test_images": np.zeros((2, 4, 4)), "test_labels": np.array([0, 3])},
        "test_labels must be below 3, got 3",
    ),
    "a validation difficulty alone": (
        {"validation_difficulty": np.zeros(3)},
        "validation_images and validation_labels are needed together, found only validation_difficulty",
    ),
    "validation images unlike the others": (
        {"validation_images": np.zeros((2, 5, 4)), "validation_labels": np.array([0, 1])},
        "validation_images must be (4, 4, 1) like images, got (5, 4, 1)",
    ),
    "too few difficulties": (
        {"difficulty": np.zeros(29)},
        "difficulty must be one number for each of 30 images, got float64 of shape (29,)",
    ),
    "difficulties of words": (
        {"difficulty": np.zeros(30, "S3")},
        "difficulty must be one number for each of 30 images, got |S3 of shape (30,)",
    ),
    "difficulty above 1": (
        {"difficulty": np.arange(30.0)},
        "difficulty must be from 0 to 1, got 2.0",
    ),
    "difficulty that is no number": (
        {"difficulty": np.full(30, np.nan)},
        "difficulty must be from 0 to 1, got nan",
    ),
    "images that are all the same": (
        {"images": np.ones((30, 4, 4))},
        "images must differ, but all 18 training images are the same",
    ),
    "test image out of float32's reach once scaled": (
        {
            "images": np.random.default_rng(0).normal(size=(30, 4, 4)) * 1e-20,
            "test_images": np.full((2, 4, 4), 1e30),
            "test_labels": np.array([0, 1]),
        },
        "a feature of the test images lies too many deviations out for float32",
    ),
}


@pytest.mark.parametrize(("changes", "message"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_content_that_breaks_a_rule(tmp_path, changes, message, ending):
    assert _message(_write(tmp_path / f"data{ending}", _arrays(**changes))) == message


def test_unknown_name_lists_what_there_is():
    expected = (
        "data must be one of the built-in names (digits, digits32) or a file (.h5, .hdf5, .npz, .mat), got 'digit'"
    )
    assert _message("digit") == f"{expected}, which does not exist"
    assert BUILT_IN == ("digits", "digits32")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b"])
def test_a_name_that_can_be_no_file(name):
    assert "data must be" in _message(name)


def test_folder_and_unknown_ending(tmp_path):
    assert _message(tmp_path) == "data must be a file, got a folder"
    (tmp_path / "data.csv").write_text("1,2\n")
    rule = "a data file must end in one of .h5, .hdf5, .npz, .mat, got '.csv'"
    assert _message(tmp_path / "data.csv") == rule


WHOLE = {
    ".h5": "must be a whole HDF5 file, but it cannot be read (",
    ".hdf5": "must be a whole HDF5 file, but it cannot be read (",
    ".npz": "must be a whole .npz file, but it cannot be read (",
    ".mat": "must be a whole MATLAB file of version 7 or before, but it cannot be read (",
}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_another_format(tmp_path, ending):
    path = tmp_path / f"data{ending}"
    path.write_text("these are words\n" * 100)
    assert _message(path).startswith(WHOLE[ending])
    path.write_bytes(b"")
    assert _message(path).startswith(WHOLE[ending])


@pytest.mark.parametrize("ending", FORMATS)
def test_a_truncated_file(tmp_path, ending):
    path = _write(tmp_path / f"data{ending}", _arrays())
    whole = path.read_bytes()
    load(str(path))
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "but it cannot be read (" in _message(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = _write(tmp_path / "data.npz", _arrays())

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    assert _message(path) == "must be a whole .npz file, but it cannot be read ([Errno 13] Permission denied)"


def test_an_enormous_declared_shape_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape=(10**9, 64, 64), chunks=(1, 64, 64), dtype="f4")
        file["labels"] = np.arange(3)
    assert path.stat().st_size < 10_000
    assert _message(path) == ("images must have at most 2147483648 values, it declares shape (1000000000, 64, 64)")


def test_an_enormous_mat_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = _write(tmp_path / "data.mat", _arrays())
    monkeypatch.setattr(arrays, "MAX_VALUES", 100)
    assert _message(path) == "X must have at most 100 values, it declares shape (4, 4, 1, 30)"


def _npz_member(shape, payload):
    stream = streams.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + payload


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (10**9, 64, 64),
            "images must have at most 2147483648 values, it declares shape (1000000000, 64, 64)",
        ),
        ((1000, 64, 64), "images declares shape (1000, 64, 64) of float32, but holds only 228 bytes"),
    ],
)
def test_an_npz_header_that_promises_too_much(tmp_path, shape, message):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", _npz_member(shape, bytes(100)))
    assert _message(path) == message


@pytest.mark.parametrize(
    ("local", "central", "value"), [(6, 8, 1), (8, 10, 99)], ids=["encrypted", "unknown method"]
)
def test_an_npz_that_needs_more_than_reading(tmp_path, local, central, value):
    path = _write(tmp_path / "data.npz", _arrays())
    content = bytearray(path.read_bytes())
    content[local] = content[content.index(b"PK\x01\x02") + central] = value  # both headers of the first member
    path.write_bytes(content)
    assert _message(path).startswith(WHOLE[".npz"])


def test_an_npz_whose_compressed_bytes_are_spoilt(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", _npz_member((2, 4, 4), bytes(128)))
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    assert _message(path).startswith(WHOLE[".npz"])


def test_an_npz_header_that_ends_too_soon(tmp_path):
    path = tmp_path / "data.npz"
    header = b"{'descr': '<f4', 'shape': (3,"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert _message(path).startswith(WHOLE[".npz"])


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.arange(3))
    assert "but it cannot be read (Object arrays cannot be loaded" in _message(path)


def test_an_hdf5_group_is_no_array(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_group("images")
        file["labels"] = np.arange(3)
    assert _message(path) == "arrays 'images' and 'labels' are needed, found labels"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((4, 4, 3, 2))}, "variables X [H, W, C, N] and y [N, 1] are needed, as in SVHN"),
        ({"X": np.zeros((4, 4)), "y": [[1], [2]]}, "X must be [H, W, C, N], got shape (4, 4)"),
        (
            {"X": np.zeros((4, 4, 3, 2)), "y": [[1.5], [2]]},
            "y must be whole numbers >= 0 below 2147483648, got 1.5",
        ),
        (
            {"X": np.zeros((4, 4, 3, 2)), "y": [[1], [-2]]},
            "y must be whole numbers >= 0 below 2147483648, got -2",
        ),
        (
            {"X": np.zeros((4, 4, 3, 2)), "y": [[1.0], [np.nan]]},
            "y must be whole numbers >= 0 below 2147483648, got nan",
        ),
        ({"X": np.zeros((4, 4, 3, 2)), "y": ["a", "b"]}, "y must be numbers, got <U1"),
    ],
)
def test_mat_that_is_not_laid_out_like_svhn(tmp_path, content, message):
    path = tmp_path / "data.mat"
    io.savemat(path, content)
    assert _message(path) == message
