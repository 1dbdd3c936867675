"""Run an early-exit network: either at every exit (to choose thresholds) or stopping early (to use it).

The tables of `exit_answers` (N x E) are what thresholds are chosen on. `predict` really stops: a sample that left
is not computed further. Both compute the cumulative confidence in float64 from the same float32 outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, no_grad
from nachos_min.data import ImageSource
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.lowering import head_costs, segment_costs
from nachos_min.eenn.network import EarlyExitNetwork, ExitClassifier, FinalClassifier, Segment
from nachos_min.eenn.thresholds import ExitTables

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

BATCH = 256  # samples that enter together: with fewer, Python calls take most of the time
GROUP_BYTES = 1 << 23  # maps of a group; more than fits into the caches waits for memory
LEAST = 8  # samples in a group, however large their maps are


@dataclass(frozen=True)
class ExitAnswers:
    """What the network gives at every exit for every sample, in the network's dtype."""

    h: FloatArray  # each early exit's learned confidence (N, E-1)
    logits: FloatArray  # (N, E, C)

    def scores(self, confidence: Confidence) -> FloatArray:
        """Return what each early exit says of itself, float (N, E-1)."""
        columns = [confidence.score(i, self.logits[:, i], self.h[:, i]) for i in range(self.h.shape[1])]
        return np.stack(columns, axis=1) if columns else self.h

    def predicted(self) -> IntArray:
        """Return the class with the largest logit at each exit, int64 (N, E)."""
        return np.asarray(self.logits.argmax(axis=2), np.int64)

    def tables(self, confidence: Confidence = LEARNED) -> ExitTables:
        """Return the tables that thresholds of this confidence are chosen on."""
        return ExitTables(confidence.cumulative(self.scores(confidence)), self.predicted())


@dataclass(frozen=True)
class Answers:
    """What the network answers under its exit policy."""

    labels: IntArray  # predicted class, int64 (N,)
    exits: IntArray  # index (0-based) of the exit that answered, int64 (N,)
    confidence: np.ndarray[Any, np.dtype[np.float64]]  # cumulative confidence at that exit, float64 (N,)

    def exit_counts(self, exits: int) -> tuple[int, ...]:
        """Return how many samples left at each of the `exits` exits."""
        return tuple(int(count) for count in np.bincount(self.exits, minlength=exits))


@dataclass(frozen=True)
class ScoredAnswers(Answers):
    """Answers with what they were taken from."""

    logits: FloatArray  # of the exit that answered, in the network's dtype (N, C)


def group_sizes(network: EarlyExitNetwork) -> list[int]:
    """Return for each exit how many samples to carry to it and through its head together."""
    architecture = network.architecture
    steps = zip(segment_costs(architecture), head_costs(architecture), strict=True)
    return [max(LEAST, GROUP_BYTES // max(segment.peak_bytes, head.peak_bytes)) for segment, head in steps]


def group_size(network: EarlyExitNetwork) -> int:
    """Return how many samples to carry through the whole network together."""
    return min(BATCH, *group_sizes(network))


def exit_answers(network: EarlyExitNetwork, images: ImageSource) -> ExitAnswers:
    """Return what all exits say about `images` (N, H, W, C), without early stopping; arguments as of `predict`."""
    network.train(False)
    exits = len(network.heads)
    h = np.empty((len(images), exits - 1), images.dtype)
    logits = np.empty((len(images), exits, network.architecture.classes), images.dtype)
    size = group_size(network)
    with no_grad():
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            for index, output in enumerate(network(Tensor(np.ascontiguousarray(images[part])))):
                logits[part, index] = output.logits.data
                if output.confidence is not None:
                    h[part, index] = output.confidence.data
    return ExitAnswers(h, logits)


def predict(
    network: EarlyExitNetwork,
    images: ImageSource,
    thresholds: tuple[float, ...],
    confidence: Confidence = LEARNED,
    *,
    batch: int = BATCH,
) -> ScoredAnswers:
    """Return the network's answers, each sample leaving at the first exit with c_i >= its threshold.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C), or what gives them by index; N may be 0.
        thresholds: E thresholds; the last is ignored, the final exit takes what is left.
        confidence: which confidence they are thresholds of.
        batch: samples that enter together.

    ValueError if the number of thresholds is not the number of exits, or `batch` < 1.

    Source: Pomponi, Scardapane and Uncini, Entropy 24(1), 2022 (cumulative confidence and exit policy).
    """
    exits, samples = len(network.heads), len(images)
    if len(thresholds) != exits:
        raise ValueError(f"thresholds must be one per exit: {exits}, got {len(thresholds)}")
    if batch < 1:
        raise ValueError(f"batch must be >= 1, got {batch}")
    network.train(False)
    labels, left_at, reached = np.empty(samples, np.int64), np.empty(samples, np.int64), np.empty(samples)
    scores = np.empty((samples, network.architecture.classes), images.dtype)
    sizes = group_sizes(network) if batch > LEAST else [batch] * exits
    for begin in range(0, samples, batch):
        staying = np.arange(begin, min(begin + batch, samples))
        x = np.ascontiguousarray(images[staying])
        early: list[FloatArray] = []  # scores of the samples still here, one column per exit passed
        for index, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
            x, logits, h = _carry(segment, head, x, sizes[index])
            if h is None:
                sure, leaving = np.ones(len(staying)), np.ones(len(staying), np.bool_)
            else:
                early.append(confidence.score(index, logits, h))
                sure = confidence.cumulative(np.stack(early, axis=1))[:, index]
                leaving = sure >= thresholds[index]
            left = staying[leaving]
            labels[left], left_at[left], reached[left] = logits.argmax(axis=1)[leaving], index, sure[leaving]
            scores[left] = logits[leaving]
            staying = staying[~leaving]
            if len(staying) == 0:
                break
            if leaving.any():
                x, early = x[~leaving], [column[~leaving] for column in early]
    return ScoredAnswers(labels, left_at, reached, scores)


def _carry(
    segment: Segment, head: ExitClassifier | FinalClassifier, x: FloatArray, size: int
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Return the map that feeds an exit, its logits and its confidences h, for all of `x` in groups of `size`."""
    maps, logits, h = [], [], []
    with no_grad():
        for begin in range(0, len(x), size):
            feature_map = segment(Tensor(x[begin : begin + size]))
            output = head(feature_map)
            maps.append(feature_map.data)
            logits.append(output.logits.data)
            if output.confidence is not None:
                h.append(output.confidence.data)
    if len(maps) == 1:  # spares the copy
        return maps[0], logits[0], h[0] if h else None
    return np.concatenate(maps), np.concatenate(logits), np.concatenate(h) if h else None
