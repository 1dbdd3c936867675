"""The terminal is the user's: what came from outside is shown escaped, short, and on its line."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.file_proxy import FileProxy

from nachos_min import cli
from nachos_min.errors import MOST, InputError, cut, message, shorten
from nachos_min.nas.progress import Progress
from nachos_min.nas.result import SearchResult
from nachos_min.report.console import Output, output, table
from nachos_min.report.prediction_report import PredictionReport
from nachos_min.report.search_report import SearchProgress, show_plan, show_result
from nachos_min.terminal import Guard, guard, tell

# Colours, a title, a bell, C1 controls, a reversal of the text, letters without width, line ends, Rich's markup.
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b\x7f\u202e\u200b\U000e0041\r\n\t[red]x[/red]:cat:"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b\x7f\u202e\u200b\U000e0041\r\n\t[red]x[/red]:cat:"


def printable(text: str) -> bool:
    """Return whether all lines of `text` are printable."""
    return all(line.isprintable() for line in text.split("\n"))


def test_a_long_message_is_cut_in_the_middle() -> None:
    assert cut("x" * MOST) == "x" * MOST
    for text in ("x" * (MOST + 1), "a" + "\n" * 10**6 + "b", EVIL * 10**5):
        assert len(message(text)) <= MOST
        assert message(text).isprintable()
    assert message("first" + "x" * 10**6 + "last").startswith("first")
    assert message("first" + "x" * 10**6 + "last").endswith("last")
    assert len(str(InputError("x" * 10**6))) <= MOST


def test_any_value_is_quoted_in_short() -> None:
    assert [shorten(each) for each in ("a\n", 7, None, [1])] == [r"'a\n'", "7", "None", "[1]"]
    for value in ("x" * 10**6, 10**300, 10**5000, [[0] * 1000], np.zeros((50, 50))):
        assert len(shorten(value)) < 70
        assert "\n" not in shorten(value)


def test_a_guarded_stream_escapes_all_but_line_ends() -> None:
    stream = StringIO()
    print(EVIL, "猫 é", file=Guard(stream))
    assert stream.getvalue() == SHOWN.replace(r"\n", "\n") + " 猫 é\n"


def test_lines_that_are_told_are_lines() -> None:
    stream = StringIO()
    tell(EVIL, "x" * 10**6, to=stream)
    assert [len(line) <= MOST for line in stream.getvalue().splitlines()] == [True, True]
    assert stream.getvalue().startswith(SHOWN + "\n")


def test_a_console_takes_every_string_for_one_line_and_no_markup() -> None:
    stream = StringIO()
    console = Output(stream, 10_000)
    console.print(EVIL)
    console.print(table(["name", EVIL.replace("\n", "")], "lr", [[EVIL, 1], ["m" * 10**6, 2]]))
    first, *_, name, long = stream.getvalue().rstrip().splitlines()
    assert first == SHOWN
    assert name.split(" ")[0] == SHOWN
    assert len(long) < MOST + 400
    assert printable(stream.getvalue())


def test_colours_of_a_terminal_are_its_own() -> None:
    stream = StringIO()
    Output(Guard(stream), 500, force_terminal=True, color_system="truecolor").print(EVIL, style="bold")
    assert stream.getvalue() == f"\x1b[1m{SHOWN}\x1b[0m\n"


def evil(result: SearchResult) -> SearchResult:
    """A result whose texts from outside steer a terminal."""
    identity = {"name": EVIL, "trained_with_max_macs": EVIL, "trained_with_seed": EVIL}
    return replace(result, run=f"runs/{EVIL}", failure=EVIL * 1000, failures={"diverged": 2}, table=identity)


def test_a_result_is_shown_escaped(result: SearchResult, without_solution: SearchResult) -> None:
    for found in (evil(result), evil(without_solution)):
        stream = StringIO()
        show_result(found, stream)
        assert f"Run: runs/{SHOWN}" in stream.getvalue()
        assert printable(stream.getvalue())
        assert max(map(len, stream.getvalue().splitlines())) <= MOST


def test_the_plan_is_shown_escaped() -> None:
    stream = StringIO()
    show_plan(type("Plan", (), {"lines": lambda _: [EVIL, "y" * 10**6]})(), stream)
    assert stream.getvalue().splitlines()[0] == SHOWN
    assert printable(stream.getvalue())


def test_progress_and_what_is_printed_meanwhile_are_escaped(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", Guard(stream))
    with SearchProgress(quiet=False) as shown:
        shown(replace(progress, activity=EVIL))
        assert isinstance(sys.stderr, Guard)
        assert isinstance(sys.stderr.guarded, FileProxy)
        print(f"{EVIL}, said meanwhile", file=sys.stderr)
    assert isinstance(sys.stderr, Guard)
    assert sys.stderr.guarded is stream
    said = stream.getvalue()
    assert SHOWN[:30] in said
    assert "\x1b[31m" not in said
    assert not {"\x07", "\x9b", "\u202e", "\u200b"} & set(said)


def test_json_is_printable_ascii_and_exact(run: Any, result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nachos_min.nas.runs.load_run", lambda *_: evil(result))
    outcome = run("show", "run", "--json")
    assert outcome.out[:-1].isprintable()
    assert outcome.out.isascii()
    assert json.loads(outcome.out)["run"] == f"runs/{EVIL}"


@pytest.mark.parametrize("error", [InputError, OSError, KeyboardInterrupt])
def test_errors_of_every_status_are_one_line(error: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error(EVIL * 1000)

    monkeypatch.setattr("nachos_min.nas.runs.load_run", fail)
    monkeypatch.setattr("nachos_min.cli.silence", lambda _: None)  # the test's own standard output stays
    status, out, err = run("show", "run")
    assert (status, out) == (130 if error is KeyboardInterrupt else 2, "")
    assert err[:-1].isprintable()
    assert len(err) <= MOST + 1


def test_a_name_that_is_no_unicode_is_written_to_a_table(tmp_path: Path) -> None:
    answers: Any = SimpleNamespace(answers={"sample": ["\udcff.png", "=1+1"], "answer": ["é", "a,b"]})
    PredictionReport.write(answers, tmp_path / "made.csv")
    written = (tmp_path / "made.csv").read_bytes()
    assert written == b'sample,answer\r\n\\udcff.png,\xc3\xa9\r\n=1+1,"a,b"\r\n'


PROGRAM = """
import sys, warnings
from nachos_min import __main__, cli
def show(run):
    warnings.warn(EVIL)
    print(EVIL)
    raise ZeroDivisionError(EVIL)
cli._run = show
raise SystemExit(__main__.start())
"""


def test_prints_warnings_and_tracebacks_are_escaped() -> None:
    program = f"EVIL = {EVIL!r}\n{PROGRAM}"
    environment = {"PYTHONPATH": f"{Path(cli.__file__).parents[1]}:{Path(cli.__file__).parents[1] / 'kernels'}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert out == SHOWN.replace(r"\n", "\n") + "\n"
    assert err.splitlines()[0].startswith("warning: ")
    assert "ZeroDivisionError" in err
    assert printable(err)


def test_a_guard_is_put_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back at the end
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, StringIO())
    guard()
    before = sys.stdout
    guard()
    assert sys.stdout is before
    assert output(sys.stdout, 10).file is before.guarded  # type: ignore[attr-defined]  # Guard keeps its stream
