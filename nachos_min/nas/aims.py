"""What a search optimises on the surrogates, and which candidates it then trains.

A candidate stands for a curve of accuracy against MACs, and a front takes the best of all curves.

    ends       minimise the least error and the fewest MACs of a candidate, which no thresholds give together;
               choose candidates evenly spread in MACs (the paper's way)
    budgets    minimise the least errors within three budgets; choose candidates by expected gain

Left out: the loop (`nachos.py`), which fits either to the archive in every iteration.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from nachos_min.eenn.threshold_search import threshold_curve
from nachos_min.eenn.thresholds import SplitLimits
from nachos_min.nas.evaluation import Evaluation
from nachos_min.nas.genome import IntArray
from nachos_min.nas.limits import Limits
from nachos_min.nas.populations import Bools, PopulationCosts
from nachos_min.nas.surrogates.mlp import MLP
from nachos_min.nas.surrogates.regression_trees import RegressionTrees
from nachos_min.nas.surrogates.smooth import RBF, GaussianProcess
from nachos_min.nas.surrogates.surrogate import Floats, Surrogate, Switched, adaptive_switching

Models = tuple[Switched, ...]

# Switching chooses one of three. The Gaussian process is no candidate: with few points, cross-validation errs.
SURROGATES: tuple[Surrogate, ...] = (RBF(), RegressionTrees(), MLP())
BY_NAME = {surrogate.name: surrogate for surrogate in (*SURROGATES, GaussianProcess())}

GENES_BESIDE_COSTS = 0.2  # costs say more than genes: a gene's range weighs as much as costs that differ by half

SHARES = (0.0, 0.1, 0.3, 1.0)  # of the range of a network's costs; a curve is steep where it begins

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # expectations under the normal distribution as sums


@dataclass(frozen=True)
class Features:
    """What surrogates see of a genome, as numbers of order 1: its genes, of largest values `upper`.

    With `costs` there are also decimal logarithms of `PopulationCosts.leaving` and of parameters, in units of
    `scale`, the MACs and parameters of a large network.
    """

    upper: IntArray
    costs: bool = False
    scale: tuple[int, int] = (1, 1)

    def __call__(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return float64 (n, features) of n genomes and their costs."""
        genes: Floats = genomes / np.maximum(self.upper, 1)
        if not self.costs:
            return genes
        counts = zip((costs.leaving, costs.params), self.scale, strict=True)
        logarithms = [np.log10(np.maximum(each.astype(np.float64), 1) / scale) for each, scale in counts]
        return np.column_stack([GENES_BESIDE_COSTS * genes, *logarithms])


def fit_models(
    X: Floats,
    targets: Sequence[Floats],
    rng: np.random.Generator,
    surrogates: Sequence[Surrogate],
    starmap: Callable[..., Iterable[Switched]] = itertools.starmap,
) -> Models:
    """Return a model of each target, float64 (n,), over features X (n, f); `Workers.starmap` fits in parallel."""
    streams = zip(targets, rng.spawn(len(targets)), strict=True)
    return tuple(starmap(adaptive_switching, [(X, y, own, surrogates) for y, own in streams]))


