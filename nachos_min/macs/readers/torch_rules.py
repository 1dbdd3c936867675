"""Rules of PyTorch's functions: what each call comes to.

A rule takes a call's result y, then the arguments under PyTorch's names, and returns steps. A function without a
rule is refused, or entered if it is written in Python.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isqrt, prod
from typing import Any, Final

from nachos_min.macs import ops
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import Step, both_sides, channels_last, facts, maps, rows
from nachos_min.macs.readers.names import ACTIVATIONS, CONSTANTS, MOVES, POINTWISE, REDUCTIONS
from nachos_min.macs.readers.torch_graph import shape_of, tensors_in
from nachos_min.macs.record import CountError, Shape

X = Any  # a tensor, or another argument of PyTorch's functions
Steps = list[Step]
Rule = Callable[..., Steps]
RULES: Final[dict[str, Rule]] = {}  # by a function's name, with its namespace where two differ


def rule(*names: str, **settings: X) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of PyTorch's functions, with these settings."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, partial(function, **settings) if settings else function))
        return function

    return register


def _numbers(value: X, axes: int) -> Shape:
    """Return one number per axis of what PyTorch takes as one for all or one per axis."""
    numbers = [int(number) for number in value] if isinstance(value, tuple | list) else [int(value)]
    return tuple(numbers * axes if len(numbers) == 1 else numbers)


def _present(*weights: X) -> tuple[X, ...]:
    return tuple(weight for weight in weights if weight is not None)


def _arguments(names: str, args: X, options: dict[str, X]) -> dict[str, X]:
    """Return the arguments that were given, by name."""
    return dict(zip(names.split(), args, strict=False)) | options


# Convolutions and linear layers.


@rule("conv1d", "conv2d", "conv3d", names="bias stride padding dilation groups")
@rule(
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    names="bias stride padding output_padding groups dilation",
)
def _convolution(y: X, input: X, weight: X, *args: X, names: str, **options: X) -> Steps:
    given, axes = _arguments(names, args, options), weight.dim() - 2
    batch, shape = maps(shape_of(input), axes)
    kernel, dilation = _numbers(tuple(weight.shape[2:]), axes), _numbers(given.get("dilation", 1), axes)
    padding, groups, bias = given.get("padding", 0), given.get("groups", 1), given.get("bias")
    word = padding if isinstance(padding, str) else ""
    sides: Shape = () if word else both_sides(_numbers(padding, axes))
    if word == "same":  # of an odd number of zeros PyTorch puts the extra one at the end
        needed = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = tuple(side for zeros in needed for side in (zeros // 2, zeros - zeros // 2))
    record: X = ops.Conv
    channels = int(weight.shape[0])
    if "output_padding" in names:
        extra = _numbers(given.get("output_padding", 0), axes)
        record, channels = partial(ops.ConvTranspose, output_padding=extra), int(weight.shape[1]) * groups
    stride = _numbers(given.get("stride", 1), axes)
    op = record(shape, channels, kernel, stride, sides, dilation, groups, bias is not None)
    known = facts(unbatched=input.dim() == axes + 1)
    return [Step(op, (input,), (y,), _present(weight, bias), batch, word, known)]


@rule("linear")
def _linear(y: X, input: X, weight: X, bias: X = None) -> Steps:
    if weight.dim() == 1:
        return _matmul(y, input, weight)
    batch, shape = rows(shape_of(input))
    op = ops.Linear(shape, out_features=int(weight.shape[0]), bias=bias is not None)
    strided = input.dim() > 2 and _scattered(input, 0)
    swapped = strided and not _scattered(input, 1)
    known = facts(unbatched=input.dim() == 1, strided=strided, swapped=swapped)
    return [Step(op, (input,), (y,), _present(weight, bias), batch, facts=known)]


def _scattered(x: X, samples: int) -> bool:
    """Return whether one sample's elements do not lie one after another; `samples` is the axis of samples."""
    packed = 1
    for axis in reversed(range(x.dim())):
        if axis != samples and x.shape[axis] > 1:
            if x.stride(axis) != packed:
                return True
            packed *= x.shape[axis]
    return False


