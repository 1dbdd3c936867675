"""Known networks in PyTorch to hold counts against: MobileNetV3-Large, ResNet-20, one with two exits, Once-for-All.

Each function returns a module with fresh weights. How a layer is written matters here (a module, a function or an
operator sign), since other tools' counts depend on it. `python -m nachos_min macs` reads a target such as
`torch:bench.torch_networks:mobilenet_v3_large`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mobilenet_v3_large(classes: int = 1000) -> nn.Module:
    """Return MobileNetV3-Large: 216,589,760 MACs at 224 x 224 and, for 1000 classes, 5,483,032 parameters.

    Source: Howard et al. 2019, "Searching for MobileNetV3", table 1, with squeeze widths as in torchvision.
    """
    layers: list[nn.Module] = [_conv_norm(3, 16, 3, 2, act=nn.Hardswish)]
    channels = 16
    for kernel, middle, out, squeeze, act, stride in _LARGE:
        layers.append(_InvertedResidual(channels, middle, out, kernel, stride, act, squeeze))
        channels = out
    layers.append(_conv_norm(channels, 960, 1, act=nn.Hardswish))
    head = [nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def resnet20_a(classes: int = 10) -> nn.Module:
    """Return ResNet-20 for 32 x 32 images with shortcuts that pad with zeros: 40,551,040 MACs, 269,722 parameters.

    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2, option A.
    """
    return _ResNet20(classes, project=False)


def resnet20_b(classes: int = 10) -> nn.Module:
    """Return ResNet-20 with shortcuts that are 1x1 convolutions (option B): 40,813,184 MACs, 272,474 parameters."""
    return _ResNet20(classes, project=True)


def two_exits(mode: str = "all", threshold: float = 0.5) -> nn.Module:
    """Return a small network with an early exit whose 11th output says how sure it is; 46,021 parameters.

    Args:
        mode: "all" returns both exits' outputs, "gate" returns the first exit's if it is sure enough and otherwise
            goes on, "final" never runs the first exit.
        threshold: in mode "gate" the exit is taken if the sigmoid of its 11th output is above it: always at 0,
            never at 2.

    Returns:
        The module, for images of 32 x 32: 410,112 MACs up to the exit, 442,720 in it, 515,808 after it.
    """
    return _TwoExits(mode, threshold)


def ofa_mbv3(
    ks: Sequence[int] = (7,) * 20, e: Sequence[int] = (6,) * 20, d: Sequence[int] = (4,) * 5, classes: int = 10
) -> nn.Module:
    """Return a sub-network of Once-for-All's MobileNetV3 of width 1.0, written as its authors write it.

    Args:
        ks: kernel of each layer that is executed (sum(d) of them) or of all 20, of which a stage uses its first d.
        e: expansion ratio, likewise.
        d: layers of each of the five stages, 2 to 4.
        classes: outputs.

    Returns:
        The module; at 32 x 32 and with 10 classes the largest has 15,198,240 MACs and 6,396,570 parameters.

    Source: Cai et al. 2020, "Once-for-all: train one network and specialize it for efficient deployment".
    """
    return _OnceForAll(ks, e, d, classes)


# Kernel, middle width, output width, squeeze width or 0, activation, stride.
_LARGE: tuple[tuple[int, int, int, int, type[nn.Module], int], ...] = (
    (3, 16, 16, 0, nn.ReLU, 1),
    (3, 64, 24, 0, nn.ReLU, 2),
    (3, 72, 24, 0, nn.ReLU, 1),
    (5, 72, 40, 24, nn.ReLU, 2),
    (5, 120, 40, 32, nn.ReLU, 1),
    (5, 120, 40, 32, nn.ReLU, 1),
    (3, 240, 80, 0, nn.Hardswish, 2),
    (3, 200, 80, 0, nn.Hardswish, 1),
    (3, 184, 80, 0, nn.Hardswish, 1),
    (3, 184, 80, 0, nn.Hardswish, 1),
    (3, 480, 112, 120, nn.Hardswish, 1),
    (3, 672, 112, 168, nn.Hardswish, 1),
    (5, 672, 160, 168, nn.Hardswish, 2),
    (5, 960, 160, 240, nn.Hardswish, 1),
    (5, 960, 160, 240, nn.Hardswish, 1),
)


def _conv_norm(
    channels: int,
    out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Return convolution without bias, batch norm and, if there is one, activation."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out, eps=0.001, momentum=0.01)]
    return nn.Sequential(*layers, *([act()] if act else []))


class _SqueezeExcite(nn.Module):
    """Scale each channel by a number that the means of all channels decide."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.act = nn.ReLU()
        self.excite = nn.Conv2d(squeeze, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.excite(self.act(self.squeeze(self.mean(x))))) * x


