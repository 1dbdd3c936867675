"""nachos-official: the figures of the released NACHOS code, which is behind the published ones.

The backbone up to the map that feeds exit i is counted by torchprofile 0.0.2 and rounded to 0.01 M; head i by a
counter of its own, unrounded. What a sample costs that leaves at i is their sum: heads that it passed are not
paid for. Our own cost, `ExitCosts` in `count.py`, pays for them. Read `torchprofile.py` first.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import prod

from nachos_min.macs.conventions.convention import (
    Convention,
    Counted,
    Entry,
    Rule,
    Sight,
    Term,
    inputs,
    products,
    terms_by,
)
from nachos_min.macs.conventions.torchprofile import TORCHPROFILE_0_0_2
from nachos_min.macs.count import ExitCosts, exit_costs
from nachos_min.macs.ops import AvgPool, Conv2d, Graph, Linear, MaxPool, Node
from nachos_min.macs.record import CountError, Operator


def _convolution(node: Node) -> tuple[Term, ...]:
    """The height and width of the output are taken as the input's over the stride, a fraction if need be.

    Neither padding nor dilation nor groups are looked at. We drop a fraction of a product, which the released code
    keeps; its own heads have stride 1 and none.
    """
    assert isinstance(node.op, Conv2d)
    op = node.op
    pixels = Fraction(op.input[0] * op.input[1], prod(op.stride))
    quantity = int(pixels * prod(op.kernel) * op.input[2] * op.out_channels) * node.batch
    term = products(node)
    note = "" if quantity == term.quantity else "height and width are divided by the stride, groups are ignored"
    return (Term(term.subject, 1, quantity, note),)


_HEAD: dict[type[Operator], Rule] = {
    Conv2d: _convolution,
    Linear: lambda node: (products(node),),
    **dict.fromkeys((MaxPool, AvgPool), lambda node: (inputs(node),)),
}


def _last(graph: Graph) -> int:
    """Return the number of exits if there is an early one, else 0: then the final head is part of the backbone."""
    exits = max((node.exit for node in graph), default=0)
    return exits if exits > 1 else 0


def _among(graph: Graph) -> dict[int, Counted]:
    last = _last(graph)
    found: dict[int, Counted] = {}
    for position, node in enumerate(graph):
        if last and node.exit:
            passed = Sight(0, "the head of an exit that is passed is not billed")
            found[position] = (passed if node.exit < last else Sight(1), terms_by(_HEAD, node))
    return found


def _rounding(graph: Graph, entries: tuple[Entry, ...]) -> tuple[Term, ...]:
    last = _last(graph)
    backbone = sum(
        entry.amount for entry in entries if entry.node is not None and not (last and graph[entry.node].exit)
    )
    return (Term("rounding of the backbone to 0.01 M", 1, rounded(backbone) - backbone),)


def rounded(macs: int) -> int:
    """Return the multiple of 0.01 M nearest to `macs` as the released code rounds, with NumPy and floats.

    NumPy multiplies by 100 and takes the nearest whole number, the even one of two; that decides 2,785,000.

    >>> rounded(6_014_112), rounded(2_785_000)
    (6010000, 2780000)
    """
    return round(macs / 1e6 * 100) * 10_000


NACHOS_OFFICIAL = Convention(
    name="nachos-official",
    tool="the released NACHOS code (CNAS 67d07e8, EarlyExits db1af40)",
    unit="MACs",
    about="The backbone as torchprofile 0.0.2 counts it, rounded to 0.01 M, and only the head that is taken.",
    rules=TORCHPROFILE_0_0_2.rules,
    sees=TORCHPROFILE_0_0_2.sees,
    among=_among,
    whole=_rounding,
    leaving=lambda graph: official_exit_costs(graph),
)


def official_exit_costs(graph: Graph) -> ExitCosts:
    """Return what the released code says a sample costs that leaves at each exit.

    Args:
        graph: nodes in execution order; the heads 1, 2, .. E in order, the last head at the end.

    Returns:
        B_i, the backbone up to each exit, rounded to 0.01 M; H_i; and B_i + H_i. Without an early exit the whole is
        backbone.

    Raises:
        CountError: the graph is broken, or the heads are not in that order.

    Source: released code, `get_ee_scores`; it leaves out the heads that a sample has passed.
    """
    if not _last(graph):
        whole = NACHOS_OFFICIAL.tally(graph).total
        return ExitCosts((whole,), (0,), (whole,))
    amounts = []
    for node in graph:
        terms = terms_by(_HEAD, node) if node.exit else TORCHPROFILE_0_0_2.terms(node)
        times = 1 if node.exit else TORCHPROFILE_0_0_2.sees(node).times
        amounts.append(times * sum(term.amount for term in terms))
    costs = exit_costs(graph, amounts)
    backbone = tuple(map(rounded, costs.backbone))
    return ExitCosts(backbone, costs.heads, tuple(map(sum, zip(backbone, costs.heads, strict=True))))


def official_average(graph: Graph, exit_counts: Sequence[int]) -> Fraction:
    """Return the average MACs of one inference by the released code.

    Args:
        graph: as for `official_exit_costs`.
        exit_counts: number of samples that leave at each exit, each >= 0, at least one in all.

    Returns:
        sum_i n_i * (B_i + H_i) / N, exactly.

    Raises:
        CountError: as for `official_exit_costs`, or the counts are not as above.
    """
    costs = official_exit_costs(graph).costs
    counts = tuple(exit_counts)
    if len(counts) != len(costs) or any(type(n) is not int or n < 0 for n in counts) or not sum(counts):
        raise CountError(f"exit counts must be {len(costs)} integers >= 0, at least one above, got {counts}")
    return Fraction(sum(n * cost for n, cost in zip(counts, costs, strict=True)), sum(counts))
