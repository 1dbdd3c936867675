"""ptflops and calflops replace functions of torch while they count; ptflops-aten and torch watch the dispatcher.

A replacement counts by the shapes that a call was given, without broadcasting: an element-wise function's are
aligned at their first axes, a product of arrays is all of the first times the last axis of the second. A function
that is not replaced, such as an operator sign, is missed. ptflops also hooks modules, so `nn.ReLU` counts by its
hook and by `F.relu`. It runs one sample of its own. calflops adds up a module under each of its names.

The dispatcher shows what is executed, however it was written. Both of its tools know convolutions and products of
two arrays of at least two axes each.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import prod

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill, recurrent
from nachos_min.macs.conventions.convention import ONCE, Convention, Counted, Multiplicity, installed_version
from nachos_min.macs.ops import Graph, Node
from nachos_min.macs.record import Operator, Shape, broadcast
from nachos_min.macs.windows import positions

# Operators of one record that call F.relu6; the rest of them is operator signs.
_SPELT_OUT = {"x * relu6(x + 3) / 6", "relu6(x + 3) / 6"}

_POOLED = (ops.MaxPool, ops.AvgPool, ops.AdaptiveAvgPool, ops.AdaptiveMaxPool, ops.GlobalAvgPool)


def _called(node: Node, replaced: Collection[str]) -> Multiplicity:
    """Return whether a node is a call of a function that the tool replaces."""
    written = bill.as_written(node)
    if written.function not in replaced:
        return 0, f"not a function it replaces ({written.function})"
    if "taken" in written.facts:
        return 0, f"{written.function} was taken out of its module before it was replaced"
    return ONCE


def _aligned_left(node: Node, shapes: tuple[Shape, ...]) -> bill.Term:
    """Return one for each element of arrays combined, their shapes aligned at the first axes."""
    if bill.method(node) in ("addmm", "baddbmm"):
        return replace(bill.outputs(node), quantity=prod(shapes[0]), note="elements of the array that is added")
    axes = max(map(len, shapes))
    padded = [shape + (1,) * (axes - len(shape)) for shape in shapes]
    exact = replace(bill.outputs(node), quantity=prod(broadcast(*shapes) or ()))
    counted = prod(max(lengths) for lengths in zip(*padded, strict=True))
    return exact.taken_for(counted, "shapes are aligned at their first axes, not at their last")


_POOLS = "MaxPool AvgPool AdaptiveMaxPool AdaptiveAvgPool"
_HOOKED = bill.names(f"Conv ConvTranspose BatchNorm InstanceNorm {_POOLS}", "1d 2d 3d") | recurrent.MODULES
_HOOKED |= {"GroupNorm", "LayerNorm", "Linear", "Upsample", "ReLU", "PReLU", "ELU", "LeakyReLU", "ReLU6", "GELU"}
_PTFLOPS_REPLACES = bill.names("F.max_pool F.avg_pool F.adaptive_max_pool F.adaptive_avg_pool", "1d 2d 3d")
_PTFLOPS_REPLACES |= bill.names("F.", "relu prelu elu relu6 gelu silu softmax interpolate upsample")
_PTFLOPS_REPLACES |= bill.names("torch. Tensor.", "matmul mm bmm addmm mul add")
_PTFLOPS_REPLACES |= {"torch.baddbmm"} | _SPELT_OUT

# Its hook bills as one what is recorded here piece by piece: the projections, scaling, products and softmax.
_ATTENTION = "MultiheadAttention"
_OF_TIMM = {"timm.layers.attention.Attention", "timm.models.vision_transformer.Attention"}
_BILLED = (ops.MatMul, ops.Softmax, ops.Multiply)
_BILLED_IN_ATTENTION: dict[str, tuple[type[Operator], ...]] = {_ATTENTION: (*_BILLED, ops.Linear)}
_BILLED_IN_ATTENTION |= dict.fromkeys(_OF_TIMM, _BILLED)


def _hooked_and_called(node: Node) -> Multiplicity:
    written = bill.as_written(node)
    if written.module in _BILLED_IN_ATTENTION:
        hooked = isinstance(node.op, _BILLED_IN_ATTENTION[written.module])
    else:  # a layer may compute its weights from others, which its hook does not see
        hooked = written.module in _HOOKED and not isinstance(node.op, ops.MatMul)
    hooks = written.paths if hooked else 0
    calls, missed = _called(node, _PTFLOPS_REPLACES)
    if calls and hooks:
        return calls + hooks, f"once for its module and again for {written.function}, which the module calls"
    if calls:
        return ONCE
    if hooked:
        return hooks, bill.under_names(node)
    return 0, bill.only_derived(node, "ptflops") if written.layer in _HOOKED else missed


def _alone(node: Node, term: bill.Term) -> bill.Term:
    """Return a term for one sample; what does not grow with the batch, such as a product of weights, stays."""
    samples = bill.as_written(node).samples
    return term if term.quantity % samples else replace(term, quantity=term.quantity // samples)


def _of_one_sample(rule: bill.Rule) -> bill.Rule:
    """Return a rule for the one sample that ptflops feeds to the network, whatever the batch."""
    return lambda node: tuple(_alone(node, term) for term in rule(node))


def _of_arrays(rule: Callable[[Node, tuple[Shape, ...]], bill.Term], arrays: int) -> bill.Rule:
    """Return a rule on shapes of one sample; dividing afterwards would not do, as alignment compares lengths.

    The first axis is that of samples, if it is as long, in the first `arrays` arrays that have as many axes as any.
    """

    def ruled(node: Node) -> tuple[bill.Term, ...]:
        samples, given = bill.as_written(node).samples, node.op.operands
        axes = max(map(len, given))
        of_one = tuple(
            (1, *shape[1:]) if place < arrays and (shape[0], len(shape)) == (samples, axes) else shape
            for place, shape in enumerate(given)
        )
        return (_alone(node, rule(node, given)) if of_one == given else rule(node, of_one),)

    return ruled


def _ptflops_norm(node: Node) -> tuple[bill.Term, ...]:
    """Layer norm has no attribute `affine`, by which ptflops tells whether it scales, so it counts once."""
    twice = node.op_as(ops.Norm).affine and not isinstance(node.op, ops.LayerNorm)
    return (bill.inputs(node, 2 if twice else 1),)


def _ptflops_matmul(node: Node) -> tuple[bill.Term, ...]:
    made = _of_arrays(bill.products_of_left, 1)(node)
    written = bill.as_written(node)
    if written.module not in _BILLED_IN_ATTENTION or "scaled" not in written.facts:
        return made
    queries = bill.inputs(node).quantity
    scaled = bill.Term("elements out of element-wise products", 1, queries, "attention scales the query")
    return (*made, _alone(node, scaled))


_PER_SAMPLE: dict[type[Operator], bill.Rule] = {
    **dict.fromkeys(bill.LAYERS, bill.each(bill.products, bill.biases)),
    **dict.fromkeys(bill.NORMS, _ptflops_norm),
    **dict.fromkeys((ops.Activation, ops.Softmax, *_POOLED), bill.each(bill.inputs)),
    ops.Resize: bill.each(bill.outputs),
    ops.Recurrent: recurrent.hooked,
}


class _Ptflops(Convention):
    """A module with a hook hides those inside it, which timm's attention has."""

    def decided(self, graph: Graph) -> Mapping[int, Counted]:
        attention = {node.name.split(" ")[0] for node in graph if bill.as_written(node).module in _OF_TIMM}
        why = "it is inside a module that has a hook"
        return {
            position: ((_called(node, _PTFLOPS_REPLACES)[0], why), self.priced(node))
            for position, node in enumerate(graph)
            if attention and node.name.split(" ")[0].rpartition(".")[0] in attention
        }


