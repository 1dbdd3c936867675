"""Evaluations as plain records for the store and back, and runs read again without training anything.

The store takes plain values and arrays only: a run can be read without this program's classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.inference import ExitTables
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures, spent
from nachos_min.nas import configuration as stored
from nachos_min.nas.configuration import Problem
from nachos_min.nas.evaluate import SPLITS, Evaluation, Failure, Point, Trial
from nachos_min.nas.genome import Genome
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.store import open_run


def load_run(path: str | Path, guarantee: float | None = None) -> SearchResult:
    """Return the result of the run in folder `path`, from its stored evaluations; `guarantee` as of `search`.

    Raises:
        InputError: if there is no run, it is damaged, its data set or space has other content than before, or
            `guarantee` breaks its rule.
    """
    problem = stored_problem(path)
    stored.check_guarantee(guarantee, problem.configuration.validation, problem.configuration.metric)
    evaluated = tuple(stored_evaluations(path))
    archive = Archive(problem, evaluated)
    return result_of(archive, Path(path), reused=len(evaluated), inadmissible=None, guarantee=guarantee)


def stored_problem(path: str | Path) -> Problem:
    """Return the configuration of the run in folder `path`, with its data and space; InputError as `load_run`."""
    identity = open_run(path).configuration
    problem = replace(stored.load_problem(stored.configuration_of(identity)), table=identity.get("table"))
    now = problem.identity()
    for name, what in (("data_content", "data set"), ("space_content", "space")):
        if identity.get(name) != now[name]:
            raise stored.ConfigurationError(f"run {path}: its {what} must be what it was, got other content")
    return problem


def stored_evaluations(path: str | Path) -> Iterator[Evaluation | Failure]:
    """Yield what was evaluated in the run in folder `path`, by key; InputError as `load_run`."""
    run = open_run(path)
    for name in run.keys():  # noqa: SIM118  (a run is no mapping)
        if (record := run.read(name)) is not None:
            yield from_record(record)


def key(genome: Genome) -> str:
    """Return the name of a canonical genome: its genes joined by dashes."""
    return "-".join(map(str, genome))


def trial_key(trial: Trial) -> str:
    """Return the name under which a trial is stored; its SHA-256 if it is too long for a file's name.

    >>> trial_key(Trial((1, 0))), trial_key(Trial((1, 0), effort=4)), trial_key(Trial((1, 0), effort=4, repeat=2))
    ('1-0', '1-0.x4', '1-0.x4.r2')
    """
    name = key(trial.genome) + (f".x{trial.effort}" if trial.effort > 1 else "")
    name += f".r{trial.repeat}" if trial.repeat else ""
    return name if len(name) <= 200 else sha256(name.encode()).hexdigest()


def to_record(evaluated: Evaluation | Failure) -> dict[str, Any]:
    """Return `evaluated` as nested dictionaries of plain values and arrays, defaults left out."""
    trial = evaluated.trial
    unusual = {"effort": trial.effort} if trial.effort > 1 else {}
    unusual |= {"repeat": trial.repeat} if trial.repeat else {}
    if isinstance(evaluated, Failure):
        return {"genome": trial.genome, "reason": evaluated.reason, **unusual}
    chosen, *curve = evaluated.points
    record: dict[str, Any] = {
        "genome": trial.genome,
        "exits": evaluated.exits,
        "thresholds": chosen.thresholds,
        "costs": asdict(evaluated.costs),
        "validation": _listed(chosen.validation),
        "test": _listed(chosen.test),
        "tables": {"confidence": evaluated.tables.confidence, "predicted": evaluated.tables.predicted},
        "losses": evaluated.losses,
        "weights": evaluated.weights,
    }
    if curve:
        # As arrays: a curve has tens of points, and each number of a nested list would be a member of the file.
        figures = [
            [getattr(point, name) for point in curve] for name in SPLITS if getattr(chosen, name) is not None
        ]
        record["curve"] = {
            "thresholds": np.array([point.thresholds for point in curve], np.float64),
            "correct": np.array([[each.correct for each in split] for split in figures], np.int64),
            "exit_counts": np.array([[each.exit_counts for each in split] for split in figures], np.int64),
        }
        if chosen.validation.class_samples:
            classes = [np.array([each.class_correct for each in split], np.int64) for split in figures]
            record["curve"]["class_correct"] = classes
    if chosen.calibration is not None:
        record["calibration"] = _listed(chosen.calibration)
    record |= unusual
    if evaluated.confidence.temperatures is not None:
        record["temperatures"] = np.array(evaluated.confidence.temperatures)
    return record


def from_record(record: Mapping[str, Any]) -> Evaluation | Failure:
    """Return the Evaluation or Failure that `to_record` made `record` from."""
    trial = Trial(record["genome"], record.get("effort", 1), record.get("repeat", 0))
    if "reason" in record:
        return Failure(trial, record["reason"])
    splits = [name for name in SPLITS if name in record]
    chosen = Point(record["thresholds"], **{name: Figures(**record[name]) for name in splits})
    costs = StaticCosts(**record["costs"])
    return Evaluation(
        trial=trial,
        exits=record["exits"],
        costs=costs,
        points=(chosen, *_curve(record["curve"], chosen, splits, costs)) if "curve" in record else (chosen,),
        confidence=Confidence(tuple(record["temperatures"].tolist())) if "temperatures" in record else LEARNED,
        tables=ExitTables(**record["tables"]),
        losses=record["losses"],
        weights=record["weights"],
    )


def _listed(figures: Figures) -> dict[str, Any]:
    """Return the figures as a dictionary, without those of the classes if they were not counted."""
    return {name: value for name, value in asdict(figures).items() if value != ()}


def _curve(curve: Mapping[str, Any], chosen: Point, splits: Sequence[str], costs: StaticCosts) -> Iterator[Point]:
    """Yield the points of a stored curve; `chosen` has the samples of each class."""

    def figures(place: int, split: int, name: str) -> Figures:
        left = tuple(curve["exit_counts"][split, place].tolist())
        classes: tuple[Any, ...] = ()
        if "class_correct" in curve:
            classes = tuple(curve["class_correct"][split][place].tolist()), getattr(chosen, name).class_samples
        right = int(curve["correct"][split, place])
        return Figures(right, sum(left), left, spent(left, costs.exit_costs), *classes)

    for place, thresholds in enumerate(curve["thresholds"].tolist()):
        yield Point(tuple(thresholds), **{name: figures(place, split, name) for split, name in enumerate(splits)})
