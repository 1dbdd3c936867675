"""The layers and calls of `data_files/macs_layers.json` as PyTorch modules, by the same names.

Shapes have the batch axis. An operand that is not the input is a constant, not a parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F = torch.nn.functional
nn = torch.nn


@dataclass(frozen=True)
class Case:
    """A module, the shape it is called with, and whether it runs in training mode."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    training: bool = False


class Calling(nn.Module):
    """A module without modules inside that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class DerivedConv2d(nn.Conv2d):
    """A class derived from a layer, which hooks on exact classes miss."""


class With(nn.Module):
    """A module that calls a function with itself, so that it can use the layers it was given."""

    def __init__(self, function, **members):
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def _conv8() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1, bias=False)


def called_twice() -> nn.Module:
    return With(lambda m, x: m.conv(m.conv(x)), conv=_conv8())


def two_parents() -> nn.Module:
    conv = _conv8()
    first, second = (With(lambda m, x: m.conv(x), conv=conv) for _ in range(2))
    return With(lambda m, x: m.second(m.first(x)), first=first, second=second)


def never_called() -> nn.Module:
    return With(lambda m, x: m.called(x), called=_conv8(), never=_conv8())


def _squeeze_excite() -> nn.Module:
    def scale(m, x):
        y = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * F.relu6(m.excite(F.relu(m.squeeze(y))) + 3) / 6

    return With(scale, squeeze=nn.Conv2d(8, 8, 1), excite=nn.Conv2d(8, 8, 1))


MAP = (1, 8, 16, 16)
ODD = (1, 8, 17, 15)
ROW = (1, 24)


def _conv(*args, **options) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(8, 16, *args, **{"bias": False, **options})


def _call(function, shape=MAP) -> Case:
    return Case(lambda: Calling(function), shape)


def _with(shape: tuple[int, ...], function, given: tuple[int, ...]) -> Case:
    """A call with the input and a constant of the shape `given`."""

    def make() -> nn.Module:
        other = torch.ones(given)
        return Calling(lambda x: function(x, other))

    return Case(make, shape)


CASES = {
    "conv3x3 8->16 p1 nobias 16x16": Case(_conv(3, padding=1), MAP),
    "conv3x3 8->16 p1 BIAS": Case(_conv(3, padding=1, bias=True), MAP),
    "conv3x3 8->16 p1 nobias, batch 2": Case(_conv(3, padding=1), (2, 8, 16, 16)),
    "conv3x3 grouped g=4 8->16 nobias": Case(_conv(3, padding=1, groups=4), MAP),
    "conv3x3 depthwise 8 nobias": Case(lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), MAP),
    "conv3x3 dw, channel mult 2 (8->16,g=8)": Case(_conv(3, padding=1, groups=8), MAP),
    "conv 3x5 s(2,3) p(1,0) d(1,2) 17x15 nobias": Case(_conv((3, 5), (2, 3), (1, 0), (1, 2)), ODD),
    "conv 3x3 s2 p0 17x15 nobias": Case(_conv(3, stride=2), ODD),
    "conv 4x4 padding='same' nobias 17x15": Case(_conv(4, padding="same"), ODD),
    "conv 3x3 p0 (valid) 16x16 nobias": Case(_conv(3), MAP),
    "linear 24->16 nobias": Case(lambda: nn.Linear(24, 16, bias=False), ROW),
    "linear 24->16 BIAS": Case(lambda: nn.Linear(24, 16), ROW),
    "linear 24->16 BIAS on [1,5,24]": Case(lambda: nn.Linear(24, 16), (1, 5, 24)),
    "BN2d affine eval": Case(lambda: nn.BatchNorm2d(8), MAP),
    "BN2d affine TRAIN": Case(lambda: nn.BatchNorm2d(8), MAP, training=True),
    "BN2d no-affine eval": Case(lambda: nn.BatchNorm2d(8, affine=False), MAP),
    "x*relu6(x+3)/6 (OFA Hswish)": _call(lambda x: x * F.relu6(x + 3) / 6),
    "relu6(x+3)/6 (OFA Hsigmoid)": _call(lambda x: F.relu6(x + 3) / 6),
    "nn.Softmax(1) [1,24]": Case(lambda: nn.Softmax(1), ROW),
    "F.softmax [1,24]": _call(lambda x: F.softmax(x, 1), ROW),
    "MaxPool2d 2": Case(lambda: nn.MaxPool2d(2), MAP),
    "MaxPool2d 3 s1 p1": Case(lambda: nn.MaxPool2d(3, 1, 1), MAP),
    "AvgPool2d 2": Case(lambda: nn.AvgPool2d(2), MAP),
    "AdaptiveAvgPool2d(1)": Case(lambda: nn.AdaptiveAvgPool2d(1), MAP),
    "AdaptiveAvgPool2d(3)": Case(lambda: nn.AdaptiveAvgPool2d(3), MAP),
    "x.mean(3).mean(2) global": _call(lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "x.mean((2,3))": _call(lambda x: x.mean((2, 3))),
    "x+x operator": _call(lambda x: x + x),
    "torch.add": _call(lambda x: torch.add(x, x)),
    "x*x operator": _call(lambda x: x * x),
    "torch.mul": _call(lambda x: torch.mul(x, x)),
    "SE scale: x*mean(x)": _call(lambda x: x * x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "SE block c=8,m=8 with conv bias": Case(_squeeze_excite, MAP),
    "ConvTranspose2d 8->16 k3 s2 p1 op1 nobias": Case(
        partial(nn.ConvTranspose2d, 8, 16, 3, 2, 1, 1, bias=False), MAP
    ),
    "ConvTranspose2d 8->16 k3 s2 g4 BIAS": Case(partial(nn.ConvTranspose2d, 8, 16, 3, 2, 1, 1, groups=4), MAP),
    "flatten": Case(nn.Flatten, MAP),
    "reshape/permute": _call(lambda x: x.reshape(1, 8, 256).permute(0, 2, 1)),
    "torch.matmul [1,24]x[24,16]": _with(ROW, lambda x, w: torch.matmul(x, w), (24, 16)),
    "x@w operator": _with(ROW, lambda x, w: x @ w, (24, 16)),
    "torch.matmul [1,5,24]x[24,16]": _with((1, 5, 24), lambda x, w: torch.matmul(x, w), (24, 16)),
    "einsum nchw,oc->nohw o=16": _with(MAP, lambda x, w: torch.einsum("nchw,oc->nohw", x, w), (16, 8)),
    "torch.bmm [1,5,24]x[1,24,5]": _with((1, 5, 24), lambda x, w: torch.bmm(x, w), (1, 24, 5)),
    "F.conv2d functional": _with(MAP, lambda x, w: F.conv2d(x, w, padding=1), (16, 8, 3, 3)),
    "F.linear functional": _with(ROW, lambda x, w: F.linear(x, w), (16, 24)),
    "subclass of nn.Conv2d 8->16 k3 p1 nobias": Case(lambda: DerivedConv2d(8, 16, 3, padding=1, bias=False), MAP),
    "same conv module called twice (8->8 k3)": Case(called_twice, MAP),
    "same conv under two parents, called twice": Case(two_parents, MAP),
    "unused submodule": Case(never_called, MAP),
    "Dropout": Case(nn.Dropout, MAP),
    "F.relu(lambda)": _call(lambda x: F.relu(x)),
    "F.relu6(lambda)": _call(lambda x: F.relu6(x)),
    "F.max_pool2d": _call(lambda x: F.max_pool2d(x, 2)),
    "F.avg_pool2d": _call(lambda x: F.avg_pool2d(x, 2)),
    "F.adaptive_avg_pool2d": _call(lambda x: F.adaptive_avg_pool2d(x, 1)),
    "matmul (1,24)@(24,) vec": _with(ROW, lambda x, w: torch.matmul(x, w), (24,)),
    "matmul bcast (2,1,4,8)@(3,8,5)": _with((2, 1, 4, 8), lambda x, w: torch.matmul(x, w), (3, 8, 5)),
    "Conv1d 8->16 k3 p1 len 32": Case(lambda: nn.Conv1d(8, 16, 3, padding=1, bias=False), (1, 8, 32)),
    "conv 3x3 padding='same' p nobias 16x16": Case(_conv(3, padding="same"), MAP),
    "conv 3x3 padding='valid'": Case(_conv(3, padding="valid"), MAP),
    "conv 3x3 padding_mode=reflect p1": Case(_conv(3, padding=1, padding_mode="reflect"), MAP),
    "LayerNorm(24) affine": Case(lambda: nn.LayerNorm(24), ROW),
    "GroupNorm(2,8)": Case(lambda: nn.GroupNorm(2, 8), MAP),
    "InstanceNorm2d(8) noaffine": Case(lambda: nn.InstanceNorm2d(8), MAP),
    "Upsample x2 nearest": Case(lambda: nn.Upsample(scale_factor=2), MAP),
    "Upsample x2 bilinear": Case(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), MAP),
    "unbatched conv3x3 8->16 p1 (C,H,W)": Case(_conv(3, padding=1), MAP[1:]),
}
for _name in ("ReLU", "ReLU6", "Hardswish", "Hardsigmoid", "Sigmoid", "SiLU", "GELU", "LeakyReLU", "PReLU", "Tanh"):
    CASES[f"nn.{_name}"] = Case(getattr(nn, _name), MAP)


# Networks of the odd kind: each has something that one of the other tools counts in a way of its own.


def _attention(weights: bool) -> nn.Module:
    """Attention of a sequence to itself, for a caller who wants the weights or does not."""
    inner = nn.MultiheadAttention(8, 2, batch_first=True)
    return With(lambda m, x: m.attention(x, x, x, need_weights=weights)[0], attention=inner)


class ConvHead(nn.Linear):
    """A linear layer whose name sounds like a convolution."""


def _shared_three_times() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(conv, nn.Sequential(conv), nn.Sequential(nn.Sequential(conv, nn.ReLU())))


_BLOCK = nn.TransformerEncoderLayer
_SEQUENCE, _BATCH = (1, 5, 8), (2, 8, 9, 9)
# fmt: off
ODD = {
    "attention with weights": (lambda: _attention(True), _SEQUENCE),
    "attention without weights": (lambda: _attention(False), _SEQUENCE),
    "encoder layer": (lambda: _BLOCK(8, 2, 16, batch_first=True), _SEQUENCE),
    "encoder layer, gelu": (lambda: _BLOCK(8, 2, 16, activation="gelu", norm_first=True), _SEQUENCE),
    "embedding": (lambda: With(lambda m, x: m.table((x > 0).long()), table=nn.Embedding(3, 5)), (3, 7)),
    "layer in a plain list": (
        lambda: With(lambda m, x: F.relu(m.layers[0](x)), layers=[nn.Conv2d(8, 4, 3, bias=False)]), _BATCH),
    "shared three times": (_shared_three_times, _BATCH),
    "name of a convolution": (lambda: ConvHead(8, 3), (2, 5, 8)),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3)), _BATCH),
    "channels per slope": (lambda: nn.Sequential(nn.PReLU(8), nn.PReLU()), _BATCH),
    "no axis of samples": (lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 1)), _BATCH[1:]),
    "no axis of samples, linear": (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), (8,)),
    "upsampling of old": (lambda: nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2)), _BATCH),
    "synchronised norm": (lambda: nn.SyncBatchNorm(8), _BATCH),
    "larger than 2**31": (lambda: nn.Conv2d(64, 256, 3, padding=1), (1, 64, 128, 128)),
}
# fmt: on


# Records of other kinds, each beside every tool: windows of one and three axes, recurrent layers and cells, complex
# numbers, functions that were taken out of their module, operators that stand for several products.


class First(nn.Module):
    """What a layer returns first."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Holding(nn.Module):
    """An activation that was taken out of its module when this was made."""

    def __init__(self):
        super().__init__()
        self.act = F.gelu

    def forward(self, x):
        return self.act(x)


