"""What PyTorch's exporter to ONNX improves in a network before it writes the file.

What changes the count of a tool that reads the file: a batch norm behind a convolution is merged into its weights,
a product of matrices into a sum, the same operator on the same arrays is executed once, and what depends on
weights alone is computed beforehand. Read `convention.py` first.
"""

from collections import Counter

from nachos_min.macs.conventions.usual import as_written
from nachos_min.macs.ops import (
    Add,
    BatchNorm,
    Conv2d,
    Graph,
    Linear,
    Move,
    Multiply,
    Node,
    Pointwise,
    Reduce,
    Softmax,
    Source,
)

# Of what depends on weights alone, the exporter computes these; an exponential, say, stays in the file.
_COMPUTED = ("div", "sub", "sqrt", "neg", "reciprocal")


def merged_norms(graph: Graph) -> dict[int, bool]:
    """Return the batch norms that disappear in the convolution before them.

    The convolution's output must go nowhere else, and the norm must not measure its input.

    Args:
        graph: nodes in execution order.

    Returns:
        Position of the norm -> whether the convolution had a bias already.
    """
    readers = _readers(graph)
    found: dict[int, bool] = {}
    for position, node in enumerate(graph):
        written = as_written(node)
        if not isinstance(node.op, BatchNorm) or not written.used or "statistics" in written.facts:
            continue
        before = node.inputs[0]
        if before < 0 or readers[before] != 1:
            continue
        if before in found:
            found[position] = True
        elif _is_convolution(graph[before]):
            found[position] = bool(graph[before].op.columns.get("bias_adds", 0))
    return found


def merged_products(graph: Graph) -> dict[int, int]:
    """Return the sums that a product of two matrices is merged into although others read the product as well.

    Then it is executed twice. A product that only the sum reads disappears in it, which changes no count.

    Args:
        graph: nodes in execution order.

    Returns:
        Position of the sum -> position of the product.
    """
    readers = _readers(graph)
    return {
        position: source
        for position, node in enumerate(graph)
        if isinstance(node.op, Add) and len(node.inputs) == 2 and as_written(node).used
        for source in node.inputs
        if source >= 0 and as_written(graph[source]).function in ("torch.mm", "Tensor.mm") and readers[source] > 1
    }


def already_done(graph: Graph) -> frozenset[int]:
    """Return the nodes that do what an earlier node did, to the same arrays with the same weights.

    Only operators that their record describes completely: of moved elements, say, it does not tell which.

    Args:
        graph: nodes in execution order.
    """
    first: dict[object, int] = {}
    stands_for: dict[int, int] = {-1: -1}
    repeated = set()
    for position, node in enumerate(graph):
        stands_for[position] = position
        if as_written(node).used and _is_complete(node):
            sources = tuple(stands_for[source] for source in node.inputs)
            work = (node.op, node.batch, as_written(node).function, sources, _weights(position, node))
            earlier = first.setdefault(work, position)
            if earlier != position:
                stands_for[position] = earlier
                repeated.add(position)
    return frozenset(repeated)


def done_beforehand(graph: Graph) -> frozenset[int]:
    """Return the nodes that the exporter computes itself, as they depend on trained arrays alone.

    Args:
        graph: nodes in execution order.
    """
    known: set[int] = set()
    for position, node in enumerate(graph):
        if isinstance(node.op, Source):
            fixed = node.op.trained > 0
        else:
            computed = isinstance(node.op, Add | Multiply | Move) or (
                isinstance(node.op, Pointwise) and node.op.kind in _COMPUTED
            )
            fixed = computed and bool(node.inputs) and known.issuperset(node.inputs)
        if fixed:
            known.add(position)
    return frozenset(known)


def _readers(graph: Graph) -> Counter[int]:
    """Return how often the array of each node is read, by what is in the exported file."""
    same = already_done(graph)
    return Counter(
        source
        for position, node in enumerate(graph)
        if as_written(node).used and position not in same
        for source in node.inputs
    )


def _is_convolution(node: Node) -> bool:
    return isinstance(node.op, Conv2d) or (isinstance(node.op, Linear) and as_written(node).function == "F.conv2d")


def _weights(position: int, node: Node) -> int | None:
    """Return the node whose weights a node uses, maybe itself; batch norm always has statistics."""
    if node.shares is not None:
        return node.shares
    return position if node.op.params or isinstance(node.op, BatchNorm) else None


def _is_complete(node: Node) -> bool:
    """Whether two nodes with equal records do the same: a number added, or an axis, is not in a record."""
    if isinstance(node.op, Add | Multiply | Pointwise):
        return len(node.op.shapes) > 1
    return not isinstance(node.op, Move | Source | Softmax | Reduce)
