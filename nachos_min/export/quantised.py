"""A trained network in integers: int8 weights and maps, int32 sums, thresholds of its own.

Every channel of a map, and every output channel of a weight, has a scale: a value is the integer times the scale.
Zero is 0, so padding needs no care. The scale of an input channel is part of the weights that read it. After a sum,

    q = clip((sum * factor + 2^(shift - 1)) >> shift, least, 127)

where factor / 2^shift is the ratio of scales. Here this is computed exactly as the exported C does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data import Images, Split
from nachos_min.eenn.inference import ExitAnswers
from nachos_min.eenn.threshold_search import RESOLUTION, levels
from nachos_min.eenn.thresholds import ALWAYS, ExitTables, Figures
from nachos_min.eenn.trained import Trained
from nachos_min.export.folded import Layer, folded, outputs_of
from nachos_min.macs import ops
from nachos_min.macs.record import Operator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST = 127  # of an int8 value; -128 is not used, so that each value has its negative
BITS = 14  # behind the point of what h-swish reads
WIDEST = 1 << 24  # of it: 1024
MOST_BIAS = 2**24  # steps of a bias: a channel whose weights are all tiny still has its bias to 24 bits
MOST_SUM = 2**30  # roundings of weights can double a sum, which must be less than 2^31
IMAGES = 1024  # training images that show how large values become
_GROUP = 64  # images that are computed together


@dataclass(frozen=True, eq=False)
class IntLayer:
    """One step of inference in integers."""

    layer: Layer  # the same in float
    scale: Floats  # float64 (C,), of its int8 values; of the int32 sums if these are the outputs of a head
    weight: NDArray[np.int8] | None = None  # int8 of the shape of the layer's, or None
    bias: NDArray[np.int32] | None = None  # int32 (C,), or None
    # (C,) each. One: what the sum is multiplied by. Two: of both terms of a sum, or before and after h-swish.
    # Without: values keep their scale, or are outputs of a head.
    factors: tuple[NDArray[np.int32], ...] = ()
    shifts: tuple[int, ...] = ()  # of the sum, and after h-swish

    @property
    def least(self) -> int:
        """Smallest of its int8 values."""
        return 0 if self.layer.activation in ("relu", "hsigmoid") else -MOST


@dataclass(frozen=True, eq=False)
class Quantised:
    """A network in integers."""

    trained: Trained  # the network in float, under the thresholds that are used
    steps: NDArray[np.float32]  # float32 (C,), what a scaled image is multiplied by and then rounded
    layers: tuple[IntLayer, ...]  # as `folded` has them

    def answers(self, images: Images) -> ExitAnswers:
        """Return what all exits say about scaled `images`, of the size that the network takes."""
        outputs = outputs_of([each.layer for each in self.layers])
        starts = range(0, max(len(images), 1), _GROUP)
        parts = [self._outputs(images[begin : begin + _GROUP], outputs) for begin in starts]
        classes = self.trained.architecture.classes
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        with np.errstate(over="ignore"):
            h = [1 / (1 + np.exp(-each[:, classes].astype(np.float64))) for each in found[:-1]]
        stacked = np.stack(h, axis=1) if h else np.zeros((len(images), 0))
        return ExitAnswers(stacked.astype(np.float32), np.stack([each[:, :classes] for each in found], axis=1))

    def figures(self, split: Split, *, balanced: bool = False) -> Figures:
        """Return what the network does on a `split`; `balanced`: with the figures of each class."""
        costs = self.trained.costs.exit_costs
        tables = self._tables(split).policy_tables(split.labels, costs, balanced=balanced)
        return tables.figures(self.trained.thresholds)

    def leaving(self, split: Split, counts: Sequence[int]) -> "Quantised":
        """Return the network under thresholds at which nearly `counts` images of a `split` leave at each exit.

        As everywhere, a threshold stands in the middle of a gap that is wider than RESOLUTION.
        """
        confidence, thresholds = self._tables(split).confidence, list[float]()
        for index, wanted in enumerate(counts[:-1]):
            here = confidence[:, index]
            tried = levels(here, RESOLUTION)
            leaving = np.count_nonzero(here[:, None] >= tried, axis=0)
            thresholds.append(float(tried[np.abs(leaving - wanted).argmin()]))
            confidence = confidence[here < thresholds[-1]]
        return replace(self, trained=replace(self.trained, thresholds=(*thresholds, ALWAYS)))

    def _tables(self, split: Split) -> ExitTables:
        images = split.images.at(self.trained.architecture.input_shape[:2])
        return self.answers(images).tables(self.trained.confidence)

    def _outputs(self, images: NDArray[np.floating[Any]], outputs: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return what the heads' last layers give, float32 (n, C) or (n, C + 1) each."""
        made = {-1: np.rint(np.clip(images * self.steps, -MOST, MOST)).astype(np.int64)}
        logits = []
        for index, each in enumerate(self.layers):
            reads = [made[i] for i in each.layer.inputs]
            if index in outputs:
                logits.append(_sum(each, reads).astype(np.float32) * each.scale.astype(np.float32))
            else:
                made[index] = _values(each, reads)
        return logits


