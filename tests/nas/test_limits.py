"""Limits: static reasons, and admissibility judged without rounding."""

import pytest

from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.space import load_space

COSTS = StaticCosts(exit_costs=(100, 250), params=30, peak_bytes=64)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(100, 0.5), None),
        (Limits(99, 0.5), "the cheapest exit costs 100 MACs, the limit is 99"),
        (Limits(None, 0.5, max_worst_macs=249), "the worst case costs 250 MACs, the limit is 249"),
        (Limits(None, 0.5, max_params=29), "it has 30 parameters, the limit is 29"),
        (Limits(None, 0.5, max_peak_bytes=63), "its activations need 64 bytes, the limit is 63"),
        (Limits(100, 0.5, 250, 30, 64), None),
    ],
)
def test_static_reasons(limits: Limits, reason: str | None) -> None:
    assert limits.static_reason(COSTS) == reason


def test_admissible_is_exact() -> None:
    def measured(correct: int, total_macs: int) -> Figures:
        return Figures(correct, 10, (10,), total_macs)

    limits = Limits(max_macs=100, min_accuracy=0.9)
    assert limits.admissible(measured(9, 1000))
    assert not limits.admissible(measured(8, 1000))
    assert not limits.admissible(measured(9, 1001))  # 100.1 on average
    # 0.7 in binary is below seven tenths; the limit is the decimal that was written
    assert Limits(None, 0.7).admissible(measured(7, 10**30))
    assert not Limits(None, 0.7000000001).admissible(measured(7, 1))


def test_static_check_counts_each_inadmissible_genome_once() -> None:
    coder = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
    check = StaticCheck(coder, Limits(None, 0.5))
    none = (0,) * coder.length
    one = tuple(int(i == coder.exit_genes.start) for i in range(coder.length))
    assert check.costs(none) == "an early-exit network needs at least one early exit, got none"
    assert isinstance(check.costs(one), StaticCosts)
    check.costs(none)
    assert check.inadmissible == 1
