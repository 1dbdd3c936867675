"""Evaluate one genome: decode, train, choose thresholds, measure on every split.

An Evaluation depends on its trial and the run's configuration alone, never on when, where or beside what it was
computed: (run seed, backbone genes) seed the backbone, (run seed, canonical genome) the exits.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.autograd import count_macs
from nachos_min.data import Dataset, Split
from nachos_min.eenn.confidence import LEARNED, Confidence, fit_softmax
from nachos_min.eenn.inference import exit_answers, predict
from nachos_min.eenn.losses import Budget
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe, lengthened
from nachos_min.eenn.threshold_search import best_thresholds, grid_repair, threshold_curve
from nachos_min.eenn.thresholds import ExitTables, Figures, OperatingPoint, PolicyTables, by_class, spent
from nachos_min.eenn.training import train_backbone, train_deep, train_exits
from nachos_min.files import check_folder, replacing
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluation import SPLITS, Evaluation, Point, Trial
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.records import HUGE, TEXT
from nachos_min.nas.steps import Step, Steps
from nachos_min.store import StoreError
from nachos_min.store.schema import Rule, check
from nachos_min.store.values import decode, encode

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BYTES = 1 << 28  # of all stored backbones; one of space tiny has 90 kB, one of ofa-mbv3 some 10 MB
THRESHOLDS = {"exact": best_thresholds, "grid-repair": grid_repair}


class DivergenceError(ArithmeticError):
    """Training left weights that are not finite: the network's answers would mean nothing."""


class ExecutionError(RuntimeError):
    """Counted and executed multiplications, or stored and repeated figures, disagree: a defect, never ignored."""


class Backbones:
    """Trained backbones of one run, which candidates that differ only in their exits share.

    The first phase of training depends on the backbone's genes alone, which seed its weights and the order of
    samples. Workers share a folder, made when first needed, with one sealed record a backbone. One that cannot be
    written is trained again, and so is one that is damaged or another's. The folder may be deleted at any time.

    Attributes:
        told: called with a sentence about each file that is damaged.
    """

    def __init__(self, folder: Path, of: str = "") -> None:
        """Use a `folder`; `of` is what training depends on besides the genes."""
        self._folder, self._of = folder, of
        self.told: Callable[[str], None] = warnings.warn

    def find(self, genes: Sequence[int], like: Array, epochs: int) -> tuple[Array, list[float]] | None:
        """Return `EarlyExitNetwork.backbone_state` and the losses of the backbone trained for `genes`, or None.

        The weights are `like` others in shape and type, the losses one an epoch, and all are finite.
        """
        file = self._file(genes)
        if not os.path.lexists(file):
            return None
        finite = partial(Rule, least=-HUGE, most=HUGE)
        table = {
            "of": {"run": TEXT, "genes": Rule("whole", (len(genes),))},
            "weights": finite(str(like.dtype), like.shape),
            "losses": finite("float64", (epochs,)),
        }
        try:
            found = decode(file)
            check(found, table, {}, f"{file} is damaged: ")
            if found["of"] != self._name(genes):
                raise StoreError(f"{file} is damaged: it must be the backbone of its name, got another")
        except StoreError as damage:
            self.told(f"{damage}; this backbone is trained again")
            return None
        return found["weights"], found["losses"].tolist()

    def keep(self, genes: Sequence[int], weights: Array, losses: Sequence[float]) -> None:
        """Store a trained backbone, in place of a damaged one, unless the folder is full."""
        record = {"of": self._name(genes), "weights": weights, "losses": np.array(losses)}
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            check_folder(self._folder)
            kept = 0
            for other in self._folder.iterdir():
                with suppress(FileNotFoundError):  # another worker's, which has got its name meanwhile
                    kept += other.lstat().st_size
            if kept + weights.nbytes < MOST_BYTES:
                with replacing(self._file(genes), links=False) as written, open(written, "xb") as stream:
                    stream.write(encode(record))

    def _name(self, genes: Sequence[int]) -> dict[str, Any]:
        return {"run": self._of, "genes": tuple(map(int, genes))}

    def _file(self, genes: Sequence[int]) -> Path:
        return self._folder / f"{sha256(repr(list(map(int, genes))).encode()).hexdigest()}.h5"


