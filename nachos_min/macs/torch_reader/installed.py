"""PyTorch, imported when it is first needed: nothing else of this project needs it.

Its names are untyped here, so that the project's types can be checked where it is not installed.
"""

from importlib import import_module
from typing import Any

from nachos_min.macs.record import CountError


def load_torch() -> Any:
    """Return the module `torch`.

    Raises:
        CountError: it cannot be imported.
    """
    try:
        return import_module("torch")
    except ImportError as error:
        raise CountError(f"PyTorch must be installed to read a module, got {error}") from None