# Products.


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def _matmul(y: X, *args: X, **options: X) -> Steps:
    """Return the product of two arrays whose leading axes broadcast; a vector is a matrix of one row or column."""
    first, second, *_ = tensors_in((args, options))
    left, right = shape_of(first), shape_of(second)
    op = ops.MatMul(left if len(left) > 1 else (1, *left), right if len(right) > 1 else (*right, 1))
    vector = second.dim() == 1
    folds = all(first.stride(i) == first.stride(i + 1) * first.shape[i + 1] for i in range(first.dim() - 2))
    known = facts(vector=vector, strided=vector and not second.requires_grad and not folds)
    return [Step(op, (first, second), (y,), facts=known)]


@rule("addmm", "baddbmm", "addmv", "addbmm")
def _plus_product(y: X, input: X, first: X, second: X, **_: X) -> Steps:
    """Return input + first @ second; of addbmm the products of all samples are summed."""
    steps = [replace(step, makes=()) for step in _matmul(y, first, second)]
    if steps[0].op.output != shape_of(y) and y.dim() == first.dim() - 1 > 1:
        steps.append(Step(ops.Reduce(steps[0].op.output, shape_of(y), "sum"), (steps[0],)))
    return [*steps, Step(ops.Add((shape_of(input), shape_of(y))), (input, steps[-1]), (y,))]


