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

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from time import time
from typing import Any, Unpack

import numpy as np

from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import LONG
from nachos_min.nas import aims as aiming
from nachos_min.nas import sampling
from nachos_min.nas.configuration import (
    OPTIONS,
    ConfigurationError,
    Options,
    Problem,
    resolved,
)
from nachos_min.nas.estimate import seconds_of
from nachos_min.nas.evaluate import Evaluation, Failure, Trial, seeded
from nachos_min.nas.fitting import nearest, prepared
from nachos_min.nas.genome import Genome, as_genome
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.plan import Plan, plan_of
from nachos_min.nas.pools import refuse_inside_import
from nachos_min.nas.progress import Pace, Progress
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.nas.runs import from_record, own_run, to_record, trial_key
from nachos_min.nas.steps import Step
from nachos_min.nas.tabular import TableAnswers, read_table
from nachos_min.nas.tasks import threads
from nachos_min.nas.workers import Workers
from nachos_min.options import taking
from nachos_min.store import Run, StoreError

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
Told = Callable[[Progress], None]


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
        on_progress: called whenever something was done.
        on_plan: called once, before the first training.
        executor: trains the networks, such as a process pool of your own, in place of `workers` and `dask`.
        options: those of `Options` in `configuration.py`. One that is not given, or None, has its default;
            only `max_macs` None is no limit.

    Returns:
        The rows of the front (`shown_rows` in `result.py` says which), test figures, and how the search went.

    Raises:
        InputError: if an option breaks its rule, before anything is written; the message names it.
        WorkerDiedError: if the worker of a network died, twice.
        UnguardedError: if a script calls this while a worker imports it.
        KeyboardInterrupt: passed on after the workers were stopped; what was evaluated is on disk.

    Source: NACHOS, arXiv 2401.13330.
    """
    refuse_inside_import()
    asked, begun = resolved(options), time()
    if on_progress is not None:
        networks = asked["evaluations"] + asked["finalists"]
        on_progress(Progress(f"reading {asked['data']}", 0, 0, networks, 0, 0, None, None))
    problem, folder, finalists = prepared(asked, options.get("data")), Path(asked["out"]), asked["finalists"]
    configuration = problem.configuration
    pool: Callable[[], Workers | TableAnswers]
    at_end = ExitStack()
    if asked["table"] is not None:
        if configuration.rules.ruled:
            raise ConfigurationError(
                f"method must be one that trains each network once with a table, got {configuration.method!r}"
            )
        table = read_table(asked["table"])
        problem, finalists = replace(problem, table=table.identity(problem)), 0
        pool = partial(TableAnswers, table, problem)
    else:
        if executor is None and asked["dask"] is not None:
            from nachos_min.nas.cluster import DaskPool

            executor = at_end.enter_context(DaskPool(asked["dask"]))
        chosen = min(asked["workers"], asked["evaluations"]) if executor is None else executor
        sent = problem.coder, problem.data, configuration.acting
        pool = partial(Workers, chosen, *sent, folder, asked["threads"])
    with at_end, threads(asked["threads"]), own_run(folder, problem) as run, pool() as trained:
        if on_plan is not None:
            on_plan(plan_of(problem, asked))
        until = inf if asked["max_minutes"] is None else begun + 60 * asked["max_minutes"]
        abreast = 1 if executor else max(asked["workers"], 1)
        loop = _Loop(problem, run, trained, asked["evaluations"], finalists, on_progress, abreast, until)
        with suppress(_TimeUp):
            loop.run_to_end()
        counts = {"reused": loop.reused, "inadmissible": loop.static.inadmissible, "unfinished": loop.unfinished}
        return result_of(loop.archive, folder, **counts, guarantee=asked["guarantee"])


class _Loop:
    """The state of one search."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        pool: Workers | TableAnswers,
        evaluations: int,
        finalists: int,
        on_progress: Told | None,
        abreast: int,
        until: float,
    ) -> None:
        self.problem, self.run, self.pool = problem, run, pool
        self.configuration, self.rules = problem.configuration, problem.configuration.rules
        self.evaluations, self.finalists = evaluations, 0 if self.rules.ruled else finalists
        self.on_progress = on_progress
        self.limits = self.configuration.acting.limits
        self.archive = Archive(problem)
        # Two-stage search: a backbone may exceed max_macs, because exits added later reduce the average.
        searched = replace(self.limits, max_macs=None) if self.rules.placed else self.limits
        self.static = StaticCheck(problem.coder, searched)
        scale = self.archive.largest.worst_macs, self.archive.largest.params
        self.features = aiming.Features(problem.coder.upper, self.configuration.features == "costs", scale)
        self.log_odds: list[Floats] = []  # of the evaluations in the archive, in their order
        self.iteration = self.reused = 0
        self.expected = evaluations + self.finalists
        self.efforts = evaluations + LONG * self.finalists  # of all trials together
        self.pace = Pace(self.seconds_of, abreast, self.configuration.chosen)
        self.until, self.unfinished = until, 0

    def run_to_end(self) -> None:
        """Run the method until the evaluations are used up, nothing new is left, or nothing improves."""
        until = min(self.configuration.backbones, self.evaluations) if self.rules.placed else self.evaluations
        self.tell("choosing the first networks")
        first = self.first_candidates(until)
        if self.rules.ruled:
            self.expected, self.efforts = len(first), sum(trial.effort for trial in first)
        kind = self.configuration.start if self.rules.guided else "random"
        self.evaluate(first, f"training the {kind} start")
        best, stale = self.archive.hypervolume(self.archive.networks), 0
        while self.rules.guided and len(self.archive) < until and stale < self.configuration.patience:
            self.iteration += 1
            chosen = self.next_candidates(self.configuration.chosen)
            if not chosen:
                break
            # All are chosen and then some cut: with more evaluations the same ones come first.
            trials = [*map(Trial, chosen[: until - len(self.archive)])]
            self.evaluate(trials, f"training the choice of iteration {self.iteration}")
            now = self.archive.hypervolume(self.archive.networks)
            best, stale = (now, 0) if now > best else (best, stale + 1)
        if self.rules.placed:
            self.place_exits()
        finalists = [Trial(genome, LONG) for genome in self.archive.best_together(self.finalists)]
        self.evaluate(finalists, "training the best networks for longer")

    def first_candidates(self, most: int) -> list[Trial]:
        """Return at most `most` trials to begin with; all that there will be, for a method that is not guided."""
        rng = seeded(self.configuration.seed, "start", ())
        start, initial = self.configuration.start, self.configuration.initial
        if self.rules.ruled:
            return sampling.ruled_trials(sampling.rule_genomes(self.static)[-self.rules.ruled :], most)
        wanted = min(initial, most) if self.rules.guided else most
        genomes: list[Genome] = []
        if start == "random" or not self.rules.guided:
            genomes = sampling.random_genomes(self.static, wanted, rng)
        elif start == "rule":
            genomes = sampling.rule_genomes(self.static)
            genomes += sampling.filling_genomes(self.static, self.archive.budgets, rng)
            genomes += sampling.neighbour_genomes(self.static, initial, rng, genomes) if genomes else []
        genomes = genomes or sampling.spread_genomes(self.static, initial, rng)
        if not genomes:  # admissible members are too rare to be drawn
            near = nearest(self.static.coder, self.static.limits)
            genomes = [] if near.excess else [near.genome]
            genomes += sampling.neighbour_genomes(self.static, initial, rng, genomes) if genomes else []
        return [*map(Trial, dict.fromkeys(genomes))][:wanted]

    def place_exits(self) -> None:
        """Spend the evaluations that are left on exits placed by hand on the backbones evaluated so far."""
        check = StaticCheck(replace(self.problem.coder, static=False), self.limits)
        placed = sampling.place_by_hand(check, list(self.archive.evaluations))
        chosen = list(islice(placed, self.evaluations - len(self.archive)))
        self.evaluate([*map(Trial, chosen)], "training exits placed by hand on the best backbones")

    def evaluate(self, trials: Sequence[Trial], activity: str) -> None:
        """Evaluate `trials` and append them to the archive in their own order, whichever is done first."""
        found = {trial: known for trial in trials if (known := self.stored(trial)) is not None}
        self.reused += len(found)
        if self.on_progress is not None:
            self.pace.begin(trials, len(self.archive) + 1)

        def waiting() -> list[Trial]:
            return [trial for trial in trials if trial not in found]

        def told(step: Step) -> None:
            if self.on_progress is not None and step.trial in waiting():
                self.pace.step(step)
                self.tell(activity, found.values(), waiting())

        self.tell(activity, found.values(), waiting())
        for evaluated in self.pool.evaluate(waiting(), told, self.until):
            self.run.write(trial_key(evaluated.trial), to_record(evaluated))
            found[evaluated.trial] = evaluated
            self.pace.running.pop(evaluated.trial, None)
            self.tell(activity, found.values(), waiting())
        for trial in filter(found.__contains__, trials):
            self.archive.add(found[trial])
        if waiting():
            self.unfinished = self.expected - len(self.archive)
            raise _TimeUp

    def seconds_of(self, trial: Trial) -> float:
        """Return an estimate of how long a trial takes; a table answers at once."""
        if self.problem.table is not None:
            return 0.0
        costs = static_costs(self.problem.coder.decode(trial.genome))
        return seconds_of(self.problem, costs.worst_macs, len(costs.exit_costs), trial.effort)

    def stored(self, trial: Trial) -> Evaluation | Failure | None:
        """Return the evaluation on disk, or None; a damaged file counts as missing."""
        try:
            record = self.run.read(trial_key(trial))
        except StoreError:
            return None
        return None if record is None else from_record(record)

    def tell(
        self, activity: str, pending: Iterable[Evaluation | Failure] = (), waiting: Sequence[Trial] = ()
    ) -> None:
        """Report progress; `pending` are evaluations done but not yet in the archive, `waiting` trials follow."""
        if self.on_progress is None:
            return
        done = [*self.archive.candidates, *pending]
        evaluated = [found for found in done if isinstance(found, Evaluation)]
        longer = sum(trial.effort > 1 for trial in (*(found.trial for found in done), *waiting))
        finalists = 0 if self.rules.ruled else self.finalists - longer
        others = self.expected - len(done) - len(waiting) - finalists
        efforts = sum(found.trial.effort for found in done) + self.pace.efforts()
        chosen = [self.archive.network(found, found.chosen) for found in evaluated]
        front = self.archive.front([network for network in chosen if self.archive.admits(network)])
        self.on_progress(
            Progress(
                activity=activity,
                iteration=self.iteration,
                evaluated=len(done),
                evaluations=self.expected,
                reused=self.reused,
                failed=len(done) - len(evaluated),
                seconds_left=self.pace.seconds_left(waiting, others, finalists),
                best=front[0] if front else None,
                share=efforts / max(self.efforts, 1),
                running=self.pace.networks(),
            )
        )

    def next_candidates(self, wanted: int) -> list[Genome]:
        """Return up to `wanted` new genomes: surrogates, NSGA-II on them, a choice from its population."""
        self.tell(f"fitting surrogates and running NSGA-II, iteration {self.iteration}")
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
