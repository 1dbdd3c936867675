"""What `nachos_min` offers to Python: its names, how its objects look, and what a search tells while it runs."""

import logging
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from candidates import evaluation, instant

import nachos_min
from nachos_min.data import load
from nachos_min.eenn.thresholds import Figures
from nachos_min.nas import nachos
from nachos_min.nas.evaluation import Evaluation, Failure, Point, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.report.notebook import NotebookProgress

pytestmark = pytest.mark.usefixtures("made_up")
PAIR = np.random.default_rng(0).random((90, 8, 8)), np.arange(90) % 3


def test_every_public_name_is_there_for_completion_and_for_import() -> None:
    assert [*dir(nachos_min)] == sorted([*nachos_min.__all__, "__version__"])
    for name in nachos_min.__all__:
        assert getattr(nachos_min, name).__doc__, name
    given: dict[str, object] = {}
    exec("from nachos_min import *", given)
    assert {*nachos_min.__all__} == given.keys() - {"__builtins__"}
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        nachos_min.serch  # noqa: B018  (reading it is the test)


def test_what_a_caller_can_catch_is_public() -> None:
    errors = [name for name in nachos_min.__all__ if name.endswith("Error") and name != "WorkerDiedError"]
    assert all(issubclass(getattr(nachos_min, name), nachos_min.InputError) for name in errors)


def test_importing_the_package_loads_no_library() -> None:
    program = "import sys, nachos_min; dir(nachos_min); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "numba", "scipy", "h5py", "rich", "sklearn", "pandas", "logging"} & {*found.split()}


@pytest.fixture
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a search: its first network has 90 to 99 of 100 right, each at more MACs; its second fails."""
    rows = [Figures(90 + n, 100, (60 - n, 40 + n), 3_000_000 + 50_000 * n) for n in range(10)]
    points = tuple(Point((n / 10, 0.0), row, row) for n, row in enumerate(rows))

    def answer(_: GenomeCoder, trial: Trial) -> Evaluation | Failure:
        first.setdefault("trial", trial)
        if trial != first["trial"]:
            return Failure(trial, "ValueError: no")
        return evaluation(trial, rows[0], points=points)

    first: dict[str, Trial] = {}
    monkeypatch.setattr(nachos, "Workers", instant(answer))
    monkeypatch.chdir(tmp_path)
    limits = {"max_macs": 40_000, "min_accuracy": 0.5}
    return {"data": PAIR, "space": "micro", "evaluations": 2, "finalists": 0, "out": "a<b", **limits}


def test_what_a_prompt_shows_has_at_most_ten_lines(searching: dict[str, Any]) -> None:
    result = nachos_min.search(**searching)
    assert len(result.front) == 10
    assert repr(result).endswith("\n  and 8 more in .front>")
    shown = [result, result.front[0], result.front[0].evaluation, load(PAIR), result.limits]
    assert all(sum(-(-len(line) // 80) for line in repr(each).splitlines()) <= 10 for each in shown)
    assert "0.9900 at 34,500 average MACs" in repr(result)
    nothing = nachos_min.load_run("a<b", min_accuracy=0.999)
    assert "0 solutions from 1 trained network, accuracy >= 0.999" in repr(nothing)


def test_what_a_notebook_shows_is_a_table_of_all_rows(searching: dict[str, Any]) -> None:
    class Tags(HTMLParser):
        opened: list[str]

        def handle_starttag(self, tag: str, _: object) -> None:
            self.opened.append(tag)

    result = nachos_min.search(**searching)
    reader = Tags()
    for shown, rows in ((result, 10), (result.front[3], 1)):
        reader.opened = []
        html = shown._repr_html_()
        reader.feed(html)
        assert (reader.opened.count("tr"), reader.opened.count("b")) == (1 + rows, 0)
        assert "a&lt;b" in html
    assert "96.0% (90.2-98.4)" in html


def test_rows_as_a_table_of_pandas(searching: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = nachos_min.search(**searching)
    table = result.to_pandas()
    assert table["accuracy"].tolist() == table["test_accuracy"].tolist() == [row.accuracy for row in result.front]
    assert table.index.tolist() == [*range(10)]
    assert nachos_min.load_run("a<b", min_accuracy=0.999).to_pandas().empty
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(nachos_min.InputError, match="needs the package 'pandas', got none"):
        result.to_pandas()


def test_a_search_logs_what_it_does(searching: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="nachos_min"):
        nachos_min.search(**searching)
    told = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert ("INFO", "a network has 0.9000 at 30000 average MACs") in told
    assert ("WARNING", "a network failed: ValueError: no") in told


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What is shown below a notebook's cell, one state after the other."""
    states: list[dict[str, str]] = []

    def display(state: dict[str, str], **_: object) -> Any:
        states.append(state)
        return SimpleNamespace(update=lambda state, **_: states.append(state))

    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return states


def test_a_notebook_shows_progress_by_itself(searching: dict[str, Any], cell: Any, capsys: Any) -> None:
    nachos_min.search(**searching)
    assert "<progress value=" in "".join(state.get("text/html", "") for state in cell)
    assert cell[-1]["text/plain"].startswith("Data: arrays, 3 classes")
    assert "\nDone: 2 networks in " in cell[-1]["text/plain"]
    assert capsys.readouterr() == ("", "")
    seen = len(cell)
    nachos_min.search(**searching, on_progress=lambda _: None)
    assert len(cell) == seen, "whoever asks for progress gets no other"


@pytest.mark.parametrize(
    ("error", "last"),
    [(KeyboardInterrupt, "Stopped after 0 networks in 9 s; the same search continues."), (OSError, "")],
)
def test_a_search_that_ends_early_says_so_in_the_notebook(error: Any, last: str, cell: Any) -> None:
    times = iter((0.0, 9.0))
    with pytest.raises(error), NotebookProgress(clock=lambda: next(times)):
        raise error
    assert cell[-1]["text/plain"] == last


def test_a_script_sees_nothing_and_a_prompt_sees_the_plan(
    searching: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nachos_min.search(**searching)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    nachos_min.search(**searching)
    assert capsys.readouterr().err.startswith("Data: arrays, 3 classes")
