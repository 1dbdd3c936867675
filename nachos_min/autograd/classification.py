"""From scores to class probabilities, and the loss that trains them.

Read `tape.py` first. Every function subtracts the largest score before it exponentiates: exp never overflows.

    softmax_c(z) = exp(z_c - m) / sum_k exp(z_k - m),    m = max_k z_k
    log_softmax_c(z) = z_c - m - log sum_k exp(z_k - m)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd.arguments import check_axes, check_tensors
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Array, Tensor


def _log_softmax(scores: Array, axis: int) -> Array:
    shifted: Array = scores - scores.max(axis=axis, keepdims=True)
    value: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return value


@operator
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return the logarithms of softmax(x) along `axis`, accurate also where the probability is tiny.

    Args:
        x: scores, any shape with at least one axis.
        axis: the axis of the classes, a negative one from the end.

    Source: d log p_c / d z_k = [c = k] - p_k, so the vjp is g - p * sum(g).
    """
    check_tensors("log_softmax", x)
    value = _log_softmax(x.data, axis)
    return record(value, (x, lambda g: g - np.exp(value) * g.sum(axis=axis, keepdims=True)))


@operator
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return probabilities along `axis`, proportional to exp(x).

    Args:
        x, axis: as in `log_softmax`.

    Source: d p_c / d z_k = p_c ([c = k] - p_k), so the vjp is p * (g - sum(g * p)).
    """
    check_tensors("softmax", x)
    value = np.exp(_log_softmax(x.data, axis))
    return record(value, (x, lambda g: value * (g - (g * value).sum(axis=axis, keepdims=True))))


@operator
def cross_entropy(logits: Tensor, labels: NDArray[np.integer[Any]]) -> Tensor:
    """Return each sample's loss, -log softmax(logits)[label]; take `.mean()` for the batch's.

    Args:
        logits: scores (N, C).
        labels: integers (N,), the right class of each sample, 0 <= label < C.

    Returns:
        Losses >= 0, (N,).

    Raises:
        ValueError: if logits have not two axes, labels are not N integers, or one is not a class.

    Source: d loss / d z = softmax(z) - onehot(label).
    """
    check_tensors("cross_entropy", logits)
    check_axes("cross_entropy", "logits", logits, "N C")
    labels = np.asarray(labels)
    samples, classes = logits.shape
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy: labels must be {samples} integers, got {labels.dtype} of shape {labels.shape}"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"cross_entropy: labels must be in 0..{classes - 1}, got {wrong[0]}")
    log_probabilities = _log_softmax(logits.data, 1)
    each = np.arange(samples)

    def vjp(g: Array) -> Array:
        gradient = np.exp(log_probabilities)
        gradient[each, labels] -= 1.0
        gradient *= g[:, np.newaxis]
        return gradient

    return record(-log_probabilities[each, labels], (logits, vjp))
