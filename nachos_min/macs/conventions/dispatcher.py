"""ptflops-aten and torch: they watch what PyTorch's dispatcher executes, however it was written.

Both know convolutions and products of two arrays of at least two axes each. ptflops' backend "aten" adds up
products, and biases where these are part of the operator, of one sample of its own. PyTorch's own FlopCounterMode
reports twice the products.
"""

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill
from nachos_min.macs.conventions.convention import ONCE, Convention, Multiplicity
from nachos_min.macs.conventions.patches import of_one_sample
from nachos_min.macs.ops import Node


def _dispatched(node: Node) -> Multiplicity:
    facts = bill.as_written(node).facts
    if "vector" in facts and "strided" not in facts:
        return 0, "a product with a vector is an operator of its own, which it does not know"
    if "fused" in facts:
        return 0, "attention is one fused operator on a processor, which it does not know"
    return ONCE


def _dispatched_for_ptflops(node: Node) -> Multiplicity:
    if bill.as_written(node).function == "torch.baddbmm":
        return 0, "baddbmm is an operator that it does not know"
    return _dispatched(node)


def _layer(node: Node) -> tuple[bill.Term, ...]:
    """A linear layer whose input must be copied into one block adds its bias in an operator of its own.

    An input with the axis of samples second need not be copied for one sample, which is what ptflops feeds.
    """
    written = bill.as_written(node)
    samples_second = "swapped" in written.facts and node.op.operands[0][0] == written.samples
    apart = "strided" in written.facts and not samples_second
    return (bill.products(node),) if apart else (bill.products(node), bill.biases(node))


def _sum(node: Node) -> tuple[bill.Term, ...]:
    """Of all sums it counts the one that is part of a matrix product, as a bias is."""
    return (bill.outputs(node),) if bill.method(node) == "addmm" else ()


PTFLOPS_ATEN = Convention(
    name="ptflops-aten",
    tool="ptflops 0.7.5 (backend aten)",
    unit="MACs",
    about="Products of convolutions and matrix products, and the biases of both; nothing else.",
    prices={**dict.fromkeys(bill.LAYERS, of_one_sample(_layer)), ops.Add: of_one_sample(_sum)},
    multiplicity=_dispatched_for_ptflops,
)

TORCH = Convention(
    name="torch",
    tool="torch 2.13.0 (torch.utils.flop_counter)",
    unit="FLOPs",
    about="Two operations, a multiplication and an addition, for each product; nothing else.",
    prices=dict.fromkeys(bill.LAYERS, bill.each(bill.products, factor=2)),
    multiplicity=_dispatched,
)
