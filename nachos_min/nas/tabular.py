"""A tabular benchmark: every member of a space trained beforehand, and evaluations answered from it.

`bench/tabulation.py` trains all members of a small space and stores each early exit's confidence and each exit's
class for every image. The same functions as after a training compute the rest: an answer is the evaluation that
training would give, to the last bit, without weights.

Members were trained with the table's `max_macs` in the cost term of the loss: a search with another limit chooses
thresholds for its own limit on those networks. Run seed s is answered from the (s mod n)-th of the table's n seeds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import starmap
from math import inf
from pathlib import Path
from time import time
from typing import Any, TypeVar

import numpy as np

from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import as_record
from nachos_min.eenn.thresholds import ExitTables
from nachos_min.errors import InputError
from nachos_min.files import read_file
from nachos_min.nas.configuration import AS_BEFORE, ConfigurationError, Problem
from nachos_min.nas.evaluate import choose
from nachos_min.nas.evaluation import SPLITS, Evaluation, Failure, Trial, cause_of
from nachos_min.nas.genome import Genome
from nachos_min.nas.records import HUGE, INDICES, LIMIT, ONE, TEXT, key
from nachos_min.store import StoreError
from nachos_min.store.schema import Rule, broken, check
from nachos_min.store.values import MOST_BYTES, decode

FORMAT, VERSION = "nachos_min table", 1

Array = np.ndarray[Any, np.dtype[Any]]
Answer = TypeVar("Answer")


PLAIN = Rule("plain values")
_TRAINED = "members", "trainings"
ABOUT = {
    **dict.fromkeys(("data", "data_content", "space", "standardise?", "validation?"), TEXT),
    "space_content": {"*": PLAIN},
    "recipe": {"*": PLAIN},
    "max_macs": LIMIT,
    "seeds": Rule("whole", ("trainings",), sequence=list),
    "*": PLAIN,  # with what it was made
}
FIELDS = {  # NaN stands where a member has no exit, or a training failed
    "format": TEXT,
    "version": ONE,
    "genomes": Rule("int64", ("members", "genes")),
    "exit_costs": Rule("int64", ("members", "stages")),
    "losses": Rule("float64", (*_TRAINED, "epochs"), least=-HUGE, most=HUGE, none=True),
    "temperatures?": Rule("float64", (*_TRAINED, "early"), least=1e-9, most=1e9, none=True),
    **{
        name + "?" * (name == "calibration"): {
            "labels": Rule(INDICES, (name,)),
            "predicted": Rule(INDICES, (*_TRAINED, name, "stages")),
            "confidence": Rule("float32", (*_TRAINED, name, "early"), most=1, none=True),
            "softmax?": Rule("float32", (*_TRAINED, name, "early"), most=1, none=True),
        }
        for name in SPLITS
    },
    "about": ABOUT,
    "failures": {"*": TEXT},
}


class TableError(InputError):
    """A table that cannot answer for a search."""


@dataclass(frozen=True, eq=False)
class SplitTable:
    """Answers of all T trainings of all n members on one split of N samples; S stages."""

    labels: Array  # right classes, (N,)
    confidence: Array  # h of the exit after each stage but the last, float32 (n, T, N, S-1); NaN without an exit
    predicted: Array  # class by the exit after each stage, (n, T, N, S); means nothing without an exit
    softmax: Array | None = None  # at the table's temperatures, the largest, as `confidence`; None in older tables

    def tables(self, member: int, training: int, stages: Sequence[int], confidence: Confidence) -> ExitTables:
        """Return the tables of the exits after `stages` (from 1, the last stage last) of one training."""
        columns = [stage - 1 for stage in stages]
        scores = self.confidence if confidence.temperatures is None else self.softmax
        assert scores is not None, "`Table.identity` has refused a table without softmax"
        early = scores[member, training][:, columns[:-1]]
        predicted = self.predicted[member, training][:, columns]
        return ExitTables(confidence.cumulative(early), predicted.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Table:
    """All members of a space, trained."""

    name: str  # of the file
    sha256: str  # of the file, in hexadecimal
    about: Mapping[str, Any]  # data, space, recipe, max_macs, seeds, and the versions it was made with
    members: Mapping[Genome, int]  # canonical genome -> its place in the arrays
    exit_costs: Array  # MACs of leaving after each stage, int64 (n, S); 0 without an exit
    splits: Mapping[str, SplitTable]  # validation, test, and calibration if there is one
    losses: Array  # mean training loss of each epoch, float64 (n, T, epochs)
    temperatures: Array | None  # of each early exit's softmax, float64 (n, T, S-1); None in older tables
    failures: Mapping[str, str]  # key of a genome and seed -> why that training failed

    def answer(self, problem: Problem, genome: Genome) -> Evaluation | Failure:
        """Return the evaluation of a canonical `genome` under the limits and the seed of `problem`.

        TableError if the table has no such member, or holds what no training gives.
        """
        if genome not in self.members:
            raise TableError(f"table {self.name} must hold every genome asked for, has none of {key(genome)}")
        member, training = self.members[genome], self.training(problem.configuration.seed)
        failed = self.failures.get(failure_key(genome, self.about["seeds"][training]))
        if failed is not None:
            return Failure(Trial(genome), failed, cause_of(failed))
        architecture = problem.coder.decode(genome)
        costs, exits = static_costs(architecture), architecture.exit_stages
        stored = tuple(self.exit_costs[member, [stage - 1 for stage in exits]].tolist())
        if stored != costs.exit_costs:
            rule = f"must have exit costs {costs.exit_costs} of {key(genome)}, as counted"
            raise TableError(f"table {self.name} {rule}, got {stored}")

        def whole(numbers: Array) -> Array:
            if not np.isfinite(numbers).all():
                raise TableError(f"table {self.name} must hold all numbers of {key(genome)}, got NaN")
            return numbers

        def said(split: str, confidence: Confidence) -> ExitTables:
            found = self.splits[split].tables(member, training, exits, confidence)
            if (most := int(found.predicted.max(initial=0))) >= problem.coder.classes:
                rule = f"must name one of {problem.coder.classes} classes for {key(genome)}"
                raise TableError(f"table {self.name} {rule}, got class {most}")
            return ExitTables(whole(found.confidence), found.predicted)

        def softmax() -> Confidence:
            early = [stage - 1 for stage in exits[:-1]]
            return Confidence(tuple(whole(np.asarray(self.temperatures)[member, training, early]).tolist()))

        labels = {name: split.labels for name, split in self.splits.items()}
        confidence, tables, points = choose(said, labels, softmax, costs, problem.configuration.acting)
        losses = tuple(whole(self.losses[member, training]).tolist())
        own = tables["validation"], losses
        return Evaluation(Trial(genome), exits, costs, points, confidence, *own, weights={}, on_test=tables["test"])

    def training(self, seed: int) -> int:
        """Return which training of each member answers for run `seed`."""
        return seed % len(self.about["seeds"])

    def identity(self, problem: Problem) -> dict[str, Any]:
        """Return what a run stores about its table; TableError if data, space or recipe are not of `problem`."""
        asked, configuration = problem.identity(), problem.configuration
        for field, what in (("data_content", "data set"), ("space_content", "space")):
            if self.about[field] != asked[field]:
                of, wanted = self.about[what.split()[0]], asked[what.split()[0]]
                raise TableError(f"table {self.name} must be of the {what} asked for, {wanted}, got one of {of}")
        shared = ("standardise", "validation")
        unnamed = {"name": "paper"}  # as older tables have it
        there = unnamed | self.about["recipe"] | {name: self.about.get(name, AS_BEFORE[name]) for name in shared}
        wanted = unnamed | as_record(configuration.acting.recipe)
        wanted |= {name: getattr(configuration, name) for name in shared}
        for field in (*wanted, *there):
            if wanted.get(field) != there.get(field):
                option = "recipe" if field == "name" else field
                rule = f"must be made with {option} {wanted.get(field)}, as the search asks for"
                raise TableError(f"table {self.name} {rule}, got {there.get(field)}")
        scores = [self.temperatures, *(split.softmax for split in self.splits.values())]
        if configuration.confidence != "learned" and any(each is None for each in scores):
            rule = f"must hold softmax scores for confidence {configuration.confidence}"
            raise TableError(f"table {self.name} {rule}, got none")
        return {
            "name": self.name,
            "sha256": self.sha256,
            "trained_with_max_macs": self.about["max_macs"],
            "trained_with_seed": self.about["seeds"][self.training(configuration.seed)],
        }


@dataclass(frozen=True)
class TableAnswers(AbstractContextManager["TableAnswers"]):
    """Stands in for `Workers`: a table answers for a problem that it has accepted."""

    table: Table
    problem: Problem

    def __exit__(self, *_: object) -> None: ...

    def evaluate(
        self, trials: Sequence[Trial], _told: object = None, until: float = inf
    ) -> Iterator[Evaluation | Failure]:
        """Yield the evaluation of each of `trials`, in their order; none at the time `until` or later."""
        return (self.table.answer(self.problem, trial.genome) for trial in trials if time() < until)

    def starmap(self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """Return `function(*each)` for each of `arguments`, in their order."""
        return list(starmap(function, arguments))


def answers_from(path: str | Path, problem: Problem) -> TableAnswers:
    """Return what answers `problem`, which then has the table's identity.

    InputError if there is no whole table at `path`, it is of another problem, or the method trains a network twice.
    """
    if problem.configuration.rules.ruled:
        named = problem.configuration.method
        raise ConfigurationError(f"method must be one that trains each network once with a table, got {named!r}")
    table = read_table(path)
    answering = replace(problem, table=table.identity(problem))
    labels = {name: split.labels for name, split in problem.data.splits.items() if name != "train"}
    same = labels.keys() == table.splits.keys() and all(
        np.array_equal(own, table.splits[name].labels) for name, own in labels.items()
    )
    if not same or table.exit_costs.shape[1] != len(problem.space.stages):
        raise TableError(f"table {table.name} must hold the labels of the data and all stages, got others")
    return TableAnswers(table, answering)


def failure_key(genome: Genome, seed: int) -> str:
    """Return the name of one training among a table's failures."""
    return f"{key(genome)} {seed}"


