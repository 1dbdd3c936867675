"""Early-exit neural architecture search from scratch on NumPy and Numba.

A public function is imported on first use, so that `import nachos_min` and the command line's help are instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nachos_min.nas.nachos import search as search
    from nachos_min.nas.runs import load_run as load_run
    from nachos_min.targets import count_macs as count_macs

__version__ = "0.1.0"
_PUBLIC = {"search": "nas.nachos", "load_run": "nas.runs", "count_macs": "targets"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"nachos_min.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'nachos_min' has no attribute {name!r}")
