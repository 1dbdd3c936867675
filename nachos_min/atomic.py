"""Replace a file in one step: a reader finds the old file or the new one, whatever happens in between."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: the file written there takes the name `path` when the block ends.

    The content is forced to the disk before it takes the name, and then the folder, which holds the name. After
    an error `path` is as it was. A process killed on the way leaves a `*.tmp` behind and nothing else.

    Source: the order of the steps follows Pillai et al., "All file systems are not created equal", OSDI 2014.
    """
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


def sync_folder(folder: Path) -> None:
    """Force the names made, replaced or removed in an existing folder to the disk."""
    if os.name == "nt":
        return  # Windows opens no folders; its file system logs renames itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
