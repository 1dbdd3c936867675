"""Read a finished or interrupted run again, without training anything.

Read `result.py` first; `nachos.py` is how runs come about.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nachos_min.nas.configuration import (
    ConfigurationError,
    Problem,
    check_guarantee,
    configuration_of,
    load_problem,
)
from nachos_min.nas.evaluate import Evaluation, Failure
from nachos_min.nas.records import from_record
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.store import open_run


def load_run(path: str | Path, guarantee: float | None = None) -> SearchResult:
    """Return the result of the run in folder `path`, from its stored evaluations.

    Args:
        path: of the run.
        guarantee: as of `nachos_min.search`.

    Raises:
        InputError: if there is no run, it is damaged, its data set or space is not what it was any more, or
            `guarantee` breaks its rule.
    """
    problem = stored_problem(path)
    check_guarantee(guarantee, problem.configuration.validation)
    evaluations = tuple(stored_evaluations(path))
    archive = Archive(problem, evaluations)
    return result_of(archive, problem, Path(path), reused=len(evaluations), inadmissible=None, guarantee=guarantee)


def stored_problem(path: str | Path) -> Problem:
    """Return the configuration of the run in folder `path`, with its data and space.

    Raises:
        InputError: as for `load_run`.
    """
    identity = open_run(path).configuration
    problem = replace(load_problem(configuration_of(identity)), table=identity.get("table"))
    now = problem.identity()
    for name, what in (("data_content", "data set"), ("space_content", "space")):
        if identity.get(name) != now[name]:
            raise ConfigurationError(f"run {path}: its {what} must be what it was, got other content")
    return problem


def stored_evaluations(path: str | Path) -> Iterator[Evaluation | Failure]:
    """Yield everything evaluated in the run in folder `path`, in alphabetical order of its keys.

    Raises:
        InputError: if there is no run, or an evaluation is damaged; names the file.
    """
    run = open_run(path)
    names = run.keys()
    for name in names:
        record = run.read(name)
        if record is not None:
            yield from_record(record)
