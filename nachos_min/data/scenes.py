"""The built-in data set `digits32`: 24,000 scenes of 32 x 32 pixels in colour, painted from digits of 8 x 8.

A scene is one digit (scaled, turned, slanted, moved) over a background of two colours, over clutter: strokes,
blobs, and pieces cut from other digits; then noise. With its difficulty, from 0 to 1, grow what makes it hard: less
contrast, a smaller digit, more tilt, more clutter in colours like the digit's own, more noise.

Scenes are the same on every machine. Random numbers are the raw stream of PCG64, which NumPy promises never to
change. All else is sums, products, quotients and comparisons of single float32 values, which IEEE 754 defines to
the last bit: no sine, no exponential, no sum over an axis.
"""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import Split
from nachos_min.data.hdf5_file import read_apart
from nachos_min.files import replacing

Floats = NDArray[np.float32]

SIDE = 32
SCENES = {"": 20_000, "validation_": 2_000, "test_": 2_000}  # of each split, by the prefix of its arrays' names
_SEED = 32
STROKES, BLOBS, PIECES = 3, 2, 3  # of one scene, at most
_ENLARGED = 4  # a digit of 8 x 8 is smoothed to 32 x 32 before it is placed
_GROUP = 125  # scenes painted together: their planes, 1.5 MB, stay in a processor's cache


def digits32(train: Split, validation: Split, test: Split) -> dict[str, NDArray[Any]]:
    """Return the arrays of `digits32` by the names that `check_arrays` knows, from the user's cache or painted.

    Each split is painted from the given split of digits, [M, 8, 8, 1] with ink from 0 to 16: no digit is in two
    splits. Several scenes show the same digit, so an interval that counts scenes is too narrow for other digits.
    """
    digits = dict(zip(SCENES, (train, validation, test), strict=True))
    folder = cache_folder()
    file = None if folder is None else folder / f"digits32-{_fingerprint(digits)}.h5"
    if file is not None:
        with suppress(ValueError):  # there is none yet, or it is damaged, which its checksums tell
            return read_apart(file, 1 << 30, labelled=True)
    arrays: dict[str, NDArray[Any]] = {}
    for index, (prefix, count) in enumerate(SCENES.items()):
        drawn = digits[prefix]
        chosen = np.arange(count) % len(drawn)  # so that each digit is shown as often as any other
        images, hard = paint(np.asarray(drawn.images)[..., 0].astype(np.uint8), chosen, (_SEED, index))
        arrays |= {f"{prefix}images": images, f"{prefix}labels": drawn.labels[chosen], f"{prefix}difficulty": hard}
    if file is not None:
        with suppress(OSError):  # no room, or no right to write there: the scenes stay in memory
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary, h5py.File(temporary, "w") as written:
                for key, array in arrays.items():
                    chunks = (min(len(array), 500), *array.shape[1:])
                    written.create_dataset(key, data=array, chunks=chunks, fletcher32=True)
    return arrays


def cache_folder() -> Path | None:
    """Return the folder for files that this program can make again, or None for a user without a home.

    Source: XDG Base Directory Specification 0.8, which has paths that are not absolute ignored.
    """
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        named, usual = os.environ.get("LOCALAPPDATA", ""), home / "AppData" / "Local"
    elif sys.platform == "darwin":
        named, usual = "", home / "Library" / "Caches"
    else:
        named, usual = os.environ.get("XDG_CACHE_HOME", ""), home / ".cache"
    folder = Path(named) if os.path.isabs(named) else usual
    return folder / "nachos_min" if folder.is_absolute() else None


def _fingerprint(digits: dict[str, Split]) -> str:
    """Return 16 hexadecimal digits that change with this file and the digits."""
    told = sha256(Path(__file__).read_bytes())
    for split in digits.values():
        told.update(np.asarray(split.images, "<f4").tobytes() + split.labels.astype("<i8").tobytes())
    return told.hexdigest()[:16]


