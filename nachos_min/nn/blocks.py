"""Blocks of layers: convolution with batch norm, squeeze-and-excitation, and the inverted residual (MBConv)."""

from typing import final

import numpy as np

from nachos_min.autograd import Normed, Tensor, global_avg_pool, hsigmoid, inverted_residual, relu
from nachos_min.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, Linear, Window
from nachos_min.nn.module import Module

LARGEST = 64  # cells of a map; beyond 8x8 the arithmetic takes longer than the calls, and layers in turn are faster


@final
class ConvBatchNorm(Module):
    """Convolution without bias, batch norm, activation (identity, relu, hswish, hsigmoid or sigmoid)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Window,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        activation: str = "identity",
    ) -> None:
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
        """Draw the weights of channels -> squeezed -> channels, both with bias."""
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
        kernel: Window,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        activation: str = "relu",
        expand: bool = True,
        squeezed: int = 0,
    ) -> None:
        """Draw the weights, in order of execution.

        `middle` is the width of the depthwise filter, a `kernel` window with `stride`. Without `expand`
        the first 1x1 is left out, and `middle` is `in_channels`. `activation`, relu or hswish, follows both.
        `squeezed` is the inner width of squeeze-and-excitation, 0 for none. Where it fits, the input is added.
        """
        self.expand = ConvBatchNorm(in_channels, middle, 1, rng, activation=activation) if expand else None
        self.depthwise = DepthwiseConv2d(middle, kernel, rng, stride=stride)
        self.norm = BatchNorm(middle, activation=activation)
        self.excite = SqueezeExcite(middle, squeezed, rng) if squeezed else None
        self.project = ConvBatchNorm(middle, out_channels, 1, rng)
        self.residual = stride == 1 and in_channels == out_channels

    def __call__(self, x: Tensor) -> Tensor:
        """Return the block's map, (N, OH, OW, out_channels).

        In training, on small maps, without squeeze-and-excitation the block is the operator `inverted_residual`.
        In inference, on larger maps or with squeeze-and-excitation its layers run in turn.
        """
        if self.training and self.excite is None and x.shape[1] * x.shape[2] <= LARGEST:
            return self._as_one_operator(x)
        y = x if self.expand is None else self.expand(x)
        y = self.norm(self.depthwise(y))
        if self.excite is not None:
            y = self.excite(y)
        y = self.project(y)
        return x + y if self.residual else y

    def _as_one_operator(self, x: Tensor) -> Tensor:
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
        for (_, norm), batch in zip(parts, statistics, strict=True):
            norm.follow(*batch)
        return y
