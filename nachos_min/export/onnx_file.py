"""A trained network as an ONNX file for images [N, H, W, C] as the user has them: scaling is inside.

Plain: every exit is computed and has outputs of its own; any number of images at once. Gated: one image at a time;
what follows an early exit stands in the else branch of an `If`, which does not run if the image leaves.

Outputs of both are "label" [N], "exit" [N] (from 0), "confidence" [N] and "logits" [N, C] of the exit that answers.
The plain file has "logits_stageK" [N, C] and "confidence_stageK" [N] of the exit after each stage K, too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nachos_min import __version__
from nachos_min.eenn.trained import Trained
from nachos_min.errors import InputError
from nachos_min.export.folded import Layer, folded, outputs_of
from nachos_min.files import write_file
from nachos_min.macs import ops

OPSET, IR = 18, 8  # the first set whose Resize can widen its window when it shrinks
INPUT, BATCH, ANSWER = "images", "N", ("label", "exit", "confidence", "logits")
ACTIVATIONS = {"relu": "Relu", "hswish": "HardSwish", "hsigmoid": "HardSigmoid"}
VISIBLE = 1e-6  # error of a scaled value: where float32 rounds the mean worse, the rest is subtracted, too

Names = tuple[str, ...]


def write_onnx(trained: Trained, path: str | Path, *, gated: bool = False) -> None:
    """Write a network as an ONNX file at `path`; `gated`: with nested `If`, by which it stops early.

    Raises:
        InputError: if the package onnx is not installed.
    """
    model = onnx_model(trained, gated=gated)
    write_file(path, model.SerializeToString(deterministic=True))


def onnx_model(trained: Trained, *, gated: bool = False) -> Any:
    """Return a network as an onnx.ModelProto; arguments as of `write_onnx`."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise InputError("an ONNX file needs the package onnx: pip install 'nachos_min[onnx]'") from None
    writer, batch = _Writer(trained), 1 if gated else BATCH
    names = writer.gated() if gated else writer.plain()
    kind = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[trained.seen.dtype]
    images = helper.make_tensor_value_info(INPUT, kind, [batch, *trained.seen.shape])
    answers = [writer.declared(name, name, batch) for name in names]
    graph = helper.make_graph(writer.nodes, trained.name, [images], answers, list(writer.constants.values()))
    about = {"producer_name": "nachos_min", "producer_version": __version__}
    sets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=IR, **about)
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts(trained).items()})
    return model


def facts(trained: Trained) -> dict[str, Any]:
    """Return what a file says of its network beside the weights, as plain values."""
    seen = trained.seen
    return {
        "name": trained.name,
        "classes": list(seen.class_names),
        "stages": list(trained.architecture.exit_stages),  # after which each exit stands
        "thresholds": list(trained.thresholds),
        "exit_costs": list(trained.costs.exit_costs),  # MACs of an image that leaves at each exit
        "confidence": trained.confidence.name,
        "temperatures": list(trained.confidence.temperatures or ()),
        "images": {"shape": list(seen.shape), "dtype": seen.dtype, "least": seen.least, "most": seen.most},
    }


