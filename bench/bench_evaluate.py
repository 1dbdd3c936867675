"""One whole candidate, ours beside PyTorch's, on one thread.

    python bench/bench_evaluate.py [--genomes small,medium,large] [--rounds 3] [--json]

Backbone epochs, exit epochs with both regularisers, exact thresholds, certificate on validation and test: what a
search does 200 times, on `digits` with the default recipe. The peer is the same procedure written
straightforwardly in PyTorch (`torch_candidate.py`), eager, where the backbone runs in every exit epoch as in the
released code; of NCHW and channels_last the faster one counts. Both begin from the same weights; both use this
project's threshold search (PyTorch has none), 1 to 20 ms. Rounds take turns, the best of each counts. Ours begins
without any remembered backbone. `must` is 4, `aim` 8 times faster.
"""

from typing import Any

from fire import Fire
from measuring import best_of_rounds, machine, on_threads, peer_on_threads, tell

MAX_MACS, MIN_ACCURACY, SEED = 40_000, 0.9, 0


def genomes_of(coder: Any) -> dict[str, Any]:
    """Return three genomes: every gene smallest, in the middle, largest; every exit there."""
    import numpy as np

    found = {}
    for name, share in (("small", 0.0), ("medium", 0.5), ("large", 1.0)):
        genome = np.floor(coder.upper * share).astype(np.int64)
        genome[coder.exit_genes] = 1
        found[name] = tuple(coder.canonical(genome[None])[0].tolist())
    return found


def task_of(problem: Any, genome: Any, answers: dict[str, Any]) -> Any:
    """Return a function that evaluates the genome with this project."""
    from nachos_min.nas.evaluate import evaluate
    from nachos_min.nas.evaluation import Trial

    def task() -> None:
        found = evaluate(problem.coder, problem.dataset, problem.configuration.acting, Trial(genome))
        answers["ours"] = found.chosen.test.accuracy, found.chosen.test.average_macs

    return task


def torch_task_of(problem: Any, genome: Any, answers: dict[str, Any], channels_last: bool) -> Any:
    """Return a function that does the same in PyTorch."""
    import numpy as np
    import torch
    from torch_candidate import Trainer, candidate_like, gated, tables

    from nachos_min.eenn.lowering import static_costs
    from nachos_min.eenn.threshold_search import best_thresholds
    from nachos_min.eenn.thresholds import PolicyTables, split_limits
    from nachos_min.nas.evaluate import build

    layout = torch.channels_last if channels_last else torch.contiguous_format
    data, recipe = problem.dataset, problem.configuration.recipe
    name = "torch, channels_last" if channels_last else "torch"

    def task() -> None:
        network = build(problem.coder, genome, SEED)
        costs = static_costs(network.architecture).exit_costs
        peer = candidate_like(network, channels_last=channels_last)
        trainer = Trainer(np.asarray(data.train.images), data.train.labels, recipe, channels_last=channels_last)
        trainer.backbone(peer)
        trainer.exits(peer, costs, MAX_MACS)
        confidence, predicted = tables(peer, np.asarray(data.validation.images), layout)
        policy = PolicyTables(confidence, predicted == data.validation.labels[:, None], costs)
        chosen = best_thresholds(policy, split_limits(MAX_MACS, MIN_ACCURACY, policy.samples))
        for split in (data.validation, data.test):
            x = torch.from_numpy(np.asarray(split.images)).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            labels, exits = gated(peer, x, chosen.thresholds)
            macs = float(np.array(costs)[exits.numpy()].mean())
            answers[name] = float((labels.numpy() == split.labels).mean()), macs

    return task


def main(
    genomes: str | tuple[str, ...] = "small,medium,large", rounds: int = 3, threads: int = 1, json: bool = False
) -> None:
    """Print seconds a candidate and how many times faster ours is; with --json one JSON object."""
    on_threads(threads)
    from asked import configuration

    from nachos_min.nas.configuration import load_problem

    peers = peer_on_threads(threads)
    frozen = {"joint": False}  # as the peer, which trains exits on a frozen backbone, too
    asked = configuration("digits", "tiny", MAX_MACS, MIN_ACCURACY, seed=SEED, points="best", recipe=frozen)
    problem = load_problem(asked)
    known = genomes_of(problem.coder)
    rows: list[dict[str, Any]] = []
    for name in genomes.split(",") if isinstance(genomes, str) else genomes:
        answers: dict[str, Any] = {}
        tasks = {"ours": task_of(problem, known[name], answers)}
        if peers:
            tasks["torch"] = torch_task_of(problem, known[name], answers, False)
            tasks["torch, channels_last"] = torch_task_of(problem, known[name], answers, True)
        seconds = best_of_rounds(tasks, rounds, warm=1)
        theirs = [value for key, value in seconds.items() if key != "ours"]
        rows.append(
            {"genome": name, **{f"{key} s": value for key, value in seconds.items()}}
            | {"times faster": min(theirs) / seconds["ours"] if theirs else None}
            | {f"{key} test accuracy": answer[0] for key, answer in answers.items()}
        )
    tell(machine(threads), rows, json)


if __name__ == "__main__":
    Fire(main)
