"""Layers as C, in float or in integers: each is one call of a function in `layers.c` or `layers_int8.c`."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from nachos_min.eenn.trained import Trained
from nachos_min.export.c_code import Code, Constants, Step, image_steps, source_of
from nachos_min.export.folded import Layer, outputs_of
from nachos_min.export.quantised import IntLayer, Quantised
from nachos_min.macs import ops

_LETTERS = {None: "-", "relu": "r", "hswish": "s", "hsigmoid": "g"}


def float_code(trained: Trained, layers: Sequence[Layer]) -> Code:
    """Return what computes a trained network in float; `layers` are its `folded` ones."""
    constants = Constants()
    steps = image_steps(trained, constants)
    before = len(steps)
    for index, layer in enumerate(layers):
        arrays = (("weight", layer.weight), ("bias", layer.bias))
        names = ["0" if a is None else constants.add(f"{name}_{index}", a) for name, a in arrays]
        if (fields := window_of(layer)) is not None:
            constants.window(f"window_{index}", fields)
        statement = _float_statement(layer, index, ", ".join(names))
        steps.append(_step(layer, before, statement))
    return Code("float", (source_of("layers.c"),), tuple(constants.texts), constants.bytes, tuple(steps))


def window_of(layer: Layer) -> tuple[int, ...] | None:
    """Return the fields of the C struct `window` of a convolution, linear layer or pool; else None."""
    op = layer.op
    match op:
        case ops.Linear():
            return (1, 1, op.input[-1], 1, 1, op.out_features, 1, 1, 1, 1, 0, 0, 0)
        case ops.Conv2d():
            depthwise = op.groups == op.input[2] == op.out_channels
            return (*op.input, *op.output, *op.kernel, *op.stride, *op.padding[::2], int(depthwise))
        case ops.MaxPool():
            return (*op.input, *op.output, *op.size, *op.stride, 0, 0, 0)
    return None


def _float_statement(layer: Layer, index: int, weights: str) -> str:
    """Return the statement of a layer, as `Step` has it."""
    op, letter, count = layer.op, _LETTERS[layer.activation], prod(layer.op.output)
    match op:
        case ops.Conv2d() | ops.Linear():
            return f"convolve({{x0}}, {{y}}, {weights}, &window_{index}, '{letter}');"
        case ops.MaxPool():
            return f"largest({{x0}}, {{y}}, &window_{index});"
        case ops.GlobalAvgPool():
            return f"mean({{x0}}, {{y}}, {op.input[0] * op.input[1]}, {op.input[2]});"
        case ops.Add():
            return f"add({{x0}}, {{x1}}, {{y}}, {count});"
        case ops.Multiply():
            return f"scale({{x0}}, {{x1}}, {{y}}, {count // op.output[-1]}, {op.output[-1]});"
        case ops.Activation():
            return f"activate({{x0}}, {{y}}, {count}, '{_LETTERS[op.kind]}');"
        case ops.Flatten():
            return ""
    raise TypeError(f"no C is known for {op}")


def _step(layer: Layer, before: int, statement: str, kind: str = "float") -> Step:
    """Return the step of a layer, whose inputs are counted behind the `before` steps of the image."""
    inputs = tuple(each + before for each in layer.inputs)
    overwrites = isinstance(layer.op, ops.Add | ops.Multiply | ops.Activation)
    return Step(statement, inputs, prod(layer.op.output), layer.exit, kind, overwrites)


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
        statement = _int8_statement(each, _constants(each, index, constants))
        steps.append(_step(each.layer, before, statement, "float" if index in outputs else "int8_t"))
    functions, said = (source_of("layers.c"), source_of("layers_int8.c")), "int8 weights and maps, int32 sums"
    return Code(said, functions, tuple(constants.texts), constants.bytes, tuple(steps))


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


def _int8_statement(each: IntLayer, constants: str) -> str:
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
