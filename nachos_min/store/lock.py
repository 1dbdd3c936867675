"""Keep a second process out of a run. Read nothing before it.

The lock is advisory and belongs to the open file: the system lets go of it when the process ends, however it
ends. A forked child shares it. Where the system or the disk has no such locks, none is taken.
"""

import sys
from pathlib import Path
from typing import IO, Any


def acquire(path: Path) -> IO[Any] | None:
    """Return the open lock file, to be closed to let go; or None if another holder has it.

    Args:
        path: the lock file, made if it does not exist; its content means nothing.

    Raises:
        OSError: the file cannot be made.
    """
    file = open(path, "ab")  # noqa: SIM115  (it must stay open: being open is what holds the lock)
    if sys.platform == "win32":
        return file
    import fcntl  # not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        pass  # some network disks have no locks: a lock is a help, not a condition
    return file
