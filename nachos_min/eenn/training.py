"""Train an early-exit network: the backbone first, then its exits, with the backbone frozen or not.

Read `network.py` and `losses.py` first; the phases are those of the NACHOS paper:

1. backbone: cross-entropy at the final exit, stages and final classifier train;
2. warm-up: stages frozen, all E heads train on the full loss without the peak term;
3. support: the same with the peak term, whose target is measured at each epoch's start on a class-balanced
   support set that takes no part in that epoch's gradient steps.

A frozen stage gives the same map for the same image in every epoch, so phases 2 and 3 (`train_exits`) compute the
E maps of the training set once and never touch the backbone again. `train_jointly` is the same without freezing:
a search takes 1.8 times as long and finds better networks (README), so it is what searches do by default.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, cross_entropy, no_grad
from nachos_min.eenn.fused_loss import fused_exits_loss
from nachos_min.eenn.inference import group_size
from nachos_min.eenn.network import EarlyExitNetwork, predictions
from nachos_min.nn.optim import SGD, cosine_rate

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained: phases, loss and optimiser of the paper, rates tuned for `digits`.

    Attributes:
        backbone_epochs, warmup_epochs, support_epochs: passes over the training set in each phase.
        batch: samples per gradient step; the last, incomplete batch of an epoch is used when it has at least
            two samples (batch norm needs two).
        backbone_rate, exits_rate: learning rates at the start of the cosine schedule of phase 1, and of
            phases 2 and 3 together.
        momentum, weight_decay: of SGD.
        support_share: share of the training set that is the support set of an epoch.
        alpha, beta, gamma: weights of the classification, cost and peak term.
        joint: whether the backbone goes on training with the exits, in phases 2 and 3, or is frozen (the paper's).
    """

    backbone_epochs: int = 10
    warmup_epochs: int = 5
    support_epochs: int = 5
    batch: int = 32
    backbone_rate: float = 0.1
    exits_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-5
    support_share: float = 0.1
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    joint: bool = True


@dataclass(frozen=True)
class Budget:
    """What the cost term compares: MACs paid when leaving at each of the E exits, and their limit, if any."""

    costs: tuple[int, ...]
    max_macs: int | None


