"""A run on the disk: one folder, its configuration, and one file per evaluation. The room's front door.

    <run>/run.h5                  {"format", "version", "configuration"}, written once
    <run>/evaluations/<key>.h5    one record per evaluation
    <run>/lock                    empty; held by the process that writes the run
    *.h5.*.tmp                    what a killed process left; removed when the run is next opened for writing

Every file is written whole or not at all (`files.py`), in the layout of `values.py`, and never changed
afterwards, so the evaluations on disk are the checkpoint: whatever was written can be read after a kill.
What a record means is not known here.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, final

import numpy as np

from nachos_min.store.errors import StoreError
from nachos_min.store.files import sync_folder, write_atomically
from nachos_min.store.lock import acquire
from nachos_min.store.values import decode, encode

FORMAT = "nachos_min run"
VERSION = 1

_OURS = re.compile(r"run\.h5\..*\.tmp|evaluations|lock")  # what a run killed while it was made may consist of
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ELSEWHERE = "choose another --out"


@final
class Run:
    """An open run. As a context manager it closes itself, which lets go of the lock.

    Args:
        path: the run's folder.
        configuration: what the run was started with.
        lock: the open lock file, None if the run is open for reading only.
    """

    def __init__(self, path: Path, configuration: dict[str, Any], lock: IO[Any] | None) -> None:
        self.path = path
        self.configuration = configuration
        self._lock = lock

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Put the record on the disk, in place of one with the same key if there was one.

        Args:
            key: 1 to 200 letters, digits, ".", "_" or "-", the first a letter or digit.
            record: see `values.encode`.

        Raises:
            StoreError: the run is not open for writing, the key or a value breaks its rule, or the disk
                refuses; what was there before is as it was.
        """
        if self._lock is None:
            raise StoreError(f"run {self.path} is not open for writing")
        content = encode(record)
        _write(self._file(key), content)

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the record as it was written, or None if there is none.

        Args:
            key: as for `write`.

        Raises:
            StoreError: the key breaks its rule, or the file is damaged. A search may take a damaged
                evaluation for a missing one: writing it again replaces the file.
        """
        file = self._file(key)
        return decode(file) if file.exists() else None

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all records, in alphabetical order, damaged ones included."""
        return tuple(sorted(file.stem for file in (self.path / "evaluations").glob("*.h5")))

    def close(self) -> None:
        """Let go of the lock: another process may open the run for writing. Closing again does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StoreError(f"a key must be 1 to 200 letters, digits, '.', '_' or '-', got {key!r}")
        return self.path / "evaluations" / f"{key}.h5"


def create_or_open(path: str | Path, configuration: Mapping[str, Any]) -> Run:
    """Return the run, open for writing: a new one, or the one that is there if it has this configuration.

    Args:
        path: the run's folder; made, with the folders above it, if it does not exist.
        configuration: plain values and dicts of them; what makes two runs the same run.

    Returns:
        The run, which holds the lock until it is closed.

    Raises:
        StoreError: the path cannot be written or holds something else; another process has the run open for
            writing; the run there has another configuration, is damaged or of another version.
    """
    path = Path(path)
    wanted = dict(configuration)
    for key, value in _leaves(wanted).items():
        if isinstance(value, np.ndarray):  # `==` of arrays is not one answer
            raise StoreError(f"configuration: {key} must be a plain value, got an array")
    first = encode({"format": FORMAT, "version": VERSION, "configuration": wanted})
    check_writable(path)
    try:
        _make_folder(path)
        lock = acquire(path / "lock")
        if lock is None:
            raise StoreError(f"run {path} is in use by another process")
    except OSError as error:
        raise _refused(path, error) from None
    run = Run(path, wanted, lock)
    try:
        if (path / "run.h5").exists():
            _check_same(path, _read_configuration(path), wanted)
        _make_folder(path / "evaluations")
        for leftover in (*path.glob("run.h5.*.tmp"), *path.glob("evaluations/*.h5.*.tmp")):
            leftover.unlink()
        if not (path / "run.h5").exists():
            _write(path / "run.h5", first)
    except OSError as error:
        run.close()
        raise _refused(path, error) from None
    except BaseException:
        run.close()
        raise
    return run


def open_run(path: str | Path) -> Run:
    """Return the run, open for reading only, also while another process writes it.

    Args:
        path: the run's folder.

    Returns:
        The run; it holds no lock.

    Raises:
        StoreError: there is no run, or run.h5 is damaged or of another version.
    """
    path = Path(path)
    return Run(path, _read_configuration(path), None)


def check(path: str | Path) -> tuple[str, ...]:
    """Return one line per damaged file of a run, none if all is well.

    Args:
        path: the run's folder.

    Returns:
        The lines, run.h5 first, then evaluations by key; each names its file.

    Raises:
        StoreError: there is no run.
    """
    path = Path(path)
    _check_is_run(path)
    damage = []
    for file in (path / "run.h5", *sorted((path / "evaluations").glob("*.h5"))):
        try:
            _ = _read_configuration(path) if file.name == "run.h5" else decode(file)
        except StoreError as error:
            damage.append(str(error))
    return tuple(damage)


def check_writable(path: str | Path) -> None:
    """Check that a run could be created or continued here; nothing is written.

    Args:
        path: the run's folder, which need not exist.

    Raises:
        StoreError: it, or the closest folder above it that exists, is no folder or may not be written; or it
            holds files that are no run.
    """
    path = Path(path)
    try:
        existing = path.absolute()
        while not _exists(existing):
            existing = existing.parent
        if not existing.is_dir():
            raise StoreError(f"out {path}: {existing} is not a folder; {_ELSEWHERE}")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StoreError(f"out {path}: {existing} may not be written; {_ELSEWHERE}")
        if existing == path.absolute() and not (path / "run.h5").exists():
            others = sorted(name for name in os.listdir(path) if not _OURS.fullmatch(name))
            # Evaluations without their run.h5 may be of any configuration: none may be taken for this one's.
            others += sorted(f"evaluations/{file.name}" for file in path.glob("evaluations/*.h5"))
            if others:
                raise StoreError(f"out {path} is no run and not empty, it holds {others[0]!r}; {_ELSEWHERE}")
    except (OSError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise _refused(path, error) from None


def _exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _make_folder(path: Path) -> None:
    """Make the folder and those above it, and force each new name to the disk."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _write(file: Path, content: bytes) -> None:
    try:
        write_atomically(file, content)
    except OSError as error:
        raise _refused(file, error) from None


