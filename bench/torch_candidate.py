"""One candidate in PyTorch, written straightforwardly: the peer of `bench_evaluate.py` and `bench_inference.py`.

The same architecture from the same description, the same recipe, eagerly on one thread. As in the released code
of the method, the backbone runs in every step of the exits' training too; it is frozen and in inference mode.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, MBConvSpec
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.eenn.training import draw_support
from nachos_min.nn.optim import cosine_rate

ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish, "identity": nn.Identity}
Labels = np.ndarray[Any, np.dtype[np.int64]]


def conv_norm(before: int, after: int, kernel: int, activation: str, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return convolution, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        ACTIVATIONS[activation](),
    )


class Block(nn.Module):
    """An inverted residual without squeeze-and-excitation."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__()
        assert not spec.squeezed, "this peer has no squeeze-and-excitation"
        expand = [conv_norm(spec.in_channels, spec.middle, 1, spec.activation)] if spec.expand else []
        depthwise = conv_norm(spec.middle, spec.middle, spec.kernel, spec.activation, spec.stride, spec.middle)
        self.layers = nn.Sequential(*expand, depthwise, conv_norm(spec.middle, spec.out_channels, 1, "identity"))
        self.residual = spec.residual

    def forward(self, x: Any) -> Any:
        return x + self.layers(x) if self.residual else self.layers(x)


