"""Evaluate one genome: decode, train, tune thresholds, measure on validation and test.

An Evaluation depends on the canonical genome and the settings of the run alone, never on when, where or beside what
it was computed: the backbone is seeded by (run seed, backbone genes), the exits by (run seed, whole genome).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from nachos_min.autograd import count_macs
from nachos_min.data import Dataset, Split, resize
from nachos_min.eenn.confidence import LEARNED, Confidence, fit_softmax
from nachos_min.eenn.inference import ExitTables, exit_answers, predict
from nachos_min.eenn.losses import Budget
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, Recipe, lengthened
from nachos_min.eenn.threshold_search import exact, grid_repair, threshold_curve
from nachos_min.eenn.thresholds import Figures, OperatingPoint, PolicyTables, spent
from nachos_min.eenn.training import train_backbone, train_deep, train_exits
from nachos_min.nas.backbones import Backbone, Backbones
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits

Array = np.ndarray[Any, np.dtype[Any]]

THRESHOLDS = {"exact": exact, "grid-repair": grid_repair}


class DivergenceError(ArithmeticError):
    """Training left weights that are not finite: the network's answers would mean nothing."""


class ExecutionError(RuntimeError):
    """Counted and executed multiplications, or stored and repeated figures, disagree: a defect, never ignored."""


@dataclass(frozen=True)
class Settings:
    """What every evaluation of a run depends on, besides its genome and the data.

    Attributes:
        seed: run seed.
        limits: limits of the run (the cost term and the thresholds aim at max_macs).
        thresholds: `exact` or `grid-repair`.
        recipe: how candidates are trained.
        points: `best`: the figures under the chosen thresholds; `curve`: those of all others worth having, too.
        confidence: `learned`, `softmax`, or `best`: the one of larger hypervolume on validation, for each network.
    """

    seed: int
    limits: Limits
    thresholds: str
    recipe: Recipe
    points: str = "best"
    confidence: str = "learned"


@dataclass(frozen=True)
class Trial:
    """One training of a genome.

    Attributes:
        genome: canonical genome.
        effort: how many times the epochs of the recipe, >= 1.
        repeat: 0, or the number of a repetition with another seed.
    """

    genome: Genome
    effort: int = 1
    repeat: int = 0


@dataclass(frozen=True)
class CurvePoint:
    """What a trained candidate does under other thresholds than the chosen ones; fields as of `Evaluation`.

    Both figures are looked up in the tables of all exits, which early-stopping inference repeats.
    """

    thresholds: tuple[float, ...]
    validation: Figures
    test: Figures
    calibration: Figures | None = None


@dataclass(frozen=True)
class Evaluation:
    """A trained candidate. Compared and stored by its canonical genome.

    Attributes:
        genome: canonical genome.
        exits: stage numbers (1-based) of the E exits, the final one last.
        thresholds: E thresholds on the cumulative confidence; the last is 0.
        costs: static counts.
        validation: the figures the search works with.
        test: the certificate: measured by early-stopping inference on the test split, which took no part in
            any choice.
        tables: tables of all exits on the validation split, from which the thresholds were chosen.
        losses: mean training loss of each epoch, all phases in order.
        weights: parameters and buffers by name.
        curve: the other admissible non-dominated choices of thresholds, when the settings ask for them.
        confidence: what the thresholds are thresholds of.
        calibration: what the same thresholds do to the calibration split; None without one.
        effort, repeat: as of `Trial`.
    """

    genome: Genome
    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    costs: StaticCosts
    validation: Figures
    test: Figures
    tables: ExitTables
    losses: tuple[float, ...]
    weights: dict[str, Array]
    curve: tuple[CurvePoint, ...] = ()
    confidence: Confidence = LEARNED
    calibration: Figures | None = None
    effort: int = 1
    repeat: int = 0

    @property
    def trial(self) -> Trial:
        """Return the training that gave it."""
        return Trial(self.genome, self.effort, self.repeat)

    def points(self) -> list["Evaluation"]:
        """Return this evaluation under its chosen thresholds and under those of each point of its curve."""
        others = [
            replace(
                self,
                thresholds=point.thresholds,
                validation=point.validation,
                test=point.test,
                calibration=point.calibration,
                curve=(),
            )
            for point in self.curve
        ]
        return [replace(self, curve=()), *others] if others else [self]

    @property
    def shown(self) -> Figures:
        """Return the figures that people see: those of the calibration split, if there is one."""
        return self.validation if self.calibration is None else self.calibration

    def reach(self) -> tuple[float, float]:
        """Return the least error and the fewest average MACs of all its points: both ends of the curve, if any."""
        measures = (self.validation, *(point.validation for point in self.curve))
        return min(1 - m.accuracy for m in measures), min(m.average_macs for m in measures)


