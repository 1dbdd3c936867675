"""Blocks of layers: convolution with batch norm, squeeze-and-excitation, and the inverted residual (MBConv).

Read `layers.py` first. A block is what an architecture of `eenn/architecture.py` is made of.
"""

from typing import final

import numpy as np

from nachos_min.autograd import Tensor, global_avg_pool, hsigmoid, relu
from nachos_min.autograd.normalization import GATED, Normed, inverted_residual
from nachos_min.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, Linear
from nachos_min.nn.module import Module

LARGEST = 64  # cells of a map: beyond 8x8 the depthwise loops of single layers are faster


@final
class ConvBatchNorm(Module):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        activation: str = "identity",
    ) -> None:
        """Draw the weights.

        Args:
            in_channels: channels read.
            out_channels: channels written.
            kernel: side of the square window in pixels.
            rng: draws the weights.
            stride: step between windows in pixels, both ways.
            activation: identity, relu, hswish, hsigmoid or sigmoid.
        """
        self.convolution = Conv2d(in_channels, out_channels, kernel, rng, stride=stride)
        self.norm = BatchNorm(out_channels, activation=activation)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the block's map, (N, OH, OW, out_channels)."""
        return self.norm(self.convolution(x))


@final
class SqueezeExcite(Module):
    """Scale every channel by a gate computed from the mean of all channels.

    Source: Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018; hard sigmoid as in MobileNetV3
    (Howard et al., ICCV 2019). The two 1x1 convolutions act on a 1x1 map: they are linear layers here.
    """

    def __init__(self, channels: int, squeezed: int, rng: np.random.Generator) -> None:
        """Draw the weights of channels -> squeezed -> channels, both with bias.

        Args:
            channels: of the map that is scaled.
            squeezed: inner width.
            rng: draws the weights.
        """
        self.reduce = Linear(channels, squeezed, rng)
        self.expand = Linear(squeezed, channels, rng)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` (N, H, W, C) scaled by its gates."""
        gate = hsigmoid(self.expand(relu(self.reduce(global_avg_pool(x)))))
        n, channels = gate.shape
        return x * gate.reshape((n, 1, 1, channels))


@final
class MBConv(Module):
    """Inverted residual: 1x1 expand, k x k depthwise, optional squeeze-and-excitation, 1x1 project.

    Source: Sandler et al., "MobileNetV2", CVPR 2018, section 3.3; with squeeze-and-excitation after the
    depthwise activation as Once-for-All's MobileNetV3 has it.
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        out_channels: int,
        kernel: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        activation: str = "relu",
        expand: bool = True,
        squeezed: int = 0,
    ) -> None:
        """Draw the weights, in order of execution.

        Args:
            in_channels: channels read.
            middle: channels of the depthwise filter; equal to `in_channels` without `expand`.
            out_channels: channels written. The residual sum exists when the stride is 1 and both ends have
                the same width.
            kernel: side of the depthwise filter's window in pixels.
            rng: draws the weights.
            stride: of the depthwise filter.
            activation: after expansion and depthwise filter; the projection has none.
            expand: whether the first 1x1 is there.
            squeezed: inner width of squeeze-and-excitation, 0 for none.
        """
        self.expand = ConvBatchNorm(in_channels, middle, 1, rng, activation=activation) if expand else None
        self.depthwise = DepthwiseConv2d(middle, kernel, rng, stride=stride)
        self.norm = BatchNorm(middle, activation=activation)
        self.excite = SqueezeExcite(middle, squeezed, rng) if squeezed else None
        self.project = ConvBatchNorm(middle, out_channels, 1, rng)
        self.residual = stride == 1 and in_channels == out_channels

    def __call__(self, x: Tensor) -> Tensor:
        """Return the block's map, (N, OH, OW, out_channels)."""
        fits = x.ndim == 4 and x.shape[1] * x.shape[2] <= LARGEST and self.norm.activation in GATED
        if self.training and self.excite is None and fits:
            return self._as_one_operator(x)
        y = x if self.expand is None else self.expand(x)
        y = self.norm(self.depthwise(y))
        if self.excite is not None:
            y = self.excite(y)
        y = self.project(y)
        return x + y if self.residual else y

    def _as_one_operator(self, x: Tensor) -> Tensor:
        """Return the same map, in training and without squeeze-and-excitation: on small maps the fastest way."""
        parts = [(self.depthwise.weight, self.norm), (self.project.convolution.weight, self.project.norm)]
        if self.expand is not None:
            parts.insert(0, (self.expand.convolution.weight, self.expand.norm))
        *expand, depthwise, project = [Normed(weight, norm.gamma, norm.beta) for weight, norm in parts]
        y, statistics = inverted_residual(
            x,
            expand[0] if expand else None,
            depthwise,
            project,
            stride=self.depthwise.stride,
            activation=self.norm.activation,
            eps=self.norm.eps,
            residual=self.residual,
        )
        for (_, norm), (mean, variance, rows) in zip(parts, statistics, strict=True):
            norm.follow(mean, variance, rows)
        return y
