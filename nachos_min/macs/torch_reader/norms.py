"""Rules for functions that normalise.

Read `steps.py` first. Each rule takes a call's result, then the arguments under PyTorch's names.
"""

from typing import Any

from nachos_min.macs.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from nachos_min.macs.record import Shape
from nachos_min.macs.torch_reader.steps import Rule, Step, Steps, Tensor, facts, given, rows_of, shape_of


def _channels_last(x: Tensor) -> tuple[int, Shape]:
    """Return the batch and (..., C) of N, C, ...; a sequence is a map of height 1."""
    batch, channels, *spatial = shape_of(x)
    return batch, (*((1,) if len(spatial) == 1 else ()), *spatial, channels)


def _batch_norm(
    result: Tensor,
    input: Tensor,
    running_mean: Tensor | None,  # noqa: ARG001 -- PyTorch's signature
    running_var: Tensor | None,  # noqa: ARG001 -- PyTorch's signature
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_rest: object,
    **_options: object,
) -> Steps:
    batch, shape = _channels_last(input)
    op = BatchNorm(shape, affine=weight is not None)
    return [Step(op, (input,), (result,), given(weight, bias), batch, facts=facts(statistics=training))]


def _torch_batch_norm(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    *_: Any,
) -> Steps:
    return _batch_norm(result, input, mean, variance, weight, bias, training)


def _instance_norm(
    result: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,  # noqa: ARG001 -- PyTorch's signature
    running_var: Tensor | None = None,  # noqa: ARG001 -- PyTorch's signature
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    *_rest: object,
    **_options: object,
) -> Steps:
    batch, shape = _channels_last(input)
    op = InstanceNorm(shape, affine=weight is not None)
    known = facts(statistics=use_input_stats)
    return [Step(op, (input,), (result,), given(weight, bias), batch, facts=known)]


def _torch_instance_norm(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    measured: bool,
    *_: Any,
) -> Steps:
    return _instance_norm(result, input, mean, variance, weight, bias, measured)


def _group_norm(
    result: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_rest: object,
    **_options: object,
) -> Steps:
    batch, shape = _channels_last(input)
    op = GroupNorm(shape, groups=num_groups, affine=weight is not None)
    return [Step(op, (input,), (result,), given(weight, bias), batch)]


def _layer_norm(
    result: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_rest: object,
    **_options: object,
) -> Steps:
    axes = len(normalized_shape)
    batch, shape = rows_of(input) if input.dim() > axes else (1, shape_of(input))
    op = LayerNorm(shape, axes=axes, affine=weight is not None, bias=bias is not None)
    unbatched = facts(unbatched=input.dim() == axes)
    return [Step(op, (input,), (result,), given(weight, bias), batch, facts=unbatched)]


def _rms_norm(
    result: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    *_rest: object,
    **_options: object,
) -> Steps:
    return _layer_norm(result, input, normalized_shape, weight)


NORM_RULES: dict[str, Rule] = {
    "batch_norm": _batch_norm,
    "torch.batch_norm": _torch_batch_norm,  # the same arguments in another order
    "instance_norm": _instance_norm,
    "torch.instance_norm": _torch_instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
