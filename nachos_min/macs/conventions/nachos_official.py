"""nachos-official: the figures of the released NACHOS code, which is behind the published ones.

The backbone up to the map that feeds exit i is counted by torchprofile 0.0.2 and rounded to 0.01 M; head i by a
counter of its own, unrounded. A sample that leaves at i costs their sum: heads that it passed are not paid for. Our
own cost, `ExitCosts` in `count.py`, pays for them.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill
from nachos_min.macs.conventions.convention import ONCE, Convention, Counted, amounts
from nachos_min.macs.conventions.traces import TORCHPROFILE_0_0_2
from nachos_min.macs.count import ExitCosts, exit_costs
from nachos_min.macs.ops import Graph, Node
from nachos_min.macs.record import Operator


def rounded(macs: int) -> int:
    """Return the multiple of 0.01 M nearest to `macs` as NumPy rounds floats: of two, the even one.

    >>> rounded(6_014_112), rounded(2_785_000)
    (6010000, 2780000)
    """
    return round(macs / 1e6 * 100) * 10_000


def _convolution(node: Node) -> tuple[bill.Term, ...]:
    """The output's height and width are the input's over the stride; padding, dilation and groups are ignored.

    A fraction of a product is dropped, which the released code keeps; its heads have stride 1 and none.
    """
    op = node.op_as(ops.Conv2d)
    pixels = Fraction(prod(op.input[:-1]), prod(op.stride))
    quantity = int(pixels * prod(op.kernel) * op.input[-1] * op.out_channels) * node.batch
    note = "height and width are divided by the stride, groups are ignored"
    return (bill.products(node).taken_for(quantity, note),)


_HEAD: dict[type[Operator], bill.Rule] = {
    ops.Conv2d: _convolution,
    ops.Linear: bill.each(bill.products),
    **dict.fromkeys((ops.MaxPool, ops.AvgPool), bill.each(bill.inputs)),
}


class _Official(Convention):
    """The head of the last exit is billed, that of an earlier one is not; without an early one all is backbone."""

    def decided(self, graph: Graph) -> Mapping[int, Counted]:
        last = _exits(graph)
        passed = (0, "the head of an exit that is passed is not billed")
        return {
            position: (passed if node.exit < last else ONCE, _HEAD.get(type(node.op), bill.each())(node))
            for position, node in enumerate(graph)
            if last and node.exit
        }

    def terms(self, graph: Graph) -> tuple[bill.Term, ...]:
        terms = super().terms(graph)
        early = _exits(graph) > 0
        added = zip(amounts(terms, len(graph)), graph, strict=True)
        backbone = sum(amount for amount, node in added if not (early and node.exit))
        return (*terms, bill.Term("rounding of the backbone to 0.01 M", 1, rounded(backbone) - backbone))

    def exit_costs(self, graph: Graph) -> ExitCosts:
        """Return B_i, the backbone up to each exit, rounded to 0.01 M; H_i; and B_i + H_i.

        Source: released code, `get_ee_scores`; it leaves out the heads that a sample has passed.
        """
        if not _exits(graph):
            total = self.total(graph)
            return ExitCosts((total,), (0,), (total,))
        heads = [replace(term, times=1) if graph[term.node or 0].exit else term for term in super().terms(graph)]
        costs = exit_costs(graph, amounts(heads, len(graph)))
        backbone = tuple(map(rounded, costs.backbone))
        return ExitCosts(backbone, costs.heads, tuple(map(sum, zip(backbone, costs.heads, strict=True))))


def _exits(graph: Graph) -> int:
    """Return the number of exits if there is an early one, else 0: then the final head is part of the backbone."""
    last = max((node.exit for node in graph), default=0)
    return last if last > 1 else 0


NACHOS_OFFICIAL = _Official(
    name="nachos-official",
    tool="the released NACHOS code (CNAS 67d07e8, EarlyExits db1af40)",
    unit="MACs",
    about="The backbone as torchprofile 0.0.2 counts it, rounded to 0.01 M, and only the head that is taken.",
    prices=TORCHPROFILE_0_0_2.prices,
    multiplicity=TORCHPROFILE_0_0_2.multiplicity,
)
