"""What a search is asked for where nothing else is said: each built-in data set has its space, limits and recipe.

    digits        8x8 grey images; what every other data set gets, too
    digits32      32x32 scenes in colour: eleven times the MACs, seventeen times the training samples, fewer epochs

How they were chosen stands in the README. Read this before `configuration.py`, where every option is checked.
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
    """What of a search depends on its data set.

    Attributes:
        space, max_macs, min_accuracy: as of `nachos_min.search`.
        recipe: what differs from the usual `Recipe` of training.
    """

    space: str = "tiny"
    max_macs: int = 40_000
    min_accuracy: float = 0.9
    recipe: Mapping[str, Any] = field(default_factory=dict)


DEFAULTS: Mapping[str, Defaults] = {
    "digits": Defaults(),
    "digits32": Defaults(
        space="small32",
        max_macs=450_000,
        min_accuracy=0.8,
        recipe={"backbone_epochs": 3, "warmup_epochs": 2, "support_epochs": 2, "exits_rate": 0.02},
    ),
}


def defaults_of(data: str) -> Defaults:
    """Return what a search of `data`, a built-in name or a path, is asked for where nothing else is said.

    >>> defaults_of("digits32").space, defaults_of("mine.npz") == defaults_of("digits")
    ('small32', True)
    """
    return DEFAULTS.get(data, DEFAULTS["digits"])
