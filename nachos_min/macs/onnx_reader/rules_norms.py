"""Rules of the operators that normalise.

Read `call.py` first. Scale and shift count as trained if they are initialisers; running means and variances are
measured. Where a file spells a norm out (subtract the mean, square, ...), its operators are counted one by one.
"""

from math import prod

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.assembly import record_shape, rows
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Reduce
from nachos_min.macs.record import CountError, Shape


def batch_norm(call: Call) -> tuple[Array, ...]:
    """Return what BatchNormalization makes; running statistics that it updates are not followed."""
    x, parameters = call.input(), tuple(call.input(index) for index in (1, 2, 3, 4))
    batch, sample = _channels_last(x)
    _check_channels(parameters, sample[-1])
    op = BatchNorm(sample, affine=parameters[0].trained)
    return (call.layer(op, x, x.shape, batch, parameters[:2]),)


def instance_norm(call: Call) -> tuple[Array, ...]:
    """Return what InstanceNormalization makes."""
    x, parameters = call.input(), (call.input(1), call.input(2))
    batch, sample = _channels_last(x)
    _check_channels(parameters, sample[-1])
    op = InstanceNorm(sample, affine=parameters[0].trained)
    return (call.layer(op, x, x.shape, batch, parameters),)


def group_norm(call: Call) -> tuple[Array, ...]:
    """Return what GroupNormalization makes; up to operator set 20 its scale has one number per group."""
    x, parameters = call.input(), (call.input(1), call.input(2))
    batch, sample = _channels_last(x)
    groups = call.attributes.integer("num_groups", 0)
    whole = all(array.shape == (sample[-1],) for array in parameters)
    if not whole:
        _check_channels(parameters, groups)
    op = GroupNorm(sample, groups, affine=whole and parameters[0].trained)
    return (call.layer(op, x, x.shape, batch, parameters),)


def layer_norm(call: Call) -> tuple[Array, ...]:
    """Return what LayerNormalization or RMSNormalization makes."""
    x, scale, shift = call.input(), call.input(1), call.optional(2)
    axis = call.attributes.integer("axis", -1)
    axis += len(x.shape) if axis < 0 else 0
    if not 0 <= axis < len(x.shape):
        raise CountError(f"attribute 'axis' must name one of {len(x.shape)} axes, got {axis}")
    batch, sample = rows(x.shape) if axis else (1, x.shape)
    features = prod(x.shape[axis:])
    parameters = (scale,) if shift is None else (scale, shift)
    whole = [array.trained and array.elements == features for array in parameters]
    op = LayerNorm(sample, len(x.shape) - axis, affine=whole[0], bias=len(whole) > 1 and whole[1])
    return (call.layer(op, x, x.shape, batch, parameters),)


def reduce(call: Call) -> tuple[Array, ...]:
    """Return a mean, sum or other reduction; its axes are an attribute or, in newer operator sets, an input."""
    x = call.input()
    axes = call.setting("axes", 1, ())
    if not axes and call.attributes.integer("noop_with_empty_axes", 0):
        return (x,)
    return (reduced(call, x, axes, call.attributes.integer("keepdims", 1) != 0),)


def arg_reduce(call: Call) -> tuple[Array, ...]:
    """Return the places of the largest or smallest elements along one axis."""
    axes = (call.attributes.integer("axis", 0),)
    return (reduced(call, call.input(), axes, call.attributes.integer("keepdims", 1) != 0),)


def reduced(call: Call, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    """Return a reduction.

    Args:
        call: whose operator says which.
        x: what is reduced.
        axes: over which, from the end if negative; all if there is none.
        keep: whether they stay as axes of length 1.

    Raises:
        CountError: an axis that the array does not have.
    """
    gone = checked_axes(axes, len(x.shape)) or tuple(range(len(x.shape)))
    kept: Shape = tuple(
        1 if axis in gone else length for axis, length in enumerate(x.shape) if keep or axis not in gone
    )
    fold = _FOLDS.get(call.operator)
    if fold is not None and x.values is not None and not x.trained:
        return call.move((x,), kept, lambda values: getattr(values, fold)(axis=gone, keepdims=keep))
    kind = REDUCTIONS.get(call.operator, call.operator.lower())
    return call.add(Reduce(record_shape(x.shape), record_shape(kept), kind), (x,), kept)


REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
    "ReduceSumSquare": "sum_square",
}
_FOLDS = {"ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


def checked_axes(axes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return axes counted from the front.

    Args:
        axes: from the end if negative.
        count: number of axes there are.

    Raises:
        CountError: there is no such axis, or one is named twice.
    """
    found = tuple(axis + count if axis < 0 else axis for axis in axes)
    if any(not 0 <= axis < count for axis in found) or len(set(found)) != len(found):
        raise CountError(f"axes must be different ones of {count}, got {axes}")
    return found


def _channels_last(x: Array) -> tuple[int, Shape]:
    if len(x.shape) < 2:
        raise CountError(f"must read an array (N, C, ...), got {x.shape}")
    image = x.shape[2:]
    return x.shape[0], (*((1,) if len(image) == 1 else ()), *image, x.shape[1])


def _check_channels(parameters: tuple[Array, ...], channels: int) -> None:
    for array in parameters:
        if array.shape != (channels,):
            raise CountError(f"scale and shift must have shape ({channels},), got {array.shape}")
