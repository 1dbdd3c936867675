"""`python -m nachos_min`: the command line in a process set up for it: threads, signals, standard streams."""

import errno
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn, final

from nachos_min.terminal import guard


def start() -> int:
    """Return the exit status of the command line."""
    # A threaded BLAS splits a sum by the number of cores, so the surrogates' numbers would depend on the machine.
    # The variables count only before NumPy is imported; what the user has set stays.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(variable, "1")

    # `kill` and batch systems send SIGTERM, a terminal that is closed sends SIGHUP: they act as Ctrl-C. A signal
    # that was turned off, by a shell for a command in the background or by nohup, stays off.
    interruption, known = Interruption(), ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # no system has all
    numbers = [each for each in signal.Signals if each.name in known]
    handled = [each for each in numbers if signal.getsignal(each) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, interruption)
    if sys.platform != "win32":  # there a lost interruption has its status, but does not end what runs
        signal.signal(signal.SIGALRM, interruption.again)

    guard()
    # A KeyboardInterrupt that Python loses comes again, `Interruption` says how; it is not to be printed.
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else sys.__unraisablehook__(lost)

    try:
        from nachos_min.cli import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    try:
        status = main(sys.argv[1:])
    except Exception:  # a SystemError, if the interruption came inside compiled code
        if not interruption.came:
            raise
        status = 1
    # Python gives up its handlers first when it ends: a second Ctrl-C would then replace the exit status.
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, 0)
    if interruption.came and status != 130:  # lost, and all was done before it could be raised again
        print("interrupted", file=sys.stderr)
        return 130
    return status


@final
class Interruption:
    """A signal handler that raises KeyboardInterrupt, but not while the last one is being handled.

    Python loses an exception that a signal raises inside a destructor, or inside a function that a C library calls,
    such as HDF5. So later signals count again, and an alarm looks whether the exception is on its way.
    """

    PAUSE = 3.0  # seconds; workers are stopped within one

    def __init__(self) -> None:
        self.came = False
        self._ignored_until = 0.0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless the last one was raised less than `PAUSE` seconds ago."""
        for stream in (1, 2):
            try:
                os.write(stream, b"")
            except OSError as error:
                if error.errno == errno.EIO:  # the terminal was closed: what is still said goes nowhere
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if time.monotonic() >= self._ignored_until:
            self._raise()

    def again(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless one is being handled where the alarm came."""
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self._raise()

    def _raise(self) -> NoReturn:
        self.came, self._ignored_until = True, time.monotonic() + self.PAUSE
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, self.PAUSE, self.PAUSE)
        raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(start())
