"""The command line as users meet it: help, refusals, results and exit status."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nachos_min import __version__, cli
from nachos_min.errors import InputError
from nachos_min.nas import nachos
from nachos_min.nas.result import SearchResult
from nachos_min.nas.workers import WorkerDiedError
from nachos_min.options import options_of

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}


def process(*command: str) -> tuple[int, str, str]:
    """Return status, output and errors of a command."""
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a search return a result, or raise an error, having reported a progress; return what it was given."""

    def stand_in(outcome: Any = None, progress: Any = None) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def search(on_progress: Any, on_plan: Any, **options: Any) -> SearchResult:
            assert callable(on_plan)
            seen.update(options)
            if isinstance(outcome, BaseException):
                on_progress(progress)
                raise outcome
            return outcome

        monkeypatch.setattr(nachos, "search", search)
        return seen

    return stand_in


# Help


@pytest.mark.parametrize("line", ["", "--help", "-h", "search --help", "search --seed 3 -h", "macs -h"])
def test_help_goes_to_standard_output_within_80_columns(line: str, run: Any) -> None:
    shown = run(*line.split())
    assert (shown.status, shown.err) == (0, "")
    assert "usage: python -m nachos_min" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_version_is_told(run: Any) -> None:
    assert run("--version") == (0, f"nachos_min {__version__}\n", "")


def test_help_loads_neither_numpy_nor_numba() -> None:
    program = "import sys; from nachos_min.cli import main; main(['search', '--help']); print(*sys.modules)"
    _, out, _ = process(sys.executable, "-c", program)
    assert not {"numpy", "numba", "scipy", "h5py", "rich"} & set(out.splitlines()[-1].split())


def test_help_lists_every_option_with_its_default(run: Any) -> None:
    shown = " ".join(run("search", "--help").out.split())
    for name, option in options_of(cli.search).items():
        form = f"--{name.replace('_', '-')} {option.kind.form}".strip()
        assert f"{form} (default: {option.default_text}) {option.meaning}" in shown
    macs = "what a quarter of random networks can keep; digits: 40k; digits32: 450k"
    assert f"--max-macs COUNT (default: {macs}) Most multiply-accumulates (MACs) that" in shown
    assert "--evaluations COUNT (default: 16; paper: 100) " in shown


def test_command_and_python_function_take_the_same_options() -> None:
    of_function = {name: each.default for name, each in inspect.signature(nachos.search).parameters.items()}
    for other in ("on_progress", "on_plan", "executor"):
        del of_function[other]
    of_command = {name: each.default for name, each in options_of(cli.search).items()}
    assert of_command == of_function | {"json": False, "quiet": False}


# Refusals

ALL = ", ".join(cli.COMMANDS)
REFUSALS = [
    ("search --sede 4", "unknown option --sede; did you mean --seed?"),
    ("search --max_mac 4k", "unknown option --max_mac; did you mean --max-macs?"),
    ("search --no-json", "unknown option --no-json; did you mean --nojson?"),
    ("search --xyzzy", "unknown option --xyzzy; try python -m nachos_min search --help"),
    ("search --class--", "unknown option --class--; try python -m nachos_min search --help"),
    ("search --seed", "--seed must be a whole number from 0 to 2^128 - 1, got no value"),
    (
        "search --max-macs banana",
        "--max-macs must be a whole number from 1 to 2^63 - 1 such as 60000, 60k or 2.7M, got 'banana'",
    ),
    ("search --recipe best", "--recipe must be one of deep, paper, got 'best'"),
    ("search --json=maybe", "--json must be given without a value, or as true or false, got 'maybe'"),
    ("search --seed 1 --seed=2", "--seed must be given once, got it twice"),
    ("search --json --nojson", "--json must be given once, got it twice"),
    ("search --nojson=1", "--nojson must be given without a value, got '1'"),
    ("search --out -x", "--out must be a folder, got no value; if '-x' is the value, write --out=-x"),
    ("search --out --seed 3", "--out must be a folder, got no value"),
    ("search --noseed", "unknown option --noseed; try python -m nachos_min search --help"),
    ("search ---seed 1", "unknown option ---seed; did you mean --seed?"),
    ("search -seed 1", "unknown option -seed; did you mean --seed?"),
    ("search --time 3", "unknown option --time; try python -m nachos_min search --help"),
    ("show run --seed 1", "unknown option --seed; search takes it"),
    ("retrain run#0 --seed 1", "unknown option --seed; did you mean --seeds?"),
    ("search --data=", "--data must be a name or file, got ''"),
    ("search run", "search takes options only, got 'run'; did you mean --data run?"),
    ("search - run", "search takes options only, got '- run'"),
    ("search -- --trace", "'--' must not be used: every word after a command is an option or its value"),
    ("macs", "macs needs a TARGET, got none; try python -m nachos_min macs --help"),
    ("macs net.json run", "macs takes one TARGET and options, got 'run'"),
    ("serch", f"unknown command, got 'serch'; did you mean search? (commands: {ALL})"),
    ("items", f"unknown command, got 'items'; try python -m nachos_min --help (commands: {ALL})"),
    ("-z", f"a command must come first, got '-z'; try python -m nachos_min --help (commands: {ALL})"),
]


