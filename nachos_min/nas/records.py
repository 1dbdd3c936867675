"""Evaluations as plain records for the store, and back. Read `evaluate.py` first.

The store takes plain values and arrays only: a run can be read without this program's classes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from nachos_min.eenn.costs import StaticCosts
from nachos_min.eenn.inference import ExitTables
from nachos_min.nas.evaluate import Evaluation, Failure, Measure
from nachos_min.nas.genome import Genome


def key(genome: Genome) -> str:
    """Return the name under which a canonical genome is stored: its genes joined by dashes.

    Names that a file system might refuse (over 200 characters) are replaced by their SHA-256.
    """
    genes = "-".join(map(str, genome))
    return genes if len(genes) <= 200 else sha256(genes.encode()).hexdigest()


def to_record(evaluated: Evaluation | Failure) -> dict[str, Any]:
    """Return `evaluated` as nested dictionaries of plain values and arrays."""
    return asdict(evaluated)


def from_record(record: Mapping[str, Any]) -> Evaluation | Failure:
    """Return the Evaluation or Failure that `to_record` made `record` from.

    Raises:
        KeyError: if a field is missing (the record is of another format).
    """
    genome = _integers(record["genome"])
    if "reason" in record:
        return Failure(genome, str(record["reason"]))
    tables, costs = record["tables"], record["costs"]
    return Evaluation(
        genome=genome,
        exits=_integers(record["exits"]),
        thresholds=tuple(float(value) for value in record["thresholds"]),
        costs=StaticCosts(_integers(costs["exit_costs"]), int(costs["params"]), int(costs["peak_bytes"])),
        validation=_measure(record["validation"]),
        test=_measure(record["test"]),
        tables=ExitTables(np.asarray(tables["confidence"]), np.asarray(tables["predicted"])),
        losses=tuple(float(value) for value in record["losses"]),
        weights=dict(record["weights"]),
    )


def _measure(record: Mapping[str, Any]) -> Measure:
    return Measure(
        int(record["correct"]),
        int(record["samples"]),
        _integers(record["exit_counts"]),
        int(record["total_macs"]),
    )


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
