"""The report on a run: what its page says follows from the run, is safe to open, and needs nothing else."""

import json
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import evaluation, instant
from hypothesis import given
from hypothesis import strategies as st

import nachos_min
from nachos_min import InputError, cli
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.thresholds import ExitTables
from nachos_min.nas import nachos
from nachos_min.nas.evaluation import Evaluation, Failure, Point, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space
from nachos_min.report.charts import Plot, axis, short
from nachos_min.report.pictures import pictures, png, sheet
from nachos_min.report.run_report import Story, page, pieces, progress, read_story

pytestmark = pytest.mark.usefixtures("made_up")
HOSTILE = "</script><img src=http://x onerror=alert(1)>"
SAMPLES = 60


def answered(coder: GenomeCoder, trial: Trial) -> Evaluation | Failure:
    """A network with random answers and confidences, of the costs that it really has, under two thresholds."""
    rng = np.random.default_rng(trial.genome)
    architecture = coder.decode(trial.genome)
    costs, labels = static_costs(architecture), np.arange(SAMPLES) % 3
    exits = costs.exit_count
    confidence = np.sort(rng.random((SAMPLES, exits)), axis=1)
    confidence[:, -1] = 1
    right = rng.random((SAMPLES, exits)) < 0.8
    tables = ExitTables(confidence, np.where(right, labels[:, None], (labels[:, None] + 1) % 3))
    policy = tables.policy_tables(labels, costs.exit_costs)
    figures = [policy.point((level,) * (exits - 1)) for level in (0.5, 0.2)]
    points = tuple(Point(each.thresholds, each.figures, each.figures) for each in figures)
    if trial.genome[0] == 1:
        return Failure(trial, HOSTILE)
    fields = {"exits": architecture.exit_stages, "costs": costs, "points": points, "on_test": tables}
    return evaluation(trial, points[0].validation, **fields)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of made-up networks in the folder `run`, on data that is gone, with a class of a hostile name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nachos, "Workers", instant(answered))
    images, labels = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 3), np.uint8), np.arange(240) % 3
    splits = {"train": slice(SAMPLES, None), "test": slice(SAMPLES)}
    arrays = {f"x_{name}": images[part] for name, part in splits.items()}
    arrays |= {f"y_{name}": np.array([HOSTILE, "cat", "eel"])[labels[part]] for name, part in splits.items()}
    np.savez("own.npz", **arrays)
    limits = {"max_macs": 60_000, "min_accuracy": 0.5, "validation": "whole"}
    nachos_min.search(data=tmp_path / "own.npz", space="micro", evaluations=6, finalists=0, out="run", **limits)
    Path("own.npz").unlink()
    return Path("run")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.script, self.data, self._in = list[str](), list[str](), "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in = tag if ("id", "data") in attributes else ""

    def handle_data(self, data: str) -> None:
        self.data += data if self._in == "script" else ""

    def handle_endtag(self, _tag: str) -> None:
        self._in = ""


def selected(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_Page(text).data)
    return found


def test_each_solution_has_its_own_answers_and_pictures(run: Path) -> None:
    story = read_story(run)
    found = selected(page(story))
    assert [row["k"] for row in found["rows"]] == list(range(len(story.result.front)))
    for row, network in zip(found["rows"], story.result.front, strict=True):
        tables = np.array(
            [
                [sum(cell[2] for cell in cells if cell[0] == cell[1]), sum(cell[2] for cell in cells)]
                for cells in row["confusion"]
            ]
        )
        assert tables.sum(axis=0).tolist() == [network.test.correct, network.test.samples]
        assert tuple(tables[:, 1]) == network.test.exit_counts
        for shown, cells, leave in zip(row["examples"], row["confusion"], network.test.exit_counts, strict=True):
            assert bool(shown) == (leave > 0)
            assert {(right, answer) for _, right, answer in shown} <= {
                (right, answer) for right, answer, _ in cells
            }
    assert found["classes"] == [HOSTILE, "cat", "eel"]


