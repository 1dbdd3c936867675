"""What a run stores: the fields of its records, and evaluations as such records and back.

The store takes plain values and arrays only: a run can be read without this program's classes. Anybody can write
such a file, so each field is checked when it is read, against the tables here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from hashlib import sha256
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from nachos_min.data import Dataset
from nachos_min.eenn.architecture import Architecture
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.recipes import RECIPES
from nachos_min.eenn.thresholds import NEVER, ExitTables, Figures, PolicyTables, spent
from nachos_min.nas.configuration import AS_BEFORE, Problem
from nachos_min.nas.evaluation import CAUSES, SPLITS, Evaluation, Failure, Point, Trial, cause_of
from nachos_min.nas.genome import Genome
from nachos_min.store.schema import Rule, broken, check

Array = np.ndarray[Any, np.dtype[Any]]

_MANY = 1 << 20  # samples of all points together whose exits are counted again
HUGE = 1.7e308

whole = partial(Rule, "whole")
WHOLE, ONE, TEXT, ANY = whole(), whole(least=1), Rule("text"), Rule("float", least=-HUGE, most=HUGE)
NUMBER, SHARE, LIMIT = Rule("number", most=HUGE), Rule("number", most=1), whole(least=1, none=True)
INDICES = "uint8 uint16 uint32 int64"


def _figures(split: str) -> dict[str, Rule]:
    classes = whole((f"classes of {split}",))
    return {
        "correct": WHOLE,
        "samples": ONE,
        "exit_counts": whole(("exits",)),
        "total_macs": WHOLE,
        "class_correct?": classes,
        "class_samples?": classes,
    }


def _answered(split: str) -> dict[str, Rule]:
    shape = split, "exits"
    return {"confidence": Rule("float64", shape, most=1), "predicted": Rule(INDICES, shape)}


TRIAL = {"genome": whole(("genes",)), "effort?": whole(least=2), "repeat?": ONE}
FAILURE = TRIAL | {"reason": TEXT, "cause?": TEXT}
EVALUATION = TRIAL | {
    "exits": whole(("exits",), least=1),
    "thresholds": Rule("float", ("exits",), most=NEVER),
    "costs": {"exit_costs": whole(("exits",), least=1), "params": WHOLE, "peak_bytes": WHOLE},
    **{name + "?" * (name == "calibration"): _figures(name) for name in SPLITS},
    "tables": _answered("validation"),
    "on_test?": _answered("test"),
    "losses": Rule("float", ("epochs",), least=-HUGE, most=HUGE),
    "curve?": {
        "thresholds": Rule("float64", ("points", "exits"), most=NEVER),
        "correct": Rule("int64", ("splits", "points")),
        "exit_counts": Rule("int64", ("splits", "points", "exits")),
        "class_correct?": {f"{name}?": Rule("int64", ("points", f"classes of {name}")) for name in SPLITS},
    },
    "temperatures?": Rule("float64", ("early exits",), least=1e-9, most=1e9),
}
WEIGHTS = {"*": Rule("float32", least=-HUGE, most=HUGE)}  # a network knows their names and shapes
ORDER = {"keys": Rule("text", ("keys",), sequence=list), "complete": Rule("truth")}
IMAGES = "height", "width", "channels"
EXAMPLES = {
    "labels": Rule(INDICES, ("test",)),
    "images": Rule("uint8 float32", ("images", *IMAGES), least=-HUGE, most=HUGE),
    "rows": Rule("int64", ("images",)),
}

# What run.h5 says. Its options are checked by their kinds, too; fields that other versions store are not.
_OF_RECIPE = {int: WHOLE, float: NUMBER, bool: Rule("truth"), str: TEXT, type(None): LIMIT}
CONFIGURATION = {
    **dict.fromkeys(("data", "space", "data_content", "constraints", "thresholds", "method", "start"), TEXT),
    **dict.fromkeys(("surrogate", "features", "points"), TEXT),
    **dict.fromkeys(("seed", "initial", "backbones"), WHOLE),
    **dict.fromkeys(("batch", "generations", "patience"), ONE),
    "population": whole(least=2, most=10**6),
    **dict.fromkeys(("max_macs", "max_worst_macs", "max_params", "max_peak_bytes", "max_exits?"), LIMIT),
    **dict.fromkeys(("min_accuracy", "margin"), SHARE),
    **dict.fromkeys((f"{name}?" for name, value in AS_BEFORE.items() if isinstance(value, str)), TEXT),
    "layout?": Rule("text", none=True),
    "resolution?": LIMIT,
    "recipe": {},
    "table?": {
        **dict.fromkeys(("name", "sha256"), TEXT),
        "trained_with_max_macs": LIMIT,
        "trained_with_seed": WHOLE,
    },
}
_MEASURED = {"average_macs": NUMBER, "test_accuracy": SHARE, "test_average_macs": NUMBER}
ABOUT = {
    "image_shape": whole((3,), least=1, most=2**31),
    "classes": whole(least=1, most=2**31),
    "class_names": Rule("text", ("named",)),
    "class_labels?": Rule("plain", ("labelled",)),
    "largest_class?": SHARE,
    "samples?": {"train": ONE, "validation": ONE, "calibration?": ONE, "test": ONE},
    "values?": {"dtype": TEXT, "least": ANY, "most": ANY},
    "versions?": {"*": TEXT},
    "scaling?": dict.fromkeys(("mean", "inverse"), Rule("float64", least=-HUGE, most=HUGE)),
    "space?": {"name": TEXT, "text": TEXT, "resolutions": whole(("resolutions",), least=1, most=2**15)},
    "retrained?": {
        "of": TEXT,
        "network": {"genome": whole(("genes",)), "thresholds": Rule("float", ("exits",), most=NEVER)},
        "epochs": ONE,
        "figures": _MEASURED,
        "validation_macs": WHOLE,
        "labels": Rule(INDICES, ("test",)),
        "right": Rule("bool", ("test",)),
    },
}


def check_run(configuration: Any, about: Any) -> None:
    """Raise a StoreError that names a field of run.h5 and its rule if it breaks one."""
    recipe = configuration.get("recipe")
    name = recipe.get("name", "paper") if isinstance(recipe, dict) else None
    if not isinstance(name, str) or name not in RECIPES:
        raise broken("configuration.recipe.name", f"one of {', '.join(RECIPES)}", name)
    of = {each.name: _OF_RECIPE[type(each.default)] for each in fields(RECIPES[name])}
    of |= {"name?": TEXT, "augment?": of.pop("augment")}  # `recipes.from_record` knows what other versions lack
    check(configuration, CONFIGURATION | {"recipe": of}, {}, "configuration.", others=True)
    if not about:
        return  # of an earlier version
    check(about, ABOUT, {}, "about.", others=True)
    if "retrained" in about and len(about["retrained"]["labels"]) != about.get("samples", {}).get("test"):
        raise broken(
            "about.retrained.labels", "one for each sample of the test split", about["retrained"]["labels"]
        )
    shape, classes = about["image_shape"], about["classes"]
    if prod(shape) > 2**31:
        raise broken("about.image_shape", "of at most 2^31 values", shape)
    for names, least in (("class_names", classes if "values" in about else 0), ("class_labels", 0)):
        if len(about.get(names, ())) not in (least, classes):
            raise broken(f"about.{names}", f"one for each of {classes:,} classes", about[names])
    if "values" in about and about["values"]["dtype"] not in ("uint8", "float32"):
        raise broken("about.values.dtype", "uint8 or float32", about["values"]["dtype"])
    scaling = about.get("scaling")
    if scaling and {each.shape for each in scaling.values()} not in ({shape}, {shape[2:]}):
        raise broken("about.scaling", f"mean and inverse, both of shape {shape[2:]} or {shape}", scaling)


def key(genome: Genome) -> str:
    """Return the name of a canonical genome: its genes joined by dashes."""
    return "-".join(map(str, genome))


def trial_key(trial: Trial) -> str:
    """Return the name under which a trial is stored; its SHA-256 if it is too long for a file's name.

    >>> trial_key(Trial((1, 0))), trial_key(Trial((1, 0), effort=4)), trial_key(Trial((1, 0), effort=4, repeat=2))
    ('1-0', '1-0.x4', '1-0.x4.r2')
    """
    name = key(trial.genome) + (f".x{trial.effort}" if trial.effort > 1 else "")
    name += f".r{trial.repeat}" if trial.repeat else ""
    return name if len(name) <= 200 else sha256(name.encode()).hexdigest()


def to_record(evaluated: Evaluation | Failure) -> dict[str, Any]:
    """Return `evaluated` as nested dictionaries of plain values and arrays, defaults left out."""
    trial = evaluated.trial
    unusual = {"effort": trial.effort} if trial.effort > 1 else {}
    unusual |= {"repeat": trial.repeat} if trial.repeat else {}
    if isinstance(evaluated, Failure):
        return {"genome": trial.genome, "reason": evaluated.reason, "cause": evaluated.cause, **unusual}
    chosen, *curve = evaluated.points
    record: dict[str, Any] = {
        "genome": trial.genome,
        "exits": evaluated.exits,
        "thresholds": chosen.thresholds,
        "costs": asdict(evaluated.costs),
        "validation": _listed(chosen.validation),
        "test": _listed(chosen.test),
        "tables": vars(evaluated.tables),
        "losses": evaluated.losses,
        "weights": dict(evaluated.weights),
    }
    if curve:
        # As arrays: a curve has tens of points, and each number of a nested list would be a member of the file.
        figures = [
            [getattr(point, name) for point in curve] for name in SPLITS if getattr(chosen, name) is not None
        ]
        record["curve"] = {
            "thresholds": np.array([point.thresholds for point in curve], np.float64),
            "correct": np.array([[each.correct for each in split] for split in figures], np.int64),
            "exit_counts": np.array([[each.exit_counts for each in split] for split in figures], np.int64),
        }
        if chosen.validation.class_samples:
            classes = [np.array([each.class_correct for each in split], np.int64) for split in figures]
            record["curve"]["class_correct"] = classes
    if evaluated.on_test is not None:
        answers = evaluated.on_test.predicted
        small = answers.astype(np.min_scalar_type(int(answers.max(initial=0))))
        record["on_test"] = {"confidence": evaluated.on_test.confidence, "predicted": small}
    if chosen.calibration is not None:
        record["calibration"] = _listed(chosen.calibration)
    record |= unusual
    if evaluated.confidence.temperatures is not None:
        record["temperatures"] = np.array(evaluated.confidence.temperatures)
    return record


def from_record(record: Mapping[str, Any], problem: Problem | None = None) -> Evaluation | Failure:
    """Return the Evaluation or Failure that `to_record` made `record` from; StoreError if it made none such.

    With the `problem` of its run, it must be one that its search can have made.
    """
    given, sizes = dict(record), {} if problem is None else {"genes": problem.coder.length}
    weights, failed = given.pop("weights", None), "reason" in given
    splits = [name for name in SPLITS if name in given]
    if isinstance(curve := given.get("curve"), dict) and isinstance(each := curve.get("class_correct"), list):
        given["curve"] = curve | {"class_correct": dict(zip(splits, each, strict=False))}
    check(given, FAILURE if failed else EVALUATION, sizes | {"splits": len(splits)})
    trial = Trial(given["genome"], given.get("effort", 1), given.get("repeat", 0))
    if failed:
        cause = given.get("cause") or cause_of(given["reason"])
        if cause not in CAUSES:
            raise broken("cause", f"one of {', '.join(CAUSES)}", cause)
        return Failure(trial, given["reason"], cause)
    if not isinstance(weights, Mapping):
        raise broken("weights", "arrays by name", weights)
    for place, rule, value in _contradictions(given, splits, problem):
        raise broken(place, rule, value)
    if isinstance(weights, dict):
        check(weights, WEIGHTS, {}, "weights.")
        if problem is not None and problem.dataset is not None and problem.table is None:
            _check_loads(problem.coder.decode(trial.genome), weights)
    chosen = Point(given["thresholds"], **{name: Figures(**given[name]) for name in splits})
    costs = StaticCosts(**given["costs"])
    return Evaluation(
        trial=trial,
        exits=given["exits"],
        costs=costs,
        points=(chosen, *_curve(given["curve"], chosen, splits, costs)) if "curve" in given else (chosen,),
        confidence=Confidence(tuple(given["temperatures"].tolist())) if "temperatures" in given else LEARNED,
        tables=_answers(given["tables"]),
        losses=given["losses"],
        weights=weights,
        on_test=_answers(given["on_test"]) if "on_test" in given else None,
    )


def _check_loads(architecture: Architecture, weights: Mapping[str, Array]) -> None:
    """Raise a StoreError unless the weights are of the network's names and shapes."""
    from nachos_min.eenn.network import EarlyExitNetwork  # a run is shown without the engine

    rng = np.random.default_rng(0)
    try:
        EarlyExitNetwork(architecture, rng, rng).load_state(weights)
    except ValueError as error:
        raise broken("weights", "those of its network", str(error)) from None


