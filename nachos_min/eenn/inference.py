"""Run an early-exit network: either at every exit (to tune thresholds) or stopping early (to use it).

`exit_answers` asks every exit about every sample; its `tables` (N x E) are what thresholds are chosen on. `predict`
really stops: a sample that left is not computed further. Both compute the cumulative confidence in float64 from the
same float32 outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, no_grad
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.lowering import head_costs, segment_costs
from nachos_min.eenn.network import (
    EarlyExitNetwork,
    ExitClassifier,
    FinalClassifier,
    Segment,
)
from nachos_min.eenn.thresholds import PolicyTables

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Fewer spend their time in Python calls: on 4,600 digits (one network of space tiny), 16 at a time took 3.6 times
# as long as 256, and 64 took 1.5 times. 1,024 and 4,096 took a tenth less, for maps 4 and 16 times as large.
BATCH = 256
# More than fits into the caches waits for memory, which is asked from the system anew for every map: 512 images of
# 3x32x32 through a network with a peak of 459 kB took 1.7 s all together, and 0.55 s in groups of 16 (7 MB).
GROUP_BYTES = 1 << 23
LEAST = 8  # samples in a group, however large their maps are


@dataclass(frozen=True)
class ExitTables:
    """What every exit says about every sample.

    Attributes:
        confidence: cumulative confidence c, float64 (N, E), non-decreasing along a row, last column 1.
        predicted: class with the largest logit, int64 (N, E).
    """

    confidence: FloatArray
    predicted: IntArray

    def policy_tables(self, labels: IntArray, costs: tuple[int, ...]) -> PolicyTables:
        """Return what thresholds are chosen on, for the right `labels` (N,) and the `costs` of the E exits."""
        return PolicyTables(self.confidence, np.asarray(self.predicted == labels[:, None]), costs)


@dataclass(frozen=True)
class ExitAnswers:
    """What the network gives at every exit for every sample.

    Attributes:
        h: each early exit's learned confidence, the network's dtype (N, E-1).
        logits: the network's dtype (N, E, C).
    """

    h: FloatArray
    logits: FloatArray

    def scores(self, confidence: Confidence) -> FloatArray:
        """Return what each early exit says of itself, float (N, E-1)."""
        columns = [confidence.score(i, self.logits[:, i], self.h[:, i]) for i in range(self.h.shape[1])]
        return np.stack(columns, axis=1) if columns else self.h

    def predicted(self) -> IntArray:
        """Return the class with the largest logit at each exit, int64 (N, E)."""
        return np.asarray(self.logits.argmax(axis=2), np.int64)

    def tables(self, confidence: Confidence) -> ExitTables:
        """Return the tables that thresholds are chosen on."""
        return ExitTables(confidence.cumulative(self.scores(confidence)), self.predicted())


@dataclass(frozen=True)
class Prediction:
    """What the network answers under its exit policy.

    Attributes:
        labels: predicted class, int64 (N,).
        exits: index (0-based) of the exit that answered, int64 (N,).
        confidence: cumulative confidence at that exit, float64 (N,).
    """

    labels: IntArray
    exits: IntArray
    confidence: FloatArray

    def exit_counts(self, exits: int) -> tuple[int, ...]:
        """Return how many samples left at each of the `exits` exits."""
        return tuple(int(count) for count in np.bincount(self.exits, minlength=exits))


def group_sizes(network: EarlyExitNetwork) -> list[int]:
    """Return for each exit how many samples to carry to it and through its head together."""
    architecture = network.architecture
    steps = zip(segment_costs(architecture), head_costs(architecture), strict=True)
    return [max(LEAST, GROUP_BYTES // max(segment.peak_bytes, head.peak_bytes)) for segment, head in steps]


def group_size(network: EarlyExitNetwork) -> int:
    """Return how many samples to carry through the whole network together."""
    return min(BATCH, *group_sizes(network))


def exit_tables(network: EarlyExitNetwork, images: FloatArray, confidence: Confidence = LEARNED) -> ExitTables:
    """Return the tables of confidence and predicted class of all exits, without early stopping.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C); N may be 0.
        confidence: which confidence is meant.

    Returns:
        Tables with N rows and E columns.
    """
    return exit_answers(network, images).tables(confidence)


def exit_answers(network: EarlyExitNetwork, images: FloatArray) -> ExitAnswers:
    """Return what all exits say about all samples, without early stopping.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C); N may be 0.
    """
    network.train(False)
    exits = len(network.heads)
    h = np.empty((len(images), exits - 1), images.dtype)
    logits = np.empty((len(images), exits, network.architecture.classes), images.dtype)
    with no_grad():
        size = group_size(network)
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            for index, output in enumerate(network(Tensor(np.ascontiguousarray(images[part])))):
                logits[part, index] = output.logits.data
                if output.confidence is not None:
                    h[part, index] = output.confidence.data
    return ExitAnswers(h, logits)


def predict(
    network: EarlyExitNetwork,
    images: FloatArray,
    thresholds: tuple[float, ...],
    confidence: Confidence = LEARNED,
    *,
    batch: int = BATCH,
) -> Prediction:
    """Return the network's answers, each sample leaving at the first exit with c_i >= its threshold.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C); N may be 0.
        thresholds: E thresholds; the last is ignored, the final exit takes what is left.
        confidence: which confidence they are thresholds of.
        batch: samples that enter together, >= 1; the fewer stay, the fewer go from exit to exit.

    Returns:
        Answers in the order of `images`.

    Raises:
        ValueError: if the number of thresholds is not the number of exits, or `batch` < 1.

    Source: Pomponi, Scardapane and Uncini, Entropy 24(1), 2022 (cumulative confidence and exit policy).
    """
    exits = len(network.heads)
    if len(thresholds) != exits:
        raise ValueError(f"thresholds must be one per exit: {exits}, got {len(thresholds)}")
    if batch < 1:
        raise ValueError(f"batch must be >= 1, got {batch}")
    network.train(False)
    answer = Prediction(
        np.empty(len(images), np.int64), np.empty(len(images), np.int64), np.empty(len(images), np.float64)
    )
    with no_grad():
        sizes = group_sizes(network) if batch > LEAST else [batch] * exits
        for begin in range(0, len(images), batch):
            entering = np.arange(begin, min(begin + batch, len(images)))
            _predict_together(network, images, entering, thresholds, confidence, sizes, answer)
    return answer


def _predict_together(
    network: EarlyExitNetwork,
    images: FloatArray,
    staying: IntArray,
    thresholds: tuple[float, ...],
    confidence: Confidence,
    sizes: list[int],
    answer: Prediction,
) -> None:
    """Carry the samples `staying` (their indices) from exit to exit and write down where each leaves.

    From exit to exit in groups: after each exit, those of all groups who stay make new ones, larger where maps
    are smaller, so that few do not travel alone.
    """
    x = np.ascontiguousarray(images[staying])
    early: list[FloatArray] = []  # scores of the samples still here, one column per exit asked
    for index, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
        x, logits, h = _ask(segment, head, x, sizes[index])
        if h is None:
            sure = np.ones(len(staying))
        else:
            early.append(confidence.score(index, logits, h))
            sure = confidence.cumulative(np.stack(early, axis=1))[:, index]
        leaving = sure >= (thresholds[index] if h is not None else 0.0)
        left = staying[leaving]
        answer.labels[left] = logits.argmax(axis=1)[leaving]
        answer.exits[left] = index
        answer.confidence[left] = sure[leaving]
        staying = staying[~leaving]
        if len(staying) == 0:
            return
        if leaving.any():
            x = x[~leaving]
            early = [column[~leaving] for column in early]


def _ask(
    segment: Segment, head: ExitClassifier | FinalClassifier, x: FloatArray, size: int
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Return the map that feeds an exit, its logits and its confidences h, for all of `x` in groups of `size`."""
    maps, logits, h = [], [], []
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
