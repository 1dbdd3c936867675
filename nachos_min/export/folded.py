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
from nachos_min.eenn.trained import Trained
from nachos_min.macs import ops
from nachos_min.macs.record import Operator
from nachos_min.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, Linear
from nachos_min.nn.module import Module

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
    parts = zip(trained.network.segments, trained.network.heads, strict=True)
    weights = (each for part in parts for module in part for each in _weighted(module))
    layers, place = list[Layer](), {-1: -1}
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


def _weighted(module: Module) -> Iterator[Any]:
    """Yield what has weights in a module. Modules assign their parts in the order in which these run."""
    if isinstance(module, Conv2d | DepthwiseConv2d | Linear | BatchNorm):
        yield module
    for _, child in module.children():
        yield from _weighted(child)


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
