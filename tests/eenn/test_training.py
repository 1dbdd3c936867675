"""Training: the phases of the exits against a slow loop, frozen and jointly; support sets; and that it learns."""

from collections.abc import Iterator
from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.autograd import Tensor, no_grad
from nachos_min.data import load
from nachos_min.eenn.inference import exit_tables
from nachos_min.eenn.losses import exit_probabilities, exits_loss
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.paper_training import train_backbone, train_exits, train_jointly
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.eenn.training import Budget, draw_support, exit_maps, support_matrix
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

Weights = dict[str, np.ndarray]

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 3)
LABELS = np.repeat([0, 1, 2], [16, 12, 9])
IMAGES = np.random.default_rng(5).standard_normal((37, 8, 8, 1)) + LABELS[:, None, None, None]
EPOCHS = {"backbone_epochs": 2, "warmup_epochs": 2, "support_epochs": 3}
RECIPE = PaperRecipe(**EPOCHS, batch=8, support_share=0.3, alpha=0.7, beta=2.0, gamma=3.0)


def build(exits: tuple[int, int] = (1, 1), dtype: type[np.floating] = np.float64) -> EarlyExitNetwork:
    genome = [0] * CODER.length
    genome[CODER.exit_genes] = exits
    network = EarlyExitNetwork(CODER.decode(genome), np.random.default_rng(1), np.random.default_rng(2))
    network.astype(dtype)
    return network


def budget(network: EarlyExitNetwork) -> Budget:
    costs = static_costs(network.architecture).exit_costs
    return Budget(costs, costs[0])


def trained_exits(seed: int = 0, recipe: PaperRecipe = RECIPE, labels: np.ndarray = LABELS) -> EarlyExitNetwork:
    network = build()
    maps = exit_maps(network, IMAGES[: len(labels)])
    train_exits(network, maps, labels, budget(network), recipe, np.random.default_rng(seed))
    return network


