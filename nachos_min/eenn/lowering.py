"""An Architecture as operator records, its exact costs, and early exits that keep their order.

Records are in the order of execution: backbone up to exit 1, head 1, backbone on to exit 2, and so on. Each also
says how the released PyTorch code (Once-for-All, EarlyExits) writes the layer: other tools' counts depend on that.
Each different part is lowered and counted once; costs are sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from nachos_min.eenn.architecture import (
    Architecture,
    Exit,
    ExitHead,
    FinalHead,
    Map,
    MBConvSpec,
    Stem,
    least_side,
    window,
)
from nachos_min.macs import ops
from nachos_min.macs.count import count, peak_activation_bytes
from nachos_min.macs.ops import Graph, Node, Written
from nachos_min.macs.record import Operator

Part = Stem | MBConvSpec | ExitHead | FinalHead


def _module(function: str, name: str) -> Written:
    return Written(function, module=name, layer=name)


_CONVOLUTION = _module("F.conv2d", "Conv2d")
_WRITTEN: dict[type[Operator] | str, Written] = {
    ops.Conv2d: _CONVOLUTION,
    ops.Linear: _module("F.linear", "Linear"),
    ops.BatchNorm: _module("F.batch_norm", "BatchNorm2d"),
    ops.MaxPool: _module("F.max_pool2d", "MaxPool2d"),
    ops.GlobalAvgPool: Written("mean(3).mean(2)"),
    ops.Add: Written("x + y"),
    ops.Multiply: Written("x * y"),
    ops.Flatten: Written("Tensor.flatten"),
    ops.Slice: Written("Tensor.__getitem__"),
    "relu": _module("F.relu", "ReLU"),
    "sigmoid": _module("torch.sigmoid", "Sigmoid"),
    # Once-for-All has h-swish and h-sigmoid as modules of its own, spelt out in terms of relu6.
    "hswish": Written("x * relu6(x + 3) / 6", module="ofa.Hswish"),
    "hsigmoid": Written("relu6(x + 3) / 6", module="ofa.Hsigmoid"),
}


class _Builder:
    """Appends nodes and returns their indices; index -1 is the input."""

    def __init__(self, input_shape: Map, flat: bool) -> None:
        self.input_shape, self.flat, self.nodes, self.exit = input_shape, flat, list[Node](), 0

    def shape(self, index: int) -> Any:
        return self.input_shape if index < 0 else self.nodes[index].op.output

    def add(self, name: str, op: Operator, *inputs: int, written: Written | None = None) -> int:
        written = written or _WRITTEN[op.kind if isinstance(op, ops.Activation) else type(op)]
        self.nodes.append(Node(name, op, inputs, self.exit, written=written))
        return len(self.nodes) - 1

    def convolution(
        self, name: str, x: int, channels: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> int:
        size, strides = window(kernel, self.flat), window(stride, self.flat)
        padding = (size[0] // 2, size[0] // 2, size[1] // 2, size[1] // 2)
        return self.add(name, ops.Conv2d(self.shape(x), channels, size, strides, padding, (1, 1), groups, bias), x)

    def activation(self, name: str, x: int, kind: str) -> int:
        return self.add(name, ops.Activation(self.shape(x), kind), x)

    def norm(self, name: str, x: int, kind: str | None = None) -> int:
        y = self.add(f"{name}.norm", ops.BatchNorm(self.shape(x)), x)
        return y if kind is None else self.activation(f"{name}.{kind}", y, kind)

    def linear(self, name: str, x: int, outputs: int, written: Written | None = None, *, bias: bool = True) -> int:
        return self.add(name, ops.Linear(self.shape(x), outputs, bias=bias), x, written=written)


def _stem(b: _Builder, stem: Stem) -> int:
    return b.norm("stem", b.convolution("stem", -1, stem.channels, stem.kernel, stem.stride), stem.activation)


def _mbconv(b: _Builder, name: str, x: int, block: MBConvSpec) -> int:
    y = x
    if block.expand:
        y = b.convolution(f"{name}.expand", y, block.middle, 1)
        y = b.norm(f"{name}.expand", y, block.activation)
    y = b.convolution(f"{name}.depthwise", y, block.middle, block.kernel, block.stride, groups=block.middle)
    y = b.norm(f"{name}.depthwise", y, block.activation)
    if block.squeezed:
        gate = b.add(f"{name}.excite.mean", ops.GlobalAvgPool(b.shape(y)), y)
        gate = b.linear(f"{name}.excite.reduce", gate, block.squeezed, _CONVOLUTION)
        gate = b.activation(f"{name}.excite.relu", gate, "relu")
        gate = b.linear(f"{name}.excite.expand", gate, block.middle, _CONVOLUTION)
        gate = b.activation(f"{name}.excite.hsigmoid", gate, "hsigmoid")
        y = b.add(f"{name}.excite.scale", ops.Multiply((b.shape(y), b.shape(gate))), y, gate)
    y = b.convolution(f"{name}.project", y, block.out_channels, 1)
    y = b.norm(f"{name}.project", y)
    return b.add(f"{name}.residual", ops.Add((b.shape(x), b.shape(y))), x, y) if block.residual else y


def _exit_head(b: _Builder, name: str, x: int, head: ExitHead, classes: int) -> None:
    y, size = x, window(head.pool, b.flat)
    if head.pool > 1:
        y = b.add(f"{name}.pool", ops.MaxPool(b.shape(y), size, size), y)
    y = b.activation(f"{name}.relu", y, "relu")
    for layer, width in enumerate(head.widths):
        y = b.convolution(f"{name}.convolution{layer + 1}", y, width, 3, bias=True)
        y = b.activation(f"{name}.convolution{layer + 1}.relu", y, "relu")
    y = b.add(f"{name}.flatten", ops.Flatten(b.shape(y)), y)
    y = b.linear(f"{name}.linear", y, classes + 1)
    # The last output alone becomes a confidence; the logits need no softmax to be compared.
    y = b.add(f"{name}.last", ops.Slice(b.shape(y), classes, classes + 1), y)
    b.activation(f"{name}.confidence", y, "sigmoid")


def _final_head(b: _Builder, x: int, head: FinalHead, classes: int) -> None:
    y = x
    if head.expand:
        y = b.convolution("final.expand", y, head.expand, 1)
        y = b.norm("final.expand", y, head.activation)
    y = b.add("final.mean", ops.GlobalAvgPool(b.shape(y)), y)
    if head.mix:
        y = b.linear("final.mix", y, head.mix, _CONVOLUTION, bias=False)
        y = b.activation("final.mix.activation", y, head.activation)
    b.linear("final.linear", y, classes)


def lower(architecture: Architecture) -> Graph:
    """Return the operator records of `architecture` for one sample; nodes of the i-th exit's head carry exit i."""
    b = _Builder(architecture.input_shape, architecture.flat)
    x = _stem(b, architecture.stem)
    for layer, block in enumerate(architecture.trunk, start=1):
        x = _mbconv(b, f"trunk.{layer}", x, block)
    heads = {early.stage: (index, early.head) for index, early in enumerate(architecture.exits, start=1)}
    for stage, blocks in enumerate(architecture.stages, start=1):
        for layer, block in enumerate(blocks, start=1):
            x = _mbconv(b, f"stage{stage}.{layer}", x, block)
        if stage in heads:
            b.exit, head = heads[stage]
            _exit_head(b, f"exit{b.exit}", x, head, architecture.classes)
            b.exit = 0
    b.exit = len(architecture.exits) + 1
    _final_head(b, x, architecture.final, architecture.classes)
    return tuple(b.nodes)