def test_the_page_is_safe_small_and_the_same_elsewhere(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    text = page(read_story(run))
    parsed = _Page(text)
    assert parsed.tags.count("script") == 2
    assert "img" not in parsed.tags
    assert str(tmp_path) not in text
    assert not re.search(r'(src|href)="(?!#)', text)  # no file and no address
    shutil.copytree(run, tmp_path / "there" / "run")
    monkeypatch.chdir(tmp_path / "there")
    assert page(read_story("run")) == text
    assert page(read_story(tmp_path / "there" / "run")) == text  # an absolute path is not told


def test_the_last_step_of_the_progress_is_the_result(run: Path) -> None:
    story = read_story(run)
    error, macs = story.result.reference
    steps = list(progress(story))
    assert len(steps) == story.result.evaluated
    every, admissible = steps[-1]
    assert every == pytest.approx(story.result.hypervolume_all / (error * macs), rel=1e-12)
    assert admissible == pytest.approx(story.result.hypervolume_admissible / (error * macs), rel=1e-12)
    assert steps == sorted(steps)


def test_an_older_run_says_what_it_lacks(run: Path) -> None:
    (run / "examples.h5").unlink()
    found = selected(page(read_story(run)))
    assert "sheet" not in found
    assert not any("confusion" in row for row in found["rows"])


@pytest.mark.parametrize("name", ["tiny", "micro", "small32", "flex16", "ofa-mbv3"])
def test_parts_of_a_network_add_up_to_its_cost(name: str) -> None:
    coder, rng = GenomeCoder(load_space(name), (32, 32, 3), 10), np.random.default_rng(0)
    for _ in range(5):
        architecture = coder.decode(coder.sample(rng))
        found, costs = pieces(architecture), static_costs(architecture)
        assert sum(piece.macs for piece in found) == costs.worst_macs
        so_far = 0
        for piece in found:
            so_far += piece.macs
            if piece.exit is not None:
                assert so_far == costs.exit_costs[piece.exit]


def test_the_command_writes_where_it_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run / 'report.html'}: ")
    assert (run / "report.html").read_text(encoding="utf-8") == page(read_story(run))
    for line, problem in (
        (["report", "nowhere"], "run nowhere does not exist"),
        (
            ["report", "run", "--to", "no/such/file.html"],
            "no/such/file.html cannot be written: No such file or directory",
        ),
        (["report", "run", "--to", "."], ". cannot be written: it is a folder, not a file"),
        (["plot", "run", "--to", "front.jpg"], "--to must end in .svg, .png or .pdf, got 'front.jpg'"),
    ):
        assert cli.main(line) == 2
        assert problem in capsys.readouterr().err


def test_a_run_without_a_solution_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "order.h5").unlink()
    kept = sorted((run / "evaluations").glob("*.h5"))
    monkeypatch.setattr(Story, "rows", [])
    assert selected(page(read_story(run)))["rows"] == []
    for file in kept:
        file.unlink()
    with pytest.raises(InputError, match="a report needs a trained network, got run run without one"):
        read_story(run)


@pytest.mark.parametrize("ending", ["svg", "PNG", "pdf"])
def test_figures_are_the_same_bytes_again(run: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    files = [Path(f"{name}.{ending}") for name in "ab"]
    assert [cli.main(["plot", "run", "--to", str(file)]) for file in files] == [0, 0]
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert run.is_dir()


@given(st.lists(st.floats(1, 1e7), min_size=1, max_size=5))
def test_an_axis_holds_its_values(values: list[float]) -> None:
    found = axis("MACs", values, short)
    assert found.least <= min(values) * (1 + 1e-9)
    assert found.most >= max(values) * (1 - 1e-9)
    places = [found.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 2 <= len(found.ticks) <= 9
    assert Plot(found, found).at(min(values), max(values))[1] >= 0


def test_a_sheet_is_a_png_of_its_pictures() -> None:
    each = np.random.default_rng(0).integers(0, 256, (18, 4, 5, 3), np.uint8)
    found = sheet(each)
    assert [found[name] for name in ("columns", "rows", "width", "height")] == [16, 2, 5, 4]
    file = png(each[0])
    assert struct.unpack(">II", file[16:24]) == (5, 4)
    length = struct.unpack(">I", file[33:37])[0]
    lines = np.frombuffer(zlib.decompress(file[41 : 41 + length]), np.uint8).reshape(4, 16)
    np.testing.assert_array_equal(lines[:, 1:].reshape(4, 5, 3), each[0])


def test_a_signal_is_drawn_as_one_line() -> None:
    signal = np.linspace(-1, 1, 30, dtype=np.float32).reshape(1, 1, 30, 1)
    (drawn,) = pictures(signal, -1, 1)
    ink = drawn[:, :, 0] == 0
    assert ink.any(axis=0).all()
    assert ink[-1, 0]
    assert ink[0, -1]
