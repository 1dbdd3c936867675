"""Confidence of each exit, and the cumulative confidence that the policy compares with thresholds.

    learned    h_i, the sigmoid of the head's last output;       c_i = 1 - prod_{j<=i} (1 - h_j)
    softmax    m_i, the largest softmax(z_i / T_i), T_i fitted;   c_i = max_{j<=i} m_j

Both c_i never fall from exit to exit, and c_E = 1. A temperature changes no answer; it calibrates m_i.
"""

from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Beyond these an exit is always or never right on the images it is fitted on, and no temperature is the best.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Confidence:
    """Which confidence a network's policy uses: softmax with `temperatures` T_1 .. T_{E-1} > 0; None: learned."""

    temperatures: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Return `learned` or `softmax`."""
        return "learned" if self.temperatures is None else "softmax"

    def score(self, exit_: int, logits: Floats, h: Floats) -> Floats:
        """Return what early exit `exit_` (from 0) says of itself: `h` (N,), or the largest softmax of `logits`."""
        return h if self.temperatures is None else largest_softmax(logits, self.temperatures[exit_])

    def cumulative(self, scores: Floats) -> NDArray[np.float64]:
        """Return c of `scores` (N, E-1), float64 (N, E); rows never fall, and the last column is 1."""
        if self.temperatures is None:
            return cumulative_confidence(scores)
        cumulative = np.ones((len(scores), scores.shape[1] + 1))
        cumulative[:, :-1] = np.maximum.accumulate(scores, axis=1)
        return cumulative


LEARNED = Confidence()


def cumulative_confidence(h: Floats) -> NDArray[np.float64]:
    """Return c_i = 1 - prod_{j<=i} (1 - h_j), float64 [N, E], of `h` [N, E-1] in [0, 1]; h_E = 1.

    In float64: where early exits are sure, 1 - c is tiny, and thresholds must still tell samples apart.

    Source: Pomponi, Scardapane and Uncini, "A probabilistic re-interpretation of confidence scores in multi-exit
        models", Entropy 24(1), 2022.

    >>> cumulative_confidence(np.array([[0.5, 0.5], [0.0, 0.25]]))
    array([[0.5 , 0.75, 1.  ],
           [0.  , 0.25, 1.  ]])
    """
    samples, early_exits = h.shape
    cumulative = np.ones((samples, early_exits + 1))
    cumulative[:, :-1] = 1.0 - np.cumprod(1.0 - h.astype(np.float64), axis=1)
    return cumulative


def largest_softmax(logits: Floats, temperature: float) -> Floats:
    """Return the largest entry of softmax(`logits` / `temperature`) in each row, (N,), dtype of the logits.

    >>> largest_softmax(np.array([[0.0, 0.0], [1.0, -1.0]]), 0.5).round(3)
    array([0.5  , 0.982])
    """
    scores = logits.astype(np.float64) / temperature
    return np.asarray(1.0 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1), logits.dtype)


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the temperature T at which softmax(`logits` / T), (N, C), gives `labels` the largest likelihood.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and many processes never need it

    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        t = exp(log_temperature)
        return float((np.log(np.exp(scores / t).sum(axis=1)) - right / t).mean())

    found = minimize_scalar(loss, bounds=(log(COLDEST), log(HOTTEST)), method="bounded")
    return exp(float(found.x))


def fit_softmax(logits: Floats, labels: NDArray[np.int64]) -> Confidence:
    """Return the softmax confidence with temperatures fitted to the `logits` (N, E, C) of the early exits.

    The samples, of which `labels` (N,) are the classes, must not have trained the network.
    """
    return Confidence(tuple(fit_temperature(logits[:, i], labels) for i in range(logits.shape[1] - 1)))
