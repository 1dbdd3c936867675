"""A trained network as a short list of layers for other programs: batch norm folded, activations fused.

Layers stand in the order of execution: backbone up to exit 1, head 1, backbone on to exit 2, and so on. What the
policy does with the outputs of heads is not in the list: an early head's last layer gives C logits and one number,
whose sigmoid is the learned confidence; the final head's gives C logits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.lowering import lower
from nachos_min.eenn.network import EarlyExitNetwork, ExitClassifier, FinalClassifier
from nachos_min.eenn.trained import Trained
from nachos_min.macs import ops
from nachos_min.macs.record import Operator
from nachos_min.nn.blocks import ConvBatchNorm, MBConv
from nachos_min.nn.layers import BatchNorm, DepthwiseConv2d

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layer:
    """One step of inference on one sample, channels last."""

    name: str  # as `macs --layers` names it
    op: Operator  # Conv2d, Linear, MaxPool, GlobalAvgPool, Add, Multiply, Flatten or Activation, with all shapes
    inputs: tuple[int, ...]  # indices of the layers whose outputs it reads; -1 is the scaled image
    exit: int  # 0 for the backbone, i (from 1) for the head of exit i
    weight: Floats | None = None  # (KH, KW, C_in/G, C_out), or (in, out) of a linear layer
    bias: Floats | None = None  # (C_out,) or (out,), or None
    activation: str | None = None  # what follows at once: relu, hswish or hsigmoid, or None


def folded(trained: Trained) -> tuple[Layer, ...]:
    """Return the layers of a trained network; their MACs are those of its architecture.

    The last layer of each head gives its outputs: `outputs_of` finds it.
    """
    nodes = lower(trained.architecture)
    uses = [sum(index in node.inputs for node in nodes) for index in range(len(nodes))]
    weights, layers, place = _weights(trained.network), list[Layer](), {-1: -1}
    for index, node in enumerate(nodes):
        before = place[node.inputs[0]]
        match node.op:
            case ops.Slice():  # the confidence of a head: left to the policy
                place[index] = -2
            case ops.BatchNorm():
                layers[before] = _with_norm(layers[before], next(weights))
                place[index] = before
            case ops.Activation() if before == -2:
                pass
            case ops.Activation() if (
                before >= 0
                and layers[before].activation is None
                and (uses[node.inputs[0]] == 1 and layers[before].weight is not None)
            ):
                layers[before] = replace(layers[before], activation=node.op.kind)
                place[index] = before
            case _:
                inputs = tuple(place[each] for each in node.inputs)
                layer = Layer(node.name, node.op, inputs, node.exit)
                if isinstance(node.op, ops.Conv2d | ops.Linear):
                    layer = _with_weights(layer, next(weights))
                place[index] = len(layers)
                layers.append(layer)
    return tuple(layers)


def outputs_of(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Return the index of the last layer of each of the E heads."""
    exits = max(layer.exit for layer in layers)
    return tuple(max(i for i, layer in enumerate(layers) if layer.exit == e) for e in range(1, exits + 1))


def _weights(network: EarlyExitNetwork) -> Iterator[Any]:
    """Yield what has weights, in the order of execution."""
    for segment, head in zip(network.segments, network.heads, strict=True):
        for block in segment.blocks:
            yield from _parts(block)
        yield from _parts(head)


def _parts(module: Any) -> Iterator[Any]:
    match module:
        case ConvBatchNorm():
            yield from (module.convolution, module.norm)
        case MBConv():
            if module.expand is not None:
                yield from _parts(module.expand)
            yield from (module.depthwise, module.norm)
            if module.excite is not None:
                yield from (module.excite.reduce, module.excite.expand)
            yield from _parts(module.project)
        case ExitClassifier():
            yield from (*module.convolutions, module.linear)
        case FinalClassifier():
            if module.expand is not None:
                yield from _parts(module.expand)
            if module.mix is not None:
                yield module.mix
            yield module.linear


def _with_weights(layer: Layer, module: Any) -> Layer:
    """Return a convolution or linear layer with the weights of its module."""
    weight = module.weight.data
    if isinstance(module, DepthwiseConv2d):
        weight = weight[:, :, None, :]
    bias = getattr(module, "bias", None)
    return replace(layer, weight=weight, bias=None if bias is None else bias.data)


def _with_norm(layer: Layer, norm: BatchNorm) -> Layer:
    """Return a convolution without bias and the batch norm behind it as one with a bias; folded in float64."""
    assert layer.weight is not None, "batch norm follows a convolution"
    scale = norm.gamma.data / np.sqrt(norm.running_variance.astype(np.float64) + norm.eps)
    bias = norm.beta.data - norm.running_mean * scale
    return replace(layer, weight=(layer.weight * scale).astype(np.float32), bias=bias.astype(np.float32))
