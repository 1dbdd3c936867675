"""What a search returns: the admissible Pareto-optimal networks, each with its certificate.

Read `evaluate.py` first. Everything here is derived from the stored evaluations: `load_run` (`runs.py`) gives the
same result again from the run's folder, without training anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.eenn.guarantee import Row, certified
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.thresholds import Figures, wilson_interval
from nachos_min.nas.configuration import Problem
from nachos_min.nas.evaluate import Evaluation, Failure, build
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits

RANKS = 2  # fronts that are shown where the figures are of samples that chose none of them


@dataclass(frozen=True)
class Certificate:
    """Figures measured on the test split, which took no part in any choice.

    Attributes:
        accuracy: correct / samples, in 0..1.
        interval95: Wilson interval of the accuracy.
        kept: whether both limits hold here, too, compared without rounding.
        average_macs: total_macs / samples.
    """

    accuracy: float
    correct: int
    samples: int
    interval95: tuple[float, float]
    kept: bool
    total_macs: int
    average_macs: float
    exit_counts: tuple[int, ...]


@dataclass(frozen=True)
class Solution:
    """One network of the front.

    Attributes:
        solution: its number, 0 is the most accurate.
        genome: canonical genome.
        exits: stage numbers (1-based) of the E exits, the final one last.
        thresholds: E thresholds on the cumulative confidence; the last is 0.
        accuracy, correct, samples, total_macs, average_macs, exit_counts: on the half of the validation split that
            did not choose; on all of it if the whole of it chose.
        exit_costs: MACs of a sample that leaves at each exit.
        worst_macs: the last of them.
        params: trainable parameters.
        peak_bytes: activations alive at once, float32, one sample.
        confidence: what the thresholds are thresholds of, `learned` or `softmax`.
        temperatures: of each early exit's softmax; empty for `learned`.
        test: the certificate.
    """

    solution: int
    genome: Genome
    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    accuracy: float
    correct: int
    samples: int
    total_macs: int
    average_macs: float
    exit_counts: tuple[int, ...]
    exit_costs: tuple[int, ...]
    worst_macs: int
    params: int
    peak_bytes: int
    confidence: str
    temperatures: tuple[float, ...]
    test: Certificate


def certificate(measure: Figures, limits: Limits) -> Certificate:
    """Return the figures of a split, with the 95 % interval of its accuracy, held against `limits`."""
    return Certificate(
        accuracy=measure.accuracy,
        correct=measure.correct,
        samples=measure.samples,
        interval95=wilson_interval(measure.correct, measure.samples),
        kept=limits.admissible(measure),
        total_macs=measure.total_macs,
        average_macs=measure.average_macs,
        exit_counts=measure.exit_counts,
    )


def solution_of(number: int, evaluation: Evaluation, limits: Limits) -> Solution:
    """Return `evaluation` as solution `number` of a front; `limits` are those asked for."""
    figures, costs = evaluation.shown, evaluation.costs
    return Solution(
        solution=number,
        genome=evaluation.genome,
        exits=evaluation.exits,
        thresholds=evaluation.thresholds,
        accuracy=figures.accuracy,
        correct=figures.correct,
        samples=figures.samples,
        total_macs=figures.total_macs,
        average_macs=figures.average_macs,
        exit_counts=figures.exit_counts,
        exit_costs=costs.exit_costs,
        worst_macs=costs.worst_macs,
        params=costs.params,
        peak_bytes=costs.peak_bytes,
        confidence=evaluation.confidence.name,
        temperatures=evaluation.confidence.temperatures or (),
        test=certificate(evaluation.test, limits),
    )


@lru_cache(maxsize=16)
def largest_costs(coder: GenomeCoder) -> StaticCosts:
    """Return the costs of the space's largest network; asked again whenever progress is told."""
    return static_costs(coder.largest())


