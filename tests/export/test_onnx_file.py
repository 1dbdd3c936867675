"""Exported ONNX files and plain arrays answer as the engine does, and count as the network does."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from trained_networks import CASES, trained

from nachos_min.data.dataset import Scaling
from nachos_min.eenn.inference import Answers
from nachos_min.export.comparison import Engine, onnx_answers
from nachos_min.export.npz_file import write_npz
from nachos_min.export.onnx_file import onnx_model, write_onnx
from nachos_min.macs.count import count
from nachos_min.targets import read_target

ROOM = Path(__file__).parents[2] / "nachos_min" / "export"


@pytest.fixture(params=CASES)
def case(request):
    """A network and its images, of which some leave at every exit."""
    network, images = trained(request.param)
    engine = Engine(network, images)
    assert len(set(engine.exits)) == len(network.thresholds)
    return engine


def macs(path):
    return read_target(str(path)).span(lambda graph: count(graph).macs)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_an_onnx_file_answers_and_counts_as_the_network(case, gated, tmp_path):
    path, costs = tmp_path / "net.onnx", case.trained.costs.exit_costs
    write_onnx(case.trained, path, gated=gated)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    found = case.compare(*onnx_answers(path, case.images, gated=gated))
    assert found.equal, str(found)
    assert found.near < len(case.images) / 10
    assert macs(path) == (costs[0] if gated else costs[-1], costs[-1])


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


def test_a_file_has_the_same_bytes_each_time(tmp_path):
    network, _ = trained("bytes")
    for write, name in ((write_onnx, "net.onnx"), (write_npz, "net.npz")):
        files = [tmp_path / f"{word}.{name}" for word in ("one", "other")]
        for file in files:
            write(network, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_reader_in_the_readme_answers_as_the_engine(case, tmp_path):
    write_npz(case.trained, tmp_path / "net.npz")
    (code,) = re.findall(
        r"```python\n(import json\nimport numpy.*?)```", (ROOM / "README.md").read_text("utf-8"), re.S
    )
    shown = {}
    exec(code, shown)
    net = dict(np.load(tmp_path / "net.npz"))
    labels, exits, confidence = zip(*(shown["predict"](net, image) for image in case.images), strict=True)
    found = case.compare(Answers(np.array(labels), np.array(exits), np.array(confidence)))
    assert found.equal, str(found)


def test_answers_that_differ_are_seen():
    engine = Engine(*trained("bytes"))
    rows = np.arange(len(engine.images))
    own = engine.tables.predicted[rows, engine.exits], engine.exits, engine.tables.confidence[rows, engine.exits]
    assert engine.compare(Answers(*own)).equal
    labels, exits, confidence = (array.copy() for array in own)
    labels[:3] += 1
    found = engine.compare(Answers(labels, exits, confidence + 1e-3))
    assert (found.differ, found.equal) == (3, False)
    assert found.confidence == pytest.approx(1e-3)
    assert "labels or exits of 3 DIFFER, confidences DIFFER by up to 1.0e-03" in str(found)


def test_images_near_a_threshold_are_counted_and_not_compared():
    network, images = trained("bytes")
    table = Engine(network, images).tables.confidence
    engine = Engine(replace(network, thresholds=(float(table[0, 0]) + 1e-7, *network.thresholds[1:])), images)
    rows = np.arange(len(images))
    exits = np.where(rows == 0, 0, engine.exits)
    assert engine.exits[0] > 0
    answers = engine.tables.predicted[rows, exits], exits, engine.tables.confidence[rows, exits]
    found = engine.compare(Answers(*answers))
    assert (found.near, found.differ, found.equal) == (1, 0, True)
    assert "compared with the engine on 40 images, 1 too near to a threshold to compare: labels" in str(found)


def test_a_mean_that_float32_cannot_hold_is_subtracted_exactly(tmp_path):
    network, images = trained("signal")
    far = np.float32(1 << 20)
    seen = replace(
        network.seen, scaling=Scaling(network.seen.scaling.mean + far + 0.03, network.seen.scaling.inverse)
    )
    engine = Engine(replace(network, seen=seen), images + far)
    write_onnx(engine.trained, tmp_path / "net.onnx")
    assert engine.compare(*onnx_answers(tmp_path / "net.onnx", engine.images, gated=False)).confidence <= 1e-5
