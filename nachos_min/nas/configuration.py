"""The options of a search, declared here once, and the configuration that they make.

The help of the command line reads this file, so it loads NumPy only when a search is configured. How defaults were
chosen stands in `bench/RESULTS.md`.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from nachos_min import options as of
from nachos_min.eenn.recipes import (
    AUGMENTATIONS,
    FEWEST,
    MOST,
    RECIPES,
    STEPS,
    DeepRecipe,
    PaperRecipe,
    Recipe,
    as_record,
    from_record,
    recipe_of,
)
from nachos_min.errors import InputError, shorten
from nachos_min.files import MOST_DECODED
from nachos_min.options import Option, choice

if TYPE_CHECKING:
    from nachos_min.data import Dataset
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.limits import Limits
    from nachos_min.nas.space import Space


class ConfigurationError(InputError):
    """An option of a search breaks the rule in the message."""


@dataclass(frozen=True)
class Method:
    """Which parts of the loop are at work: methods that differ in one part are compared under the same budget.

    Source: NACHOS, arXiv 2401.13330, its comparisons; `edanas` is reduced to what sets it apart: Gambella and
    Roveri, "EDANAS: Adaptive Neural Architecture Search for Early Exit Neural Networks", IJCNN 2023.
    """

    guided: bool = True  # surrogates and NSGA-II propose candidates; otherwise all are random
    limited: bool = True  # the limits act on search, training and thresholds; otherwise on the result alone
    regularised: bool = True  # the loss of the exits has its cost and its peak term
    static: bool = False  # networks without early exits are searched
    placed: bool = False  # a rule places exits on the searched backbones, with the second half of the evaluations
    ruled: int = 0  # no search: train this many networks, the last of `rule_genomes`


METHODS = {
    "nachos": Method(),
    "random": Method(guided=False),
    "two-stage": Method(static=True, placed=True),
    "static": Method(static=True),
    "edanas": Method(limited=False, regularised=False),
    "rule": Method(guided=False, ruled=2),
    "largest": Method(guided=False, ruled=1),
}
FAR = 3  # budgets that the last exit may cost with the recipe deep; larger networks are slow and rarely better
NO_LIMIT = "no limit"
EPOCHS = f"{FEWEST} to {MOST}, for about {STEPS:,} steps; paper: {PaperRecipe().passes(0)}"
PREDICTORS = choice("switching", "rbf", "trees", "mlp", "gp")
AUTO = "auto"  # a space, or a limit, that is decided when the data are known
SPACES = {"digits": "flex8", "digits32": "flex32", "paper digits": "tiny", "paper digits32": "small32"}
MACS = {"digits": 40_000, "digits32": 450_000}


First, Limit, Training, Research = (
    partial(Option, group=heading)
    for heading in (
        "Data, limits and effort",
        "Further limits",
        "Training",
        "Research switches: parts of the method that studies compare",
    )
)


class Options(TypedDict, total=False):
    """The options of a search. None stands for the default; `max_macs` None is no limit.

    Attributes:
        data: What to learn from, a built-in name (digits, digits32), a file or a folder; the command `data` shows
            how it is read. From Python also (images, labels), or {"train": (images, labels), "validation": ...,
            "test": ...}.
        layout: What the axes of images are, channels first (chw) or last (hwc), or one-dimensional signals.
        resolution: Shorter side in pixels that images are resized to; their aspect is kept.
        max_bytes: Most bytes that a file or folder of data may decode to; three times as many may be needed.
        space: Which networks are searched, those that fit the images (auto), a built-in name (flex8, flex16,
            flex32, flex64, tiny, micro, small32, ofa-mbv3) or a .toml file.
        max_macs: Most multiply-accumulates (MACs) that an answer may cost on average, measured on the validation
            split.
        min_accuracy: Least accuracy on the validation split, as a share of its samples (0.9 is 90 %).
        evaluations: Number of networks to train and measure, those found in the run's folder included.
        epochs: Passes over the training set for each network; the paper's three phases share them 2:1:1.
        max_minutes: Minutes, once the data are read, after which no more networks are begun. The same command
            continues.
        workers: Number of processes that train networks side by side; 0 trains in this process.
        seed: Seed of every random choice. The same seed gives the same result with any number of workers.
        out: Folder of the run, created if missing. The same search in the same folder continues.
        retry_failed: Train the networks again whose training failed in this folder.
        dask: Train on the workers of the Dask scheduler at this address; needs the extra dask.
        threads: Number of threads of each worker. More than one is for few large networks, and may change last
            bits of the result.
        metric: Which accuracy is searched for and limited by min-accuracy, that of all samples or the mean of the
            classes' (balanced); training is the same.
        max_worst_macs: Most MACs of an answer that passes every exit.
        max_params: Most trained parameters of a network.
        max_peak_bytes: Most bytes of activations alive at once, for one image in float32.
        max_exits: Most exits of a network, the final one included.
        margin: Distance kept to both limits on the validation split, so that they hold on data never seen; 0.01 is
            0.01 more accuracy and 1 % fewer average MACs.
        guarantee: Return only rows that keep both limits on new images with this probability, all of them
            together; needs validation halves and metric accuracy.
        recipe: How networks are trained, all exits on every image from the first step (deep), or in the paper's
            three phases; some other defaults follow it.
        batch: Images in a step of training.
        rate: Highest learning rate; with the recipe paper that of the first phase, and the other phases keep their
            proportion to it.
        augment: How training images are varied; auto shifts images of at least 12x12 pixels by up to a 24th of a
            side, with the recipe paper none.
        finalists: Number of the best networks that are trained again, four times as long; none with a table.
        method: NACHOS, or what it is compared with for as many evaluations - random search, exits placed by hand
            on searched backbones, networks without exits, a search without limits and regularisers, two networks
            by a rule, or the larger of them alone.
        constraints: How the limits enter the search, by constrained domination or by the paper's penalty.
        thresholds: How exit thresholds are chosen, the best admissible or by the paper's grid and repair.
        confidence: What an exit is believed by, its own head (learned), the softmax of its scores at a fitted
            temperature, or whichever is better for the network.
        beta: Weight of the cost term in training, which pulls the expected MACs below the limit.
        gamma: Weight of the peak term in training, which pulls each exit's confidence to its record by class.
        backbone: With the recipe paper, whether the backbone is frozen while the exits train, or trains on.
        validation: Whether one of the halves of the validation split chooses and the figures shown are of the
            other, or the whole split does both (paper), and flatters.
        standardise: What of the images has mean 0 and variance 1, each channel or each pixel (paper).
        start: The first networks, random (the paper), spread evenly over what they cost, or first those that an
            engineer would try.
        aims: What is optimised of a network's curve of accuracy against MACs, both its ends (the paper) or its
            errors within budgets.
        surrogate: What predicts them, the best of rbf, trees and mlp by cross-validation (the paper) or always one.
        features: What the surrogates see of a network, its genes (the paper) or its exact costs, too.
        points: What of a trained network enters the front, its best thresholds (the paper) or its whole curve of
            accuracy against MACs.
        table: Answer from the networks in this file, made by bench/make_table.py, instead of training any.
    """

    data: Annotated[Any, First(of.DATA, "digits")]
    layout: Annotated[
        str | None, First(choice("chw", "hwc", "signal"), absent="from the shape; refused where it is unclear")
    ]
    resolution: Annotated[int | None, First(of.whole(1), absent="as they are; above 96: 64")]
    max_bytes: Annotated[int | None, First(of.COUNT, absent=of.show_count(MOST_DECODED))]
    space: Annotated[str | Path | None, First(of.text("name or file"), AUTO, SPACES)]
    max_macs: Annotated[int | None, First(of.COUNT, None, MACS, "what a quarter of random networks can keep")]
    min_accuracy: Annotated[float | None, First(of.SHARE, 0.0, {"digits": 0.9, "digits32": 0.8})]
    evaluations: Annotated[int | None, First(of.COUNT, 16, {"paper": 100})]
    epochs: Annotated[int | None, First(of.PASSES, absent=EPOCHS)]
    max_minutes: Annotated[float | None, First(of.RATE, absent=NO_LIMIT)]
    workers: Annotated[int | None, First(of.PROCESSES, absent="number of processors, divided by threads")]
    seed: Annotated[int | None, First(of.whole(0, 128), 0)]
    out: Annotated[str | Path | None, First(of.text("folder"), absent="runs/ and the data set's name")]
    retry_failed: Annotated[bool | None, First(of.SWITCH, False)]
    dask: Annotated[str | None, First(of.text("address"), absent="this machine")]
    threads: Annotated[int | None, First(of.whole(1), 1)]
    metric: Annotated[str | None, Limit(choice("accuracy", "balanced"), "accuracy")]
    max_worst_macs: Annotated[int | None, Limit(of.COUNT, absent=f"{FAR} times max-macs or more; paper: no limit")]
    max_params: Annotated[int | None, Limit(of.COUNT, absent=NO_LIMIT)]
    max_peak_bytes: Annotated[int | None, Limit(of.COUNT, absent=NO_LIMIT)]
    max_exits: Annotated[int | None, Limit(of.whole(2), absent=NO_LIMIT)]
    margin: Annotated[float | None, Limit(of.MARGIN, 0.0)]
    guarantee: Annotated[float | None, Limit(of.CHANCE)]
    recipe: Annotated[str | None, Training(choice(*RECIPES), "deep")]
    batch: Annotated[int | None, Training(of.whole(2), absent=f"{DeepRecipe.batch}; paper: {PaperRecipe.batch}")]
    rate: Annotated[
        float | None, Training(of.RATE, absent=f"{DeepRecipe.rate}; paper: {PaperRecipe.backbone_rate}")
    ]
    augment: Annotated[str | None, Training(choice(*AUGMENTATIONS), "auto")]
    finalists: Annotated[int | None, Training(of.whole(0), 2, {"paper": 0})]
    method: Annotated[str | None, Research(choice(*METHODS), "nachos")]
    constraints: Annotated[str | None, Research(choice("domination", "adaptive-penalty"), "domination")]
    thresholds: Annotated[str | None, Research(choice("exact", "grid-repair"), "exact")]
    confidence: Annotated[str | None, Research(choice("learned", "softmax", "best"), "best", {"paper": "learned"})]
    beta: Annotated[float | None, Research(of.WEIGHT, 0.0, {"paper": 1.0})]
    gamma: Annotated[float | None, Research(of.WEIGHT, 0.0, {"paper": 1.0})]
    backbone: Annotated[str | None, Research(choice("frozen", "joint"), "joint")]
    validation: Annotated[str | None, Research(choice("halves", "whole"), "halves", {"paper": "whole"})]
    standardise: Annotated[str | None, Research(choice("channel", "pixel"), "channel")]
    start: Annotated[str | None, Research(choice("random", "spread", "rule"), "rule", {"paper": "spread"})]
    aims: Annotated[
        str | None, Research(choice("ends", "budgets"), absent="budgets; ends with paper, --points best or penalty")
    ]
    surrogate: Annotated[str | None, Research(PREDICTORS, absent="gp; switching for ends")]
    features: Annotated[str | None, Research(choice("genes", "costs"), absent="costs; genes for ends")]
    points: Annotated[str | None, Research(choice("best", "curve"), absent="curve; best with grid-repair")]
    table: Annotated[str | Path | None, Research(of.text("file"), absent="train")]


OPTIONS = of.options_of(Options)
# Training of digits32 by the recipe `paper`.
PAPER_DIGITS32 = {"backbone_epochs": 3, "warmup_epochs": 2, "support_epochs": 2, "exits_rate": 0.02}
# What aims decide: the paper has 100 random candidates of 180 before the first surrogate, and 8 an iteration.
BY_AIMS: Mapping[str, Mapping[str, Any]] = {
    "ends": {"surrogate": "switching", "features": "genes", "initial": 40, "chosen": 8},
    "budgets": {"surrogate": "gp", "features": "costs", "initial": 10, "chosen": 3},
}
# Some stored runs and tables lack these fields, and mean these values, which therefore stand in no identity.
AS_BEFORE: Mapping[str, Any] = {
    "aims": "ends",
    "confidence": "learned",
    "standardise": "pixel",
    "validation": "whole",
    "layout": None,
    "resolution": None,
    "max_exits": None,
    "metric": "accuracy",
}
STORED_AS = {"chosen": "batch"}  # fields that identities have under another name


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not None as a run stores them, each checked by the kind of its option.

    Paths become text, and numbers of NumPy Python's. What is no option is not checked.
    """
    for name, value in given.items():
        if value is not None and name in OPTIONS and not OPTIONS[name].kind.holds(value):
            raise ConfigurationError(f"{name} must be {OPTIONS[name].kind.rule}, got {shorten(value)}")

    return {name: plain(value) for name, value in given.items() if value is not None}


