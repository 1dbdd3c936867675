"""Initial weights have the promised shape, dtype, scale and origin."""

from typing import Any

import numpy as np
import pytest

from nachos_min.nn.init import kaiming_normal, linear_uniform


def test_kaiming_normal_has_the_promised_moments() -> None:
    weights = kaiming_normal((3, 3, 64, 128), 3 * 3 * 128, np.random.default_rng(0))
    expected = np.sqrt(2 / (3 * 3 * 128))
    assert weights.std() == pytest.approx(expected, rel=0.01)  # 73,728 draws: standard error 0.3 %
    assert abs(weights.mean()) < 4 * expected / np.sqrt(weights.size)
    assert (np.abs(weights) < 2 * expected).mean() == pytest.approx(0.9545, abs=0.005)  # a normal's tails


def test_linear_uniform_fills_its_interval_evenly() -> None:
    weights = linear_uniform((64, 500), 64, np.random.default_rng(1))
    assert np.abs(weights).max() <= 1 / 8
    assert np.abs(weights).max() == pytest.approx(1 / 8, rel=1e-3)
    counts, _ = np.histogram(weights, bins=10, range=(-1 / 8, 1 / 8))
    np.testing.assert_allclose(counts, 3_200, rtol=0.08)  # 32,000 draws: standard error 1.7 %


@pytest.mark.parametrize("draw", [kaiming_normal, linear_uniform])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_generator_same_weights_in_either_precision(draw: Any, dtype: type[np.floating[Any]]) -> None:
    weights = draw((4, 5), 4, np.random.default_rng(2), dtype)
    assert weights.shape == (4, 5)
    assert weights.dtype == dtype
    again = draw((4, 5), 4, np.random.default_rng(2), np.float64)
    np.testing.assert_array_equal(weights, again.astype(dtype))


def test_activations_keep_their_scale_through_twenty_relu_layers() -> None:
    """What the factor 2 is for: without it the mean square would shrink by 2^20."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((64, 256))
    for _ in range(20):
        x = np.maximum(x @ kaiming_normal((256, 256), 256, rng, np.float64), 0.0)
    assert 0.1 < (x**2).mean() / 0.5 < 10.0


@pytest.mark.parametrize("draw", [kaiming_normal, linear_uniform])
def test_fan_must_be_positive(draw: Any) -> None:
    with pytest.raises(ValueError, match="fan must be >= 1, got 0"):
        draw((2, 2), 0, np.random.default_rng(0))
