"""What a search is about to do, and why: shown before anything is trained, and by the command `data`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nachos_min.eenn.recipes import LONG
from nachos_min.nas.configuration import AUTO, Problem
from nachos_min.nas.fitting import DRAWS, SHARE

# Limits as they are read.
NAMES = {
    "min_accuracy": "accuracy >=",
    "max_macs": "average MACs <=",
    "max_worst_macs": "worst MACs <=",
    "max_params": "parameters <=",
    "max_peak_bytes": "bytes of activations <=",
    "max_exits": "exits <=",
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
    sides: tuple[int, ...]  # resolutions that are searched, in pixels
    fitted_space: bool  # whether the space followed from the images
    limits: Mapping[str, float]  # those that are set, by their names
    fitted_macs: bool  # whether `max_macs` followed from the space
    networks: int  # to train
    finalists: int  # of them, trained again LONG times as long
    epochs: int  # of one that is no finalist
    steps: int  # of gradient, of one
    seconds: float | None = None  # of the whole search, an estimate
    bytes: int | None = None  # of memory, of all processes, an estimate

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        fields = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def lines(self) -> list[str]:
        """Return the sentences that people read."""
        height, width, channels = self.image_shape
        splits = ", ".join(f"{count:,} {name}" for name, count in self.samples.items())
        of = f"{self.classes} classes, {height}x{width}x{channels}"
        found = [f"Data: {self.data}, {of}; {splits}. The largest class has {self.largest_class:.1%}."]
        return [*found, *self.notes, *self.search_lines()]

    def search_lines(self) -> list[str]:
        """Return those that say what is searched, and how."""
        sides = f", at {' and '.join(map(str, self.sides))} pixels a side" if self.sides else ""
        found = [f"Space: {self.space}{sides}{', which fits the images' if self.fitted_space else ''}."]
        limits = ", ".join(f"{NAMES[name]} {limit:,}" for name, limit in self.limits.items())
        why = f"; 1 of {SHARE} of {DRAWS:,} random networks can keep this average" if self.fitted_macs else ""
        found.append(f"Limits: {limits}{why}.")
        finalists = f", then the best {self.finalists} for {LONG} times as long" if self.finalists else ""
        found.append(f"Training: {self.networks:,} networks for {self.epochs} epochs each{finalists}.")
        return found


def plan_of(problem: Problem, asked: Mapping[str, Any]) -> Plan:
    """Return the plan of a search for `problem`, which `fitting.prepared` has made of the options `asked`."""
    configuration, data, coder = problem.configuration, problem.dataset, problem.coder
    recipe, samples = configuration.recipe, len(data.train)
    splits = {name: getattr(data, name) for name in ("train", "validation", "calibration", "test")}
    limits = {name: value for name, value in asdict(configuration.limits).items() if value is not None}
    return Plan(
        data=data.name,
        image_shape=coder.image_shape,
        classes=data.classes,
        samples={name: len(split) for name, split in splits.items() if split is not None},
        largest_class=data.train.largest_share,
        notes=data.notes,
        space=problem.space.name,
        sides=problem.space.resolutions,
        fitted_space=configuration.space == AUTO,
        limits=limits,
        fitted_macs=asked["max_macs"] == AUTO,
        networks=asked["evaluations"],
        finalists=0 if asked["table"] is not None or configuration.rules.ruled else asked["finalists"],
        epochs=recipe.passes(samples),
        steps=recipe.passes(samples) * -(-samples // recipe.batch),
    )
