"""The command `data`: what it says of a data set, in a pipe, in a terminal and as JSON."""

import io
import json
import re
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from nachos_min.data import load
from nachos_min.data.load import load_unscaled
from nachos_min.errors import InputError
from nachos_min.nas.configuration import resolved
from nachos_min.nas.fitting import prepared
from nachos_min.report import data_report
from nachos_min.report.console import Output
from nachos_min.report.pictures import curve, drawn, fitted

RANDOM = np.random.default_rng(0)


def write(path, shape, classes, samples=None, **others):
    labels = np.arange(samples or 12 * classes) % classes
    images = RANDOM.integers(0, 256, (len(labels), *shape), np.uint8)
    np.savez(path, images=images, labels=labels, **others)
    return images, labels


def test_json_has_the_facts(run):
    images, labels = write("own.npz", (9, 7, 3), 2, samples=50)
    outcome = run("data", "own.npz", "--json")
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    report, data = json.loads(outcome.out), load("own.npz")
    assert (report["data"], report["image_shape"], report["dtype"]) == ("own", [9, 7, 3], "uint8")
    assert report["range"] == [images.min(), images.max()]
    assert report["notes"] == list(data.notes)
    for split, count in report["splits"].items():
        found = getattr(data, split).labels
        assert count == len(found)
        assert [each[split] for each in report["classes"]] == np.bincount(found).tolist()
    assert sum(report["splits"].values()) == len(labels)
    assert report["search"] == "python -m nachos_min search --data own.npz"


def test_it_says_what_a_search_would_take(run, monkeypatch):
    write("own.npz", (12, 12), 3)
    plan = json.loads(run("data", "own.npz", "--json").out)["plan"]
    problem = prepared(resolved({"data": "own.npz"}))
    assert (plan["space"], plan["classes"], plan["image_shape"]) == (problem.space.name, 3, [12, 12, 1])
    assert plan["limits"]["max_macs"] == problem.configuration.limits.max_macs
    assert f"average MACs <= {plan['limits']['max_macs']:,}" in run("data", "own.npz").out

    monkeypatch.setattr(data_report, "prepared", Mock(side_effect=InputError("max_macs must be >= 9, got 8")))
    assert json.loads(run("data", "own.npz", "--json").out)["plan"] == {"refused": "max_macs must be >= 9, got 8"}
    outcome = run("data", "own.npz")
    assert outcome.status == 0
    assert "A search is refused: max_macs must be >= 9, got 8\n" in outcome.out


def test_a_class_that_is_nearly_all_is_warned_about(run):
    for few, warned in ((1, True), (2, False)):
        labels = np.arange(60) % 6 < few
        np.savez("own.npz", images=RANDOM.integers(0, 256, (60, 8, 8), np.uint8), labels=labels)
        said = "WARNING: always answering the largest class is right for 84.2% of train: --min-accuracy must be"
        text = " ".join(run("data", "own.npz").out.split())
        assert (said in text, "WARNING" in text) == (warned, warned)
        warnings = json.loads(run("data", "own.npz", "--json").out)["warnings"]
        assert [each.startswith(said) for each in warnings] == [True] * warned


def test_options_are_understood_and_needed_again_to_search(run):
    write("my data.npz", (3, 10, 10), 3)
    status, out, err = run("data", "my data.npz")
    assert (status, out, err.count("\n")) == (2, "", 1)
    out = run("data", "my data.npz", "--layout", "chw", "--resolution", "5").out
    assert "images of 5x5 pixels, 3 channels" in out
    assert "\nSpace: " in out
    assert "search --data 'my data.npz' --layout chw --resolution 5\n" in out
    assert all(f"- {note}\n" in out for note in load("my data.npz", layout="chw", resolution=5).notes)


SHAPES = [((8, 8), 2), ((28, 28, 1), 11), ((32, 48, 3), 2), ((96, 40, 2), 2), ((1, 64, 1), 100), ((1, 5, 3), 11)]


