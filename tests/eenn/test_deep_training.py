"""Deep supervision against a slow loop; rates, augmentation and recipes; and what a trained network keeps."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from math import cos, pi

import numpy as np
import pytest

from nachos_min.autograd import Tensor, cross_entropy, stack
from nachos_min.data import load
from nachos_min.eenn.inference import exit_tables
from nachos_min.eenn.losses import confidence_loss, cost_loss, exit_probabilities
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, RecipeError, as_record, from_record, recipe_of
from nachos_min.eenn.training import Budget, augmented, train_deep
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 3, static=True)
LABELS = np.repeat([0, 1, 2], [16, 12, 9])
IMAGES = np.random.default_rng(5).standard_normal((37, 8, 8, 1)) + LABELS[:, None, None, None]
RECIPE = DeepRecipe(epochs=4, batch=8, rate=0.08, last=3.0, distillation=0.0, beta=2.0, warmup=0.2)


def build(exits: tuple[int, int] = (1, 1), coder: GenomeCoder = CODER) -> EarlyExitNetwork:
    genome = [0] * coder.length
    genome[coder.exit_genes] = exits
    network = EarlyExitNetwork(coder.decode(genome), np.random.default_rng(1), np.random.default_rng(2))
    network.astype(np.float64)
    return network


def budget(network: EarlyExitNetwork) -> Budget:
    costs = static_costs(network.architecture).exit_costs
    return Budget(costs, costs[0])


def slow_batches(rng: np.random.Generator) -> Iterator[np.ndarray]:
    order = rng.permutation(37)
    for begin in range(0, 37, 8):
        yield order[begin : begin + 8]


def slow_train(network: EarlyExitNetwork, rng: np.random.Generator) -> list[float]:
    """The loss of the docstring by composed operators, and SGD with Nesterov's momentum written out."""
    costs, step, history = static_costs(network.architecture).exit_costs, 0, []
    parameters = network.named_parameters()
    velocity = {name: np.zeros(tensor.shape) for name, tensor in parameters.items()}
    network.train(True)
    for _ in range(4):
        losses = []
        for chosen in slow_batches(rng):
            outputs = network(Tensor(IMAGES[chosen]))
            h, logits = [output.confidence for output in outputs[:-1]], [output.logits for output in outputs]
            loss = 0.5 * confidence_loss(stack(h, axis=1), logits, LABELS[chosen])
            for weight, scores in zip((1.0, 1.0, 3.0), logits, strict=True):
                loss = loss + weight * cross_entropy(scores, LABELS[chosen]).mean()
            cost = cost_loss(stack(exit_probabilities(h), axis=1), costs, costs[0])
            assert cost is not None
            loss = loss + 2.0 * cost
            loss.backward()
            # 4 of the 20 steps rise, 16 fall
            rate = 0.08 * (step + 1) / 4 if step < 4 else 0.08 * (1 + cos(pi * (step - 4) / 16)) / 2
            for name, tensor in parameters.items():
                gradient = tensor.grad + 5e-4 * tensor.data
                velocity[name] = 0.9 * velocity[name] + gradient
                tensor.data -= rate * (gradient + 0.9 * velocity[name])
                tensor.grad = None
            losses.append(loss.item())
            step += 1
        history.append(float(np.mean(losses)))
    network.train(False)
    return history


