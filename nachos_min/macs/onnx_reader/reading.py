"""An ONNX file as graphs of records, for any convention to count: `read_onnx`.

This is the way in; the other files are read in the order that `__init__.py` names. The shapes are worked out
here, operator by operator, from the inputs' shapes; what the file says of shapes in between is not trusted.

What an ONNX file does not say: which initialisers were trained. All of more than one floating point number
count as trained once an operator reads them, but for the running statistics of batch norm; a table of
constants that was registered as a buffer counts, too. Initialisers that two nodes read count once, but once for
each graph: a branch of an `If` has a count of its own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.file import load
from nachos_min.macs.onnx_reader.inputs import declared_lengths, input_shapes
from nachos_min.macs.onnx_reader.labels import label, quoted, shortened
from nachos_min.macs.onnx_reader.walk import Branch as Branch
from nachos_min.macs.onnx_reader.walk import Walk
from nachos_min.macs.ops import Graph, Source
from nachos_min.macs.record import CountError, Shape


@final
@dataclass(frozen=True)
class OnnxReading:
    """What an ONNX file computes.

    Args:
        graph: what always runs.
        branches: of each `If` whose condition depends on the data, those inside others after them.
        inputs: shapes used, by name, in the file's order.
    """

    graph: Graph
    branches: tuple[Branch, ...]
    inputs: dict[str, Shape]


def read_onnx(path: str | os.PathLike[str], input_shapes: Mapping[str, Shape] | Shape | None = None) -> OnnxReading:
    """Return what an ONNX file computes, as records.

    Args:
        path: of the .onnx file, operator sets 7 to the newest that the installed package onnx knows.
        input_shapes: with the batch axis: one for the first input, or several by name; None if the file says
            them all.

    Returns:
        Graphs whose counts are exact; weights' values are not read.

    Raises:
        CountError: the file cannot be read or is damaged, an operator has no rule (its type, name and position
            are named), shapes are open or contradict each other. One line, whatever the file.
    """
    model, newest = load(path)
    try:
        return _read(model, newest, input_shapes)
    except CountError as error:
        raise CountError(shortened(str(error))) from None


def _read(model: Any, newest: int, given: Mapping[str, Shape] | Shape | None) -> OnnxReading:
    if not model.HasField("graph"):
        raise CountError(f"no ONNX file: it has no graph, got {len(model.opset_import)} operator sets only")
    shapes = input_shapes(model.graph, given)
    walk = Walk(model, newest)
    scope = walk.root()
    walk.constants(model.graph, scope)
    for position, (name, shape) in enumerate(shapes.items()):
        walk.budget.spend_node(0)
        node = scope.assembly.add(label(name), Source(shape or (1,)), ()) if position else -1
        scope.define(name, Array(shape, node))
    walk.body(model.graph, scope)
    for value in model.graph.output:
        if value.name not in scope.arrays:
            raise CountError(f"an output must be made by some node, got {quoted(value.name)}")
        made = scope.arrays[value.name]
        declared = declared_lengths(value)
        if declared is not None and made is not None and not _agree(declared, made.shape):
            listed = ", ".join(label(str(length)) for length in declared)
            raise CountError(
                f"output {quoted(value.name)} is declared as ({listed}), its operators make {made.shape}"
            )
    return OnnxReading(tuple(scope.assembly.nodes), tuple(walk.branches), shapes)


def _agree(declared: tuple[int | str, ...], made: Shape) -> bool:
    return len(declared) == len(made) and all(
        isinstance(length, str) or length == found for length, found in zip(declared, made, strict=True)
    )
