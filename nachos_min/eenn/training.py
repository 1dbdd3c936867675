"""Train an early-exit network, by one of two recipes that share one loop.

deep     every exit learns from every sample, from the first step on. SGD with Nesterov's momentum; the rate rises
         for some steps and falls to 0 as a cosine. (Lee et al., "Deeply-supervised nets", 2015; Huang et al.,
         "Multi-scale dense networks", ICLR 2018)
paper    three phases, of which the second and third train the backbone, too, or freeze it (arXiv 2401.13330):
         1. backbone: cross-entropy at the final exit, stages and final classifier train;
         2. warm-up: the loss without the peak term;
         3. support: the same with the peak term. Its target T is measured at each epoch's start on a class-balanced
            support set, which takes no part in that epoch's gradient steps.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from nachos_min.autograd import Tensor, cross_entropy, no_grad
from nachos_min.data import ImageSource
from nachos_min.eenn.inference import FloatArray, IntArray, group_size
from nachos_min.eenn.losses import Budget, exits_loss
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import LEAST_SHIFTED, DeepRecipe, PaperRecipe, steps_of
from nachos_min.nn.optim import SGD, cosine_rate

# The E maps of some samples, on which T is measured
Maps = Callable[[IntArray], Sequence[FloatArray]]
Told = Callable[[int], None]  # called with the number of epochs done, after each


def train_deep(
    network: EarlyExitNetwork,
    images: ImageSource,
    labels: IntArray,
    budget: Budget,
    recipe: DeepRecipe,
    rng: np.random.Generator,
    told: Told = lambda _: None,
) -> list[float]:
    """Return the mean loss of each epoch, having trained all weights in place.

    Args:
        network: the network; left in inference mode.
        images: training images, float32 (N, H, W, C), or what gives them by index.
        labels: int64 (N,).
        budget: costs and limit of the cost term.
        recipe: epochs, batch, rates and weights of the loss.
        rng: order of the samples, augmentation, support sets.
        told: called after each epoch with the number of epochs done.

    ValueError if a label is not a class, or the budget is of another number of exits.
    """
    _check(network, labels, budget)
    how, early_exits = recipe.augmentation(*images.shape[1:3]), len(network.heads) - 1

    def loss_of(chosen: IntArray, support: FloatArray | None) -> Tensor:
        weights = {"beta": recipe.beta, "gamma": recipe.gamma, "kappa": recipe.confidence}
        weights |= {"distillation": recipe.distillation, "temperature": recipe.temperature}
        outputs, fixed = network(Tensor(augmented(images[chosen], how, rng))), (*[1.0] * early_exits, recipe.last)
        return exits_loss(outputs, labels[chosen], budget, support, fixed=fixed, **weights)

    def measured(chosen: IntArray) -> list[FloatArray]:
        return exit_maps(network, images[chosen])

    parameters = network.named_parameters()
    optimiser = SGD(parameters, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
    epochs = [measured if recipe.gamma and early_exits else None] * recipe.passes(len(labels))
    return _run(network, optimiser, partial(rate_of, recipe), epochs, loss_of, labels, recipe, rng, told)


def train_backbone(
    network: EarlyExitNetwork,
    images: ImageSource,
    labels: IntArray,
    recipe: PaperRecipe,
    rng: np.random.Generator,
    told: Told = lambda _: None,
) -> list[float]:
    """Return the mean loss of each epoch of phase 1, which trains stages and final classifier; see `train_deep`."""

    def loss_of(chosen: IntArray, _: FloatArray | None) -> Tensor:
        final = network.heads[-1](network.maps(Tensor(augmented(images[chosen], recipe.augment, rng)))[-1])
        return cross_entropy(final.logits, labels[chosen]).mean()

    optimiser = SGD(network.backbone_parameters(), momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = partial(cosine_rate, recipe.backbone_rate)
    return _run(network, optimiser, schedule, [None] * recipe.backbone_epochs, loss_of, labels, recipe, rng, told)


def train_exits(
    network: EarlyExitNetwork,
    images: ImageSource,
    labels: IntArray,
    budget: Budget,
    recipe: PaperRecipe,
    rng: np.random.Generator,
    told: Told = lambda _: None,
) -> list[float]:
    """Return the mean loss of each epoch of phases 2 and 3, which train the E heads; see `train_deep`.

    Without an early exit both phases are more epochs of cross-entropy at the final exit.
    """
    _check(network, labels, budget)
    # A frozen stage gives the same map for the same image in every epoch.
    frozen = None if recipe.joint else exit_maps(network, images)

    def loss_of(chosen: IntArray, support: FloatArray | None) -> Tensor:
        if frozen is None:
            maps = network.maps(Tensor(augmented(images[chosen], recipe.augment, rng)))
        else:
            maps = [Tensor(each[chosen]) for each in frozen]
        outputs, (alpha, beta, gamma) = network.outputs(maps), (recipe.alpha, recipe.beta, recipe.gamma)
        return exits_loss(outputs, labels[chosen], budget, support, alpha=alpha, beta=beta, gamma=gamma)

    def measured(chosen: IntArray) -> list[FloatArray]:
        return exit_maps(network, images[chosen]) if frozen is None else [each[chosen] for each in frozen]

    parameters = network.named_parameters() if recipe.joint else network.head_parameters()
    optimiser = SGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = partial(cosine_rate, recipe.exits_rate)
    support = measured if len(network.heads) > 1 else None
    epochs = [None] * recipe.warmup_epochs + [support] * recipe.support_epochs
    return _run(network, optimiser, schedule, epochs, loss_of, labels, recipe, rng, told)


def _run(
    network: EarlyExitNetwork,
    optimiser: SGD,
    schedule: Callable[[int, int], float],
    epochs: Sequence[Maps | None],
    loss_of: Callable[[IntArray, FloatArray | None], Tensor],
    labels: IntArray,
    recipe: DeepRecipe | PaperRecipe,
    rng: np.random.Generator,
    told: Told,
) -> list[float]:
    """Return the mean loss of each epoch, having minimised `loss_of` at the rates `schedule(step, steps)`.

    An epoch that can measure the maps of a support set draws one and trains on the other samples.
    """
    # An upper bound: support sets shorten epochs, so the rate ends a little above 0.
    step, steps, history = 0, len(epochs) * steps_of(len(labels), recipe.batch), []
    for measured in epochs:
        samples, table = np.arange(len(labels)), None
        support = draw_support(labels, recipe.support_share, rng) if measured else samples[:0]
        if measured and len(support):  # empty where no class has a sample to spare
            table = support_matrix(network, measured(support), labels[support])
            samples = np.setdiff1d(samples, support)
        network.train()
        losses, order = [], rng.permutation(samples)
        for begin in range(0, len(order) - 1, recipe.batch):  # a last batch of one sample is left out
            loss = loss_of(order[begin : begin + recipe.batch], table)
            loss.backward()
            optimiser.step(schedule(step, steps))
            losses.append(float(loss.data))
            step += 1
        history.append(float(np.mean(losses)))
        told(len(history))
    network.train(False)
    return history


def _check(network: EarlyExitNetwork, labels: IntArray, budget: Budget) -> None:
    """Refuse labels and costs for which the loss's kernel would read beyond its arrays."""
    classes, exits = network.architecture.classes, len(network.heads)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {labels.min()} to {labels.max()}")
    if len(budget.costs) != exits:
        raise ValueError(f"costs must have one entry for each of {exits} exits, got {len(budget.costs)}")


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
    """Return `images` (N, H, W, C), each shifted by up to side / 24 pixels, rounded up; the edge is repeated.

    `how` is `none`, `shift`, or `shift-flip`, which mirrors each with probability 1/2 from left to right. Maps of
    height 1 are shifted along their length alone, if it is at least LEAST_SHIFTED.
    """
    if how == "none":
        return images
    places = []
    for axis in (1, 2):
        side = images.shape[axis]
        most = 0 if images.shape[1] == 1 and side < LEAST_SHIFTED else -(-side // 24)
        shifts = rng.integers(-most, most, (len(images), 1), endpoint=True)
        places.append(np.clip(np.arange(side) + shifts, 0, side - 1))
    rows, columns = places
    if how == "shift-flip":
        mirrored = rng.random(len(images)) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


# What the peak term aims at


def draw_support(labels: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """Return sorted indices of a support set of about `share` of the samples, the same number from each class.

    At least one, but never all samples of a class: a class with fewer gives all but one.
    """
    classes = np.unique(labels)
    per_class = max(1, round(share * len(labels) / len(classes)))
    members = [np.flatnonzero(labels == label) for label in classes]
    chosen = [rng.choice(each, min(per_class, len(each) - 1), replace=False) for each in members]
    return np.sort(np.concatenate(chosen))


def support_matrix(network: EarlyExitNetwork, maps: Sequence[FloatArray], labels: IntArray) -> FloatArray:
    """Return T (C, E-1), float64: accuracy of each early exit on each class over a support set.

    `maps` feed the exits for its n >= 1 samples, of which `labels` (n,) are the classes. A class without a sample
    gets the exit's accuracy over all of them.
    """
    classes = network.architecture.classes
    table = np.zeros((classes, len(network.heads) - 1))
    counts = np.bincount(labels, minlength=classes)
    with no_grad():
        for index, head in enumerate(network.heads[:-1]):
            head.train(False)
            correct = head(Tensor(maps[index])).logits.data.argmax(axis=1) == labels
            hits = np.bincount(labels, weights=correct, minlength=classes)
            table[:, index] = np.where(counts > 0, hits / np.maximum(counts, 1), correct.mean())
    return table


def exit_maps(network: EarlyExitNetwork, images: ImageSource) -> list[FloatArray]:
    """Return the E maps (N, H, W, C) that feed the exits for N >= 1 images, by the backbone in inference mode."""
    network.train(False)
    groups, size = [], group_size(network)
    with no_grad():
        for begin in range(0, len(images), size):
            x = Tensor(np.ascontiguousarray(images[begin : begin + size]))
            groups.append([feature_map.data for feature_map in network.maps(x)])
    return [np.concatenate(parts) for parts in zip(*groups, strict=True)]
