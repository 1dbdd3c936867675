"""Start here: `python -m nachos_min` runs the command line of `cli.py`.

Only what concerns the whole process is done here: threads of linear algebra, signals, standard streams.
"""

import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def start() -> int:
    """Return the exit status of the command line, in a process set up for it."""
    # A threaded BLAS splits a sum according to the number of cores, so the surrogates' numbers, and with them
    # the networks a search visits, would depend on the machine. Nothing is lost: candidates train side
    # by side, one process each. To be said before NumPy is imported; what the user has set is respected.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(variable, "1")

    # `kill` and batch systems ask with SIGTERM: stop the workers and keep what is done, as with Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt)

    # A path may hold a character that the terminal's encoding lacks: that must not lose the output.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    from nachos_min.cli import main

    return main(sys.argv[1:])


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, as Python does for Ctrl-C.

    Raises:
        KeyboardInterrupt: always.
    """
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(start())
