"""Counting the multiply-accumulates (MACs) that are really executed.

Inside `with count_macs() as counter:` every operator that multiplies and accumulates (convolutions, matrix
products) adds the number of its products, computed from the arrays it was given, in exact Python integers.
Padding taps are counted; biases, element-wise products and the backward pass are not. A counter sees its own
thread only.

Read `convolution.py` for the formulas. The same counts from shapes alone, before any array exists, are in
`nachos_min.macs`; that the two agree is tested.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final


@final
class MacCounter:
    """What `count_macs` collects.

    Attributes:
        by_operator: MACs by the operator's name; operators that did not run are missing.
    """

    def __init__(self) -> None:
        self.by_operator: dict[str, int] = {}

    @property
    def total(self) -> int:
        """The MACs of all operators."""
        return sum(self.by_operator.values())


_counters: ContextVar[tuple[MacCounter, ...]] = ContextVar("counters", default=())


@contextmanager
def count_macs() -> Iterator[MacCounter]:
    """Return a context in which MACs are counted; an outer counter keeps counting inside an inner one.

    >>> import numpy as np
    >>> from nachos_min.autograd import Tensor, linear
    >>> with count_macs() as counter:
    ...     y = linear(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 5))))
    >>> counter.total, counter.by_operator
    (30, {'linear': 30})
    """
    counter = MacCounter()
    token = _counters.set((*_counters.get(), counter))
    try:
        yield counter
    finally:
        _counters.reset(token)


def count(operator: str, macs: int) -> None:
    """Add `macs` under `operator` to every active counter; operators call this once per forward pass."""
    for counter in _counters.get():
        counter.by_operator[operator] = counter.by_operator.get(operator, 0) + macs
