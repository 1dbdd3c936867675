"""Time and memory of one training, estimated from counts alone, before any weight exists.

The constants were fitted on one processor by `bench/bench_estimate.py`. A search corrects them while it runs.
"""

from typing import TYPE_CHECKING

from nachos_min.eenn.inference import GROUP_BYTES
from nachos_min.eenn.recipes import LONG

if TYPE_CHECKING:
    from nachos_min.nas.configuration import Problem

EXIT = 4.6e-4  # seconds of a gradient step for each exit and the layers before it, whatever their size
WORK = 1.02e-8  # seconds of a gradient step on W multiplications (batch x MACs): WORK * W ** POWER
POWER = 0.8  # large products take less time for each multiplication
NUMBER = 4.8e-9  # seconds to scale, resize and vary each number of the training images of an epoch
MEASURING = 2.5e-9  # seconds of measuring a sample of a network of M MACs: MEASURING * M ** POWER
READING = 1.15e-8  # seconds to scale and resize each number of a measured image, twice
THRESHOLDS = 7e-3  # seconds of what else an evaluation needs
BASE = 100_000_000  # bytes of a process with its libraries and kernels that it shares with no other
ALIVE = 7  # what a step keeps for its gradients, in peaks of one inference
PARAMETER = 24  # bytes of a weight with gradient, momentum and copies


def training_seconds(
    worst_macs: int, samples: int, epochs: int, *, batch: int, exits: int, numbers: int, measured: int
) -> float:
    """Return the seconds that one processor takes to train a network and to measure it, with compiled kernels.

    `worst_macs` are of a sample that passes every exit; `numbers` are H * W * C of a stored image. The network is
    trained on `samples`, and `measured` samples are measured together.

    >>> round(training_seconds(100_000, 1_000, 10, batch=16, exits=3, numbers=64, measured=700), 1)
    1.5
    """
    batch = min(batch, samples)
    steps = epochs * round(samples / batch)
    training = steps * (EXIT * exits + WORK * (batch * worst_macs) ** POWER + NUMBER * batch * numbers)
    return float(training + measured * (MEASURING * worst_macs**POWER + READING * numbers) + THRESHOLDS)


def worker_bytes(
    peak_bytes: int, params: int, *, batch: int, exits: int, classes: int, samples: int, measured: int
) -> int:
    """Return the bytes of a worker process that it shares with no other: the images are shared.

    `peak_bytes` are of activations of one sample, `params` counts parameters, `samples` are of all splits together;
    the others are as of `training_seconds`.

    >>> worker_bytes(16_384, 20_000, batch=16, exits=3, classes=10, samples=2_000, measured=700)
    119275424
    """
    training = ALIVE * batch * peak_bytes + PARAMETER * params
    answers = exits * measured * (4 * classes + 32)  # float32 scores; class and confidence of 8 bytes, sorted
    return BASE + 2 * GROUP_BYTES + training + answers + 16 * samples  # label and place of 8 bytes


def rounds_of(others: int, finalists: int, abreast: int, chosen: int, first: int = 0) -> int:
    """Return how many trainings follow each other if `abreast` run at a time, a finalist's as LONG ones.

    Of `others` up to `first` begin together. The rest are chosen in iterations, which follow each other: some
    workers have nothing to do at the end of each.

    >>> rounds_of(16, 2, abreast=4, chosen=3, first=10)
    9
    """
    first = min(first, others := max(others, 0))
    iterations, rest = divmod(others - first, chosen)
    one_by_one = ((1, first), (iterations, chosen), (1, rest), (LONG, finalists))
    return sum(times * -(-trials // abreast) for times, trials in one_by_one)


def seconds_of(problem: "Problem", worst_macs: int, exits: int, effort: int = 1) -> float:
    """Return `training_seconds` of a network of `problem`, trained `effort` times as long as its recipe says."""
    data, recipe = problem.data, problem.configuration.acting.recipe
    height, width, channels = data.image_shape
    return training_seconds(
        worst_macs,
        len(data.train),
        effort * recipe.passes(len(data.train)),
        batch=recipe.batch,
        exits=exits,
        numbers=height * width * channels,
        measured=sum(map(len, data.splits.values())) - len(data.train),
    )
