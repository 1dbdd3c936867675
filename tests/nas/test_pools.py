"""Pools of worker processes: no death, at whatever moment, is waited for, and none leaves anything behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nachos_min.nas import tasks
from nachos_min.nas.evaluation import Trial
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


SEMAPHORES = """
import os
from pathlib import Path
from nachos_min.nas.pools import LocalPool, clear_semaphores

if __name__ == "__main__":
    pool = LocalPool(1, folder="run")
    made = sorted(Path("/dev/shm").glob(f"sem.nm-*-{os.getpid()}-*"))
    left = made[0].with_name("-".join([*made[0].name.split("-")[:2], "99999999", "abc"]))
    left.touch()
    clear_semaphores("other")
    print(left.exists())
    clear_semaphores("run")
    print(left.exists(), all(each.exists() for each in made))
    pool.shutdown()
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="elsewhere nothing shows which semaphores there are")
def test_semaphores_of_a_killed_process_are_removed_by_the_next_in_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SEMAPHORES)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("True\nFalse True\n", "")