def lower_part(part: Part, feature_map: Map, classes: int, flat: bool) -> Graph:
    """Return the operator records of one part alone; it reads a map (H, W, C) of a network that `is_flat` or not.

    The backbone goes on from the map that an early exit reads: a last record that computes nothing keeps it alive.
    """
    b = _Builder(feature_map, flat)
    match part:
        case Stem():
            _stem(b, part)
        case MBConvSpec():
            _mbconv(b, "block", -1, part)
        case ExitHead():
            _exit_head(b, "exit", -1, part, classes)
            b.add("backbone", ops.Flatten(feature_map), -1)
        case FinalHead():
            _final_head(b, -1, part, classes)
    return tuple(b.nodes)


# Costs


@dataclass(frozen=True)
class PartCost:
    """Counts of one part for one sample; `peak_bytes` are those of the float32 arrays alive at once."""

    macs: int
    params: int
    peak_bytes: int


@dataclass(frozen=True)
class StaticCosts:
    """Exact counts of an architecture for one sample; `exit_costs` are the MACs paid when leaving at each exit."""

    exit_costs: tuple[int, ...]
    params: int
    peak_bytes: int

    @property
    def exit_count(self) -> int:
        """Number of exits, the final one included."""
        return len(self.exit_costs)

    @property
    def cheapest(self) -> int:
        """MACs of a sample that leaves at the first exit."""
        return self.exit_costs[0]

    @property
    def worst_macs(self) -> int:
        """MACs of a sample that leaves at the final exit."""
        return self.exit_costs[-1]


@lru_cache(maxsize=1 << 16)
def part_cost(part: Part, feature_map: Map, classes: int = 0, *, flat: bool) -> PartCost:
    """Return the counts of one part, arguments as of `lower_part`; `classes` are read for heads alone."""
    graph = lower_part(part, feature_map, classes, flat)
    counted = count(graph)
    return PartCost(counted.macs, counted.params, peak_activation_bytes(graph))


def together(parts: Sequence[PartCost]) -> PartCost:
    """Return the counts of parts run one after the other. Between two of them only one map is alive."""
    macs, params = sum(part.macs for part in parts), sum(part.params for part in parts)
    return PartCost(macs, params, max((part.peak_bytes for part in parts), default=0))


