"""Training by both recipes against slow loops; support sets, augmentation, recipes; and that it learns."""

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from math import cos, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.autograd import Tensor, no_grad
from nachos_min.data import load
from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.losses import Budget, exits_loss
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, RecipeError, as_record, from_record, recipe_of
from nachos_min.eenn.training import (
    augmented,
    draw_support,
    exit_maps,
    support_matrix,
    train_backbone,
    train_deep,
    train_exits,
)
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

Weights = dict[str, np.ndarray]

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 3, static=True)
LABELS = np.repeat([0, 1, 2], [16, 12, 9])
IMAGES = np.random.default_rng(5).standard_normal((37, 8, 8, 1)) + LABELS[:, None, None, None]
# Of 37 samples the last batch has two, which are used, or one, which is not.
PAPER = PaperRecipe(2, 2, 3, batch=7, support_share=0.3, alpha=0.7, beta=2.0, gamma=3.0)
FROZEN = replace(PAPER, joint=False)
DEEP = DeepRecipe(epochs=4, batch=9, rate=0.08, last=3.0, distillation=0.0, beta=2.0, gamma=1.5, warmup=0.2)


def build(
    exits: tuple[int, ...] = (1, 1), coder: GenomeCoder = CODER, dtype: type[np.floating[Any]] = np.float64
) -> EarlyExitNetwork:
    genome = [0] * coder.length
    genome[coder.exit_genes] = exits
    network = EarlyExitNetwork(coder.decode(genome), np.random.default_rng(1), np.random.default_rng(2))
    network.astype(dtype)
    return network


def budget(network: EarlyExitNetwork) -> Budget:
    costs = static_costs(network.architecture).exit_costs
    return Budget(costs, costs[0])


def fit_deep(network: EarlyExitNetwork, recipe: DeepRecipe = DEEP, seed: int = 6) -> list[float]:
    return train_deep(network, IMAGES, LABELS, budget(network), recipe, np.random.default_rng(seed))


def fit_backbone(network: EarlyExitNetwork, recipe: PaperRecipe = PAPER, seed: int = 0) -> list[float]:
    return train_backbone(network, IMAGES, LABELS, recipe, np.random.default_rng(seed))


def fit_exits(network: EarlyExitNetwork, recipe: PaperRecipe = PAPER, seed: int = 6) -> list[float]:
    return train_exits(network, IMAGES, LABELS, budget(network), recipe, np.random.default_rng(seed))


def moved(before: Weights, after: Weights) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


def assert_equal_weights(one: EarlyExitNetwork, other: EarlyExitNetwork) -> None:
    for name, weight in one.state().items():
        np.testing.assert_allclose(weight, other.state()[name], rtol=1e-9, atol=1e-9, err_msg=name)


# The slow loops: through the whole network in every step, momentum written out


def slow_support(network: EarlyExitNetwork, support: np.ndarray) -> np.ndarray:
    """T[k, i] over the samples of class k, or over all if there are none."""
    right = (exit_answers(network, IMAGES[support]).predicted() == LABELS[support][:, None])[:, :-1]
    members = [LABELS[support] == k for k in range(3)]
    return np.array([right[each if each.any() else ...].mean(axis=0) for each in members])


def slow_train(
    network: EarlyExitNetwork,
    recipe: DeepRecipe | PaperRecipe,
    supported: list[bool],
    rate_of: Callable[[int], float],
    weights: dict[str, Any],
) -> list[float]:
    rng, step, history = np.random.default_rng(6), 0, []
    joint, nesterov = getattr(recipe, "joint", True), isinstance(recipe, DeepRecipe)
    parameters = network.named_parameters() if joint else network.head_parameters()
    velocity = {name: np.zeros(tensor.shape) for name, tensor in parameters.items()}
    for with_support in supported:
        samples, table, losses = np.arange(37), None, []
        if with_support:
            support = draw_support(LABELS, recipe.support_share, rng)
            table = slow_support(network, support)
            samples = np.array([n for n in samples if n not in support])
        order = list(rng.permutation(samples))
        while len(order) >= 2:
            chosen, order = order[: recipe.batch], order[recipe.batch :]
            for segment in network.segments:
                segment.train(joint)
            for head in network.heads:
                head.train(True)
            outputs = network(Tensor(IMAGES[chosen]))
            loss = exits_loss(outputs, LABELS[chosen], budget(network), table, **weights)
            loss.backward()
            for name, tensor in parameters.items():
                gradient = tensor.grad + recipe.weight_decay * tensor.data
                velocity[name] = recipe.momentum * velocity[name] + gradient
                direction = gradient + recipe.momentum * velocity[name] if nesterov else velocity[name]
                tensor.data -= rate_of(step) * direction
            for tensor in network.named_parameters().values():
                tensor.grad = None
            losses.append(loss.item())
            step += 1
        history.append(float(np.mean(losses)))
    network.train(False)
    return history


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_deep_training_is_the_slow_loop(gamma: float) -> None:
    def rate(step: int) -> float:  # 3 of the 16 steps rise, 13 fall: the 37th sample makes no batch
        return 0.08 * (step + 1) / 3 if step < 3 else 0.08 * (1 + cos(pi * (step - 3) / 13)) / 2

    fast, slow, weights = build(), build(), {"beta": 2.0, "gamma": gamma, "kappa": 0.5, "fixed": (1.0, 1.0, 3.0)}
    history = fit_deep(fast, replace(DEEP, gamma=gamma))
    np.testing.assert_allclose(history, slow_train(slow, DEEP, [gamma > 0] * 4, rate, weights), rtol=1e-9)
    assert_equal_weights(fast, slow)


