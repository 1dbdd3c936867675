"""The loss that teaches exits what to answer, and when they may be believed.

With h_i in (0, 1) the confidence of early exit i and h_E = 1, a sample leaves at exit i with probability
q_i = h_i prod_{j<i} (1 - h_j), after Pomponi, Scardapane and Uncini, Entropy 24(1), 2022. The loss has five terms:

    L = alpha L_cls + kappa L_conf + beta L_cost + gamma L_peak + distillation L_dist

    L_cls   mean_n sum_i w_i CE(z_i, y)                       answers; w_i is q_i, or fixed (deep supervision)
    L_conf  mean_{n, i<E} v_i BCE(h_i, is exit i right?)      confidence predicts correctness
    L_cost  max(0, M_hat - M_max) / (cost_E - M_max)          expected MACs M_hat = mean_n sum_i q_i cost_i
    L_peak  mean_{n, i<E} (h_i - T[y, i])^2                   confidence follows the exit's accuracy by class
    L_dist  t^2 mean_n sum_i KL(softmax(mean_j z_j / t) || softmax(z_i / t))    each exit learns what all say

The weights v give the right and the wrong answers of an exit the same total weight, so that a good exit does not
learn to be sure of everything. `nachos_kernels/exits_loss.py` computes the value and the gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_kernels.exits_loss import distillation_and_gradients, exits_loss_and_gradients
from nachos_min.autograd import Tensor, cross_entropy
from nachos_min.autograd.tape import record
from nachos_min.eenn.network import ExitOutput

# h is kept this far from 0 and 1 in L_conf: one confident mistake then costs at most -log(1e-4) = 9.2, times
# its weight, and has no gradient beyond.
CLIP = 1e-4


@dataclass(frozen=True)
class Budget:
    """What the cost term compares: MACs paid when leaving at each of the E exits, and the limit on their mean."""

    costs: tuple[int, ...]
    max_macs: float | None

    @property
    def shares(self) -> list[float]:
        """Return s_i = (cost_i - M_max) / (cost_E - M_max) <= 1; none if the limit cannot be exceeded.

        L_cost = max(0, mean_n sum_i q_i s_i), since sum_i q_i = 1. Unlike counts of millions, float32 holds s_i.
        """
        if self.max_macs is None or self.costs[-1] <= self.max_macs:
            return []
        return [(cost - self.max_macs) / (self.costs[-1] - self.max_macs) for cost in self.costs]


def exits_loss(
    outputs: Sequence[ExitOutput],
    labels: NDArray[np.integer[Any]],
    budget: Budget,
    support: NDArray[np.floating[Any]] | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    kappa: float = 1.0,
    fixed: Sequence[float] = (),
    distillation: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Return the loss of one batch, a scalar tensor; of a network without early exits the mean cross-entropy.

    `labels` (N,) are the right classes, 0 <= label < C. `support` is T (C, E-1) in [0, 1], the accuracy of each
    early exit on each class; None: L_peak = 0. `fixed` are the E weights w_i of the answers; empty: q_i.

    Source: NACHOS, arXiv 2401.13330, the loss of the exits; unlike the released code's, L_cost has a gradient and
        L_peak compares each exit with its own accuracy.
    """
    if len(outputs) == 1:
        return cross_entropy(outputs[0].logits, labels).mean()
    logits = [output.logits for output in outputs]
    confidences = [output.confidence for output in outputs if output.confidence is not None]
    scores, h = np.array([each.data for each in logits]), np.array([each.data for each in confidences])
    value, toward, slope = exits_loss_and_gradients(
        scores,
        h,
        np.ascontiguousarray(labels, np.int64),
        np.array(budget.shares, h.dtype),
        np.empty((0, 0), h.dtype) if support is None else np.ascontiguousarray(support, h.dtype),
        (float(alpha), float(beta), float(gamma), float(kappa)),
        np.array((CLIP, 1.0 - CLIP), h.dtype),
        np.array(fixed, h.dtype),
    )
    if distillation:
        extra, gradient = distillation_and_gradients(scores, float(temperature))
        value += distillation * extra
        toward += h.dtype.type(distillation) * gradient
    # The vjp of each input multiplies its gradient by that of the loss, a number.
    inputs = zip([*logits, *confidences], [*toward, *slope], strict=True)
    return record(np.asarray(value, h.dtype), *((x, lambda g, own=own: g * own) for x, own in inputs))
