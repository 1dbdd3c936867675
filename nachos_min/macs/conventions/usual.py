"""How a layer is usually written in PyTorch, for networks that never were: an architecture, an ONNX file.

Read `written.py` first. A tool that watches modules must be told a module even where there is none, and the fair
answer is the class that most people would use: `nn.Conv2d`, not a call of `F.conv2d`.
"""

from nachos_min.macs.ops import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Einsum,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Node,
    Resize,
    Softmax,
)
from nachos_min.macs.record import Operator
from nachos_min.macs.written import Written

_LAYERS: dict[type[Operator], tuple[str, str]] = {
    Conv2d: ("F.conv2d", "Conv2d"),
    ConvTranspose2d: ("F.conv_transpose2d", "ConvTranspose2d"),
    Linear: ("F.linear", "Linear"),
    BatchNorm: ("F.batch_norm", "BatchNorm2d"),
    LayerNorm: ("F.layer_norm", "LayerNorm"),
    GroupNorm: ("F.group_norm", "GroupNorm"),
    InstanceNorm: ("F.instance_norm", "InstanceNorm2d"),
    Softmax: ("F.softmax", "Softmax"),
    MaxPool: ("F.max_pool2d", "MaxPool2d"),
    AvgPool: ("F.avg_pool2d", "AvgPool2d"),
    AdaptiveAvgPool: ("F.adaptive_avg_pool2d", "AdaptiveAvgPool2d"),
    AdaptiveMaxPool: ("F.adaptive_max_pool2d", "AdaptiveMaxPool2d"),
    GlobalAvgPool: ("F.adaptive_avg_pool2d", "AdaptiveAvgPool2d"),
    Resize: ("F.interpolate", "Upsample"),
    MatMul: ("torch.matmul", ""),
    Einsum: ("torch.einsum", ""),
    Add: ("x + y", ""),
    Multiply: ("x * y", ""),
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
    """Return how a node was written, or how it would be.

    Args:
        node: any node.

    Returns:
        Its own record if it has one, else the usual module or operator sign.

    >>> as_written(Node("act", Activation((8,), "relu"), (-1,))).module
    'ReLU'
    """
    if node.written is not None:
        return node.written
    if isinstance(node.op, Activation):
        function, module = _ACTIVATIONS.get(node.op.kind, (node.op.kind, ""))
    else:
        function, module = _LAYERS.get(type(node.op), ("", ""))
    return Written(function, module=module, layer=module)


def under_names(node: Node) -> str:
    """Return why a tool that hooks modules does not count a node once, "" if it does."""
    paths = as_written(node).paths
    if paths == 0:
        return "its module is kept in a plain list, where no tool finds it"
    return f"its module stands under {paths} names" if paths > 1 else ""
