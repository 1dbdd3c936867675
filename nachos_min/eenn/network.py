"""The modules of an Architecture: E segments of backbone, each followed by a head."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor, global_avg_pool, hswish, max_pool, relu, sigmoid
from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, Map, window
from nachos_min.nn.blocks import ConvBatchNorm, MBConv
from nachos_min.nn.layers import Conv2d, Linear
from nachos_min.nn.module import Module


@dataclass(frozen=True)
class ExitOutput:
    """What one exit says: `logits` (N, C), `confidence` (N,) in (0, 1); None at the final exit means 1."""

    logits: Tensor
    confidence: Tensor | None


@final
class Segment(Module):
    """Blocks of the backbone between two exits, one after the other."""

    def __init__(self, blocks: list[Module]) -> None:
        self.blocks = blocks

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map that feeds the next exit, (N, H, W, C)."""
        for block in self.blocks:
            x = block(x)
        return x


@final
class ExitClassifier(Module):
    """Max-pool, ReLU, 3x3 convolutions with bias and ReLU, flatten, linear to C logits and one confidence."""

    def __init__(
        self, feature_map: Map, head: ExitHead, classes: int, flat: bool, rng: np.random.Generator
    ) -> None:
        """Draw the weights of a head that reads a `feature_map` of shape (H, W, C); there are C + 1 outputs."""
        height, width, channels = feature_map
        self.convolutions: list[Module] = []
        for out in head.widths:
            self.convolutions.append(Conv2d(channels, out, window(3, flat), rng, bias=True, activation="relu"))
            channels = out
        self.pool, self.classes = window(head.pool, flat), classes
        features = (height // self.pool[0]) * (width // self.pool[1]) * channels
        self.linear = Linear(features, classes + 1, rng)

    def __call__(self, x: Tensor) -> ExitOutput:
        """Return the exit's logits and confidence for the map `x` (N, H, W, C)."""
        if self.pool != (1, 1):
            x = max_pool(x, size=self.pool, stride=self.pool)
        x = relu(x)
        for convolution in self.convolutions:
            x = convolution(x)
        outputs = self.linear(x.reshape((x.shape[0], -1)))
        return ExitOutput(outputs[:, : self.classes], sigmoid(outputs[:, self.classes]))


@final
class FinalClassifier(Module):
    """1x1 expand with batch norm, mean over the map, 1x1 mix, linear to C logits."""

    def __init__(self, channels: int, head: FinalHead, classes: int, rng: np.random.Generator) -> None:
        """Draw the weights of a head that reads a map of `channels`."""
        self.expand = (
            ConvBatchNorm(channels, head.expand, 1, rng, activation=head.activation) if head.expand else None
        )
        channels = head.expand or channels
        self.mix = Linear(channels, head.mix, rng, bias=False) if head.mix else None
        self.linear = Linear(head.mix or channels, classes, rng)
        self.activation = {"relu": relu, "hswish": hswish}[head.activation]

    def __call__(self, x: Tensor) -> ExitOutput:
        """Return the logits for the last map `x` (N, H, W, C); the confidence is the constant 1."""
        if self.expand is not None:
            x = self.expand(x)
        x = global_avg_pool(x)
        if self.mix is not None:
            x = self.activation(self.mix(x))
        return ExitOutput(self.linear(x), None)


@final
class EarlyExitNetwork(Module):
    """A backbone in E segments and the E exits that follow them."""

    def __init__(
        self, architecture: Architecture, backbone_rng: np.random.Generator, exits_rng: np.random.Generator
    ) -> None:
        """Draw the weights of `architecture`.

        `backbone_rng` draws those of stem, stages and final classifier, in this order, so that they do not depend
        on where the exits are; `exits_rng` those of the early exits, first to last.
        """
        self.architecture = architecture
        stem, channels, flat = architecture.stem, architecture.input_shape[2], architecture.flat
        kernel, stride = window(stem.kernel, flat), stem.stride
        convolution = ConvBatchNorm(
            channels, stem.channels, kernel, backbone_rng, stride=stride, activation=stem.activation
        )
        # A stride needs no window: along a side of one pixel there is no step.
        self.segments = [
            Segment([MBConv(rng=backbone_rng, **vars(b) | {"kernel": window(b.kernel, flat)}) for b in blocks])
            for blocks in architecture.segments()
        ]
        self.segments[0].blocks.insert(0, convolution)
        width, classes = architecture.stages[-1][-1].out_channels, architecture.classes
        final_classifier = FinalClassifier(width, architecture.final, classes, backbone_rng)
        self.heads: list[ExitClassifier | FinalClassifier] = [
            ExitClassifier(feature_map, early.head, classes, flat, exits_rng)
            for early, feature_map in zip(architecture.exits, architecture.exit_maps(), strict=False)
        ]
        self.heads.append(final_classifier)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the E maps that feed the exits, for images `x` (N, H, W, C)."""
        found = []
        for segment in self.segments:
            x = segment(x)
            found.append(x)
        return found

    def outputs(self, maps: list[Tensor]) -> list[ExitOutput]:
        """Return what the E exits say about their `maps`."""
        return [head(x) for head, x in zip(self.heads, maps, strict=True)]

    def __call__(self, x: Tensor) -> list[ExitOutput]:
        """Return what all E exits say about images `x` (N, H, W, C)."""
        return self.outputs(self.maps(x))

    def head_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of all E heads."""
        return {name: tensor for name, tensor in self.named_parameters().items() if name.startswith("heads.")}

    def backbone_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of stem, stages and final classifier."""
        parts = ("segments.", f"heads.{len(self.heads) - 1}.")
        return {name: tensor for name, tensor in self.named_parameters().items() if name.startswith(parts)}

    def backbone_state(self) -> NDArray[np.floating[Any]]:
        """Return a copy of parameters and buffers of stem, stages and final classifier, as one long vector.

        In order of execution, whatever the exits are: networks that differ in their exits alone can exchange it.
        """
        return np.concatenate([array.ravel() for array in self._backbone_arrays()])

    def load_backbone_state(self, state: NDArray[np.floating[Any]]) -> None:
        """Copy what `backbone_state` returned into this network; ValueError if its length is another."""
        arrays = self._backbone_arrays()
        ends = list(accumulate(array.size for array in arrays))
        if state.shape != (ends[-1],):
            raise ValueError(f"a backbone's state must have shape ({ends[-1]},), got {state.shape}")
        for array, part in zip(arrays, np.split(state, ends[:-1]), strict=True):
            array[...] = part.reshape(array.shape)

    def _backbone_arrays(self) -> list[NDArray[np.floating[Any]]]:
        arrays: list[NDArray[np.floating[Any]]] = []
        for module in (*(block for segment in self.segments for block in segment.blocks), self.heads[-1]):
            arrays += [tensor.data for tensor in module.named_parameters().values()]
            arrays += module.named_buffers().values()
        return arrays
