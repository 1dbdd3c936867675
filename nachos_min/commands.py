"""The commands: options in, a job out; nothing is done before every argument was accepted.

A command only reads and checks its options and returns a frozen job, whose `run` does the work and returns the
exit status. Read `options.py` for the kinds of values before, and `cli.py`, where a typed line becomes a call of
these, after. A new command is a function here, a job behind it, and its name in COMMANDS.
"""

import inspect
import json as json_format
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, final

from fire.decorators import SetParseFns

from nachos_min.help_text import flag
from nachos_min.nas.defaults import BY_RECIPE, DEFAULTS, FAR
from nachos_min.options import Choice, Count, Kind, Share, Sides, Switch, Text, Weight, WholeNumber

DONE, NOT_ADMISSIBLE = 0, 3


class Job(ABC):
    """What a command decided to do, before anything of it is done."""

    @abstractmethod
    def run(self) -> int:
        """Return the exit status, having done it all."""

    def __dir__(self) -> list[str]:
        """Return nothing: Fire seeks surplus arguments among these names, and `search run` must not run."""
        return []


def by_data(option: str, kind: Kind) -> str:
    """Return the default of an `option` that depends on the data set, as the help tells it.

    >>> by_data("max_macs", Count())
    '40k; digits32: 450k'
    """
    usual, *others = ((name, kind.show(getattr(each, option))) for name, each in DEFAULTS["deep"].items())
    return "; ".join([usual[1], *(f"{name}: {shown}" for name, shown in others)])


def by_recipe(option: str) -> str:
    """Return the default of an `option` that depends on the recipe, as the help tells it.

    >>> by_recipe("start")
    'rule; paper: spread'
    """
    usual, *others = ((name, each[option]) for name, each in BY_RECIPE.items())
    return "; ".join([usual[1], *(f"{name}: {shown}" for name, shown in others)])


OptionalLimit = Annotated[int | None, Count(absent="no limit")]

Command = TypeVar("Command", bound=Callable[..., Job])


def command(function: Command) -> Command:
    """Return `function` with Fire told to read each option's text by the kind in its annotation."""
    readers = {name: partial(kind.read, flag(name)) for name, kind in option_kinds(function).items()}
    SetParseFns(**readers)(function)
    return function


def option_kinds(function: Callable[..., Job]) -> dict[str, Kind]:
    """Return parameter name -> kind, in the order of the signature of a command."""
    parameters = inspect.signature(function).parameters
    return {name: parameter.annotation.__metadata__[0] for name, parameter in parameters.items()}


def needed(function: Callable[..., Job]) -> list[str]:
    """Return the parameters without a default: what must be named right after the command."""
    parameters = inspect.signature(function).parameters
    return [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]


