"""Operators of ONNX beside the usual layers: counts by hand, shapes as onnx's own tests of operators have them."""

import re
import warnings

import numpy as np
import pytest
from macs.onnx_cases import BOOL, graph, helper, model, node, onnx, refusal, write

from nachos_min.macs import CountError, count
from nachos_min.macs.readers.onnx_reader import read_onnx

VOLUME = (2, 4, 5, 6, 7)
MS = "com.microsoft"


# name -> nodes, shapes of inputs, shapes of outputs, constants, figures
# fmt: off
CASES = {
    "conv, three axes": ([node("Conv", "x w b", pads=[1, 0, 0, 0, 1, 0], strides=[1, 2, 3], group=2)],
        {"x": VOLUME}, {"y": (2, 6, 4, 3, 3)}, {"w": (6, 2, 3, 3, 1), "b": (6,)},
        {"macs": 2 * 4 * 3 * 3 * 6 * 2 * 9, "params": 108 + 6, "bias_adds": 2 * 6 * 36}),
    "conv_transpose, three axes": ([node("ConvTranspose", "x w", strides=[2, 2, 2])], {"x": VOLUME},
        {"y": (2, 3, 10, 12, 14)}, {"w": (4, 3, 2, 2, 2)}, {"macs": 2 * 210 * 4 * 3 * 8}),
    "max pool, three axes": ([node("MaxPool", "x", "y i", kernel_shape=[2, 2, 2], strides=[2, 2, 2])],
        {"x": VOLUME}, {"y": (2, 4, 2, 3, 3), "i": (2, 4, 2, 3, 3)}, {}, {"pool_out": 2 * 4 * 18}),
    "lp pool, one axis": ([node("LpPool", "x", kernel_shape=[3], strides=[2], p=3)], {"x": (2, 4, 9)},
        {"y": (2, 4, 4)}, {}, {"pool_out": 32, "pool_in": 72}),
    "resize, three axes": ([node("Resize", "x - s", mode="linear")], {"x": VOLUME}, {"y": (2, 4, 10, 12, 14)},
        {"s": np.float32([1, 1, 2, 2, 2])}, {"macs": 0}),
    "einsum of three arrays, from left to right": ([node("Einsum", "x v w", equation="bi,ij,jk->bk")],
        {"x": (2, 3)}, {"y": (2, 5)}, {"v": (3, 4), "w": (4, 5)}, {"macs": 2 * 12 + 2 * 20}),
    "einsum of three arrays, an axis of all": ([node("Einsum", "x x x", equation="...i,...i,...i")], {"x": (2, 3)},
        {"y": (2,)}, {}, {"macs": 6, "mul_elems": 6}),
    # Recurrent layers: T * gates * H * (I + H) for each sample and direction.
    "lstm": ([node("LSTM", "x w r b - h h p", "y z c", hidden_size=6)], {"x": (5, 2, 3)},
        {"y": (5, 1, 2, 6), "z": (1, 2, 6), "c": (1, 2, 6)},
        {"w": (1, 24, 3), "r": (1, 24, 6), "b": (1, 48), "h": (1, 2, 6), "p": (1, 18)},
        {"macs": 2 * 5 * 24 * 9, "params": 24 * 9 + 48 + 18, "bias_adds": 2 * 2 * 5 * 24}),
    "lstm, both directions, samples first": ([node("LSTM", "x w r", hidden_size=6, direction="bidirectional",
        layout=1)], {"x": (2, 5, 3)}, {"y": (2, 5, 2, 6)}, {"w": (2, 24, 3), "r": (2, 24, 6)},
        {"macs": 2 * 2 * 5 * 24 * 9, "params": 2 * 24 * 9, "bias_adds": 0}),
    "gru, sequences of known lengths": ([node("GRU", "x w r b n", hidden_size=6, linear_before_reset=1)],
        {"x": (5, 2, 3)}, {"y": (5, 1, 2, 6)},
        {"w": (1, 18, 3), "r": (1, 18, 6), "b": (1, 36), "n": np.int32([4, 3])},
        {"macs": 7 * 18 * 9, "params": 18 * 9 + 36}),
    "rnn": ([node("RNN", "x w r", "y z", hidden_size=6, activations=["Relu"])], {"x": (5, 2, 3)},
        {"y": (5, 1, 2, 6), "z": (1, 2, 6)}, {"w": (1, 6, 3), "r": (1, 6, 6)},
        {"macs": 2 * 5 * 6 * 9, "act_elems:relu": 60}),
    # Values between pixels.
    "grid sample": ([node("GridSample", "x g", mode="linear")], {"x": (2, 3, 8, 8), "g": (2, 5, 6, 2)},
        {"y": (2, 3, 5, 6)}, {}, {"macs": 0, "interpolation": 4 * 180}),
    "grid sample, three axes, cubic": ([node("GridSample", "x g", mode="cubic")],
        {"x": (1, 3, 8, 8, 8), "g": (1, 2, 2, 2, 3)}, {"y": (1, 3, 2, 2, 2)}, {}, {"interpolation": 64 * 24}),
    "grid sample, nearest": ([node("GridSample", "x g", mode="nearest")], {"x": (2, 3, 8, 8), "g": (2, 5, 6, 2)},
        {"y": (2, 3, 5, 6)}, {}, {"interpolation": None}),
    "roi align": ([node("RoiAlign", "x r i", output_height=3, output_width=2, sampling_ratio=2)],
        {"x": (1, 4, 9, 9), "r": (5, 4)}, {"y": (5, 4, 3, 2)}, {"i": [0] * 5}, {"interpolation": 16 * 120}),
    "affine grid": ([node("AffineGrid", "x s")], {"x": (2, 2, 3)}, {"y": (2, 5, 6, 2)}, {"s": [2, 1, 5, 6]},
        {"macs": 2 * 30 * 3 * 2}),
    "deformable conv": ([node("DeformConv", "x w o b m", group=2)],
        {"x": (2, 4, 8, 8), "o": (2, 18, 6, 6), "m": (2, 9, 6, 6)}, {"y": (2, 6, 6, 6)},
        {"w": (6, 2, 3, 3), "b": (6,)},
        {"macs": 2 * 36 * 6 * 2 * 9, "params": 114, "interpolation": 4 * 2 * 36 * 36}),
    # Fourier transforms: round(5 n log2 n) each.
    "dft": ([node("DFT", "x - a", onesided=1)], {"x": (2, 3, 8, 1)}, {"y": (2, 3, 5, 2)}, {"a": np.int64(-2)},
        {"macs": 0, "fft_ops": 6 * 120}),
    "stft": ([node("STFT", "x s w n")], {"x": (2, 32, 1)}, {"y": (2, 4, 5, 2)},
        {"s": np.int64(8), "w": (8,), "n": np.int64(8)}, {"fft_ops": 8 * 120, "mul_elems": 64}),
    # Elements at other places.
    "col2im": ([node("Col2Im", "x i b")], {"x": (2, 12, 9)}, {"y": (2, 3, 4, 4)}, {"i": [4, 4], "b": [2, 2]}, {}),
    "max unpool": ([node("MaxUnpool", "x i", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (1, 2, 3, 3), "i": (1, 2, 3, 3)}, {"y": (1, 2, 6, 6)}, {}, {"macs": 0}),
    "an empty cache": ([node("Concat", "e x", "k", axis=1), node("MatMul", "k w")],
        {"x": (2, 3, 4), "e": (2, 0, 4)}, {"y": (2, 3, 5)}, {"w": (4, 5)}, {"macs": 2 * 3 * 20}),
    "products of empty arrays": ([node("MatMul", "x e")], {"x": (2, 3, 4), "e": (2, 4, 0)}, {"y": (2, 3, 0)}, {},
        {"macs": 0}),
    "rotary embedding of half the features": ([node("RotaryEmbedding", "x c c", rotary_embedding_dim=4)],
        {"x": (2, 3, 5, 8)}, {"y": (2, 3, 5, 8)}, {"c": (2, 5, 2)}, {"mul_elems": 2 * 120, "add_elems": 120}),
    "attention with a cache": ([node("Attention", "x k k - p p", "y a v s")],
        {"x": (2, 6, 1, 8), "k": (2, 2, 1, 8), "p": (2, 2, 9, 8)},
        {"y": (2, 6, 1, 8), "a": (2, 2, 10, 8), "v": (2, 2, 10, 8), "s": (2, 6, 1, 10)}, {},
        {"macs": 2 * (2 * 6 * 10 * 8), "act_elems:softmax": 120}),
    # Sequences of arrays.
    "sequence": ([node("SplitToSequence", "x two", "s", axis=0), node("SequenceInsert", "s x zero", "t"),
        node("SequenceErase", "t minus", "u"), node("SequenceLength", "u", "n"), node("SequenceAt", "u minus", "l"),
        node("ConcatFromSequence", "u", "c", axis=0), node("Gather", "c n", "row"), node("MatMul", "c w")],
        {"x": (5, 3)}, {"y": (9, 2), "l": (2, 3), "row": (3,)},
        {"two": np.int64(2), "zero": np.int64(0), "minus": np.int64(-1), "w": (3, 2)}, {"macs": 9 * 6}),
    "sequence stacked": ([node("SequenceConstruct", "x x", "s"),
        node("ConcatFromSequence", "s", axis=1, new_axis=1)], {"x": (5, 3)}, {"y": (5, 2, 3)}, {}, {}),
    # What ONNX Runtime writes.
    "a map in blocks of 16 channels": ([node("Conv", "x w b", "c", domain="com.microsoft.nchwc", activation="Relu"),
        node("ReorderOutput", "c", "d", domain="com.microsoft.nchwc", channels=5),
        node("ReorderInput", "d", "e", domain="com.microsoft.nchwc"),
        node("Conv", "e v", domain="com.microsoft.nchwc")], {"x": (1, 3, 4, 4)}, {"y": (1, 16, 4, 4)},
        {"w": (16, 3, 1, 1), "b": (16,), "v": (16, 16, 1, 1)}, {"macs": 16 * 16 * (3 + 16), "act_elems:relu": 256}),
    "quantised conv, channels last": ([node("QLinearConv", "x s z w s z s z b", channels_last=1, domain=MS)],
        {"x": (2, 9, 8, 4)}, {"y": (2, 9, 8, 3)}, {"w": np.zeros((3, 4, 1, 1), np.int8), "s": np.float32(1),
        "z": np.int8(0), "b": np.zeros(3, np.int32)}, {"macs": 1728, "params": 15}),
    "pool, channels last": ([node("NhwcMaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], domain=MS)],
        {"x": (1, 4, 6, 3)}, {"y": (1, 2, 3, 3)}, {}, {"pool_out": 18}),
    "weights of four bits": ([node("MatMulNBits", "x w s - - b", K=32, N=6, bits=4, block_size=16, domain=MS)],
        {"x": (2, 5, 32)}, {"y": (2, 5, 6)}, {"w": np.zeros((6, 2, 8), np.uint8), "s": (6, 2), "b": (6,)},
        {"macs": 10 * 32 * 6, "params": 32 * 6 + 6}),
    "embeddings": ([node("EmbedLayerNormalization", "x - w p - g b", "y n", domain=MS)], {"x": (2, 5)},
        {"y": (2, 5, 8), "n": (2,)}, {"w": (99, 8), "p": (20, 8), "g": (8,), "b": (8,)},
        {"params": 119 * 8 + 16, "norm_elems": 80, "add_elems": 80}),
    "quantised lstm": ([node("DynamicQuantizeLSTM", "x w r - - - - - s z s z", "y", hidden_size=6, domain=MS)],
        {"x": (5, 2, 3)}, {"y": (5, 1, 2, 6)},
        {"w": np.zeros((1, 3, 24), np.int8), "r": np.zeros((1, 6, 24), np.int8),
        "s": np.float32([1]), "z": np.int8([0])}, {"macs": 10 * 24 * 9, "params": 24 * 9}),
    "projected attention": ([node("Attention", "x w b - p", "y q", num_heads=3, domain=MS)],
        {"x": (2, 5, 12), "p": (2, 2, 3, 7, 4)}, {"y": (2, 5, 12), "q": (2, 2, 3, 12, 4)},
        {"w": (12, 36), "b": (36,)}, {"macs": 2 * 5 * 12 * 36 + 2 * (2 * 3 * 5 * 12 * 4), "params": 13 * 36}),
    "attention of packed heads": ([node("MultiHeadAttention", "x k", num_heads=3, domain=MS)],
        {"x": (2, 5, 12), "k": (2, 7, 3, 2, 4)}, {"y": (2, 5, 12)}, {}, {"macs": 2 * (2 * 3 * 5 * 7 * 4)}),
    "attention, biases": ([node("MultiHeadAttention", "x x x b", num_heads=3, domain=MS)], {"x": (2, 5, 12)},
        {"y": (2, 5, 12)}, {"b": (36,)}, {"macs": 2 * (2 * 3 * 25 * 4), "params": 36, "add_elems": 3 * 120}),
    "shared keys, a buffer as cache": ([node("GroupQueryAttention", "x k k p p l t c c", "y a v", num_heads=6,
        kv_num_heads=2, do_rotary=1, domain=MS)], {"x": (1, 1, 48), "k": (1, 1, 16), "p": (1, 2, 99, 8), "l": (1,)},
        {"y": (1, 1, 48), "a": (1, 2, 99, 8), "v": (1, 2, 99, 8)}, {"t": np.int32(10), "c": (20, 4)},
        {"macs": 2 * (6 * 10 * 8), "mul_elems": 2 * (48 + 16)}),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_an_operator_counts_what_was_worked_out(name, tmp_path):
    nodes, inputs, outputs, constants, expected = CASES[name]
    made = model(nodes, inputs, outputs, constants, 23, domains=[MS, f"{MS}.nchwc"])
    found = count(read_onnx(write(tmp_path, made)).graph)
    figures = found.columns | {"macs": found.macs, "params": found.params}
    assert {key: figures.get(key) for key in expected} == expected


@pytest.mark.parametrize("shape", [(1, 2, 9), (1, 2, 9, 8), (1, 2, 9, 8, 7)])
def test_zeros_around_a_map_count_as_a_convolution_s_padding(shape, tmp_path):
    """Whether an operator before pads a map, the convolution itself, or each in part; other values are no zeros."""
    axes = len(shape) - 2
    before, after = (1, 2, 0)[:axes], (2, 0, 1)[:axes]

    def counted(pads, inside, **mode):
        nodes = [node("Pad", "x p v" if pads else "x p", "z", **mode), node("Conv", "z w", pads=inside)]
        constants = {"p": [0, 0, *before, 0, 0, *after] if pads else [0] * 2 * len(shape), "v": np.float32(fill)}
        made = model(nodes, {"x": shape}, {"y": None}, constants | {"w": (3, 2, *(3,) * axes)})
        found = count(read_onnx(write(tmp_path, made)).graph)
        return found.macs, found.valid_macs

    fill, both = 0, [*before, *after]
    assert counted(True, [0] * 2 * axes) == counted(False, both)
    assert counted(True, [1] * 2 * axes) == counted(False, [each + 1 for each in both])
    macs, valid = counted(True, [0] * 2 * axes, mode="edge")
    fill = 1
    assert macs == valid == counted(True, [0] * 2 * axes)[1] > counted(False, both)[1]


# Lengths that depend on the data.

# what -> nodes that make "rows", and the most of them, with their features
AT_MOST = {
    "places": ([node("NonZero", "x", "n"), node("Transpose", "n", "rows")], (16, 2)),
    "boxes": ([node("Unsqueeze", "x z", "b"), node("NonMaxSuppression", "b b three", "rows")], (12, 3)),
    "different ones": ([node("Unique", "x", "rows d e c", axis=0)], (4, 4)),
}


@pytest.mark.parametrize("what", AT_MOST)
def test_rows_that_depend_on_the_data_are_moved_but_not_multiplied(what, tmp_path):
    nodes, (most, features) = AT_MOST[what]
    moved = [*nodes, node("Cast", "rows", "r", to=1), node("Relu", "r", "y")]
    constants = {"z": [0], "three": np.int64(3), "w": (features, 5)}
    found = count(read_onnx(write(tmp_path, model(moved, {"x": (4, 4)}, {"y": None}, constants))).graph)
    assert (found.macs, found.columns["act_elems:relu"]) == (0, most * features)
    path = write(tmp_path, model([*moved, node("MatMul", "y w", "p")], {"x": (4, 4)}, {"p": None}, constants))
    place = f"node {len(moved)} '' (MatMul): "
    words = "the rows that it multiplies depend on the data, got at most "
    assert refusal(path) == f"{place}{words}{(most, features)}"


def multiplied(what):
    """Nodes that multiply what NonZero makes, r, in some roundabout way."""
    body = graph([node("MatMul", "a w", "b")], {"i": (), "c": (), "a": (2, 2)}, {"c": None, "b": None})
    scanned = graph([node("Relu", "a", "b")], {"a": (2,)}, {"b": None})
    return {
        "attention": [node("Attention", "r3 r3 r3", q_num_heads=1, kv_num_heads=1)],
        "linear": [node("Gemm", "r w")],
        "turned": [node("FusedMatMul", "w r", transB=1, domain=MS)],
        "loop": [node("Loop", "n - r", body=body)],
        "scan": [node("Scan", "r", body=scanned, num_scan_inputs=1)],
        "sequence": [node("SplitToSequence", "r", "s"), node("SequenceAt", "s n", "a"), node("MatMul", "a w")],
    }[what]


@pytest.mark.parametrize("what", ["attention", "linear", "turned", "loop", "scan", "sequence"])
def test_products_of_such_rows_are_refused_however_they_come(what, tmp_path):
    nodes = [node("NonZero", "x", "p"), node("Transpose", "p", "i"), node("Cast", "i", "r", to=1)]
    nodes += [node("Unsqueeze", "r zeros", "r3"), *multiplied(what)]
    constants = {"w": (2, 2), "n": np.int64(3 if what == "sequence" else 100), "zeros": [0]}
    path = write(tmp_path, model(nodes, {"x": (4, 4)}, {"y": None}, constants, 23, domains=[MS]))
    assert "depend" in refusal(path)


def test_what_is_scattered_by_such_rows_keeps_its_shape(tmp_path):
    nodes = [node("NonZero", "x", "p"), node("Transpose", "p", "i"), node("Gather", "i zero", "u", axis=1)]
    nodes += [node("Cast", "u", "v", to=1), node("ScatterND", "x i v", "t"), node("MatMul", "t t")]
    made = model(nodes, {"x": (4, 4)}, {"y": (4, 4)}, {"zero": np.int64(0)})
    assert count(read_onnx(write(tmp_path, made)).graph).macs == 64


def test_a_shape_that_depends_on_the_data_decides_nothing(tmp_path):
    """The length of what NonZero makes is at most 16, which is no number for an If or a Loop."""
    one, other = (graph([node(name, "x", "o")], {}, {"o": None}) for name in ("Relu", "Tanh"))
    nodes = [node("NonZero", "x", "n"), node("Shape", "n", "s"), node("Gather", "s one", "c", axis=0)]
    nodes += [node("Equal", "c sixteen", "all"), node("If", "all", "y", then_branch=one, else_branch=other)]
    constants = {"one": np.int64(1), "sixteen": np.int64(16)}
    reading = read_onnx(write(tmp_path, model(nodes, {"x": (4, 4)}, {"y": (4, 4)}, constants)))
    assert len(reading.branches) == 2
    loop = node("Loop", "c - x", "y", body=turns([node("Relu", "a", "b")]))
    path = write(tmp_path, model([*nodes[:3], loop], {"x": (4, 4)}, {"y": (4, 4)}, constants))
    assert "(Loop): how often it runs depends on the data" in refusal(path)


@pytest.mark.parametrize(
    ("operators", "rows"),
    [
        ([node("Pow", "n half", "r"), node("Mul", "r four", "c")], 8),  # floor(sqrt(7)) * 4
        ([node("Clip", "n one four", "c")], 4),
        ([node("Clip", "n - four", "r"), node("Pow", "r half", "c")], 2),
    ],
)
def test_integers_that_a_file_computes_stay_integers(operators, rows, tmp_path):
    nodes = [node("Shape", "x", "s"), node("Gather", "s zero", "n"), *operators]
    nodes += [node("Unsqueeze", "c axis", "u"), node("Concat", "u seven", "v", axis=0), node("Expand", "w v", "e")]
    constants = {"zero": np.int64(0), "one": np.int64(1), "four": np.int64(4), "half": np.float32(0.5)}
    constants |= {"axis": [0], "seven": [7], "w": (1, 7)}
    made = model([*nodes, node("MatMul", "e x")], {"x": (7, 3)}, {"y": None}, constants)
    assert count(read_onnx(write(tmp_path, made)).graph).macs == rows * 7 * 3


def test_branches_of_three_ifs_whose_names_may_be_taken_for_another(tmp_path):
    product, other = (
        graph([node("MatMul", "x x", "o")], {}, {"o": None}),
        graph([node("Relu", "x", "o")], {}, {"o": None}),
    )
    nodes = [node("ReduceSum", "x", "s", keepdims=0), node("Cast", "s", "c", to=BOOL)]
    for place, name in enumerate(("a.2", "a", "a")):
        nodes.append(node("If", "c", f"y{place}", name=name, then_branch=product, else_branch=other))
    made = model(nodes, {"x": (4, 4)}, {f"y{place}": None for place in range(3)})
    assert len({branch.decision for branch in read_onnx(write(tmp_path, made)).branches}) == 3


# Loops.


def turns(nodes, reads="i c a", writes="c b", constants=None):
    """The body of a Loop: the number of the turn, whether it goes on, and one state."""
    inputs = dict.fromkeys(reads.split(), ())
    return graph(nodes, inputs, dict.fromkeys(writes.split()), constants)


@pytest.mark.parametrize("often", [0, 1, 5, 64, 65, 10_000, 10**9])
def test_a_loop_counts_its_body_as_often_as_it_runs(often, tmp_path):
    """Short loops are followed turn by turn, long ones as a batch; weights count once."""
    body = turns(
        [node("MatMul", "a w", "m"), node("Add", "m v", "b"), node("Relu", "x", "r")],
        writes="c b r",
        constants={"v": (4,)},
    )
    made = model(
        [node("Loop", "n - x", "y z", body=body)],
        {"x": (3, 4)},
        {"y": (3, 4), "z": None},
        {"n": np.int64(often), "w": (4, 4)},
    )
    found = count(read_onnx(write(tmp_path, made)).graph)
    assert (found.macs, found.columns["add_elems"]) == (often * 48, often * 12)
    assert found.params == (20 if often else 0)


def test_a_loop_that_its_own_condition_ends(tmp_path):
    """Its state is a counter that is folded: 3, 4, 5, 6."""
    body = turns(
        [node("Add", "a one", "b"), node("Less", "b seven", "d"), node("MatMul", "x w", "m")], writes="d b m"
    )
    constants = {"one": np.int64(1), "seven": np.int64(7), "three": np.int64(3), "w": (4, 2)}
    made = model(
        [node("Loop", "- t three", "k y", body=body)],
        {"x": (3, 4)},
        {"y": (4, 3, 2)},
        constants | {"t": np.bool_(1)},
    )
    assert count(read_onnx(write(tmp_path, made)).graph).macs == 4 * 24


def test_a_loop_that_appends_to_a_sequence(tmp_path):
    nodes = [node("Unsqueeze", "i zero", "i1"), node("Add", "i1 one", "j"), node("Slice", "x i1 j", "p")]
    loop = node("Loop", "n - e", "s", body=turns([*nodes, node("SequenceInsert", "a p", "b")]))
    nodes = [node("SequenceEmpty", "", "e"), loop, node("ConcatFromSequence", "s", "c", axis=0)]
    constants = {"n": np.int64(4), "one": [1], "zero": [0], "w": (3, 2)}
    made = model([*nodes, node("MatMul", "c w")], {"x": (5, 3)}, {"y": (4, 2)}, constants)
    assert count(read_onnx(write(tmp_path, made)).graph).macs == 4 * 6


def test_a_branch_in_a_long_loop_runs_in_each_turn(tmp_path):
    one = graph([node("MatMul", "a w", "o")], {}, {"o": None})
    other = graph([node("Relu", "a", "o")], {}, {"o": None})
    nodes = [node("ReduceMax", "a", "m", keepdims=0), node("Cast", "m", "f", to=BOOL)]
    body = turns([*nodes, node("If", "f", "b", name="gate", then_branch=one, else_branch=other)])
    made = model(
        [node("Loop", "n - x", "y", body=body)], {"x": (3, 4)}, {"y": (3, 4)}, {"n": np.int64(100), "w": (4, 4)}
    )
    reading = read_onnx(write(tmp_path, made))
    assert {b.name: count(b.graph).macs for b in reading.branches} == {
        "Loop_0/gate/then": 4800,
        "Loop_0/gate/else": 0,
    }


def test_a_scan_counts_its_body_once_for_each_slice(tmp_path):
    body = graph(
        [node("MatMul", "s w", "p"), node("Add", "p e", "t"), node("Identity", "t", "o")],
        {"s": (3,), "e": (3,)},
        {"t": None, "o": None},
    )
    scan = node("Scan", "h x", "z y", body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[-1])
    made = model([scan], {"x": (3, 7), "h": (3,)}, {"z": (3,), "y": (3, 7)}, {"w": (3, 3)})
    found = count(read_onnx(write(tmp_path, made)).graph)
    assert (found.macs, found.params, found.columns["add_elems"]) == (7 * 9, 9, 21)


# What a refusal says.


def test_a_refusal_lists_all_causes_with_how_often_each_occurs(tmp_path):
    """What an operator without a rule makes is unknown; that it stops what reads it is no cause of its own."""
    nodes = [node("Det", "x", f"d{i}") for i in range(3)]
    nodes += [node("Add", "d0 d1", "s"), node("StringSplit", "x", "t u"), node("Conv", "x s2", "v")]
    path = write(tmp_path, model([*nodes, node("Relu", "s")], {"x": (3, 4, 4)}, {"y": None}, {"s2": (3, 5, 4)}, 20))
    assert refusal(path) == (
        "3 causes: node 0 '' (Det): no rule for counting operator 'Det' (3 times); "
        "node 4 '' (StringSplit): no rule for counting operator 'StringSplit'; "
        "node 5 '' (Conv): weights (3, 5, 4) in 1 groups must fit 4 channels"
    )


def test_a_refusal_of_thousands_of_causes_is_one_line(tmp_path):
    nodes = [node("Reshape", "x s", f"y{i}") for i in range(2000)]
    made = model(nodes, {"x": (3, 4)}, {"y0": None}, {"s": [5]})
    assert "(2000 times)" in refusal(write(tmp_path, made))
    other = model([node(f"Own{i}", "x", f"y{i}") for i in range(2000)], {"x": (3, 4)}, {"y0": None})
    assert refusal(write(tmp_path, other)).endswith("causes more")


@pytest.mark.parametrize("body", [["Identity"], []])
def test_a_loop_without_an_end_is_refused(body, tmp_path):
    nodes = [node(name, "a", "b") for name in body]
    endless = node("Loop", "- t x", "y", body=turns(nodes, writes="c b" if body else "c a"))
    path = write(tmp_path, model([endless], {"x": (2,)}, {"y": None}, {"t": np.bool_(1)}))
    assert "an ONNX file must take at most 3,000,000 steps to read" in refusal(path)


# fmt: off
WRONG = {
    "parts of a sequence": node("SplitToSequence", "x four", "s"),
    "nothing to stack": node("ConcatFromSequence", "e", "s", axis=0, new_axis=1),
    "an array for a sequence": node("SequenceAt", "x zero", "s"),
    "a sequence for an array": node("Relu", "e", "s"),
    "a place outside": node("SequenceErase", "e zero", "s"),
    "no length": node("DFT", "x3 none", "s"),
    "no caches of cosines": node("GroupQueryAttention", "x3 x3 x3 - - zero zero zero", "s", num_heads=1,
        kv_num_heads=1, do_rotary=1, domain=MS),
    "recurrent weights of another size": node("LSTM", "x3 x3 x3", "s"),
    "an axis that is not": node("Scan", "x", "s", num_scan_inputs=1, scan_input_axes=[5],
        body=graph([], {"a": ()}, {"a": None})),
    "more axes than arrays": node("Scan", "x", "s", num_scan_inputs=1, scan_input_axes=[0, 0],
        body=graph([], {"a": ()}, {"a": None})),
}
# fmt: on


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_by_the_node_s_name(what, tmp_path):
    constants = {"four": [1, 3], "zero": np.int64(0), "none": np.zeros(0, np.int64), "x3": (1, 4, 2)}
    made = model(
        [node("SequenceEmpty", "", "e"), WRONG[what]], {"x": (3, 2)}, {"s": None}, constants, 20, domains=[MS]
    )
    assert refusal(write(tmp_path, made)).startswith("node 1 '' (")


def test_a_sequence_has_few_arrays(tmp_path):
    path = write(tmp_path, model([node("SplitToSequence", "x", "s")], {"x": (10**9,)}, {"s": None}))
    assert "a sequence must have 1 to 4096 arrays, got parts of 1 of (1000000000,)" in refusal(path)


# onnx's own tests of operators state the shapes of what each makes. Lengths that are inputs are made constants.

# fmt: off
REFUSED = {
    "Adagrad", "Adam", "BlackmanWindow", "CausalConvWithState", "CenterCropPad", "Compress", "ConstantOfShape",
    "Det", "Einsum", "FlexAttention", "GlobalLpPool", "Gradient", "HammingWindow",
    "HannWindow", "ImageDecoder", "LinearAttention", "Loop", "MaxRoiPool", "MeanVarianceNormalization",
    "MelWeightMatrix", "Momentum", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
    "OptionalHasElement", "Range", "RegexFullMatch", "Resize", "Scan", "SequenceMap", "SoftmaxCrossEntropyLoss",
    "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
}
# fmt: on
OTHERWISE = ("the operator set must be 7 to", "must be a tensor, got another type or none")


def fixed(case):
    """The model of one of the tests: all inputs but the first are constants, outputs have their real shapes."""
    made = onnx.ModelProto.FromString(case.model.SerializeToString())
    inputs, outputs = case.data_sets[0]
    for given, values in list(zip(made.graph.input, inputs, strict=True))[1:]:
        if isinstance(values, np.ndarray | np.generic):
            made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), given.name))
    known = {each.name for each in made.graph.initializer}
    kept = [each for each in made.graph.input if each.name not in known]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    for out, values in zip(made.graph.output, outputs, strict=False):
        if isinstance(values, np.ndarray) and out.type.HasField("tensor_type"):
            out.CopyFrom(helper.make_tensor_value_info(out.name, out.type.tensor_type.elem_type, values.shape))
    return made


def test_onnx_s_own_tests_make_arrays_of_the_shapes_they_state(tmp_path):
    loaded = pytest.importorskip("onnx.backend.test.case.node", reason="onnx may be packed without its tests")
    counted, refused = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx's tests divide by zero
        cases = [case for case in loaded.collect_testcases(None) if case.model and case.data_sets]
    for case in cases:
        try:
            reading = read_onnx(write(tmp_path, fixed(case)))
            counted += sum(count(each.graph).macs >= 0 for each in (reading, *reading.branches))
        except CountError as error:
            if not any(words in str(error) for words in OTHERWISE):
                refused |= set(re.findall(r"\((?:[\w.]*\.)?(\w+)\): ", str(error))[:1]) or {str(error)}
    assert counted > 1500
    assert refused <= REFUSED
