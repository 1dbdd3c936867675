"""What may be opened as a file and how much of it is read; and files replaced in one step.

A pipe in the place of a file would be waited for, and a device like /dev/zero never ends. So what is no regular
file is refused before it is opened. Refusals are of class OSError, as those of the system are.
"""

import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from nachos_min.errors import InputError

# Bytes that data may decode to, unless more are asked for. A reader needs up to three times as many, which with the
# program is below 1 GB. SVHN has 305 MB, CIFAR 184 MB, MNIST 55 MB.
MOST_DECODED = 340_000_000
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Without waiting for a writer, should a pipe take the file's place meanwhile; as bytes, on Windows.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def check_file(path: str | os.PathLike[str], *, links: bool = True) -> os.stat_result:
    """Return the status of a regular file, which is not opened; an OSError says what is there instead.

    Without `links`, a link is refused, too; folders above it may be links.
    """
    found = os.stat(path) if links else os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {_kind(found)}, not a file", os.fspath(path))
    return found


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise an OSError, which says what is there instead, unless there is a folder, and no link to one."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, f"it is {_kind(found)}, not a folder", os.fspath(path))


def _kind(found: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(found.st_mode), "a file")


def open_file(path: str | os.PathLike[str], *, links: bool = True) -> BufferedReader:
    """Return a regular file, open for reading bytes; else an OSError, as of `check_file`."""
    check_file(path, links=links)
    flags = _READING if links else _READING | getattr(os, "O_NOFOLLOW", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        check_file(file.fileno())  # type: ignore[arg-type]  # os.stat takes the number of an open file, too
    except OSError:
        file.close()
        raise
    return file


def read_file(path: str | os.PathLike[str], most: int, *, links: bool = True) -> bytes:
    """Return the content of a regular file of at most `most` bytes; an OSError also if it has more."""
    with open_file(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= most else b""  # the buffer is made at once
    if max(size, len(content)) > most:
        raise OSError(errno.EFBIG, f"it must have at most {most:,} bytes, it has {size:,}", os.fspath(path))
    return content


@contextmanager
def replacing(path: Path, *, links: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`: the file written there takes the name `path` when the block ends.

    The content is forced to the disk before it takes the name, and then the folder, which holds the name. After
    an error `path` is as it was. A process killed on the way leaves a `*.tmp` behind and nothing else. Of a link
    the file that it leads to is replaced; without `links` it is refused, as what is no regular file always is.

    Source: the order of the steps follows Pillai et al., "All file systems are not created equal", OSDI 2014.
    """
    path = Path(os.path.realpath(path)) if links else path
    if os.path.lexists(path):
        check_file(path, links=links)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        for wait in (0.05, 0.2, 1.0, None):
            try:
                os.replace(temporary, path)
                break
            except PermissionError:
                if sys.platform != "win32" or wait is None:
                    raise
                time.sleep(wait)  # Windows refuses while somebody reads the file at `path`
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file that a user asked for, as `replacing` does; InputError if the system refuses."""
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Force the names made, replaced or removed in an existing folder to the disk."""
    if os.name == "nt":
        return  # Windows opens no folders; its file system logs renames itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
