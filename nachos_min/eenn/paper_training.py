"""Train an early-exit network as the NACHOS paper does: the backbone first, then its exits.

1. backbone: cross-entropy at the final exit, stages and final classifier train;
2. warm-up: all E heads train on the full loss without the peak term;
3. support: the same with the peak term, whose target is measured at each epoch's start on a class-balanced
   support set that takes no part in that epoch's gradient steps.

A frozen stage gives the same map for the same image in every epoch, so phases 2 and 3 (`train_exits`) compute the
E maps of the training set once and never touch the backbone again. `train_jointly` is the same without freezing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nachos_min.autograd import Tensor, cross_entropy
from nachos_min.eenn.fused_loss import fused_exits_loss
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.eenn.training import (
    Budget,
    FloatArray,
    IntArray,
    batches,
    check_labels,
    draw_support,
    exit_maps,
    run_epochs,
    support_matrix,
)
from nachos_min.nn.optim import SGD, cosine_rate


def train_backbone(
    network: EarlyExitNetwork, images: FloatArray, labels: IntArray, recipe: PaperRecipe, rng: np.random.Generator
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
        for chosen in batches(samples, recipe.batch, rng):
            x = Tensor(images[chosen])
            for segment in network.segments:
                x = segment(x)
            yield cross_entropy(network.heads[-1](x).logits, labels[chosen]).mean()

    steps = recipe.backbone_epochs * -(-len(images) // recipe.batch)
    optimiser = _sgd(network.backbone_parameters(), recipe)
    schedule = partial(cosine_rate, recipe.backbone_rate, steps=steps)
    return run_epochs(network, optimiser, [epoch] * recipe.backbone_epochs, schedule)


def train_exits(
    network: EarlyExitNetwork,
    maps: Sequence[FloatArray],
    labels: IntArray,
    budget: Budget,
    recipe: PaperRecipe,
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
    recipe: PaperRecipe,
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
    recipe: PaperRecipe,
    rng: np.random.Generator,
) -> list[float]:
    """Run phases 2 and 3. Without an early exit both are more epochs of cross-entropy at the final exit."""
    check_labels(network, labels)
    samples = np.arange(len(labels))
    static = len(network.heads) == 1

    def steps_over(chosen_samples: IntArray, support: FloatArray | None) -> Iterator[Tensor]:
        exits.start()
        for chosen in batches(chosen_samples, recipe.batch, rng):
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
    schedule = partial(cosine_rate, recipe.exits_rate, steps=steps)
    return run_epochs(network, _sgd(parameters, recipe), epochs, schedule)


def _sgd(parameters: dict[str, Tensor], recipe: PaperRecipe) -> SGD:
    return SGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
