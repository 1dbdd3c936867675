"""PyTorch networks of the odd kind, each with something that one of the other tools counts in a way of its own."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F = torch.nn.functional
nn = torch.nn
Tensor = Any


class Attention(nn.Module):
    """Attention of a sequence to itself, for a caller who wants the weights or does not."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


class Looking(nn.Module):
    """Looks up each sign in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.table((x > 0).long())


class Listed(nn.Module):
    """Keeps a layer where PyTorch does not find it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Conv2d(8, 4, 3, bias=False)]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers[0](x))


class ConvHead(nn.Linear):
    """A linear layer whose name sounds like a convolution."""


def _shared_three_times() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(conv, nn.Sequential(conv), nn.Sequential(nn.Sequential(conv, nn.ReLU())))


SEQUENCE, MAP = (1, 5, 8), (2, 8, 9, 9)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention with weights": (lambda: Attention(True), SEQUENCE),
    "attention without weights": (lambda: Attention(False), SEQUENCE),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SEQUENCE),
    "encoder layer, gelu": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True),
        SEQUENCE,
    ),
    "embedding": (Looking, (3, 7)),
    "layer in a plain list": (Listed, MAP),
    "shared three times": (_shared_three_times, MAP),
    "name of a convolution": (lambda: ConvHead(8, 3), (2, 5, 8)),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3)), MAP),
    "channels per slope": (lambda: nn.Sequential(nn.PReLU(8), nn.PReLU()), MAP),
    "no axis of samples": (lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 1)), MAP[1:]),
    "no axis of samples, linear": (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), (8,)),
    "upsampling of old": (lambda: nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2)), MAP),
    "synchronised norm": (lambda: nn.SyncBatchNorm(8), MAP),
    "larger than 2**31": (lambda: nn.Conv2d(64, 256, 3, padding=1), (1, 64, 128, 128)),
}
