"""Backbones trained already: candidates that differ only in their exits share one.

The first phase of training depends on the backbone's genes alone, which seed its weights and the order of samples.
Found here or trained again, its weights are equal to the last bit.

Workers share a folder of the run, one file a backbone. A file that cannot be written or read is a backbone that is
trained again. The folder may be deleted at any time.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np

from nachos_min.atomic import replacing

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

MOST_BYTES = 1 << 28  # of all files together; a backbone of space tiny has 90 kB, one of ofa-mbv3 some 10 MB


@dataclass(frozen=True, eq=False)
class Backbone:
    """`EarlyExitNetwork.backbone_state` after the first phase of training, and the mean loss of each epoch."""

    weights: Array
    losses: tuple[float, ...]


@final
class Backbones:
    """Trained backbones of one run, by their genes, in a folder that is made when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, genes: Sequence[int]) -> Backbone | None:
        """Return the backbone trained for `genes`, or None."""
        try:
            # Opened here: `np.load` would leave a damaged file open.
            with open(self._file(genes), "rb") as stream, np.load(stream) as stored:
                return Backbone(stored["weights"], tuple(stored["losses"].tolist()))
        except (OSError, ValueError, KeyError, BadZipFile):
            return None

    def keep(self, genes: Sequence[int], backbone: Backbone) -> None:
        """Store a trained backbone unless the folder is full."""
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            if sum(other.stat().st_size for other in self._folder.iterdir()) + backbone.weights.nbytes < MOST_BYTES:
                with replacing(self._file(genes)) as written, open(written, "wb") as stream:
                    np.savez(stream, weights=backbone.weights, losses=np.array(backbone.losses))

    def _file(self, genes: Sequence[int]) -> Path:
        return self._folder / f"{sha256(repr(list(map(int, genes))).encode()).hexdigest()}.npz"
