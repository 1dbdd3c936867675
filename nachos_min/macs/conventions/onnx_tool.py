"""onnx-tool: adds up what each operator of an exported file would cost, down to a comparison for a ReLU.

A multiplication, an addition and a comparison cost 1, a division 4, a square root 24, an exponential or a power
32, a logarithm 43, a sine 39. The tables below are what an operator comes to once PyTorch's exporter (the one that
traces, operator set 16) has written it out. The exporter also improves the network, see `exporting.py`: batch norm
disappears in the convolution before it, and the same work is done once. Read `tracing.py` first.
"""

from dataclasses import replace
from math import prod

from nachos_min.macs.conventions.convention import (
    Convention,
    Counted,
    Rule,
    Sight,
    Term,
    biases,
    elements_in,
    elements_out,
    inputs,
    outputs,
    products,
    terms_by,
)
from nachos_min.macs.conventions.exporting import already_done, done_beforehand, merged_norms, merged_products
from nachos_min.macs.conventions.tracing import kept, product_of_lengths
from nachos_min.macs.conventions.usual import as_written
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
    Graph,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Node,
    Pointwise,
    Reduce,
    Resize,
    Softmax,
)
from nachos_min.macs.record import Operator

_ATTENTION = "F.scaled_dot_product_attention"
_DIVISION, _ROOT, _EXPONENTIAL = 4, 24, 32

# Per element, by kind. A hyperbolic tangent costs twice what its parts do.
_ACTIVATIONS = {
    "relu": 1,
    "relu6": 2,
    "hardtanh": 2,
    "leaky_relu": 2,
    "prelu": 2,
    "hsigmoid": 4,
    "hswish": 5,
    "softsign": 6,
    "gelu": 7,
    "sigmoid": 32,
    "silu": 33,
    "elu": 35,
    "logsigmoid": 75,
    "softplus": 76,
    "tanh": 76,
    "tanhshrink": 77,
    "mish": 153,
}
_SPELT_OUT = {"x * relu6(x + 3) / 6": 8, "relu6(x + 3) / 6": 7}
_POINTWISE = {
    **dict.fromkeys(("sub", "neg", "abs", "sign", "floor", "ceil", "round", "square", "max", "min", "cumsum"), 1),
    **dict.fromkeys(("compare", "logic"), 1),
    **dict.fromkeys(("div", "reciprocal", "floor_divide"), _DIVISION),
    "clamp": 2,
    "addcmul": 2,
    "remainder": 7,
    "sqrt": _ROOT,
    "rsqrt": _ROOT + _DIVISION,
    "exp": _EXPONENTIAL,
    "pow": _EXPONENTIAL,
    "log": 43,
    "sin": 39,
    "cos": 39,
    "atan": 64,
}
# An equality and a negation.
_NOT_EQUAL = ("x != y", "torch.ne", "Tensor.ne", "torch.not_equal", "Tensor.not_equal")
_REDUCTIONS = {"mean": 1, "sum": 1, "max": 1, "min": 1, "prod": 1, "norm": _ROOT + 1}
_INTERPOLATION = {"linear": 4, "bilinear": 4, "bicubic": 8}


def _layer(node: Node) -> tuple[Term, ...]:
    return (products(node), biases(node))


