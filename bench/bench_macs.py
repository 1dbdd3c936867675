"""Every other tool on forty networks: each number is the one predicted, or its difference has a stated cause.

    python bench/bench_macs.py [--json] [--networks resnet20_a,two_exits] [--most 40]

Needs PyTorch, and counts with as many of the tools as are installed (`pip install -e ".[counters]"`). Networks are
our own, layers as PyTorch has them and, where torchvision is installed, some that others wrote. The exit status is
1 if a difference has no cause, a network is refused, or more than 3 of 100 numbers are exceptions.
"""

import json as json_format
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import models
import torch
import torch_networks
from fire import Fire
from torch import nn

from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.conventions.exceptions import cause_of
from nachos_min.macs.conventions.peers import PEERS, reported
from nachos_min.macs.count import count
from nachos_min.macs.readers.torch_reader import read_torch
from nachos_min.macs.record import CountError

SMALLEST = {"ks": (3,) * 10, "e": (3,) * 10, "d": (2,) * 5}
MOST_EXCEPTIONS = 0.03  # of all numbers
Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


def _of(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Made]:
    return lambda: (make(), (torch.randn(shape),))


class _First(nn.Module):
    """A recurrent layer whose first result a linear layer reads."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(features, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.layer(x)[0])
        return result


def _windows(axes: int, kind: str = "Conv") -> nn.Module:
    """Return windows of 1, 2 or 3 axes: convolutions, norm, pools."""
    named = {name: getattr(nn, f"{name}{axes}d") for name in (kind, "BatchNorm", "MaxPool", "AdaptiveAvgPool")}
    first, second = named[kind](8, 12, 3, padding=1, groups=4), named[kind](12, 6, 2, stride=2)
    tail = (nn.ReLU(), named["MaxPool"](2), named["AdaptiveAvgPool"](1), nn.Flatten(), nn.Linear(6, 3))
    return nn.Sequential(first, named["BatchNorm"](12), nn.GELU(), second, *tail)


_ENCODER = partial(nn.TransformerEncoderLayer, 16, 4, 32, batch_first=True)
_SIGNAL, _MAP, _FILM, _STEPS = (2, 8, 20), (2, 8, 12, 12), (2, 8, 8, 8, 8), (2, 6, 16)
OWN: dict[str, Callable[[], Made]] = {
    "mobilenet_v3_large": _of(torch_networks.mobilenet_v3_large, 1, 3, 32, 32),
    "resnet20_a": _of(torch_networks.resnet20_a, 1, 3, 32, 32),
    "resnet20_b": _of(torch_networks.resnet20_b, 1, 3, 32, 32),
    "two_exits": _of(torch_networks.two_exits, 1, 3, 32, 32),
    "two_exits_final": _of(lambda: torch_networks.two_exits("final"), 1, 3, 32, 32),
    "two_exits_gate": _of(lambda: torch_networks.two_exits("gate", 2), 1, 3, 32, 32),
    "ofa_smallest": _of(lambda: torch_networks.ofa_mbv3(**SMALLEST), 1, 3, 32, 32),
    "ofa_largest": _of(torch_networks.ofa_mbv3, 1, 3, 32, 32),
    "windows_1": _of(lambda: _windows(1), *_SIGNAL),
    "windows_2": _of(lambda: _windows(2), *_MAP),
    "windows_3": _of(lambda: _windows(3), *_FILM),
    "transposed_1": _of(lambda: _windows(1, "ConvTranspose"), *_SIGNAL),
    "transposed_2": _of(lambda: _windows(2, "ConvTranspose"), *_MAP),
    "transposed_3": _of(lambda: _windows(3, "ConvTranspose"), *_FILM),
    "lstm": _of(lambda: _First(nn.LSTM(16, 8), 8), *_STEPS),
    "lstm_two_ways": _of(lambda: _First(nn.LSTM(16, 8, 2, bidirectional=True), 16), *_STEPS),
    "lstm_projected": _of(lambda: _First(nn.LSTM(16, 8, proj_size=4), 4), *_STEPS),
    "gru": _of(lambda: _First(nn.GRU(16, 8), 8), *_STEPS),
    "gru_two_ways": _of(lambda: _First(nn.GRU(16, 8, 2, bidirectional=True, bias=False), 16), *_STEPS),
    "rnn": _of(lambda: _First(nn.RNN(16, 8, nonlinearity="relu"), 8), *_STEPS),
    "lstm_cell": _of(lambda: _First(nn.LSTMCell(16, 8), 8), 3, 16),
    "gru_cell": _of(lambda: nn.Sequential(nn.GRUCell(16, 8), nn.Linear(8, 5)), 3, 16),
    "encoder": _of(_ENCODER, *_STEPS),
    "encoder_gelu": _of(lambda: _ENCODER(activation="gelu", norm_first=True), *_STEPS),
    "perceptron": _of(
        lambda: nn.Sequential(nn.Linear(16, 32), nn.PReLU(), nn.Linear(32, 4), nn.Softmax(-1)), 3, 16
    ),
    "norms": _of(lambda: nn.Sequential(nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.BatchNorm2d(8)), *_MAP),
    "upsampling": _of(lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3)), *_MAP),
}
_TORCHVISION = """
    alexnet densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf
    resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t vgg11 vit_b_32 convnext_tiny r3d_18
