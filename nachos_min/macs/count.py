"""Exact sums over a graph: MACs, parameters, other work, peak memory, and what leaving at each exit has cost.

What is executed is counted: a layer that two nodes run counts twice, its parameters once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from nachos_min.macs.ops import Flatten, Graph, Node
from nachos_min.macs.record import CountError, Operator, Shape, name

_COLUMNS = ("bias_adds", "norm_elems", "pool_in", "pool_out", "mul_elems", "add_elems", "mean_out")


@dataclass(frozen=True)
class Totals:
    """Totals of a graph for one sample.

    Args:
        macs: multiply-accumulates, taps on padded zeros included.
        params: trained values.
        columns: work that is not a MAC, by column; a kind of activation that does not occur is not listed.
        valid_macs: multiply-accumulates without taps on padded zeros.
    """

    macs: int
    params: int
    columns: dict[str, int]
    valid_macs: int


@dataclass(frozen=True)
class ExitCosts:
    """MACs of each part of an early-exit network, and what a sample that leaves at each exit has executed.

    Args:
        backbone: B_1 .. B_E, from the input up to the map that feeds exit i.
        heads: H_1 .. H_E, of head i alone.
        costs: cost_1 .. cost_E with cost_i = B_i + H_1 + ... + H_i: every head passed on the way has run.
    """

    backbone: tuple[int, ...]
    heads: tuple[int, ...]
    costs: tuple[int, ...]


def count(graph: Graph) -> Totals:
    """Return the totals of a graph for one sample, heads included.

    Raises:
        CountError: as for `check_graph`.
    """
    check_graph(graph)
    columns = Counter(dict.fromkeys(_COLUMNS, 0))
    for node in graph:
        columns.update(node.columns)
    macs, valid_macs = sum(node.macs for node in graph), sum(node.valid_macs for node in graph)
    return Totals(macs, sum(node.params for node in graph), dict(columns), valid_macs)


def peak_activation_bytes(graph: Graph, bytes_per_element: int = 4) -> int:
    """Return the largest number of bytes that the arrays of one sample need at the same time.

    While a node runs, these arrays are held: what it reads, what it writes, and what a later node still reads, such
    as a residual. A flattened array is its operand seen as a vector and takes no bytes. Weights are not counted.

    Raises:
        CountError: as for `check_graph`, or bytes_per_element < 1.

    Source: liveness analysis of straight-line code, derived here.
    """
    if type(bytes_per_element) is not int or bytes_per_element < 1:
        raise CountError(f"bytes_per_element must be a Python integer >= 1, got {bytes_per_element!r}")
    elements = check_graph(graph)
    owner = {-1: -1}  # whose memory a node's array is: its own, or that of the array it is a view of
    last_reader: dict[int, int] = {}
    for position, node in enumerate(graph):
        owner[position] = owner[node.inputs[0]] if isinstance(node.op, Flatten) else position
        for source in (*node.inputs, position):
            last_reader[owner[source]] = position
    freed = Counter[int]()  # elements that no node after this one reads
    for array, reader in last_reader.items():
        freed[reader] += elements[array]
    peak, held = 0, elements.get(-1, 0)
    for position in range(len(graph)):
        held += elements[position] if owner[position] == position else 0
        peak = max(peak, held)
        held -= freed[position]
    return peak * bytes_per_element


def exit_costs(graph: Graph, amounts: Sequence[int] | None = None) -> ExitCosts:
    """Return what a sample has executed when it leaves at each exit.

    Args:
        graph: nodes in execution order, each head's nodes together, heads 1 .. E in order, the last at the end.
        amounts: what each node costs; None: its MACs.

    Raises:
        CountError: as for `check_graph`, there is no exit, or the heads are not in that order.
    """
    check_graph(graph)
    backbone: list[int] = []
    heads: list[int] = []
    before = previous = 0
    for node, amount in zip(graph, amounts or [node.macs for node in graph], strict=True):
        if node.exit == 0:
            before += amount
        elif node.exit == previous:
            heads[-1] += amount
        elif node.exit == len(heads) + 1:
            backbone.append(before)
            heads.append(amount)
        else:
            expected = f"heads must be in order and together, expected exit {len(heads) + 1}"
            raise CountError(f"node {node.name!r}: {expected}, got {node.exit}")
        previous = node.exit
    if previous == 0:
        raise CountError("the last node must belong to the last exit's head, got a backbone node or no node")
    costs = tuple(map(sum, zip(backbone, accumulate(heads), strict=True)))
    return ExitCosts(tuple(backbone), tuple(heads), costs)


def check_graph(graph: Graph) -> dict[int, int]:
    """Return the elements of each node's array by position, the network's input at -1; the graph is checked.

    Raises:
        CountError: an operator without a rule, an input that does not exist yet, other shapes or shared weights.
    """
    arrays: dict[int, Shape] = {}
    elements: dict[int, int] = {}
    for position, node in enumerate(graph):
        try:
            _check_node(graph, position)
            if -1 in node.inputs and -1 not in arrays:
                arrays[-1] = node.op.operands[node.inputs.index(-1)]
                elements[-1] = node.batch * prod(arrays[-1])
            _check_operands(node, arrays, elements)
        except CountError as error:
            raise CountError(f"node {node.name!r}: {error}") from None
        arrays[position] = node.op.output
        elements[position] = node.batch * prod(node.op.output)
    return elements


def _check_node(graph: Graph, position: int) -> None:
    node = graph[position]
    if not isinstance(node.op, Operator):
        raise CountError(f"no rule for counting operator {name(node.op)}")
    reads = len(node.op.operands)
    if len(node.inputs) != reads:
        raise CountError(f"{name(node.op)} must read {reads} arrays, got {len(node.inputs)}")
    for source in node.inputs:
        if not -1 <= source < position:
            raise CountError(f"inputs must be -1 or an earlier node (below {position}), got {source}")
    for field, value, least in (("exit", node.exit, 0), ("batch", node.batch, 0), ("real", node.real, 1)):
        if type(value) is not int or value < least:
            raise CountError(f"{field} must be a Python integer >= {least}, got {value!r}")
    if node.shares is None:
        return
    if not 0 <= node.shares < position:
        raise CountError(f"shares must be an earlier node (below {position}), got {node.shares}")
    earlier = graph[node.shares]
    if earlier.op.params != node.op.params:
        theirs = f"the {earlier.op.params} parameters of {earlier.name!r}, whose weights it shares"
        raise CountError(f"it must have {theirs}, got {node.op.params}")


def _check_operands(node: Node, arrays: dict[int, Shape], elements: dict[int, int]) -> None:
    """Check that the arrays that arrive have the shapes that the record was made for, or as many elements."""
    shapes = tuple(arrays[source] for source in node.inputs)
    if not node.relaid and shapes != node.op.operands:
        expected, got = (" and ".join(map(str, each)) or "nothing" for each in (node.op.operands, shapes))
        raise CountError(f"{name(node.op)}: must read {expected}, got {got}")
    for source, shape in zip(node.inputs, node.op.operands, strict=True):
        if node.relaid and node.batch * prod(shape) != elements[source]:
            raise CountError(f"{name(node.op)} must read {node.batch} x {shape}, got {elements[source]} elements")
