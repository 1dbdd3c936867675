"""Surrogates: held against SciPy, brute force and themselves; and what cross-validation makes of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator
from scipy.spatial.distance import cdist
from scipy.stats import kendalltau

from nachos_min.nas.aims import MLP, RBF, SURROGATES, GaussianProcess, RegressionTrees
from nachos_min.nas.surrogates.regression_trees import grow
from nachos_min.nas.surrogates.smooth import conditioned, log_likelihood
from nachos_min.nas.surrogates.surrogate import Surrogate, adaptive_switching, deal_folds, kendall_tau, score

Array = np.ndarray

varied = settings(max_examples=40, derandomize=True, deadline=None)
each_surrogate = pytest.mark.parametrize("surrogate", [*SURROGATES, GaussianProcess()], ids=lambda s: s.name)


def rng_of(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def genomes(n: int, genes: int, seed: int) -> Array:
    """Genes of two to four values, one constant column and two collinear ones."""
    rng = rng_of(seed)
    values = rng.integers(2, 5, genes)
    X = rng.integers(0, values, (n, genes)) / (values - 1)
    X[:, 0] = 0
    X[:, 1] = 1 - X[:, 2]
    return X


def error_of(X: Array) -> Array:
    """A smooth, slightly bent function of the genes, unequal in their influence."""
    influence = np.linspace(1, 0.1, X.shape[1])
    return np.tanh((X - 0.5) @ influence) + 0.2 * X[:, 2] * X[:, 3]


@varied
@given(st.data(), st.integers(0, 12))
def test_kendall_tau_is_scipys(data: st.DataObject, n: int) -> None:
    few = st.lists(st.integers(0, 4), min_size=n, max_size=n).map(lambda v: np.array(v, dtype=float))
    a, b = data.draw(few), data.draw(few)
    expected = kendalltau(a, b).statistic if n and np.ptp(a) and np.ptp(b) else 0.0
    assert kendall_tau(a, b) == pytest.approx(expected, abs=1e-12)


def test_rbf_is_scipys_where_scipy_can() -> None:
    rng = rng_of()
    X, y, new = rng.random((40, 6)), rng.random(40), rng.random((20, 6))
    expected = RBFInterpolator(X, y, kernel="cubic", degree=1)(new)
    np.testing.assert_allclose(RBF().fit(X, y, rng).predict(new), expected, atol=1e-8)


@varied
@given(n=st.integers(1, 60), genes=st.integers(4, 50), seed=st.integers(0, 1000))
def test_rbf_meets_every_point(n: int, genes: int, seed: int) -> None:
    X, y = genomes(n, genes, seed), rng_of(seed).normal(size=n)
    same_point = np.all(X[:, None] == X, axis=2)
    expected = same_point @ y / same_point.sum(axis=1)
    np.testing.assert_allclose(RBF().fit(X, y, rng_of()).predict(X), expected, atol=1e-6)


@pytest.mark.parametrize("n", [5, 12, 40])
def test_rbf_continues_a_line_exactly(n: int) -> None:
    rng, X = rng_of(), np.zeros((n, 8))
    X[:, 3:5] = rng.random((n, 2))
    model, new = RBF().fit(X, 1 + 2 * X[:, 3] - X[:, 4], rng), rng.random((10, 8))
    np.testing.assert_allclose(model.predict(new), 1 + 2 * new[:, 3] - new[:, 4], atol=1e-8)


def spread(*parts: Array) -> float:
    """The sum of squared errors of the parts' means."""
    return sum(float(np.sum((part - part.mean()) ** 2)) for part in parts)


def best_split(codes: Array, y: Array, subset: Array, leaf: int) -> float:
    """The smallest spread that one split can leave, by trying all."""
    rights = [codes[:, gene] > cut for gene in subset for cut in range(codes[:, gene].max() + 1)]
    allowed = [right for right in rights if min(right.sum(), (~right).sum()) >= leaf]
    return min([spread(y), *(spread(y[right], y[~right]) for right in allowed)])


