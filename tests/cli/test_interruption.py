"""Signals: a search that is stopped ends at once, says one line, has status 130, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nachos_min.__main__ import Interruption

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
STREAMS: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, "text": True}
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
SAID = "interrupted after 0 evaluations; the same command continues\n"
unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

PROGRAM = """
import ctypes, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
from nachos_min import __main__
from nachos_min.errors import InputError
from nachos_min.nas import nachos
found = nachos.search
def search(**arguments):
    {}
nachos.search = search
sys.argv = ["nachos_min", "search", "--quiet"]
raise SystemExit(__main__.start())
"""


def program(search: str) -> list[str]:
    """Return the command of a program whose search does this."""
    return [sys.executable, "-c", PROGRAM.format(search.strip().replace("\n", "\n    "))]


def outcome(search: str) -> tuple[int, str, str]:
    """Return status, output and errors of a program whose search does this."""
    done = subprocess.run(program(search), **STREAMS, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


SLEEPING = """
try:
    print("ready", flush=True)  # inside: the signal may come before the next line
    time.sleep(60)
finally:
    print("stopping", flush=True)
    time.sleep(0.5)
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_an_interruption_and_a_second_one_does_not_disturb_the_stopping(number: int) -> None:
    with subprocess.Popen(program(SLEEPING), **STREAMS) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        for line in ("ready\n", "stopping\n"):
            assert started.stdout.readline() == line
            started.send_signal(number)
        assert started.stdout.readline() == "stopped\n"
        assert started.wait(timeout=30) == 130
        assert started.stderr.read() == SAID


@unix
def test_a_signal_that_was_turned_off_stays_off() -> None:
    search = "os.kill(os.getpid(), signal.SIGHUP)\nraise InputError('it went on')"
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *program(search)]
    done = subprocess.run(command, **STREAMS, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "error: it went on\n")


CLOSED_TERMINAL = """
import os, pty, sys
process, terminal = pty.fork()
if not process:
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
while b"ready" not in said:
    said += os.read(terminal, 1000)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@unix
def test_a_terminal_that_is_closed_stops_a_search_in_good_order(tmp_path: Path) -> None:
    search = SLEEPING + f"    open({str(tmp_path / 'stopped')!r}, 'w').close()\n"
    command = [sys.executable, "-c", CLOSED_TERMINAL, *program(search)]
    assert subprocess.run(command, **STREAMS, timeout=60, check=True).stdout == "130\n"
    assert (tmp_path / "stopped").exists()


@unix
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_to_the_whole_group_ends_workers_too_and_nobody_complains(number: int, tmp_path: Path) -> None:
    options = {"workers": 2, "evaluations": 4, "finalists": 0, "epochs": 500, "out": str(tmp_path / "run")}
    command = program(f"return found(**arguments | {options})")
    with subprocess.Popen(command, **STREAMS, start_new_session=True) as started:
        while not (tmp_path / "run" / "shared" / "task").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # workers start, or train
        os.killpg(started.pid, number)
        # Their ends of the pipe are closed, too: all processes are gone.
        said = started.communicate(timeout=60)
    assert said == ("", SAID)
    assert started.returncode == 130
    assert not (tmp_path / "run" / "shared").exists()


INTERRUPTED_IMPORT = """
import sys
from nachos_min import __main__
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "nachos_min.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
raise SystemExit(__main__.start())
"""


def test_an_interruption_while_the_program_loads_is_one_line() -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT]
    done = subprocess.run(command, **STREAMS, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interruption_that_python_lost_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("signal.setitimer", lambda *_: None, raising=False)
    interrupt = Interruption()
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
    interrupt(signal.SIGINT, None)
    now += Interruption.PAUSE
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)


LOST = """
class Lossy:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Lossy()
"""


@unix
def test_an_interruption_that_python_lost_comes_again_by_itself() -> None:
    search = "__main__.Interruption.PAUSE = 0.1" + LOST + "print('lost')\n" + SLEEPING
    assert outcome(search) == (130, "lost\nready\nstopping\nstopped\n", SAID)


def test_an_interruption_that_python_lost_at_the_end_has_its_status() -> None:
    assert outcome(LOST + "raise InputError('no')") == (130, "", "error: no\ninterrupted\n")


def test_an_interruption_inside_compiled_code_is_one() -> None:
    search = LOST + "raise SystemError('a function returned a result with an exception set')"
    assert outcome(search) == (130, "", "interrupted\n")
