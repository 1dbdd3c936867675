"""Weights to start training from: random, at a scale that neither fades nor explodes with depth.

Every function draws from the generator it is given, in float64, and then rounds to `dtype`: a float32 network
and the float64 one of a gradient check start from the same numbers. Read nothing before it. Left out: the
fan itself, which a layer knows (`layers.py`).
"""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def kaiming_normal(
    shape: tuple[int, ...], fan: int, rng: np.random.Generator, dtype: type[np.floating[Any]] = np.float32
) -> NDArray[Any]:
    """Return weights drawn from a normal distribution of mean 0 and standard deviation sqrt(2 / fan).

    ReLU halves the mean square of its input; the 2 makes up for it.

    Args:
        shape: of the weights, in the layout of the layer.
        fan: terms in the sums that should keep their scale, at least 1. Fan-in (KH KW C_in / G) keeps that of
            activations, fan-out (KH KW C_out / G; KH KW for a depthwise filter) that of gradients.
        rng: where the numbers come from.
        dtype: float32 or float64.

    Raises:
        ValueError: if `fan` < 1.

    Source: He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equations 10 (fan-in) and 14
    (fan-out).
    """
    return (rng.standard_normal(shape) * sqrt(2.0 / _checked(fan))).astype(dtype)


def linear_uniform(
    shape: tuple[int, ...], fan_in: int, rng: np.random.Generator, dtype: type[np.floating[Any]] = np.float32
) -> NDArray[Any]:
    """Return weights drawn uniformly from +-1/sqrt(fan_in), as PyTorch's linear layer starts.

    Args:
        shape: of the weights (or of the bias, which PyTorch draws the same way).
        fan_in: input features, at least 1.
        rng: where the numbers come from.
        dtype: float32 or float64.

    Raises:
        ValueError: if `fan_in` < 1.

    Source: PyTorch, `torch.nn.Linear`; the scale 1/sqrt(fan_in) is that of LeCun, Bottou, Orr and Müller,
    "Efficient BackProp", 1998, section 4.6.
    """
    bound = 1.0 / sqrt(_checked(fan_in))
    return rng.uniform(-bound, bound, shape).astype(dtype)


def _checked(fan: int) -> int:
    if fan < 1:
        raise ValueError(f"fan must be >= 1, got {fan}")
    return fan
