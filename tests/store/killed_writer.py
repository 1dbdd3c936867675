"""Run by test_store_run.py in a process of its own: kill a writer again and again, look at what it left.

`python killed_writer.py FOLDER ROUNDS`. Each round forks a writer that replaces the same few records as fast
as it can, kills it at a random moment, and checks that the run opens (the lock is gone), that every record is
whole, and that nothing older than what the round before ended with has come back.
"""

import os
import signal
import sys
import time

import numpy as np

from nachos_min.store import create_or_open

KEYS = [f"k{i}" for i in range(4)]


def write_forever(folder: str, start: int) -> None:
    with create_or_open(folder, {"seed": 1}) as run:
        for number in range(start, sys.maxsize):
            record = {"number": number, "table": np.full(20_000, number), "nested": {"same": (number,)}}
            run.write(KEYS[number % len(KEYS)], record)


def newest(folder: str) -> int:
    """The largest number on disk, -1 if none; every record read on the way must agree with itself."""
    with create_or_open(folder, {"seed": 1}) as run:
        leftovers = [name for _, _, names in os.walk(folder) for name in names if name.endswith(".tmp")]
        assert leftovers == [], leftovers
        numbers = [-1]
        keys = run.keys()
        for key in keys:
            record = run.read(key) or {}
            numbers.append(record["number"])
            assert KEYS[numbers[-1] % len(KEYS)] == key
            assert (record["table"] == numbers[-1]).all()
            assert record["nested"] == {"same": (numbers[-1],)}
    return max(numbers)


if __name__ == "__main__":
    folder, rounds = sys.argv[1:]
    rng, last = np.random.default_rng(2), -1
    create_or_open(folder, {"seed": 1}).close()
    for _ in range(int(rounds)):
        writer = os.fork()
        if writer == 0:
            write_forever(folder, last + 1)
        while last < 0 and not any(name.endswith(".h5") for name in os.listdir(f"{folder}/evaluations")):
            time.sleep(0.001)  # the first writer is killed after it has written something
        time.sleep(rng.uniform(0.002, 0.06))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        now = newest(folder)
        assert now >= last, (now, last)
        last = now
    print(last + 1)
