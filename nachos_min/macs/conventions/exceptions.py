"""Known causes why a tool's number is not the one predicted, each for the cells alone in which it really occurs.

A cell is one tool's number for one network. `cause_of` names the cause of a difference; one without a cause is an
error of the prediction or of the tool.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nachos_min.macs.conventions.bill import as_written
from nachos_min.macs.conventions.catalogue import CONVENTIONS
from nachos_min.macs.conventions.peers import Options, part_of
from nachos_min.macs.ops import Graph

# Whether a cause explains the difference (reported minus predicted) of a tool for a graph: what it names occurs and
# makes up the difference. The last argument runs the tool and returns how much of its count the cause makes.
Explains = Callable[[str, Graph, int, Callable[[], int]], bool]


def _is_part(_tool: str, _graph: Graph, difference: int, part: Callable[[], int]) -> bool:
    return part() == difference


def _is_of_own_classes(tool: str, graph: Graph, difference: int, part: Callable[[], int]) -> bool:
    own = {position for position, node in enumerate(graph) if "." in as_written(node).module}
    predicted = sum(term.amount for term in CONVENTIONS[tool].terms(graph) if term.node in own)
    return part() - predicted == difference


def _is_further_steps(tool: str, graph: Graph, difference: int, _part: Callable[[], int]) -> bool:
    """Return whether the difference is some whole number of steps more through the layers with packed sequences."""
    steps = {
        place: node.op.operands[0][0] for place, node in enumerate(graph) if "packed" in as_written(node).facts
    }
    made = sum(term.amount for term in CONVENTIONS[tool].terms(graph) if term.node in steps)
    return difference > 0 < made and difference * max(steps.values()) % made == 0


# Conventions whose tools differ for a known cause, the cause in one plain clause, and what tells that it explains.
EXCEPTIONS: tuple[tuple[tuple[str, ...], str, Explains], ...] = (
    (
        ("torchprofile", "onnx-tool"),
        "arithmetic on lengths, which the network does outside of PyTorch's operators, is traced and counted",
        _is_part,
    ),
    (
        ("torchinfo",),
        "it counts parameters of classes that are not PyTorch's by their names, which are not recorded",
        _is_of_own_classes,
    ),
    (
        ("thop", "torchprofile", "torchinfo", "onnx-tool"),
        "it takes a packed sequence for a padded one, or its features for steps",
        _is_further_steps,
    ),
)


def cause_of(
    name: str, graph: Graph, reported: int, module: Any, inputs: Sequence[Any], options: Options = None
) -> str:
    """Return why the tool behind the convention `name` did not report the prediction, "" if no cause is known."""
    difference, part = reported - CONVENTIONS[name].total(graph), partial(part_of, name, module, inputs, options)
    for tools, cause, explains in EXCEPTIONS:
        if difference and name in tools and explains(name, graph, difference, part):
            return cause
    return ""