class Archive:
    """All candidates evaluated so far, in the order in which they were chosen."""

    def __init__(self, problem: Problem, evaluated: Iterable[Evaluation | Failure] = ()) -> None:
        """Start with `evaluated`; the hypervolume's reference point is fixed here, once per run."""
        self.limits: Limits = problem.configuration.kept
        self.evaluations: list[Evaluation] = []
        self.points: list[Evaluation] = []  # each candidate under all the thresholds it stands for
        self._admissible: list[Evaluation] = []
        self.failures: list[Failure] = []
        # Error 1, and the MACs of the space's largest network, whatever has been evaluated.
        self.reference = (1.0, largest_costs(problem.coder).worst_macs)
        for found in evaluated:
            self.add(found)

    def add(self, evaluated: Evaluation | Failure) -> None:
        """Append one candidate. A failure is kept apart: it touches no figure."""
        if isinstance(evaluated, Failure):
            self.failures.append(evaluated)
        else:
            self.evaluations.append(evaluated)
            points = evaluated.points()
            self.points += points
            self._admissible += [point for point in points if self._keeps(point)]

    def __len__(self) -> int:
        """Return the number of candidates, failures included."""
        return len(self.evaluations) + len(self.failures)

    def genomes(self) -> set[Genome]:
        """Return the genomes of all candidates, failures included."""
        return {found.genome for found in self.evaluations} | {found.genome for found in self.failures}

    def admissible(self) -> list[Evaluation]:
        """Return the points that keep every limit, judged on exact integers, in the order of their candidates.

        A point is a candidate under certain thresholds: one a candidate, unless the archive holds whole curves.
        """
        return list(self._admissible)

    def _keeps(self, point: Evaluation) -> bool:
        return self.limits.admissible(point.validation) and self.limits.static_reason(point.costs) is None

    def front(self, evaluations: Sequence[Evaluation], ranks: int = 1) -> list[Evaluation]:
        """Return the non-dominated ones of `evaluations`, the most accurate first.

        Of those with equal figures the one with the smallest genome stands for all, and of its trials the shortest.

        Args:
            evaluations: points of the archive.
            ranks: how many fronts: with 2 those, too, that none but the non-dominated ones dominate.
        """
        return _non_dominated(evaluations, [_figures(found.validation) for found in evaluations], ranks)

    def leading(self, *, limited: bool) -> list[Evaluation]:
        """Return the candidates that a search goes on from, those reaching the least error first.

        Non-dominated is judged by what a candidate can reach under any of its thresholds, `Evaluation.reach`.

        Args:
            limited: of the admissible candidates only, if there are any.
        """
        kept = {found.genome for found in self._admissible} if limited else set()
        candidates = [found for found in self.evaluations if found.genome in kept] or self.evaluations
        return _non_dominated(candidates, [found.reach() for found in candidates])

    @property
    def budgets(self) -> tuple[float, ...]:
        """Return the budgets of average MACs that a search improves on, `Limits.budgets`."""
        return self.limits.budgets(self.reference[1])

    def reached(self, genome: Genome | None = None) -> list[float]:
        """Return the best accuracy within each of `budgets`, of all admissible points or those of `genome`.

        Where no point is admissible, all points count; 0 where there is none.
        """
        points = [point for point in self._admissible or self.points if genome in (None, point.genome)]
        return [
            max((p.validation.accuracy for p in points if p.validation.average_macs <= budget), default=0.0)
            for budget in self.budgets
        ]

    def best_together(self, count: int) -> list[Genome]:
        """Return up to `count` genomes, each adding most to what those before it reach within the budgets."""
        own = {point.genome: self.reached(point.genome) for point in self._admissible or self.points}
        chosen, best = list[Genome](), [0.0] * len(self.budgets)
        while own and len(chosen) < count:
            together = {genome: [*map(max, best, reached)] for genome, reached in own.items()}
            adds = max(own, key=lambda genome: (sum(together[genome]), sum(own[genome]), [-g for g in genome]))
            chosen.append(adds)
            best = together[adds]
            del own[adds]
        return chosen

    def hypervolume(self, evaluations: Sequence[Evaluation]) -> float:
        """Return the area that `evaluations` dominate below the reference point, in MACs."""
        return _area([found.validation for found in evaluations], self.reference)


def _area(measures: Sequence[Figures], reference: tuple[float, float]) -> float:
    """Return the area that `measures` dominate below `reference`, in MACs."""
    points = sorted({_figures(found) for found in measures})  # sorted: the order found changes no bit
    return hypervolume(np.array(points), reference) if points else 0.0


def _figures(found: Figures) -> tuple[float, float]:
    return 1 - found.accuracy, found.average_macs


def _name(found: Evaluation) -> tuple[Genome, int, int]:
    return found.genome, found.effort, found.repeat


