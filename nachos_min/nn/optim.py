"""Optimisers, which turn gradients into steps, and learning-rate schedules, which say how long the steps are.

An optimiser owns its running averages and nothing else. The rate is an argument of each step, and a schedule
is a plain function of the step number: there are no two counters to keep in time with each other.

Read `autograd/tensor.py` before. The updates are PyTorch's. Left out: its `dampening`, `maximize`, AMSGrad.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from math import cos, pi
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor

Array = NDArray[np.floating[Any]]


class Optimizer(ABC):
    """Updates parameters in place from their gradients. Subclasses say by how much (`_update`)."""

    def __init__(
        self, parameters: Mapping[str, Tensor], *, weight_decay: float = 0.0, undecayed: Collection[str] = ()
    ) -> None:
        """Remember what to update.

        Args:
            parameters: leaf tensors by name, as `Module.named_parameters` gives them.
            weight_decay: lambda >= 0; lambda * parameter, the gradient of an L2 penalty, joins each gradient.
            undecayed: names of the parameters that the decay leaves alone (often biases and batch norm's).

        Raises:
            ValueError: if `weight_decay` is negative, or a name in `undecayed` is not a parameter's.
        """
        if weight_decay < 0.0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        if unknown := sorted(set(undecayed) - set(parameters)):
            raise ValueError(f"undecayed must name parameters, got {unknown[0]!r}")
        self._parameters = dict(parameters)
        self._decay = {name: 0.0 if name in undecayed else weight_decay for name in parameters}

    def step(self, rate: float) -> None:
        """Move each parameter by one step and set its gradient to None, for the next batch.

        A parameter without a gradient (it took no part in the loss) stays as it is, and so do its averages.

        Args:
            rate: learning rate of this step.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            gradient, parameter.grad = parameter.grad, None
            if decay := self._decay[name]:
                gradient += decay * parameter.data  # in place: the gradient is ours from here on
            self._update(name, parameter.data, gradient, rate)

    @abstractmethod
    def _update(self, name: str, weights: Array, gradient: Array, rate: float) -> None:
        """Change `weights` in place; `gradient` includes the weight decay and may be overwritten."""


class _Flat:
    """Parameters, gradients and velocity as three long vectors, so that one NumPy call serves all parameters.

    The parameters' own arrays stay where they are: they are copied in before a step and out after it.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._tensors = list(parameters)
        arrays = [tensor.data for tensor in self._tensors]
        self._dtypes = {array.dtype for array in arrays}
        self._ends = list(accumulate(array.size for array in arrays))
        dtype = np.result_type(*self._dtypes) if arrays else np.dtype(np.float32)
        size = self._ends[-1] if arrays else 0
        self.weights, self.gradient, self.velocity = (np.zeros(size, dtype) for _ in range(3))
        self._places = self.parts(self.weights)

    def parts(self, vector: Array) -> list[Array]:
        """Return views of `vector` with the shapes of the parameters."""
        begins = (0, *self._ends)
        return [
            vector[begin:end].reshape(tensor.shape)
            for tensor, begin, end in zip(self._tensors, begins, self._ends, strict=False)
        ]

    def gather(self) -> bool:
        """Take all gradients and copy all weights in; False, nothing done, if one is missing or types differ."""
        gradients = [tensor.grad for tensor in self._tensors]
        if len(self._dtypes) != 1 or any(gradient is None for gradient in gradients):
            return False
        np.concatenate([gradient.ravel() for gradient in gradients if gradient is not None], out=self.gradient)
        np.concatenate([tensor.data.ravel() for tensor in self._tensors], out=self.weights)
        for tensor in self._tensors:
            tensor.grad = None
        return True

    def scatter(self) -> None:
        """Copy the weights out to the parameters' own arrays."""
        for tensor, place in zip(self._tensors, self._places, strict=True):
            tensor.data[...] = place


@final
class SGD(Optimizer):
    """Stochastic gradient descent with momentum: v <- momentum v + g, then w <- w - rate v.

    With `nesterov` the step looks ahead: w <- w - rate (g + momentum v).

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
        undecayed: Collection[str] = (),
    ) -> None:
        """Start with velocity 0.

        Args:
            parameters: leaf tensors by name.
            momentum: share of the velocity kept from step to step, in [0, 1).
            nesterov: whether to look ahead.
            weight_decay: see `Optimizer`.
            undecayed: see `Optimizer`.

        Raises:
            ValueError: if `momentum` is outside [0, 1), or as `Optimizer` says.
        """
        super().__init__(parameters, weight_decay=weight_decay, undecayed=undecayed)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self._momentum, self._nesterov = momentum, nesterov
        self._all = _Flat(self._parameters.values())
        self._velocity = dict(zip(parameters, self._all.parts(self._all.velocity), strict=True))

    def step(self, rate: float) -> None:
        """Do what `Optimizer.step` says, all parameters at once when every one has a gradient.

        The 62 parameters of a backbone of space tiny take 60 us at once and 210 us one by one, a tenth of a
        training step; both ways compute the same numbers, bit for bit.
        """
        decays = set(self._decay.values())
        if len(decays) != 1 or not self._all.gather():
            super().step(rate)
            return
        flat = self._all
        if decay := decays.pop():
            flat.gradient += decay * flat.weights
        self._update_array(flat.velocity, flat.weights, flat.gradient, rate)
        flat.scatter()

    def _update(self, name: str, weights: Array, gradient: Array, rate: float) -> None:
        self._update_array(self._velocity[name], weights, gradient, rate)

    def _update_array(self, velocity: Array, weights: Array, gradient: Array, rate: float) -> None:
        velocity *= self._momentum
        velocity += gradient
        if self._nesterov:
            gradient += self._momentum * velocity
            gradient *= rate
        else:
            np.multiply(velocity, rate, out=gradient)
        weights -= gradient


@final
class Adam(Optimizer):
    """Adam: each weight's step is its mean gradient over the root of its mean squared gradient.

        m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
        w <- w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        undecayed: Collection[str] = (),
    ) -> None:
        """Start with both averages 0; t counts each parameter's own steps.

        Args:
            parameters: leaf tensors by name.
            betas: how much of the two averages is kept from step to step, each in [0, 1).
            eps: > 0, keeps the division defined where gradients vanish.
            weight_decay: see `Optimizer`.
            undecayed: see `Optimizer`.

        Raises:
            ValueError: if a beta is outside [0, 1), `eps` is not positive, or as `Optimizer` says.
        """
        super().__init__(parameters, weight_decay=weight_decay, undecayed=undecayed)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        if not eps > 0.0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self._betas, self._eps = betas, eps
        self._steps = dict.fromkeys(parameters, 0)
        self._mean = {name: np.zeros_like(tensor.data) for name, tensor in parameters.items()}
        self._square = {name: np.zeros_like(tensor.data) for name, tensor in parameters.items()}

    def _update(self, name: str, weights: Array, gradient: Array, rate: float) -> None:
        self._steps[name] += 1
        t, (beta1, beta2) = self._steps[name], self._betas
        mean, square = self._mean[name], self._square[name]
        mean += (gradient - mean) * (1.0 - beta1)
        square *= beta2
        square += (1.0 - beta2) * gradient * gradient
        root = np.sqrt(square)
        root /= (1.0 - beta2**t) ** 0.5
        root += self._eps
        weights -= rate / (1.0 - beta1**t) * mean / root


