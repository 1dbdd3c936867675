"""Every record against an oracle that multiplies one by one, integers worked out by hand, and its rules."""

import numpy as np
import oracles_macs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.macs.ops import (
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    CountError,
    Flatten,
    GlobalAvgPool,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Slice,
)
from nachos_min.macs.windows import valid_taps

CONVOLUTIONS = {
    "1x1": Conv2d((5, 4, 3), 2, (1, 1)),
    "3x3 padded": Conv2d((5, 4, 3), 2, (3, 3), padding=(1, 1, 1, 1)),
    "depthwise": Conv2d((6, 6, 4), 4, (3, 3), padding=(1, 1, 1, 1), groups=4),
    "depthwise, multiplier 2": Conv2d((6, 5, 3), 6, (3, 3), (2, 2), (1, 1, 1, 1), groups=3),
    "groups neither 1 nor C": Conv2d((6, 6, 6), 4, (3, 3), padding=(1, 1, 1, 1), groups=2),
    "even kernel, same": Conv2d((17, 15, 1), 2, (4, 4), padding=(1, 2, 1, 2)),
    "all asymmetric, 17x15": Conv2d((17, 15, 2), 4, (3, 5), (2, 3), (1, 0, 2, 3), (1, 2), groups=2),
    "kernel larger than the map": Conv2d((2, 3, 2), 3, (7, 7), padding=(3, 3, 3, 3)),
    "7x7 on one pixel": Conv2d((1, 1, 3), 3, (7, 7), padding=(3, 3, 3, 3), groups=3),
    "1x1 on one pixel": Conv2d((1, 1, 4), 5, (1, 1), bias=True),
    "padding wider than the kernel": Conv2d((2, 2, 1), 1, (2, 2), (3, 3), (4, 5, 6, 4)),
    "stride skips pixels": Conv2d((9, 9, 1), 1, (1, 1), (4, 4)),
}

TRANSPOSED = {
    "dense": ConvTranspose2d((4, 5, 3), 2, (3, 3)),
    "stride 2, output padding": ConvTranspose2d((4, 4, 2), 3, (3, 3), (2, 2), (1, 1, 1, 1), output_padding=(1, 1)),
    "grouped": ConvTranspose2d((3, 4, 4), 6, (3, 2), (2, 1), groups=2),
    "depthwise": ConvTranspose2d((3, 3, 4), 4, (2, 2), (2, 2), groups=4, bias=True),
    "all asymmetric": ConvTranspose2d((5, 4, 2), 2, (3, 4), (2, 3), (1, 0, 2, 3), (1, 2), output_padding=(1, 2)),
    "one pixel": ConvTranspose2d((1, 1, 2), 2, (3, 3), padding=(1, 1, 1, 1)),
}