def seeded(seed: int, purpose: str, genes: Sequence[int]) -> np.random.Generator:
    """Return the generator for `purpose`, always the same for the same run `seed` and `genes`."""
    return np.random.default_rng([seed, *purpose.encode(), *genes])


def build(coder: GenomeCoder, genome: Genome, seed: int) -> EarlyExitNetwork:
    """Return the untrained network of `genome` with the weights that run `seed` gives it."""
    backbone = seeded(seed, "backbone weights", coder.backbone_genes(genome))
    return EarlyExitNetwork(coder.decode(genome), backbone, seeded(seed, "exit weights", genome))


def evaluate(
    coder: GenomeCoder,
    dataset: Dataset,
    acting: Configuration,
    trial: Trial,
    backbones: Backbones | None = None,
    told: Callable[[Step], None] | None = None,
) -> Evaluation:
    """Return the evaluation of a `trial`, equal to the last bit for equal arguments on the same machine.

    The trial's genome is canonical and statically admissible, and `acting` is the run's `Configuration.acting`.
    `backbones`, those trained before in this run, do not change the result. `told` is called at the start, after
    each epoch, and before and after a kernel is compiled.

    Raises:
        DivergenceError: if a training phase leaves a weight that is not finite.
        ExecutionError: if the multiplications executed are not those counted, or early-stopping inference on
            validation does not reproduce the figures that the thresholds were chosen by.
    """
    own = acting
    if trial.repeat:
        own = replace(own, seed=int(np.random.SeedSequence([acting.seed, trial.repeat]).generate_state(1)[0]))
    if trial.effort > 1:
        own = replace(own, recipe=lengthened(acting.recipe, trial.effort, len(dataset.train)))
    with Steps(trial, own.recipe.passes(len(dataset.train)), told) as steps:
        network, losses = train(coder, dataset, own, trial.genome, backbones if own is acting else None, steps)
    costs = static_costs(network.architecture)
    splits = {name: as_seen(split, network) for name, split in dataset.splits.items() if name in SPLITS}
    answers = {name: exit_answers(network, split.images) for name, split in splits.items()}
    labels = {name: split.labels for name, split in splits.items()}
    softmax = partial(fit_softmax, answers["validation"].logits, labels["validation"])
    confidence, tables, points = choose(
        lambda name, confidence: answers[name].tables(confidence), labels, softmax, costs, acting
    )
    thresholds, promised = points[0].thresholds, points[0].validation
    how = thresholds, confidence, costs
    executed = {name: measure(network, split, *how, balanced=acting.balanced) for name, split in splits.items()}
    if executed["validation"] != promised:
        raise ExecutionError(f"thresholds promised {promised}, inference gave {executed['validation']}")
    return Evaluation(
        trial=trial,
        exits=network.architecture.exit_stages,
        costs=costs,
        points=(Point(thresholds, **executed), *points[1:]),
        confidence=confidence,
        tables=tables["validation"],
        losses=losses,
        weights=network.state(),
        on_test=tables["test"],
    )


