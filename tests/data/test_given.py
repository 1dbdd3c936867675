"""Data that a network is given later: in every format, with labels or without, also those it learned from."""

import csv
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from nachos_min.data import DataError, Dataset, load
from nachos_min.data.given import ALL, Given, read_given
from nachos_min.data.load import load_unscaled
from nachos_min.data.seen import Seen

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (6, 8, 7), np.uint8)
WORDS = np.array(["ant", "bee", "ant", "cat", "cat", "bee"])


def seen_of(dataset: Dataset, **fields: Any) -> Seen:
    scaling = load(dataset).train.images.scaling
    known = {"scaling": scaling, "class_names": dataset.class_names, "class_labels": dataset.class_labels}
    usual: dict[str, Any] = {"dtype": "uint8", "least": 0.0, "most": 255.0, "layout": None} | known
    return Seen(dataset.image_shape, **(usual | fields))


SEEN = seen_of(load({"images": RNG.integers(0, 256, (60, 8, 7), np.uint8), "labels": np.tile(WORDS, 10)}))


def given(path: Path, seen: Seen = SEEN, split: str | None = None, digest: str = "") -> Given:
    return read_given(str(path), seen, digest, split)


def idx(path: Path, array: Any) -> None:
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def h5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype("S") if array.dtype.kind == "U" else array


WRITTEN: dict[str, Callable[[Path], Any]] = {
    "x.npz": lambda path: np.savez(path, images=IMAGES),
    "any.npz": lambda path: np.savez(path, IMAGES),
    "test.npz": lambda path: np.savez(path, x_test=IMAGES, other=np.arange(3)),
    "photos.npy": lambda path: np.save(path, IMAGES),
    "x_test.npy": lambda path: np.save(path, IMAGES),
    "x.h5": lambda path: h5(path, data=IMAGES),
    "x.mat": lambda path: scipy.io.savemat(path, {"x": IMAGES}),
    "last.mat": lambda path: scipy.io.savemat(path, {"images": IMAGES[..., None].transpose(1, 2, 3, 0)}),
    "t10k-images-idx3-ubyte": lambda path: idx(path, IMAGES),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_arrays_without_labels(name: str, tmp_path: Path) -> None:
    WRITTEN[name](tmp_path / name)
    found = given(tmp_path / name)
    assert (found.labels, found.split, found.own, found.names) == (None, ALL, False, (0, 1, 2, 3, 4, 5))
    np.testing.assert_array_equal(found.images, IMAGES[..., None], strict=True)
    with pytest.raises(DataError):
        load(str(tmp_path / name))  # a search needs labels


@pytest.mark.parametrize("labels", [WORDS, np.array([b"cat"] * 6), np.array(["bee"] * 6)])
def test_labels_are_matched_with_the_classes_learned(labels: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=IMAGES, y=labels)
    found = given(tmp_path / "x.npz")
    assert found.labels is not None
    assert np.array(SEEN.class_names)[found.labels].tolist() == labels.astype(str).tolist()


def test_names_of_classes_may_stand_in_another_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=IMAGES, y=[0, 1, 1, 0, 0, 1], class_names=["cat", "ant"])
    found = given(tmp_path / "x.npz")
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 0, 2, 2, 0]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_tables(header: bool, numbered: bool, labelled: bool, tmp_path: Path) -> None:
    numbered = numbered and header
    table = RNG.normal(size=(40, 5)).astype(np.float32)
    seen = seen_of(load((table, np.arange(40) % 3)), dtype="float32", least=-4.0, most=4.0)
    names = ["id"] * numbered + [f"f{n}" for n in range(5)] + ["kind"] * labelled
    with open(tmp_path / "t.csv", "w", newline="") as file:
        rows = [[n] * numbered + [*map(str, row)] + [n % 3] * labelled for n, row in enumerate(table[:7])]
        csv.writer(file).writerows([names] * header + rows)
    found = given(tmp_path / "t.csv", seen)
    np.testing.assert_array_equal(found.images, table[:7, None, :, None])
    if labelled:
        assert found.labels is not None
        assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    else:
        assert found.labels is None


def test_a_row_that_is_cut_off_is_named_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2,3\n1,2\n")
    with pytest.raises(DataError, match=r"t\.csv: line 2 must have 3 cells like the first, got 2"):
        given(tmp_path / "t.csv", replace(SEEN, shape=(1, 3, 1)))


def test_splits_of_other_data(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz", x_train=IMAGES, y_train=WORDS, x_test=IMAGES[:2], y_test=WORDS[:2], x_val=IMAGES[:3]
    )
    assert [len(given(tmp_path / "x.npz", split=name).images) for name in (None, "train", "validation")] == [
        2,
        6,
        3,
    ]
    with pytest.raises(
        DataError,
        match=r"x\.npz: split must be one that these data have \(train, validation, test\), got calibration$",
    ):
        given(tmp_path / "x.npz", split="calibration")