def _convolution(node: Node) -> tuple[Term, ...]:
    """With padding='valid', the output is computed as if there were no dilation."""
    assert isinstance(node.op, Conv2d)
    op, terms = node.op, _layer(node)
    if as_written(node).padding != "valid" or op.dilation == (1, 1):
        return terms
    height, width = (-(-(op.input[axis] - op.kernel[axis] + 1) // op.stride[axis]) for axis in (0, 1))
    pixels = op.output[0] * op.output[1]
    note = "with padding='valid' its output is computed as if there were no dilation"
    return tuple(Term(t.subject, t.factor, t.quantity // pixels * height * width, note) for t in terms)


def _transposed(node: Node) -> tuple[Term, ...]:
    """Weights are read as a convolution's, so the output channels of a group take the input channels' place."""
    assert isinstance(node.op, ConvTranspose2d)
    op = node.op
    quantity = elements_out(node) * (op.out_channels // op.groups) * op.kernel[0] * op.kernel[1]
    note = "every output pixel is billed, and each for the output channels"
    return (Term(products(node).subject, 1, quantity, note), biases(node))


def _matrix_product(node: Node) -> tuple[Term, ...]:
    """Of the leading axes only those of the array that has more of them are kept."""
    assert isinstance(node.op, MatMul)
    left, right = node.op.left, node.op.right
    leading = max((prod(left[:-2]), prod(right[:-2])))
    counted = node.batch * leading * left[-2] * left[-1] * right[-1]
    term = products(node)
    note = "" if counted == term.quantity else "the leading axes do not broadcast"
    return (Term(term.subject, 1, counted, note),)


def _batch_norm(node: Node) -> tuple[Term, ...]:
    """Two additions, a root, a division and a product; five more to measure the mean and the variance."""
    measured = "statistics" in as_written(node).facts
    return (inputs(node, 31 + 5 * measured),)


def _layer_norm(node: Node) -> tuple[Term, ...]:
    """Two means, a difference, a square (as a power), a root for each row, a division, scale and shift."""
    assert isinstance(node.op, LayerNorm)
    op = node.op
    rows = elements_in(node) // prod(op.input[len(op.input) - op.axes :])
    per_element = 2 + 1 + _EXPONENTIAL + _DIVISION + op.affine + op.bias
    return (inputs(node, per_element), Term("rows of layer norm", 1 + _ROOT, rows))


def _activation(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Activation)
    return (inputs(node, _SPELT_OUT.get(as_written(node).function, _ACTIVATIONS.get(node.op.kind, 0))),)


def _sum(node: Node) -> tuple[Term, ...]:
    """That of baddbmm is twice: the product is multiplied by a factor of 1 before."""
    return (outputs(node, 1 + as_written(node).function.endswith("baddbmm")),)


def _pointwise(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Pointwise)
    return (outputs(node, _POINTWISE.get(node.op.kind, 0) + (as_written(node).function in _NOT_EQUAL)),)


def _reduce(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Reduce)
    return (inputs(node, _REDUCTIONS.get(node.op.kind, 0)),)


def _pool(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, MaxPool | AvgPool)
    op, term = node.op, outputs(node, prod(node.op.size))
    if not op.ceil:
        return (term,)
    windows = 1
    for axis in (0, 1):
        room = (
            op.input[axis] + sum(op.padding[2 * axis : 2 * axis + 2]) - op.dilation[axis] * (op.size[axis] - 1) - 1
        )
        windows *= -(-room // op.stride[axis]) + 1
    quantity = node.batch * windows * op.input[2]
    note = "" if quantity == term.quantity else "a last window that would begin beyond the map is kept"
    return (Term(term.subject, term.factor, quantity, note),)


def _adaptive(node: Node) -> tuple[Term, ...]:
    """To one pixel it is a mean over the map with a division; else windows that together cover the map once."""
    assert isinstance(node.op, AdaptiveAvgPool | GlobalAvgPool)
    if as_written(node).function == "mean(3).mean(2)":
        columns = elements_in(node) // node.op.input[1]
        return (inputs(node), Term("elements out of the mean over the width", 1, columns))
    if isinstance(node.op, GlobalAvgPool) or node.op.size == (1, 1):
        return (inputs(node), outputs(node, _DIVISION))
    return (inputs(node),)


def _resize(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Resize)
    return (outputs(node, _INTERPOLATION.get(node.op.mode, 0)),)


def _scaling(node: Node) -> tuple[Term, ...]:
    """Attention's queries and keys are each multiplied by the root of the scale, which is computed on the way."""
    assert isinstance(node.op, MatMul)
    scaled = node.batch * (prod(node.op.left) + prod(node.op.right))
    return (
        Term("elements of queries and keys that are scaled", 1, scaled),
        Term("computation of attention's scale", 3 * _ROOT + _DIVISION, 1),
    )


def _among(graph: Graph) -> dict[int, Counted]:
    """What the exporter changes; a batch norm that was merged leaves a bias behind, unless there was one."""
    found: dict[int, Counted] = {}
    for position, node in enumerate(graph):
        if as_written(node).function == _ATTENTION and isinstance(node.op, MatMul):
            weighted = node.inputs[0] >= 0 and isinstance(graph[node.inputs[0]].op, Softmax)
            found[position] = (kept(node), (*_terms(node), *(() if weighted else _scaling(node))))
    for position, product in merged_products(graph).items():
        again = replace(
            products(graph[product]), note="merged into the sum, but its result is needed elsewhere, too"
        )
        found[position] = (Sight(1), (*_terms(graph[position]), again))
    for position, biased in merged_norms(graph).items():
        added = Term("bias additions of convolutions", 1, elements_out(graph[position]))
        if biased:
            sight = Sight(0, "merged into the convolution before it, which has a bias already")
        else:
            sight = Sight(1, "merged into the convolution before it as a bias")
        found[position] = (sight, (added,))
    for position in already_done(graph):
        found[position] = (Sight(0, "the same work was done before, and is done once"), _terms(graph[position]))
    for position in done_beforehand(graph):
        found[position] = (Sight(0, "it depends on weights alone and is done beforehand"), _terms(graph[position]))
    return found


_RULES: dict[type[Operator], Rule] = {
    Conv2d: _convolution,
    Linear: _layer,
    ConvTranspose2d: _transposed,
    MatMul: _matrix_product,
    Einsum: lambda node: product_of_lengths(node, "dots are taken for a letter each, which cannot be predicted"),
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    GroupNorm: lambda node: (inputs(node, 3 + _DIVISION + 2),),
    InstanceNorm: lambda node: (inputs(node, 3 + _DIVISION),),
    Activation: _activation,
    Softmax: lambda node: (inputs(node, _EXPONENTIAL + _DIVISION),),
    Pointwise: _pointwise,
    Add: _sum,
    Multiply: lambda node: (outputs(node),),
    **dict.fromkeys((MaxPool, AvgPool), _pool),
    **dict.fromkeys((AdaptiveAvgPool, GlobalAvgPool), _adaptive),
    AdaptiveMaxPool: lambda node: (inputs(node),),
    Reduce: _reduce,
    Resize: _resize,
}


def _terms(node: Node) -> tuple[Term, ...]:
    return terms_by(_RULES, node)


ONNX_TOOL = Convention(
    name="onnx-tool",
    tool="onnx-tool 1.0.1",
    unit="MACs",
    about="Every operator of the exported file at a price: products and biases 1, a sigmoid 32, a softmax 36.",
    rules=_RULES,
    sees=kept,
    among=_among,
)
