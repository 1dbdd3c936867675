"""onnx-tool: adds up what each operator of an exported file would cost, down to a comparison for a ReLU.

The tables are what an operator comes to once PyTorch's exporter (the one that traces, operator set 16) has written
it out. The exporter also improves the network: the second part. Operators that compute lengths are not predicted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import prod
from operator import floordiv

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill, recurrent
from nachos_min.macs.conventions.convention import ONCE, Convention, Counted
from nachos_min.macs.conventions.traces import in_trace, mean_over_width, product_of_lengths
from nachos_min.macs.ops import Graph, Node
from nachos_min.macs.record import Shape
from nachos_min.macs.windows import positions

_DIVISION, _ROOT, _EXPONENTIAL = 4, 24, 32

# Per element, by kind. A multiplication, an addition and a comparison cost 1 each.
_ACTIVATIONS = {"relu": 1, "hsigmoid": 4, "hswish": 5, "softsign": 6, "gelu": 7, "sigmoid": 32, "silu": 33}
_ACTIVATIONS |= {"elu": 35, "logsigmoid": 75, "softplus": 76, "tanh": 76, "tanhshrink": 77, "mish": 153}
_ACTIVATIONS |= dict.fromkeys(("relu6", "hardtanh", "leaky_relu", "prelu"), 2)
_SPELT_OUT = {"x * relu6(x + 3) / 6": 8, "relu6(x + 3) / 6": 7}
_POINTWISE = dict.fromkeys(("sub", "neg", "abs", "sign", "floor", "ceil", "round", "square", "max", "min"), 1)
_POINTWISE |= dict.fromkeys(("cumsum", "compare", "logic"), 1)
_POINTWISE |= {"clamp": 2, "addcmul": 2, "remainder": 7, "log": 43, "sin": 39, "cos": 39, "atan": 64}
_POINTWISE |= dict.fromkeys(("div", "reciprocal", "floor_divide"), _DIVISION)
_POINTWISE |= {"sqrt": _ROOT, "rsqrt": _ROOT + _DIVISION, "exp": _EXPONENTIAL, "pow": _EXPONENTIAL}
_NOT_EQUAL = ("x != y", "torch.ne", "Tensor.ne", "torch.not_equal", "Tensor.not_equal")  # and a negation
_REDUCTIONS = {**dict.fromkeys(("mean", "sum", "max", "min", "prod"), 1), "norm": _ROOT + 1}


def _convolution(node: Node) -> tuple[bill.Term, ...]:
    """With padding given as a word, the output has wrong sizes for some."""
    op, terms = node.op_as(ops.Conv), (bill.products(node), bill.biases(node))
    word, sizes = bill.as_written(node).padding, op.output[:-1]
    if word == "valid":
        sizes = positions(op, (0,) * op.spatial, (1,) * op.spatial)
    sizes = sizes[:1] if word and op.spatial == 3 else sizes
    pixels, taken_for = prod(op.output[:-1]), prod(sizes)
    if pixels == taken_for:
        return terms
    note = f"with padding={word!r} its output is computed as if it had no dilation, and its third axis none"
    return tuple(replace(term, quantity=term.quantity // pixels * taken_for, note=note) for term in terms)


def _transposed(node: Node) -> tuple[bill.Term, ...]:
    """Weights are read as a convolution's, so the output channels of a group take the input channels' place."""
    op = node.op_as(ops.ConvTranspose2d)
    note = "every output pixel is billed, and each for the output channels"
    return bill.products_as(node, bill.taps(node, op.out_channels // op.groups), note), bill.biases(node)


def _matmul(node: Node) -> tuple[bill.Term, ...]:
    """Of the leading axes only those of the array that has more of them are kept."""
    left, right = node.op_as(ops.MatMul).operands
    counted = node.batch * max(prod(left[:-2]), prod(right[:-2])) * left[-2] * left[-1] * right[-1]
    return (bill.products(node).taken_for(counted, "the leading axes do not broadcast"),)


def _scaling(node: Node) -> tuple[bill.Term, ...]:
    """Attention's queries and keys are each multiplied by the root of the scale, which is computed on the way."""
    scaled = node.batch * sum(map(prod, node.op.operands))
    masked = (bill.outputs(node).quantity + prod(node.op.output[-2:])) * ("causal" in bill.as_written(node).facts)
    return (
        bill.Term("elements of queries and keys that are scaled", 1, scaled),
        bill.Term("computation of attention's scale", 3 * _ROOT + _DIVISION, 1),
        bill.Term("elements of attention's scores and causal mask", 1, masked),
    )


def _batch_norm(node: Node) -> tuple[bill.Term, ...]:
    """Two additions, a root, a division and a product; five more to measure the mean and the variance."""
    measured = "statistics" in bill.as_written(node).facts
    return (bill.inputs(node, 31 + 5 * measured),)


