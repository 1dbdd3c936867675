"""What other tools report for known networks, beside what their conventions predict from one set of records.

    python bench/bench_macs.py [--json] [--networks resnet20_a,two_exits] [--side 32]

Needs PyTorch, and counts with as many of the tools as are installed (`pip install -e ".[counters]"`). A row that
differs is marked; a tool that fails says why. The last lines give the versions, and how many rows differ.
"""

import json as json_format
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch_networks
from fire import Fire

from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.conventions.peers import PEERS, installed, reported
from nachos_min.macs.count import count
from nachos_min.macs.readers.torch_reader import read_torch

SMALLEST = {"ks": (3,) * 10, "e": (3,) * 10, "d": (2,) * 5}
NETWORKS: dict[str, Callable[[], Any]] = {
    "mobilenet_v3_large": torch_networks.mobilenet_v3_large,
    "resnet20_a": torch_networks.resnet20_a,
    "resnet20_b": torch_networks.resnet20_b,
    "two_exits": torch_networks.two_exits,
    "two_exits_final": lambda: torch_networks.two_exits("final"),
    "two_exits_gate": lambda: torch_networks.two_exits("gate", 2),
    "ofa_smallest": lambda: torch_networks.ofa_mbv3(**SMALLEST),
    "ofa_largest": torch_networks.ofa_mbv3,
}
ALL = ",".join(NETWORKS)


def versions() -> dict[str, str]:
    """Return the version of PyTorch and of each tool that is installed."""
    found = {}
    for package in sorted({"torch", *(peer.package.replace("_", "-") for peer in PEERS.values())}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def compare(name: str, side: int) -> list[dict[str, Any]]:
    """Return one row per tool: what its convention predicts for a network, what it reports, and in what time."""
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    x = torch.randn(1, 3, side, side)
    start = time.perf_counter()
    graph = read_torch(module, (x,))
    reading = time.perf_counter() - start
    exact = count(graph).macs
    rows = []
    for tool in filter(installed, PEERS):
        start = time.perf_counter()
        predicted = CONVENTIONS[tool].total(graph)
        middle = time.perf_counter()
        number, reason = reported(tool, module, (x,))
        rows.append(
            {
                "network": name,
                "tool": tool,
                "exact": exact,
                "predicted": predicted,
                "reported": number,
                "reason": reason,
                "differs": number is not None and number != predicted,
                "seconds": reading + middle - start,
                "tool_seconds": time.perf_counter() - middle,
            }
        )
    return rows


def main(networks: str | tuple[str, ...] = ALL, side: int = 32, json: bool = False) -> None:
    """Print predicted and reported counts as a table or as one JSON object.

    Args:
        networks: comma-separated names.
        side: height and width of the image, in pixels.
        json: print JSON.
    """
    names = networks.split(",") if isinstance(networks, str) else networks  # Fire makes a tuple of a,b

    read_torch(torch.nn.ReLU(), (1, 1))  # the first reading loads parts of PyTorch
    table: list[dict[str, Any]] = []
    if not json:
        heads = f"{'exact':>15}{'predicted':>15}{'reported':>15}{'ours':>10}{'theirs':>10}"
        print(f"{'network':20}{'tool':16}{heads}")
    for name in names:
        rows = compare(name, side)
        table += rows
        if not json:
            for row in rows:
                counted = "-" if row["reported"] is None else f"{row['reported']:,}"
                times = f"{row['seconds'] * 1e3:7.0f} ms{row['tool_seconds'] * 1e3:7.0f} ms"
                mark = "  DIFFERS" if row["differs"] else f"  {row['reason']}" if row["reason"] else ""
                figures = f"{row['exact']:15,}{row['predicted']:15,}{counted:>15}"
                print(f"{name:20}{row['tool']:16}{figures}{times}{mark}", flush=True)
    differ = sum(row["differs"] for row in table)
    if json:
        print(json_format.dumps({"versions": versions(), "rows": table, "differ": differ}))
        return
    print("\n" + ", ".join(f"{package} {number}" for package, number in versions().items()))
    print(f"{differ} of {sum(row['reported'] is not None for row in table)} numbers differ")


if __name__ == "__main__":
    Fire(main)
