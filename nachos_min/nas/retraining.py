"""Train one network of a run again, from its genome: longer, several times, within the run's limits.

The result is a run like others, whose candidates are trainings of one genome with different seeds.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.recipes import passing
from nachos_min.errors import InputError, shorten, some
from nachos_min.nas.configuration import ConfigurationError, Problem, plain
from nachos_min.nas.estimate import seconds_of
from nachos_min.nas.evaluate import as_seen
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.gain import before_of
from nachos_min.nas.nachos import Loop
from nachos_min.nas.plan import duration
from nachos_min.nas.pools import refuse_inside_import
from nachos_min.nas.progress import Told, Watch
from nachos_min.nas.result import Archive, Network, SearchResult, result_of
from nachos_min.nas.runs import own_run, solution, stored_problem
from nachos_min.nas.tasks import threads
from nachos_min.nas.workers import Workers
from nachos_min.options import PASSES, PROCESSES

LONGER = 2  # times the epochs that a network had


@dataclass(frozen=True)
class Retraining:
    """What is about to be done."""

    of: str  # such as "digits#0"
    trainings: int
    epochs_before: int
    epochs: int  # of each training
    seconds: float  # of all trainings, an estimate

    def lines(self) -> list[str]:
        """Return the sentences that people read."""
        times, epochs = some(self.trainings, "time"), some(self.epochs, "epoch")
        had = f"{self.of} is trained {times} for {epochs}; it had {self.epochs_before:,}."
        return [f"{had} This takes about {duration(self.seconds)}."]


def retrain(
    network: str | Network,
    *,
    data: Any = None,
    max_bytes: int | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    workers: int | None = None,
    out: str | Path | None = None,
    on_progress: Told | None = None,
    on_plan: Callable[[Retraining], None] | None = None,
) -> SearchResult:
    """Return the result of training a network of a run again; its `retrained` compares it with the network before.

    Args:
        network: RUN#k, such as "runs/digits#0", or a row of a result.
        data: the data set of that run, as `search` takes it; None: where that run found it.
        max_bytes: most bytes that it may decode to; None: 340 million.
        epochs: passes over the training set, >= 1; None: twice those that the network had.
        seeds: number of trainings, >= 1. The first has the run's own seed.
        workers: number of processes, 0 for this one; None: one for each processor.
        out: folder of the new run; None: beside the old one. The same call in the same folder continues.
        on_progress, on_plan: as of `search`.

    Raises:
        InputError: if there is no such network, the data are not those of its run, or an argument breaks its rule.
        MachineError, WorkerDiedError, UnguardedError, KeyboardInterrupt: as of `search`.
    """
    refuse_inside_import()
    for name, value, kind in (
        ("epochs", epochs, PASSES),
        ("seeds", seeds, PASSES),
        ("workers", workers, PROCESSES),
    ):
        if value is not None and not kind.holds(value):
            raise ConfigurationError(f"{name} must be {kind.rule}, got {shorten(value)}")
    epochs, seeds, workers = plain(epochs), plain(seeds), plain(workers)
    found = network if isinstance(network, Network) else solution(network)
    problem = _problem(found, data, epochs, max_bytes)
    before, recipe = problem.about["retrained"], problem.configuration.recipe
    passes = recipe.passes(len(problem.data.train))
    beside = f"{'-'.join(found.name.rsplit('#', 1))}-{passes}-epochs"
    folder = Path(os.path.normpath(Path(found.run, "..", beside)) if out is None else out)
    abreast = min(seeds, (os.cpu_count() or 1) if workers is None else workers)
    pool = Workers(abreast, problem.coder, problem.data, problem.configuration.acting, folder)
    with threads(1), own_run(folder, problem) as stored, pool as trained:
        if on_plan is not None:
            rounds = -(-max(0, seeds - len(stored.keys())) // max(1, abreast))
            seconds = rounds * seconds_of(problem, found.worst_macs, len(found.exits))
            on_plan(Retraining(before["of"], seeds, before["epochs"], passes, seconds))
        archive = Archive(problem)
        watch = Watch(archive, seeds, 0, on_progress, max(1, abreast))
        loop = Loop(archive, stored, trained, watch, seeds, 0, inf)
        loop.evaluate([Trial(found.genome, repeat=each) for each in range(seeds)], f"training {before['of']} again")
        loop.put_order(complete=True)
        return result_of(archive, folder, reused=watch.reused, inadmissible=None)


def _problem(network: Network, source: Any, epochs: int | None, max_bytes: int | None) -> Problem:
    """Return the problem of the run that trains `network` again, its data loaded."""
    problem = network.problem
    if problem is None:
        raise InputError(f"network must be a row of a result that names its run, got run {network.run!r}")
    if source is not None or problem.dataset is None:
        problem = stored_problem(network.run, with_data=True, data=source, max_bytes=max_bytes)
    configuration, test, answers = problem.configuration, problem.data.test, network.evaluation.on_test
    had = network.evaluation.trial.effort * configuration.recipe.passes(len(problem.data.train))
    own = replace(configuration, recipe=passing(configuration.recipe, LONGER * had if epochs is None else epochs))
    if answers is None:  # an earlier version did not store them
        trained = replace(network, problem=problem).trained.network
        answers = exit_answers(trained, as_seen(test, trained).images).tables(network.evaluation.confidence)
    about = {**problem.about, "retrained": before_of(network, answers, test.labels, had)}
    return replace(problem, configuration=own, table=None, about=about)
