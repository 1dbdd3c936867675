"""Put bytes on the disk so that a reader finds the old file or the new one, whatever happens in between.

Read nothing before it. The bytes go to a temporary name in the same folder, are forced to the disk, and
then take the file's name in one step; last, the folder is forced to the disk, for it is the folder that
holds the name. A process killed on the way leaves a `*.tmp` behind and nothing else.
"""

import os
import threading
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, so that it is there after a power cut, too.

    Args:
        path: the file, in an existing folder; replaced if it exists.
        content: all of it.

    Raises:
        OSError: the disk is full, the folder cannot be written; the old file is as it was.

    Source: the order of the steps follows Pillai et al., "All file systems are not created equal", OSDI 2014.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names made, replaced or removed in the folder to the disk.

    Args:
        folder: an existing folder.

    Raises:
        OSError: the folder cannot be opened or synchronised.
    """
    if os.name == "nt":
        return  # Windows opens no folders; its file system logs renames itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
