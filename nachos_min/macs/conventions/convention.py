"""What a convention is: for each operator terms that are added up, and how often a node counts.

A total is a sum of terms, so two totals can be compared term by term: `explain`. To add a convention, write a table
of prices as in `hooks.py` and list it in `catalogue.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from nachos_min.macs.conventions.bill import Rule, Term
from nachos_min.macs.count import ExitCosts, exit_costs
from nachos_min.macs.ops import Graph, Node
from nachos_min.macs.record import Operator

Multiplicity = tuple[int, str]  # how often a tool counts a node, and a clause why, if not once
ONCE: Multiplicity = (1, "")
Counted = tuple[Multiplicity, tuple[Term, ...]]


@cache
def installed_version(package: str) -> str:
    """Return the version of a package without the name of its build, "" if it is not installed."""
    try:
        return version(package).partition("+")[0].replace("-", ".post")
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Convention:
    """What a tool counts. Its methods take graphs that `check_graph` has accepted.

    Args:
        name: as it is typed.
        unit: what the tool calls its total, "MACs" or "FLOPs".
        about: one sentence for a reader who sees it for the first time.
        prices: operator -> its terms; an operator without a price adds nothing.
        multiplicity: node -> how often it is counted.
        tool: whose count this is, a package with the versions that were compared, ascending, and its part in
            brackets; "" for our own.
    """

    name: str
    unit: str
    about: str
    prices: Mapping[type[Operator], Rule]
    multiplicity: Callable[[Node], Multiplicity] = lambda _node: ONCE
    tool: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """Those with which this was compared, in ascending order."""
        return tuple(word for word in self.tool.partition("(")[0].split() if word[0].isdigit())

    @property
    def version_note(self) -> str:
        """What is installed, if it is another version than those compared with; "" if not."""
        package, versions = self.tool.partition(" ")[0], self.versions
        found = installed_version(package) if versions else ""
        return f"{package} {found} is installed" if found and found not in versions else ""

    def terms(self, graph: Graph) -> tuple[Term, ...]:
        """Return what the tool adds up, in execution order."""
        decided = self.decided(graph)
        found: list[Term] = []
        for position, node in enumerate(graph):
            (times, why), terms = decided.get(position) or (self.multiplicity(node), self.priced(node))
            found += [replace(term, node=position, times=times, why=why) for term in terms]
        return tuple(found)

    def decided(self, _graph: Graph) -> Mapping[int, Counted]:
        """Return the nodes whose count depends on other nodes, by position."""
        return {}

    def priced(self, node: Node) -> tuple[Term, ...]:
        """Return the terms of a node that is counted once."""
        price = self.prices.get(type(node.op))
        return () if price is None else price(node)

    def total(self, graph: Graph) -> int:
        """Return the number that the tool reports."""
        return sum(term.amount for term in self.terms(graph))

    def exit_costs(self, graph: Graph) -> ExitCosts:
        """Return what the tool would say a sample costs that leaves at each exit, as `count.exit_costs` does."""
        return exit_costs(graph, amounts(self.terms(graph), len(graph)))


def amounts(terms: Iterable[Term], nodes: int) -> list[int]:
    """Return what each of a graph's nodes adds; terms of no node are left out."""
    found = [0] * nodes
    for term in terms:
        if term.node is not None:
            found[term.node] += term.amount
    return found


@dataclass(frozen=True)
class Difference:
    """One reason why two totals differ."""

    amount: int  # how much the left total is above the right one for this reason; negative if below
    subject: str  # what is counted, such as "elements into batch norm"
    left: str  # what either side adds, in words, such as "4 x 4,399,808"
    right: str
    nodes: tuple[str, ...]  # names of the nodes concerned, in order of execution; none for a term of no node


def explain(graph: Graph, left: Sequence[Term], right: Sequence[Term]) -> tuple[Difference, ...]:
    """Return why two totals of a graph differ, largest difference first.

    Terms of the same node and subject are matched. What is equal cancels; the rest is grouped by how either side
    counts it. Every term is in one group, so the amounts add up to the left total minus the right one.

    Source: derived here. Both totals are sums over (node, subject); the difference is summed by cause.
    """
    matched: dict[tuple[int | None, str], tuple[list[Term], list[Term]]] = defaultdict(lambda: ([], []))
    for side, terms in enumerate((left, right)):
        for term in terms:
            matched[term.node, term.subject][side].append(term)
    groups: dict[object, list[tuple[list[Term], list[Term]]]] = defaultdict(list)
    for (_, subject), (ours, theirs) in matched.items():
        if _sum(ours) != _sum(theirs):
            groups[subject, _manner(ours), _manner(theirs)].append((ours, theirs))
    found = []
    for group in groups.values():
        amount = sum(_sum(ours) - _sum(theirs) for ours, theirs in group)
        firsts = [(ours or theirs)[0] for ours, theirs in group]
        names = tuple(graph[first.node].name for first in firsts if first.node is not None)
        left_words, right_words = (_words(list(terms)) for terms in zip(*group, strict=True))
        found.append(Difference(amount, firsts[0].subject, left_words, right_words, names))
    return tuple(sorted(found, key=lambda difference: (-abs(difference.amount), difference.subject)))


def _sum(terms: list[Term]) -> int:
    return sum(term.amount for term in terms)


def _manner(terms: list[Term]) -> tuple[tuple[int, int, tuple[str, str]], ...]:
    """Factor, times and reasons of each term: nodes for which they are equal form one group."""
    return tuple((term.factor, term.times, term.reasons) for term in terms)


def _words(members: list[list[Term]]) -> str:
    """What one side adds for the nodes of a group: each has the same terms, in the same order."""
    if not members[0]:
        return "nothing"
    first = members[0][0]
    parts = []
    for terms in zip(*members, strict=True):
        factor, quantity = terms[0].factor * first.times, sum(term.quantity for term in terms)
        parts.append(f"{quantity:,}" if factor == 1 else f"{factor} x {quantity:,}")
    said = " + ".join(parts) if first.times else "nothing"
    why = "; ".join(reason for reason in first.reasons if reason)
    return f"{said} ({why})" if why else said