@pytest.mark.parametrize(("made", "halved"), [(False, True), (False, False), (True, True)])
def test_the_data_learned_from_are_divided_as_they_were(made: bool, halved: bool, tmp_path: Path) -> None:
    labels = np.arange(120) % 3 + 5
    arrays = {"x": RNG.integers(0, 256, (120, 3, 8, 7), np.uint8), "y": labels}
    if made:
        arrays |= {"x_test": arrays["x"][:9], "y_test": labels[:9]}
    np.savez(tmp_path / "x.npz", **arrays)
    dataset = load(str(tmp_path / "x.npz"), validation="halves" if halved else "whole", layout="chw")
    seen = seen_of(dataset, layout="chw")
    for name, split in dataset.splits.items():
        found = read_given(str(tmp_path / "x.npz"), seen, dataset.digest, name, halved=halved)
        assert (found.own, found.split) == (True, name)
        np.testing.assert_array_equal(found.images, replace(split.images, scaling=None)[:])
        np.testing.assert_array_equal(found.labels, split.labels)
        kept = arrays["x_test" if made and name == "test" else "x"].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found.images, kept[list(found.names)])
    assert given(tmp_path / "x.npz", seen, digest=dataset.digest).split == "test"
    other = given(tmp_path / "x.npz", seen, digest="other")
    assert (other.own, len(other.images)) == (False, 9 if made else 120)


@pytest.mark.parametrize(
    ("arrays", "rule"),
    [
        (
            {"x": IMAGES.astype(float) / 255},
            "values of images must be on the scale of the training images, 0 to 255",
        ),
        ({"x": IMAGES[:, :7]}, r"images must be \[N, 8, 7\] or \[8, 7\], as in training, got shape \[6, 7, 7\]"),
        (
            {"x": IMAGES, "y": WORDS[:4]},
            "must have at least one image, and as many labels .*, got 6 images and 4 labels",
        ),
        ({"x": IMAGES[:0]}, "must have at least one image, .*, got 0 images"),
        (
            {"x": IMAGES, "y": np.full(6, "dog")},
            r"labels must each be one of the run's \(ant, bee, cat\), got 'dog'",
        ),
        ({"x": IMAGES, "y": np.full(6, 0.5)}, "labels must be whole numbers or text, got 0.5"),
        ({"a": IMAGES, "b": IMAGES}, "images and labels are needed under known names"),
    ],
)
def test_data_unlike_those_learned_from_are_refused(arrays: dict[str, Any], rule: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'x.npz'}: {rule}"):
        given(tmp_path / "x.npz")


def picture(path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = pytest.importorskip("PIL.Image")  # the extra images
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    image.fromarray(pixels).save(path)
    return pixels


def test_one_image_a_folder_of_images_and_folders_of_some_classes(tmp_path: Path) -> None:
    pixels = [picture(tmp_path / "mine" / f"{name}.png", (8, 7)) for name in "ab"]
    (tmp_path / "mine" / "notes.txt").write_text("none")
    one = given(tmp_path / "mine" / "b.png")
    np.testing.assert_array_equal(one.images[..., 0], pixels[1:])
    assert (one.labels, one.names) == (None, ("b.png",))
    both = given(tmp_path / "mine")
    np.testing.assert_array_equal(both.images[..., 0], pixels)
    assert (both.labels, both.names) == (None, ("a.png", "b.png"))
    picture(tmp_path / "sorted" / "bee" / "1.png", (8, 7))
    picture(tmp_path / "sorted" / "ant" / "2.png", (8, 7))
    some = given(tmp_path / "sorted")
    assert some.labels is not None
    assert (some.labels.tolist(), some.names) == ([0, 1], ("ant/2.png", "bee/1.png"))
    colour = replace(SEEN, shape=(8, 7, 3))
    np.testing.assert_array_equal(given(tmp_path / "mine", colour).images, np.repeat(both.images, 3, axis=3))
    picture(tmp_path / "wrong.png", (8, 7, 3))
    with pytest.raises(DataError, match=r"wrong\.png: images must be \[N, 8, 7\] .* got shape \[1, 8, 7, 3\]"):
        given(tmp_path / "wrong.png")
    (tmp_path / "text.png").write_text("none")
    with pytest.raises(DataError, match=r"1 of 1 images cannot be read, the first is text\.png: not an image"):
        given(tmp_path / "text.png")


def test_images_of_other_sizes_become_what_those_learned_from_became(tmp_path: Path) -> None:
    sides = [(70, 80), (120, 100), (64, 64), (30, 40)]
    for number, size in enumerate(sides * 15):
        picture(tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png", (*size, 3))
    dataset = load_unscaled(str(tmp_path / "data"), resolution=16)
    assert dataset.image_shape == (16, 16, 3)
    seen = seen_of(dataset, resolution=16)
    all_ = np.concatenate([split.images[:] for split in dataset.splits.values()])
    own = given(tmp_path / "data", seen, digest=dataset.digest)
    np.testing.assert_array_equal(own.images, dataset.test.images[:])
    for name in own.names[:8]:  # one alone becomes what it became among the others
        found = given(tmp_path / "data" / str(name), seen).images
        assert (all_ == found).all(axis=(1, 2, 3)).any(), name


def test_the_built_in_digits_are_data_learned_from() -> None:
    digits = load("digits")
    found = read_given("digits", seen_of(digits, most=16.0), digits.digest)
    np.testing.assert_array_equal(found.labels, digits.test.labels)
