"""Files that are damaged, or made to do harm: each is refused in one line, in bounded time and memory."""

import os
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from macs.onnx_cases import graph, model, node, onnx, refusal, write
from macs.onnx_damage import GENERATORS

from nachos_min.macs import CountError, count
from nachos_min.macs.readers.onnx_file import Steps
from nachos_min.macs.readers.onnx_reader import read_onnx


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, body: bytes) -> bytes:
    """An encoded field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def encoded_model(inner: bytes) -> bytes:
    """An encoded model with that graph."""
    own = field(8, field(1, b"own") + varint(2 << 3) + varint(1))
    return field(8, varint(2 << 3) + varint(17)) + own + field(7, inner)


def named(operator: bytes, *rest: bytes) -> bytes:
    return field(1, field(4, operator) + b"".join(rest))


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = named(b"If", field(5, field(1, b"then_branch") + varint(20 << 3) + varint(5) + field(6, inner)))
    return inner


def dims(*lengths: int) -> bytes:
    return b"".join(varint(8) + varint(length) for length in lengths)


FLOATS = varint(2 << 3) + varint(1)

# fmt: off
BYTES = {
    "nothing": b"",
    "text": b"hello, world\n",
    "a number without an end": b"\xff" * 30,
    "If in If": encoded_model(nested(3000)),
    "If in If, just too deep": encoded_model(nested(31)),
    "millions of empty nodes": encoded_model(field(1, b"") * 3_000_000),
    "one long attribute": encoded_model(named(b"Relu", field(5, field(8, bytes(20_000_000))))),
    "a name of a megabyte": encoded_model(named(b"A" * 1_000_000)),
    "a name in Latin-1": encoded_model(named("Größe".encode("latin-1"))),
    "a tensor of a million axes": encoded_model(field(5, field(1, bytes(1_000_000)))),
    "too few data": encoded_model(field(5, dims(3, 3) + FLOATS + field(9, bytes(12)))),
    "too many numbers": encoded_model(field(5, dims(3) + FLOATS + field(4, bytes(16)))),
    "data twice": encoded_model(field(5, dims(1) + FLOATS + field(4, bytes(4)) + field(9, bytes(4)))),
    "data of another type": encoded_model(field(5, dims(1) + FLOATS + field(7, bytes(1)))),
    "a negative length": encoded_model(field(5, dims(2**64 - 2) + FLOATS + field(8, b"w"))),
    "dims that are no numbers": encoded_model(named(b"Relu", field(5, field(8, b"\xff")))),
}
# fmt: on


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_network_are_refused(name, tmp_path):
    assert refusal(write(tmp_path, BYTES[name]))


def test_places_that_hold_no_file_are_refused(tmp_path):
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate(3 << 30)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for place, words in {
        tmp_path / "large.onnx": "an .onnx file must have at most 2147483648 bytes, got 3221225472",
        tmp_path / "missing.onnx": "the file cannot be read: No such file or directory, got ",
        tmp_path: "the file cannot be read: it is a folder, not a file, got ",
        "/dev/zero": "the file cannot be read: it is a device, not a file, got /dev/zero",
        pipe: "the file cannot be read: it is a pipe, not a file, got ",
    }.items():
        assert words in refusal(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = write(tmp_path, b"")
    path.chmod(0)
    assert "the file cannot be read: Permission denied" in refusal(path)


def test_reading_needs_no_package(tmp_path, monkeypatch):
    path = write(tmp_path, valid())
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    reading = read_onnx(path)
    assert [count(each.graph).macs for each in (reading, *reading.branches)] == [64 * 4 * 27, 12, 12]


def test_shapes_are_only_numbers(tmp_path):
    """Arrays of 10^18 elements are counted, and none of them is ever made."""
    steps = "ConstantOfShape s c, Expand x s e, Tile e t l, Add c e a, Range zero many one r, Reshape a flat y"
    nodes = [node(name, " ".join(reads), out) for name, *reads, out in map(str.split, steps.split(", "))]
    constants = {"s": [10**9, 10**9], "t": [1, 1], "flat": [-1]}
    constants |= {"zero": np.int64(0), "many": np.int64(10**18), "one": np.int64(1)}
    made = model(nodes, {"x": (1,)}, {"y": (10**18,)}, constants)
    assert count(read_onnx(write(tmp_path, made)).graph).columns["add_elems"] == 10**18


def test_values_are_computed_up_to_a_limit_only(tmp_path):
    """Thousands of constants of thousands of elements would fill the memory."""

    def tiles(count):
        nodes = [node("Tile", "s t", f"y{i}") for i in range(count)]
        return write(tmp_path, model(nodes, {"x": (1,)}, {"y0": (4096,)}, {"s": [1] * 64, "t": [64]}))

    assert read_onnx(tiles(1000)).graph == ()
    assert "an ONNX file must take at most 3,000,000 steps to read" in refusal(tiles(8000))


# Small files in which a long list is walked for each of many calls of one function.

MANY = 2_000
SCALAR = FLOATS + field(9, bytes(4))


def called(body: bytes) -> bytes:
    """An encoded model that calls a function often; `body` are the function's fields besides its name."""
    calls = b"".join(named(b"F", field(1, b"x"), field(2, b"%d" % i), field(7, b"own")) for i in range(MANY))
    x = field(1, b"x") + field(2, field(1, varint(1 << 3) + varint(1) + field(2, field(1, dims(4)))))
    functions = (
        field(25, field(1, name) + field(10, b"own") + fields) for name, fields in ((b"F", body), (b"G", RELU))
    )
    return encoded_model(calls + field(11, x)) + b"".join(functions)


