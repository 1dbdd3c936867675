"""What is known of a candidate once it is trained: records without the engine, so that a run is read without it."""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import ExitTables, Figures
from nachos_min.nas.genome import Genome

Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("validation", "test", "calibration")  # on which a network is measured; not all data have the last


@dataclass(frozen=True, order=True)
class Trial:
    """One training of a genome."""

    genome: Genome  # canonical
    effort: int = 1  # multiplies the epochs of the recipe
    repeat: int = 0  # number of a repetition with another seed


@dataclass(frozen=True)
class Point:
    """One choice of thresholds for a trained network, and its figures on each split."""

    thresholds: tuple[float, ...]  # E thresholds on the cumulative confidence; the last is 0
    validation: Figures  # on the split that the thresholds were chosen on
    test: Figures  # takes part in no choice
    calibration: Figures | None = None  # on the half of the validation split that is shown

    @property
    def shown(self) -> Figures:
        """The figures that people see."""
        return self.calibration or self.validation


@dataclass(frozen=True)
class Evaluation:
    """A trained candidate.

    The first of `points` has the chosen thresholds, measured by early-stopping inference. With `points` curve,
    those of the curve follow, looked up in the tables of all exits.
    """

    trial: Trial
    exits: tuple[int, ...]  # stage numbers (from 1) of the E exits, the final one last
    costs: StaticCosts
    points: tuple[Point, ...] = field(repr=False)
    confidence: Confidence
    tables: ExitTables = field(compare=False, repr=False)  # answers of all exits on the validation split
    losses: tuple[float, ...] = field(compare=False, repr=False)  # mean of each epoch, all phases in order
    weights: Mapping[str, Array] = field(compare=False, repr=False)  # parameters and buffers by name
    on_test: ExitTables | None = field(default=None, compare=False, repr=False)  # as `tables`; old runs lack it

    @property
    def genome(self) -> Genome:
        """The canonical genome."""
        return self.trial.genome

    @property
    def chosen(self) -> Point:
        """The point with the chosen thresholds."""
        return self.points[0]

    @property
    def ends(self) -> tuple[float, float]:
        """The least error and the fewest average MACs of all points: both ends of the curve, if there is one."""
        figures = [point.validation for point in self.points]
        return min(1 - each.metric for each in figures), min(each.average_macs for each in figures)


# What ends a training without figures, and how people read it. The machine's troubles are not stored: only runs of
# earlier versions hold them.
CAUSES = {"diverged": "diverged", "defect": "by a defect of this program", "machine": "by a passing trouble"}
OF_MACHINE = (OSError, MemoryError, ImportError)


@dataclass(frozen=True)
class Failure:
    """A training that genome and data made fail; kept by its trial, so that it shifts no other figures."""

    trial: Trial
    reason: str  # class and message of the error
    cause: str = "defect"  # one of CAUSES


def cause_of(reason: str) -> str:
    """Return the cause of a failure that was stored by its reason alone.

    >>> cause_of("DivergenceError: training diverged"), cause_of("FileNotFoundError: x"), cause_of("KeyError: 1")
    ('diverged', 'machine', 'defect')
    """
    name = reason.split(":")[0]
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, OF_MACHINE):
        return "machine"
    return "diverged" if name == "DivergenceError" else "defect"
