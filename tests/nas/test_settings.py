"""The rows of a front that people look at first."""

import numpy as np
from candidates import evaluation

from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.evaluation import Point, Trial
from nachos_min.nas.limits import Limits
from nachos_min.nas.result import Network
from nachos_min.nas.views import settings, undominated


def curve(network: int, *points: tuple[int, int]) -> list[Network]:
    """A network's rows of (right answers of 100, thousands of average MACs)."""
    figures = [Figures(right, 100, (50, 50), 100_000 * thousands) for right, thousands in points]
    found = evaluation(
        Trial((network,)), figures[0], points=tuple(Point((0.5, 0.0), each, each) for each in figures)
    )
    return [Network(found, point, Limits(None, 0.0)) for point in found.points]


def chosen(front: list[Network]) -> list[list[tuple[int, int]]]:
    return [[(row.correct, row.total_macs // 100_000) for row in rows.values()] for rows in settings(front)]


def test_of_each_network_the_ends_and_the_knee_between_them() -> None:
    assert chosen(curve(1, (90, 30), (88, 12), (85, 11), (70, 10))) == [[(90, 30), (88, 12), (70, 10)]]
    assert chosen(curve(1, (90, 30), (80, 20), (70, 10))) == [[(90, 30), (90, 30), (70, 10)]], "a straight line"
    assert chosen(curve(1, (90, 30), (71, 29), (70, 10))) == [[(90, 30), (90, 30), (70, 10)]], "it sags"
    assert chosen(curve(1, (90, 30))) == [[(90, 30)] * 3]
    assert settings([]) == ()


def test_rows_that_another_network_dominates_do_not_count() -> None:
    one, two = curve(1, (90, 30), (80, 20), (60, 9)), curve(2, (85, 15), (60, 10), (50, 5))
    assert chosen(two + one) == [[(90, 30), (90, 30), (60, 9)], [(85, 15), (85, 15), (50, 5)]]
    assert chosen(one + curve(3, (60, 30))) == chosen(one), "a network that is beaten everywhere"


def test_what_nothing_dominates_is_sorted_and_has_one_of_equals() -> None:
    rng = np.random.default_rng(0)
    front = curve(1, *(tuple(pair) for pair in rng.integers(1, 12, (40, 2)).tolist()))
    pairs = {(row.metric, row.average_macs) for row in front}
    beaten = {(a, m) for a, m in pairs if any(b >= a and n <= m and (b, n) != (a, m) for b, n in pairs)}
    assert [(row.metric, row.average_macs) for row in undominated(front)] == sorted(pairs - beaten, reverse=True)
