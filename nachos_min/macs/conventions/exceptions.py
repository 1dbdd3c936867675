"""Known causes why a tool's number is not the one predicted, each for the cells alone in which it really occurs.

A cell is one tool's number for one network. `cause_of` names the cause of a difference; one without a cause is an
error of the prediction or of the tool.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nachos_min.macs.conventions.bill import as_written
from nachos_min.macs.conventions.catalogue import CONVENTIONS
from nachos_min.macs.ops import Graph


@dataclass(frozen=True)
class Known:
    """A known cause of a difference.

    Args:
        tools: conventions whose tools differ for it, by name.
        cause: one plain clause.
        explains: graph, reported minus predicted -> whether it occurs and can make up that difference.
    """

    tools: tuple[str, ...]
    cause: str
    explains: Callable[[Graph, int], bool]


EXCEPTIONS: tuple[Known, ...] = ()


def cause_of(name: str, graph: Graph, reported: int) -> str:
    """Return why the tool behind the convention `name` did not report the prediction, "" if no known cause occurs."""
    difference = reported - CONVENTIONS[name].total(graph)
    known = (each for each in EXCEPTIONS if name in each.tools)
    return next((each.cause for each in known if difference and each.explains(graph, difference)), "")