def segment_costs(architecture: Architecture) -> tuple[PartCost, ...]:
    """Return the E counts of the backbone between consecutive exits, heads left out."""
    stem, image, flat, found = architecture.stem, architecture.input_shape, architecture.flat, []
    parts, shape = [part_cost(stem, image, flat=flat)], stem.output(image)
    for blocks in architecture.segments():
        for block in blocks:
            parts.append(part_cost(block, shape, flat=flat))
            shape = block.output(shape)
        found.append(together(parts))
        parts = []
    return tuple(found)


def head_costs(architecture: Architecture) -> tuple[PartCost, ...]:
    """Return the counts of the E heads, the final one last."""
    heads = (*(early.head for early in architecture.exits), architecture.final)
    pairs, classes = zip(heads, architecture.exit_maps(), strict=True), architecture.classes
    return tuple(part_cost(head, each, classes, flat=architecture.flat) for head, each in pairs)


@lru_cache(maxsize=1 << 8)
def static_costs(architecture: Architecture) -> StaticCosts:
    """Return the exact counts of `architecture` for one sample.

    With B_i the backbone's MACs up to exit i and H_i those of its head, leaving at exit i costs
    B_i + H_1 + ... + H_i: every head passed on the way has run.
    """
    segments, heads = segment_costs(architecture), head_costs(architecture)
    steps = [segment.macs + head.macs for segment, head in zip(segments, heads, strict=True)]
    total = together([*segments, *heads])
    return StaticCosts(tuple(accumulate(steps)), total.params, total.peak_bytes)


# Early exits


class CostOrderError(ValueError):
    """No head that the exit after `stage` (1-based) may have keeps the cost order."""

    def __init__(self, message: str, stage: int = 0) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True)
class GridHead:
    """A head for maps of any size: pooled to about `cells` a side, 3x3 convolutions `widths`, a linear layer."""

    cells: int
    widths: tuple[int, ...]

    def on(self, size: int) -> ExitHead:
        """Return the head on a map whose `least_side` is `size` pixels."""
        return ExitHead(max(1, size // self.cells), self.widths)


def head_ladder(size: int, widths: Sequence[int]) -> Iterator[ExitHead]:
    """Yield heads from the richest to the poorest, for a map whose `least_side` is `size` pixels.

    Pooling 1, 2, 4, ... up to `size` with all convolutions `widths`; then with the last convolution left out, and
    so on; at the end pooling by `size` and the linear layer alone.

    >>> [(head.pool, head.widths) for head in head_ladder(2, (8, 16))]
    [(1, (8, 16)), (2, (8, 16)), (1, (8,)), (2, (8,)), (2, ())]
    """
    for layers in range(len(widths), 0, -1):
        pool = 1
        while pool <= size:
            yield ExitHead(pool, tuple(widths[:layers]))
            pool *= 2
    yield ExitHead(size, ())


def design_exits(
    backbone: Architecture, stages: Sequence[int], widths: Sequence[int] = (), heads: Sequence[GridHead] = ()
) -> Architecture:
    """Return `backbone` with an early exit after each of `stages` and the cost order kept.

    Leaving at an exit must be cheaper than going on: B_i + H_i < B_{i+1} + H_{i+1} for i = 1..E-1. Exits are
    designed from the last early one backwards, since the bound of exit i is exit i+1. Each takes the first head of
    the ladder that keeps the order; where `heads` are given, the order is only checked.

    Args:
        backbone: an architecture without early exits.
        stages: stage numbers, ascending, from 1 to S - 1; ValueError otherwise.
        widths: output channels of the 3x3 convolutions of the ladder's richest head.
        heads: one head for each of `stages`; empty: the ladder.

    Raises:
        CostOrderError: if every head of an exit breaks the order.

    Source: the cost rule of NACHOS, arXiv 2401.13330; unlike the released code's, the walk keeps the order.
    """
    if list(stages) != sorted(set(stages) & set(range(1, len(backbone.stages)))):
        rule = f"ascending numbers from 1 to {len(backbone.stages) - 1}"
        raise ValueError(f"stages of early exits must be {rule}, got {tuple(stages)}")
    # Where the exits are decides the maps that feed them; which heads stand there does not.
    placed = backbone.with_exits(tuple(Exit(stage, ExitHead(1, ())) for stage in stages))
    maps = placed.exit_maps()
    reached = list(accumulate(segment.macs for segment in segment_costs(placed)))
    classes, flat = backbone.classes, backbone.flat
    bound = reached[-1] + part_cost(backbone.final, maps[-1], classes, flat=flat).macs
    exits: list[Exit] = []
    for index, stage in reversed(list(enumerate(stages))):
        costs, size = [], least_side(maps[index], flat)
        for head in [heads[index].on(size)] if heads else head_ladder(size, widths):
            costs.append(reached[index] + part_cost(head, maps[index], classes, flat=flat).macs)
            if costs[-1] < bound:
                exits.append(Exit(stage, head))
                break
        else:
            # With many classes the last head need not be the cheapest: a convolution narrows what the others read.
            raise CostOrderError(
                f"exit after stage {stage}: its cheapest head costs {min(costs)} MACs in all, "
                f"which must be below the {bound} of the next exit",
                stage,
            )
        bound = costs[-1]
    return backbone.with_exits(tuple(reversed(exits)))