@pytest.mark.parametrize("recipe", [PAPER, FROZEN], ids=["joint", "frozen"])
@pytest.mark.parametrize("exits", [(1, 1), (0, 1), (0, 0)])
def test_the_papers_exits_are_the_slow_loop(recipe: PaperRecipe, exits: tuple[int, int]) -> None:
    fast, slow = build(exits), build(exits)
    for network in (fast, slow):
        fit_backbone(network)
    supported = [False] * 2 + [sum(exits) > 0] * 3
    weights = {"alpha": 0.7, "beta": 2.0, "gamma": 3.0}
    expected = slow_train(slow, recipe, supported, lambda step: 0.05 * (1 + cos(pi * step / 30)) / 2, weights)
    np.testing.assert_allclose(fit_exits(fast, recipe), expected, rtol=1e-9)
    assert_equal_weights(fast, slow)


def test_maps_are_those_of_the_network_in_inference() -> None:
    network = build()
    network.train()
    images = np.concatenate([IMAGES] * 8)  # 296: more than one group
    maps = exit_maps(network, images)
    assert not network.training
    with no_grad():
        for cached, direct in zip(maps, network.maps(Tensor(images)), strict=True):
            np.testing.assert_allclose(cached, direct.data, rtol=1e-12, atol=1e-12)


# What moves, and what decides


def test_what_moves_in_which_phase() -> None:
    frozen, joint, backbone, before = build(), build(), build(), build().state()
    fit_exits(frozen, FROZEN)
    fit_exits(joint)
    fit_backbone(backbone)
    # The final classifier trains in each phase, and its batch norm with it.
    for network, parts in ((frozen, "heads."), (joint, ""), (backbone, ("segments.", "heads.2."))):
        assert moved(before, network.state()) == {name for name in before if name.startswith(parts)}
    assert not any(network.training for network in (frozen, joint, backbone))


def test_the_backbone_trains_the_same_in_any_mode_and_wherever_the_exits_are() -> None:
    states = set()
    for exits, mode in (((0, 1), True), ((1, 0), False), ((1, 1), None)):
        network = build(exits)
        if mode is not None:
            network.train(mode)
        fit_backbone(network)
        states.add(network.backbone_state().tobytes())
    assert len(states) == 1


@pytest.mark.parametrize("fit", [fit_backbone, fit_exits, fit_deep])
def test_a_generator_decides_everything(fit: Callable[..., list[float]]) -> None:
    one, same, other = build(), build(), build()
    for network, seed in ((one, 0), (same, 0), (other, 1)):
        fit(network, seed=seed)
    assert not moved(one.state(), same.state())
    assert moved(one.state(), other.state())


def test_without_an_epoch_nothing_moves() -> None:
    network, before = build(), build().state()
    assert fit_deep(network, replace(DEEP, epochs=0)) == []
    assert fit_backbone(network, replace(PAPER, backbone_epochs=0)) == []
    assert fit_exits(network, replace(PAPER, warmup_epochs=0, support_epochs=0)) == []
    assert not moved(before, network.state())
    assert not network.training


