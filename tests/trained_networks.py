"""Networks with weights at random and thresholds at which images leave at every exit, and images for them."""

from functools import cache
from typing import Any

import numpy as np

from nachos_min.data.dataset import Scaling
from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.trained import Seen, Trained

IMAGES = 40


def _block(channels: int, middle: int, out: int, stride: int = 1, squeezed: int = 0) -> MBConvSpec:
    return MBConvSpec(channels, middle, out, 3, stride, "hswish" if squeezed else "relu", True, squeezed)


STEM, FINAL = Stem(4, 3, 1, "hswish"), FinalHead(16, 0, "hswish")
PLAIN = ((_block(4, 8, 8, 2),), (_block(8, 16, 8), _block(8, 12, 8)), (_block(8, 16, 12),))
EXCITED = ((_block(4, 8, 8, 2, 4),), (_block(8, 16, 8, 1, 4),), (_block(8, 16, 12, 2, 4),))
EXITS = (Exit(1, ExitHead(1, (5,))), Exit(2, ExitHead(2, ())))

# Name: shape of the images (H, W, C), their type, input shape, stages, exits, final head, confidence
CASES: dict[str, tuple[Any, ...]] = {
    "bytes": ((8, 8, 1), "uint8", (8, 8, 1), PLAIN, EXITS, FINAL, Confidence((0.7, 1.5))),
    "squeeze and excitation, smaller input": (
        *((13, 17, 3), "float32", (9, 11, 3), EXCITED, EXITS, FinalHead(16, 10, "relu"), LEARNED),
    ),
    "signal": ((1, 40, 2), "float32", (1, 40, 2), PLAIN, EXITS, FinalHead(0, 0, "relu"), LEARNED),
    "no early exit": ((8, 8, 3), "uint8", (8, 8, 3), PLAIN, (), FINAL, LEARNED),
}


@cache
def trained(case: str) -> tuple[Trained, np.ndarray[Any, np.dtype[Any]]]:
    """Return a network of `CASES` and unscaled images for it."""
    shape, dtype, size, stages, exits, final, confidence = CASES[case]
    rng = np.random.default_rng(len(case))
    architecture = Architecture(size, 5, STEM, (), stages, exits, final)
    network = EarlyExitNetwork(architecture, rng, rng)
    weights = {name: values + rng.normal(0, 0.05, values.shape) for name, values in network.state().items()}
    weights = {name: np.abs(v) + 0.5 if "variance" in name else v for name, v in weights.items()}
    weights = {name: v.astype(np.float32) for name, v in weights.items()}
    # Far from 0, as temperatures or pressures may be: float32 must not subtract the mean.
    images = rng.integers(0, 256, (IMAGES, *shape)) if dtype == "uint8" else rng.normal(300, 5, (IMAGES, *shape))
    images = images.astype(dtype)
    features = (0, 1, 2) if dtype == "uint8" else 0  # one scaling a channel, or one a pixel
    scaling = Scaling(images.mean(features), 1 / images.astype(np.float64).std(features))
    names = ("zero", 'a "quote"', "a\\b??/", "Käse*/", "4")
    seen = Seen(shape, dtype, float(images.min()), float(images.max()), scaling, None, names)
    open_ = Trained("case#0", architecture, weights, confidence, (0.0,) * (len(exits) + 1), seen)
    tables = exit_answers(open_.network, open_.scaled(images)).tables(confidence)
    thresholds, staying = [], np.full(IMAGES, True)
    for column in tables.confidence.T[:-1]:
        half = np.sort(column[staying])[[staying.sum() // 2 - 1, staying.sum() // 2]]
        thresholds.append(float(half.mean()))
        staying &= column < thresholds[-1]
    return Trained("case#0", architecture, weights, confidence, (*thresholds, 0.0), seen), images
