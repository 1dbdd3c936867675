"""One training step, ours beside PyTorch's: forward through all exits, cross-entropy, backward, SGD update.

    python bench/bench_train.py [--threads 1] [--rounds 15] [--json]

With more threads, both share the work of one step among them. PyTorch runs eagerly in NCHW and in channels_last;
the better of the two is the peer. Ours and theirs take turns, and the best round of each counts, so that a busy
machine slows both.
"""

from collections.abc import Callable
from typing import Any

from fire import Fire
from measuring import best_of_rounds, machine, on_threads, tell

CASES = (("T8", 64), ("T8", 16), ("T8", 256), ("T32", 64), ("T32k5", 64))
CLASSES = 11


def our_step(name: str, batch: int) -> Callable[[], float]:
    """Return a function that makes one training step and returns the loss."""
    import numpy as np
    from train_networks import NETWORKS, Network

    from nachos_min.autograd import Tensor, cross_entropy
    from nachos_min.nn.optim import SGD

    shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    network = Network(shape, rng)
    network.train()
    optimiser = SGD(network.named_parameters(), momentum=0.9)
    images = rng.standard_normal((batch, *shape.image), np.float32)
    labels = rng.integers(0, CLASSES, batch)

    def step() -> float:
        losses = [cross_entropy(logits, labels).mean() for logits in network(Tensor(images))]
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        total.backward()
        optimiser.step(0.01)
        return float(total.data)

    return step


def torch_step(name: str, batch: int, channels_last: bool) -> Callable[[], float]:
    """Return the same step in PyTorch."""
    import torch
    from torch.nn.functional import cross_entropy
    from train_networks import NETWORKS, torch_network

    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = NETWORKS[name]
    height, width, channels = shape.image
    network = torch_network(shape).to(memory_format=layout).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch, channels, height, width).contiguous(memory_format=layout)
    labels = torch.randint(0, CLASSES, (batch,))

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        total = sum(cross_entropy(logits, labels) for logits in network(images))
        total.backward()
        optimiser.step()
        return float(total.detach())

    return step


def main(threads: int = 1, rounds: int = 15, json: bool = False) -> None:
    """Print a table of milliseconds a step and ratios; with --json one JSON object."""
    on_threads(1)  # of linear algebra: ours shares the work itself, PyTorch is told below
    import torch

    from nachos_min.autograd import set_threads
    from nachos_min.nas.pools import keep_freed_memory

    keep_freed_memory()  # as the workers of a search do; PyTorch profits too
    torch.set_num_threads(threads)
    set_threads(threads)
    rows: list[dict[str, Any]] = []
    for name, batch in CASES:
        steps = {
            "ours ms": our_step(name, batch),
            "torch ms": torch_step(name, batch, channels_last=False),
            "channels_last ms": torch_step(name, batch, channels_last=True),
        }
        seconds = best_of_rounds(steps, rounds, settle=0.25 if threads > 1 else 0.0)
        peer = min(seconds["torch ms"], seconds["channels_last ms"])
        milliseconds = {key: 1e3 * value for key, value in seconds.items()}
        rows.append({"network": name, "batch": batch, **milliseconds, "faster x": peer / seconds["ours ms"]})
    tell(machine(threads), rows, json)


if __name__ == "__main__":
    Fire(main)
