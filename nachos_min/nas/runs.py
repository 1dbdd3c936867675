"""Evaluations as plain records for the store and back, and runs read again without training anything.

The store takes plain values and arrays only: a run can be read without this program's classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data import DataError, Split
from nachos_min.data.load import IN_MEMORY
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import ExitTables, Figures
from nachos_min.errors import InputError, shorten
from nachos_min.nas import configuration as options
from nachos_min.nas.evaluation import SPLITS, Evaluation, Failure, Point, Trial, cause_of
from nachos_min.nas.genome import Genome
from nachos_min.nas.result import Archive, Network, SearchResult, result_of
from nachos_min.options import flag
from nachos_min.store import OtherRunError, Run, StoreError, create_or_open, open_run

Array = np.ndarray[Any, np.dtype[Any]]

EXAMPLES, EXAMPLE_BYTES = 2_048, 4 << 20  # most test images that a run keeps, and their bytes
SHOWN = {"max_macs": "<=", "min_accuracy": ">="}  # limits that stored curves can be held against, the tighter side


def own_run(folder: Path, problem: options.Problem) -> Run:
    """Return the run of `problem`, new or continued; StoreError if there is another one in `folder`.

    Data are the same if their content is, wherever they stand. Where only wider limits set that run apart, the
    message says how to see its networks within these.
    """
    try:
        run = create_or_open(folder, problem.identity(), problem.about)
        if run.get("examples") is None:
            run.put("examples", examples_of(problem.data.test))
        return run
    except OtherRunError as error:
        if "data" in error.different and "data_content" not in error.different:
            same = replace(problem.configuration, data=error.different["data"][0])
            return own_run(folder, replace(problem, configuration=same))
        if next(iter(error.different)) == "data_content":  # another content of the same name
            rule = f"out {folder} holds a run on {problem.configuration.data} of other content"
            raise StoreError(f"{rule}; choose another --out") from None
        asked = {name: wanted for name, (_, wanted) in error.different.items() if name in SHOWN}
        there = {name: own for name, (own, _) in error.different.items() if name in SHOWN}
        if not asked or error.different.keys() - {*SHOWN, "max_worst_macs"} or _looser(asked, there):
            raise
        flags = [f"{flag(name)} {options.OPTIONS[name].kind.show(value)}" for name, value in asked.items()]
        command = f"python -m nachos_min show {quote(str(folder))} {' '.join(flags)}"
        raise StoreError(f"{error}, or see which of its networks keep these limits: {command}") from None


def examples_of(test: Split) -> dict[str, Any]:
    """Return what a run keeps of its test split, as `Run.put` takes it.

    "labels" [N] of all its images; "images" [n, H, W, C], some of them, unscaled, and "rows" [n], which these are.
    """
    images, small = test.images, np.min_scalar_type(int(test.labels.max()))
    most = min(len(test), EXAMPLES, max(1, EXAMPLE_BYTES // images.stored[:1].nbytes))
    rows = np.linspace(0, len(test) - 1, most).round().astype(np.int64)  # evenly, since classes may stand in order
    return {"labels": test.labels.astype(small), "images": images.unscaled(rows), "rows": rows}


def load_run(
    path: str | Path,
    max_macs: int | None = None,
    min_accuracy: float | None = None,
    guarantee: float | None = None,
) -> SearchResult:
    """Return the result of the run in folder `path`, from its stored evaluations; its data set is not needed.

    Solutions keep their number k of RUN#k, whatever limits and guarantee leave of the front.

    Args:
        path: folder of the run.
        max_macs, min_accuracy: tighter limits, which some of the stored networks and thresholds may keep; None:
            those of the run.
        guarantee: as of `search`.

    Raises:
        InputError: if there is no run, it is damaged, its space has other content than before, a limit is looser
            than the run's, or an argument breaks its rule. An older run needs its data set as it was.
    """
    problem = stored_problem(path)
    configuration = problem.configuration
    options.check_guarantee(guarantee, configuration.validation, configuration.metric)
    tighter = options.check({"max_macs": max_macs, "min_accuracy": min_accuracy})
    there = {name: getattr(configuration.limits, name) for name in SHOWN}
    if name := _looser(tighter, there):
        rule = f"{SHOWN[name]} {there[name]:,}, the run's own limit, since it stores nothing beyond"
        raise options.ConfigurationError(f"{name} must be {rule}, got {tighter[name]:,}")
    whole = archive = Archive(problem, stored_evaluations(path))
    if tighter:
        own = replace(configuration, limits=replace(configuration.limits, **dict[str, Any](tighter)))
        archive = Archive(replace(problem, configuration=own), whole.candidates)
    found: dict[str, Any] = {"reused": len(archive), "inadmissible": None, "guarantee": options.plain(guarantee)}
    return result_of(archive, Path(path), **found, whole=whole)


def solution(name: str | Path) -> Network:
    """Return network k of the front of a run.

    Args:
        name: RUN#k, the folder of the run and the number of the row, such as "runs/digits#0".

    Raises:
        InputError: `name` has another form, there is no such row, or the run cannot be read, as `load_run`.
    """
    run, _, number = str(name).rpartition("#")
    if not run or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise InputError(f"a network must be RUN#k, k the number of a solution, got {shorten(str(name))}")
    front = load_run(run).front
    if int(number) >= len(front):
        raise InputError(f"run {shorten(run)} has {len(front)} solutions, numbered from 0, got {number}")
    return front[int(number)]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a run keeps of its test split: the labels of all images, and some of the images."""

    images: Array  # [n, H, W, C], uint8 or float32, unscaled, whatever layout the data had
    labels: NDArray[np.int64]  # [N], right class of each image of the test split
    rows: NDArray[np.int64]  # [n], which of the N images these are


