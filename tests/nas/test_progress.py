"""How long a search takes: by counts before the first epoch, then by how long epochs took."""

from dataclasses import replace

import pytest

from nachos_min.eenn.recipes import LONG
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.progress import TRUST, Pace, Running
from nachos_min.nas.steps import Step

TRIALS = [Trial((place,)) for place in range(4)]


def pace(abreast: int = 2) -> Pace:
    """Of trials that take 100 seconds by their counts, 3 an iteration."""
    found = Pace(lambda trial: 100.0 * trial.effort, abreast, 3)
    assert found.seconds_left([], 10, 2) is None
    found.begin(TRIALS, 1)
    return found


def test_before_the_first_epoch_the_counts_say_it() -> None:
    # 4 now by two, then 3 and 3 and 1 in 2 + 2 + 1 rounds, then two finalists side by side
    assert pace().seconds_left(TRIALS, 7, 2) == 200 + 500 + LONG * 100
    assert pace(1).seconds_left(TRIALS, 7, 2) == 400 + 700 + 2 * LONG * 100
    assert pace(16).seconds_left(TRIALS, 0, 0) == 100
    longest = Trial((9,), LONG)
    one = pace()
    one.begin([longest], 5)
    assert one.seconds_left([longest, TRIALS[0]], 0, 0) == LONG * 100


def test_epochs_correct_it_and_compilation_does_not() -> None:
    found, first = pace(1), Step(TRIALS[0], 0, 10, False, 0.0)
    found.step(first)
    found.step(replace(first, compiling=True, seconds=0.1))
    assert found.networks() == (Running(1, 1, 10, True),)
    assert found.seconds_left(TRIALS, 0, 0) == 400
    found.step(replace(first, epoch=5, seconds=100.0))  # twice as long as its counts say
    slower = (TRUST + 99.9) / (TRUST + 50)
    assert found.seconds_left(TRIALS, 0, 0) == pytest.approx(350 * slower)
    assert found.efforts() == 0.5
    found.step(first)  # its worker died: it begins again
    assert found.seconds_left(TRIALS, 0, 0) == pytest.approx(400 * slower)


def test_finalists_count_for_their_epochs() -> None:
    found, trial = pace(), Trial((9,), LONG)
    found.begin([trial], 17)
    found.step(Step(trial, 30, 40, False, 9.0))
    assert found.efforts() == 3.0
    assert found.networks() == (Running(17, 31, 40, False),)
    found.step(Step(trial, 40, 40, False, 9.0))
    assert found.networks() == (Running(17, 40, 40, False),)
