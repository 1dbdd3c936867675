"""Exported ONNX files answer as the engine does, and count as the network does."""

import json
from dataclasses import replace

import numpy as np
import pytest
from trained_networks import trained

from nachos_min.data.dataset import Scaling
from nachos_min.errors import InputError
from nachos_min.export.comparison import Engine, onnx_answers
from nachos_min.export.onnx_file import onnx_model, write_onnx
from nachos_min.macs.count import count
from nachos_min.targets import count_macs, read_target

onnx = pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")
onnxruntime = pytest.importorskip("onnxruntime", reason="it comes with the extra onnx")


def macs(path):
    return read_target(str(path)).ways(lambda graph: count(graph).macs)[:2]


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_an_onnx_file_answers_and_counts_as_the_network(case, gated, tmp_path):
    path, costs = tmp_path / "net.onnx", case.trained.costs.exit_costs
    write_onnx(case.trained, path, gated=gated)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    found = case.compare(*onnx_answers(path, case.images, gated=gated))
    assert found.equal, str(found)
    assert found.near < len(case.images) / 10
    assert macs(path) == (costs[0] if gated else costs[-1], costs[-1])
    if gated and len(costs) > 1:
        with pytest.raises(InputError, match="depend on its data: at least"):
            int(count_macs(path))
    else:
        assert count_macs(path) == costs[-1]


def test_the_plain_file_has_outputs_of_every_exit_for_any_number_of_images(case, tmp_path):
    write_onnx(case.trained, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    stages = case.trained.architecture.exit_stages
    assert names[:4] == ["label", "exit", "confidence", "logits"]
    assert names[4:] == [f"{what}_stage{stage}" for stage in stages for what in ("confidence", "logits")]
    for images in (case.images[:1], case.images[:7]):
        answers = dict(zip(names, session.run(None, {"images": images}), strict=True))
        logits = np.stack([answers[f"logits_stage{stage}"] for stage in stages], axis=1)
        expected = case.answers.logits[: len(images)]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
        rows = np.arange(len(images))
        np.testing.assert_array_equal(answers["logits"], logits[rows, answers["exit"]])
        np.testing.assert_array_equal(answers["label"], answers["logits"].argmax(axis=1))


def test_metadata_say_what_the_network_is():
    network, _ = trained("bytes")
    told = {each.key: json.loads(each.value) for each in onnx_model(network).metadata_props}
    assert told["classes"] == list(network.seen.class_names)
    assert told["thresholds"] == list(network.thresholds)
    assert told["exit_costs"] == list(network.costs.exit_costs)
    assert told["temperatures"] == list(network.confidence.temperatures)


def test_a_mean_that_float32_cannot_hold_is_subtracted_exactly(tmp_path):
    network, images = trained("signal")
    far = np.float32(1 << 20)
    seen = replace(
        network.seen, scaling=Scaling(network.seen.scaling.mean + far + 0.03, network.seen.scaling.inverse)
    )
    engine = Engine(replace(network, seen=seen), images + far)
    write_onnx(engine.trained, tmp_path / "net.onnx")
    assert engine.compare(*onnx_answers(tmp_path / "net.onnx", engine.images, gated=False)).confidence <= 1e-5


@pytest.mark.parametrize("gated", [False, True])
def test_a_file_has_the_same_bytes_each_time(gated):
    network, _ = trained("bytes")
    one, other = (onnx_model(network, gated=gated).SerializeToString(deterministic=True) for _ in range(2))
    assert one == other
