"""A trained network without the search: what is needed to use it on images as the user has them.

It scales images as the training images were scaled, and answers with early stopping.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nachos_min.data.dataset import Images, Scaling
from nachos_min.eenn.architecture import Architecture, Map
from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.network import EarlyExitNetwork

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the images of a data set are before they are scaled.

    Attributes:
        shape: (H, W, C) of one image; a signal has height 1.
        dtype: "uint8" or "float32", what the values were kept as.
        least, most: of the values of the training images.
        scaling: of the training images.
        layout: of the user's arrays, as the option `layout`; None: channels last.
        class_names: of each class.
    """

    shape: Map
    dtype: str
    least: float
    most: float
    scaling: Scaling
    layout: str | None
    class_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network under one choice of thresholds.

    Attributes:
        name: what messages and files call it, such as "digits#0".
        architecture: of C classes and E exits; its input may be smaller than the images.
        weights: parameters and buffers by name, as `EarlyExitNetwork.state` gives them.
        confidence: what the thresholds are compared with.
        thresholds: E of them; the last is 0.
        seen: what its images are.
    """

    name: str
    architecture: Architecture = field(repr=False)
    weights: Mapping[str, Array] = field(repr=False)
    confidence: Confidence
    thresholds: tuple[float, ...]
    seen: Seen

    @cached_property
    def network(self) -> EarlyExitNetwork:
        """The network with its weights, in inference mode."""
        rng = np.random.default_rng(0)  # its weights are replaced
        network = EarlyExitNetwork(self.architecture, rng, rng)
        network.load_state(self.weights)
        network.train(False)
        return network

    @property
    def costs(self) -> StaticCosts:
        """What leaving at each exit costs."""
        return static_costs(self.architecture)

    def scaled(self, images: Array) -> Images:
        """Return unscaled images [N, H, W, C], uint8 or float32 of the shape `seen`, as the network takes them."""
        height, width, _ = self.architecture.input_shape
        return Images(images, scaling=self.seen.scaling).at((height, width))
