"""Lower an Architecture to operator records, so that `macs` can count it before any weight exists.

Read `architecture.py` and `macs/ops.py` first. The order of the records is the order of execution: backbone
up to exit 1, head 1, backbone on to exit 2, head 2, and so on; the cost of leaving at an exit is therefore a
prefix sum over them.

Each record also says how the released PyTorch code (Once-for-All's blocks, EarlyExits' heads) writes the layer,
because that is what other tools' counts of the same network depend on.
"""

from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, Map, MBConvSpec, Stem
from nachos_min.macs.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Graph,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Slice,
)
from nachos_min.macs.record import Operator
from nachos_min.macs.written import Written


def _module(function: str, name: str) -> Written:
    return Written(function, module=name, layer=name)


_CONVOLUTION = _module("F.conv2d", "Conv2d")
_LINEAR = _module("F.linear", "Linear")
_NORM = _module("F.batch_norm", "BatchNorm2d")
_MAX_POOL = _module("F.max_pool2d", "MaxPool2d")
_MEAN = Written("mean(3).mean(2)")
_SUM = Written("x + y")
_PRODUCT = Written("x * y")
_FLATTEN = Written("Tensor.flatten")
_SLICE = Written("Tensor.__getitem__")

# Once-for-All has h-swish and h-sigmoid as modules of its own, spelt out in terms of relu6.
_ACTIVATIONS = {
    "relu": _module("F.relu", "ReLU"),
    "sigmoid": _module("torch.sigmoid", "Sigmoid"),
    "hswish": Written("x * relu6(x + 3) / 6", module="ofa.Hswish"),
    "hsigmoid": Written("relu6(x + 3) / 6", module="ofa.Hsigmoid"),
}


