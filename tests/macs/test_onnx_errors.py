"""What each ONNX rule refuses: one line that says which node, the value and the rule."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")

from macs.onnx_cases import graph, helper, model, node, tensor, value, write  # noqa: E402 -- after the skip

from nachos_min.macs import CountError  # noqa: E402 -- after the skip
from nachos_min.macs.readers.onnx_reader import NEWEST, read_onnx  # noqa: E402 -- after the skip

IMAGE = (2, 4, 9, 8)
VOLUME = (1, 2, 3, 3, 3)
W = {"w": (3, 4, 3, 3)}

# one node, shape of x, constants, words of the message
# fmt: off
NODES = [
    (node("LSTM", "x", name="first"), IMAGE, {}, "node 0 'first' (LSTM): no rule for counting operator 'LSTM'"),
    (node("Fused", "x", domain="own"), IMAGE, {}, "node 0 '' (own.Fused): no rule for counting operator 'Fused'"),
    (node("Loop", "x"), IMAGE, {}, "no rule for counting operator 'Loop'"),
    (node("Conv", "x w"), VOLUME, {"w": (1, 2, 1, 1, 1)},
        "(Conv): a map must have one or two axes besides batch and channels, got shape (1, 2, 3, 3, 3)"),
    (node("Conv", "x w", strides=[0, 1]), IMAGE, W, "attribute 'strides' must be 2 integers >= 1, got (0, 1)"),
    (node("Conv", "x w", strides=[1]), IMAGE, W, "attribute 'strides' must be 2 integers >= 1, got (1,)"),
    (node("Conv", "x w", group=0), IMAGE, W, "in 0 groups must fit 4 channels"),
    (node("Conv", "x w", group=2), IMAGE, {"w": (3, 2, 1, 1)},
        "groups must divide the 4 input and 3 output channels"),
    (node("Conv", "x w"), IMAGE, {"w": (3, 4, 3)}, "weights must have 4 axes, got (3, 4, 3)"),
    (node("Conv", "x w", kernel_shape=[1, 3]), IMAGE, W,
        "kernel_shape must be that of weights (3, 4, 3, 3), got (1, 3)"),
    (node("Conv", "x w"), IMAGE, {"w": (3, 4, 11, 3)},
        "the window's height with dilation must fit the padded map's 9"),
    (node("Conv", "x w b"), IMAGE, W | {"b": (4,)}, "the bias must have shape (3,), got (4,)"),
    (node("Conv", "x w", pads=[1, 1, 1]), IMAGE, W, "attribute 'pads' must be 4 integers >= 0, got (1, 1, 1)"),
    (node("Conv", "x w", auto_pad="SAME"), IMAGE, W,
        "attribute 'auto_pad' must be one of NOTSET, VALID, SAME_UPPER, SAME_LOWER, got 'SAME'"),
    (node("Conv", "x w", strides=2), IMAGE, W, "attribute 'strides' must be integers, got type 2"),
    (node("Conv", "x"), IMAGE, {}, "input 2 must be given, got 1 inputs"),
    (node("ConvTranspose", "x w"), IMAGE, W, "weights (3, 4, 3, 3) in 1 groups must fit 4 channels"),
    (node("ConvTranspose", "x w", output_shape=[0, 9]), IMAGE, {"w": (4, 1, 3, 3)},
        "must be 2 integers >= 1, got (0, 9)"),
    (node("MaxPool", "x"), IMAGE, {}, "attribute 'kernel_shape' must be given, got none for (9, 8, 4)"),
    (node("Gemm", "x w"), IMAGE, {"w": (4, 3)}, "A and B must have 2 axes, got (2, 4, 9, 8) and (4, 3)"),
    (node("Gemm", "x w"), (2, 5), {"w": (4, 3)}, "inner lengths must be equal, got (2, 5) times (4, 3)"),
    (node("Gemm", "x w c"), (2, 4), {"w": (4, 3), "c": (7, 2, 3)}, "C must broadcast to (2, 3), got (7, 2, 3)"),
    (node("MatMul", "x w"), (2, 4), {"w": (5, 4)}, "inner lengths must be equal"),
    (node("Einsum", "x x x", equation="i,i,i->i"), (3,), {}, "an Einstein sum must have one or two arrays, got 3"),
    (node("Einsum", "x x", equation="i->i"), (3,), {}, "equation must have 2 terms, got 'i->i'"),
    (node("Einsum", "x", equation="ij->i"), (3,), {}, "equation must fit arrays of (1,) axes, got 'ij->i'"),
    (node("Einsum", "x w", equation="i,j->"), (3,), {"w": (4,)},
        "an Einstein sum must have axes to multiply along, got 'i,j->'"),
    (node("Einsum", "x", equation="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ..."), tuple([1] * 16), {},
        "equation must fit arrays of (16,) axes"),
    (node("Einsum", "x", equation="...->...abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), (2, 3), {},
        "equation must leave 2 letters for '...'"),
    (node("Attention", "x x x - x x"), IMAGE, {}, "no rule for Attention with a cache, got 6 inputs"),
    (node("Attention", "x x x"), (2, 3), {}, "queries, keys and values must have 3 or 4 axes, got (2, 3)"),
    (node("Attention", "x x x", q_num_heads=5), (2, 3, 6), {},
        "heads must divide the last of 3 axes, got 5 of (2, 3, 6)"),
    (node("Attention", "x k k"), IMAGE, {"k": (2, 3, 5, 8)},
        "4 heads of queries must be a multiple of those of keys, got 3"),
    (node("BatchNormalization", "x s s s s"), IMAGE, {"s": (5,)}, "scale and shift must have shape (4,), got (5,)"),
    (node("InstanceNormalization", "x s s"), (4,), {"s": (4,)}, "must read an array (N, C, ...), got (4,)"),
    (node("LayerNormalization", "x s", axis=4), IMAGE, {"s": (8,)},
        "attribute 'axis' must name one of 4 axes, got 4"),
    (node("Softmax", "x", axis=-5), IMAGE, {}, "attribute 'axis' must name one of 4 axes, got -5"),
    (node("ReduceMean", "x", axes=[1, -3]), IMAGE, {}, "axes must be different ones of 4, got (1, -3)"),
    (node("ReduceSum", "x x"), (2,), {}, "its axes must be fixed before any sample comes, got input 2 computed"),
    (node("ReduceSum", "x a"), (2,), {"a": np.float32([0])}, "its axes must be integers, got float32 as input 2"),
    (node("Add", "x w"), (2, 3), {"w": (2,)}, "shapes must broadcast, got ((2, 3), (2,))"),
    (node("Constant", ""), (2,), {}, "a Constant must have a value of numbers, got attributes []"),
    (node("Constant", "", value=3), (2,), {}, "attribute 'value' must be a tensor, got type 2"),
    (node("Constant", "", value_ints=[0] * 5000), (2,), {},
        "attribute 'value_ints' must have at most 4096 integers"),
    (node("Constant", "", value_floats=[0.0] * 5000), (2,), {},
        "attribute 'value_floats' must have at most 4096 floats"),
    (node("Range", "a a b"), (2,), {"a": np.int64(1), "b": np.int64(0)},
        "step of Range must not be 0 or next to it, got 0"),
    (node("Range", "x x x"), (1,), {}, "a fixed number must be given as input 1 of Range, got (1,)"),
    (node("NonZero", "x"), (2,), {}, "no rule for NonZero: its output's shape depends on the data"),
    (node("Reshape", "x s"), (2, 3), {"s": [4]}, "shape (4,) must hold the 6 elements of (2, 3)"),
    (node("Reshape", "x s"), (2, 3), {"s": [-1, -1]}, "shape (-1, -1) must hold the 6 elements"),
    (node("Reshape", "x x"), (2,), {}, "its shape must be fixed before any sample comes"),
    (node("Flatten", "x", axis=9), (2, 3), {}, "attribute 'axis' must name one of 2 axes, got 9"),
    (node("Squeeze", "x a"), (2, 3), {"a": [0]}, "axes (0,) must have length 1, got (2, 3)"),
    (node("Transpose", "x", perm=[0]), (2, 3), {}, "attribute 'perm' must have 2 axes, got (0,)"),
    (node("Expand", "x s"), (2, 3), {"s": [4]}, "(2, 3) must broadcast to the shape given, got (4,)"),
    (node("Tile", "x s"), (2, 3), {"s": [4]}, "repeats must be 2 integers >= 0, got (4,)"),
    (node("Tile", "x s"), (2, 3), {"s": [2**62, 1]},
        "an axis must have 0 to 2**63 - 1 elements, got 9223372036854775808"),
    (node("ConstantOfShape", "s"), (2,), {"s": [-4]}, "an axis must have 0 to 2**63 - 1 elements, got -4"),
    (node("Concat", "x w", axis=0), (2, 3), {"w": (2, 4)},
        "arrays must differ in axis 0 only, got ((2, 3), (2, 4))"),
    (node("Split", "x", "y z", num_outputs=3), (6,), {}, "num_outputs must be the number of outputs, 2, got 3"),
    (node("Split", "x s", "y z"), (6,), {"s": [2, 2]}, "2 parts must add up to 6, got (2, 2)"),
    (node("Slice", "x a a a z"), (6,), {"a": [0], "z": [0]},
        "starts, ends, axes and steps must be as many, and no step 0, got steps (0,)"),
    (node("GatherND", "x w"), (6,), {"w": (2, 2)}, "places (2, 2) must fit the axes of (6,), got batch_dims 0"),
    (node("Pad", "x p"), (6,), {"p": [0, 0, 0]}, "pads must be 2 integers, got (0, 0, 0)"),
    (node("Pad", "x p"), (6,), {"p": [-4, -4]}, "an axis must have 0 to 2**63 - 1 elements, got -2"),
    (node("DepthToSpace", "x", blocksize=3), IMAGE, {},
        "blocksize must be >= 1 and divide the axes of (2, 4, 9, 8), got 3"),
    (node("TopK", "x k", "y i"), (2, 3), {"k": [4]}, "k must be 0 to 3, got 4"),
    (node("Resize", "x - s"), IMAGE, {"s": np.float32([1, 2, 1, 1])},
        "only height and width may be resized, got (2, 4, 9, 8) to (2, 8, 9, 8)"),
    (node("Resize", "x - - s"), IMAGE, {"s": [4]}, "sizes must be 4 integers, got (4,)"),
    (node("Resize", "x - s"), IMAGE, {"s": np.float32([1, 1, 0, 1])}, "scales must be 4 numbers above 0"),
    (node("Resize", "x - x"), IMAGE, {}, "its scales must be fixed before any sample comes, got 3 inputs"),
    (node("Resize", "x - s", coordinate_transformation_mode="tf_crop_and_resize"), IMAGE,
        {"s": np.float32([1, 1, 1, 1])}, "no rule for Resize that crops, got 'nearest'"),
    (node("Resize", "x - - s", keep_aspect_ratio_policy="not_larger"), IMAGE, {"s": [2, 4, 5, 5]},
        "no rule for Resize with keep_aspect_ratio_policy 'not_larger'"),
    (node("Relu", "z"), (2,), {}, "must read what an earlier node, input or initialiser makes, got 'z'"),
    (node("Relu", "x", "x"), (2,), {}, "every array must be made once, got 'x' twice"),
    (node("If", "x"), (1,), {}, "attribute 'then_branch' must be given, got none"),
    (node("GlobalAveragePool", "x"), (2, 3), {},
        "a map must have one or two axes besides batch and channels, got shape (2, 3)"),
]
# fmt: on


def refusal(tmp_path, made, given=None) -> str:
    with pytest.raises(CountError) as caught:
        read_onnx(write(tmp_path, made), given)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    return message


@pytest.mark.parametrize("case", NODES, ids=lambda case: f"{case[0].op_type}: {case[3][:30]}")
def test_a_node_is_refused_with_the_value_and_the_rule(case, tmp_path):
    each, shape, constants, words = case
    assert words in refusal(tmp_path, model([each], {"x": shape}, {"y": None}, constants, 18))


# fmt: off
INPUTS = [
    (("N", 3, "H", "W"), None, "has dynamic dimensions (N, 3, H, W): give them with --input 1,3,224,224"),
    ((None, 128), None, "has dynamic dimensions (?, 128): give them with --input 1,128"),
    (None, None, "input 'x' has no declared shape: give it with --input, got none"),
    (("N", 3), (2, 4), "input 'x' is declared as (N, 3), got (2, 4)"),
    (("N", "N"), (2, 4), "input 'x' is declared as (N, N), got (2, 4)"),
    (("N", 3), (2, 3, 4), "input 'x' is declared as (N, 3), got (2, 3, 4)"),
    (("N", 3), (0, 3), "a shape must be integers >= 1, got (0, 3) for input 'x'"),
    (("N", 3), (1.0, 3), "a shape must be integers >= 1, got (1.0, 3)"),
    ((0, 3), None, "input 'x' must have lengths >= 1, got (0, 3)"),
    ((-1, 3), None, "input 'x' must have lengths >= 1, got (-1, 3)"),
    ((2, 3), {"z": (2, 3)}, "inputs are x, got a shape for 'z'"),
    ((1,) * 17, None, "an array must have at most 16 axes, got 17"),
]
# fmt: on


@pytest.mark.parametrize("case", INPUTS, ids=str)
def test_an_input_is_refused(case, tmp_path):
    declared, shape, words = case
    assert words in refusal(tmp_path, model([node("Relu", "x")], {"x": declared}, {"y": None}), shape)


def relu(shape=(2, 3), out=None, **changes):
    return model([node("Relu", "x")], {"x": shape}, {"y": out}, **changes)


def twice_the_same_attribute():
    each = node("Relu", "x", alpha=1)
    each.attribute.append(each.attribute[0])
    return model([each], {"x": (1,)}, {"y": None})


def unequal_branches():
    one, two = graph([], {}, {"x": None}), graph([], {}, {"x": None, "x2": None}, {"x2": (1,)})
    return model([node("If", "x", then_branch=one, else_branch=two)], {"x": (1,)}, {"y": None})


def second_input(change):
    made = model([node("Relu", "x")], {"x": (2,), "z": (3,)}, {"y": None})
    change(made.graph.input[1])
    return made


def recursive():
    sets = [helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", ["a"], ["b"], [node("F", "a", "b", domain="own")], sets)
    return model([node("F", "x", domain="own")], {"x": (1,)}, {"y": None}, functions=[function], domains=["own"])


def doubling():
    """Twenty functions, each of which calls the next one twice."""
    sets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    bodies = [[node(f"F{i + 1}", s, t, domain="own") for s, t in ("ab", "bc")] for i in range(20)]
    bodies.append([node("Relu", "a", "c")])
    functions = [helper.make_function("own", f"F{i}", ["a"], ["c"], body, sets) for i, body in enumerate(bodies)]
    return model([node("F0", "x", domain="own")], {"x": (1,)}, {"y": None}, functions=functions, domains=["own"])


def weights_in(location):
    made = model([node("Conv", "x w")], {"x": IMAGE}, {"y": None}, {"w": (3, 4, 1, 1)})
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    return made


def sparse():
    made = relu((1,))
    made.graph.sparse_initializer.add(values=tensor((1,), "s"), dims=[4])
    return made


LARGE = "a network must have at most 100000 nodes, functions written out, and 400000 inputs"
ELSEWHERE = "the data of 'w' must be in a file beside the model or below, got "
# fmt: off
MODELS = [
    (twice_the_same_attribute, "attribute 'alpha' must be given once, got it twice"),
    (unequal_branches, "branches must make as many arrays, got 1 and 2"),
    (lambda: relu(out=(2, 4)), "output 'y' is declared as (2, 4), its operators make (2, 3)"),
    (lambda: model([node("Relu", "x")], {"x": (1,)}, {"z": None}), "an output must be made by some node, got 'z'"),
    (lambda: relu(opset=6), f"the operator set must be 7 to {NEWEST}, got 6"),
    (lambda: relu(opset=99), f"the operator set must be 7 to {NEWEST}, got 99"),
    (lambda: model([node("Add", "x o")], {"x": (2, 3), "o": ("M", 3)}, {"y": None}),
        "input 'o' has dynamic dimensions (M, 3): give them with read_onnx(..., {'o': (1, 3)})"),
    (lambda: second_input(lambda z: z.type.Clear()), "input 'z' must be a tensor, got another type or none"),
    (lambda: second_input(lambda z: setattr(z, "name", "x")),
        "every input must have a name of its own, got 'x' twice"),
    (recursive, "branches and functions must be nested at most 30 deep, got more"),
    (doubling, LARGE),
    (lambda: model([node("Evil\n\x1b[2J", "x", name="line\nbreak" * 100)], {"x": (1,)}, {"y": None}), "Evil??[2J"),
    *((lambda place=place: weights_in(place), ELSEWHERE)
        for place in ("/etc/passwd", "../secret", "a/../../b", "C:\\w", "\\\\host\\w")),
    (sparse, "initialisers must be dense, got a sparse one at byte"),
]
# fmt: on


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case[1][:40])
def test_a_model_is_refused(case, tmp_path):
    make, words = case
    assert words in refusal(tmp_path, make())


def test_a_shape_for_no_input_is_refused(tmp_path):
    made = model([node("Relu", "x")], {}, {"y": None}, {"x": (1,)})
    assert "the network has no input, got shape (1,)" in refusal(tmp_path, made, (1,))


def test_weights_in_a_file_beside_the_model_are_never_opened(tmp_path):
    assert read_onnx(write(tmp_path, weights_in("missing.bin"))).graph[0].op.macs == 72 * 12


def test_a_declared_shape_of_an_output_may_be_left_open(tmp_path):
    made = relu()
    made.graph.output[0].CopyFrom(value("y", ("N", None)))
    assert len(read_onnx(write(tmp_path, made)).graph) == 1
