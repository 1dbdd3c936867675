"""Every record against an oracle that multiplies one by one, integers worked out by hand, and its rules."""

from functools import partial
from itertools import product

import numpy as np
import oracles_macs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.macs import CountError, ops
from nachos_min.macs.ops import (
    Add,
    AvgPool,
    Conv,
    Conv2d,
    ConvTranspose,
    ConvTranspose2d,
    Einsum,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Recurrent,
)
from nachos_min.macs.windows import valid_taps

CONVOLUTIONS = {
    "depthwise": Conv2d((6, 6, 4), 4, (3, 3), padding=(1, 1, 1, 1), groups=4),
    "even kernel, same": Conv2d((17, 15, 1), 2, (4, 4), padding=(1, 2, 1, 2)),
    "all asymmetric, 17x15": Conv2d((17, 15, 2), 4, (3, 5), (2, 3), (1, 0, 2, 3), (1, 2), groups=2),
    "kernel larger than the map": Conv2d((2, 3, 2), 3, (7, 7), padding=(3, 3, 3, 3)),
    "7x7 on one pixel": Conv2d((1, 1, 3), 3, (7, 7), padding=(3, 3, 3, 3), groups=3),
    "1x1 on one pixel": Conv2d((1, 1, 4), 5, (1, 1), bias=True),
    "stride 2, output padding": ConvTranspose2d((4, 4, 2), 3, (3, 3), (2, 2), (1, 1, 1, 1), output_padding=(1, 1)),
    "all asymmetric, transposed": ConvTranspose2d(
        (5, 4, 2), 2, (3, 4), (2, 3), (1, 0, 2, 3), (1, 2), output_padding=(1, 2)
    ),
}