def quantised(trained: Trained, train: Images) -> Quantised:
    """Return a network in integers, still under the thresholds of the one in float.

    `train` are scaled images, at least one, of the size of the data; they show how large values become.
    """
    layers = folded(trained)
    rows = np.unique(np.linspace(0, len(train) - 1, IMAGES).round().astype(np.int64))
    scales = [each / MOST for each in largest_values(layers, train.at(trained.architecture.input_shape[:2])[rows])]
    return Quantised(trained, (1 / scales[-1]).astype(np.float32), _in_integers(layers, scales))


def largest_values(layers: Sequence[Layer], images: NDArray[np.floating[Any]]) -> list[Floats]:
    """Return the largest absolute value of each channel of each layer's output, at the end those of the `images`.

    Where all are 0 it is 1.
    """
    found = [np.zeros(layer.op.output[-1]) for layer in layers] + [np.zeros(images.shape[-1])]
    for begin in range(0, len(images), _GROUP):
        made = {-1: images[begin : begin + _GROUP].astype(np.float64)}
        for index, layer in enumerate(layers):
            weight = None if layer.weight is None else layer.weight.astype(np.float64)
            total = _applied(layer.op, weight, [made[i] for i in layer.inputs])
            if isinstance(layer.op, ops.GlobalAvgPool):
                total = total / (layer.op.input[0] * layer.op.input[1])
            made[index] = _activated(total if layer.bias is None else total + layer.bias, layer.activation)
        for index, values in made.items():
            found[index] = np.maximum(found[index], np.abs(values).reshape(-1, values.shape[-1]).max(axis=0))
    return [np.where(each == 0, 1.0, each) for each in found]


