"""fvcore: a trace of the network, in which it looks up the operators it knows; it calls a product one FLOP.

Batch norm adds 2 for each element (1 without a scale), as much as it costs in training; other norms add 5 or 4.
Read `tracing.py` first.
"""

from math import floor, prod

from nachos_min.macs.conventions.convention import Convention, Sight, Term, each_product, inputs, outputs, products
from nachos_min.macs.conventions.patched import products_of_left
from nachos_min.macs.conventions.tracing import traced
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import (
    AdaptiveAvgPool,
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
    Node,
    Resize,
)

# Functions whose operator has no rule in fvcore, and is left out with a warning.
_UNKNOWN = {"F.scaled_dot_product_attention", "torch.baddbmm", "Tensor.baddbmm"} | {
    f"{place}.{name}" for place in ("torch", "Tensor") for name in ("mv", "dot", "inner", "vdot")
}
_INTERPOLATION = {"nearest": 1, "bilinear": 4}

# Two equations it knows by heart, whatever their letters; all others go through NumPy's estimate.
_KNOWN = ("abc,abd->acd", "abc,adc->adb")


def _sees(node: Node) -> Sight:
    function = as_written(node).function
    if function in _UNKNOWN and traced(node).times:
        return Sight(0, f"it has no rule for {function}")
    return traced(node)


def _matrix_product(node: Node) -> tuple[Term, ...]:
    """bmm and addmm do not broadcast and are counted exactly; matmul is counted as if it did not."""
    assert isinstance(node.op, MatMul)
    if as_written(node).function.endswith(("bmm", "addmm")):
        return each_product(node)
    return (products_of_left(node, node.op.operands),)


def _einsum(node: Node) -> tuple[Term, ...]:
    """Half of what NumPy prints, to four digits, for the cheapest way to contract the arrays, and one more."""
    assert isinstance(node.op, Einsum)
    op, subject = node.op, products(node).subject
    size = prod(op.lengths.values())
    letters = dict.fromkeys(letter for letter in op.equation if letter.isalpha())
    if op.equation.translate({ord(letter): 97 + place for place, letter in enumerate(letters)}) in _KNOWN:
        return (Term(subject, 1, node.batch * size),)
    terms, _, result = op.equation.partition("->")
    summed = bool(set(terms) - {","} - set(result))
    printed = float(f"{size * (1 + summed) + 1:.3e}")
    quantity = node.batch * floor(printed / 2)
    return (Term(subject, 1, quantity, "half of an estimate that NumPy prints with four digits"),)


def _batch_norm(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, BatchNorm)
    written = as_written(node)
    measured = written.training or "statistics" in written.facts
    return (inputs(node, (4 if measured else 1) + node.op.affine),)


def _norm(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, GroupNorm | InstanceNorm | LayerNorm)
    return (inputs(node, 4 + node.op.affine),)


def _adaptive(node: Node) -> tuple[Term, ...]:
    return (inputs(node),) if as_written(node).function == "F.adaptive_avg_pool2d" else ()


def _resize(node: Node) -> tuple[Term, ...]:
    """Maps only: a sequence, here a map that is 1 high and stays so, is resized by another operator."""
    assert isinstance(node.op, Resize)
    sequence = node.op.input[0] == node.op.size[0] == 1
    return () if sequence else (outputs(node, _INTERPOLATION.get(node.op.mode, 0)),)


FVCORE = Convention(
    name="fvcore",
    tool="fvcore 0.1.5.post20221221",
    unit="FLOPs",
    about="Products of traced operators, called FLOPs; 2 per batch-norm element, 1 per adaptively pooled one.",
    rules={
        **dict.fromkeys((Conv2d, ConvTranspose2d, Linear), each_product),
        MatMul: _matrix_product,
        Einsum: _einsum,
        BatchNorm: _batch_norm,
        **dict.fromkeys((GroupNorm, InstanceNorm, LayerNorm), _norm),
        **dict.fromkeys((AdaptiveAvgPool, GlobalAvgPool), _adaptive),
        Resize: _resize,
    },
    sees=_sees,
)
