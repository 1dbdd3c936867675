"""Data sets from name and file: what comes out, and that it is the same everywhere."""

import hashlib
from fractions import Fraction
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from scipy import io

from nachos_min.data import DataError, load, resize
from nachos_min.data.load import DIGITS, load_unscaled
from nachos_min.data.make_digits import CREDIT, make_digits
from nachos_min.data.scaling import fit_standardisation
from nachos_min.data.split import stratified_split

# SHA-256 of the labels and of the scaled images of all splits of digits, in order, whole and halved.
LABELS = "8ef97aa2aabe88635e4dee52f828e29bb48a4c6a140bb302313cd59cbe471061"
PIXELS = "7d2e495a24e49ac6245c8feca3c9cbedb272bc980534a47c4a153d9094b0d787"
CHANNELS = "18eb46020f4ca06629fa959595befcf19a6e00060f15aa2ff91653a989a008ca"
HALVED = "1dda93bd94880563910f972846c83eece160ed0b096750f9b54e3a7bc275e876"


def _arrays(samples=60, classes=3, shape=(5, 4, 2), seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.normal(3.0, 2.0, size=(samples, *shape)).astype(np.float32),
        "labels": np.arange(samples) % classes,
    }


def _write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return str(path)


def test_digits_are_the_published_digits():
    with h5py.File(DIGITS, "r") as file:
        images = np.concatenate([file["images"][()], file["test_images"][()]])
        labels = np.concatenate([file["labels"][()], file["test_labels"][()]])
        assert dict(file.attrs) == CREDIT
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def _sha(arrays, dtype):
    return hashlib.sha256(np.concatenate(arrays).astype(dtype).tobytes()).hexdigest()


@pytest.mark.parametrize(("standardise", "images"), [("channel", CHANNELS), ("pixel", PIXELS)])
def test_digits_and_their_splits_are_identical_on_every_machine(standardise, images):
    digits = load("digits", standardise, "whole")
    assert (digits.name, digits.classes, digits.image_shape) == ("digits", 10, (8, 8, 1))
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1151, 287, 359]
    assert digits.calibration is None
    assert digits.digest == "d43a6021f0eb13abfd8eef4edeb61ed630f144ca7e8c5299d8121206e7fe4098"
    assert _sha([split.labels for split in splits], "<i8") == LABELS
    assert _sha([split.images for split in splits], "<f4") == images


def test_halves_are_identical_on_every_machine():
    digits = load("digits")
    splits = (digits.validation, digits.calibration)
    assert [len(split) for split in splits] == [140, 147]
    assert _sha([split.images for split in splits], "<f4") == HALVED


def test_digits_are_made_again_byte_for_byte(tmp_path):
    pytest.importorskip("sklearn", reason="only making digits.h5 needs scikit-learn")
    make_digits(tmp_path / "once.h5")
    make_digits(tmp_path / "twice.h5")
    assert (tmp_path / "once.h5").read_bytes() == (tmp_path / "twice.h5").read_bytes()
    with h5py.File(tmp_path / "once.h5") as made, h5py.File(DIGITS) as shipped:
        for name in ("images", "labels", "test_images", "test_labels"):
            assert made[name].dtype == shipped[name].dtype
            np.testing.assert_array_equal(made[name][()], shipped[name][()])


def test_other_digits_are_not_stored(tmp_path, monkeypatch):
    other = SimpleNamespace(images=np.zeros((5, 8, 8)), target=np.zeros(5))
    monkeypatch.setattr(
        "nachos_min.data.make_digits.import_module", lambda _: SimpleNamespace(load_digits=lambda: other)
    )
    with pytest.raises(RuntimeError, match=r"digits are not the 1,797 images of 8 x 8 with"):
        make_digits(tmp_path / "digits.h5")


def test_each_pixel_is_standardised_and_constant_ones_are_zero():
    train = load("digits", "pixel").train.images
    varies = train.std(axis=0) > 0
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0)[varies], 1, atol=1e-5)
    assert not varies.all()
    assert (train[:, ~varies] == 0).all()


def test_each_channel_is_standardised_over_all_its_pixels(tmp_path):
    arrays = _arrays(samples=2_000, shape=(5, 4, 3))
    arrays["images"][..., 1] *= np.linspace(1, 9, 20).reshape(5, 4)
    arrays["images"][..., 2] = 7
    raw, data = (read(_write(tmp_path / "own.npz", arrays)) for read in (load_unscaled, load))
    train = raw.train.images.astype(np.float64)
    mean, deviation = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    for name in ("train", "test"):
        images, scaled = (getattr(each, name).images for each in (raw, data))
        expected = (images[..., :2] - mean[:2]) / deviation[:2]
        np.testing.assert_allclose(scaled[..., :2], expected, atol=1e-5)
        assert (scaled[..., 2] == 0).all()


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_standardisation_in_float64_of_a_feature_that_hardly_varies(per):
    images = np.full((2000, 1, 1, 2), 0.1, dtype=np.float32)
    images[0, 0, 0, 1] = 0.2
    scaled = fit_standardisation(images, per).apply(images)
    assert (scaled[..., 0] == 0).all()
    assert scaled[..., 1].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".npz"])
