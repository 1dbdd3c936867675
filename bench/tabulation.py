"""Train every member of a small space and keep what the networks say: how a tabular benchmark is made.

`nas/tabular.py` reads the file. The unit of work is one backbone with one seed: its members differ only in their
exits and share the first phase of training. Each unit is on disk as soon as it is done, in a run folder beside the
table, so the same command continues. Left out: spaces with more genomes than can be listed.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nachos_min.data import Dataset, Split
from nachos_min.eenn.confidence import Confidence, fit_softmax
from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.lowering import CostOrderError, static_costs
from nachos_min.eenn.recipes import as_record
from nachos_min.files import replacing
from nachos_min.nas.configuration import Configuration, Problem, load_problem
from nachos_min.nas.evaluate import Backbones, as_seen, train
from nachos_min.nas.genome import Genome, GenomeCoder, as_genome
from nachos_min.nas.records import key
from nachos_min.nas.result import Archive
from nachos_min.nas.tabular import FORMAT, VERSION, Table, TableError, failure_key
from nachos_min.nas.workers import Workers
from nachos_min.store import create_or_open
from nachos_min.store.values import encode

MOST_GENOMES = 1 << 20  # listed in seconds; far more than can be trained
Record = dict[str, Any]


def all_members(coder: GenomeCoder) -> dict[Genome, tuple[Genome, ...]]:
    """Return all members of the coder's space in ascending order, by their backbone genes.

    Members are canonical genomes whose exits can be ordered by cost; without an early exit it is a static
    network, which the search for EENNs is held against.

    Raises:
        TableError: if the space has more than MOST_GENOMES genomes.
    """
    genomes = int(np.prod(coder.upper + 1.0))
    if genomes > MOST_GENOMES:
        raise TableError(f"a space to tabulate must have at most {MOST_GENOMES:,} genomes, got {genomes:,}")
    rows = np.array(list(product(*(range(largest + 1) for largest in coder.upper.tolist()))), np.int64)
    found: dict[Genome, list[Genome]] = {}
    every = replace(coder, static=True)  # decodes both kinds
    for genome in map(as_genome, np.unique(coder.canonical(rows), axis=0)):
        try:
            every.decode(genome)
        except CostOrderError:
            continue
        found.setdefault(tuple(coder.backbone_genes(genome)), []).append(genome)
    return {genes: tuple(genomes) for genes, genomes in found.items()}


def archive_of(table: Table, problem: Problem) -> Archive:
    """Return all members as a search would have found them: its fronts and hypervolumes are the true ones.

    Members are the networks that a search of `problem` may return: with early exits, or static ones, or both
    where exits are placed on static ones. Each chooses its thresholds for the limits of `problem`.
    """
    coder, both = problem.coder, problem.configuration.rules.placed
    members = (genome for genome in table.members if both or coder.static != any(genome[coder.exit_genes]))
    return Archive(problem, (table.answer(problem, genome) for genome in members))


def train_members(configuration: Configuration, members: Sequence[Genome]) -> Record:
    """Return what the networks of `members`, which share a backbone, say once they are trained.

    Args:
        configuration: data, space, recipe; its seed, and its max_macs for the cost term.
        members: canonical genomes with the same backbone genes.

    Returns:
        Key of a genome -> its confidences h and predicted classes on each split and its losses, or its `reason`
        if training failed.
    """
    problem = _problem(replace(configuration, seed=0))
    dataset, coder, settings = problem.dataset, replace(problem.coder, static=True), configuration.acting
    record: Record = {"seed": settings.seed, "members": {}}
    with TemporaryDirectory(prefix="nachos_min-") as folder:
        backbones = Backbones(Path(folder))
        for genome in members:
            entry: Record = {"genome": genome}
            try:
                network, losses = train(coder, dataset, settings, genome, backbones)
                softmax: Confidence | None = None
                for name in _splits(dataset):
                    split: Split = as_seen(getattr(dataset, name), network)
                    answers = exit_answers(network, split.images)
                    softmax = softmax or fit_softmax(answers.logits, split.labels)  # on validation, the first
                    scores = {"confidence": answers.h, "softmax": answers.scores(softmax)}
                    entry[name] = scores | {"predicted": answers.predicted()}
                    entry["temperatures"] = np.array(softmax.temperatures)
                entry["losses"] = np.array(losses)
            except ArithmeticError as error:
                entry["reason"] = f"{type(error).__name__}: {error}"
            record["members"][key(genome)] = entry
    return record


@lru_cache(maxsize=1)
def _problem(configuration: Configuration) -> Problem:
    """Return the problem; a worker loads it once."""
    return load_problem(configuration)


def tabulate(
    configuration: Configuration,
    seeds: Sequence[int],
    out: Path,
    *,
    workers: int,
    versions: Mapping[str, Any],
    on_progress: Callable[[int, int, int], None],
    units: int | None = None,
) -> bool:
    """Return whether the table of all members is in the file `out`, having trained those not yet trained.

    Args:
        configuration: data, space, recipe, max_macs of the cost term; its seed is not read.
        seeds: run seeds, each of which trains every member once.
        out: the file; what is trained so far lies in the folder of that name with the ending .parts.
        workers: processes that train.
        versions: of what the table is made with, stored for its readers.
        on_progress: called with units found on disk, trained, and in all.
        units: stop after training this many backbones, the table unfinished; None for all.

    Raises:
        InputError: as `load_problem`; if the space is too large, or the folder holds parts of another table.
        WorkerDiedError: if a worker process died; what was trained is kept.
    """
    problem = load_problem(replace(configuration, seed=0))
    members = all_members(problem.coder)
    parts = out.with_suffix(".parts")
    wanted = {_unit(genes, seed): (genomes, seed) for seed in seeds for genes, genomes in members.items()}
    with create_or_open(parts, problem.identity() | {"seeds": list(seeds)}) as run:
        found = set(run.keys())
        missing = [unit for name, unit in wanted.items() if name not in found][:units]
        asked = [(replace(configuration, seed=seed), genomes) for genomes, seed in missing]
        with Workers(workers, problem.coder, problem.dataset, configuration.acting, parts) as pool:
            for done, record in enumerate(pool.as_done(train_members, asked), start=1):
                genomes = [entry["genome"] for entry in record["members"].values()]
                run.write(_unit(problem.coder.backbone_genes(genomes[0]), record["seed"]), record)
                on_progress(len(found), done, len(wanted))
        if set(run.keys()) != set(wanted):
            return False
        entries: dict[tuple[Genome, int], Record] = {}
        for name in wanted:
            record = run.read(name) or {}
            entries |= {(tuple(e["genome"]), record["seed"]): e for e in record["members"].values()}
        about = _about(problem, seeds) | {"made_with": dict(versions)}
        with replacing(out) as written:
            written.write_bytes(encode(_assembled(problem, about, entries), compress=True))
    shutil.rmtree(parts)
    return True


def _splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of the splits that members are asked about; temperatures are fitted on the first."""
    return ("validation", "test") if dataset.calibration is None else ("validation", "calibration", "test")


