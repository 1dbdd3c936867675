"""Rules of PyTorch's functions: what each call comes to.

A rule takes a call's result y, then the arguments under PyTorch's names, and returns steps. The same rules serve
the basic operators that a function without a rule executes.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from math import prod
from typing import Any, Final

from nachos_min.macs import ops
from nachos_min.macs.readers import names as tables
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import Step, both_sides, channels_last, facts, maps, require, rows
from nachos_min.macs.readers.torch_executed import routed_rows
from nachos_min.macs.readers.torch_graph import load_torch, shape_of, tensors_in
from nachos_min.macs.record import Operator, Shape

X = Any  # a tensor, or another argument of PyTorch's functions
Steps = list[Step]
Rule = Callable[..., Steps]
RULES: Final[dict[str, Rule]] = {}  # by a function's name, with its namespace where two differ


def rule(*names: str, order: str = "", **settings: X) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of PyTorch's functions, with these settings.

    `order` names the positional arguments that the rule wants, where PyTorch's functions have them in several.
    """

    def register(function: Rule) -> Rule:
        def ordered(y: X, *args: X, **options: X) -> Steps:
            return function(y, **(settings | dict(zip(order.split(), args, strict=False)) | options))

        RULES.update(dict.fromkeys(names, ordered if order else partial(function, **settings)))
        return function

    return register


def _numbers(value: X, axes: int) -> Shape:
    """Return one number per axis of what PyTorch takes as one for all or one per axis."""
    numbers = tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value),)
    return numbers * axes if len(numbers) == 1 else numbers


def _first(made: X) -> X:
    """Return the first array that a call made; what comes with it is of no use to a network."""
    return next(tensors_in(made))


def _present(*weights: X) -> tuple[X, ...]:
    return tuple(weight for weight in weights if weight is not None)


# Convolutions and linear layers.


_CONV = "input weight bias stride padding"
_layer: X = lru_cache(1024)(ops.Conv)  # networks repeat their layers, and those of one shape share a record


