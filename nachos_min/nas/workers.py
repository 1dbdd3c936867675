"""Evaluate genomes by many workers; results do not depend on their number, nor on where they are.

Between iterations the same workers fit the surrogates. A call whose worker died is given out once more.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from nachos_min.data import Dataset
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.pools import Borrowed, Here, LocalPool, Pool, clear_semaphores
from nachos_min.nas.steps import Step
from nachos_min.nas.tasks import CONTINUES, answer, passing, run, share
from nachos_min.store import StoreError, clear_folder

Answer = TypeVar("Answer")
Call = tuple[Any, Callable[..., Any], tuple[Any, ...]]  # its name among its like, the function, its arguments

_DIED = f"a worker process died (out of memory?); {CONTINUES}"
_PAUSE = 0.2  # seconds between looks for messages


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer, for example because the machine ran out of memory."""


class Workers:
    """What evaluates the trials of one run, a context manager.

    Its methods raise WorkerDiedError if the worker of a call died, or had too little memory, twice; MachineError if
    a disk is full or the machine refuses something else.
    """

    def __init__(
        self,
        executor: int | Executor,
        coder: GenomeCoder,
        dataset: Dataset,
        acting: Configuration,
        folder: Path,
        threads: int = 1,
    ) -> None:
        """Prepare workers for the run in `folder`, where they share data and trained backbones.

        `executor` is the number of processes, 0 for this one, or what runs calls. Each has `threads` threads.
        """
        self._coder, self._share, self._threads = coder, isinstance(acting.recipe, PaperRecipe), threads
        self._run, self._task = folder, cache(partial(share, coder, dataset, acting, folder))
        self._pool: Pool
        if isinstance(executor, Pool):
            self._pool = executor
        elif isinstance(executor, Executor):
            self._pool = Borrowed(executor)
        else:
            with passing():
                self._pool = LocalPool(executor, threads, folder) if executor else Here()

    def __enter__(self) -> "Workers":
        clear_semaphores(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End all workers; after an error or an interruption without waiting for what they are doing."""
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        with suppress(StoreError, OSError):
            clear_folder(self._run, "shared")

    def evaluate(
        self, trials: Sequence[Trial], told: Callable[[Step], None] = lambda _: None, until: float = inf
    ) -> Iterator[Evaluation | Failure]:
        """Yield the evaluation of each of `trials`, in the order in which they are done.

        Of trials that share the training of a backbone, one goes first and the others wait for it. Meanwhile
        `told` is called with each `Step` of running trials; what they say otherwise becomes a warning. None is
        started at the time `until` or later.
        """
        siblings: dict[Any, list[Trial]] = {}
        for trial in trials:
            siblings.setdefault(self._backbone(trial), []).append(trial)

        def calls(backbone: Any, count: int | None) -> list[Call]:
            chosen = siblings[backbone][:count]
            del siblings[backbone][:count]
            with passing():
                return [(trial, answer, (self._task(), trial, until)) for trial in chosen]

        def heard(message: Step | str) -> None:
            if isinstance(message, str):
                warnings.warn(message, stacklevel=2)
            else:
                told(message)

        self._pool.told = heard
        first = [call for backbone in siblings for call in calls(backbone, 1)]
        answers = self._results(first, lambda trial: calls(self._backbone(trial), None))
        return (found for _, found in answers if found is not None)

    def as_done(self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Answer]:
        """Yield `function(*each)` for each of `arguments`, in the order in which they are done."""
        return (
            found for _, found in self._results((place, function, each) for place, each in enumerate(arguments))
        )

    def starmap(self, function: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """Return `function(*each)` for each of `arguments`, in their order."""
        found = dict(self._results((place, function, each) for place, each in enumerate(arguments)))
        return [found[place] for place in sorted(found)]

    def _backbone(self, trial: Trial) -> Any:
        """Return what trials have in common that share the training of a backbone."""
        return tuple(self._coder.backbone_genes(trial.genome)) if self._share else trial

    def _results(
        self, calls: Iterable[Call], then: Callable[[Any], Iterable[Call]] = lambda _: ()
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the name and the result of each call as it is done; the calls `then(name)` follow."""
        with passing():
            self._pool.place(self._task)
        waiting, running, lost = deque(calls), dict[Future[Any], Call](), set[Any]()
        try:
            while waiting or running:
                while waiting and len(running) < self._pool.at_once:
                    call = waiting.popleft()
                    running[self._submit(call)] = call
                done, dead = wait(running, _PAUSE, FIRST_COMPLETED).done, list[Call]()
                self._pool.deliver()
                for call, future in [(running.pop(future), future) for future in done]:
                    try:
                        result = future.result()
                    except (BrokenExecutor, MemoryError):
                        dead.append(call)
                    except self._pool.final:
                        raise WorkerDiedError(_DIED) from None
                    else:
                        waiting.extend(then(call[0]))
                        yield call[0], result
                for call in dead:
                    if call[0] in lost:
                        raise WorkerDiedError(_DIED) from None
                    lost.add(call[0])
                    waiting.appendleft(call)
        finally:
            for future in running:
                future.cancel()

    def _submit(self, call: Call) -> Future[Any]:
        try:
            with passing():
                return self._pool.submit(run, self._threads, call[1], *call[2])
        except BrokenExecutor:
            raise WorkerDiedError(_DIED) from None
