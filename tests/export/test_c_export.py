"""Exported C: compiled with every warning an error, it answers as the engine does; its buffers never collide."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained_networks import CASES, trained

from nachos_min.eenn.inference import exit_answers, predict
from nachos_min.errors import InputError
from nachos_min.export import c_check
from nachos_min.export.c_check import SANITIZED
from nachos_min.export.c_code import Constants, Step, planned
from nachos_min.export.c_source import write_c
from nachos_min.export.comparison import Engine
from nachos_min.export.files import c_written

FLAGS = dict(zip(CASES, [SANITIZED, SANITIZED, ("-O2",), ("-O2",)], strict=True))
compiled = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler here")


@compiled
@pytest.mark.parametrize(("case", "flags"), FLAGS.items())
def test_compiled_c_answers_as_the_engine(case, flags, tmp_path):
    network, images = trained(case)
    write_c(network, tmp_path)
    found, confidences = c_check.c_answers(tmp_path, images, len(network.thresholds), flags)
    expected = predict(network.network, network.scaled(images), network.thresholds, network.confidence)
    tables = exit_answers(network.network, network.scaled(images)).tables(network.confidence)
    np.testing.assert_allclose(confidences, tables.confidence, rtol=0, atol=1e-5)
    far = (np.abs(tables.confidence - network.thresholds) > 1e-5)[:, :-1].all(axis=1)
    assert far.mean() > 0.9
    assert len(set(expected.exits)) == len(network.thresholds)
    np.testing.assert_array_equal(found.exits[far], expected.exits[far])
    np.testing.assert_array_equal(found.labels[far], expected.labels[far])


@compiled
def test_the_export_says_sizes_and_how_the_answers_compare(tmp_path, monkeypatch):
    engine = Engine(*trained("no early exit"))
    found = c_written(engine, tmp_path)
    assert found.comparison.equal
    assert found.figures["flash"] > found.figures["constants"]
    monkeypatch.setenv("PATH", "")
    found = c_written(engine, tmp_path)
    assert found.comparison is None
    assert "no C compiler" in found.notes[-1]


@compiled
def test_class_names_of_any_text_are_printed_as_they_are(tmp_path):
    network, images = trained("bytes")
    write_c(network, tmp_path)
    c_check._run(
        ["cc", "-o", str(tmp_path / "program"), *(str(tmp_path / f) for f in ("example.c", "network.c")), "-lm"]
    )
    lines = c_check.subprocess.run([tmp_path / "program"], input=images.tobytes(), capture_output=True).stdout
    rows = [line.split("\t") for line in lines.decode().splitlines()]
    assert {row[1] for row in rows} == {network.seen.class_names[int(row[0])] for row in rows}
    names = ("a\tb", "c\nd\t\udcff", *network.seen.class_names[2:])
    awkward = replace(network, seen=replace(network.seen, class_names=names))
    write_c(awkward, tmp_path)
    found, _ = c_check.c_answers(tmp_path, images, len(network.thresholds))
    assert found.labels.tolist() == [int(row[0]) for row in rows]


@compiled
def test_flash_and_ram_are_what_the_header_says_and_a_little_code(tmp_path):
    network, _ = trained("squeeze and excitation, smaller input")
    made = write_c(network, tmp_path)
    flash, ram = c_check.c_size(tmp_path)
    assert 0 < flash - made.constants < 8_000
    assert 0 <= ram - made.buffers < 200
    said = re.search(r"Flash: ([\d,]+) .* RAM: ([\d,]+) ", (tmp_path / "network.h").read_text("utf-8"))
    assert [int(number.replace(",", "")) for number in said.groups()] == [made.constants, made.buffers]


def test_without_a_compiler_or_a_folder_there_is_one_line(tmp_path, monkeypatch):
    network, images = trained("no early exit")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"folder '.*file' cannot be written to"):
        write_c(network, tmp_path / "file")
    write_c(network, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not c_check.has_compiler()
    with pytest.raises(InputError, match="the C compiler cc cannot be run: No such file or directory"):
        c_check.c_answers(tmp_path, images, 1)


@compiled
def test_a_refused_source_is_one_line(tmp_path):
    network, images = trained("no early exit")
    write_c(network, tmp_path)
    (tmp_path / "network.c").write_text("int predict(void) { return wrong; }")
    with pytest.raises(c_check.CompilerError, match=r"refuses the source: .*wrong"):
        c_check.c_answers(tmp_path, images, 1)


@st.composite
def _graphs(draw):
    """Steps that read what stands before them, some over it, some under another name."""
    steps = [Step("s", (), draw(st.integers(1, 9)))]
    for index in range(1, draw(st.integers(2, 14))):
        inputs = tuple(draw(st.lists(st.integers(0, index - 1), min_size=1, max_size=2, unique=True)))
        if draw(st.integers(0, 4)) == 0:
            steps.append(Step("", inputs[:1], steps[inputs[0]].count))
        else:
            count = draw(st.sampled_from([steps[inputs[0]].count, 3, 7]))
            steps.append(Step("s", inputs, count, overwrites=draw(st.booleans())))
    return steps


@given(_graphs())
def test_no_step_writes_over_a_buffer_that_is_read_later(steps):
    places, total = planned(steps, [len(steps) - 1])
    holds = {}  # what each byte holds: the step whose result it is
    for index, step in enumerate(steps):
        sources = [index if steps[each].statement else each for each in step.inputs]
        for each, _ in zip(step.inputs, sources, strict=True):
            if places[each] >= 0:
                span = range(places[each], places[each] + steps[each].bytes)
                assert {holds[byte] for byte in span} == {_root(steps, each)}
        if step.statement and places[index] >= 0:
            span = range(places[index], places[index] + step.bytes)
            for each in step.inputs:
                shared = set(span) & set(range(places[each], places[each] + steps[each].bytes))
                assert not shared or (step.overwrites and places[each] == places[index])
            holds |= dict.fromkeys(span, index)
            assert span.stop <= total


def _root(steps, index):
    """The step that wrote the buffer which `index` is a name of."""
    return index if steps[index].statement else _root(steps, steps[index].inputs[0])


def test_numbers_come_back_exactly():
    values = np.array([0.1, -1e-42, 3.0, 1e38, np.float32(1) / 3], np.float32)
    constants = Constants()
    constants.add("a", values)
    numbers = re.findall(r"([-\d.e+]+)f", constants.texts[0])
    np.testing.assert_array_equal(np.array(numbers, np.float32), values)
    assert constants.bytes == 20
