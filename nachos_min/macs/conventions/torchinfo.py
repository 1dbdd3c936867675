"""torchinfo: every parameter of a leaf module times the positions of its output, by the module's class name.

A class whose name contains "Conv" is taken for a convolution, whose parameters work once per pixel; any other
module's parameters work once per sample, so a linear layer's further rows are not counted, and a normalisation
costs its parameters alone. What has no parameters, or is no module, costs nothing. Parameters that a class of your
own has by itself, not as one of PyTorch's layers, torchinfo counts and this does not; a weight that a layer makes
of others at each call (`torch.nn.utils.weight_norm`, `spectral_norm`) torchinfo bills in yet another way. Read
`thop.py` first.
"""

from math import prod

from nachos_min.macs.conventions.convention import SEEN, Convention, Sight, Term, biases, inputs, products
from nachos_min.macs.conventions.usual import as_written, under_names
from nachos_min.macs.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    Move,
    Node,
)

_MAPS = (Conv2d, ConvTranspose2d, BatchNorm, GroupNorm, InstanceNorm)  # records of which keep channels last


def _sees(node: Node) -> Sight:
    written = as_written(node)
    if not written.layer:
        return Sight(0, "called as a function, and torchinfo sees parameters of modules only")
    if written.leaf and written.paths:
        return SEEN
    return Sight(0, under_names(node) if written.leaf else f"its module {written.module} has modules inside")


def _positions(node: Node) -> int:
    """How often torchinfo bills each parameter: the first axis of the output, and for a convolution the others."""
    written = as_written(node)
    output = node.op.output
    axes = (output[-1], *output[:-1]) if isinstance(node.op, _MAPS) else output  # as PyTorch has them
    if "unbatched" not in written.facts:
        axes = (node.batch, *axes)
    by_pixel = "Conv" in written.module.rpartition(".")[2]
    return axes[0] * prod(axes[2:]) if by_pixel else axes[0]


def _note(counted: int, exact: int) -> str:
    return "" if counted == exact else "parameters times positions of the output"


def _layer(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Conv2d | ConvTranspose2d | Linear)
    shifts = node.op.out_features if isinstance(node.op, Linear) else node.op.out_channels
    shifts *= node.op.bias
    weights = node.op.params - shifts
    found = []
    for term, parameters in ((products(node), weights), (biases(node), shifts)):
        counted = _positions(node) * parameters
        found.append(Term(term.subject, 1, counted, _note(counted, term.quantity)))
    return tuple(found)


def _norm(node: Node) -> tuple[Term, ...]:
    counted = _positions(node) * node.op.params
    return (Term(inputs(node).subject, 1, counted, "parameters, not elements, once per sample"),)


def _activation(node: Node) -> tuple[Term, ...]:
    """PReLU alone has parameters, one slope or one for each channel, the axis after the samples."""
    assert isinstance(node.op, Activation)
    if node.op.kind != "prelu":
        return ()
    slopes = node.op.input[0] if "slopes" in as_written(node).facts else 1
    return (Term(inputs(node).subject, 1, _positions(node) * slopes, "its slopes, not elements, once per sample"),)


def _moved(node: Node) -> tuple[Term, ...]:
    """An embedding's table is a module's weight, too."""
    written = as_written(node)
    if written.layer != "Embedding" or written.function != "F.embedding":
        return ()
    _, table = node.op.operands
    return (Term("elements of embeddings", 1, node.op.output[0] * prod(table), "the whole table, once per sample"),)


TORCHINFO = Convention(
    name="torchinfo",
    tool="torchinfo 1.8.0",
    unit="MACs",
    about="Parameters of modules, times pixels of the output for a convolution and times samples for the rest.",
    rules={
        **dict.fromkeys((Conv2d, ConvTranspose2d, Linear), _layer),
        **dict.fromkeys((BatchNorm, LayerNorm, GroupNorm, InstanceNorm), _norm),
        Activation: _activation,
        Move: _moved,
    },
    sees=_sees,
)
