"""Figures of the data set digits32: its scenes from easy to hard, and at which exits of a network they leave.

    python bench/figure_digits32.py [--to digits32.png]
    python bench/figure_digits32.py --run runs/digits32 [--solution 0] [--split test] [--to exits.png]

The first shows test scenes, a row for each tenth of difficulty. The second shows one solution of a run: for every
exit the scenes that leave there, from the easiest to the hardest, and how the share of each exit changes with
difficulty; it prints the same as a table, with Spearman's correlation of difficulty and exit. Needs matplotlib.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
from fire import Fire
from measuring import show
from scipy.stats import spearmanr

from nachos_min.data.load import load_unscaled
from nachos_min.eenn.inference import predict
from nachos_min.nas.evaluate import as_seen, build
from nachos_min.nas.evaluation import Evaluation
from nachos_min.nas.runs import load_run, stored_evaluations, stored_problem

mpl.use("Agg")
from matplotlib import pyplot

ACROSS = 16  # scenes in a row
BINS = 10  # of difficulty


def main(run: str = "", solution: int = 0, split: str = "test", to: str = "") -> None:
    """Write one of the two figures.

    Args:
        run: folder of a search on data with a difficulty; without one the scenes of digits32 are shown.
        solution: which network of its front.
        split: whose samples, train, validation or test.
        to: the file to write.
    """
    if not run:
        scenes = getattr(load_unscaled("digits32"), split)
        rows = [
            sample(np.flatnonzero(np.floor(scenes.difficulty * BINS) == tenth), scenes.difficulty)
            for tenth in range(BINS)
        ]
        pyplot.imsave(to or "digits32.png", enlarged(sheet(scenes.images, rows)))
        return
    leaving, right, exits, shown = exits_of(run, solution, split)
    difficulty = shown.difficulty
    figure, axes = pyplot.subplots(
        len(leaving) + 1,
        1,
        figsize=(8, 0.8 * len(leaving) + 2),
        layout="constrained",
        height_ratios=[1] * len(leaving) + [2],
    )
    table = []
    for number, (row, left) in enumerate(zip(axes, leaving, strict=False), start=1):
        row.imshow(enlarged(sheet(shown.images, [spread(left)])))
        row.axis("off")
        share = len(left) / len(difficulty)
        accuracy, mean = (each[left].mean() if len(left) else float("nan") for each in (right, difficulty))
        row.set_title(
            f"exit {number}: {share:.0%} leave, {accuracy:.0%} right, mean difficulty {mean:.2f}",
            loc="left",
            fontsize=9,
        )
        table.append(
            {"exit": number, "samples": len(left), "share": share, "accuracy": accuracy, "difficulty": mean}
        )
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.array([np.histogram(difficulty[left], edges)[0] for left in leaving])
    below = np.zeros(BINS)
    for number, shares in enumerate(counts / np.maximum(counts.sum(axis=0), 1), start=1):
        axes[-1].bar(edges[:-1], shares, 0.96 / BINS, bottom=below, align="edge", label=f"exit {number}")
        below += shares
    axes[-1].set(xlabel="difficulty", ylabel="share that leaves", xlim=(0, 1), ylim=(0, 1))
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    ranked = "not defined"  # where all samples are equally hard, or leave at one exit
    if min(len(np.unique(difficulty)), len(np.unique(exits))) > 1:
        ranked = f"{spearmanr(difficulty, exits).statistic:.2f}"
    figure.suptitle(f"Spearman correlation of difficulty and exit: {ranked}", fontsize=10)
    figure.savefig(to or "exits.png", dpi=150)
    show({"run": run, "solution": solution, "split": split}, table)
    print(f"Spearman correlation of difficulty and exit: {ranked}")


def exits_of(run: str, solution: int, split: str) -> tuple[list[Any], Any, Any, Any]:
    """Return indices of the samples of a split that leave at each exit, from the easiest to the hardest.

    Besides, which samples are answered rightly, at which exit each leaves, and the split before it is standardised.
    """
    problem, chosen = stored_problem(run, with_data=True), load_run(run).front[solution]
    found = next(
        each for each in stored_evaluations(run) if isinstance(each, Evaluation) and each.genome == chosen.genome
    )
    network = build(problem.coder, found.genome, problem.configuration.seed)
    network.load_state(found.weights)
    seen = as_seen(getattr(problem.dataset, split), network)
    shown = getattr(load_unscaled(problem.configuration.data), split)
    if shown.difficulty is None:
        raise SystemExit(f"the data of run {run} must say how hard each sample is, as digits32 does")
    answer = predict(network, seen.images, chosen.thresholds, found.confidence)
    order = np.argsort(shown.difficulty, kind="stable")
    leaving = [order[answer.exits[order] == exit_] for exit_ in range(len(chosen.exits))]
    return leaving, answer.labels == shown.labels, answer.exits, shown


def sample(members: Any, difficulty: Any) -> Any:
    """Return ACROSS of `members`, from the easiest to the hardest."""
    return spread(members[np.argsort(difficulty[members], kind="stable")])


def spread(members: Any) -> Any:
    """Return at most ACROSS of `members`, evenly spaced."""
    return members[np.linspace(0, len(members) - 1, min(ACROSS, len(members))).astype(int)]


def sheet(images: Any, rows: Any) -> Any:
    """Return one picture with a scene in every cell, white between them."""
    side = images.shape[1] + 2
    whole = np.full((len(rows) * side, ACROSS * side, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, index in enumerate(row):
            top, left = down * side + 1, across * side + 1
            whole[top : top + side - 2, left : left + side - 2] = images[index]
    return whole


def enlarged(picture: Any) -> Any:
    """Return the picture with every pixel twice as high and wide."""
    return picture.repeat(2, axis=0).repeat(2, axis=1)


if __name__ == "__main__":
    Fire(main)