@varied
@given(seed=st.integers(0, 10_000), leaf=st.integers(1, 3))
def test_trees_split_best_at_every_node(seed: int, leaf: int) -> None:
    rng, (n, genes, trees) = rng_of(seed), (14, 5, 3)
    codes, y = rng.integers(0, 4, (n, genes)), rng.normal(size=n)
    copies = rng.multinomial(n, np.full(n, 1 / n), size=trees)
    subsets = rng.permuted(np.tile(np.arange(genes), (trees, 1)), axis=1)[:, :3]
    levels = grow(codes, y, copies, subsets, leaf)
    gene, cut, left, mean = (np.concatenate(column) for column in zip(*levels, strict=True))
    checked = 0
    for tree in range(trees):
        inside = {tree: np.repeat(np.arange(n), copies[tree])}  # node -> samples, with copies
        while inside:
            node, samples = inside.popitem()
            checked += 1
            assert mean[node] == pytest.approx(y[samples].mean(), abs=1e-12)
            best = best_split(codes[samples], y[samples], subsets[tree], leaf)
            if left[node] == node:
                assert best == pytest.approx(spread(y[samples]), abs=1e-9)
                continue
            assert gene[node] in subsets[tree]
            right = codes[samples, gene[node]] > cut[node]
            parts = {left[node]: samples[~right], left[node] + 1: samples[right]}
            assert all(len(part) >= leaf for part in parts.values())
            assert spread(*(y[part] for part in parts.values())) == pytest.approx(best, abs=1e-9)
            inside |= parts
    assert checked == len(mean)


def test_unlimited_trees_are_tables_of_their_bootstrap_samples() -> None:
    X, y = np.array([[a, b] for a in (0.0, 0.5, 1.0) for b in (0.0, 1.0)]), np.arange(6.0)
    predicted = RegressionTrees(trees=400, leaf=1, genes=1.0).fit(X, y, rng_of()).predict(X)
    assert np.all(np.diff(predicted) > 0)
    assert np.all((predicted >= 0) & (predicted <= 5))


def test_mlp_networks_side_by_side_are_networks_alone() -> None:
    X = genomes(30, 8, 0)
    y, subsets = error_of(X), rng_of(1).random((4, 30)) < 0.8
    together = MLP(steps=30).fit_each(X, y, subsets, rng_of(2))
    for subset, model in zip(subsets, together, strict=True):
        alone = MLP(steps=30).fit(X[subset], y[subset], rng_of(2))
        np.testing.assert_allclose(model.predict(X), alone.predict(X), atol=1e-3)


shapes = {"n": st.integers(2, 40), "genes": st.integers(3, 12), "seed": st.integers(0, 1000)}


def points(n: int, genes_: int, seed: int) -> tuple[Array, Array]:
    """Also points that coincide; noisy values."""
    X = genomes(n, genes_, seed)
    X[-1] = X[0]
    return X, X.sum(axis=1) + rng_of(seed).normal(size=n)


def matern(A: Array, B: Array, length: float) -> Array:
    r = np.sqrt(5) * cdist(A, B) / length
    return (1 + r + r**2 / 3) * np.exp(-r)


