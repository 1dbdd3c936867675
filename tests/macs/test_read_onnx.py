"""Every ONNX operator's rule against integers worked out by hand, branches, functions, and generated networks."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from macs.onnx_cases import BOOL, CASES, external, graph, helper, model, node, onnx, write

from nachos_min.macs import CountError, count
from nachos_min.macs.readers.onnx_reader import read_onnx
from nachos_min.targets import read_target


def count_of(tmp_path, nodes, shape, out, constants, opset=17):
    path = write(tmp_path, model(nodes, {"x": shape}, {"y": out}, constants, opset))
    return count(read_onnx(path).graph)


NEWER = {"group norm": 21, "rms norm": 23, "attention": 23, "attention, heads shared": 23}
NEWER |= {"split": 18, "resize, axes": 18, "pad, axes": 18}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_counts_what_was_worked_out(name, tmp_path):
    nodes, (shape, out), constants, expected = CASES[name]
    found = count_of(tmp_path, nodes, shape, out, constants, NEWER.get(name, 17))
    figures = found.columns | {"macs": found.macs, "params": found.params, "valid_macs": found.valid_macs}
    assert {key: figures.get(key) for key in expected} == expected


# fmt: off
KINDS = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Gelu": "gelu",
    "Mish": "mish", "Sigmoid": "sigmoid", "HardSigmoid": "hsigmoid", "HardSwish": "hswish", "Tanh": "tanh",
    "Softplus": "softplus", "Softsign": "softsign", "ThresholdedRelu": "thresholded_relu",
}
# fmt: on
UNARY = ("Exp", "Log", "Erf", "Sqrt", "Neg", "Abs", "Sign", "Reciprocal", "Floor", "Ceil", "Round")


@pytest.mark.parametrize("operator", [*KINDS, *UNARY, "Sub", "Div", "Pow", "Min", "Max", "Mean"])
def test_elements_are_counted_by_kind(operator, tmp_path):
    inputs, columns, constants = "x", 4, {}
    if operator not in (*KINDS, *UNARY):
        inputs, columns, constants = "x a", 1, {"a": (4,)}
    found = count_of(tmp_path, [node(operator, inputs)], (3, columns), (3, 4), constants, 20)
    column = f"act_elems:{KINDS[operator]}" if operator in KINDS else f"pointwise:{operator.lower()}"
    assert found.columns[column] == 12


# fmt: off
OLDER = {
    "reduction": ([node("ReduceSum", "x", axes=[0])], ((2, 3), (1, 3)), {}, 12),
    "squeeze": ([node("Squeeze", "x", axes=[0])], ((1, 3), (3,)), {}, 12),
    "unsqueeze": ([node("Unsqueeze", "x", axes=[0])], ((3,), (1, 3)), {}, 12),
    "split": ([node("Split", "x", "a y", split=[1, 2])], ((3,), (2,)), {}, 12),
    "slice": ([node("Slice", "x", starts=[1], ends=[99], axes=[1])], ((3, 5), (3, 4)), {}, 9),
    "pad": ([node("Pad", "x", pads=[1, 0, 2, 0])], ((3, 5), (6, 5)), {}, 10),
    "clip": ([node("Clip", "x", min=0.0, max=6.0)], ((3, 5), (3, 5)), {}, 10),
    "top k": ([node("TopK", "x", "y i", k=2)], ((3, 5), (3, 2)), {}, 9),
    "upsample, attribute": ([node("Upsample", "x", scales=[1.0, 1.0, 2.0])], ((1, 1, 2), (1, 1, 4)), {}, 7),
    "upsample, input": ([node("Upsample", "x s")], ((1, 1, 2), (1, 1, 4)), {"s": np.float32([1, 1, 2])}, 9),
    "resize": ([node("Resize", "x s")], ((1, 1, 2), (1, 1, 4)), {"s": np.float32([1, 1, 2])}, 10),
}
# fmt: on


@pytest.mark.parametrize(("nodes", "shapes", "constants", "opset"), OLDER.values(), ids=OLDER)
def test_older_operator_sets_say_it_by_attributes(nodes, shapes, constants, opset, tmp_path):
    assert count_of(tmp_path, nodes, *shapes, constants, opset).macs == 0


@pytest.mark.parametrize(("opset", "features"), [(12, 12), (13, 4)])
def test_softmax_knows_what_its_features_are(opset, features, tmp_path):
    made = model([node("Softmax", "x")], {"x": (2, 3, 4)}, {"y": (2, 3, 4)}, opset=opset)
    assert read_onnx(write(tmp_path, made)).graph[0].op.features == features


# Branches and functions.


def exits(condition="early"):
    """A network that stops after a first classifier, or goes on and may stop after a second one."""
    second = graph([node("Gemm", "z v", "c")], {}, {"c": None}, {"v": (4, 3)})
    last = graph([node("Gemm", "z u", "d"), node("Relu", "d", "e")], {}, {"e": None}, {"u": (4, 3)})
    early = graph([node("Identity", "a", "out")], {}, {"out": None})
    deep = node("If", "more", "f", then_branch=second, else_branch=last, name="deep")
    layers = [node("Conv", "x w", "m"), node("ReduceMean", "m", "z", axes=[2, 3], keepdims=0), deep]
    late = graph(layers, {}, {"f": None}, {"w": (4, 2, 3, 3)})
    nodes = [
        node("ReduceMean", "x", "p", axes=[2, 3], keepdims=0),
        node("Gemm", "p h", "a"),
        node("ReduceMax", "a", "top", keepdims=0),
        node("Greater", "top half", "early"),
        node("Less", "top half", "more"),
        node("If", condition, "y", then_branch=early, else_branch=late),
    ]
    constants = {"h": (2, 3), "half": np.float32(0.5), "fixed": np.bool_(0)}
    return model(nodes, {"x": (1, 2, 8, 8)}, {"y": (1, 3)}, constants)


def test_each_branch_is_counted_by_itself(tmp_path):
    reading = read_onnx(write(tmp_path, exits()))
    assert count(reading.graph).macs == 6
    found = {branch.name: (count(branch.graph).macs, count(branch.graph).params) for branch in reading.branches}
    assert found == {
        "If_5/then": (0, 0),
        "If_5/else": (36 * 72, 72),
        "If_5/else/deep/then": (12, 12),
        "If_5/else/deep/else": (12, 12),
    }
    assert [branch.name for branch in reading.branches] == list(found)


def test_a_branch_that_is_fixed_is_part_of_the_graph(tmp_path):
    reading = read_onnx(write(tmp_path, exits(condition="fixed")))
    assert count(reading.graph).macs == 6 + 36 * 72
    assert [branch.name for branch in reading.branches] == ["deep/then", "deep/else"]


def test_branches_of_different_shapes_can_be_outputs(tmp_path):
    small, large = (graph([node("Gemm", "x w", "o")], {}, {"o": None}, {"w": (2, n)}) for n in (3, 4))
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=BOOL)]
    nodes.append(node("If", "c", "y", then_branch=small, else_branch=large))
    reading = read_onnx(write(tmp_path, model(nodes, {"x": (1, 2)}, {"y": None})))
    assert [count(branch.graph).macs for branch in reading.branches] == [6, 8]
    with pytest.raises(CountError, match="array of fixed shape, got 'y', which no rule gives one"):
        read_onnx(write(tmp_path, model([*nodes, node("Relu", "y", "z")], {"x": (1, 2)}, {"z": None})))


def test_a_function_is_put_in_the_place_of_its_call(tmp_path):
    body = [node("Gemm", "a b", "c"), node("LeakyRelu", "c", "d")]
    body[0].attribute.add(name="transB", ref_attr_name="turned", type=onnx.AttributeProto.INT)
    sets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Layer", ["a", "b"], ["d"], body, sets, ["turned"])
    nodes = [node("Layer", "x w", "z", domain="own", turned=1), node("Layer", "z v", domain="own", turned=0)]
    weights, own = {"w": (3, 7), "v": (3, 2)}, {"functions": [function], "domains": ["own"]}
    reading = read_onnx(write(tmp_path, model(nodes, {"x": (5, 7)}, {"y": (5, 2)}, weights, **own)))
    assert count(reading.graph).macs == 5 * 7 * 3 + 5 * 3 * 2
    assert reading.graph[0].name == "Layer_0/Gemm_0"


# Inputs.


def open_model():
    nodes = [node("Gemm", "x w", "a"), node("MatMul", "o v", "b"), node("Add", "a b")]
    return model(nodes, {"x": ("N", 4), "o": ("N", 6)}, {"y": ("N", 5)}, {"w": (4, 5), "v": (6, 5)})


def test_an_open_number_of_samples_is_one(tmp_path):
    reading = read_onnx(write(tmp_path, open_model()))
    assert reading.inputs == {"x": (1, 4), "o": (1, 6)}


def test_the_cheapest_and_the_dearest_way_take_one_branch_of_each_if(tmp_path):
    small, large = (graph([node("Gemm", "x w", "o")], {}, {"o": None}, {"w": (2, n)}) for n in (3, 4))
    gates = [node("If", "c", f"y{place}", name="gate", then_branch=small, else_branch=large) for place in (0, 1)]
    chosen = graph([*gates, node("Relu", "x", "z")], {}, {"z": None})
    other = graph([node("Relu", "x", "z")], {}, {"z": None})
    nodes = [
        node("Gemm", "x v", "a"),
        node("ReduceMax", "x", "m", keepdims=0),
        node("Cast", "m", "c", to=BOOL),
        node("If", "c", "y", name="outer", then_branch=chosen, else_branch=other),
    ]
    path = write(tmp_path, model(nodes, {"x": (1, 2)}, {"y": None}, {"v": (2, 5)}))
    target = read_target(str(path))
    assert len({branch.name for branch in target.branches}) == 6
    assert target.ways(lambda part: count(part).macs)[:2] == (10, 10 + 8 + 8)


@pytest.mark.parametrize("given", [(3, 4), {"x": (3, 4)}, {"o": (3, 6)}, {"x": (3, 4), "o": (3, 6)}])
def test_a_named_length_is_the_same_everywhere(given, tmp_path):
    reading = read_onnx(write(tmp_path, open_model()), given)
    assert reading.inputs == {"x": (3, 4), "o": (3, 6)}
    assert count(reading.graph).macs == 3 * 4 * 5 + 3 * 6 * 5


def test_counts_above_what_64_bits_hold_are_exact(tmp_path):
    made = model([node("MatMul", "x w")], {"x": (2**40, 2**40)}, {"y": (2**40, 2**40)}, {"w": (1, 1)})
    assert count(read_onnx(write(tmp_path, external(made, [2**40, 2**40]))).graph).macs == 2**120


# Generated networks, against shapes that onnx infers.

sizes = st.integers(1, 3)  # small enough for every window to fit


@st.composite
def layers(draw):
    """A few convolutions, transposed convolutions and pools, with whatever attributes they can have but ceil_mode.

    Of a last window that begins in the padding, onnx's inference keeps one; ONNX Runtime and PyTorch drop it.
    """
    nodes, constants, channels = [], {}, 4
    for i in range(draw(st.integers(1, 3))):
        operator = draw(st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
        kernel = [draw(sizes), draw(sizes)]
        attributes = {"strides": [draw(st.integers(1, 2)), draw(st.integers(1, 2))]}
        padding = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
        if padding == "NOTSET":
            attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        else:
            attributes["auto_pad"] = padding
        if operator in ("Conv", "MaxPool"):
            attributes["dilations"] = [1, 1] if "auto_pad" in attributes else [draw(sizes), draw(sizes)]
        if operator.startswith("Conv"):
            groups, out = draw(st.sampled_from([1, 2, channels])), channels * draw(st.integers(1, 2))
            shape = (out, channels // groups) if operator == "Conv" else (channels, out // groups)
            constants[f"w{i}"] = (*shape, *kernel)
            nodes.append(node(operator, f"a{i} w{i}", f"a{i + 1}", group=groups, **attributes))
            channels = out
        else:
            nodes.append(node(operator, f"a{i}", f"a{i + 1}", kernel_shape=kernel, **attributes))
    return nodes, constants


def products(inferred, shapes, weights):
    """MACs by the formulas, from shapes that onnx infers."""
    total = 0
    for each in inferred.graph.node:
        if each.op_type.startswith("Conv"):
            x, y, w = shapes[each.input[0]], shapes[each.output[0]], weights[each.input[1]]
            side = y if each.op_type == "Conv" else x
            total += side[0] * prod(side[2:]) * prod(w)
    return total


@settings(max_examples=60)
@given(layers(), st.integers(1, 3), st.integers(60, 90), st.integers(60, 90))
def test_generated_networks_count_what_inferred_shapes_say(tmp_path_factory, network, batch, height, width):
    nodes, constants = network
    made = model(nodes, {"a0": (batch, 4, height, width)}, {nodes[-1].output[0]: None}, constants)
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    shapes = {
        each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for each in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    path = write(tmp_path_factory.mktemp("generated"), made)
    reading = read_onnx(path)
    assert count(reading.graph).macs == products(inferred, shapes, constants)
    assert reading.graph[-1].batch * prod(reading.graph[-1].op.output) == prod(shapes[nodes[-1].output[0]])