def _arrays(record, weight_inner, weight_outer):
    rng = np.random.default_rng(7)
    x = rng.normal(size=record.input)
    return x, rng.normal(size=(*record.kernel, weight_inner // record.groups, weight_outer))


def _check_convolution(record: Conv2d) -> None:
    x, w = _arrays(record, record.input[2], record.out_channels)
    y, made, useful = oracles_macs.convolve(x, w, record.stride, record.padding, record.dilation, record.groups)
    assert (y.shape, made, useful) == (record.output, record.macs, record.valid_macs)
    assert record.params == w.size + (record.out_channels if record.bias else 0)


def _check_transposed(record: ConvTranspose2d) -> None:
    x, w = _arrays(record, record.out_channels, record.input[2])
    y, made, useful = oracles_macs.convolve_transposed(
        x, w, record.stride, record.padding, record.dilation, record.groups, record.output_padding
    )
    assert (y.shape, made, useful) == (record.output, record.macs, record.valid_macs)
    assert record.params == w.size + (record.out_channels if record.bias else 0)


@pytest.mark.parametrize("record", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_counts_what_is_multiplied(record):
    _check_convolution(record)


@pytest.mark.parametrize("record", TRANSPOSED.values(), ids=TRANSPOSED)
def test_transposed_convolution_counts_what_is_multiplied(record):
    _check_transposed(record)


_window = st.tuples(st.integers(1, 3), st.integers(1, 3))
_padding = st.tuples(*[st.integers(0, 3)] * 4)
_settings = settings(max_examples=40, deadline=None, derandomize=True)


@_settings
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    kernel=_window,
    stride=_window,
    padding=_padding,
    dilation=_window,
    groups=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_any_convolution(height, width, kernel, stride, padding, dilation, groups, channels):
    arguments = (channels[1] * groups, kernel, stride, padding, dilation, groups)
    shape = (height, width, channels[0] * groups)
    spans = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    pads = [padding[0] + padding[1], padding[2] + padding[3]]
    if all(spans[axis] <= shape[axis] + pads[axis] for axis in (0, 1)):
        _check_convolution(Conv2d(shape, *arguments))
    else:
        with pytest.raises(CountError, match="must fit the padded map"):
            Conv2d(shape, *arguments)
    if all((shape[axis] - 1) * stride[axis] + spans[axis] > pads[axis] for axis in (0, 1)):
        _check_transposed(ConvTranspose2d(shape, *arguments))
    else:
        with pytest.raises(CountError, match="must leave some output"):
            ConvTranspose2d(shape, *arguments)


def test_the_oracles_compute_what_pytorch_computes():
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    record = Conv2d((7, 6, 4), 6, (3, 2), (2, 1), (1, 1, 2, 2), (1, 2), groups=2)
    x, w = _arrays(record, 4, 6)
    y, _, _ = oracles_macs.convolve(x, w, record.stride, record.padding, record.dilation, 2)
    peer = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(2, 0, 1)[None]),
        torch.tensor(w.transpose(3, 2, 0, 1)),
        stride=record.stride,
        padding=(1, 2),
        dilation=record.dilation,
        groups=2,
    )
    np.testing.assert_allclose(y, peer.numpy()[0].transpose(1, 2, 0), rtol=1e-12)
    x, w = _arrays(record, 6, 4)
    y, _, _ = oracles_macs.convolve_transposed(x, w, (2, 3), (1, 1, 2, 2), (1, 2), 2, (1, 2))
    peer = torch.nn.functional.conv_transpose2d(
        torch.tensor(x.transpose(2, 0, 1)[None]),
        torch.tensor(w.transpose(3, 2, 0, 1)),
        stride=(2, 3),
        padding=(1, 2),
        output_padding=(1, 2),
        groups=2,
        dilation=(1, 2),
    )
    np.testing.assert_allclose(y, peer.numpy()[0].transpose(1, 2, 0), rtol=1e-12)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 4), (4, 5)),
        ((1, 24), (24, 1)),
        ((2, 1, 4, 8), (3, 8, 5)),
        ((1, 2, 3), (4, 3, 2)),
        ((5, 2, 3), (3, 2)),
    ],
)
def test_matrix_product_counts_what_is_multiplied(left, right):
    rng = np.random.default_rng(3)
    y, made = oracles_macs.multiply_matrices(rng.normal(size=left), rng.normal(size=right))
    record = MatMul(left, right)
    assert (y.shape, made) == (record.output, record.macs)
    assert record.valid_macs == record.macs
    assert (record.params, record.columns, record.operands) == (0, {}, (left, right))


