"""Layers: one operator of `autograd` together with the parameters it needs.

Read `module.py` first, `blocks.py` after. Weights are stored as the kernels read them:
(KH, KW, C_in/G, C_out) for a convolution, (KH, KW, C) for a depthwise one, (in, out) for a linear layer.
"""

from typing import final

import numpy as np

from nachos_min.autograd import (
    Array,
    Tensor,
    batch_norm,
    batch_norm_infer,
    conv2d,
    depthwise_conv2d,
    follow_statistics,
    linear,
)
from nachos_min.nn.init import kaiming_normal, linear_uniform
from nachos_min.nn.module import Module


def _parameter(data: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    return Tensor(data, requires_grad=True)


@final
class Conv2d(Module):
    """A dense or grouped convolution, padded by `kernel // 2` on every side (odd kernels keep the map)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: str = "identity",
    ) -> None:
        """Draw He-normal weights (fan-out); the bias starts at 0.

        Args:
            in_channels: C_in, a multiple of `groups`.
            out_channels: C_out, a multiple of `groups`.
            kernel: side of the square window in pixels.
            rng: draws the weights.
            stride: step between windows in pixels, both ways.
            groups: G; output channels of a group read the input channels of that group only.
            bias: whether one number per output channel is added.
            activation: what follows, identity or relu.
        """
        shape = (kernel, kernel, in_channels // groups, out_channels)
        self.weight = _parameter(kaiming_normal(shape, kernel * kernel * out_channels // groups, rng))
        self.bias = _parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.stride, self.padding, self.groups, self.activation = stride, kernel // 2, groups, activation

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, H, W, C_in), activated, shape (N, OH, OW, C_out)."""
        return conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            activation=self.activation,
        )


@final
class DepthwiseConv2d(Module):
    """One filter per channel, padded by `kernel // 2` on every side."""

    def __init__(self, channels: int, kernel: int, rng: np.random.Generator, *, stride: int = 1) -> None:
        """Draw He-normal weights: the fan of a depthwise filter is its own kernel area.

        Args:
            channels: C, in and out.
            kernel: side of the square window in pixels.
            rng: draws the weights.
            stride: step between windows in pixels, both ways.
        """
        self.weight = _parameter(kaiming_normal((kernel, kernel, channels), kernel * kernel, rng))
        self.stride, self.padding = stride, kernel // 2

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` (N, H, W, C) filtered channel by channel, shape (N, OH, OW, C)."""
        return depthwise_conv2d(x, self.weight, stride=self.stride, padding=self.padding)


@final
class Linear(Module):
    """`x @ weight + bias` over the last axis."""

    def __init__(self, in_features: int, out_features: int, rng: np.random.Generator, *, bias: bool = True):
        """Draw weights uniform in +-1/sqrt(in_features); the bias starts at 0.

        Args:
            in_features: length of the last axis read.
            out_features: length of the last axis written.
            rng: draws the weights.
            bias: whether one number per output feature is added.
        """
        self.weight = _parameter(linear_uniform((in_features, out_features), in_features, rng))
        self.bias = _parameter(np.zeros(out_features, np.float32)) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the affine image of `x` (..., in), shape (..., out)."""
        return linear(x, self.weight, self.bias)


@final
class BatchNorm(Module):
    """Batch normalisation over all axes but the last, fused with the activation that follows it.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2. Running statistics are
    r <- r + momentum (batch - r), with the unbiased batch variance, as PyTorch keeps them.
    """

    def __init__(self, channels: int, *, activation: str = "identity", momentum: float = 0.1, eps: float = 1e-5):
        """Start from scale 1, shift 0, running mean 0 and running variance 1.

        Args:
            channels: C, length of the last axis.
            activation: what follows; identity, relu, hswish, hsigmoid or sigmoid.
            momentum: share of a batch in the running statistics, in 0..1.
            eps: > 0, added to the variance.
        """
        self.gamma = _parameter(np.ones(channels, np.float32))
        self.beta = _parameter(np.zeros(channels, np.float32))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_variance = np.ones(channels, np.float32)
        self.activation, self.momentum, self.eps = activation, momentum, eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return activation(gamma (x - mean) / sqrt(variance + eps) + beta), the shape of `x`.

        In training the statistics are the batch's, and the running ones move towards them.
        """
        if not self.training:
            return batch_norm_infer(
                x,
                self.gamma,
                self.beta,
                self.running_mean,
                self.running_variance,
                eps=self.eps,
                activation=self.activation,
            )
        y, mean, variance = batch_norm(x, self.gamma, self.beta, eps=self.eps, activation=self.activation)
        self.follow(mean, variance, x.data.size // x.shape[-1])
        return y

    def follow(self, mean: Array, variance: Array, rows: int) -> None:
        """Move the running statistics towards those of a batch of `rows` rows, whose variance is biased."""
        follow_statistics(self.running_mean, self.running_variance, mean, variance, rows, self.momentum)
