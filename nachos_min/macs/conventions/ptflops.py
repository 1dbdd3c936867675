"""ptflops-pytorch: hooks on modules of known classes, and functions of torch that are replaced while it counts.

The two overlap. `nn.ReLU` is counted by its hook, and again when it calls the replaced `F.relu`; `F.relu` called
by itself counts once; an operator sign is never seen. The network is run on one sample of ptflops' own, whatever
the batch, so everything is divided by the number of samples. Read `thop.py` first, the simpler of its kind.
"""

from collections.abc import Callable
from dataclasses import replace

from nachos_min.macs.conventions.convention import (
    Convention,
    Rule,
    Sight,
    Term,
    biases,
    each_input,
    each_output,
    inputs,
    products,
)
from nachos_min.macs.conventions.patched import called, elements_aligned_left, products_of_left
from nachos_min.macs.conventions.usual import as_written, under_names
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
from nachos_min.macs.record import Operator, Shape

_POOLS = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool")
_HOOKED = {
    f"{layer}{dimensions}"
    for layer in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", *_POOLS)
    for dimensions in ("1d", "2d")
} | {"GroupNorm", "LayerNorm", "Linear", "Upsample", "ReLU", "PReLU", "ELU", "LeakyReLU", "ReLU6", "GELU"}

# Its hook bills as a whole what is recorded here piece by piece: the projections, scaling, products and softmax.
_ATTENTION = "MultiheadAttention"
_BILLED_IN_ATTENTION = (Linear, MatMul, Softmax, Multiply)

# The last two are our own operators, which call F.relu6 and are otherwise operator signs.
_REPLACED = {
    f"F.{pool}_pool{dimensions}"
    for pool in ("max", "avg", "adaptive_max", "adaptive_avg")
    for dimensions in ("1d", "2d")
} | {"F.relu", "F.prelu", "F.elu", "F.relu6", "F.gelu", "F.silu", "F.softmax", "F.interpolate", "F.upsample"}
_REPLACED |= {
    f"{place}.{name}" for place in ("torch", "Tensor") for name in ("matmul", "mm", "bmm", "addmm", "mul", "add")
} | {"torch.baddbmm", "x * relu6(x + 3) / 6", "relu6(x + 3) / 6"}


def _sees(node: Node) -> Sight:
    written = as_written(node)
    if written.module == _ATTENTION:
        hooked = isinstance(node.op, _BILLED_IN_ATTENTION)
    else:  # a layer may compute its weights from others, which its hook does not see
        hooked = written.module in _HOOKED and not isinstance(node.op, MatMul)
    hooks = written.paths if hooked else 0
    replaced = called(node, _REPLACED)
    if replaced.times:
        both = f"once for its module and again for {written.function}, which the module calls"
        return Sight(1 + hooks, both) if hooks else Sight(1)
    if hooked:
        return Sight(hooks, under_names(node))
    if written.layer in _HOOKED:
        return Sight(
            0, f"its class {written.module} only derives from {written.layer}, and ptflops has no hook for it"
        )
    return replaced


def _alone(node: Node, term: Term) -> Term:
    """A term for one sample; what does not grow with the batch, such as a product of weights, stays."""
    samples = as_written(node).samples
    quantity = term.quantity if term.quantity % samples else term.quantity // samples
    return replace(term, quantity=quantity)


def of_one_sample(rule: Rule) -> Rule:
    """Return a rule for the one sample that ptflops feeds to the network, whatever the batch."""
    return lambda node: tuple(_alone(node, term) for term in rule(node))


def _layer(node: Node) -> tuple[Term, ...]:
    return (products(node), biases(node))


def _norm(node: Node) -> tuple[Term, ...]:
    """Layer norm has no attribute `affine`, by which ptflops tells whether it scales, so it counts once."""
    assert isinstance(node.op, BatchNorm | GroupNorm | InstanceNorm | LayerNorm)
    twice = node.op.affine and not isinstance(node.op, LayerNorm)
    return (inputs(node, 2 if twice else 1),)


def _of_arrays(rule: Callable[[Node, tuple[Shape, ...]], Term], arrays: int) -> Rule:
    """A rule on shapes, given those of one sample: dividing afterwards would not do, as alignment compares lengths.

    The first axis is that of samples, if it is as long, in the first `arrays` arrays, of which the rule takes all
    axes; what has fewer axes than the others is broadcast and has no such axis.
    """

    def ruled(node: Node) -> tuple[Term, ...]:
        samples = as_written(node).samples
        whole = node.op.operands
        axes = max(map(len, whole))
        first = tuple(
            (1, *shape[1:]) if place < arrays and (shape[0], len(shape)) == (samples, axes) else shape
            for place, shape in enumerate(whole)
        )
        return (_alone(node, rule(node, whole)) if first == whole else rule(node, first),)

    return ruled


def _matmul(node: Node) -> tuple[Term, ...]:
    made = _of_arrays(products_of_left, 1)(node)
    written = as_written(node)
    if written.module != _ATTENTION or "scaled" not in written.facts:
        return made
    scaled = Term("elements out of element-wise products", 1, inputs(node).quantity, "attention scales the query")
    return (*made, _alone(node, scaled))


_PER_SAMPLE: dict[type[Operator], Rule] = {
    **dict.fromkeys((Conv2d, ConvTranspose2d, Linear, Einsum), _layer),
    **dict.fromkeys((BatchNorm, GroupNorm, InstanceNorm, LayerNorm), _norm),
    **dict.fromkeys((Activation, Softmax, MaxPool, AvgPool), each_input),
    **dict.fromkeys((AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool), each_input),
    Resize: each_output,
}

PTFLOPS = Convention(
    name="ptflops",
    tool="ptflops 0.7.5 (backend pytorch)",
    unit="MACs",
    about="Products and biases of known modules, 2 per batch-norm element, and activations and pools up to twice.",
    rules={
        **{operator: of_one_sample(rule) for operator, rule in _PER_SAMPLE.items()},
        **dict.fromkeys((Add, Multiply), _of_arrays(elements_aligned_left, 2)),
        MatMul: _matmul,
    },
    sees=_sees,
)
