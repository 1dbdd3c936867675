"""Known causes why a tool's number is not the one predicted, each for the cells alone in which it really occurs.

A cell is one tool's number for one network. `cause_of` names the cause of a difference; one without a cause is an
error of the prediction or of the tool.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nachos_min.macs.conventions.catalogue import CONVENTIONS
from nachos_min.macs.conventions.peers import lengths_in
from nachos_min.macs.ops import Graph


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


def _are_lengths(cell: Cell) -> bool:
    return lengths_in(cell.tool, cell.module, cell.inputs, cell.options) == cell.difference


EXCEPTIONS = (
    Known(
        ("torchprofile", "onnx-tool"),
        "arithmetic on lengths, which the network does outside of PyTorch's operators, is traced and counted",
        _are_lengths,
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
