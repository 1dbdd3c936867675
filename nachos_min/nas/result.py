"""What a search returns: the admissible Pareto-optimal networks, each with its certificate.

Read `evaluate.py` first. Everything here is derived from the stored evaluations: `load_run` (`runs.py`) gives the
same result again from the run's folder, without training anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.eenn.costs import static_costs
from nachos_min.eenn.intervals import wilson_interval
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.nas.configuration import Problem
from nachos_min.nas.evaluate import Evaluation, Failure, Measure, build
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits


@dataclass(frozen=True)
class Certificate:
    """Figures measured on the test split, which took no part in any choice.

    Attributes:
        accuracy: correct / samples, in 0..1.
        interval95: Wilson interval of the accuracy.
        average_macs: total_macs / samples.
    """

    accuracy: float
    correct: int
    samples: int
    interval95: tuple[float, float]
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
        accuracy, correct, samples, total_macs, average_macs, exit_counts: on the validation split.
        exit_costs: MACs of a sample that leaves at each exit.
        worst_macs: the last of them.
        params: trainable parameters.
        peak_bytes: activations alive at once, float32, one sample.
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
    test: Certificate


def certificate(measure: Measure) -> Certificate:
    """Return the figures of a Measure with the 95 % interval of its accuracy."""
    return Certificate(
        accuracy=measure.accuracy,
        correct=measure.correct,
        samples=measure.samples,
        interval95=wilson_interval(measure.correct, measure.samples),
        total_macs=measure.total_macs,
        average_macs=measure.average_macs,
        exit_counts=measure.exit_counts,
    )


def solution_of(number: int, evaluation: Evaluation) -> Solution:
    """Return `evaluation` as solution `number` of a front."""
    validation, costs = evaluation.validation, evaluation.costs
    return Solution(
        solution=number,
        genome=evaluation.genome,
        exits=evaluation.exits,
        thresholds=evaluation.thresholds,
        accuracy=validation.accuracy,
        correct=validation.correct,
        samples=validation.samples,
        total_macs=validation.total_macs,
        average_macs=validation.average_macs,
        exit_counts=validation.exit_counts,
        exit_costs=costs.exit_costs,
        worst_macs=costs.worst_macs,
        params=costs.params,
        peak_bytes=costs.peak_bytes,
        test=certificate(evaluation.test),
    )


@lru_cache(maxsize=16)
def _largest_macs(coder: GenomeCoder) -> int:
    """Return the worst MACs of the space's largest network; asked again whenever progress is told."""
    return static_costs(coder.largest()).worst_macs


class Archive:
    """All candidates evaluated so far, in the order in which they were chosen."""

    def __init__(self, problem: Problem, evaluated: Iterable[Evaluation | Failure] = ()) -> None:
        """Start with `evaluated`; the hypervolume's reference point is fixed here, once per run."""
        self.limits: Limits = problem.configuration.limits
        self.evaluations: list[Evaluation] = []
        self.failures: list[Failure] = []
        # Error 1, and the MACs of the space's largest network, whatever has been evaluated.
        self.reference = (1.0, _largest_macs(problem.coder))
        for found in evaluated:
            self.add(found)

    def add(self, evaluated: Evaluation | Failure) -> None:
        """Append one candidate. A failure is kept apart: it touches no figure."""
        if isinstance(evaluated, Failure):
            self.failures.append(evaluated)
        else:
            self.evaluations.append(evaluated)

    def __len__(self) -> int:
        """Return the number of candidates, failures included."""
        return len(self.evaluations) + len(self.failures)

    def genomes(self) -> set[Genome]:
        """Return the genomes of all candidates, failures included."""
        return {found.genome for found in self.evaluations} | {found.genome for found in self.failures}

    def objectives(self, evaluations: Sequence[Evaluation]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (error, average MACs) of each evaluation, float64 (n, 2)."""
        rows = [(1 - found.validation.accuracy, found.validation.average_macs) for found in evaluations]
        return np.array(rows, np.float64).reshape(-1, 2)

    def admissible(self) -> list[Evaluation]:
        """Return the candidates that keep every limit, judged on exact integers."""
        return [
            found
            for found in self.evaluations
            if self.limits.admissible(found.validation) and self.limits.static_reason(found.costs) is None
        ]

    def front(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """Return the non-dominated ones of `evaluations`, the most accurate first.

        Of candidates with equal figures the one with the smallest genome stands for all.
        """
        points = self.objectives(evaluations)
        best: dict[tuple[float, float], Evaluation] = {}
        for row in np.flatnonzero(non_dominated_ranks(points, np.zeros(len(points))) == 0).tolist():
            point, found = (points[row, 0], points[row, 1]), evaluations[row]
            if point not in best or found.genome < best[point].genome:
                best[point] = found
        return [best[point] for point in sorted(best)]

    def hypervolume(self, evaluations: Sequence[Evaluation]) -> float:
        """Return the area that `evaluations` dominate below the reference point, in MACs."""
        points = self.objectives(self.front(evaluations))  # sorted, so that the order found changes no bit
        return hypervolume(points, self.reference) if len(points) else 0.0


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

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `search --json` prints: plain lists, numbers and texts."""
        return {
            "run": self.run,
            "seed": self.seed,
            "evaluated": self.evaluated,
            "reused": self.reused,
            "failed": self.failed,
            "admissible": self.admissible,
            "constraints": {"max_macs": self.max_macs, "min_accuracy": self.min_accuracy},
            "hypervolume": {
                "all": self.hypervolume_all,
                "admissible": self.hypervolume_admissible,
                "reference": list(self.reference),
            },
            "front": [_listed(asdict(solution)) for solution in self.front],
        }


def _listed(value: Any) -> Any:
    """Return `value` with tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {name: _listed(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(member) for member in value]
    return value


def result_of(
    archive: Archive, problem: Problem, run: Path, *, reused: int, inadmissible: int | None
) -> SearchResult:
    """Return the result that `archive` holds."""
    admissible = archive.admissible()
    front = archive.front(admissible)
    closest = None
    if not front and archive.evaluations:
        nearest = min(archive.evaluations, key=lambda found: (_distance(found, archive.limits), found.genome))
        closest = solution_of(0, nearest)
    return SearchResult(
        run=str(run),
        seed=problem.configuration.seed,
        evaluated=len(archive.evaluations),
        reused=reused,
        failed=len(archive.failures),
        inadmissible=inadmissible,
        admissible=len(admissible),
        max_macs=archive.limits.max_macs,
        min_accuracy=archive.limits.min_accuracy,
        hypervolume_all=archive.hypervolume(archive.evaluations),
        hypervolume_admissible=archive.hypervolume(admissible),
        reference=archive.reference,
        front=tuple(solution_of(number, found) for number, found in enumerate(front)),
        closest=closest,
        failure=archive.failures[0].reason if archive.failures else None,
    )


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