@pytest.mark.parametrize(("line", "message"), REFUSALS, ids=[line for line, _ in REFUSALS])
def test_a_mistake_is_one_line(line: str, message: str, run: Any, tmp_path: Path, searching: Any) -> None:
    searching(AssertionError("a search was started"))
    assert run(*line.split()) == (2, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize("line", ["--data nowhere", "--space nowhere", "--out file/run"])
def test_a_name_of_nothing_usable_is_one_line(line: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, out, err = run("search", *line.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert line.split()[1] in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Running


def test_options_reach_the_search(run: Any, result: SearchResult, searching: Any) -> None:
    seen = searching(result)
    line = "--data a,b --space 123 --max-macs 2.7M --min-accuracy .5 --seed 7 --out 1e3 --workers 3 --nojson"
    assert run("search", *line.split()).status == 0
    typed = {"data": "a,b", "space": "123", "max_macs": 2_700_000, "min_accuracy": 0.5}
    assert seen == typed | {"seed": 7, "out": "1e3", "workers": 3}  # what was not given is not passed on


def test_json_is_one_object(run: Any, result: SearchResult, searching: Any) -> None:
    searching(result)
    outcome = run("search", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    assert json.loads(outcome.out) == result.as_dict()
    assert outcome.out.count("\n") == 1


def test_without_a_solution(run: Any, without_solution: SearchResult, searching: Any) -> None:
    searching(without_solution)
    as_table, as_json = run("search"), run("search", "--json")
    assert (as_table.status, as_table.err, as_json.status) == (3, "", 3)
    assert as_table.out.startswith("No admissible solution")
    assert as_json.err.startswith("No admissible solution")
    assert json.loads(as_json.out)["front"] == []


@pytest.mark.parametrize(
    ("stopped", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted after 57 evaluations; the same command continues"),
        (WorkerDiedError("a worker died"), 130, "a worker died"),
        (InputError("depth must be >= 1,\n got 0"), 2, "error: depth must be >= 1, got 0"),
    ],
)
def test_a_search_that_stops(
    stopped: Any, status: int, message: str, run: Any, progress: Any, searching: Any
) -> None:
    searching(stopped, progress)
    assert run("search") == (status, "", message + "\n")
    searching(ZeroDivisionError(), progress)
    with pytest.raises(ZeroDivisionError):  # a defect keeps its traceback
        run("search")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("{ %s --help; echo $? >&2; } | true", "0\n"),  # the reader leaves early
        ("%s --help >&-; echo $? >&2", "0\n"),
        ("%s --help 2>&-; echo $? >&2", "0\n"),
        ("%s --sede 4 2>/dev/full; echo $? >&2", "2\n"),  # what cannot be told is not told
        ("%s --help >/dev/full; echo $? >&2", "error: the system refused: No space left on device\n2\n"),
        ("%s --sede 4; echo $? >&2", "error: unknown option --sede; did you mean --seed?\n2\n"),
    ],
)
def test_from_the_shell_a_failure_is_one_line_and_a_status(script: str, said: str) -> None:
    _, _, err = process("sh", "-c", script % '"$0" -m nachos_min search', sys.executable)
    assert err == said


def test_linear_algebra_runs_on_one_thread_unless_told_otherwise() -> None:
    program = """
import os, sys
from nachos_min import __main__
os.environ.pop("OPENBLAS_NUM_THREADS", None)
os.environ["OMP_NUM_THREADS"] = "2"
__main__.sys.argv = ["nachos_min"]
__main__.start()
assert "numpy" not in sys.modules
print(os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"])
"""
    assert process(sys.executable, "-c", program)[1].splitlines()[-1] == "1 2"