def examples(path: str | Path) -> Examples:
    """Return the examples of the run in folder `path`; InputError if there is no run, or it has no examples."""
    run = open_run(path)
    kept = run.get("examples")
    if kept is None:
        rule = "was stored by an earlier version, without test images"
        raise InputError(f"run {path} {rule}; the same search with its data adds them")
    with _as_written(f"{run.path}/examples.h5"):
        found, about = Examples(kept["images"], kept["labels"].astype(np.int64), kept["rows"]), run.about
        kinds = found.images.dtype == about["values"]["dtype"], found.labels.max() < about["classes"]
        shapes = (len(found.rows), *about["image_shape"]), (about["samples"]["test"],)
        if shapes != (found.images.shape, found.labels.shape) or not all(kinds) or found.rows.max() >= shapes[1][0]:
            raise ValueError("they are of other data")
    return found


def _looser(asked: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    """Return the first limit `asked` for that admits what the one `there` does not, or None."""
    for name, value in asked.items():
        limit, most = there[name], SHOWN[name] == "<="
        if value is None or (limit is not None and (value > limit if most else value < limit)):
            return name
    return None


def stored_problem(
    path: str | Path, *, with_data: bool = False, data: Any = None, max_bytes: int | None = None
) -> options.Problem:
    """Return the configuration of the run in folder `path`, with its space; InputError as `load_run`.

    With `with_data`, or `data` that say where it is now, its data set is loaded, too, and is what it was;
    `max_bytes` as of `load`.
    """
    run = open_run(path)
    identity, loaded = run.configuration, with_data or data is not None
    if loaded and data is None and identity["data"] == IN_MEMORY:
        raise options.ConfigurationError(f"data must be given: run {path} was searched on {IN_MEMORY}")
    if run.about and not run.about.keys() >= {"image_shape", "classes", "class_names"}:
        raise StoreError(f"run {path} is damaged: run.h5 must say what its images and classes are")
    try:
        problem = options.load_problem(
            options.configuration_of(identity), data, run.about or None, with_data=loaded, max_bytes=max_bytes
        )
    except DataError as error:
        if loaded and data is None:
            raise DataError(f"{error}; --data may say where they are now") from None
        if loaded or run.about:
            raise
        older = f"run {path} was stored by an earlier version, which needs its data"
        raise DataError(
            f"{older}; the same search with --data where they are now adds what it lacks ({error})"
        ) from None
    now: dict[str, Any] = {"space_content": problem.space.content}
    now |= {} if problem.dataset is None else {"data_content": problem.data.digest}
    for name, what in (("data_content", "data set"), ("space_content", "space")):
        if name in now and identity.get(name) != now[name]:
            raise options.ConfigurationError(f"run {path}: its {what} must be what it was, got other content")
    return replace(problem, table=identity.get("table"))


def stored_evaluations(path: str | Path) -> Iterator[Evaluation | Failure]:
    """Yield what the last search in folder `path` evaluated, in its archive's order; InputError as `load_run`."""
    run = open_run(path)
    order, names = run.get("order") or {"keys": [], "complete": False}, run.keys()
    with _as_written(f"{run.path}/order.h5"):
        keys = dict[str, None].fromkeys(order["keys"])  # each once
        if not all(isinstance(each, str) for each in keys):
            raise TypeError("a key is text")
        # Without what a shorter search left: its finalists, or the choice that was cut off.
        later = [] if order["complete"] else sorted({*names} - {*keys})
    for name in [*keys, *later]:
        found = read_evaluation(run, name, {"weights": StoredWeights(run, name)})
        if found is None:  # without it RUN#k would be another network
            raise StoreError(f"run {path} must hold its evaluation {name}; the same search trains it again")
        yield found


def read_evaluation(run: Run, name: str, instead: Mapping[str, Any] | None = None) -> Evaluation | Failure | None:
    """Return an evaluation of a run by its key, or None if there is none; StoreError if it is damaged.

    What is given `instead` is not read.
    """
    record = run.read(name, without=(instead or {}).keys())
    if record is None:
        return None
    with _as_written(f"evaluation {shorten(name)} of run {run.path}"):
        found = from_record(record | dict(instead or {}))
        if trial_key(found.trial) != name:
            raise ValueError("it is another evaluation")
    return found


@contextmanager
def _as_written(what: str) -> Iterator[None]:
    """Raise a StoreError that names `what` was read if the record inside has another form than ours."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise StoreError(f"{what} is damaged: it was not written as this program writes it") from None


@dataclass(frozen=True)
class StoredWeights(Mapping[str, Array]):
    """Weights of an evaluation in a run, by name, read when they are first asked for."""

    run: Run
    key: str

    @cached_property
    def _read(self) -> dict[str, Array]:
        weights = (self.run.read(self.key) or {}).get("weights")
        if weights is None:
            raise StoreError(f"run {self.run.path} must hold its evaluation {self.key} as it was, got none")
        return dict(weights)

    def __getitem__(self, name: str) -> Array:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


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


def from_record(record: Mapping[str, Any]) -> Evaluation | Failure:
    """Return the Evaluation or Failure that `to_record` made `record` from."""
    trial = Trial(record["genome"], record.get("effort", 1), record.get("repeat", 0))
    if "reason" in record:
        return Failure(trial, record["reason"], record.get("cause") or cause_of(record["reason"]))
    splits = [name for name in SPLITS if name in record]
    chosen = Point(record["thresholds"], **{name: Figures(**record[name]) for name in splits})
    costs = StaticCosts(**record["costs"])
    return Evaluation(
        trial=trial,
        exits=record["exits"],
        costs=costs,
        points=(chosen, *_curve(record["curve"], chosen, splits, costs)) if "curve" in record else (chosen,),
        confidence=Confidence(tuple(record["temperatures"].tolist())) if "temperatures" in record else LEARNED,
        tables=ExitTables(**record["tables"]),
        losses=record["losses"],
        weights=record["weights"],
        on_test=_answers(record["on_test"]) if "on_test" in record else None,
    )


def _answers(tables: Mapping[str, Array]) -> ExitTables:
    return ExitTables(tables["confidence"], tables["predicted"].astype(np.int64))


def _listed(figures: Figures) -> dict[str, Any]:
    """Return the figures as a dictionary, without those of the classes if they were not counted."""
    return {name: value for name, value in asdict(figures).items() if value != ()}


def _curve(curve: Mapping[str, Any], chosen: Point, splits: Sequence[str], costs: StaticCosts) -> Iterator[Point]:
    """Yield the points of a stored curve; `chosen` has the samples of each class."""
    right, left = curve["correct"].tolist(), curve["exit_counts"].tolist()
    macs = (curve["exit_counts"] @ np.array(costs.exit_costs)).tolist()
    classes = [each.tolist() for each in curve.get("class_correct", ())]
    whole = [getattr(chosen, name) for name in splits]

    def figures(split: int, place: int) -> Figures:
        counted = (tuple(classes[split][place]), whole[split].class_samples) if classes else ()
        exits = tuple(left[split][place])
        return Figures(right[split][place], whole[split].samples, exits, macs[split][place], *counted)

    for place, thresholds in enumerate(curve["thresholds"].tolist()):
        yield Point(tuple(thresholds), **{name: figures(split, place) for split, name in enumerate(splits)})
