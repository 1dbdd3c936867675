"""The one compile policy: every compiled loop of this project is made by `kernel`.

Read this before any other kernel file. A kernel is a loop over arrays and scalars: it trusts its input
(shapes were checked by the caller), keeps no state, and draws no random number.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

# reassoc: sums may be reordered, so that they vectorise; contract: a*b + c may become one instruction;
# nsz: -0.0 may become 0.0. Not nnan and not ninf: a diverged training must stay visible as NaN.
FASTMATH = {"reassoc", "contract", "nsz"}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by Numba under the one policy of this project.

    Compiled on first call for the argument types seen (float32 and float64), cached on disk, without the
    GIL, on one thread. Division by zero gives inf or NaN as in NumPy. The disk cache does not notice a
    change in a compiled function of *another* file: a kernel calls compiled functions of its own file only.
    NUMBA_DISABLE_JIT=1 runs the same loops as plain Python, NUMBA_BOUNDSCHECK=1 checks every index.
    """
    policy: dict[str, Any] = {"nogil": True, "parallel": False, "fastmath": FASTMATH, "error_model": "numpy"}
    try:
        compiled: Any = numba.njit(function, cache=True, **policy)
    except RuntimeError:  # no folder for a cache may be written, as in some containers: slower, but it runs
        compiled = numba.njit(function, **policy)
    return cast(Callable[P, R], compiled)