def assert_equal_weights(one: Weights, other: Weights, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


# Phases 2 and 3, on cached maps and jointly, against training through the whole network in every step


def slow_steps(samples: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    order = list(rng.permutation(samples))
    while len(order) >= 2:
        yield np.array(order[: RECIPE.batch])
        order = order[RECIPE.batch :]


def slow_support(network: EarlyExitNetwork, support: np.ndarray) -> np.ndarray:
    """T[k, i], one sample and one exit after the other, through the whole network."""
    network.train(False)
    table = np.zeros((3, len(network.heads) - 1))
    for k in range(3):
        for i in range(len(network.heads) - 1):
            members = [n for n in support if LABELS[n] == k]
            hits = [network(Tensor(IMAGES[n : n + 1]))[i].logits.data.argmax() == k for n in members]
            table[k, i] = sum(hits) / len(hits)
    return table


def slow_train_exits(network: EarlyExitNetwork, rng: np.random.Generator, joint: bool = False) -> list[float]:
    parameters = {
        name: tensor for name, tensor in network.named_parameters().items() if joint or name.startswith("heads.")
    }
    velocity = {name: np.zeros(tensor.shape) for name, tensor in parameters.items()}
    step, history = 0, []
    epochs = RECIPE.warmup_epochs + RECIPE.support_epochs
    steps = epochs * 5  # 37 samples in groups of 8
    for epoch in range(epochs):
        samples, table, losses = np.arange(37), None, []
        if epoch >= RECIPE.warmup_epochs:
            support = draw_support(LABELS, RECIPE.support_share, rng)
            table = slow_support(network, support)
            samples = np.array([n for n in range(37) if n not in support])
        for chosen in slow_steps(samples, rng):
            for segment in network.segments:
                segment.train(joint)
            for head in network.heads:
                head.train(True)
            outputs = network(Tensor(IMAGES[chosen]))
            loss = exits_loss(
                [output.logits for output in outputs],
                [output.confidence for output in outputs[:-1]],
                LABELS[chosen],
                costs=static_costs(network.architecture).exit_costs,
                max_macs=static_costs(network.architecture).exit_costs[0],
                support=table,
                alpha=0.7,
                beta=2.0,
                gamma=3.0,
            ).total
            loss.backward()
            rate = RECIPE.exits_rate * (1 + cos(pi * step / steps)) / 2
            for name, tensor in parameters.items():
                gradient = tensor.grad + RECIPE.weight_decay * tensor.data
                velocity[name] = RECIPE.momentum * velocity[name] + gradient
                tensor.data -= rate * velocity[name]
            for tensor in network.named_parameters().values():
                tensor.grad = None
            losses.append(loss.item())
            step += 1
        history.append(float(np.mean(losses)))
    return history


def test_joint_training_is_the_same_without_freezing() -> None:
    fast, slow = build(), build()
    history = train_jointly(fast, IMAGES, LABELS, budget(fast), RECIPE, np.random.default_rng(6))
    slow_history = slow_train_exits(slow, np.random.default_rng(6), joint=True)
    np.testing.assert_allclose(history, slow_history, rtol=1e-9)
    slow.train(False)
    assert_equal_weights(fast.state(), slow.state(), 1e-9)


def test_cached_maps_train_the_heads_as_the_frozen_backbone_does() -> None:
    fast, slow = build(), build()
    for network in (fast, slow):
        train_backbone(network, IMAGES, LABELS, RECIPE, np.random.default_rng(3))
    maps = exit_maps(fast, IMAGES)
    history = train_exits(fast, maps, LABELS, budget(fast), RECIPE, np.random.default_rng(4))
    expected = slow_train_exits(slow, np.random.default_rng(4))
    assert len(history) == 5
    np.testing.assert_allclose(history, expected, rtol=1e-9)
    assert_equal_weights(fast.state(), slow.state(), tolerance=1e-9)


def test_maps_are_those_of_the_network_in_inference() -> None:
    network = build()
    network.train()
    images = np.concatenate([IMAGES] * 8)  # 296: more than one group
    maps = exit_maps(network, images)
    assert not network.training
    with no_grad():
        for cached, direct in zip(maps, network.maps(Tensor(images)), strict=True):
            np.testing.assert_allclose(cached, direct.data, rtol=1e-12, atol=1e-12)


# What moves in which phase


def test_training_the_exits_leaves_the_stages_alone() -> None:
    before, after = build().state(), trained_exits().state()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("heads.")}
    # The final classifier goes on training, and its batch norm with it.
    assert {"heads.2.expand.norm.running_mean", "heads.2.expand.norm.running_variance"} <= moved


def test_training_the_backbone_leaves_the_early_exits_alone() -> None:
    network = build()
    before = network.state()
    train_backbone(network, IMAGES, LABELS, RECIPE, np.random.default_rng(0))
    moved = {name for name, value in network.state().items() if not np.array_equal(before[name], value)}
    assert moved == {name for name in before if name.startswith(("segments.", "heads.2."))}
    assert not network.training


@pytest.mark.parametrize("mode", [True, False])
def test_the_backbone_trains_on_batch_statistics_in_whatever_mode_it_was(mode: bool) -> None:
    fresh, switched = build(), build()
    switched.train(mode)
    for network in (fresh, switched):
        train_backbone(network, IMAGES, LABELS, RECIPE, np.random.default_rng(0))
    assert_equal_weights(fresh.state(), switched.state())
    start, trained = build().named_buffers(), fresh.named_buffers()
    assert not any(np.array_equal(start[name], trained[name]) for name in start)


def test_the_backbone_trains_the_same_wherever_the_exits_are() -> None:
    weights = []
    for exits in ((0, 1), (1, 0), (1, 1)):
        network = build(exits)
        train_backbone(network, IMAGES, LABELS, RECIPE, np.random.default_rng(0))
        weights.append([parameter.data for parameter in network.backbone_parameters().values()])
    for others in weights[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(weights[0], others, strict=True))


@pytest.mark.parametrize("phase", ["backbone", "exits"])
def test_a_generator_decides_everything(phase: str) -> None:
    def weights(seed: int) -> Weights:
        if phase == "exits":
            return trained_exits(seed).state()
        network = build()
        train_backbone(network, IMAGES, LABELS, RECIPE, np.random.default_rng(seed))
        return network.state()

    assert_equal_weights(weights(0), weights(0))
    assert any(not np.array_equal(one, weights(1)[name]) for name, one in weights(0).items())


def test_a_last_group_of_two_is_used_and_of_one_is_not() -> None:
    def weights(samples: int, labels: np.ndarray) -> Weights:
        network = build()
        recipe = replace(RECIPE, backbone_epochs=1, batch=4)
        train_backbone(network, IMAGES[:samples], labels, recipe, np.random.default_rng(0))
        return network.state()

    for samples, used in ((9, False), (10, True)):
        last = np.random.default_rng(0).permutation(samples)[-1]
        one, other = np.zeros(samples, np.int64), np.zeros(samples, np.int64)
        other[last] = 1
        one_weights, other_weights = weights(samples, one), weights(samples, other)
        changed = any(not np.array_equal(one_weights[name], other_weights[name]) for name in one_weights)
        assert changed == used


def test_no_epoch_changes_nothing() -> None:
    recipe, network = PaperRecipe(backbone_epochs=0, warmup_epochs=0, support_epochs=0), build()
    before = network.state()
    assert train_backbone(network, IMAGES, LABELS, recipe, np.random.default_rng(0)) == []
    maps = exit_maps(network, IMAGES)
    assert train_exits(network, maps, LABELS, budget(network), recipe, np.random.default_rng(0)) == []
    assert_equal_weights(before, network.state())


# The support set


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(lambda counts: sum(counts) > 0),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_support_sets_are_balanced_and_never_take_a_whole_class(counts: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    support = draw_support(labels, share, rng)
    assert (np.diff(support) > 0).all()  # sorted, none twice
    present = sum(count > 0 for count in counts)
    wanted = max(1, round(share * len(labels) / present))
    taken = np.bincount(labels[support], minlength=len(counts))
    assert list(taken) == [max(0, min(wanted, count - 1)) for count in counts]


def test_a_tenth_of_a_balanced_set() -> None:
    labels = np.tile(np.arange(10), 50)
    support = draw_support(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[support]).tolist() == [5] * 10
    assert draw_support(labels, 0.1, np.random.default_rng(1)).tolist() != support.tolist()


def test_a_class_with_one_sample_keeps_it_for_training() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    support = draw_support(labels, 0.5, np.random.default_rng(0))
    assert sorted(labels[support]) == [0, 2]
    assert draw_support(np.array([0, 1, 2]), 0.5, np.random.default_rng(0)).shape == (0,)


def test_support_matrix_is_the_accuracy_by_class() -> None:
    network = trained_exits()
    support = draw_support(LABELS, 0.6, np.random.default_rng(7))
    table = support_matrix(network, exit_maps(network, IMAGES[support]), LABELS[support])
    np.testing.assert_array_equal(table, slow_support(network, support))
    assert 0 < table.mean() < 1  # neither all right nor all wrong


def test_a_class_without_support_gets_the_accuracy_over_all() -> None:
    network = trained_exits()
    support = np.array([0, 1, 5, 17, 20, 21])  # classes 0 and 1
    table = support_matrix(network, exit_maps(network, IMAGES[support]), LABELS[support])
    right = (exit_tables(network, IMAGES[support]).predicted == LABELS[support][:, None])[:, :2]
    np.testing.assert_array_equal(table, [right[:3].mean(axis=0), right[3:].mean(axis=0), right.mean(axis=0)])


def test_without_any_support_sample_there_is_no_peak_term() -> None:
    labels = np.array([0, 1, 2])
    network = trained_exits(labels=labels)
    assert all(np.isfinite(value).all() for value in network.state().values())
    no_peak = trained_exits(labels=labels, recipe=replace(RECIPE, gamma=0.0))
    assert_equal_weights(network.state(), no_peak.state())


# It learns


def test_a_micro_network_learns_digits() -> None:
    digits = load("digits", "pixel", "whole")
    coder = GenomeCoder(load_space("micro"), digits.image_shape, digits.classes)
    genome = [0] * coder.length
    genome[coder.exit_genes] = [1, 1]
    network = EarlyExitNetwork(coder.decode(genome), np.random.default_rng(0), np.random.default_rng(1))
    recipe, rng = PaperRecipe(backbone_epochs=3, warmup_epochs=2, support_epochs=1), np.random.default_rng(2)
    backbone = train_backbone(network, digits.train.images, digits.train.labels, recipe, rng)
    maps = exit_maps(network, digits.train.images)
    exits = train_exits(network, maps, digits.train.labels, budget(network), recipe, rng)
    assert backbone[2] < 0.5 * backbone[0]
    assert exits[1] < exits[0]
    accuracy = (exit_tables(network, digits.validation.images).predicted == digits.validation.labels[:, None]).mean(
        axis=0
    )
    assert accuracy[-1] > 0.8
    assert accuracy.min() > 0.4  # chance is 0.1


def test_a_network_of_the_papers_space_learns() -> None:
    coder = GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 4)
    genome = [0] * coder.length
    genome[coder.exit_genes] = [0, 1, 0, 1]
    network = EarlyExitNetwork(coder.decode(genome), np.random.default_rng(0), np.random.default_rng(1))
    rng, labels = np.random.default_rng(2), np.arange(8) % 4
    images = rng.standard_normal((8, 32, 32, 3)).astype(np.float32)
    recipe = PaperRecipe(backbone_epochs=3, warmup_epochs=4, support_epochs=0, batch=8, backbone_rate=0.1)
    backbone = train_backbone(network, images, labels, recipe, rng)
    maps = exit_maps(network, images)
    exits = train_exits(network, maps, labels, Budget(budget(network).costs, None), recipe, rng)
    assert backbone[-1] < 0.9 * backbone[0]
    assert exits == sorted(exits, reverse=True)


def test_raising_beta_lowers_the_expected_macs() -> None:
    expected = []
    for beta in (0.0, 1.0, 10.0):
        network = trained_exits(recipe=replace(RECIPE, beta=beta, warmup_epochs=10))
        with no_grad():
            outputs = network(Tensor(IMAGES))
            q = exit_probabilities([out.confidence for out in outputs if out.confidence is not None])
        macs = sum(p.data.mean() * cost for p, cost in zip(q, budget(network).costs, strict=True))
        expected.append(macs)
    assert expected[0] > expected[1] > expected[2]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_is_refused(wrong: int) -> None:
    network, labels = build(), LABELS.copy()
    labels[5] = wrong
    maps = exit_maps(network, IMAGES)
    with pytest.raises(ValueError, match=r"^labels must be in 0\.\.2, got "):
        train_exits(network, maps, labels, budget(network), RECIPE, np.random.default_rng(0))
