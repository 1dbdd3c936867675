"""The paper's way to handle the limit on MACs: a penalty on the objective, instead of Deb's domination.

Read `nsga2.py` first, whose `ranking` this is; `nachos.py` says when it is used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class AdaptivePenalty:
    """Objectives for ranking in which breaking the MACs limit costs the more, the fewer keep it.

        F2 = phi M + (1 - phi) penalty max(0, M - M_max),    phi = share of the population with M <= M_max

    Source: NACHOS, arXiv 2401.13330; the released code has `10*15` where 10^15 was meant. Genomes that are
    inadmissible by static count (last column of G) are put behind all others.
    """

    max_macs: int
    penalty: float = 1e15

    def __call__(self, F: Floats, G: Floats) -> Floats:
        """Return the objectives (n, 2) to rank by, for objectives `F` (error, MACs) and violations `G`."""
        macs = F[:, 1]
        phi = float(np.mean(macs <= self.max_macs))
        second = phi * macs + (1 - phi) * self.penalty * np.maximum(0.0, macs - self.max_macs)
        ranked = np.column_stack([F[:, 0], second])
        ranked[G[:, -1] > 0] = np.finfo(np.float64).max
        return ranked
