"""Data sets, ready to train on: `load.py` is the front door."""

from nachos_min.data.dataset import DataError, Dataset, Split
from nachos_min.data.load import load
from nachos_min.data.resize import resize

__all__ = ["DataError", "Dataset", "Split", "load", "resize"]
