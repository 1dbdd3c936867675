"""NACHOS: search backbone, exits and thresholds jointly under limits on accuracy and MACs.

    archive <- first candidates: what an engineer would try, and neighbours, evaluated    (sampling.py)
    repeat:  fit surrogates on the archive: the least error within each of three budgets  (aims.py)
             NSGA-II on the surrogates, started from the archive's front
             choose new candidates from its population, by expected gain                  (aims.py)
             evaluate them (train, choose thresholds, count), add them to the archive
    train the best networks again, four times as long

`configuration.py` has the options, and the parts that other methods leave out. The loop is deterministic and cheap;
every evaluation is on disk as soon as it is done: a run is continued by running it again.

Source: Gambella, Pomponi, Scardapane and Roveri, "NACHOS: Neural Architecture Search for Hardware Constrained
Early Exit Neural Networks", arXiv 2401.13330.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path
from time import time
from typing import Any, Unpack

import numpy as np

from nachos_min.eenn.recipes import LONG
from nachos_min.nas import aims as aiming
from nachos_min.nas import sampling
from nachos_min.nas.configuration import OPTIONS, ConfigurationError, Options, Problem, resolved
from nachos_min.nas.evaluate import seeded
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.fitting import prepared
from nachos_min.nas.genome import Genome, as_genome
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.plan import Plan, plan_of
from nachos_min.nas.pools import refuse_inside_import
from nachos_min.nas.progress import Progress, Told, Watch
from nachos_min.nas.records import to_record, trial_key
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.nas.runs import own_run, read_evaluation
from nachos_min.nas.tabular import TableAnswers, answers_from
from nachos_min.nas.tasks import passing, threads
from nachos_min.nas.workers import Workers
from nachos_min.options import taking
from nachos_min.store import Run, StoreError

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


class _TimeUp(Exception):
    """No further candidate may be started; what was evaluated has a result."""


@taking(OPTIONS)
def search(
    *,
    on_progress: Told | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    executor: Executor | None = None,
    **options: Unpack[Options],
) -> SearchResult:
    """Return the admissible networks that are best among those evaluated, each under its thresholds.

    Args:
        on_progress: called whenever something was done. Without it and `on_plan`, `nachos_min.search` shows both
            at an interactive prompt and in a notebook.
        on_plan: called once, before the first training.
        executor: trains the networks, such as a process pool of your own, in place of `workers` and `dask`.
        options: those of `Options` in `configuration.py`. One that is not given, or None, has its default;
            only `max_macs` None is no limit.

    Returns:
        The rows of the front (`shown_rows` in `result.py` says which), test figures, and how the search went.

    Raises:
        InputError: if an option breaks its rule, before anything is written; the message names it.
        MachineError: if a disk is full, or the machine refuses something else; what was evaluated is on disk.
        WorkerDiedError: if the worker of a network died, twice.
        UnguardedError: if a script calls this while a worker imports it.
        KeyboardInterrupt: passed on after the workers were stopped; what was evaluated is on disk.

    Source: NACHOS, arXiv 2401.13330.
    """
    refuse_inside_import()
    if not isinstance(executor, Executor | None):
        rule = "executor must be a concurrent.futures.Executor"
        raise ConfigurationError(f"{rule}, got {type(executor).__name__}")
    asked = resolved(options)
    if on_progress is not None:
        on_progress(Progress(f"reading {asked['data']}", evaluations=asked["evaluations"] + asked["finalists"]))
    problem, folder = prepared(asked, options.get("data")), Path(asked["out"])
    at_end = ExitStack()
    problem, pool = _answering(problem, asked, executor, at_end)
    with at_end, threads(asked["threads"]), own_run(folder, problem) as run, pool as trained:
        abreast = 1 if executor or asked["dask"] else max(asked["workers"], 1)  # at least
        if on_plan is not None:
            on_plan(plan_of(problem, asked | {"workers": abreast}, len(run.keys())))
        evaluations, finalists, archive = asked["evaluations"], asked["finalists"], Archive(problem)
        watch = Watch(archive, evaluations, finalists, on_progress, abreast)
        until = time() + 60 * (asked["max_minutes"] or inf)  # without the time that reading took
        retried = asked["retry_failed"]
        loop = Loop(archive, run, trained, watch, evaluations, finalists, until, retry_failed=retried)
        with suppress(_TimeUp):
            loop.run_to_end()
        found: dict[str, Any] = {"inadmissible": loop.static.inadmissible, "unfinished": loop.unfinished}
        return result_of(archive, folder, reused=watch.reused, guarantee=asked["guarantee"], **found)


def _answering(
    problem: Problem, asked: Mapping[str, Any], executor: Executor | None, at_end: ExitStack
) -> tuple[Problem, Workers | TableAnswers]:
    """Return the problem and what evaluates its trials: a table, whose identity it then has, or workers."""
    if asked["table"] is not None:
        answers = answers_from(asked["table"], problem)
        return answers.problem, answers
    if executor is None and asked["dask"] is not None:
        from nachos_min.nas.cluster import DaskPool

        executor = at_end.enter_context(DaskPool(asked["dask"]))
    chosen = min(asked["workers"], asked["evaluations"]) if executor is None else executor
    sent = problem.coder, problem.data, problem.configuration.acting
    return problem, Workers(chosen, *sent, Path(asked["out"]), asked["threads"])


class Loop:
    """The state of one search."""

    def __init__(
        self,
        archive: Archive,
        run: Run,
        pool: Workers | TableAnswers,
        watch: Watch,
        evaluations: int,
        finalists: int,
        until: float,
        *,
        retry_failed: bool = False,
    ) -> None:
        self.retry_failed = retry_failed
        self.archive, self.run, self.pool, self.watch = archive, run, pool, watch
        self.problem, self.configuration = archive.problem, archive.problem.configuration
        self.rules, self.limits = self.configuration.rules, self.configuration.acting.limits
        self.evaluations, self.finalists, self.until = evaluations, finalists, until
        self.start = self.configuration.start if self.rules.guided else "random"
        # Two-stage search: a backbone may exceed max_macs, because exits added later reduce the average.
        searched = replace(self.limits, max_macs=None) if self.rules.placed else self.limits
        self.static = StaticCheck(self.problem.coder, searched)
        scale = archive.largest.worst_macs, archive.largest.params
        self.features = aiming.Features(self.problem.coder.upper, self.configuration.features == "costs", scale)
        self.log_odds: list[Floats] = []  # of the evaluations in the archive, in their order
        self.iteration = self.unfinished = 0

    def run_to_end(self) -> None:
        """Run the method until the evaluations are used up, nothing new is left, or nothing improves."""
        most = min(self.configuration.backbones, self.evaluations) if self.rules.placed else self.evaluations
        self.watch.tell("choosing the first networks", self.iteration)
        first = self.first_candidates(most)
        if self.rules.ruled:
            self.watch.expect(first)
        self.evaluate(first, f"training the {self.start} start")
        best, stale = self.archive.hypervolume(self.archive.networks), 0
        while self.rules.guided and len(self.archive) < most and stale < self.configuration.patience:
            self.iteration += 1
            chosen = self.next_candidates(self.configuration.chosen)
            if not chosen:
                break
            # All are chosen and then some cut: with more evaluations the same ones come first.
            trials = [*map(Trial, chosen[: most - len(self.archive)])]
            self.evaluate(trials, f"training the choice of iteration {self.iteration}")
            now = self.archive.hypervolume(self.archive.networks)
            best, stale = (now, 0) if now > best else (best, stale + 1)
        if self.rules.placed:
            self.place_exits()
        finalists = [Trial(genome, LONG) for genome in self.archive.best_together(self.finalists)]
        self.evaluate(finalists, "training the best networks for longer")
        self.put_order(complete=True)

    def first_candidates(self, most: int) -> list[Trial]:
        """Return at most `most` trials to begin with; all that there will be, for a method that is not guided."""
        if self.rules.ruled:
            return sampling.ruled_trials(sampling.rule_genomes(self.static)[-self.rules.ruled :], most)
        rng, initial = seeded(self.configuration.seed, "start", ()), self.configuration.initial
        wanted = min(initial, most) if self.rules.guided else most
        genomes = sampling.first_genomes(self.static, self.start, initial, wanted, self.archive.budgets, rng)
        return [*map(Trial, genomes)]

    def place_exits(self) -> None:
        """Spend the evaluations that are left on exits placed by hand on the backbones evaluated so far."""
        check = StaticCheck(replace(self.problem.coder, static=False), self.limits)
        placed = sampling.place_by_hand(check, list(self.archive.evaluations))
        chosen = list(islice(placed, self.evaluations - len(self.archive)))
        self.evaluate([*map(Trial, chosen)], "training exits placed by hand on the best backbones")

    def evaluate(self, trials: Sequence[Trial], activity: str) -> None:
        """Evaluate `trials` and append them to the archive in their own order, whichever is done first."""
        found = {trial: known for trial in trials if (known := self.stored(trial)) is not None}
        missing = [trial for trial in trials if trial not in found]
        self.watch.training(activity, trials, found)
        for evaluated in self.pool.evaluate(missing, self.watch.step, self.until):
            with passing():
                self.run.write(trial_key(evaluated.trial), to_record(evaluated))
            found[evaluated.trial] = evaluated
            self.watch.done(evaluated)
        for trial in filter(found.__contains__, trials):
            self.archive.add(found[trial])
        self.put_order(complete=False)
        if not found.keys() >= {*trials}:
            self.unfinished = self.watch.expected - len(self.archive)
            raise _TimeUp

    def put_order(self, *, complete: bool) -> None:
        """Store the order of the archive, and whether the search is complete."""
        keys = [trial_key(found.trial) for found in self.archive.candidates]
        with passing():
            self.run.put("order", {"keys": keys, "complete": complete})

    def stored(self, trial: Trial) -> Evaluation | Failure | None:
        """Return the evaluation on disk, or None; a damaged file, and a failure to try again, count as missing."""
        try:
            found = read_evaluation(self.run, trial_key(trial), self.problem)
        except StoreError as error:
            warnings.warn(f"{error}; it is trained again", stacklevel=2)
            return None
        again = isinstance(found, Failure) and (self.retry_failed or found.cause == "machine")
        return None if again else found

    def next_candidates(self, wanted: int) -> list[Genome]:
        """Return up to `wanted` new genomes: surrogates, NSGA-II on them, a choice from its population."""
        self.watch.tell(f"fitting surrogates and running NSGA-II, iteration {self.iteration}", self.iteration)
        rng, known = seeded(self.configuration.seed, "iteration", (self.iteration,)), self.archive.genomes()
        if len(self.archive.evaluations) < 2:
            return sampling.random_genomes(self.static, wanted, rng, known)
        aim = self.aim(rng)
        population = self.search_surrogates(aim, rng)
        admissible = population[self.static.population(population)[1]]
        candidates = [genome for genome in dict.fromkeys(map(as_genome, admissible)) if genome not in known]
        candidates += sampling.random_genomes(self.static, wanted - len(candidates), rng, known | set(candidates))
        if len(candidates) <= wanted:
            return candidates
        genomes = np.array(candidates)
        return [candidates[index] for index in aim.choose(genomes, self.static.population(genomes)[0], wanted)]

    def aim(self, rng: np.random.Generator) -> aiming.Aim:
        """Return what to optimise next, its surrogates fitted on the archive."""
        evaluated, named = self.archive.evaluations, self.configuration.surrogate
        genomes = np.array([found.genome for found in evaluated])
        costs, _ = self.static.population(genomes)
        surrogates = aiming.SURROGATES if named == "switching" else (aiming.BY_NAME[named],)

        def fitted(targets: Iterable[Floats | tuple[float, float]]) -> aiming.Models:
            X, columns = self.features(genomes, costs), [*np.array([*targets]).T]
            return aiming.fit_models(X, columns, rng, surrogates, self.pool.starmap)

        if self.configuration.aims == "ends":
            fewest = np.array([found.ends[1] for found in self.archive.leading(limited=self.rules.limited)])
            return aiming.Ends(self.features, fitted(map(aiming.ends_of, evaluated)), self.limits, fewest)
        labels = self.problem.data.validation.labels
        self.log_odds += [
            aiming.log_odds_at_shares(found, labels, balanced=self.configuration.balanced)
            for found in evaluated[len(self.log_odds) :]
        ]
        budgets, best = np.array(self.archive.budgets), np.array(self.archive.best_accuracies())
        return aiming.Budgets(self.features, fitted(self.log_odds), budgets, best, self.limits.min_accuracy)

    def search_surrogates(self, aim: aiming.Aim, rng: np.random.Generator) -> IntArray:
        """Return the final population of NSGA-II on the surrogates, canonical genomes (n, length)."""
        coder, configuration = self.problem.coder, self.configuration

        def canonical(genomes: Floats) -> IntArray:
            return coder.canonical(genomes.astype(np.int64))

        def predicted(genomes: Floats) -> tuple[Floats, Floats]:
            rows = canonical(genomes)
            return aim.predict(rows, *self.static.population(rows))

        ranking = None
        if configuration.constraints == "adaptive-penalty" and self.limits.max_macs is not None:
            ranking = aiming.AdaptivePenalty(self.limits.max_macs)
        leading = self.archive.leading(limited=self.rules.limited)
        result = minimize(
            predicted,
            lower=np.zeros(coder.length),
            upper=coder.upper,
            integer=True,
            n_objectives=aim.objectives,
            n_constraints=aim.constraints,
            population=configuration.population,
            generations=configuration.generations,
            seed=rng,
            initial=np.array([found.genome for found in leading[: configuration.population]]),
            crossover="two-point",
            mutation_eta=1.0,
            canonical=canonical,
            ranking=ranking,
        )
        return canonical(result.population_X)
