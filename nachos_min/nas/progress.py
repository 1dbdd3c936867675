"""How far a search is and how long it will take: by the epochs that are done, and how long they took.

Before the first epoch the counts of networks say it (`estimate.py`). The logger "nachos_min" tells the same: what
is done and every network at level INFO, failures at level WARNING.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import LONG
from nachos_min.errors import message
from nachos_min.nas.estimate import rounds_of, seconds_of
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.result import Archive, Network
from nachos_min.nas.steps import Step

Answer = Evaluation | Failure
log = logging.getLogger("nachos_min")
log.addHandler(logging.NullHandler())  # else Python prints warnings, which a result has, too
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
    iteration: int = 0  # 0 for the first candidates, then 1, 2, ...
    evaluated: int = 0  # candidates done
    evaluations: int = 0  # candidates to be done
    reused: int = 0  # of those done, found on disk
    failed: int = 0  # of those done, that raised an error
    seconds_left: float | None = None  # estimate; None while no network was chosen yet
    best: Network | None = None  # the most accurate admissible network so far, under its chosen thresholds
    share: float = 0.0  # of all epochs, how many are done
    running: tuple[Running, ...] = ()


Told = Callable[[Progress], None]


class Pace:
    """What running trainings tell, and how long the others take at their pace; `running` has their last steps."""

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
        rounds = rounds_of(others, finalists, self._abreast, self._chosen)
        seconds = max(sum(ahead) / self._abreast, *ahead, 0.0) + rounds * usual
        return seconds * (TRUST + self._measured) / (TRUST + self._estimated)


class Watch:
    """Tells how far a search is, whenever something was done."""

    def __init__(self, archive: Archive, evaluations: int, finalists: int, told: Told | None, abreast: int) -> None:
        """Prepare for a search that trains `abreast` networks at a time; `told` None: nothing is told."""
        self._archive, self._finalists, self._told = archive, finalists, told
        self._pace = Pace(self._seconds_of, abreast, archive.problem.configuration.chosen)
        self._activity, self._iteration = "", 0
        self.reused = 0  # evaluations found on disk
        self._trials: Sequence[Trial] = ()
        self._found: Mapping[Trial, Answer] = {}
        self.expected = evaluations + finalists  # networks, if nothing ends the search before
        self._efforts = evaluations + LONG * finalists

    def expect(self, trials: Sequence[Trial]) -> None:
        """Note that a search consists of these trials."""
        self.expected, self._efforts = len(trials), sum(trial.effort for trial in trials)

    def tell(self, activity: str, iteration: int) -> None:
        """Tell what the search does while it trains nothing."""
        self._activity, self._iteration, self._trials, self._found = activity, iteration, (), {}
        log.info(activity)
        self._tell()

    def training(self, activity: str, trials: Sequence[Trial], found: Mapping[Trial, Answer]) -> None:
        """Tell that `trials` are trained, but those `found`, to which the search adds the others."""
        self._activity, self._trials, self._found = activity, trials, found
        self.reused += len(found)
        if trials:
            log.info("%s: %d networks, of which %d are stored", activity, len(trials), len(found))
        if self._told is not None:
            self._pace.begin(trials, len(self._archive) + 1)
        self._tell()

    def step(self, step: Step) -> None:
        """Tell how far a running trial is."""
        if self._told is not None and step.trial in self._waiting():
            self._pace.step(step)
            self._tell()

    def done(self, answer: Answer) -> None:
        """Tell that the answer to a trial is among those found."""
        self._pace.running.pop(answer.trial, None)
        if isinstance(answer, Failure):
            log.warning("a network failed: %s", message(answer.reason))
        else:
            figures = answer.chosen.shown
            log.info("a network has %.4f at %.0f average MACs", figures.metric, figures.average_macs)
        self._tell()

    def _waiting(self) -> list[Trial]:
        return [trial for trial in self._trials if trial not in self._found]

    def _seconds_of(self, trial: Trial) -> float:
        """Return an estimate of how long a trial takes; a table answers at once."""
        problem = self._archive.problem
        if problem.table is not None:
            return 0.0
        costs = static_costs(problem.coder.decode(trial.genome))
        return seconds_of(problem, costs.worst_macs, len(costs.exit_costs), trial.effort)

    def _tell(self) -> None:
        if self._told is None:
            return
        archive, waiting = self._archive, self._waiting()
        done = [*archive.candidates, *self._found.values()]
        evaluated = [each for each in done if isinstance(each, Evaluation)]
        longer = sum(trial.effort > 1 for trial in (*(each.trial for each in done), *waiting))
        finalists = max(0, self._finalists - longer)
        others = self.expected - len(done) - len(waiting) - finalists
        efforts = sum(each.trial.effort for each in done) + self._pace.efforts()
        chosen = [archive.network(each, each.chosen) for each in evaluated]
        front = archive.front([network for network in chosen if archive.admits(network)])
        self._told(
            Progress(
                activity=self._activity,
                iteration=self._iteration,
                evaluated=len(done),
                evaluations=self.expected,
                reused=self.reused,
                failed=len(done) - len(evaluated),
                seconds_left=self._pace.seconds_left(waiting, others, finalists),
                best=front[0] if front else None,
                share=efforts / max(self._efforts, 1),
                running=self._pace.networks(),
            )
        )
