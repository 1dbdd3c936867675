"""How kernels are compiled and run: the one compile policy, and parts of large maps for several threads.

A kernel is a loop over arrays and scalars. It trusts its input, keeps no state and draws no random number.
It releases the GIL and runs on one thread, so that a search trains one candidate per process. For the training of
one network, `set_threads` lets several threads compute the parts of a large map at the same time. The parts do not
depend on the number of threads, and their results are joined in order: any number gives the same bits.
"""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core import caching, event
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

Floats = NDArray[np.floating]  # float32 or float64, C-contiguous; all arrays of a call have one dtype
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Pair = tuple[int, int]  # (height, width): stride, dilation, size
Sides = tuple[int, int, int, int]  # padding: (top, bottom, left, right)

# reassoc: sums may be reordered, so that they vectorise; contract: a*b + c may become one instruction;
# nsz: -0.0 may become 0.0. Not nnan and not ninf: a diverged training must stay visible as NaN.
# A loop that stores into short arrays is vectorised only if, at run time, these are far apart in memory. If it also
# sums over the loop, the order of the terms and the last bit depend on addresses: such a sum has a loop of its own.
FASTMATH = {"reassoc", "contract", "nsz"}

# Numba's version, and names, times and sizes of all files of this package: Numba's own cache checks the file of a
# function only, and would reuse machine code that contains an older version of a function from another file.
FILES = sorted(Path(__file__).parent.glob("*.py"))
STAMP = (numba.__version__, *((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in FILES))

PART = 1 << 18  # approximate numbers in a part
_pools: dict[int, ThreadPoolExecutor] = {}  # at most one: number of threads -> pool of all but the caller's


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by Numba under the one policy of this project.

    It is compiled on the first call with float32 or float64 arrays and cached on disk until a file of this package
    changes, so that a kernel may call compiled functions of other files. Division by zero gives inf or NaN.
    NUMBA_DISABLE_JIT=1 runs the loops as plain Python, NUMBA_BOUNDSCHECK=1 checks every index.
    """
    policy: dict[str, Any] = {"nogil": True, "parallel": False, "fastmath": FASTMATH, "error_model": "numpy"}
    compiled: Any = numba.njit(function, **policy)
    if compiled is not function:  # as it is with NUMBA_DISABLE_JIT=1
        with suppress(RuntimeError):  # no folder is writable, as in some containers: slower, but it runs
            compiled._cache = _Cache(function)  # no public way
    return cast(Callable[P, R], compiled)


class _Cache(caching.FunctionCache):
    """The compiled forms of one kernel on disk. A help and no condition: what it lacks is compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFile(self._cache_path, f"{self._impl.filename_base}.sealed", STAMP)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store what was compiled, unless the disk is full or the folder gone."""
        with suppress(OSError, RuntimeError):  # the latter: a signal came when LLVM handed the code over
            super().save_overload(sig, data)


class _CacheFile(caching.IndexDataCacheFile):
    """All compiled forms of one kernel in one file, behind a checksum.

    Numba has an index and a file for each form. They disagree after a kill between the two, or if two processes
    store different forms at once: one form would run on the arrays of another. Damaged machine code would run, too.
    """

    def load(self, key: Any) -> Any:
        """Return the form of `key`; None if it is not stored."""
        stored = self._load_index().get(key)
        return None if stored is None else pickle.loads(stored)

    def save(self, key: Any, data: Any) -> None:
        """Store a form beside the others."""
        self._save_index(self._load_index() | {key: self._dump(data)})

    def _load_index(self) -> dict[Any, bytes]:
        """Return key -> pickled form; none if the file is missing, no file, damaged, or of other sources."""
        path = Path(self._index_path)
        try:
            content = path.read_bytes() if path.is_file() else b""  # a pipe would be waited for
        except OSError:
            return {}
        found: dict[Any, bytes] = pickle.loads(content[32:]) if content[:32] == self._seal(content[32:]) else {}
        return found

    def _save_index(self, overloads: dict[Any, bytes]) -> None:
        content = self._dump(overloads)
        with self._open_for_write(self._index_path) as file:
            file.write(self._seal(content) + content)

    def _seal(self, content: bytes) -> bytes:
        """Return the checksum of a content: 32 bytes."""
        return sha256(repr(self._source_stamp).encode() + content).digest()


class Compilation(event.Listener):
    """Watches what is compiled inside a `with` block. What comes from the cache is not compiled.

    Attributes:
        seconds: how long it took so far.
    """

    def __init__(self, told: Callable[[bool], None]) -> None:
        """Call `told` with True when a compilation begins, with False when it is done."""
        self.seconds = 0.0
        self._told, self._depth, self._since = told, 0, 0.0

    def __enter__(self) -> "Compilation":
        event.register("numba:compile", self)
        return self

    def __exit__(self, *_: object) -> None:
        event.unregister("numba:compile", self)

    def on_start(self, _: object) -> None:
        """Note the time; while one kernel is compiled, others that it calls may be."""
        self._depth += 1
        if self._depth == 1:
            self._since = perf_counter()
            self._told(True)

    def on_end(self, _: object) -> None:
        """Add the time, once the outermost kernel is done."""
        self._depth -= 1
        if not self._depth:
            self.seconds += perf_counter() - self._since
            self._told(False)


def set_threads(count: int) -> None:
    """Let kernels on large maps use `count` threads in this process; the default is 1.

    BLAS has its own threads: set OPENBLAS_NUM_THREADS and OMP_NUM_THREADS to 1 with this.

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
    """Return almost equal parts of an axis of `length`, for arrays of `numbers` numbers in all.

    >>> parts_of(6, 1000)
    [slice(0, 6, None)]
    >>> parts_of(6, 4 * PART)
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None), slice(4, 6, None)]
    """
    count = max(1, min(length, numbers // PART))
    return [slice(length * part // count, length * (part + 1) // count) for part in range(count)]


def each(function: Callable[[slice], R], parts: list[slice]) -> list[R]:
    """Return `function(part)` of all parts, in order. Every thread, also the caller's, takes a run of neighbours.

    No call of `function` may write where another one writes.
    """
    if not _pools or len(parts) == 1:
        return [function(part) for part in parts]
    ((count, pool),) = _pools.items()
    threads = min(count, len(parts))
    edges = [len(parts) * thread // threads for thread in range(threads + 1)]
    runs = [parts[begin:end] for begin, end in pairwise(edges)]
    others = [pool.submit(lambda run: [function(part) for part in run], run) for run in runs[1:]]
    found = [function(part) for part in runs[0]]
    for other in others:
        found += other.result()
    return found
