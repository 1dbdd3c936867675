"""Train an early-exit network by deep supervision: every exit learns from every sample, from the first step on.

The loss of a batch, with z_i the logits of exit i, w_E = `last` and the other w_i = 1 (`losses.py` has the terms):

    L = mean_n sum_i w_i CE(z_i, y)  +  confidence L_conf  +  distillation KL(all exits together || each)
        +  beta L_cost  +  gamma L_peak

SGD with Nesterov's momentum; the rate rises for some steps and falls to 0 as a cosine. `paper_training.py` has the
paper's phases, which share the loop below.

Source: Lee et al., "Deeply-supervised nets", 2015; Huang et al., "Multi-scale dense networks", ICLR 2018.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, cross_entropy, no_grad
from nachos_min.eenn.fused_loss import fused_exits_loss
from nachos_min.eenn.inference import group_size
from nachos_min.eenn.network import EarlyExitNetwork, predictions
from nachos_min.eenn.recipes import DeepRecipe
from nachos_min.nn.optim import SGD, cosine_rate

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Budget:
    """What the cost term compares: MACs paid when leaving at each of the E exits, and their limit, if any."""

    costs: tuple[int, ...]
    max_macs: int | None


def train_deep(
    network: EarlyExitNetwork,
    images: FloatArray,
    labels: IntArray,
    budget: Budget,
    recipe: DeepRecipe,
    rng: np.random.Generator,
) -> list[float]:
    """Return the mean loss of each epoch, having trained all weights in place.

    Args:
        network: the network; left in inference mode.
        images: training images, float32 (N, H, W, C).
        labels: int64 (N,).
        budget: costs and limit of the cost term.
        recipe: epochs, batch, rates and weights of the loss.
        rng: order of the samples, augmentation, support sets.

    Returns:
        One number per epoch. Without an early exit the loss is the cross-entropy at the final exit.

    Raises:
        ValueError: if a label is not a class.
    """
    check_labels(network, labels)
    epochs, how = recipe.passes(len(images)), recipe.augmentation(*images.shape[1:3])
    steps = epochs * -(-len(images) // recipe.batch)

    def loss_of(chosen: IntArray, table: FloatArray | None) -> Tensor:
        outputs = network(Tensor(augmented(images[chosen], how, rng)))
        if len(outputs) == 1:
            return cross_entropy(outputs[0].logits, labels[chosen]).mean()
        return fused_exits_loss(
            [output.logits for output in outputs],
            [output.confidence for output in outputs if output.confidence is not None],
            labels[chosen],
            costs=budget.costs,
            max_macs=budget.max_macs,
            support=table,
            beta=recipe.beta,
            gamma=recipe.gamma,
            kappa=recipe.confidence,
            fixed=(*[1.0] * (len(outputs) - 1), recipe.last),
            distillation=recipe.distillation,
            temperature=recipe.temperature,
        )

    def epoch() -> Iterator[Tensor]:
        samples, table = np.arange(len(images)), None
        if recipe.gamma and len(network.heads) > 1:
            support = draw_support(labels, recipe.support_share, rng)
            if len(support):
                table = support_matrix(network, exit_maps(network, images[support]), labels[support])
                samples = np.setdiff1d(samples, support)
        network.train()
        for chosen in batches(samples, recipe.batch, rng):
            yield loss_of(chosen, table)

    parameters = network.named_parameters()
    optimiser = SGD(parameters, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
    return run_epochs(network, optimiser, [epoch] * epochs, lambda step: rate_of(recipe, step, steps))


def rate_of(recipe: DeepRecipe, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) of `steps`: it rises in equal steps, then falls as a cosine to 0.

    >>> [round(rate_of(DeepRecipe(rate=0.1, warmup=0.25), step, 8), 3) for step in range(8)]
    [0.05, 0.1, 0.1, 0.093, 0.075, 0.05, 0.025, 0.007]
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.rate * (step + 1) / rising
    return cosine_rate(recipe.rate, step - rising, steps - rising)


def augmented(images: FloatArray, how: str, rng: np.random.Generator) -> FloatArray:
    """Return `images` (N, H, W, C), each shifted by a pixel, or more from 25 pixels a side on; and mirrored.

    Args:
        images: of any dtype.
        how: `none`, `shift`, or `shift-flip`, which mirrors each with probability 1/2 from left to right.
        rng: which shifts.

    Returns:
        An array of the same shape and dtype. Pixels that come in repeat the edge.
    """
    if how == "none":
        return images
    places = []
    for axis in (1, 2):
        side = images.shape[axis]
        most = -(-side // 24)
        shifts = rng.integers(-most, most, (len(images), 1), endpoint=True)
        places.append(np.clip(np.arange(side) + shifts, 0, side - 1))
    rows, columns = places
    if how == "shift-flip":
        mirrored = rng.random(len(images)) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def run_epochs(
    network: EarlyExitNetwork,
    optimiser: SGD,
    epochs: Sequence[Callable[[], Iterator[Tensor]]],
    schedule: Callable[[int], float],
) -> list[float]:
    """Return the mean loss of each epoch, having minimised its losses at the rates of `schedule(step)`."""
    step, history = 0, []
    for epoch in epochs:
        losses = []
        for loss in epoch():
            loss.backward()
            optimiser.step(schedule(step))
            losses.append(float(loss.data))
            step += 1
        history.append(float(np.mean(losses)))
    network.train(False)
    return history


def batches(samples: IntArray, size: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield `samples` in random order in groups of `size`; a last group of one sample is left out."""
    order = rng.permutation(samples)
    for begin in range(0, len(order), size):
        if len(order) - begin > 1:
            yield order[begin : begin + size]


