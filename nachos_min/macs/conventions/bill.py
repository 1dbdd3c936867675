"""What a tool may bill a node: terms of quantities, and how the node was written, which decides what a tool sees.

An architecture or an ONNX file was never written in PyTorch; for them the class counts that most people would use.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from nachos_min.macs import ops
from nachos_min.macs.ops import Node, Written
from nachos_min.macs.record import Shape, broadcast


@dataclass(frozen=True)
class Term:
    """One summand of a count: factor * quantity, as often as the tool counts the node.

    Args:
        subject: what the quantity is a number of, in the plural, the same text in every convention.
        factor: how much is added for each.
        quantity: how many, of all samples.
        note: why the quantity is not what its subject says, if it is not; a clause.
        times, why: how often the node is counted, and why not once.
        node: position in the graph; None for a term of no node, such as rounding.
    """

    subject: str
    factor: int
    quantity: int
    note: str = ""
    times: int = 1
    why: str = ""
    node: int | None = None

    @property
    def amount(self) -> int:
        """What the term adds to the total."""
        return self.factor * self.quantity * self.times

    @property
    def reasons(self) -> tuple[str, str]:
        """Reasons for the multiplicity and for the quantity; no reason for a quantity that is not counted."""
        return self.why, self.note if self.times else ""

    def taken_for(self, quantity: int, note: str) -> "Term":
        """Return the term with the quantity that a tool takes for this one, and a note if they differ."""
        return replace(self, quantity=quantity, note="" if quantity == self.quantity else note)


Rule = Callable[[Node], tuple[Term, ...]]

NORMS = (ops.BatchNorm, ops.GroupNorm, ops.InstanceNorm, ops.LayerNorm)
LAYERS = (ops.Conv, ops.ConvTranspose, ops.Linear, ops.MatMul, ops.Einsum)


def products(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each multiply-accumulate of a node, one of complex numbers taken for a real one."""
    return Term(f"products of {node.op.plural.format(node.op)}", factor, node.macs // node.real)


def biases(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each output element that gets a bias."""
    added = node.columns.get("bias_adds", 0)
    return Term(f"bias additions of {node.op.plural.format(node.op)}", factor, added)


def inputs(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each element of the first array that a node reads."""
    elements = node.batch * prod(node.op.operands[0])
    return Term(f"elements into {node.op.plural.format(node.op)}", factor, elements)


def outputs(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each element that a node writes."""
    elements = node.batch * prod(node.op.output)
    return Term(f"elements out of {node.op.plural.format(node.op)}", factor, elements)


def each(*quantities: Callable[[Node, int], Term], factor: int = 1) -> Rule:
    """Return the rule that adds `factor` for each of these quantities."""
    return lambda node: tuple(quantity(node, factor) for quantity in quantities)


def by_kind(quantity: Callable[[Node, int], Term], prices: Mapping[str, int], *, others: bool = True) -> Rule:
    """Return the rule that adds the price of an operator's kind or mode: 0, or no term, for `others`."""

    def rule(node: Node) -> tuple[Term, ...]:
        kind = getattr(node.op, "mode", "") or getattr(node.op, "kind", "")
        return (quantity(node, prices.get(kind, 0)),) if others or kind in prices else ()

    return rule


def executed(node: Node, factor: int = 1) -> Term:
    """Return `factor` for each product that PyTorch executes: a complex convolution is three real ones."""
    made, times = products(node, factor), node.real if isinstance(node.op, ops.Conv) else 1
    return made.taken_for(made.quantity * times, "three real convolutions are executed for a complex one")


def products_as(node: Node, quantity: int, note: str = "") -> Term:
    """Return one for each of `quantity`, which a tool takes for the products of a node."""
    return replace(products(node), quantity=quantity, note=note)


def taps(node: Node, channels: int) -> int:
    """Return the products of a convolution if each output element took `channels` at each tap of the kernel."""
    op = node.op_as(ops.Conv2d, ops.ConvTranspose2d)
    return node.batch * prod(op.output) * channels * prod(op.kernel)


def normalising(node: Node, measured: bool) -> Term:
    """Return 4 for each element, or 1 for a batch norm that is not `measured`, and 1 more if it scales."""
    least = 4 if measured or not isinstance(node.op, ops.BatchNorm) else 1
    return inputs(node, least + node.op_as(ops.Norm).affine)


def products_of_left(node: Node, shapes: tuple[Shape, ...]) -> Term:
    """Return one for each element of the left array times each column of the right one, nothing broadcast.

    `shapes` are (..., m, k) and (..., k, n), as the tool is given them.
    """
    left, right = shapes
    exact = prod(broadcast(left[:-2], right[:-2]) or ()) * left[-2] * left[-1] * right[-1]
    if "vector" in as_written(node).facts:
        return products_as(node, prod(left) * right[-2], "the length of a vector is taken for its columns")
    return products_as(node, exact).taken_for(prod(left) * right[-1], "the first array is not repeated")


def numpy_estimate(op: ops.Einsum) -> float:
    """Return the operations of an Einstein sum that NumPy's report prints, to four digits."""
    return float(f"{prod(op.lengths.values()) * (1 + op.sums) + 1:.3e}")


ATTENTION = "F.scaled_dot_product_attention"
WHOLE = {"aten._trilinear", "torch.cdist"}  # executed as one operator, which no tool knows

# Operator or kind of activation, and the function and class of torch.nn that most people would use. The class
# ReLU6 calls its parent's function, not F.relu6.
_TABLE = """
    Conv           F.conv2d              Conv2d          ConvTranspose    F.conv_transpose2d     ConvTranspose2d
    Linear         F.linear              Linear          BatchNorm        F.batch_norm           BatchNorm2d
    LayerNorm      F.layer_norm          LayerNorm       GroupNorm        F.group_norm           GroupNorm
    InstanceNorm   F.instance_norm       InstanceNorm2d  Softmax          F.softmax              Softmax
    MaxPool        F.max_pool2d          MaxPool2d       AdaptiveMaxPool  F.adaptive_max_pool2d  AdaptiveMaxPool2d
    AvgPool        F.avg_pool2d          AvgPool2d       AdaptiveAvgPool  F.adaptive_avg_pool2d  AdaptiveAvgPool2d
    Resize         F.interpolate         Upsample        GlobalAvgPool    F.adaptive_avg_pool2d  AdaptiveAvgPool2d
    relu           F.relu                ReLU            relu6            F.hardtanh             ReLU6
    hswish         F.hardswish           Hardswish       hsigmoid         F.hardsigmoid          Hardsigmoid
    sigmoid        torch.sigmoid         Sigmoid         tanh             torch.tanh             Tanh
    silu           F.silu                SiLU            gelu             F.gelu                 GELU
    elu            F.elu                 ELU             leaky_relu       F.leaky_relu           LeakyReLU
    prelu          F.prelu               PReLU
"""
_words = _TABLE.split()
_USUAL = {
    key: Written(function, module=module, layer=module)
    for key, function, module in zip(_words[::3], _words[1::3], _words[2::3], strict=True)
}
_SIGNS = {"MatMul": "torch.matmul", "Einsum": "torch.einsum", "Add": "x + y", "Multiply": "x * y"}
_USUAL |= {key: Written(function) for key, function in _SIGNS.items()}


def as_written(node: Node) -> Written:
    """Return how a node was written, or else the usual module or operator sign."""
    if node.written is not None:
        return node.written
    kind = node.op.kind if isinstance(node.op, ops.Activation) else ""
    return _USUAL.get(kind or type(node.op).__name__) or Written(kind)


def method(node: Node) -> str:
    """Return the function's name without its place: "addmm" of "torch.addmm"."""
    return as_written(node).function.rpartition(".")[2]


def names(starts: str, ends: str) -> frozenset[str]:
    """Return every start with every end: "torch. Tensor." and "mm bmm" are four names."""
    return frozenset(start + end for start in starts.split() for end in ends.split())


def under_names(node: Node) -> str:
    """Return why a tool that hooks modules does not count a node once, "" if it does."""
    paths = as_written(node).paths
    if paths == 0:
        return "its module is kept in a plain list, where no tool finds it"
    return f"its module stands under {paths} names" if paths > 1 else ""


def only_derived(node: Node, tool: str) -> str:
    """Return why a module of a derived class has no hook."""
    written = as_written(node)
    return f"its class {written.module} only derives from {written.layer}, and {tool} has no hook for it"