@pytest.mark.parametrize(
    ("record", "output", "macs", "params", "columns"),
    [
        (Conv2d((16, 16, 8), 16, (3, 3), padding=(1, 1, 1, 1)), (16, 16, 16), 294912, 1152, {}),
        (
            Conv2d((16, 16, 8), 16, (3, 3), padding=(1, 1, 1, 1), bias=True),
            (16, 16, 16),
            294912,
            1168,
            {"bias_adds": 4096},
        ),
        (Conv2d((16, 16, 8), 16, (3, 3), padding=(1, 1, 1, 1), groups=4), (16, 16, 16), 73728, 288, {}),
        (Conv2d((17, 15, 8), 16, (3, 5), (2, 3), (1, 1, 0, 0), (1, 2)), (9, 3, 16), 51840, 1920, {}),
        (Conv2d((17, 15, 8), 16, (4, 4), padding=(1, 2, 1, 2)), (17, 15, 16), 522240, 2048, {}),
        (
            ConvTranspose2d((16, 16, 8), 16, (3, 3), (2, 2), (1, 1, 1, 1), output_padding=(1, 1)),
            (32, 32, 16),
            294912,
            1152,
            {},
        ),
        (
            ConvTranspose2d((16, 16, 8), 16, (3, 3), (2, 2), groups=4, bias=True),
            (33, 33, 16),
            73728,
            304,
            {"bias_adds": 17424},
        ),
        (Linear((24,), 16), (16,), 384, 400, {"bias_adds": 16}),
        (Linear((24,), 16, bias=False), (16,), 384, 384, {}),
        (Linear((5, 24), 16), (5, 16), 1920, 400, {"bias_adds": 80}),
        (Linear((2, 5, 24), 16), (2, 5, 16), 3840, 400, {"bias_adds": 160}),
        (BatchNorm((16, 16, 8)), (16, 16, 8), 0, 16, {"norm_elems": 2048}),
        (BatchNorm((16, 16, 8), affine=False), (16, 16, 8), 0, 0, {"norm_elems": 2048}),
        (Activation((4, 4, 2), "hswish"), (4, 4, 2), 0, 0, {"act_elems:hswish": 32}),
        (MaxPool((5, 5, 2), (2, 2), (2, 2)), (2, 2, 2), 0, 0, {"pool_in": 50, "pool_out": 8}),
        (AvgPool((5, 5, 2), (3, 3), (1, 1), (1, 1, 1, 1)), (5, 5, 2), 0, 0, {"pool_in": 50, "pool_out": 50}),
        (GlobalAvgPool((4, 3, 7)), (7,), 0, 0, {"mean_out": 7}),
        (Add(((4, 4, 2), (4, 4, 2))), (4, 4, 2), 0, 0, {"add_elems": 32}),
        (Multiply(((4, 4, 2), (2,))), (4, 4, 2), 0, 0, {"mul_elems": 32}),
        (Flatten((4, 3, 2)), (24,), 0, 0, {}),
        (Slice((5, 11), 0, 10), (5, 10), 0, 0, {}),
    ],
)
def test_hand_computed(record, output, macs, params, columns):
    assert (record.output, record.macs, record.params, record.columns) == (output, macs, params, columns)


def test_seven_by_seven_on_one_pixel_uses_one_tap_of_forty_nine():
    record = Conv2d((1, 1, 8), 8, (7, 7), padding=(3, 3, 3, 3), groups=8)
    assert (record.macs, record.valid_macs) == (8 * 49, 8)


def test_counts_beyond_machine_integers_are_exact():
    side, channels = 2**20 + 1, 2**16 + 1
    record = Conv2d((side, side, channels), channels, (3, 3), padding=(1, 1, 1, 1))
    assert record.macs == 9 * side**2 * channels**2 > 2**63
    assert record.valid_macs == (3 * side - 2) ** 2 * channels**2
    assert Linear((2**16, 2**8), 2**10).macs == 2**34 > 2**31
    assert MatMul((2**40, 2**30), (2**30, 3)).macs == 3 * 2**70
    assert type(record.macs) is type(record.valid_macs) is type(record.params) is int