def _arrays(record: Conv2d | ConvTranspose2d) -> tuple[np.ndarray, np.ndarray]:
    """A map, and weights [KH, KW, inward / groups, outward] as for the convolution that it is or belongs to."""
    channels = (record.input[2], record.out_channels)
    inward, outward = channels if isinstance(record, Conv2d) else channels[::-1]
    rng = np.random.default_rng(7)
    return rng.normal(size=record.input), rng.normal(size=(*record.kernel, inward // record.groups, outward))


def _convolved(record: Conv2d | ConvTranspose2d) -> tuple[np.ndarray, int, int]:
    how = (record.stride, record.padding, record.dilation, record.groups)
    if isinstance(record, Conv2d):
        return oracles_macs.convolve(*_arrays(record), *how)
    return oracles_macs.convolve_transposed(*_arrays(record), *how, record.output_padding)


def _check(record: Conv2d | ConvTranspose2d) -> None:
    y, made, useful = _convolved(record)
    assert (y.shape, made, useful) == (record.output, record.macs, record.valid_macs)
    assert record.params == _arrays(record)[1].size + record.bias * record.out_channels


@pytest.mark.parametrize("record", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_counts_what_is_multiplied(record):
    _check(record)


_window = st.tuples(st.integers(1, 3), st.integers(1, 3))
_channels = st.tuples(st.integers(1, 2), st.integers(1, 2))
_padding = st.tuples(*[st.integers(0, 3)] * 4)
_settings = settings(max_examples=40, deadline=None, derandomize=True)


@_settings
@given(st.tuples(*[st.integers(1, 6)] * 2), _window, _window, _padding, _window, st.integers(1, 2), _channels)
def test_any_convolution(sides, kernel, stride, padding, dilation, groups, channels):
    arguments = (channels[1] * groups, kernel, stride, padding, dilation, groups)
    shape = (*sides, channels[0] * groups)
    spans = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    pads = [padding[0] + padding[1], padding[2] + padding[3]]
    if all(spans[axis] <= shape[axis] + pads[axis] for axis in (0, 1)):
        _check(Conv2d(shape, *arguments))
    else:
        with pytest.raises(CountError, match="must fit the padded map"):
            Conv2d(shape, *arguments)
    if all((shape[axis] - 1) * stride[axis] + spans[axis] > pads[axis] for axis in (0, 1)):
        _check(ConvTranspose2d(shape, *arguments))
    else:
        with pytest.raises(CountError, match="must leave some output"):
            ConvTranspose2d(shape, *arguments)


def _by_hand(record: Conv) -> tuple[int, int]:
    """Products of any number of axes, one by one: all, and those with a pixel that is no padded zero."""
    made = useful = 0
    axes = range(record.spatial)
    for output in product(*map(range, record.output[:-1])):
        for tap in product(*map(range, record.kernel)):
            pixel = [
                output[a] * record.stride[a] + tap[a] * record.dilation[a] - record.padding[2 * a] for a in axes
            ]
            made += 1
            useful += all(record.zeros[2 * a] <= pixel[a] < record.input[a] - record.zeros[2 * a + 1] for a in axes)
    pairs = record.input[-1] // record.groups * record.out_channels
    return made * pairs, useful * pairs


@pytest.mark.parametrize(
    "record",
    [
        Conv((7, 4), 6, (3,), (2,), (2, 1), (2,), groups=2),
        Conv((4, 3, 5, 2), 3, (3, 2, 3), (1, 2, 1), (1, 1, 0, 1, 2, 0), (1, 1, 2)),
        Conv((6, 5, 2), 3, (3, 3), padding=(1, 0, 2, 1), zeros=(1, 2, 0, 1)),
    ],
)
def test_windows_of_any_number_of_axes(record):
    assert (record.macs, record.valid_macs) == _by_hand(record)


def test_a_map_padded_before_has_the_same_useful_products():
    inside = Conv((5, 6, 3), 4, (3, 3), (2, 1), padding=(1, 2, 3, 0))
    before = Conv((8, 9, 3), 4, (3, 3), (2, 1), zeros=(1, 2, 3, 0))
    assert (inside.macs, inside.valid_macs) == (before.macs, before.valid_macs)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_windows_are_as_long_and_have_the_products_of_pytorchs(axes, transposed):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    lengths, kernel, stride = (7, 6, 5)[:axes], (3, 2, 4)[:axes], (2, 1, 3)[:axes]
    kind = getattr(torch.nn, f"Conv{'Transpose' * transposed}{axes}d")
    padding = tuple(side for each in (1, 0, 1)[:axes] for side in (each, each))
    with FlopCounterMode(display=False) as counter:
        made = kind(4, 6, kernel, stride, (1, 0, 1)[:axes], groups=2)(torch.zeros(1, 4, *lengths))
    record = (ConvTranspose if transposed else Conv)((*lengths, 4), 6, kernel, stride, padding, groups=2, bias=True)
    assert (*made.shape[2:], made.shape[1]) == record.output
    assert 2 * record.macs == counter.get_total_flops()
    assert record.params == sum(x.numel() for x in kind(4, 6, kernel, groups=2).parameters())


def test_a_recurrent_layer_has_the_parameters_of_pytorchs():
    torch = pytest.importorskip("torch")
    for kind, layer in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU), ("rnn_tanh", torch.nn.RNN)):
        record = Recurrent((7, 3), kind, hidden=5)
        assert record.params == sum(x.numel() for x in layer(3, 5).parameters())
    projected = Recurrent((7, 3), "lstm", hidden=5, projection=2)
    assert projected.params == sum(x.numel() for x in torch.nn.LSTM(3, 5, proj_size=2).parameters())
    assert (projected.output, projected.macs) == ((7, 2), 7 * (4 * 5 * (3 + 2) + 5 * 2))


def test_the_oracles_compute_what_pytorch_computes():
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    how = {"padding": (1, 2), "groups": 2, "dilation": (1, 2)}
    plain = Conv2d((7, 6, 4), 6, (3, 2), (2, 1), (1, 1, 2, 2), (1, 2), groups=2)
    up = ConvTranspose2d((7, 6, 4), 6, (3, 2), (2, 3), (1, 1, 2, 2), (1, 2), groups=2, output_padding=(1, 2))
    functions = {plain: torch.nn.functional.conv2d, up: torch.nn.functional.conv_transpose2d}
    for record, function in functions.items():
        x, w = _arrays(record)
        x, w = torch.tensor(x.transpose(2, 0, 1)[None]), torch.tensor(w.transpose(3, 2, 0, 1))
        more = {"output_padding": (1, 2)} if record is up else {}
        peer = function(x, w, stride=record.stride, **how, **more)
        np.testing.assert_allclose(_convolved(record)[0], peer.numpy()[0].transpose(1, 2, 0), rtol=1e-12)


PRODUCTS = [((3, 4), (4, 5)), ((2, 1, 4, 8), (3, 8, 5)), ((1, 2, 3), (4, 3, 2)), ((5, 2, 3), (3, 2))]


@pytest.mark.parametrize(("left", "right"), PRODUCTS)
def test_a_matrix_product_counts_what_is_multiplied(left, right):
    rng = np.random.default_rng(3)
    y, made = oracles_macs.multiply_matrices(rng.normal(size=left), rng.normal(size=right))
    record = MatMul(left, right)
    assert (record.output, record.macs) == (y.shape, made)
    assert (record.valid_macs, record.params, record.columns, record.operands) == (made, 0, {}, (left, right))
    if len(right) == 2:
        linear = Linear(left, right[-1])
        assert (linear.output, linear.macs) == (y.shape, made)


_up_to = st.integers(1, 17)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 30), _up_to, st.integers(0, 50), _up_to)
def test_taps_are_those_of_the_loop(positions, length, kernel, stride, pad, dilation):
    hits = sum(0 <= o * stride + t * dilation - pad < length for o in range(positions) for t in range(kernel))
    assert valid_taps(positions, length, kernel, stride, pad, dilation) == hits


