"""Run an early-exit network: either at every exit (to tune thresholds) or stopping early (to use it).

Read `network.py` first. `exit_tables` asks every exit about every sample and gives the N x E tables on which
thresholds are chosen; `predict` really stops: a sample that left is not computed further. Both compute the
cumulative confidence c_i = 1 - prod_{j<=i} (1 - h_j) in float64 from the same float32 confidences.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, no_grad
from nachos_min.eenn.losses import cumulative_confidence
from nachos_min.eenn.network import EarlyExitNetwork, predictions

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Fewer spend their time in Python calls: on 4,600 digits (one network of space tiny), 16 at a time took 3.6 times
# as long as 256, and 64 took 1.5 times. 1,024 and 4,096 took a tenth less, for maps 4 and 16 times as large.
BATCH = 256


@dataclass(frozen=True)
class ExitTables:
    """What every exit says about every sample.

    Attributes:
        confidence: cumulative confidence c, float64 (N, E), non-decreasing along a row, last column 1.
        predicted: class with the largest logit, int64 (N, E).
    """

    confidence: FloatArray
    predicted: IntArray

    def correct(self, labels: IntArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return whether each exit is right about each sample, bool (N, E), for `labels` (N,)."""
        return np.asarray(self.predicted == labels[:, None])


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


def exit_tables(network: EarlyExitNetwork, images: FloatArray) -> ExitTables:
    """Return the tables of confidence and predicted class of all exits, without early stopping.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C); N may be 0.

    Returns:
        Tables with N rows and E columns.
    """
    network.train(False)
    exits = len(network.heads)
    confidence, predicted = [np.empty((0, exits))], [np.empty((0, exits), np.int64)]
    with no_grad():
        for begin in range(0, len(images), BATCH):
            outputs = network(Tensor(np.ascontiguousarray(images[begin : begin + BATCH])))
            early = [out.confidence.data for out in outputs if out.confidence is not None]
            rows = outputs[0].logits.shape[0]
            stacked = np.stack(early, axis=1) if early else np.empty((rows, 0))
            confidence.append(cumulative_confidence(stacked))
            predicted.append(np.stack([predictions(out) for out in outputs], axis=1))
    return ExitTables(np.concatenate(confidence), np.concatenate(predicted))


def predict(
    network: EarlyExitNetwork, images: FloatArray, thresholds: tuple[float, ...], *, batch: int = BATCH
) -> Prediction:
    """Return the network's answers, each sample leaving at the first exit with c_i >= its threshold.

    Args:
        network: the network; it is left in inference mode.
        images: dtype of the network, (N, H, W, C); N may be 0.
        thresholds: E thresholds; the last is ignored, the final exit takes what is left.
        batch: samples that enter together, >= 1; the groups shrink from exit to exit.

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
        for begin in range(0, len(images), batch):
            _predict_group(network, images, np.arange(begin, min(begin + batch, len(images))), thresholds, answer)
    return answer


def _predict_group(
    network: EarlyExitNetwork,
    images: FloatArray,
    staying: IntArray,
    thresholds: tuple[float, ...],
    answer: Prediction,
) -> None:
    """Carry the samples `staying` (their indices) from exit to exit and write down where each leaves."""
    x = Tensor(np.ascontiguousarray(images[staying]))
    early: list[FloatArray] = []  # confidences h_j of the samples still here, one column per exit asked
    for index, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
        x = segment(x)
        output = head(x)
        if output.confidence is None:
            confidence = np.ones(len(staying))
        else:
            early.append(output.confidence.data)
            confidence = cumulative_confidence(np.stack(early, axis=1))[:, index]
        leaving = confidence >= (thresholds[index] if output.confidence is not None else 0.0)
        left = staying[leaving]
        answer.labels[left] = predictions(output)[leaving]
        answer.exits[left] = index
        answer.confidence[left] = confidence[leaving]
        staying = staying[~leaving]
        if len(staying) == 0:
            return
        if leaving.any():
            x = Tensor(np.ascontiguousarray(x.data[~leaving]))
            early = [column[~leaving] for column in early]
