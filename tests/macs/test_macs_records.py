"""Records that networks from elsewhere need: Einstein sums, norms, resampling, element-wise work, moves."""

import numpy as np
import oracles_macs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.macs.count import count
from nachos_min.macs.ops import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    Add,
    AvgPool,
    Conv2d,
    CountError,
    Einsum,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MaxPool,
    Move,
    Multiply,
    Node,
    Pointwise,
    Reduce,
    Resize,
    Softmax,
    Source,
)
from nachos_min.macs.windows import valid_taps


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    positions=st.integers(0, 40),
    length=st.integers(1, 60),
    kernel=st.integers(1, 30),
    stride=st.integers(1, 17),
    pad=st.integers(0, 50),
    dilation=st.integers(1, 17),
)
def test_taps_are_those_of_the_loop(positions, length, kernel, stride, pad, dilation):
    hits = sum(0 <= o * stride + t * dilation - pad < length for o in range(positions) for t in range(kernel))
    assert valid_taps(positions, length, kernel, stride, pad, dilation) == hits


def test_a_window_of_a_thousand_million_taps_is_counted_at_once():
    side = 10**9 + 1
    record = Conv2d((side, 1, 1), 1, (side, 1), padding=(side // 2, side // 2, 0, 0))
    # Tap t of the window at o falls on o + t - side // 2: a band around the diagonal of a side x side square.
    assert record.valid_macs == side * side - 2 * sum_to(side // 2)
    assert record.macs == side * side


def sum_to(n: int) -> int:
    return n * (n + 1) // 2


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((3, 4), (4, 5))),
        ("nchw,oc->nohw", ((2, 3, 2, 2), (4, 3))),
        ("bij,bkj->bik", ((2, 3, 4), (2, 5, 4))),
        ("bij,bkj->bik", ((2, 3, 4), (1, 5, 4))),
        ("i,i->", ((4,), (4,))),
    ],
)
def test_an_einstein_sum_counts_what_is_multiplied(equation, shapes):
    rng = np.random.default_rng(5)
    arrays = [rng.normal(size=shape) for shape in shapes]
    y, made = oracles_macs.sum_letters(equation, *arrays)
    record = Einsum(equation, shapes)
    assert (y.shape, made) == (record.output, record.macs)
    if all(1 not in shape for shape in shapes):  # NumPy's einsum does not broadcast them
        np.testing.assert_allclose(y, np.einsum(equation, *arrays))


def test_an_einstein_sum_that_accumulates_nothing_is_no_mac():
    product = Einsum("ij,ij->ij", ((3, 4), (3, 4)))
    assert (product.macs, product.columns) == (0, {"mul_elems": 12})
    transposed = Einsum("ij->ji", ((3, 4),))
    assert (transposed.macs, transposed.columns, transposed.output) == (0, {}, (4, 3))


def test_a_linear_layer_multiplies_every_row():
    rows, weights = np.ones((2, 3, 4)), np.ones((4, 5))
    y, made = oracles_macs.multiply_matrices(rows, weights)
    record = Linear((2, 3, 4), 5)
    assert (y.shape, made) == (record.output, record.macs)


@pytest.mark.parametrize(
    ("record", "output", "params", "columns"),
    [
        (LayerNorm((5, 24)), (5, 24), 48, {"norm_elems": 120}),
        (LayerNorm((5, 4, 6), axes=2, bias=False), (5, 4, 6), 24, {"norm_elems": 120}),
        (LayerNorm((24,), affine=False, bias=False), (24,), 0, {"norm_elems": 24}),
        (GroupNorm((4, 4, 8), 2), (4, 4, 8), 16, {"norm_elems": 128}),
        (GroupNorm((4, 4, 8), 8, affine=False), (4, 4, 8), 0, {"norm_elems": 128}),
        (InstanceNorm((4, 4, 8)), (4, 4, 8), 0, {"norm_elems": 128}),
        (InstanceNorm((4, 4, 8), affine=True), (4, 4, 8), 16, {"norm_elems": 128}),
        (Softmax((5, 24), 24), (5, 24), 0, {"act_elems:softmax": 120}),
        (Add(((4, 4, 2),)), (4, 4, 2), 0, {"add_elems": 32}),
        (Add(((2, 1, 4), (3, 1))), (2, 3, 4), 0, {"add_elems": 24}),
        (Multiply(((4, 4, 2), (2,))), (4, 4, 2), 0, {"mul_elems": 32}),
        (Pointwise(((4,), (4,)), "sub"), (4,), 0, {"pointwise:sub": 4}),
        (AdaptiveAvgPool((7, 5, 2), (1, 1)), (1, 1, 2), 0, {"mean_out": 2}),
        (AdaptiveAvgPool((7, 5, 2), (3, 2)), (3, 2, 2), 0, {"pool_in": 70, "pool_out": 12}),
        (AdaptiveMaxPool((7, 5, 2), (1, 1)), (1, 1, 2), 0, {"pool_in": 70, "pool_out": 2}),
        (Reduce((2, 3, 4), (2, 4), "mean"), (2, 4), 0, {"mean_out": 8}),
        (Reduce((2, 3, 4), (1,), "sum"), (1,), 0, {"reduce_in:sum": 24}),
        (Resize((4, 4, 2), (8, 6), "bilinear"), (8, 6, 2), 0, {"resize_out:bilinear": 96}),
        (Move(((2, 3), (2, 5)), (2, 8)), (2, 8), 0, {}),
        (Source((3, 4)), (3, 4), 0, {}),
        (Source((3, 4), trained=12), (3, 4), 12, {}),
    ],
)
def test_hand_computed_records(record, output, params, columns):
    assert (record.output, record.params, record.columns) == (output, params, columns)
    assert record.macs == record.valid_macs == 0


