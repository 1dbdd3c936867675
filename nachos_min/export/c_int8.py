"""Layers as C in integers: each is one call of a function in `layers_int8.c`."""

from dataclasses import replace
from math import prod

import numpy as np

from nachos_min.export.c_code import Code, Constants, Step, image_steps, source_of
from nachos_min.export.c_float import window_of
from nachos_min.export.folded import outputs_of
from nachos_min.export.quantised import IntLayer, Quantised
from nachos_min.macs import ops


def int8_code(network: Quantised) -> Code:
    """Return what computes a network in integers."""
    constants, layers = Constants(), network.layers
    steps = image_steps(network.trained, constants)
    values = f"{constants.add('image_steps', network.steps)}, {steps[-1].count}, {len(network.steps)}"
    if len(steps) == 1:
        steps = [replace(steps[0], statement=f"quantise_image(image, {{y}}, {values});", type="int8_t")]
    else:
        steps.append(Step(f"quantise({{x0}}, {{y}}, {values});", (len(steps) - 1,), steps[-1].count, type="int8_t"))
    before, outputs = len(steps), outputs_of([each.layer for each in layers])
    for index, each in enumerate(layers):
        op, inputs = each.layer.op, tuple(place + before for place in each.layer.inputs)
        statement = _statement(each, _constants(each, index, constants))
        kind = "float" if index in outputs else "int8_t"
        in_place = isinstance(op, ops.Add | ops.Multiply | ops.Activation)
        steps.append(Step(statement, inputs, prod(op.output), each.layer.exit, kind, in_place))
    functions = source_of("layers.c"), source_of("layers_int8.c")
    return Code(
        "int8 weights and maps, int32 sums", functions, tuple(constants.texts), constants.bytes, tuple(steps)
    )


def _constants(each: IntLayer, index: int, constants: Constants) -> str:
    """Define the constants of a layer; return their names and its shifts, as its function takes them."""
    names, shifts = list[str](), each.shifts
    if each.weight is not None and each.bias is not None:
        names.append(constants.add(f"weight_{index}", np.moveaxis(each.weight, -1, 0), "int8_t"))
        names.append(constants.add(f"bias_{index}", each.bias, "int32_t"))
        if not each.factors:
            names.append(constants.add(f"unit_{index}", each.scale.astype(np.float32)))
    for letter, factor in zip("ab", each.factors, strict=False):
        names.append(constants.add(f"factor_{index}{letter}", factor, "int32_t"))
    if each.weight is not None and len(each.factors) == 1:  # no h-swish
        names, shifts = [*names, "0"], (0, *shifts)
    if (fields := window_of(each.layer)) is not None:
        constants.window(f"window_{index}", fields)
        names.append(f"&window_{index}")
    return ", ".join(map(str, (*names, *shifts)))


def _statement(each: IntLayer, constants: str) -> str:
    """Return the statement of a layer, as `Step` has it."""
    op, channels = each.layer.op, each.layer.op.output[-1]
    extent = f"{prod(op.output) // channels}, {channels}"
    match op:
        case ops.Conv2d() | ops.Linear() if each.factors:
            return f"convolve_int8({{x0}}, {{y}}, {constants}, {each.least});"
        case ops.Linear():
            return f"head({{x0}}, {{y}}, {constants});"
        case ops.MaxPool():
            return f"largest_int8({{x0}}, {{y}}, {constants});"
        case ops.GlobalAvgPool():
            return f"mean_int8({{x0}}, {{y}}, {constants}, {op.input[0] * op.input[1]}, {channels});"
        case ops.Add():
            return f"add_int8({{x0}}, {{x1}}, {{y}}, {constants}, {extent});"
        case ops.Multiply():
            return f"scale_int8({{x0}}, {{x1}}, {{y}}, {constants}, {extent});"
        case ops.Activation():
            return f"relu_int8({{x0}}, {{y}}, {prod(op.output)});"
    return ""  # flattening