def from_a_to_b(operator: bytes, *rest: bytes) -> bytes:
    """The fields of a function of one node, which reads a and makes b."""
    made = field(1, b"a") + field(2, b"b") + field(4, operator) + b"".join(rest)
    return field(4, b"a") + field(5, b"b") + field(7, made)


def integer(name: bytes) -> bytes:
    return field(1, name) + varint(20 << 3) + varint(2)


def chosen(graph: bytes, rest: bytes = b"") -> bytes:
    """The fields of a function whose If is always true; `graph` are fields of its branch, `rest` of the node."""
    true = field(1, b"value") + field(5, varint(2 << 3) + varint(9) + field(9, b"\1")) + varint(20 << 3) + varint(4)
    branch = graph + named(b"Relu", field(1, b"a"), field(2, b"r")) + field(12, field(1, b"r"))
    then = field(1, b"then_branch") + varint(20 << 3) + varint(5) + field(6, branch)
    constant = field(2, b"c") + field(4, b"Constant") + field(5, true)
    choice = field(1, b"c") + field(2, b"b") + field(4, b"If") + field(5, then) + rest
    return field(4, b"a") + field(5, b"b") + field(7, constant) + field(7, choice)


RELU = from_a_to_b(b"Relu")
# fmt: off
REPEATED = {
    "a function's attributes": RELU + b"".join(field(11, integer(b"p%d" % i)) for i in range(MANY)),
    "a function's inputs": RELU + b"".join(field(4, b"n%d" % i) for i in range(MANY)),
    "a function's outputs": RELU + field(5, b"b") * MANY,
    "a function's operator sets": RELU + field(9, varint(2 << 3) + varint(17)) * MANY,
    "a node's attributes": from_a_to_b(b"G", field(7, b"own"),
        *(field(5, integer(b"p%d" % i)) for i in range(MANY))),
    "a node's inputs": from_a_to_b(b"Sum", field(1, b"a") * MANY),
    "a node's numbers": field(5, b"b") + field(7, field(2, b"b") + field(4, b"Constant")
        + field(5, field(1, b"value_ints") + varint(20 << 3) + varint(7) + field(8, bytes(4000)))) + field(4, b"a"),
    "an If's initialisers": chosen(b"".join(field(5, SCALAR + field(8, b"w%d" % i)) for i in range(MANY))),
    "outputs of an If and of its branch": chosen(field(12, field(1, b"r")) * MANY, field(2, b"") * MANY),
}
# fmt: on


@pytest.mark.parametrize("what", REPEATED)
def test_every_step_of_a_walk_is_counted(what, tmp_path, monkeypatch):
    """The file itself takes a third of these steps; each call has its share of MANY steps more."""
    monkeypatch.setattr(Steps, "left", 300_000)
    assert "steps to read: fields, numbers" in refusal(write(tmp_path, called(REPEATED[what])))


def test_constants_without_axes(tmp_path):
    nodes = [node("NonZero", "n", "places"), node("ConstantOfShape", "none", "zero"), node("Add", "x zero", "y")]
    made = model(nodes, {"x": (2,)}, {"y": (2,)}, {"n": np.int64(3), "none": np.zeros(0, np.int64)})
    assert count(read_onnx(write(tmp_path, made)).graph).macs == 0


