"""Known causes why a tool's number is not the one predicted, each for the cells alone in which it really occurs.

A cell is one tool's number for one network. `cause_of` names the cause of a difference; one without a cause is an
error of the prediction or of the tool.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nachos_min.macs.conventions.bill import as_written, outputs
from nachos_min.macs.conventions.catalogue import CONVENTIONS
from nachos_min.macs.conventions.peers import part_of
from nachos_min.macs.ops import Add, Graph


@dataclass(frozen=True)
class Cell:
    """A tool's number for a network that differs from the prediction, and how the network was called."""

    tool: str
    graph: Graph
    difference: int  # reported minus predicted
    module: Any
    inputs: Sequence[Any]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """A known cause: the conventions whose tools differ for it, one plain clause, and whether it explains a cell.

    It explains a cell if what it names occurs there and makes up the difference.
    """

    tools: tuple[str, ...]
    cause: str
    explains: Callable[[Cell], bool]


def _part(cell: Cell) -> int:
    return part_of(cell.tool, cell.module, cell.inputs, cell.options)


def _is_of_own_classes(cell: Cell) -> bool:
    own = {position for position, node in enumerate(cell.graph) if "." in as_written(node).module}
    predicted = sum(term.amount for term in CONVENTIONS[cell.tool].terms(cell.graph) if term.node in own)
    return _part(cell) - predicted == cell.difference


def _is_sums_with_a_number(cell: Cell) -> bool:
    """Return whether the difference is what all sums of an array and a number in one class of modules write."""
    written: Counter[str] = Counter()
    for node in cell.graph:
        if isinstance(node.op, Add) and len(node.op.shapes) == 1:
            written[as_written(node).module] += outputs(node).quantity
    return -cell.difference in written.values()


EXCEPTIONS = (
    Known(
        ("torchprofile", "onnx-tool"),
        "arithmetic on lengths, which the network does outside of PyTorch's operators, is traced and counted",
        lambda cell: _part(cell) == cell.difference,
    ),
    Known(
        ("onnx-tool",),
        "a sum with 0 is left out of the exported file, and which number is added is not recorded",
        _is_sums_with_a_number,
    ),
    Known(
        ("torchinfo",),
        "it counts parameters of classes that are not PyTorch's by their names, which are not recorded",
        _is_of_own_classes,
    ),
)


def cause_of(
    name: str,
    graph: Graph,
    reported: int,
    module: Any,
    inputs: Sequence[Any],
    options: Mapping[str, Any] | None = None,
) -> str:
    """Return why the tool behind the convention `name` did not report the prediction, "" if no cause is known."""
    cell = Cell(name, graph, reported - CONVENTIONS[name].total(graph), module, inputs, options or {})
    known = (each for each in EXCEPTIONS if name in each.tools)
    return next((each.cause for each in known if cell.difference and each.explains(cell)), "")