@rule("inner", "tensordot")
def _contraction(y: X, input: X, other: X, *_rest: X, **_: X) -> Steps:
    """Return a sum over some axes of both arrays: as many products as their elements times the result's, rooted."""
    left, right, made = (prod(shape_of(x)) for x in (input, other, y))
    summed = isqrt(left * right // made)
    return [Step(ops.MatMul((left // summed, summed), (summed, right // summed)), (input, other), (y,))]


@rule("outer", "ger")
def _outer(y: X, input: X, other: X, **_: X) -> Steps:
    return [Step(ops.Multiply(((*shape_of(input), 1), (1, *shape_of(other)))), (input, other), (y,))]


def _making(y: X, steps: Steps) -> Steps:
    """Return the steps, of which the last makes the result."""
    return [*steps[:-1], replace(steps[-1], makes=(y,))]


@rule("einsum")
def _einsum(y: X, equation: str, *operands: X) -> Steps:
    arrays = tuple(tensors_in(operands))
    shapes = tuple(tuple(int(length) for length in x.shape) for x in arrays)
    return _making(y, products.einsum(equation.replace(" ", ""), arrays, shapes, ones=False))


@rule("scaled_dot_product_attention")
def _attention(
    y: X, query: X, key: X, value: X, attn_mask: X = None, *_rest: X, enable_gqa: bool = False, **_: X
) -> Steps:
    """Return attention; heads that are shared are repeated first."""
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    # What PyTorch needs before it runs attention as one operator on a processor.
    plain = len(q) == 4 and all(x.stride(-1) == 1 for x in (query, key, value))
    repeated: Steps = []
    if enable_gqa:
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
        repeated = [Step(ops.Move((shape_of(x),), shape), (x,)) for x, shape in ((key, k), (value, v))]
        key, value = repeated
    fused = plain and q[:2] == k[:2] == v[:2] and q[-1] == k[-1] == v[-1]
    mask = None if attn_mask is None else (attn_mask, shape_of(attn_mask))
    return [*repeated, *_making(y, products.attention((query, key, value), (q, k, v), mask, fused=fused))]


# Norms.

_F, _TORCH = "running_mean running_var weight bias", "weight bias running_mean running_var"


@rule("batch_norm", record=ops.BatchNorm, names=f"{_F} training")
@rule("torch.batch_norm", record=ops.BatchNorm, names=f"{_TORCH} training")
@rule("instance_norm", record=ops.InstanceNorm, names=f"{_F} use_input_stats")
@rule("torch.instance_norm", record=ops.InstanceNorm, names=f"{_TORCH} use_input_stats")
def _channel_norm(y: X, input: X, *args: X, record: X, names: str, **options: X) -> Steps:
    """Return a norm of channels; F and torch have the same arguments in another order."""
    given = _arguments(names, args, options)
    weight = given.get("weight")
    measured = given.get("training", False) or given.get("use_input_stats", record is ops.InstanceNorm)
    batch, shape = channels_last(shape_of(input))
    weights = _present(weight, given.get("bias"))
    op = record(shape, affine=weight is not None)
    return [Step(op, (input,), (y,), weights, batch, facts=facts(statistics=measured))]


@rule("group_norm")
def _group_norm(y: X, input: X, num_groups: int, *args: X, **options: X) -> Steps:
    record = partial(ops.GroupNorm, groups=num_groups)
    return _channel_norm(y, input, *args, record=record, names="weight bias", **options)


@rule("layer_norm")
def _layer_norm(y: X, input: X, normalized_shape: X, weight: X = None, bias: X = None, *_rest: X, **_: X) -> Steps:
    axes = len(normalized_shape)
    batch, shape = rows(shape_of(input)) if input.dim() > axes else (1, shape_of(input))
    op = ops.LayerNorm(shape, axes=axes, affine=weight is not None, bias=bias is not None)
    known = facts(unbatched=input.dim() == axes)
    return [Step(op, (input,), (y,), _present(weight, bias), batch, facts=known)]


# Pools and interpolation.


_MAX, _AVERAGE = "stride padding dilation ceil_mode", "stride padding ceil_mode"


@rule("max_pool1d", "max_pool1d_with_indices", axes=1, record=ops.MaxPool, names=_MAX)
@rule("max_pool2d", "max_pool2d_with_indices", axes=2, record=ops.MaxPool, names=_MAX)
@rule("max_pool3d", "max_pool3d_with_indices", axes=3, record=ops.MaxPool, names=_MAX)
@rule("avg_pool3d", axes=3, record=ops.AvgPool, names=_AVERAGE)
@rule("avg_pool1d", axes=1, record=ops.AvgPool, names=_AVERAGE)
@rule("avg_pool2d", axes=2, record=ops.AvgPool, names=_AVERAGE)
def _pool(y: X, input: X, kernel_size: X, *args: X, axes: int, record: X, names: str, **options: X) -> Steps:
    given = _arguments(names, args, options)
    batch, shape = maps(shape_of(input), axes)
    size = _numbers(kernel_size, axes)
    stride = _numbers(given["stride"], axes) if given.get("stride") else size
    padding, dilation = (
        both_sides(_numbers(given.get("padding", 0), axes)),
        _numbers(given.get("dilation", 1), axes),
    )
    op = record(shape, size, stride, padding, dilation, given.get("ceil_mode", False))
    return [Step(op, (input,), tuple(tensors_in(y)), batch=batch)]


@rule("adaptive_avg_pool1d", axes=1, record=ops.AdaptiveAvgPool)
@rule("adaptive_avg_pool2d", axes=2, record=ops.AdaptiveAvgPool)
@rule("adaptive_avg_pool3d", axes=3, record=ops.AdaptiveAvgPool)
@rule("adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", axes=3, record=ops.AdaptiveMaxPool)
@rule("adaptive_max_pool1d", "adaptive_max_pool1d_with_indices", axes=1, record=ops.AdaptiveMaxPool)
@rule("adaptive_max_pool2d", "adaptive_max_pool2d_with_indices", axes=2, record=ops.AdaptiveMaxPool)
def _adaptive_pool(y: X, input: X, *_rest: X, axes: int, record: X, **_: X) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    made = tuple(tensors_in(y))  # values, and positions where PyTorch gives both
    size = maps(shape_of(made[0]), axes)[1][:-1]
    return [Step(record(shape, size), (input,), made, batch=batch)]


@rule("interpolate")
def _interpolate(y: X, input: X, *args: X, **options: X) -> Steps:
    given = _arguments("size scale_factor mode", args, options)
    size, mode = given.get("size"), given.get("mode", "nearest")
    batch, shape = maps(shape_of(input), input.dim() - 2)
    _, (*lengths, _) = maps(shape_of(y), input.dim() - 2)
    known = facts(size=isinstance(size, tuple | list), side=isinstance(size, int))
    return [Step(ops.Resize(shape, tuple(lengths), mode), (input,), (y,), batch=batch, facts=known)]


# What has no weights and makes no products.


def _activation(y: X, input: X, *_rest: X, kind: str, **_: X) -> Steps:
    batch, shape = rows(shape_of(input))
    return [Step(ops.Activation(shape, kind), (input,), (y,), batch=batch)]


@rule("prelu")
def _prelu(y: X, input: X, weight: X) -> Steps:
    known = facts(unbatched=input.dim() == 1, slopes=weight.numel() > 1)
    return [replace(_activation(y, input, kind="prelu")[0], weights=(weight,), facts=known)]


@rule("glu")
def _glu(y: X, input: X, *_rest: X, **_: X) -> Steps:
    """Return one half of the elements times the sigmoid of the other."""
    shape = shape_of(y)
    halves = [Step(ops.Move((shape_of(input),), shape), (input,)) for _ in range(2)]
    gate = Step(ops.Activation(shape, "sigmoid"), (halves[1],))
    return [*halves, gate, Step(ops.Multiply((shape, shape)), (halves[0], gate), (y,))]


@rule("hardtanh", bounds=(-1, 1), kind="hardtanh")
@rule("clamp", "clip", bounds=(None, None), kind="clamp")
def _clip(y: X, input: X, *args: X, bounds: tuple[X, X], kind: str, **options: X) -> Steps:
    """Return a clip, which from 0 to 6 is relu6 however it is written."""
    names = "min_val max_val" if kind == "hardtanh" else "min max"
    given = _arguments(names, args, options)
    low, high = (given.get(name, bound) for name, bound in zip(names.split(), bounds, strict=True))
    if not list(tensors_in((low, high))) and (low, high) == (0, 6):
        return _activation(y, input, kind="relu6")
    return _activation(y, input, kind=kind) if kind == "hardtanh" else _pointwise(y, input, low, high, kind=kind)


@rule("softmax", "log_softmax")
def _softmax(y: X, input: X, dim: int | None = None, *_rest: X, **_: X) -> Steps:
    if dim is None:  # F.softmax's old rule for an axis that is not named
        dim = 0 if input.dim() in (0, 1, 3) else 1
    shape = shape_of(input)
    batch, row = (1, shape) if dim in (0, -input.dim()) else rows(shape)
    return [Step(ops.Softmax(row, shape[dim]), (input,), (y,), batch=batch)]


def _operands(args: X, options: dict[str, X]) -> tuple[X, ...]:
    return tuple(tensors_in((args, {key: value for key, value in options.items() if key != "out"})))


@rule("add", record=ops.Add)
@rule("mul", "multiply", record=ops.Multiply)
def _elementwise(result: X, *args: X, record: X, **options: X) -> Steps:
    reads = _operands(args, options)
    return [Step(record(tuple(map(shape_of, reads))), reads, tuple(tensors_in(result)))]


def _pointwise(result: X, *args: X, kind: str, **options: X) -> Steps:
    return _elementwise(result, *args, record=partial(ops.Pointwise, kind=kind), **options)


def _reduce(result: X, input: X, *args: X, kind: str, **options: X) -> Steps:
    if _operands(args, options):  # the larger of two arrays, not the largest of one
        return _pointwise(result, input, *args, kind=kind, **options)
    made = tuple(tensors_in(result))
    return [Step(ops.Reduce(shape_of(input), shape_of(made[0]), kind), (input,), made)]


@rule(*MOVES)
def _move(result: X, *args: X, **options: X) -> Steps:
    """Return one record per array that is made; nothing is computed."""
    reads = _operands(args, options)
    shapes = tuple(map(shape_of, reads))
    return [Step(ops.Move(shapes, shape_of(made)), reads, (made,)) for made in tensors_in(result)]


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout")
def _dropout(y: X, input: X, p: float = 0.5, training: bool = True, *_rest: X, **_: X) -> Steps:
    return _pointwise(y, input, kind="dropout") if training and p > 0 else _move(y, input)


@rule(*CONSTANTS)
def _constant(_result: X, *args: X, **options: X) -> Steps:
    """Return nothing: an array that is not computed becomes a source when something reads it."""
    for value in (*args, *options.values()):
        if type(value).__name__ == "ndarray":
            raise CountError(f"what NumPy computes is not seen, got an array of shape {value.shape}")
    return []


@rule("tensor", "as_tensor", "asarray")
def _converted(y: X, data: X, **options: X) -> Steps:
    """Return a copy of tensors, or nothing if only numbers are made into a tensor."""
    return _move(y, data) if any(True for _ in tensors_in(data)) else _constant(y, data, **options)


RULES["rmatmul"] = lambda y, input, other: _matmul(y, other, input)
RULES["rms_norm"] = lambda y, input, normalized_shape, weight=None, *_rest, **_: _layer_norm(
    y, input, normalized_shape, weight
)
RULES["setitem"] = lambda _result, input, *args: _move(input, input, *args)
for _names, _rule in ((ACTIVATIONS, _activation), (POINTWISE, _pointwise), (REDUCTIONS, _reduce)):
    for _name, _kind in _names.items():
        if not _name[0].isupper():
            rule(_name, kind=_kind)(_rule)