PTFLOPS = _Ptflops(
    name="ptflops",
    tool="ptflops 0.7.5 (backend pytorch)",
    unit="MACs",
    about="Products and biases of known modules, 2 per batch-norm element, and activations and pools up to twice.",
    prices={
        **{operator: _of_one_sample(rule) for operator, rule in _PER_SAMPLE.items()},
        **dict.fromkeys((ops.Add, ops.Multiply), _of_arrays(_aligned_left, 2)),
        ops.MatMul: _ptflops_matmul,
    },
    multiplicity=_hooked_and_called,
)

_CALLED = "F.conv F.conv_transpose F.max_pool F.avg_pool F.adaptive_max_pool F.adaptive_avg_pool"
_CALFLOPS_REPLACES = bill.names(_CALLED, "1d 2d 3d") | bill.names("F.", "linear softmax interpolate upsample")
_CALFLOPS_REPLACES |= bill.names("F.batch F.layer F.group F.instance", "_norm")
_CALFLOPS_REPLACES |= bill.names("F.", "relu relu6 prelu elu leaky_relu silu gelu")
_CALFLOPS_REPLACES |= bill.names("torch. Tensor.", "matmul addmm mul add")
_CALFLOPS_REPLACES |= {"torch.einsum", "torch.baddbmm"} | _SPELT_OUT


