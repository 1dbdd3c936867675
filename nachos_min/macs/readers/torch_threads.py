"""Python threads that a module starts, or hands work to, while it is read.

PyTorch's listeners belong to a thread. A thread listens while it runs a module of the network, and so do a thread
that is started and a task that is handed to a pool. What another thread computes is an array of unknown origin.
What it writes into an array that is there already, or gives as a number, is not seen.
"""

import _thread
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any
from weakref import ref

from nachos_min.macs.readers.torch_graph import load_torch, tensors_in
from nachos_min.macs.record import CountError


@contextmanager
def threads_followed(listening: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Make every thread that is started listen, and every task that is handed to a pool."""

    def heard(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            with listening():
                return function(*args, **options)

        return run

    def begin(started: Any) -> None:
        if getattr(vars(started).get("_target"), "__module__", "") != ThreadPoolExecutor.__module__:
            started.run = heard(started.run)  # a pool's own threads have tasks that listen
        start(started)

    def hand_over(own: Any, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        return submit(own, heard(function), *args, **options)

    thread: Any = threading.Thread  # whose methods are replaced for a while
    pool: Any = ThreadPoolExecutor
    start, submit = thread.start, pool.submit
    plain = _thread.start_new_thread
    thread.start, pool.submit = begin, hand_over
    _thread.start_new_thread = lambda function, *rest: plain(heard(function), *rest)
    try:
        yield
    finally:
        thread.start, pool.submit, _thread.start_new_thread = start, submit, plain


class Origins:
    """Which arrays exist for a known reason, where other threads may make some unheard."""

    def __init__(self) -> None:
        self._known: dict[int, Any] | None = None
        if threading.active_count() > 1:
            self.begin()

    def begin(self) -> None:
        """Note which arrays there are, those too that are kept from garbage collection."""
        if self._known is None:
            tensor, frozen = load_torch().Tensor, gc.get_freeze_count()
            if frozen:
                gc.unfreeze()
            self._known = {id(x): ref(x) for x in gc.get_objects() if issubclass(type(x), tensor)}
            if frozen:
                gc.freeze()

    def note(self, values: object) -> None:
        """Note that the arrays in `values` were made by what is heard."""
        if self._known is not None:
            self._known.update((id(x), ref(x)) for x in tensors_in(values))

    def check(self, arrays: Iterable[Any]) -> None:
        """Check that nothing but what is heard made the arrays since the start; CountError once for each."""
        if self._known is None:
            return
        for x in arrays:
            found = self._known.get(id(x))
            if (found is None or found() is None) and not isinstance(x, load_torch().nn.Parameter):
                self.note(x)
                raise CountError(
                    f"what made the array {tuple(x.shape)} is not heard, such as NumPy or another thread"
                )