def test_every_term_of_deep_supervision_moves_the_weights() -> None:
    changes = [{}, {"distillation": 0.5}, {"beta": 0.0}, {"gamma": 1.0}, {"confidence": 0.0}, {"augment": "shift"}]
    networks = [build() for _ in changes]
    for network, change in zip(networks, changes, strict=True):
        fit_deep(network, replace(DEEP, **change))
    assert len({network.backbone_state().tobytes() for network in networks}) == len(changes)


@pytest.mark.parametrize("fit", [fit_backbone, fit_exits])
def test_the_papers_phases_vary_images_when_asked(fit: Any) -> None:
    plain, shifted = build(), build()
    fit(plain, PAPER)
    fit(shifted, replace(PAPER, augment="shift"))
    assert moved(plain.state(), shifted.state())


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_is_refused(wrong: int) -> None:
    network, labels = build(), LABELS.copy()
    labels[5] = wrong
    for train, recipe in ((train_exits, PAPER), (train_deep, DEEP)):
        with pytest.raises(ValueError, match=r"^labels must be in 0\.\.2, got "):
            train(network, IMAGES, labels, budget(network), recipe, np.random.default_rng(0))
        with pytest.raises(ValueError, match="costs must have one entry for each of 3 exits, got 1"):
            train(network, IMAGES, LABELS, Budget((1,), 1), recipe, np.random.default_rng(0))


# The support set


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any), st.floats(0.01, 0.99), st.integers(0, 99))
def test_support_sets_are_balanced_and_never_take_a_whole_class(counts: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    support = draw_support(labels, share, rng)
    assert (np.diff(support) > 0).all()  # sorted, none twice
    present = sum(count > 0 for count in counts)
    wanted = max(1, round(share * len(labels) / present))
    taken = np.bincount(labels[support], minlength=len(counts))
    assert list(taken) == [max(0, min(wanted, count - 1)) for count in counts]


def test_every_support_set_is_drawn_anew_and_any_sample_may_be_in_it() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_support(LABELS, 0.3, rng) for _ in range(50)]
    assert len({draw.tobytes() for draw in draws}) == 50
    assert set(np.concatenate(draws)) == set(range(37))


def test_support_matrix_is_the_accuracy_by_class() -> None:
    network = build()
    fit_exits(network)
    support = draw_support(LABELS, 0.6, np.random.default_rng(7))
    for chosen in (support, support[LABELS[support] < 2]):
        table = support_matrix(network, exit_maps(network, IMAGES[chosen]), LABELS[chosen])
        np.testing.assert_array_equal(table, slow_support(network, chosen))
        assert 0 < table.mean() < 1  # neither all right nor all wrong


def test_without_any_support_sample_there_is_no_peak_term() -> None:
    one, other, labels = build(), build(), np.array([0, 1, 2])
    for network, gamma in ((one, 3.0), (other, 0.0)):
        recipe, rng = replace(PAPER, gamma=gamma), np.random.default_rng(0)
        train_exits(network, IMAGES[:3], labels, budget(network), recipe, rng)
    assert all(np.isfinite(value).all() for value in one.state().values())
    assert not moved(one.state(), other.state())


# Augmentation and recipes


def test_images_are_shifted_by_at_most_their_share_and_mirrored() -> None:
    image = np.arange(16 * 30, dtype=np.float32).reshape(16, 30, 1)
    many, shifted = np.repeat(image[None], 200, axis=0), []
    assert augmented(many, "none", np.random.default_rng(0)) is many
    for dy, dx in product((-1, 0, 1), (-2, -1, 0, 1, 2)):
        shifted.append(image[np.clip(np.arange(16) + dy, 0, 15)][:, np.clip(np.arange(30) + dx, 0, 29)])
    mirrored = [each[:, ::-1] for each in shifted]
    for how, possible in (("shift", shifted), ("shift-flip", shifted + mirrored)):
        made = {each.tobytes() for each in augmented(many, how, np.random.default_rng(1))}
        assert made <= {each.tobytes() for each in possible}
        assert len(made) >= 0.9 * len(possible)


def test_signals_are_shifted_along_their_length_and_short_ones_not_at_all() -> None:
    for length, most in ((30, 2), (12, 1), (11, 0)):
        signal = np.arange(length, dtype=np.float32).reshape(1, length, 1)
        shifted = [signal[:, np.clip(np.arange(length) + by, 0, length - 1)] for by in range(-most, most + 1)]
        many, flipped = np.repeat(signal[None], 100, axis=0), [each[:, ::-1] for each in shifted]
        for how, possible in (("shift", shifted), ("shift-flip", shifted + flipped)):
            made = {each.tobytes() for each in augmented(many, how, np.random.default_rng(1))}
            assert made == {each.tobytes() for each in possible}
        assert DeepRecipe().augmentation(1, length) == "none"  # it may be a table