def train(
    coder: GenomeCoder,
    dataset: Dataset,
    acting: Configuration,
    genome: Genome,
    backbones: Backbones | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[EarlyExitNetwork, tuple[float, ...]]:
    """Return the trained network of a canonical `genome`, and the mean loss of each epoch; or DivergenceError.

    `told` is called with the number of epochs done, after each.
    """
    network = build(coder, genome, acting.seed)
    split, recipe = as_seen(dataset.train, network), acting.recipe
    budget = Budget(static_costs(network.architecture).exit_costs, acting.limits.max_macs)
    order = seeded(acting.seed, "exits order", genome)
    if isinstance(recipe, DeepRecipe):
        losses = train_deep(network, split.images, split.labels, budget, recipe, order, told)
        _check_finite(network, "the network")
        return network, tuple(losses)
    genes = coder.backbone_genes(genome)
    found = None
    if backbones is not None:
        found = backbones.find(genes, network.backbone_state(), recipe.backbone_epochs)
    if found is not None:
        weights, first = found
        network.load_backbone_state(weights)
        told(len(first))
    else:
        rng = seeded(acting.seed, "backbone order", genes)
        first = train_backbone(network, split.images, split.labels, recipe, rng, told)
        _check_finite(network, "the backbone")
        if backbones is not None:
            backbones.keep(genes, network.backbone_state(), first)
    losses = train_exits(
        network, split.images, split.labels, budget, recipe, order, lambda epoch: told(len(first) + epoch)
    )
    _check_finite(network, "the exits")
    return network, (*first, *losses)


def choose(
    tables_of: Callable[[str, Confidence], ExitTables],
    labels: Mapping[str, Array],
    softmax: Callable[[], Confidence],
    costs: StaticCosts,
    acting: Configuration,
) -> tuple[Confidence, dict[str, ExitTables], tuple[Point, ...]]:
    """Return the confidence chosen on the split `validation`, each split's tables, and the points of `Evaluation`.

    `tables_of` gives the answers of all exits on a split under a confidence, `labels` are of each split, `softmax`
    returns the softmax confidence fitted on validation, and `acting` is the run's `Configuration.acting`.
    """
    early, tables = len(costs.exit_costs) > 1, cache(tables_of)

    @cache
    def policy(name: str, confidence: Confidence) -> PolicyTables:
        return tables(name, confidence).policy_tables(labels[name], costs.exit_costs, balanced=acting.balanced)

    @cache
    def curve(confidence: Confidence) -> tuple[OperatingPoint, ...]:
        """Return the non-dominated points within the MACs limit, of any accuracy."""
        split = policy("validation", confidence)
        return threshold_curve(split, replace(acting.limits.on(split), least_correct=0))

    def area(confidence: Confidence) -> float:
        found = [(1 - point.figures.metric, point.figures.average_macs) for point in curve(confidence)]
        return hypervolume(np.array(found), (1.0, costs.worst_macs)) if found else 0.0

    if acting.confidence == "learned" or not early:
        confidence = LEARNED
    elif acting.confidence == "softmax":
        confidence = softmax()
    else:
        confidence = max((softmax(), LEARNED), key=area)
    split = policy("validation", confidence)
    limits = acting.limits.on(split)
    chosen = [THRESHOLDS[acting.thresholds](split, limits)]
    if acting.points == "curve" and early:
        chosen += [point for point in curve(confidence) if limits.admit(point.figures)]
    points = [
        Point(
            each.thresholds,
            each.figures,
            **{name: policy(name, confidence).figures(each.thresholds) for name in labels if name != "validation"},
        )
        for each in chosen
    ]
    return confidence, {name: tables(name, confidence) for name in labels}, tuple(points)


def as_seen(split: Split, network: EarlyExitNetwork) -> Split:
    """Return `split` with images as the `network` takes them: resized when the space fixes the resolution."""
    return replace(split, images=split.images.at(network.architecture.input_shape[:2]))


def measure(
    network: EarlyExitNetwork,
    split: Split,
    thresholds: tuple[float, ...],
    confidence: Confidence,
    costs: StaticCosts,
    *,
    balanced: bool = False,
) -> Figures:
    """Return the figures of `network` on `split`, run with early stopping; `balanced`: with those of each class.

    ExecutionError if the executed MACs are not sum_i n_i cost_i, to the last integer.
    """
    with count_macs() as counter:
        answer = predict(network, split.images, thresholds, confidence)
    counts = answer.exit_counts(len(thresholds))
    counted = spent(counts, costs.exit_costs)
    if counter.total != counted:
        raise ExecutionError(f"executed {counter.total} MACs, counted {counted} for exit counts {counts}")
    right = answer.labels == split.labels
    classes = by_class(split.labels, right) if balanced else ()
    return Figures(int(right.sum()), len(split), counts, counted, *classes)


def _check_finite(network: EarlyExitNetwork, phase: str) -> None:
    """Raise DivergenceError if a weight is not finite. Pooling and ReLU can hide a NaN from the answers."""
    for name, weight in network.state().items():
        if not np.isfinite(weight).all():
            raise DivergenceError(f"training {phase} diverged: {name} must be finite")