@pytest.mark.parametrize(
    ("settings_of_pool", "side"),
    [
        ({"size": 3, "stride": 2}, 5),
        ({"size": 3, "stride": 2, "padding": 1}, 6),
        ({"size": 2, "stride": 2}, 7),
        ({"size": 2, "stride": 3, "dilation": 2}, 11),
        ({"size": 1, "stride": 3}, 5),
        ({"size": 2, "stride": 4, "padding": 1}, 5),
    ],
)
@pytest.mark.parametrize("ceil", [False, True])
def test_pools_are_as_long_as_pytorchs(settings_of_pool, side, ceil):
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    size, stride = settings_of_pool["size"], settings_of_pool["stride"]
    pad, dilation = settings_of_pool.get("padding", 0), settings_of_pool.get("dilation", 1)
    peer = torch.nn.MaxPool2d(size, stride, pad, dilation, ceil_mode=ceil)(torch.zeros(1, 1, side, side))
    record = MaxPool((side, side, 1), (size,) * 2, (stride,) * 2, (pad,) * 4, (dilation,) * 2, ceil)
    assert record.output == (*peer.shape[2:], 1)


def test_a_pool_that_may_hang_over_begins_inside():
    assert AvgPool((5, 5, 1), (2, 2), (2, 2), ceil=True).output == (3, 3, 1)
    assert AvgPool((5, 5, 1), (2, 2), (2, 2)).output == (2, 2, 1)


def test_a_batch_multiplies_work_and_not_parameters():
    one = (Node("a", Linear((5, 24), 16), (-1,)),)
    many = (Node("a", Linear((5, 24), 16), (-1,), batch=3),)
    assert count(many).macs == 3 * count(one).macs == 3 * 5 * 24 * 16
    assert count(many).params == count(one).params
    assert count(many).columns["bias_adds"] == 3 * 5 * 16


def test_arrays_that_arrive_with_other_axes_must_have_as_many_elements():
    flattened = Node("head", Linear((32,), 10), (0,), batch=2, relaid=True)
    start = Node("stem", Conv2d((4, 4, 3), 2, (1, 1)), (-1,), batch=2, relaid=True)
    assert count((start, flattened)).macs == 2 * (96 + 320)
    broken = Node("head", Linear((31,), 10), (0,), batch=2, relaid=True)
    with pytest.raises(CountError, match=r"node 'head': Linear must read 2 x \(31,\), got 64 elements"):
        count((start, broken))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Einsum("ij,jk", ((2, 3), (3, 4))), "Einsum: equation must be such as 'ij,jk->ik', got 'ij,jk'"),
        (lambda: Einsum("ij->k", ((2, 3),)), "Einsum: equation must be such as 'ij,jk->ik', got 'ij->k'"),
        (
            lambda: Einsum("i,i,i->i", ((2,), (2,), (2,))),
            "Einsum: must have one or two arrays, got 3",
        ),
        (lambda: Einsum("ij,jk->ik", ((2, 3),)), "Einsum: equation 'ij,jk->ik' must fit the shapes, got ((2, 3),)"),
        (lambda: Einsum("ij,jk->ik", ((2, 3), (4, 4))), "Einsum: axis j must have length 4, got 3"),
        (lambda: LayerNorm((4,), axes=2), "LayerNorm: axes must be <= 1, got 2"),
        (lambda: GroupNorm((4, 6), 4), "GroupNorm: groups must divide 6 channels, got 4"),
        (lambda: Softmax((4,), 3), "Softmax: features must divide 4 elements, got 3"),
        (lambda: Add(()), "Add: shapes must be a tuple of at least one, got ()"),
        (lambda: Multiply(((2, 3), (4,))), "Multiply: shapes must broadcast, got ((2, 3), (4,))"),
        (lambda: Pointwise(((2,),), "Sub"), "Pointwise: kind must be a name in small letters, got 'Sub'"),
        (lambda: Reduce((4,), (3,), "mean"), "Reduce: result must divide the 4 elements, got (3,)"),
        (lambda: Reduce((4,), (2,), "Mean"), "Reduce: kind must be a name in small letters, got 'Mean'"),
        (lambda: Resize((4, 4, 1), (2, 2), ""), "Resize: mode must be a name in small letters, got ''"),
    ],
)
def test_what_breaks_a_record_is_named(make, message):
    with pytest.raises(CountError) as caught:
        make()
    assert str(caught.value) == message
