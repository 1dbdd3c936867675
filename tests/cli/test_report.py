"""What people look at: the table at several widths and in a pipe, and the progress display."""

import io
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from nachos_min.eenn.thresholds import Figures
from nachos_min.nas.evaluate import Trial
from nachos_min.nas.genome import Genome
from nachos_min.nas.limits import Limits
from nachos_min.nas.nachos import Progress
from nachos_min.nas.result import Network, SearchResult
from nachos_min.report.search_report import (
    SearchProgress,
    activity_text,
    best_text,
    causes,
    closest_sentence,
    rows_shown,
    show_result,
)


def changed(row: Network, correct: int, samples: int, total_macs: int, solution: int) -> Network:
    """The row with other figures on validation."""
    figures = Figures(correct, samples, row.exit_counts, total_macs)
    return replace(row, point=replace(row.point, validation=figures), solution=solution)


def of_genome(genome: Genome, row: Network) -> Network:
    return replace(row, evaluation=replace(row.evaluation, trial=Trial(genome)))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(result: SearchResult, stream: io.StringIO) -> str:
    show_result(result, stream)
    return stream.getvalue()


FIGURES = [
    "97.2%",
    "41,333",
    "103,552",
    "23,456",
    "95.3%",
    "92.6-97.0",
    "1:69%",
    "2:24%",
    "4:6%",
    "2:>99%",
    "4:<1%",
]


