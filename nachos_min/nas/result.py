"""The archive of a search, and its result: the best admissible networks among those evaluated.

Everything here follows from the stored evaluations: `load_run` (`runs.py`) gives the same result again.
"""

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import Scaling
from nachos_min.data.seen import Seen
from nachos_min.eenn.guarantee import certified
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.thresholds import Figures, balanced_interval, counted_by, wilson_interval
from nachos_min.errors import InputError
from nachos_min.nas import views
from nachos_min.nas.configuration import Problem
from nachos_min.nas.evaluation import Evaluation, Failure, Point, Trial
from nachos_min.nas.gain import Retrained, retrained_of
from nachos_min.nas.genome import Genome
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits
from nachos_min.nas.views import setting_names, settings

if TYPE_CHECKING:
    from nachos_min.eenn.trained import Prediction, Trained

Value = TypeVar("Value")

RANKS = 2  # fronts that are shown where the figures are of samples that chose none of them


@dataclass(frozen=True)
class FiguresOnTest(Figures):
    """Figures on the test split, which takes part in no choice; `kept`: whether both limits hold there."""

    kept: bool = field(kw_only=True)

    @property
    def interval95(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.samples)

    @property
    def balanced_interval95(self) -> tuple[float, float] | None:
        """95 % interval of the balanced accuracy; None if classes were not counted."""
        if not self.class_samples:
            return None
        return balanced_interval(self.class_correct, self.class_samples)

    @property
    def metric_interval95(self) -> tuple[float, float]:
        """The interval of `metric`."""
        return self.balanced_interval95 or self.interval95

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON object of a row has under "test"."""
        return _listed(self, ROW_ON_TEST)


class _Read(Generic[Value]):
    """An attribute that is read at a dotted path of the same object."""

    def __init__(self, path: str) -> None:
        self._at = attrgetter(path)

    def __get__(self, row: Any, owner: type | None = None) -> Value:
        value: Value = self._at(row)
        return value


@dataclass(frozen=True, repr=False)
class Network:
    """A trained network under one choice of thresholds: a row of the front, or a point of the archive.

    Its figures are of the half of the validation split that did not choose the thresholds, or of all of it.
    """

    evaluation: Evaluation
    point: Point  # the thresholds, with the figures on each split
    limits: Limits  # without the margin; the test figures are compared with them
    solution: int = 0  # its k in RUN#k: the number in the whole front of its run, 0 is the most accurate
    problem: Problem | None = field(default=None, compare=False)  # of its run
    run: str = field(default="", compare=False)  # folder of its run

    genome = _Read[Genome]("evaluation.trial.genome")
    exits = _Read[tuple[int, ...]]("evaluation.exits")  # stage numbers (from 1) of the E exits, the final one last
    thresholds = _Read[tuple[float, ...]]("point.thresholds")  # on the cumulative confidence; the last is 0
    accuracy = _Read[float]("point.shown.accuracy")
    balanced_accuracy = _Read[float | None]("point.shown.balanced_accuracy")
    metric = _Read[float]("point.shown.metric")  # of the two, the one that the search went by
    correct = _Read[int]("point.shown.correct")
    samples = _Read[int]("point.shown.samples")
    total_macs = _Read[int]("point.shown.total_macs")
    average_macs = _Read[float]("point.shown.average_macs")
    exit_counts = _Read[tuple[int, ...]]("point.shown.exit_counts")
    exit_costs = _Read[tuple[int, ...]]("evaluation.costs.exit_costs")  # MACs of a sample leaving at each exit
    worst_macs = _Read[int]("evaluation.costs.worst_macs")
    params = _Read[int]("evaluation.costs.params")
    peak_bytes = _Read[int]("evaluation.costs.peak_bytes")
    confidence = _Read[str]("evaluation.confidence.name")  # learned or softmax

    @property
    def name(self) -> str:
        """What files call it: the folder of its run and its number, such as "digits#0"."""
        return f"{Path(os.path.abspath(self.run)).name}#{self.solution}"

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of each early exit's softmax; empty for learned confidence."""
        return self.evaluation.confidence.temperatures or ()

    @property
    def test(self) -> FiguresOnTest:
        """Figures on the test split."""
        return FiguresOnTest(**asdict(self.point.test), kept=self.limits.admissible(self.point.test))

    @cached_property
    def trained(self) -> "Trained":
        """What is needed to use the network: weights, thresholds, scaling; InputError if the run lacks it."""
        from nachos_min.eenn.trained import Trained  # a run is shown without the engine

        about = {} if self.problem is None else self.problem.about
        if self.problem is None or not about.get("scaling") or "values" not in about:
            lacks = "stored by an earlier version, without the scaling of its images"
            raise InputError(f"run {self.run} was {lacks}; the same search with its data adds it")
        if not self.evaluation.weights:
            raise InputError(f"run {self.run} has no weights: a table answered for its trainings")
        values, configuration = about["values"], self.problem.configuration
        seen = Seen(
            about["image_shape"],
            **values,
            scaling=Scaling(**about["scaling"]),
            layout=configuration.layout,
            class_names=about["class_names"],
            class_labels=about.get("class_labels", ()),
            resolution=configuration.resolution,
        )
        return Trained(
            self.name,
            self.problem.coder.decode(self.genome),
            self.evaluation.weights,
            self.evaluation.confidence,
            self.thresholds,
            seen,
        )

    def predict(self, images: Any) -> "Prediction":
        """Return the answers to images, each with the exit at which it left: what comes after is not computed.

        Args:
            images: as the data set had them: uint8 or float [N, H, W] or [N, H, W, C], signals [N, length];
                channels first if the run's layout is chw; without the first axis, one of them.

        Raises:
            InputError: another shape, order of axes or scale than the training images', a value that is not finite,
                or a run that lacks weights or scaling.
        """
        return self.trained.predict(images)

    def confusion(self, images: Any, labels: Any) -> NDArray[np.int64]:
        """Return how many images of each right class (rows) got each answer (columns), int64 [C, C].

        Args:
            images: as of `predict`.
            labels: [N], right labels as the data had them, or names of classes; `trained.seen.class_names` has
                the order of the classes.

        Raises:
            InputError: as `predict`; an unknown label, or not one for each image.
        """
        found = self._compared(images, labels)
        return counted_by(found[0], found[1].classes, shape=(self.trained.architecture.classes,) * 2)

    def exits_by_class(self, images: Any, labels: Any) -> NDArray[np.int64]:
        """Return how many images of each right class leave at each exit, int64 [C, E]; arguments as `confusion`."""
        found = self._compared(images, labels)
        return counted_by(found[0], found[1].exits, shape=(self.trained.architecture.classes, len(self.exits)))

    def _compared(self, images: Any, labels: Any) -> tuple[NDArray[np.int64], "Prediction"]:
        classes, prediction = self.trained.seen.classes(labels), self.predict(images)
        if len(classes) != len(prediction):
            raise InputError(f"labels must be one for each of {len(prediction)} images, got {len(classes)}")
        return classes, prediction

    def __repr__(self) -> str:
        return views.network_text(self)

    def _repr_html_(self) -> str:
        return views.html_table([self], f"A network of {self.run}", {})

    def as_dict(self) -> dict[str, Any]:
        """Return the row of the JSON object, with temperatures and balanced accuracy if there are any."""
        return _listed(self, ROW) | {"test": self.test.as_dict()}


