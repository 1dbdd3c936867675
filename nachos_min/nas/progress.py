"""How far a search is and how long it will take: by the epochs that are done, and how long they took.

Before the first epoch the counts of networks say it (`estimate.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from nachos_min.eenn.recipes import LONG
from nachos_min.nas.evaluate import Trial
from nachos_min.nas.result import Network
from nachos_min.nas.steps import Step

TRUST = 5.0  # seconds of training that the estimate weighs: kernels are loaded in the first epoch


@dataclass(frozen=True)
class Running:
    """A network that is being trained."""

    number: int  # from 1, in the order in which networks were chosen
    epoch: int  # from 1
    epochs: int
    compiling: bool  # kernels are being compiled, as in a first run


@dataclass(frozen=True)
class Progress:
    """What a search is doing."""

    activity: str  # a clause in words
    iteration: int  # 0 for the first candidates, then 1, 2, ...
    evaluated: int  # candidates done
    evaluations: int  # candidates to be done
    reused: int  # of those done, found on disk
    failed: int  # of those done, that raised an error
    seconds_left: float | None  # estimate; None while no network was chosen yet
    best: Network | None  # the most accurate admissible network so far, under its chosen thresholds
    share: float = 0.0  # of all epochs, how many are done
    running: tuple[Running, ...] = ()


class Pace:
    """What running trainings tell, and how long the others take at their pace.

    Attributes:
        running: the last step of each running trial.
    """

    def __init__(self, seconds_of: Callable[[Trial], float], abreast: int, chosen: int) -> None:
        """Prepare for trials that take `seconds_of` each, `abreast` at a time, `chosen` in an iteration."""
        self._seconds_of, self._abreast, self._chosen = seconds_of, abreast, chosen
        self._seconds, self._numbers, self.running = dict[Trial, float](), dict[Trial, int](), dict[Trial, Step]()
        self._measured = self._estimated = 0.0  # seconds of the epochs that were told

    def begin(self, trials: Sequence[Trial], number: int) -> None:
        """Note trials that are to be trained, the first of which has a `number`."""
        self._numbers |= {trial: place for place, trial in enumerate(trials, number)}
        self._seconds |= {trial: self._seconds_of(trial) for trial in trials}

    def step(self, step: Step) -> None:
        """Note what a running trial tells."""
        before = self.running.get(step.trial)
        if before is not None and step.epoch > before.epoch:
            self._measured += step.seconds - before.seconds
            self._estimated += self._seconds[step.trial] * (step.epoch - before.epoch) / step.epochs
        self.running[step.trial] = step
        self._abreast = max(self._abreast, len(self.running))

    def networks(self) -> tuple[Running, ...]:
        """Return what is being trained, in the order of choice."""
        found = sorted(self.running.values(), key=lambda step: self._numbers[step.trial])
        return tuple(
            Running(self._numbers[each.trial], min(each.epoch + 1, each.epochs), each.epochs, each.compiling)
            for each in found
        )

    def efforts(self) -> float:
        """Return the part of running trials that is done, in trainings of effort 1."""
        return sum(step.trial.effort * step.epoch / step.epochs for step in self.running.values())

    def seconds_left(self, waiting: Sequence[Trial], others: int, finalists: int) -> float | None:
        """Return an estimate for `waiting` trials, `others` that are not chosen yet, and `finalists`; or None."""
        if not self._seconds:
            return None
        usual = fmean(seconds / trial.effort for trial, seconds in self._seconds.items())
        done = {trial: step.epoch / step.epochs for trial, step in self.running.items()}
        ahead = [self._seconds[trial] * (1 - done.get(trial, 0.0)) for trial in waiting]
        # Iterations follow each other: some workers have nothing to do at the end of each.
        iterations, rest = divmod(max(others, 0), self._chosen)
        rounds = iterations * self._rounds(self._chosen) + self._rounds(rest) + LONG * self._rounds(finalists)
        seconds = max(sum(ahead) / self._abreast, *ahead, 0.0) + rounds * usual
        return seconds * (TRUST + self._measured) / (TRUST + self._estimated)

    def _rounds(self, trials: int) -> int:
        return -(-trials // self._abreast)
