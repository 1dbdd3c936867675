"""What `count_macs` returns: a number that knows what it is the sum of.

Where what runs depends on the data there is no one number, but a least and a most. Modules, operators, parameters
and columns are then those of the dearest way through the branches.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from nachos_min.errors import cut
from nachos_min.macs.conventions import Convention, Difference, Term, amounts, explain, find_convention
from nachos_min.macs.count import count
from nachos_min.macs.ops import Graph, Node
from nachos_min.macs.record import CountError, Shape
from nachos_min.macs.record import name as operator_of

if TYPE_CHECKING:  # a graph need not wait for the reader of files
    from nachos_min.macs.readers.onnx_reader import Branch

    _Number = int  # to a type checker every count is a number
else:
    _Number = object

_SMALL = 20  # rows of a table that nobody asked for
_DEEPEST = 50  # modules inside one another that a tree shows one by one
Row = tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """What is counted: graphs of records, and the arrays that they were made for."""

    name: str
    input: Shape  # of its first array, as its source has it: (C, H, W), or with a batch axis in front
    graph: Graph  # what always runs
    branches: "tuple[Branch, ...]" = ()  # what runs on a condition
    inputs: dict[str, Shape] = field(default_factory=dict)  # of all arrays, by name, if there are several
    stages: tuple[int, ...] = ()  # after which an early-exit network has an exit

    def ways(self, cost: Callable[[Graph], int]) -> tuple[int, int, list[Graph]]:
        """Return the least and the most `cost` of all ways through the branches, and the graphs of the dearest."""
        inside: dict[str, list[Branch]] = {}
        for branch in self.branches:
            inside.setdefault(branch.inside, []).append(branch)

        def through(graph: Graph, name: str) -> tuple[int, int, list[Graph]]:
            least = most = cost(graph)
            graphs, choices = [graph], dict[str, list[tuple[int, int, list[Graph]]]]()
            for branch in inside.get(name, ()):
                choices.setdefault(branch.decision, []).append(through(branch.graph, branch.name))
            for each in choices.values():
                dearest = max(each, key=lambda way: way[1])
                least, most = least + min(way[0] for way in each), most + dearest[1]
                graphs += dearest[2]
            return least, most, graphs

        return through(self.graph, "")


class Exit(NamedTuple):
    """What leaving at one exit costs: `backbone` up to it, its `head`, and in all, heads before it included."""

    stage: int
    backbone: int
    head: int
    cost: int


class Part:
    """A module, or one operator in it: what it and all parts inside add."""

    def __init__(self, name: str, node: Node | None = None, amount: int = 0) -> None:
        self.name, self.node, self.amount = name, node, amount
        self.params = node.params if node else 0
        self.inside: dict[object, Part] = {}  # modules by name, operators one by one

    def put(self, path: Row, leaf: "Part") -> None:
        """Add an operator in the module of these names."""
        modules = [self]
        for name in path:
            modules.append(modules[-1].inside.setdefault(name, Part(name)))
        for each in modules:
            each.amount += leaf.amount
            each.params += leaf.params
        modules[-1].inside[leaf] = leaf

    def lines(self, depth: int | None = None, level: int = 0) -> Iterator[tuple[int, str, "Part"]]:
        """Yield (level, name, part) of all parts inside to a depth; what is alone in its module stands for it."""
        for part in self.inside.values():
            name = part.name
            while len(part.inside) == 1:
                (part,) = part.inside.values()
                name += f".{part.name}" if part.node is None else ""
            yield level, name, part
            if depth is None or depth > 1:
                yield from part.lines(depth and depth - 1, level + 1)


class _Table:
    """What is a table at a prompt and in a notebook."""

    @abstractmethod
    def _shown(self) -> tuple[str, str, list[Row]]:
        """Return a title, the side of each column ("l" or "r"), and all rows, that of headings first."""

    def __repr__(self) -> str:
        return text_table(*self._shown())

    def _repr_html_(self) -> str:
        title, sides, rows = self._shown()
        style = "white-space: pre; text-align:"
        tags = [f'<td style="{style} {"left" if side == "l" else "right"}">' for side in sides]
        cells = ("".join(tag + escape(cut(cell)) for tag, cell in zip(tags, row, strict=True)) for row in rows)
        return f"<table><caption>{escape(cut(title))}</caption><tr>{'<tr>'.join(cells)}</table>"


class Count(_Table, _Number):
    """The total of a network by one convention. It acts as the number, where there is one.

    Attributes:
        least, most: totals of the cheapest and the dearest way through branches that depend on the data.
        convention, unit: name of the convention, and what it calls its total, such as "MACs".
        name, input, inputs: what was counted, the shape of its first array, and of all, by name, if several.
    """

    def __init__(self, network: Network, rules: Convention, least: int, most: int, graphs: list[Graph]) -> None:
        self.network, self._rules, self._graphs = network, rules, graphs
        self.least, self.most = least, most
        self.convention = rules.name
        self.unit = rules.unit
        self.name, self.inputs = network.name, network.inputs
        self.input = network.input

    def __reduce__(self) -> Any:
        return count_network, (self.network, self.convention)

    @property
    def total(self) -> int:
        """The number; CountError if it depends on the data."""
        if self.least == self.most:
            return self.least
        span = f"at least {self.least:,}, at most {self.most:,}"
        raise CountError(f"{self.unit} of {self.name} depend on its data: {span}")

    @property
    def params(self) -> int:
        """Trained values."""
        return sum(node.params for graph in self._graphs for node in graph)

    @property
    def exits(self) -> tuple[Exit, ...]:
        """What leaving at each exit costs."""
        if not self.network.stages:
            return ()
        costs = self._rules.exit_costs(self.network.graph)
        return tuple(map(Exit, self.network.stages, costs.backbone, costs.heads, costs.costs))

    @property
    def columns(self) -> dict[str, int]:
        """Work that is not a MAC, by column."""
        found = [count(graph).columns for graph in self._graphs]
        return {column: sum(each.get(column, 0) for each in found) for column in chain(*found)}

    @cached_property
    def _terms(self) -> list[Term]:
        return _terms(self._graphs, self._rules)

    @property
    def nodes(self) -> list[tuple[Node, int]]:
        """All operators in order of execution, each with what it adds."""
        nodes = [*chain(*self._graphs)]
        return list(zip(nodes, amounts(self._terms, len(nodes)), strict=True))

    def _parts(self) -> Iterator[tuple[Row, Part]]:
        """Yield what adds or does anything, with the modules around it; also rounding, which no operator does."""
        for node, amount in self.nodes:
            if does_work(node, amount):
                path, function = module_path(node)
                yield path, Part(function, node, amount)
        for term in self._terms:
            if term.node is None:
                yield (), Part(term.subject, None, term.amount)

    def _grouped(self, key: Callable[[Row, Node], str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for path, part in self._parts():
            group = part.name if part.node is None else key(path, part.node)
            found[group] = found.get(group, 0) + part.amount
        return found

    def by_module(self, depth: int | None = None) -> dict[str, int]:
        """Return what each module adds, of names of at most `depth` parts; "" is what runs outside any module."""
        _check_depth(depth)
        return self._grouped(lambda path, _node: ".".join(path[:depth]))

    def by_operator(self) -> dict[str, int]:
        """Return what each kind of operator adds."""
        return self._grouped(lambda _path, node: operator_of(node.op))

    def as_convention(self, name: str) -> "Count":
        """Return the count of the same network by the convention called `name`."""
        return count_network(self.network, name)

    def explain(self, name: str) -> "Explanation":
        """Return why the total of the convention called `name` differs from this one, term by term."""
        theirs, right = find_convention(name), self._terms
        left = _terms(self._graphs, theirs)
        totals = sum(term.amount for term in left), sum(term.amount for term in right)
        return Explanation((theirs.name, self.convention), totals, explain((*chain(*self._graphs),), left, right))

    def tree(self) -> Part:
        """Return the tree of modules with what each adds."""
        top = Part("")
        for path, part in self._parts():
            top.put(path, part)
        return top

    def share(self, amount: int) -> str:
        """Return a part of the total in percent."""
        return f"{100 * amount / self.most:.1f}%" if self.most else ""

    @property
    def what(self) -> str:
        """The network's name, and the shapes of what it was given."""
        several = ", ".join(f"{name} {shown_shape(shape)}" for name, shape in self.inputs.items())
        one = f"input {shown_shape(self.input)}" if self.input else ""
        return ", ".join(filter(None, (self.name, f"inputs {several}" if several else one)))

    def _shown(self, depth: int | None = 1, most: int | None = _SMALL) -> tuple[str, str, list[Row]]:
        top = self.tree()
        base = int(len(top.inside) == 1)  # the only module of all has one row, and those in it are of the depth
        lines = list(top.lines(depth and depth + base))
        shown = [("  " * level + name, part.amount, part.params) for level, name, part in lines[:most]]
        if hidden := lines[len(shown) :]:
            rest = [part for level, _, part in hidden if level == base]
            amount, params = sum(part.amount for part in rest), sum(part.params for part in rest)
            shown.append((f"... and {len(hidden)} more", amount, params))
        rows = [(name, f"{amount:,}", self.share(amount), f"{params:,}") for name, amount, params in shown]
        total = "total", f"{self:,}", self.share(self.most), f"{self.params:,}"
        title = f"{self.what}: {self:,} {self.unit} ({self.convention})"
        return title, "lrrr", [("module", self.unit, "share", "parameters"), *rows, total]

    def table(self, depth: int | None = 2) -> str:
        """Return a table of modules to a depth with subtotals and shares; None: down to each operator."""
        _check_depth(depth)
        return text_table(*self._shown(depth, None))


