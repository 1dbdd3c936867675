"""The workers of a Dask cluster: they may be on other machines, may join later, and may leave.

Data goes to each worker once, also to one that joins later, and lies in a folder of the worker. Only workers get
calls whose processor and libraries are those of this process: others would give other last bits. A worker runs one
call at a time.
"""

import pickle
import platform
import shutil
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from nachos_min.errors import InputError
from nachos_min.nas.pools import Pool, keep_freed_memory
from nachos_min.nas.tasks import Task, Worker

try:
    from distributed import Client, KilledWorker, WorkerPlugin
    from distributed.comm.addressing import get_address_host
except ImportError:  # the extra is not installed
    Client, KilledWorker, WorkerPlugin = None, CancelledError, object

_ROOM = "nachos_min"  # a Dask resource: 1 of each worker that may compute, 1 taken by a call
_TIMEOUT = 10  # seconds to wait for an answer of the scheduler


class ClusterError(InputError):
    """A cluster that cannot be used."""


def about_this_process() -> dict[str, str]:
    """Return what must be alike where results are to be equal to the last bit: processor model and versions."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    found = {"processor": processor}
    for package in ("nachos_min", "numpy", "numba", "scipy"):
        with suppress(PackageNotFoundError):  # run from a folder
            found[package] = version(package)
    return found


def why_refused(wanted: dict[str, str]) -> str | None:
    """Return in what this process differs from `about_this_process` of another; None: in nothing."""
    here = about_this_process()
    names = [name for name in wanted | here if here.get(name) != wanted.get(name)]
    return "; ".join(f"{name} {here.get(name)} instead of {wanted.get(name)}" for name in names) or None


class DaskPool(Pool):
    """The workers of the scheduler at an address. It tries a call again whose worker died, but only once."""

    final = (KilledWorker, CancelledError)

    def __init__(self, address: str) -> None:
        """Connect; ClusterError if there is no such scheduler, or all of its workers would give other results."""
        if Client is None:
            raise ClusterError("dask must be installed for workers of a cluster: pip install 'nachos_min[dask]'")
        try:
            get_address_host(address)  # a client with a wrong one would not end in 20 seconds
            self._client = Client(address, timeout=_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            rule = "dask must be the address of a scheduler"
            raise ClusterError(f"{rule}, got {address!r} ({error})") from None
        self._wanted = about_this_process()
        there = self._client.run(why_refused, self._wanted)
        if there and all(there.values()):
            self._client.close()
            worker, why = next(iter(there.items()))
            raise ClusterError(f"dask must have a worker as this process is, got {len(there)}, {worker}: {why}")
        self._name = f"nachos_min-{uuid4().hex}"
        self._came: deque[Any] = deque()
        self._client.subscribe_topic(self._name, lambda event: self._came.append(event[1]))
        self._before = self._client.run_on_scheduler(_exchange, 1)
        self._executor = self._client.get_executor(pure=False, resources={_ROOM: 1})
        self._open, self._placed = True, False

    def place(self, task: Callable[[], Task]) -> None:
        """Send the files of `task()` to all workers, now and when one joins; the first time only."""
        if not self._placed:
            self._placed, sent = True, task()
            files = {path.name: path.read_bytes() for path in sorted(Path(sent.folder).iterdir())}
            self._client.register_plugin(_Data(sent, files, self._wanted, self._name), name=self._name)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Return the future of a call."""
        future: Future[Any] = self._executor.submit(function, *arguments, **named)
        return future

    def deliver(self) -> None:
        """Call `told` with each message that came since the last time; warn of each worker that is refused."""
        while self._came:
            message = self._came.popleft()
            if isinstance(message, str):
                warnings.warn(message, stacklevel=2)
            else:
                self.told(pickle.loads(message))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster as it was."""
        if self._open:
            self._open = False
            self._executor.shutdown(wait=wait and not cancel_futures)
            with suppress(OSError, ValueError):  # the scheduler is gone; no data were placed
                self._client.run_on_scheduler(_exchange, self._before)
                self._client.unregister_worker_plugin(self._name)
            self._client.close()


def _exchange(failures: int, dask_scheduler: Any = None) -> int:
    """Let a call fail whose workers died more than `failures` times; return the number before."""
    before: int = dask_scheduler.allowed_failures
    dask_scheduler.allowed_failures = failures
    return before


class _Data(WorkerPlugin):
    """The files of a task, which a worker keeps in its folder while it may get calls."""

    def __init__(self, task: Task, files: dict[str, bytes], wanted: dict[str, str], topic: str) -> None:
        self._task, self._files, self._wanted, self._topic = task, files, wanted, topic

    async def setup(self, worker: Any) -> None:
        """Put the files in place, unless this worker is refused. Runs in the worker."""
        if (why := why_refused(self._wanted)) is not None:
            worker.log_event(self._topic, f"worker {worker.address} is refused: {why}")
            return
        folder = self._folder(worker)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (folder / name).write_bytes(content)
        self._files = {}
        Worker.folders[self._task.digest] = str(folder)
        Worker.told = staticmethod(partial(_log, worker, self._topic))
        keep_freed_memory()
        await worker.set_resources(**{_ROOM: 1})

    async def teardown(self, worker: Any) -> None:
        """Remove the files. Runs in the worker."""
        Worker.folders.pop(self._task.digest, None)
        shutil.rmtree(self._folder(worker), ignore_errors=True)

    def _folder(self, worker: Any) -> Path:
        return Path(worker.local_directory) / f"{_ROOM}-{sha256(worker.address.encode()).hexdigest()[:16]}"


def _log(worker: Any, topic: str, message: Any) -> None:
    """Send what a call tells. Runs in the worker."""
    worker.log_event(topic, pickle.dumps(message))
