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
from nachos_min.macs.readers.builder import Step, both_sides, channels_last, facts, maps, require, rows
from nachos_min.macs.readers.names import ACTIVATIONS, CONSTANTS, LOSSES, MOVES, POINTWISE, REDUCTIONS, SPECIAL
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


def _first(made: X) -> X:
    """Return the first array that a call made; what comes with it is of no use to a network."""
    return next(tensors_in(made))


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
    if not made:
        return _move(y, input, other)
    summed = isqrt(left * right // made)
    return [Step(ops.MatMul((left // summed, summed), (summed, right // summed)), (input, other), (y,))]


@rule("outer", "ger")
def _outer(y: X, input: X, other: X, **_: X) -> Steps:
    return [Step(ops.Multiply(((*shape_of(input), 1), (1, *shape_of(other)))), (input, other), (y,))]


@rule("addr")
def _plus_outer(y: X, input: X, *vectors: X, **_: X) -> Steps:
    product = replace(_outer(y, *vectors)[0], makes=())
    return [product, Step(ops.Add((shape_of(input), shape_of(y))), (input, product), (y,))]


@rule("_grouped_mm")
def _grouped(y: X, left: X, right: X, offs: X = None, bias: X = None, *_rest: X, **_: X) -> Steps:
    """Return products of groups of rows, each with a matrix of its own; `offs` are where groups end.

    Rows, features or columns are divided among the groups; so their products are those of one pair of matrices.
    """
    require(bias is None, "a grouped product must have no bias, got one")
    if offs is None:
        return _matmul(y, left, right)
    steps = [Step(ops.Move((shape_of(x),), shape_of(x)[-2:]), (x,)) for x in (left, right) if x.dim() == 3]
    first, second = (steps[0] if x.dim() == 3 else x for x in (left, right))
    steps.append(Step(ops.MatMul(shape_of(left)[-2:], shape_of(right)[-2:]), (first, second)))
    return [*steps, Step(ops.Move((steps[-1].op.output,), shape_of(y)), (steps[-1],), (y,))]


@rule("cdist", "_cdist_forward", "_euclidean_dist")
def _distances(y: X, x1: X, x2: X, p: float = 2.0, *_rest: X, **_: X) -> Steps:
    """Return all distances between two arrays' rows, of which the 2-norm sums a square for each feature."""
    left, right = shape_of(x1), shape_of(x2)
    if p == 2:
        turned = (*right[:-2], right[-1], right[-2])
        return [Step(ops.MatMul(left, turned), (x1, x2), (y,))]
    apart = ops.Pointwise(((*left[:-1], 1, left[-1]), (*right[:-2], 1, *right[-2:])), "distance")
    each = Step(apart, (x1, x2))
    return [each, Step(ops.Reduce(apart.output, shape_of(y), "norm"), (each,), (y,))]


@rule("bilinear")
def _bilinear(y: X, first: X, second: X, weight: X, bias: X = None) -> Steps:
    """Return first @ weight @ second for each output: the first product has a row for each output and feature."""
    samples, (made, left, right) = prod(shape_of(y)[:-1]), (int(length) for length in weight.shape)
    op = ops.Linear((samples, left), made * right, bias=False)
    inner = Step(op, (first,), weights=(weight,))
    outer = Step(ops.MatMul((samples, made, right), (samples, right, 1)), (inner, second))
    if bias is None:
        return _making(y, [inner, outer])
    return [inner, outer, Step(ops.Add(((samples, made), (made,))), (outer, bias), (y,))]


@rule("affine_grid_generator")
def _affine_grid(y: X, theta: X, size: X, *_rest: X, **_: X) -> Steps:
    """Return where pixels come from: each pixel's coordinates and a one, times a matrix."""
    samples, lengths = int(size[0]), [int(length) for length in size[2:]]
    op = ops.MatMul((samples, prod(lengths), len(lengths) + 1), (samples, len(lengths) + 1, len(lengths)))
    pixels = Step(ops.Source(op.left), ())
    return [pixels, Step(op, (pixels, theta), (y,))]


def _making(y: X, steps: Steps) -> Steps:
    """Return the steps, of which the last makes the result."""
    return [*steps[:-1], replace(steps[-1], makes=(y,))]


@rule("einsum")
def _einsum(y: X, equation: str, *operands: X) -> Steps:
    arrays = tuple(tensors_in(operands))
    shapes = tuple(tuple(int(length) for length in x.shape) for x in arrays)
    return _making(y, products.einsum(equation.replace(" ", ""), arrays, shapes, ones=False))


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
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
    return [*repeated, *_making(_first(y), products.attention((query, key, value), (q, k, v), mask, fused=fused))]


# Recurrent layers and cells.


def _recurrent(y: X, input: X, *args: X, kind: str, gates: int) -> Steps:
    """Return a record for each layer and direction of arrays (steps, samples, features), or samples first.

    Packed sequences come with numbers of samples; all their elements are steps of one sample.
    """
    flag = next(place for place, value in enumerate(args) if isinstance(value, bool))
    states, weights, biased, layers, dropout, training, two_ways = args[flag - 2 : flag + 5]
    samples = 1 if flag == 3 else shape_of(input)[0 if args[flag + 5] else 1]
    length, ways = prod(shape_of(input)[:-1]) // (samples or 1), 1 + two_ways
    each = len(weights) // (layers * ways)
    projection = int(weights[each - 1].shape[0]) if each % 2 else 0
    steps: Steps = []
    layer: Steps = []
    for place in range(0, len(weights), each):
        own = weights[place : place + each]
        shape, hidden = (length, int(own[0].shape[1])), int(own[0].shape[0]) // gates
        op, reads = ops.Recurrent(shape, kind, hidden, projection, 2 * biased), steps[-1] if steps else input
        layer.append(Step(op, (reads,), weights=(*own, *tensors_in(states)), batch=samples))
        if len(layer) == ways:
            both = [_gathered(layer, (samples, length, ways * op.output[1]))] if two_ways else []
            steps, layer = [*steps, *layer, *both], []
            if training and dropout and place + each < len(weights):
                steps.append(
                    Step(ops.Pointwise((steps[-1].op.output,), "dropout"), (steps[-1],), batch=steps[-1].batch)
                )
    result, *last = tensors_in(y)
    steps = _making(result, steps)
    ends = [step for step in steps if isinstance(step.op, ops.Recurrent)]
    return [*steps, *(replace(_gathered(ends, shape_of(x)), makes=(x,)) for x in last)]


def _gathered(steps: Steps, shape: Shape) -> Step:
    """Return arrays that steps make, side by side."""
    return Step(ops.Move(tuple((step.batch, *step.op.output) for step in steps), shape), tuple(steps))


def _cell(y: X, input: X, hx: X, w_ih: X, w_hh: X, *biases: X, kind: str) -> Steps:
    weights, states = _present(w_ih, w_hh, *biases), tuple(tensors_in(hx))
    samples, (features,) = rows(shape_of(input))
    op = ops.Recurrent((1, features), kind, int(w_hh.shape[1]), biases=len(weights) - 2)
    result, *last = tensors_in(y)
    step = Step(op, (input,), (result,), (*weights, *states), samples)
    return [step, *(replace(_gathered([step], shape_of(x)), makes=(x,)) for x in last)]


for _kind, _gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
    rule(_kind, kind=_kind, gates=_gates)(_recurrent)
    rule(f"{_kind}_cell", kind=_kind)(_cell)


# Norms.

_F, _TORCH = "running_mean running_var weight bias", "weight bias running_mean running_var"


@rule("batch_norm", record=ops.BatchNorm, names=f"{_F} training")
@rule("_native_batch_norm_legit_no_training", "_batch_norm_with_update", record=ops.BatchNorm, names=_TORCH)
@rule(
    "torch.batch_norm",
    "aten.batch_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    record=ops.BatchNorm,
    names=f"{_TORCH} training",
)
@rule("instance_norm", record=ops.InstanceNorm, names=f"{_F} use_input_stats")
@rule("torch.instance_norm", "aten.instance_norm", record=ops.InstanceNorm, names=f"{_TORCH} use_input_stats")
def _channel_norm(y: X, input: X, *args: X, record: X, names: str, **options: X) -> Steps:
    """Return a norm of channels; F and torch have the same arguments in another order."""
    given = _arguments(names, args, options)
    weight = given.get("weight")
    measured = given.get("training", False) or given.get("use_input_stats", record is ops.InstanceNorm)
    batch, shape = channels_last(shape_of(input))
    weights = _present(weight, given.get("bias"))
    op = record(shape, affine=weight is not None)
    return [Step(op, (input,), (_first(y),), weights, batch, facts=facts(statistics=measured))]


@rule("group_norm")
def _group_norm(y: X, input: X, num_groups: int, *args: X, **options: X) -> Steps:
    record = partial(ops.GroupNorm, groups=num_groups)
    return _channel_norm(y, input, *args, record=record, names="weight bias", **options)


@rule("layer_norm", "native_layer_norm")
def _layer_norm(y: X, input: X, normalized_shape: X, weight: X = None, bias: X = None, *_rest: X, **_: X) -> Steps:
    axes = len(normalized_shape)
    batch, shape = rows(shape_of(input)) if input.dim() > axes else (1, shape_of(input))
    op = ops.LayerNorm(shape, axes=axes, affine=weight is not None, bias=bias is not None)
    known = facts(unbatched=input.dim() == axes)
    return [Step(op, (input,), (_first(y),), _present(weight, bias), batch, facts=known)]


RULES["rms_norm"] = RULES["_fused_rms_norm"] = lambda y, input, normalized_shape, weight=None, *_rest, **_: (
    _layer_norm(y, input, normalized_shape, weight)
)
RULES["native_group_norm"] = lambda y, input, weight, bias, _n, _c, _size, groups, _eps: _group_norm(
    y, input, groups, weight, bias
)


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
    return [Step(ops.Activation(shape, kind), (input,), (_first(y),), batch=batch)]


@rule("prelu", "_prelu_kernel")
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


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax")
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


@rule(*MOVES, *(f"{name}_copy" for name in MOVES))
def _move(result: X, *args: X, **options: X) -> Steps:
    """Return one record per array that is made; nothing is computed."""
    reads = _operands(args, options)
    shapes = tuple(map(shape_of, reads))
    return [Step(ops.Move(shapes, shape_of(made)), reads, (made,)) for made in tensors_in(result)]


@rule("index_add", "index_reduce", "scatter_add", "scatter_reduce", "put")
def _accumulated(y: X, input: X, *args: X, **options: X) -> Steps:
    """Return elements added to those at other places, in any order."""
    *places, given = _operands(args, options)
    added = Step(ops.Add((shape_of(given),)), (given,))
    shapes = tuple(map(shape_of, (input, *places, given)))
    return [added, Step(ops.Move(shapes, shape_of(y)), (input, *places, added), (y,))]


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(y: X, *args: X, **options: X) -> Steps:
    """Return sums of rows that are looked up, each times a number if `per_sample_weights` are given."""
    made, (first, second, *rest) = _first(y), _operands(args, options)
    table, places = (second, first) if second.is_floating_point() else (first, second)
    shape = (*shape_of(places), int(table.shape[-1]))
    rows_of = Step(ops.Move((shape_of(table), shape_of(places)), shape), (table, places))
    scales = [x for x in rest if x.is_floating_point()]
    scaled = [Step(ops.Multiply((shape, (*shape_of(x), 1))), (rows_of, x)) for x in scales]
    added = Step(ops.Add((shape,)), (scaled[-1] if scaled else rows_of,))
    return [rows_of, *scaled, added, Step(ops.Move((shape,), shape_of(made)), (added,), (made,))]


@rule(*LOSSES)
def _loss(y: X, input: X, *_rest: X, **_: X) -> Steps:
    made = _first(y)
    compared = Step(ops.Pointwise((shape_of(input),), "loss"), (input,))
    return [compared, Step(ops.Reduce(shape_of(input), shape_of(made), "sum"), (compared,), (made,))]


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
@rule("native_dropout")
def _dropout(y: X, input: X, p: float = 0.5, training: bool | None = True, *_rest: X, **_: X) -> Steps:
    made = _first(y)
    return _pointwise(made, input, kind="dropout") if training and p > 0 else _move(made, input)


@rule("_weight_norm_interface")
def _weight_norm(y: X, direction: X, length: X, *_rest: X) -> Steps:
    return _pointwise(_first(y), direction, length, kind="weight_norm")


@rule("where")
def _where(y: X, *args: X, **options: X) -> Steps:
    """Return elements of one array or another; of one array alone, the places where it is not zero."""
    return (
        _move(y, *args, **options)
        if len(args) + len(options) == 1
        else _pointwise(y, *args, kind="where", **options)
    )


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
RULES["setitem"] = lambda _result, input, *args: _move(input, input, *args)
for _name in SPECIAL:
    rule(_name, f"special_{_name}", kind="special")(_pointwise)
for _names, _rule in ((ACTIVATIONS, _activation), (POINTWISE, _pointwise), (REDUCTIONS, _reduce)):
    for _name, _kind in _names.items():
        if not _name[0].isupper() and _name not in RULES:
            rule(_name, kind=_kind)(_rule)
