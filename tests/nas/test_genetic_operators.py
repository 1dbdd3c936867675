"""The operators draw what they say: bounds, whole numbers, and the distributions of their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.errors import InputError
from nachos_min.nas.operators import Domain, polynomial_mutation, sample, sbx, tournament, two_point_crossover

DRAWS = 40_000
TOLERANCE = 5 * 0.5 / DRAWS**0.5  # five standard errors of a share, at most


def shares(values, of):
    return np.array([np.mean(values == each) for each in of])


def mutate(X, domain, seed, *, probability=1.0, eta=20.0):
    return polynomial_mutation(X, domain, np.random.default_rng(seed), probability=probability, eta=eta)


@st.composite
def domains(draw):
    """Mixed domains with fixed variables, negative and large bounds."""
    variables = draw(st.integers(1, 6))
    lower = [draw(st.integers(-50, 50)) for _ in range(variables)]
    upper = [low + draw(st.sampled_from([0, 1, 2, 7, 1000])) for low in lower]
    return Domain(lower, upper, [draw(st.booleans()) for _ in range(variables)])


@given(domains(), st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 20.0, 300.0]))
def test_every_operator_stays_in_bounds_and_whole_and_leaves_parents_alone(domain, seed, eta):
    rng = np.random.default_rng(seed)
    A, B = sample(20, domain, rng), sample(20, domain, rng)
    before = A.copy(), B.copy()
    mutant = polynomial_mutation(A, domain, rng, probability=1.0, eta=eta)
    crossed = *sbx(A, B, domain, rng, eta=eta), *two_point_crossover(A, B, domain, rng)
    for child in sbx(A, A, domain, rng, probability=1.0):  # equal parents have equal children, without a warning
        np.testing.assert_array_equal(child, A)
    for X in (A, *crossed, mutant, polynomial_mutation(A, domain, rng, probability=0.7, eta=eta)):
        assert X.shape == (20, domain.variables)
        assert ((domain.lower <= X) & (domain.upper >= X)).all()
        assert (X[:, domain.integer] % 1 == 0).all()
    free_integer, fixed = domain.integer & (domain.lower < domain.upper), domain.lower == domain.upper
    assert (mutant[:, free_integer] != A[:, free_integer]).all()
    np.testing.assert_array_equal(mutant[:, fixed], A[:, fixed])
    np.testing.assert_array_equal((A, B), before)


def test_samples_are_uniform_and_fill_every_slice_of_every_variable_once():
    rng = np.random.default_rng(0)
    X = np.vstack([sample(8, Domain([-2], [2], True), rng) for _ in range(DRAWS // 8)])
    np.testing.assert_allclose(shares(X, range(-2, 3)), 0.2, atol=TOLERANCE)
    X = sample(10, Domain([0, -5, 0], [1, 5, 9], [False, False, True]), np.random.default_rng(1))
    for share in (X[:, 0], (X[:, 1] + 5) / 10, X[:, 2] / 10):
        np.testing.assert_array_equal(np.sort(np.floor(share * 10 + 1e-9)), np.arange(10))
    assert len({tuple(np.argsort(column)) for column in X.T}) == 3  # slices go together at random
    assert sample(0, Domain([0], [1]), np.random.default_rng(0)).shape == (0, 1)


def test_tournaments_prefer_rank_then_crowding():
    rank, crowding = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, np.inf, 3.0])
    first, second = tournament(rank, crowding, 4000, np.random.default_rng(0))
    wins = np.bincount(np.concatenate([first, second]), minlength=4) / 8000
    np.testing.assert_allclose(wins, [1 / 3, 1 / 2, 1 / 6, 0], atol=0.02)
    assert (first != second).mean() > 0.99


@pytest.mark.parametrize("eta", [0.0, 1.0, 5.0])
def test_integer_mutation_is_real_mutation_rounded_and_drawn_again(eta):
    """The derivation in the docstring: rejection sampling with the real operator on the cells."""
    for value in (0.0, 1.0, 4.0):
        start = np.full((DRAWS, 1), value)
        mutant = mutate(start, Domain([0], [4], True), 3, eta=eta)
        rounded = np.rint(mutate(np.tile(start, (5, 1)), Domain([-0.5], [4.5]), 4, eta=eta))
        drawn_again = rounded[rounded != value]
        tolerance = 5 * 0.5 * (1 / DRAWS + 1 / len(drawn_again)) ** 0.5
        np.testing.assert_allclose(shares(mutant, range(5)), shares(drawn_again, range(5)), atol=tolerance)


def test_real_mutation_has_the_polynomial_distribution():
    """From the middle, P(step < t) on one side is (1 - (1 - t)**(eta + 1)) / (1 - (1 - d)**(eta + 1)), d = 1/2."""
    eta, mutant = 20.0, mutate(np.full((DRAWS, 1), 0.5), Domain([0], [1]), 5)
    for t in (0.01, 0.03, 0.1):
        expected = (1 - (1 - t) ** (eta + 1)) / (1 - 0.5 ** (eta + 1))
        assert np.mean(np.abs(mutant - 0.5) < t) == pytest.approx(expected, abs=TOLERANCE)
    assert np.mean(mutant > 0.5) == pytest.approx(0.5, abs=TOLERANCE)


def test_mutation_probability_is_per_gene():
    X, domain = np.full((DRAWS // 10, 10), 0.5), Domain([0] * 10, [1] * 10)
    for probability, expected in ((0.3, 0.3), (None, 0.1)):
        mutant = mutate(X, domain, 6, probability=probability)
        assert np.mean(mutant != X) == pytest.approx(expected, abs=TOLERANCE)


def test_sbx_spreads_children_as_defined():
    """Far from the bounds, P(spread <= 1) = 1/2 and P(spread <= s) = s**(eta + 1) / 2 for s <= 1."""
    A, B = np.full((DRAWS, 1), -1.0), np.full((DRAWS, 1), 1.0)
    first, second = sbx(A, B, Domain([-1e6], [1e6]), np.random.default_rng(7), probability=1.0, eta=2.0)
    spread = np.abs(first - second)[first != A] / 2
    np.testing.assert_allclose(first + second, 0.0, atol=1e-6)  # the mean of the parents is kept
    for s, expected in ((0.5, 0.0625), (1.0, 0.5), (2.0, 0.9375)):
        assert np.mean(spread <= s) == pytest.approx(expected, abs=2 * TOLERANCE)


def test_sbx_crosses_each_variable_of_a_crossed_pair_half_the_time():
    A, B = np.full((DRAWS, 2), -1.0), np.full((DRAWS, 2), 1.0)
    first, _ = sbx(A, B, Domain([-9] * 2, [9] * 2), np.random.default_rng(8), probability=0.6, eta=15.0)
    crossed = first != A
    np.testing.assert_allclose(crossed.mean(axis=0), 0.3, atol=TOLERANCE)
    assert np.mean(crossed.any(axis=1)) == pytest.approx(0.6 * 0.75, abs=TOLERANCE)
    assert np.mean(first[crossed] > 0) == pytest.approx(0.5, abs=2 * TOLERANCE)  # either child gets either value


def test_integer_sbx_is_symmetric_and_reaches_both_ends():
    A, B = np.full((DRAWS, 1), 2.0), np.full((DRAWS, 1), 4.0)
    children = np.vstack(sbx(A, B, Domain([0], [6], True), np.random.default_rng(9), probability=1.0, eta=0.5))
    found = shares(children, range(7))
    assert (found > 0).all()
    np.testing.assert_allclose(found, found[::-1], atol=2 * TOLERANCE)


def test_two_point_exchanges_one_segment_of_the_ring_evenly():
    A, B, domain = np.zeros((DRAWS, 6)), np.ones((DRAWS, 6)), Domain([0] * 6, [1] * 6)
    first, second = two_point_crossover(A, B, domain, np.random.default_rng(10), probability=0.9)
    np.testing.assert_array_equal(first + second, 1.0)
    changes = (first != np.roll(first, 1, axis=1)).sum(axis=1)
    assert set(changes.tolist()) == {0, 2}  # two cuts on the ring, or none
    assert np.mean(changes == 2) == pytest.approx(0.9, abs=TOLERANCE)
    np.testing.assert_allclose(first.mean(axis=0), 0.45, atol=TOLERANCE)
    for n, expected in ((2, {(0.0, 1.0), (1.0, 0.0)}), (1, {(0.0,)})):
        A, B, domain = np.zeros((200, n)), np.ones((200, n)), Domain([0] * n, [1] * n)
        first, _ = two_point_crossover(A, B, domain, np.random.default_rng(0), probability=1.0)
        assert set(map(tuple, first.tolist())) == expected


@pytest.mark.parametrize(
    ("lower", "upper", "integer", "message"),
    [
        ([0, 0], [1], False, "lower and upper must be lists of the same length >= 1, got shapes"),
        *((none, none, False, "lower and upper") for none in ([], 0)),
        ([0, 0], [1, 1], [True], "integer must be a bool or 2 bools, got"),
        ([0, 0], [1, 1], [0, 1], "integer must be a bool"),
        ([2], [1], False, r"bounds must be finite with lower <= upper, got \[2.0, 1.0\] for variable 0"),
        ([0, np.nan], [1, 1], False, "bounds must be finite .* for variable 1"),
        ([0], [np.inf], False, "bounds must be finite"),
        ([0.5], [2], True, r"integer bounds must be whole and below 2\*\*53, got \[0.5, 2.0\] for variable 0"),
        ([0], [2.0**53], True, "integer bounds must be whole"),
    ],
)
def test_a_domain_is_checked(lower, upper, integer, message):
    with pytest.raises(InputError, match=message):
        Domain(lower, upper, integer)
