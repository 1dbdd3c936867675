"""MACs that operators count while they run: integers worked out by hand, batch size included."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

import nachos_min.autograd as ag
from nachos_min.autograd import COUNTED_OPERATORS, Tensor, count_macs


def ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32), requires_grad=True)


CASES = [
    # batch 2, map 8x8 -> 8x8, 16 outputs, 3 inputs, 3x3 taps: 2*8*8*16*3*9
    ("conv2d", lambda: ag.conv2d(ones(2, 8, 8, 3), ones(3, 3, 3, 16), padding=1), 55_296),
    # 1x1, as a matrix product: 3*5*5*7*4
    ("conv2d", lambda: ag.conv2d(ones(3, 5, 5, 4), ones(1, 1, 4, 7)), 2_100),
    # groups 2: each of 8 outputs reads 6/2 inputs; 6x6 without padding -> 4x4: 4*4*8*3*9
    ("conv2d", lambda: ag.conv2d(ones(1, 6, 6, 6), ones(3, 3, 3, 8), groups=2), 3_456),
    # 17x15 padded to 20x18; the 3x2 window, dilated by (2, 3), spans 5x4; strides (3, 2):
    # OH = (17+3-5)//3+1 = 6, OW = (15+3-4)//2+1 = 8; 2*6*8*5*4*6
    (
        "conv2d",
        lambda: ag.conv2d(
            ones(2, 17, 15, 4), ones(3, 2, 4, 5), stride=(3, 2), dilation=(2, 3), padding=(1, 2, 0, 3)
        ),
        11_520,
    ),
    # the bias adds, it does not multiply: 1*2*2*3*1*1
    ("conv2d", lambda: ag.conv2d(ones(1, 2, 2, 1), ones(1, 1, 1, 3), ones(3)), 12),
    # depthwise with multiplier 2 is a convolution in C groups: 4*4*(2*3)*1*9
    ("conv2d", lambda: ag.conv2d(ones(1, 4, 4, 3), ones(3, 3, 1, 6), padding=1, groups=3), 864),
    # 5x5 on 9x7, stride 2, padding 2 -> 5x4, 10 channels, batch 3: 3*5*4*10*25
    (
        "depthwise_conv2d",
        lambda: ag.depthwise_conv2d(ones(3, 9, 7, 10), ones(5, 5, 10), stride=2, padding=2),
        15_000,
    ),
    # padding taps count: a 7x7 on a 1x1 map uses 1 of 49 taps, 49 are counted
    ("depthwise_conv2d", lambda: ag.depthwise_conv2d(ones(1, 1, 1, 2), ones(7, 7, 2), padding=3), 98),
    # 2 maps of 5x5x4 expanded to 12, 3x3 with stride 2 -> 3x3, projected to 6: 2*(25*4*12 + 9*12*9 + 9*12*6)
    (
        "inverted_residual",
        lambda: ag.inverted_residual(
            ones(2, 5, 5, 4),
            ag.Normed(ones(1, 1, 4, 12), ones(12), ones(12)),
            ag.Normed(ones(3, 3, 12), ones(12), ones(12)),
            ag.Normed(ones(1, 1, 12, 6), ones(6), ones(6)),
            stride=2,
        )[0],
        5_640,
    ),
    # without expansion: 3*(16*4*25 + 16*4*4)
    (
        "inverted_residual",
        lambda: ag.inverted_residual(
            ones(3, 4, 4, 4),
            None,
            ag.Normed(ones(5, 5, 4), ones(4), ones(4)),
            ag.Normed(ones(1, 1, 4, 4), ones(4), ones(4)),
            residual=True,
        )[0],
        5_568,
    ),
    ("linear", lambda: ag.linear(ones(4, 10), ones(10, 3), ones(3)), 120),
    # 2*5 rows of 6 into 7
    ("linear", lambda: ag.linear(ones(2, 5, 6), ones(6, 7)), 420),
    ("matmul", lambda: ones(3, 4) @ ones(4, 5), 60),
    # batch (7, 1) with (2,) broadcasts to 7*2 products of 3x4 by 4x5
    ("matmul", lambda: ones(7, 1, 3, 4) @ ones(2, 4, 5), 840),
    ("matmul", lambda: np.ones((3, 4)) @ ones(4, 5), 60),
]


@pytest.mark.parametrize(("operator", "run", "macs"), CASES)
def test_hand_counted(operator: str, run: Callable[[], Tensor], macs: int) -> None:
    with count_macs() as counter:
        result = run()
    assert counter.by_operator == {operator: macs}
    assert type(counter.total) is int
    with count_macs() as counter:
        result.backward(np.ones(result.shape))
    assert counter.total == 0, "the backward pass is not counted"


def test_every_multiplying_operator_has_a_case() -> None:
    assert {operator for operator, _, _ in CASES} == COUNTED_OPERATORS


def test_nothing_is_counted_outside() -> None:
    x, w = ones(2, 3), ones(3, 4)
    with count_macs() as counter:
        ag.linear(x, w)
    ag.linear(x, w)
    assert counter.total == 24


def test_a_layer_called_twice_counts_twice_and_operators_add_up() -> None:
    x, w = ones(2, 3), ones(3, 3)
    with count_macs() as counter, ag.no_grad():
        ag.linear(ag.linear(x, w), w) @ w
    assert counter.by_operator == {"linear": 36, "matmul": 18}
    assert counter.total == 54


def test_an_outer_counter_counts_on_inside_an_inner_one() -> None:
    x, w = ones(1, 2), ones(2, 2)
    with count_macs() as outer:
        ag.linear(x, w)
        with count_macs() as inner:
            ag.linear(x, w)
        ag.linear(x, w)
    assert (outer.total, inner.total) == (12, 4)


def test_counting_stops_after_an_exception() -> None:
    def fail() -> None:
        with count_macs() as counter:
            counters.append(counter)
            raise KeyError("x")

    counters: list[ag.MacCounter] = []
    with pytest.raises(KeyError):
        fail()
    ag.linear(ones(1, 2), ones(2, 2))
    assert counters[0].total == 0


def test_totals_beyond_32_bits_are_exact() -> None:
    with count_macs() as counter:
        for _ in range(3):
            ag.counting.count("conv2d", 2**62 + 1)
    assert counter.total == 3 * 2**62 + 3


def test_a_counter_sees_its_own_thread_only() -> None:
    with count_macs() as counter:
        worker = threading.Thread(target=lambda: ag.linear(ones(1, 2), ones(2, 2)))
        worker.start()
        worker.join()
    assert counter.total == 0