def _refused(path: Path, error: OSError | ValueError) -> StoreError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoreError(f"{path} cannot be written: {reason}")


def _check_is_run(path: Path) -> None:
    if not os.path.isdir(path):
        raise StoreError(f"run {path} does not exist")
    if not (path / "run.h5").exists():
        raise StoreError(f"{path} is no run: it holds no run.h5")


def _read_configuration(path: Path) -> dict[str, Any]:
    _check_is_run(path)
    content = decode(path / "run.h5")
    if content.get("format") != FORMAT:
        raise StoreError(f"{path} is no run: run.h5 must say {FORMAT!r}, got {content.get('format')!r}")
    if content.get("version") != VERSION:
        raise StoreError(f"run {path} has version {content.get('version')!r}, this program reads {VERSION}")
    configuration: dict[str, Any] = content["configuration"]
    return configuration


def _check_same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The first key, in the wanted configuration's order, whose values differ is the one worth telling."""
    holds, asks = _leaves(there), _leaves(wanted)
    for key in (*asks, *holds):
        if holds.get(key, _NONE) != asks.get(key, _NONE):
            has = f"with {key} {holds[key]}" if key in holds else f"without {key}"
            wants = asks.get(key, "none")
            raise StoreError(f"out {path} holds a run {has}, this one asks for {wants}; {_ELSEWHERE}")


_NONE = object()  # unequal to every value, None included


def _leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Return plain values by dotted place, so that a difference deep inside is named, not a whole dict shown."""
    if isinstance(value, Mapping) and value:
        inner = {str(key): item for key, item in value.items()}
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        inner = {str(position): item for position, item in enumerate(value)}
    else:
        return {place: value}
    found: dict[str, Any] = {}
    for key, item in inner.items():
        found |= _leaves(item, f"{place}.{key}" if place else key)
    return found
