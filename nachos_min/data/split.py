"""Divide samples in two so that every class keeps its share, identically on every machine.

Every sample is dealt a 64-bit key; in each class the samples with the smallest keys are held out. The keys
are the bit generator's raw stream, which NumPy promises never to change, unlike the shuffles built on top
of it (NumPy enhancement proposal 19).
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError


def stratified_split(
    labels: NDArray[np.int64], share: Fraction, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices kept and the indices held out, each ascending.

    Args:
        labels: int64 [N], classes 0 .. C - 1.
        share: part of each class to hold out, between 0 and 1; rounded to whole samples, half up, but at
            least one sample is held out and one is kept.
        generator: gives one raw number per sample; PCG64, for the 64 bits that make equal keys unlikely.

    Returns:
        (kept, held_out): int64 arrays that partition 0 .. N - 1.

    Raises:
        DataError: a class that occurs has fewer than 2 samples.

    Source: stratified sampling by random keys, written out here so that the result is reproducible.

    >>> kept, held_out = stratified_split(
    ...     np.array([0, 1, 0, 1, 0, 1]), Fraction(1, 3), np.random.Generator(np.random.PCG64(0)))
    >>> kept, held_out
    (array([0, 1, 4, 5]), array([2, 3]))
    """
    keys = np.asarray(generator.bit_generator.random_raw(len(labels)), dtype=np.uint64)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise DataError(f"every class must have at least 2 samples to be split, class {label} has 1")
        wanted = int(len(members) * share + Fraction(1, 2))
        wanted = min(max(wanted, 1), len(members) - 1)
        held_out[members[np.argsort(keys[members], kind="stable")[:wanted]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