# Damage at random.


def valid() -> bytes:
    """A model with a little of everything: windows, products, folded shapes, branches."""
    late = graph([node("Gemm", "p v", "g"), node("Relu", "g", "r")], {}, {"r": None}, {"v": (4, 3)})
    early = graph([node("Gemm", "p v", "e")], {}, {"e": None}, {"v": (4, 3)})
    # fmt: off
    nodes = [
        node("Conv", "x w b", "c", strides=[2, 2], pads=[1, 1, 1, 1], group=1, auto_pad="NOTSET"),
        node("BatchNormalization", "c s s s s", "n"), node("MaxPool", "n", "m", kernel_shape=[2, 2], ceil_mode=1),
        node("Shape", "m", "shape"), node("Slice", "shape zero two", "front"),
        node("Concat", "front minus", "flat", axis=0), node("Reshape", "m flat", "f"),
        node("ReduceMean", "f", "p", axes=[2], keepdims=0), node("ReduceMax", "p", "top", keepdims=0),
        node("Cast", "top", "sure", to=9), node("If", "sure", "y", then_branch=early, else_branch=late),
    ]
    # fmt: on
    constants = {"w": (4, 3, 3, 3), "b": (4,), "s": (4,), "zero": [0], "two": [2], "minus": [-1]}
    return model(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 3)}, constants).SerializeToString()


def counted(path) -> None:
    """Count a file, whatever it holds; a CountError of one line is the only way to fail."""
    message = ""
    try:
        reading = read_onnx(path)
        for each in (reading, *reading.branches):
            count(each.graph)
    except CountError as error:
        message = str(error)
    assert "\n" not in message


FUZZ = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_are_counted_or_refused(tmp_path, changes):
    made = bytearray(valid())
    for place, byte in changes:
        made[place % len(made)] = byte
    counted(write(tmp_path, bytes(made)))


@FUZZ
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.binary(max_size=12) | st.binary(max_size=300))
def test_random_bytes_alone_and_inside_a_model_are_counted_or_refused(tmp_path, begin, end, between):
    made = valid()
    joined = made[: begin % len(made)] + between + made[end % len(made) :]
    for each in (joined, between, encoded_model(between)):
        counted(write(tmp_path, each))


integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 20)


@FUZZ
@given(st.data())
def test_wrong_numbers_are_counted_or_refused(tmp_path, data):
    """Attributes, constants, shapes and edges are changed inside a model that can still be decoded."""
    made = onnx.ModelProto.FromString(valid())
    nodes = list(made.graph.node)
    for _ in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["attribute", "constant", "input", "edge", "operator", "dims"]))
        each = data.draw(st.sampled_from(nodes))
        if what == "attribute" and each.attribute and each.op_type != "If":
            attribute = data.draw(st.sampled_from(list(each.attribute)))
            attribute.ints[:] = data.draw(st.lists(integers, max_size=5))
            attribute.i = data.draw(integers)
        elif what == "constant":
            chosen = made.graph.initializer[data.draw(st.integers(3, 5))]
            values = np.array(data.draw(st.lists(integers, max_size=4)), np.int64)
            chosen.CopyFrom(onnx.numpy_helper.from_array(values, chosen.name))
        elif what == "dims":
            chosen = data.draw(st.sampled_from(list(made.graph.initializer)))
            chosen.dims[:] = data.draw(st.lists(integers, max_size=5))
            chosen.ClearField("raw_data")
            chosen.data_location = onnx.TensorProto.EXTERNAL
        elif what == "input":
            axes = made.graph.input[0].type.tensor_type.shape.dim
            axes[data.draw(st.integers(0, len(axes) - 1))].dim_value = data.draw(integers)
        elif what == "edge" and each.input:
            other = data.draw(st.sampled_from(["", "x", "y", *(name for n in nodes for name in n.output)]))
            each.input[data.draw(st.integers(0, len(each.input) - 1))] = other
        else:
            each.op_type = data.draw(st.sampled_from(OPERATORS))
    counted(write(tmp_path, made))


OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


@pytest.mark.parametrize("number", range(40))
def test_damaged_models_are_counted_or_refused(number, tmp_path):
    rng = Random(number)
    counted(write(tmp_path, GENERATORS[number % len(GENERATORS)](rng)))
