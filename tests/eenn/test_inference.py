"""Inference that stops early gives what the policy says, and computes nothing more."""

import numpy as np
import pytest
from oracles_nn import architecture, initialised

from nachos_min.autograd import count_macs
from nachos_min.eenn import inference
from nachos_min.eenn.confidence import LEARNED, Confidence
from nachos_min.eenn.inference import exit_answers, predict
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.thresholds import ExitTables, spent

N = 60


def build(*stages: int) -> EarlyExitNetwork:
    """An untrained network, its confidence weights enlarged: confidences differ from sample to sample."""
    network = initialised(architecture(*stages))
    for head in network.heads[:-1]:
        head.linear.weight.data[:, -1] *= 4
    return network


IMAGES = np.random.default_rng(3).standard_normal((N, 7, 6, 2)).astype(np.float32)
NETWORK = build(1, 2, 3)
ANSWERS = exit_answers(NETWORK, IMAGES)
TABLES = ANSWERS.tables()
COSTS = static_costs(NETWORK.architecture).exit_costs


def thresholds_of(tables: ExitTables) -> dict[str, tuple[float, ...]]:
    def between(column: int, share: float) -> float:
        """Between two neighbouring confidences of exit `column`, about `share` of them below."""
        ordered = np.unique(tables.confidence[:, column])
        place = int(share * (len(ordered) - 1))
        return float(ordered[place : place + 2].mean())

    return {
        "none leaves early": (2.0, 2.0, 2.0, 0.0),
        "all leave at the first": (0.0, 0.0, 0.0, 0.0),
        "all at the second": (2.0, 0.0, 2.0, 0.0),
        "all at the third": (2.0, 2.0, 0.0, 0.0),
        "some at every exit": (between(0, 0.8), between(1, 0.8), between(2, 0.5), 0.0),
        "few at the first": (between(0, 0.95), 2.0, between(2, 0.5), 0.0),
        "the last threshold is ignored": (between(0, 0.5), 2.0, 2.0, 2.0),
    }


CASES = {
    f"{confidence.name}, {name}": (confidence, thresholds)
    for confidence in (LEARNED, Confidence((0.7, 1.3, 1.0)))
    for name, thresholds in thresholds_of(ANSWERS.tables(confidence)).items()
}


@pytest.mark.parametrize("batch", [1, 7, N, 1000])
@pytest.mark.parametrize("name", CASES)
def test_predict_is_the_policy_whatever_the_batch(name: str, batch: int) -> None:
    confidence, thresholds = CASES[name]
    tables = ANSWERS.tables(confidence)
    with count_macs() as counter:
        answer = predict(NETWORK, IMAGES, thresholds, confidence, batch=batch)
    for n, (confidences, labels) in enumerate(zip(tables.confidence, tables.predicted, strict=True)):
        exit_ = next(i for i in range(4) if i == 3 or confidences[i] >= thresholds[i])
        assert (answer.exits[n], answer.labels[n]) == (exit_, labels[exit_])
        assert answer.confidence[n] == pytest.approx(confidences[exit_], rel=1e-5)
    counts = answer.exit_counts(4)
    assert counts == tuple(answer.exits.tolist().count(exit_) for exit_ in range(4))
    assert counter.total == spent(counts, COSTS), "a sample that left is not computed further"
    assert "some at every exit" not in name or min(counts) > 0


@pytest.mark.parametrize("name", CASES)
def test_groups_between_two_exits_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    confidence, thresholds = CASES[name]
    expected = predict(NETWORK, IMAGES, thresholds, confidence)
    monkeypatch.setattr(inference, "GROUP_BYTES", 20_000)
    sizes = inference.group_sizes(NETWORK)
    assert inference.LEAST <= min(sizes) < max(sizes) < N  # several groups, larger where maps are smaller
    answer = predict(NETWORK, IMAGES, thresholds, confidence)
    assert (answer.labels == expected.labels).all()
    assert (answer.exits == expected.exits).all()
    np.testing.assert_allclose(answer.confidence, expected.confidence, atol=1e-6)
    np.testing.assert_allclose(exit_answers(NETWORK, IMAGES).tables().confidence, TABLES.confidence, atol=1e-6)


