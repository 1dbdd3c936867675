"""People's own data: files in each layout, read as an independent reader reads them, and arrays in memory."""

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import io

from nachos_min.data import DataError, Dataset, load
from nachos_min.data.dataset import extent, fitted_size, kind_of, resize
from nachos_min.data.load import load_unscaled

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 4
TEST_IMAGES, TEST_LABELS = RNG.integers(0, 256, (8, 6, 5, 3), np.uint8), np.arange(8) % 4
VALIDATION = {"validation": (TEST_IMAGES[::-1], TEST_LABELS[::-1])}
ALL = {"train": (IMAGES, LABELS), "test": (TEST_IMAGES, TEST_LABELS), **VALIDATION}


def same(one: Dataset, two: Dataset) -> None:
    """Check that two data sets hold the same numbers."""
    assert (one.digest, one.image_shape, one.class_names) == (two.digest, two.image_shape, two.class_names)
    for name in ("train", "validation", "test"):
        first, second = getattr(one, name), getattr(two, name)
        np.testing.assert_array_equal(first.labels, second.labels)
        np.testing.assert_array_equal(first.images, second.images)


NAMINGS = [
    ("images", "labels", "test_images", "test_labels", "validation_images", "validation_labels"),
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
    ("X_train", "y_train", "X_test", "y_test", "X_validation", "y_validation"),
    ("X", "y", "test_X", "test_y", "validation_X", "validation_y"),
    ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
    ("data", "target", "data_test", "target_test", "data_val", "target_val"),
]


@pytest.mark.parametrize("names", NAMINGS)
@pytest.mark.parametrize("ending", ["npz", "h5", "mat", "npy", "folder", "memory"])
def test_known_names_in_every_format(tmp_path: Path, names: tuple[str, ...], ending: str) -> None:
    parts = (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS, *VALIDATION["validation"])
    arrays = dict(zip(names, parts, strict=True))
    source: Any = tmp_path / f"data.{ending}"
    if ending == "npz":
        np.savez_compressed(source, extra=np.arange(3), **arrays)
        with np.load(source) as read:
            arrays = {name: read[name] for name in names}
    elif ending == "h5":
        with h5py.File(source, "w") as file:
            file.update(arrays)
            file["group/images"] = np.zeros(3)
        with h5py.File(source) as file:
            arrays = {name: file[name][()] for name in names}
    elif ending == "mat":
        io.savemat(source, arrays)
        read = io.loadmat(source)
        arrays = {name: read[name].ravel() if read[name].shape[0] == 1 else read[name] for name in names}
    elif ending == "memory":
        source = arrays
    else:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        source = tmp_path / f"{names[0]}.npy" if ending == "npy" else tmp_path
    images, labels, *others = (arrays[name] for name in names)
    expected = load({"train": (images, labels), "test": tuple(others[:2]), "validation": tuple(others[2:])})
    same(load(source), expected)
    same(expected, load(ALL))
    assert np.asarray(expected.train.images).shape == IMAGES.shape


def test_what_is_loaded_is_what_was_given() -> None:
    data = load_unscaled(ALL)
    np.testing.assert_array_equal(data.train.images, IMAGES)
    np.testing.assert_array_equal(data.test.labels, TEST_LABELS)
    assert (data.name, data.class_names, data.notes) == ("arrays", ("0", "1", "2", "3"), ())
    scaled = load(ALL)
    assert load(scaled) is scaled
    both = load({"x": IMAGES, "images": IMAGES, "labels": LABELS})  # the own name counts
    assert both.digest == load((IMAGES, LABELS)).digest


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint16, np.float64, np.float32, bool])
def test_whole_numbers_from_0_to_255_are_kept_as_bytes(kind: Any) -> None:
    images = (IMAGES > 100).astype(kind) if kind is bool else IMAGES.astype(kind)
    stored = load_unscaled((images, LABELS)).train.images.stored
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, images)
    for other in (IMAGES.astype(np.int64) - 1, IMAGES / 255):
        stored = load_unscaled((other, LABELS)).train.images.stored
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, other.astype(np.float32))


@pytest.mark.parametrize("ending", ["h5", "npz"])
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS.astype(np.int8) + 1, ("1", "2", "3", "4")),
        (LABELS * 10.0 - 20, ("-20", "-10", "0", "10")),
        (np.eye(4, dtype=np.float32)[LABELS], ("0", "1", "2", "3")),
        (LABELS.astype(np.uint8)[:, None], ("0", "1", "2", "3")),
        (LABELS > 1, ("False", "True")),
        (np.array([b"tree", b"ape", "Käse".encode(), b"zoo"])[LABELS], ("Käse", "ape", "tree", "zoo")),
    ],
)
def test_labels_of_any_kind(tmp_path: Path, labels: Any, names: tuple[str, ...], ending: str) -> None:
    path = tmp_path / f"own.{ending}"
    arrays = {"images": IMAGES, "labels": labels, "test_images": IMAGES[:9], "test_labels": labels[:9]}
    if ending == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            file.update(arrays)
    data = load_unscaled(path)
    assert data.class_names == names
    plain = labels.argmax(axis=1) if labels.shape[1:] == (4,) else labels.ravel()
    told = [data.class_names[label] for label in data.test.labels]
    assert told == [each.decode() if isinstance(each, bytes) else f"{each:g}" if each.dtype == float else str(each)
                    for each in plain[:9]]  # fmt: skip


