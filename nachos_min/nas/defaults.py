"""What a search is asked for where nothing else is said: each built-in data set has its space, limits and effort.

    digits        8x8 grey images; what every other data set gets, too
    digits32      32x32 scenes in colour: eleven times the MACs, seventeen times the training samples

How they were chosen stands in `bench/RESULTS.md`. The recipe `paper` has the spaces and epochs of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class ByData(Enum):
    """Stands for an option that was not given, where None means that there is no limit."""

    BY_DATA = "as the data set's defaults say"


BY_DATA = ByData.BY_DATA


@dataclass(frozen=True)
class Defaults:
    """What of a search depends on its data set and its recipe.

    Attributes:
        space, max_macs, min_accuracy, evaluations, finalists: as of `nachos_min.search`.
        recipe: what differs from the usual values of the recipe.
    """

    space: str = "flex8"
    max_macs: int = 40_000
    min_accuracy: float = 0.9
    evaluations: int = 16
    finalists: int = 2
    recipe: Mapping[str, Any] = field(default_factory=dict)


# What `search` was before there were recipes, but for options.
PAPER_DIGITS32 = {"backbone_epochs": 3, "warmup_epochs": 2, "support_epochs": 2, "exits_rate": 0.02}

DEFAULTS: Mapping[str, Mapping[str, Defaults]] = {
    "deep": {
        "digits": Defaults(),
        "digits32": Defaults("flex32", 450_000, 0.8),
    },
    "paper": {
        "digits": Defaults("tiny", 40_000, 0.9, 100, 0),
        "digits32": Defaults("small32", 450_000, 0.8, 100, 0, PAPER_DIGITS32),
    },
}


# The most that the last exit may cost, in budgets, unless it is asked for otherwise.
FAR = 3

# What else a recipe decides unless it is asked for: `paper` is the method with all that it had.
BY_RECIPE: Mapping[str, Mapping[str, str]] = {
    "deep": {"start": "rule", "confidence": "best", "validation": "halves"},
    "paper": {"start": "spread", "confidence": "learned", "validation": "whole"},
}


def defaults_of(data: str, recipe: str = "deep") -> Defaults:
    """Return what a search of `data`, a built-in name or a path, is asked for where nothing else is said.

    >>> defaults_of("digits32").space, defaults_of("mine.npz") == defaults_of("digits")
    ('flex32', True)
    """
    usual = DEFAULTS[recipe]
    return usual.get(data, usual["digits"])