def _contradictions(
    record: Mapping[str, Any], splits: Sequence[str], problem: Problem | None
) -> Iterator[tuple[str, str, Any]]:
    """Yield place, rule and value of what the other fields of an evaluation, or its run, contradict."""
    exits, costs, curve = record["exits"], record["costs"]["exit_costs"], record.get("curve")
    if any(one >= other for one, other in pairwise(exits)) or not exits:
        yield "exits", "one or more in ascending order", exits
    if record["thresholds"][-1:] != (0.0,):
        yield "thresholds", "0 at the last exit", record["thresholds"]
    for name in splits:
        yield from _contradicted(name, record[name], costs)
    if len(record.get("temperatures", costs[1:])) != len(costs) - 1:
        yield "temperatures", f"one for each of {len(costs) - 1} early exits", record["temperatures"]
    for name, tables in (("validation", record["tables"]), ("test", record.get("on_test"))):
        if tables is not None:
            confidence = tables["confidence"]
            if len(confidence) != record[name]["samples"]:
                yield f"{name}.samples", f"the {len(confidence):,} samples of its tables", record[name]["samples"]
            if (confidence[:, -1] != 1).any() or (confidence[:, 1:] < confidence[:, :-1]).any():
                yield f"confidence on {name}", "ascending from exit to exit, and 1 at the last", confidence
    if curve is not None:
        yield from _curve_contradicted(curve, record, splits)
    if problem is not None:
        yield from _of_another_run(record, splits, problem)
    yield from _untold(record, None if problem is None or problem.dataset is None else problem.data)