def _layer_norm(node: Node) -> tuple[bill.Term, ...]:
    """Two means, a difference, a square (as a power), a root for each row, a division, scale and shift."""
    op, term = node.op_as(ops.LayerNorm), bill.inputs(node)
    rows = term.quantity // prod(op.input[len(op.input) - op.axes :])
    per_element = 2 + 1 + _EXPONENTIAL + _DIVISION + op.affine + op.bias
    return replace(term, factor=per_element), bill.Term("rows of layer norm", 1 + _ROOT, rows)


def _activation(node: Node) -> tuple[bill.Term, ...]:
    price = _ACTIVATIONS.get(node.op_as(ops.Activation).kind, 0)
    return (bill.inputs(node, _SPELT_OUT.get(bill.as_written(node).function, price)),)


def _sum(node: Node) -> tuple[bill.Term, ...]:
    """That of baddbmm is twice: the product is multiplied by a factor of 1 before."""
    return (bill.outputs(node, 1 + (bill.method(node) == "baddbmm")),)


def _pointwise(node: Node) -> tuple[bill.Term, ...]:
    price = _POINTWISE.get(node.op_as(ops.Pointwise).kind, 0)
    return (bill.outputs(node, price + (bill.as_written(node).function in _NOT_EQUAL)),)


def _pool(node: Node) -> tuple[bill.Term, ...]:
    op = node.op_as(ops.MaxPool, ops.AvgPool)
    counted = node.batch * prod(positions(op)) * op.input[-1]
    note = "a last window that would begin beyond the map is kept"
    return (bill.outputs(node, prod(_taps(op.size))).taken_for(counted, note),)


def _taps(window: Shape) -> Shape:
    """Return the axes of a window that it multiplies: of three only the first."""
    return window if len(window) < 3 else window[:1]


def _adaptive(node: Node) -> tuple[bill.Term, ...]:
    """To one pixel it is a mean over the map with a division; else windows that together cover the map once."""
    if width := mean_over_width(node):
        return (bill.inputs(node), *width)
    if isinstance(node.op, ops.GlobalAvgPool) or set(node.op.output[:-1]) == {1}:
        return bill.inputs(node), bill.outputs(node, _DIVISION)
    return _windows(node)


def _windows(node: Node) -> tuple[bill.Term, ...]:
    """Windows that together cover the map once."""
    ratio = map(floordiv, node.op.operands[0][:-1], node.op.output)
    return (bill.outputs(node, prod(_taps(tuple(ratio)))),)


class _OnnxTool(Convention):
    """What the exporter changes is decided by other nodes."""

    def decided(self, graph: Graph) -> Mapping[int, Counted]:
        found: dict[int, Counted] = {}
        for position, node in enumerate(graph):
            if bill.as_written(node).function == bill.ATTENTION and isinstance(node.op, ops.MatMul):
                weighted = node.inputs[0] >= 0 and isinstance(graph[node.inputs[0]].op, ops.Softmax)
                if not weighted:
                    found[position] = (in_trace(node), (*self.priced(node), *_scaling(node)))
        for position, (before, node) in enumerate(pairwise(graph), 1):
            if isinstance(node.op, ops.Recurrent) and (before.op, before.inputs) == (node.op, node.inputs):
                found[position] = (in_trace(node), recurrent.in_file(node, first=recurrent.is_cell(node)))
        for position, product in merged_products(graph).items():
            note = "merged into the sum, but its result is needed elsewhere, too"
            merged = replace(bill.products(graph[product]), note=note)
            found[position] = (ONCE, (*self.priced(graph[position]), merged))
        for position, biased in merged_norms(graph).items():
            added = bill.Term("bias additions of convolutions", 1, bill.outputs(graph[position]).quantity)
            why = "merged into the convolution before it"
            bias = (0, f"{why}, which has a bias already") if biased else (1, f"{why} as a bias")
            found[position] = (bias, (added,))
        left_out = dict.fromkeys(already_done(graph), "the same work was done before, and is done once")
        left_out |= dict.fromkeys(done_beforehand(graph), "it depends on weights alone and is done beforehand")
        return found | {position: ((0, why), self.priced(graph[position])) for position, why in left_out.items()}


