"""Layers as C in float: each is one call of a function in `layers.c`."""

from collections.abc import Sequence
from math import prod

from nachos_min.eenn.trained import Trained
from nachos_min.export.c_code import Code, Constants, Step, image_steps, source_of
from nachos_min.export.folded import Layer
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
        inputs = tuple(each + before for each in layer.inputs)
        overwrites = isinstance(layer.op, ops.Add | ops.Multiply | ops.Activation)
        statement = _statement(layer, index, ", ".join(names))
        steps.append(Step(statement, inputs, prod(layer.op.output), layer.exit, overwrites=overwrites))
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


def _statement(layer: Layer, index: int, weights: str) -> str:
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
    raise NotImplementedError(f"layer {layer.name}: no C for {op}")