def test_in_a_pipe_a_solution_is_one_plain_line(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(result, io.StringIO())
    row = next(line for line in text.splitlines() if line.startswith("0 "))
    cells = "0 1:69% 2:24% 4:6% 97.2% 41,333 103,552 23,456 95.3% (92.6-97.0) 41,333"
    assert row.split() == cells.split()
    assert "\x1b" not in text


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_every_figure_within_its_width(
    result: SearchResult, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    plain = "".join(shown(result, stream).replace("\x1b[1m", "").replace("\x1b[0m", ""))
    assert max(map(len, plain.splitlines())) <= columns
    assert not [figure for figure in FIGURES if figure not in plain]


def test_a_narrow_terminal_loses_no_digit(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    plain = shown(result, Terminal())
    assert not [figure for figure in FIGURES if figure not in plain]


def test_ascii_output_is_possible(result: SearchResult) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show_result(result, stream)


def test_the_summary_states_shares_and_counts(result: SearchResult) -> None:
    assert shown(result, io.StringIO()).splitlines()[-3:] == [
        "Hypervolume (of error 1 x 200,000 MACs): admissible 0.2500, all 0.3000.",
        "104 evaluated (40 reused), 17 admissible, 2 failed; 31 ruled out untrained.",
        "Run: runs/digits",
    ]


def test_the_summary_says_when_solutions_share_networks(result: SearchResult) -> None:
    first, second, third = result.front
    for other, of in ((second.genome, "2 networks"), (first.genome, "one network")):
        front = (first, of_genome(first.genome, second), of_genome(other, third))
        lines = shown(replace(result, front=front), io.StringIO()).splitlines()
        assert lines[-4] == f"3 solutions: {of}, under different thresholds."
    assert "solutions:" not in shown(result, io.StringIO())


def test_a_long_front_is_shown_in_part(result: SearchResult) -> None:
    front = tuple(
        changed(result.front[number % 3], 999 - number, 999, 999 * (90_000 - number), number)
        for number in range(165)
    )
    text = shown(replace(result, front=front), io.StringIO())
    numbers = [int(line.split()[0]) for line in text.splitlines() if re.match(" *[0-9]+ +[0-9]:", line)]
    assert (len(numbers), numbers[0], numbers[-1]) == (20, 0, 164)
    assert {after - before for before, after in pairwise(numbers)} == {8, 9}
    assert "165 solutions: 3 networks, under different thresholds. 20 are shown, --json lists all.\n" in text


def test_rows_that_another_beats_are_not_shown(result: SearchResult) -> None:
    first, second, third = result.front
    beaten = changed(second, first.correct, first.samples, first.total_macs + 1, 1)
    assert rows_shown((first, beaten, third)) == (first, third)
    assert rows_shown((first, second, third)) == (first, second, third)
    twin = replace(first, solution=1)
    assert rows_shown((first, twin)) == (first,)


def test_rows_that_miss_a_limit_on_test_are_marked(result: SearchResult) -> None:
    first, second, third = result.front
    missed = replace(second, point=replace(second.point, test=replace(second.point.test, total_macs=360 * 60_001)))
    lines = shown(replace(result, front=(first, missed, third)), io.StringIO()).splitlines()
    assert [line.split()[0] for line in lines if "(92.6-97.0) !" in line] == ["1"]
    assert lines[-4] == "1 of 3 rows miss a limit on the test images; they are marked !."
    assert "!" not in shown(result, io.StringIO())
    assert missed.test.kept is replace(result, front=(missed,)).as_dict()["front"][0]["test"]["kept"] is False


def test_without_a_solution_the_closest_is_named(without_solution: SearchResult) -> None:
    assert shown(without_solution, io.StringIO()).splitlines()[0] == (
        "No admissible solution (accuracy >= 0.9 at <= 60,000 average MACs): "
        "the closest of 104 networks has accuracy 0.9722 at 41,333 average MACs."
    )


def test_a_margin_is_part_of_the_limits(without_solution: SearchResult) -> None:
    asked = replace(without_solution, margin=0.01)
    assert "(accuracy >= 0.9 at <= 60,000 average MACs, both by a margin of 0.01)" in closest_sentence(asked)
    assert asked.as_dict()["constraints"] == {"max_macs": 60_000, "min_accuracy": 0.9, "margin": 0.01}
    assert "margin" not in without_solution.as_dict()["constraints"]


def test_a_guarantee_says_how_many_images_it_takes(without_solution: SearchResult) -> None:
    asked = replace(without_solution, guarantee=0.9)  # 288 images; 29 right ones reject 0.9 at a level of 0.05
    assert closest_sentence(asked).endswith("has accuracy 0.9722 at 41,333 average MACs.")
    assert "60,000 average MACs, guaranteed with probability 0.9)" in closest_sentence(asked)
    assert asked.as_dict()["constraints"]["guarantee"] == 0.9
    strict = closest_sentence(replace(asked, limits=Limits(60_000, 0.98), margin=0.01))
    assert strict.endswith(" Such a guarantee takes at least 299 images that chose nothing; there are 288.")
    assert closest_sentence(replace(asked, limits=Limits(60_000, 1.0))).endswith(
        " No number of images can guarantee an accuracy of 1."
    )


def test_without_any_network_the_causes_are_named(without_solution: SearchResult) -> None:
    nothing = replace(without_solution, evaluated=0, closest=None, limits=Limits(None, 0.9))
    assert closest_sentence(nothing) == (
        "No admissible solution (accuracy >= 0.9): no network could be evaluated, 2 failed; 31 ruled out untrained."
    )


def test_the_first_failure_says_why(without_solution: SearchResult) -> None:
    lost = replace(without_solution, failure="DivergenceError: training backbone diverged")
    assert causes(lost) == (
        "2 failed (the first: DivergenceError: training backbone diverged); 31 ruled out untrained"
    )
    assert causes(replace(lost, inadmissible=None, failure=None)) == "2 failed"


def display(progress: Progress, stream: io.StringIO, *, quiet: bool = False) -> str:
    with SearchProgress(quiet=quiet, stream=stream) as show:
        show(progress)
        assert show.evaluated == 57
        return stream.getvalue()


def test_progress_fits_a_terminal(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    display(progress, stream)
    text = stream.getvalue()
    assert "training the choice of iteration 3 (40 reused, 2 failed)" in text
    assert "57/104 networks  1:15 left  best 97.2%, 41,333 MACs" in text
    assert text.endswith("\x1b[2K"), "the lines vanish at the end"


def test_progress_is_silent_in_a_pipe_and_when_quiet(progress: Progress) -> None:
    assert display(progress, io.StringIO()) == ""
    assert display(progress, Terminal(), quiet=True) == ""


def test_nothing_is_shown_before_the_first_report() -> None:
    stream = Terminal()
    with SearchProgress(quiet=False, stream=stream):
        pass
    assert stream.getvalue() == ""


def test_progress_before_the_first_admissible_network(progress: Progress) -> None:
    assert best_text(replace(progress, best=None)) == "none admissible yet"
    assert activity_text(replace(progress, reused=0, failed=0)) == progress.activity


def test_a_reader_that_leaves_is_reported_to_the_caller(result: SearchResult) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        show_result(result, Closed())