_STEPS = (3, 5, 8)
_TWO_WAYS = {"num_layers": 2, "bidirectional": True}
KINDS = {
    **{
        f"{kind} {axes}": (
            partial(getattr(nn, f"{kind}{axes}d"), 8, 4, 3, 2, 1, groups=2),
            (2, 8, *(6, 7, 8)[:axes]),
        )
        for kind in ("Conv", "ConvTranspose")
        for axes in (1, 3)
    },
    **{
        f"{kind} {axes}": (partial(getattr(nn, f"{kind}{axes}d"), 2), (2, 8, *(6, 4, 8)[:axes]))
        for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
        for axes in (1, 3)
    },
    **{kind: (lambda kind=kind: First(getattr(nn, kind)(8, 6)), _STEPS) for kind in ("LSTM", "GRU", "RNN")},
    **{
        f"{kind}, two ways": (lambda kind=kind: First(getattr(nn, kind)(8, 6, **_TWO_WAYS, bias=False)), _STEPS)
        for kind in ("LSTM", "GRU", "RNN")
    },
    **{kind: (partial(getattr(nn, kind), 8, 6), (3, 8)) for kind in ("LSTMCell", "GRUCell", "RNNCell")},
    "projected": (lambda: First(nn.LSTM(8, 6, proj_size=3)), _STEPS),
    "complex": (
        lambda: With(lambda m, x: m.c(x.to(torch.complex64)).abs(), c=nn.Conv1d(8, 4, 3, dtype=torch.complex64)),
        (2, 8, 9),
    ),
    "taken": (Holding, _STEPS),
    "looked up": (lambda: Calling(lambda x: F.gelu(x)), _STEPS),
    "distances": (lambda: Calling(lambda x: torch.cdist(x, x).relu()), (1, 5, 8)),
    "root mean square": (lambda: nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 3)), _STEPS),
    "causal": (lambda: Calling(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), (2, 2, 5, 8)),
    "three axes": (lambda: Calling(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 5, 8)),
}
