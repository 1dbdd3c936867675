"""IDX files, as MNIST, Fashion-MNIST, KMNIST and EMNIST are published, gzipped or not.

Source: LeCun, Cortes and Burges, "The MNIST database": two zero bytes, the type, the number of axes, each axis as a
big-endian uint32, then the values.
"""

import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError
from nachos_min.data.limits import Asked, Room
from nachos_min.data.unpacked import Unpacked
from nachos_min.files import open_file

_FILE = re.compile(r"(?P<set>.*?)(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx[134]-ubyte(\.gz)?")
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PIECE = 1 << 20  # bytes unpacked at a time


def holds_idx(path: Path) -> bool:
    """Return whether `path` is one of these files, or a folder with some."""
    return any(_FILE.fullmatch(each.name) for each in ([path] if path.is_file() else _folder(path).iterdir()))


def read_idx(path: Path, asked: Asked) -> dict[str, Any]:
    """Return images, labels and, where they are there, test_images and test_labels of the MNIST family.

    `path` is one of the files, beside which the others are found; the folder of one data set; or the folder above
    `raw`, as torchvision makes it. If labels may be missing, the images of one split are enough.
    DataError if a file is missing or is not what its header says, or several data sets are in the folder.
    """
    folder = path.parent if path.is_file() else _folder(path)
    named = [(match, each) for each in sorted(folder.iterdir()) if (match := _FILE.fullmatch(each.name))]
    sets = sorted({match["set"] for match, each in named if each == path or not path.is_file()})
    if len(sets) > 1:
        raise DataError(f"{path}: holds {len(sets)} data sets ({', '.join(sets)}): name one of their files")
    files: dict[str, Path] = {}
    for match, each in named:
        if match["set"] == sets[0]:  # a file sorts in front of its packed form, which holds the same
            files.setdefault(("" if match["split"] == "train" else "test_") + match["what"], each)
    enough = not asked.labelled and not {"images", "test_images"}.isdisjoint(files)
    for name in () if enough else ("images", "labels", "test_images", "test_labels"):
        if name not in files and not (name.startswith("test_") and len(files) == 2):
            found = ", ".join(each.name for each in files.values())
            raise DataError(f"{folder}: a file of {name} is needed beside the others, found {found}")
    arrays: dict[str, Any] = {
        name: read_idx_array(each, asked.room, links=each == path) for name, each in files.items()
    }
    if sets[0].startswith("emnist"):
        arrays["notes"] = ("EMNIST stores rows of pixels as columns; the images stay as stored",)
    return arrays


def _folder(path: Path) -> Path:
    return path / "raw" if (path / "raw").is_dir() else path


def read_idx_array(path: Path, room: Room, *, links: bool = True) -> NDArray[Any]:
    """Return the array of one IDX file; DataError if the file is damaged, or longer or shorter than it declares."""
    with open_file(path, links=links) as stored:
        file = Unpacked(stored) if path.suffix == ".gz" else stored
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 4:
            raise DataError(
                f"{path}: an IDX file must begin with 00 00, a type and 1 to 4 axes, got {magic.hex(' ') or 'none'}"
            )
        sides = file.read(4 * magic[3])
        shape = tuple(int(side) for side in np.frombuffer(sides[: len(sides) // 4 * 4], ">u4"))
        kind = np.dtype(_TYPES[magic[2]])
        room.take(prod(shape) * kind.itemsize, f"{path.name} of shape {shape}")
        # One byte more is asked for, to notice a longer file. Memory grows with what is there, not with the header.
        size, content = prod(shape) * kind.itemsize, bytearray()
        while piece := file.read(min(_PIECE, size + 1 - len(content))):
            content += piece
    if len(shape) != magic[3] or len(content) != size:
        more = "more" if len(content) > size else f"{len(content)}"
        raise DataError(f"{path}: declares shape {shape}, which is {size} bytes, but holds {more}")
    return np.frombuffer(content, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)
