"""Replace a file in one step: a reader finds the old file or the new one, whatever happens in between."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nachos_min.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: the file written there takes the name `path` when the block ends.

    The content is forced to the disk before it takes the name, and then the folder, which holds the name. After
    an error `path` is as it was. A process killed on the way leaves a `*.tmp` behind and nothing else. Of a link
    the file that it leads to is replaced; a folder, a device or a pipe is refused with an OSError.

    Source: the order of the steps follows Pillai et al., "All file systems are not created equal", OSDI 2014.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
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