@dataclass(frozen=True)
class Failure:
    """A training that raised an error; kept by its trial, so that it shifts no other figures."""

    genome: Genome
    reason: str
    effort: int = 1
    repeat: int = 0

    @property
    def trial(self) -> Trial:
        """Return the training that failed."""
        return Trial(self.genome, self.effort, self.repeat)


def seeded(seed: int, purpose: str, genes: Sequence[int]) -> np.random.Generator:
    """Return the generator for `purpose`, the same for the same run `seed` and `genes` wherever it is asked."""
    return np.random.default_rng([seed, *purpose.encode(), *genes])


def build(coder: GenomeCoder, genome: Genome, seed: int) -> EarlyExitNetwork:
    """Return the untrained network of `genome` with the weights that run `seed` gives it."""
    backbone = seeded(seed, "backbone weights", coder.backbone_genes(genome))
    return EarlyExitNetwork(coder.decode(genome), backbone, seeded(seed, "exit weights", genome))


def evaluate(
    coder: GenomeCoder, dataset: Dataset, settings: Settings, trial: Trial, backbones: Backbones | None = None
) -> Evaluation:
    """Return the evaluation of a `trial`: trained on train, tuned on validation, measured again on test.

    Args:
        coder: translates the genome.
        dataset: the three splits.
        settings: seed, limits, recipe.
        trial: its genome canonical and statically admissible.
        backbones: those that this run has trained before, if somebody keeps them; does not change the result.

    Returns:
        The Evaluation; equal to the last bit for equal arguments on the same machine.

    Raises:
        DivergenceError: if a training phase leaves a weight that is not finite.
        ExecutionError: if the multiplications executed are not those counted, or early-stopping inference on
            validation does not reproduce the figures that the thresholds were chosen by.
    """
    own = settings_of(settings, trial, len(dataset.train))
    network, losses = train(coder, dataset, own, trial.genome, backbones if own is settings else None)
    validation = as_seen(dataset.validation, network)
    costs = static_costs(network.architecture)
    answers = exit_answers(network, validation.images)
    softmax = partial(fit_softmax, answers.logits, validation.labels)
    confidence = choose_confidence(answers.tables, softmax, validation.labels, costs, settings)
    tables = answers.tables(confidence)
    policy = tables.policy_tables(validation.labels, costs.exit_costs)
    chosen = tune(policy, settings)
    repeated = measure(network, validation, chosen.thresholds, confidence, costs)
    if repeated != chosen.figures:
        raise ExecutionError(f"thresholds promised {chosen.figures}, inference gave {repeated}")

    others = {"test": dataset.test} | ({} if dataset.calibration is None else {"calibration": dataset.calibration})
    seen = {name: as_seen(split, network) for name, split in others.items()}

    def policy_of(name: str) -> PolicyTables:
        answers = exit_answers(network, seen[name].images).tables(confidence)
        return answers.policy_tables(seen[name].labels, costs.exit_costs)

    return Evaluation(
        genome=trial.genome,
        exits=network.architecture.exit_stages,
        thresholds=chosen.thresholds,
        costs=costs,
        validation=repeated,
        tables=tables,
        losses=losses,
        weights=network.state(),
        curve=operating_points(policy, seen, policy_of, settings),
        confidence=confidence,
        effort=trial.effort,
        repeat=trial.repeat,
        **{name: measure(network, split, chosen.thresholds, confidence, costs) for name, split in seen.items()},
    )


def settings_of(settings: Settings, trial: Trial, samples: int) -> Settings:
    """Return `settings` with the epochs and the seed of `trial`, for a training set of `samples`."""
    if trial.effort == 1 and trial.repeat == 0:
        return settings
    seed = settings.seed
    if trial.repeat:
        seed = int(np.random.SeedSequence([seed, trial.repeat]).generate_state(1)[0])
    return replace(settings, seed=seed, recipe=lengthened(settings.recipe, trial.effort, samples))


def train(
    coder: GenomeCoder, dataset: Dataset, settings: Settings, genome: Genome, backbones: Backbones | None = None
) -> tuple[EarlyExitNetwork, tuple[float, ...]]:
    """Return the trained network of a canonical `genome`, and the mean loss of each epoch, all phases in order.

    Args:
        coder: translates the genome.
        dataset: of which the training split is used.
        settings: seed, MACs limit of the cost term, recipe.
        genome: canonical.
        backbones: as for `evaluate`.

    Raises:
        DivergenceError: if a training phase leaves a weight that is not finite.
    """
    network = build(coder, genome, settings.seed)
    split, recipe = as_seen(dataset.train, network), settings.recipe
    budget = Budget(static_costs(network.architecture).exit_costs, settings.limits.max_macs)
    order = seeded(settings.seed, "exits order", genome)
    if isinstance(recipe, DeepRecipe):
        losses = train_deep(network, split.images, split.labels, budget, recipe, order)
        _check_finite(network, "the network")
        return network, tuple(losses)
    backbone = _backbone(network, split, settings.seed, recipe, coder.backbone_genes(genome), backbones)
    losses = train_exits(network, split.images, split.labels, budget, recipe, order)
    _check_finite(network, "the exits")
    return network, (*backbone.losses, *losses)


