"""Read a data set from NumPy's .npz: "images" and "labels", and the others that `arrays.py` knows, if any."""

import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nachos_min.data.arrays import NAMES, check_declared
from nachos_min.data.dataset import DataError


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays the file holds under the names this program knows; pickled objects are never loaded.

    Args:
        path: an existing file.

    Returns:
        Arrays by name; which ones must be there is for `check_arrays` to say.

    Raises:
        DataError: it is no .npz file, is damaged, holds objects, or declares a shape that is too large or
            that it has not the bytes for.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            for name in NAMES:
                member = members.get(f"{name}.npy")
                if member is not None:
                    with archive.open(member) as stream:
                        _check_header(path, name, stream, member.file_size)
                    with archive.open(member) as stream:
                        arrays[name] = npy.read_array(stream, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # zipfile, decompressors and NumPy: another class for every kind of damage
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be a whole .npz file, but it cannot be read ({reason})") from None
    return arrays


def _check_header(path: Path, name: str, stream: Any, size: int) -> None:
    """What the header promises, checked before anything is allocated for it."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    check_declared(str(path), name, shape)
    if not dtype.hasobject and prod(shape) * np.dtype(dtype).itemsize > size:
        raise DataError(f"{path}: {name} declares shape {shape} of {dtype}, but holds only {size} bytes")
