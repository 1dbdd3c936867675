"""The built-in data set `digits32`: 24,000 scenes in colour, painted on first use and kept in the user's cache.

Each of the three splits shows digits that no other shows: training scenes are painted from the training images of
`digits`, validation scenes from its validation images, test scenes from its test images. With every scene
comes how hard it is (`scenes.py`, which paints them; read it first).

A digit is shown in several scenes of its split, in five or six of test. Where one is read wrongly the others tend
to be, too: an interval that counts scenes, as a certificate's does, tells what other scenes of these digits would
give. For other digits it is too narrow, by about a quarter where it was measured.

The cache is a convenience: if it cannot be read, the scenes are painted; if it cannot be written, they stay in
memory. Its file is named by what its content follows from, so an edited painter never meets old scenes.
"""

import os
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nachos_min.atomic import replacing
from nachos_min.data import scenes
from nachos_min.data.dataset import DataError, Split
from nachos_min.data.read_hdf5 import read_hdf5

SCENES = {"": 20_000, "validation_": 2_000, "test_": 2_000}  # of each split, by the beginning of its arrays' names
_SEED = 32


def digits32(train: Split, validation: Split, test: Split) -> dict[str, NDArray[Any]]:
    """Return the arrays of `digits32`, from the cache or painted.

    Args:
        train, validation, test: the digits to paint each split from; images [M, 8, 8, 1], ink from 0 to 16.

    Returns:
        Arrays by the names that `check_arrays` knows: images uint8 [N, 32, 32, 3], labels int64 [N] and
        difficulty float32 [N], and the same with "validation_" and with "test_" in front.
    """
    digits = dict(zip(SCENES, (train, validation, test), strict=True))
    folder = cache_folder()
    file = None if folder is None else folder / f"digits32-{_fingerprint(digits)}.h5"
    if file is not None:
        with suppress(DataError):  # there is none yet, or it is damaged, which its checksums tell
            return read_hdf5(file)
    arrays: dict[str, NDArray[Any]] = {}
    for index, (prefix, count) in enumerate(SCENES.items()):
        drawn = digits[prefix]
        chosen = np.arange(count) % len(drawn)  # so that each digit is shown as often as any other
        images, hard = scenes.paint(drawn.images[..., 0].astype(np.uint8), chosen, (_SEED, index))
        arrays |= {f"{prefix}images": images, f"{prefix}labels": drawn.labels[chosen], f"{prefix}difficulty": hard}
    if file is not None:
        with suppress(OSError):  # no room, or no right to write there
            _write(file, arrays)
    return arrays


def cache_folder() -> Path | None:
    """Return the folder for files that this program can make again, or None for a user without a home.

    It is `nachos_min` in `$XDG_CACHE_HOME` or `~/.cache`, on macOS in `~/Library/Caches`, on Windows in
    `%LOCALAPPDATA%`.

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
    """Return 16 hexadecimal digits that change with the painter's text, the numbers above and the digits."""
    told = sha256(Path(scenes.__file__).read_bytes())
    told.update(repr((SCENES, _SEED)).encode())
    for split in digits.values():
        told.update(split.images.astype("<f4").tobytes() + split.labels.astype("<i8").tobytes())
    return told.hexdigest()[:16]


def _write(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write the cache whole or not at all: other processes may be reading or writing it at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, h5py.File(temporary, "w") as written:
        for key, array in arrays.items():
            chunks = (min(len(array), 500), *array.shape[1:])
            written.create_dataset(key, data=array, chunks=chunks, fletcher32=True)
