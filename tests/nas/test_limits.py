"""Limits: static counts, and admissibility judged without rounding."""

import pytest

from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.limits import Limits

COSTS = StaticCosts(exit_costs=(100, 250), params=30, peak_bytes=64)


@pytest.mark.parametrize(
    ("limits", "exceeded"),
    [
        (Limits(100, 0.5), False),
        (Limits(99, 0.5), True),
        (Limits(None, 0.5, max_worst_macs=249), True),
        (Limits(None, 0.5, max_params=29), True),
        (Limits(None, 0.5, max_peak_bytes=63), True),
        (Limits(100, 0.5, 250, 30, 64), False),
    ],
)
def test_static_counts_are_held_against_each_limit(limits: Limits, exceeded: bool) -> None:
    assert limits.exceeded(COSTS) is exceeded


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