def _untold(record: Mapping[str, Any], data: Dataset | None) -> Iterator[tuple[str, str, Any]]:
    """Yield points whose figures are not those that the tables give; `data`: of the run, with the right answers."""
    costs, chosen, curve = record["costs"]["exit_costs"], record["validation"], record.get("curve")
    # The chosen point is measured anew, which must give the same on validation alone.
    points = [("validation", record["thresholds"], chosen["correct"], [*chosen["exit_counts"]])]
    policies = dict[str, PolicyTables]()
    for place, (name, tables) in enumerate((("validation", record["tables"]), ("test", record.get("on_test")))):
        if tables is not None:
            samples = len(tables["confidence"])
            labels = np.zeros(samples, np.int64) if data is None else data.splits[name].labels
            policies[name] = _answers(tables).policy_tables(labels, costs)
            if curve is not None and samples * len(curve["thresholds"]) <= _MANY:
                own = (curve["thresholds"], curve["correct"][place], curve["exit_counts"][place])
                points += [(name, *point) for point in zip(*(each.tolist() for each in own), strict=True)]
    for name, thresholds, right, counts in points:
        found = policies[name].figures(thresholds)
        if counts != [*found.exit_counts] or (data is not None and right != found.correct):
            told = f"{found.correct:,} right and {[*found.exit_counts]}" if data else f"{[*found.exit_counts]}"
            yield f"a point on {name}", f"as its tables tell, {told}", f"{right:,} right and {counts}"


