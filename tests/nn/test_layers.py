"""Layers against PyTorch's (values, gradients, running statistics), and how their weights start."""

import copy
from itertools import product
from math import sqrt

import numpy as np
import pytest
from oracles_nn import gradient_error, randomised

from nachos_min.autograd import Tensor
from nachos_min.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, Linear, kaiming_normal, linear_uniform
from nachos_min.nn.module import Module


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Layers of 4 channels, and what PyTorch is told.
CONVOLUTIONS: list[tuple[Module, dict[str, int]]] = [
    (Conv2d(4, 6, 1, rng()), {}),
    (Conv2d(4, 6, 1, rng(), stride=2), {"stride": 2}),
    (Conv2d(4, 6, 3, rng(), bias=True), {}),
    (Conv2d(4, 6, 5, rng(), stride=2), {"stride": 2}),
    (Conv2d(4, 6, 3, rng(), groups=2), {"groups": 2}),
    (Conv2d(4, 8, 7, rng(), stride=3, groups=4, bias=True), {"stride": 3, "groups": 4}),
    (DepthwiseConv2d(4, 3, rng()), {}),
    (DepthwiseConv2d(4, 5, rng(), stride=2), {"stride": 2}),
]


@pytest.mark.parametrize(("layer", "settings"), CONVOLUTIONS)
def test_convolutions_are_pytorchs_and_gradients_numeric(layer: Module, settings: dict[str, int]) -> None:
    module, x = randomised(copy.deepcopy(layer)), rng(1).standard_normal((2, 9, 6, 4))
    double, image = copy.deepcopy(module), Tensor(x)
    double.astype(np.float64)
    weights = rng(2).standard_normal(double(image).shape)
    assert gradient_error(double, lambda: (double(image) * weights).sum(), rng(3)) < 1e-6
    import oracles_torch

    oracles_torch.assert_same(module, x, lambda peer, x: peer.conv("", x, **settings))


def test_linear_is_pytorchs() -> None:
    import oracles_torch

    for bias in (True, False):
        module = randomised(Linear(5, 3, rng(), bias=bias))
        oracles_torch.assert_same(module, rng(1).standard_normal((4, 5)), lambda peer, x: peer.linear("", x))


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (7, 6)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["identity", "relu", "hswish", "hsigmoid", "sigmoid"])
def test_batch_norm_is_pytorchs(activation: str, training: bool, shape: tuple[int, ...]) -> None:
    import oracles_torch

    module, x = randomised(BatchNorm(6, activation=activation)), 2 * rng(1).standard_normal(shape) + 1
    module.train(training)
    oracles_torch.assert_same(module, x, lambda peer, x: peer.norm("", x, activation))


def test_batch_norm_keeps_running_statistics_of_what_it_saw() -> None:
    """r <- 0.9 r + 0.1 batch, with the unbiased variance (divided by rows - 1)."""
    module = BatchNorm(2)
    module.astype(np.float64)
    mean, variance = np.zeros(2), np.ones(2)
    for seed in range(3):
        batch = 2 * rng(seed).standard_normal((4, 3, 3, 2)) + 1
        module(Tensor(batch))
        mean = 0.9 * mean + 0.1 * batch.mean(axis=(0, 1, 2))
        variance = 0.9 * variance + 0.1 * batch.reshape(-1, 2).var(axis=0, ddof=1)
    module.train(False)
    x = rng(9).standard_normal((5, 2))
    np.testing.assert_allclose(module(Tensor(x)).data, (x - mean) / np.sqrt(variance + 1e-5))
    np.testing.assert_allclose(module.running_mean, mean)  # inference learns nothing
    np.testing.assert_allclose(module.running_variance, variance)


def test_batch_norm_of_one_row_and_of_a_small_spread_on_a_large_mean() -> None:
    module = BatchNorm(2)
    y = module(Tensor(np.array([[3.0, -1.0]], np.float32)))
    np.testing.assert_array_equal(y.data, [[0.0, 0.0]])  # one row has variance 0
    np.testing.assert_allclose(module.running_mean, [0.3, -0.1], rtol=1e-6)
    np.testing.assert_allclose(module.running_variance, [0.9, 0.9], rtol=1e-6)
    x = rng().standard_normal((1000, 2)) + 1000
    y = module(Tensor(x.astype(np.float32)))
    np.testing.assert_allclose(y.data, (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("weight", "deviation"),
    [
        (Conv2d(8, 64, 3, rng()).weight, sqrt(2 / (9 * 64))),
        (Conv2d(8, 64, 3, rng(), groups=4).weight, sqrt(2 / (9 * 16))),
        (DepthwiseConv2d(512, 3, rng()).weight, sqrt(2 / 9)),
        (Linear(48, 64, rng()).weight, sqrt(1 / (3 * 48))),  # uniform in +-a has deviation a / sqrt(3)
    ],
)
def test_weights_start_at_their_scale_and_biases_at_zero(weight: Tensor, deviation: float) -> None:
    assert (weight.dtype, weight.requires_grad) == (np.float32, True)
    assert weight.data.std() == pytest.approx(deviation, rel=0.05)
    assert abs(weight.data.mean()) < 0.1 * deviation
    for module in (Conv2d(2, 3, 1, rng(), bias=True), Linear(2, 3, rng())):
        np.testing.assert_array_equal(module.named_parameters()["bias"].data, np.zeros(3))


def test_draws_have_a_normals_tails_or_fill_an_interval_evenly_the_same_in_either_precision() -> None:
    deviation = np.sqrt(2 / (3 * 3 * 128))
    weights = kaiming_normal((3, 3, 64, 128), 3 * 3 * 128, rng())
    assert weights.std() == pytest.approx(deviation, rel=0.01)  # 73,728 draws: standard error 0.3 %
    assert (np.abs(weights) < 2 * deviation).mean() == pytest.approx(0.9545, abs=0.005)
    counts, _ = np.histogram(linear_uniform((64, 500), 64, rng(1)), bins=10, range=(-1 / 8, 1 / 8))
    assert counts.sum() == 32_000
    np.testing.assert_allclose(counts, 3_200, rtol=0.08)  # standard error 1.7 %
    for draw in (kaiming_normal, linear_uniform):
        single, double = (draw((4, 5), 4, rng(2), dtype) for dtype in (np.float32, np.float64))
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(single, double.astype(np.float32))


def test_activations_keep_their_scale_through_twenty_relu_layers() -> None:
    """What the factor 2 is for: without it the mean square would shrink by 2^20."""
    generator = rng(3)
    x = generator.standard_normal((64, 256))
    for _ in range(20):
        x = np.maximum(x @ kaiming_normal((256, 256), 256, generator, np.float64), 0.0)
    assert 0.1 < (x**2).mean() / 0.5 < 10.0


def test_an_odd_kernel_keeps_the_map_up_to_the_stride() -> None:
    for kernel, stride, side in product((1, 3, 5, 7), (1, 2, 3), (1, 2, 7, 8)):
        x, left = Tensor(np.ones((1, side, side, 2), np.float32)), (side - 1) // stride + 1
        assert Conv2d(2, 2, kernel, rng(), stride=stride)(x).shape == (1, left, left, 2)
        assert DepthwiseConv2d(2, kernel, rng(), stride=stride)(x).shape == (1, left, left, 2)