def test_taps_on_one_axis_are_found_in_steps_of_the_kernel_not_of_the_axis():
    assert valid_taps(10**18, 10**18, kernel=3, stride=1, pad_before=1, dilation=1) == 3 * 10**18 - 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d((8, 8), 4, (3, 3)), "Conv2d: input must be (H, W, C), got (8, 8)"),
        (
            lambda: Conv2d((8, 0, 3), 4, (3, 3)),
            "Conv2d: input must be a tuple of Python integers >= 1, got (8, 0, 3)",
        ),
        (
            lambda: Conv2d([8, 8, 3], 4, (3, 3)),
            "Conv2d: input must be a tuple of Python integers >= 1, got [8, 8, 3]",
        ),
        (lambda: Flatten(()), "Flatten: input must be a tuple of Python integers >= 1, got ()"),
        (lambda: Conv2d((8, 8, 3), 0, (3, 3)), "Conv2d: out_channels must be a Python integer >= 1, got 0"),
        (
            lambda: Conv2d((8, 8, 3), np.int64(4), (3, 3)),
            "Conv2d: out_channels must be a Python integer >= 1, got np.int64(4)",
        ),
        (
            lambda: Conv2d((8, 8, 3), True, (3, 3)),
            "Conv2d: out_channels must be a Python integer >= 1, got True",
        ),
        (lambda: Conv2d((8, 8, 3), 4, 3), "Conv2d: kernel must be 2 Python integers >= 1, got 3"),
        (
            lambda: Conv2d((8, 8, 3), 4, (3, 3), (0, 1)),
            "Conv2d: stride must be 2 Python integers >= 1, got (0, 1)",
        ),
        (
            lambda: Conv2d((8, 8, 3), 4, (3, 3), padding=(1, 1)),
            "Conv2d: padding must be 4 Python integers >= 0, got (1, 1)",
        ),
        (
            lambda: Conv2d((8, 8, 3), 4, (3, 3), dilation=(1, 0)),
            "Conv2d: dilation must be 2 Python integers >= 1, got (1, 0)",
        ),
        (
            lambda: Conv2d((8, 8, 3), 4, (3, 3), groups=0),
            "Conv2d: groups must be a Python integer >= 1, got 0",
        ),
        (
            lambda: Conv2d((8, 8, 6), 4, (3, 3), groups=3),
            "Conv2d: groups must divide the 6 input and 4 output channels, got 3",
        ),
        (
            lambda: Conv2d((8, 4, 3), 4, (3, 3), padding=(0, 0, 1, 0), dilation=(1, 3)),
            "Conv2d: the window's width with dilation must fit the padded map's 5, got 7",
        ),
        (
            lambda: MaxPool((2, 4, 3), (3, 3), (1, 1)),
            "MaxPool: the window's height with dilation must fit the padded map's 2, got 3",
        ),
        (lambda: AvgPool((2, 4), (3, 3), (1, 1)), "AvgPool: input must be (H, W, C), got (2, 4)"),
        (
            lambda: AvgPool((2, 4, 1), (0, 3), (1, 1)),
            "AvgPool: size must be 2 Python integers >= 1, got (0, 3)",
        ),
        (
            lambda: ConvTranspose2d((4, 4, 2), 2, (3, 3), (2, 2), output_padding=(2, 0)),
            "ConvTranspose2d: output_padding must be below max(stride, dilation) = (2, 2), got (2, 0)",
        ),
        (
            lambda: ConvTranspose2d((1, 1, 2), 2, (1, 1), padding=(1, 0, 0, 0)),
            "ConvTranspose2d: padding must leave some output, got (1, 0, 0, 0)",
        ),
        (lambda: Linear((4,), -1), "Linear: out_features must be a Python integer >= 1, got -1"),
        (lambda: MatMul((4,), (4, 2)), "MatMul: left must have at least 2 axes, got (4,)"),
        (
            lambda: MatMul((2, 3), (4, 2)),
            "MatMul: inner lengths must be equal, got (2, 3) times (4, 2)",
        ),
        (
            lambda: MatMul((2, 2, 3), (4, 3, 2)),
            "MatMul: leading axes must broadcast, got (2, 2, 3) times (4, 3, 2)",
        ),
        (lambda: Activation((3,), "ReLU"), "Activation: kind must be a name in small letters, got 'ReLU'"),
        (lambda: Slice((11,), -1, 10), "Slice: begin must be a Python integer >= 0, got -1"),
        (lambda: Slice((11,), 3, 3), "Slice: end must be a Python integer >= 4, got 3"),
        (lambda: Slice((11,), 3, 12), "Slice: end must be <= 11, got 12"),
        (lambda: GlobalAvgPool((3,)), "GlobalAvgPool: input must be (H, W, C), got (3,)"),
    ],
)
def test_what_breaks_a_rule_is_named(make, message):
    with pytest.raises(CountError) as caught:
        make()
    assert str(caught.value) == message