def _contradicted(name: str, figures: Mapping[str, Any], costs: Sequence[int]) -> Iterator[tuple[str, str, Any]]:
    """Yield what of the figures on a split contradicts the others."""
    samples, counts, right = figures["samples"], figures["exit_counts"], figures["correct"]
    if right > samples:
        yield f"{name}.correct", f"at most {samples:,}", right
    if sum(counts) != samples:
        yield f"{name}.exit_counts", f"{samples:,} together", counts
    if figures["total_macs"] != (total := spent(counts, costs)):
        yield f"{name}.total_macs", f"{total:,}, what its exits cost", figures["total_macs"]
    if not figures.keys() & {"class_correct", "class_samples"}:
        return
    own, each = figures.get("class_correct", ()), figures.get("class_samples", ())
    if len(own) != len(each) or sum(each) != samples or any(a > b for a, b in zip(own, each, strict=True)):
        yield f"{name}.class_samples", f"{samples:,} together, and no fewer than class_correct", each
    if sum(own) != right:
        yield f"{name}.class_correct", f"{right:,} together", own


def _curve_contradicted(
    curve: Mapping[str, Any], record: Mapping[str, Any], splits: Sequence[str]
) -> Iterator[tuple[str, str, Any]]:
    """Yield what of the points of a curve contradicts the chosen point."""
    samples = np.array([record[name]["samples"] for name in splits], np.int64)[:, None]
    if (curve["correct"] > samples).any():
        yield "curve.correct", "at most the samples of its split", curve["correct"]
    if (curve["exit_counts"].sum(axis=2) != samples).any():
        yield "curve.exit_counts", "the samples of its split together", curve["exit_counts"]
    if curve["thresholds"][:, -1].any():
        yield "curve.thresholds", "0 at the last exit", curve["thresholds"]
    classes = curve.get("class_correct", {})
    if [*classes] != [name for name in splits if "class_samples" in record[name]]:
        yield "curve.class_correct", "of each split whose classes are counted", [*classes]
    for (name, own), right in zip(classes.items(), curve["correct"], strict=False):
        if (own > record[name]["class_samples"]).any() or (own.sum(axis=1) != right).any():
            yield f"curve.class_correct on {name}", "right answers of the split's samples", own


