"""thop and torchinfo: hooks on modules. What is called as a function has no hook and is missed.

thop has rules for known classes; a class derived from one is missed. A module under p names gets p hooks, whose sum
is added p times. torchinfo multiplies the parameters of a leaf module by the positions of its output: pixels if its
class's name contains "Conv", samples if not. Not predicted: parameters that a class of your own has by itself, and
weights that a layer makes of others at each call (`torch.nn.utils.weight_norm`, `spectral_norm`).
"""

from dataclasses import replace
from math import prod

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill, recurrent
from nachos_min.macs.conventions.convention import ONCE, Convention, Multiplicity
from nachos_min.macs.ops import Node

_HOOKED = bill.names("Conv ConvTranspose BatchNorm InstanceNorm AvgPool AdaptiveAvgPool", "1d 2d 3d")
_HOOKED |= {"SyncBatchNorm", "LayerNorm", "PReLU", "Softmax", "Linear"} | recurrent.MODULES
_HOOKED |= {"Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"}


def _hooked(node: Node) -> Multiplicity:
    written = bill.as_written(node)
    if written.module in _HOOKED:
        return written.paths * written.paths, bill.under_names(node)
    if written.layer in _HOOKED:
        return 0, bill.only_derived(node, "thop")
    return 0, "called as a function, and thop sees modules only"


def _convolution(node: Node) -> tuple[bill.Term, ...]:
    """A map without an axis of samples is taken to have as many channels as it has rows, or pixels in a row."""
    op, written = node.op_as(ops.Conv2d), bill.as_written(node)
    if "unbatched" not in written.facts:
        return (bill.products(node),)
    quantity = bill.taps(node, op.input[0] // op.groups)
    return (bill.products_as(node, quantity, "the second axis is taken for the channels"),)


def _transposed(node: Node) -> tuple[bill.Term, ...]:
    """Of output pixels a transposed convolution of stride s has s * s as many as of input pixels."""
    op = node.op_as(ops.ConvTranspose2d)
    quantity = bill.taps(node, op.input[-1] // op.groups)
    return (bill.products(node).taken_for(quantity, "every output pixel is billed, not every input pixel"),)


def _norm(node: Node) -> tuple[bill.Term, ...]:
    return (bill.inputs(node, 4 if node.op_as(ops.Norm).affine else 2),)


def _adaptive(node: Node) -> tuple[bill.Term, ...]:
    """One addition per element of each window and one division: int((H / OH * W / OW + 1) * outputs)."""
    lengths, divisions = node.op.operands[0][:-1], bill.outputs(node).quantity
    made = (*node.op.output[:-1], *(1,) * len(lengths))
    window = prod(length / out for length, out in zip(lengths, made, strict=False))
    additions = int((window + 1) * divisions) - divisions
    note = "windows are taken to be of equal size, and rounded down"
    return bill.inputs(node).taken_for(additions, note), bill.outputs(node)


def _softmax(node: Node) -> tuple[bill.Term, ...]:
    rows = bill.inputs(node).quantity // node.op_as(ops.Softmax).features
    return bill.inputs(node, 3), bill.Term("rows of softmax", -1, rows)


THOP = Convention(
    name="thop",
    tool="thop 0.1.1.post2209072238",
    unit="MACs",
    about="Products of known modules, 4 per batch-norm element, and additions and divisions of average pooling.",
    prices={
        ops.Conv2d: _convolution,
        ops.Linear: bill.each(bill.products),
        ops.ConvTranspose2d: _transposed,
        **dict.fromkeys((ops.BatchNorm, ops.LayerNorm, ops.InstanceNorm), _norm),
        ops.AvgPool: bill.each(bill.outputs),
        **dict.fromkeys((ops.AdaptiveAvgPool, ops.GlobalAvgPool), _adaptive),
        ops.Softmax: _softmax,
        ops.Resize: bill.by_kind(bill.outputs, {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}),
        ops.Recurrent: recurrent.thop,
        ops.Activation: bill.by_kind(bill.inputs, {"prelu": 1}, others=False),
    },
    multiplicity=_hooked,
)

_MAPS = (ops.Conv2d, ops.ConvTranspose2d, ops.BatchNorm, ops.GroupNorm, ops.InstanceNorm)


def _leaf(node: Node) -> Multiplicity:
    written = bill.as_written(node)
    if not written.layer:
        return 0, "called as a function, and torchinfo sees parameters of modules only"
    if written.leaf and written.paths:
        return ONCE
    return 0, bill.under_names(node) if written.leaf else f"its module {written.module} has modules inside"


def _positions(node: Node) -> int:
    """How often each parameter is billed: the first axis of the output, and for a convolution the others."""
    written, axes = bill.as_written(node), node.op.output
    if isinstance(node.op, _MAPS):
        axes = (axes[-1], *axes[:-1])  # PyTorch has channels first
    if "unbatched" not in written.facts:
        axes = (node.batch, *axes)
    by_pixel = "Conv" in written.module.rpartition(".")[2]
    return axes[0] * prod(axes[2:]) if by_pixel else axes[0]


def _layer(node: Node) -> tuple[bill.Term, ...]:
    op = node.op_as(ops.Conv2d, ops.ConvTranspose2d, ops.Linear)
    shifts = op.output[-1] if "bias_adds" in op.columns else 0
    positions, note = _positions(node), "parameters times positions of the output"
    weights = positions * (op.params - shifts)
    return bill.products(node).taken_for(weights, note), bill.biases(node).taken_for(positions * shifts, note)


def _parameters(node: Node) -> tuple[bill.Term, ...]:
    counted, note = _positions(node) * node.op.params, "parameters, not elements, once per sample"
    return (replace(bill.inputs(node), quantity=counted, note=note),)


def _slopes(node: Node) -> tuple[bill.Term, ...]:
    """Of activations PReLU alone has parameters, one slope or one for each channel, the axis after the samples."""
    op = node.op_as(ops.Activation)
    if op.kind != "prelu":
        return ()
    slopes = _positions(node) * (op.input[0] if "slopes" in bill.as_written(node).facts else 1)
    return (replace(bill.inputs(node), quantity=slopes, note="its slopes, not elements, once per sample"),)


def _embedding(node: Node) -> tuple[bill.Term, ...]:
    """An embedding's table is a module's weight, too."""
    written = bill.as_written(node)
    if written.layer != "Embedding" or written.function != "F.embedding":
        return ()
    counted = node.op.output[0] * prod(node.op.operands[1])
    return (bill.Term("elements of embeddings", 1, counted, "the whole table, once per sample"),)


TORCHINFO = Convention(
    name="torchinfo",
    tool="torchinfo 1.8.0",
    unit="MACs",
    about="Parameters of modules, times pixels of the output for a convolution and times samples for the rest.",
    prices={
        **dict.fromkeys((ops.Conv2d, ops.ConvTranspose2d, ops.Linear), _layer),
        **dict.fromkeys(bill.NORMS, _parameters),
        ops.Activation: _slopes,
        ops.Move: _embedding,
        ops.Recurrent: recurrent.torchinfo,
    },
    multiplicity=_leaf,
)
