"""Inference that stops early gives what the policy says, and computes nothing more."""

from dataclasses import replace

import numpy as np
import pytest

from nachos_min.autograd import count_macs
from nachos_min.eenn import inference
from nachos_min.eenn.inference import ExitTables, exit_answers, predict
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.thresholds import spent
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

N = 60
TINY = load_space("tiny")
# With one more stage: three early exits.
SPACE = replace(TINY, stages=(*TINY.stages, replace(TINY.stages[-1], stride=1)))
CODER = GenomeCoder(SPACE, (8, 8, 1), 10)


def build(placement: tuple[int, int, int] = (1, 1, 1)) -> EarlyExitNetwork:
    """An untrained network, its confidence weights enlarged: confidences differ from sample to sample."""
    genome = np.array(CODER.sample(np.random.default_rng(0)))
    genome[CODER.exit_genes] = placement
    architecture = CODER.decode(genome.tolist()) if any(placement) else CODER.backbone(genome.tolist())
    network = EarlyExitNetwork(architecture, np.random.default_rng(1), np.random.default_rng(2))
    for head in network.heads[:-1]:
        head.linear.weight.data[:, -1] *= 4
    return network


IMAGES = np.random.default_rng(3).standard_normal((N, 8, 8, 1)).astype(np.float32)
NETWORK = build()
TABLES = exit_answers(NETWORK, IMAGES).tables()
COSTS = static_costs(NETWORK.architecture).exit_costs


def between(column: int, share: float) -> float:
    """A threshold between two neighbouring confidences of exit `column`, about `share` of them below it."""
    ordered = np.unique(TABLES.confidence[:, column])
    place = int(share * (len(ordered) - 1))
    return float(ordered[place : place + 2].mean())


THRESHOLDS = {
    "nobody leaves early": (2.0, 2.0, 2.0, 0.0),
    "everybody leaves at once": (0.0, 0.0, 0.0, 0.0),
    "everybody at the second": (2.0, 0.0, 2.0, 0.0),
    "everybody at the third": (2.0, 2.0, 0.0, 0.0),
    "some at every exit": (between(0, 0.8), between(1, 0.8), between(2, 0.5), 0.0),
    "few at the first": (between(0, 0.95), 2.0, between(2, 0.5), 0.0),
    "the last threshold is ignored": (between(0, 0.5), 2.0, 2.0, 2.0),
}


