"""Whether an exported program answers as the engine does, image by image.

Programs add up in another order, so their confidences differ by roundings: by NEAR at most, or NEAR / T where a
temperature T below 1 multiplies them. Label and exit of an image are compared unless a confidence lies within NEAR
of its threshold; such images are counted.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.inference import BATCH, Answers, ExitAnswers, exit_answers
from nachos_min.eenn.thresholds import ExitTables, apply_thresholds
from nachos_min.eenn.trained import Trained
from nachos_min.errors import some
from nachos_min.export.onnx_file import ANSWER, INPUT
from nachos_min.export.quantised import Quantised

NEAR = 1e-5

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Comparison:
    """How the answers of a program agree with the engine's."""

    images: int
    near: int  # images with a confidence within NEAR of its threshold: label and exit are not compared
    differ: int  # of the others, those with another label or exit
    confidence: float  # largest difference of two confidences of one exit
    to: str = "the engine"  # what the answers are compared with
    allowed: float = NEAR  # difference of two confidences that roundings explain

    @property
    def equal(self) -> bool:
        """Whether every image has the same label and exit, and confidences are within `allowed`."""
        return not self.differ and self.confidence <= self.allowed

    def __str__(self) -> str:
        near = f", {self.near} too near to a threshold to compare" if self.near else ""
        found = f"labels or exits of {self.differ} DIFFER" if self.differ else "labels and exits are equal"
        far = "differ by at most" if self.confidence <= self.allowed else "DIFFER by up to"
        start = f"compared with {self.to} on {some(self.images, 'image')}{near}"
        return f"{start}: {found}, confidences {far} {self.confidence:.1e}"


@dataclass(frozen=True, eq=False)
class Engine:
    """The engine's answers to some images."""

    trained: Trained  # the network
    images: Array  # uint8 or float32 [N, H, W, C], unscaled, N >= 1
    integers: Quantised | None = None  # the network in integers; None: in float

    @cached_property
    def answers(self) -> ExitAnswers:
        """What every exit says."""
        if self.integers is not None:
            return self.integers.answers(self.trained.scaled(self.images))
        return exit_answers(self.trained.network, self.trained.scaled(self.images))

    @cached_property
    def tables(self) -> ExitTables:
        """Confidence and class at every exit."""
        return self.answers.tables(self.trained.confidence)

    @cached_property
    def exits(self) -> NDArray[np.intp]:
        """The exit at which each image leaves, from 0."""
        return apply_thresholds(self.tables.confidence, self.trained.thresholds)

    def compare(self, found: Answers, confidences: Array | None = None) -> Comparison:
        """Return how the answers `found` for the images agree, and `confidences` (N, E) of all exits, if any."""
        to = "the engine" if self.integers is None else "the same integers in NumPy"
        every, rows = self.tables.confidence, np.arange(len(self.images))
        allowed = NEAR / min(1.0, *(self.trained.confidence.temperatures or (1.0,)))
        near = (np.abs(every - self.trained.thresholds) <= NEAR)[:, :-1].any(axis=1)
        same = (found.exits == self.exits) & (found.labels == self.tables.predicted[rows, self.exits])
        far: list[float] = [np.abs(found.confidence - every[rows, found.exits]).max()]
        far += [] if confidences is None else [np.abs(confidences - every).max()]
        return Comparison(len(rows), int(near.sum()), int((~same & ~near).sum()), max(map(float, far)), to, allowed)


def onnx_answers(path: str | Path, images: Array, *, gated: bool) -> tuple[Answers, Array | None]:
    """Return what an ONNX file answers for unscaled `images`, and the confidences (N, E) of all exits or None.

    ImportError if the package onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # small networks: threads would wait for one another
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    every = [each.name for each in session.get_outputs() if each.name.startswith("confidence_")]
    size = 1 if gated else BATCH
    parts = [
        session.run([*ANSWER[:3], *every], {INPUT: images[begin : begin + size]})
        for begin in range(0, len(images), size)
    ]
    labels, exits, confidence, *others = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Answers(labels, exits, confidence), np.stack(others, axis=1) if others else None