@dataclass(frozen=True)
class Dice:
    """Random numbers that are the same on every machine and with every version of NumPy."""

    stream: np.random.PCG64

    def raw(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self.stream.random_raw(count), dtype=np.uint64)

    def between(self, low: Floats | float, high: Floats | float, *shape: int) -> Floats:
        """Return float32 numbers of `shape`, evenly distributed from `low` to `high`, which broadcast."""
        share = (self.raw(int(np.prod(shape))) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return np.asarray(low + (high - low) * share.reshape(shape), dtype=np.float32)

    def noise(self, *shape: int) -> Floats:
        """Return float32 numbers of `shape`, nearly normal, with mean 0 and deviation 1: sums of four bytes."""
        count = int(np.prod(shape))
        four = self.raw(-(-count // 2)).astype("<u8").view(np.uint8).reshape(-1, 4)[:count]
        total = four[:, 0].astype(np.int32) + four[:, 1] + four[:, 2] + four[:, 3]  # mean 510, deviation 147.8
        return ((total - 510).astype(np.float32) / np.float32(147.8)).reshape(shape)


def paint(
    digits: NDArray[np.uint8], chosen: NDArray[np.int64], seed: tuple[int, ...]
) -> tuple[NDArray[np.uint8], Floats]:
    """Return scenes uint8 [N, 32, 32, 3], and their difficulty float32 [N], evenly distributed from 0 to 1.

    `digits` are uint8 [M, 8, 8], ink from 0 to 16, from which pieces are cut, too; `chosen`, int64 [N], says which
    one each scene shows. Scene n depends on `seed`, on n, and on what is chosen for its group.
    """
    ink = _smooth(digits)
    images = np.empty((len(chosen), SIDE, SIDE, 3), dtype=np.uint8)
    difficulty = np.empty(len(chosen), dtype=np.float32)
    for begin in range(0, len(chosen), _GROUP):
        part = slice(begin, begin + _GROUP)
        dice = Dice(np.random.PCG64([*seed, begin]))
        # Every group is of one size, the last one too: scene n does not depend on how many follow.
        hard, shown, count = dice.between(0, 1, _GROUP), np.resize(chosen[part], _GROUP), len(chosen[part])
        images[part] = _paint_group(ink, shown, hard, dice)[:count]
        difficulty[part] = hard[:count]
    return images, difficulty


def _paint_group(ink: Floats, shown: NDArray[np.int64], hard: Floats, dice: Dice) -> NDArray[np.uint8]:
    """Return uint8 [n, 32, 32, 3]: from the background to the noise, one layer over the other."""
    n = len(shown)

    # Colours: the digit differs from the background by `contrast` in one channel, and by a part of it in the
    # others, always to the same side, so that it differs in brightness, too.
    contrast = _from_to(0.95, 0.34, hard) * dice.between(0.9, 1.0, n)
    side = np.where(dice.between(0, 1, n) < 0.5, np.float32(-1), np.float32(1))
    offset = (contrast * side)[:, None] * dice.between(0.35, 1.0, n, 3)
    offset[np.arange(n), (dice.raw(n) % np.uint64(3)).astype(np.int64)] = contrast * side
    ground = dice.between(np.maximum(0, -offset), np.minimum(1, 1 - offset), n, 3)

    # The digit's place is known before the clutter's, which stays beside its middle.
    scale = _from_to(0.80, 0.48, hard) * dice.between(0.92, 1.08, n)
    room = _from_to(1.5, 7.5, hard)
    middle = dice.between(-room[:, None], room[:, None], n, 2)
    tilt = _from_to(0.04, 0.26, hard)  # tangent of half the angle: 5 to 29 degrees to either side
    slant = _from_to(0.05, 0.35, hard)
    turn = dice.between(-tilt, tilt, n)
    shear = dice.between(-slant, slant, n)

    image = np.empty((n, 3, SIDE, SIDE), dtype=np.float32)
    image[:] = ground[:, :, None, None]
    # Across the scene the background becomes another colour, more often further from the digit's than nearer.
    across = dice.between(-1, 1, n, 2)
    slope = np.clip(_ramp(across, np.zeros((n, 2), np.float32)) / np.float32(SIDE) + np.float32(0.5), 0, 1)
    _lay(image, slope * _from_to(0.1, 0.6, hard)[:, None, None], ground + offset * dice.between(-0.5, 0.2, n, 1))

    present = 1.2 * hard - 0.1
    for length, thin, thick, most in ((20, 0.6, 1.3, STROKES), (4, 1.5, 4.0, BLOBS)):
        for _ in range(most):
            seen = (dice.between(0, 1, n) < present).astype(np.float32)
            start = dice.between(-SIDE / 2, SIDE / 2, n, 2)
            step = dice.between(-length, length, n, 2)
            cover = _stroke(start, step, dice.between(thin, thick, n))
            _lay(image, cover * seen[:, None, None], ground + offset * dice.between(-0.6, 0.8, n, 1))
    for _ in range(PIECES):
        seen = (dice.between(0, 1, n) < present).astype(np.float32)
        other = (dice.raw(n) % np.uint64(len(ink))).astype(np.int64)
        aside = _aside(dice, n)
        size = scale * dice.between(0.7, 1.0, n)
        cover = _placed(ink, other, middle + aside, size, dice.between(-0.5, 0.5, n), shear)
        # The side towards the digit is cut off, along any line that leaves the other side.
        cut = np.clip(_ramp(aside / np.float32(12) + dice.between(-0.6, 0.6, n, 2), middle + aside), 0, 1)
        _lay(image, cover * cut * seen[:, None, None], ground + offset * dice.between(0.5, 1.0, n, 1))

    _lay(image, _placed(ink, shown, middle, scale, turn, shear), ground + offset)
    image += dice.noise(n, 3, SIDE, SIDE) * _from_to(0.01, 0.09, hard)[:, None, None, None]
    levels = np.floor(np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _from_to(easy: float, hard: float, difficulty: Floats) -> Floats:
    return np.float32(easy) + np.float32(hard - easy) * difficulty


def _lay(image: Floats, cover: Floats, colour: Floats) -> None:
    """Lay `colour` [n, 3] over `image` [n, 3, H, W] where `cover` [n, H, W] is 1, and in part where it is less."""
    image += cover[:, None] * (np.clip(colour, 0, 1)[:, :, None, None] - image)


def _axes() -> tuple[Floats, Floats]:
    """Return x [1, 1, W] and y [1, H, 1] of the pixels' centres, from the middle of the scene."""
    line = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    return line[None, None, :], line[None, :, None]


def _columns(pairs: Floats) -> tuple[Floats, Floats]:
    """Return the two columns of [n, 2], each as [n, 1, 1]."""
    return pairs[:, 0, None, None], pairs[:, 1, None, None]


def _ramp(direction: Floats, through: Floats) -> Floats:
    """Return [n, H, W]: how far pixels lie along `direction` [n, 2], 0 on the line through the point [n, 2]."""
    (x, y), (dx, dy), (px, py) = _axes(), _columns(direction), _columns(through)
    return np.asarray(dx * (x - px) + dy * (y - py), dtype=np.float32)


def _stroke(start: Floats, step: Floats, radius: Floats) -> Floats:
    """Return the cover [n, H, W] of round-ended strokes from `start` [n, 2] to `start + step`."""
    (x, y), (px, py), (dx, dy) = _axes(), _columns(start), _columns(step)
    along = np.clip(((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy + np.float32(1e-3)), 0, 1)
    across_x, across_y = x - px - along * dx, y - py - along * dy
    r = radius[:, None, None]
    # Near the edge r^2 - d^2 is 2 r (r - d): the cover falls from 1 to 0 over about a pixel.
    return np.clip((r * r - across_x * across_x - across_y * across_y) / (2 * r) + np.float32(0.5), 0, 1)


def _aside(dice: Dice, n: int) -> Floats:
    """Return [n, 2]: ways of 9 to 14 pixels, along one axis, and of up to that much along the other."""
    far = dice.between(9, 14, n) * np.where(dice.between(0, 1, n) < 0.5, np.float32(-1), np.float32(1))
    near = dice.between(-12, 12, n)
    upright = dice.between(0, 1, n) < 0.5
    return np.stack([np.where(upright, near, far), np.where(upright, far, near)], axis=1)


def _placed(
    ink: Floats, shown: NDArray[np.int64], middle: Floats, scale: Floats, turn: Floats, shear: Floats
) -> Floats:
    """Return the cover [n, H, W] of digits placed in the scene, bilinear between the pixels of `ink` [M, P, P].

    The digits `shown` [n] go to `middle` [n, 2], x and y from the middle of the scene. `scale` [n] is in pixels of
    the scene for one of `ink`, `turn` [n] the tangent of half the angle, `shear` [n] sideways per upwards.
    """
    (x, y), (px, py) = _axes(), _columns(middle)
    t, s, k = turn[:, None, None], scale[:, None, None], shear[:, None, None]
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    across, down = (cosine * (x - px) + sine * (y - py)) / s, (cosine * (y - py) - sine * (x - px)) / s
    size, flat = ink.shape[1], ink.ravel()
    u = np.clip(across + k * down + np.float32((size - 1) / 2), 0, np.float32(size - 1.001))
    v = np.clip(down + np.float32((size - 1) / 2), 0, np.float32(size - 1.001))
    left, above = np.floor(u), np.floor(v)
    corner = (above * np.float32(size) + left).astype(np.int64) + (shown * size * size)[:, None, None]
    u, v = u - left, v - above
    top = flat[corner] * (1 - u) + flat[corner + 1] * u
    bottom = flat[corner + size] * (1 - u) + flat[corner + size + 1] * u
    # Values between two shades are the edge of a stroke: made as steep as about a pixel of the scene.
    between = top * (1 - v) + bottom * v
    return np.asarray(np.clip(between * np.float32(2.4) - np.float32(0.8), 0, 1), dtype=np.float32)


def _smooth(digits: NDArray[np.uint8]) -> Floats:
    """Return digits [M, 8, 8] as [M, 42, 42]: four times as large, from 0 to about 1, with a border of zeros.

    Source: Catmull-Rom splines (Keys, "Cubic convolution interpolation", 1981), a = -1/2, at the offsets 1/8, 3/8,
    5/8 and 7/8. There the weights are multiples of 1/1024, so that integers are enough and exact.
    """
    weights = np.zeros((_ENLARGED * 10, 10 + 4), dtype=np.int64)
    for place in range(len(weights)):
        before, f = divmod(2 * place + 1 - 4, 8)  # of a source pixel's centre, in eighths
        # 1024 times the spline's four weights at f / 8.
        taps = (-f * (8 - f) ** 2, 3 * f**3 - 40 * f**2 + 1024, f * (64 + 32 * f - 3 * f**2), -(f**2) * (8 - f))
        weights[place, before + 1 : before + 5] += taps
    framed = np.pad(digits.astype(np.int64), ((0, 0), (3, 3), (3, 3)))
    sums = weights @ framed @ weights.T
    # One more line of zeros on every side: beyond it a scene reads the border.
    shades = np.maximum(sums, 0).astype(np.float32) / np.float32(16 * 1024 * 1024)
    return np.pad(shades, ((0, 0), (1, 1), (1, 1)))