def _unit(genes: Sequence[int], seed: int) -> str:
    return f"{key(tuple(genes))}.{seed}"


def _assembled(problem: Problem, about: Record, entries: Mapping[tuple[Genome, int], Record]) -> Record:
    """Return the record of the whole table, made of the entry of every genome and seed."""
    seeds, coder = about["seeds"], replace(problem.coder, static=True)
    genomes = sorted({genome for genome, _ in entries})
    stages = len(problem.space.stages)
    epochs = max((len(entry.get("losses", ())) for entry in entries.values()), default=0)
    temperatures = np.full((len(genomes), len(seeds), stages - 1), np.nan)
    exit_costs = np.zeros((len(genomes), stages), np.int64)
    losses = np.full((len(genomes), len(seeds), epochs), np.nan)
    record: Record = {"format": FORMAT, "version": VERSION, "about": about}
    failures = {}
    splits = _splits(problem.dataset)
    for name in splits:
        labels = getattr(problem.dataset, name).labels
        shape = (len(genomes), len(seeds), len(labels), stages)
        kind = np.min_scalar_type(problem.dataset.classes - 1)
        record[name] = {
            "labels": labels.astype(kind),
            "confidence": np.full((*shape[:3], stages - 1), np.nan, np.float32),
            "softmax": np.full((*shape[:3], stages - 1), np.nan, np.float32),
            "predicted": np.zeros(shape, kind),
        }
    for place, genome in enumerate(genomes):
        architecture = coder.decode(genome)
        columns = [stage - 1 for stage in architecture.exit_stages]
        exit_costs[place, columns] = static_costs(architecture).exit_costs
        for training, seed in enumerate(seeds):
            entry = entries[genome, seed]
            if "reason" in entry:
                failures[failure_key(genome, seed)] = entry["reason"]
                continue
            losses[place, training] = entry["losses"]
            temperatures[place, training, columns[:-1]] = entry["temperatures"]
            for name in splits:
                for scores in ("confidence", "softmax"):
                    record[name][scores][place, training][:, columns[:-1]] = entry[name][scores]
                record[name]["predicted"][place, training][:, columns] = entry[name]["predicted"]
    table = {"genomes": np.array(genomes, np.int64), "exit_costs": exit_costs, "losses": losses}
    return record | table | {"temperatures": temperatures, "failures": failures}


def _about(problem: Problem, seeds: Sequence[int]) -> Record:
    """Return what was trained, and how."""
    configuration, identity = problem.configuration, problem.identity()
    return {
        "data": configuration.data,
        "data_content": identity["data_content"],
        "space": configuration.space,
        "space_content": identity["space_content"],
        "recipe": as_record(configuration.recipe),
        "standardise": configuration.standardise,
        "validation": configuration.validation,
        "max_macs": configuration.limits.max_macs,
        "seeds": list(seeds),
    }
