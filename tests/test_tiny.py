"""The whole story, from a tensor to a search. Read this file first.

Seven chapters, each a test that stands on its own and tells one idea of the project. What a chapter uses is
explained in the file it is imported from.
"""

from pathlib import Path

import numpy as np

import nachos_min
from nachos_min.autograd import Tensor, conv2d, count_macs
from nachos_min.data import load
from nachos_min.eenn.architecture import Architecture, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.inference import exit_answers, predict
from nachos_min.eenn.lowering import design_exits, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe
from nachos_min.eenn.threshold_search import best_thresholds
from nachos_min.eenn.thresholds import PolicyTables, split_limits
from nachos_min.eenn.training import Budget, train_deep
from nachos_min.nas.nsga2 import minimize


def test_1_a_tensor_remembers_how_it_was_computed() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    assert y.item() == 1 + 4 + 9
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 4.0, 6.0]  # dy/dx = 2x


def test_2_a_convolution_has_a_price() -> None:
    """Multiply-accumulates (MACs) are what we pay for an answer, and they are counted exactly."""
    image = np.zeros((1, 5, 5, 1))  # N H W C: one image, 5 x 5 pixels, one channel
    image[0, 2, 2, 0] = 1.0
    weight = np.arange(9.0).reshape(3, 3, 1, 1)
    with count_macs() as counter:
        y = conv2d(Tensor(image), Tensor(weight), padding=1)
    # The window slides over the bright pixel from the other side: the weights appear mirrored.
    assert y.data[0, 1:4, 1:4, 0].tolist() == [[8, 7, 6], [5, 4, 3], [2, 1, 0]]
    assert counter.total == 5 * 5 * 3 * 3  # every output pixel looks at nine input pixels


def small_architecture() -> Architecture:
    """A stem, two stages of inverted residuals, and an early exit between them, for 8 x 8 digits."""
    first = MBConvSpec(in_channels=8, middle=16, out_channels=8, kernel=3, stride=1, activation="hswish")
    second = MBConvSpec(in_channels=8, middle=32, out_channels=16, kernel=3, stride=1, activation="hswish")
    third = MBConvSpec(in_channels=16, middle=64, out_channels=16, kernel=3, stride=1, activation="hswish")
    backbone = Architecture(
        input_shape=(8, 8, 1),
        classes=10,
        stem=Stem(channels=8, kernel=3, stride=2, activation="hswish"),
        trunk=(),
        stages=((first,), (second, third)),
        exits=(),
        final=FinalHead(expand=48, mix=0, activation="hswish"),
    )
    return design_exits(backbone, stages=[1], widths=[4])


def test_3_an_early_exit_network_is_counted_before_it_exists() -> None:
    """An Architecture is plain data. What it will cost to leave at each exit follows from shapes alone."""
    architecture = small_architecture()
    early, final = static_costs(architecture).exit_costs
    assert early < final

    network = EarlyExitNetwork(architecture, np.random.default_rng(0), np.random.default_rng(1))
    with count_macs() as counter:
        first_answer, last_answer = network(Tensor(np.zeros((3, 8, 8, 1), np.float32)))
    assert counter.total == 3 * final  # counted = executed, for three images asked at both exits
    assert first_answer.logits.shape == last_answer.logits.shape == (3, 10)
    assert first_answer.confidence is not None  # the early exit also says how sure it is
    assert last_answer.confidence is None  # the final exit takes whatever comes


def test_4_it_learns_digits_and_stops_early_when_it_is_sure() -> None:
    digits, architecture = load("digits"), small_architecture()
    early, final = costs = static_costs(architecture).exit_costs
    budget = (early + final) // 2  # MACs per image, on average

    # Train: both exits learn from every image, from the first step on.
    rng = np.random.default_rng(1)
    network = EarlyExitNetwork(architecture, rng, rng)
    recipe = DeepRecipe(epochs=8)
    train_deep(network, digits.train.images, digits.train.labels, Budget(costs, budget), recipe, rng)

    # Ask both exits about the validation images; choose how sure is sure enough on these two tables alone.
    tables = exit_answers(network, digits.validation.images).tables()
    policy = tables.policy_tables(digits.validation.labels, costs)
    chosen = best_thresholds(policy, split_limits(budget, 0.8, policy.samples))
    assert chosen.figures.average_macs <= budget
    assert chosen.figures.accuracy > 0.8

    # On images that took part in no choice, an image that is answered early is really not computed further.
    with count_macs() as counter:
        answer = predict(network, digits.test.images, chosen.thresholds)
    at_early, at_final = answer.exit_counts(2)
    assert min(at_early, at_final) > 0
    assert counter.total == at_early * early + at_final * final
    assert (answer.labels == digits.test.labels).mean() > 0.8


def test_5_a_larger_budget_buys_a_better_answer() -> None:
    """Thresholds trade MACs for accuracy: an exit that costs 10 is often wrong, one that costs 30 is right."""
    rng = np.random.default_rng(0)
    right = rng.random(100) < 0.6
    sure = np.where(right, 0.5, 0.4) + 0.3 * rng.random(100)  # confidence knows a little of correctness
    correct = np.column_stack([right, np.ones(100, bool)])
    policy = PolicyTables(np.column_stack([sure, np.ones(100)]), correct, costs=(10, 30))
    chosen = [best_thresholds(policy, split_limits(budget, 0.0, samples=100)) for budget in (10, 15, 20, 30)]
    accuracies = [point.figures.accuracy for point in chosen]
    assert accuracies == sorted(accuracies)
    assert accuracies[0] == right.mean()
    assert accuracies[-1] == 1.0


def test_6_nsga2_finds_every_best_compromise() -> None:
    """Minimise x^2 and (x - 2)^2 at once: between 0 and 2, neither can be had without giving up the other."""
    result = minimize(
        lambda X: np.hstack([X**2, (X - 2) ** 2]), lower=[-10], upper=[10], n_objectives=2, population=40
    )
    assert len(result.X) == 40
    assert result.X.min() > -0.01
    assert result.X.max() < 2.01
    assert np.diff(np.sort(result.X[:, 0])).max() < 0.2  # and they lie spread out


def test_7_the_search_designs_networks_and_measures_what_they_do(tmp_path: Path) -> None:
    """All of the above at once: genomes, training, thresholds, limits. Two candidates keep it short."""
    result = nachos_min.search(
        data="digits",
        space="micro",
        max_macs=25_000,
        min_accuracy=0.8,
        evaluations=2,
        finalists=1,  # the better of the two is trained again, four times as long
        epochs=6,
        workers=1,
        out=tmp_path,
    )
    assert result.evaluated == 3
    best = result.front[0]  # the front holds the admissible compromises, the most accurate first
    assert best.accuracy >= 0.8
    assert best.total_macs <= 25_000 * best.samples
    # The test figures: the same on the test images, the integers they come from, and how far to trust them.
    assert best.test.total_macs == sum(
        n * cost for n, cost in zip(best.test.exit_counts, best.exit_costs, strict=True)
    )
    low, high = best.test.interval95
    assert 0.7 < low < best.test.correct / best.test.samples < high <= 1
