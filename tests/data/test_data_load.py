"""Data sets from name and file: what comes out, and that it is the same everywhere."""

import hashlib
from fractions import Fraction

import h5py
import numpy as np
import pytest
from scipy import io

from nachos_min.data import DataError, load, resize
from nachos_min.data.dataset import Images, statistics, stratified_split
from nachos_min.data.load import load_unscaled

# SHA-256 of the labels and of the scaled images of all splits of digits, in order, whole and halved.
LABELS = "8ef97aa2aabe88635e4dee52f828e29bb48a4c6a140bb302313cd59cbe471061"
PIXELS = "7d2e495a24e49ac6245c8feca3c9cbedb272bc980534a47c4a153d9094b0d787"
CHANNELS = "18eb46020f4ca06629fa959595befcf19a6e00060f15aa2ff91653a989a008ca"
HALVED = "1dda93bd94880563910f972846c83eece160ed0b096750f9b54e3a7bc275e876"


def arrays_of(samples=60, classes=3, shape=(5, 4, 2), seed=0, prefix=""):
    images = np.random.default_rng(seed).normal(3.0, 2.0, size=(samples, *shape)).astype(np.float32)
    return {f"{prefix}images": images, f"{prefix}labels": np.arange(samples) % classes}


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            file.update(arrays)
    return str(path)


def sha(arrays, dtype):
    return hashlib.sha256(np.concatenate(arrays).astype(dtype).tobytes()).hexdigest()


def sizes(data):
    return len(data.train), len(data.validation), len(data.test)


@pytest.mark.parametrize(("standardise", "images"), [("channel", CHANNELS), ("pixel", PIXELS)])
def test_digits_and_their_splits_are_identical_on_every_machine(standardise, images):
    digits = load("digits", standardise, "whole")
    assert (digits.name, digits.classes, digits.image_shape) == ("digits", 10, (8, 8, 1))
    splits = (digits.train, digits.validation, digits.test)
    assert (sizes(digits), digits.calibration) == ((1151, 287, 359), None)
    assert digits.digest == "d43a6021f0eb13abfd8eef4edeb61ed630f144ca7e8c5299d8121206e7fe4098"
    assert sha([split.labels for split in splits], "<i8") == LABELS
    assert sha([split.images for split in splits], "<f4") == images
    counts = np.bincount(np.concatenate([split.labels for split in splits]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as published


def test_digits_unscaled_halved_and_with_each_pixel_standardised():
    raw = load_unscaled("digits").train.images
    assert (raw.stored.dtype, np.asarray(raw).min(), np.asarray(raw).max()) == (np.uint8, 0, 16)
    halves = load("digits")
    assert (len(halves.validation), len(halves.calibration)) == (140, 147)
    assert sha([halves.validation.images, halves.calibration.images], "<f4") == HALVED
    train = np.asarray(load("digits", "pixel").train.images)
    constant = (train == 0).all(axis=0)
    assert constant.any()
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0)[~constant], 1, atol=1e-5)


def test_each_channel_is_standardised_over_all_its_pixels(tmp_path):
    arrays = arrays_of(samples=2_000, shape=(5, 4, 3))
    arrays["images"][..., 1] *= np.linspace(1, 9, 20).reshape(5, 4)
    arrays["images"][..., 2] = 7
    raw, data = (read(write(tmp_path / "own.npz", arrays)) for read in (load_unscaled, load))
    train = np.asarray(raw.train.images, np.float64)
    mean, deviation = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    for name in ("train", "test"):
        images, scaled = (np.asarray(getattr(each, name).images) for each in (raw, data))
        expected = (images[..., :2] - mean[:2]) / deviation[:2]
        np.testing.assert_allclose(scaled[..., :2], expected, atol=1e-5)
        assert (scaled[..., 2] == 0).all()


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_standardisation_in_float64_of_a_feature_that_hardly_varies(per):
    images = np.full((2000, 1, 1, 2), 0.1, dtype=np.float32)
    images[0, 0, 0, 1] = 0.2
    scaled = np.asarray(Images(images, scaling=statistics(images, per)))
    assert (scaled[..., 0] == 0).all()
    assert scaled[..., 1].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".npz"])
