"""Early-exit neural architecture search from scratch on NumPy and Numba.

A public name is imported on first use, so that `import nachos_min` and the command line's help are instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nachos_min.classifier import EarlyExitClassifier as EarlyExitClassifier
    from nachos_min.classifier import NotFittedError as NotFittedError
    from nachos_min.data import DataError as DataError
    from nachos_min.eenn.trained import Prediction as Prediction
    from nachos_min.errors import InputError as InputError
    from nachos_min.macs.result import Count as Count
    from nachos_min.nas.configuration import ConfigurationError as ConfigurationError
    from nachos_min.nas.nachos import search as search
    from nachos_min.nas.pools import UnguardedError as UnguardedError
    from nachos_min.nas.result import Network as Network
    from nachos_min.nas.result import SearchResult as SearchResult
    from nachos_min.nas.retraining import retrain as retrain
    from nachos_min.nas.runs import load_run as load_run
    from nachos_min.nas.tasks import MachineError as MachineError
    from nachos_min.nas.workers import WorkerDiedError as WorkerDiedError
    from nachos_min.store import StoreError as StoreError
    from nachos_min.targets import TargetError as TargetError
    from nachos_min.targets import count_macs as count_macs

__version__ = "0.1.0"
_PUBLIC = {
    "search": "report.notebook",
    "load_run": "nas.runs",
    "retrain": "report.notebook",
    "count_macs": "targets",
    "Count": "macs.result",
    "EarlyExitClassifier": "classifier",
    "SearchResult": "nas.result",
    "Network": "nas.result",
    "Prediction": "eenn.trained",
    "InputError": "errors",
    "ConfigurationError": "nas.configuration",
    "DataError": "data",
    "NotFittedError": "classifier",
    "StoreError": "store",
    "TargetError": "targets",
    "UnguardedError": "nas.pools",
    "MachineError": "nas.tasks",
    "WorkerDiedError": "nas.workers",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"nachos_min.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'nachos_min' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_PUBLIC, "__version__"]
