"""Seconds and memory of one training, measured beside what `nas/estimate.py` says from counts alone.

    python bench/bench_estimate.py [--genomes 3] [--json]

Random members of spaces are trained for two epochs on random images, one process for each row, so that its memory
is its own. Seconds are of the processor, of one epoch and of what follows the last.
"""

import json as json_format
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fire import Fire
from measuring import machine, on_threads, tell

CASES = [  # space, pixels a side, channels, classes, samples of a step
    ("tiny", 8, 1, 10, 16),
    ("flex8", 8, 1, 10, 16),
    ("flex8", 8, 1, 10, 64),
    ("flex16", 16, 1, 10, 16),
    ("flex32", 28, 1, 10, 16),
    ("flex32", 32, 3, 10, 16),
    ("flex32", 32, 3, 10, 64),
    ("small32", 32, 3, 100, 64),
    ("ofa-mbv3", 32, 3, 10, 16),
    ("flex32", 96, 3, 10, 16),
    ("small32", 96, 3, 100, 16),
]
STEPS, MEASURED = 40, 512  # gradient steps of an epoch; samples of each split that is measured


def one(space: str, side: int, channels: int, classes: int, batch: int, seed: int) -> None:
    """Print one row as JSON."""
    on_threads(1)
    from dataclasses import replace

    import numpy as np
    from asked import configuration

    from nachos_min.data import Dataset, Images, Split
    from nachos_min.eenn.lowering import CostOrderError, static_costs
    from nachos_min.eenn.recipes import DeepRecipe
    from nachos_min.nas.estimate import training_seconds, worker_bytes
    from nachos_min.nas.evaluate import evaluate
    from nachos_min.nas.evaluation import Trial
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.pools import keep_freed_memory
    from nachos_min.nas.space import load_space
    from nachos_min.nas.steps import Step

    keep_freed_memory()  # as workers do
    rng = np.random.default_rng(seed)

    def split(samples: int) -> Split:
        images = rng.integers(0, 256, (samples, side, side, channels), dtype=np.uint8)
        return Split(Images(images), np.arange(samples) % classes)

    coder, costs = GenomeCoder(load_space(space), (side, side, channels), classes), None
    while costs is None:
        genome = coder.sample(rng)
        try:
            costs = static_costs(coder.decode(genome))
        except CostOrderError:
            continue
    samples = batch * STEPS
    asked = configuration("digits", space, None, recipe={}, points="curve", confidence="best")
    asked = replace(asked, recipe=DeepRecipe(epochs=2, batch=batch))
    marks: list[float] = []

    def told(step: Step) -> None:
        if step.epoch > len(marks):
            marks.append(time.process_time())

    for sizes in ((2 * batch, batch), (samples, MEASURED)):  # the first loads or compiles the kernels
        marks.clear()
        data = Dataset("random", *map(split, (*sizes, sizes[1])), classes, "0", split(sizes[1]))
        evaluate(coder, data, asked, Trial(genome), told=told)
    end, exits = time.process_time(), len(costs.exit_costs)
    shape = {"batch": batch, "exits": exits, "measured": 3 * MEASURED}
    seconds = training_seconds(costs.worst_macs, samples, 1, numbers=side * side * channels, **shape)
    all_samples = samples + 3 * MEASURED
    memory = worker_bytes(costs.peak_bytes, costs.params, classes=classes, samples=all_samples, **shape)
    fields = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    private = int(fields["Private_Clean:"]) + int(fields["Private_Dirty:"])
    measured = end - marks[0]  # the second epoch, and what follows
    row = {"space": space, "images": f"{side}x{side}x{channels}", "batch": batch, "MACs": costs.worst_macs}
    row |= {"s": measured, "estimated": seconds, "ratio": measured / seconds}
    own = private * 1024 - all_samples * side * side * channels  # workers share the images
    print(json_format.dumps(row | {"MB": own / 1e6, "estimated MB": memory / 1e6}))


def main(genomes: int = 3, json: bool = False) -> None:
    """Print a table; with --json one JSON object."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for seed in range(genomes):
            line = [sys.executable, __file__, "one", *map(str, case), str(seed)]
            rows.append(json_format.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))
    tell(machine(1), rows, json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        Fire(main)
