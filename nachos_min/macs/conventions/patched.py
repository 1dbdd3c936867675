"""What ptflops and calflops have in common: functions of torch replaced by ones that count by shapes.

Both take the shapes that a call was given and neither broadcasts them as PyTorch would: an element-wise function's
are aligned at their first axes, not at their last, and a product of arrays is all of the first array times the
last axis of the second. Read `convention.py` first.
"""

from collections.abc import Collection
from math import prod

from nachos_min.macs.conventions.convention import SEEN, Sight, Term, outputs, products
from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import Activation, Node
from nachos_min.macs.record import Shape, broadcast

# These take their activation when they are made; what is replaced later is not what they call.
_TAKEN_BEFORE = ("TransformerEncoderLayer", "TransformerDecoderLayer")


def called(node: Node, replaced: Collection[str]) -> Sight:
    """Return whether a node is a call of a function that the tool replaces.

    Args:
        node: any node.
        replaced: names of functions, as `Written` has them.
    """
    written = as_written(node)
    if written.function not in replaced:
        return Sight(0, f"not a function it replaces ({written.function})")
    if written.module in _TAKEN_BEFORE and isinstance(node.op, Activation):
        return Sight(0, f"{written.module} took {written.function} when it was made, before it was replaced")
    return SEEN


def elements_aligned_left(node: Node, shapes: tuple[Shape, ...]) -> Term:
    """Return one for each element of arrays combined, as the tools align them.

    Args:
        node: an element-wise sum or product.
        shapes: of its arrays, as the tool is given them.

    Returns:
        The term; the note is set where the alignment matters.
    """
    if as_written(node).function.rpartition(".")[2] in ("addmm", "baddbmm"):
        return Term(outputs(node).subject, 1, prod(shapes[0]), "elements of the array that is added")
    axes = max(len(shape) for shape in shapes)
    padded = [shape + (1,) * (axes - len(shape)) for shape in shapes]
    counted = prod(max(lengths) for lengths in zip(*padded, strict=True))
    common: Shape | None = ()
    for shape in shapes:
        common = None if common is None else broadcast(common, shape)
    note = "" if counted == prod(common or ()) else "shapes are aligned at their first axes, not at their last"
    return Term(outputs(node).subject, 1, counted, note)


def products_of_left(node: Node, shapes: tuple[Shape, ...]) -> Term:
    """Return one for each element of the left array times each column of the right one.

    Args:
        node: a matrix product.
        shapes: (..., m, k) and (..., k, n), as the tool is given them.

    Returns:
        The term; the note is set where that is not the number of products.
    """
    subject = products(node).subject
    left, right = shapes
    if "vector" in as_written(node).facts:
        return Term(subject, 1, prod(left) * right[-2], "the length of a vector is taken for its columns")
    counted = prod(left) * right[-1]
    exact = prod(broadcast(left[:-2], right[:-2]) or ()) * left[-2] * left[-1] * right[-1]
    return Term(subject, 1, counted, "" if counted == exact else "the first array is not repeated")