def _check_depth(depth: object) -> None:
    if depth is not None and (type(depth) is not int or depth < 1):
        raise CountError(f"depth must be a Python integer >= 1 or None, got {depth!r}")


class _Whole(Count, int):
    """A count that is a number."""

    def __new__(cls, network: Any, *made: Any) -> Any:
        return int.__new__(cls, made[1]) if made else int(network)  # a library may convert as by int(...)

    __str__ = int.__repr__


class _Between(Count):
    """A count whose total depends on the data: it can be printed, but no number can be made of it."""

    def __str__(self) -> str:
        return f"{self}"

    def __format__(self, form: str) -> str:
        return f"{self.least:{form}} to {self.most:{form}}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int | float):
            self._refuse()
        return self is other

    __hash__ = object.__hash__

    def _refuse(self, *_others: object) -> NoReturn:
        _ = self.total
        raise AssertionError("a total that depends on the data is none")


# Whatever else a number can do is refused.
_kept = {"__getnewargs__", *vars(object).keys() - {"__lt__", "__le__", "__gt__", "__ge__"}}
for _name in vars(int).keys() - _kept:
    if _name.startswith("__"):
        setattr(_Between, _name, _Between._refuse)


def count_network(network: Network, convention: str = "exact") -> Count:
    """Return the count of a network, whose graphs `check_graph` has accepted, by the convention of that name."""
    rules = find_convention(convention)
    least, most, graphs = network.ways(rules.total)
    return (_Whole if least == most else _Between)(network, rules, least, most, graphs)