def check_labels(network: EarlyExitNetwork, labels: IntArray) -> None:
    """Raise ValueError if a label is not a class of `network`: the loss's kernel trusts its input."""
    classes = network.architecture.classes
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {labels.min()} to {labels.max()}")


def exit_maps(network: EarlyExitNetwork, images: FloatArray) -> list[FloatArray]:
    """Return the E maps that feed the exits, by the backbone in inference mode.

    Args:
        network: the network; left in inference mode.
        images: dtype of the network, (N, H, W, C) with N >= 1.

    Returns:
        E arrays (N, H, W, C) of the network's dtype, their shapes those of `Architecture.exit_maps`.
    """
    network.train(False)
    groups = []
    with no_grad():
        size = group_size(network)
        for begin in range(0, len(images), size):
            x = Tensor(np.ascontiguousarray(images[begin : begin + size]))
            groups.append([feature_map.data for feature_map in network.maps(x)])
    return [np.concatenate(parts) for parts in zip(*groups, strict=True)]


def draw_support(labels: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """Return indices of a class-balanced support set: the same number from each class, about `share` in all.

    Args:
        labels: int64 (N,).
        share: part of the N samples, in (0, 1).
        rng: which samples.

    Returns:
        Sorted indices. From each class the same number, at least one, but never all samples of a class: a
        class with fewer gives all but one, so a class with a single sample gives none.
    """
    classes = np.unique(labels)
    per_class = max(1, round(share * len(labels) / len(classes)))
    chosen = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        chosen.append(rng.choice(members, min(per_class, len(members) - 1), replace=False))
    return np.sort(np.concatenate(chosen))


def support_matrix(network: EarlyExitNetwork, maps: Sequence[FloatArray], labels: IntArray) -> FloatArray:
    """Return T (C, E-1): accuracy of each early exit on each class over the support set.

    Args:
        network: asked at its early exits; they are left in inference mode.
        maps: what feeds each exit for the n >= 1 samples of the support set, from `exit_maps`.
        labels: of these samples, int64 (n,).

    Returns:
        float64 in [0, 1]. A class without a support sample gets the exit's accuracy over all of them.
    """
    classes = network.architecture.classes
    table = np.zeros((classes, len(network.heads) - 1))
    counts = np.bincount(labels, minlength=classes)
    with no_grad():
        for index, head in enumerate(network.heads[:-1]):
            head.train(False)
            correct = predictions(head(Tensor(maps[index]))) == labels
            hits = np.bincount(labels, weights=correct, minlength=classes)
            table[:, index] = np.where(counts > 0, hits / np.maximum(counts, 1), correct.mean())
    return table