def _added_to_modules(node: Node) -> Multiplicity:
    """What a module does that stands under no name is counted for the module that calls it."""
    hooked = bill.as_written(node).module in recurrent.MODULES
    times, why = ONCE if hooked else _called(node, _CALFLOPS_REPLACES)
    paths = bill.as_written(node).paths
    return (paths, bill.under_names(node)) if times and paths else (times, why)


def _convolution(node: Node) -> tuple[bill.Term, ...]:
    """Products and biases. 'same' with an even kernel needs an odd number of zeros; calflops halves it, rounded."""
    op = node.op_as(ops.Conv2d)
    made, added = bill.products(node), bill.biases(node)
    if bill.as_written(node).padding != "same" or not any(op.padding):
        return made, added
    zeros = zip(op.padding[::2], op.padding[1::2], strict=True)
    pixels = node.batch * prod(positions(op, tuple(sum(both) // 2 * 2 for both in zeros)))
    counted = pixels * prod(op.kernel) * op.input[-1] * (op.out_channels // op.groups)
    made = made.taken_for(counted, "it takes the output for a row and a column smaller")
    return made, replace(added, quantity=pixels * op.out_channels * op.bias, note=made.note)


def _transposed(node: Node) -> tuple[bill.Term, ...]:
    """The weight has out/groups filters per channel; calflops divides by the groups again, and rounds down.

    For the bias it takes the output to be that of a convolution, which makes it smaller, not larger.
    """
    op = node.op_as(ops.ConvTranspose2d)
    filters = op.out_channels // op.groups
    counted = node.batch * prod(op.input) * prod(op.kernel) * (filters // op.groups)
    added = node.batch * prod(positions(op, tuple(2 * zeros for zeros in op.padding[::2]))) * filters * op.bias
    twice = "it divides by the groups twice" if op.groups > 1 else ""
    smaller = "it takes the output for a convolution's" if op.bias else ""
    return bill.products_as(node, counted, twice), replace(bill.biases(node), quantity=added, note=smaller)


def _linear(node: Node) -> tuple[bill.Term, ...]:
    """Only a convolution's bias is counted; a linear layer may be written as a 1x1 convolution."""
    is_convolution = bill.as_written(node).function.startswith("F.conv")
    return (bill.products(node), bill.biases(node)) if is_convolution else (bill.products(node),)


def _einsum(node: Node) -> tuple[bill.Term, ...]:
    """NumPy's estimate of the operations, as its report prints it."""
    estimate = int(bill.numpy_estimate(node.op_as(ops.Einsum)))
    return (bill.products_as(node, estimate, "operations, as NumPy estimates them, to four digits"),)


def _norm(node: Node) -> tuple[bill.Term, ...]:
    """What is in training mode is put into evaluation mode for counting."""
    written = bill.as_written(node)
    return (bill.normalising(node, measured="statistics" in written.facts and not written.training),)


def _resize(node: Node) -> tuple[bill.Term, ...]:
    """Told a factor it counts the input and forgets the factor; told a size, no more than the numbers told."""
    facts, size = bill.as_written(node).facts, node.op_as(ops.Resize).size
    counted, note = bill.inputs(node).quantity, "elements before resizing"
    if "side" in facts:
        counted, note = size[-1], "one side's pixels of one channel of one sample"
    elif "size" in facts:
        counted, note = prod(size), "pixels of one channel of one sample"
    return (replace(bill.outputs(node), quantity=counted, note=note),)


_PRODUCTS: dict[type[Operator], bill.Rule] = {
    ops.Conv2d: _convolution,
    ops.ConvTranspose2d: _transposed,
    ops.Linear: _linear,
    ops.MatMul: lambda node: (bill.products_of_left(node, node.op.operands),),
}


def _products(rule: bill.Rule) -> bill.Rule:
    return lambda node: rule(node)[:1]


def _operations(rule: bill.Rule) -> bill.Rule:
    """Each product is two operations; a bias, which follows it, is one."""
    return lambda node: (replace(rule(node)[0], factor=2), *rule(node)[1:])


CALFLOPS = Convention(
    name="calflops",
    tool="calflops 0.3.2 (its MACs)",
    unit="MACs",
    about="Products of convolutions, linear layers and torch.matmul; operator signs such as x @ y are missed.",
    prices={operator: _products(rule) for operator, rule in _PRODUCTS.items()},
    multiplicity=_added_to_modules,
)

CALFLOPS_FLOPS = Convention(
    name="calflops-flops",
    tool="calflops 0.3.2 (its FLOPs)",
    unit="FLOPs",
    about="Twice the products, biases of convolutions, 2 per batch-norm element, and activations and pools.",
    prices={
        **{operator: _operations(rule) for operator, rule in _PRODUCTS.items()},
        **dict.fromkeys((ops.Add, ops.Multiply), lambda node: (_aligned_left(node, node.op.operands),)),
        **dict.fromkeys((ops.Activation, ops.Softmax, *_POOLED), bill.each(bill.inputs)),
        **dict.fromkeys(bill.NORMS, _norm),
        ops.Einsum: _einsum,
        ops.Resize: _resize,
        ops.Recurrent: recurrent.calflops,
    },
    multiplicity=_added_to_modules,
)


def _dispatched(node: Node) -> Multiplicity:
    facts, function = bill.as_written(node).facts, bill.as_written(node).function
    if function.startswith("quantized."):
        return 0, "it is a quantised operator, which it does not know"
    if "vector" in facts and "strided" not in facts:
        return 0, "a product with a vector is an operator of its own, which it does not know"
    if "fused" in facts or recurrent.is_one_operator(node) or function in bill.WHOLE:
        return 0, "it is one fused operator on a processor, which it does not know"
    return ONCE


def _dispatched_for_ptflops(node: Node) -> Multiplicity:
    unknown = bill.as_written(node).function == "torch.baddbmm"
    return (0, "baddbmm is an operator that it does not know") if unknown else _dispatched(node)


def _dispatched_layer(node: Node) -> tuple[bill.Term, ...]:
    """A bias is added apart if the input must be copied; one sample need not be, if its axis is the second."""
    written = bill.as_written(node)
    samples_second = "swapped" in written.facts and node.op.operands[0][0] == written.samples
    apart = "strided" in written.facts and not samples_second
    added = bill.biases(node, 1 + (node.real == 3))  # real and imaginary ones
    return (bill.executed(node),) if apart else (bill.executed(node), added)


def _dispatched_sum(node: Node) -> tuple[bill.Term, ...]:
    """Of all sums it counts the one that is part of a matrix product, as a bias is."""
    return (bill.outputs(node),) if bill.method(node) == "addmm" else ()


PTFLOPS_ATEN = Convention(
    name="ptflops-aten",
    tool="ptflops 0.7.5 (backend aten)",
    unit="MACs",
    about="Products of convolutions and matrix products, and the biases of both; nothing else.",
    prices={
        **dict.fromkeys((*bill.LAYERS, ops.Recurrent), _of_one_sample(_dispatched_layer)),
        ops.Add: _of_one_sample(_dispatched_sum),
    },
    multiplicity=_dispatched_for_ptflops,
)


def _dispatched_for_torch(node: Node) -> Multiplicity:
    """Fused attention on a processor is among the operators that it knows since PyTorch 2.15."""
    knows = _release(installed_version("torch") or TORCH.versions[-1]) >= (2, 15)
    return ONCE if knows and "fused" in bill.as_written(node).facts else _dispatched(node)


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


TORCH = Convention(
    name="torch",
    tool="torch 2.13.0 and 2.15.0 (torch.utils.flop_counter)",
    unit="FLOPs",
    about="Two operations, a multiplication and an addition, for each product; nothing else.",
    prices=dict.fromkeys((*bill.LAYERS, ops.Recurrent), bill.each(bill.executed, factor=2)),
    multiplicity=_dispatched_for_torch,
)
