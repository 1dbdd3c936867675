"""What runs in a worker: a task, small however large the data is, and its answers to trials.

The parent loads and checks the data. It puts large arrays into files once, and every worker of the machine maps the
same files into its memory. So a task can be sent with each trial, to any process that sees the files.
"""

import ctypes
import io
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import file_digest, sha256
from importlib import import_module
from math import inf
from pathlib import Path
from time import time
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
from numpy.lib import format as npy

from nachos_kernels import _jit
from nachos_min.data import Dataset
from nachos_min.errors import InputError, message
from nachos_min.files import open_file
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluate import Backbones, DivergenceError, evaluate
from nachos_min.nas.evaluation import OF_MACHINE, Evaluation, Failure, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.store import StoreError, own_folder

Answer = TypeVar("Answer")

CONTINUES = "what was evaluated is kept, the same command continues"
_LARGE = 1 << 14  # bytes of an array; smaller ones stand in the task's own file
_NAME = "task"
# What sets and gets the threads of the libraries that NumPy and SciPy come with: OpenBLAS under its names, or MKL.
_OPENBLAS = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")
_BLAS = [(name.format("set"), name.format("get")) for name in _OPENBLAS]
_BLAS += [("MKL_Set_Num_Threads", "MKL_Get_Max_Threads")]


class MachineError(InputError):
    """The machine refused what a search needs, such as room on a disk. It says nothing about a network."""


@contextmanager
def passing() -> Iterator[None]:
    """Raise what the machine refuses inside as a MachineError; too little memory stays a MemoryError."""
    try:
        yield
    except Exception as error:
        found = of_machine(error)
        if found is None or isinstance(error, MachineError):
            raise
        if isinstance(found, MemoryError):
            raise MemoryError from None
        if isinstance(found, KeyboardInterrupt):  # inside compiled code Python makes a SystemError of it
            raise KeyboardInterrupt from None
        why = f"{type(found).__name__}: {found}"
        if isinstance(found, OSError) and found.strerror:
            why = found.strerror if found.filename is None else f"{found.strerror}: {found.filename}"
        what = str(error) if isinstance(error, InputError) else f"the system refused: {why}"
        raise MachineError(f"{what}; {CONTINUES}") from None


def of_machine(error: BaseException | None) -> BaseException | None:
    """Return what the machine refused, `error` itself or what it arose from; None where the machine did nothing."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        no_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
        if no_thread or isinstance(error, (*OF_MACHINE, KeyboardInterrupt)):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


@dataclass(frozen=True)
class Task:
    """What evaluates the trials of a search. It is sent with each trial, so it names files and holds no data."""

    digest: str  # SHA-256 of the file `task`: coder, data, settings, backbones, pickled without large arrays
    folder: str  # holds this file, and the large arrays as 0.npy, 1.npy, ...


def share(coder: GenomeCoder, dataset: Dataset, acting: Configuration, run: Path) -> Task:
    """Return the task of `evaluate` with these arguments, having put large arrays into a folder of the `run`."""
    folder, content = own_folder(run, "shared"), io.BytesIO()
    depends = sha256(repr((coder.space.content, dataset.digest, acting)).encode()).hexdigest()
    backbones = Backbones(run.absolute() / "backbones", depends)
    try:
        _Writer(content, folder).dump((coder, dataset, acting, backbones))
        with open(folder / _NAME, "xb") as file:
            file.write(content.getvalue())
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from None
    return Task(sha256(content.getvalue()).hexdigest(), str(folder.absolute()))


class _Writer(pickle.Pickler):
    """A pickler that puts each large array into a file, once."""

    def __init__(self, stream: io.BytesIO, folder: Path) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._folder, self._files = folder, dict[int, tuple[str, str]]()

    def persistent_id(self, value: Any) -> tuple[str, str] | None:
        """Return the name and the SHA-256 of the file of a large array, None for all else."""
        if not isinstance(value, np.ndarray) or value.nbytes < _LARGE:
            return None
        if id(value) not in self._files:
            name = f"{len(self._files)}.npy"
            with open(self._folder / name, "xb+") as file:
                npy.write_array(_Plain(file), value, allow_pickle=False)
                file.seek(0)
                self._files[id(value)] = name, file_digest(file, "sha256").hexdigest()
        return self._files[id(value)]


class _Plain:
    """A file whose errors name their cause: NumPy writes into a real one without saying that the disk is full."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


