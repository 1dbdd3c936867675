"""Training without freezing, and without early exits: the two variants of the phases after the backbone."""

import numpy as np

from nachos_min.autograd import Tensor, cross_entropy
from nachos_min.eenn.inference import exit_tables, predict
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.paper_training import train_exits, train_jointly
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.eenn.training import Budget, exit_maps
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space
from nachos_min.nn.optim import SGD, cosine_rate

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 3, static=True)
LABELS = np.repeat([0, 1, 2], [16, 12, 9])
IMAGES = np.random.default_rng(5).standard_normal((37, 8, 8, 1)) + LABELS[:, None, None, None]
RECIPE = PaperRecipe(warmup_epochs=2, support_epochs=2, batch=8, support_share=0.3)


def build(exits: tuple[int, int]) -> EarlyExitNetwork:
    genome = [0] * CODER.length
    genome[CODER.exit_genes] = exits
    network = EarlyExitNetwork(CODER.decode(genome), np.random.default_rng(1), np.random.default_rng(2))
    network.astype(np.float64)
    return network


def budget(network: EarlyExitNetwork) -> Budget:
    costs = static_costs(network.architecture).exit_costs
    return Budget(costs, costs[0])


def test_joint_training_moves_what_freezing_keeps() -> None:
    before = build((1, 1)).state()
    for joint in (False, True):
        network = build((1, 1))
        rng = np.random.default_rng(0)
        if joint:
            history = train_jointly(network, IMAGES, LABELS, budget(network), RECIPE, rng)
        else:
            history = train_exits(network, exit_maps(network, IMAGES), LABELS, budget(network), RECIPE, rng)
        assert len(history) == 4
        moved = {name for name, weight in network.state().items() if not np.array_equal(weight, before[name])}
        assert any(name.startswith("heads.0.") for name in moved)
        assert any(name.startswith("segments.") for name in moved) == joint


def test_joint_training_is_decided_by_its_generator_and_ends_in_inference_mode() -> None:
    one, other = build((0, 1)), build((0, 1))
    for network in (one, other):
        train_jointly(network, IMAGES, LABELS, budget(network), RECIPE, np.random.default_rng(3))
    for name, weight in one.state().items():
        np.testing.assert_array_equal(weight, other.state()[name], err_msg=name)
    tables = exit_tables(one, IMAGES)
    np.testing.assert_array_equal(exit_tables(one, IMAGES[:5]).predicted, tables.predicted[:5])


def test_without_early_exits_both_phases_are_cross_entropy_over_all_samples() -> None:
    network, slow = build((0, 0)), build((0, 0))
    maps = exit_maps(network, IMAGES)
    history = train_exits(network, maps, LABELS, budget(network), RECIPE, np.random.default_rng(4))

    optimiser = SGD(slow.head_parameters(), momentum=RECIPE.momentum, weight_decay=RECIPE.weight_decay)
    rng, steps, losses = np.random.default_rng(4), 4 * 5, []
    slow.heads[-1].train()
    for step in range(steps):
        if step % 5 == 0:
            order = rng.permutation(np.arange(37))
        chosen = order[step % 5 * 8 : step % 5 * 8 + 8]
        loss = cross_entropy(slow.heads[-1](Tensor(maps[0][chosen])).logits, LABELS[chosen]).mean()
        loss.backward()
        optimiser.step(cosine_rate(RECIPE.exits_rate, step, steps))
        losses.append(float(loss.data))
    np.testing.assert_allclose(history, np.mean(np.reshape(losses, (4, 5)), axis=1))
    slow.train(False)
    for name, weight in network.state().items():
        np.testing.assert_allclose(weight, slow.state()[name], err_msg=name)


def test_a_static_network_answers_at_its_only_exit() -> None:
    network = build((0, 0))
    tables = exit_tables(network, IMAGES)
    assert (tables.confidence == 1).all()
    assert tables.confidence.shape == (37, 1)
    answer = predict(network, IMAGES, (0.0,))
    np.testing.assert_array_equal(answer.labels, tables.predicted[:, 0])
    assert answer.exit_counts(1) == (37,)
