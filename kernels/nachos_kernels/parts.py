"""A large map cut into parts of a few images, which threads compute side by side.

A kernel runs on one thread and holds no lock while it runs, nor does BLAS: threads of one process compute at the
same time. A search needs none, it trains one candidate per process; they are for whoever trains one network on
several processors. What is a part never depends on how many threads there are, and results come back in the order
of the parts: the same bits for any number of threads.

BLAS has threads of its own; set OPENBLAS_NUM_THREADS and OMP_NUM_THREADS to 1 beside these.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Result = TypeVar("Result")

PART = 1 << 18  # numbers of a part, about

# At most one: under the number of threads, the pool of all but the caller's.
_pools: dict[int, ThreadPoolExecutor] = {}


def set_threads(count: int) -> None:
    """Let kernels on large maps use `count` threads, from now on and in all of this process; at first it is 1.

    Args:
        count: >= 1.

    Raises:
        ValueError: if `count` < 1.
    """
    if count < 1:
        raise ValueError(f"threads must be >= 1, got {count}")
    while _pools:
        _pools.popitem()[1].shutdown()
    if count > 1:
        _pools[count] = ThreadPoolExecutor(count - 1, "nachos_kernels")


def parts_of(length: int, numbers: int) -> list[slice]:
    """Return the parts of an axis of `length`, all about equally long, for arrays of `numbers` numbers in all.

    >>> parts_of(6, 1000)
    [slice(0, 6, None)]
    >>> parts_of(6, 4 * PART)
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None), slice(4, 6, None)]
    """
    count = min(length, numbers // PART)
    if count < 2:
        return [slice(0, length)]
    return [slice(length * part // count, length * (part + 1) // count) for part in range(count)]


def each(function: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    """Return what `function` returns for each of the parts, in their order; the threads share the work.

    Every thread gets one run of neighbouring parts, and the caller's is one of the threads. A step of the network
    T32 (`bench/train_networks.py`) took 101 ms when each part was handed over by itself, and takes 87 ms so.

    Args:
        function: writes to places that no other part's call writes to.
        parts: what `parts_of` returned.
    """
    if not _pools or len(parts) == 1:
        return _in_turn(function, parts)
    ((count, pool),) = _pools.items()
    threads = min(count, len(parts))
    edges = [len(parts) * thread // threads for thread in range(threads + 1)]
    runs = [parts[begin:end] for begin, end in pairwise(edges)]
    others = [pool.submit(_in_turn, function, run) for run in runs[1:]]
    found = _in_turn(function, runs[0])
    for other in others:
        found += other.result()
    return found


def _in_turn(function: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    return [function(part) for part in parts]
