"""Recurrent layers and cells: what each tool adds up beside products and biases, for each element of a state.

Tools that hook modules know the steps of all samples, but no projection. Those that see what is executed know cells
and the layers that are made of products; PyTorch runs most LSTM layers as one operator.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from nachos_min.macs import ops
from nachos_min.macs.conventions import bill
from nachos_min.macs.ops import Node

MODULES = bill.names("LSTM GRU RNN", "Cell") | {"LSTM", "GRU", "RNN"}

# Operations for each element of a state, by kind.
_THOP = {"lstm": 8, "gru": 7, "rnn_tanh": 1, "rnn_relu": 1}
_PTFLOPS = _THOP | {"lstm": 10}
_PRODUCTS = {"lstm": 3, "gru": 2}
_LAYER_IN_FILE, _CELL_IN_FILE = {"lstm": 180, "gru": 110}, {"lstm": 256, "gru": 147, "rnn_tanh": 77, "rnn_relu": 2}


def is_cell(node: Node) -> bool:
    """Return whether a node is one step of a cell."""
    return bill.as_written(node).function.endswith("_cell")


def is_one_operator(node: Node) -> bool:
    """Return whether PyTorch runs a node as an operator that no tool which watches the dispatcher knows."""
    op = node.op
    whole = isinstance(op, ops.Recurrent) and op.kind == "lstm" and not (op.projection or is_cell(node))
    return whole and "packed" not in bill.as_written(node).facts


def _states(node: Node, prices: Mapping[str, int]) -> bill.Term:
    op = node.op_as(ops.Recurrent)
    elements = node.batch * op.input[0] * op.hidden
    return bill.Term("elements of recurrent states", prices.get(op.kind, 0), elements)


def _made(node: Node, state: int, note: str) -> bill.Term:
    """Return the products of the gates with what is read and with the `state` that the step before made."""
    op = node.op_as(ops.Recurrent)
    gates = op.gates * node.batch * op.input[0] * op.hidden
    return bill.products(node).taken_for(gates * (op.input[1] + state), note)


def thop(node: Node) -> tuple[bill.Term, ...]:
    """Return what the hook of thop adds."""
    made = _made(node, node.op_as(ops.Recurrent).hidden, "the state is taken to be hidden features")
    return made, bill.biases(node), _states(node, _THOP)


def hooked(node: Node) -> tuple[bill.Term, ...]:
    """Return what the hook of ptflops adds."""
    made = _made(node, node.op.output[1], "the projection is left out")
    return made, bill.biases(node), _states(node, _PTFLOPS)


def calflops(node: Node) -> tuple[bill.Term, ...]:
    """Return what its hook adds: additions within a product are counted apart, one less than products."""
    made, *others = hooked(node)
    op = node.op_as(ops.Recurrent)
    gates = _states(node, {op.kind: -2 * op.gates})
    return replace(made, factor=2), *others, gates


def torchinfo(node: Node) -> tuple[bill.Term, ...]:
    """Return its parameters, as often as the first array that it returns has elements on its first two axes."""
    op = node.op_as(ops.Recurrent)
    often = node.batch * (op.hidden if is_cell(node) else op.input[0])
    return (bill.Term("parameters of recurrent layers", 1, often * op.params),)


def traced(products: Mapping[str, int], layers: bool) -> Callable[[Node], tuple[bill.Term, ...]]:
    """Return the rule of a tool that traces: cells are traced as products; `layers` of LSTM may have a rule."""

    def rule(node: Node) -> tuple[bill.Term, ...]:
        op = node.op_as(ops.Recurrent)
        if is_cell(node):
            return bill.products(node), _states(node, products)
        if not layers or op.kind != "lstm":
            return ()
        shorter = replace(op, hidden=op.output[1], projection=0)
        note = "the hidden features are taken to be those that it returns"
        return (bill.products(node).taken_for(node.batch * shorter.macs, note),)

    return rule


FVCORE, TORCHPROFILE = traced({}, layers=False), traced(_PRODUCTS, layers=True)


def in_file(node: Node, first: bool = True) -> tuple[bill.Term, ...]:
    """Return what onnx-tool adds; the states of a layer count once, for the `first` direction."""
    prices = _CELL_IN_FILE if is_cell(node) else _LAYER_IN_FILE if first else {}
    return bill.products(node), bill.biases(node), _states(node, prices)
