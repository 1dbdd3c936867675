"""A trained network without the search: what is needed to use it on images as the user has them.

It scales images as the training images were scaled, and answers with early stopping.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import Images
from nachos_min.data.seen import Seen
from nachos_min.eenn.architecture import Architecture
from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.inference import predict
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.errors import InputError, cut, some

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network answers to N images under its exit policy.

    Attributes:
        labels: [N], answers as the data had them: names of classes if they had names, else their labels.
        exits: int64 [N], index of the exit that answered, from 0; `Network.exits` has its stage.
        confidence: float64 [N], cumulative confidence at that exit; that of the final exit is 1.
        macs: int64 [N], multiply-accumulates that the answer took.
        probabilities: float64 [N, C], softmax of that exit's scores, at its temperature if it has one.
        classes: int64 [N], numbers of the answered classes, columns of `probabilities`.
    """

    labels: Array
    exits: NDArray[np.int64]
    confidence: NDArray[np.float64]
    macs: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        first = cut(", ".join(map(str, self.labels[:5].tolist()))) + (", ..." if len(self) > 5 else "")
        average = f": {first}, {self.macs.mean():,.0f} MACs on average" if len(self) else ""
        return f"Prediction of {some(len(self), 'image')}{average}"


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network under one choice of thresholds."""

    name: str  # what messages and files call it, such as "digits#0"
    architecture: Architecture = field(repr=False)  # of C classes; its input may be smaller than the images
    weights: Mapping[str, Array] = field(repr=False)  # parameters and buffers, as `EarlyExitNetwork.state`
    confidence: Confidence  # what the thresholds are compared with
    thresholds: tuple[float, ...]  # E of them; the last is 0
    seen: Seen  # what its images are

    @cached_property
    def network(self) -> EarlyExitNetwork:
        """The network with its weights, in inference mode."""
        rng, weights = np.random.default_rng(0), dict(self.weights)  # read here, perhaps
        if (there := sum(array.size for array in weights.values())) < self.costs.params:  # before it takes memory
            raise InputError(f"{self.name}: weights must be {self.costs.params:,} numbers or more, got {there:,}")
        network = EarlyExitNetwork(self.architecture, rng, rng)  # its weights are replaced
        try:
            network.load_state(weights)
        except ValueError as error:
            raise InputError(f"{self.name}: weights must be those of its network, got {error}") from None
        network.train(False)
        return network

    @property
    def costs(self) -> StaticCosts:
        """What leaving at each exit costs."""
        return static_costs(self.architecture)

    def predict(self, images: Any) -> Prediction:
        """Return the answers to images as the user has them; arguments and errors as of `Seen.images`."""
        return self.answers(self.seen.images(images))

    def answers(self, images: Array) -> Prediction:
        """Return the answers to unscaled images [N, H, W, C], as `scaled` takes them, with early stopping."""
        found = predict(self.network, self.scaled(images), self.thresholds, self.confidence)
        temperatures = np.array([*(self.confidence.temperatures or [1.0] * (len(self.thresholds) - 1)), 1.0])
        scores = found.logits.astype(np.float64) / temperatures[found.exits, None]
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        return Prediction(
            self.seen.labels(found.labels),
            found.exits,
            found.confidence,
            np.array(self.costs.exit_costs, np.int64)[found.exits],
            likely / likely.sum(axis=1, keepdims=True),
            found.labels,
        )

    def scaled(self, images: Array) -> Images:
        """Return unscaled images [N, H, W, C], uint8 or float32 of the shape `seen`, as the network takes them."""
        return Images(images, scaling=self.seen.scaling).at(self.architecture.input_shape[:2])
