"""Why two conventions give different totals for one graph: the difference, term by term, in words.

Read `conventions/convention.py` first. Both conventions go over the same records, so their terms can be matched:
the same node, the same subject. What matches and is equal cancels; what is left is grouped by how each side came to
it. The groups add up to the difference of the totals exactly, because every term of either side is in one group.
"""

from collections import defaultdict
from dataclasses import dataclass

from nachos_min.macs.conventions.convention import Convention, Entry
from nachos_min.macs.ops import Graph


@dataclass(frozen=True)
class Side:
    """How one convention treats the nodes of a difference.

    Attributes:
        parts: (factor, quantity) of its terms, of all nodes of the group; none if it has no such term.
        times: how often it counts each node.
        why: the reason for `times` not being 1, or for a quantity of its own; "" if there is none.
    """

    parts: tuple[tuple[int, int], ...]
    times: int
    why: str

    @property
    def words(self) -> str:
        """What the side adds, as in "4 x 4,399,808"."""
        if not self.parts or self.times == 0:
            said = "nothing"
        else:
            shares = ((factor * self.times, quantity) for factor, quantity in self.parts)
            said = " + ".join(
                f"{quantity:,}" if factor == 1 else f"{factor} x {quantity:,}" for factor, quantity in shares
            )
        return f"{said} ({self.why})" if self.why else said


@dataclass(frozen=True)
class Difference:
    """One reason why two totals differ.

    Attributes:
        amount: how much the left total is above the right one for this reason; negative if below.
        subject: what is counted, such as "elements into batch norm".
        left, right: what either side adds.
        nodes: names of the nodes concerned, in order of execution; none for a term of the whole.
    """

    amount: int
    subject: str
    left: Side
    right: Side
    nodes: tuple[str, ...]


def explain(graph: Graph, left: Convention, right: Convention) -> tuple[Difference, ...]:
    """Return why the total of `left` is not that of `right`, largest difference first.

    Args:
        graph: nodes in execution order.
        left, right: the conventions compared.

    Returns:
        Differences whose amounts add up to the left total minus the right one; empty if all terms agree.

    Raises:
        CountError: the graph is broken.

    Source: derived here. Both totals are sums over (node, subject); the difference is summed by cause.
    """
    matched: dict[tuple[int | None, str], tuple[list[Entry], list[Entry]]] = defaultdict(lambda: ([], []))
    for column, convention in enumerate((left, right)):
        for entry in convention.tally(graph).entries:
            matched[entry.node, entry.term.subject][column].append(entry)
    groups: dict[object, list[tuple[int | None, list[Entry], list[Entry]]]] = defaultdict(list)
    for (node, subject), (ours, theirs) in matched.items():
        if _amount(ours) != _amount(theirs):
            groups[subject, _manner(ours), _manner(theirs)].append((node, ours, theirs))
    found = [_difference(graph, group) for group in groups.values()]
    return tuple(sorted(found, key=lambda each: (-abs(each.amount), each.subject)))


def _amount(entries: list[Entry]) -> int:
    return sum(entry.amount for entry in entries)


def _manner(entries: list[Entry]) -> tuple[tuple[int, int, str, str], ...]:
    """What nodes have in common that one side treats alike; a reason that names a class or a number counts."""
    return tuple((entry.term.factor, entry.sight.times, *_reasons(entry)) for entry in entries)


def _reasons(entry: Entry) -> tuple[str, str]:
    """Why it is counted that often, and why that quantity, which is beside the point if it is not counted."""
    return entry.sight.why, entry.term.note if entry.sight.times else ""


def _difference(graph: Graph, group: list[tuple[int | None, list[Entry], list[Entry]]]) -> Difference:
    nodes, ours, theirs = zip(*group, strict=True)
    return Difference(
        amount=sum(map(_amount, ours)) - sum(map(_amount, theirs)),
        subject=(ours[0] or theirs[0])[0].term.subject,
        left=_side(ours),
        right=_side(theirs),
        nodes=tuple(graph[node].name for node in nodes if node is not None),
    )


def _side(members: tuple[list[Entry], ...]) -> Side:
    """Return how a convention treats the members of a group: each has the same terms, in the same order."""
    if not members[0]:
        return Side((), 1, "")
    parts = tuple(
        (terms[0].term.factor, sum(entry.term.quantity for entry in terms)) for terms in zip(*members, strict=True)
    )
    first = members[0][0]
    return Side(parts, first.sight.times, "; ".join(reason for reason in _reasons(first) if reason))
