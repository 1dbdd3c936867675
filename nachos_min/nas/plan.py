"""What a search is about to do, and why: shown before anything is trained, and by the command `data`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nachos_min.data import kind_of
from nachos_min.eenn.recipes import LONG, steps_of
from nachos_min.errors import some
from nachos_min.nas.configuration import AUTO, Problem
from nachos_min.nas.estimate import BASE, rounds_of, seconds_of, worker_bytes
from nachos_min.nas.fitting import SHARE, drawn
from nachos_min.nas.limits import StaticCheck

# Limits as they are read.
NAMES = {
    "max_macs": "average MACs <=",
    "max_worst_macs": "worst MACs <=",
    "max_params": "parameters <=",
    "max_peak_bytes": "bytes of activations <=",
    "max_exits": "exits <=",
    "min_accuracy": "accuracy >=",
}


@dataclass(frozen=True)
class Plan:
    """What was understood of the data, and what will be searched."""

    data: str
    image_shape: tuple[int, int, int]  # (H, W, C)
    classes: int
    samples: Mapping[str, int]  # of each split
    largest_class: float  # its share of the training split: the accuracy of always naming it
    notes: tuple[str, ...]  # what was done to the data, a sentence each
    space: str
    sides: tuple[int, ...]  # resolutions that are searched, in pixels of the shorter side or of a signal's length
    fitted_space: bool  # whether the space followed from the images
    limits: Mapping[str, float]  # those that are set, by their names
    warnings: tuple[str, ...]  # about the limits, a sentence each
    fitted_macs: bool  # whether `max_macs` followed from the space
    networks: int  # to train
    finalists: int  # of them, trained again LONG times as long
    epochs: int  # of one that is no finalist
    steps: int  # of gradient, of one
    processes: int  # that train
    seconds: float | None  # of all trainings, an estimate; None if nothing is trained
    bytes: int | None  # of memory of all processes, an estimate

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        fields = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def lines(self) -> list[str]:
        """Return the sentences that people read."""
        splits = ", ".join(f"{count:,} {name}" for name, count in self.samples.items())
        of = f"{self.classes} classes, {kinds(self.image_shape)}"
        found = [f"Data: {self.data}, {of}; {splits}. The largest class has {self.largest_class:.1%}."]
        return [*found, *(f"- {note}" for note in self.notes), *self.search_lines()]

    def search_lines(self) -> list[str]:
        """Return those that say what is searched, and how."""
        unit = "values" if self.image_shape[0] == 1 else "pixels"
        *others, last = map(str, self.sides or ("",))
        sides = f", at {', '.join(others)}{' and ' * bool(others)}{last} {unit}" if last else ""
        limits = [f"{NAMES[name]} {self.limits[name]:,}" for name in NAMES if self.limits.get(name)]
        why = f"; 1 in {SHARE} random networks can keep this average" if self.fitted_macs else ""
        best = "best" if self.finalists == 1 else f"best {self.finalists}"
        finalists = f", then the {best} for {LONG} times as long" if self.finalists else ""
        found = [
            f"Space: {self.space}{sides}{', chosen by the size of the data' if self.fitted_space else ''}.",
            f"Limits: {', '.join(limits) or 'none'}{why}.",
            *self.warnings,
            f"Training: {some(self.networks, 'network')}, {some(self.epochs, 'epoch')} each{finalists}.",
        ]
        if self.seconds is not None and self.bytes is not None:
            there, memory = some(self.processes, "process", "es"), f"{self.bytes / 1e9:.1f} GB of memory"
            found.append(f"This takes about {duration(self.seconds)} in {there}, and {memory}.")
        return found


def kinds(image_shape: tuple[int, int, int]) -> str:
    """Return what samples of (H, W, C) are, for reading.

    >>> kinds((28, 20, 1)), kinds((1, 187, 2))
    ('images of 28x20 pixels, 1 channel', 'signals of length 187, 2 channels')
    """
    return f"{kind_of(image_shape[:2])}, {some(image_shape[2], 'channel')}"


def duration(seconds: float) -> str:
    """Return a time for reading.

    >>> duration(0.2), duration(150), duration(9_000), duration(90_000)
    ('1 s', '2.5 min', '2.5 h', '25 h')
    """
    length, unit = next((pair for pair in ((3600, "h"), (60, "min")) if seconds >= pair[0]), (1, "s"))
    value = seconds / length
    return f"{max(1, round(value))} {unit}" if value >= 10 or unit == "s" else f"{value:.1f} {unit}"


def plan_of(problem: Problem, asked: Mapping[str, Any], stored: int = 0) -> Plan:
    """Return the plan of a search for `problem`, which `fitting.prepared` has made of the options `asked`.

    `stored` networks are in the run's folder and take no time.
    """
    configuration, data, coder = problem.configuration, problem.data, problem.coder
    samples = {name: len(split) for name, split in data.splits.items()}
    recipe, epochs = configuration.recipe, configuration.recipe.passes(samples["train"])
    processes = max(1, min(asked["workers"], asked["evaluations"]))
    limits = {name: value for name, value in asdict(configuration.limits).items() if value is not None}
    one = None if asked["table"] is not None else _one(problem, samples)
    left = max(0, asked["evaluations"] + asked["finalists"] - stored)
    last = min(asked["finalists"], left)  # finalists are trained last
    first = max(0, configuration.initial - stored) if configuration.rules.guided else left
    rounds = rounds_of(left - last, last, processes, configuration.chosen, first)
    return Plan(
        data=data.name,
        image_shape=coder.image_shape,
        classes=data.classes,
        samples=samples,
        largest_class=data.train.largest_share,
        notes=data.notes,
        space=problem.space.name,
        sides=problem.space.resolutions,
        fitted_space=configuration.space == AUTO,
        limits=limits,
        warnings=configuration.limits.warnings(configuration.metric, data.train.largest_share, data.classes),
        fitted_macs=asked["max_macs"] == AUTO,
        networks=asked["evaluations"],
        finalists=asked["finalists"],
        epochs=epochs,
        steps=epochs * steps_of(samples["train"], recipe.batch),
        processes=processes,
        seconds=one and one[0] * rounds,
        bytes=one and BASE + processes * one[1] + data.train.images.stored.nbytes,
    )


def _one(problem: Problem, samples: Mapping[str, int]) -> tuple[float, int] | None:
    """Return the seconds of the mean admissible network, and the bytes of the largest; None if none is drawn."""
    coder = problem.coder
    costs, admissible = StaticCheck(coder, problem.configuration.acting.limits).population(drawn(coder))
    if not admissible.any():
        return None
    costs, total = costs[admissible], sum(samples.values())
    exits = round(float(np.mean(costs.exit_count)))
    largest = int(costs.peak_bytes.max()), int(costs.params.max())
    batch = min(problem.configuration.recipe.batch, samples["train"])
    shape = {"batch": batch, "exits": exits, "classes": coder.classes}
    own = worker_bytes(*largest, **shape, samples=total, measured=total - samples["train"])
    return seconds_of(problem, int(np.mean(costs.worst_macs)), exits), own
