"""ptflops-aten: the same tool below PyTorch's Python layer, where it watches what the dispatcher executes.

It adds up products, and biases where these are part of the operator; nothing else. As in `ptflops.py` the network
runs on one sample of ptflops' own. Read `dispatcher.py` first.
"""

from nachos_min.macs.conventions.convention import Convention, Sight, Term, biases, outputs, products
from nachos_min.macs.conventions.dispatcher import dispatched
from nachos_min.macs.conventions.ptflops import of_one_sample
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import Add, Conv2d, ConvTranspose2d, Einsum, Linear, MatMul, Node


def _sees(node: Node) -> Sight:
    if as_written(node).function == "torch.baddbmm":
        return Sight(0, "baddbmm is an operator that it does not know")
    return dispatched(node)


def _layer(node: Node) -> tuple[Term, ...]:
    """A linear layer whose input must be copied into one block adds its bias in an operator of its own.

    An input with the axis of samples second need not be copied for one sample, which is what ptflops feeds.
    """
    written = as_written(node)
    samples_second = "swapped" in written.facts and node.op.operands[0][0] == written.samples
    apart = "strided" in written.facts and not samples_second
    return (products(node),) if apart else (products(node), biases(node))


def _sum(node: Node) -> tuple[Term, ...]:
    """Of all sums it counts the one that is part of a matrix product, as a bias is."""
    added = as_written(node).function.rpartition(".")[2] == "addmm"
    return (outputs(node),) if added else ()


PTFLOPS_ATEN = Convention(
    name="ptflops-aten",
    tool="ptflops 0.7.5 (backend aten)",
    unit="MACs",
    about="Products of convolutions and matrix products, and the biases of both; nothing else.",
    rules={
        **dict.fromkeys((Conv2d, ConvTranspose2d, Linear, MatMul, Einsum), of_one_sample(_layer)),
        Add: of_one_sample(_sum),
    },
    sees=_sees,
)
