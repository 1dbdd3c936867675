"""A difference between two totals, term by term: it adds up, largest first, each cause once and in words."""

import pytest

from nachos_min.macs.conventions import CONVENTIONS, Convention, explain, find_convention
from nachos_min.macs.conventions.convention import products
from nachos_min.macs.ops import BatchNorm, Conv2d, CountError, GlobalAvgPool, Linear, Node, Written

MODULE = {kind: Written(f"F.{kind}", module=kind, layer=kind) for kind in ("Conv2d", "BatchNorm2d", "Linear")}
CONV = Conv2d((8, 8, 3), 4, (3, 3), padding=(1, 1, 1, 1))
NET = (
    Node("stem", CONV, (-1,), written=MODULE["Conv2d"]),
    Node("stem.norm", BatchNorm((8, 8, 4)), (0,), written=MODULE["BatchNorm2d"]),
    Node("conv", Conv2d((8, 8, 4), 4, (1, 1)), (1,), written=Written("F.conv2d", module="mine.Net")),
    Node("norm", BatchNorm((8, 8, 4)), (2,), written=MODULE["BatchNorm2d"]),
    Node("mean", GlobalAvgPool((8, 8, 4)), (3,), written=Written("F.adaptive_avg_pool2d", "AdaptiveAvgPool2d")),
    Node("linear", Linear((4,), 10), (4,), written=MODULE["Linear"]),
)


def test_thop_against_exact():
    found = explain(NET, CONVENTIONS["thop"].terms(NET), CONVENTIONS["exact"].terms(NET))
    assert [(each.amount, each.subject) for each in found] == [
        (4 * 512, "elements into batch norm"),
        (-1024, "products of convolutions"),
        (256, "elements into the mean over the map"),
        (4, "elements out of the mean over the map"),
    ]
    norm, missed = found[:2]
    assert (norm.left, norm.right, norm.nodes) == ("4 x 512", "nothing", ("stem.norm", "norm"))
    assert missed.left == "nothing (called as a function, and thop sees modules only)"
    assert (missed.right, missed.nodes) == ("1,024", ("conv",))


@pytest.mark.parametrize("left", CONVENTIONS)
@pytest.mark.parametrize("right", CONVENTIONS)
def test_terms_add_up_to_the_difference(left, right):
    ours, theirs = CONVENTIONS[left], CONVENTIONS[right]
    found = explain(NET, ours.terms(NET), theirs.terms(NET))
    assert sum(each.amount for each in found) == ours.total(NET) - theirs.total(NET)
    sizes = [abs(each.amount) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    assert left != right or not found


def test_a_convention_is_a_table_of_rules():
    """Adding one takes no more than this; causes with different reasons stay apart."""
    biased = Convention(
        name="mine",
        tool="",
        unit="MACs",
        about="Products of convolutions three times.",
        prices={Conv2d: lambda node: (products(node, 3),)},
        multiplicity=lambda node: (2, "seen twice") if node.name == "stem" else (1, ""),
    )
    found = explain(NET, biased.terms(NET), CONVENTIONS["exact"].terms(NET))
    assert [each.amount for each in found] == [(6 - 1) * CONV.macs, (3 - 1) * 1024, -40]
    assert found[0].left == "6 x 6,912 (seen twice)"


def test_an_unknown_convention_is_named():
    with pytest.raises(CountError, match=r"convention must be one of exact, .* got 'flops'"):
        find_convention("flops")