class _Reader(pickle.Unpickler):
    """An unpickler that maps the files of `_Writer` into memory, once their content is found to be what it was."""

    def __init__(self, task: Task) -> None:
        self._folder, self._arrays = Worker.folders.get(task.digest, task.folder), dict[str, Any]()
        with open_file(Path(self._folder, _NAME), links=False) as file:
            content = file.read()
        self._check(_NAME, sha256(content).hexdigest(), task.digest)
        super().__init__(io.BytesIO(content))

    def persistent_load(self, file: tuple[str, str]) -> Any:
        """Return the array of a file, for reading only; each file is mapped once."""
        name, digest = file
        if name not in self._arrays:
            with open_file(Path(self._folder, name), links=False) as stored:
                self._check(name, file_digest(stored, "sha256").hexdigest(), digest)
            self._arrays[name] = np.asarray(np.load(os.path.join(self._folder, name), mmap_mode="r"))
        return self._arrays[name]

    def _check(self, name: str, found: str, wanted: str) -> None:
        if found != wanted:
            rule = f"the file {name} must be what the search wrote, got other content"
            raise MachineError(f"{self._folder}: {rule}; {CONTINUES}")


def opened(task: Task) -> tuple[GenomeCoder, Dataset, Configuration, Backbones]:
    """Return what `share` made a task of; large arrays are for reading only."""
    found: tuple[GenomeCoder, Dataset, Configuration, Backbones] = _Reader(task).load()
    return found


class Worker:
    """What this process is as a worker."""

    folders: ClassVar[dict[str, str]] = {}  # digest of a task -> where its files lie here, if not in its folder
    told: ClassVar[Callable[[Any], None]] = staticmethod(lambda _: None)


def tell(message: Any) -> None:
    """Send `message`, whose pickle must be shorter than 4 kB, to the parent's `told` if there is a way."""
    Worker.told(message)


@lru_cache(maxsize=1)
def _prepared(task: Task) -> Callable[[Trial], Evaluation]:
    """Return what evaluates the trials of a task; a process prepares it once."""
    coder, dataset, acting, backbones = opened(task)
    backbones.told = tell
    return partial(evaluate, coder, dataset, acting, backbones=backbones, told=tell)


def answer(task: Task, trial: Trial, until: float = inf) -> Evaluation | Failure | None:
    """Return the evaluation of one trial, or the reason why there is none; None at the time `until` or later.

    What the machine refuses is raised: it says nothing about the trial.
    """
    if time() >= until:
        return None
    evaluated = _prepared(task)
    try:
        with warnings.catch_warnings():  # a diverging training is a Failure; NumPy's warnings would fill the screen
            warnings.simplefilter("ignore", RuntimeWarning)
            return evaluated(trial)
    except Exception as error:  # one bad candidate must not end the search; its reason is kept and shown
        diverged = isinstance(error, DivergenceError)
        if not diverged and of_machine(error) is not None:
            raise
        return Failure(trial, message(f"{type(error).__name__}: {error}"), "diverged" if diverged else "defect")


def run(threads: int, function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return `function(*arguments)`, run on this number of threads; as `passing`. Runs in the worker."""
    with passing():
        set_threads(threads)
        return function(*arguments)


# Threads


def _blas() -> Iterator[tuple[Callable[[int], None], Callable[[], int]]]:
    """Yield what sets and what gets the threads of each BLAS library that is found."""
    for name in ("numpy._core._multiarray_umath", "scipy.linalg.cython_blas"):  # Numba uses the BLAS of SciPy
        with suppress(ImportError, OSError, TypeError):
            library = ctypes.CDLL(import_module(name).__file__)  # symbols of libraries that it needs are found, too
            for setter, getter in _BLAS:
                with suppress(AttributeError):
                    yield getattr(library, setter), getattr(library, getter)


@lru_cache(maxsize=1)
def set_threads(count: int) -> None:
    """Let BLAS and kernels use `count` threads in this process."""
    for setter, _ in _blas():
        setter(count)
    _jit.set_threads(count)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run BLAS and kernels of this process on `count` threads inside."""
    before = [(setter, getter()) for setter, getter in _blas()]
    set_threads(count)
    try:
        yield
    finally:
        set_threads.cache_clear()
        _jit.set_threads(1)
        for setter, number in before:
            setter(number)
