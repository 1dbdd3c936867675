"""torchprofile: a trace of the network, in which it looks up the operators it knows.

Besides products of layers it adds one for each output of an element-wise product, a mean and an average pool.
Up to 0.0.2 batch norm added nothing; that version is behind the figures published for NACHOS and its forerunners.
Read `tracing.py` first.
"""

from dataclasses import replace

from nachos_min.macs.conventions.convention import (
    Convention,
    Rule,
    Sight,
    Term,
    each_input,
    each_output,
    each_product,
    elements_out,
    inputs,
    outputs,
    products,
)
from nachos_min.macs.conventions.tracing import product_of_lengths, traced
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import (
    Activation,
    AdaptiveAvgPool,
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
    Multiply,
    Node,
    Reduce,
    Resize,
)
from nachos_min.macs.record import Operator

# Functions whose operator has no rule in torchprofile, and is left out with a warning.
_UNKNOWN = {
    f"{place}.{name}"
    for place in ("torch", "Tensor")
    for name in ("mm", "mv", "dot", "inner", "vdot", "multiply", "multiply_")
}


def _sees(node: Node) -> Sight:
    function = as_written(node).function
    if function in _UNKNOWN and traced(node).times:
        return Sight(0, f"it has no rule for {function}")
    return traced(node)


def _sees_old(node: Node) -> Sight:
    function = as_written(node).function
    if function in ("F.scaled_dot_product_attention", "torch.baddbmm", "Tensor.baddbmm") and traced(node).times:
        return Sight(0, f"it has no rule for {function}")
    return _sees(node)


def _transposed(node: Node) -> tuple[Term, ...]:
    """Every output pixel is billed, and the groups are told from the weights as if these were a convolution's.

    A convolution's weights begin with the output channels, a transposed one's with the input channels; which it is,
    torchprofile decides by whether the first length is the number of output channels.
    """
    assert isinstance(node.op, ConvTranspose2d)
    op = node.op
    inward = op.out_channels // op.groups if op.out_channels == op.input[2] else op.input[2]
    quantity = elements_out(node) * inward * op.kernel[0] * op.kernel[1]
    note = "every output pixel is billed, not every input pixel"
    note += ", and groups are ignored" if op.groups > 1 and inward == op.input[2] else ""
    return (Term(products(node).subject, 1, quantity, note),)


def _norm(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, BatchNorm | GroupNorm | InstanceNorm | LayerNorm)
    return (inputs(node),) if node.op.affine else ()


def _activation(node: Node) -> tuple[Term, ...]:
    """Spelt-out h-swish has a product; of the others, only leaky ReLU has a rule."""
    assert isinstance(node.op, Activation)
    function = as_written(node).function
    if function.startswith("x * "):
        return (replace(inputs(node), note=f"the product in {function}"),)
    return (inputs(node),) if node.op.kind == "leaky_relu" else ()


def _reduce(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Reduce)
    return (outputs(node),) if node.op.kind == "mean" else ()


def _mean_over_map(node: Node) -> tuple[Term, ...]:
    """Taken over one axis and then over the other it is two means, and the first leaves a column each."""
    term = outputs(node)
    if as_written(node).function != "mean(3).mean(2)":
        return (term,)
    assert isinstance(node.op, GlobalAvgPool)
    columns = node.batch * node.op.input[0] * node.op.input[2]
    return (term, Term("elements out of the mean over the width", 1, columns))


def _resize(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Resize)
    return (outputs(node, 4),) if node.op.mode == "bilinear" else ()


_RULES: dict[type[Operator], Rule] = {
    **dict.fromkeys((Conv2d, Linear, MatMul), each_product),
    ConvTranspose2d: _transposed,
    Einsum: lambda node: product_of_lengths(node, "an equation with dots is not counted"),
    **dict.fromkeys((BatchNorm, GroupNorm, InstanceNorm, LayerNorm), _norm),
    Activation: _activation,
    **dict.fromkeys((Multiply, AvgPool, AdaptiveAvgPool), each_output),
    GlobalAvgPool: _mean_over_map,
    Reduce: _reduce,
    Resize: _resize,
}

TORCHPROFILE = Convention(
    name="torchprofile",
    tool="torchprofile 0.1.0",
    unit="MACs",
    about="Products of traced operators; 1 per batch-norm element, element-wise product and element of a mean.",
    rules=_RULES,
    sees=_sees,
)

_ABSENT = (BatchNorm, GroupNorm, Einsum, Resize)

# On the PyTorch of its day: later ones trace a linear layer as an operator that it does not know.
TORCHPROFILE_0_0_2 = Convention(
    name="torchprofile-0.0.2",
    tool="torchprofile 0.0.2",
    unit="MACs",
    about="The same before batch norm was counted: products, and 1 per element-wise product and element of a mean.",
    rules={
        **{operator: rule for operator, rule in _RULES.items() if operator not in _ABSENT},
        **dict.fromkeys((InstanceNorm, LayerNorm), each_input),
    },
    sees=_sees_old,
)
