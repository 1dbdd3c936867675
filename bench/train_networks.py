"""The networks of the training benchmark, in this project's engine and in PyTorch, with the same weights' shapes.

    T8      1x8x8 input, stem 8, stages 8/16/24/32 with strides 1/2/1/2
    T32     3x32x32 input, stem 16, stages 16/24/40/64 with strides 1/2/2/2
    T32k5   T32 with depthwise kernels of 5

Each stage has two MBConv blocks (expansion 3, h-swish); after each stage stands a head: 3x3 convolution to 32
channels, ReLU, mean over the map, linear to 11.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, global_avg_pool
from nachos_min.nn.blocks import ConvBatchNorm, MBConv
from nachos_min.nn.layers import Conv2d, Linear
from nachos_min.nn.module import Module

HEAD_WIDTH, CLASSES, EXPANSION, BLOCKS = 32, 11, 3, 2


@dataclass(frozen=True)
class Shape:
    """What distinguishes the three networks."""

    image: tuple[int, int, int]  # H, W, C
    stem: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    kernel: int

    def blocks(self) -> Iterator[list[tuple[int, int, int]]]:
        """Yield, for each stage, (channels read, channels written, stride) of its blocks."""
        for (before, width), stride in zip(pairwise((self.stem, *self.widths)), self.strides, strict=True):
            yield [(before, width, stride)] + [(width, width, 1)] * (BLOCKS - 1)


NETWORKS = {
    "T8": Shape((8, 8, 1), 8, (8, 16, 24, 32), (1, 2, 1, 2), 3),
    "T32": Shape((32, 32, 3), 16, (16, 24, 40, 64), (1, 2, 2, 2), 3),
    "T32k5": Shape((32, 32, 3), 16, (16, 24, 40, 64), (1, 2, 2, 2), 5),
}


class Head(Module):
    """3x3 convolution with bias, ReLU, mean over the map, linear."""

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        """Draw the weights."""
        self.convolution = Conv2d(channels, HEAD_WIDTH, 3, rng, bias=True, activation="relu")
        self.linear = Linear(HEAD_WIDTH, CLASSES, rng)

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits (N, CLASSES)."""
        return self.linear(global_avg_pool(self.convolution(x)))


class Network(Module):
    """Stem, stages and one head after each."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        """Draw the weights."""
        self.stem = ConvBatchNorm(shape.image[2], shape.stem, 3, rng, activation="hswish")
        self.blocks: list[Module] = []
        self.heads: list[Module] = []
        for stage in shape.blocks():
            for before, after, stride in stage:
                self.blocks.append(
                    MBConv(before, before * EXPANSION, after, shape.kernel, rng, stride=stride, activation="hswish")
                )
            self.heads.append(Head(stage[-1][1], rng))

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return the logits of every head for images (N, H, W, C)."""
        x, found = self.stem(x), []
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place % BLOCKS == BLOCKS - 1:
                found.append(self.heads[place // BLOCKS](x))
        return found


def torch_network(shape: Shape) -> Any:
    """Return the same network as a PyTorch module."""
    import torch
    from torch import nn

    def conv_norm(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> Any:
        layers = [
            nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after),
        ]
        return nn.Sequential(*layers, *([nn.Hardswish()] if act else []))

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            middle = before * EXPANSION
            self.layers = nn.Sequential(
                conv_norm(before, middle, 1),
                conv_norm(middle, middle, shape.kernel, stride, middle),
                conv_norm(middle, after, 1, act=False),
            )
            self.residual = stride == 1 and before == after

        def forward(self, x: Any) -> Any:
            return x + self.layers(x) if self.residual else self.layers(x)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_norm(shape.image[2], shape.stem, 3)
            self.stages = nn.ModuleList(
                nn.Sequential(*(Block(*block) for block in stage)) for stage in shape.blocks()
            )
            self.heads = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(width, HEAD_WIDTH, 3, 1, 1),
                    nn.ReLU(),
                    nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(),
                    nn.Linear(HEAD_WIDTH, CLASSES),
                )
                for width in shape.widths
            )

        def forward(self, x: Any) -> list[Any]:
            x, found = self.stem(x), []
            for stage, head in zip(self.stages, self.heads, strict=True):
                x = stage(x)
                found.append(head(x))
            return found

    torch.manual_seed(0)
    return Peer()