def _batches(samples: IntArray, size: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield `samples` in random order in groups of `size`; a last group of one sample is left out."""
    order = rng.permutation(samples)
    for begin in range(0, len(order), size):
        if len(order) - begin > 1:
            yield order[begin : begin + size]


def _run_epochs(
    network: EarlyExitNetwork,
    parameters: dict[str, Tensor],
    epochs: Sequence[Callable[[], Iterator[Tensor]]],
    steps: int,
    rate: float,
    recipe: Recipe,
) -> list[float]:
    """Minimise the losses that each epoch yields; return the mean loss of each epoch."""
    optimiser = SGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    step, history = 0, []
    for epoch in epochs:
        losses = []
        for loss in epoch():
            loss.backward()
            optimiser.step(cosine_rate(rate, step, steps))
            losses.append(float(loss.data))
            step += 1
        history.append(float(np.mean(losses)))
    network.train(False)
    return history


def train_backbone(
    network: EarlyExitNetwork, images: FloatArray, labels: IntArray, recipe: Recipe, rng: np.random.Generator
) -> list[float]:
    """Return the mean loss of each epoch of phase 1, having trained stages and final classifier in place.

    Args:
        network: the network; left in inference mode.
        images: training images, float32 (N, H, W, C).
        labels: int64 (N,).
        recipe: epochs, batch and rates.
        rng: order of the samples.

    Returns:
        One number per epoch, cross-entropy at the final exit in nats.
    """
    network.train()
    samples = np.arange(len(images))

    def epoch() -> Iterator[Tensor]:
        for chosen in _batches(samples, recipe.batch, rng):
            x = Tensor(images[chosen])
            for segment in network.segments:
                x = segment(x)
            yield cross_entropy(network.heads[-1](x).logits, labels[chosen]).mean()

    steps = recipe.backbone_epochs * -(-len(images) // recipe.batch)
    return _run_epochs(
        network,
        network.backbone_parameters(),
        [epoch] * recipe.backbone_epochs,
        steps,
        recipe.backbone_rate,
        recipe,
    )


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


def train_exits(
    network: EarlyExitNetwork,
    maps: Sequence[FloatArray],
    labels: IntArray,
    budget: Budget,
    recipe: Recipe,
    rng: np.random.Generator,
) -> list[float]:
    """Return the mean loss of each epoch of phases 2 and 3, having trained all E heads in place.

    Args:
        network: the network, its backbone trained; left in inference mode.
        maps: what feeds each exit for the training set, from `exit_maps`.
        labels: int64 (N,).
        budget: costs and limit of the cost term.
        recipe: epochs, batch, rates and weights of the loss.
        rng: order of the samples and support sets.

    Returns:
        One number per epoch: warm-up first, then support phase.

    Raises:
        ValueError: if a label is not a class.
    """

    def frozen(chosen: IntArray) -> list[Tensor]:
        return [Tensor(feature_map[chosen]) for feature_map in maps]

    def start() -> None:
        for head in network.heads:
            head.train()

    exits = _Exits(start, frozen, lambda support: [feature_map[support] for feature_map in maps])
    return _train_on(network, exits, network.head_parameters(), labels, budget, recipe, rng)


def train_jointly(
    network: EarlyExitNetwork,
    images: FloatArray,
    labels: IntArray,
    budget: Budget,
    recipe: Recipe,
    rng: np.random.Generator,
) -> list[float]:
    """Return what `train_exits` returns, having trained the backbone together with the heads, on the same loss.

    Args:
        network: the network, its backbone trained; left in inference mode.
        images: training images, float32 (N, H, W, C).
        labels: int64 (N,).
        budget: costs and limit of the cost term.
        recipe: epochs, batch, rates and weights of the loss.
        rng: order of the samples and support sets.

    Returns:
        One number per epoch: warm-up first, then support phase.

    Raises:
        ValueError: if a label is not a class.

    Source: the ablation of NACHOS's frozen backbone (arXiv 2401.13330): the same phases without freezing.
    """

    def through(chosen: IntArray) -> list[Tensor]:
        return network.maps(Tensor(images[chosen]))

    def start() -> None:
        network.train()

    exits = _Exits(start, through, lambda support: exit_maps(network, images[support]))
    return _train_on(network, exits, network.named_parameters(), labels, budget, recipe, rng)


@dataclass(frozen=True)
class _Exits:
    """Where the maps of the exits come from: made ready for an epoch, for training samples, for measuring."""

    start: Callable[[], None]
    feed: Callable[[IntArray], list[Tensor]]
    measured: Callable[[IntArray], Sequence[FloatArray]]


def _train_on(
    network: EarlyExitNetwork,
    exits: _Exits,
    parameters: dict[str, Tensor],
    labels: IntArray,
    budget: Budget,
    recipe: Recipe,
    rng: np.random.Generator,
) -> list[float]:
    """Run phases 2 and 3. Without an early exit both are more epochs of cross-entropy at the final exit."""
    samples, classes = np.arange(len(labels)), network.architecture.classes
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:  # the loss's kernel trusts its input
        raise ValueError(f"labels must be in 0..{classes - 1}, got {labels.min()} to {labels.max()}")
    static = len(network.heads) == 1

    def steps_over(chosen_samples: IntArray, support: FloatArray | None) -> Iterator[Tensor]:
        exits.start()
        for chosen in _batches(chosen_samples, recipe.batch, rng):
            outputs = network.ask(exits.feed(chosen))
            if static:
                yield cross_entropy(outputs[0].logits, labels[chosen]).mean()
                continue
            yield fused_exits_loss(
                [output.logits for output in outputs],
                [output.confidence for output in outputs if output.confidence is not None],
                labels[chosen],
                costs=budget.costs,
                max_macs=budget.max_macs,
                support=support,
                alpha=recipe.alpha,
                beta=recipe.beta,
                gamma=recipe.gamma,
            )

    def warmup_epoch() -> Iterator[Tensor]:
        yield from steps_over(samples, None)

    def support_epoch() -> Iterator[Tensor]:
        support = draw_support(labels, recipe.support_share, rng)
        # Where no class has a sample to spare, nothing can be measured and the epoch has no peak term.
        table = support_matrix(network, exits.measured(support), labels[support]) if len(support) else None
        yield from steps_over(np.setdiff1d(samples, support), table)

    later = [warmup_epoch if static else support_epoch] * recipe.support_epochs
    epochs = [warmup_epoch] * recipe.warmup_epochs + later
    # At most: a support epoch leaves its support set out, so the rate ends a little above 0.
    steps = len(epochs) * -(-len(labels) // recipe.batch)
    return _run_epochs(network, parameters, epochs, steps, recipe.exits_rate, recipe)
