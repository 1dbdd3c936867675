"""Layers: one operator of `autograd` with its parameters, drawn at a scale that neither fades nor explodes.

Weights are stored as the kernels read them: (KH, KW, C_in/G, C_out) for a convolution, (KH, KW, C) for a depthwise
one, (in, out) for a linear layer.
"""

from math import sqrt
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nachos_min import autograd
from nachos_min.autograd import Array, Tensor
from nachos_min.nn.module import Module

Dtype = type[np.floating[Any]]
Window = int | tuple[int, int]  # one side of a square, or (height, width)


def kaiming_normal(
    shape: tuple[int, ...], fan: int, rng: np.random.Generator, dtype: Dtype = np.float32
) -> NDArray[Any]:
    """Return weights of mean 0 and standard deviation sqrt(2 / fan): ReLU halves the mean square of its input.

    Fan-in (KH KW C_in / G) keeps the scale of activations, fan-out (KH KW C_out / G; KH KW for a depthwise filter)
    that of gradients. Numbers are drawn in float64 and rounded: networks of both dtypes start from the same.

    Source: He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equations 10 and 14.
    """
    return (rng.standard_normal(shape) * sqrt(2.0 / fan)).astype(dtype)


def linear_uniform(
    shape: tuple[int, ...], fan_in: int, rng: np.random.Generator, dtype: Dtype = np.float32
) -> NDArray[Any]:
    """Return weights drawn uniformly from +-1/sqrt(fan_in), as PyTorch's `torch.nn.Linear` starts.

    Source: LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998, section 4.6.
    """
    bound = 1.0 / sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def _parameter(data: NDArray[Any]) -> Tensor:
    return Tensor(data, requires_grad=True)


def _sides(kernel: Window) -> tuple[int, int, Window]:
    """Return height and width of a window, and the padding by half of each: odd windows keep the map."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return height, width, height // 2 if height == width else (height // 2, width // 2)


@final
class Conv2d(Module):
    """A dense or grouped convolution, padded by half of the kernel (odd kernels keep the map)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Window,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: str = "identity",
    ) -> None:
        """Draw He-normal weights (fan-out); the bias, one number per output channel, starts at 0.

        `kernel` is the window and `stride` the step between windows, in pixels; `groups` divides both numbers of
        channels; `activation` is identity or relu.
        """
        height, width, padding = _sides(kernel)
        shape = (height, width, in_channels // groups, out_channels)
        self.weight = _parameter(kaiming_normal(shape, height * width * out_channels // groups, rng))
        self.bias = _parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.settings: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, H, W, C_in), activated, shape (N, OH, OW, C_out)."""
        return autograd.conv2d(x, self.weight, self.bias, activation=self.activation, **self.settings)


@final
class DepthwiseConv2d(Module):
    """One filter per channel, `stride` pixels apart, padded by half of the `kernel`."""

    def __init__(self, channels: int, kernel: Window, rng: np.random.Generator, *, stride: int = 1) -> None:
        """Draw He-normal weights: the fan of a depthwise filter is its own kernel area."""
        height, width, self.padding = _sides(kernel)
        self.weight = _parameter(kaiming_normal((height, width, channels), height * width, rng))
        self.stride = stride

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` (N, H, W, C) filtered channel by channel, shape (N, OH, OW, C)."""
        return autograd.depthwise_conv2d(x, self.weight, stride=self.stride, padding=self.padding)


@final
class Linear(Module):
    """`x @ weight + bias` over the last axis."""

    def __init__(self, in_features: int, out_features: int, rng: np.random.Generator, *, bias: bool = True) -> None:
        """Draw weights uniform in +-1/sqrt(in_features); the bias starts at 0."""
        self.weight = _parameter(linear_uniform((in_features, out_features), in_features, rng))
        self.bias = _parameter(np.zeros(out_features, np.float32)) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the affine image of `x` (..., in), shape (..., out)."""
        return autograd.linear(x, self.weight, self.bias)


@final
class BatchNorm(Module):
    """Batch normalisation over all axes but the last, fused with the activation that follows it.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2. Running statistics are
    r <- r + momentum (batch - r), with the unbiased batch variance, as PyTorch keeps them.
    """

    momentum = 0.1  # weight of a batch in the running statistics
    eps = 1e-5  # added to the variance

    def __init__(self, channels: int, *, activation: str = "identity") -> None:
        """Start from scale 1, shift 0, mean 0, variance 1; then identity, relu, hswish, hsigmoid or sigmoid."""
        self.gamma = _parameter(np.ones(channels, np.float32))
        self.beta = _parameter(np.zeros(channels, np.float32))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_variance = np.ones(channels, np.float32)
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` normalised and activated: by the batch's statistics in training, else by the running ones."""
        affine = self.gamma, self.beta
        if not self.training:
            statistics = self.running_mean, self.running_variance
            return autograd.batch_norm_infer(x, *affine, *statistics, eps=self.eps, activation=self.activation)
        y, mean, variance = autograd.batch_norm(x, *affine, eps=self.eps, activation=self.activation)
        self.follow(mean, variance, x.data.size // x.shape[-1])
        return y

    def follow(self, mean: Array, variance: Array, rows: int) -> None:
        """Move the running statistics towards those of a batch of `rows` rows, whose variance is biased."""
        running = self.running_mean, self.running_variance
        autograd.follow_statistics(*running, mean, variance, rows, self.momentum)
