"""Exact sums over a graph: MACs, parameters, other work, peak memory, and what leaving at each exit has cost.

Read `ops.py` first. What is executed is counted: a layer that two nodes run counts twice, its parameters
once. All figures are Python integers of one sample; a batch multiplies them. What other tools would report is
not here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from nachos_min.macs.ops import Flatten, Graph, Node
from nachos_min.macs.record import CountError, Operator, Shape, name

_COLUMNS = ("bias_adds", "norm_elems", "pool_in", "pool_out", "mul_elems", "add_elems", "mean_out")


@dataclass(frozen=True)
class Count:
    """Totals of a graph for one sample.

    Args:
        macs: multiply-accumulates, taps on padded zeros included.
        params: trained values.
        columns: work that is not a MAC, by column; a column of nought is listed, a kind of activation that
            does not occur is not.
        valid_macs: multiply-accumulates without taps on padded zeros.
    """

    macs: int
    params: int
    columns: dict[str, int]
    valid_macs: int


@dataclass(frozen=True)
class LayerRow:
    """One node's line in a table.

    Args:
        name: the node's name.
        operator: the operator's name.
        exit: 0 for the backbone, i >= 1 for the head of exit i.
        operands: shapes read, of one sample.
        output: shape written, of one sample.
        batch: samples treated in this one execution; the work below is of all of them.
        macs: multiply-accumulates, taps on padded zeros included.
        valid_macs: the same without them.
        params: trained values, 0 where an earlier node's are shared.
        columns: work that is not a MAC, the columns it touches.
    """

    name: str
    operator: str
    exit: int
    operands: tuple[Shape, ...]
    output: Shape
    batch: int
    macs: int
    valid_macs: int
    params: int
    columns: dict[str, int]


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

    @property
    def worst(self) -> int:
        """MACs of a sample that leaves at the last exit."""
        return self.costs[-1]

    def total(self, exit_counts: Sequence[int]) -> int:
        """Return the MACs of all samples together: sum of n_i * cost_i.

        Args:
            exit_counts: n_1 .. n_E, samples that leave at each exit, integers >= 0.

        Returns:
            The exact total.

        Raises:
            CountError: not one count per exit, or a count that is no integer >= 0.
        """
        counts = tuple(exit_counts)
        if len(counts) != len(self.costs):
            raise CountError(f"exit counts must be one per exit ({len(self.costs)}), got {len(counts)}")
        for samples in counts:
            if type(samples) is not int or samples < 0:
                raise CountError(f"exit counts must be Python integers >= 0, got {samples!r}")
        return sum(samples * cost for samples, cost in zip(counts, self.costs, strict=True))

    def average(self, exit_counts: Sequence[int]) -> Fraction:
        """Return the MACs per sample, a fraction so that a limit can be checked without rounding.

        Args:
            exit_counts: n_1 .. n_E, samples that leave at each exit, integers >= 0, not all 0.

        Returns:
            total / (n_1 + ... + n_E)

        Raises:
            CountError: as for `total`, or there is no sample.
        """
        total = self.total(exit_counts)
        samples = sum(exit_counts)
        if samples == 0:
            raise CountError(f"an average needs at least one sample, got exit counts {tuple(exit_counts)}")
        return Fraction(total, samples)


def count(graph: Graph) -> Count:
    """Return the totals of a graph for one sample.

    Args:
        graph: nodes in execution order.

    Returns:
        The sums over all nodes, heads included.

    Raises:
        CountError: an operator without a rule, a node that reads what does not exist yet, shapes that do not
            agree.
    """
    rows = layer_table(graph)
    columns = Counter(dict.fromkeys(_COLUMNS, 0))
    for row in rows:
        columns.update(row.columns)
    return Count(
        macs=sum(row.macs for row in rows),
        params=sum(row.params for row in rows),
        columns=dict(columns),
        valid_macs=sum(row.valid_macs for row in rows),
    )


def layer_table(graph: Graph) -> tuple[LayerRow, ...]:
    """Return one row per node, in execution order.

    Args:
        graph: nodes in execution order.

    Returns:
        The rows; their sums are what `count` returns.

    Raises:
        CountError: as for `count`.
    """
    check_graph(graph)
    return tuple(
        LayerRow(
            name=node.name,
            operator=name(node.op),
            exit=node.exit,
            operands=node.op.operands,
            output=node.op.output,
            batch=node.batch,
            macs=node.batch * node.op.macs,
            valid_macs=node.batch * node.op.valid_macs,
            params=_new_params(node),
            columns={column: node.batch * amount for column, amount in node.op.columns.items()},
        )
        for node in graph
    )


def peak_activation_bytes(graph: Graph, bytes_per_element: int = 4) -> int:
    """Return the largest number of bytes that the arrays of one sample need at the same time.

    While a node runs, these arrays are held: what it reads, what it writes, and whatever a later node still
    reads (the map that a residual connection or the rest of the backbone waits for). An array is freed after
    its last reader; an output that nobody reads is handed to the caller and freed. A flattened array is its
    operand seen as a vector and takes no bytes of its own. Weights are not activations.

    Args:
        graph: nodes in execution order.
        bytes_per_element: >= 1; 4 for float32.

    Returns:
        The peak over all nodes, in bytes.

    Raises:
        CountError: as for `count`, or bytes_per_element < 1.

    Source: liveness analysis of straight-line code, derived here.
    """
    if type(bytes_per_element) is not int or bytes_per_element < 1:
        raise CountError(f"bytes_per_element must be a Python integer >= 1, got {bytes_per_element!r}")
    elements = check_graph(graph)
    owner = {-1: -1}  # whose memory a node's array is: its own, or that of the array it is a view of
    last_reader = {}
    for position, node in enumerate(graph):
        owner[position] = owner[node.inputs[0]] if isinstance(node.op, Flatten) else position
        for source in (*node.inputs, position):
            last_reader[owner[source]] = position
    held = {-1} if -1 in last_reader else set()
    peak = 0
    for position in range(len(graph)):
        held.add(owner[position])
        peak = max(peak, sum(elements[array] for array in held))
        held = {array for array in held if last_reader[array] > position}
    return peak * bytes_per_element


def exit_costs(graph: Graph, amounts: Sequence[int] | None = None) -> ExitCosts:
    """Return what a sample has executed when it leaves at each exit.

    Args:
        graph: nodes in execution order, each head's nodes together, heads 1, 2, .. E in order, and the last
            head at the end.
        amounts: what each node is billed; None: its MACs.

    Returns:
        Backbone, heads and cumulative costs.

    Raises:
        CountError: as for `count`, there is no exit, or the heads are not in that order.
    """
    check_graph(graph)
    billed = [node.batch * node.op.macs for node in graph] if amounts is None else amounts
    backbone: list[int] = []
    heads: list[int] = []
    reached = 0
    previous = 0
    for node, amount in zip(graph, billed, strict=True):
        if node.exit == 0:
            reached += amount
        elif node.exit == previous:
            heads[-1] += amount
        elif node.exit == len(heads) + 1:
            backbone.append(reached)
            heads.append(amount)
        else:
            raise CountError(
                f"node {node.name!r}: heads must be whole and in order, expected exit {len(heads) + 1}, "
                f"got {node.exit}"
            )
        previous = node.exit
    if previous == 0:
        raise CountError("the last node must belong to the last exit's head, got a backbone node or no node")
    paid = tuple(before + sum(heads[: i + 1]) for i, before in enumerate(backbone))
    return ExitCosts(tuple(backbone), tuple(heads), paid)


def check_graph(graph: Graph) -> dict[int, int]:
    """Return the elements of each node's array, having checked that the graph holds together.

    Args:
        graph: nodes in execution order.

    Returns:
        Position -> elements of the whole batch; the network's input at -1.

    Raises:
        CountError: an operator without a rule, a node that reads what does not exist yet, shapes that do not
            agree, weights shared with a node that has others.
    """
    arrays: dict[int, Shape] = {}
    elements: dict[int, int] = {}
    for position, node in enumerate(graph):
        _check_node(position, node)
        if node.shares is not None:
            _check_shares(graph, position, node.shares)
        if -1 in node.inputs and -1 not in arrays:
            arrays[-1] = node.op.operands[node.inputs.index(-1)]
            elements[-1] = node.batch * prod(arrays[-1])
        if node.relaid:
            _check_elements(node, [elements[source] for source in node.inputs])
        else:
            try:
                node.op.check_operands(tuple(arrays[source] for source in node.inputs))
            except CountError as error:
                raise CountError(f"node {node.name!r}: {error}") from None
        arrays[position] = node.op.output
        elements[position] = node.batch * prod(node.op.output)
    return elements


def _new_params(node: Node) -> int:
    if node.shares is not None:
        return 0
    return node.op.params if node.trained is None else node.trained


def _check_elements(node: Node, arriving: list[int]) -> None:
    for shape, elements in zip(node.op.operands, arriving, strict=True):
        if node.batch * prod(shape) != elements:
            raise CountError(
                f"node {node.name!r}: {name(node.op)} must read {node.batch} x {shape}, got {elements} elements"
            )


def _check_node(position: int, node: Node) -> None:
    if not isinstance(node.op, Operator):
        raise CountError(f"node {node.name!r}: no rule for counting operator {name(node.op)}")
    if len(node.inputs) != len(node.op.operands):
        raise CountError(
            f"node {node.name!r}: {name(node.op)} must read {len(node.op.operands)} arrays, got {len(node.inputs)}"
        )
    for source in node.inputs:
        if not -1 <= source < position:
            raise CountError(
                f"node {node.name!r}: inputs must be -1 or an earlier node (below {position}), got {source}"
            )
    for field, value, least in (("exit", node.exit, 0), ("batch", node.batch, 1)):
        if type(value) is not int or value < least:
            raise CountError(f"node {node.name!r}: {field} must be a Python integer >= {least}, got {value!r}")


def _check_shares(graph: Graph, position: int, earlier: int) -> None:
    node = graph[position]
    if not 0 <= earlier < position:
        raise CountError(f"node {node.name!r}: shares must be an earlier node (below {position}), got {earlier}")
    if graph[earlier].op.params != node.op.params:
        raise CountError(
            f"node {node.name!r}: it must have the {graph[earlier].op.params} parameters of "
            f"{graph[earlier].name!r}, whose weights it shares, got {node.op.params}"
        )
