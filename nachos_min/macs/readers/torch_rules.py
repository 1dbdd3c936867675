"""Rules of PyTorch's functions: what each call comes to.

A rule takes a call's result, then the arguments under PyTorch's names, and returns steps. A function without a
rule is refused, or entered if it is written in Python. Convolutions over three axes have no rule.
"""

from collections.abc import Callable
from functools import partial
from math import isqrt, prod
from typing import Any, Final

from nachos_min.macs import ops
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import Step, channels_last, facts, maps, pair, rows
from nachos_min.macs.readers.names import ACTIVATIONS, CONSTANTS, MOVES, POINTWISE, REDUCTIONS
from nachos_min.macs.readers.torch_graph import Tensor, shape_of, tensors_in
from nachos_min.macs.record import CountError, Operator, Padding, Pair, Shape

Steps = list[Step]
Rule = Callable[..., Steps]
RULES: Final[dict[str, Rule]] = {}  # by a function's name, with its namespace where two differ


def rule(*names: str, **settings: Any) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of PyTorch's functions, with these settings."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, partial(function, **settings) if settings else function))
        return function

    return register


def _numbers(value: Any, axes: int, fill: int) -> Pair:
    """Return (height, width) of what PyTorch takes as one number or one per axis; `fill` for an axis it lacks."""
    numbers = [int(number) for number in value] if isinstance(value, tuple | list) else [int(value)]
    return pair(numbers * axes if len(numbers) == 1 else numbers, fill)


def _sides(value: Any, axes: int) -> Padding:
    height, width = _numbers(value, axes, 0)
    return (height, height, width, width)