def read_table(path: str | Path) -> Table:
    """Return the table in a file; TableError if it cannot be read, is damaged, or is no table of this version."""
    path = Path(path)
    try:
        found = decode(path, given=True)
    except StoreError as error:
        raise TableError(f"table {error}") from None
    of, version = found.get("format"), found.get("version")
    if not isinstance(of, str) or of != FORMAT:
        raise TableError(f"table {path} is no table: its format must be {FORMAT!r}, got {of!r}")
    if not isinstance(version, int) or version != VERSION:
        raise TableError(f"table {path} must be of version {VERSION}, got {version!r}")
    try:
        _check(found)
    except StoreError as error:
        raise TableError(f"table {path} is damaged: {error}") from None
    return Table(
        name=path.name,
        sha256=sha256(read_file(path, MOST_BYTES)).hexdigest(),
        about=found["about"],
        members={tuple(genome): place for place, genome in enumerate(found["genomes"].tolist())},
        exit_costs=found["exit_costs"],
        splits={name: SplitTable(**found[name]) for name in SPLITS if name in found},
        losses=found["losses"],
        temperatures=found.get("temperatures"),
        failures=found["failures"],
    )


def _check(found: Mapping[str, Any]) -> None:
    """Raise a StoreError that names a field of a table and its rule if it breaks one."""
    sizes: dict[str, int] = {}
    check(found, FIELDS, sizes)
    if not sizes["trainings"] or sizes["early"] != sizes["stages"] - 1:
        rule = "of one training or more, and of all stages but the last"
        raise broken("confidence", rule, found["test"]["confidence"])
    if len({*map(tuple, found["genomes"].tolist())}) != len(found["genomes"]):
        raise broken("genomes", "all different", found["genomes"])
