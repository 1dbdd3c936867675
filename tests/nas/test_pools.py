"""Pools of worker processes: no death, at whatever moment, is waited for, and none leaves anything behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nachos_min.nas import tasks
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.pools import LocalPool, clear_semaphores
from nachos_min.nas.tasks import Task

HALF_AN_ANSWER = """
import os, time
from concurrent.futures import wait
from multiprocessing import connection
from nachos_min.nas import tasks
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.pools import LocalPool

def half(stream, content, *_):
    os.write(stream.fileno(), content[:2])
    os._exit(1)

def dies():
    connection.Connection._send = half
    return bytes(100_000)

if __name__ == "__main__":
    for how in ("noticed", "shut down"):
        pool = LocalPool(2)
        futures = [pool.submit(dies), pool.submit(time.sleep, 100)]
        if how == "noticed":
            while wait(futures, 0.05).not_done:
                pool.deliver()
            print(*(type(each.exception()).__name__ for each in futures), pool.submit(abs, -3).result())
        else:
            while all(each.exitcode is None for each in pool._started.values()):
                time.sleep(0.01)
        pool.shutdown(cancel_futures=True)
    print("ended")
"""


@pytest.mark.skipif(os.name == "nt", reason="its pipes are others")
def test_a_worker_that_dies_within_an_answer_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(HALF_AN_ANSWER)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "BrokenProcessPool BrokenProcessPool 3\nended\n"


def test_an_interruption_inside_compiled_code_is_no_failure_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluated(_: Trial) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interruption:
            raise SystemError("a function returned a result with an exception set") from interruption

    monkeypatch.setattr(tasks, "_prepared", lambda _: evaluated)
    with pytest.raises(KeyboardInterrupt):
        tasks.run(1, tasks.answer, Task("", ""), Trial((0,)))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="elsewhere nothing shows which semaphores there are")
def test_semaphores_of_a_killed_process_are_removed_by_the_next_in_the_same_folder(tmp_path: Path) -> None:
    def names() -> list[Path]:
        return sorted(Path("/dev/shm").glob(f"sem.nm-*-{os.getpid()}-*"))

    before = names()
    pool = LocalPool(1, folder=tmp_path / "run")
    (own, *_) = made = [each for each in names() if each not in before]
    parts = own.name.split("-")
    left = own.with_name("-".join([*parts[:2], "99999999", "abc"]))
    left.touch()
    clear_semaphores(tmp_path / "other")
    assert left.exists()
    clear_semaphores(tmp_path / "run")
    assert not left.exists()
    assert all(each.exists() for each in made)
    pool.shutdown()
