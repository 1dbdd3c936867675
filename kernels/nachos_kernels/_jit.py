"""The one compile policy: every compiled loop of this project is made by `kernel`.

Read this before any other kernel file. A kernel is a loop over arrays and scalars: it trusts its input
(shapes were checked by the caller), keeps no state, and draws no random number.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

# reassoc: sums may be reordered, so that they vectorise; contract: a*b + c may become one instruction;
# nsz: -0.0 may become 0.0. Not nnan and not ninf: a diverged training must stay visible as NaN.
FASTMATH = {"reassoc", "contract", "nsz"}

# All files of this package as they are now. By itself, Numba's cache notices changes of a function's own file only,
# and would go on using machine code into which an older function of another file was compiled.
FILES = sorted(Path(__file__).parent.glob("*.py"))
STAMP = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in FILES)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by Numba under the one policy of this project.

    Compiled on first call for the argument types seen (float32 and float64), cached on disk, without the
    GIL, on one thread. Division by zero gives inf or NaN as in NumPy. What was compiled is used as long as no
    file of this package changes, so that a kernel may call compiled functions of other files.
    NUMBA_DISABLE_JIT=1 runs the same loops as plain Python, NUMBA_BOUNDSCHECK=1 checks every index.
    """
    policy: dict[str, Any] = {"nogil": True, "parallel": False, "fastmath": FASTMATH, "error_model": "numpy"}
    try:
        compiled: Any = numba.njit(function, cache=True, **policy)
    except RuntimeError:  # no folder for a cache may be written, as in some containers: slower, but it runs
        compiled = numba.njit(function, **policy)
    with suppress(AttributeError):  # there is no public way to say so; NUMBA_DISABLE_JIT=1 leaves no cache at all
        compiled._cache._cache_file._source_stamp = STAMP
    return cast(Callable[P, R], compiled)
