"""Runs opened and read again without training anything; what is read is checked by `records.py`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data import DataError, Split
from nachos_min.data.load import IN_MEMORY
from nachos_min.errors import InputError, shorten
from nachos_min.nas import configuration as options
from nachos_min.nas.evaluation import Evaluation, Failure
from nachos_min.nas.records import EXAMPLES, ORDER, WEIGHTS, check_run, from_record, trial_key
from nachos_min.nas.result import Archive, Network, SearchResult, result_of
from nachos_min.options import flag
from nachos_min.store import OtherRunError, Run, StoreError, create_or_open
from nachos_min.store import open_run as open_unchecked
from nachos_min.store.schema import broken, check

Array = np.ndarray[Any, np.dtype[Any]]

MOST_EXAMPLES, EXAMPLE_BYTES = 2_048, 4 << 20  # most test images that a run keeps, and their bytes
SHOWN = {"max_macs": "<=", "min_accuracy": ">="}  # limits that stored curves can be held against, the tighter side


def own_run(folder: Path, problem: options.Problem) -> Run:
    """Return the run of `problem`, new or continued; StoreError if there is another one in `folder`.

    Data are the same if their content is, wherever they stand. Where only wider limits set that run apart, the
    message says how to see its networks within these.
    """
    try:
        run = create_or_open(folder, problem.identity(), problem.about)
        with ExitStack() as on_error:
            on_error.enter_context(run)
            _check_about(run)
            if not _has_examples(run):
                run.put("examples", examples_of(problem.data.test))
            on_error.pop_all()
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
    most = min(len(test), MOST_EXAMPLES, max(1, EXAMPLE_BYTES // images.stored[:1].nbytes))
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
    whole = archive = Archive(problem, stored_evaluations(path, problem))
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
    with _damaged(f"{run.path}/examples.h5"):
        _check_examples(kept, run.about)
    return Examples(kept["images"], kept["labels"].astype(np.int64), kept["rows"])


def _check_examples(kept: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raise a StoreError unless the examples are of the data that a run is about."""
    if missing := [name for name in ("image_shape", "classes", "samples", "values") if name not in about]:
        raise broken("run.h5", f"such that it has {missing[0]}", "none")
    height, width, channels = about["image_shape"]
    sizes = {"height": height, "width": width, "channels": channels, "test": about["samples"]["test"]}
    check(kept, EXAMPLES, sizes)
    if str(kept["images"].dtype) != about["values"]["dtype"]:
        raise broken("images", about["values"]["dtype"], kept["images"])
    for name, most in (("labels", about["classes"]), ("rows", sizes["test"])):
        if kept[name].max(initial=0) >= most:
            raise broken(name, f"less than {most:,}", int(kept[name].max()))


def _has_examples(run: Run) -> bool:
    """Return whether a run has its examples, whole; others are made again."""
    try:
        kept = run.get("examples")
        if kept is not None:
            _check_examples(kept, run.about)
    except StoreError:
        return False
    return kept is not None


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


def open_run(path: str | Path) -> Run:
    """Return the run in a folder, open for reading, what run.h5 says of it checked; StoreError as of the store."""
    run = open_unchecked(path)
    _check_about(run)
    return run


def _check_about(run: Run) -> None:
    with _damaged(f"{run.path}/run.h5"):
        check_run(run.configuration, run.about)


def stored_evaluations(path: str | Path, problem: options.Problem | None = None) -> Iterator[Evaluation | Failure]:
    """Yield what the last search in folder `path` evaluated, in its archive's order; InputError as `load_run`.

    `problem`: that of the run; None: `stored_problem`.
    """
    run, problem = open_run(path), stored_problem(path) if problem is None else problem
    order, names = run.get("order") or {"keys": [], "complete": False}, run.keys()
    with _damaged(f"{run.path}/order.h5"):
        check(order, ORDER, {})
    keys = dict[str, None].fromkeys(order["keys"])  # each once
    # Without what a shorter search left: its finalists, or the choice that was cut off.
    later = [] if order["complete"] else sorted({*names} - {*keys})
    for name in [*keys, *later]:
        found = read_evaluation(run, name, problem, {"weights": StoredWeights(run, name)})
        if found is None:  # without it RUN#k would be another network
            raise StoreError(f"run {path} must hold its evaluation {name}; the same search trains it again")
        yield found


def read_evaluation(
    run: Run, name: str, problem: options.Problem, instead: Mapping[str, Any] | None = None
) -> Evaluation | Failure | None:
    """Return an evaluation of a run by its key, or None if there is none; StoreError if it is damaged.

    What is given `instead` is not read.
    """
    record = run.read(name, without=(instead or {}).keys())
    if record is None:
        return None
    with _damaged(f"evaluation {shorten(name)} of run {run.path}"):
        found = from_record(record | dict(instead or {}), problem)
        if trial_key(found.trial) != name:
            raise broken("genome", f"{name}, as the file is called", trial_key(found.trial))
    return found


@contextmanager
def _damaged(what: str) -> Iterator[None]:
    """Name `what` is read in the StoreErrors inside."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{what} is damaged: {error}") from None


@dataclass(frozen=True)
class StoredWeights(Mapping[str, Array]):
    """Weights of an evaluation in a run, by name, read when they are first asked for."""

    run: Run
    key: str

    @cached_property
    def _read(self) -> dict[str, Array]:
        weights = (self.run.read(self.key) or {}).get("weights")
        if not isinstance(weights, dict):
            raise StoreError(f"run {self.run.path} must hold its evaluation {self.key} as it was, got none")
        with _damaged(f"evaluation {shorten(self.key)} of run {self.run.path}"):
            check(weights, WEIGHTS, {}, "weights.")
        return weights

    def __getitem__(self, name: str) -> Array:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)
