"""Rules for functions that make a map smaller or larger without weights: pools and interpolation.

Read `steps.py` first. Each rule takes a call's result, then the arguments under PyTorch's names.
"""

from functools import partial
from typing import Any

from nachos_min.macs.ops import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool, Resize
from nachos_min.macs.record import Padding
from nachos_min.macs.torch_reader.steps import Rule, Step, Steps, Tensor, facts, map_of, pair


def _first(result: Any) -> Tensor:
    """Return the values where PyTorch gives (values, positions)."""
    return result[0] if isinstance(result, tuple) else result


def _every(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def _padding(padding: Any, axes: int) -> Padding:
    height, width = pair(padding, axes, 0)
    return (height, height, width, width)


def _max_pool(
    axes: int,
    result: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # noqa: ARG001 -- PyTorch's signature
) -> Steps:
    batch, shape = map_of(input, axes)
    size = pair(kernel_size, axes, 1)
    steps = pair(stride, axes, 1) if stride else size
    op = MaxPool(shape, size, steps, _padding(padding, axes), pair(dilation, axes, 1), ceil=ceil_mode)
    return [Step(op, (input,), _every(result), batch=batch)]


def _avg_pool(
    axes: int,
    result: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_rest: object,
    **_options: object,
) -> Steps:
    batch, shape = map_of(input, axes)
    size = pair(kernel_size, axes, 1)
    steps = pair(stride, axes, 1) if stride else size
    op = AvgPool(shape, size, steps, _padding(padding, axes), ceil=ceil_mode)
    return [Step(op, (input,), (result,), batch=batch)]


def _adaptive_pool(
    record: type[AdaptiveAvgPool] | type[AdaptiveMaxPool],
    axes: int,
    result: Any,
    input: Tensor,
    *_rest: object,
    **_options: object,
) -> Steps:
    batch, shape = map_of(input, axes)
    _, (height, width, _) = map_of(_first(result), axes)
    return [Step(record(shape, (height, width)), (input,), _every(result), batch=batch)]


def _interpolate(
    result: Tensor,
    input: Tensor,
    size: object = None,
    scale_factor: object = None,  # noqa: ARG001 -- PyTorch's signature
    mode: str = "nearest",
    *_rest: object,
    **_options: object,
) -> Steps:
    axes = input.dim() - 2
    batch, shape = map_of(input, axes if axes in (1, 2) else 2)
    _, (height, width, _) = map_of(result, axes)
    told = facts(size=isinstance(size, tuple | list), side=isinstance(size, int))
    return [Step(Resize(shape, (height, width), mode), (input,), (result,), batch=batch, facts=told)]


POOL_RULES: dict[str, Rule] = {
    "max_pool1d": partial(_max_pool, 1),
    "max_pool2d": partial(_max_pool, 2),
    "max_pool1d_with_indices": partial(_max_pool, 1),
    "max_pool2d_with_indices": partial(_max_pool, 2),
    "avg_pool1d": partial(_avg_pool, 1),
    "avg_pool2d": partial(_avg_pool, 2),
    "adaptive_avg_pool1d": partial(_adaptive_pool, AdaptiveAvgPool, 1),
    "adaptive_avg_pool2d": partial(_adaptive_pool, AdaptiveAvgPool, 2),
    "adaptive_max_pool1d": partial(_adaptive_pool, AdaptiveMaxPool, 1),
    "adaptive_max_pool2d": partial(_adaptive_pool, AdaptiveMaxPool, 2),
    "adaptive_max_pool1d_with_indices": partial(_adaptive_pool, AdaptiveMaxPool, 1),
    "adaptive_max_pool2d_with_indices": partial(_adaptive_pool, AdaptiveMaxPool, 2),
    "interpolate": _interpolate,
}
