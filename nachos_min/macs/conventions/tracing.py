"""What a tool sees that runs a network once and keeps the operators on which the output depends.

`fvcore.py` and `torchprofile.py` read such a trace, `onnx_tool.py` a file that was exported from one. All three
see functions and modules alike; all three lose a head that ran but whose answer was not taken. What is computed
from lengths, such as `x.shape[2] * x.shape[3]` or where `chunk` cuts, is in a trace as well: torchprofile and
onnx-tool add a few for each such step, which is not predicted. Read `convention.py` first.
"""

from math import prod

from nachos_min.macs.conventions.convention import SEEN, Sight, Term, products
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import Einsum, Node

DROPPED = Sight(0, "the output does not depend on it, so it is not in the trace")


def kept(node: Node) -> Sight:
    """Return whether a node is in the trace of a network."""
    return SEEN if as_written(node).used else DROPPED


def traced(node: Node) -> Sight:
    """Return whether a node is in the trace under a name that fvcore and torchprofile look up.

    A convolution that was given its padding as a word is an operator of another name, which neither looks up.
    """
    word = as_written(node).padding
    if word and kept(node).times:
        return Sight(0, f"with padding='{word}' it is traced as an operator that the tool does not know")
    return kept(node)


def product_of_lengths(node: Node, dots: str = "") -> tuple[Term, ...]:
    """Return one for each combination of an Einstein sum's letters, summed over or not.

    torchprofile and onnx-tool read a letter's length off the last array that has it.

    Args:
        node: an Einstein sum.
        dots: what the tool does with an equation that has dots, a clause; such a sum is not counted.
    """
    assert isinstance(node.op, Einsum)
    if "dots" in as_written(node).facts:
        return (Term(products(node).subject, 1, 0, dots),)
    lengths: dict[str, int] = {}
    for text, shape in zip(node.op.equation.partition("->")[0].split(","), node.op.shapes, strict=True):
        lengths |= dict(zip(text, shape, strict=True))
    return (Term(products(node).subject, 1, node.batch * prod(lengths.values())),)
