"""NACHOS: search backbone, exits and thresholds jointly under limits on accuracy and MACs.

This file is the loop, and reads like the method:

    archive <- random candidates, evaluated
    repeat:  fit surrogates on the archive: error, and average MACs
             NSGA-II on the surrogates, started from the archive's front
             choose new candidates from its population, evenly spread in MACs
             evaluate them (train, tune thresholds, count), add them to the archive

Read `evaluate.py` (what an evaluation is) before and `surrogates/objectives.py`, `nsga2.py`, `subset.py` after.
The loop is deterministic and cheap, and every evaluation is on disk as soon as it is done: a run is continued by
running it again and finding evaluations already there.

Source: Gambella, Pomponi, Scardapane and Roveri, "NACHOS: Neural Architecture Search for Hardware Constrained
Early Exit Neural Networks", arXiv 2401.13330.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.data import load
from nachos_min.nas.configuration import Configuration, Problem, check_count, load_problem
from nachos_min.nas.evaluate import Evaluation, Failure, seeded
from nachos_min.nas.genome import Genome, as_genome
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.penalty import AdaptivePenalty
from nachos_min.nas.records import from_record, key, to_record
from nachos_min.nas.result import Archive, SearchResult, Solution, result_of, solution_of
from nachos_min.nas.subset import choose_evenly
from nachos_min.nas.surrogates.objectives import Surrogates
from nachos_min.nas.workers import Workers
from nachos_min.store import Run, StoreError, create_or_open

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Draws without a hit after which a random sample gives up: a space in which fewer than one genome in some
# thousand is new and statically admissible is better served by other limits than by more draws.
_DRAWS = 3000


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


def search(
    *,
    data: str = "digits",
    space: str = "tiny",
    max_macs: int | None = 40_000,
    min_accuracy: float = 0.9,
    max_worst_macs: int | None = None,
    max_params: int | None = None,
    max_peak_bytes: int | None = None,
    evaluations: int = 200,
    seed: int = 0,
    constraints: str = "domination",
    thresholds: str = "exact",
    workers: int | None = None,
    out: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Return the admissible Pareto-optimal early-exit networks found.

    Args:
        data: name of a built-in data set, or path to one.
        space: name of a shipped search space, or path to a TOML file.
        max_macs: limit on average MACs per inference; None for no limit.
        min_accuracy: least accuracy on the validation split, in 0..1.
        max_worst_macs, max_params, max_peak_bytes: further limits, exact static counts; None for no limit.
        evaluations: candidates to train, those found in `out` included.
        seed: run seed, >= 0.
        constraints: `domination` or `adaptive-penalty`.
        thresholds: `exact` or `grid-repair`.
        workers: processes that train candidates; None for one per CPU. Does not change the result.
        out: folder of the run; None for `runs/<data>`. A run found there is continued.
        on_progress: called whenever something was done.

    Returns:
        The front with its certificates, and how the search went.

    Raises:
        InputError: if an option breaks its rule, before anything is written; the message names it.
        WorkerDiedError: if a worker process died.
        KeyboardInterrupt: passed on after the workers were stopped; what was evaluated is on disk.

    Source: NACHOS, arXiv 2401.13330.
    """
    limits = Limits(max_macs, min_accuracy, max_worst_macs, max_params, max_peak_bytes)
    configuration = Configuration(data, space, limits, seed, constraints, thresholds)
    check_count("evaluations", evaluations)
    count = check_count("workers", workers) if workers is not None else os.cpu_count() or 1
    problem = load_problem(configuration)
    folder = Path(out) if out is not None else Path("runs") / Path(data).stem
    with create_or_open(folder, problem.identity()) as run:
        loop = _Loop(problem, run, folder, evaluations, on_progress or _silent)
        load_dataset = partial(load, data)
        with Workers(min(count, evaluations), problem.coder, load_dataset, configuration.settings()) as pool:
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
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.problem, self.run, self.folder, self.evaluations = problem, run, folder, evaluations
        self.configuration = problem.configuration
        self.archive = Archive(problem)
        self.static = StaticCheck(problem.coder, problem.configuration.limits)
        self.on_progress = on_progress
        self.iteration = self.reused = self.trained = 0
        self.started = time.monotonic()

    def run_to_end(self, pool: Workers) -> SearchResult:
        """Run the method until the evaluations are used up, nothing new is left, or nothing improves."""
        configuration = self.configuration
        start = self.random_candidates(min(configuration.initial, self.evaluations), seeded(self.seed, "start", ()))
        self.evaluate(start, pool, "training the random start (a first run compiles the kernels, too)")
        best, stale = self.archive.hypervolume(self.archive.evaluations), 0
        while len(self.archive) < self.evaluations and stale < configuration.patience:
            self.iteration += 1
            rng = seeded(self.seed, "iteration", (self.iteration,))
            chosen = self.next_candidates(configuration.batch, rng, pool)
            if not chosen:
                break
            # Chosen whole and then cut: with more evaluations the same ones come first.
            chosen = chosen[: self.evaluations - len(self.archive)]
            self.evaluate(chosen, pool, f"training the choice of iteration {self.iteration}")
            now = self.archive.hypervolume(self.archive.evaluations)
            best, stale = (now, 0) if now > best else (best, stale + 1)
        return result_of(
            self.archive, self.problem, self.folder, reused=self.reused, inadmissible=self.static.inadmissible
        )

    @property
    def seed(self) -> int:
        return self.configuration.seed

    def evaluate(self, genomes: Sequence[Genome], pool: Workers, activity: str) -> None:
        """Evaluate `genomes` and append them to the archive, in their own order whoever is done first."""
        found = {genome: known for genome in genomes if (known := self.stored(genome)) is not None}
        self.reused += len(found)
        missing = [genome for genome in genomes if genome not in found]
        self.tell(activity, found.values())
        for evaluated in pool.evaluate(missing):
            self.run.write(key(evaluated.genome), to_record(evaluated))
            found[evaluated.genome] = evaluated
            self.trained += 1
            self.tell(activity, found.values())
        for genome in genomes:
            self.archive.add(found[genome])

    def stored(self, genome: Genome) -> Evaluation | Failure | None:
        """Return the evaluation on disk, or None: a damaged file counts as missing and is written again."""
        try:
            record = self.run.read(key(genome))
        except StoreError:
            return None
        return None if record is None else from_record(record)

    def tell(self, activity: str, pending: Iterable[Evaluation | Failure]) -> None:
        """Report progress; `pending` are evaluations done but not yet in the archive."""
        done = [*self.archive.evaluations, *self.archive.failures, *pending]
        elapsed = time.monotonic() - self.started
        left = elapsed / self.trained * (self.evaluations - len(done)) if self.trained else None
        seen = Archive(self.problem, done)
        front = seen.front(seen.admissible())
        self.on_progress(
            Progress(
                activity,
                self.iteration,
                len(done),
                self.evaluations,
                self.reused,
                len(seen.failures),
                left,
                solution_of(0, front[0]) if front else None,
            )
        )

    def random_candidates(self, wanted: int, rng: np.random.Generator, seen: Iterable[Genome] = ()) -> list[Genome]:
        """Return up to `wanted` distinct random genomes that are statically admissible and not in `seen`."""
        taken = set(seen)
        chosen: list[Genome] = []
        misses = 0  # since the last hit
        drawn = self.static.drawn(rng)
        while len(chosen) < wanted and misses < _DRAWS:
            genome, admissible = next(drawn)
            if genome in taken or not admissible:
                misses += 1
            else:
                misses = 0
                taken.add(genome)
                chosen.append(genome)
        return chosen

    def next_candidates(self, wanted: int, rng: np.random.Generator, pool: Workers) -> list[Genome]:
        """Return up to `wanted` new genomes: surrogates, NSGA-II on them, an even choice from its population."""
        self.tell(f"fitting surrogates and running NSGA-II, iteration {self.iteration}", ())
        known = self.archive.genomes()
        if len(self.archive.evaluations) < 2:
            return self.random_candidates(wanted, rng, known)
        surrogates = Surrogates.fit(self.problem.coder.upper, self.archive.evaluations, rng, pool.starmap)
        population = self.search_surrogates(surrogates, rng)
        admissible = population[self.static.population(population)[1]]
        candidates = [genome for genome in dict.fromkeys(map(as_genome, admissible)) if genome not in known]
        candidates += self.random_candidates(wanted - len(candidates), rng, known | set(candidates))
        if len(candidates) <= wanted:
            return candidates
        front = self.archive.front(self.archive.admissible()) or self.archive.front(self.archive.evaluations)
        genomes = np.array(candidates)
        macs = surrogates.macs(genomes, self.static.population(genomes)[0])
        spread = choose_evenly(self.archive.objectives(front)[:, 1], macs, wanted)
        return [candidates[index] for index in spread]

    def search_surrogates(self, surrogates: Surrogates, rng: np.random.Generator) -> IntArray:
        """Return the final population of NSGA-II on the surrogates, canonical genomes (n, length)."""
        coder, limits = self.problem.coder, self.configuration.limits

        def predicted(genomes: Floats) -> tuple[Floats, Floats]:
            rows = coder.canonical(genomes.astype(np.int64))
            costs, admissible = self.static.population(rows)
            # A genome that is never trained has no figures: NaN ranks it behind all others, and keeps it out
            # of the largest violation, by which those of the others are divided.
            macs = np.full(len(rows), np.nan)
            macs[admissible] = surrogates.macs(rows[admissible], costs[admissible])
            error = np.where(admissible, surrogates.error(rows), np.nan)
            over = np.zeros(len(rows)) if limits.max_macs is None else macs / limits.max_macs - 1
            short = error - (1 - limits.min_accuracy)
            return np.column_stack([error, macs]), np.column_stack([over, short, np.where(admissible, -1.0, 1.0)])

        ranking = None
        if self.configuration.constraints == "adaptive-penalty" and limits.max_macs is not None:
            ranking = AdaptivePenalty(limits.max_macs)
        front = self.archive.front(self.archive.admissible()) or self.archive.front(self.archive.evaluations)
        result = minimize(
            predicted,
            lower=np.zeros(coder.length),
            upper=coder.upper,
            integer=True,
            n_objectives=2,
            n_constraints=3,
            population=self.configuration.population,
            generations=self.configuration.generations,
            seed=rng,
            initial=np.array([found.genome for found in front[: self.configuration.population]]),
            crossover="two-point",
            crossover_probability=0.9,
            mutation_eta=1.0,
            canonical=lambda genomes: coder.canonical(genomes.astype(np.int64)),
            ranking=ranking,
        )
        return coder.canonical(result.population_X.astype(np.int64))