@varied
@given(**shapes, length=st.floats(0.1, 10), noise=st.floats(1e-2, 10))
def test_gp_is_the_closed_form(n: int, genes: int, seed: int, length: float, noise: float) -> None:
    X, y = points(n, genes, seed)
    new = rng_of(seed).random((5, genes))
    model, centred = conditioned(X, y, length, noise), y - y.mean()
    A, k = matern(X, X, length) + noise * np.eye(n), matern(new, X, length)
    signal = centred @ np.linalg.solve(A, centred) / n
    assert (model.signal, model.noise) == (pytest.approx(signal), pytest.approx(signal * noise))
    np.testing.assert_allclose(model.predict(new), y.mean() + k @ np.linalg.solve(A, centred), atol=1e-8)
    value, _ = log_likelihood(cdist(X, X) ** 2, centred, np.log([length, noise]))
    covariance = signal * A
    expected = -(centred @ np.linalg.solve(covariance, centred) + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2
    assert value == pytest.approx(expected)


@varied
@given(**shapes, log_length=st.floats(-2, 3), log_noise=st.floats(-4, 3))
def test_gp_gradient_of_the_likelihood(n: int, genes: int, seed: int, log_length: float, log_noise: float) -> None:
    X, y = points(n, genes, seed)
    distances, z = cdist(X, X) ** 2, y - y.mean()
    at, step = np.array([log_length, log_noise]), 1e-5
    _, gradient = log_likelihood(distances, z, at)
    for axis, slope in zip(np.eye(2) * step, gradient, strict=True):
        above, below = (log_likelihood(distances, z, at + sign * axis)[0] for sign in (1, -1))
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5)


def test_gp_tells_noise_from_signal() -> None:
    rng = rng_of()
    X = rng.random((150, 2))
    smooth = 2 * np.sin(4 * X[:, 0]) + X[:, 1]
    np.testing.assert_allclose(conditioned(X, smooth, 1.0, 1e-10).predict(X), smooth, atol=1e-5)
    fitted = GaussianProcess().fit(X, smooth, rng)
    assert fitted.noise < 1e-3 * fitted.signal
    noisy = GaussianProcess().fit(X, smooth + rng.normal(0, 0.5, 150), rng)
    assert np.sqrt(noisy.noise) == pytest.approx(0.5, rel=0.2)
    assert np.std(GaussianProcess().fit(X, rng.normal(size=150), rng).predict(X)) < 0.2


@varied
@given(**shapes)
def test_gp_returns_to_the_mean_far_away_and_has_no_order(n: int, genes: int, seed: int) -> None:
    X, y = points(n, genes, seed)
    rng = rng_of(seed)
    first = GaussianProcess().fit(X, y, rng)
    np.testing.assert_allclose(first.predict(np.full((2, genes), 1e5)), y.mean(), atol=1e-9)
    rows, columns, new = rng.permutation(n), rng.permutation(genes), rng.random((5, genes))
    second = GaussianProcess().fit(X[rows][:, columns], y[rows], rng)
    np.testing.assert_allclose(second.predict(new[:, columns]), first.predict(new), atol=1e-3)


@each_surrogate
@pytest.mark.parametrize(("n", "least"), [(12, 0.2), (40, 0.4)])
def test_orders_unseen_points(surrogate: Surrogate, n: int, least: float) -> None:
    rng, X, new = rng_of(), genomes(n, 12, 0), genomes(300, 12, 1)
    model = surrogate.fit(X, 1000 * error_of(X), rng)
    assert kendall_tau(model.predict(new), error_of(new)) > least
    X, new = rng.random((200, 3)), rng.random((100, 3))  # columns of many values
    assert kendall_tau(surrogate.fit(X, X[:, 1], rng).predict(new), new[:, 1]) > 0.6


@each_surrogate
def test_constant_values_and_constant_genes(surrogate: Surrogate) -> None:
    for n in (1, 2, 20):
        predicted = surrogate.fit(genomes(n, 10, 0), np.full(n, 0.1), rng_of()).predict(genomes(5, 10, 1))
        np.testing.assert_allclose(predicted, 0.1, atol=1e-12)
    y = np.arange(20.0)
    predicted = surrogate.fit(np.zeros((20, 4)), y, rng_of()).predict(np.zeros((3, 4)))
    np.testing.assert_allclose(predicted, y.mean(), atol=1.0)  # a bag's mean is that of bootstrap samples