def test_text_of_variable_length_and_names_of_classes(tmp_path: Path) -> None:
    for name, labels, given in (("text", ["b", "a"] * 20, None), ("named", [1, 0] * 20, ["a", "b", "c"])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["images"], file["labels"] = IMAGES, labels
            if given:
                file["class_names"] = given
    text, named = load(tmp_path / "text.h5"), load(tmp_path / "named.h5")
    same(text, named)
    assert text.class_names == ("a", "b")
    words = np.array(["b", "a"] * 20)
    same(text, load((IMAGES, words)))
    same(text, load((IMAGES, words.astype(object))))
    assert "labels are text: classes 0 to 1 in alphabetical order, from a to b" in text.notes


def test_layouts() -> None:
    first = IMAGES.transpose(0, 3, 1, 2)
    with pytest.raises(
        DataError, match="say --layout chw for 3 channels of 6x5 pixels, or --layout hwc for 5 chan"
    ):
        load((first, LABELS))
    chw = load((first, LABELS), layout="chw")
    same(chw, load((IMAGES, LABELS)))
    assert chw.train.images.stored.flags.c_contiguous
    assert load((first, LABELS), layout="hwc").image_shape == (3, 6, 5)
    grey = IMAGES[..., 0]
    assert load((grey, LABELS)).image_shape == (6, 5, 1)
    assert load((grey, LABELS), layout="signal").image_shape == (1, 6, 5)
    reverse = load((grey.transpose(0, 2, 1), LABELS), layout="signal").notes[0]
    assert reverse == "images are [40, 5, 6]: signals of length 5 with 6 channels, not the reverse"
    table = load((grey.reshape(40, 30), LABELS))
    assert (table.image_shape, table.notes[0][:21]) == ((1, 30, 1), "images have 2 axes, [")
    same(table, load((grey.reshape(40, 30), LABELS), layout="signal"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("header", "at", "note"),
    [
        (None, 3, "labels are in the last column"),
        (["a", "b", "c", "species"], 3, "labels are in column 'species'"),
        (["Label", "0", "1", "2"], 0, "labels are in column 'Label'"),
        (["x", "y", "class", "z"], 2, "labels are in column 'class'"),
    ],
)
def test_a_table_is_read_as_the_csv_module_reads_it(
    tmp_path: Path, delimiter: str, header: list[str] | None, at: int, note: str
) -> None:
    rows = [[f"{number:.6g}" for number in row] for row in RNG.normal(size=(1_100, 3))]
    for index, row in enumerate(rows):
        row.insert(at, ["not, so", "rose", "7"][index % 3])
    path = tmp_path / "table.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows if header is None else [header, *rows])
    data = load_unscaled(path)
    assert (data.image_shape, data.class_names, data.notes[0]) == ((1, 3, 1), ("7", "not, so", "rose"), note)
    numbers = np.array([[float(cell) for index, cell in enumerate(row) if index != at] for row in rows])
    labels = np.array([row[at] for row in rows])
    same(data, load_unscaled((numbers, labels)))


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        ((7,), "images have 2 axes, [30, 7]: each row is a signal of length 7"),
        ((4,), "images have 2 axes, [30, 4]: each row is a signal of length 4"),
        ((64,), "images have 2 axes, [30, 64]: each row is a signal of length 64; "
                "images of 8x8 must be [30, 8, 8]"),
        ((8, 32), "images have 3 axes, [30, 8, 32]: grey images of 8x32 pixels; signals must be "
                  "[N, length, channels], with --layout signal"),
        ((8, 31), None),
    ],
)  # fmt: skip
def test_axes_that_may_be_meant_otherwise_are_told(shape: tuple[int, ...], note: str | None) -> None:
    notes = [each for each in load_unscaled((RNG.random((30, *shape)), np.arange(30) % 3)).notes if "axes" in each]
    assert notes == ([note] if note else [])


@pytest.mark.parametrize("name", ["", "Id", "Unnamed: 0", "a"])
def test_a_column_that_numbers_the_rows_of_a_table_is_no_feature(tmp_path: Path, name: str) -> None:
    rows = [f"{row},{row % 7},{row % 3},{row % 5}" for row in range(30)]
    (tmp_path / "own.csv").write_text("\n".join([f"{name},b,label,c", *rows]))
    data = load_unscaled(tmp_path / "own.csv")
    said = f"the first column, {name!r}, is left out: it numbers the rows"
    assert (data.image_shape[1], said in data.notes) == ((3, False) if name == "a" else (2, True))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3)])
