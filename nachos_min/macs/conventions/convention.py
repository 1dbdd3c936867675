"""A convention: which terms a tool adds up for each operator, and which operators it sees at all.

Read `ops.py` and `written.py` first, then `thop.py` as an example. A convention is two things, both functions of
one node: `sees` says how often the tool counts the node (0 if it misses it, with the reason), `rules` says what
it adds up for an operator it counts. Where that depends on other nodes too (a batch norm that is merged into the
convolution before it), `among` says it for the nodes concerned. A total is the sum of the terms, so that two totals
can be compared term by term (`explain.py`). Terms are made by `products`, `biases`, `inputs` and `outputs` below.

To add a convention, write one such file and add it to `catalogue.py`. Its name then goes into the help of
`macs` (`cli.py`) and its file into the table of README.md, which tests ask for. `--verify` runs `peers.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from nachos_min.macs.count import ExitCosts, check_graph, exit_costs
from nachos_min.macs.ops import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Einsum,
    Flatten,
    GlobalAvgPool,
    Graph,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool,
    Move,
    Multiply,
    Node,
    Pointwise,
    Reduce,
    Resize,
    Slice,
    Softmax,
    Source,
)
from nachos_min.macs.record import Operator

_PLURALS: dict[type[Operator], str] = {
    Conv2d: "convolutions",
    ConvTranspose2d: "transposed convolutions",
    Linear: "linear layers",
    MatMul: "matrix products",
    Einsum: "Einstein sums",
    BatchNorm: "batch norm",
    LayerNorm: "layer norm",
    GroupNorm: "group norm",
    InstanceNorm: "instance norm",
    Softmax: "softmax",
    Add: "element-wise sums",
    Multiply: "element-wise products",
    MaxPool: "max pooling",
    AvgPool: "average pooling",
    AdaptiveAvgPool: "adaptive average pooling",
    AdaptiveMaxPool: "adaptive max pooling",
    GlobalAvgPool: "the mean over the map",
    Reduce: "reductions",
    Resize: "resizing",
    Flatten: "flattening",
    Slice: "slicing",
    Move: "moving elements",
    Source: "given arrays",
}


@dataclass(frozen=True)
class Term:
    """One summand of a count: factor * quantity.

    Args:
        subject: what the quantity is a number of, in the plural, the same text in every convention.
        factor: how much is added for each.
        quantity: how many, of the whole batch.
        note: why the quantity is not what its subject says, if it is not; a clause.
    """

    subject: str
    factor: int
    quantity: int
    note: str = ""

    @property
    def amount(self) -> int:
        """What the term adds."""
        return self.factor * self.quantity


@dataclass(frozen=True)
class Sight:
    """How often a tool counts a node: 0 if it misses it, with the reason as a clause."""

    times: int
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """A term of one node, as often as the tool counts the node; `node` is None for a term of the whole."""

    node: int | None
    term: Term
    sight: Sight

    @property
    def amount(self) -> int:
        """What the entry adds to the total."""
        return self.term.amount * self.sight.times


@dataclass(frozen=True)
class Tally:
    """A convention's count of a graph: its entries, whose amounts add up to the total."""

    entries: tuple[Entry, ...]

    @property
    def total(self) -> int:
        """The number that the tool reports."""
        return sum(entry.amount for entry in self.entries)

    def amounts(self, nodes: int) -> list[int]:
        """Return what each of a graph's `nodes` is billed; terms of the whole belong to none."""
        billed = [0] * nodes
        for entry in self.entries:
            if entry.node is not None:
                billed[entry.node] += entry.amount
        return billed


Rule = Callable[[Node], tuple[Term, ...]]
Counted = tuple[Sight, tuple[Term, ...]]  # how often a node is counted, and what it adds up then

SEEN = Sight(1)


def seen(_node: Node) -> Sight:
    """Return that a node is counted once, for a tool that misses nothing."""
    return SEEN


