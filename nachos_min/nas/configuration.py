"""What a run is asked to do: every option of a search, checked before anything is started or written.

The numbers of the method below are the paper's, or say what the paper has.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from math import floor, inf
from typing import Any

from nachos_min.data import Dataset, load
from nachos_min.eenn.confidence import CONFIDENCES
from nachos_min.eenn.recipes import AUGMENTATIONS, DeepRecipe, Recipe, as_record, from_record
from nachos_min.errors import InputError
from nachos_min.nas.evaluate import THRESHOLDS, Settings
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.methods import METHODS, Method
from nachos_min.nas.space import Space, load_space
from nachos_min.nas.surrogates import BY_NAME

BACKBONES = ("frozen", "joint")
NO_LIMITS = Limits(None, 0.0)
# Options that are one of a few names.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "constraints": ("domination", "adaptive-penalty"),
    "thresholds": tuple(THRESHOLDS),
    "method": tuple(METHODS),
    "start": ("random", "spread", "rule"),
    "surrogate": ("switching", *BY_NAME),
    "features": ("genes", "costs"),
    "points": ("best", "curve"),
    "aims": ("ends", "budgets"),
    "confidence": CONFIDENCES,
    "standardise": ("channel", "pixel"),
    "validation": ("halves", "whole"),
}
# What aims decide unless it is asked for.
BY_AIMS: Mapping[str, Mapping[str, Any]] = {
    "ends": {"surrogate": "switching", "features": "genes", "initial": 40, "batch": 8},
    "budgets": {"surrogate": "gp", "features": "costs", "initial": 10, "batch": 3},
}
# Fields younger than some stored runs and tables, and the value that means what was done before there was a choice.
# With that value they stand in no identity, so that those runs and tables open.
AS_BEFORE: Mapping[str, Any] = {
    "aims": "ends",
    "confidence": "learned",
    "standardise": "pixel",
    "validation": "whole",
}


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
        initial: candidates before the first surrogate (the paper has 100 random ones of 180).
        batch: candidates chosen per iteration (the paper's K).
        population, generations: of NSGA-II on the surrogates (the paper's).
        patience: iterations without growth of the hypervolume after which the search stops (the paper's).
        recipe: how candidates are trained.
        method: `nachos`, or one of those it is held against (`methods.py`).
        backbones: of `two-stage`: candidates evaluated without exits before exits are placed, half of all, so that
            such a run is not continued with another number; otherwise 0.
        start: the first candidates are `random` (the paper's), `spread` evenly over the exact costs, or by `rule`:
            first those that an engineer would try, then their neighbours.
        surrogate: `switching` (the paper's: cross-validation decides among its three), or always the same one, by
            its name.
        features: what surrogates see of a genome: its `genes` (the paper's), or its exact `costs`, too.
        points: what of a candidate stands in the archive: its `best` thresholds (the paper's), or the whole
            `curve` of accuracy against MACs over all thresholds; the search then looks for networks that reach
            a smaller error or fewer MACs under any thresholds. A curve is of exact thresholds.
        margin: how far inside both limits the validation split must stay, >= 0: accuracy by so much, average
            MACs by this share; so that a network keeps the limits on data never seen.
        aims: what the search on the surrogates optimises of a candidate's curve (`aims.py`): both `ends` (the
            paper's), or the error within `budgets`.
        confidence: what exits are believed by: `learned` (the paper's), `softmax`, or for each network the `best`.
        standardise: what of the images has mean 0 and variance 1: each `channel`, or each `pixel` of a channel.
        validation: `halves`: one half of the validation split chooses, the figures shown are of the other; or the
            `whole` split does both (the paper's), and flatters.
    """

    data: str
    space: str
    limits: Limits
    seed: int
    constraints: str = "domination"
    thresholds: str = "exact"
    initial: int = 10
    batch: int = 3
    population: int = 40
    generations: int = 20
    patience: int = 10
    recipe: Recipe = field(default_factory=DeepRecipe)
    method: str = "nachos"
    backbones: int = 0
    start: str = "spread"
    surrogate: str = "gp"
    features: str = "costs"
    points: str = "curve"
    margin: float = 0.0
    aims: str = "budgets"
    confidence: str = "best"
    standardise: str = "channel"
    validation: str = "halves"

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
        if not (_is_number(accuracy) and 0 <= accuracy <= 1):
            raise ConfigurationError(f"min_accuracy must be in 0..1, got {accuracy!r}")
        if not (_is_integer(self.seed) and self.seed >= 0):
            raise ConfigurationError(f"seed must be an integer >= 0, got {self.seed!r}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        self._check_recipe()
        if self.points == "curve" and self.thresholds != "exact":
            raise ConfigurationError(f"points must be best with {self.thresholds} thresholds, got 'curve'")
        if self.aims == "budgets" and (self.points, self.constraints) != ("curve", "domination"):
            given = f"points {self.points} and constraints {self.constraints}"
            raise ConfigurationError(f"aims must be ends with {given}, got 'budgets'")
        if not (_is_number(self.margin) and 0 <= self.margin < 1):
            raise ConfigurationError(f"margin must be a number >= 0 and below 1, got {self.margin!r}")
        if self._accuracy_kept > 1:
            most = float(1 - Fraction(str(accuracy)))
            raise ConfigurationError(f"margin must be <= {most} with min_accuracy {accuracy}, got {self.margin!r}")

    def _check_recipe(self) -> None:
        recipe = self.recipe
        for name in ("beta", "gamma"):
            value = getattr(recipe, name)
            if not (_is_number(value) and 0 <= value < inf):
                raise ConfigurationError(f"{name} must be a number >= 0, got {value!r}")
        if isinstance(recipe, DeepRecipe) and recipe.augment not in AUGMENTATIONS:
            raise ConfigurationError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {recipe.augment!r}")

    @property
    def rules(self) -> Method:
        """Which parts of the loop the method keeps."""
        return METHODS[self.method]

    @property
    def kept(self) -> Limits:
        """The limits that a solution keeps on the validation split: those asked for, tightened by the margin."""
        if not self.margin:
            return self.limits
        margin, most = Fraction(str(self.margin)), self.limits.max_macs
        return replace(
            self.limits,
            max_macs=None if most is None else max(1, floor(most * (1 - margin))),
            min_accuracy=float(self._accuracy_kept),
        )

    @property
    def _accuracy_kept(self) -> Fraction:
        """Limit and margin as the decimals they were written as: 0.9 and 0.01 make 0.91 exactly."""
        return Fraction(str(self.limits.min_accuracy)) + Fraction(str(self.margin))

    @property
    def acting_limits(self) -> Limits:
        """The limits that act while candidates are searched, trained and tuned: those kept, or none at all."""
        return self.kept if self.rules.limited else NO_LIMITS

    def settings(self) -> Settings:
        """Return the part that every evaluation depends on."""
        recipe = self.recipe if self.rules.regularised else replace(self.recipe, beta=0.0, gamma=0.0)
        return Settings(self.seed, self.acting_limits, self.thresholds, recipe, self.points, self.confidence)


@dataclass(frozen=True)
class Problem:
    """A configuration with its data and its space: everything a search needs, loaded and checked.

    Attributes:
        configuration: what was asked for.
        dataset, space, coder: what its names stand for.
        table: which table answered for trainings (`Table.identity`); None: candidates are trained.
    """

    configuration: Configuration
    dataset: Dataset
    space: Space
    coder: GenomeCoder
    table: Mapping[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """Return what a run folder stores, to recognise the same problem again.

        Data and space are known by their content too, so that an edited file is another configuration.
        """
        options = asdict(self.configuration) | {"recipe": as_record(self.configuration.recipe)}
        options |= options.pop("limits")  # so that a message says `max_macs`, as the command line does
        options = {name: value for name, value in options.items() if AS_BEFORE.get(name, self) != value}
        content = {"data_content": self.dataset.digest, "space_content": self.space.content}
        return options | content | ({} if self.table is None else {"table": dict(self.table)})


def configuration_of(identity: Mapping[str, Any]) -> Configuration:
    """Return the configuration that `Problem.identity` was made from.

    Raises:
        ConfigurationError: if a field is missing or breaks a rule: the run was made by another version.
    """
    identity = {**AS_BEFORE, **identity}
    try:
        limits = Limits(**{limit.name: identity[limit.name] for limit in fields(Limits)})
        recipe = from_record(identity["recipe"])
        known = {**AS_BEFORE, **identity}
        others = {
            entry.name: known[entry.name]
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
    dataset = load(configuration.data, configuration.standardise, configuration.validation)
    height, width, channels = dataset.train.images.shape[1:]
    coder = GenomeCoder(space, (height, width, channels), dataset.classes, configuration.rules.static)
    return Problem(configuration, dataset, space, coder)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` if it is an integer >= `least`.

    Raises:
        ConfigurationError: otherwise; names the option `name`.
    """
    if not (_is_integer(value) and value >= least):
        raise ConfigurationError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def check_guarantee(guarantee: float | None, configuration: Configuration) -> None:
    """Check that results of `configuration` can be held to `guarantee`.

    Raises:
        ConfigurationError: if it is no probability, or no samples are left to test the rows on.
    """
    if guarantee is None:
        return
    if not (_is_number(guarantee) and 0 < guarantee < 1):
        raise ConfigurationError(f"guarantee must be above 0 and below 1, got {guarantee!r}")
    if configuration.validation != "halves":
        raise ConfigurationError(f"guarantee needs validation halves, got {configuration.validation!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
