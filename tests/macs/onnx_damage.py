"""ONNX files that are damaged or made to do harm, each drawn from a generator of random numbers."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from macs.onnx_cases import graph, helper, model, node, onnx, tensor

ODD = (0, 1, -1, 2, 3, 7, 16, 17, 255, 4096, 4097, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 10**9, 5, 64)
TEXTS = (
    "",
    "x",
    "y",
    "NOTSET",
    "SAME_UPPER",
    "linear",
    "ij,jk->ik",
    "...",
    "\x1b[2J",
    "\n",
    "a" * 2000,
    "\u202e",
    "é",
)
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


@cache
def encoded() -> bytes:
    """A model with a little of everything: windows, products, folded shapes, attention, functions, branches."""
    late = graph([node("Gemm", "p v", "g"), node("Relu", "g", "r")], {}, {"r": None}, {"v": (4, 3)})
    early = graph([node("Gemm", "p v", "e")], {}, {"e": None}, {"v": (4, 3)})
    states = {"i": (), "go": (), "la": (1, 4)}
    body = graph([node("Relu", "la", "ll"), node("Add", "ll p", "ln")], states, dict.fromkeys(("go", "ln", "ll")))
    each = graph([node("Relu", "sa", "sl")], {"sa": (4,)}, {"sl": None})
    # fmt: off
    nodes = [
        node("Conv", "x w b", "c", strides=[2, 2], pads=[1, 1, 1, 1], group=1, auto_pad="NOTSET"),
        node("BatchNormalization", "c s s s s", "n"), node("Twice", "n", "t", domain="own", alpha=0.5),
        node("Resize", "t - sizes", "z", mode="linear"), node("ConvTranspose", "z k", "d", strides=[2, 2]),
        node("MaxPool", "d", "m", kernel_shape=[2, 2], ceil_mode=1), node("Shape", "m", "shape"),
        node("Slice", "shape zero two", "front"), node("Concat", "front minus", "flat", axis=0),
        node("Reshape", "m flat", "f"), node("Transpose", "f", "ft", perm=[0, 2, 1]), node("MatMul", "f ft", "ff"),
        node("Softmax", "ff", "sm", axis=-1), node("Einsum", "sm f", "es", equation="bij,bjk->bik"),
        node("Split", "es", "left right", axis=1), node("Tile", "left ones", "tiled"),
        node("Expand", "tiled ones", "wide"), node("Pad", "wide pads", "padded"),
        node("Constant", "", "four", value=tensor([4])), node("ConstantOfShape", "four", "zeros"),
        node("Range", "n0 n4 n1", "places"), node("Gather", "x places2", "picked", axis=1),
        node("ReduceMean", "f", "p", axes=[2], keepdims=0), node("ReduceMax", "p", "top", keepdims=0),
        node("Cast", "top", "sure", to=9), node("If", "sure", "y", then_branch=early, else_branch=late),
        node("Loop", "often - p", "looped rows", body=body),
        node("Scan", "p", "scanned", body=each, num_scan_inputs=1),
        node("SplitToSequence", "p", "parts", axis=1), node("SequenceAt", "parts n1", "part"),
        node("SequenceInsert", "parts p", "more"), node("ConcatFromSequence", "more", "joined", axis=1),
        node("NonZero", "p", "found"), node("Unique", "p", "u1 u2 u3 u4"), node("LSTM", "f lw lr", "h1 h2 h3"),
        node("ReduceMean", "f", "means", axes=[2]), node("DFT", "means", "spectrum", axis=1),
        node("GridSample", "grid grid", "sampled"),
        node("FusedMatMul", "f f", "fused", transB=1, domain="com.microsoft"),
        node("MultiHeadAttention", "f f f", "attended", num_heads=1, domain="com.microsoft"),
    ]
    constants: dict[str, Any] = {"w": (4, 3, 3, 3), "b": (4,), "s": (4,), "zero": [0], "two": [2], "minus": [-1]}
    constants |= {"sizes": tensor(np.float32([1, 1, 2, 2])), "k": (4, 4, 2, 2), "ones": [1, 1, 1], "pads": [0] * 6}
    constants |= {"often": tensor(3), "lw": (1, 8, 961), "lr": (1, 8, 2), "grid": (1, 2, 2, 2)}
    constants |= {"n0": tensor(0), "n4": tensor(4), "n1": tensor(1), "places2": [0, 1]}
    # fmt: on
    body = [node("LeakyRelu", "a", "l"), node("Add", "l a", "h")]
    body[0].attribute.add(name="alpha", type=1, ref_attr_name="alpha")
    twice = helper.make_function("own", "Twice", ["a"], ["h"], body, [helper.make_opsetid("", 17)], ["alpha"])
    plain = {name: value for name, value in constants.items() if not isinstance(value, onnx.TensorProto)}
    made = model(
        nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 3)}, plain, functions=[twice], domains=["own", "com.microsoft"]
    )
    for name, value in constants.items():
        if isinstance(value, onnx.TensorProto):
            made.graph.initializer.add().CopyFrom(value)
            made.graph.initializer[-1].name = name
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def changed_bytes(rng: Random) -> bytes:
    """Bits flipped, parts left out, doubled, moved, or overwritten; the end cut off."""
    made = bytearray(encoded())
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not made:
            break
        at, size = rng.randrange(len(made)), rng.choice((1, 1, 2, 5, 30, 300))
        piece = made[at : at + size]
        match rng.randrange(7):
            case 0:
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at : at + size]
            case 2:
                made[at:at] = piece * rng.choice((1, 2, 50))
            case 3:
                to = rng.randrange(len(made))
                made[to:to] = piece
            case 4:
                made[at : at + size] = rng.randbytes(len(piece))
            case 5:
                made[at] = rng.choice((0, 1, 127, 128, 255))
            case _:
                del made[max(at, 1) :]
    return bytes(made)


def changed_fields(rng: Random) -> bytes:
    """Names, numbers, types and edges changed in a model that can still be decoded."""
    made = onnx.ModelProto.FromString(encoded())
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        message = _part(made, rng)
        fields = [field for field in message.DESCRIPTOR.fields if not field.message_type]
        if not fields:
            continue
        field = rng.choice(fields)
        value = _value(field, rng)
        if field.is_repeated:
            values = [*getattr(message, field.name)]
            where = rng.randrange(len(values) + 1)
            values[where : where + rng.randrange(2)] = [value] * rng.choice((1, 1, 2, 20))
            del getattr(message, field.name)[:]
            getattr(message, field.name).extend(values)
        elif rng.random() < 0.2:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, value)
    return bytes(made.SerializeToString())


def multiplied(rng: Random) -> bytes:
    """A part of a model many times: nodes, attributes, initialisers, values, names, numbers, functions."""
    made = onnx.ModelProto.FromString(encoded())
    times = int(10 ** rng.uniform(1, 3.7))
    for _ in range(rng.choice((1, 1, 2, 3))):
        message = _part(made, rng)
        repeated = [field for field in message.DESCRIPTOR.fields if field.is_repeated]
        filled = [field for field in repeated if len(getattr(message, field.name))]
        if not filled:
            continue
        field = rng.choice(filled)
        values = getattr(message, field.name)
        first = len(values)
        values.extend([rng.choice(list(values)) for _ in range(times if first * times < 20_000 else 2)])
        if rng.random() < 0.7:
            for place, each in enumerate(list(values)[first:]):
                _renamed(each, place, rng)
    return bytes(made.SerializeToString())


def _renamed(message: Any, place: int, rng: Random) -> None:
    """Give a copy names of its own, so that it is not refused as given twice."""
    if hasattr(message, "op_type"):
        for index, name in enumerate(message.output):
            message.output[index] = f"{name}_{place}"
        if rng.random() < 0.5 and len(message.input) and place:
            message.input[0] = f"{message.output[0].rpartition('_')[0]}_{place - 1}" if message.output else "x"
    elif hasattr(message, "name"):
        message.name = f"{message.name}_{place}"


def called_often(rng: Random) -> bytes:
    """Functions that call one another, with long lists of their own."""
    levels, fan, length = rng.randrange(1, 32), rng.randrange(1, 5), int(10 ** rng.uniform(0, 4))
    functions = []
    for level in range(levels):
        called = f"F{level + 1}" if level + 1 < levels else rng.choice(OPERATORS)
        domain = "own" if level + 1 < levels else ""
        names = ["a", *(f"t{i}" for i in range(fan - 1)), "b"]
        body = [node(called, one, other, domain=domain) for one, other in pairwise(names)]
        made = helper.make_function("own", f"F{level}", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
        match rng.randrange(5):
            case 0:
                made.input.extend(f"i{i}" for i in range(length))
            case 1:
                made.output.extend(["b"] * length)
            case 2:
                body[0].attribute.extend(helper.make_attribute(f"p{i}", i) for i in range(length))
                made.node[0].CopyFrom(body[0])
            case 3:
                made.attribute_proto.extend(helper.make_attribute(f"p{i}", i) for i in range(length))
            case _:
                made.node[0].output.extend([""] * length)
        functions.append(made)
    calls = [node("F0", "x", f"y{i}", domain="own") for i in range(rng.choice((1, 10, 3000)))]
    return bytes(
        model(calls, {"x": (1, 4, 8, 8)}, {"y0": None}, functions=functions, domains=["own"]).SerializeToString()
    )


def one_operator(rng: Random) -> bytes:
    """Any operator with any inputs and attributes, its shapes huge or odd."""
    operator = rng.choice(OPERATORS)
    schema = onnx.defs.get_schema(operator)
    shape = [abs(rng.choice(ODD)) % 2**63 or 1 for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 4, 5, 16)))]
    small = [rng.randrange(1, 9) for _ in shape]
    constants: dict[str, Any] = {
        "w": tuple(rng.randrange(1, 5) for _ in range(rng.choice((0, 1, 2, 4)))),
        "n": rng.randrange(5),
    }
    constants |= {f"k{i}": [rng.choice(ODD) for _ in range(rng.choice((0, 1, 2, 4, 100)))] for i in range(3)}
    names = ("x", "x", "z", "w", "n", "k0", "k1", "k2", "-")
    reads = " ".join(rng.choice(names) for _ in range(min(schema.max_input, rng.choice((1, 2, 3, 5, 40)))))
    attributes: dict[str, Any] = {}
    for name in schema.attributes:
        if rng.random() < 0.6 and name not in ("then_branch", "else_branch", "body"):
            ints = [rng.choice(ODD) for _ in range(rng.choice((1, 2, 4, 500)))]
            attributes[name] = rng.choice((rng.choice(ODD), ints, 0.5, [0.5, 2.0], rng.choice(TEXTS)))
    writes = " ".join(f"y{i}" for i in range(rng.choice((1, 1, 2, 3, 300))))
    made = model(
        [node(operator, reads, writes, **attributes)],
        {"x": shape, "z": small},
        {"y0": None},
        constants,
        rng.choice((7, 11, 13, 17, 21)),
    )
    return bytes(made.SerializeToString())


GENERATORS: tuple[Callable[[Random], bytes], ...] = (
    changed_bytes,
    changed_fields,
    multiplied,
    called_often,
    one_operator,
)


def _part(message: Any, rng: Random) -> Any:
    """A message somewhere inside another."""
    while True:
        inside = [
            each
            for field, value in message.ListFields()
            if field.message_type
            for each in (value if field.is_repeated else (value,))
        ]
        if not inside or (rng.random() < 0.15 and not isinstance(message, onnx.ModelProto)):
            return message
        message = rng.choice(inside)


def _value(field: Any, rng: Random) -> Any:
    """A value that a field can hold."""
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        text = rng.choice((*TEXTS, *OPERATORS[:20], "w", "c", "f", "flat"))
        return text if field.type == field.TYPE_STRING else text.encode()
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 0.5))
    if field.type == field.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    number = rng.choice(ODD)
    if field.type == field.TYPE_INT32:
        return max(min(number, 2**31 - 1), -(2**31))
    return number % 2**64 if field.type == field.TYPE_UINT64 else number