def option_defaults(function: Callable[..., Job]) -> dict[str, object]:
    """Return parameter name -> default value, in the order of the signature of a command."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@command
def search(
    *,
    data: Annotated[str, Text("name or file")] = "digits",
    space: Annotated[str | None, Text("name or file", absent=by_data("space", Text("name")))] = None,
    max_macs: Annotated[int | None, Count(absent=by_data("max_macs", Count()))] = None,
    min_accuracy: Annotated[float | None, Share(absent=by_data("min_accuracy", Share()))] = None,
    max_worst_macs: Annotated[int | None, Count(absent=f"{FAR} times max-macs; paper: no limit")] = None,
    max_params: OptionalLimit = None,
    max_peak_bytes: OptionalLimit = None,
    evaluations: Annotated[int | None, Count(absent=by_data("evaluations", Count()))] = None,
    finalists: Annotated[int | None, WholeNumber(0, absent=by_data("finalists", Text("count")))] = None,
    recipe: Annotated[str, Choice(("deep", "paper"))] = "deep",
    epochs: Annotated[int | None, WholeNumber(1, absent="as the recipe says")] = None,
    augment: Annotated[str, Choice(("auto", "none", "shift", "shift-flip"))] = "auto",
    confidence: Annotated[
        str | None, Choice(("learned", "softmax", "best"), absent=by_recipe("confidence"))
    ] = None,
    seed: Annotated[int, WholeNumber(0)] = 0,
    constraints: Annotated[str, Choice(("domination", "adaptive-penalty"))] = "domination",
    thresholds: Annotated[str, Choice(("exact", "grid-repair"))] = "exact",
    method: Annotated[
        str, Choice(("nachos", "random", "two-stage", "static", "edanas", "rule", "largest"))
    ] = "nachos",
    margin: Annotated[float, Share()] = 0.0,
    beta: Annotated[float | None, Weight(absent="0; paper: 1")] = None,
    gamma: Annotated[float | None, Weight(absent="0; paper: 1")] = None,
    backbone: Annotated[str, Choice(("frozen", "joint"))] = "joint",
    validation: Annotated[str | None, Choice(("halves", "whole"), absent=by_recipe("validation"))] = None,
    guarantee: Annotated[float | None, Share(absent="none")] = None,
    standardise: Annotated[str, Choice(("channel", "pixel"))] = "channel",
    start: Annotated[str | None, Choice(("random", "spread", "rule"), absent=by_recipe("start"))] = None,
    aims: Annotated[
        str | None, Choice(("ends", "budgets"), absent="budgets; ends with paper and --points best")
    ] = None,
    surrogate: Annotated[
        str | None, Choice(("switching", "rbf", "trees", "mlp", "gp"), absent="gp; switching for ends")
    ] = None,
    features: Annotated[str | None, Choice(("genes", "costs"), absent="costs; genes for ends")] = None,
    points: Annotated[str | None, Choice(("best", "curve"), absent="curve; best with grid-repair")] = None,
    workers: Annotated[int | None, WholeNumber(1, absent="number of processors")] = None,
    table: Annotated[str | None, Text("file", absent="train")] = None,
    out: Annotated[str | None, Text("folder", absent="runs/ and the data set's name")] = None,
    json: Annotated[bool, Switch()] = False,
    quiet: Annotated[bool, Switch()] = False,
) -> Job:
    """The front of admissible early-exit networks that a search finds for a data set.

    COUNT is a whole number such as 60000, 60k or 2.7M (k, M, G stand for thousand, million, thousand
    million).

    The same command continues an interrupted search. Exit status is 0 when done, 2 for bad usage or input, 3
    when no network within the limits was found, 130 when interrupted.

    Args:
        data: Data set, a built-in name (digits, digits32) or an .h5, .npz or .mat file.
        space: Search space, a built-in name (tiny, flex8, flex16, flex32, micro, small32, ofa-mbv3) or a
            .toml file.
        max_macs: Limit on the average number of MACs per inference, measured on the validation split.
        min_accuracy: Limit from below on the accuracy on the validation split, as a share of its samples.
        max_worst_macs: Limit on the MACs of an inference that passes every exit.
        max_params: Limit on the number of trained parameters.
        max_peak_bytes: Limit on the bytes of activations alive at once, for one sample in float32.
        evaluations: Number of networks to train and measure.
        finalists: Number of the best networks that are trained again, four times as long.
        recipe: How networks are trained, every exit on every sample from the first step (deep), or in the paper's
            three phases; with paper all that is the paper's method is the default.
        epochs: Passes over the training set for each network.
        augment: How training images are varied; auto shifts images of at least 12x12 pixels by a pixel or two.
        confidence: What an exit is believed by, its own head (learned), the softmax of its scores at a fitted
            temperature, or whichever is better for the network.
        seed: Seed of every random choice. The same seed gives the same result with any number of workers.
        constraints: How the limits enter the search, by constrained domination or by the paper's penalty.
        thresholds: How exit thresholds are chosen, the best admissible or by the paper's grid and repair.
        method: NACHOS, or what it is held against with as many evaluations - random search, exits placed by hand
            on searched backbones, networks without exits, a search without limits and regularisers, two networks
            by a rule, or the larger of them alone.
        margin: How far inside both limits networks must stay on the validation split, so that they keep them on
            data never seen; accuracy by so much, average MACs by this share.
        beta: Weight of the cost term in training, which pulls the expected MACs below the limit.
        gamma: Weight of the peak term in training, which pulls each exit's confidence to its record by class.
        backbone: With the recipe paper, whether the backbone is frozen while the exits train, or trains on.
        validation: Whether one of the halves of the validation split chooses and the figures shown are of the
            other, or the whole split does both (paper), and flatters.
        guarantee: Return only rows that keep both limits on new images with this probability, all of them together.
        standardise: What of the images has mean 0 and variance 1, each channel or each pixel (paper).
        start: The first networks, random (the paper), spread evenly over what they cost, or first those that an
            engineer would try.
        aims: What is optimised of a network's curve of accuracy against MACs, both its ends (the paper) or its
            errors within budgets.
        surrogate: What predicts them, the best of rbf, trees and mlp by cross-validation (the paper) or always one.
        features: What the surrogates see of a network, its genes (the paper) or its exact costs, too.
        points: What of a trained network enters the front, its best thresholds (the paper) or its whole curve of
            accuracy against MACs.
        workers: Number of processes that train networks side by side.
        table: Answer from the networks in this file, made by bench/make_table.py, instead of training any.
        out: Folder of the run, created if missing. A folder that holds the same search is continued.
        json: Print one JSON object instead of a table.
        quiet: Show no progress.

    Returns:
        The job that searches and prints the front.

    Raises:
        InputError: when an option's text breaks its rule.
    """
    arguments = {
        "data": data,
        "space": space,
        "max_macs": max_macs,
        "min_accuracy": min_accuracy,
        "max_worst_macs": max_worst_macs,
        "max_params": max_params,
        "max_peak_bytes": max_peak_bytes,
        "evaluations": evaluations,
        "finalists": finalists,
        "recipe": recipe,
        "epochs": epochs,
        "augment": augment,
        "confidence": confidence,
        "seed": seed,
        "constraints": constraints,
        "thresholds": thresholds,
        "method": method,
        "margin": margin,
        "beta": beta,
        "gamma": gamma,
        "backbone": backbone,
        "validation": validation,
        "guarantee": guarantee,
        "standardise": standardise,
        "start": start,
        "aims": aims,
        "surrogate": surrogate,
        "features": features,
        "points": points,
        "workers": workers,
        "table": table,
        "out": out,
    }
    # None is the default of all those that have none here, and in `nachos_min.search` may say "no limit".
    given = {name: value for name, value in arguments.items() if value is not None}
    return SearchJob(given, json, quiet)


@command
def macs(
    target: Annotated[str, Text("target")],
    *,
    input: Annotated[tuple[int, ...] | None, Sides(absent="as the target says")] = None,
    classes: Annotated[int | None, Count(absent="as the target says")] = None,
    convention: Annotated[str, Text("name")] = "exact",
    explain: Annotated[str | None, Text("name")] = None,
    layers: Annotated[bool, Switch()] = False,
    verify: Annotated[bool, Switch()] = False,
    execute: Annotated[bool, Switch()] = False,
    unpadded: Annotated[bool, Switch()] = False,
    json: Annotated[bool, Switch()] = False,
) -> Job:
    """The exact number of multiply-accumulates (MACs) of a network, and why other tools count differently.

    TARGET is an architecture or a configuration of CNAS (.json), RUN#solution (runs/digits#0), an .onnx file,
    or torch:package.module:function, a function without arguments that returns a PyTorch module.

    Conventions are exact, exact-valid, thop, fvcore, ptflops, ptflops-aten, torchprofile,
    torchprofile-0.0.2, calflops, calflops-flops, torchinfo, torch, onnx-tool, nachos-official.

    Exit status is 0 when done, 2 for bad usage or input.

    Args:
        target: What to count.
        input: Shape of the input, C,H,W of one image or with the batch in front, such as 1,3,224,224.
        classes: Number of classes, for a target that leaves it open.
        convention: Whose rules to count by.
        explain: A second convention, whose difference from the first is listed term by term.
        layers: List every layer with its shapes.
        verify: Run the real tools that are installed on the same PyTorch module, and compare.
        execute: Run one sample through this project's engine, and compare what it multiplies with the count.
        unpadded: For a configuration of CNAS with compact lists, count the network its sampler really builds.
        json: Print one JSON object instead of tables.

    Returns:
        The job that counts and prints.

    Raises:
        InputError: when an option's text breaks its rule.
    """
    # Imported here: the help of other commands need not wait for it.
    from nachos_min.macs.conventions import find_convention

    names = [name for name in (convention, explain) if name is not None]
    for name in names:
        find_convention(name)
    return MacsJob(target, input, classes, convention, explain, layers, verify, execute, unpadded, json)


COMMANDS: dict[str, Callable[..., Job]] = {"search": search, "macs": macs}


@final
@dataclass(frozen=True)
class MacsJob(Job):
    """A count whose options were all accepted; the fields are the options of `macs`."""

    target: str
    input: tuple[int, ...] | None
    classes: int | None
    convention: str
    explain: str | None
    layers: bool
    verify: bool
    execute: bool
    unpadded: bool
    json: bool

    def run(self) -> int:
        """Return 0, the count printed."""
        from nachos_min.macs.conventions import find_convention
        from nachos_min.report.macs_report import report_macs
        from nachos_min.targets import read_target

        target = read_target(self.target, self.input, self.classes, unpadded=self.unpadded)
        against = None if self.explain is None else find_convention(self.explain)
        convention = find_convention(self.convention)
        report = report_macs(target, convention, against, verify=self.verify, execute=self.execute)
        if self.json:
            print(json_format.dumps(report.as_dict(layers=self.layers), allow_nan=False))
        else:
            from nachos_min.report.macs_table import show_macs

            show_macs(report, layers=self.layers)
        return DONE


@final
@dataclass(frozen=True)
class SearchJob(Job):
    """A search whose options were all accepted: `arguments` are those of `nachos_min.search`."""

    arguments: dict[str, Any]
    json: bool
    quiet: bool

    def run(self) -> int:
        """Return the exit status of the search, its result printed."""
        # Imported here: Numba takes longer to load than the whole help may take to show.
        from nachos_min.nas.nachos import search as run_search
        from nachos_min.nas.workers import WorkerDiedError
        from nachos_min.report.progress import SearchProgress
        from nachos_min.report.table import closest_sentence, show_result

        with SearchProgress(quiet=self.quiet) as progress:
            try:
                result = run_search(**self.arguments, on_progress=progress)
            except KeyboardInterrupt:
                done = f"interrupted after {progress.evaluated} evaluations"
                raise Interrupted(f"{done}; the same command continues") from None
            except WorkerDiedError as died:
                raise Interrupted(str(died)) from None
        if self.json:
            print(json_format.dumps(result.as_dict(), allow_nan=False))
        else:
            show_result(result)
        if result.front:
            return DONE
        if self.json:
            print(closest_sentence(result), file=sys.stderr)
        return NOT_ADMISSIBLE


class Interrupted(Exception):
    """A job was stopped from outside; the message says how far it came and how to go on."""
