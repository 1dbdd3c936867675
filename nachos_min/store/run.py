"""A run on the disk: one folder, its configuration, and one file per evaluation.

    <run>/run.h5                  {"format", "version", "configuration", "about"}
    <run>/evaluations/<key>.h5    one record per evaluation
    <run>/order.h5                {"keys", "complete"}: evaluations of the last search, in the order of its archive
    <run>/examples.h5             some images of the test split, and the labels of all
    <run>/lock                    empty; held by the process that writes the run
    <run>/backbones/              a cache that `nas/evaluate.py` keeps; may be deleted
    <run>/shared/                 the data, which `nas/tasks.py` puts there for the workers of a search
    *.h5.*.tmp                    left by a killed process; removed when the run is next opened for writing

Every file is written completely or not at all and never changed afterwards, so the evaluations on disk are the
checkpoint. Only a run without an evaluation gives way to another configuration. Here records have no meaning.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from nachos_min.files import replacing, sync_folder
from nachos_min.store.values import StoreError, decode, encode

FORMAT = "nachos_min run"
VERSION = 1

BESIDE = ("order", "examples")  # records of a run that are no evaluations
_OURS = re.compile(r"run\.h5\..*\.tmp|evaluations|lock")  # left by a process killed before it wrote run.h5
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ELSEWHERE = "choose another --out"
_NONE = object()  # unequal to every value, None included


class OtherRunError(StoreError):
    """The folder holds evaluations of another configuration.

    Attributes:
        different: place in the configuration -> what is there, and what was asked for; None where it is missing.
    """

    def __init__(self, message: str, different: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.different = different


@final
class Run:
    """An open run. As a context manager it closes itself, which releases the `lock`; None: for reading only."""

    def __init__(
        self, path: Path, configuration: dict[str, Any], about: dict[str, Any], lock: ExitStack | None
    ) -> None:
        self.path, self.configuration, self.about, self._lock = path, configuration, about, lock

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Put the record on the disk, in place of one with the same key; a StoreError leaves that as it was."""
        if self._lock is None:
            raise StoreError(f"run {self.path} is not open for writing")
        _write(self._file(key), encode(record))

    def read(self, key: str, without: Collection[str] = ()) -> dict[str, Any] | None:
        """Return the record as it was written, or None if there is none; StoreError if it is damaged.

        Its keys `without` are left out, which is faster.
        """
        file = self._file(key)
        return decode(file, without) if file.exists() else None

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        """Put one of the records in `BESIDE` on the disk, in place of the one that is there."""
        if self._lock is None:
            raise StoreError(f"run {self.path} is not open for writing")
        _write(self.path / f"{name}.h5", encode(record))

    def get(self, name: str) -> dict[str, Any] | None:
        """Return one of the records in `BESIDE`, or None if there is none; StoreError if it is damaged."""
        file = self.path / f"{name}.h5"
        return decode(file) if file.exists() else None

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all records, damaged ones included, in alphabetical order."""
        return tuple(sorted(file.stem for file in (self.path / "evaluations").glob("*.h5")))

    def close(self) -> None:
        """Release the lock: another process may open the run for writing. Closing again does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StoreError(f"a key must be 1 to 200 letters, digits, '.', '_' or '-', got {key!r}")
        return self.path / "evaluations" / f"{key}.h5"


