"""The loss of the exits once more, as one step of the tape: what training calls.

Read `losses.py` first: `exits_loss` there says what is computed, and is what this must equal. It is composed of
some forty operators on arrays of 32 numbers, each of which costs its Python call and its place on the tape:
with three exits 335 us a batch, backward pass included, which was two fifths of a training step of the exits.
Value and gradients of the whole are one kernel, `nachos_kernels/exits_loss.py`, which has the equations: 29 us.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_kernels.exits_loss import distillation_and_gradients, exits_loss_and_gradients
from nachos_min.autograd import Tensor
from nachos_min.autograd.tape import Array, record
from nachos_min.eenn.losses import CLIP, check_exits


def fused_exits_loss(
    logits: Sequence[Tensor],
    confidences: Sequence[Tensor],
    labels: NDArray[np.integer[Any]],
    *,
    costs: Sequence[int],
    max_macs: float | None,
    support: NDArray[np.floating[Any]] | None,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    kappa: float = 1.0,
    fixed: Sequence[float] = (),
    distillation: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Return the loss of the exits of one batch, a scalar tensor of the inputs' dtype.

    With the defaults it is `losses.exits_loss(...).total`, up to rounding; its errors are the same, too. Where a
    confidence term has a kink (a confidence at CLIP, expected MACs at the budget), both take the same side.

    Args:
        logits, confidences, labels, costs, max_macs, support, alpha, beta, gamma: as of `losses.exits_loss`.
        kappa: weight of the confidence term.
        fixed: E weights w_i: the classification term is sum_i w_i CE_i, not sum_i q_i CE_i.
        distillation: weight of the distillation from all exits together to each.
        temperature: of the distillation, > 0.
    """
    check_exits(logits, confidences, costs, support)
    scores = np.array([scores.data for scores in logits])
    h = np.array([confidence.data for confidence in confidences])
    shares: list[float] = []
    if max_macs is not None and costs[-1] > max_macs:
        shares = [(cost - max_macs) / (costs[-1] - max_macs) for cost in costs]
    value, toward, slope = exits_loss_and_gradients(
        scores,
        h,
        np.ascontiguousarray(labels, np.int64),
        np.array(shares, h.dtype),
        np.empty((0, 0), h.dtype) if support is None else np.ascontiguousarray(support, h.dtype),
        (float(alpha), float(beta), float(gamma), float(kappa)),
        np.array((CLIP, 1.0 - CLIP), h.dtype),
        np.array(fixed, h.dtype),
    )
    if distillation:
        extra, gradient = distillation_and_gradients(scores, float(temperature))
        value += distillation * extra
        toward += h.dtype.type(distillation) * gradient
    return record(np.asarray(value, h.dtype), *_scaled(logits, toward), *_scaled(confidences, slope))


def _scaled(inputs: Sequence[Tensor], gradients: Array) -> list[tuple[Tensor, Any]]:
    """Return the inputs, each with the vjp that multiplies its gradient by that of the loss, a number."""
    return [(x, lambda g, gradient=gradient: g * gradient) for x, gradient in zip(inputs, gradients, strict=True)]