class EarlyHead(nn.Module):
    """Max-pool, ReLU, convolutions, linear to C logits and a confidence."""

    def __init__(self, feature_map: Sequence[int], head: ExitHead, classes: int) -> None:
        super().__init__()
        height, width, channels = feature_map
        layers: list[nn.Module] = [nn.MaxPool2d(head.pool)] if head.pool > 1 else []
        layers.append(nn.ReLU())
        for out in head.widths:
            layers += [nn.Conv2d(channels, out, 3, 1, 1), nn.ReLU()]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear((height // head.pool) * (width // head.pool) * channels, classes + 1)

    def forward(self, x: Any) -> tuple[Any, Any]:
        out = self.linear(self.layers(x).permute(0, 2, 3, 1).flatten(1))  # our order of features: H W C
        return out[:, :-1], torch.sigmoid(out[:, -1])


class LastHead(nn.Module):
    """1x1 expand, mean, mix, linear."""

    def __init__(self, channels: int, head: FinalHead, classes: int) -> None:
        super().__init__()
        self.expand = conv_norm(channels, head.expand, 1, head.activation) if head.expand else nn.Identity()
        channels = head.expand or channels
        mix = [nn.Linear(channels, head.mix, bias=False), ACTIVATIONS[head.activation]()] if head.mix else []
        self.rest = nn.Sequential(*mix, nn.Linear(head.mix or channels, classes))

    def forward(self, x: Any) -> tuple[Any, Any]:
        return self.rest(self.expand(x).mean((2, 3))), None


class Candidate(nn.Module):
    """Backbone in segments, and a head after each."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        stem = architecture.stem
        channels = architecture.input_shape[2]
        parts = [[Block(spec) for spec in specs] for specs in architecture.segments()]
        parts[0].insert(0, conv_norm(channels, stem.channels, stem.kernel, stem.activation, stem.stride))
        self.segments = nn.ModuleList(nn.Sequential(*part) for part in parts)
        maps = architecture.exit_maps()
        heads: list[nn.Module] = [
            EarlyHead(feature_map, early.head, architecture.classes)
            for feature_map, early in zip(maps, architecture.exits, strict=False)
        ]
        self.heads = nn.ModuleList([*heads, LastHead(maps[-1][2], architecture.final, architecture.classes)])

    def forward(self, x: Any) -> list[tuple[Any, Any]]:
        found = []
        for segment, head in zip(self.segments, self.heads, strict=True):
            x = segment(x)
            found.append(head(x))
        return found


def candidate_like(network: EarlyExitNetwork, *, channels_last: bool) -> Candidate:
    """Return the candidate with our network's architecture, weights and running statistics."""
    peer = Candidate(network.architecture)
    with torch.no_grad():
        for ours, theirs in zip(network.named_parameters().values(), peer.parameters(), strict=True):
            w = torch.from_numpy(ours.data.copy())
            if theirs.ndim == 4:  # ours (KH, KW, I, O), or (KH, KW, C) of a depthwise convolution
                w = w.permute(3, 2, 0, 1) if w.ndim == 4 else w.permute(2, 0, 1)[:, None]
            theirs.copy_(w.T if theirs.ndim == 2 else w)
        statistics = [buffer for name, buffer in peer.named_buffers() if not name.endswith("tracked")]
        for ours_too, buffer in zip(network.named_buffers().values(), statistics, strict=True):
            buffer.copy_(torch.from_numpy(ours_too))
    return peer.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def exits_loss(
    outputs: list[tuple[Any, Any]], y: Any, costs: Sequence[int], max_macs: int | None, support: Any
) -> Any:
    """Return the loss of `eenn/losses.py` with all weights 1."""
    h = torch.stack([confidence for _, confidence in outputs[:-1]], dim=1)
    ones = torch.ones(len(y), 1)
    q = torch.cumprod(torch.cat([ones, 1 - h], 1), 1) * torch.cat([h, ones], 1)
    entropy = torch.stack([F.cross_entropy(logits, y, reduction="none") for logits, _ in outputs], 1)
    total = (q * entropy).sum(1).mean()
    right = torch.stack([logits.argmax(1) == y for logits, _ in outputs[:-1]], 1).float()
    ones_, zeros = right.sum(0), (1 - right).sum(0)
    weight = right * len(y) / (2 * ones_.clamp(min=1)) + (1 - right) * len(y) / (2 * zeros.clamp(min=1))
    total = total + F.binary_cross_entropy(h.clamp(1e-4, 1 - 1e-4), right, weight)
    if max_macs is not None and costs[-1] > max_macs:
        shares = torch.tensor([(cost - max_macs) / (costs[-1] - max_macs) for cost in costs])
        total = total + torch.relu((q * shares).sum(1).mean())
    return total if support is None else total + ((h - support[y]) ** 2).mean()


class Trainer:
    """The three phases on one data set, images N H W C as everywhere in this project."""

    def __init__(self, images: Any, labels: Labels, recipe: PaperRecipe, *, channels_last: bool) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        self.labels, self.y, self.recipe = labels, torch.from_numpy(labels), recipe

    def _epochs(self, parameters: Any, rate: float, epochs: Sequence[Any], loss_of: Any, start: Any) -> None:
        recipe = self.recipe
        optimiser = torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=recipe.weight_decay)
        step, steps = 0, len(epochs) * -(-len(self.labels) // recipe.batch)
        for epoch in epochs:
            samples, extra = start(epoch)
            order = torch.from_numpy(np.random.default_rng(step).permutation(samples))
            for chosen in order.split(recipe.batch):
                if len(chosen) > 1:
                    for group in optimiser.param_groups:
                        group["lr"] = cosine_rate(rate, step, steps)
                    optimiser.zero_grad(set_to_none=True)
                    loss_of(self.images[chosen], self.y[chosen], extra).backward()
                    optimiser.step()
                    step += 1

    def backbone(self, peer: Candidate) -> None:
        """Train stages and final classifier."""

        def loss_of(x: Any, y: Any, _: None) -> Any:
            for segment in peer.segments:
                x = segment(x)
            return F.cross_entropy(peer.heads[-1](x)[0], y)

        peer.train()
        parameters = [*peer.segments.parameters(), *peer.heads[-1].parameters()]
        everything = np.arange(len(self.labels))
        epochs = range(self.recipe.backbone_epochs)
        self._epochs(parameters, self.recipe.backbone_rate, epochs, loss_of, lambda _: (everything, None))

    def exits(self, peer: Candidate, costs: Sequence[int], max_macs: int | None) -> None:
        """Train the heads, the backbone frozen but run in every step."""
        recipe, rng = self.recipe, np.random.default_rng(0)

        def start(epoch: int) -> tuple[Any, Any]:
            peer.eval()
            samples, table = np.arange(len(self.labels)), None
            if epoch >= recipe.warmup_epochs:
                support = draw_support(self.labels, recipe.support_share, rng)
                with torch.no_grad():
                    outputs = peer(self.images[torch.from_numpy(support)])
                y = self.y[torch.from_numpy(support)]
                right = torch.stack([logits.argmax(1) == y for logits, _ in outputs[:-1]], 1).float()
                table = torch.stack([right[y == label].mean(0) for label in range(int(self.y.max()) + 1)])
                samples = np.setdiff1d(samples, support)
            peer.heads.train()
            return samples, table

        def loss_of(x: Any, y: Any, table: Any) -> Any:
            return exits_loss(peer(x), y, costs, max_macs, table)

        peer.segments.requires_grad_(False)
        epochs = range(recipe.warmup_epochs + recipe.support_epochs)
        self._epochs(peer.heads.parameters(), recipe.exits_rate, epochs, loss_of, start)


def tables(peer: Candidate, images: Any, layout: Any) -> tuple[Any, Any]:
    """Return cumulative confidence and predicted class, NumPy (N, E), by inference of all exits."""
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        outputs = peer.eval()(x)
        h = torch.stack([confidence for _, confidence in outputs[:-1]], 1).double()
        cumulative = torch.cat([1 - torch.cumprod(1 - h, 1), torch.ones(len(x), 1)], 1)
        return cumulative.numpy(), torch.stack([logits.argmax(1) for logits, _ in outputs], 1).numpy()


def gated(peer: Candidate, x: Any, thresholds: Sequence[float]) -> tuple[Any, Any]:
    """Return label and exit of each image of the batch `x` (N C H W); who is sure enough goes no further."""
    with torch.inference_mode():
        labels = torch.empty(len(x), dtype=torch.int64)
        exits = torch.empty(len(x), dtype=torch.int64)
        staying, doubt = torch.arange(len(x)), torch.ones(len(x), dtype=torch.float64)
        for place, (segment, head) in enumerate(zip(peer.segments, peer.heads, strict=True)):
            x = segment(x)
            logits, confidence = head(x)
            if confidence is None:
                leaving = torch.ones(len(x), dtype=torch.bool)
            else:
                doubt = doubt * (1 - confidence.double())
                leaving = 1 - doubt >= thresholds[place]
            labels[staying[leaving]] = logits.argmax(1)[leaving]
            exits[staying[leaving]] = place
            staying, doubt, x = staying[~leaving], doubt[~leaving], x[~leaving]
            if not len(staying):
                break
        return labels, exits