@pytest.mark.parametrize(("shape", "classes"), SHAPES)
def test_in_a_pipe_it_is_plain_text_of_at_most_80_columns(run, shape, classes):
    write("own.npz", shape, classes)
    out = run("data", "own.npz", *(["--layout", "hwc"] if shape == (1, 5, 3) else [])).out
    lines = [line.rstrip() for line in out[: out.index("\nSpace:")].splitlines()]
    assert max(len(line) for line in lines if not line.startswith("- ")) <= 80  # a sentence is one line in a pipe
    assert re.sub("─+", "", out).isascii()
    rows = [line for line in lines if re.fullmatch(r" *\d+( +\d+)+ +\d+\.\d%", line)]
    assert len(rows) == min(classes, 12)
    assert ("... and 88 more" in out) == (classes == 100)


def test_the_largest_and_the_smallest_classes_are_listed(run):
    labels = np.repeat(np.arange(40), 12 + np.arange(40)[::-1])
    np.savez("own.npz", images=RANDOM.random((len(labels), 4, 4)), labels=labels)
    out = run("data", "own.npz").out
    listed = [int(number) for number in re.findall(r"^ (\d+) ", out, re.MULTILINE)]
    assert listed == [0, 1, 2, 3, 4, 5, 34, 35, 36, 37, 38, 39, 40]  # the last is the sum
    assert re.search(r"largest class 0 \(\d\.\d%\), smallest class 3\d \(\d\.\d%\)", out)


def test_names_cannot_steer_a_terminal():
    data = replace(load("digits"), class_names=("\x1b[31mred", *"123456789"), notes=("a\nb",))
    stream = io.StringIO()
    data_report.show_data(data_report.DataReport(data, "search --data 'a\nb'", "refused"), stream)
    assert "\x1b" not in stream.getvalue()
    assert "- a\\nb\n" in stream.getvalue()


def terminal(colours, monkeypatch):
    """Let the report believe in a terminal; return what it writes."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(
        data_report,
        "output",
        lambda _, narrowest: Output(
            stream, narrowest, force_terminal=True, color_system="truecolor" if colours else None
        ),
    )
    return stream


@pytest.mark.parametrize("colours", [False, True])
def test_in_a_terminal_samples_have_colours_if_it_has(run, monkeypatch, colours):
    images, _ = write("own.npz", (4, 6, 3), 2)
    monkeypatch.setattr(Console, "encoding", "utf-8")
    stream = terminal(colours, monkeypatch)
    run("data", "own.npz")
    assert ("▀" in stream.getvalue()) == colours
    train, least, most = load_unscaled("own.npz").train, images.min(), images.max()
    pixel = train.images[np.flatnonzero(train.labels == 0)[:1]][0, 0, 0]
    colour = "38;2;{:.0f};{:.0f};{:.0f}".format(*np.rint(255 * (pixel - least) / (most - least)))
    assert (colour in stream.getvalue()) == colours


def test_a_drawing_has_two_pixels_in_a_cell():
    images = np.zeros((1, 4, 3, 1), np.float32)
    images[0, 0, 0] = images[0, 1, 0] = images[0, 2, 2] = 1
    pixels = fitted(images, 24)
    np.testing.assert_array_equal(pixels[..., 0], 255 * images[..., 0])
    assert [line.plain for line in drawn(pixels, colours=False)] == ["@  ", "  ="]
    (first, *_), _ = (line.spans for line in drawn(pixels, colours=True))
    assert first.style == "rgb(255,255,255) on rgb(255,255,255)"
    assert fitted(np.ones((2, 300, 100, 5), np.float32), 24).shape == (2, 24, 8, 3)


def test_a_name_takes_as_many_columns_as_it_is_told():
    assert [data_report._cut(name, 6) for name in ("cat", "a cat's", "猫 cat", "猫猫猫猫")] == [
        "cat   ",
        "a cat~",
        "猫 cat",
        "猫猫 ~",
    ]


def test_a_curve_is_one_line():
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None]
    assert curve(ramp, 60, bars=True) == "▁▂▃▄▅▆▇█"
    assert curve(ramp, 4, bars=False) == ".-*%"


@pytest.mark.parametrize(
    "line", ["data", "data nowhere", "data own.npz --layout cwh", "data own.npz --resolution 0"]
)
def test_a_mistake_is_one_line(run, line):
    write("own.npz", (4, 4), 2)
    status, out, err = run(*line.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