@each_surrogate
def test_fits_are_repeatable_and_do_not_see_hidden_points(surrogate: Surrogate) -> None:
    X, subsets = genomes(20, 6, 0), np.arange(20)[None] < 15
    y, spoilt = error_of(X), error_of(X) + 100 * ~subsets[0]
    first, again, blind = (surrogate.fit_each(X, v, subsets, rng_of())[0].predict(X) for v in (y, y, spoilt))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, blind)


def test_switching_reports_what_it_did() -> None:
    X = genomes(40, 10, 0)
    y = error_of(X)
    switched = adaptive_switching(X, y, rng_of(), SURROGATES)
    assert list(switched.taus) == [s.name for s in SURROGATES]
    assert score(switched.taus[switched.name]) == max(map(score, switched.taus.values()))
    taus = tuple(kendall_tau(switched.out_of_fold[fold], y[fold]) for fold in deal_folds(40, rng_of()))
    assert switched.taus[switched.name] == taus
    assert score(taus) == pytest.approx(np.mean(taus) - np.std(taus))
    assert switched.missed == pytest.approx(np.sqrt(np.mean((switched.out_of_fold - y) ** 2)))


def test_switching_never_scores_a_point_by_a_model_that_saw_it() -> None:
    X, y = rng_of().random((30, 10)), rng_of(1).normal(size=30)
    switched = adaptive_switching(X, y, rng_of(5), [RBF()])
    for fold in deal_folds(30, rng_of(5)):
        alone = RBF().fit(X[~fold], y[~fold], rng_of()).predict(X[fold])
        np.testing.assert_allclose(switched.out_of_fold[fold], alone, atol=1e-12)
    np.testing.assert_allclose(switched.model.predict(X), y, atol=1e-6)


def test_switching_switches() -> None:
    """A line is the interpolator's; a lone interaction without a trend is the trees'."""
    rng, two = rng_of(), (RBF(), RegressionTrees())
    X = rng.random((80, 8))
    assert adaptive_switching(X, X.sum(axis=1), rng, two).name == "rbf"
    steps = np.where(X[:, 0] > 0.5, 1.0, 0.0) * np.where(X[:, 1] > 0.6, 3.0, 1.0) + 0.02 * rng.normal(size=80)
    assert adaptive_switching(X, steps, rng, two).name == "trees"


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_switching_with_few_points_or_constant_values(n: int) -> None:
    X = genomes(n, 10, 0)
    assert np.isfinite(adaptive_switching(X, error_of(X), rng_of(), SURROGATES).out_of_fold).all()
    assert adaptive_switching(X, np.ones(n), rng_of(), SURROGATES).name == SURROGATES[0].name


@varied
@given(n=st.integers(2, 120), seed=st.integers(0, 100))
def test_folds_deal_every_point_once(n: int, seed: int) -> None:
    folds = deal_folds(n, rng_of(seed))
    assert (folds.sum(axis=0) == 1).all()
    assert np.ptp(folds.sum(axis=1)) <= 1
    assert len(folds) == (10 if n >= 40 else max(2, n // 4))


X, Y = genomes(12, 5, 0), np.arange(12.0)


@pytest.mark.parametrize(
    ("points", "values", "count", "message"),
    [
        (X[0], Y, 1, r"points must be finite, .* got shapes \(5,\) and \(12,\)"),
        *[(X[:n], Y[:n], 1, "points must be finite") for n in (0, 1)],
        (X, Y[:3], 1, "points must be finite"),
        (X, np.where(Y == 3, np.nan, Y), 1, "points must be finite"),
        (np.where(X == 1, np.inf, X), Y, 1, "points must be finite"),
        (X, Y, 2, r"one or more with different names, got \['rbf', 'rbf'\]"),
        (X, Y, 0, "one or more with different names"),
    ],
)
def test_what_cannot_be_fitted_is_refused(points: Array, values: Array, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_switching(points, values, rng_of(), [RBF()] * count)
