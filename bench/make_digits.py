"""Make nachos_min/data/digits.h5, the data set that comes with the program: `python bench/make_digits.py`.

Only this script needs scikit-learn. The images are the test part of "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0), in
the copy that scikit-learn distributes: 1,797 images of 8 x 8 pixels with values 0 .. 16. The only change made is
the division: 20 % of every class, chosen by `stratified_split` with a fixed seed, are stored as test images.
Licence: nachos_min/data/LICENSE-digits.txt.
"""

from fractions import Fraction
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np

from nachos_min.data.dataset import stratified_split
from nachos_min.data.load import DIGITS

SEED = 1_998  # the year of the data set

CREDIT = {
    "title": "Optical Recognition of Handwritten Digits",
    "authors": "E. Alpaydin and C. Kaynak",
    "source": "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49",
    "copy": "scikit-learn's, which is the test part",
    "license": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "divided into training and test images, 20 % of every class being test",
}


def make_digits(path: Path) -> None:
    """Write the file, the same bytes every time it is run with the same libraries.

    Args:
        path: the file to write, replaced if it exists.
    """
    digits = import_module("sklearn.datasets").load_digits()  # by name: it has no types for mypy to follow
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    if images.shape != (1797, 8, 8) or not np.array_equal(images, digits.images) or images.max() != 16:
        raise RuntimeError("scikit-learn's digits are not the 1,797 images of 8 x 8 with values 0 .. 16")
    generator = np.random.Generator(np.random.PCG64(SEED))
    train, test = stratified_split(labels.astype(np.int64), Fraction(1, 5), generator)
    arrays = {
        "images": images[train],
        "labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }
    with h5py.File(path, "w") as file:
        file.attrs.update(CREDIT)
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", shuffle=True, track_times=False)


if __name__ == "__main__":
    make_digits(DIGITS)