class _InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution (unless it would not), depthwise convolution, squeeze-excite, narrow."""

    def __init__(
        self,
        channels: int,
        middle: int,
        out: int,
        kernel: int,
        stride: int,
        act: Callable[[], nn.Module],
        squeeze: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if middle != channels:
            layers.append(_conv_norm(channels, middle, 1, act=act))
        layers.append(_conv_norm(middle, middle, kernel, stride, groups=middle, act=act))
        if squeeze:
            layers.append(_SqueezeExcite(middle, squeeze))
        self.block = nn.Sequential(*layers, _conv_norm(middle, out, 1))
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.residual else y


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, channels: int, out: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.widen = (out - channels) // 2
        projects = project and stride != 1
        self.shortcut = _shortcut(channels, out, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.widen:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.widen, self.widen))
        return F.relu(y + x)


def _shortcut(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class _ResNet20(nn.Module):
    def __init__(self, classes: int, project: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks = []
        channels = 16
        for out in (16, 32, 64):
            for _ in range(3):
                blocks.append(_BasicBlock(channels, out, 1 if channels == out else 2, project))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        x = F.avg_pool2d(x, x.size(3))
        return self.classifier(x.view(x.size(0), -1))


class _TwoExits(nn.Module):
    def __init__(self, mode: str, threshold: float) -> None:
        super().__init__()
        self.mode = mode
        self.threshold = threshold
        self.stem = _conv_norm(3, 16, 3, 2, act=nn.ReLU)
        self.before = _InvertedResidual(16, 48, 24, 3, 2, nn.Hardswish, 16)
        head = [nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 11)]
        self.head = nn.Sequential(*head)
        self.after = nn.Sequential(
            _InvertedResidual(24, 72, 40, 5, 2, nn.Hardswish, 24),
            _InvertedResidual(40, 120, 40, 3, 1, nn.Hardswish, 0),
            _conv_norm(40, 240, 1, act=nn.Hardswish),
        )
        self.final = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(240, 10))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.before(self.stem(x))
        if self.mode == "final":
            return self.final(self.after(x))
        early = self.head(x)
        if self.mode == "gate" and torch.sigmoid(early[:, 10]).min().item() > self.threshold:
            return early
        final = self.final(self.after(x))
        return (early, final) if self.mode == "all" else final


class _Hswish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3.0, inplace=True) / 6.0


class _Hsigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3.0, inplace=True) / 6.0


def _make_divisible(value: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class _OnceForAllSqueeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze = _make_divisible(channels // 4)
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = _Hsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * self.gate(self.expand(self.act(self.reduce(y))))


class _OnceForAllLayer(nn.Module):
    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        expansion: int,
        stride: int,
        act: Callable[[], nn.Module],
        se: bool,
    ) -> None:
        super().__init__()
        middle = _make_divisible(round(channels * expansion)) if expansion != 1 else channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm(channels, middle, 1, act=act))
        layers.append(_conv_norm(middle, middle, kernel, stride, groups=middle, act=act))
        if se:
            layers.append(_OnceForAllSqueeze(middle))
        self.block = nn.Sequential(*layers, _conv_norm(middle, out, 1))
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return y + x if self.residual else y


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


# Output width, stride, activation, squeeze-and-excitation of the five stages.
_STAGES: tuple[tuple[int, int, Callable[[], nn.Module], bool], ...] = (
    (24, 2, _relu, False),
    (40, 2, _relu, True),
    (80, 2, _Hswish, False),
    (112, 1, _Hswish, True),
    (160, 2, _Hswish, True),
)


class _OnceForAll(nn.Module):
    def __init__(self, ks: Sequence[int], e: Sequence[int], d: Sequence[int], classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_OnceForAllLayer(16, 16, 3, 1, 1, _relu, False)]
        channels = 16
        executed = 0
        for stage, ((out, stride, act, se), depth) in enumerate(zip(_STAGES, d, strict=True)):
            for layer in range(depth):
                slot = executed if len(ks) == sum(d) else 4 * stage + layer
                first = stride if layer == 0 else 1
                blocks.append(_OnceForAllLayer(channels, out, ks[slot], e[slot], first, act, se))
                channels = out
                executed += 1
        self.stem = _conv_norm(3, 16, 3, 2, act=_Hswish)
        self.blocks = nn.Sequential(*blocks)
        self.final_expand = _conv_norm(160, 960, 1, act=_Hswish)
        self.feature_mix = nn.Sequential(nn.Conv2d(960, 1280, 1, bias=False), _Hswish())
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.final_expand(self.blocks(self.stem(x)))
        x = self.feature_mix(x.mean(3, keepdim=True).mean(2, keepdim=True))
        return self.classifier(torch.flatten(x, 1))
