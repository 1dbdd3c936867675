"""First candidates: distinct, admissible, and spread over the costs when that is asked for."""

import numpy as np
import pytest

from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.sampling import cost_features, random_genomes, spread_genomes
from nachos_min.nas.space import load_space
from nachos_min.nas.surrogates.objectives import Features

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 10)


@pytest.fixture
def check() -> StaticCheck:
    return StaticCheck(CODER, Limits(30_000, 0.9))


def nearest(check: StaticCheck, genomes: list[tuple[int, ...]]) -> float:
    """The smallest distance of two genomes in their costs."""
    features = cost_features(check.population(np.array(genomes))[0])
    distance = ((features[:, None] - features) ** 2).sum(axis=2)
    return float(np.sqrt(distance[~np.eye(len(genomes), dtype=bool)].min()))


@pytest.mark.parametrize("sample", [random_genomes, spread_genomes])
def test_genomes_are_distinct_and_admissible(sample, check: StaticCheck) -> None:
    genomes = sample(check, 40, np.random.default_rng(0))
    assert len(set(genomes)) == 40
    assert check.population(np.array(genomes))[1].all()
    assert genomes == sample(check, 40, np.random.default_rng(0))


def test_spread_genomes_are_farther_apart(check: StaticCheck) -> None:
    for seed in range(3):
        spread = spread_genomes(check, 20, np.random.default_rng(seed))
        drawn = random_genomes(check, 20, np.random.default_rng(seed))
        assert nearest(check, spread) > 2 * nearest(check, drawn)


def test_each_is_the_farthest_from_those_before(check: StaticCheck) -> None:
    gaps = [nearest(check, spread_genomes(check, 16, np.random.default_rng(1))[:k]) for k in range(2, 17)]
    assert gaps == sorted(gaps, reverse=True)


def test_a_sample_knows_what_is_not_wanted_and_when_to_give_up(check: StaticCheck) -> None:
    first = random_genomes(check, 5, np.random.default_rng(0))
    assert not set(first) & set(random_genomes(check, 5, np.random.default_rng(0), seen=first))
    nothing = StaticCheck(CODER, Limits(1, 0.9))
    assert random_genomes(nothing, 3, np.random.default_rng(0)) == []
    assert spread_genomes(nothing, 3, np.random.default_rng(0)) == []


def test_features_are_genes_and_if_wanted_exact_costs(check: StaticCheck) -> None:
    genomes = np.array(random_genomes(check, 9, np.random.default_rng(2)))
    costs, _ = check.population(genomes)
    genes = Features(CODER.upper)(genomes, costs)
    assert (genes == genomes / np.maximum(CODER.upper, 1)).all()
    both = Features(CODER.upper, costs=True, scale=(100_000, 5_000))(genomes, costs)
    assert (both[:, : CODER.length] == genes).all()
    assert (both[:, CODER.length : -1] == costs.exit_costs / 100_000).all()
    assert (both[:, -1] == costs.params / 5_000).all()
