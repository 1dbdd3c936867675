"""thop: hooks on modules of known classes; each adds its products, batch norm and average pooling add elements.

What is called as a function, or is a class derived from a known one, has no hook and is missed. A module that
stands under several names gets a hook for each, and its sum is added for each, so its work counts p * p times.
Read `convention.py` first.
"""

from math import prod

from nachos_min.macs.conventions.convention import (
    Convention,
    Sight,
    Term,
    each_output,
    each_product,
    elements_in,
    elements_out,
    inputs,
    outputs,
    products,
)
from nachos_min.macs.conventions.usual import as_written, under_names
from nachos_min.macs.ops import (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    GlobalAvgPool,
    InstanceNorm,
    LayerNorm,
    Linear,
    Node,
    Resize,
    Softmax,
)

_DIMENSIONS = ("1d", "2d", "3d")
_HOOKED = {
    f"{layer}{dimensions}"
    for layer in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", "AvgPool", "AdaptiveAvgPool")
    for dimensions in _DIMENSIONS
}
_HOOKED |= {"SyncBatchNorm", "LayerNorm", "PReLU", "Softmax", "Linear"}
_HOOKED |= {"Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"}

# Work per output element of an interpolation, as thop has it.
_INTERPOLATION = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


def _sees(node: Node) -> Sight:
    written = as_written(node)
    if written.module in _HOOKED:
        return Sight(written.paths * written.paths, under_names(node))
    if written.layer in _HOOKED:
        return Sight(
            0, f"its class {written.module} only derives from {written.layer}, and thop has no hook for it"
        )
    return Sight(0, "called as a function, and thop sees modules only")


def _convolution(node: Node) -> tuple[Term, ...]:
    """thop takes a map without an axis of samples to have as many channels as it has rows, or pixels in a row."""
    assert isinstance(node.op, Conv2d)
    if "unbatched" not in as_written(node).facts:
        return (products(node),)
    second = node.op.input[1 if as_written(node).module == "Conv1d" else 0]
    quantity = elements_out(node) * (second // node.op.groups) * prod(node.op.kernel)
    return (Term(products(node).subject, 1, quantity, "the second axis is taken for the channels"),)


def _transposed(node: Node) -> tuple[Term, ...]:
    """thop bills every output pixel, of which a transposed convolution of stride s has s * s as many."""
    assert isinstance(node.op, ConvTranspose2d)
    term = products(node)
    quantity = elements_out(node) * (node.op.input[2] // node.op.groups) * prod(node.op.kernel)
    note = "" if quantity == term.quantity else "every output pixel is billed, not every input pixel"
    return (Term(term.subject, 1, quantity, note),)


def _norm(node: Node) -> tuple[Term, ...]:
    affine = isinstance(node.op, BatchNorm | LayerNorm | InstanceNorm) and node.op.affine
    return (inputs(node, 4 if affine else 2),)


def _adaptive(node: Node) -> tuple[Term, ...]:
    """One addition per element of each window and one division: int((H / OH * W / OW + 1) * outputs)."""
    (height, width, _), (rows, columns, _) = node.op.operands[0], (*node.op.output[:-1], 1, 1, 1)[:3]
    divisions = elements_out(node)
    additions = int((height / rows * (width / columns) + 1) * divisions) - divisions
    note = "" if additions == elements_in(node) else "windows are taken to be of equal size, and rounded down"
    return (Term(inputs(node).subject, 1, additions, note), outputs(node))


def _softmax(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Softmax)
    n = elements_in(node)
    return (inputs(node, 3), Term("rows of softmax", -1, n // node.op.features))


def _resize(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Resize)
    return (outputs(node, _INTERPOLATION.get(node.op.mode, 0)),)


def _activation(node: Node) -> tuple[Term, ...]:
    assert isinstance(node.op, Activation)
    return (inputs(node),) if node.op.kind == "prelu" else ()


THOP = Convention(
    name="thop",
    tool="thop 0.1.1.post2209072238",
    unit="MACs",
    about="Products of known modules, 4 per batch-norm element, and additions and divisions of average pooling.",
    rules={
        Conv2d: _convolution,
        Linear: each_product,
        ConvTranspose2d: _transposed,
        BatchNorm: _norm,
        LayerNorm: _norm,
        InstanceNorm: _norm,
        AvgPool: each_output,
        AdaptiveAvgPool: _adaptive,
        GlobalAvgPool: _adaptive,
        Softmax: _softmax,
        Resize: _resize,
        Activation: _activation,
    },
    sees=_sees,
)
