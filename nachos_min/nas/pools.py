"""Where the calls of a search run: in processes of this machine, in this process, or wherever an executor says.

A local worker is a fresh interpreter: NumPy's BLAS and Numba hold threads and locks that a fork would break.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from math import inf
from multiprocessing import connection, current_process, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nachos_min.errors import InputError
from nachos_min.nas.tasks import Task, Worker, set_threads
from nachos_min.terminal import guard

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MARK = "NACHOS_MIN_WORKER"  # set in the environment of local workers
_UNGUARDED = 113  # exit status of a worker that would start a search of its own


class UnguardedError(InputError):
    """A search is called whenever its script is imported, and every worker imports the script."""

    def __init__(self) -> None:
        super().__init__(
            'search must be called below `if __name__ == "__main__":` in a script, or with workers=0: '
            "every worker imports the script, and would start the search again"
        )


class Pool(Executor):
    """An executor of the standard kind that may also bring what running calls `tell`."""

    at_once: float = inf  # calls that are submitted and not done
    told: Callable[[Any], None] = staticmethod(lambda _: None)
    final: tuple[type[BaseException], ...] = ()  # errors of calls that were tried again already

    def place(self, task: Callable[[], Task]) -> None:
        """Bring the files of `task()` to where calls run, if these do not see the folder of the run."""

    def deliver(self) -> None:
        """Call `told` with each message that came since the last time."""


class Borrowed(Pool):
    """The executor of a caller, who starts and ends it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Return the future of a call."""
        return self._executor.submit(function, *arguments, **named)


class Here(Pool):
    """This process: a call is done when `submit` returns. For notebooks, debuggers and tests."""

    at_once = 1

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Return the future of a call, done."""
        Worker.told, future = self.told, Future[Any]()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:  # an interruption ends the search instead
            future.set_exception(error)
        return future


class LocalPool(Pool):
    """Worker processes of this machine. After the death of one, the next call starts all anew."""

    def __init__(self, count: int, threads: int = 1, folder: str | Path = "") -> None:
        """Prepare `count` workers of `threads` threads for the run in `folder`; the first call starts them."""
        self.at_once = count + 1  # the next call is there when a worker is done
        self._count, self._threads, self._folder = count, threads, folder
        # Without a lock, which a killed worker would keep: short messages are written in one piece.
        self._received, self._sent = get_context("spawn").Pipe(duplex=False)
        self._started: dict[int, BaseProcess] = {}
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        self._ended = False
        prepared = partial(_start, self._threads, self._sent)
        settings = current_process()._config  # type: ignore[attr-defined]  # no public way to name semaphores
        before, settings["semprefix"] = settings["semprefix"], f"/{_semaphores(self._folder)}{os.getpid()}"
        try:
            with _signals_blocked():  # the first pool starts the process that removes what a killed one leaves
                return ProcessPoolExecutor(self._count, get_context("spawn"), initializer=prepared)
        finally:
            settings["semprefix"] = before

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Return the future of a call; BrokenProcessPool if workers die as soon as they start."""
        try:
            if self._ended:
                raise BrokenProcessPool
            return self._submit(function, arguments, named)
        except BrokenProcessPool:
            self._end()  # also a worker that started meanwhile, for which the pool would wait
            self.shutdown()
            if any(process.exitcode == _UNGUARDED for process in self._started.values()):
                raise UnguardedError from None
            self._pool = self._fresh()
            return self._submit(function, arguments, named)

    def _submit(self, function: Callable[..., Any], arguments: Any, named: Any) -> Future[Any]:
        try:
            with _children_prepared(self._threads):
                future = self._pool.submit(function, *arguments, **named)
        except OSError:
            if not self._pool._broken:
                raise
            raise BrokenProcessPool from None  # which closed its pipes while another worker was started
        self._started |= self._running()
        return future

    def _running(self) -> dict[int, BaseProcess]:
        return {**(getattr(self._pool, "_processes", None) or {})}

    def deliver(self) -> None:
        """Call `told` with each message that came since the last time; notice the death of a worker."""
        while self._received.poll():
            self.told(self._received.recv())
        if connection.wait([process.sentinel for process in self._running().values()], 0):
            self._end()

    def _end(self) -> None:
        """End the workers at once."""
        self._ended = True
        for process in (self._started | self._running()).values():
            process.kill()  # not by its number, which may be another process's by now
        # One may have died within an answer, whose rest the pool would await while the pipe is open.
        answers = getattr(self._pool, "_result_queue", None)
        if answers is not None:
            answers._writer.close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with `cancel_futures` without waiting for what they are doing."""
        if cancel_futures:
            self._end()
        if sys.version_info < (3, 11, 5) and (cancel_futures or self._pool._broken):
            self._free_writer()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _free_writer(self) -> None:
        """End the thread that writes to dead workers: old Pythons wait for it for ever (CPython gh-94777)."""
        pool: Any = self._pool  # there is no public way to the thread
        queue = pool._call_queue
        thread = None if queue is None else queue._thread
        if thread is not None:
            thread.join(1.0)  # it ends by itself, and closes the pipe, unless the pipe is full
            if thread.is_alive():
                queue._reader.close()


def _semaphores(folder: str | Path) -> str:
    """Return how the names of a pool's semaphores begin, other ones for each folder of a run."""
    return f"nm-{sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:8]}-"


def clear_semaphores(folder: str | Path) -> None:
    """Remove what killed processes left that had a pool for this folder. Only Linux shows what there is."""
    own = f"sem.{_semaphores(folder)}{os.getpid()}-"
    for left in Path("/dev/shm").glob(f"sem.{_semaphores(folder)}*"):
        if not left.name.startswith(own):
            left.unlink(missing_ok=True)


def refuse_inside_import() -> None:
    """Raise UnguardedError in a process that imports the script of its parent; a worker ends without a word."""
    if getattr(current_process(), "_inheriting", False):
        if _MARK in os.environ:
            os._exit(_UNGUARDED)
        raise UnguardedError


@contextmanager
def _children_prepared(threads: int) -> Iterator[None]:
    """Start processes inside with BLAS on `threads` threads, which leave signals to their parent."""
    wanted = dict.fromkeys(_THREADS, str(threads)) | {_MARK: "1"}
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    os.environ.update(wanted)
    main = vars(sys.modules["__main__"])
    script = main.get("__file__")
    if script is not None and not os.path.exists(script):  # standard input, which no worker can import
        del main["__file__"]
    try:
        with _signals_blocked():
            yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)
        if script is not None:
            main["__file__"] = script


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes inside that do not see what goes to a whole group, Ctrl-C and the end of the terminal."""
    if sys.platform == "win32":  # it has no such mask
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(threads: int, parent: Any) -> None:
    """Prepare a worker that sends to the connection `parent`. Runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard()
    leave_with_parent()
    keep_freed_memory()
    set_threads(threads)
    Worker.told = staticmethod(parent.send)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory, as every new page is filled with zeros; False where it cannot."""
    trim_threshold, mmap_threshold = -1, -3  # parameters of mallopt(3) in the GNU C library
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(set_option(trim_threshold, 2**31 - 1)) and bool(set_option(mmap_threshold, 2**30))  # bytes


def leave_with_parent() -> None:
    """End this process as soon as its parent is gone: a killed parent cannot tell its workers."""
    parent = parent_process()

    def leave() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