@dataclass(frozen=True)
class Ends:
    """The least error and the fewest MACs of a candidate; the MACs as a share of the exact cost_E."""

    objectives: ClassVar[int] = 2
    constraints: ClassVar[int] = 3
    features: Features
    models: Models  # of `ends_of`
    limits: Limits
    front: Floats  # fewest MACs of each candidate that the search goes on from

    def macs(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return the predicted average MACs of each genome, between its cheapest and its worst exact cost."""
        if len(genomes) == 0:
            return np.zeros(0)
        worst, cheapest = costs.worst_macs.astype(np.float64), costs.cheapest.astype(np.float64)
        share = self.models[1].model.predict(self.features(genomes, costs))
        return np.clip(share * worst, cheapest, worst)

    def predict(self, genomes: IntArray, costs: PopulationCosts, admissible: Bools) -> tuple[Floats, Floats]:
        """Return objectives and constraints, as `nsga2.minimize` takes them, of canonical genomes (n, length).

        `admissible` (n,) is by static count. The objectives of the others, which are never trained, are NaN: they
        rank last, and the largest violation is not theirs.
        """
        macs = np.full(len(genomes), np.nan)
        macs[admissible] = self.macs(genomes[admissible], costs[admissible])
        error = np.clip(self.models[0].model.predict(self.features(genomes, costs)), 0.0, 1.0)
        error[~admissible] = np.nan
        over = np.zeros(len(genomes)) if self.limits.max_macs is None else macs / self.limits.max_macs - 1
        short = error - (1 - self.limits.min_accuracy)
        return np.column_stack([error, macs]), np.column_stack([over, short, np.where(admissible, -1.0, 1.0)])

    def choose(self, genomes: IntArray, costs: PopulationCosts, wanted: int) -> list[int]:
        """Return indices of `wanted` genomes, evenly spread in MACs together with the front."""
        return choose_evenly(self.front, self.macs(genomes, costs), wanted)


def ends_of(evaluation: Evaluation) -> tuple[float, float]:
    """Return the least error, and the fewest average MACs as a share of cost_E."""
    error, macs = evaluation.ends
    return error, macs / evaluation.costs.worst_macs


@dataclass(frozen=True)
class Budgets:
    """The least errors within three budgets of average MACs.

    A network's error falls between the exact costs of its first and of its last exit. Models predict it at SHARES
    of this range. In between the log-odds of the error are linear. A budget b is at the share
    (b - cheapest) / (worst - cheapest).
    """

    objectives: ClassVar[int] = 3
    constraints: ClassVar[int] = 2
    features: Features
    models: Models  # of `log_odds_at_shares`
    budgets: Floats
    best: Floats  # the best accuracy known within each, or 0: of admissible networks, or of all if there are none
    min_accuracy: float

    def log_odds(self, genomes: IntArray, costs: PopulationCosts) -> tuple[Floats, Floats]:
        """Return log-odds of the least error of n genomes within b budgets, and their deviations, float64 (n, b).

        The log-odds are inf where the cheapest exit exceeds the budget. The deviations are what the models missed
        out of fold, noise of training included.
        """
        cheapest, worst = costs.cheapest[:, None].astype(np.float64), costs.worst_macs[:, None].astype(np.float64)
        share = np.clip((self.budgets - cheapest) / np.maximum(worst - cheapest, 1.0), 0.0, 1.0)
        near = [np.interp(share, SHARES, unit) for unit in np.eye(len(SHARES))]  # weights that add up to 1
        X = self.features(genomes, costs)
        predicted = sum(w * each.model.predict(X)[:, None] for w, each in zip(near, self.models, strict=True))
        missed = sum(w * each.missed for w, each in zip(near, self.models, strict=True))
        return np.where(self.budgets >= cheapest, predicted, np.inf), np.asarray(missed)

    def predict(self, genomes: IntArray, costs: PopulationCosts, admissible: Bools) -> tuple[Floats, Floats]:
        """Return objectives and constraints; arguments as of `Ends.predict`."""
        log_odds, _ = self.log_odds(genomes, costs)
        error = np.where(admissible[:, None], expit(log_odds), np.nan)
        short = error[:, -1] - (1 - self.min_accuracy)
        return error, np.column_stack([short, np.where(admissible, -1.0, 1.0)])

    def choose(self, genomes: IntArray, costs: PopulationCosts, wanted: int) -> list[int]:
        """Return indices of the `wanted` genomes that are expected to add most within the budgets."""
        return choose_by_gain(*self.log_odds(genomes, costs), self.best, self.min_accuracy, wanted)


Aim = Ends | Budgets


def log_odds_at_shares(evaluation: Evaluation, labels: IntArray, *, balanced: bool = False) -> Floats:
    """Return the log-odds of the least error within each of SHARES of the range of costs, float64 (shares,).

    log((wrong + 1/2) / (right + 1/2)) is finite even if all or none are right. `labels` (N,) are those of the split
    of the tables. No limits apply. `balanced`: right and wrong are N balanced accuracies and their complement.
    """
    costs = evaluation.costs
    policy = evaluation.tables.policy_tables(labels, costs.exit_costs, balanced=balanced)
    curve = [point.figures for point in reversed(threshold_curve(policy, SplitLimits(0, None)))]
    allowed = len(labels) * (costs.cheapest + np.array(SHARES) * (costs.worst_macs - costs.cheapest))
    within = np.searchsorted([point.total_macs for point in curve], allowed, side="right") - 1
    right = np.array([point.score * len(labels) / point.full_score for point in curve])[within]
    return np.log((len(labels) - right + 0.5) / (right + 0.5))


def choose_by_gain(log_odds: Floats, deviation: Floats, best: Floats, min_accuracy: float, k: int) -> list[int]:
    """Return which k candidates are expected to add most to the best accuracies within budgets, the best first.

        gain = mean over budgets of E[ max(0, accuracy - best) ],    accuracy below the limit counting as 0

    `log_odds` and `deviation` (c, budgets) are of normal distributions of the log-odds of each candidate's error.
    `best` (budgets,) rises to the prediction of each chosen candidate before the next is chosen.

    >>> log_odds = np.array([[-2.0, -2.0], [-4.0, -1.0], [-1.0, -1.0]])  # an error of .5 has log-odds 0
    >>> choose_by_gain(log_odds, np.full((3, 2), 0.1), np.array([0.8, 0.9]), 0.5, 2)
    [1, 0]

    Source:
        Expected improvement: J. Mockus, V. Tiesis, A. Zilinskas, 1978; believing the prediction for a batch:
        D. Ginsbourger, R. Le Riche, L. Carraro, 2010.
    """

    def counted(log_odds: Floats) -> Floats:
        accuracy = expit(-log_odds)
        return np.where(accuracy >= min_accuracy, accuracy, 0.0)

    outcomes = counted(log_odds[:, :, None] + deviation[:, :, None] * NODES)
    believed, chosen = counted(log_odds), list[int]()
    for _ in range(k):
        expected = np.maximum(outcomes - best[:, None], 0.0) @ (WEIGHTS / WEIGHTS.sum())
        gains = expected.mean(axis=1)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, believed[chosen[-1]])
    return chosen


def choose_evenly(front: Floats, candidates: Floats, k: int) -> list[int]:
    """Return which k candidates make the gaps between neighbours of the sorted union most equal.

    The best choice is a shortest path along the sorted values. A path stops at all values of the front and at k of
    the candidates, and a step costs its gap squared. The m = |front| + k - 1 gaps d have

        variance = sum d^2 / m - (sum d / m)^2

    Their sum depends on start and end: there is one table for each start, and the formula compares the ends.

    >>> front = np.array([0.0, 4.0, 8.0])
    >>> choose_evenly(front, np.array([0.5, 1.9, 7.8, 6.2]), 2)  # 1.9 and 6.2 halve both holes
    [1, 3]

    Source:
        `SubsetProblem` in the released code of NSGANetV2 and CNAS, by a genetic algorithm. The path: derived here.
    """
    if k == 0:
        return []
    values = np.concatenate([front, candidates])
    order = values.argsort(kind="stable")
    low, high = values[order[0]], values[order[-1]]
    line = (values[order] - low) / (high - low if high > low else 1.0)  # to [0, 1]: squares stay in range
    chosen = order[_walk(line, order < len(front), k)] - len(front)
    return sorted(chosen[chosen >= 0].tolist())


def _walk(line: Floats, forced: Bools, k: int) -> list[int]:
    """Return indices on the ascending `line` (p,): all `forced` ones and k others, of least variance of steps."""
    p = len(line)
    stops = np.flatnonzero(forced)
    first_end = stops[-1] if len(stops) else 0  # a walk may not end before the last forced stop,
    last_start = stops[0] if len(stops) else p - 1  # nor start after the first
    starts = np.arange(last_start + 1)

    # cost[s, j, c]: smallest sum of squared steps from starts[s] to stop j, c free stops made, j included.
    cost = np.full((len(starts), p, k + 1), np.inf)
    came_from = np.zeros(cost.shape, dtype=np.intp)
    cost[starts, starts, np.where(forced[starts], 0, 1)] = 0.0
    passed = 0  # the last forced stop before j: no step may jump over it
    for j in range(1, p):
        here = slice(0, k + 1) if forced[j] else slice(1, k + 1)
        before = slice(0, k + 1) if forced[j] else slice(0, k)
        step = (line[j] - line[passed:j]) ** 2
        through = cost[:, passed:j, before] + step[None, :, None]
        best = through.argmin(axis=1)
        arriving = np.take_along_axis(through, best[:, None], axis=1)[:, 0]
        shorter = arriving < cost[:, j, here]  # false only where j is the start itself
        cost[:, j, here] = np.where(shorter, arriving, cost[:, j, here])
        came_from[:, j, here] = best + passed
        if forced[j]:
            passed = j

    ends = np.arange(first_end, p)
    steps = max(len(stops) + k - 1, 1)
    variance = cost[:, ends, k] / steps - ((line[ends] - line[starts, None]) / steps) ** 2
    s, e = np.unravel_index(variance.argmin(), variance.shape)
    stop, free = int(ends[e]), k
    path = [stop]
    while stop != starts[s]:
        stop, free = int(came_from[s, stop, free]), free - int(not forced[stop])
        path.append(stop)
    return path


@dataclass(frozen=True)
class AdaptivePenalty:
    """Objectives for ranking in which breaking the MACs limit costs the more, the fewer keep it.

        F2 = phi M + (1 - phi) penalty max(0, M - M_max),    phi = share of the population with M <= M_max

    It replaces Deb's constrained domination. Genomes with a static count beyond the limits (last of G) rank last.

    Source: NACHOS, arXiv 2401.13330; the released code has `10*15` where 10^15 was meant.
    """

    max_macs: int
    penalty: float = 1e15

    def __call__(self, F: Floats, G: Floats) -> Floats:
        """Return the objectives (n, 2) to rank by, for objectives F (error, MACs) and violations G."""
        macs = F[:, 1]
        phi = float(np.mean(macs <= self.max_macs))
        second = phi * macs + (1 - phi) * self.penalty * np.maximum(0.0, macs - self.max_macs)
        ranked = np.column_stack([F[:, 0], second])
        ranked[G[:, -1] > 0] = np.finfo(np.float64).max
        return ranked