def test_a_window_of_a_thousand_million_taps_is_counted_at_once():
    side = 10**9 + 1
    record = Conv2d((side, 1, 1), 1, (side, 1), padding=(side // 2, side // 2, 0, 0))
    # Tap t of the window at o falls on o + t - side // 2: a band around the diagonal of a side x side square.
    assert record.valid_macs == side * side - (side // 2) * (side // 2 + 1)
    assert record.macs == side * side


SUMS = [
    ("ij,jk->ik", ((3, 4), (4, 5))),
    ("nchw,oc->nohw", ((2, 3, 2, 2), (4, 3))),
    ("bij,bkj->bik", ((2, 3, 4), (1, 5, 4))),
    ("i,i->", ((4,), (4,))),
]


@pytest.mark.parametrize(("equation", "shapes"), SUMS)
def test_an_einstein_sum_counts_what_is_multiplied(equation, shapes):
    rng = np.random.default_rng(5)
    arrays = [rng.normal(size=shape) for shape in shapes]
    y, made = oracles_macs.sum_letters(equation, *arrays)
    record = Einsum(equation, shapes)
    assert (y.shape, made) == (record.output, record.macs)
    if all(1 not in shape for shape in shapes):  # NumPy's einsum does not broadcast them
        np.testing.assert_allclose(y, np.einsum(equation, *arrays))


# Record, output, MACs, parameters, columns.
BY_HAND = [
    (
        Conv2d((16, 16, 8), 16, (3, 3), padding=(1, 1, 1, 1), bias=True),
        (16, 16, 16),
        294912,
        1168,
        {"bias_adds": 4096},
    ),
    (
        ConvTranspose2d((16, 16, 8), 16, (3, 3), (2, 2), groups=4, bias=True),
        (33, 33, 16),
        73728,
        304,
        {"bias_adds": 17424},
    ),
    (Linear((2, 5, 24), 16), (2, 5, 16), 3840, 400, {"bias_adds": 160}),
    (Einsum("ij,ij->ij", ((3, 4), (3, 4))), (3, 4), 0, 0, {"mul_elems": 12}),
    (Einsum("ij->ji", ((3, 4),)), (4, 3), 0, 0, {}),
    (ops.BatchNorm((16, 16, 8)), (16, 16, 8), 0, 16, {"norm_elems": 2048}),
    (ops.BatchNorm((16, 16, 8), affine=False), (16, 16, 8), 0, 0, {"norm_elems": 2048}),
    (ops.Activation((4, 4, 2), "hswish"), (4, 4, 2), 0, 0, {"act_elems:hswish": 32}),
    (MaxPool((5, 5, 2), (2, 2), (2, 2)), (2, 2, 2), 0, 0, {"pool_in": 50, "pool_out": 8}),
    (AvgPool((5, 5, 2), (3, 3), (1, 1), (1, 1, 1, 1)), (5, 5, 2), 0, 0, {"pool_in": 50, "pool_out": 50}),
    (ops.GlobalAvgPool((4, 3, 7)), (7,), 0, 0, {"mean_out": 7}),
    (Add(((4, 4, 2), (4, 4, 2))), (4, 4, 2), 0, 0, {"add_elems": 32}),
    (Add(((4, 4, 2),)), (4, 4, 2), 0, 0, {"add_elems": 32}),
    (Add(((2, 1, 4), (3, 1))), (2, 3, 4), 0, 0, {"add_elems": 24}),
    (Multiply(((4, 4, 2), (2,))), (4, 4, 2), 0, 0, {"mul_elems": 32}),
    (ops.Pointwise(((4,), (4,)), "sub"), (4,), 0, 0, {"pointwise:sub": 4}),
    (ops.Flatten((4, 3, 2)), (24,), 0, 0, {}),
    (ops.Slice((5, 11), 0, 10), (5, 10), 0, 0, {}),
    (ops.LayerNorm((5, 24)), (5, 24), 0, 48, {"norm_elems": 120}),
    (ops.LayerNorm((5, 4, 6), axes=2, bias=False), (5, 4, 6), 0, 24, {"norm_elems": 120}),
    (ops.GroupNorm((4, 4, 8), 2), (4, 4, 8), 0, 16, {"norm_elems": 128}),
    (ops.InstanceNorm((4, 4, 8)), (4, 4, 8), 0, 0, {"norm_elems": 128}),
    (ops.Softmax((5, 24), 24), (5, 24), 0, 0, {"act_elems:softmax": 120}),
    (ops.AdaptiveAvgPool((7, 5, 2), (1, 1)), (1, 1, 2), 0, 0, {"mean_out": 2}),
    (ops.AdaptiveAvgPool((7, 5, 2), (3, 2)), (3, 2, 2), 0, 0, {"pool_in": 70, "pool_out": 12}),
    (ops.AdaptiveMaxPool((7, 5, 2), (1, 1)), (1, 1, 2), 0, 0, {"pool_in": 70, "pool_out": 2}),
    (ops.Reduce((2, 3, 4), (2, 4), "mean"), (2, 4), 0, 0, {"mean_out": 8}),
    (ops.Reduce((2, 3, 4), (1,), "sum"), (1,), 0, 0, {"reduce_in:sum": 24}),
    (ops.Resize((4, 4, 2), (8, 6), "bilinear"), (8, 6, 2), 0, 0, {"resize_out:bilinear": 96}),
    (ops.Move(((2, 3), (2, 5)), (2, 8)), (2, 8), 0, 0, {}),
    (ops.Source((3, 4)), (3, 4), 0, 0, {}),
    (ops.Source((3, 4), trained=12), (3, 4), 0, 12, {}),
]


@pytest.mark.parametrize(("record", "output", "macs", "params", "columns"), BY_HAND)
def test_counts_by_hand(record, output, macs, params, columns):
    assert (record.output, record.macs, record.params, record.columns) == (output, macs, params, columns)
    assert macs or record.valid_macs == 0


def test_counts_beyond_machine_integers_are_exact():
    side, channels = 2**20 + 1, 2**16 + 1
    record = Conv2d((side, side, channels), channels, (3, 3), padding=(1, 1, 1, 1))
    assert record.macs == 9 * side**2 * channels**2 > 2**63
    assert record.valid_macs == (3 * side - 2) ** 2 * channels**2
    assert Linear((2**16, 2**8), 2**10).macs == 2**34 > 2**31
    assert MatMul((2**40, 2**30), (2**30, 3)).macs == 3 * 2**70
    assert type(record.macs) is type(record.valid_macs) is type(record.params) is int


POOLS = [(3, 2, 0, 1, 5), (3, 2, 1, 1, 6), (2, 2, 0, 1, 7), (2, 3, 0, 2, 11), (1, 3, 0, 1, 5), (2, 4, 1, 1, 5)]
POOLS += [(3, 2, 0, 1, 3), (3, 2, 0, 1, 4)]


@pytest.mark.parametrize(("size", "stride", "pad", "dilation", "side"), POOLS)
@pytest.mark.parametrize("ceil", [False, True])
def test_pools_are_as_long_as_pytorchs(size, stride, pad, dilation, side, ceil):
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    peer = torch.nn.MaxPool2d(size, stride, pad, dilation, ceil_mode=ceil)(torch.zeros(1, 1, side, side))
    record = MaxPool((side, side, 1), (size,) * 2, (stride,) * 2, (pad,) * 4, (dilation,) * 2, ceil)
    assert record.output == (*peer.shape[2:], 1)


# What breaks a rule of a field, or of fields together.
USUAL = {"input": (8, 8, 3), "out_channels": 4, "kernel": (3, 3)}
# fmt: off
FIELDS = [
    ("input", (8, 8)), ("input", (8, 0, 3)), ("out_channels", 0), ("out_channels", np.int64(4)),
    ("out_channels", True), ("kernel", 3), ("stride", (0, 1)), ("padding", (1, 1, 1, -1)), ("dilation", (1, 0)),
    ("groups", 0),
]
# fmt: on
REFUSED = {
    **{f"{field} {value}": partial(Conv2d, **USUAL | {field: value}) for field, value in FIELDS},
    "no axis": lambda: ops.Flatten(()),
    "groups of inputs": lambda: Conv2d((8, 8, 6), 4, (3, 3), groups=3),
    "window of a convolution": lambda: Conv2d((8, 4, 3), 4, (3, 3), padding=(0, 0, 1, 0), dilation=(1, 3)),
    "window that hangs over by a stride": lambda: AvgPool((1, 1, 1), (3, 3), (2, 2), ceil=True),
    "window 0": lambda: AvgPool((2, 4, 1), (0, 3), (1, 1)),
    "output padding": lambda: ConvTranspose2d((4, 4, 2), 2, (3, 3), (2, 2), output_padding=(2, 0)),
    "all cropped": lambda: ConvTranspose2d((1, 1, 2), 2, (1, 1), padding=(1, 0, 0, 0)),
    "negative features": lambda: Linear((4,), -1),
    "a vector": lambda: MatMul((4,), (4, 2)),
    "inner lengths": lambda: MatMul((2, 3), (4, 2)),
    "leading axes": lambda: MatMul((2, 2, 3), (4, 3, 2)),
    "no arrow": lambda: Einsum("ij,jk", ((2, 3), (3, 4))),
    "an unknown letter": lambda: Einsum("ij->k", ((2, 3),)),
    "three arrays": lambda: Einsum("i,i,i->i", ((2,), (2,), (2,))),
    "an array too few": lambda: Einsum("ij,jk->ik", ((2, 3),)),
    "lengths of a letter": lambda: Einsum("ij,jk->ik", ((2, 3), (4, 4))),
    "axes of a norm": lambda: ops.LayerNorm((4,), axes=2),
    "groups of a norm": lambda: ops.GroupNorm((4, 6), 4),
    "features of softmax": lambda: ops.Softmax((4,), 3),
    "a capital": lambda: ops.Activation((3,), "ReLU"),
    "nothing to add": lambda: Add(()),
    "no tuple of shapes": lambda: Add([(2,)]),
    "shapes that do not broadcast": lambda: Multiply(((2, 3), (4,))),
    "more than there was": lambda: ops.Reduce((4,), (3,), "mean"),
    "before the first": lambda: ops.Slice((11,), -1, 10),
    "behind the last": lambda: ops.Slice((11,), 3, 12),
    "negative weights": lambda: ops.Source((3,), trained=-1),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_breaks_a_rule_is_refused(make):
    with pytest.raises(CountError, match=r": .*must .*, got "):
        make()
