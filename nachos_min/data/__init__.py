"""Data sets, ready to train on."""

from nachos_min.data.dataset import DataError, Dataset, Images, ImageSource, Split, fitted_size, kind_of, resize
from nachos_min.data.load import load

__all__ = ["DataError", "Dataset", "ImageSource", "Images", "Split", "fitted_size", "kind_of", "load", "resize"]
