"""How far the training of one candidate is, told while it runs; the compilation of kernels is left out."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from nachos_kernels import Compilation

if TYPE_CHECKING:
    from nachos_min.nas.evaluation import Trial


@dataclass(frozen=True)
class Step:
    """How far the training of a trial is."""

    trial: "Trial"
    epoch: int  # epochs done; 0 at the start
    epochs: int  # epochs to be done
    compiling: bool  # a kernel is being compiled
    seconds: float  # since the start, without compilation


class Steps:
    """Tells the steps of one trial, inside a `with` block: its start, each epoch, each compilation."""

    def __init__(self, trial: "Trial", epochs: int, told: Callable[[Step], None] | None) -> None:
        self._trial, self._epochs, self._told = trial, epochs, told
        self._epoch, self._begun = 0, perf_counter()
        self._compilation = Compilation(self._tell)

    def __enter__(self) -> "Steps":
        self._compilation.__enter__()
        self(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._compilation.__exit__()

    def __call__(self, epoch: int) -> None:
        """Tell that `epoch` epochs are done."""
        self._epoch = epoch
        self._tell(False)

    def _tell(self, compiling: bool) -> None:
        if self._told is not None:
            seconds = perf_counter() - self._begun - self._compilation.seconds
            self._told(Step(self._trial, self._epoch, self._epochs, compiling, seconds))