def create_or_open(
    path: str | Path, configuration: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> Run:
    """Return the run, open for writing and locked: a new one, or the one there if it has this configuration.

    A run of another configuration is replaced if it has no evaluation.

    Args:
        path: the run's folder; made, with the folders above it, if it does not exist.
        configuration: plain values and dicts of them; what makes two runs the same run.
        about: what else to store, to be read without recomputing it from the configuration. A run that is there
            keeps its own values.

    Raises:
        OtherRunError: the path holds evaluations of another configuration.
        StoreError: the path cannot be written, holds something else, or a run of another version, damaged, or
            open for writing in another process.
    """
    path, wanted = Path(path), dict(configuration)
    for key, value in _leaves(wanted).items():
        if isinstance(value, np.ndarray):  # `==` of arrays is not one answer
            raise StoreError(f"configuration: {key} must be a plain value, got an array")
    facts = dict(about or {})
    content = {"format": FORMAT, "version": VERSION, "configuration": wanted, "about": facts}
    encode(content)  # what cannot be stored is refused before anything is written
    with _refusals(path), ExitStack() as on_error:
        _check_place(path)
        _make_folder(path)
        lock = on_error.enter_context(_locked(path / "lock"))
        there = _read_content(path) if (path / "run.h5").exists() else {}
        known = there.get("about", {})
        kept = any(path.glob("evaluations/*.h5"))
        if kept:
            _check_same(path, there["configuration"], wanted)
        else:
            for other in ("backbones", *(f"{name}.h5" for name in BESIDE)):  # perhaps of another configuration
                _remove(path / other)
        _make_folder(path / "evaluations")
        for leftover in (*path.glob("*.h5.*.tmp"), *path.glob("evaluations/*.h5.*.tmp")):
            leftover.unlink()
        _remove(path / "shared")  # of a search that was killed
        facts = facts | known if kept else facts
        if not kept or facts.keys() != known.keys():  # an earlier version stored less
            _write(path / "run.h5", encode(content | {"about": facts}))
        on_error.pop_all()
    return Run(path, wanted, facts, lock)


def open_run(path: str | Path) -> Run:
    """Return the run in a folder, open for reading only, without a lock, also while another process writes it.

    Raises:
        StoreError: there is no run, or run.h5 is damaged or of another version.
    """
    content = _read_content(Path(path))
    return Run(Path(path), content["configuration"], content.get("about", {}), None)


def _check_place(path: Path) -> None:
    """Check, without writing, that a run could be created or continued here."""
    existing = path.absolute()
    while not os.path.lexists(existing):
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


def _make_folder(path: Path) -> None:
    """Make the folder and those above it, and force each new name to the disk."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _remove(path: Path) -> None:
    """Remove a folder with what it holds, or the file or link of this name; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _locked(path: Path) -> ExitStack:
    """Return what holds the lock file, made if missing, until it is closed or the process ends."""
    with ExitStack() as held:
        file = held.enter_context(open(path, "ab"))
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # the first byte, also of an empty file
                # Without this Windows unlocks when the file is closed, or later.
                held.callback(msvcrt.locking, file.fileno(), msvcrt.LK_UNLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Other errors: some network disks have no locks. A lock is a help, not a condition.
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise StoreError(f"run {path.parent} is in use by another process") from None
        return held.pop_all()


def _write(file: Path, content: bytes) -> None:
    with _refusals(file), replacing(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the system refuses into a StoreError that names `path`."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(f"{path} cannot be written: {reason}") from None


def _read_content(path: Path) -> dict[str, Any]:
    if not os.path.isdir(path):
        folder, _, number = str(path).rpartition("#")
        if number.isdigit() and os.path.isdir(folder):
            raise StoreError(f"a run must be named by its folder alone, {folder}, got {path}")
        raise StoreError(f"run {path} does not exist")
    if not (path / "run.h5").exists():
        raise StoreError(f"{path} is no run: it holds no run.h5")
    content = decode(path / "run.h5")
    of, version = content.get("format"), content.get("version")
    if of != FORMAT:
        raise StoreError(f"{path} is no run: run.h5 must say {FORMAT!r}, got {of!r}")
    if version != VERSION:
        raise StoreError(f"run {path} has version {version!r}, this program reads {VERSION}")
    if not isinstance(content.get("configuration"), dict) or not isinstance(content.get("about", {}), dict):
        raise StoreError(f"{path} is no run: run.h5 must hold a configuration")
    return content


def _check_same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise an OtherRunError that names the first difference, in the order of the wanted configuration."""
    holds, wants = _leaves(there), _leaves(wanted)
    different = [key for key in {**wants, **holds} if holds.get(key, _NONE) != wants.get(key, _NONE)]
    if different:
        key = different[0]
        has = f"with {key} {holds[key]}" if key in holds else f"without {key}"
        message = f"out {path} holds a run {has}, this one asks for {wants.get(key, 'none')}; {_ELSEWHERE}"
        raise OtherRunError(message, {key: (holds.get(key), wants.get(key)) for key in different})


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