def policy(thresholds: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """(label, exit, confidence) of each sample: the first exit whose confidence reaches its threshold."""
    answers = []
    for confidences, labels in zip(TABLES.confidence, TABLES.predicted, strict=True):
        for place in range(4):
            if confidences[place] >= thresholds[place] or place == 3:
                answers.append((int(labels[place]), place, float(confidences[place])))
                break
    return answers


@pytest.mark.parametrize("batch", [1, 7, N, 1000])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_predict_is_the_policy_whatever_the_batch(name: str, batch: int) -> None:
    with count_macs() as counter:
        answer = predict(NETWORK, IMAGES, THRESHOLDS[name], batch=batch)
    labels, exits, confidence = zip(*policy(THRESHOLDS[name]), strict=True)
    assert tuple(answer.exits) == exits
    assert tuple(answer.labels) == labels
    np.testing.assert_allclose(answer.confidence, confidence, rtol=1e-5)
    counts = answer.exit_counts(4)
    assert counts == tuple(exits.count(place) for place in range(4))
    assert counter.total == spent(counts, COSTS), "a sample that left is not computed further"
    assert name != "some at every exit" or min(counts) > 0


@pytest.mark.parametrize("name", THRESHOLDS)
def test_groups_between_two_exits_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict(NETWORK, IMAGES, THRESHOLDS[name])
    monkeypatch.setattr(inference, "GROUP_BYTES", 100_000)
    sizes = inference.group_sizes(NETWORK)
    assert inference.LEAST <= min(sizes) < max(sizes) < N  # several groups, larger where maps are smaller
    answer = predict(NETWORK, IMAGES, THRESHOLDS[name])
    assert (answer.labels == whole.labels).all()
    assert (answer.exits == whole.exits).all()
    np.testing.assert_allclose(answer.confidence, whole.confidence, atol=1e-6)
    np.testing.assert_allclose(exit_answers(NETWORK, IMAGES).tables().confidence, TABLES.confidence, atol=1e-6)


def test_tables_hold_what_every_exit_says_of_every_sample() -> None:
    """In order, also if 300 images are more than one batch."""
    with count_macs() as counter:
        tables = exit_answers(NETWORK, np.concatenate([IMAGES] * 5)).tables()
    assert counter.total == 5 * N * COSTS[-1]
    assert (tables.confidence.dtype, tables.predicted.dtype) == (np.float64, np.int64)
    np.testing.assert_allclose(tables.confidence, np.tile(TABLES.confidence, (5, 1)), rtol=1e-5)
    np.testing.assert_array_equal(tables.predicted, np.tile(TABLES.predicted, (5, 1)))


def test_cumulative_confidence_by_hand() -> None:
    network = build()
    for head, logit in zip(network.heads[:-1], (0.0, np.log(3.0), 0.0), strict=True):
        head.linear.weight.data[:, -1] = 0
        head.linear.bias.data[-1] = logit  # h = 1/2, 3/4, 1/2
    expected = [0.5, 1 - 0.5 * 0.25, 1 - 0.5 * 0.25 * 0.5, 1.0]
    np.testing.assert_allclose(exit_answers(network, IMAGES).tables().confidence, [expected] * N, rtol=1e-6)
    answer = predict(network, IMAGES, (0.6, 0.9, 0.93, 0.0))
    assert answer.exit_counts(4) == (0, 0, N, 0)
    np.testing.assert_allclose(answer.confidence, expected[2], rtol=1e-6)


def test_a_threshold_equal_to_the_confidence_lets_the_sample_go() -> None:
    network = build((0, 1, 0))
    network.heads[0].linear.weight.data[:, -1] = 0  # h = 1/2, exactly
    assert predict(network, IMAGES, (0.5, 0.0)).exit_counts(2) == (N, 0)
    assert predict(network, IMAGES, (np.nextafter(0.5, 1), 0.0)).exit_counts(2) == (0, N)


def test_no_image_at_all() -> None:
    none = IMAGES[:0]
    answer = predict(NETWORK, none, THRESHOLDS["some at every exit"])
    assert answer.labels.shape == answer.exits.shape == answer.confidence.shape == (0,)
    assert answer.exit_counts(4) == (0, 0, 0, 0)
    tables = exit_answers(NETWORK, none).tables()
    assert tables.confidence.shape == tables.predicted.shape == (0, 4)


def test_images_need_not_be_contiguous() -> None:
    mirrored = IMAGES[:, :, ::-1]
    expected = exit_answers(NETWORK, np.ascontiguousarray(mirrored)).tables()
    np.testing.assert_array_equal(exit_answers(NETWORK, mirrored).tables().confidence, expected.confidence)
    np.testing.assert_array_equal(
        predict(NETWORK, mirrored, (2.0, 2.0, 2.0, 0.0)).labels, expected.predicted[:, -1]
    )


def test_a_network_without_early_exits_answers_at_its_only_exit() -> None:
    network = build((0, 0, 0))
    tables = exit_answers(network, IMAGES).tables()
    np.testing.assert_array_equal(tables.confidence, np.ones((N, 1)))
    answer = predict(network, IMAGES, (0.0,))
    np.testing.assert_array_equal(answer.labels, tables.predicted[:, 0])
    assert answer.exit_counts(1) == (N,)


def test_the_network_is_left_in_inference_and_unchanged() -> None:
    network = build()
    before = network.state()
    network.train()
    predict(network, IMAGES, (2.0, 2.0, 2.0, 0.0))
    assert not network.training
    network.train()
    exit_answers(network, IMAGES)
    assert not network.heads[-1].expand.norm.training
    assert all(np.array_equal(before[name], value) for name, value in network.state().items())


@pytest.mark.parametrize(
    ("thresholds", "batch", "message"),
    [
        ((), 256, "thresholds must be one per exit: 4, got 0"),
        ((0.5, 0.5, 0.5, 0.5, 0.0), 256, "thresholds must be one per exit: 4, got 5"),
        ((0.5, 0.5, 0.5, 0.0), 0, "batch must be >= 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(thresholds: tuple[float, ...], batch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(NETWORK, IMAGES, thresholds, batch=batch)


def test_correct_compares_every_exit_with_the_label() -> None:
    tables = ExitTables(np.ones((2, 2)), np.array([[3, 4], [4, 4]]))
    np.testing.assert_array_equal(
        tables.policy_tables(np.array([4, 4]), (1, 2)).correct, [[False, True], [True, True]]
    )