def test_a_file_gets_the_splits_it_lacks(tmp_path, ending):
    path = _write(tmp_path / f"blobs{ending}", _arrays())
    blobs = load(path, validation="whole")
    assert (blobs.name, blobs.classes, blobs.image_shape) == ("blobs", 3, (5, 4, 2))
    assert (len(blobs.train), len(blobs.validation), len(blobs.test)) == (39, 9, 12)
    for split, each in ((blobs.train, 13), (blobs.validation, 3), (blobs.test, 4)):
        assert np.bincount(split.labels).tolist() == [each] * 3
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int64)
        assert split.images.flags.c_contiguous


def test_labels_may_be_a_column(tmp_path):
    arrays = _arrays()
    row = load(_write(tmp_path / "row.npz", arrays))
    column = load(_write(tmp_path / "column.npz", arrays | {"labels": arrays["labels"][:, None]}))
    assert row.digest == column.digest


def test_a_file_keeps_the_test_split_it_has(tmp_path):
    arrays = _arrays() | {f"test_{name}": array for name, array in _arrays(7, seed=1).items()}
    data = load(_write(tmp_path / "own.npz", arrays), validation="whole")
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 12, 7)
    np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])


def test_a_file_keeps_the_validation_split_and_the_difficulty_it_has(tmp_path):
    arrays = _arrays() | {f"validation_{name}": array for name, array in _arrays(8, seed=1).items()}
    arrays |= {"difficulty": np.arange(60) / 60, "validation_difficulty": np.arange(8, dtype=np.uint8) % 2}
    data = load(_write(tmp_path / "own.npz", arrays), validation="whole")
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 8, 12)
    assert data.validation.difficulty.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    shown = load_unscaled(_write(tmp_path / "own.h5", arrays))
    for split in (shown.train, shown.test):  # each image still has its own
        found = [np.flatnonzero((arrays["images"] == image).all(axis=(1, 2, 3)))[0] for image in split.images]
        np.testing.assert_array_equal(split.difficulty, arrays["difficulty"][found].astype(np.float32))
    assert sorted([*shown.train.difficulty, *shown.test.difficulty]) == [np.float32(i / 60) for i in range(60)]


def test_difficulty_is_not_what_is_learnt_from(tmp_path):
    plain = load(_write(tmp_path / "plain.npz", _arrays()))
    rated = load(_write(tmp_path / "rated.npz", _arrays() | {"difficulty": np.full(60, 0.5)}))
    assert plain.train.difficulty is None
    assert rated.digest == plain.digest


def test_the_same_arrays_are_the_same_data_in_every_format(tmp_path):
    arrays = _arrays(shape=(4, 4))
    one, two = (load(_write(tmp_path / f"blobs{ending}", arrays)) for ending in (".h5", ".npz"))
    assert one.digest == two.digest
    for split in ("train", "validation", "calibration", "test"):
        np.testing.assert_array_equal(getattr(one, split).images, getattr(two, split).images)
    arrays["images"][3, 1, 1] += 1
    assert load(_write(tmp_path / "other.npz", arrays)).digest != one.digest


def test_large_sets_give_a_tenth_to_validation(tmp_path):
    path = _write(tmp_path / "large.npz", _arrays(samples=15_000, classes=2, shape=(1, 1)))
    data = load(path, validation="whole")
    assert (len(data.train), len(data.validation), len(data.test)) == (10_800, 1_200, 3_000)


def _svhn(samples, seed):
    rng = np.random.default_rng(seed)
    return {
        "X": rng.integers(0, 256, size=(4, 4, 3, samples), dtype=np.uint8),
        "y": (np.arange(samples) % 10 + 1).astype(np.uint8)[:, None],
    }


def test_svhn_layout_calls_class_ten_zero_and_finds_its_test_file(tmp_path):
    io.savemat(tmp_path / "train_32x32.mat", _svhn(100, 0))
    alone = load(str(tmp_path / "train_32x32.mat"), validation="whole")
    assert (alone.classes, alone.image_shape, len(alone.test)) == (10, (4, 4, 3), 20)
    io.savemat(tmp_path / "test_32x32.mat", _svhn(30, 1))
    both = load(str(tmp_path / "train_32x32.mat"), validation="whole")
    assert (len(both.train), len(both.validation), len(both.test)) == (80, 20, 30)
    np.testing.assert_array_equal(both.test.labels, (np.arange(30) + 1) % 10)
    assert both.digest != alone.digest


