"""A run on the disk: one folder, its configuration, and one file per evaluation.

    <run>/run.h5                  {"format", "version", "configuration", "about", "identity"}
    <run>/evaluations/<key>.h5    one record per evaluation
    <run>/order.h5                {"keys", "complete"}: evaluations of the last search, in the order of its archive
    <run>/examples.h5             some images of the test split, and the labels of all
    <run>/lock                    empty; held by the process that writes the run
    <run>/backbones/              a cache that `nas/evaluate.py` keeps; may be deleted
    <run>/shared/                 the data, which `nas/tasks.py` puts there for the workers of a search
    *.h5.*.tmp                    left by a killed process; removed when the run is next opened for writing

Every file is written completely or not at all and never changed afterwards, so the evaluations on disk are the
checkpoint. Only a run without an evaluation gives way to another configuration. Here records have no meaning.

Every record but run.h5 has a field `of`: the identity of its run, SHA-256 of the configuration, its own name, and
the names of its fields. So none is taken for another's. A run.h5 without `identity` is of an earlier version, whose
records may lack `of`.

The run's folder may be a link. Inside it none is followed: what has a name above and is a link, or anything else
but the file or folder that belongs there, is refused. Other names are left alone.
"""

import errno
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from nachos_min.files import check_file, check_folder, replacing, sync_folder
from nachos_min.store.values import MOST_BYTES, StoreError, decode, encode

FORMAT = "nachos_min run"
VERSION = 1

