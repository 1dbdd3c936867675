"""Rule of Resize and its forerunner Upsample: a map of another height and width.

Read `call.py` first. Source: the ONNX operator reference, Resize: the size is floor(length * scale).
"""

import numpy as np

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.assembly import maps
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.onnx_reader.rules_norms import checked_axes
from nachos_min.macs.ops import Resize
from nachos_min.macs.record import CountError, Shape

_MODES = {"linear": "bilinear", "cubic": "bicubic"}  # of two axes; of one they keep their name


def resize(call: Call) -> tuple[Array, ...]:
    """Return what Resize or Upsample makes."""
    x = call.input()
    batch, image = maps(x.shape, call.operator)
    axes = checked_axes(call.attributes.integers("axes", tuple(range(len(x.shape)))), len(x.shape))
    shape = list(x.shape)
    for axis, length in zip(axes, _lengths(call, tuple(x.shape[axis] for axis in axes)), strict=True):
        shape[axis] = length
    if tuple(shape[:2]) != x.shape[:2]:
        raise CountError(f"only height and width may be resized, got {x.shape} to {tuple(shape)}")
    mode = call.attributes.text("mode", "nearest")
    if len(shape) == 4:
        mode = _MODES.get(mode, mode)
    op = Resize(image, (shape[-2] if len(shape) == 4 else 1, shape[-1]), mode)
    return (call.add(op, (x,), tuple(shape), batch),)


def _lengths(call: Call, before: Shape) -> tuple[int, ...]:
    """Return the new lengths of the axes that `before` has the old ones of."""
    sizes = call.optional(3)
    if sizes is not None and sizes.shape != (0,):
        policy = call.attributes.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            raise CountError(f"no rule for Resize with keep_aspect_ratio_policy {policy[:40]!r}")
        lengths = call.integers(3, "sizes")
    else:
        lengths = tuple(
            int(np.float32(length) * np.float32(scale))
            for length, scale in zip(before, _scales(call, before), strict=True)
        )
    if len(lengths) != len(before):
        raise CountError(f"sizes must be {len(before)} integers, got {lengths[:64]}")
    return lengths


def _scales(call: Call, before: Shape) -> tuple[float, ...]:
    """Return one scale per axis: an attribute, the second input, or, since operator set 11, the third."""
    if call.attributes.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise CountError(f"no rule for Resize that crops, got {call.attributes.text('mode', 'nearest')[:40]!r}")
    if "scales" in call.attributes:
        scales = call.attributes.numbers("scales")
    else:
        values = call.input(1 if call.operator == "Upsample" or call.opset < 11 else 2).values
        if values is None:
            raise CountError(f"its scales must be fixed before any sample comes, got {len(call.inputs)} inputs")
        scales = tuple(float(value) for value in values.ravel())
    if len(scales) != len(before) or not all(0 < scale < 2**31 for scale in scales):
        raise CountError(f"scales must be {len(before)} numbers above 0, got {scales[:64]}")
    return scales