def test_tables_hold_what_every_exit_says_of_every_sample_of_several_batches() -> None:
    with count_macs() as counter:
        tables = exit_answers(NETWORK, np.concatenate([IMAGES] * 5)).tables()
    assert counter.total == 5 * N * COSTS[-1]
    assert (tables.confidence.dtype, tables.predicted.dtype) == (np.float64, np.int64)
    np.testing.assert_allclose(tables.confidence, np.tile(TABLES.confidence, (5, 1)), rtol=1e-5)
    np.testing.assert_array_equal(tables.predicted, np.tile(TABLES.predicted, (5, 1)))


def test_cumulative_confidence_by_hand() -> None:
    network = build(1, 2, 3)
    for head, logit in zip(network.heads[:-1], (0.0, np.log(3.0), 0.0), strict=True):
        head.linear.weight.data[:, -1] = 0
        head.linear.bias.data[-1] = logit  # h = 1/2, exactly, 3/4, 1/2
    expected = [0.5, 1 - 0.5 * 0.25, 1 - 0.5 * 0.25 * 0.5, 1.0]
    np.testing.assert_allclose(exit_answers(network, IMAGES).tables().confidence, [expected] * N, rtol=1e-6)
    answer = predict(network, IMAGES, (np.nextafter(0.5, 1), 0.9, 0.93, 0.0))
    assert answer.exit_counts(4) == (0, 0, N, 0)
    np.testing.assert_allclose(answer.confidence, expected[2], rtol=1e-6)
    # A threshold equal to the confidence lets the sample go.
    assert predict(network, IMAGES, (0.5, 0.9, 0.93, 0.0)).exit_counts(4) == (N, 0, 0, 0)


@pytest.mark.parametrize("stages", [(), (1, 2, 3)])
@pytest.mark.parametrize("samples", [0, N])
def test_any_number_of_images_and_exits(samples: int, stages: tuple[int, ...]) -> None:
    network, exits = build(*stages), len(stages) + 1
    tables = exit_answers(network, IMAGES[:samples]).tables()
    assert tables.confidence.shape == tables.predicted.shape == (samples, exits)
    answer = predict(network, IMAGES[:samples], (2.0,) * exits)
    assert answer.exit_counts(exits) == (*(0,) * len(stages), samples)
    np.testing.assert_array_equal(answer.labels, tables.predicted[:, -1])
    np.testing.assert_array_equal(answer.confidence, np.ones(samples))


def test_images_need_not_be_contiguous() -> None:
    mirrored = IMAGES[:, :, ::-1]
    expected = exit_answers(NETWORK, np.ascontiguousarray(mirrored)).tables()
    np.testing.assert_array_equal(exit_answers(NETWORK, mirrored).tables().confidence, expected.confidence)
    answer = predict(NETWORK, mirrored, (2.0, 2.0, 2.0, 0.0))
    np.testing.assert_array_equal(answer.labels, expected.predicted[:, -1])


def test_the_network_is_left_in_inference_and_unchanged() -> None:
    network = build(1, 2, 3)
    before = network.state()
    for run in (lambda: predict(network, IMAGES, (2.0,) * 4), lambda: exit_answers(network, IMAGES)):
        network.train()
        run()
        assert not network.training
    assert all(np.array_equal(before[name], value) for name, value in network.state().items())


@pytest.mark.parametrize(("exits", "batch"), [(0, 256), (5, 256), (4, 0)])
def test_what_does_not_fit_is_refused(exits: int, batch: int) -> None:
    message = f"thresholds must be one per exit: 4, got {exits}" if batch else "batch must be >= 1, got 0"
    with pytest.raises(ValueError, match=message):
        predict(NETWORK, IMAGES, (0.5,) * exits, batch=batch)


def test_correct_compares_every_exit_with_the_label() -> None:
    tables = ExitTables(np.ones((2, 2)), np.array([[3, 4], [4, 4]])).policy_tables(np.array([4, 4]), (1, 2))
    np.testing.assert_array_equal(tables.correct, [[False, True], [True, True]])
