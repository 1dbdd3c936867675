"""Evaluate genomes in worker processes, each on one thread; results do not depend on their number.

A worker is a fresh interpreter: NumPy's BLAS and Numba hold threads and locks that a fork would break. It loads the
data once and then evaluates trials. Between iterations the same workers fit the surrogates.
"""

import ctypes
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from nachos_min.data import Dataset
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluate import Backbones, Evaluation, Failure, Trial, evaluate
from nachos_min.nas.genome import GenomeCoder

Answer = TypeVar("Answer")

_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer, for example because the machine ran out of memory."""


class _Worker:
    evaluate: Callable[[Trial], Evaluation]  # set once in each worker process


def _start(
    coder: GenomeCoder, load_dataset: Callable[[], Dataset], configuration: Configuration, backbones: Backbones
) -> None:
    """Prepare a worker. Runs in the worker."""
    # Ctrl-C goes to the process group: the parent alone acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent()
    keep_freed_memory()
    # A training that diverges is a Failure with its reason; NumPy's warnings on the way would fill the screen.
    warnings.simplefilter("ignore", RuntimeWarning)
    _Worker.evaluate = staticmethod(partial(evaluate, coder, load_dataset(), configuration, backbones=backbones))


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


def _answer(trial: Trial) -> Evaluation | Failure:
    """Evaluate one trial. Runs in the worker."""
    try:
        return _Worker.evaluate(trial)
    except MemoryError:  # says something about the machine, not the candidate: nothing to keep with it
        raise
    except Exception as error:  # one bad candidate must not end the search; its reason is kept and shown
        return Failure(trial, f"{type(error).__name__}: {error}")


@contextmanager
def _children_prepared() -> Iterator[None]:
    """Start processes inside with BLAS on one thread, and with Ctrl-C blocked until they are prepared."""
    before = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    masked = os.name != "nt"  # Windows has no such mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else None
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _deaths_reported() -> Iterator[None]:
    """Raise a WorkerDiedError for each way in which a worker dies."""
    try:
        yield
    except (BrokenProcessPool, MemoryError):
        raise WorkerDiedError(
            "a worker process died (out of memory?); what was evaluated is kept, the same command continues"
        ) from None


class Workers:
    """A pool of worker processes for one run, a context manager.

    Its methods raise WorkerDiedError if a worker process died, or had too little memory.
    """

    def __init__(
        self,
        count: int,
        coder: GenomeCoder,
        load_dataset: Callable[[], Dataset],
        configuration: Configuration,
        backbones: Path,
    ) -> None:
        """Prepare `count` workers, which start with the first trial and share trained backbones in a folder."""
        # Every worker loads the data set itself: arguments larger than a pipe (64 KiB) wait for ever if it dies.
        self._coder, self._share = coder, isinstance(configuration.recipe, PaperRecipe)
        prepared = (coder, load_dataset, configuration, Backbones(backbones))
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=prepared)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End all workers; after an error or an interruption without waiting for what they are doing."""
        if kind is not None:
            # Through its Process object: by now the process id may be another process's.
            for process in list((getattr(self._pool, "_processes", None) or {}).values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def evaluate(self, trials: Sequence[Trial]) -> Iterator[Evaluation | Failure]:
        """Yield the evaluation of each of `trials`, in the order in which they are done.

        Of trials that share the training of a backbone, one goes first and the others wait for it.
        """
        waiting: dict[Any, list[Trial]] = {}
        for trial in trials:
            backbone = tuple(self._coder.backbone_genes(trial.genome)) if self._share else trial
            waiting.setdefault(backbone, []).append(trial)
        with _deaths_reported():
            first = [siblings.pop(0) for siblings in waiting.values()]
            running = dict(zip(self._submit(_answer, [(trial,) for trial in first]), waiting, strict=True))
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    siblings = waiting.pop(backbone := running.pop(future), [])
                    running |= dict.fromkeys(self._submit(_answer, [(each,) for each in siblings]), backbone)
                    yield future.result()

    def as_done(self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Answer]:
        """Yield `function(*each)` for each of `arguments`, in the order in which they are done."""
        with _deaths_reported():
            yield from (future.result() for future in as_completed(self._submit(function, arguments)))

    def starmap(self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """Return `function(*each)` for each of `arguments`, in their order."""
        with _deaths_reported():
            return [future.result() for future in self._submit(function, arguments)]

    def _submit(
        self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Future[Answer]]:
        with _children_prepared():
            return [self._pool.submit(function, *each) for each in arguments]