def test_deep_training_is_the_slow_loop() -> None:
    fast, slow = build(), build()
    history = train_deep(fast, IMAGES, LABELS, budget(fast), RECIPE, np.random.default_rng(6))
    np.testing.assert_allclose(history, slow_train(slow, np.random.default_rng(6)), rtol=1e-9)
    for name, weight in fast.state().items():
        np.testing.assert_allclose(weight, slow.state()[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_every_term_moves_the_weights_and_the_same_seed_repeats_them() -> None:
    def trained(recipe: DeepRecipe) -> np.ndarray:
        network = build()
        train_deep(network, IMAGES, LABELS, budget(network), recipe, np.random.default_rng(3))
        return network.backbone_state()

    plain = trained(RECIPE)
    np.testing.assert_array_equal(plain, trained(RECIPE))
    for change in ({"distillation": 0.5}, {"beta": 0.0}, {"gamma": 1.0}, {"confidence": 0.0}, {"augment": "shift"}):
        assert not np.array_equal(plain, trained(replace(RECIPE, **change))), change


def test_without_early_exits_it_is_cross_entropy_and_labels_must_be_classes() -> None:
    network = build((0, 0))
    history = train_deep(network, IMAGES, LABELS, budget(network), RECIPE, np.random.default_rng(0))
    assert len(history) == 4
    assert history[-1] < history[0]
    with pytest.raises(ValueError, match=r"labels must be in 0..2, got 0 to 3"):
        train_deep(network, IMAGES, LABELS + (LABELS == 2), budget(network), RECIPE, np.random.default_rng(0))


def test_images_are_shifted_by_at_most_their_share_and_mirrored() -> None:
    images = np.arange(2 * 16 * 30, dtype=np.float32).reshape(2, 16, 30, 1)
    assert augmented(images, "none", np.random.default_rng(0)) is images
    many = np.repeat(images[:1], 200, axis=0)

    def possible(flips: bool) -> set[bytes]:
        found = set()
        for dy in (-1, 0, 1):
            for dx in (-2, -1, 0, 1, 2):
                rows, columns = np.clip(np.arange(16) + dy, 0, 15), np.clip(np.arange(30) + dx, 0, 29)
                shifted = images[0][rows][:, columns]
                found |= {shifted.tobytes()} | ({shifted[:, ::-1].tobytes()} if flips else set())
        return found

    for how in ("shift", "shift-flip"):
        made = {image.tobytes() for image in augmented(many, how, np.random.default_rng(1))}
        assert made <= possible(how == "shift-flip")
        assert len(made) >= (14 if how == "shift" else 27)


def test_recipes_are_named_and_stored_as_plain_values() -> None:
    for recipe in (DeepRecipe(epochs=3), PaperRecipe(beta=2.0)):
        assert from_record(as_record(recipe)) == recipe
    assert as_record(PaperRecipe()) == asdict(PaperRecipe())  # as before there were names
    assert recipe_of("paper", {}, epochs=21) == PaperRecipe(11, 5, 5)
    assert recipe_of("deep", {"rate": 0.1}, epochs=7, beta=1.0) == DeepRecipe(epochs=7, rate=0.1, beta=1.0)
    with pytest.raises(RecipeError, match="backbone must be joint"):
        recipe_of("deep", {}, backbone="frozen")
    with pytest.raises(RecipeError, match="augment must be none"):
        recipe_of("paper", {}, augment="shift")


def test_small_images_are_not_shifted_unless_asked() -> None:
    assert [DeepRecipe().augmentation(side, 40) for side in (8, 11, 12, 32)] == ["none", "none", "shift", "shift"]
    assert DeepRecipe(augment="shift-flip").augmentation(8, 8) == "shift-flip"


def test_no_exit_starves_and_exits_cost_the_last_one_nothing() -> None:
    """On digits: no exit is worse than an earlier one by more than noise, nor the last than without exits."""
    digits, coder = load("digits"), GenomeCoder(load_space("micro"), (8, 8, 1), 10, static=True)
    accuracy = {}
    for exits in ((1, 1), (0, 0)):
        network = build(exits, coder)
        network.astype(np.float32)
        recipe = DeepRecipe(epochs=12)
        rng = np.random.default_rng(0)
        train_deep(network, digits.train.images, digits.train.labels, budget(network), recipe, rng)
        right = exit_tables(network, digits.test.images).predicted == digits.test.labels[:, None]
        accuracy[exits] = right.mean(axis=0)
    noise = 2 * np.sqrt(0.05 * 0.95 * 2 / len(digits.test.labels))
    assert (np.diff(accuracy[1, 1]) > -noise).all()
    assert accuracy[1, 1][-1] > accuracy[0, 0][-1] - noise