def test_samples_of_a_mat_file_may_stand_last(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images, test_images = RNG.random((30, *shape)), RNG.random((12, *shape))
    last = {"X": np.moveaxis(images, 0, -1), "Y": np.arange(30) % 3, "X_test": np.moveaxis(test_images, 0, -1)}
    io.savemat(tmp_path / "own.mat", last | {"Y_test": np.arange(12) % 3})
    data = load_unscaled(tmp_path / "own.mat")
    same(data, load_unscaled({"train": (images, np.arange(30) % 3), "test": (test_images, np.arange(12) % 3)}))
    assert data.notes[0] == f"images are {[*shape, 30]}: the last axis is that of the samples"


@pytest.mark.parametrize("shape", [(30,), (1, 30), (30, 1)])
def test_labels_in_a_cell_array_are_text(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images, words = RNG.random((30, 4, 5)), np.array(["oak", "elm", "fir"])[np.arange(30) % 3]
    io.savemat(tmp_path / "own.mat", {"X": images, "y": words.astype(object).reshape(shape)})
    same(load_unscaled(tmp_path / "own.mat"), load_unscaled((images, words)))


@pytest.mark.parametrize(("labels", "names"), [("321", ("1", "2", "3")), (["1.0", "2", "-1e1"], ("-10", "1", "2"))])
def test_labels_in_a_table_are_numbers_where_all_are(tmp_path: Path, labels: Any, names: tuple[str, ...]) -> None:
    (tmp_path / "own.csv").write_text("".join(f"{row},{row % 5},{labels[row % 3]}\n" for row in range(30)))
    assert load(tmp_path / "own.csv").class_names == names


def test_splits_that_are_made_are_told() -> None:
    notes = load((IMAGES, LABELS)).notes
    assert notes == (
        "no test split was given: 8 of 40 samples are held out for it, 20 % of each class",
        "no validation split was given: 8 of 32 samples are held out for it, 20 % of each class",
    )
    given = load({"train": (IMAGES, LABELS), **VALIDATION})
    assert [note[:13] for note in given.notes] == ["no test split"]
    np.testing.assert_array_equal(load_unscaled({"train": (IMAGES, LABELS), **VALIDATION}).validation.labels,
                                  TEST_LABELS[::-1])  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "resolution", "size"),
    [
        ((6, 5), 10, (12, 10)),
        ((100, 300), None, (64, 192)),
        ((96, 97), None, (96, 97)),
        ((97, 97), None, (64, 64)),
        ((1, 500), 50, (1, 50)),
        ((1, 500), None, (1, 500)),
    ],
)
def test_the_shorter_side_is_brought_to_the_resolution(
    shape: tuple[int, int], resolution: int | None, size: tuple[int, int]
) -> None:
    assert fitted_size(shape, resolution) == size
    images = RNG.integers(0, 256, (20, *shape, 1), np.uint8)
    data = load_unscaled((images, np.arange(20) % 2), resolution=resolution)
    assert data.image_shape == (*size, 1)
    told = f"{kind_of(shape)} are resized to {extent(size)}"
    assert (told in data.notes) == (shape != size)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_resized_images_are_rounded_only_if_they_were_bytes(kind: Any) -> None:
    images = IMAGES.astype(kind) if kind is np.uint8 else (IMAGES / 9).astype(kind)
    data = load_unscaled((images, LABELS), resolution=4)
    exact = resize(images.astype(np.float32), (5, 4))
    expected = np.floor(exact + np.float32(0.5)) if kind is np.uint8 else exact
    stored = data.train.images.stored
    assert stored.dtype == kind
    np.testing.assert_array_equal(stored, expected.astype(kind))


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float64])
def test_a_resized_mask_keeps_its_edges(kind: Any) -> None:
    masks = RNG.integers(0, 2, (20, 8, 8)).astype(kind)
    stored = load_unscaled((masks, np.arange(20) % 2), resolution=4).train.images.stored
    np.testing.assert_array_equal(stored[..., 0], resize(masks[..., None].astype(np.float32), (4, 4))[..., 0])


def test_numbers_that_float32_cannot_tell_apart_are_named(tmp_path: Path) -> None:
    table = RNG.normal([0.0, 1e6, 1e8], 1.0, (40, 3))
    notes = load((table, LABELS)).notes
    assert "images: float32 rounds 1 of 3 features by over a tenth of its range; subtract its mean before" in notes
    assert load((RNG.normal(0.1, [0, 1, 2], (40, 3)), LABELS)).notes[1:] == notes[2:]
    rows = [",".join(map(repr, [*row.tolist(), label])) for row, label in zip(table, LABELS.tolist(), strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    assert notes[1] in load(tmp_path / "table.csv").notes
    with pytest.raises(DataError, match="all 24 training images are the same in float32"):
        load((1e9 + RNG.random((40, 3)), LABELS))


@pytest.mark.parametrize(("by", "said"), [(255, True), (1 / 255, True), (2, False), (-1, False)])
def test_splits_on_different_scales_are_told_of(by: float, said: bool) -> None:
    test_images = TEST_IMAGES / by
    notes = load({"train": (IMAGES, LABELS), "test": (test_images, TEST_LABELS)}).notes
    told = f"test_images span {np.ptp(test_images):g} and images 255: both should be on one scale"
    assert (told in notes) is said
