"""Evaluated candidates with figures made up, for tests of what is done with them."""

from typing import Any

import numpy as np

from nachos_min.eenn.confidence import LEARNED
from nachos_min.eenn.inference import ExitTables
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.evaluate import Evaluation, Point, Trial


def evaluation(trial: Trial, figures: Figures, test: Figures | None = None, **fields: Any) -> Evaluation:
    """An evaluation of one point: a network of two exits, unless `fields` say something else."""
    point = Point((0.5, 0.0), figures, test or figures, fields.pop("calibration", None))
    usual: dict[str, Any] = {
        "exits": (1, 3),
        "costs": StaticCosts((10_000, 60_000), 10, 64),
        "points": (point,),
        "confidence": LEARNED,
        "tables": ExitTables(np.ones((1, 2)), np.ones((1, 2), np.int64)),
        "losses": (1.0,),
        "weights": {},
    }
    return Evaluation(trial, **(usual | fields))
