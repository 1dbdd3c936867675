"""Layers against PyTorch's (values, gradients, running statistics), and against NumPy where that is short."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from oracles_nn import gradient_error, randomised

from nachos_min.autograd import Tensor, no_grad
from nachos_min.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, Linear
from nachos_min.nn.module import Module


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


CONVOLUTIONS: dict[str, tuple[Callable[[], Module], dict[str, int]]] = {
    "1x1": (lambda: Conv2d(4, 6, 1, rng()), {}),
    "1x1, stride 2": (lambda: Conv2d(4, 6, 1, rng(), stride=2), {"stride": 2}),
    "3x3, bias": (lambda: Conv2d(4, 6, 3, rng(), bias=True), {}),
    "5x5, stride 2": (lambda: Conv2d(4, 6, 5, rng(), stride=2), {"stride": 2}),
    "3x3, 2 groups": (lambda: Conv2d(4, 6, 3, rng(), groups=2), {"groups": 2}),
    "7x7, stride 3, 4 groups, bias": (
        lambda: Conv2d(4, 8, 7, rng(), stride=3, groups=4, bias=True),
        {"stride": 3, "groups": 4},
    ),
    "depthwise 3x3": (lambda: DepthwiseConv2d(4, 3, rng()), {}),
    "depthwise 5x5, stride 2": (lambda: DepthwiseConv2d(4, 5, rng(), stride=2), {"stride": 2}),
}
ACTIVATIONS = ("identity", "relu", "hswish", "hsigmoid", "sigmoid")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_pytorchs(name: str) -> None:
    import oracles_torch

    build, settings = CONVOLUTIONS[name]
    x = rng(1).standard_normal((2, 9, 6, 4))
    oracles_torch.assert_same(randomised(build()), x, lambda peer, x: peer.conv("", x, **settings))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_convolutions_are_the_numeric_derivatives(name: str) -> None:
    module, x = randomised(CONVOLUTIONS[name][0]()), Tensor(rng(1).standard_normal((2, 9, 6, 4)))
    module.astype(np.float64)
    weights = rng(2).standard_normal(module(x).shape)
    assert gradient_error(module, lambda: (module(x) * weights).sum(), rng(3)) < 1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_pytorchs(bias: bool) -> None:
    import oracles_torch

    module, x = randomised(Linear(5, 3, rng(), bias=bias)), rng(1).standard_normal((4, 5))
    oracles_torch.assert_same(module, x, lambda peer, x: peer.linear("", x))


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (7, 6)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
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
    np.testing.assert_allclose(module.running_mean, mean)
    np.testing.assert_allclose(module.running_variance, variance)

    module.train(False)
    x = rng(9).standard_normal((5, 2))
    np.testing.assert_allclose(module(Tensor(x)).data, (x - mean) / np.sqrt(variance + 1e-5))
    np.testing.assert_allclose(module.running_mean, mean)  # inference learns nothing
    np.testing.assert_allclose(module.running_variance, variance)


def test_batch_norm_of_one_row_has_variance_zero() -> None:
    module = BatchNorm(2)
    y = module(Tensor(np.array([[3.0, -1.0]], np.float32)))
    np.testing.assert_array_equal(y.data, [[0.0, 0.0]])
    np.testing.assert_allclose(module.running_mean, [0.3, -0.1], rtol=1e-6)
    np.testing.assert_allclose(module.running_variance, [0.9, 0.9], rtol=1e-6)


def test_batch_norm_in_float32_does_not_lose_a_small_spread_on_a_large_mean() -> None:
    module, x = BatchNorm(1), rng().standard_normal((1000, 1)) + 1000
    y = module(Tensor(x.astype(np.float32))).data
    rounded = x.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(y, (rounded - rounded.mean()) / rounded.std(), atol=1e-3)


@pytest.mark.parametrize(
    ("weight", "deviation"),
    [
        (Conv2d(8, 64, 3, rng()).weight, sqrt(2 / (9 * 64))),
        (Conv2d(8, 64, 3, rng(), groups=4).weight, sqrt(2 / (9 * 16))),
        (DepthwiseConv2d(512, 3, rng()).weight, sqrt(2 / 9)),
        (Linear(48, 64, rng()).weight, sqrt(1 / (3 * 48))),  # uniform in +-a has deviation a / sqrt(3)
    ],
    ids=["convolution", "groups", "depthwise", "linear"],
)
def test_weights_start_at_their_scale(weight: Tensor, deviation: float) -> None:
    assert weight.dtype == np.float32
    assert weight.requires_grad
    assert weight.data.std() == pytest.approx(deviation, rel=0.05)
    assert abs(weight.data.mean()) < 0.1 * deviation


def test_layers_without_bias_have_one_parameter_and_biases_start_at_zero() -> None:
    assert list(Conv2d(2, 3, 1, rng()).named_parameters()) == ["weight"]
    assert list(Linear(2, 3, rng(), bias=False).named_parameters()) == ["weight"]
    for module in (Conv2d(2, 3, 1, rng(), bias=True), Linear(2, 3, rng())):
        np.testing.assert_array_equal(module.named_parameters()["bias"].data, np.zeros(3))


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_an_odd_kernel_keeps_the_map_up_to_the_stride(kernel: int, stride: int, side: int) -> None:
    x = Tensor(np.ones((1, side, side, 2), np.float32))
    expected = (1, (side - 1) // stride + 1, (side - 1) // stride + 1, 2)
    with no_grad():
        assert Conv2d(2, 2, kernel, rng(), stride=stride)(x).shape == expected
        assert DepthwiseConv2d(2, kernel, rng(), stride=stride)(x).shape == expected