BESIDE = ("order", "examples")  # records of a run that are no evaluations
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_TEMPORARY = r"(\.[0-9]+\.[0-9]+\.tmp)"  # as `files.replacing` ends the name of a file that it writes
# Names of files by the folder that they are in, "" the run's own; the caches' are those of their writers.
_FILES = {
    "": re.compile(rf"(run|order|examples)\.h5{_TEMPORARY}?|lock"),
    "evaluations": re.compile(rf"{_KEY.pattern}\.h5{_TEMPORARY}?"),
    "backbones": re.compile(rf"[0-9a-f]{{64}}\.(npz|h5){_TEMPORARY}?"),  # .npz: of an earlier version
    "shared": re.compile(r"task|[0-9]+\.npy"),
}
_ELSEWHERE = "choose another --out"
_LOCKING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
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

    def __init__(self, path: Path, content: Mapping[str, Any], lock: ExitStack | None) -> None:
        self.path, self._lock = path, lock
        self.configuration: dict[str, Any] = content["configuration"]
        self.about: dict[str, Any] = content.get("about", {})
        self._named = "identity" in content  # whether every record says what it is
        self._identity = content.get("identity") or _identity(self.configuration)

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Put the record on the disk, in place of one with the same key; a StoreError leaves that as it was."""
        self.put(_name(key), record)

    def read(self, key: str, without: Collection[str] = ()) -> dict[str, Any] | None:
        """Return the record as it was written, or None if there is none; StoreError if it is damaged or another's.

        Its keys `without` are left out, which is faster.
        """
        return self.get(_name(key), without)

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        """Put one of the records in `BESIDE` on the disk, in place of the one that is there."""
        if self._lock is None:
            raise StoreError(f"run {self.path} is not open for writing")
        file = self._file(name)
        of = {"run": self._identity, "name": name, "fields": " ".join(record)}
        _write(file, encode({**record, "of": of}))

    def get(self, name: str, without: Collection[str] = ()) -> dict[str, Any] | None:
        """Return one of the records in `BESIDE`, or None if there is none; StoreError as `read`."""
        file = self._file(name)
        if not os.path.lexists(file):
            return None
        record = decode(file, without)
        of, names = record.pop("of", None), {*record, *without}
        if of is None and not self._named:
            return record
        if not isinstance(of, dict) or not (_is(of.get("run"), self._identity) and _is(of.get("name"), name)):
            raise StoreError(f"{file} is damaged: it must be {name} of this run, got another record")
        fields = str(of.get("fields")).split()
        if not {*record} <= {*fields} <= names:
            raise StoreError(f"{file} is damaged: its fields must be {', '.join(fields)}, got {', '.join(record)}")
        return record

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all records, damaged ones included, in alphabetical order."""
        return tuple(sorted(entry.name[:-3] for entry in _entries(self.path, "evaluations") if _is_record(entry)))

    def close(self) -> None:
        """Release the lock: another process may open the run for writing. Closing again does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, name: str) -> Path:
        """Return the file of a record, whose folder is none that a link leads to."""
        file = self.path / f"{name}.h5"
        if file.parent != self.path:
            with _refusals(file.parent, "used"), suppress(FileNotFoundError):
                check_folder(file.parent)
        return file


def _is(value: Any, wanted: Any) -> bool:
    """Return whether a value that was read is the plain one `wanted`; `==` of arrays is not one answer."""
    return type(value) is type(wanted) and bool(value == wanted)


def _name(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(f"a key must be 1 to 200 letters, digits, '.', '_' or '-', got {key!r}")
    return f"evaluations/{key}"


def _identity(configuration: Mapping[str, Any]) -> str:
    """Return what tells the runs of this configuration from others: SHA-256 of its text, in hexadecimal."""
    for key, value in _leaves(configuration).items():
        if isinstance(value, np.ndarray):  # `==` of arrays is not one answer
            raise StoreError(f"configuration: {key} must be a plain value, got an array")
    return sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()


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
    path, wanted, facts = Path(path), dict(configuration), dict(about or {})
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "configuration": wanted, "about": facts}
    encode(content)  # what cannot be stored is refused before anything is written
    content["identity"] = _identity(wanted)
    with _refusals(path), ExitStack() as on_error:
        _check_place(path)
        for folder in _FILES:
            _entries(path, folder)  # a link in there is refused before anything is written
        _make_folder(path)
        lock = on_error.enter_context(_locked(path / "lock"))
        found = {folder: _entries(path, folder) for folder in _FILES}  # by another process, until it was locked
        there = _read_content(path) if os.path.lexists(path / "run.h5") else {}
        known = there.get("about", {})
        if any(map(_is_record, found["evaluations"])):
            _check_same(path, there["configuration"], wanted)
            content = {**there, "about": facts | known}
        else:  # perhaps of another configuration
            _clear(path / "backbones", found["backbones"])
            for name in BESIDE:
                (path / f"{name}.h5").unlink(missing_ok=True)
        _clear(path / "shared", found["shared"])  # of a search that was killed
        for entry in (*found[""], *found["evaluations"], *found["backbones"]):
            if entry.name.endswith((".tmp", ".npz")):
                Path(entry).unlink(missing_ok=True)
        _make_folder(path / "evaluations")
        if content.keys() != there.keys() or content["about"].keys() != known.keys() or not there:
            _write(path / "run.h5", encode(content))
        on_error.pop_all()
    return Run(path, content, lock)


def open_run(path: str | Path) -> Run:
    """Return the run in a folder, open for reading only, without a lock, also while another process writes it.

    Raises:
        StoreError: there is no run, or run.h5 is damaged or of another version.
    """
    return Run(Path(path), _read_content(Path(path)), None)


def own_folder(run: str | Path, name: str) -> Path:
    """Return the folder `name` (backbones, shared) of a run, made if missing; StoreError if it is no folder.

    So is anything but a file that has the name of a file there.
    """
    path = Path(run) / name
    with _refusals(path):
        _entries(Path(run), name)
        _make_folder(path)
    return path


def clear_folder(run: str | Path, name: str) -> None:
    """Remove the files of this program in the folder `name` of a run, and the folder if it is empty then."""
    _clear(Path(run) / name, _entries(Path(run), name))


def _entries(path: Path, folder: str) -> list[os.DirEntry[str]]:
    """Return what has the name of a file of a run in one of its folders; StoreError if it, or that, is none."""
    found, where = [], path / folder
    with _refusals(where, "used"), suppress(FileNotFoundError):
        if folder:
            check_folder(where)
        with os.scandir(where) as listed:
            found = [entry for entry in listed if _FILES[folder].fullmatch(entry.name)]
    for entry in found:
        if not entry.is_file(follow_symlinks=False):
            with _refusals(Path(entry.path), "used"):
                check_file(entry.path, links=False)
    return found


def _is_record(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".h5")


def _clear(folder: Path, entries: Iterable[os.DirEntry[str]]) -> None:
    """Remove files of this program, and their folder if it is empty then."""
    for entry in entries:
        os.unlink(entry)
    with suppress(OSError):
        folder.rmdir()


def _check_place(path: Path) -> None:
    """Check, without writing, that a run could be created or continued here."""
    existing = path.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise StoreError(f"out {path}: {existing} is not a folder; {_ELSEWHERE}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StoreError(f"out {path}: {existing} may not be written; {_ELSEWHERE}")
    if existing == path.absolute() and not os.path.lexists(path / "run.h5"):
        # Left by a process killed before it wrote run.h5. Evaluations without it may be of any configuration.
        ours = {"evaluations"} | {entry.name for entry in _entries(path, "") if not _is_record(entry)}
        others = sorted(name for name in os.listdir(path) if name not in ours)
        others += sorted(
            f"evaluations/{entry.name}" for entry in _entries(path, "evaluations") if _is_record(entry)
        )
        if others:
            raise StoreError(f"out {path} is no run and not empty, it holds {others[0]!r}; {_ELSEWHERE}")


def _make_folder(path: Path) -> None:
    """Make the folder and those above it, and force each new name to the disk."""
    for folder in reversed([path, *path.parents]):
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def _locked(path: Path) -> ExitStack:
    """Return what holds the lock file, made if missing, until it is closed or the process ends."""
    if os.path.lexists(path):
        check_file(path, links=False)
    with ExitStack() as held:
        file = held.enter_context(os.fdopen(os.open(path, _LOCKING, 0o666), "ab"))
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
    with _refusals(file), replacing(file, links=False) as temporary, open(temporary, "xb") as written:
        if len(content) > MOST_BYTES:
            raise OSError(f"it must have at most {MOST_BYTES:,} bytes, got {len(content):,}")
        written.write(content)


@contextmanager
def _refusals(path: Path, what: str = "written") -> Iterator[None]:
    """Turn what the system refuses into a StoreError that names `path`."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(f"{path} cannot be {what}: {reason}") from None


