"""Rules of the operators that join, cut, pick and put elements: concat, split, slice, gather, pad, resize.

Read `call.py` and `rules_shapes.py` first. Where the shape of what is made depends on the data, there is no rule.
"""

from itertools import accumulate

import numpy as np

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.call import Call, Fold
from nachos_min.macs.onnx_reader.rules_norms import checked_axes
from nachos_min.macs.ops import Move
from nachos_min.macs.record import CountError, Shape


def concat(call: Call) -> tuple[Array, ...]:
    """Return what Concat makes: arrays joined along an axis."""
    arrays = call.given()
    shapes = tuple(array.shape for array in arrays)
    (axis,) = checked_axes((call.attributes.integer("axis", 0),), len(shapes[0]))
    rest = {(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}
    if len(rest) > 1:
        raise CountError(f"arrays must differ in axis {axis} only, got {shapes[:8]}")
    shape = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    return (call.move(arrays, shape, lambda *values: np.concatenate(values, axis)),)


def split(call: Call) -> tuple[Array, ...]:
    """Return what Split makes: parts of the sizes given, or equal ones, of which the last may be smaller."""
    x = call.input()
    (axis,) = checked_axes((call.attributes.integer("axis", 0),), len(x.shape))
    length = x.shape[axis]
    parts = call.attributes.integer("num_outputs", call.outputs)
    if parts != call.outputs or parts < 1:
        raise CountError(f"num_outputs must be the number of outputs, {call.outputs}, got {parts}")
    each = -(-length // parts)
    sizes = call.setting("split", 1, (*(each,) * (parts - 1), length - each * (parts - 1)))
    if len(sizes) != call.outputs or sum(sizes) != length or min(sizes) < 0:
        raise CountError(f"{call.outputs} parts must add up to {length}, got {sizes[:64]}")
    ends = tuple(accumulate(sizes))
    return tuple(
        _part(call, x, axis, end - size, end, part)
        for part, (size, end) in enumerate(zip(sizes, ends, strict=True))
    )


def cut(call: Call) -> tuple[Array, ...]:
    """Return what Slice makes."""
    x = call.input()
    starts, ends = call.setting("starts", 1, ()), call.setting("ends", 2, ())
    axes = checked_axes(call.setting("axes", 3, tuple(range(len(starts)))), len(x.shape))
    steps = call.setting("steps", 4, (1,) * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise CountError(f"starts, ends, axes and steps must be as many, and no step 0, got steps {steps[:64]}")
    window = [slice(None)] * len(x.shape)
    shape = list(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        window[axis], shape[axis] = _run(start, end, step, x.shape[axis])
    return (call.move((x,), tuple(shape), lambda values: values[tuple(window)]),)


def gather(call: Call) -> tuple[Array, ...]:
    """Return what Gather makes: places of one axis picked by number, as in an embedding."""
    x, places = call.input(), call.input(1)
    (axis,) = checked_axes((call.attributes.integer("axis", 0),), len(x.shape))
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    return (_looked_up(call, x, places, shape, lambda values, numbers: np.take(values, numbers.astype(int), axis)),)


def gather_elements(call: Call) -> tuple[Array, ...]:
    """Return what GatherElements makes: one element for each place given."""
    x, places = call.input(), call.input(1)
    axis = call.attributes.integer("axis", 0)
    return (
        _looked_up(
            call, x, places, places.shape, lambda values, numbers: np.take_along_axis(values, numbers, axis)
        ),
    )


def gather_nd(call: Call) -> tuple[Array, ...]:
    """Return what GatherND makes: the last axis of the places names an element or a part."""
    x, places = call.input(), call.input(1)
    skipped = call.attributes.integer("batch_dims", 0)
    if not places.shape or not 0 <= skipped < len(places.shape) or skipped + places.shape[-1] > len(x.shape):
        raise CountError(f"places {places.shape} must fit the axes of {x.shape}, got batch_dims {skipped}")
    shape = (*places.shape[:-1], *x.shape[skipped + places.shape[-1] :])
    return (call.move((x, places), shape, None),)


def scatter(call: Call) -> tuple[Array, ...]:
    """Return what the Scatter operators make: the same array with some elements replaced."""
    arrays = tuple(call.input(index) for index in (0, 1, 2))
    return (call.move(arrays, arrays[0].shape, None),)


def pad(call: Call) -> tuple[Array, ...]:
    """Return what Pad makes; negative numbers cut."""
    x = call.input()
    axes = checked_axes(call.integers(3, "axes") if call.optional(3) else tuple(range(len(x.shape))), len(x.shape))
    pads = call.setting("pads", 1, ())
    if len(pads) != 2 * len(axes):
        raise CountError(f"pads must be {2 * len(axes)} integers, got {pads[:64]}")
    shape = list(x.shape)
    for place, axis in enumerate(axes):
        shape[axis] += pads[place] + pads[place + len(axes)]
    return (call.move((x,), tuple(shape), None),)


def depth_to_space(call: Call) -> tuple[Array, ...]:
    """Return what DepthToSpace or SpaceToDepth makes: channels for blocks of pixels, or back."""
    x, block = call.input(), call.attributes.integer("blocksize", 0)
    into_depth = call.operator == "SpaceToDepth"
    divisors = (1, 1, block, block) if into_depth else (1, block * block, 1, 1)
    if block < 1 or len(x.shape) != 4 or any(n % d for n, d in zip(x.shape, divisors, strict=True)):
        raise CountError(f"blocksize must be >= 1 and divide the axes of {x.shape}, got {block}")
    batch, channels, height, width = (n // d for n, d in zip(x.shape, divisors, strict=True))
    factor = (channels * block * block, height, width) if into_depth else (channels, height * block, width * block)
    return (call.move((x,), (batch, *factor), None),)


def top_k(call: Call) -> tuple[Array, ...]:
    """Return what TopK makes: the largest elements along an axis, and their places."""
    x = call.input()
    (axis,) = checked_axes((call.attributes.integer("axis", -1),), len(x.shape))
    count = call.attributes.integer("k", 0) if call.opset < 10 else (*call.integers(1, "k"), -1)[0]
    if not 0 <= count <= x.shape[axis]:
        raise CountError(f"k must be 0 to {x.shape[axis]}, got {count}")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return tuple(call.move((x,), shape, None, part) for part in (0, 1))


def one_hot(call: Call) -> tuple[Array, ...]:
    """Return what OneHot makes: a further axis that is on at one place."""
    places = call.input()
    (depth,) = call.integers(1, "depth")[:1] or (-1,)
    (axis,) = checked_axes((call.attributes.integer("axis", -1),), len(places.shape) + 1)
    return (call.move((places,), (*places.shape[:axis], depth, *places.shape[axis:]), None),)


def same_shape(call: Call) -> tuple[Array, ...]:
    """Return an array of the same shape whose elements are moved or blotted out."""
    x = call.input()
    return (call.move((x,), x.shape, None),)


def _part(call: Call, x: Array, axis: int, begin: int, end: int, part: int) -> Array:
    window = (slice(None),) * axis + (slice(begin, end),)
    shape = (*x.shape[:axis], end - begin, *x.shape[axis + 1 :])
    return call.move((x,), shape, lambda values: values[window], part)


def _run(start: int, end: int, step: int, length: int) -> tuple[slice, int]:
    """Return the slice of an axis that Python understands, and its length; ends beyond the axis are cut off.

    Backwards, an end before the first element is None: Python would count -1 from the back.
    """
    least, most = (0, length) if step > 0 else (-1, length - 1)
    first, last = (min(max(n + length if n < 0 else n, least), most) for n in (start, end))
    count = max(0, -((first - last) // step))
    return slice(first, None if last < 0 else last, step), count


def _looked_up(call: Call, x: Array, places: Array, shape: Shape, fold: Fold) -> Array:
    """Return elements of x at places; fixed places are no operand, just as in `x[:, 0]`."""
    if places.constant and not x.constant:
        return call.add(Move((x.shape,), shape or (1,)), (x,), shape)
    return call.move((x, places), shape, fold)
