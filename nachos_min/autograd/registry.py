"""The list of all operators, so that a test can demand a gradient, a PyTorch and a MAC case of each.

An operator is a function from Tensors to a Tensor that records its own vjps. Mark it with `@operator`, or
with `@counted_operator` if it multiplies and accumulates: then it must also report its MACs (`counting.py`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

Operator = TypeVar("Operator", bound=Callable[..., Any])

OPERATORS: dict[str, Callable[..., Any]] = {}
COUNTED_OPERATORS: set[str] = set()


def operator(function: Operator) -> Operator:
    """Return `function` itself, after entering it in `OPERATORS` under its name."""
    OPERATORS[function.__name__] = function
    return function


def counted_operator(function: Operator) -> Operator:
    """Return `function` itself, entered as an operator that counts the MACs it executes."""
    COUNTED_OPERATORS.add(function.__name__)
    return operator(function)
