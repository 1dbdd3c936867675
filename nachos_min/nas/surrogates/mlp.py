"""A multi-layer perceptron on this project's own engine, the networks of all folds trained side by side.

    s(x) = w2 . hswish(W1 x + b1) + b2

Cross-validation fits the same small network ten times, each time without a tenth of the points, and once to all.
The weights have a leading axis of fits, so that one batched product serves all:

    (n, genes) @ (fits, genes, hidden) -> (fits, n, hidden)

Each network weighs the points in its own way: 0 hides a point. The losses are summed. No parameter of one network
is in another's loss, and Adam treats every number by itself, so each learns what it would alone. Left out:
mini-batches, early stopping (there are a few hundred points at most).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor, hswish, matmul, no_grad
from nachos_min.nas.surrogates.surrogate import Bools, Floats, Surrogate
from nachos_min.nn.optim import Adam

FIRST_WEIGHTS = 0.5  # standard deviation, times 1/sqrt(inputs): starting flat, the network stays smooth

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class MLPModel:
    """A fitted network, with a leading axis of 1; `mean` and `deviation` undo the standardisation of y."""

    weights: dict[str, Floats32]
    mean: float
    deviation: float

    def predict(self, X: Floats) -> Floats:
        """Return s(x), (m,), at X (m, genes)."""
        with no_grad():
            output = _network(_inputs(X), {name: Tensor(data) for name, data in self.weights.items()})
        return self.mean + self.deviation * output.data[0, :, 0].astype(np.float64)


@dataclass(frozen=True)
class MLP(Surrogate):
    """The recipe: width of the hidden layer, steps of Adam on all points, learning rate."""

    name: ClassVar[str] = "mlp"
    hidden: int = 64
    steps: int = 100  # more gain nothing from 40 points on
    rate: float = 0.01

    def fit_each(self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator) -> list[MLPModel]:
        """Return one network per row of `subsets`, all from the same first weights, which `rng` draws."""
        share = subsets / subsets.sum(axis=1, keepdims=True)  # (fits, n): what a point weighs in its network
        mean = share @ y
        deviation = np.sqrt((share * (y - mean[:, None]) ** 2).sum(axis=1))
        deviation[deviation <= 1e-12 * np.abs(mean)] = 0.0  # equal values, and rounding: predict their mean
        unit = np.where(deviation > 0, deviation, 1.0)
        target = ((y - mean[:, None]) / unit[:, None]).astype(np.float32)[:, :, None]
        weight = share.astype(np.float32)[:, :, None]

        inputs = _inputs(X)
        shapes = {"W1": (X.shape[1], self.hidden), "b1": (1, self.hidden), "W2": (self.hidden, 1), "b2": (1, 1)}
        parameters = {}
        for name, shape in shapes.items():
            one = rng.normal(0, FIRST_WEIGHTS / np.sqrt(shape[0]), shape) if name[0] == "W" else np.zeros(shape)
            parameters[name] = Tensor(np.array([one] * len(subsets), np.float32), requires_grad=True)
        adam = Adam(parameters)
        for _ in range(self.steps):
            miss = _network(inputs, parameters) - target
            (miss * miss * weight).sum().backward()
            adam.step(self.rate)
        fitted = zip(mean.tolist(), deviation.tolist(), strict=True)
        return [
            MLPModel({name: p.data[[fit]] for name, p in parameters.items()}, *pair)
            for fit, pair in enumerate(fitted)
        ]


def _network(inputs: Floats32, weights: dict[str, Tensor]) -> Tensor:
    """Return (fits, n, 1): every network's output for every point."""
    hidden = hswish(matmul(inputs, weights["W1"]) + weights["b1"])
    return matmul(hidden, weights["W2"]) + weights["b2"]


def _inputs(X: Floats) -> Floats32:
    """Return the genes moved from [0, 1] to [-1, 1], as float32."""
    return (2 * X - 1).astype(np.float32)
