"""calflops and calflops-flops: functions of torch, replaced while it counts, add to the module that is running.

What is called as an operator sign, a method other than `matmul`, `mul` and `add`, or a function it does not replace
is missed. A module under several names is added up under each. The first convention is its count of MACs, the
second its count of FLOPs, twice the products and more. Read `patched.py` first.
"""

from collections.abc import Callable
from math import prod

from nachos_min.macs.axis import window_length
from nachos_min.macs.conventions.convention import (
    Convention,
    Rule,
    Sight,
    Term,
    biases,
    each_input,
    inputs,
    outputs,
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
from nachos_min.macs.record import Operator

# The last two are our own operators, which call F.relu6 and are otherwise operator signs.
_REPLACED = {
    f"F.{layer}{dimensions}"
    for layer in ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    for dimensions in ("1d", "2d")
} | {f"F.{name}" for name in ("linear", "softmax", "interpolate", "upsample")}
_REPLACED |= {f"F.{name}_norm" for name in ("batch", "layer", "group", "instance")}
_REPLACED |= {f"F.{name}" for name in ("relu", "relu6", "prelu", "elu", "leaky_relu", "silu", "gelu")}
_REPLACED |= {f"{place}.{name}" for place in ("torch", "Tensor") for name in ("matmul", "addmm", "mul", "add")}
_REPLACED |= {"torch.einsum", "torch.baddbmm", "x * relu6(x + 3) / 6", "relu6(x + 3) / 6"}


def _sees(node: Node) -> Sight:
    """What a module does that stands under no name is counted for the module that calls it."""
    sight = called(node, _REPLACED)
    paths = as_written(node).paths
    return Sight(paths, under_names(node)) if sight.times and paths else sight


def _lengths(op: Conv2d | ConvTranspose2d, padding: tuple[int, int]) -> tuple[int, int]:
    """Height and width that a convolution of these numbers would have, zeros being added on both sides alike."""
    height, width = (
        window_length(op.input[axis], op.kernel[axis], op.stride[axis], 2 * padding[axis], op.dilation[axis])
        for axis in (0, 1)
    )
    return height, width


def _convolution(node: Node) -> tuple[Term, Term]:
    """Products and biases. 'same' with an even kernel needs an odd number of zeros; calflops halves it, rounded."""
    op = node.op
    assert isinstance(op, Conv2d)
    if as_written(node).padding != "same" or not any(op.padding):
        return products(node), biases(node)
    top, bottom, left, right = op.padding
    positions = node.batch * prod(_lengths(op, ((top + bottom) // 2, (left + right) // 2)))
    pairs = prod(op.kernel) * op.input[2] * (op.out_channels // op.groups)
    note = "" if positions * pairs == node.batch * op.macs else "it takes the output for a row and a column smaller"
    return (
        Term(products(node).subject, 1, positions * pairs, note),
        Term(biases(node).subject, 1, positions * op.out_channels * op.bias, note),
    )


def _transposed(node: Node) -> tuple[Term, Term]:
    """The weight has out/groups filters per channel; calflops divides by the groups again, and rounds down.

    For the bias it takes the output to be that of a convolution, which makes it smaller, not larger.
    """
    op = node.op
    assert isinstance(op, ConvTranspose2d)
    filters = op.out_channels // op.groups
    height, width, channels = op.input
    counted = node.batch * height * width * prod(op.kernel) * channels * (filters // op.groups)
    shifted = node.batch * prod(_lengths(op, (op.padding[0], op.padding[2]))) * filters * op.bias
    return (
        Term(products(node).subject, 1, counted, "it divides by the groups twice" if op.groups > 1 else ""),
        Term(biases(node).subject, 1, shifted, "it takes the output for a convolution's" if op.bias else ""),
    )


def _linear(node: Node) -> tuple[Term, ...]:
    """Only a convolution's bias is counted; a linear layer may be written as a 1x1 convolution."""
    written_as_convolution = as_written(node).function.startswith("F.conv")
    return (products(node), biases(node)) if written_as_convolution else (products(node),)


def _matmul(node: Node) -> tuple[Term, ...]:
    return (products_of_left(node, node.op.operands),)


def _twice(rule: Callable[[Node], tuple[Term, ...]]) -> Rule:
    """Each product is two operations; what follows it, a bias, is one."""

    def ruled(node: Node) -> tuple[Term, ...]:
        made, *rest = rule(node)
        return (Term(made.subject, 2, made.quantity, made.note), *rest)

    return ruled


def _only_products(rule: Callable[[Node], tuple[Term, ...]]) -> Rule:
    return lambda node: rule(node)[:1]


def _einsum(node: Node) -> tuple[Term, ...]:
    """NumPy's estimate of the operations, read from its report, which gives four digits."""
    assert isinstance(node.op, Einsum)
    terms, _, result = node.op.equation.partition("->")
    each = 1 + bool(set(terms) - {","} - set(result))
    estimate = int(float(f"{prod(node.op.lengths.values()) * each + 1:.3e}"))
    return (Term(products(node).subject, 1, estimate, "operations, as NumPy estimates them, to four digits"),)


def _batch_norm(node: Node) -> tuple[Term, ...]:
    """What is in training mode is put into evaluation mode for counting."""
    assert isinstance(node.op, BatchNorm)
    written = as_written(node)
    if "statistics" in written.facts and not written.training:
        return _norm(node)
    return (inputs(node, 2 if node.op.affine else 1),)


def _norm(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, BatchNorm | LayerNorm | GroupNorm | InstanceNorm)
    return (inputs(node, 5 if node.op.affine else 4),)


def _combined(node: Node) -> tuple[Term, ...]:
    return (elements_aligned_left(node, node.op.operands),)


def _resize(node: Node) -> tuple[Term, ...]:
    """Told a factor it counts the input and forgets the factor; told a size, no more than the numbers told."""
    assert isinstance(node.op, Resize)
    subject = outputs(node).subject
    facts = as_written(node).facts
    if "side" in facts:
        return (Term(subject, 1, node.op.size[1], "one side's pixels of one channel of one sample"),)
    if "size" in facts:
        return (Term(subject, 1, prod(node.op.size), "pixels of one channel of one sample"),)
    return (Term(subject, 1, inputs(node).quantity, "elements before resizing"),)


_PRODUCTS: dict[type[Operator], Rule] = {
    Conv2d: _convolution,
    ConvTranspose2d: _transposed,
    Linear: _linear,
    MatMul: _matmul,
}

CALFLOPS = Convention(
    name="calflops",
    tool="calflops 0.3.2 (its MACs)",
    unit="MACs",
    about="Products of convolutions, linear layers and torch.matmul; operator signs such as x @ y are missed.",
    rules={operator: _only_products(rule) for operator, rule in _PRODUCTS.items()},
    sees=_sees,
)

CALFLOPS_FLOPS = Convention(
    name="calflops-flops",
    tool="calflops 0.3.2 (its FLOPs)",
    unit="FLOPs",
    about="Twice the products, biases of convolutions, 2 per batch-norm element, and activations and pools.",
    rules={
        **{operator: _twice(rule) for operator, rule in _PRODUCTS.items()},
        **dict.fromkeys((Add, Multiply), _combined),
        **dict.fromkeys((Activation, Softmax, MaxPool, AvgPool), each_input),
        **dict.fromkeys((AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool), each_input),
        **dict.fromkeys((LayerNorm, GroupNorm, InstanceNorm), _norm),
        BatchNorm: _batch_norm,
        Einsum: _einsum,
        Resize: _resize,
    },
    sees=_sees,
)
