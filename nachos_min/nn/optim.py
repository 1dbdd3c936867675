"""Optimisers, which turn gradients into steps, and the schedule of the learning rate, as PyTorch has them.

An optimiser owns its running averages and nothing else: the rate of each step is an argument.
"""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import cos, pi
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor

Array = NDArray[np.floating[Any]]


@final
class SGD:
    """Stochastic gradient descent with momentum: v <- momentum v + g, then w <- w - rate v.

    With `nesterov` the step looks ahead: w <- w - rate (g + momentum v). Weights, gradients and velocities
    are three long vectors: one NumPy call serves all parameters.

    Source: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013, in PyTorch's form: the rate multiplies v when it is used, not what is added to it.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        """Start with velocity 0.

        Args:
            parameters: at least one leaf tensor, by name, all of one dtype.
            momentum: share of the velocity kept from step to step, in [0, 1).
            nesterov: whether to look ahead.
            weight_decay: lambda >= 0; lambda w, the gradient of an L2 penalty, joins each gradient.

        Raises:
            ValueError: if `momentum` is outside [0, 1) or `weight_decay` is negative.
        """
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        self._momentum, self._nesterov, self._decay = momentum, nesterov, weight_decay
        self._tensors = list(parameters.values())
        edges = list(accumulate((tensor.size for tensor in self._tensors), initial=0))
        dtype = self._tensors[0].dtype
        self._weights, self._gradient, self._velocity = (np.zeros(edges[-1], dtype) for _ in range(3))
        self._places = [slice(*ends) for ends in pairwise(edges)]
        weights = (self._weights[place] for place in self._places)
        self._views = [each.reshape(tensor.shape) for each, tensor in zip(weights, self._tensors, strict=True)]

    def step(self, rate: float) -> None:
        """Move each parameter by one step of learning rate `rate`, and set its gradient to None.

        A parameter without a gradient, which took no part in the loss, keeps its weights and velocity.
        """
        velocity, gradient = self._velocity, self._gradient
        unused = [place for place, tensor in zip(self._places, self._tensors, strict=True) if tensor.grad is None]
        kept = [(place, velocity[place].copy()) for place in unused]
        gradients = [tensor.data if tensor.grad is None else tensor.grad for tensor in self._tensors]
        np.concatenate([array.ravel() for array in gradients], out=gradient)
        np.concatenate([tensor.data.ravel() for tensor in self._tensors], out=self._weights)
        if self._decay:
            gradient += self._decay * self._weights
        velocity *= self._momentum
        velocity += gradient
        if self._nesterov:
            gradient += self._momentum * velocity
            gradient *= rate
        else:
            np.multiply(velocity, rate, out=gradient)
        self._weights -= gradient
        for place, before in kept:
            velocity[place] = before
        for tensor, view in zip(self._tensors, self._views, strict=True):
            if tensor.grad is not None:
                tensor.data[...] = view
                tensor.grad = None


@final
class Adam:
    """Adam: each weight's step is its mean gradient over the root of its mean squared gradient.

        m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
        w <- w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        """Start with both averages 0; t counts each parameter's own steps.

        Raises:
            ValueError: if a beta, the share of an average that is kept, is outside [0, 1), or `eps` is not > 0.
        """
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        if not eps > 0.0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self._betas, self._eps = betas, eps
        self._tensors = list(parameters.values())
        self._steps = [0] * len(self._tensors)
        self._means, self._squares = ([np.zeros_like(tensor.data) for tensor in self._tensors] for _ in range(2))

    def step(self, rate: float) -> None:
        """Move each parameter that has a gradient by one step of learning rate `rate`; set the gradient to None."""
        beta1, beta2 = self._betas
        for index, tensor in enumerate(self._tensors):
            if tensor.grad is None:
                continue
            gradient, tensor.grad = tensor.grad, None
            self._steps[index] += 1
            t, mean, square = self._steps[index], self._means[index], self._squares[index]
            mean += (gradient - mean) * (1.0 - beta1)
            square *= beta2
            square += (1.0 - beta2) * gradient * gradient
            root = np.sqrt(square)
            root /= (1.0 - beta2**t) ** 0.5
            root += self._eps
            tensor.data -= rate / (1.0 - beta1**t) * mean / root


def cosine_rate(rate: float, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) on half a cosine from `rate` down to 0 at `steps`; else ValueError.

    >>> [round(cosine_rate(0.1, step, 4), 4) for step in range(5)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
    """
    if steps < 1 or not 0 <= step <= steps:
        raise ValueError(f"step must be between 0 and steps >= 1, got {step} of {steps}")
    return rate * (1.0 + cos(pi * step / steps)) / 2.0