@rule("convolution", "_convolution", order=f"{_CONV} dilation transposed output_padding groups")
@rule("conv1d", "conv2d", "conv3d", order=f"{_CONV} dilation groups")
@rule(*(f"conv_transpose{n}d" for n in (1, 2, 3)), order=f"{_CONV} output_padding groups dilation", transposed=True)
def _convolution(
    y: X, input: X, weight: X, bias: X = None, groups: int = 1, transposed: bool = False, **given: X
) -> Steps:
    (channels, each, *kernel), axes, padding = shape_of(weight), weight.dim() - 2, given.get("padding", 0)
    batch, shape = maps(shape_of(input), axes)
    stride, dilation = (_numbers(given.get(name, 1), axes) for name in ("stride", "dilation"))
    word = padding if isinstance(padding, str) else ""
    sides: Shape = () if word else both_sides(_numbers(padding, axes))
    if word == "same":  # of an odd number of zeros PyTorch puts the extra one at the end
        needed = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = tuple(side for zeros in needed for side in (zeros // 2, zeros - zeros // 2))
    window = tuple(kernel), stride, sides, dilation, groups, bias is not None
    if transposed:
        extra = _numbers(given.get("output_padding", 0), axes)
        op: Operator = ops.ConvTranspose(shape, each * groups, *window, output_padding=extra)
    else:
        op = _layer(shape, channels, *window)
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


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm")
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


@rule("_grouped_mm")
def _grouped(y: X, left: X, right: X, offs: X = None, bias: X = None, *_rest: X, **_: X) -> Steps:
    """Return products of groups of rows, columns or features: as many as of one pair of matrices.

    `offs` are where groups end; rows after the last belong to none.
    """
    require(bias is None, "a grouped product must have no bias, got one")
    if offs is None:
        return _matmul(y, left, right)
    shapes = [shape_of(left)[-2:], shape_of(right)[-2:]]
    if right.dim() == 3:
        shapes[0] = (routed_rows(left, offs), shapes[0][1])
    steps = [Step(ops.Move((shape_of(x),), shape), (x,)) for x, shape in zip((left, right), shapes, strict=True)]
    product = Step(ops.MatMul(*shapes), tuple(steps))
    return [*steps, product, Step(ops.Move((product.op.output,), shape_of(y)), (product,), (y,))]


@rule("cdist", "_cdist_forward", "_euclidean_dist")
def _distances(y: X, x1: X, x2: X, p: float = 2.0, *_rest: X, **_: X) -> Steps:
    """Return all distances between two arrays' rows, of which the 2-norm sums a square for each feature."""
    left, right = shape_of(x1), shape_of(x2)
    if p == 2:
        turned = (*right[:-2], right[-1], right[-2])
        return [Step(ops.MatMul(left, turned), (x1, x2), (y,))]
    apart = ops.Pointwise(((*left[:-1], 1, left[-1]), (*right[:-2], 1, *right[-2:])), "distance")
    return _chained(y, (x1, x2), apart, ops.Reduce(apart.output, shape_of(y), "norm"))


@rule("aten._trilinear")
def _trilinear(y: X, first: X, weight: X, second: X, *axes: X) -> Steps:
    """Return first @ weight @ second for each output: the first product has a row for each output and feature."""
    require(list(map(list, axes[:4])) == [[1, 3], [0], [1, 2], [2, 3]], "no rule but for a bilinear layer's axes")
    (samples, _), (made, left, right) = shape_of(y), shape_of(weight)
    inner = Step(ops.Linear((samples, left), made * right, bias=False), (first,), weights=(weight,))
    return [inner, Step(ops.MatMul((samples, made, right), (samples, right, 1)), (inner, second), (y,))]


@rule("affine_grid_generator")
def _affine_grid(y: X, theta: X, size: X, *_rest: X, **_: X) -> Steps:
    """Return where pixels come from: each pixel's coordinates and a one, times a matrix."""
    samples, lengths = int(size[0]), [int(length) for length in size[2:]]
    op = ops.MatMul((samples, prod(lengths), len(lengths) + 1), (samples, len(lengths) + 1, len(lengths)))
    pixels = Step(ops.Source(op.left), ())
    return [pixels, Step(op, (pixels, theta), (y,))]


def _making(y: X, steps: Steps) -> Steps:
    return [*steps[:-1], replace(steps[-1], makes=(y,))]


def _chained(y: X, reads: tuple[X, ...], *ops_in_order: Operator) -> Steps:
    """Return steps of which the first reads these arrays, each further one what the one before made."""
    steps: Steps = []
    for op in ops_in_order:
        steps.append(Step(op, (steps[-1],) if steps else reads))
    return _making(y, steps)


@rule("einsum")
def _einsum(y: X, equation: str, *operands: X) -> Steps | Any:
    arrays = tuple(tensors_in(operands))
    if len(arrays) > 2:
        return NotImplemented  # pairwise, in an order that PyTorch chooses
    shapes = tuple(tuple(int(length) for length in x.shape) for x in arrays)
    return _making(y, products.einsum(equation.replace(" ", ""), arrays, shapes, ones=False))


_QKV = "query key value"


@rule("scaled_dot_product_attention", order=f"{_QKV} attn_mask dropout_p is_causal")
@rule("_scaled_dot_product_efficient_attention", order=f"{_QKV} attn_mask sums dropout_p is_causal")
@rule("_scaled_dot_product_flash_attention", order=f"{_QKV} dropout_p is_causal")
@rule("_scaled_dot_product_flash_attention_for_cpu", order=f"{_QKV} dropout_p is_causal")
def _attention(
    y: X, query: X, key: X, value: X, attn_mask: X = None, is_causal: bool = False, enable_gqa: bool = False, **_: X
) -> Steps:
    """Return attention; heads that are shared are repeated first."""
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    repeated: Steps = []
    if enable_gqa:
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
        repeated = [Step(ops.Move((shape_of(x),), shape), (x,)) for x, shape in ((key, k), (value, v))]
        key, value = repeated
    mask = None if attn_mask is None else (attn_mask, shape_of(attn_mask))
    steps = products.attention((query, key, value), (q, k, v), mask, causal=is_causal)
    return [*repeated, *_making(_first(y), steps)]


# Recurrent layers and cells.


def _recurrent(y: X, input: X, *args: X, kind: str) -> Steps:
    """Return a record a layer and direction; all elements of packed sequences are steps of one sample."""
    flag = next(place for place, value in enumerate(args) if isinstance(value, bool))
    states, weights, biased, layers, dropout, training, two_ways = args[flag - 2 : flag + 5]
    samples = 1 if flag == 3 else shape_of(input)[0 if args[flag + 5] else 1]
    length, ways, known = prod(shape_of(input)[:-1]) // (samples or 1), 1 + two_ways, facts(packed=flag == 3)
    each = len(weights) // (layers * ways)
    hidden = shape_of(list(tensors_in(states))[-1])[-1]
    projection = shape_of(weights[each - 1])[0] if each % 2 else 0
    steps: Steps = []
    for layer in range(layers):
        reads = steps[-1] if steps else input
        for place in range(layer * ways * each, (layer + 1) * ways * each, each):
            own = weights[place : place + each]
            op = ops.Recurrent((length, shape_of(own[0])[1]), kind, hidden, projection, 2 * biased)
            steps.append(Step(op, (reads,), weights=(*own, *tensors_in(states)), batch=samples, facts=known))
        if two_ways:
            steps.append(_gathered(steps[-2:], (samples, length, 2 * op.output[1])))
        if training and dropout and layer < layers - 1:
            made = steps[-1]
            steps.append(Step(ops.Pointwise((made.op.output,), "dropout"), (made,), batch=made.batch))
    return _with_states(y, steps)


def _with_states(y: X, steps: Steps) -> Steps:
    """Return the steps, and the last states of all layers and directions."""
    result, *last = tensors_in(y)
    steps = _making(result, steps)
    ends = [step for step in steps if isinstance(step.op, ops.Recurrent)]
    return [*steps, *(replace(_gathered(ends, shape_of(x)), makes=(x,)) for x in last)]


def _gathered(steps: Steps, shape: Shape) -> Step:
    """Return arrays that steps make, side by side."""
    return Step(ops.Move(tuple((step.batch, *step.op.output) for step in steps), shape), tuple(steps))


@rule("mkldnn_rnn_layer")
def _recurrent_layer(y: X, input: X, *args: X) -> Steps:
    biased, (length, samples, features) = args[11], shape_of(input)
    op = ops.Recurrent((length, features), "lstm", args[9], biases=2 * biased)
    return _with_states(y, [Step(op, (input,), weights=(*args[: 2 + 2 * biased], *args[4:6]), batch=samples)])


def _cell(y: X, input: X, hx: X, w_ih: X, w_hh: X, *biases: X, kind: str) -> Steps:
    weights, (samples, (features,)) = _present(w_ih, w_hh, *biases), rows(shape_of(input))
    op = ops.Recurrent((1, features), kind, int(w_hh.shape[1]), biases=len(weights) - 2)
    return _with_states(y, [Step(op, (input,), weights=(*weights, *tensors_in(hx)), batch=samples)])


for _kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    rule(_kind, kind=_kind)(_recurrent)
    rule(f"{_kind}_cell", kind=_kind)(_cell)


# Norms.

_SCALE, _MEASURED = "weight bias", "running_mean running_var"
_F, _TORCH = f"input {_MEASURED} {_SCALE}", f"input {_SCALE} {_MEASURED}"
_BATCH = ("torch.batch_norm", "aten.batch_norm", "native_batch_norm", "_native_batch_norm_legit")


@rule("batch_norm", record=ops.BatchNorm, order=f"{_F} training")
@rule(*_BATCH, record=ops.BatchNorm, order=f"{_TORCH} training")
@rule("_native_batch_norm_legit_no_training", "_batch_norm_with_update", record=ops.BatchNorm, order=_TORCH)
@rule("instance_norm", record=ops.InstanceNorm, order=f"{_F} use_input_stats", use_input_stats=True)
@rule("torch.instance_norm", "aten.instance_norm", record=ops.InstanceNorm, order=f"{_TORCH} use_input_stats")
def _channel_norm(y: X, input: X, record: X, weight: X = None, bias: X = None, **given: X) -> Steps:
    batch, shape = channels_last(shape_of(input))
    known = facts(statistics=given.get("training") or given.get("use_input_stats", False))
    op = record(shape, affine=weight is not None)
    return [Step(op, (input,), (_first(y),), _present(weight, bias), batch, facts=known)]


@rule("group_norm", order=f"input num_groups {_SCALE}")
@rule("native_group_norm", order=f"input {_SCALE} samples channels pixels num_groups")
def _group_norm(y: X, input: X, num_groups: int, weight: X = None, bias: X = None, **_: X) -> Steps:
    return _channel_norm(y, input, partial(ops.GroupNorm, groups=num_groups), weight, bias)


@rule("layer_norm", "native_layer_norm", order=f"input normalized_shape {_SCALE}")
@rule("rms_norm", "_fused_rms_norm", order="input normalized_shape weight")
def _layer_norm(y: X, input: X, normalized_shape: X, weight: X = None, bias: X = None, **_: X) -> Steps:
    axes = len(normalized_shape)
    batch, shape = rows(shape_of(input)) if input.dim() > axes else (1, shape_of(input))
    op = ops.LayerNorm(shape, axes=axes, affine=weight is not None, bias=bias is not None)
    known = facts(unbatched=input.dim() == axes)
    return [Step(op, (input,), (_first(y),), _present(weight, bias), batch, facts=known)]


# Pools and interpolation.


def _pool(y: X, input: X, kernel_size: X, axes: int, record: X, ceil_mode: bool = False, **given: X) -> Steps:
    (batch, shape), size = maps(shape_of(input), axes), _numbers(kernel_size, axes)
    padding, dilation = _numbers(given.get("padding", 0), axes), _numbers(given.get("dilation", 1), axes)
    op = record(shape, size, _numbers(given.get("stride") or size, axes), both_sides(padding), dilation, ceil_mode)
    return [Step(op, (input,), tuple(tensors_in(y)), batch=batch)]


def _resized(y: X, input: X, *_rest: X, axes: int, record: X, **_: X) -> Steps:
    batch, shape = maps(shape_of(input), axes)
    made = tuple(tensors_in(y))  # values, and positions where PyTorch gives both
    *size, _channels = maps(shape_of(made[0]), axes)[1]
    return [Step(record(shape, size=tuple(size)), (input,), made, batch=batch)]


_POOL = "input kernel_size stride padding"
for _axes in (1, 2, 3):
    _max, _avg = f"max_pool{_axes}d", f"avg_pool{_axes}d"
    _order = f"{_POOL} dilation ceil_mode"
    rule(_max, f"{_max}_with_indices", axes=_axes, record=ops.MaxPool, order=_order)(_pool)
    rule(_avg, axes=_axes, record=ops.AvgPool, order=f"{_POOL} ceil_mode")(_pool)
    rule(f"adaptive_{_avg}", f"_adaptive_{_avg}", axes=_axes, record=ops.AdaptiveAvgPool)(_resized)
    for _form in (f"adaptive_{_max}", f"fractional_{_max}"):
        rule(_form, f"{_form}_with_indices", axes=_axes, record=ops.AdaptiveMaxPool)(_resized)


@rule("interpolate", order="input size scale_factor mode")
def _interpolate(y: X, input: X, size: X = None, mode: str = "nearest", **_: X) -> Steps:
    known = facts(size=isinstance(size, tuple | list), side=isinstance(size, int))
    steps = _resized(y, input, axes=input.dim() - 2, record=partial(ops.Resize, mode=mode))
    return [replace(step, facts=known) for step in steps]


for _name, _mode in tables.UPSAMPLING.items():
    rule(f"upsample_{_name}", f"_upsample_{_name}", mode=_mode, order="input")(_interpolate)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def _grid_sample(y: X, input: X, grid: X, mode: int, *_rest: X, **_: X) -> Steps:
    """Return values between pixels, of modes 0 linear, 1 nearest, 2 cubic: four rows of 4 and a column."""
    return _move(y, input, grid) if mode == 1 else _sampled(y, input, grid, 20 if mode else 2 ** grid.shape[-1])


def _sampled(y: X, input: X, places: X, terms: int) -> Steps:
    return [Step(ops.Sample((shape_of(input), shape_of(places)), shape_of(y), terms), (input, places), (y,))]


@rule("torchvision.roi_align", "torchvision.ps_roi_align")
def _regions(y: X, input: X, rois: X, *args: X) -> Steps:
    """Return means of `args[3]` points in each direction, each a sum of 4 products."""
    require(args[3] > 0, "a region's number of points must not depend on its size, got sampling_ratio <= 0")
    return _sampled(_first(y), input, rois, 4 * args[3] ** 2)


@rule("torchvision.deform_conv2d")
def _deformed(y: X, input: X, weight: X, offset: X, mask: X, bias: X, *args: X) -> Steps:
    """Return a 1x1 convolution of the values that all taps read between pixels."""
    (samples, (*size, channels)), groups, masked = maps(shape_of(y), 2), args[6], args[8]
    shape = (samples, *size, int(input.shape[1]) * prod(weight.shape[2:]))
    steps = [Step(ops.Sample((shape_of(input), shape_of(offset)), shape, 4), (input, offset))]
    if masked:
        scales = Step(ops.Move((shape_of(mask),), shape), (mask,))
        steps += [scales, Step(ops.Multiply((shape, shape)), (steps[0], scales))]
    op = ops.Conv(shape[1:], channels, (1, 1), groups=groups, bias=bias is not None)
    return [*steps, Step(op, (steps[-1],), (y,), _present(weight, bias), samples)]


@rule("_fft_c2c", "_fft_r2c", "_fft_c2r")
def _transforms(y: X, input: X, dim: X, *_rest: X, **_: X) -> Steps:
    """Return a transform along each axis; where one half mirrors the other, both are taken to be computed."""
    shape = shape_of(max(input, y, key=lambda x: x.numel()))
    transforms = [ops.Transform(shape, shape[axis]) for axis in dim]
    before, after = (([] if shape_of(x) == shape else [x]) for x in (input, y))
    moved = [ops.Move((shape_of(x),), shape) for x in before]
    return _chained(y, (input,), *moved, *transforms, *(ops.Move((shape,), shape_of(x)) for x in after))


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


@rule("hardtanh")
def _hardtanh(y: X, input: X, min_val: float = -1, max_val: float = 1, *_rest: X, **_: X) -> Steps:
    """Return a clip, which from 0 to 6 is relu6 however it is written."""
    return _activation(y, input, kind="relu6" if (min_val, max_val) == (0, 6) else "hardtanh")


@rule("clamp", "clip")
def _clamp(y: X, input: X, min: X = None, max: X = None, **_: X) -> Steps:
    numbers = not any(True for _ in tensors_in((min, max)))
    is_relu6 = numbers and (min, max) == (0, 6)
    return _activation(y, input, kind="relu6") if is_relu6 else _pointwise(y, input, min, max, kind="clamp")


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax")
def _softmax(y: X, input: X, dim: int | None = None, *_rest: X, **_: X) -> Steps:
    if dim is None:  # F.softmax's old rule for an axis that is not named
        dim = 0 if input.dim() in (0, 1, 3) else 1
    shape = shape_of(input)
    batch, row = (1, shape) if dim in (0, -input.dim()) else rows(shape)
    return [Step(ops.Softmax(row, shape[dim]), (input,), (y,), batch=batch)]


def _operands(args: X, options: dict[str, X]) -> tuple[X, ...]:
    return tuple(tensors_in((args, {key: value for key, value in options.items() if key != "out"})))


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


@rule(*tables.MOVES, *(f"{name}_copy" for name in tables.MOVES))
@rule("tensor", "as_tensor", "asarray")
def _move(result: X, *args: X, **options: X) -> Steps:
    """Return one record per array that is made of others; nothing is computed."""
    reads = _operands(args, options)
    shapes = tuple(map(shape_of, reads))
    return [Step(ops.Move(shapes, shape_of(made)), reads, (made,)) for made in tensors_in(result) if reads]


@rule("index_add", "index_reduce", "scatter_add", "scatter_reduce", "put")
def _accumulated(y: X, input: X, *args: X, **options: X) -> Steps:
    """Return elements added to those at other places, in any order."""
    *places, given = _operands(args, options)
    added = Step(ops.Add((shape_of(given),)), (given,))
    shapes = tuple(map(shape_of, (input, *places, given)))
    return [added, Step(ops.Move(shapes, shape_of(y)), (input, *places, added), (y,))]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(y: X, table: X, places: X, *options: X) -> Steps:
    """Return sums of rows that are looked up, each times a number if the call has some."""
    shape, made = (*shape_of(places), shape_of(table)[-1]), _first(y)
    looked_up = ops.Move((shape_of(table), shape_of(places)), shape)
    scaled = [ops.Multiply((shape,)) for x in tensors_in(options) if x.is_floating_point()]
    last = ops.Move((shape,), shape_of(made))
    return _chained(made, (table, places), looked_up, *scaled, ops.Add((shape,)), last)


@rule(*tables.LOSSES)
def _loss(y: X, input: X, *_rest: X, **_: X) -> Steps:
    made, shape = _first(y), shape_of(input)
    return _chained(made, (input,), ops.Pointwise((shape,), "loss"), ops.Reduce(shape, shape_of(made), "sum"))


@rule("pad", order="input pad mode value")
@rule("constant_pad_nd", order="input pad value")
def _pad(y: X, input: X, pad: X, mode: str = "constant", value: X = None) -> Steps:
    zeros = mode == "constant" and not value and min(pad, default=0) >= 0
    return [replace(step, border=tuple(pad) if zeros else ()) for step in _move(y, input)]


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "native_dropout")
@rule("alpha_dropout", "feature_dropout", "feature_alpha_dropout")
def _dropout(y: X, input: X, p: float = 0.5, training: bool | None = True, *_rest: X, **_: X) -> Steps:
    made = _first(y)
    return _pointwise(made, input, kind="dropout") if training and p > 0 else _move(made, input)


@rule("where")
def _where(y: X, *args: X, **options: X) -> Steps:
    """Return elements of one array or another; of one array alone, the places where it is not zero."""
    places = len(args) + len(options) == 1
    return _move(y, *args, **options) if places else _pointwise(y, *args, kind="where", **options)


RULES["_weight_norm_interface"] = lambda y, *args: _pointwise(_first(y), *args, kind="weight_norm")
RULES["rmatmul"] = lambda y, input, other: _matmul(y, other, input)
RULES["setitem"] = lambda _result, input, *args: _move(input, input, *args)
rule("aten.norm", kind="norm")(_reduce)
rule("mul", "multiply", "linalg_cross", record=ops.Multiply)(_elementwise)
rule("add", record=ops.Add)(_elementwise)
rule(*tables.CONSTANTS)(lambda *_, **__: [])  # an array that is not computed becomes a source when it is read
for _name, _kind in tables.ACTIVATIONS.items():
    rule(_name, f"quantized.{_name}", kind=_kind)(_activation)
for _table, _function in ((tables.POINTWISE, _pointwise), (tables.REDUCTIONS, _reduce)):
    for _name, _kind in _table.items():
        for _full in (_name, f"special_{_name}"):
            RULES.setdefault(_full, partial(_function, kind=_kind))


# Quantized layers. Their packed weights are the trained values.


@cache
def _held(_identity: int, shape: Shape) -> X:
    """Return an array that stands for packed weights, always the same one: unpacked, they are new each time."""
    torch = load_torch()
    return torch.nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)


