"""Backbones trained already: candidates that differ in nothing but their exits share one.

Read `evaluate.py` first. The first phase of training depends on the backbone's genes alone (weights and order of
samples are seeded by them), so a second candidate with the same backbone would train the very same weights for half
of its epochs. That is frequent in small spaces and towards the end of long searches, and rare in the default one (1
of 100). Taken from here or trained again, the weights are equal to the last bit: what is found changes the time of
an evaluation and never its result.

Workers share a folder of the run, one file per backbone, so that a run that is continued finds them, too. A file
that cannot be written or read, for whatever reason, is a backbone that must be trained: nothing else. The folder
may be deleted at any time.
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
    """What the first phase of training left.

    Attributes:
        weights: `EarlyExitNetwork.backbone_state`.
        losses: mean loss of each epoch.
    """

    weights: Array
    losses: tuple[float, ...]


@final
class Backbones:
    """Trained backbones of one run, by their genes."""

    def __init__(self, folder: Path) -> None:
        """Keep them in `folder`, made when first needed, which other processes may use at the same time."""
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
        """Remember a trained backbone, unless those remembered fill their share of the disk."""
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            if sum(other.stat().st_size for other in self._folder.iterdir()) + backbone.weights.nbytes < MOST_BYTES:
                with replacing(self._file(genes)) as written, open(written, "wb") as stream:
                    np.savez(stream, weights=backbone.weights, losses=np.array(backbone.losses))

    def _file(self, genes: Sequence[int]) -> Path:
        return self._folder / f"{sha256(repr(list(map(int, genes))).encode()).hexdigest()}.npz"
