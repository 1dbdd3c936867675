"""Evaluations as plain records for the store, and back. Read `evaluate.py` first.

The store takes plain values and arrays only: a run can be read without this program's classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.inference import ExitTables
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures, spent
from nachos_min.nas.evaluate import CurvePoint, Evaluation, Failure, Trial
from nachos_min.nas.genome import Genome


def key(genome: Genome) -> str:
    """Return the name of a canonical genome: its genes joined by dashes."""
    return "-".join(map(str, genome))


def trial_key(trial: Trial) -> str:
    """Return the name under which a trial is stored.

    Names that a file system might refuse (over 200 characters) are replaced by their SHA-256.

    >>> trial_key(Trial((1, 0))), trial_key(Trial((1, 0), effort=4)), trial_key(Trial((1, 0), effort=4, repeat=2))
    ('1-0', '1-0.x4', '1-0.x4.r2')
    """
    name = key(trial.genome)
    name += f".x{trial.effort}" if trial.effort > 1 else ""
    name += f".r{trial.repeat}" if trial.repeat else ""
    return name if len(name) <= 200 else sha256(name.encode()).hexdigest()


def to_record(evaluated: Evaluation | Failure) -> dict[str, Any]:
    """Return `evaluated` as nested dictionaries of plain values and arrays."""
    record = asdict(evaluated)
    # What means "as before there was a choice" is not written.
    for name, usual in (("effort", 1), ("repeat", 0), ("calibration", None), ("curve", ())):
        if name in record and record[name] == usual:
            del record[name]
    if isinstance(evaluated, Evaluation):
        del record["confidence"]
        if evaluated.confidence.temperatures is not None:
            record["temperatures"] = np.array(evaluated.confidence.temperatures)
    if "curve" in record and isinstance(evaluated, Evaluation):
        # As arrays: a curve has tens of points, and each number of a nested list would be a member of the file.
        measured = [[getattr(point, split) for point in evaluated.curve] for split in _splits(evaluated)]
        record["curve"] = {
            "thresholds": np.array([point.thresholds for point in evaluated.curve], np.float64),
            "correct": np.array([[measure.correct for measure in split] for split in measured], np.int64),
            "exit_counts": np.array([[measure.exit_counts for measure in split] for split in measured], np.int64),
        }
    return record


def _splits(evaluated: Evaluation | Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits on which an evaluation, or its record, has figures, in the order of a curve's arrays."""
    get = evaluated.get if isinstance(evaluated, Mapping) else lambda name: getattr(evaluated, name)
    return ("validation", "test") if get("calibration") is None else ("validation", "test", "calibration")


def from_record(record: Mapping[str, Any]) -> Evaluation | Failure:
    """Return the Evaluation or Failure that `to_record` made `record` from.

    Raises:
        KeyError: if a field is missing (the record is of another format).
    """
    genome = _integers(record["genome"])
    effort, repeat = int(record.get("effort", 1)), int(record.get("repeat", 0))
    if "reason" in record:
        return Failure(genome, str(record["reason"]), effort, repeat)
    tables, costs = record["tables"], record["costs"]
    static = StaticCosts(_integers(costs["exit_costs"]), int(costs["params"]), int(costs["peak_bytes"]))
    return Evaluation(
        genome=genome,
        exits=_integers(record["exits"]),
        thresholds=tuple(float(value) for value in record["thresholds"]),
        costs=static,
        validation=_measure(record["validation"]),
        test=_measure(record["test"]),
        tables=ExitTables(np.asarray(tables["confidence"]), np.asarray(tables["predicted"])),
        losses=tuple(float(value) for value in record["losses"]),
        weights=dict(record["weights"]),
        curve=tuple(_points(record["curve"], _splits(record), static)) if "curve" in record else (),
        calibration=_measure(record["calibration"]) if "calibration" in record else None,
        confidence=Confidence(tuple(record["temperatures"].tolist())) if "temperatures" in record else LEARNED,
        effort=effort,
        repeat=repeat,
    )


def _points(curve: Mapping[str, Any], splits: Sequence[str], costs: StaticCosts) -> Iterator[CurvePoint]:
    for place, thresholds in enumerate(curve["thresholds"].tolist()):
        measured = (
            Figures(int(correct[place]), sum(left), tuple(left), spent(left, costs.exit_costs))
            for correct, counts in zip(curve["correct"], curve["exit_counts"].tolist(), strict=True)
            for left in [counts[place]]
        )
        yield CurvePoint(tuple(thresholds), **dict(zip(splits, measured, strict=True)))


def _measure(record: Mapping[str, Any]) -> Figures:
    return Figures(
        int(record["correct"]),
        int(record["samples"]),
        _integers(record["exit_counts"]),
        int(record["total_macs"]),
    )


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
