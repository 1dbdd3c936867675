"""What people look at: the table at several widths and in a pipe, and the progress display."""

import io
import re
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.limits import Limits
from nachos_min.nas.progress import Progress, Running
from nachos_min.nas.result import Network, SearchResult
from nachos_min.report.search_report import (
    SearchProgress,
    causes,
    closest_sentence,
    running_text,
    show_plan,
    show_result,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns without colours."""
    for name, value in (("COLUMNS", "80"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    return Terminal()


def shown(result: SearchResult, stream: io.StringIO | None = None, **changes: Any) -> str:
    """What is printed of a result with changes, in a pipe unless a `stream` is given, without bold letters."""
    stream = stream or io.StringIO()
    show_result(replace(result, **changes), stream)
    return re.sub(r"\x1b\[[01]m", "", stream.getvalue())


def changed(row: Network, correct: int, samples: int, total_macs: int, solution: int) -> Network:
    """The row with other figures on validation."""
    figures = Figures(correct, samples, row.exit_counts, total_macs)
    return replace(row, point=replace(row.point, validation=figures), solution=solution)


FIGURES = "97.2% 41,333 103,552 23,456 95.3% 92.6-97.0 1:69% 2:24% 4:6% 2:>99% 4:<1%"


def rows(text: str) -> list[list[str]]:
    """The words of each row of the table, by its number."""
    return [line.split() for line in text.splitlines() if re.match(r" *[0-9]+ .*[0-9]:", line)]


def test_in_a_pipe_a_solution_is_one_plain_line(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(result)
    first = "0 accurate 97.2% 41,333 95.3% (92.6-97.0) 41,333 1:69% 2:24% 4:6%"
    assert " ".join(rows(text)[0]) == first
    assert "\n\n23,456 parameters; MACs after stage 1:32,000 2:52,000 4:103,552\n" in text
    assert text.splitlines()[-4:] == [
        "3 solutions of 3 networks.",
        "Hypervolume (of error 1 x 200,000 MACs): admissible 0.2500, all 0.3000.",
        "104 evaluated (40 reused), 17 admissible, 2 failed; 31 ruled out untrained.",
        "Run: runs/digits (predict, export, retrain and macs take a row as RUN#k)",
    ]
    show_result(result, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))  # ASCII is enough


@pytest.mark.parametrize("columns", [30, 80, 120])
def test_a_terminal_shows_every_figure_within_its_width(
    result: SearchResult, columns: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    plain = shown(result, terminal)
    assert max(map(len, plain.splitlines())) <= max(columns, 80)
    assert not [figure for figure in FIGURES.split() if figure not in plain]


@pytest.fixture
def one_network(result: SearchResult) -> SearchResult:
    """A front with ten settings of one network, the third without use; and a network that costs more."""
    first, _, third = result.front
    points = [(280, 40_000), (279, 20_000), (270, 30_000), *((279 - n, 20_000 - 1_000 * n) for n in range(1, 8))]
    front = [changed(first, right, 288, 288 * macs, k) for k, (right, macs) in enumerate(points)]
    return replace(result, front=(*front, changed(third, 200, 288, 288 * 39_999, 10)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {0: "accurate", 1: "knee", 9: "cheap"}),
        ({"pick": "knee"}, {1: "knee"}),
        ({"pick": "cheap"}, {9: "cheap"}),
        ({"every": True}, {0: "accurate", 1: "knee", **dict.fromkeys(range(2, 9), ""), 9: "cheap", 10: ""}),
    ],
)
def test_of_each_network_the_settings_that_are_asked_for(
    one_network: SearchResult, asked: Any, expected: dict[int, str]
) -> None:
    stream = io.StringIO()
    show_result(one_network, stream, **asked)
    found = {int(row[0]): "" if row[1].endswith("%") else row[1] for row in rows(stream.getvalue())}
    assert found == expected
    few = "" if len(expected) == 11 else f"; {len(expected)} {'are' if len(expected) > 1 else 'is'} shown, "
    assert f"11 solutions of 2 networks{few}" in stream.getvalue()


def test_a_figure_that_misses_its_limit_on_test_is_marked(result: SearchResult) -> None:
    first, second, third = result.front

    def test_figures(row: Network, **figures: int) -> Network:
        return replace(row, point=replace(row.point, test=replace(row.point.test, **figures)))

    dear, wrong = test_figures(second, total_macs=360 * 60_001), test_figures(third, correct=300)
    text = shown(result, front=(first, dear, wrong))
    assert [row[row.index("(92.6-97.0)") + 1] for row in rows(text)[:2]] == ["41,333", "60,001!"]
    assert " 83.3% (79.1-86.8)! " in text
    assert "\n2 of 3 miss a limit on the test images, marked !.\n" in text
    assert "!" not in shown(result)
    assert dear.test.kept is replace(result, front=(dear,)).as_dict()["front"][0]["test"]["kept"] is False


AT = "at <= 60,000 average MACs"
CLOSEST = "the closest of 104 networks has accuracy 0.9722 at 41,333 average MACs."
LACK = " Such a guarantee takes at least 299 images that chose nothing; there are 288."
NEVER = " No number of images can guarantee an accuracy of 1."
SURE, BY = "guaranteed with probability 0.9", "both by a margin of 0.01"


@pytest.mark.parametrize(
    ("changes", "limits", "end"),
    [
        ({}, f"accuracy >= 0.9 {AT}", CLOSEST),
        ({"margin": 0.01}, f"accuracy >= 0.9 {AT}, {BY}", CLOSEST),
        ({"best_accuracy": 0.975, "largest_class": 0.1023}, f"accuracy >= 0.9 {AT}",
         f"{CLOSEST} The best accuracy at any cost is 0.9750. The largest class's share is 0.1023."),
        # 288 images; 29 right ones reject 0.9 at a level of 0.05
        ({"guarantee": 0.9}, f"accuracy >= 0.9 {AT}, {SURE}", CLOSEST),
        ({"guarantee": 0.9, "limits": Limits(None, 0.98), "margin": 0.01}, f"accuracy >= 0.98, {SURE}, {BY}",
         CLOSEST + LACK),
        ({"guarantee": 0.9, "limits": Limits(None, 1.0)}, f"accuracy >= 1.0, {SURE}", CLOSEST + NEVER),
        ({"evaluated": 0, "closest": None, "limits": Limits(None, 0.9)}, "accuracy >= 0.9",
         "no network could be evaluated, 2 failed; 31 ruled out untrained."),
        ({"evaluated": 1, "limits": Limits(60_000, 0.0)}, "<= 60,000 average MACs",
         CLOSEST.replace("104 networks", "1 network")),
    ],
)  # fmt: skip
def test_without_a_solution_the_limits_and_the_closest_are_named(
    changes: dict[str, Any], limits: str, end: str, without_solution: SearchResult
) -> None:
    result = replace(without_solution, **changes)
    assert closest_sentence(result) == f"No admissible solution ({limits}): {end}"
    assert shown(result).startswith(f"{closest_sentence(result)}\n")
    options = {name: changes[name] for name in ("margin", "guarantee") if name in changes}
    constraints = {"max_macs": result.limits.max_macs, "min_accuracy": result.limits.min_accuracy}
    assert result.as_dict()["constraints"] == constraints | options


def test_a_search_without_time_has_trained_nothing_yet(without_solution: SearchResult) -> None:
    none = replace(without_solution, evaluated=0, failed=0, closest=None, unfinished=3, limits=Limits(None, 0.0))
    assert closest_sentence(none) == "No network is trained yet (no limits)."
    shown_again = replace(none, unfinished=0, inadmissible=None)
    assert closest_sentence(shown_again) == closest_sentence(none)


def test_the_first_failure_says_why(without_solution: SearchResult) -> None:
    why = "DivergenceError: training backbone diverged"
    lost = replace(without_solution, failure=why, failures={"diverged": 2})
    assert (
        causes(lost)
        == f"2 failed (2 diverged; the first: {why}; --retry-failed trains again); 31 ruled out untrained"
    )
    assert causes(replace(lost, inadmissible=None, failure=None, failures={})) == "2 failed"


def test_a_plan_goes_to_standard_error_also_where_that_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(Mock(lines=lambda: ["Data: own\x1b[2J.", "Space: flex8."]))
    assert capsys.readouterr() == ("", "Data: own\\x1b[2J.\nSpace: flex8.\n")


def displayed(progress: Progress, stream: io.StringIO, *, quiet: bool = False) -> str:
    with SearchProgress(quiet=quiet, stream=stream) as show:
        assert stream.getvalue() == "", "nothing is shown before the first report"
        show(progress)
        assert show.evaluated == 57
    return stream.getvalue()


def test_progress_fits_a_terminal(progress: Progress, terminal: Terminal) -> None:
    text = displayed(progress, terminal)
    assert "training the choice of iteration 3 (40 reused, 2 failed)" in text
    assert "57/104 networks  1:15 left  best 97.2%, 41,333 MACs" in text
    assert text.endswith("\x1b[2K"), "the lines vanish at the end"
    first = displayed(replace(progress, best=None, reused=0, failed=0, seconds_left=None), Terminal())
    assert "57/104 networks  -:-- left  none admissible yet" in first
    assert "iteration 3 (" not in first
    assert displayed(progress, io.StringIO()) == displayed(progress, Terminal(), quiet=True) == ""


def test_the_bar_says_which_networks_are_in_which_epoch(progress: Progress, terminal: Terminal) -> None:
    three, four, nine = Running(3, 4, 20, False), Running(4, 4, 20, False), Running(9, 6, 20, True)
    for running, text in (
        ((three,), "network 3 of 104: epoch 4 of 20"),
        ((three, four), "networks 3 and 4 of 104: epoch 4 of 20"),
        ((four, nine), "a first run compiles the kernels; networks 4 and 9 of 104: epochs 4 and 6 of 20"),
        ((three, four, nine), "a first run compiles the kernels; networks 3 to 9 of 104: epochs 4 and 6 of 20"),
    ):
        assert running_text(replace(progress, running=running)) == text
    assert "networks 3 and 4 of 104: epoch 4 of 20" in displayed(replace(progress, running=(three, four)), terminal)


@pytest.mark.parametrize("columns", [1, 10, 40, 80])
def test_progress_keeps_to_the_width_there_is(
    columns: int, progress: Progress, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    running = (Running(3, 4, 20, False), Running(9, 6, 20, True))
    text = displayed(replace(progress, share=0.5, running=running), terminal)
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.replace("\x1b[2K", "\n")))
    assert max(map(len, lines)) <= columns


def test_the_time_left_goes_on_while_networks_are_trained(progress: Progress, terminal: Terminal) -> None:
    now = [0.0]
    with SearchProgress(quiet=False, stream=terminal, clock=lambda: now[0]) as show:
        show(progress)
        now[0] = 10.0
        show(replace(progress, running=(Running(3, 4, 20, True),)))
        now[0] = 20.0
        show._live.refresh()
        assert "1:15 left" in terminal.getvalue()
        assert "1:05 left" not in terminal.getvalue()
        show(replace(progress, running=(Running(3, 4, 20, False),)))
        now[0] = 35.0
        show._live.refresh()
        assert "1:00 left" in terminal.getvalue()
        now[0] = 1000.0
        show._live.refresh()
        assert "0:00 left" in terminal.getvalue()


def test_a_result_out_of_time_says_how_to_continue(result: SearchResult) -> None:
    lines = shown(result, unfinished=3).splitlines()
    assert lines[-2] == "The time was up before 3 networks could begin. The same command continues."


def test_a_reader_that_leaves_is_reported_to_the_caller(result: SearchResult) -> None:
    with pytest.raises(BrokenPipeError):
        show_result(result, Mock(spec=io.StringIO, write=Mock(side_effect=BrokenPipeError)))
