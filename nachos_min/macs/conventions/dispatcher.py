"""What a tool sees that watches PyTorch's dispatcher: the operators which are executed, however they were written.

Two tools stand there, `ptflops_aten.py` and `flop_counter.py`. Both know convolutions and products of two arrays
of at least two axes each. Read `convention.py` first.
"""

from nachos_min.macs.conventions.convention import SEEN, Sight
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import Node


def dispatched(node: Node) -> Sight:
    """Return whether a node is executed as an operator that such a tool knows."""
    written = as_written(node)
    if "vector" in written.facts and "strided" not in written.facts:
        return Sight(0, "a product with a vector is an operator of its own, which it does not know")
    if "fused" in written.facts:
        return Sight(0, "attention is one fused operator on a processor, which it does not know")
    return SEEN