def plain(value: Any) -> Any:
    """Return the value of an option as a run stores it."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return str(value) if isinstance(value, os.PathLike) else value


def check_guarantee(guarantee: float | None, validation: str, metric: str) -> None:
    """Check that rows can be tested for `guarantee`: on a half of the validation split that chose nothing.

    The test of the accuracy limit is of a binomial number, which a balanced accuracy is not.
    """
    check({"guarantee": guarantee})
    if guarantee is not None and metric != "accuracy":
        raise ConfigurationError(f"guarantee needs metric accuracy, got {metric!r}")
    if guarantee is not None and validation != "halves":
        raise ConfigurationError(f"guarantee needs validation halves, got {validation!r}")


def resolved(options: Options) -> dict[str, Any]:
    """Return every option, checked: as given, or by the defaults of the recipe and the data set.

    Of `data` it is the name or path as text, "arrays" for those in memory.
    Limits that depend on the data are left: `fitting.decided` has them. `max_macs` is then AUTO.

    Raises:
        TypeError: if an option is unknown.
        ConfigurationError: if a value breaks its rule.
    """
    from nachos_min.data.load import named

    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"search() got an unexpected keyword argument {name!r}")
    given = check(options)
    if not isinstance(given.get("data", ""), str):
        given["data"] = "arrays"
    recipe, data = (str(given.get(name, OPTIONS[name].default)) for name in ("recipe", "data"))
    found = {name: option.default_of(recipe, data) for name, option in OPTIONS.items()} | given
    if "max_macs" in options:
        found["max_macs"] = given.get("max_macs")
    elif found["max_macs"] is None:
        found["max_macs"] = AUTO
    found["points"] = found["points"] or ("curve" if found["thresholds"] == "exact" else "best")
    budgets = recipe == "deep" and (found["points"], found["constraints"]) == ("curve", "domination")
    found["aims"] = found["aims"] or ("budgets" if budgets else "ends")
    for name in ("surrogate", "features"):
        found[name] = found[name] or BY_AIMS[found["aims"]][name]
    if found["workers"] is None:
        found["workers"] = max(1, (os.cpu_count() or 1) // found["threads"])
    found["out"] = found["out"] or Path("runs") / named(data)
    repeated = found["table"] is None and not METHODS[found["method"]].ruled
    found["finalists"] = min(found["finalists"], found["evaluations"]) if repeated else 0
    check_guarantee(found["guarantee"], found["validation"], found["metric"])
    return found


@dataclass(frozen=True)
class Configuration:
    """The options that decide what an evaluation is and which are made; their meanings: `Options`.

    A run may be continued with the other options changed. With more evaluations it begins with the same ones.
    """

    data: str
    space: str
    limits: "Limits"
    seed: int
    constraints: str = "domination"
    thresholds: str = "exact"
    initial: int = 10  # candidates before the first surrogate
    chosen: int = 3  # candidates an iteration chooses; the paper calls it K
    population: int = 40  # of NSGA-II on the surrogates (the paper's)
    generations: int = 20  # the paper's
    patience: int = 10  # iterations without growth of the hypervolume before the search stops (the paper's)
    recipe: Recipe = field(default_factory=DeepRecipe)
    method: str = "nachos"
    backbones: int = 0  # of `two-stage`: candidates without exits, half of all; such a run keeps its evaluations
    start: str = "spread"
    surrogate: str = "gp"
    features: str = "costs"
    points: str = "curve"
    margin: float = 0.0
    aims: str = "budgets"
    confidence: str = "best"
    standardise: str = "channel"
    validation: str = "halves"
    layout: str | None = None
    resolution: int | None = None
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        """Check the rules between options."""
        if self.points == "curve" and self.thresholds != "exact":
            raise ConfigurationError(f"points must be best with {self.thresholds} thresholds, got 'curve'")
        if self.aims == "budgets" and (self.points, self.constraints) != ("curve", "domination"):
            given = f"points {self.points} and constraints {self.constraints}"
            raise ConfigurationError(f"aims must be ends with {given}, got 'budgets'")
        accuracy = self.limits.min_accuracy
        if self.limits.tightened(self.margin).min_accuracy > 1:
            most = float(1 - Fraction(str(accuracy)))
            raise ConfigurationError(f"margin must be <= {most} with min_accuracy {accuracy}, got {self.margin!r}")

    @property
    def rules(self) -> Method:
        """Which parts of the loop the method keeps."""
        return METHODS[self.method]

    @property
    def balanced(self) -> bool:
        """Whether all classes count the same, however many samples they have."""
        return self.metric == "balanced"

    @property
    def acting(self) -> "Configuration":
        """What candidates are trained and thresholds are chosen by: margin and method are applied."""
        limits = self.limits.tightened(self.margin) if self.rules.limited else type(self.limits)(None, 0.0)
        recipe = self.recipe if self.rules.regularised else replace(self.recipe, beta=0.0, gamma=0.0)
        return replace(self, limits=limits, margin=0.0, recipe=recipe)


def configure(asked: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a search with the `resolved` options; InputError if they exclude each other.

    Without a limit on MACs where it is AUTO.
    """
    sizes = {entry.name: entry.default for entry in fields(Configuration)}
    known = {**sizes, **BY_AIMS[asked["aims"]], **asked}
    known["max_macs"] = None if asked["max_macs"] == AUTO else asked["max_macs"]
    own = PAPER_DIGITS32 if (known["recipe"], known["data"]) == ("paper", "digits32") else {}
    trained = {name: known[name] for name in ("epochs", "batch", "rate", "augment", "beta", "gamma", "backbone")}
    known["recipe"] = recipe_of(known["recipe"], own, **trained)
    known["backbones"] = -(-known["evaluations"] // 2) if known["method"] == "two-stage" else 0
    return _configuration(known)


def _configuration(known: Mapping[str, Any]) -> Configuration:
    """Return the configuration that takes its fields, and the fields of its limits, from `known`."""
    from nachos_min.nas.limits import Limits

    known = {**known, "limits": Limits(**{entry.name: known[entry.name] for entry in fields(Limits)})}
    return Configuration(**{entry.name: known[entry.name] for entry in fields(Configuration)})


def configuration_of(identity: Mapping[str, Any]) -> Configuration:
    """Return the configuration that `Problem.identity` was made from; ConfigurationError for another version's."""
    named = {stored: name for name, stored in STORED_AS.items()}
    known = {**AS_BEFORE, **{named.get(name, name): value for name, value in identity.items()}}
    try:
        trained = {
            name: known["recipe"].get(name) for name in ("epochs", "batch", "rate", "augment", "beta", "gamma")
        }
        check(known | trained | {"recipe": None, "table": None})
        return _configuration(known | {"recipe": from_record(known["recipe"])})
    except KeyError as missing:
        raise ConfigurationError(f"the run's configuration must have {missing}, got none") from None


@dataclass(frozen=True)
class Problem:
    """A configuration with its data and its space, loaded and checked."""

    configuration: Configuration
    dataset: "Dataset | None"  # None: a run is read again without its data
    space: "Space"
    coder: "GenomeCoder"
    table: Mapping[str, Any] | None = None  # `Table.identity` of what answers; None: candidates are trained
    about: Mapping[str, Any] = field(default_factory=dict)  # of the data: what a run stores, to do without them

    @property
    def data(self) -> "Dataset":
        """The data set, which is there."""
        assert self.dataset is not None, "load_problem has loaded it"
        return self.dataset

    def identity(self) -> dict[str, Any]:
        """Return what a run folder stores to recognise this problem; data and space by their content, too."""
        options = asdict(self.configuration) | {"recipe": as_record(self.configuration.recipe)}
        options |= options.pop("limits")  # so that a message says `max_macs`, as the command line does
        options = {
            STORED_AS.get(name, name): value
            for name, value in options.items()
            if AS_BEFORE.get(name, self) != value
        }
        options |= {"data_content": self.data.digest, "space_content": self.space.content}
        options |= {"retrained": self.about["retrained"]["network"]} if "retrained" in self.about else {}
        return options if self.table is None else options | {"table": dict(self.table)}


def load_problem(
    configuration: Configuration,
    source: Any = None,
    about: Mapping[str, Any] | None = None,
    *,
    with_data: bool = False,
    max_bytes: int | None = None,
) -> Problem:
    """Return `configuration` with its data set and space; InputError if one of them cannot be read.

    `source` and `max_bytes` are as of `load`; None: the name or path in `configuration`. With `about`, that of an
    earlier run, the space is that run's, and no data set is loaded unless `with_data`.
    """
    from nachos_min.data import load
    from nachos_min.nas.fitting import fitted_space
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.space import load_space, read_space

    dataset, stored = None, (about or {}).get("space")
    if about is None or with_data:
        if stored is None and configuration.space != AUTO:
            load_space(configuration.space)  # refused before the data are read
        dataset = load(
            configuration.data if source is None else source,
            configuration.standardise,
            configuration.validation,
            layout=configuration.layout,
            resolution=configuration.resolution,
            max_bytes=max_bytes,
        )
        about = facts(dataset)
    if stored is not None:
        about = {**about, "space": stored}
        space = read_space(stored["text"], stored["name"], stored["name"])
        space = replace(space, resolutions=stored["resolutions"])
    else:
        auto = configuration.space == AUTO
        space = fitted_space(about["image_shape"]) if auto else load_space(configuration.space)
        kept = {"name": space.name, "text": space.text, "resolutions": space.resolutions}
        about = {**about, "space": kept}
    coder = GenomeCoder(space, about["image_shape"], about["classes"], configuration.rules.static)
    return Problem(configuration, dataset, space, coder, about=about)


def facts(dataset: "Dataset") -> dict[str, Any]:
    """Return what a run stores of its data and of the program, to be used without either."""
    from importlib.metadata import version

    from nachos_min import __version__
    from nachos_min.data.dataset import chunks

    train = dataset.train.images
    unscaled, scaling = replace(train, scaling=None), train.scaling
    ends = [(part.min(), part.max()) for part in (unscaled[each] for each in chunks(train.shape))]
    same = ("image_shape", "classes", "class_names", "class_labels")
    return {name: getattr(dataset, name) for name in same} | {
        "largest_class": dataset.train.largest_share,
        "samples": {name: len(split) for name, split in dataset.splits.items()},
        "values": {
            "dtype": str(train.stored.dtype),
            "least": float(min(least for least, _ in ends)),
            "most": float(max(most for _, most in ends)),
        },
        "scaling": {} if scaling is None else {"mean": scaling.mean, "inverse": scaling.inverse},
        "versions": {"nachos_min": __version__, **{name: version(name) for name in ("numpy", "numba", "scipy")}},
    }