def test_a_file_gets_the_splits_it_lacks(tmp_path, ending):
    blobs = load(write(tmp_path / f"blobs{ending}", arrays_of()), validation="whole")
    assert (blobs.name, blobs.classes, blobs.image_shape) == ("blobs", 3, (5, 4, 2))
    for split, each in ((blobs.train, 13), (blobs.validation, 3), (blobs.test, 4)):
        assert np.bincount(split.labels).tolist() == [each] * 3
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (arrays_of(samples=9), (3, 3, 3)),  # three samples of a class fill three splits
        (arrays_of(samples=15_000, classes=2, shape=(1, 1)), (10_800, 1_200, 3_000)),  # a tenth of a large set
        (arrays_of() | arrays_of(7, seed=1, prefix="test_"), (48, 12, 7)),
        (arrays_of() | arrays_of(8, seed=1, prefix="validation_"), (48, 8, 12)),
    ],
)
def test_sizes_of_splits(tmp_path, arrays, expected):
    data = load(write(tmp_path / "own.npz", arrays), validation="whole")
    assert sizes(data) == expected
    if "test_labels" in arrays:
        np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])


def test_each_image_keeps_its_difficulty(tmp_path):
    arrays = arrays_of() | arrays_of(8, seed=1, prefix="validation_")
    plain = load(write(tmp_path / "plain.npz", arrays))
    assert plain.train.difficulty is None
    arrays |= {"difficulty": np.arange(60) / 60, "validation_difficulty": np.arange(8, dtype=np.uint8) % 2}
    data = load(write(tmp_path / "own.npz", arrays), validation="whole")
    assert data.digest == plain.digest, "difficulty is not what is learnt from"
    assert data.validation.difficulty.tolist() == [0, 1] * 4
    shown, found = load_unscaled(write(tmp_path / "own.h5", arrays)), []
    for split in (shown.train, shown.test):
        at = [np.flatnonzero((arrays["images"] == image).all(axis=(1, 2, 3))).item() for image in split.images]
        np.testing.assert_array_equal(split.difficulty, arrays["difficulty"][at].astype(np.float32))
        found += at
    assert sorted(found) == list(range(60))


def test_svhn_layout_calls_class_ten_zero_and_finds_its_test_file(tmp_path):
    def save(name, samples, seed, labels):
        images = np.random.default_rng(seed).integers(0, 256, size=(4, 4, 3, samples), dtype=np.uint8)
        io.savemat(tmp_path / name, {"X": images, "y": labels[:, None]})
        return str(tmp_path / name)

    train = save("train_32x32.mat", 100, 0, np.arange(100) % 10 + 1)
    alone = load(train, validation="whole")
    assert (alone.classes, alone.image_shape, len(alone.test)) == (10, (4, 4, 3), 20)
    save("test_32x32.mat", 30, 1, np.arange(30) % 10 + 1)
    both = load(train, validation="whole")
    assert sizes(both) == (80, 20, 30)
    np.testing.assert_array_equal(both.test.labels, (np.arange(30) + 1) % 10)
    assert both.digest != alone.digest
    five = load_unscaled(save("five.mat", 100, 0, np.arange(100) % 5 + 1))
    assert five.class_names == ("1", "2", "3", "4", "5")  # not SVHN's
    data = load_unscaled(save("zero.mat", 100, 0, np.arange(100) % 10 * 1.0))  # from zero, as floats: they stay
    assert sorted([*data.train.labels, *data.validation.labels, *data.test.labels]) == sorted(np.arange(100) % 10)