def _non_dominated(
    evaluations: Sequence[Evaluation], figures: Sequence[tuple[float, float]], ranks: int = 1
) -> list[Evaluation]:
    """Return the first `ranks` fronts by `figures`, ascending; of equals the one with the smallest genome."""
    points = np.array(figures, np.float64).reshape(-1, 2)
    best: dict[tuple[float, float], Evaluation] = {}
    for row in np.flatnonzero(non_dominated_ranks(points, np.zeros(len(points))) < ranks).tolist():
        point, found = figures[row], evaluations[row]
        if point not in best or _name(found) < _name(best[point]):
            best[point] = found
    return [best[point] for point in sorted(best)]


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        run: folder of the run.
        seed: run seed.
        evaluated: trained candidates, those found in the folder included.
        reused: candidates found in the folder.
        failed: candidates whose evaluation raised an error.
        inadmissible: genomes met that a static count alone ruled out, never trained; None if not known.
        admissible: evaluated candidates that keep all limits.
        max_macs, min_accuracy: the limits.
        hypervolume_all, hypervolume_admissible: area dominated below `reference`, in MACs.
        reference: (error 1, MACs of the space's largest network).
        front: admissible non-dominated networks, the most accurate first.
        closest: when `front` is empty, the evaluated candidate nearest to the limits, if there is one.
        failure: why the first of the failed candidates failed.
        table: which table answered for trainings; None when candidates were trained.
        margin: how far inside the limits the validation split stays.
        guarantee: probability with which all rows of `front` keep both limits on new images, if it was asked for.
    """

    run: str
    seed: int
    evaluated: int
    reused: int
    failed: int
    inadmissible: int | None
    admissible: int
    max_macs: int | None
    min_accuracy: float
    hypervolume_all: float
    hypervolume_admissible: float
    reference: tuple[float, int]
    front: tuple[Solution, ...]
    closest: Solution | None
    failure: str | None = None
    table: Mapping[str, Any] | None = None
    margin: float = 0.0
    guarantee: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `search --json` prints: plain lists, numbers and texts."""
        table = {} if self.table is None else {"table": dict(self.table)}
        return {
            "run": self.run,
            "seed": self.seed,
            "evaluated": self.evaluated,
            "reused": self.reused,
            "failed": self.failed,
            "admissible": self.admissible,
            "constraints": {"max_macs": self.max_macs, "min_accuracy": self.min_accuracy}
            | ({"margin": self.margin} if self.margin else {})
            | ({} if self.guarantee is None else {"guarantee": self.guarantee}),
            "hypervolume": {
                "all": self.hypervolume_all,
                "admissible": self.hypervolume_admissible,
                "reference": list(self.reference),
            },
            "front": [_plain(solution) for solution in self.front],
        } | table


def _plain(solution: Solution) -> dict[str, Any]:
    """Return `solution` as plain values; temperatures stand in it where there are any."""
    found: dict[str, Any] = _listed(asdict(solution))
    if not found["temperatures"]:
        del found["temperatures"]
    return found


def _listed(value: Any) -> Any:
    """Return `value` with tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {name: _listed(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(member) for member in value]
    return value


def result_of(
    archive: Archive,
    problem: Problem,
    run: Path,
    *,
    reused: int,
    inadmissible: int | None,
    guarantee: float | None = None,
) -> SearchResult:
    """Return the result that `archive` holds; `guarantee` as of `nachos_min.search`."""
    limits, closest = problem.configuration.limits, None
    rows = shown_rows(archive, guarantee)
    if not rows and archive.evaluations:
        nearest = min(archive.evaluations, key=lambda found: (_distance(found, archive.limits), _name(found)))
        closest = solution_of(0, nearest, limits)
    kept = [point for point in archive.admissible() if archive.limits.admissible(point.shown)]
    return SearchResult(
        run=str(run),
        seed=problem.configuration.seed,
        evaluated=len(archive.evaluations),
        reused=reused,
        failed=len(archive.failures),
        inadmissible=inadmissible,
        admissible=len({found.genome for found in kept}),
        max_macs=limits.max_macs,
        min_accuracy=limits.min_accuracy,
        margin=problem.configuration.margin,
        hypervolume_all=_area([point.shown for point in archive.points], archive.reference),
        hypervolume_admissible=_area([row.shown for row in rows], archive.reference),
        reference=archive.reference,
        front=tuple(solution_of(number, found, limits) for number, found in enumerate(rows)),
        closest=closest,
        failure=archive.failures[0].reason if archive.failures else None,
        table=problem.table,
        guarantee=guarantee,
    )


def shown_rows(archive: Archive, guarantee: float | None = None) -> list[Evaluation]:
    """Return the rows that people see, the most accurate first: points of the archive that keep the limits.

    The validation split chooses them: its first front. With a calibration split, whose figures are shown, it
    chooses the first two fronts, of which those remain that keep the limits on the calibration split, too. Being
    the best there is partly luck, and the second front has had less of it.

    With a `guarantee` those remain that are certified on the calibration split (`eenn/guarantee.py`).
    """
    points = archive.admissible()
    if not any(point.calibration for point in points):
        return archive.front(points)
    rows = sorted(archive.front(points, RANKS), key=lambda row: -row.validation.average_macs)
    if guarantee is None:
        rows = [row for row in rows if archive.limits.admissible(row.shown)]
    else:
        counted = [Row(row.shown.correct, row.shown.exit_counts, row.costs.exit_costs) for row in rows]
        limits = archive.limits.max_macs, archive.limits.min_accuracy
        certain = certified(counted, *limits, level_of(guarantee))
        rows = [row for row, sure in zip(rows, certain, strict=True) if sure]
    return sorted(rows, key=lambda row: (*_figures(row.shown), row.genome, row.thresholds))


def level_of(guarantee: float) -> float:
    """Return the probability of a mistake that each of the two limits may have."""
    return (1 - guarantee) / 2


def _distance(found: Evaluation, limits: Limits) -> float:
    """Return the sum of both violations, each relative to its limit; 0 when both are kept."""
    short = max(0.0, limits.min_accuracy - found.validation.accuracy) / max(limits.min_accuracy, 1e-9)
    over = 0.0 if limits.max_macs is None else max(0.0, found.validation.average_macs / limits.max_macs - 1)
    return short + over


def rebuild(problem: Problem, evaluation: Evaluation) -> EarlyExitNetwork:
    """Return the trained network of a stored evaluation, in inference mode."""
    network = build(problem.coder, evaluation.genome, problem.configuration.seed)
    network.load_state(evaluation.weights)
    network.train(False)
    return network
