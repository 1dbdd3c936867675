"""Images and labels that are given later are brought to what the data set had, or refused."""

from typing import Any

import numpy as np
import pytest

from nachos_min.data import DataError, load
from nachos_min.data.dataset import Images, Scaling, resized
from nachos_min.data.limits import ANY
from nachos_min.data.seen import Seen

RNG = np.random.default_rng(5)
SAME = Scaling(np.zeros(1), np.ones(1))


def seen(shape: tuple[int, int, int], layout: str | None = None, **fields: Any) -> Seen:
    usual = {"dtype": "uint8", "least": 0.0, "most": 255.0, "scaling": SAME, "class_names": ("a", "b")}
    return Seen(shape, layout=layout, **(usual | fields))


GREY, COLOUR, FIRST = seen((6, 5, 1)), seen((6, 5, 3)), seen((6, 5, 3), "chw")
SIGNAL, SENSORS = seen((1, 9, 1)), seen((1, 9, 2), "signal")


@pytest.mark.parametrize(
    ("expected", "shape", "samples"),
    [
        (GREY, (4, 6, 5), 4),
        (GREY, (4, 6, 5, 1), 4),
        (GREY, (6, 5), 1),
        (GREY, (6, 5, 1), 1),
        (GREY, (0, 6, 5), 0),
        (COLOUR, (4, 6, 5, 3), 4),
        (COLOUR, (6, 5, 3), 1),
        (FIRST, (4, 3, 6, 5), 4),
        (FIRST, (3, 6, 5), 1),
        (SIGNAL, (4, 9), 4),
        (SIGNAL, (9,), 1),
        (SIGNAL, (4, 9, 1), 4),
        (SIGNAL, (4, 1, 9, 1), 4),
        (SENSORS, (4, 9, 2), 4),
        (SENSORS, (9, 2), 1),
    ],
)
def test_axes_that_may_be_missing(expected: Seen, shape: tuple[int, ...], samples: int) -> None:
    given = RNG.integers(0, 256, shape, np.uint8)
    found = expected.images(given)
    assert found.shape == (samples, *expected.shape)
    first = expected.layout == "chw"
    plain = given.reshape(samples, 3, 6, 5).transpose(0, 2, 3, 1) if first else given.reshape(found.shape)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize(
    ("expected", "shape", "rule"),
    [
        (GREY, (4, 5, 6), r"images must be \[N, 6, 5\] or \[6, 5\], as in training, got shape \[4, 5, 6\]"),
        (COLOUR, (4, 6, 5), r"images must be \[N, 6, 5, 3\] or \[6, 5, 3\], as in training, got shape \[4, 6, 5\]"),
        (COLOUR, (4, 3, 6, 5), r"must have channels last, \[N, 6, 5, 3\], got channels first, \[4, 3, 6, 5\]"),
        (FIRST, (4, 6, 5, 3), r"must have channels first, \[N, 3, 6, 5\], got channels last, \[4, 6, 5, 3\]"),
        (COLOUR, (3, 6, 5), r"must have channels last, \[N, 6, 5, 3\], got channels first, \[3, 6, 5\]"),
        (SENSORS, (4, 2, 9), r"images must be \[N, 9, 2\] or \[9, 2\], as in training, got shape \[4, 2, 9\]"),
        (SIGNAL, (4, 8), r"images must be \[N, 9\] or \[9\], as in training, got shape \[4, 8\]"),
        (GREY, (), r"got shape \[\]"),
    ],
)
def test_another_shape_is_named_beside_the_right_one(expected: Seen, shape: tuple[int, ...], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        expected.images(np.zeros(shape, np.uint8))


def test_images_are_resized_as_the_data_set_was() -> None:
    images = RNG.integers(0, 256, (20, 12, 10), np.uint8)
    dataset = load((images, np.arange(20) % 2), validation="whole", resolution=5)
    small = seen(dataset.image_shape, resolution=5)
    before = dataset.train.images.stored
    found = small.images(images)
    np.testing.assert_array_equal(found[dataset.train.images.rows], before[dataset.train.images.rows])
    np.testing.assert_array_equal(small.images(images[3].astype(float)), found[3:4])
    floats = seen((6, 5, 1), resolution=5, dtype="float32").images(images)
    np.testing.assert_array_equal(floats, resized(Images(images[..., None]), (6, 5), ANY, as_bytes=False).stored)


BYTES = RNG.integers(0, 256, (40, 6, 5))
REAL = seen((6, 5, 1), dtype="float32", least=-3.0, most=3.0)


@pytest.mark.parametrize(
    ("expected", "images", "got"),
    [
        (GREY, BYTES / 255, "0 to 255, got 0 to 1"),
        (GREY, BYTES[:1] / 255, "0 to 255, got 0"),
        (GREY, BYTES > 128, "0 to 255, got 0 to 1"),
        (GREY, (BYTES - 127.5) / 74, "0 to 255, got -1.72297 to 1.72297"),
        (seen((6, 5, 1), most=16.0), (BYTES - 127.5) / 74, "0 to 16, got -1.72297 to 1.72297"),
        (GREY, np.full((2, 6, 5), -900.0), "0 to 255, got -900 to -900"),
        (GREY, BYTES - 128, "0 to 255, got -128 to 127"),
        (GREY, BYTES * 257, "0 to 255, got 0 to 65535"),
        (REAL, BYTES, "-3 to 3, got 0 to 255"),
        (REAL, BYTES / 10_000, "-3 to 3, got 0 to 0.0255"),
        (seen((6, 5, 1), dtype="float32", most=1.0), BYTES[:1], "0 to 1, got "),
    ],
)
def test_values_on_another_scale_are_refused_with_both_ranges(expected: Seen, images: Any, got: str) -> None:
    with pytest.raises(DataError, match=f"values of images must be on the scale of the training images, {got}"):
        expected.images(images)


def test_dark_images_sensors_at_rest_and_outliers_are_taken() -> None:
    for dark in (np.zeros((6, 5)), np.full((6, 5), 7, np.uint8), BYTES[:4] // 64, np.zeros((6, 5), bool)):
        np.testing.assert_array_equal(GREY.images(dark).reshape(dark.shape), dark)
    REAL.images(np.full((6, 5), 0.01) + RNG.random((6, 5)) / 1_000)
    REAL.images(20.0 * RNG.random((6, 5)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_finite(value: float) -> None:
    images = np.zeros((3, 6, 5))
    images[1, 2, 3] = value
    with pytest.raises(DataError, match=f"images must be finite, got {value}"):
        GREY.images(images)


def test_images_are_numbers() -> None:
    for given in ("photo.png", [["a"]], np.zeros((6, 5), complex)):
        with pytest.raises(DataError, match="images must be real numbers, got "):
            GREY.images(given)
    with pytest.raises(DataError, match="images must have one shape, but "):
        GREY.images([[1, 2], [3]])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (np.array([3, 5, 9]), None),
        (np.array([0, 1, 2]), ("ant", "bee", "cat")),
        (np.array(["x", "y", "z"]), None),
        (np.array(["7", "8", "9"]), None),
        (np.array([False, True]), None),
    ],
)
def test_labels_come_back_as_the_data_had_them(given: Any, names: tuple[str, ...] | None) -> None:
    images = RNG.integers(0, 256, (len(given) * 20, 6, 5), np.uint8)
    own = np.tile(given, 20)
    arrays = {"images": images, "labels": own} | ({"class_names": np.array(names)} if names else {})
    dataset = load(arrays)
    known = seen((6, 5, 1), class_names=dataset.class_names, class_labels=dataset.class_labels)
    classes = known.classes(own)
    np.testing.assert_array_equal(classes, np.tile(np.arange(len(given)), 20))
    labels = known.labels(classes)
    expected = own if names is None else np.array(names)[own]
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype.kind == expected.dtype.kind
    np.testing.assert_array_equal(known.classes(labels), classes)
    for unknown in (["q"], [17]):
        with pytest.raises(DataError, match=rf"labels must each be one of the run's \(.*\), got {unknown[0]!r}"):
            known.classes(unknown)