@pytest.mark.parametrize("share", [Fraction(1, 5), Fraction(1, 10), Fraction(1, 2), Fraction(1, 1000)])
def test_a_split_is_a_partition_that_keeps_the_shares_and_follows_its_generator(share):
    labels = np.repeat([0, 1, 2, 3], [2, 10, 25, 101])
    kept, held_out = stratified_split(labels, share, np.random.default_rng(1))
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    for label, size in enumerate([2, 10, 25, 101]):
        wanted = min(max(int(size * share + Fraction(1, 2)), 1), size - 1)
        assert (labels[held_out] == label).sum() == wanted
    np.testing.assert_array_equal(held_out, stratified_split(labels, share, np.random.default_rng(1))[1])
    assert not np.array_equal(held_out, stratified_split(labels, share, np.random.default_rng(2))[1])


def test_halves_are_a_stratified_partition_of_the_validation_split(tmp_path):
    arrays = arrays_of(samples=301, classes=7) | {"difficulty": np.arange(301) / 301}  # tells images apart
    path = write(tmp_path / "own.npz", arrays)
    whole, halved = load(path, validation="whole"), load(path)
    for name in ("train", "test"):
        np.testing.assert_array_equal(getattr(halved, name).images, getattr(whole, name).images)
    halves, found = (halved.validation, halved.calibration), []
    for half in halves:
        found.append(np.isin(whole.validation.difficulty, half.difficulty))
        for name in ("images", "labels", "difficulty"):
            expected = np.asarray(getattr(whole.validation, name))[found[-1]]
            np.testing.assert_array_equal(np.asarray(getattr(half, name)), expected)
    assert (found[0] != found[1]).all()
    assert np.ptp([np.bincount(half.labels, minlength=7) for half in halves], axis=0).max() <= 1


def test_a_class_with_one_validation_sample_keeps_it_where_choices_are_made(tmp_path):
    def own(*labels):
        given = {"validation_images": arrays_of(len(labels))["images"], "validation_labels": np.array(labels)}
        return load(write(tmp_path / "own.npz", arrays_of() | given))

    data = own(0, 1, 0, 2, 0)
    assert (sorted(data.validation.labels), sorted(data.calibration.labels)) == ([0, 1, 2], [0, 0])
    rule = "own.npz: validation must have at least 2 samples of a class to be halved, "
    rule += "got one of each of 3 classes; give more, or --validation whole"
    with pytest.raises(DataError, match=rule):
        own(1, 0, 2)


@pytest.mark.parametrize(
    ("shape", "resolution"), [((8, 8), 16), ((8, 8), 4), ((7, 5), 6), ((3, 9), 1), ((4, 4), 4)]
)
def test_resize_is_pytorchs_antialiased_bilinear(shape, resolution):
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    images = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    maps, size = torch.tensor(images).permute(0, 3, 1, 2), (resolution, resolution)
    peer = torch.nn.functional.interpolate(maps, size, mode="bilinear", antialias=True)
    resized = resize(images, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, peer.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_resize_keeps_what_is_flat_or_of_that_size():
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(resize(images, (6, 6)), images, atol=1e-6)
    np.testing.assert_allclose(resize(np.full((1, 5, 3, 2), 2.5, dtype=np.float32), (8, 8)), 2.5, rtol=1e-6)
    with pytest.raises(DataError, match=r"^resolution must be >= 1, got 0$"):
        resize(images, (6, 0))


def test_an_image_has_the_same_bits_whichever_others_are_asked_for_with_it():
    stored = np.random.default_rng(0).integers(0, 256, size=(50, 7, 5, 3), dtype=np.uint8)
    images = Images(stored, scaling=statistics(Images(stored), "pixel")).at((12, 4)).take(np.arange(0, 50, 2))
    whole = np.asarray(images)
    assert (images.shape, whole.shape, whole.dtype) == ((25, 12, 4, 3), (25, 12, 4, 3), np.float32)
    for chosen in (slice(3, 4), slice(20, 40), np.array([7, 7, 0])):
        np.testing.assert_array_equal(images[chosen], whole[chosen])