def _unpacked(packed: X) -> list[X]:
    with load_torch().utils._python_dispatch._disable_current_modes():  # unpacking is none of the network's work
        shapes = [x if x is None else tuple(x.shape) for x in packed.unpack()]
    return [x if x is None else _held(hash(packed), x) for x in shapes]


def _packed_layer(y: X, input: X, packed: X, axes: int) -> Steps:
    """Return a convolution of so many axes, or for 0 a linear layer."""
    weight, bias = _unpacked(packed)
    if not axes:
        return _linear(y, input, weight, bias)
    weight = _held(hash(packed), (*weight.shape[:2], *weight.shape[-axes:]))  # a sequence's has a height of 1, too
    names = ["stride", "padding", "dilation", *(["output_padding"] if packed.transpose() else [])]
    given = {name: getattr(packed, name)()[-axes:] for name in names}
    return _convolution(y, input, weight, bias, packed.groups(), packed.transpose(), **given)


def _quantized(y: X, *args: X, plain: Rule, kind: str, **_: X) -> Steps:
    """Return the steps of a rule of two arguments, and an activation after them if it has a kind."""
    steps = plain(y, *args[:2])
    if kind:
        before = steps[-1] = replace(steps[-1], makes=())
        steps.append(Step(ops.Activation(before.op.output, kind), (before,), (y,), batch=before.batch))
    return steps


