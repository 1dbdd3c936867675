"""A trained network as plain arrays in an .npz file; the room's README shows a reader in NumPy alone.

"mean", "inverse"       of the scaling
"rows", "columns"       [h, H] and [w, W], which resize an image
"i.weight", "i.bias"    of layer i: of a convolution with G groups [KH, KW, C/G, G, K/G] and [K], of a linear layer
                        [in, out] and [out], of a mean 1 / (H W)
"about"                 a JSON object: `facts`; "outputs", the layers that end exits; and of each layer

    inputs      indices of the layers that it reads, -1 for the image
    how         an equation for `numpy.einsum` of inputs and weight; "sum" of the inputs; "max" in each window
    window      [KH, KW] that slides over the input, with "stride", "padding" and "groups"
    shape       of its output
    activation  relu, hswish or hsigmoid, after the bias is added; or null
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.data.dataset import resize
from nachos_min.eenn.trained import Trained
from nachos_min.export.folded import Layer, folded, outputs_of
from nachos_min.export.onnx_file import facts
from nachos_min.files import write_file
from nachos_min.macs import ops

Array = np.ndarray[Any, np.dtype[Any]]

HOW = {
    ops.Conv2d: "hwgckl,klcgo->hwgo",
    ops.Linear: "i,io->o",
    ops.GlobalAvgPool: "hwc,->c",
    ops.Multiply: "hwc,c->hwc",
    ops.MaxPool: "max",
}


def write_npz(trained: Trained, path: str | Path) -> None:
    """Write a network as plain arrays at `path`."""
    layers = folded(trained)
    about = facts(trained) | {"outputs": outputs_of(layers), "layers": [_described(layer) for layer in layers]}
    sides = zip(trained.seen.shape[:2], trained.architecture.input_shape[:2], strict=True)
    rows, columns = (_resizing(length, wanted) for length, wanted in sides)
    scaling = trained.seen.scaling
    arrays: dict[str, Array] = {"about": np.array(json.dumps(about)), "mean": scaling.mean}
    arrays |= {"inverse": scaling.inverse, "rows": rows, "columns": columns}
    for index, layer in enumerate(layers):
        if isinstance(layer.op, ops.GlobalAvgPool):
            arrays[f"{index}.weight"] = np.array(1 / np.prod(layer.op.input[:2]))
        elif (weight := layer.weight) is not None:
            groups = [layer.op.groups, -1] if isinstance(layer.op, ops.Conv2d) else [-1]
            arrays[f"{index}.weight"] = weight.reshape(*weight.shape[:-1], *groups)
        if layer.bias is not None:
            arrays[f"{index}.bias"] = layer.bias
    content = BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_file(path, content.getvalue())


def _described(layer: Layer) -> dict[str, Any]:
    """Return a layer without its weights, as plain values."""
    found: dict[str, Any] = {"name": layer.name, "inputs": layer.inputs, "how": HOW.get(type(layer.op), "sum")}
    found |= {"shape": layer.op.output, "activation": layer.activation}
    match layer.op:
        case ops.Conv2d() as op:
            top, bottom, left, right = op.padding
            padding = [(top, bottom), (left, right), (0, 0)]
            found |= {"window": op.kernel, "stride": op.stride, "padding": padding, "groups": op.groups}
        case ops.MaxPool() as op:
            found |= {"window": op.size, "stride": op.stride, "padding": [(0, 0)] * 3, "groups": 1}
        case ops.Activation() as op:
            found["activation"] = op.kind
    return found


def _resizing(length: int, wanted: int) -> Array:
    """Return the matrix [wanted, length] that resizes one side of an image."""
    points = np.eye(length, dtype=np.float32)[:, :, None, None]
    return resize(points, (wanted, 1))[:, :, 0, 0].T