def test_mat_labels_that_start_at_zero_stay(tmp_path):
    content = _svhn(100, 0)
    content["y"] = (content["y"] - 1.0).astype(np.float64)
    io.savemat(tmp_path / "zero.mat", content)
    data = load(str(tmp_path / "zero.mat"), validation="whole")
    assert sorted(np.concatenate([data.train.labels, data.validation.labels, data.test.labels])) == sorted(
        np.arange(100) % 10
    )


@pytest.mark.parametrize("share", [Fraction(1, 5), Fraction(1, 10), Fraction(1, 2), Fraction(1, 1000)])
def test_a_split_is_a_partition_that_keeps_the_shares(share):
    labels = np.repeat([0, 1, 2, 3], [2, 10, 25, 101])
    kept, held_out = stratified_split(labels, share, np.random.Generator(np.random.PCG64(1)))
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    for label, size in enumerate([2, 10, 25, 101]):
        wanted = min(max(int(size * share + Fraction(1, 2)), 1), size - 1)
        assert (labels[held_out] == label).sum() == wanted


def test_a_class_of_one_sample_cannot_be_split():
    with pytest.raises(DataError, match=r"^every class must have at least 2 samples to be split, class 1 has 1$"):
        stratified_split(np.array([0, 0, 1]), Fraction(1, 2), np.random.default_rng(0))


def test_three_samples_of_a_class_fill_three_splits(tmp_path):
    data = load(_write(tmp_path / "few.npz", _arrays(samples=9)), validation="whole")
    for split in (data.train, data.validation, data.test):
        assert sorted(split.labels) == [0, 1, 2]


def test_halves_are_a_stratified_partition_of_the_validation_split(tmp_path):
    arrays = _arrays(samples=301, classes=7) | {"difficulty": np.arange(301) / 301}
    path = _write(tmp_path / "own.npz", arrays)
    whole, halved = load(path, validation="whole"), load(path)
    for name in ("train", "test"):
        np.testing.assert_array_equal(getattr(halved, name).images, getattr(whole, name).images)
    places = [
        [np.flatnonzero((whole.validation.images == image).all(axis=(1, 2, 3))).item() for image in half.images]
        for half in (halved.validation, halved.calibration)
    ]
    assert sorted(places[0] + places[1]) == list(range(len(whole.validation)))
    for half, chosen in zip((halved.validation, halved.calibration), places, strict=True):
        assert chosen == sorted(chosen)
        np.testing.assert_array_equal(half.labels, whole.validation.labels[chosen])
        np.testing.assert_array_equal(half.difficulty, whole.validation.difficulty[chosen])
    each = [np.bincount(half.labels, minlength=7) for half in (halved.validation, halved.calibration)]
    assert (abs(each[0] - each[1]) <= 1).all()


def test_a_class_with_one_validation_sample_keeps_it_where_choices_are_made(tmp_path):
    arrays = _arrays() | {"validation_images": _arrays(5)["images"], "validation_labels": np.array([0, 1, 0, 2, 0])}
    data = load(_write(tmp_path / "own.npz", arrays))
    assert sorted(data.validation.labels) == [0, 1, 2]
    assert sorted(data.calibration.labels) == [0, 0]
    arrays |= {"validation_images": arrays["validation_images"][1:4], "validation_labels": np.array([1, 0, 2])}
    path = _write(tmp_path / "single.npz", arrays)
    rule = "single.npz: validation must have at least 2 samples of a class to be halved, got 3 of as many classes"
    with pytest.raises(DataError, match=rule):
        load(path)


def test_split_follows_its_generator():
    labels = np.zeros(100, dtype=np.int64)
    splits = [stratified_split(labels, Fraction(1, 5), np.random.default_rng(seed))[1] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


@pytest.mark.parametrize(
    ("shape", "resolution"), [((8, 8), 16), ((8, 8), 4), ((7, 5), 6), ((3, 9), 1), ((4, 4), 4)]
)
def test_resize_is_pytorchs_antialiased_bilinear(shape, resolution):
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    images = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    peer = torch.nn.functional.interpolate(
        torch.tensor(images.transpose(0, 3, 1, 2)), (resolution, resolution), mode="bilinear", antialias=True
    )
    resized = resize(images, resolution)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, peer.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_resize_to_one_pixel_is_nearly_the_mean_and_to_the_same_size_changes_nothing():
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(resize(images, 6), images, atol=1e-6)
    flat = np.full((1, 5, 3, 2), 2.5, dtype=np.float32)
    np.testing.assert_allclose(resize(flat, 8), 2.5, rtol=1e-6)
    with pytest.raises(DataError, match=r"^resolution must be >= 1, got 0$"):
        resize(images, 0)
