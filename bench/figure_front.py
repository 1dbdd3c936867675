"""Figure of a run's front: accuracy against average MACs, on validation and measured again on test.

    python bench/figure_front.py runs/digits32 [--to front.png]

One colour is one network, and its points are its thresholds. Full points are of the validation split, on which
thresholds were chosen; rings are the same on the test split, with a band for the 95 % interval. Needs matplotlib.
"""

from itertools import cycle
from pathlib import Path

import numpy as np
from fire import Fire
from method_figures import COLOURS, pyplot

from nachos_min.nas.runs import load_run


def main(run: str, to: str = "front.png") -> None:
    """Write the figure.

    Args:
        run: folder of a search.
        to: the file to write.
    """
    found = load_run(run)
    figure, axes = pyplot.subplots(layout="constrained")
    networks = list(dict.fromkeys(solution.genome for solution in found.front))
    for number, (genome, colour) in enumerate(zip(networks, cycle(COLOURS), strict=False)):
        mine = [solution for solution in found.front if solution.genome == genome]
        stages = ", ".join(str(stage) for stage in mine[0].exits)
        macs = np.array([[solution.average_macs, solution.test.average_macs] for solution in mine]) / 1000
        right = np.array([[solution.accuracy, solution.test.accuracy] for solution in mine]) * 100
        low, high = (100 * np.array([solution.test.interval95[side] for solution in mine]) for side in (0, 1))
        label = f"network {number}: exits after {stages}"
        axes.plot(macs[:, 0], right[:, 0], "o", color=colour, markersize=3, label=label)
        axes.plot(macs[:, 1], right[:, 1], "o", color=colour, markersize=3, fillstyle="none", markeredgewidth=0.6)
        order = np.argsort(macs[:, 1], kind="stable")
        axes.fill_between(macs[order, 1], low[order], high[order], color=colour, alpha=0.12, linewidth=0)
    axes.axhline(100 * found.limits.min_accuracy, color="k", linestyle=":", linewidth=1)
    if found.limits.max_macs is not None:
        axes.axvline(found.limits.max_macs / 1000, color="k", linestyle=":", linewidth=1)
    axes.set_xlabel("average MACs per inference, thousands")
    axes.set_ylabel("accuracy, % (rings: test)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(Path(to), metadata={"Software": None} if Path(to).suffix == ".png" else None)


if __name__ == "__main__":
    Fire(main)