def _backbone(
    network: EarlyExitNetwork,
    split: Split,
    seed: int,
    recipe: PaperRecipe,
    genes: Sequence[int],
    backbones: Backbones | None,
) -> Backbone:
    """Return the trained backbone, which `network` has from then on: one known already, or trained here."""
    known = backbones.find(genes) if backbones is not None else None
    if known is not None:
        network.load_backbone_state(known.weights)
        return known
    losses = train_backbone(network, split.images, split.labels, recipe, seeded(seed, "backbone order", genes))
    _check_finite(network, "the backbone")
    trained = Backbone(network.backbone_state(), tuple(losses))
    if backbones is not None:
        backbones.keep(genes, trained)
    return trained


def choose_confidence(
    tables_of: Callable[[Confidence], ExitTables],
    softmax: Callable[[], Confidence],
    labels: Array,
    costs: StaticCosts,
    settings: Settings,
) -> Confidence:
    """Return the confidence that `settings` ask for; `best` is the one whose curve has the larger hypervolume.

    Args:
        tables_of: tables of the split to choose on, under a confidence.
        softmax: returns the softmax confidence, its temperatures fitted on that split.
        labels: of the split, int64 (N,).
        costs: static counts.
        settings: the run's.
    """
    if settings.confidence == "learned" or len(costs.exit_costs) == 1:
        return LEARNED
    if settings.confidence == "softmax":
        return softmax()

    def dominated(confidence: Confidence) -> float:
        policy = tables_of(confidence).policy_tables(labels, costs.exit_costs)
        points = threshold_curve(policy, Limits(settings.limits.max_macs, 0.0).on(len(labels)))
        figures = [(1 - point.figures.accuracy, point.figures.average_macs) for point in points]
        return hypervolume(np.array(figures), (1.0, costs.worst_macs)) if figures else 0.0

    return max((softmax(), LEARNED), key=dominated)


def tune(policy: PolicyTables, settings: Settings) -> OperatingPoint:
    """Return the thresholds that `settings` ask for, with what they do to the split of `policy`."""
    return THRESHOLDS[settings.thresholds](policy, settings.limits.on(policy.samples))


def operating_points(
    validation: PolicyTables,
    others: Iterable[str],
    policy_of: Callable[[str], PolicyTables],
    settings: Settings,
) -> tuple[CurvePoint, ...]:
    """Return the admissible, non-dominated choices of thresholds of a network, if `settings` want its curve.

    Args:
        validation: tables of the split that the thresholds are chosen on.
        others: splits on which each choice is measured again, `test` and perhaps `calibration`.
        policy_of: returns the tables of such a split; called if needed.
        settings: limits, and whether the curve is wanted.
    """
    if settings.points != "curve" or len(validation.costs) == 1:
        return ()
    points = threshold_curve(validation, settings.limits.on(validation.samples))
    found = {name: policy_of(name) for name in others}
    return tuple(
        CurvePoint(
            thresholds=point.thresholds,
            validation=point.figures,
            **{name: policy.figures(point.thresholds) for name, policy in found.items()},
        )
        for point in points
    )


def as_seen(split: Split, network: EarlyExitNetwork) -> Split:
    """Return `split` with images as the `network` takes them: resized when the space fixes the resolution."""
    height, width, _ = network.architecture.input_shape
    if split.images.shape[1:3] == (height, width):
        return split
    return replace(split, images=resize(split.images, height))  # a fixed resolution is a square


def measure(
    network: EarlyExitNetwork,
    split: Split,
    thresholds: tuple[float, ...],
    confidence: Confidence,
    costs: StaticCosts,
) -> Figures:
    """Return what `network` does on `split`, running it with early stopping and counting what is executed.

    Raises:
        ExecutionError: if the executed MACs are not sum_i n_i cost_i, to the last integer.
    """
    with count_macs() as counter:
        answer = predict(network, split.images, thresholds, confidence)
    counts = answer.exit_counts(len(thresholds))
    counted = spent(counts, costs.exit_costs)
    if counter.total != counted:
        raise ExecutionError(f"executed {counter.total} MACs, counted {counted} for exit counts {counts}")
    return Figures(int((answer.labels == split.labels).sum()), len(split.labels), counts, counted)


def _check_finite(network: EarlyExitNetwork, phase: str) -> None:
    """Raise DivergenceError if a weight is not finite. Pooling and ReLU can hide a NaN from the answers."""
    for name, weight in network.state().items():
        if not np.isfinite(weight).all():
            raise DivergenceError(f"training {phase} diverged: {name} must be finite")
