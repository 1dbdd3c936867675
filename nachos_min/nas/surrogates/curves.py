"""The surrogates of a candidate's whole curve: its least error within any budget of MACs, without training it.

A network may let every sample leave at its first exit, or carry all to its last. Between these two costs, both
known exactly, its error falls as it spends. Surrogates predict the error at fixed shares of this range. What a
share costs differs from network to network; what it brings differs little, so that few examples suffice.

    log-odds of the error within budget b = linear between the predictions at SHARES,
    at the share (b - cheapest) / (worst - cheapest) of the candidate itself

Read `switching.py` and `eenn/threshold_search.py` first; `nas/aims.py` searches on them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nachos_min.eenn.threshold_search import threshold_curve
from nachos_min.eenn.thresholds import SplitLimits
from nachos_min.nas.evaluate import Evaluation
from nachos_min.nas.populations import PopulationCosts
from nachos_min.nas.surrogates.objectives import Features, Floats, IntArray, StarMap
from nachos_min.nas.surrogates.surrogate import Surrogate
from nachos_min.nas.surrogates.switching import SURROGATES, Switched, adaptive_switching

SHARES = (0.0, 0.1, 0.3, 1.0)  # a curve is steep where it begins


def log_odds_at_shares(evaluation: Evaluation, labels: IntArray) -> Floats:
    """Return the log-odds of the least error within each of SHARES of the range of costs, float64 (shares,).

    The limits have no say in it: a candidate without any admissible point teaches as much as others.

    Args:
        evaluation: with its tables of all exits.
        labels: int64 (N,), right classes of the split that the tables are of.

    Returns:
        log((wrong + 1/2) / (right + 1/2)), which is finite even if all or none are right.
    """
    costs = evaluation.costs
    policy = evaluation.tables.policy_tables(labels, costs.exit_costs)
    curve = [point.figures for point in reversed(threshold_curve(policy, SplitLimits(0, None)))]
    allowed = len(labels) * (costs.cheapest + np.array(SHARES) * (costs.worst_macs - costs.cheapest))
    within = np.searchsorted([point.total_macs for point in curve], allowed, side="right") - 1
    right = np.array([point.correct for point in curve])[within]
    return np.log((len(labels) - right + 0.5) / (right + 0.5))


@dataclass(frozen=True)
class Curves:
    """Cheap predictions of the error within budgets, fitted on the archive.

    Attributes:
        features: what they see of a genome.
        models: one for each of SHARES.
    """

    features: Features
    models: tuple[Switched, ...]

    @classmethod
    def fit(
        cls,
        features: Features,
        genomes: IntArray,
        costs: PopulationCosts,
        log_odds: Floats,
        rng: np.random.Generator,
        starmap: StarMap = itertools.starmap,
        surrogates: Sequence[Surrogate] = SURROGATES,
    ) -> "Curves":
        """Return surrogates chosen by adaptive switching and fitted on n evaluated candidates.

        Args:
            features: what they see of a genome.
            genomes: int64 (n, length), n >= 2.
            costs: of the genomes.
            log_odds: float64 (n, shares), `log_odds_at_shares` of each.
            rng: gives each surrogate a stream of its own.
            starmap: calls a function with each of some arguments; `Workers.starmap` fits side by side.
            surrogates: those to choose from.
        """
        X = features(genomes, costs)
        targets = zip(log_odds.T, rng.spawn(len(SHARES)), strict=True)
        return cls(features, tuple(starmap(adaptive_switching, [(X, y, own, surrogates) for y, own in targets])))

    def log_odds(self, genomes: IntArray, costs: PopulationCosts, budgets: Floats) -> tuple[Floats, Floats]:
        """Return the predicted log-odds of the least error of n genomes within each budget, and their deviation.

        Args:
            genomes: int64 (n, length).
            costs: of the genomes.
            budgets: float64 (b,), average MACs.

        Returns:
            float64 (n, b) twice: inf where even the cheapest exit exceeds the budget; and the root mean square of
            what the surrogates missed out of fold, noise of training included.
        """
        cheapest, worst = costs.cheapest[:, None].astype(np.float64), costs.worst_macs[:, None].astype(np.float64)
        share = np.clip((budgets - cheapest) / np.maximum(worst - cheapest, 1.0), 0.0, 1.0)
        near = [np.interp(share, SHARES, unit) for unit in np.eye(len(SHARES))]  # weights that add up to 1
        X = self.features(genomes, costs)
        predicted = sum(
            weight * each.model.predict(X)[:, None] for weight, each in zip(near, self.models, strict=True)
        )
        missed = sum(weight * each.missed for weight, each in zip(near, self.models, strict=True))
        return np.where(budgets >= cheapest, predicted, np.inf), np.asarray(missed)