def _of_another_run(
    record: Mapping[str, Any], splits: Sequence[str], problem: Problem
) -> Iterator[tuple[str, str, Any]]:
    """Yield what of an evaluation contradicts its genome, or the run."""
    try:
        architecture = problem.coder.decode(record["genome"])
    except ValueError as error:
        yield "genome", f"of the run's space ({error})", record["genome"]
        return
    own, counted = StaticCosts(**record["costs"]), static_costs(architecture)
    if (record["exits"], own) != (architecture.exit_stages, counted):
        yield "costs", f"{counted} at exits {architecture.exit_stages}", f"{own} at {record['exits']}"
    there = problem.about.get("samples")
    if there is not None and {name: record[name]["samples"] for name in splits} != {
        name: there[name] for name in SPLITS if name in there
    }:
        yield "samples", f"those of the run, {there}", {name: record[name]["samples"] for name in splits}
    if (problem.configuration.metric == "balanced") != ("class_samples" in record["validation"]):
        yield "class_samples", "counted where the run's metric is balanced", problem.configuration.metric
    if "retrained" in problem.about and "on_test" not in record:
        yield "on_test", "there in a run that trains a network again", None
    for tables in (record["tables"], record.get("on_test", record["tables"])):
        if tables["predicted"].max(initial=0) >= problem.coder.classes:
            yield "predicted", f"one of {problem.coder.classes:,} classes", int(tables["predicted"].max())


def _answers(tables: Mapping[str, Array]) -> ExitTables:
    return ExitTables(tables["confidence"], tables["predicted"].astype(np.int64))


def _listed(figures: Figures) -> dict[str, Any]:
    """Return the figures as a dictionary, without those of the classes if they were not counted."""
    return {name: value for name, value in asdict(figures).items() if value != ()}


def _curve(curve: Mapping[str, Any], chosen: Point, splits: Sequence[str], costs: StaticCosts) -> Iterator[Point]:
    """Yield the points of a stored curve; `chosen` has the samples of each class."""
    right, left = curve["correct"].tolist(), curve["exit_counts"].tolist()
    macs = (curve["exit_counts"] @ np.array(costs.exit_costs)).tolist()
    classes = [each.tolist() for each in curve.get("class_correct", {}).values()]
    whole = [getattr(chosen, name) for name in splits]

    def figures(split: int, place: int) -> Figures:
        counted = (tuple(classes[split][place]), whole[split].class_samples) if classes else ()
        exits = tuple(left[split][place])
        return Figures(right[split][place], whole[split].samples, exits, macs[split][place], *counted)

    for place, thresholds in enumerate(curve["thresholds"].tolist()):
        yield Point(tuple(thresholds), **{name: figures(split, place) for split, name in enumerate(splits)})