def test_recipes_are_named_and_stored_as_plain_values() -> None:
    for recipe in (DeepRecipe(epochs=3), PaperRecipe(beta=2.0), PaperRecipe(augment="shift")):
        assert from_record(as_record(recipe)) == recipe
    assert as_record(PaperRecipe()) | {"augment": "none"} == asdict(PaperRecipe())
    assert "augment" not in as_record(PaperRecipe()), "as in runs that were stored before it had one"
    shared = {2: (1, 1, 0), 3: (1, 1, 1), 5: (3, 1, 1), 6: (3, 2, 1), 7: (3, 2, 2), 8: (4, 2, 2), 21: (11, 5, 5)}
    for epochs, phases in shared.items():
        assert recipe_of("paper", {}, epochs=epochs) == PaperRecipe(*phases)
    with pytest.raises(RecipeError, match="epochs must be >= 2 with the recipe paper"):
        recipe_of("paper", {}, epochs=1)
    assert recipe_of("deep", {"rate": 0.1}, epochs=7, beta=1.0) == DeepRecipe(epochs=7, rate=0.1, beta=1.0)
    with pytest.raises(RecipeError, match="backbone must be joint"):
        recipe_of("deep", {}, backbone="frozen")
    faster = recipe_of("paper", {"exits_rate": 0.02}, rate=0.2, batch=8, augment="shift")
    assert faster == PaperRecipe(backbone_rate=0.2, exits_rate=0.04, batch=8, augment="shift")
    assert recipe_of("deep", {}, rate=0.2, batch=8) == DeepRecipe(rate=0.2, batch=8)
    with pytest.raises(RecipeError, match="augment must be none with a frozen backbone"):
        recipe_of("paper", {}, augment="shift", backbone="frozen")
    # Small images are shifted only on request.
    assert [DeepRecipe().augmentation(side, 40) for side in (8, 11, 12, 32)] == ["none", "none", "shift", "shift"]
    assert DeepRecipe(augment="shift-flip").augmentation(8, 8) == "shift-flip"


# It learns


def test_exits_learn_digits_and_none_starves() -> None:
    """No exit is worse than an earlier one by more than noise, nor the last than without exits."""
    digits, coder = load("digits"), GenomeCoder(load_space("micro"), (8, 8, 1), 10, static=True)

    def accuracy(network: EarlyExitNetwork) -> np.ndarray:
        return np.asarray(
            (digits.test.labels == exit_answers(network, digits.test.images).predicted().T).mean(axis=1)
        )

    network, alone, papers = (build(exits, coder, np.float32) for exits in ((1, 1), (0, 0), (1, 1)))
    train, rng = (digits.train.images, digits.train.labels), np.random.default_rng(2)
    for each in (network, alone):
        train_deep(each, *train, budget(each), DeepRecipe(epochs=12), np.random.default_rng(0))
    noise = 2 * np.sqrt(0.05 * 0.95 * 2 / len(digits.test.labels))
    assert (np.diff(accuracy(network)) > -noise).all()
    assert accuracy(network)[-1] > accuracy(alone)[-1] - noise

    recipe = PaperRecipe(backbone_epochs=3, warmup_epochs=4, support_epochs=1, joint=False)
    backbone = train_backbone(papers, *train, recipe, rng)
    exits = train_exits(papers, *train, budget(papers), recipe, rng)
    assert backbone[2] < 0.5 * backbone[0]
    assert exits[1] < exits[0]
    assert accuracy(papers)[-1] > 0.8
    assert accuracy(papers).min() > 0.4  # chance is 0.1


def test_a_network_of_the_papers_space_learns() -> None:
    network = build((0, 1, 0, 1), GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 4), np.float32)
    rng, labels = np.random.default_rng(2), np.arange(8) % 4
    images, recipe = rng.standard_normal((8, 32, 32, 3), np.float32), PaperRecipe(3, 4, 0, batch=8, joint=False)
    backbone = train_backbone(network, images, labels, recipe, rng)
    exits = train_exits(network, images, labels, Budget(budget(network).costs, None), recipe, rng)
    assert backbone[-1] < 0.9 * backbone[0]
    assert exits == sorted(exits, reverse=True)