"""


def _networks() -> dict[str, Callable[[], Made]]:
    """Return our own networks and, if torchvision is installed, some of its."""
    if find_spec("torchvision") is None:
        return OWN
    found = [model for model in models.models("torchvision") if model.name in _TORCHVISION.split()]
    return OWN | {f"torchvision.{model.name}": partial(models.make, model) for model in found}


def versions() -> dict[str, str]:
    """Return the version of PyTorch and of each tool that is installed."""
    found = {}
    for package in sorted({"torch", *(peer.package.replace("_", "-") for peer in PEERS.values())}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def compare(name: str, make: Callable[[], Made]) -> list[dict[str, Any]]:
    """Return one row per tool: what its convention predicts for a network, what it reports, and in what time."""
    torch.manual_seed(0)
    module, inputs = make()
    module.eval()
    start = time.perf_counter()
    graph = read_torch(module, inputs)
    reading = time.perf_counter() - start
    rows = []
    for tool in PEERS:
        start = time.perf_counter()
        predicted = CONVENTIONS[tool].total(graph)
        middle = time.perf_counter()
        number, reason = reported(tool, module, inputs)
        end = time.perf_counter()
        verdict = "not run" if number is None else "equal" if number == predicted else "unexplained"
        if number is not None and verdict == "unexplained":
            reason = cause_of(tool, graph, number, module, inputs)
            verdict = "explained" if reason else verdict
        rows.append(
            {
                "network": name,
                "tool": tool,
                "exact": count(graph).macs,
                "predicted": predicted,
                "reported": number,
                "verdict": verdict,
                "reason": reason,
                "seconds": reading + middle - start,
                "tool_seconds": end - middle,
            }
        )
    return rows


def main(networks: str | tuple[str, ...] = "", most: int = 1000, json: bool = False) -> None:
    """Print each tool's numbers by verdict, and in full what is not equal; or everything as one JSON object.

    Args:
        networks: comma-separated names; "" for all.
        most: so many networks at most, the first ones.
        json: print JSON.
    """
    warnings.simplefilter("ignore")
    names = networks.split(",") if isinstance(networks, str) else networks  # Fire makes a tuple of a,b
    chosen = {name: make for name, make in _networks().items() if names in ([""], ()) or name in names}
    read_torch(nn.ReLU(), (1, 1))  # the first reading loads parts of PyTorch
    table: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for name, make in list(chosen.items())[:most]:
        try:
            table += compare(name, make)
        except CountError as error:
            refused[name] = str(error)
        print(f"\r{len(table) // len(PEERS)} of {len(chosen)} networks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    run = [row for row in table if row["reported"] is not None]
    exceptions = sum(row["verdict"] == "explained" for row in run)
    failed = bool(refused) or any(row["verdict"] == "unexplained" for row in run)
    failed |= exceptions > MOST_EXCEPTIONS * len(run)
    if json:
        print(json_format.dumps({"versions": versions(), "rows": table, "refused": refused, "failed": failed}))
    else:
        _show(table, refused)
        print(f"{len(table) // len(PEERS)} networks, {len(run)} numbers, {exceptions} of them exceptions")
        print(", ".join(f"{package} {number}" for package, number in versions().items()))
    sys.exit(failed)


def _show(table: list[dict[str, Any]], refused: dict[str, str]) -> None:
    verdicts = ("equal", "explained", "not run", "unexplained")
    cells = Counter((row["tool"], row["verdict"]) for row in table)
    print(f"{'tool':16}" + "".join(f"{verdict:>12}" for verdict in verdicts))
    for tool in PEERS:
        print(f"{tool:16}" + "".join(f"{cells[tool, verdict]:12}" for verdict in verdicts))
    print()
    for row in table:
        if row["verdict"] in ("explained", "unexplained"):
            numbers = f"{row['predicted']:,} predicted, {row['reported']:,} reported"
            print(f"{row['network']}, {row['tool']}: {numbers}: {row['reason'] or 'UNEXPLAINED'}")
    for (tool, reason), times in Counter(
        (r["tool"], r["reason"]) for r in table if r["verdict"] == "not run"
    ).items():
        print(f"{tool} not run ({times} networks): {reason}")
    for name, reason in refused.items():
        print(f"{name} is refused: {reason}")


if __name__ == "__main__":
    Fire(main)