def _read_content(path: Path) -> dict[str, Any]:
    if not os.path.isdir(path):
        folder, _, number = str(path).rpartition("#")
        if number.isdigit() and os.path.isdir(folder):
            raise StoreError(f"a run must be named by its folder alone, {folder}, got {path}")
        raise StoreError(f"run {path} does not exist")
    if not os.path.lexists(path / "run.h5"):
        raise StoreError(f"{path} is no run: it holds no run.h5")
    content = decode(path / "run.h5")
    of, version = content.get("format"), content.get("version")
    if not _is(of, FORMAT):
        raise StoreError(f"{path} is no run: run.h5 must say {FORMAT!r}, got {of!r}")
    if not _is(version, VERSION):
        raise StoreError(f"run {path} has version {version!r}, this program reads {VERSION}")
    if not isinstance(content.get("configuration"), dict) or not isinstance(content.get("about", {}), dict):
        raise StoreError(f"{path} is no run: run.h5 must hold a configuration")
    try:
        identity = _identity(content["configuration"])
    except StoreError as error:
        raise StoreError(f"{path / 'run.h5'} is damaged: {error}") from None
    if not _is(content.get("identity", identity), identity):
        raise StoreError(
            f"{path / 'run.h5'} is damaged: it must have the identity of its configuration, got another"
        )
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
    elif isinstance(value, list | tuple) and any(
        isinstance(item, Mapping | list | tuple | np.ndarray) for item in value
    ):
        inner = {str(position): item for position, item in enumerate(value)}
    else:
        return {place: value}
    found: dict[str, Any] = {}
    for key, item in inner.items():
        found |= _leaves(item, f"{place}.{key}" if place else key)
    return found
