"""Answers of exported programs beside the engine's; the reader of plain arrays that the README shows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trained_networks import trained

from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.inference import Answers
from nachos_min.export.comparison import Engine
from nachos_min.export.npz_file import write_npz

ROOM = Path(__file__).parents[2] / "nachos_min" / "export"


def test_plain_arrays_have_the_same_bytes_each_time(tmp_path):
    network, _ = trained("bytes")
    files = [tmp_path / f"{name}.npz" for name in ("one", "other")]
    for file in files:
        write_npz(network, file)
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


def test_a_temperature_below_1_allows_the_roundings_that_it_multiplies():
    network, images = trained("bytes")
    for temperature, allowed in ((0.05, 2e-4), (2.0, 1e-5)):
        cold = replace(network, confidence=Confidence((temperature,) * (len(network.thresholds) - 1)))
        engine, rows = Engine(cold, images), np.arange(len(images))
        own = (
            engine.tables.predicted[rows, engine.exits],
            engine.exits,
            engine.tables.confidence[rows, engine.exits],
        )
        for far, equal in ((0.9, True), (1.1, False)):
            found = engine.compare(Answers(*own[:2], own[2] + far * allowed))
            assert (found.allowed, found.equal) == (pytest.approx(allowed), equal)
        # An image that is farther from its threshold than 1e-5 is compared at every temperature.
        table = engine.tables
        above = Engine(
            replace(cold, thresholds=(float(table.confidence[0, 0]) + 5e-5, *cold.thresholds[1:])), images
        )
        exits = np.where(rows == 0, 0, above.exits)
        found = above.compare(Answers(table.predicted[rows, exits], exits, table.confidence[rows, exits]))
        assert (found.near, found.differ) == (0, 1)


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
