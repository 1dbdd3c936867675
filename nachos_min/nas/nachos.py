"""NACHOS: search backbone, exits and thresholds jointly under limits on accuracy and MACs.

This file is the loop, and reads like the method:

    archive <- first candidates: what an engineer would try, and neighbours, evaluated    (sampling.py)
    repeat:  fit surrogates on the archive: the least error within each of three budgets  (aims.py)
             NSGA-II on the surrogates, started from the archive's front
             choose new candidates from its population, by expected gain                  (aims.py)
             evaluate them (train, tune thresholds, count), add them to the archive
    train the best networks again, four times as long

The paper optimises the least error and the fewest MACs, and chooses evenly spread in MACs.
`configuration.py` says what can be chosen, and which parts other methods leave out.
The loop is deterministic and cheap, and every evaluation is on disk as soon as it is done: a run is continued by
running it again and finding evaluations already there.

Source: Gambella, Pomponi, Scardapane and Roveri, "NACHOS: Neural Architecture Search for Hardware Constrained
Early Exit Neural Networks", arXiv 2401.13330.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from nachos_min.data import load
from nachos_min.nas import aims as aiming
from nachos_min.nas.configuration import OPTIONS, Options, Problem, configure, load_problem, resolved
from nachos_min.nas.evaluate import Evaluation, Failure, Trial, seeded
from nachos_min.nas.genome import Genome, as_genome
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.records import from_record, to_record, trial_key
from nachos_min.nas.result import Archive, SearchResult, Solution, largest_costs, result_of, solution_of
from nachos_min.nas.sampling import (
    LONG,
    filling_genomes,
    neighbour_genomes,
    place_by_hand,
    random_genomes,
    rule_genomes,
    ruled_trials,
    spread_genomes,
)
from nachos_min.nas.tabular import TableAnswers, read_table
from nachos_min.nas.workers import Workers
from nachos_min.options import taking
from nachos_min.store import Run, StoreError, create_or_open

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Progress:
    """What a search is doing, for whoever shows it.

    Attributes:
        activity: what is being done, a clause in words.
        iteration: 0 for the random start, then 1, 2, ...
        evaluated, evaluations: candidates done, and asked for.
        reused, failed: how many of the done were found on disk, or raised an error.
        seconds_left: estimate; None while nothing was trained yet.
        best: the most accurate admissible network so far.
    """

    activity: str
    iteration: int
    evaluated: int
    evaluations: int
    reused: int
    failed: int
    seconds_left: float | None
    best: Solution | None


@taking(OPTIONS)
def search(*, on_progress: Callable[[Progress], None] | None = None, **options: Unpack[Options]) -> SearchResult:
    """Return the admissible networks found that no other one found beats.

    Args:
        on_progress: called whenever something was done.
        options: those of `Options` in `configuration.py`. One that is not given, or None, has its default;
            only `max_macs` None is no limit.

    Returns:
        The front with its test figures, and how the search went.

    Raises:
        InputError: if an option breaks its rule, before anything is written; the message names it.
        WorkerDiedError: if a worker process died.
        KeyboardInterrupt: passed on after the workers were stopped; what was evaluated is on disk.

    Source: NACHOS, arXiv 2401.13330.
    """
    asked = resolved(options)
    configuration, evaluations, guarantee = configure(asked), asked["evaluations"], asked["guarantee"]
    known = None if asked["table"] is None else read_table(asked["table"])
    problem, folder = load_problem(configuration), Path(asked["out"])
    if known is not None:
        problem = replace(problem, table=known.identity(problem))
    with create_or_open(folder, problem.identity()) as run:
        longer = 0 if known is not None or configuration.rules.ruled else asked["finalists"]
        loop = _Loop(problem, run, folder, evaluations, longer, guarantee, on_progress or _silent)
        if known is not None:
            return loop.run_to_end(TableAnswers(known, problem))
        load_dataset = partial(load, configuration.data, configuration.standardise, configuration.validation)
        backbones = folder / "backbones"
        settings, processes = configuration.settings(), min(asked["workers"], evaluations)
        with Workers(processes, problem.coder, load_dataset, settings, backbones) as pool:
            return loop.run_to_end(pool)


def _silent(_: Progress) -> None:
    """Show nothing."""


class _Loop:
    """The state of one search: its archive, and what has been counted on the way."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        folder: Path,
        evaluations: int,
        finalists: int,
        guarantee: float | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.problem, self.run, self.folder = problem, run, folder
        self.evaluations, self.finalists, self.guarantee = evaluations, finalists, guarantee
        self.configuration = configuration = problem.configuration
        self.archive = Archive(problem)
        # A backbone may cost more than the budget as long as exits are to follow, by which most samples leave: so
        # none is ruled out, though surrogates and parents are judged by the budget like everywhere else.
        limits = configuration.acting_limits
        searched = replace(limits, max_macs=None) if configuration.rules.placed else limits
        self.static = StaticCheck(problem.coder, searched)
        largest = largest_costs(problem.coder)
        scale = largest.worst_macs, largest.params
        self.features = aiming.Features(problem.coder.upper, configuration.features == "costs", scale)
        self.log_odds: list[Floats] = []  # of the evaluations in the archive, in their order
        self.on_progress = on_progress
        self.iteration = self.reused = self.trained = 0
        self.expected = evaluations + finalists
        self.started = time.monotonic()

    def run_to_end(self, pool: Workers | TableAnswers) -> SearchResult:
        """Run the method until the evaluations are used up, nothing new is left, or nothing improves."""
        configuration = self.configuration
        rules = configuration.rules
        until = min(configuration.backbones, self.evaluations) if rules.placed else self.evaluations
        kind = configuration.start if rules.guided else "random"
        activity = f"training the {kind} start (a first run compiles the kernels, too)"
        first = self.first_candidates(until)
        self.expected = len(first) if rules.ruled else self.expected
        self.evaluate(first, pool, activity)
        best, stale = self.archive.hypervolume(self.archive.points), 0
        while len(self.archive) < until and stale < configuration.patience and rules.guided:
            self.iteration += 1
            rng = seeded(self.seed, "iteration", (self.iteration,))
            chosen = self.next_candidates(configuration.batch, rng, pool)
            if not chosen:
                break
            # Chosen whole and then cut: with more evaluations the same ones come first.
            chosen = chosen[: until - len(self.archive)]
            self.evaluate([*map(Trial, chosen)], pool, f"training the choice of iteration {self.iteration}")
            now = self.archive.hypervolume(self.archive.points)
            best, stale = (now, 0) if now > best else (best, stale + 1)
        if rules.placed:
            self.place_exits(pool)
        finalists = [Trial(genome, LONG) for genome in self.archive.best_together(self.finalists)]
        self.evaluate(finalists, pool, "training the best networks for longer")
        return result_of(
            self.archive,
            self.problem,
            self.folder,
            reused=self.reused,
            inadmissible=self.static.inadmissible,
            guarantee=self.guarantee,
        )

    def first_candidates(self, most: int) -> list[Trial]:
        """Return at most `most` trials to begin with: all there are to be, for a method that is not guided."""
        rng, start, rules = seeded(self.seed, "start", ()), self.configuration.start, self.configuration.rules
        if rules.ruled:
            return ruled_trials(rule_genomes(self.static)[-rules.ruled :], most)
        count = min(self.configuration.initial, most) if rules.guided else most
        if start == "random" or not rules.guided:
            return [*map(Trial, random_genomes(self.static, count, rng))]
        if start == "rule":
            by_hand = [*rule_genomes(self.static), *filling_genomes(self.static, self.archive.budgets, rng)]
            if by_hand:
                near = neighbour_genomes(self.static, self.configuration.initial, rng, by_hand)
                return [*map(Trial, dict.fromkeys([*by_hand, *near]))][:count]
        return [*map(Trial, spread_genomes(self.static, self.configuration.initial, rng))][:count]

    def place_exits(self, pool: Workers | TableAnswers) -> None:
        """Spend the evaluations that are left on exits placed by hand on the backbones evaluated so far."""
        check = StaticCheck(replace(self.problem.coder, static=False), self.configuration.acting_limits)
        placed = place_by_hand(check.coder, check, list(self.archive.evaluations))
        chosen = list(islice(placed, self.evaluations - len(self.archive)))
        self.evaluate([*map(Trial, chosen)], pool, "training exits placed by hand on the best backbones")

    @property
    def seed(self) -> int:
        return self.configuration.seed

    def evaluate(self, trials: Sequence[Trial], pool: Workers | TableAnswers, activity: str) -> None:
        """Evaluate `trials` and append them to the archive, in their own order whoever is done first."""
        found = {trial: known for trial in trials if (known := self.stored(trial)) is not None}
        self.reused += len(found)
        missing = [trial for trial in trials if trial not in found]
        self.tell(activity, found.values())
        for evaluated in pool.evaluate(missing):
            self.run.write(trial_key(evaluated.trial), to_record(evaluated))
            found[evaluated.trial] = evaluated
            self.trained += evaluated.effort
            self.tell(activity, found.values())
        for trial in trials:
            self.archive.add(found[trial])

    def stored(self, trial: Trial) -> Evaluation | Failure | None:
        """Return the evaluation on disk, or None: a damaged file counts as missing and is written again."""
        try:
            record = self.run.read(trial_key(trial))
        except StoreError:
            return None
        return None if record is None else from_record(record)

    def tell(self, activity: str, pending: Iterable[Evaluation | Failure]) -> None:
        """Report progress; `pending` are evaluations done but not yet in the archive."""
        done = [*self.archive.evaluations, *self.archive.failures, *pending]
        elapsed = time.monotonic() - self.started
        ahead = self.evaluations + LONG * self.finalists - sum(found.effort for found in done)
        left = elapsed / self.trained * max(ahead, 0) if self.trained else None
        seen = Archive(
            self.problem, [replace(found, curve=()) if isinstance(found, Evaluation) else found for found in done]
        )
        front = seen.front(seen.admissible())
        self.on_progress(
            Progress(
                activity,
                self.iteration,
                len(done),
                self.expected,
                self.reused,
                len(seen.failures),
                left,
                solution_of(0, front[0], self.configuration.limits) if front else None,
            )
        )

    def next_candidates(self, wanted: int, rng: np.random.Generator, pool: Workers | TableAnswers) -> list[Genome]:
        """Return up to `wanted` new genomes: surrogates, NSGA-II on them, an even choice from its population."""
        self.tell(f"fitting surrogates and running NSGA-II, iteration {self.iteration}", ())
        known = self.archive.genomes()
        if len(self.archive.evaluations) < 2:
            return random_genomes(self.static, wanted, rng, known)
        aim = self.aim(rng, pool.starmap)
        population = self.search_surrogates(aim, rng)
        admissible = population[self.static.population(population)[1]]
        candidates = [genome for genome in dict.fromkeys(map(as_genome, admissible)) if genome not in known]
        candidates += random_genomes(self.static, wanted - len(candidates), rng, known | set(candidates))
        if len(candidates) <= wanted:
            return candidates
        genomes = np.array(candidates)
        return [candidates[index] for index in aim.choose(genomes, self.static.population(genomes)[0], wanted)]

    def aim(self, rng: np.random.Generator, starmap: aiming.StarMap) -> aiming.Aim:
        """Return what to optimise next, its surrogates fitted on the archive."""
        configuration, evaluated = self.configuration, self.archive.evaluations
        genomes = np.array([found.genome for found in evaluated])
        costs, _ = self.static.population(genomes)
        named = configuration.surrogate
        surrogates = aiming.SURROGATES if named == "switching" else (aiming.BY_NAME[named],)
        if configuration.aims == "ends":
            ends = [np.array(target) for target in zip(*map(aiming.ends_of, evaluated), strict=True)]
            predictor = aiming.Predictor.fit(self.features, genomes, costs, ends, rng, surrogates, starmap)
            front = self.archive.leading(limited=configuration.rules.limited)
            fewest = np.array([found.reach()[1] for found in front])
            return aiming.Ends(predictor, configuration.acting_limits, fewest)
        labels = self.problem.dataset.validation.labels
        for found in evaluated[len(self.log_odds) :]:
            self.log_odds.append(aiming.log_odds_at_shares(found, labels))
        log_odds = list(np.array(self.log_odds).T)
        predictor = aiming.Predictor.fit(self.features, genomes, costs, log_odds, rng, surrogates, starmap)
        budgets, best = np.array(self.archive.budgets), np.array(self.archive.reached())
        return aiming.Budgets(predictor, budgets, best, configuration.acting_limits.min_accuracy)

    def search_surrogates(self, aim: aiming.Aim, rng: np.random.Generator) -> IntArray:
        """Return the final population of NSGA-II on the surrogates, canonical genomes (n, length)."""
        coder, limits = self.problem.coder, self.configuration.acting_limits

        def predicted(genomes: Floats) -> tuple[Floats, Floats]:
            rows = coder.canonical(genomes.astype(np.int64))
            return aim.predict(rows, *self.static.population(rows))

        ranking = None
        if self.configuration.constraints == "adaptive-penalty" and limits.max_macs is not None:
            ranking = aiming.AdaptivePenalty(limits.max_macs)
        leading = self.archive.leading(limited=self.configuration.rules.limited)
        result = minimize(
            predicted,
            lower=np.zeros(coder.length),
            upper=coder.upper,
            integer=True,
            n_objectives=aim.objectives,
            n_constraints=aim.constraints,
            population=self.configuration.population,
            generations=self.configuration.generations,
            seed=rng,
            initial=np.array([found.genome for found in leading[: self.configuration.population]]),
            crossover="two-point",
            mutation_eta=1.0,
            canonical=lambda genomes: coder.canonical(genomes.astype(np.int64)),
            ranking=ranking,
        )
        return coder.canonical(result.population_X.astype(np.int64))
