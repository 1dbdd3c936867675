"""Read a data set from HDF5: data sets "images" and "labels", and the others that `arrays.py` knows, if any."""

from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from nachos_min.data.arrays import NAMES, check_declared
from nachos_min.data.dataset import DataError


def read_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays that the file holds under the names this program knows.

    Args:
        path: an existing file.

    Returns:
        Arrays by name; which ones must be there is for `check_arrays` to say.

    Raises:
        DataError: it is no HDF5 file, is damaged, or declares too large a shape.
    """
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for name in NAMES:
                entry = file.get(name)
                if isinstance(entry, h5py.Dataset):
                    check_declared(str(path), name, entry.shape or ())
                    arrays[name] = entry[()]
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no exception of its own for a damaged file
        raise DataError(f"{path}: must be a whole HDF5 file, but it cannot be read ({_first(error)})") from None
    return arrays


def _first(error: Exception) -> str:
    """Return HDF5's own reason, on one line."""
    return " ".join(str(error).split())