def _in_integers(layers: Sequence[Layer], scales: list[Floats]) -> tuple[IntLayer, ...]:
    """Return the layers in integers; `scales` are wished for their outputs, and become those that they have."""
    made, outputs = list[IntLayer](), outputs_of(layers)
    for index, layer in enumerate(layers):
        reads, own = [scales[i] for i in layer.inputs], scales[index]
        match layer.op:
            case ops.MaxPool() | ops.Activation(kind="relu"):
                own = reads[0]
                each = IntLayer(layer, own)
            case ops.Flatten():
                own = np.tile(reads[0], layer.op.output[-1] // len(reads[0]))
                each = IntLayer(layer, own)
            case ops.Add():
                each = IntLayer(layer, own, None, None, *_fixed(reads[0] / own, reads[1] / own))
            case ops.Multiply():
                each = IntLayer(layer, own, None, None, *_fixed(reads[0] * reads[1] / own))
            case ops.GlobalAvgPool():
                each = IntLayer(layer, own, None, None, *_fixed(reads[0] / own / np.prod(layer.op.input[:2])))
            case ops.Conv2d() | ops.Linear():
                weight, bias, step = _weights(layer, reads[0])
                if index in outputs:
                    each = IntLayer(layer, step, weight, bias)
                elif layer.activation == "hswish":
                    (before, shift), (after, last) = _fixed(step * 2**BITS), _fixed(1 / (6 * 2**BITS * own))
                    each = IntLayer(layer, own, weight, bias, before + after, shift + last)
                else:
                    each = IntLayer(layer, own, weight, bias, *_fixed(step / own))
            case _:
                raise TypeError(f"no integers are known for {layer.op}")
        made.append(each)
        scales[index] = own
    return tuple(made)


def _weights(layer: Layer, reads: Floats) -> tuple[NDArray[np.int8], NDArray[np.int32], Floats]:
    """Return weight and bias in integers, and the scale of each output channel's sum; `reads` is that of the input.

    H-sigmoid is clip((x + 3) / 6, 0, 1): its straight part is in weight and bias.
    """
    assert layer.weight is not None, "a convolution or linear layer has weights"
    depthwise = isinstance(layer.op, ops.Conv2d) and layer.op.groups > 1
    weight = layer.weight * (reads if depthwise else reads[:, None])
    bias = np.zeros(weight.shape[-1]) if layer.bias is None else layer.bias.astype(np.float64)
    if layer.activation == "hsigmoid":
        weight, bias = weight / 6, (bias + 3) / 6
    size = np.abs(weight).reshape(-1, weight.shape[-1])
    step = np.max([size.max(axis=0) / MOST, np.abs(bias) / MOST_BIAS, size.sum(axis=0) * MOST / MOST_SUM], axis=0)
    step[step == 0] = 1.0
    return np.rint(weight / step).astype(np.int8), np.rint(bias / step).astype(np.int32), step


def _fixed(*ratios: Floats) -> tuple[tuple[NDArray[np.int32], ...], tuple[int]]:
    """Return integers and one shift: an integer / 2^shift is nearly its ratio, and the largest has 30 bits."""
    shift = min(62, max(1, 30 - int(np.frexp(np.max(ratios))[1])))
    return tuple(np.rint(np.minimum(each * 2.0**shift, 2**30)).astype(np.int32) for each in ratios), (shift,)


def _applied(op: Operator, weight: Floats | None, reads: Sequence[Floats]) -> Any:
    """Return an operator without bias and activation, (n, ...); of a mean the sum.

    In float64, in which also integers below 2^53 are exact.
    """
    x = reads[0]
    match op:
        case ops.Conv2d():
            return None if weight is None else _convolved(op, weight, x)
        case ops.Linear():
            return None if weight is None else x @ weight
        case ops.MaxPool():
            (rows, columns, channels), (height, width) = op.output, op.size
            x = x[:, : rows * height, : columns * width]
            return x.reshape(len(x), rows, height, columns, width, channels).max(axis=(2, 4))
        case ops.GlobalAvgPool():
            return x.sum(axis=(1, 2))
        case ops.Flatten():
            return x.reshape(len(x), -1)
        case ops.Add():
            return x + reads[1]
        case ops.Multiply():
            return x * reads[1][:, None, None]
    return np.maximum(x, 0)  # ReLU


def _convolved(op: ops.Conv2d, weight: Floats, x: Floats) -> Floats:
    """Return a convolution, dense or depthwise, as the sum over its taps."""
    top, bottom, left, right = op.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    (rows, columns, channels), (down, across) = op.output, op.stride
    total = np.zeros((len(x), rows, columns, channels))
    for ky, kx in np.ndindex(op.kernel):
        cells = x[:, ky : ky + down * (rows - 1) + 1 : down, kx : kx + across * (columns - 1) + 1 : across]
        total += cells * weight[ky, kx, 0] if op.groups > 1 else cells @ weight[ky, kx]
    return total


def _activated(x: Floats, kind: str | None) -> Floats:
    gate = np.clip(x + 3, 0, 6) / 6
    return {None: x, "relu": np.maximum(x, 0), "hswish": x * gate, "hsigmoid": gate}[kind]


def _sum(each: IntLayer, reads: Sequence[Integers]) -> Integers:
    """Return what a layer adds up, before factors and activation."""
    weight = None if each.weight is None else each.weight.astype(np.float64)
    total: Integers = _applied(each.layer.op, weight, [x.astype(np.float64) for x in reads]).astype(np.int64)
    return total if each.bias is None else total + each.bias


def _values(each: IntLayer, reads: Sequence[Integers]) -> Integers:
    """Return the int8 values of a layer, kept as int64."""
    if not each.factors:
        return _sum(each, reads)
    if isinstance(each.layer.op, ops.Add):
        total = reads[0] * each.factors[0] + reads[1] * each.factors[1]
    else:
        total = _sum(each, reads) * each.factors[0]
    if each.layer.activation == "hswish":
        x = _rounded(total, each.shifts[0], -WIDEST, WIDEST)
        total = (x * np.clip(x + (3 << BITS), 0, 6 << BITS) >> BITS) * each.factors[1]
    return _rounded(total, each.shifts[-1], each.least, MOST)


def _rounded(total: Integers, shift: int, least: int, most: int) -> Integers:
    """Return total / 2^shift, rounded half up and clipped."""
    found: Integers = np.clip(total + (1 << (shift - 1)) >> shift, least, most)
    return found
