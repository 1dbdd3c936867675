"""What a run is asked to do: every option of a search, checked before anything is started or written.

Read this before `nachos.py`. The numbers of the method below are the paper's, or say what the paper has.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nachos_min.data import Dataset, load
from nachos_min.eenn.training import Recipe
from nachos_min.errors import InputError
from nachos_min.nas.evaluate import THRESHOLDS, Settings
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.space import Space, load_space

CONSTRAINTS = ("domination", "adaptive-penalty")


class ConfigurationError(InputError):
    """An option of a search breaks the rule in the message."""


@dataclass(frozen=True)
class Configuration:
    """Every option of a search but its output folder, its number of evaluations and of workers.

    Those three do not change what an evaluation is, so a run may be continued with others. A run with more
    evaluations begins with the same ones.

    Attributes:
        data: name of a built-in data set, or a path.
        space: name of a shipped space, or a path to a TOML file.
        limits: what a solution must keep.
        seed: run seed, >= 0.
        constraints: how the search on the surrogates handles the limits: `domination` (Deb et al. 2002) or
            `adaptive-penalty` (the paper's).
        thresholds: `exact` or `grid-repair` (the paper's).
        initial: random candidates before the first surrogate (the paper has 100 of 180).
        batch: candidates chosen per iteration (the paper's K).
        population, generations: of NSGA-II on the surrogates (the paper's).
        patience: iterations without growth of the hypervolume after which the search stops (the paper's).
        recipe: how candidates are trained.
    """

    data: str
    space: str
    limits: Limits
    seed: int
    constraints: str = "domination"
    thresholds: str = "exact"
    initial: int = 40
    batch: int = 8
    population: int = 40
    generations: int = 20
    patience: int = 10
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        """Check every option that needs no file.

        Raises:
            ConfigurationError: naming the option, its rule and the value.
        """
        limits = self.limits
        for name in ("max_macs", "max_worst_macs", "max_params", "max_peak_bytes"):
            value = getattr(limits, name)
            if value is not None and not (_is_integer(value) and value >= 1):
                raise ConfigurationError(f"{name} must be an integer >= 1, got {value!r}")
        accuracy = limits.min_accuracy
        if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
            raise ConfigurationError(f"min_accuracy must be in 0..1, got {accuracy!r}")
        if not (_is_integer(self.seed) and self.seed >= 0):
            raise ConfigurationError(f"seed must be an integer >= 0, got {self.seed!r}")
        for name, known in (("constraints", CONSTRAINTS), ("thresholds", tuple(THRESHOLDS))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def settings(self) -> Settings:
        """Return the part that every evaluation depends on."""
        return Settings(self.seed, self.limits, self.thresholds, self.recipe)


@dataclass(frozen=True)
class Problem:
    """A configuration with its data and its space: everything a search needs, loaded and checked."""

    configuration: Configuration
    dataset: Dataset
    space: Space
    coder: GenomeCoder

    def identity(self) -> dict[str, Any]:
        """Return what a run folder stores, to recognise the same problem again.

        Data and space are known by their content too, so that an edited file is another configuration.
        """
        options = asdict(self.configuration)
        options |= options.pop("limits")  # so that a message says `max_macs`, as the command line does
        return options | {"data_content": self.dataset.digest, "space_content": asdict(self.space)}


def configuration_of(identity: Mapping[str, Any]) -> Configuration:
    """Return the configuration that `Problem.identity` was made from.

    Raises:
        ConfigurationError: if a field is missing or breaks a rule: the run was made by another version.
    """
    try:
        limits = Limits(**{limit.name: identity[limit.name] for limit in fields(Limits)})
        recipe = Recipe(**{entry.name: identity["recipe"][entry.name] for entry in fields(Recipe)})
        others = {
            entry.name: identity[entry.name]
            for entry in fields(Configuration)
            if entry.name not in ("limits", "recipe")
        }
    except KeyError as missing:
        raise ConfigurationError(f"the run's configuration must have {missing}, got none") from None
    return Configuration(**others, limits=limits, recipe=recipe)


def load_problem(configuration: Configuration) -> Problem:
    """Return `configuration` with its data set and space.

    Raises:
        InputError: if the data set or the space is unknown, unreadable, or breaks a rule.
    """
    space = load_space(configuration.space)
    dataset = load(configuration.data)
    height, width, channels = dataset.train.images.shape[1:]
    coder = GenomeCoder(space, (height, width, channels), dataset.classes)
    return Problem(configuration, dataset, space, coder)


def check_count(name: str, value: Any) -> int:
    """Return `value` if it is an integer >= 1.

    Raises:
        ConfigurationError: otherwise; names the option `name`.
    """
    if not (_is_integer(value) and value >= 1):
        raise ConfigurationError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
