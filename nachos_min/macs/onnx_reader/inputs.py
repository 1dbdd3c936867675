"""Shapes of a network's inputs: what the file declares, completed by what the user gives.

Read `arrays.py` first. An exported network often leaves its batch or its height and width open; a count needs
them. A length that has a name is the same wherever the name stands.
"""

from collections.abc import Mapping
from typing import Any

from nachos_min.macs.onnx_reader.arrays import checked_shape
from nachos_min.macs.onnx_reader.labels import label, quoted
from nachos_min.macs.record import CountError, Shape

Length = int | str  # a number, or the name of one that the file leaves open


def input_shapes(graph: Any, given: Mapping[str, Shape] | Shape | None) -> dict[str, Shape]:
    """Return the shape of each input that is no initialiser, in the file's order.

    Args:
        graph: the model's GraphProto.
        given: shapes by name, or one for the first input.

    Raises:
        CountError: a shape given for no input, one that the file contradicts, or a length that nobody gives.
    """
    fixed = {tensor.name for tensor in graph.initializer}
    declared: dict[str, tuple[Length, ...] | None] = {}
    for value in graph.input:
        if value.name in declared:
            raise CountError(f"every input must have a name of its own, got {quoted(value.name)} twice")
        if value.name not in fixed:
            declared[value.name] = _declared(value)
    names = list(declared)
    if given is None or isinstance(given, tuple):
        if given is not None and not names:
            raise CountError(f"the network has no input, got shape {given}")
        given = {} if given is None else {names[0]: given}
    for name in given:
        if name not in declared:
            listed = ", ".join(label(known) for known in names[:8])
            raise CountError(f"inputs are {listed or 'none'}, got a shape for {quoted(name)}")
    lengths: dict[str, int] = {}
    for name, shape in given.items():
        _bind(name, declared[name], shape, lengths)
    return {
        name: given[name] if name in given else _completed(name, declared[name], lengths, position)
        for position, name in enumerate(names)
    }


def declared_lengths(value: Any) -> tuple[Length, ...] | None:
    """Return what a ValueInfoProto says of a shape, None if nothing; "?" is an open length without a name."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        int(axis.dim_value) if axis.HasField("dim_value") else axis.dim_param or "?"
        for axis in value.type.tensor_type.shape.dim
    )


def _declared(value: Any) -> tuple[Length, ...] | None:
    if not value.type.HasField("tensor_type"):
        raise CountError(f"input {quoted(value.name)} must be a tensor, got another type or none")
    found = declared_lengths(value)
    if found is not None:
        checked_shape((1,) * len(found))
        for length in found:
            if isinstance(length, int) and length < 1:
                raise CountError(f"input {quoted(value.name)} must have lengths >= 1, got {_listed(found)}")
    return found


def _bind(name: str, declared: tuple[Length, ...] | None, shape: Shape, lengths: dict[str, int]) -> None:
    """Write down which lengths a given shape settles."""
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 1 for length in shape):
        raise CountError(f"a shape must be integers >= 1, got {shape!r} for input {quoted(name)}")
    checked_shape(shape)
    if declared is None:
        return
    agree = len(shape) == len(declared)
    for length, known in zip(shape, declared, strict=False):
        agree = agree and length == (known if isinstance(known, int) else lengths.get(known, length))
        if isinstance(known, str) and known != "?":
            lengths[known] = length
    if not agree:
        raise CountError(f"input {quoted(name)} is declared as {_listed(declared)}, got {shape}")


def _completed(name: str, declared: tuple[Length, ...] | None, lengths: dict[str, int], position: int) -> Shape:
    if declared is None:
        raise CountError(f"input {quoted(name)} has no declared shape: give it with --input, got none")
    shape = tuple(lengths.get(length, 0) if isinstance(length, str) else length for length in declared)
    if 0 in shape:
        usual = (1, 3, 224, 224) if len(shape) == 4 else (1,) * len(shape)
        filled = tuple(length or filling for length, filling in zip(shape, usual, strict=True))
        way = (
            f"--input {','.join(map(str, filled))}"
            if position == 0
            else f"read_onnx(..., {{{label(name)!r}: {filled}}})"
        )
        raise CountError(f"input {quoted(name)} has dynamic dimensions {_listed(declared)}: give them with {way}")
    return shape


def _listed(declared: tuple[Length, ...]) -> str:
    return f"({', '.join(label(str(length)) for length in declared)})"
