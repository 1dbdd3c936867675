"""What one call of a PyTorch function comes to: one record or a few, the tensors they read and those they make.

A rule gets a call's result and its arguments, by the names that PyTorch documents, and returns steps. Here are
the step and the few ways in which a tensor's shape becomes a record's. Shapes of records are channels last and
of one sample, tensors are channels first with a batch axis. Read `record.py` first; the rules are in
`layers.py`, `norms.py`, `pools.py`, `matrices.py` and `elements.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from nachos_min.macs.record import CountError, Operator, Pair, Shape
from nachos_min.macs.torch_reader.installed import load_torch

Tensor = Any  # a torch.Tensor: see `installed.py` for why it is not typed


@dataclass(frozen=True, eq=False)
class Step:
    """One record of a call.

    Args:
        op: the record.
        reads: tensors, or earlier steps of the same call, in the order of the record's operands.
        makes: tensors of the call's result whose elements this step writes.
        weights: tensors that are part of the record (a convolution's kernel and bias), not operands of it.
        batch: samples treated at once; the record is of one.
        padding: "same" or "valid" if the padding was given by that word.
        facts: what else the shapes do not show, as of `Written`.
    """

    op: Operator
    reads: tuple["Tensor | Step", ...]
    makes: tuple[Tensor, ...] = ()
    weights: tuple[Tensor, ...] = ()
    batch: int = 1
    padding: str = ""
    facts: frozenset[str] = frozenset()


def facts(**known: bool) -> frozenset[str]:
    """Return the names of the facts that hold."""
    return frozenset(fact for fact, holds in known.items() if holds)


Steps = list[Step]
Rule = Callable[..., Steps]  # of a call's result and arguments


def given(*weights: Tensor | None) -> tuple[Tensor, ...]:
    """Return the weights that are there."""
    return tuple(weight for weight in weights if weight is not None)


def tensors_in(values: object) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists, dictionaries and dataclasses, in order."""
    if isinstance(values, load_torch().Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))
    elif is_dataclass(values) and not isinstance(values, type):
        yield from tensors_in([getattr(values, field.name) for field in fields(values)])


def shape_of(x: Tensor) -> Shape:
    """Return a tensor's whole shape; that of a single number is (1,)."""
    return tuple(int(length) for length in x.shape) or (1,)


def rows_of(x: Tensor) -> tuple[int, Shape]:
    """Return the batch and the shape of one sample: the first axis is the batch, if there are two."""
    shape = shape_of(x)
    return (shape[0], shape[1:]) if len(shape) > 1 else (1, shape)


def map_of(x: Tensor, axes: int) -> tuple[int, Shape]:
    """Return the batch and (H, W, C) of a map of `axes` 1 or 2 axes, with or without a batch axis.

    Raises:
        CountError: the tensor has other axes, such as those of a video.
    """
    shape = shape_of(x)
    if len(shape) not in (axes + 1, axes + 2):
        raise CountError(f"a map must have one or two axes besides batch and channels, got shape {shape}")
    batch = shape[0] if len(shape) == axes + 2 else 1
    return batch, (*(1,) * (2 - axes), *shape[-axes:], shape[-axes - 1])


def pair(value: Any, axes: int, fill: int) -> Pair:
    """Return (height, width) of what PyTorch takes as one number or one per axis; `fill` for an axis it lacks."""
    numbers = [int(number) for number in value] if isinstance(value, tuple | list) else [int(value)]
    numbers = numbers * axes if len(numbers) == 1 else numbers
    return (fill, numbers[0]) if axes == 1 else (numbers[0], numbers[1])