def cosine_rate(rate: float, step: int, steps: int, final_rate: float = 0.0) -> float:
    """Return the rate of step `step` (from 0) on half a cosine from `rate` down to `final_rate` at `steps`.

    Args:
        rate: learning rate of step 0.
        step: 0 <= step <= steps.
        steps: steps in all, at least 1.
        final_rate: learning rate that would be reached at step `steps`.

    Raises:
        ValueError: if `step` is outside 0..steps or `steps` < 1.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.

    >>> [round(cosine_rate(0.1, step, 4), 4) for step in range(5)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    if not 0 <= step <= steps:
        raise ValueError(f"step must be between 0 and steps = {steps}, got {step}")
    return final_rate + (rate - final_rate) * (1.0 + cos(pi * step / steps)) / 2.0


def step_rate(rate: float, step: int, every: int, factor: float = 0.1) -> float:
    """Return the rate of step `step` (from 0) when it is multiplied by `factor` after each `every` steps.

    Args:
        rate: learning rate of step 0.
        step: at least 0.
        every: steps that share one rate, at least 1.
        factor: usually in (0, 1).

    Raises:
        ValueError: if `step` < 0 or `every` < 1.

    >>> [round(step_rate(0.1, step, every=2, factor=0.5), 4) for step in range(5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]
    """
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step}")
    if every < 1:
        raise ValueError(f"every must be >= 1, got {every}")
    return float(rate * factor ** (step // every))
