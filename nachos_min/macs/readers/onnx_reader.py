"""An ONNX file as graphs of records, for any convention to count: `read_onnx`.

Shapes are computed operator by operator from the inputs' shapes. A file does not say which initialisers were
trained: all of more than one floating point number are, once an operator reads them, except running statistics of
batch norm. Initialisers that two nodes read count once in each graph.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from nachos_min.macs.ops import Graph
from nachos_min.macs.readers import onnx_attention, onnx_fused, onnx_layers, onnx_moves
from nachos_min.macs.readers.builder import Builder, label, quoted, require
from nachos_min.macs.readers.onnx_call import Array, checked_shape
from nachos_min.macs.readers.onnx_file import Message, Steps, declared_lengths, load
from nachos_min.macs.readers.onnx_walk import Branch as Branch
from nachos_min.macs.readers.onnx_walk import Scope, Walk
from nachos_min.macs.record import CountError, Shape

_RULES = (onnx_attention, onnx_fused, onnx_layers, onnx_moves)  # files whose rules register themselves
Length = int | str  # a number, or the name of one that the file leaves open


@final
@dataclass(frozen=True)
class OnnxReading:
    """What an ONNX file computes."""

    graph: Graph  # what always runs
    branches: tuple[Branch, ...]  # of each `If` that depends on the data, those inside others after them
    inputs: dict[str, Shape]  # shapes used, by name, in the file's order


def read_onnx(path: str | os.PathLike[str], input_shapes: Mapping[str, Shape] | Shape | None = None) -> OnnxReading:
    """Return what an ONNX file of operator sets 7 to 28 computes, as records; weights' values are not read.

    `input_shapes` have the batch axis: one for the first input, or several by name; None if the file says them all,
    or leaves no more open than the number of samples: then it is 1. CountError, one line, whatever the file.
    """
    steps = Steps()
    model = load(path, steps)
    sets = len(model.opset_import)
    require(model.graph is not None, f"no ONNX file: it has no graph, got {sets} operator sets only")
    shapes = _input_shapes(model.graph, input_shapes)
    walk = Walk(model, steps)
    scope = Scope(steps, Builder(steps.spend), walk.opset)
    scope.constants(model.graph)
    for position, (name, shape) in enumerate(shapes.items()):
        scope.define(name, Array(shape, scope.builder.given(label(name), shape) if position else -1))
    walk.body(model.graph.node, scope)
    if (refused := walk.causes.error()) is not None:
        raise refused
    for value in model.graph.output:
        require(value.name in scope.arrays, f"an output must be made by some node, got {quoted(value.name)}")
        made = scope.arrays[value.name]
        declared = declared_lengths(value)
        if declared is not None and made is not None and made.parts is None and not made.bounded:
            known = tuple(length if isinstance(length, int) else "?" for length in declared)
            what = f"output {quoted(value.name)} is declared as {_listed(declared)}"
            require(_agree(made.shape, known, {}), f"{what}, its operators make {made.shape}")
    return OnnxReading(tuple(scope.builder.nodes), tuple(walk.branches), shapes)


# Shapes of the inputs: what the file declares, completed by what the user gives. A name stands for one length.


def _input_shapes(graph: Message, given: Mapping[str, Shape] | Shape | None) -> dict[str, Shape]:
    """Return the shape of each input that is no initialiser, in the file's order."""
    fixed = {tensor.name for tensor in graph.initializer}
    declared: dict[str, tuple[Length, ...] | None] = {}
    for value in graph.input:
        require(value.name not in declared, f"every input must have its own name, got {quoted(value.name)} twice")
        if value.name not in fixed:
            declared[value.name] = _declared(value)
    names = list(declared)
    if isinstance(given, tuple):
        require(names, f"the network has no input, got shape {given}")
        given = {names[0]: given}
    given = given or {}
    listed = ", ".join(label(known) for known in names[:8]) or "none"
    lengths: dict[str, int] = {}
    for name, shape in given.items():
        require(name in declared, f"inputs are {listed}, got a shape for {quoted(name)}")
        sound = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
        require(sound, f"a shape must be integers >= 0, got {shape!r} for input {quoted(name)}")
        known = declared[name]
        checked_shape(shape)
        if known is not None and not _agree(shape, known, lengths):
            raise CountError(f"input {quoted(name)} is declared as {_listed(known)}, got {shape}")
    first = next(iter(names), "")
    batch, *others = declared.get(first) or ("?",)
    if isinstance(batch, str) and batch != "?" and others and batch not in others:
        lengths.setdefault(batch, 1)
    return {n: given[n] if n in given else _completed(n, declared[n], lengths, n == first) for n in names}


def _declared(value: Message) -> tuple[Length, ...] | None:
    named = f"input {quoted(value.name)}"
    require(value.type and value.type.tensor_type, f"{named} must be a tensor, got another type or none")
    declared = declared_lengths(value)
    if declared is not None:
        checked_shape((1,) * len(declared))
        positive = all(isinstance(length, str) or length >= 0 for length in declared)
        require(positive, f"{named} must have lengths >= 0, got {_listed(declared)}")
    return declared


def _agree(shape: Shape, declared: tuple[Length, ...], lengths: dict[str, int]) -> bool:
    """Return whether a shape is as declared, and note in `lengths` what the named lengths are."""
    if len(shape) != len(declared):
        return False
    for length, known in zip(shape, declared, strict=True):
        if length != (known if isinstance(known, int) else lengths.get(known, length)):
            return False
        if isinstance(known, str) and known != "?":
            lengths[known] = length
    return True


def _completed(name: str, declared: tuple[Length, ...] | None, lengths: dict[str, int], first: bool) -> Shape:
    """Return the shape of an input that is not given; the error says how to give it."""
    if declared is None:
        raise CountError(f"input {quoted(name)} has no declared shape: give it with --input, got none")
    shape = tuple(lengths.get(length, -1) if isinstance(length, str) else length for length in declared)
    if -1 in shape:
        usual = (1, 3, 224, 224) if len(shape) == 4 else (1,) * len(shape)
        filled = tuple(filling if length < 0 else length for length, filling in zip(shape, usual, strict=True))
        way = (
            f"--input {','.join(map(str, filled))}" if first else f"count_macs(..., {{{label(name)!r}: {filled}}})"
        )
        raise CountError(f"input {quoted(name)} has dynamic dimensions {_listed(declared)}: give them with {way}")
    return shape


def _listed(declared: tuple[Length, ...]) -> str:
    return f"({', '.join(label(str(length)) for length in declared)})"
