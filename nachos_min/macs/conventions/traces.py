"""fvcore and torchprofile: a trace of one run, in which the tool looks up the operators it knows.

Functions and modules are seen alike. Operators on which the output does not depend are not in the trace, such as a
head whose answer was not taken. Arithmetic on lengths is; torchprofile adds a few for each step of it, which is not
predicted. fvcore calls a product one FLOP. Version 0.0.2 of torchprofile, in which batch norm adds nothing, is
behind the figures published for NACHOS.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from math import floor, prod

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill, recurrent
from nachos_min.macs.conventions.convention import ONCE, Convention, Multiplicity
from nachos_min.macs.ops import Node
from nachos_min.macs.record import Operator

_LAYERS = (ops.Conv2d, ops.Linear)
_UNSEEN = {"F.rms_norm", *bill.WHOLE}
_FUSED = {bill.ATTENTION} | bill.names("torch. Tensor.", "baddbmm")


def in_trace(node: Node) -> Multiplicity:
    """Return whether a node is in the trace of a network."""
    if bill.as_written(node).used:
        return ONCE
    return 0, "the output does not depend on it, so it is not in the trace"


def _looked_up(unknown: Collection[str]) -> Callable[[Node], Multiplicity]:
    """Return the multiplicity for a tool that knows neither the functions `unknown` nor padding given as a word."""

    def multiplicity(node: Node) -> Multiplicity:
        written = bill.as_written(node)
        if written.used and written.padding:
            return 0, f"with padding='{written.padding}' it is traced as an operator that the tool does not know"
        if written.used and written.function in unknown:
            return 0, f"it has no rule for {written.function}"
        return in_trace(node)

    return multiplicity


def product_of_lengths(dots: str) -> bill.Rule:
    """Return the rule that adds one for each combination of an Einstein sum's letters, summed over or not.

    A letter's length is that in the last array that has it. `dots` says why an equation with dots adds nothing.
    """

    def rule(node: Node) -> tuple[bill.Term, ...]:
        op = node.op_as(ops.Einsum)
        lengths: dict[str, int] = {}
        if "dots" in bill.as_written(node).facts:
            return (bill.products_as(node, 0, dots),)
        for letters, shape in zip(op.terms, op.shapes, strict=True):
            lengths |= dict(zip(letters, shape, strict=True))
        return (bill.products_as(node, node.batch * prod(lengths.values())),)

    return rule


# Two equations that fvcore knows by heart, whatever their letters; all others go through NumPy's estimate.
_KNOWN = ("abc,abd->acd", "abc,adc->adb")


def _fvcore_matmul(node: Node) -> tuple[bill.Term, ...]:
    """bmm and addmm do not broadcast and are counted exactly; matmul is counted as if it did not."""
    if bill.as_written(node).function.endswith(("bmm", "addmm")):
        return (bill.products(node),)
    return (bill.products_of_left(node, node.op.operands),)


def _fvcore_einsum(node: Node) -> tuple[bill.Term, ...]:
    """Half of what NumPy prints for the cheapest way to contract the arrays."""
    op = node.op_as(ops.Einsum)
    letters = dict.fromkeys(letter for letter in op.equation if letter.isalpha())
    if op.equation.translate({ord(letter): 97 + place for place, letter in enumerate(letters)}) in _KNOWN:
        return (bill.products_as(node, node.batch * prod(op.lengths.values())),)
    note = "half of an estimate that NumPy prints with four digits"
    return (bill.products_as(node, node.batch * floor(bill.numpy_estimate(op) / 2), note),)


def _fvcore_norm(node: Node) -> tuple[bill.Term, ...]:
    """Batch norm that does not measure its input is a scale and a shift."""
    written = bill.as_written(node)
    return (bill.normalising(node, measured=written.training or "statistics" in written.facts),)


def _fvcore_adaptive(node: Node) -> tuple[bill.Term, ...]:
    return (bill.inputs(node),) if bill.as_written(node).function == "F.adaptive_avg_pool2d" else ()


def _fvcore_resize(node: Node) -> tuple[bill.Term, ...]:
    """Maps of two axes only: others are resized by other operators."""
    op = node.op_as(ops.Resize)
    if op.spatial != 2:
        return ()
    return bill.by_kind(bill.outputs, {"nearest": 1, "bilinear": 4})(node)


FVCORE = Convention(
    name="fvcore",
    tool="fvcore 0.1.5.post20221221",
    unit="FLOPs",
    about="Products of traced operators, called FLOPs; 2 per batch-norm element, 1 per adaptively pooled one.",
    prices={
        **dict.fromkeys((*_LAYERS, ops.ConvTranspose2d), bill.each(bill.executed)),
        ops.MatMul: _fvcore_matmul,
        ops.Einsum: _fvcore_einsum,
        **dict.fromkeys(bill.NORMS, _fvcore_norm),
        **dict.fromkeys((ops.AdaptiveAvgPool, ops.GlobalAvgPool), _fvcore_adaptive),
        ops.Resize: _fvcore_resize,
        ops.Recurrent: recurrent.FVCORE,
    },
    multiplicity=_looked_up(_FUSED | _UNSEEN | bill.names("torch. Tensor.", "mv dot inner vdot")),
)


def _transposed(node: Node) -> tuple[bill.Term, ...]:
    """Every output pixel is billed, and the groups are told from the weights as if these were a convolution's.

    Those begin with the output channels, a transposed one's with the input channels.
    """
    op = node.op_as(ops.ConvTranspose2d)
    inward = op.out_channels // op.groups if op.out_channels == op.input[-1] else op.input[-1]
    note = "every output pixel is billed, not every input pixel"
    note += ", and groups are ignored" if op.groups > 1 and inward == op.input[-1] else ""
    return (bill.products_as(node, bill.taps(node, inward), note),)


def _norm(node: Node) -> tuple[bill.Term, ...]:
    return (bill.inputs(node),) if node.op_as(ops.Norm).affine else ()


def _activation(node: Node) -> tuple[bill.Term, ...]:
    """Spelt-out h-swish has a product; of the others, only leaky ReLU has a rule."""
    function = bill.as_written(node).function
    if function.startswith("x * "):
        return (replace(bill.inputs(node), note=f"the product in {function}"),)
    return (bill.inputs(node),) if node.op_as(ops.Activation).kind == "leaky_relu" else ()


def mean_over_width(node: Node) -> tuple[bill.Term, ...]:
    """Return what a mean over the map adds that is taken over one axis and then over the other: a column each."""
    if bill.as_written(node).function != "mean(3).mean(2)":
        return ()
    columns = bill.inputs(node).quantity // node.op.operands[0][1]
    return (bill.Term("elements out of the mean over the width", 1, columns),)


_PRICES: dict[type[Operator], bill.Rule] = {
    **dict.fromkeys((*_LAYERS, ops.MatMul), bill.each(bill.products)),
    ops.ConvTranspose2d: _transposed,
    ops.Einsum: product_of_lengths("an equation with dots is not counted"),
    **dict.fromkeys(bill.NORMS, _norm),
    ops.Activation: _activation,
    **dict.fromkeys((ops.Multiply, ops.AvgPool, ops.AdaptiveAvgPool), bill.each(bill.outputs)),
    ops.GlobalAvgPool: lambda node: (bill.outputs(node), *mean_over_width(node)),
    ops.Reduce: bill.by_kind(bill.outputs, {"mean": 1}, others=False),
    ops.Resize: bill.by_kind(bill.outputs, {"bilinear": 4}, others=False),
    ops.Recurrent: recurrent.TORCHPROFILE,
}
_UNKNOWN = bill.names("torch. Tensor.", "mm mv dot inner vdot multiply multiply_") | _UNSEEN

TORCHPROFILE = Convention(
    name="torchprofile",
    tool="torchprofile 0.1.0",
    unit="MACs",
    about="Products of traced operators; 1 per batch-norm element, element-wise product and element of a mean.",
    prices=_PRICES,
    multiplicity=_looked_up(_UNKNOWN),
)

_LATER = (ops.BatchNorm, ops.GroupNorm, ops.Einsum, ops.Resize, ops.Recurrent)  # operators without a rule in 0.0.2

# On the PyTorch of its day: later ones trace a linear layer as an operator that it does not know.
TORCHPROFILE_0_0_2 = Convention(
    name="torchprofile-0.0.2",
    tool="torchprofile 0.0.2",
    unit="MACs",
    about="The same before batch norm was counted: products, and 1 per element-wise product and element of a mean.",
    prices={
        **{operator: rule for operator, rule in _PRICES.items() if operator not in _LATER},
        **dict.fromkeys((ops.InstanceNorm, ops.LayerNorm), bill.each(bill.inputs)),
    },
    multiplicity=_looked_up(_UNKNOWN | _FUSED),
)