# What stands in the JSON of a row, and of its test figures, in this order.
ROW = (
    *("solution", "genome", "exits", "thresholds", "accuracy", "balanced_accuracy", "correct", "samples"),
    *("total_macs", "average_macs", "exit_counts", "exit_costs", "worst_macs", "params", "peak_bytes"),
    *("confidence", "temperatures"),
)
ROW_ON_TEST = (
    *("accuracy", "balanced_accuracy", "correct", "samples", "interval95", "balanced_interval95", "kept"),
    *("total_macs", "average_macs", "exit_counts"),
)


def _listed(row: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return attributes of `row` by their names, tuples as lists, without those that are None or ()."""
    values = {name: getattr(row, name) for name in names}
    values = {name: value for name, value in values.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


class Archive:
    """All candidates evaluated so far, in the order in which they were chosen."""

    def __init__(self, problem: Problem, evaluated: Iterable[Evaluation | Failure] = ()) -> None:
        configuration = problem.configuration
        self.problem = problem
        self.limits = configuration.limits.tightened(configuration.margin)  # kept on the validation split
        self.largest = static_costs(problem.coder.largest())
        self.reference = (1.0, self.largest.worst_macs)  # error and MACs
        self.budgets = self.limits.budgets(self.largest.worst_macs)  # of average MACs, which a search improves on
        self.candidates: list[Evaluation | Failure] = []
        self.evaluations: list[Evaluation] = []  # candidates without failures
        self.networks: list[Network] = []  # each candidate under all its thresholds
        self.admissible: list[Network] = []  # those of the networks that keep every limit
        for found in evaluated:
            self.add(found)

    def add(self, evaluated: Evaluation | Failure) -> None:
        """Append one candidate."""
        self.candidates.append(evaluated)
        if isinstance(evaluated, Evaluation):
            self.evaluations.append(evaluated)
            networks = [self.network(evaluated, point) for point in evaluated.points]
            self.networks += networks
            self.admissible += filter(self.admits, networks)

    def network(self, evaluation: Evaluation, point: Point) -> Network:
        """Return a candidate under certain thresholds."""
        return Network(evaluation, point, self.problem.configuration.limits, problem=self.problem)

    def admits(self, network: Network) -> bool:
        """Return whether a network keeps every limit on the split that chose its thresholds."""
        exceeded = self.limits.exceeded(network.evaluation.costs)
        return not exceeded and self.limits.admissible(network.point.validation)

    def __len__(self) -> int:
        """Return the number of candidates, failures included."""
        return len(self.candidates)

    def genomes(self) -> set[Genome]:
        """Return the genomes of all candidates, failures included."""
        return {found.trial.genome for found in self.candidates}

    def front(self, networks: Sequence[Network], ranks: int = 1) -> list[Network]:
        """Return the first `ranks` non-dominated fronts of `networks`, the most accurate first.

        Of those with equal figures the one with the smallest genome stands for all, and of its trials the shortest.
        """
        figures = [_figures(row.point.validation) for row in networks]
        return _non_dominated(networks, figures, [row.evaluation.trial for row in networks], ranks)

    def leading(self, *, limited: bool) -> list[Evaluation]:
        """Return the candidates that a search goes on from: non-dominated by `Evaluation.ends`, least error first.

        With `limited` only admissible candidates, if there are any.
        """
        kept = {network.genome for network in self.admissible} if limited else set()
        found = [each for each in self.evaluations if each.genome in kept] or self.evaluations
        return _non_dominated(found, [each.ends for each in found], [each.trial for each in found])

    def best_accuracies(self, networks: Iterable[Network] | None = None) -> list[float]:
        """Return the best accuracy within each of `budgets`, 0 where there is none.

        Without `networks`: of the admissible ones, or of all if none is admissible.
        """
        given = self.admissible or self.networks if networks is None else networks
        figures = [network.point.validation for network in given]
        return [
            max((each.metric for each in figures if each.average_macs <= budget), default=0.0)
            for budget in self.budgets
        ]

    def best_together(self, count: int) -> list[Genome]:
        """Return up to `count` genomes, each adding most to the best accuracies of those before it."""
        networks = dict[Genome, list[Network]]()
        for network in self.admissible or self.networks:
            networks.setdefault(network.genome, []).append(network)
        own = {genome: self.best_accuracies(found) for genome, found in networks.items()}
        chosen, best = list[Genome](), [0.0] * len(self.budgets)
        while own and len(chosen) < count:
            together = {genome: [*map(max, best, found)] for genome, found in own.items()}
            adds = max(own, key=lambda genome: (sum(together[genome]), sum(own[genome]), [-g for g in genome]))
            chosen.append(adds)
            best = together[adds]
            del own[adds]
        return chosen

    def hypervolume(self, networks: Iterable[Network]) -> float:
        """Return the area that `networks` dominate below the reference point, in MACs."""
        return self.area(network.point.validation for network in networks)

    def area(self, found: Iterable[Figures]) -> float:
        """Return the area that figures dominate below the reference point, in MACs."""
        points = sorted(set(map(_figures, found)))  # sorted: the order of candidates changes no bit
        return hypervolume(np.array(points), self.reference) if points else 0.0


def _figures(found: Figures) -> tuple[float, float]:
    return 1 - found.metric, found.average_macs


def _non_dominated(
    found: Sequence[Value], figures: Sequence[tuple[float, float]], trials: Sequence[Trial], ranks: int = 1
) -> list[Value]:
    """Return the first `ranks` fronts by `figures`, ascending; of equals the one with the smallest trial.

    No point is dominated by a later one. `fewest` MACs of a front so far decide whether it dominates the next.
    """
    chosen, fewest = dict[tuple[float, float], Value](), [inf] * ranks
    for row in sorted(range(len(found)), key=lambda row: (figures[row], trials[row])):
        front = bisect_right(fewest, figures[row][1])
        if front < ranks and figures[row] not in chosen:
            fewest[front] = figures[row][1]
            chosen[figures[row]] = found[row]
    return list(chosen.values())


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The outcome of a search."""

    run: str  # folder
    seed: int
    limits: Limits
    margin: float  # how far inside the limits the validation split stays
    evaluated: int  # trained candidates, those found in the folder included
    reused: int  # candidates found in the folder
    failed: int  # candidates whose evaluation raised an error
    inadmissible: int | None  # genomes ruled out by static counts and never trained; None if not known
    admissible: int  # evaluated candidates that keep all limits
    hypervolume_all: float  # area dominated below `reference`, in MACs
    hypervolume_admissible: float
    reference: tuple[float, int]  # error 1, MACs of the space's largest network
    front: tuple[Network, ...]  # of `shown_rows`, the most accurate first
    closest: Network | None  # when `front` is empty, the evaluated candidate nearest to the limits, if any
    failure: str | None = None  # of the first candidate that failed
    failures: Mapping[str, int] = field(default_factory=dict)  # their causes (CAUSES in evaluation.py) and numbers
    table: Mapping[str, Any] | None = None  # which table answered for trainings; None: candidates were trained
    guarantee: float | None = None  # probability with which all rows of `front` keep both limits on new images
    best_accuracy: float | None = None  # of all networks, whatever they cost
    largest_class: float | None = None  # its share of the training split: what always naming it would reach
    warnings: tuple[str, ...] = ()  # about the limits, a sentence each
    metric: str = "accuracy"  # what the search went by, and `min_accuracy` limits
    unfinished: int = 0  # networks for which there was no time
    retrained: Retrained | None = None  # of a run that trains one network again

    max_macs = _Read[int | None]("limits.max_macs")
    min_accuracy = _Read[float]("limits.min_accuracy")

    @property
    def settings(self) -> tuple[dict[str, Network], ...]:
        """Of each network its rows by name: "accurate", "knee" and "cheap"."""
        return settings(self.front)

    def __repr__(self) -> str:
        return views.result_text(self)

    def _repr_html_(self) -> str:
        return views.html_table(self.front, views.title(self), setting_names(self.settings))

    def to_pandas(self) -> Any:
        """Return the front as a `pandas.DataFrame`: a row a network, by its number, columns as in its JSON object.

        Raises:
            InputError: if the package pandas is not installed.
        """
        return views.frame(self.front)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `search --json` prints: plain lists, numbers and texts."""
        constraints: dict[str, Any] = {"max_macs": self.limits.max_macs, "min_accuracy": self.limits.min_accuracy}
        constraints |= {"margin": self.margin} if self.margin else {}
        constraints |= {} if self.metric == "accuracy" else {"metric": self.metric}
        constraints |= {} if self.guarantee is None else {"guarantee": self.guarantee}
        areas = {"all": self.hypervolume_all, "admissible": self.hypervolume_admissible}
        found = _listed(self, ("run", "seed", "evaluated", "reused", "failed", "admissible")) | {
            "constraints": constraints,
            "hypervolume": areas | {"reference": list(self.reference)},
            "front": [row.as_dict() for row in self.front],
            "settings": [{name: row.solution for name, row in rows.items()} for rows in self.settings],
        }
        found |= {"failures": dict(self.failures)} if self.failures else {}
        found |= {"unfinished": self.unfinished} if self.unfinished else {}
        found |= {"warnings": list(self.warnings)} if self.warnings else {}
        found |= {} if self.retrained is None else {"retrained": self.retrained.as_dict()}
        return found if self.table is None else found | {"table": dict(self.table)}


def result_of(
    archive: Archive,
    run: Path,
    *,
    reused: int,
    inadmissible: int | None,
    guarantee: float | None = None,
    unfinished: int = 0,
    whole: Archive | None = None,
) -> SearchResult:
    """Return the result that `archive` holds, whose folder is `run`; other arguments are fields of `SearchResult`.

    `whole` is within the run's own limits, if those of `archive` are tighter; rows have their numbers in its front.
    """
    configuration, limits = archive.problem.configuration, archive.limits
    largest, classes = archive.problem.about.get("largest_class"), archive.problem.coder.classes
    shown, closest = shown_rows(archive, guarantee), None
    every = shown if guarantee is None and whole in (None, archive) else shown_rows(whole or archive)
    numbers = {id(row.point): number for number, row in enumerate(every)}
    rows = [replace(row, solution=numbers[id(row.point)], run=str(run)) for row in shown]
    failures = [found for found in archive.candidates if isinstance(found, Failure)]
    if not rows and archive.evaluations:
        closest = min(archive.networks, key=lambda row: (_distance(row, limits), row.evaluation.trial))
    return SearchResult(
        run=str(run),
        seed=configuration.seed,
        limits=configuration.limits,
        margin=configuration.margin,
        evaluated=len(archive.evaluations),
        reused=reused,
        failed=len(failures),
        inadmissible=inadmissible,
        admissible=len({row.evaluation.trial for row in archive.admissible if limits.admissible(row.point.shown)}),
        hypervolume_all=archive.area(network.point.shown for network in archive.networks),
        hypervolume_admissible=archive.area(row.point.shown for row in rows),
        reference=archive.reference,
        front=tuple(rows),
        closest=closest,
        failure=failures[0].reason if failures else None,
        failures=Counter(sorted(found.cause for found in failures)),
        table=archive.problem.table,
        guarantee=guarantee,
        best_accuracy=max((row.metric for row in archive.networks), default=None),
        largest_class=largest,
        warnings=configuration.limits.warnings(configuration.metric, largest, classes),
        metric=configuration.metric,
        unfinished=unfinished,
        retrained=retrained_of(archive, rows),
    )


def shown_rows(archive: Archive, guarantee: float | None = None) -> list[Network]:
    """Return the rows of a result, the most accurate first: networks of the archive that keep the limits.

    Without a calibration split: the first front on validation. With one, whose figures are shown: those of the
    first two fronts that keep the limits on calibration, or with a `guarantee` are certified there. Being the best
    on validation is partly luck; the second front has had less of it.
    """
    if not any(row.point.calibration for row in archive.admissible):
        return archive.front(archive.admissible)
    rows = sorted(archive.front(archive.admissible, RANKS), key=lambda row: -row.point.validation.average_macs)
    if guarantee is None:
        rows = [row for row in rows if archive.limits.admissible(row.point.shown)]
    else:
        counted = [(row.point.shown, row.exit_costs) for row in rows]
        limits = archive.limits.max_macs, archive.limits.min_accuracy
        certain = certified(counted, *limits, level_of(guarantee))
        rows = [row for row, sure in zip(rows, certain, strict=True) if sure]
    return sorted(rows, key=lambda row: (*_figures(row.point.shown), row.genome, row.thresholds))


def level_of(guarantee: float) -> float:
    """Return the probability of a mistake that each of the two limits may have."""
    return (1 - guarantee) / 2


def _distance(network: Network, limits: Limits) -> float:
    """Return the sum of both violations on validation, each relative to its limit; 0 when both are kept."""
    found = network.point.validation
    short = max(0.0, limits.min_accuracy - found.metric) / max(limits.min_accuracy, 1e-9)
    return short + (0.0 if limits.max_macs is None else max(0.0, found.average_macs / limits.max_macs - 1))
