"""How a node was written in PyTorch, or how it usually is: an architecture or an ONNX file never was.

Tools watch a network from a certain place. thop hooks modules and misses `F.relu`; fvcore drops what the output
does not depend on. Where a network was never written, the class counts that most people would use.
"""

from nachos_min.macs import ops
from nachos_min.macs.ops import Node, Written
from nachos_min.macs.record import Operator

ATTENTION = "F.scaled_dot_product_attention"

# Operator -> function and class of torch.nn.
_USUAL: dict[type[Operator], tuple[str, str]] = {
    ops.Conv2d: ("F.conv2d", "Conv2d"),
    ops.ConvTranspose2d: ("F.conv_transpose2d", "ConvTranspose2d"),
    ops.Linear: ("F.linear", "Linear"),
    ops.BatchNorm: ("F.batch_norm", "BatchNorm2d"),
    ops.LayerNorm: ("F.layer_norm", "LayerNorm"),
    ops.GroupNorm: ("F.group_norm", "GroupNorm"),
    ops.InstanceNorm: ("F.instance_norm", "InstanceNorm2d"),
    ops.Softmax: ("F.softmax", "Softmax"),
    ops.MaxPool: ("F.max_pool2d", "MaxPool2d"),
    ops.AvgPool: ("F.avg_pool2d", "AvgPool2d"),
    ops.AdaptiveAvgPool: ("F.adaptive_avg_pool2d", "AdaptiveAvgPool2d"),
    ops.AdaptiveMaxPool: ("F.adaptive_max_pool2d", "AdaptiveMaxPool2d"),
    ops.GlobalAvgPool: ("F.adaptive_avg_pool2d", "AdaptiveAvgPool2d"),
    ops.Resize: ("F.interpolate", "Upsample"),
    ops.MatMul: ("torch.matmul", ""),
    ops.Einsum: ("torch.einsum", ""),
    ops.Add: ("x + y", ""),
    ops.Multiply: ("x * y", ""),
}

_ACTIVATIONS = {
    "relu": ("F.relu", "ReLU"),
    "relu6": ("F.hardtanh", "ReLU6"),  # nn.ReLU6 calls its parent's function, not F.relu6
    "hswish": ("F.hardswish", "Hardswish"),
    "hsigmoid": ("F.hardsigmoid", "Hardsigmoid"),
    "sigmoid": ("torch.sigmoid", "Sigmoid"),
    "tanh": ("torch.tanh", "Tanh"),
    "silu": ("F.silu", "SiLU"),
    "gelu": ("F.gelu", "GELU"),
    "elu": ("F.elu", "ELU"),
    "leaky_relu": ("F.leaky_relu", "LeakyReLU"),
    "prelu": ("F.prelu", "PReLU"),
}


def as_written(node: Node) -> Written:
    """Return how a node was written, or else the usual module or operator sign.

    >>> as_written(Node("act", ops.Activation((8,), "relu"), (-1,))).module
    'ReLU'
    """
    if node.written is not None:
        return node.written
    if isinstance(node.op, ops.Activation):
        function, module = _ACTIVATIONS.get(node.op.kind, (node.op.kind, ""))
    else:
        function, module = _USUAL.get(type(node.op), ("", ""))
    return Written(function, module=module, layer=module)


def method(node: Node) -> str:
    """Return the function's name without its place: "addmm" of "torch.addmm" and of "Tensor.addmm"."""
    return as_written(node).function.rpartition(".")[2]


def names(starts: str, ends: str) -> frozenset[str]:
    """Return every start with every end, each given with spaces between.

    >>> sorted(names("torch. Tensor.", "mm"))
    ['Tensor.mm', 'torch.mm']
    """
    return frozenset(start + end for start in starts.split() for end in ends.split())


def under_names(node: Node) -> str:
    """Return why a tool that hooks modules does not count a node once, "" if it does."""
    paths = as_written(node).paths
    if paths == 0:
        return "its module is kept in a plain list, where no tool finds it"
    return f"its module stands under {paths} names" if paths > 1 else ""


def only_derived(node: Node, tool: str) -> str:
    """Return why a module of a derived class has no hook."""
    written = as_written(node)
    return f"its class {written.module} only derives from {written.layer}, and {tool} has no hook for it"
