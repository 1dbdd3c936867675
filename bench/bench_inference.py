"""Early-exit inference beside full inference, and beside PyTorch with the same gating.

    python bench/bench_inference.py [--networks T32e,tiny] [--rounds 15] [--threads 1] [--json]

T32e is an early-exit relative of the 3x32x32 network of `train_networks.py`: stem 16, stages 16/32/64/96 with
strides 2/1/2/2, two MBConv blocks each (T32 itself spends half of its MACs before its first exit). `tiny` is the
largest network of the default space.
Their weights are random; thresholds are set so that the same share of the samples that come to an early exit
leaves at each, and that share so that the average MACs are 30, 50 and 70 % of a full inference, which asks every
exit and lets nobody leave. `time share` is the wall time as a share of full inference: MACs saved are worth
what of them arrives there. PyTorch runs the same weights and thresholds, in NCHW and in channels_last; the faster
counts. Rounds take turns, the best counts. For batch 512 at 50 % of the MACs, `must` is a time share of 0.65, `aim`
0.55.
"""

from typing import Any

from fire import Fire
from measuring import best_of_rounds, machine, on_threads, peer_on_threads, tell

SHARES = (0.3, 0.5, 0.7)
IMAGES = 512


def architecture_of(name: str) -> Any:
    """Return the early-exit architecture to measure."""
    import numpy as np
    from train_networks import EXPANSION, HEAD_WIDTH, NETWORKS, Shape

    from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.space import load_space

    if name == "tiny":
        coder = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
        return coder.decode(tuple(coder.canonical(np.array([coder.upper]))[0].tolist()))
    shape = {"T32e": Shape((32, 32, 3), 16, (16, 32, 64, 96), (2, 1, 2, 2), 3), **NETWORKS}[name]
    stages = tuple(
        tuple(
            MBConvSpec(before, before * EXPANSION, after, shape.kernel, stride, "hswish")
            for before, after, stride in blocks
        )
        for blocks in shape.blocks()
    )
    exits = tuple(Exit(stage, ExitHead(pool, (HEAD_WIDTH,))) for stage, pool in ((1, 4), (2, 4), (3, 2)))
    final = FinalHead(HEAD_WIDTH * 4, 0, "hswish")
    return Architecture(shape.image, 10, Stem(shape.stem, 3, 1, "hswish"), (), stages, exits, final)


def thresholds_for(confidence: Any, costs: Any, share: float) -> tuple[tuple[float, ...], float]:
    """Return thresholds with which the average cost is nearly `share` of the dearest, and the share it is."""
    import numpy as np

    def by_leaving(part: float) -> tuple[tuple[float, ...], float]:
        staying, spent, found = np.arange(len(confidence)), 0.0, []
        for place, cost in enumerate(costs[:-1]):
            here = np.sort(confidence[staying, place])[::-1]
            leave = round(part * len(here))
            # In the middle of a gap: the peer's rounding must not change sides.
            found.append(float(here[max(leave - 1, 0) : leave + 1].mean()) if 0 < leave < len(here) else 2.0 - part)
            gone = confidence[staying, place] >= found[-1]
            spent += cost * gone.sum()
            staying = staying[~gone]
        return (*found, 0.0), (spent + costs[-1] * len(staying)) / (costs[-1] * len(confidence))

    tried = [by_leaving(part) for part in np.linspace(0.001, 0.999, 999)]
    return min(tried, key=lambda each: abs(each[1] - share))


def measured(name: str, batches: tuple[int, ...], rounds: int, peers: bool) -> list[dict[str, Any]]:
    """Return the rows of one network."""
    import numpy as np

    from nachos_min.eenn.inference import exit_answers, predict
    from nachos_min.eenn.lowering import static_costs
    from nachos_min.eenn.network import EarlyExitNetwork

    architecture = architecture_of(name)
    rng = np.random.default_rng(0)
    network = EarlyExitNetwork(architecture, rng, rng)
    images = rng.standard_normal((IMAGES, *architecture.input_shape), np.float32)
    costs = static_costs(architecture).exit_costs
    nobody = (2.0,) * (len(costs) - 1) + (0.0,)
    confidence = exit_answers(network, images).tables().confidence
    rows = []
    for batch in batches:
        # Of few samples, few shares of MACs can be made: batch 1 runs 64 images one by one.
        few = images[: min(IMAGES, max(64, batch))]
        for share in SHARES:
            thresholds, reached = thresholds_for(confidence[: len(few)], costs, share)

            def ours(policy: tuple[float, ...], group: int = batch, x: Any = few) -> Any:
                return lambda: predict(network, x, policy, batch=group)

            tasks = {"full": ours(nobody), "early": ours(thresholds)}
            if peers:
                tasks |= torch_tasks(network, few, batch, {"full": nobody, "early": thresholds})
            found = {key: 1e3 * value for key, value in best_of_rounds(tasks, rounds, warm=1).items()}
            row: dict[str, Any] = {"network": name, "batch": batch, "images": len(few), "MAC share": reached}
            row |= {
                "time share": found["early"] / found["full"],
                "ms full": found["full"],
                "ms early": found["early"],
            }
            for what in ("full", "early"):
                both = [value for key, value in found.items() if key.endswith(f"torch {what}")]
                row |= {f"torch ms {what}": min(both, default=None)}
            theirs = row["torch ms early"]
            row |= {"torch time share": theirs / row["torch ms full"] if theirs else None}
            row |= {"times faster early": theirs / row["ms early"] if theirs else None}
            rows.append(row)
    return rows


def torch_tasks(network: Any, images: Any, batch: int, policies: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """Return the same tasks in PyTorch, in both layouts, their answers checked against ours."""
    import torch
    from torch_candidate import candidate_like, gated

    from nachos_min.eenn.inference import predict

    tasks = {}
    for channels_last in (False, True):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        peer = candidate_like(network, channels_last=channels_last).eval()
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        for what, policy in policies.items():

            def task(peer: Any = peer, x: Any = x, policy: tuple[float, ...] = policy) -> list[Any]:
                return [gated(peer, group, policy) for group in x.split(batch)]

            exits = torch.cat([exits for _, exits in task()]).numpy()
            same = (exits == predict(network, images, policy, batch=batch).exits).mean()
            assert same > 0.98, f"PyTorch leaves elsewhere: only {same:.0%} of the samples agree"
            tasks[f"{'channels_last' if channels_last else 'NCHW'} torch {what}"] = task
    return tasks


def main(
    networks: str | tuple[str, ...] = "T32e,tiny",
    batches: tuple[int, ...] = (1, 32, 512),
    rounds: int = 15,
    threads: int = 1,
    json: bool = False,
) -> None:
    """Print milliseconds and shares; with --json one JSON object."""
    on_threads(threads)
    peers = peer_on_threads(threads)
    names = networks.split(",") if isinstance(networks, str) else networks
    sizes = batches if isinstance(batches, tuple) else (batches,)
    rows = [row for name in names for row in measured(name, sizes, rounds, peers)]
    tell(machine(threads), rows, json)


if __name__ == "__main__":
    Fire(main)
