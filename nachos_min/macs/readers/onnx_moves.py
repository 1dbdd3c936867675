"""Rules of ONNX operators that only move elements, and of those that make constants.

Exported networks compute shapes by them, so constants are folded. A shape that depends on the data has no rule.

Source: the ONNX operator reference; Resize makes floor(length * scale).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import prod
from operator import itemgetter
from typing import Any

import numpy as np

from nachos_min.macs.ops import Move, Resize
from nachos_min.macs.readers import onnx_call
from nachos_min.macs.readers.builder import array_shape, maps, quoted, require
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, integers, rule
from nachos_min.macs.readers.onnx_file import MAX_NUMBERS, Tensor
from nachos_min.macs.record import CountError, Shape, broadcast

_VALUES: dict[str, Any] = {"value_int": int, "value_ints": tuple, "value_float": float, "value_floats": list}
_MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}  # of one axis: as in the file


# Constants.


@rule("Constant")
def _constant(call: Call) -> Array:
    if (tensor := call.attribute("value", Tensor)) is not None:
        return onnx_call.from_tensor(tensor, call.key, trainable=False)
    for name, kind in _VALUES.items():
        if name in call.attributes:
            dtype = np.int64 if kind in (int, tuple) else np.float32
            return call.constant(np.array(call.attribute(name, kind), dtype))
    if "value_string" in call.attributes:
        return call.unknown(())
    raise CountError(f"a Constant must have a value of numbers, got attributes {sorted(call.attributes)[:4]}")


@rule("ConstantOfShape")
def _constant_of_shape(call: Call) -> Array:
    shape = onnx_call.checked_shape(call.fixed(0, "shape"))
    tensor: Tensor | None = call.attribute("value", Tensor)
    values = np.zeros(1, np.float32) if tensor is None else tensor.values
    if values is None or values.size != 1:
        return call.unknown(shape)
    return call.filled(shape, lambda: np.full(shape, values.ravel()[0]))


@rule("Range")
def _numbers_from_to(call: Call) -> Array:
    known = [call.input(index).values for index in (0, 1, 2)]
    numbers = [each.item() for each in known if each is not None and each.size == 1 and np.isfinite(each).all()]
    require(len(numbers) == 3, f"three fixed numbers must be given, got {len(numbers)} such")
    start, limit, step = numbers
    steps = -((start - limit) // step) if step else np.inf
    require(np.isfinite(float(steps)), f"step of Range must not be 0 or next to it, got {step}")
    length = max(0, int(steps))
    return call.filled((length,), lambda: [start + step * place for place in range(length)])


# Arrays whose length depends on the data: the most that it can be. Of constants it is known.


def _at_most(call: Call, shape: Shape, *arrays: Array, part: int = 0) -> Array:
    return replace(call.move(shape, None, *arrays, part=part), bounded=True)


@rule("NonZero")
def _places_of_ones(call: Call, x: Array) -> Array:
    if x.values is None:
        return _at_most(call, (max(1, len(x.shape)), x.elements), x)
    values = np.atleast_1d(x.values)
    shape = (values.ndim, int(np.count_nonzero(values)))
    return call.filled(shape, lambda: np.array(np.nonzero(values), dtype=np.int64))


@rule("Unique")
def _different(call: Call, x: Array) -> tuple[Array, ...]:
    """Return what differs, where it is first, which of those each one is, and how often that occurs."""
    along = "axis" in call.attributes
    shape, axis = (x.shape, call.axis(0, len(x.shape))) if along else ((x.elements,), 0)
    each, whole = (_at_most(call, (shape[axis],), x, part=part) for part in (1, 2))
    return _at_most(call, shape, x), each, replace(whole, bounded=False), each


@rule("NonMaxSuppression")
def _best_boxes(call: Call, boxes: Array, scores: Array, most: Array | None = None) -> Array:
    """Return the sample, class and place of each box that is kept."""
    require(len(scores.shape) == 3, f"scores must have 3 axes, got {scores.shape}")
    samples, classes, count = scores.shape
    each = 0 if most is None else count if most.fixed is None else min(count, max(0, most.fixed))
    return _at_most(call, (samples * classes * each, 3), boxes, scores)


# Sequences of arrays are followed as long as their length is known.


def _sequence(*arrays: Array) -> Array:
    return Array((), parts=arrays)


def _at(call: Call, index: int, count: int) -> int:
    """Return the place in a sequence of `count` arrays that an input says, the last if it is left out."""
    array = call.optional(index)
    place = -1 if array is None else array.fixed
    if place is None or not -count <= place < count:
        raise CountError(f"its place must be a fixed one of {count} arrays, got input {index + 1}")
    return place % count


@rule("SequenceInsert", "SequenceErase")
def _changed(call: Call) -> Array:
    parts, more = call.sequence(), [call.input(1)] if call.operator == "SequenceInsert" else []
    place = _at(call, 1 + len(more), len(parts) + len(more))
    return _sequence(*parts[:place], *more, *parts[place + 1 - len(more) :])


@rule("SplitToSequence")
def _split_to_sequence(call: Call, x: Array, split: Array | None = None) -> Array:
    axis = call.axis(0, len(x.shape))
    length, sizes = x.shape[axis], (1,) if split is None else call.fixed(1, "split")
    if split is None or not split.shape:
        size = sizes[0]
        few = size > 0 and 0 < -(-length // size) <= MAX_NUMBERS
        require(few, f"a sequence must have 1 to {MAX_NUMBERS} arrays, got parts of {size} of {x.shape}")
        sizes = tuple(min(size, length - begin) for begin in range(0, length, size))
    parts, shape = _parts(call, x, axis, sizes), _with_length(x.shape, axis)
    apart = split is None and not call.get("keepdims", 1)
    return _sequence(*(_reshaped(call, each, shape) if apart else each for each in parts))


@rule("ConcatFromSequence")
def _concat_from_sequence(call: Call) -> Array | tuple[Array, ...]:
    inputs = call.sequence()
    if call.get("new_axis", 0):
        axis = call.axis(0, len(inputs[0].shape) + 1)
        shapes = ((*each.shape[:axis], 1, *each.shape[axis:]) for each in inputs)
        inputs = tuple(map(partial(_reshaped, call), inputs, shapes))
    return RULES["Concat"](replace(call, inputs=(*inputs,)))


RULES["SequenceConstruct"] = lambda call: _sequence(*call.given())
RULES["SequenceEmpty"] = lambda _: _sequence()
RULES["SequenceAt"] = lambda call: call.sequence()[_at(call, 1, len(call.sequence()))]
RULES["SequenceLength"] = lambda call: call.constant(np.int64(len(call.sequence())))
RULES["Identity"] = lambda call: call.inputs[0] or call.input()


# Other axes.


@rule("Reshape")
def _reshape(call: Call, x: Array) -> Array:
    """Return the elements in a given shape; -1 is what remains, 0 is copied unless `allowzero` is set."""
    wanted = call.setting("shape", 1, ())
    copies = not call.get("allowzero", 0)
    lengths = [x.shape[axis] if not n and copies and axis < len(x.shape) else n for axis, n in enumerate(wanted)]
    if -1 in lengths:
        known = -prod(lengths) if lengths.count(-1) == 1 else 0
        lengths[lengths.index(-1)] = x.elements // known if known > 0 else -1
    fits = min(lengths, default=0) >= 0 and prod(lengths) == x.elements
    require(fits, f"shape {wanted[:64]} must hold the {x.elements} elements of {x.shape}")
    return _reshaped(call, x, tuple(lengths))


@rule("Flatten")
def _flatten(call: Call, x: Array) -> Array:
    axis = call.get("axis", 1)
    axes = len(x.shape)
    require(-axes <= axis <= axes, f"attribute 'axis' must name one of {axes} axes, got {axis}")
    axis += axes if axis < 0 else 0
    return _reshaped(call, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@rule("Squeeze")
def _squeeze(call: Call, x: Array) -> Array:
    axes = onnx_call.checked_axes(call.setting("axes", 1, ()), len(x.shape))
    gone = axes or tuple(axis for axis, length in enumerate(x.shape) if length == 1)
    require(all(x.shape[axis] == 1 for axis in gone), f"axes {axes} must have length 1, got {x.shape}")
    return _reshaped(call, x, tuple(length for axis, length in enumerate(x.shape) if axis not in gone))


@rule("Unsqueeze")
def _unsqueeze(call: Call, x: Array) -> Array:
    wanted = call.setting("axes", 1, ())
    count = len(x.shape) + len(wanted)
    axes, lengths = onnx_call.checked_axes(wanted, count), iter(x.shape)
    return _reshaped(call, x, tuple(1 if axis in axes else next(lengths) for axis in range(count)))


def _reshaped(call: Call, x: Array, shape: Shape) -> Array:
    return call.move(shape, lambda values: values.reshape(shape), x)


@rule("Transpose")
def _transpose(call: Call, x: Array) -> Array:
    order = onnx_call.checked_axes(call.get("perm", tuple(range(len(x.shape)))[::-1]), len(x.shape))
    require(len(order) == len(x.shape), f"attribute 'perm' must have {len(x.shape)} axes, got {order}")
    return call.move(tuple(x.shape[axis] for axis in order), lambda values: values.transpose(order), x)


@rule("Expand")
def _expand(call: Call, x: Array) -> Array:
    wanted = onnx_call.checked_shape(call.fixed(1, "shape"))
    shape = broadcast(x.shape, wanted)
    if shape is None:
        raise CountError(f"{x.shape} must broadcast to the shape given, got {wanted}")
    return call.move(shape, lambda values: np.broadcast_to(values, shape), x)


@rule("Tile")
def _tile(call: Call, x: Array) -> Array:
    times = integers("repeats", call.fixed(1, "repeats"), len(x.shape), 0)
    shape = tuple(length * count for length, count in zip(x.shape, times, strict=True))
    return call.move(shape, lambda values: np.tile(values, times), x)


# Joined, cut and picked.


def _with_length(shape: Shape, axis: int, *lengths: int) -> Shape:
    """Return the shape with other lengths in the place of one axis."""
    return (*shape[:axis], *lengths, *shape[axis + 1 :])


@rule("Concat")
def _concat(call: Call) -> Array:
    arrays = call.given()
    shapes = tuple(array.shape for array in arrays)
    axis = call.axis(0, len(shapes[0]))
    alike = len({(len(shape), _with_length(shape, axis)) for shape in shapes}) == 1
    require(alike, f"arrays must differ in axis {axis} only, got {shapes[:8]}")
    shape = _with_length(shapes[0], axis, sum(shape[axis] for shape in shapes))
    return call.move(shape, lambda *values: np.concatenate(values, axis), *arrays)


@rule("Split")
def _split(call: Call, x: Array) -> tuple[Array, ...]:
    """Return parts of the sizes given, or equal ones, of which the last may be smaller."""
    axis, parts = call.axis(0, len(x.shape)), call.get("num_outputs", call.outputs)
    sound = parts == call.outputs and parts >= 1
    require(sound, f"num_outputs must be the number of outputs, {call.outputs}, got {parts}")
    length = x.shape[axis]
    each = -(-length // parts)
    sizes = call.setting("split", 1, (*(each,) * (parts - 1), length - each * (parts - 1)))
    return _parts(call, x, axis, integers("sizes of parts", sizes, parts, 0))


def _parts(call: Call, x: Array, axis: int, sizes: Shape) -> tuple[Array, ...]:
    sound = sum(sizes) == x.shape[axis] and min(sizes, default=0) >= 0
    require(sound, f"parts must add up to {x.shape[axis]}, got {sizes[:64]}")
    found = []
    for place, (size, end) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        window = (slice(None),) * axis + (slice(end - size, end),)
        found.append(call.move(_with_length(x.shape, axis, size), itemgetter(window), x, part=place))
    return tuple(found)


@rule("Slice")
def _cut(call: Call, x: Array) -> Array:
    starts, ends = call.setting("starts", 1, ()), call.setting("ends", 2, ())
    axes = onnx_call.checked_axes(call.setting("axes", 3, tuple(range(len(starts)))), len(x.shape))
    steps = call.setting("steps", 4, (1,) * len(starts))
    sound = len(starts) == len(ends) == len(axes) == len(steps) and 0 not in steps
    require(sound, f"starts, ends, axes and steps must be as many, and no step 0, got steps {steps[:64]}")
    cuts = dict(zip(axes, map(slice, starts, ends, steps), strict=True))
    window = tuple(cuts.get(axis, slice(None)) for axis in range(len(x.shape)))
    shape = tuple(len(range(*cut.indices(length))) for cut, length in zip(window, x.shape, strict=True))
    return call.move(shape, itemgetter(window), x)


@rule("Gather", "GatherElements")
def _looked_up(call: Call, x: Array, places: Array) -> Array:
    """Return elements of x at places; fixed places are no operand, just as in `x[:, 0]`."""
    axis, whole = call.axis(0, len(x.shape)), call.operator == "Gather"
    shape = _with_length(x.shape, axis, *places.shape) if whole else places.shape
    if places.constant and not x.constant:
        return call.add(Move((x.shape,), array_shape(shape)), (x,), shape)
    take: Any = np.take if whole else np.take_along_axis
    return call.move(shape, lambda values, numbers: take(values, numbers.astype(int), axis), x, places)


@rule("TopK")
def _top_k(call: Call, x: Array) -> tuple[Array, ...]:
    axis = call.axis(-1, len(x.shape))
    count = call.get("k", 0) if call.opset < 10 else (*call.fixed(1, "k"), -1)[0]
    require(0 <= count <= x.shape[axis], f"k must be 0 to {x.shape[axis]}, got {count}")
    return tuple(call.move(_with_length(x.shape, axis, count), None, x, part=part) for part in (0, 1))


@rule("Pad")
def _pad(call: Call, x: Array) -> Array:
    """Return the array with elements before and after; negative numbers cut."""
    pads, filling = call.setting("pads", 1, ()), call.optional(2)
    every = tuple(range(len(x.shape)))
    axes = onnx_call.checked_axes(call.fixed(3, "axes") if call.optional(3) else every, len(x.shape))
    require(len(pads) == 2 * len(axes), f"pads must be {2 * len(axes)} integers, got {pads[:64]}")
    sides = {axis: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
    shape = tuple(length + sum(sides.get(axis, ())) for axis, length in enumerate(x.shape))
    zeros = call.get("mode", "constant") == "constant" and call.get("value", 0.0) == 0 <= min(pads, default=0)
    zeros &= filling is None or (filling.values is not None and not filling.values.any())
    around = (side for axis in reversed(every) for side in sides.get(axis, (0, 0)))
    return call.move(shape, None, x, border=tuple(around) if zeros else ())


# Rules that say no more than a shape.


def _over(length: int, divisor: int) -> int:
    require(divisor > 0 and length % divisor == 0, f"{divisor} must divide an axis of length {length}")
    return length // divisor


def _unpooled(call: Call, x: Shape, _: Shape) -> Shape:
    if call.optional(2):
        return call.fixed(2, "output_shape")
    axes, kernel = len(x) - 2, call.get("kernel_shape", ())
    steps, pads = call.get("strides", (1,) * axes), call.get("pads", (0,) * (2 * axes))
    return (*x[:2], *((x[i + 2] - 1) * steps[i] + kernel[i] - pads[i] - pads[i + axes] for i in range(axes)))


def _in_blocks(call: Call, x: Shape) -> Shape:
    side = call.get("blocksize", 0)
    require(len(x) == 4, f"must read a map of two axes, got {x}")
    if call.operator == "SpaceToDepth":
        return (x[0], x[1] * side * side, _over(x[2], side), _over(x[3], side))
    return (x[0], _over(x[1], side * side), x[2] * side, x[3] * side)


def _gathered(call: Call, x: Shape, places: Shape) -> Shape:
    known = call.get("batch_dims", 0) + places[-1]
    require(places[-1] <= known <= len(x), f"places {places} must fit the axes of {x}, got batch_dims {known}")
    return (*places[:-1], *x[known:])


def _one_hot(call: Call, x: Shape) -> Shape:
    known, axis = call.input(1).values, call.axis(-1, len(x) + 1)
    if known is None or not known.size or not np.isfinite(known.flat[0]):
        raise CountError(f"its depth must be fixed before any sample comes, got {call.input(1).shape} as input 2")
    return (*x[:axis], int(known.flat[0]), *x[axis:])


# Operators, how many inputs they read, and the shape to which they move the elements of those.
_MOVES: tuple[tuple[str, int, Callable[..., Shape]], ...] = (
    ("Trilu ReverseSequence BitCast", 1, lambda _, x: x),
    ("TensorScatter", 2, lambda _, x, _new: x),
    ("Scatter ScatterElements ScatterND", 3, lambda _, x, _places, _new: x),
    ("Multinomial", 1, lambda call, x: (x[0], call.get("sample_size", 1))),
    ("Col2Im", 1, lambda call, x: (x[0], _over(x[1], prod(call.fixed(2, "block"))), *call.fixed(1, "shape"))),
    ("MaxUnpool", 2, _unpooled),
    ("DepthToSpace SpaceToDepth", 1, _in_blocks),
    ("GatherND", 2, _gathered),
    ("OneHot", 1, _one_hot),
)


def _moved(call: Call, reads: int, shape: Callable[..., Shape]) -> Array:
    arrays = [call.input(index) for index in range(reads)]
    return call.move(shape(call, *(array.shape for array in arrays)), None, *arrays)


for _names, _reads, _shape in _MOVES:
    RULES.update(dict.fromkeys(_names.split(), partial(_moved, reads=_reads, shape=_shape)))


# Resized.


@rule("Resize", "Upsample")
def _resize(call: Call, x: Array) -> Array:
    batch, image = maps(x.shape, len(x.shape) - 2)
    axes = onnx_call.checked_axes(call.get("axes", tuple(range(len(x.shape)))), len(x.shape))
    resized = dict(zip(axes, _lengths(call, tuple(x.shape[axis] for axis in axes)), strict=True))
    shape = [resized.get(axis, length) for axis, length in enumerate(x.shape)]
    kept = tuple(shape[:2]) == x.shape[:2]
    require(kept, f"batch and channels must keep their lengths, got {x.shape} to {tuple(shape)}")
    mode = call.get("mode", "nearest")
    require(mode in _MODES, f"attribute 'mode' must be one of {', '.join(_MODES)}, got {quoted(mode)}")
    kind = {2: _MODES[mode], 3: mode.replace("linear", "trilinear")}.get(len(shape) - 2, mode)
    return call.add(Resize(image, tuple(shape[2:]), kind), (x,), tuple(shape), batch)


def _lengths(call: Call, before: Shape) -> Shape:
    sizes, policy = call.optional(3), call.get("keep_aspect_ratio_policy", "stretch")
    require(policy == "stretch", f"no rule for lengths of one scale, got policy {quoted(policy)}")
    if sizes is not None and sizes.shape != (0,):
        return integers("sizes", call.fixed(3, "sizes"), len(before), 0)
    scales = zip(before, _scales(call, before), strict=True)
    return tuple(int(np.float32(length) * np.float32(scale)) for length, scale in scales)


def _scales(call: Call, before: Shape) -> tuple[float, ...]:
    """Return one scale per axis: an attribute, the second input, or, since operator set 11, the third."""
    crops = call.get("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    require(not crops, f"no rule for Resize that crops, got {call.get('mode', 'nearest')[:40]!r}")
    scales = tuple(call.attribute("scales", list, ()))
    if "scales" not in call.attributes:
        values = call.input(1 if call.operator == "Upsample" or call.opset < 11 else 2).values
        if values is None:
            raise CountError(f"its scales must be fixed before any sample comes, got {len(call.inputs)} inputs")
        scales = tuple(map(float, values.ravel()))
    sound = len(scales) == len(before) and all(0 < scale < 2**31 for scale in scales)
    require(sound, f"scales must be {len(before)} numbers above 0, got {scales[:64]}")
    return scales


# Rules of one line.

rule("Dropout")(lambda call, x: (call.move(x.shape, np.asarray, x), call.unknown(x.shape)))  # at rest, and its mask
rule("RandomNormal", "RandomUniform")(lambda call: call.unknown(call.get("shape", ())))
rule("RandomNormalLike", "RandomUniformLike", "EyeLike")(lambda call, x: call.unknown(x.shape))
rule("HannWindow", "HammingWindow", "BlackmanWindow")(lambda call: call.unknown(call.fixed(0, "length")))
rule("Size")(lambda call, x: call.constant(np.int64(onnx_call.checked_shape((x.elements,))[0])))
rule("Shape")(
    lambda call, x: call.constant(np.array(x.shape[call.get("start", 0) : call.get("end", len(x.shape))], np.int64))
)
