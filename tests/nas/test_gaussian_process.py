"""The Gaussian process: held against its closed form, numeric derivatives and what must hold of any process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.nas.surrogates import GaussianProcess
from nachos_min.nas.surrogates.gaussian_process import conditioned, log_likelihood, most_probable

Array = np.ndarray
shapes = {"n": st.integers(2, 40), "genes": st.integers(1, 12), "seed": st.integers(0, 1000)}


def points(n: int, genes: int, seed: int) -> tuple[Array, Array]:
    """Genes of three values, one of them constant and one a copy, points that coincide; noisy values."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (n, genes)) / 2
    X[:, 0], X[:, -1], X[-1] = 0.5, X[:, genes // 2], X[0]
    return X, X.sum(axis=1) + rng.normal(size=n)


def kernel(A: Array, B: Array, length: float) -> Array:
    """Matern 5/2 by the definition, pair by pair."""
    r = np.sqrt(5) * np.array([[np.linalg.norm(a - b) for b in B] for a in A]) / length
    return (1 + r + r**2 / 3) * np.exp(-r)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(**shapes, length=st.floats(0.1, 10), noise=st.floats(1e-2, 10))
def test_it_is_the_closed_form(n: int, genes: int, seed: int, length: float, noise: float) -> None:
    X, y = points(n, genes, seed)
    new = np.random.default_rng(seed).random((5, genes))
    model, centred = conditioned(X, y, length, noise), y - y.mean()
    A, k = kernel(X, X, length) + noise * np.eye(n), kernel(new, X, length)
    signal = centred @ np.linalg.solve(A, centred) / n
    assert (model.signal, model.noise) == (pytest.approx(signal), pytest.approx(signal * noise))
    np.testing.assert_allclose(model.predict(new), y.mean() + k @ np.linalg.solve(A, centred), atol=1e-8)
    distances = ((X[:, None] - X) ** 2).sum(axis=2)
    value, _ = log_likelihood(distances, centred, np.log([length, noise]))
    covariance = signal * A
    expected = -(centred @ np.linalg.solve(covariance, centred) + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2
    assert value == pytest.approx(expected)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(**shapes, log_length=st.floats(-2, 3), log_noise=st.floats(-4, 3))
def test_the_gradient_of_the_likelihood(n: int, genes: int, seed: int, log_length: float, log_noise: float) -> None:
    X, y = points(n, genes, seed)
    distances, z = ((X[:, None] - X) ** 2).sum(axis=2), y - y.mean()
    at, step = np.array([log_length, log_noise]), 1e-5
    _, gradient = log_likelihood(distances, z, at)
    for axis, slope in zip(np.eye(2) * step, gradient, strict=True):
        above, below = (log_likelihood(distances, z, at + sign * axis)[0] for sign in (1, -1))
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5)


def test_without_noise_it_meets_the_points() -> None:
    X = np.random.default_rng(0).random((30, 3))
    y = np.sin(3 * X[:, 0]) + X[:, 1]
    model = conditioned(X, y, 1.0, 1e-10)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-5)
    fitted = most_probable(X, y)
    assert np.std(fitted.predict(X) - y) < 0.02 * np.std(y)
    assert fitted.noise < 1e-3 * fitted.signal


def test_noise_is_told_from_signal() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((150, 2))
    model = most_probable(X, 2 * np.sin(4 * X[:, 0]) + rng.normal(0, 0.5, 150))
    assert np.sqrt(model.noise) == pytest.approx(0.5, rel=0.2)
    chance = most_probable(X, rng.normal(size=150))
    assert np.std(chance.predict(X)) < 0.2


@settings(max_examples=30, derandomize=True, deadline=None)
@given(**shapes)
def test_far_away_it_returns_to_the_mean(n: int, genes: int, seed: int) -> None:
    X, y = points(n, genes, seed)
    model = GaussianProcess().fit(X, y, np.random.default_rng(0))
    far = np.full((2, genes), 1e5)
    np.testing.assert_allclose(model.predict(far), y.mean(), atol=1e-9)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(**shapes)
def test_the_order_of_points_and_genes_does_not_matter(n: int, genes: int, seed: int) -> None:
    X, y = points(n, genes, seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n), rng.permutation(genes)
    new = rng.random((5, genes))
    first, second = most_probable(X, y), most_probable(X[rows][:, columns], y[rows])
    np.testing.assert_allclose(second.predict(new[:, columns]), first.predict(new), atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 200])
def test_equal_values_are_predicted(n: int) -> None:
    X, _ = points(n, 4, 0)
    model = GaussianProcess().fit(X, np.full(n, 0.1), np.random.default_rng(0))
    np.testing.assert_allclose(model.predict(X + 1), 0.1)


def test_another_number_of_genes_is_refused() -> None:
    model = most_probable(*points(5, 4, 0))
    with pytest.raises(ValueError, match=r"X must be \(m, 4\), the genes .* got shape \(5, 3\)"):
        model.predict(np.zeros((5, 3)))