class _Writer:
    """Makes the nodes of one file. Constants of all branches stand in the outermost graph."""

    def __init__(self, trained: Trained) -> None:
        self.trained, self.layers = trained, folded(trained)
        self.ends = [last + 1 for last in outputs_of(self.layers)]
        self.stages = [f"stage{stage}" for stage in trained.architecture.exit_stages]
        self.nodes, self.constants = list[Any](), dict[str, Any]()
        self.made = {-1: self.scaled()}  # the name of what each layer makes
        self.passed = ""  # what early exits say together: the product of 1 - h, or the largest softmax

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Append a node called as its first output; return that name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def constant(self, name: str, values: ArrayLike, kind: Any = np.float32) -> str:
        """Make a constant array, unless there is one of this name; return the name."""
        from onnx import numpy_helper

        self.constants.setdefault(name, numpy_helper.from_array(np.array(values, kind), name))
        return name

    def axes(self, *axes: int) -> str:
        """Make a list of axes; return its name."""
        return self.constant(f"axes.{'.'.join(map(str, axes))}", axes, np.int64)

    def declared(self, name: str, word: str, batch: int | str) -> Any:
        """Return the declaration of the output `name`; `word`, of ANSWER, begins what it is."""
        from onnx import TensorProto, helper

        kind = TensorProto.INT64 if word.startswith(("label", "exit")) else TensorProto.FLOAT
        width = [self.trained.architecture.classes] if word.startswith("logits") else []
        return helper.make_tensor_value_info(name, kind, [batch, *width])

    def scaled(self) -> str:
        """Add what makes images [N, H, W, C] the network's input [N, C, H, W]; return its name."""
        seen, (height, width, _) = self.trained.seen, self.trained.architecture.input_shape
        mean, inverse = seen.scaling.mean, seen.scaling.inverse
        rest, x = mean - mean.astype(np.float32), INPUT
        if seen.dtype != "float32":
            x = self.add("Cast", [x], "images.float", to=1)
        x = self.add("Sub", [x, self.constant("mean", mean)], "images.centred")
        if (np.abs(rest) * inverse).max() > VISIBLE:
            x = self.add("Sub", [x, self.constant("mean.rest", rest)], "images.centred.exactly")
        x = self.add("Mul", [x, self.constant("inverse", inverse)], "images.scaled")
        x = self.add("Transpose", [x], "images.maps", perm=[0, 3, 1, 2])
        if (height, width) == seen.shape[:2]:
            return x
        size = self.constant("size", [height, width], np.int64)
        linear = {"mode": "linear", "antialias": 1, "exclude_outside": 1}  # at the rim: no pixel weighs twice
        return self.add("Resize", [x, "", "", size], "images.resized", axes=[2, 3], **linear)

    def plain(self) -> Names:
        """Add all exits, and the choice of one for each image; return the names of all outputs."""
        said = [self.exit(exit_) for exit_ in range(len(self.ends))]
        chosen = said[-1][0]
        for (own, leaves), stage in reversed(list(zip(said[:-1], self.stages, strict=False))):
            conditions = [*[leaves] * 3, self.add("Unsqueeze", [leaves, self.axes(1)], f"leaves_each.{stage}")]
            choices = zip(ANSWER, zip(conditions, own, chosen, strict=True), strict=True)
            chosen = tuple(self.add("Where", inputs, f"{name}_from.{stage}") for name, inputs in choices)
        names = self.copied(chosen, ANSWER)
        for (own, _), stage in zip(said, self.stages, strict=True):
            names += self.copied(own[2:], ANSWER[2:], f"_{stage}")
        return names

    def gated(self) -> Names:
        """Add the first exit, and an `If` with all that follows; return the names of the outputs."""
        return self.copied(self.gate(0), ANSWER)

    def gate(self, exit_: int) -> Names:
        """Add an exit, and what follows in an `If`; return the names of its ANSWER."""
        from onnx import helper

        own, leaves = self.exit(exit_)
        if exit_ == len(self.ends) - 1:
            return own
        outer, stage, branches = self.nodes, self.stages[exit_], {}
        for word in ("then", "else"):
            self.nodes = []
            made = self.gate(exit_ + 1) if word == "else" else self.copied(own, ANSWER, f"_at.{stage}")
            outputs = [self.declared(*pair, 1) for pair in zip(made, ANSWER, strict=True)]
            branches[f"{word}_branch"] = helper.make_graph(self.nodes, f"{stage}.{word}", [], outputs)
        self.nodes, names = outer, tuple(f"{name}_from.{stage}" for name in ANSWER)
        self.nodes.append(helper.make_node("If", [leaves], names, f"{stage}.leaves", **branches))
        return names

    def copied(self, names: Sequence[str], words: Sequence[str], ending: str = "") -> Names:
        """Add copies of arrays called `words` with an `ending`; return their names."""
        pairs = zip(names, words, strict=True)
        return tuple(self.add("Identity", [name], word + ending) for name, word in pairs)

    def exit(self, exit_: int) -> tuple[Names, str]:
        """Add all from the exit before to this one; return the names of its ANSWER, and of whether images leave."""
        for index in range(len(self.made) - 1, self.ends[exit_]):
            self.made[index] = self.layer(self.layers[index])
        stage, leaves, classes = self.stages[exit_], "", self.trained.architecture.classes
        logits = self.made[self.ends[exit_] - 1]
        if early := exit_ < len(self.ends) - 1:
            split = self.constant(f"outputs.{stage}", [classes, 1], np.int64)
            names = f"logits.{stage}", f"h.{stage}"
            logits = self.add("Split", [logits, split], *names, axis=1)
            confidence, leaves = self.policy(exit_, stage, *names)
        label = self.add("ArgMax", [logits], f"label.{stage}", axis=1, keepdims=0)
        shape = self.add("Shape", [label], f"shape.{stage}")
        number = self.filled(shape, f"exit.{stage}", np.array([exit_]))
        if not early:
            confidence = self.filled(shape, f"confidence.{stage}", np.ones(1, np.float32))
        return (label, number, confidence, logits), leaves

    def policy(self, exit_: int, stage: str, logits: str, h: str) -> tuple[str, str]:
        """Add the confidence of an early exit; return its name, and that of whether an image leaves."""
        threshold, temperatures = self.trained.thresholds[exit_], self.trained.confidence.temperatures
        if temperatures is None:
            # Of what remains, 1 - c, float32 has more digits than of c near 1: that is compared.
            one = self.constant("one", 1.0)
            own = self.add("Sigmoid", [self.add("Squeeze", [h, self.axes(1)], f"h_each.{stage}")], f"own.{stage}")
            rest = self.add("Sub", [one, own], f"rest.{stage}")
            rest = self.add("Mul", [self.passed, rest], f"rest_all.{stage}") if self.passed else rest
            self.passed, limit = rest, self.constant(f"threshold.{stage}", 1.0 - threshold)
            confidence = self.add("Sub", [one, rest], f"confidence.{stage}")
            return confidence, self.add("LessOrEqual", [rest, limit], f"leaves.{stage}")
        tempered = self.constant(f"temperature.{stage}", temperatures[exit_])
        shares = self.add("Div", [logits, tempered], f"tempered.{stage}")
        shares = self.add("Softmax", [shares], f"shares.{stage}", axis=1)
        own = self.add("ReduceMax", [shares, self.axes(1)], f"own.{stage}", keepdims=0)
        self.passed = self.add("Max", [self.passed, own], f"confidence.{stage}") if self.passed else own
        limit = self.constant(f"threshold.{stage}", threshold)
        return self.passed, self.add("GreaterOrEqual", [self.passed, limit], f"leaves.{stage}")

    def filled(self, shape: str, name: str, value: ArrayLike) -> str:
        """Add an array of the `shape` full of one value; return its name."""
        from onnx import numpy_helper

        return self.add("ConstantOfShape", [shape], name, value=numpy_helper.from_array(np.asarray(value)))

    def layer(self, layer: Layer) -> str:
        """Add a layer; return the name of what it makes."""
        inputs, name = [self.made[each] for each in layer.inputs], layer.name
        kind = layer.op.kind if isinstance(layer.op, ops.Activation) else layer.activation
        made = f"{name}.before" if kind else name
        match layer.op:
            case ops.Conv2d() as op:
                top, bottom, left, right = op.padding
                window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": (top, left, bottom, right)}
                self.add("Conv", inputs + self.weights(layer), made, group=op.groups, **window)
            case ops.MaxPool() as op:
                self.add("MaxPool", inputs, made, kernel_shape=op.size, strides=op.stride)
            case ops.GlobalAvgPool():
                self.add("Flatten", [self.add("GlobalAveragePool", inputs, f"{name}.map")], made)
            case ops.Multiply():  # a map and a gate for each channel
                gate = self.add("Unsqueeze", [inputs[1], self.axes(2, 3)], f"{name}.gate")
                self.add("Mul", [inputs[0], gate], made)
            case ops.Activation():
                made = inputs[0]
            case ops.Linear():
                self.add("Gemm", inputs + self.weights(layer), made)
            case op:
                self.add({ops.Flatten: "Flatten", ops.Add: "Add"}[type(op)], inputs, made)
        if kind is None:
            return made
        return self.add(ACTIVATIONS[kind], [made], name, **({"alpha": 1 / 6} if kind == "hsigmoid" else {}))

    def weights(self, layer: Layer) -> list[str]:
        """Make the weights of a layer as ONNX has them; return their names."""
        assert layer.weight is not None, "the caller has looked"
        weight, before = layer.weight, self.layers[layer.inputs[0]].op
        if isinstance(layer.op, ops.Conv2d):
            weight = weight.transpose(3, 2, 0, 1)
        elif isinstance(before, ops.Flatten):  # of a map whose channels come first here
            weight = weight.reshape(*before.input, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
        names = [self.constant(f"{layer.name}.weight", weight)]
        return names if layer.bias is None else [*names, self.constant(f"{layer.name}.bias", layer.bias)]
