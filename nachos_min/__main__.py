"""Start here: `python -m nachos_min` runs the command line of `cli.py`.

Only what concerns the whole process is done here: threads of linear algebra, signals, standard streams.
"""

import io
import os
import signal
import sys
import time
from types import FrameType
from typing import final


def start() -> int:
    """Return the exit status of the command line, in a process set up for it."""
    # A threaded BLAS splits a sum according to the number of cores, so the surrogates' numbers, and with them
    # the networks a search visits, would depend on the machine. Nothing is lost: candidates train side
    # by side, one process each. To be said before NumPy is imported; what the user has set is respected.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(variable, "1")

    # `kill` and batch systems ask with SIGTERM: stop the workers and keep what is done, as with Ctrl-C. What a
    # shell has turned off, for a command in the background, stays off.
    interruption = Interruption()
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, interruption)

    # Python gives no stream at all for one that the shell has closed, `>&-`.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (open until the end)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  (open until the end)

    # A path may hold a character that the terminal's encoding lacks: that must not lose the output.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    try:
        from nachos_min.cli import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    status = main(sys.argv[1:])
    # Python gives up its handlers first when it ends: a second Ctrl-C would then replace the exit status.
    for number in heard:
        signal.signal(number, signal.SIG_IGN)
    return status


@final
class Interruption:
    """A signal handler that raises KeyboardInterrupt, but not again while that one is being dealt with.

    Somebody who presses Ctrl-C twice must not interrupt the stopping itself. Later ones count again, since
    Python loses an exception that a signal raises inside a destructor.
    """

    LULL = 3.0  # seconds; workers are stopped within one

    def __init__(self) -> None:
        """Prepare to raise at the first signal."""
        self._deaf_until = 0.0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, as Python does for Ctrl-C.

        Raises:
            KeyboardInterrupt: unless one was raised less than `LULL` seconds ago.
        """
        now = time.monotonic()
        if now >= self._deaf_until:
            self._deaf_until = now + self.LULL
            raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(start())
