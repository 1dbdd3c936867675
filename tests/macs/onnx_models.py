"""Small ONNX models for tests: a few nodes, inputs and initialisers by shape, outputs to hold shapes against."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")
helper = onnx.helper

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def node(operator, inputs, outputs="y", **attributes):
    """A node; names of arrays are given as one text, "-" is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def tensor(value, name=""):
    """A tensor of float zeros if `value` is a tuple (its shape), of those numbers if it is a list or array."""
    array = np.zeros(value, np.float32) if isinstance(value, tuple) else np.asarray(value)
    return onnx.numpy_helper.from_array(array, name)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, inputs, outputs, constants=None):
    """A graph; inputs and outputs are name -> shape, None for one that is not declared."""
    return helper.make_graph(
        nodes,
        "graph",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, shape) for name, shape in outputs.items()],
        [tensor(given, name) for name, given in (constants or {}).items()],
    )


def model(nodes, inputs, outputs, constants=None, opset=17, functions=(), domains=()):
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    whole = graph(nodes, inputs, outputs, constants)
    return helper.make_model(whole, opset_imports=sets, functions=list(functions))


def write(folder: Path, made) -> Path:
    """Write a model, or bytes, to a file."""
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path