ONNX_TOOL = _OnnxTool(
    name="onnx-tool",
    tool="onnx-tool 1.0.1",
    unit="MACs",
    about="Every operator of the exported file at a price: products and biases 1, a sigmoid 32, a softmax 36.",
    prices={
        ops.Conv2d: _convolution,
        ops.Linear: bill.each(bill.products, bill.biases),
        ops.ConvTranspose2d: _transposed,
        ops.MatMul: _matmul,
        ops.Einsum: product_of_lengths("dots are taken for a letter each, which cannot be predicted"),
        ops.BatchNorm: _batch_norm,
        ops.LayerNorm: _layer_norm,
        ops.GroupNorm: bill.each(bill.inputs, factor=3 + _DIVISION + 2),
        ops.InstanceNorm: bill.each(bill.inputs, factor=3 + _DIVISION),
        ops.Activation: _activation,
        ops.Softmax: bill.each(bill.inputs, factor=_EXPONENTIAL + _DIVISION),
        ops.Pointwise: _pointwise,
        ops.Add: _sum,
        ops.Multiply: bill.each(bill.outputs),
        **dict.fromkeys((ops.MaxPool, ops.AvgPool), _pool),
        **dict.fromkeys((ops.AdaptiveAvgPool, ops.GlobalAvgPool), _adaptive),
        ops.AdaptiveMaxPool: _windows,
        ops.Reduce: bill.by_kind(bill.inputs, _REDUCTIONS),
        ops.Resize: bill.by_kind(bill.outputs, {"linear": 4, "bilinear": 4, "trilinear": 4, "bicubic": 8}),
        ops.Recurrent: recurrent.in_file,
    },
    multiplicity=in_trace,
)

# What PyTorch's exporter to ONNX improves before it writes the file.

# Computed beforehand if they depend on weights alone; an exponential, say, stays in the file.
_COMPUTED = ("div", "sub", "sqrt", "neg", "reciprocal")


def merged_norms(graph: Graph) -> dict[int, bool]:
    """Return the batch norms that disappear in the convolution before them: position -> whether it had a bias.

    The convolution's output must go nowhere else, and the norm must not measure its input.
    """
    readers = _readers(graph)
    found: dict[int, bool] = {}
    for position, node in enumerate(graph):
        written = bill.as_written(node)
        if not isinstance(node.op, ops.BatchNorm) or not written.used or "statistics" in written.facts:
            continue
        before = node.inputs[0]
        if before < 0 or readers[before] != 1:
            continue
        convolution = graph[before]
        is_linear = isinstance(convolution.op, ops.Linear) and bill.as_written(convolution).function == "F.conv2d"
        if before in found or is_linear or isinstance(convolution.op, ops.Conv2d):
            found[position] = before in found or "bias_adds" in convolution.columns
    return found


def merged_products(graph: Graph) -> dict[int, int]:
    """Return the sums that repeat a product of matrices which others read as well: position -> that of the product.

    A product that the sum alone reads disappears in it, which changes no count.
    """
    readers = _readers(graph)
    return {
        position: source
        for position, node in enumerate(graph)
        if isinstance(node.op, ops.Add) and len(node.inputs) == 2 and bill.as_written(node).used
        for source in node.inputs
        if source >= 0 and bill.method(graph[source]) == "mm" and readers[source] > 1
    }


def already_done(graph: Graph) -> frozenset[int]:
    """Return the nodes that do what an earlier node did, to the same arrays with the same weights.

    Only operators that their record describes completely: of moved elements, say, it does not tell which.
    """
    first: dict[object, int] = {}
    stands_for: dict[int, int] = {-1: -1}
    for position, node in enumerate(graph):
        stands_for[position] = position
        if bill.as_written(node).used and _is_complete(node):
            weights = node.shares
            if weights is None and (node.op.params or isinstance(node.op, ops.BatchNorm)):
                weights = position  # batch norm without a scale has statistics of its own, too
            sources = tuple(stands_for[source] for source in node.inputs)
            work = (node.op, node.batch, bill.as_written(node).function, sources, weights)
            stands_for[position] = first.setdefault(work, position)
    return frozenset(position for position, earlier in stands_for.items() if position != earlier)


def done_beforehand(graph: Graph) -> frozenset[int]:
    """Return the nodes that the exporter computes itself, as they depend on trained arrays alone."""
    known: set[int] = set()
    for position, node in enumerate(graph):
        op = node.op
        computed = isinstance(op, ops.Add | ops.Multiply | ops.Move)
        computed |= isinstance(op, ops.Pointwise) and op.kind in _COMPUTED
        fixed = computed and bool(node.inputs) and known.issuperset(node.inputs)
        if fixed or (isinstance(op, ops.Source) and op.trained):
            known.add(position)
    return frozenset(known)


def _readers(graph: Graph) -> Counter[int]:
    """Return how often the array of each node is read, by what is in the exported file."""
    same = already_done(graph)
    return Counter(
        source
        for position, node in enumerate(graph)
        if bill.as_written(node).used and position not in same
        for source in node.inputs
    )


def _is_complete(node: Node) -> bool:
    """Whether two nodes with equal records do the same: a number added, or an axis, is not in a record."""
    if isinstance(node.op, ops.Add | ops.Multiply | ops.Pointwise):
        return len(node.op.shapes) > 1
    return not isinstance(node.op, ops.Move | ops.Source | ops.Softmax | ops.Reduce)
