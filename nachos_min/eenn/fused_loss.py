"""The loss of the exits once more, with its gradients written by hand: what training calls.

Read `losses.py` first: `exits_loss` there says what is computed, and is what this must equal. It is composed of
some forty operators on arrays of 32 numbers, each of which costs its Python call and its place on the tape:
with three exits 335 us a batch, backward pass included, which was two fifths of a training step of the exits.
Here everything is computed on whole tables (exits, samples) at once and stands on the tape as one step: 112 us.

The one derivative that is not in a schoolbook is that of the probabilities q in the confidences h. Let G_i be
how much the loss grows with q_i: the price of leaving at exit i. Then a sample that has come to exit i expects

    V_i = h_i G_i + (1 - h_i) V_{i+1},    V_E = G_E                    leave here, or go on and expect V_{i+1}

so that sum_i q_i G_i = V_1, and, with s_i = prod_{j<i} (1 - h_j) the probability of coming to exit i at all,

    d V_1 / d h_i = s_i (G_i - V_{i+1})                                leaving here instead of going on

which divides by nothing, also where a sigmoid has been rounded to h = 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Array
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
) -> Tensor:
    """Return `exits_loss(...).total`, up to rounding; arguments and errors are those of `losses.exits_loss`.

    Where a confidence term has a kink (a confidence at CLIP, expected MACs at the budget), both take the same side.
    """
    check_exits(logits, confidences, costs, support)
    scores = np.array([scores.data for scores in logits])  # (E, N, C)
    h = np.array([confidence.data for confidence in confidences])  # (E-1, N)
    dtype, samples = h.dtype, len(labels)
    each = np.arange(samples)

    # Answers: cross-entropy and its gradient at every exit.
    shifted = scores - scores.max(axis=2, keepdims=True)
    probability = np.exp(shifted)
    total = probability.sum(axis=2, keepdims=True)
    probability /= total
    entropy = np.log(total[:, :, 0]) - shifted[:, each, labels]  # (E, N)
    toward = probability  # d entropy / d scores: softmax - onehot(label)
    toward[:, each, labels] -= 1

    # How samples come to exits and leave there.
    arrives = np.ones_like(entropy)  # s
    np.cumprod(1 - h, axis=0, out=arrives[1:])
    q = arrives.copy()
    q[:-1] *= h

    # The price of leaving, and with it the terms that are sums over q.
    price = entropy * dtype.type(alpha)
    value = alpha * (q * entropy).sum() / samples
    if max_macs is not None and costs[-1] > max_macs:
        shares = np.array([(cost - max_macs) / (costs[-1] - max_macs) for cost in costs], dtype)[:, None]
        over = (q * shares).sum() / samples
        if over > 0:
            value += beta * over
            price += dtype.type(beta) * shares
    slope = np.empty_like(h)  # d loss / d h
    expected = price[-1]  # V, from the last exit backwards
    for i in reversed(range(len(h))):
        slope[i] = arrives[i] * (price[i] - expected)
        expected = h[i] * price[i] + (1 - h[i]) * expected
    slope /= samples

    # The terms that judge each confidence by itself: is the exit right, and what is its record?
    right = scores[:-1].argmax(axis=2) == labels
    rights = right.sum(axis=1, keepdims=True)
    # 1 / number of samples with the same target, over 2 (E-1); a count of 0 belongs to a weight nobody takes
    weight = np.where(right, 1 / np.maximum(rights, 1), 1 / np.maximum(samples - rights, 1)).astype(dtype)
    weight *= dtype.type(0.5 / len(h))
    clipped = np.clip(h, CLIP, 1 - CLIP)
    given = np.where(right, clipped, 1 - clipped)
    value -= (np.log(given) * weight).sum()
    pull = weight / given
    pull[clipped != h] = 0
    slope += np.where(right, -pull, pull)
    if support is not None:
        miss = h - support[labels].T.astype(dtype)
        value += gamma * (miss * miss).mean()
        slope += miss * dtype.type(2 * gamma / miss.size)

    toward *= (q * dtype.type(alpha / samples))[:, :, None]
    return record(np.asarray(value, dtype), *_scaled(logits, toward), *_scaled(confidences, slope))


def _scaled(inputs: Sequence[Tensor], gradients: Array) -> list[tuple[Tensor, Any]]:
    """Return the inputs, each with the vjp that multiplies its gradient by that of the loss, a number."""
    return [(x, lambda g, gradient=gradient: g * gradient) for x, gradient in zip(inputs, gradients, strict=True)]