class _Builder:
    """Appends nodes and remembers the shape that each produces."""

    def __init__(self, input_shape: Map) -> None:
        self.input_shape = input_shape
        self.nodes: list[Node] = []
        self.exit = 0

    def shape(self, index: int) -> tuple[int, ...]:
        return self.input_shape if index < 0 else self.nodes[index].op.output

    def map_shape(self, index: int) -> Map:
        height, width, channels = self.shape(index)
        return height, width, channels

    def add(self, name: str, op: Operator, written: Written, *inputs: int) -> int:
        self.nodes.append(Node(name, op, inputs, self.exit, written=written))
        return len(self.nodes) - 1

    def convolution(
        self,
        name: str,
        x: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> int:
        op = Conv2d(
            self.map_shape(x),
            out_channels,
            (kernel, kernel),
            (stride, stride),
            (kernel // 2,) * 4,
            groups=groups,
            bias=bias,
        )
        return self.add(name, op, _CONVOLUTION, x)

    def activation(self, name: str, x: int, kind: str) -> int:
        if kind == "identity":
            return x
        return self.add(name, Activation(self.shape(x), kind), _ACTIVATIONS[kind], x)

    def norm(self, name: str, x: int, kind: str = "identity") -> int:
        y = self.add(f"{name}.norm", BatchNorm(self.shape(x)), _NORM, x)
        return self.activation(f"{name}.{kind}", y, kind)


def _mbconv(b: _Builder, name: str, x: int, block: MBConvSpec) -> int:
    y = x
    if block.expand:
        y = b.convolution(f"{name}.expand", y, block.middle, 1)
        y = b.norm(f"{name}.expand", y, block.activation)
    y = b.convolution(f"{name}.depthwise", y, block.middle, block.kernel, block.stride, groups=block.middle)
    y = b.norm(f"{name}.depthwise", y, block.activation)
    if block.squeezed:
        gate = b.add(f"{name}.excite.mean", GlobalAvgPool(b.map_shape(y)), _MEAN, y)
        gate = b.add(f"{name}.excite.reduce", Linear(b.shape(gate), block.squeezed), _CONVOLUTION, gate)
        gate = b.activation(f"{name}.excite.relu", gate, "relu")
        gate = b.add(f"{name}.excite.expand", Linear(b.shape(gate), block.middle), _CONVOLUTION, gate)
        gate = b.activation(f"{name}.excite.hsigmoid", gate, "hsigmoid")
        y = b.add(f"{name}.excite.scale", Multiply((b.shape(y), b.shape(gate))), _PRODUCT, y, gate)
    y = b.convolution(f"{name}.project", y, block.out_channels, 1)
    y = b.norm(f"{name}.project", y)
    return b.add(f"{name}.residual", Add((b.shape(x), b.shape(y))), _SUM, x, y) if block.residual else y


def _exit_head(b: _Builder, name: str, x: int, head: ExitHead, classes: int) -> None:
    y = x
    if head.pool > 1:
        size = (head.pool, head.pool)
        y = b.add(f"{name}.pool", MaxPool(b.map_shape(y), size, size), _MAX_POOL, y)
    y = b.activation(f"{name}.relu", y, "relu")
    for layer, width in enumerate(head.widths):
        y = b.convolution(f"{name}.convolution{layer + 1}", y, width, 3, bias=True)
        y = b.activation(f"{name}.convolution{layer + 1}.relu", y, "relu")
    y = b.add(f"{name}.flatten", Flatten(b.shape(y)), _FLATTEN, y)
    y = b.add(f"{name}.linear", Linear(b.shape(y), classes + 1), _LINEAR, y)
    # The last output alone becomes a confidence; the logits need no softmax to be compared.
    y = b.add(f"{name}.last", Slice(b.shape(y), classes, classes + 1), _SLICE, y)
    b.activation(f"{name}.confidence", y, "sigmoid")


def _stem(b: _Builder, x: int, stem: Stem) -> int:
    y = b.convolution("stem", x, stem.channels, stem.kernel, stem.stride)
    return b.norm("stem", y, stem.activation)


def _final_head(b: _Builder, x: int, head: FinalHead, classes: int) -> None:
    y = x
    if head.expand:
        y = b.convolution("final.expand", y, head.expand, 1)
        y = b.norm("final.expand", y, head.activation)
    y = b.add("final.mean", GlobalAvgPool(b.map_shape(y)), _MEAN, y)
    if head.mix:
        y = b.add("final.mix", Linear(b.shape(y), head.mix, bias=False), _CONVOLUTION, y)
        y = b.activation("final.mix.activation", y, head.activation)
    b.add("final.linear", Linear(b.shape(y), classes), _LINEAR, y)


def lower(architecture: Architecture) -> Graph:
    """Return the operator records of `architecture`, in order of execution, for one sample.

    Nodes of the backbone carry exit 0, those of the i-th exit's head carry i (the final head is the E-th).
    """
    b = _Builder(architecture.input_shape)
    x = _stem(b, -1, architecture.stem)
    for layer, block in enumerate(architecture.trunk):
        x = _mbconv(b, f"trunk.{layer + 1}", x, block)
    heads = {early.stage: (index + 1, early.head) for index, early in enumerate(architecture.exits)}
    for stage, blocks in enumerate(architecture.stages, start=1):
        for layer, block in enumerate(blocks):
            x = _mbconv(b, f"stage{stage}.{layer + 1}", x, block)
        if stage in heads:
            b.exit, head = heads[stage]
            _exit_head(b, f"exit{b.exit}", x, head, architecture.classes)
            b.exit = 0
    b.exit = len(architecture.exits) + 1
    _final_head(b, x, architecture.final, architecture.classes)
    return tuple(b.nodes)


def lower_part(part: Stem | MBConvSpec | ExitHead | FinalHead, feature_map: Map, classes: int) -> Graph:
    """Return the operator records of one part alone, reading a map of shape (H, W, C).

    The map that an early exit reads stays alive behind the head, since the backbone goes on from it: a last
    record that computes nothing holds it.
    """
    b = _Builder(feature_map)
    match part:
        case Stem():
            _stem(b, -1, part)
        case MBConvSpec():
            _mbconv(b, "block", -1, part)
        case ExitHead():
            _exit_head(b, "exit", -1, part, classes)
            b.add("backbone", Flatten(feature_map), _FLATTEN, -1)
        case FinalHead():
            _final_head(b, -1, part, classes)
    return tuple(b.nodes)
