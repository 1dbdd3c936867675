"""Lines as they are typed: each option once, what a misspelt one may mean, and thousands that nobody means."""

import functools
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hostile.line_cases import LINES, line

from nachos_min import cli
from nachos_min.line import advise, read_line
from nachos_min.options import flag, options_of

SEARCH = [flag(option) for option in options_of(cli.search)]
# fmt: off
MEANT = {
    "sede": "seed", "sed": "seed", "Seed": "seed", "epoch": "epochs", "eval": "evaluations", "max-mac": "max-macs",
    "max_macs": "max-macs", "maxmacs": "max-macs", "accuracy": "min-accuracy", "min-acc": "min-accuracy",
    "output": "out", "dataset": "data", "date": "data", "batch-size": "batch", "num-workers": "workers",
    "learning-rate": "rate", "jsn": "json", "quite": "quiet", "worker": "workers", "resoluton": "resolution",
    "finalist": "finalists", "max-epochs": "epochs", "margins": "margin", "guarante": "guarantee",
}
# fmt: on
UNRELATED = (
    "time lr gpu verbose model optimizer loss dropout patience checkpoint resume device config x yes force help-me"
)


@pytest.mark.parametrize("typed", MEANT)
def test_a_misspelt_option_is_told(typed: str) -> None:
    assert advise(f"--{typed}", SEARCH, "") == f"did you mean --{MEANT[typed]}?"


@pytest.mark.parametrize("typed", [*UNRELATED.split(), "max", "macs", "m" * 1_000_000, "é", "1"])
def test_no_option_is_told_for_another_word_or_one_of_many_meanings(typed: str) -> None:
    assert advise(f"--{typed}", SEARCH, "program") == "try program --help"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("--seed 1 --max_macs=2k", {"seed": "1", "max_macs": "2k"}),
        ("--out=-x --data -1", {"out": "-x", "data": "-1"}),
        ("--json true --noquiet", {"json": "true", "quiet": "false"}),
        ("--quiet --json False", {"quiet": "true", "json": "False"}),
        ("--data True --out=--seed=1 --space -", {"data": "True", "out": "--seed=1", "space": "-"}),
    ],
)
def test_options_and_their_texts(typed: str, read: dict[str, str]) -> None:
    assert read_line("search", typed.split(), cli.COMMANDS) == read


def test_words_without_an_option_are_what_the_command_needs_in_order() -> None:
    assert read_line("compare", ["one", "--json", "two"], cli.COMMANDS) == {
        "run": "one",
        "json": "true",
        "other": "two",
    }
    assert read_line("compare", ["two", "--run", "one"], cli.COMMANDS) == {"run": "one", "other": "two"}
    assert read_line("show", ["--json", "run"], cli.COMMANDS) == {"json": "true", "run": "run"}


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command do nothing."""
    for name, command in cli.COMMANDS.items():
        monkeypatch.setitem(cli.COMMANDS, name, functools.wraps(command)(lambda *_, **__: 0))


@pytest.mark.usefixtures("idle")
def test_thousands_of_lines_are_taken_or_refused_in_one_line(run: Any, tmp_path: Path) -> None:
    statuses = set()
    for number in range(3000):
        words = line(Random(f"line {number}"), list(LINES)[number % len(LINES)])
        status, out, err = run(*words)
        statuses.add(status)
        assert (out, err) == ("", "") if status == 0 else status == 2, words
        if status == 2:
            assert err.startswith("error: "), words
            assert err.endswith("\n"), words
            assert err[:-1].isprintable(), words
            assert len(err) <= 501, words
    assert statuses == {0, 2}
    assert list(tmp_path.iterdir()) == [], "nothing was written"
