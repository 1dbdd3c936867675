"""What each ONNX rule refuses, in one line that names the node."""

import numpy as np
import pytest
from macs.onnx_cases import IMAGE, external, graph, helper, model, node, refusal, tensor, write

from nachos_min.macs.readers.onnx_reader import read_onnx
from nachos_min.macs.readers.onnx_walk import NEWEST

VOLUME = (1, 2, 3, 3, 3)
W = {"w": (3, 4, 3, 3)}

# one node, shape of x, constants
# fmt: off
NODES = [
    (node("Det", "x", name="first"), IMAGE, {}),
    (node("Fused", "x", domain="own"), IMAGE, {}),
    (node("Conv", "x w"), (1, 2, 3, 3, 3, 3), {"w": (1, 2, 1, 1, 1, 1)}),
    (node("Conv", "x w", strides=[0, 1]), IMAGE, W),
    (node("Conv", "x w", group=0), IMAGE, W),
    (node("Conv", "x w", group=2), IMAGE, {"w": (3, 2, 1, 1)}),
    (node("Conv", "x w"), IMAGE, {"w": (3, 4, 3)}),
    (node("Conv", "x w", kernel_shape=[1, 3]), IMAGE, W),
    (node("Conv", "x w"), IMAGE, {"w": (3, 4, 11, 3)}),
    (node("Conv", "x w b"), IMAGE, W | {"b": (4,)}),
    (node("Conv", "x w", pads=[1, 1, 1]), IMAGE, W),
    (node("Conv", "x w", auto_pad="SAME"), IMAGE, W),
    (node("Conv", "x w", strides=2), IMAGE, W),
    (node("Conv", "x"), IMAGE, {}),
    (node("ConvTranspose", "x w", output_shape=[0, 9]), IMAGE, {"w": (4, 1, 3, 3)}),
    (node("MaxPool", "x"), IMAGE, {}),
    (node("Gemm", "x w"), IMAGE, {"w": (4, 3)}),
    (node("Gemm", "x w"), (2, 5), {"w": (4, 3)}),
    (node("Gemm", "x w c"), (2, 4), {"w": (4, 3), "c": (7, 2, 3)}),
    (node("MatMul", "x w"), (2, 4), {"w": (5, 4)}),
    (node("Einsum", "x x x", equation="i,i->i"), (3,), {}),
    (node("Einsum", "x x", equation="i->i"), (3,), {}),
    (node("Einsum", "x", equation="ij->i"), (3,), {}),
    (node("Einsum", "x w", equation="i,j->"), (3,), {"w": (4,)}),
    (node("Einsum", "x", equation="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ..."), tuple([1] * 16), {}),
    (node("Einsum", "x", equation="...->...abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), (2, 3), {}),
    (node("Attention", "x x x - k k"), IMAGE, {"k": (2, 4, 3, 7)}),
    (node("Attention", "x x x"), (2, 3), {}),
    (node("Attention", "x x x", q_num_heads=5), (2, 3, 6), {}),
    (node("Attention", "x k k"), IMAGE, {"k": (2, 3, 5, 8)}),
    (node("BatchNormalization", "x s s s s"), IMAGE, {"s": (5,)}),
    (node("InstanceNormalization", "x s s"), (4,), {"s": (4,)}),
    (node("LayerNormalization", "x s", axis=4), IMAGE, {"s": (8,)}),
    (node("ReduceMean", "x", axes=[1, -3]), IMAGE, {}),
    (node("ReduceSum", "x x"), (2,), {}),
    (node("ReduceSum", "x a"), (2,), {"a": np.float32([0])}),
    (node("Add", "x w"), (2, 3), {"w": (2,)}),
    (node("Constant", ""), (2,), {}),
    (node("Constant", "", value=3), (2,), {}),
    (node("Constant", "", value_ints=[0] * 5000), (2,), {}),
    (node("Constant", "", value_floats=[0.0] * 5000), (2,), {}),
    (node("Range", "a a b"), (2,), {"a": np.int64(1), "b": np.int64(0)}),
    (node("Range", "x x x"), (1,), {}),
    (node("Reshape", "x s"), (2, 3), {"s": [4]}),
    (node("Reshape", "x s"), (2, 3), {"s": [-1, -1]}),
    (node("Squeeze", "x a"), (2, 3), {"a": [0]}),
    (node("Transpose", "x", perm=[0]), (2, 3), {}),
    (node("Expand", "x s"), (2, 3), {"s": [4]}),
    (node("Tile", "x s"), (2, 3), {"s": [4]}),
    (node("Tile", "x s"), (2, 3), {"s": [2**62, 1]}),
    (node("Concat", "x w", axis=0), (2, 3), {"w": (2, 4)}),
    (node("Split", "x", "y z", num_outputs=3), (6,), {}),
    (node("Split", "x s", "y z"), (6,), {"s": [2, 2]}),
    (node("Slice", "x a a a z"), (6,), {"a": [0], "z": [0]}),
    (node("GatherND", "x w"), (6,), {"w": (2, 2)}),
    (node("Pad", "x p"), (6,), {"p": [0, 0, 0]}),
    (node("DepthToSpace", "x", blocksize=3), IMAGE, {}),
    (node("TopK", "x k", "y i"), (2, 3), {"k": [4]}),
    (node("Resize", "x - s"), IMAGE, {"s": np.float32([1, 2, 1, 1])}),
    (node("Resize", "x - - s"), IMAGE, {"s": [4]}),
    (node("Resize", "x - s"), IMAGE, {"s": np.float32([1, 1, 0, 1])}),
    (node("Resize", "x - s", coordinate_transformation_mode="tf_crop_and_resize"), IMAGE,
        {"s": np.float32([1, 1, 1, 1])}),
    (node("Resize", "x - - s", keep_aspect_ratio_policy="not_larger"), IMAGE, {"s": [2, 4, 5, 5]}),
    (node("Relu", "z"), (2,), {}),
    (node("Relu", "x x"), (2,), {}),
    (node("Relu", "x", "y z"), (2,), {}),
    (node("Add", "x"), (2,), {}),
    (node("Conv", "x w", stride=[2, 2]), IMAGE, W),
    (node("Conv", "x w w w", name="four"), IMAGE, W),
    (node("If", "x x"), (1,), {}),
    (node("Resize", "x - s", mode="area"), IMAGE, {"s": np.float32([1, 1, 2, 2])}),
    (node("Relu", "x", "x"), (2,), {}),
    (node("If", "x"), (1,), {}),
    (node("GlobalAveragePool", "x"), (2, 3), {}),
]
# fmt: on


@pytest.mark.parametrize(("refused", "shape", "constants"), NODES)
def test_a_node_is_refused_by_name(refused, shape, constants, tmp_path):
    message = refusal(write(tmp_path, model([refused], {"x": shape}, {"y": None}, constants, 18)))
    name = f"{refused.domain}.{refused.op_type}" if refused.domain else refused.op_type
    assert message.startswith(f"node 0 '{refused.name}' ({name}): ")


# fmt: off
INPUTS = [
    (("N", 3, "H", "W"), None, "has dynamic dimensions (N, 3, H, W): give them with --input 1,3,224,224"),
    ((None, 128), None, "has dynamic dimensions (?, 128): give them with --input 1,128"),
    (None, None, "input 'x' has no declared shape: give it with --input, got none"),
    (("N", 3), (2, 4), "input 'x' is declared as (N, 3), got (2, 4)"),
    (("N", "N"), (2, 4), "input 'x' is declared as (N, N), got (2, 4)"),
    (("N", 3), (2, 3, 4), "input 'x' is declared as (N, 3), got (2, 3, 4)"),
    (("N", 3), (-1, 3), "a shape must be integers >= 0, got (-1, 3) for input 'x'"),
    (("N", 3), (1.0, 3), "a shape must be integers >= 0, got (1.0, 3)"),
    ((-1, 3), None, "input 'x' must have lengths >= 0, got (-1, 3)"),
    ((2, 3), {"z": (2, 3)}, "inputs are x, got a shape for 'z'"),
    ((1,) * 17, None, "an array must have at most 16 axes, got 17"),
]
# fmt: on


@pytest.mark.parametrize(("declared", "shape", "words"), INPUTS)
def test_an_input_is_refused(declared, shape, words, tmp_path):
    assert words in refusal(write(tmp_path, relu(declared)), shape)


def relu(shape=(2, 3), out=None, **changes):
    return model([node("Relu", "x")], {"x": shape}, {"y": out}, **changes)


def twice_the_same_attribute():
    twice = node("Relu", "x", alpha=1)
    twice.attribute.append(twice.attribute[0])
    return model([twice], {"x": (1,)}, {"y": None})


def unequal_branches():
    one, two = graph([], {}, {"x": None}), graph([], {}, {"x": None, "x2": None}, {"x2": (1,)})
    return model([node("If", "x", then_branch=one, else_branch=two)], {"x": (1,)}, {"y": None})


def second_input(change):
    made = model([node("Relu", "x")], {"x": (2,), "z": (3,)}, {"y": None})
    change(made.graph.input[1])
    return made


def calling(*bodies):
    """A model that calls F0 of functions F0, F1 and so on, which have these bodies."""
    sets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    functions = [helper.make_function("own", f"F{i}", ["a"], ["c"], body, sets) for i, body in enumerate(bodies)]
    return model([node("F0", "x", domain="own")], {"x": (1,)}, {"y": None}, functions=functions, domains=["own"])


def doubling():
    """Twenty functions, each of which calls the next one twice."""
    twice = [[node(f"F{i + 1}", s, t, domain="own") for s, t in ("ab", "bc")] for i in range(20)]
    return calling(*twice, [node("Relu", "a", "c")])


def weights_in(location):
    return external(model([node("Conv", "x w")], {"x": IMAGE}, {"y": None}, {"w": (3, 4, 1, 1)}), location=location)


def two_values():
    made = model([node("Flatten", "x", axis=1)], {"x": (2, 3)}, {"y": None})
    made.graph.node[0].attribute[0].ints.append(1)
    return made


def sparse():
    made = relu((1,))
    made.graph.sparse_initializer.add(values=tensor((1,), "s"), dims=[4])
    return made


LARGE = "an ONNX file must take at most 3,000,000 steps to read"
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
        "input 'o' has dynamic dimensions (M, 3): give them with count_macs(..., {'o': (1, 3)})"),
    (lambda: second_input(lambda z: z.type.Clear()), "input 'z' must be a tensor, got another type or none"),
    (lambda: second_input(lambda z: setattr(z, "name", "x")),
        "every input must have its own name, got 'x' twice"),
    (lambda: calling([node("F0", "a", "c", domain="own")]),
        "branches and functions must be nested at most 30 deep, got more"),
    (doubling, LARGE),
    (lambda: model([node("Evil\n\x1b[2J", "x", name="line\nbreak" * 100)], {"x": (1,)}, {"y": None}),
        r"(Evil\n\x1b[2J)"),
    *((lambda place=place: weights_in(place), ELSEWHERE)
        for place in ("/etc/passwd", "../secret", "a/../../b", "C:\\w", "\\\\host\\w")),
    (lambda: calling([node("Fused", "a", "c", domain="other")]), "its domain must be imported, got 'other'"),
    (lambda: model([node("Relu", "x")], {"x": (2, 2)}, {"y": None}, functions=[helper.make_function(
        "", "Relu", ["a"], ["c"], [node("MatMul", "a a", "c")], [helper.make_opsetid("", 17)])]),
        "no rule for a function of the file that is named as an operator, got 'Relu'"),
    (two_values, "attribute 'axis' must have the data of its type, got ints"),
    (sparse, "initialisers must be dense, got a sparse one at byte"),
]
# fmt: on


@pytest.mark.parametrize(("make", "words"), MODELS)
def test_a_model_is_refused(make, words, tmp_path):
    assert words in refusal(write(tmp_path, make()))


def test_a_shape_for_no_input_is_refused(tmp_path):
    made = model([node("Relu", "x")], {}, {"y": None}, {"x": (1,)})
    assert "the network has no input, got shape (1,)" in refusal(write(tmp_path, made), (1,))


def test_weights_in_a_file_beside_the_model_are_never_opened(tmp_path):
    assert read_onnx(write(tmp_path, weights_in("missing.bin"))).graph[0].op.macs == 72 * 12


def test_a_declared_shape_of_an_output_may_be_left_open(tmp_path):
    assert len(read_onnx(write(tmp_path, relu(out=("N", None)))).graph) == 1