@dataclass(frozen=True)
class Convention:
    """What a tool counts.

    Args:
        name: as it is typed.
        tool: whose count this is, with the version it was held against; "" for our own.
        unit: what the tool calls its total, "MACs" or "FLOPs".
        about: one sentence for a reader who sees it for the first time.
        rules: operator -> its terms; an operator without a rule adds nothing.
        sees: node -> how often it is counted.
        among: graph -> position -> what `sees` and `rules` do not say of a node, because other nodes decide it.
        whole: terms that belong to no node, such as rounding, from the graph and the entries so far.
        leaving: graph -> what it says a sample costs that leaves at each exit; None: backbone and heads passed.
    """

    name: str
    tool: str
    unit: str
    about: str
    rules: Mapping[type[Operator], Rule]
    sees: Callable[[Node], Sight] = seen
    among: Callable[[Graph], Mapping[int, Counted]] | None = None
    whole: Callable[[Graph, tuple[Entry, ...]], tuple[Term, ...]] | None = None
    leaving: Callable[[Graph], ExitCosts] | None = None

    def exit_costs(self, graph: Graph) -> ExitCosts:
        """Return what the tool would say a sample costs that leaves at each exit.

        Args:
            graph: nodes in execution order, with heads as `exit_costs` in `count.py` wants them.

        Returns:
            Backbone, heads and costs in the tool's own unit.

        Raises:
            CountError: the graph is broken, or has no exits.
        """
        if self.leaving is not None:
            return self.leaving(graph)
        return exit_costs(graph, self.tally(graph).amounts(len(graph)))

    def tally(self, graph: Graph, *, checked: bool = False) -> Tally:
        """Return what the tool would count.

        Args:
            graph: nodes in execution order.
            checked: whether the caller has checked the graph, as one does who counts it by many conventions.

        Returns:
            Entries in execution order, then those of the whole.

        Raises:
            CountError: the graph is broken.
        """
        if not checked:
            check_graph(graph)
        decided = self.among(graph) if self.among is not None else {}
        entries = []
        for position, node in enumerate(graph):
            sight, terms = decided.get(position) or (self.sees(node), self.terms(node))
            entries += [Entry(position, term, sight) for term in terms]
        if self.whole is not None:
            entries += [Entry(None, term, SEEN) for term in self.whole(graph, tuple(entries))]
        return Tally(tuple(entries))

    def terms(self, node: Node) -> tuple[Term, ...]:
        """Return the terms of a node that is counted once."""
        return terms_by(self.rules, node)


def terms_by(rules: Mapping[type[Operator], Rule], node: Node) -> tuple[Term, ...]:
    """Return what `rules` add up for a node; nothing if there is none for its operator."""
    rule = rules.get(type(node.op))
    return () if rule is None else rule(node)


def _plural(op: Operator) -> str:
    """Return what to call operators such as this one in a sentence."""
    if isinstance(op, Activation):
        return f"{op.kind} activations"
    if isinstance(op, Pointwise):
        return f"element-wise {op.kind}"
    return _PLURALS[type(op)]


def products(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each multiply-accumulate of a node."""
    return Term(f"products of {_plural(node.op)}", factor, node.batch * node.op.macs)


def biases(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each output element that gets a bias."""
    added = node.op.columns.get("bias_adds", 0)
    return Term(f"bias additions of {_plural(node.op)}", factor, node.batch * added)


def inputs(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each element of the first array that a node reads."""
    return Term(f"elements into {_plural(node.op)}", factor, elements_in(node))


def outputs(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each element that a node writes."""
    return Term(f"elements out of {_plural(node.op)}", factor, elements_out(node))


def each_product(node: Node) -> tuple[Term, ...]:
    """Return the terms of the commonest rule: one for each multiply-accumulate, and nothing else."""
    return (products(node),)


def each_input(node: Node) -> tuple[Term, ...]:
    """Return the terms of a rule: one for each element of the first array that is read, and nothing else."""
    return (inputs(node),)


def each_output(node: Node) -> tuple[Term, ...]:
    """Return the terms of a rule: one for each element that is written, and nothing else."""
    return (outputs(node),)


def elements_in(node: Node) -> int:
    """Return the elements of the first array that a node reads, of the whole batch."""
    return node.batch * prod(node.op.operands[0])


def elements_out(node: Node) -> int:
    """Return the elements that a node writes, of the whole batch."""
    return node.batch * prod(node.op.output)