def _given(*weights: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(weight for weight in weights if weight is not None)


# Convolutions and linear layers.


def _convolution(
    record: Any,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: int,
    settings: dict[str, Any],
) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    kernel, dilation = _numbers(tuple(weight.shape[2:]), axes, 1), _numbers(settings["dilation"], axes, 1)
    word = settings["padding"] if isinstance(settings["padding"], str) else ""
    if word == "same":  # of an odd number of zeros PyTorch puts the extra one at the end
        height, width = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        padding = (height // 2, height - height // 2, width // 2, width - width // 2)
    else:
        padding = (0, 0, 0, 0) if word else _sides(settings["padding"], axes)
    op = record(
        shape,
        kernel=kernel,
        stride=_numbers(settings["stride"], axes, 1),
        padding=padding,
        dilation=dilation,
        bias=bias is not None,
    )
    known = facts(unbatched=input.dim() == axes + 1)
    return [Step(op, (input,), (result,), _given(weight, bias), batch, word, known)]


@rule("conv1d", axes=1)
@rule("conv2d", axes=2)
def _conv(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    axes: int,
) -> Steps:
    record = partial(ops.Conv2d, out_channels=int(weight.shape[0]), groups=groups)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return _convolution(record, result, input, weight, bias, axes, settings)


@rule("conv_transpose1d", axes=1)
@rule("conv_transpose2d", axes=2)
def _conv_transpose(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    axes: int,
) -> Steps:
    record = partial(
        ops.ConvTranspose2d,
        out_channels=int(weight.shape[1]) * groups,
        groups=groups,
        output_padding=_numbers(output_padding, axes, 0),
    )
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return _convolution(record, result, input, weight, bias, axes, settings)


def _scattered(x: Tensor, samples: int) -> bool:
    """Return whether one sample's elements do not lie one after another; `samples` is the axis of samples."""
    packed = 1
    for axis in reversed(range(x.dim())):
        if axis != samples and x.shape[axis] > 1:
            if x.stride(axis) != packed:
                return True
            packed *= x.shape[axis]
    return False


@rule("linear")
def _linear(result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Steps:
    if weight.dim() == 1:
        return _matmul(result, input, weight)
    batch, shape = rows(shape_of(input))
    op = ops.Linear(shape, out_features=int(weight.shape[0]), bias=bias is not None)
    strided = input.dim() > 2 and _scattered(input, 0)
    swapped = strided and not _scattered(input, 1)
    known = facts(unbatched=input.dim() == 1, strided=strided, swapped=swapped)
    return [Step(op, (input,), (result,), _given(weight, bias), batch, facts=known)]


# Products.


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def _matmul(result: Tensor, *args: Any, **options: Any) -> Steps:
    """Return the product of two arrays whose leading axes broadcast; a vector is a matrix of one row or column."""
    first, second, *_ = tensors_in((args, options))
    left, right = shape_of(first), shape_of(second)
    op = ops.MatMul(left if len(left) > 1 else (1, *left), right if len(right) > 1 else (*right, 1))
    vector = second.dim() == 1
    known = facts(vector=vector, strided=vector and not second.requires_grad and not _folds(first))
    return [Step(op, (first, second), (result,), facts=known)]


def _folds(x: Tensor) -> bool:
    """Return whether all axes but the last can be seen as one without a copy."""
    return all(x.stride(i) == x.stride(i + 1) * x.shape[i + 1] for i in range(x.dim() - 2))


@rule("rmatmul")
def _reflected(result: Tensor, input: Tensor, other: Tensor) -> Steps:
    return _matmul(result, other, input)


@rule("addmm", "baddbmm", "addmv")
def _plus_product(result: Tensor, input: Tensor, first: Tensor, second: Tensor, **_options: object) -> Steps:
    """Return input + first @ second."""
    product = _matmul(None, first, second)[0]
    step = Step(product.op, product.reads, facts=product.facts)
    return [step, Step(ops.Add((shape_of(input), shape_of(result))), (input, step), (result,))]


@rule("addbmm")
def _plus_products(result: Tensor, input: Tensor, batch1: Tensor, batch2: Tensor, **_options: object) -> Steps:
    product = Step(ops.MatMul(shape_of(batch1), shape_of(batch2)), (batch1, batch2))
    total = Step(ops.Reduce(product.op.output, shape_of(result), "sum"), (product,))
    return [product, total, Step(ops.Add((shape_of(input), shape_of(result))), (input, total), (result,))]


@rule("inner", "tensordot")
def _contraction(result: Tensor, input: Tensor, other: Tensor, *_rest: object, **_options: object) -> Steps:
    """Return a sum over some axes of both arrays: as many products as their elements times the result's, rooted."""
    left, right, out = (prod(shape_of(x)) for x in (input, other, result))
    summed = isqrt(left * right // out)
    op = ops.MatMul((left // summed, summed), (summed, right // summed))
    return [Step(op, (input, other), (result,))]


@rule("outer", "ger")
def _outer(result: Tensor, input: Tensor, other: Tensor, **_options: object) -> Steps:
    op = ops.Multiply(((*shape_of(input), 1), (1, *shape_of(other))))
    return [Step(op, (input, other), (result,))]


def _making(result: Tensor, steps: Steps) -> Steps:
    """Return the steps, of which the last makes the result."""
    last = steps[-1]
    return [*steps[:-1], Step(last.op, last.reads, (result,), facts=last.facts)]


@rule("einsum")
def _einsum(result: Tensor, equation: str, *operands: Any) -> Steps:
    arrays = tuple(tensors_in(operands))
    shapes = tuple(tuple(int(length) for length in x.shape) for x in arrays)
    return _making(result, products.einsum(equation.replace(" ", ""), arrays, shapes, ones=False))


@rule("scaled_dot_product_attention")
def _attention(
    result: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_rest: object,
    enable_gqa: bool = False,
    **_options: object,
) -> Steps:
    """Return attention; heads that are shared are repeated first."""
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    # What PyTorch needs before it runs attention as one operator on a processor.
    fused = len(q) == 4 and all(x.stride(-1) == 1 for x in (query, key, value))
    repeated: Steps = []
    if enable_gqa:
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
        repeated = [Step(ops.Move((shape_of(x),), shape), (x,)) for x, shape in ((key, k), (value, v))]
        key, value = repeated
    fused = fused and q[:2] == k[:2] == v[:2] and q[-1] == k[-1] == v[-1]
    mask = None if attn_mask is None else (attn_mask, shape_of(attn_mask))
    steps = products.attention((query, key, value), (q, k, v), mask, fused=fused)
    return [*repeated, *_making(result, steps)]


# Norms.


@rule("batch_norm")
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
    return _channel_norm(ops.BatchNorm, result, input, weight, bias, facts(statistics=training))


@rule("instance_norm")
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
    return _channel_norm(ops.InstanceNorm, result, input, weight, bias, facts(statistics=use_input_stats))


@rule("torch.batch_norm", record=ops.BatchNorm)  # the same arguments in another order
@rule("torch.instance_norm", record=ops.InstanceNorm)
def _torch_norm(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,  # noqa: ARG001 -- PyTorch's signature
    variance: Tensor,  # noqa: ARG001 -- PyTorch's signature
    measured: bool,
    *_rest: object,
    record: Callable[..., Operator],
) -> Steps:
    return _channel_norm(record, result, input, weight, bias, facts(statistics=measured))


@rule("group_norm")
def _group_norm(
    result: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_rest: object,
    **_options: object,
) -> Steps:
    return _channel_norm(partial(ops.GroupNorm, groups=num_groups), result, input, weight, bias)


def _channel_norm(
    record: Callable[..., Operator],
    result: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    known: frozenset[str] = frozenset(),
) -> Steps:
    batch, shape = channels_last(shape_of(input))
    return [
        Step(
            record(shape, affine=weight is not None), (input,), (result,), _given(weight, bias), batch, facts=known
        )
    ]


@rule("layer_norm")
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
    batch, shape = rows(shape_of(input)) if input.dim() > axes else (1, shape_of(input))
    op = ops.LayerNorm(shape, axes=axes, affine=weight is not None, bias=bias is not None)
    known = facts(unbatched=input.dim() == axes)
    return [Step(op, (input,), (result,), _given(weight, bias), batch, facts=known)]


@rule("rms_norm")
def _rms_norm(
    result: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    *_rest: object,
    **_options: object,
) -> Steps:
    return _layer_norm(result, input, normalized_shape, weight)


# Pools and interpolation.


def _every(result: Any) -> tuple[Tensor, ...]:
    """Return values and positions where PyTorch gives both."""
    return tuple(result) if isinstance(result, tuple) else (result,)


@rule("max_pool1d", "max_pool1d_with_indices", axes=1)
@rule("max_pool2d", "max_pool2d_with_indices", axes=2)
def _max_pool(
    result: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # noqa: ARG001 -- PyTorch's signature
    *,
    axes: int,
) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    size = _numbers(kernel_size, axes, 1)
    steps = _numbers(stride, axes, 1) if stride else size
    op = ops.MaxPool(shape, size, steps, _sides(padding, axes), _numbers(dilation, axes, 1), ceil=ceil_mode)
    return [Step(op, (input,), _every(result), batch=batch)]


@rule("avg_pool1d", axes=1)
@rule("avg_pool2d", axes=2)
def _avg_pool(
    result: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_rest: object,
    axes: int,
    **_options: object,
) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    size = _numbers(kernel_size, axes, 1)
    steps = _numbers(stride, axes, 1) if stride else size
    op = ops.AvgPool(shape, size, steps, _sides(padding, axes), ceil=ceil_mode)
    return [Step(op, (input,), (result,), batch=batch)]


@rule("adaptive_avg_pool1d", axes=1, record=ops.AdaptiveAvgPool)
@rule("adaptive_avg_pool2d", axes=2, record=ops.AdaptiveAvgPool)
@rule("adaptive_max_pool1d", "adaptive_max_pool1d_with_indices", axes=1, record=ops.AdaptiveMaxPool)
@rule("adaptive_max_pool2d", "adaptive_max_pool2d_with_indices", axes=2, record=ops.AdaptiveMaxPool)
def _adaptive_pool(
    result: Any,
    input: Tensor,
    *_rest: object,
    axes: int,
    record: Callable[[Shape, Pair], Operator],
    **_options: object,
) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    made = _every(result)
    _, (height, width, _) = maps(shape_of(made[0]), axes)
    return [Step(record(shape, (height, width)), (input,), made, batch=batch)]


@rule("interpolate")
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
    batch, shape = maps(shape_of(input), axes)
    _, (height, width, _) = maps(shape_of(result), axes)
    known = facts(size=isinstance(size, tuple | list), side=isinstance(size, int))
    return [Step(ops.Resize(shape, (height, width), mode), (input,), (result,), batch=batch, facts=known)]


# What has no weights and makes no products.


def _activation(result: Tensor, input: Tensor, *_rest: object, kind: str, **_options: object) -> Steps:
    batch, shape = rows(shape_of(input))
    return [Step(ops.Activation(shape, kind), (input,), (result,), batch=batch)]


@rule("prelu")
def _prelu(result: Tensor, input: Tensor, weight: Tensor) -> Steps:
    batch, shape = rows(shape_of(input))
    known = facts(unbatched=input.dim() == 1, slopes=weight.numel() > 1)
    return [Step(ops.Activation(shape, "prelu"), (input,), (result,), (weight,), batch, facts=known)]


@rule("glu")
def _glu(result: Tensor, input: Tensor, *_rest: object, **_options: object) -> Steps:
    """Return one half of the elements times the sigmoid of the other."""
    shape = shape_of(result)
    halves = [Step(ops.Move((shape_of(input),), shape), (input,)) for _ in range(2)]
    gate = Step(ops.Activation(shape, "sigmoid"), (halves[1],))
    return [*halves, gate, Step(ops.Multiply((shape, shape)), (halves[0], gate), (result,))]


def _is_relu6(low: Any, high: Any) -> bool:
    """Return whether a clip is from 0 to 6, which is relu6 however it is written."""
    return not list(tensors_in((low, high))) and (low, high) == (0, 6)


@rule("hardtanh")
def _hardtanh(
    result: Tensor,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,  # noqa: ARG001 -- PyTorch's signature
) -> Steps:
    return _activation(result, input, kind="relu6" if _is_relu6(min_val, max_val) else "hardtanh")


@rule("clamp", "clip")
def _clamp(result: Tensor, input: Tensor, min: Any = None, max: Any = None, **_options: object) -> Steps:
    if _is_relu6(min, max):
        return _activation(result, input, kind="relu6")
    return _pointwise(result, input, min, max, kind="clamp")


@rule("softmax", "log_softmax")
def _softmax(result: Tensor, input: Tensor, dim: int | None = None, *_rest: object, **_options: object) -> Steps:
    if dim is None:  # F.softmax's old rule for an axis that is not named
        dim = 0 if input.dim() in (0, 1, 3) else 1
    shape = shape_of(input)
    batch, row = (1, shape) if dim in (0, -input.dim()) else rows(shape)
    return [Step(ops.Softmax(row, shape[dim]), (input,), (result,), batch=batch)]


def _operands(args: object, options: dict[str, Any]) -> tuple[Tensor, ...]:
    return tuple(tensors_in((args, {key: value for key, value in options.items() if key != "out"})))


@rule("add", record=ops.Add)
@rule("mul", "multiply", record=ops.Multiply)
def _elementwise(result: Any, *args: Any, record: Callable[[tuple[Shape, ...]], Operator], **options: Any) -> Steps:
    reads = _operands(args, options)
    return [Step(record(tuple(map(shape_of, reads))), reads, tuple(tensors_in(result)))]


def _pointwise(result: Any, *args: Any, kind: str, **options: Any) -> Steps:
    return _elementwise(result, *args, record=partial(ops.Pointwise, kind=kind), **options)


def _reduce(result: Any, input: Tensor, *args: Any, kind: str, **options: Any) -> Steps:
    if _operands(args, options):  # the larger of two arrays, not the largest of one
        return _pointwise(result, input, *args, kind=kind, **options)
    made = tuple(tensors_in(result))
    return [Step(ops.Reduce(shape_of(input), shape_of(made[0]), kind), (input,), made)]


@rule(*MOVES)
def _move(result: Any, *args: Any, **options: Any) -> Steps:
    """Return one record per array that is made; nothing is computed."""
    reads = _operands(args, options)
    shapes = tuple(map(shape_of, reads))
    return [Step(ops.Move(shapes, shape_of(made)), reads, (made,)) for made in tensors_in(result)]


@rule("setitem")
def _assign(_result: None, input: Tensor, *args: Any) -> Steps:
    return _move(input, input, *args)


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout")
def _dropout(
    result: Tensor, input: Tensor, p: float = 0.5, training: bool = True, *_rest: object, **_options: object
) -> Steps:
    return _pointwise(result, input, kind="dropout") if training and p > 0 else _move(result, input)


@rule(*CONSTANTS)
def _constant(_result: Any, *args: Any, **options: Any) -> Steps:
    """Return nothing: an array that is not computed becomes a source when something reads it."""
    for value in (*args, *options.values()):
        if type(value).__name__ == "ndarray":
            raise CountError(f"what NumPy computes is not seen, got an array of shape {value.shape}")
    return []


@rule("tensor", "as_tensor", "asarray")
def _converted(result: Tensor, data: Any, **options: Any) -> Steps:
    """Return a copy of tensors, or nothing if only numbers are made into a tensor."""
    return _move(result, data) if any(True for _ in tensors_in(data)) else _constant(result, data, **options)


for _table, _rule in ((ACTIVATIONS, _activation), (POINTWISE, _pointwise), (REDUCTIONS, _reduce)):
    for _name, _kind in _table.items():
        if _name[0].islower() or _name[0] == "_":
            rule(_name, kind=_kind)(_rule)