@dataclass(frozen=True, repr=False)
class Explanation(_Table):
    """Why one total differs from another: the differences add up to the first total minus the second."""

    conventions: tuple[str, str]
    totals: tuple[int, int]
    differences: tuple[Difference, ...]

    @property
    def difference(self) -> int:
        """The first total minus the second."""
        return self.totals[0] - self.totals[1]

    def rows(self) -> list[Row]:
        """Return a row of headings, one for each reason, the largest first, and their sum."""
        (left, right), totals = self.conventions, map("{} {:,}".format, self.conventions, self.totals)
        found: list[Row] = [(f"{left} - {right}", "of what", left, right, "where")]
        for each in self.differences:
            others = len(each.nodes) - 1
            where = ", ".join(each.nodes) if others < 2 else f"{each.nodes[0]} and {others} more"
            found.append((f"{each.amount:+,}", each.subject, each.left, each.right, where))
        if not self.differences:
            found.append(("", "no term differs", "", "", ""))
        return [*found, (f"{self.difference:+,}", ", ".join(totals), "", "", "")]

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def _shown(self) -> tuple[str, str, list[Row]]:
        return "", "rllll", self.rows()


def _terms(graphs: Iterable[Graph], rules: Convention) -> list[Term]:
    """Return the terms of several graphs, positions counted through."""
    found: list[Term] = []
    start = 0
    for graph in graphs:
        terms = rules.terms(graph)
        found += [replace(term, node=term.node + start) if term.node is not None else term for term in terms]
        start += len(graph)
    return found


def does_work(node: Node, amount: int) -> bool:
    """Return whether a node does or adds anything; others hold, move or pick elements."""
    return bool(amount or node.macs or node.params or node.columns)


def module_path(node: Node) -> tuple[Row, str]:
    """Return the names of the modules around a node, outermost first, and the function that the innermost calls.

    From PyTorch a node is called "a.0 F.relu", or "a.0" if it is that module's own operator. Its exporter writes
    "/a/a.0/Relu". Any other name is the path of a module.
    """
    path, function = node.name, operator_of(node.op)
    if node.written is not None:
        called = node.written.function or function
        if f" {path}".endswith(f" {called}"):
            path, function = path[: -len(called)].rstrip(), called
    elif path.startswith("/"):
        path, _, function = path.rpartition("/")
    names: list[str] = []
    before = ""
    for piece in path.split("/"):
        names += filter(None, piece.removeprefix(f"{before}.").split("."))
        before = piece
    return (*names[:_DEEPEST], *filter(None, [".".join(names[_DEEPEST:])])), function


def shown_shape(shape: Shape) -> str:
    """Return a shape as tables show it."""
    return "x".join(map(str, shape)) or "one number"


def text_table(title: str, sides: str, rows: Iterable[Row]) -> str:
    """Return a table as text, columns to the left ("l") or right ("r"); the first row is of headings."""
    lines = [tuple(map(cut, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    signs = ["<" if side == "l" else ">" for side in sides]
    laid = ["   ".join(map("{:{}{}}".format, line, signs, widths)).rstrip() for line in lines]
    above = [cut(title), ""] if title else []
    return "\n".join([*above, laid[0], "\u2500" * max(map(len, laid)), *laid[1:]])
