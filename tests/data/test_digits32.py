"""digits32: the same scenes on every machine, from disjoint digits, as hard as they say, kept in a cache."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nachos_min.data import Split, load, scenes
from nachos_min.data.load import load_unscaled

# SHA-256 of the first 100 scenes and their difficulties, painted from the training digits with seed 32, 0.
SCENES = "a974397a8997027f0c801c048263e438770018df6c22cdacb4399d60a6fcb60d"
DIFFICULTY = "4f4894933ca6a580aac5704651eb1a96f7e701550105dbaadaae7f3eb370d15c"


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split, Split]:
    data = load_unscaled("digits")
    return data.train, data.validation, data.test


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache folder of this test alone, and a small digits32."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scenes, "SCENES", {"": 150, "validation_": 60, "test_": 40})
    return tmp_path / "cache" / "nachos_min"


def ink(split: Split) -> np.ndarray:
    return np.asarray(split.images)[..., 0].astype(np.uint8)


def test_scenes_are_the_same_on_every_machine_however_many_follow(digits: tuple[Split, Split, Split]) -> None:
    images, difficulty = scenes.paint(ink(digits[0]), np.arange(100), (32, 0))
    assert (images.dtype, images.shape, difficulty.dtype) == (np.uint8, (100, 32, 32, 3), np.float32)
    assert hashlib.sha256(images.tobytes()).hexdigest() == SCENES
    assert hashlib.sha256(difficulty.astype("<f4").tobytes()).hexdigest() == DIFFICULTY
    chosen = np.resize(np.arange(30), 260)
    many, hard = scenes.paint(ink(digits[0]), chosen, (1,))
    fewer, less = scenes.paint(ink(digits[0]), chosen[:140], (1,))
    np.testing.assert_array_equal(many[:125], fewer[:125])
    np.testing.assert_array_equal(hard[:140], less)
    other, _ = scenes.paint(ink(digits[0]), chosen, (2,))
    assert (other != many).mean() > 0.9


def test_dice_are_even_and_noise_is_normal() -> None:
    dice = scenes.Dice(np.random.PCG64(5))
    even, noise = dice.between(2.0, 4.0, 200, 100), dice.noise(101, 99)  # an odd number of them
    assert (even.dtype, even.shape, noise.dtype, noise.shape) == (np.float32, (200, 100), np.float32, (101, 99))
    assert 2 <= even.min() < 2.001 < 3.999 < even.max() <= 4
    assert even.mean() == pytest.approx(3, abs=0.02)
    assert (noise.mean(), noise.std()) == (pytest.approx(0, abs=0.04), pytest.approx(1, abs=0.03))


def test_difficulty_is_spread_evenly_and_makes_scenes_hard(digits: tuple[Split, Split, Split]) -> None:
    count = 1000
    images, difficulty = scenes.paint(ink(digits[0]), np.arange(count), (3,))
    assert np.histogram(difficulty, 5, (0, 1))[0].min() > count / 5 * 0.8
    grey = images.astype(np.float64).mean(axis=3)
    easy, hard = grey[difficulty < 0.2], grey[difficulty > 0.8]
    # Noise, the mean step between neighbours in the corner, grows; contrast, the spread of a scene, shrinks.
    steps = [np.abs(np.diff(part[:, :3, :3], axis=2)).mean() for part in (easy, hard)]
    spread = [np.median(part.std(axis=(1, 2))) for part in (easy, hard)]
    assert steps[1] > 3 * steps[0]
    assert spread[1] < 0.6 * spread[0]


@pytest.mark.usefixtures("few")
def test_every_split_shows_digits_of_its_own(digits: tuple[Split, Split, Split]) -> None:
    arrays = scenes.digits32(*digits)
    for index, (prefix, count) in enumerate(scenes.SCENES.items()):
        expected = scenes.paint(ink(digits[index]), np.arange(count), (32, index))
        np.testing.assert_array_equal(arrays[f"{prefix}images"], expected[0])
        np.testing.assert_array_equal(arrays[f"{prefix}difficulty"], expected[1])
    assert len(np.unique(np.concatenate([split.images for split in digits]), axis=0)) == 1797  # no digit is in two
    np.testing.assert_array_equal(arrays["labels"], digits[0].labels[:150])
    np.testing.assert_array_equal(arrays["test_labels"], digits[2].labels[:40])


@pytest.mark.usefixtures("few")
def test_it_is_loaded_by_name() -> None:
    data = load("digits32", validation="whole")
    assert (data.name, data.classes, data.image_shape) == ("digits32", 10, (32, 32, 3))
    for split, size in ((data.train, 150), (data.validation, 60), (data.test, 40)):
        arrays = [np.asarray(split.images), split.labels, split.difficulty]
        assert [(len(array), array.dtype) for array in arrays] == [(size, t) for t in ("f4", "i8", "f4")]


def test_the_second_time_it_comes_from_the_cache(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("digits32")
    (file,) = few.iterdir()  # one whole file, and nothing that was left over
    whole = file.read_bytes()
    middle = len(whole) // 2  # among the pixels
    for damaged in (whole[:-50_000], b"", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        file.write_bytes(damaged)
        assert load("digits32").digest == first.digest
        assert file.read_bytes() == whole, "it is painted again"
    monkeypatch.setattr(scenes, "paint", None)
    second = load("digits32")
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.test.images, first.test.images)
    np.testing.assert_array_equal(second.train.difficulty, first.train.difficulty)


def test_without_a_folder_to_write_it_stays_in_memory(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few.parent.write_text("a file where the folder would be")
    assert len(load("digits32").test) == 40
    few.parent.unlink()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert len(load("digits32").test) == 40
    assert list(few.iterdir()) == []
    monkeypatch.setattr(scenes, "cache_folder", lambda: None)
    assert len(load("digits32").test) == 40


def test_another_painter_does_not_meet_old_scenes(
    few: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load("digits32")
    edited = tmp_path / "edited.py"
    edited.write_text(Path(scenes.__file__).read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    monkeypatch.setattr(scenes, "__file__", str(edited))
    load("digits32")
    assert len(list(few.iterdir())) == 2


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/nachos_min"),
        ("linux", {"XDG_CACHE_HOME": "not/absolute", "HOME": "/home/a"}, "/home/a/.cache/nachos_min"),
        ("linux", {"HOME": "/home/a"}, "/home/a/.cache/nachos_min"),
        ("darwin", {"XDG_CACHE_HOME": "/caches", "HOME": "/Users/a"}, "/Users/a/Library/Caches/nachos_min"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/nachos_min"),
        ("win32", {"HOME": "/Users/a"}, "/Users/a/AppData/Local/nachos_min"),
        ("linux", {}, None),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="its paths are not absolute there")
def test_the_cache_is_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str | None
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not variables:  # a user without a home
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(sys, "platform", platform)
    assert scenes.cache_folder() == (Path(expected) if expected else None)
