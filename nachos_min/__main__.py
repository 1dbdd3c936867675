"""`python -m nachos_min`: the command line in a process set up for it: threads, signals, standard streams."""

import os
import signal
import sys
import time
from types import FrameType
from typing import final

from nachos_min.terminal import guard


def start() -> int:
    """Return the exit status of the command line."""
    # A threaded BLAS splits a sum by the number of cores, so the surrogates' numbers would depend on the machine.
    # The variables count only before NumPy is imported; what the user has set stays.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(variable, "1")

    # `kill` and batch systems send SIGTERM: it acts as Ctrl-C. A signal that a shell has turned off, for a command
    # in the background, stays off.
    interruption = Interruption()
    handled = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, interruption)

    guard()
    try:
        from nachos_min.cli import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    status = main(sys.argv[1:])
    # Python gives up its handlers first when it ends: a second Ctrl-C would then replace the exit status.
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
    return status


@final
class Interruption:
    """A signal handler that raises KeyboardInterrupt, but not while the last one is being handled.

    Later signals count again: Python loses an exception that a signal raises inside a destructor.
    """

    PAUSE = 3.0  # seconds; workers are stopped within one

    def __init__(self) -> None:
        self._ignored_until = 0.0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless the last one was raised less than `PAUSE` seconds ago."""
        now = time.monotonic()
        if now >= self._ignored_until:
            self._ignored_until = now + self.PAUSE
            raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(start())