@rule("aten.quantized_lstm", "quantized_lstm", kind="lstm")
@rule("aten.quantized_gru", "quantized_gru", kind="gru")
def _quantized_recurrent(y: X, input: X, *args: X, kind: str, **_: X) -> Steps:
    """Return recurrent layers whose cells have packed weights beside the biases."""
    flag = next(place for place, value in enumerate(args) if isinstance(value, bool))
    weights: list[X] = []
    for cell in args[flag - 1]:
        (_, biases, _, _, packed), _ = cell.__getstate__()
        kernels = [_unpacked(each)[0] for each in packed]
        weights += [_held(hash((cell, i)), tuple(x.shape)) for i, x in enumerate([*kernels, *biases])]
    return _recurrent(y, input, *args[: flag - 1], weights, *args[flag:], kind=kind)


for _end in ("", "_relu", "_leaky_relu", "_tanh"):
    _quantize = partial(_quantized, kind=_end.removeprefix("_"))
    for _axes, _base in enumerate(("linear", "conv1d", "conv2d", "conv3d")):
        _forms = [f"{_base}{_end}{_form}" for _form in ("", "_dynamic", "_dynamic_fp16")]
        for _name in (*_forms, f"conv_transpose{_axes}d{_end}"):
            RULES[f"quantized.{_name}"] = partial(_quantize, plain=partial(_packed_layer, axes=_axes))
    for _name in ("add", "mul"):
        for _form in ("", "_scalar"):
            RULES[f"quantized.{_name}{_form}{_end}"] = partial(_quantize, plain=RULES[_name])
for _name in ("prelu", "softmax", "group_norm", "layer_norm", "cat"):
    RULES[f"quantized.{_name}"] = RULES[_name]
for _name, _kind in tables.QUANTIZING.items():
    for _base in (_name, f"quantized_decomposed.{_name}"):
        RULES[_base] = lambda y, input, *_, kind=_kind, **__: _pointwise(_first(y), input, kind=kind)
