"""What surrounds operators: MACs counted by hand, and arguments that they refuse."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nachos_min.autograd as ag
from nachos_min.autograd import COUNTED_OPERATORS, Normed, Tensor, count_macs


def t(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32), requires_grad=True)


def normed(*shape: int) -> Normed:
    return Normed(t(*shape), t(shape[-1]), t(shape[-1]))


MACS: list[tuple[str, Callable[[], Tensor], int]] = [
    # batch 2, map 8x8 -> 8x8, 16 outputs, 3 inputs, 3x3 taps
    ("conv2d", lambda: ag.conv2d(t(2, 8, 8, 3), t(3, 3, 3, 16), padding=1), 2*8*8*16*3*9),
    # groups 2: each of 8 outputs reads 6/2 inputs; 6x6 without padding -> 4x4
    ("conv2d", lambda: ag.conv2d(t(1, 6, 6, 6), t(3, 3, 3, 8), groups=2), 4*4*8*3*9),
    # 17x15 padded to 20x18; the 3x2 window, dilated by (2, 3), spans 5x4; strides (3, 2):
    # OH = (17+3-5)//3+1 = 6, OW = (15+3-4)//2+1 = 8
    ("conv2d", lambda: ag.conv2d(t(2, 17, 15, 4), t(3, 2, 4, 5), stride=(3, 2), dilation=(2, 3),
                                 padding=(1, 2, 0, 3)), 2*6*8*5*4*6),
    # the bias adds, it does not multiply
    ("conv2d", lambda: ag.conv2d(t(1, 2, 2, 1), t(1, 1, 1, 3), t(3)), 1*2*2*3*1*1),
    # depthwise with multiplier 2 is a convolution in C groups
    ("conv2d", lambda: ag.conv2d(t(1, 4, 4, 3), t(3, 3, 1, 6), padding=1, groups=3), 4*4*(2*3)*1*9),
    # 5x5 on 9x7, stride 2, padding 2 -> 5x4, 10 channels, batch 3
    ("depthwise_conv2d", lambda: ag.depthwise_conv2d(t(3, 9, 7, 10), t(5, 5, 10), stride=2, padding=2),
     3*5*4*10*25),
    # padding taps count: a 7x7 on a 1x1 map uses 1 of 49 taps, 49 are counted, for 2 channels
    ("depthwise_conv2d", lambda: ag.depthwise_conv2d(t(1, 1, 1, 2), t(7, 7, 2), padding=3), 98),
    # 2 maps of 5x5x4 expanded to 12, 3x3 with stride 2 -> 3x3, projected to 6; then 3 maps without expansion
    ("inverted_residual", lambda: ag.inverted_residual(
        t(2, 5, 5, 4), normed(1, 1, 4, 12), normed(3, 3, 12), normed(1, 1, 12, 6), stride=2)[0],
     2*(25*4*12 + 9*12*9 + 9*12*6)),
    ("inverted_residual", lambda: ag.inverted_residual(t(3, 4, 4, 4), None, normed(5, 5, 4), normed(1, 1, 4, 4),
                                                       residual=True)[0], 3*(16*4*25 + 16*4*4)),
    ("linear", lambda: ag.linear(t(2, 5, 6), t(6, 7), t(7)), 2*5*6*7),
    ("matmul", lambda: t(3, 4) @ t(4, 5), 60),
    # batch (7, 1) with (2,) broadcasts to 7*2 products of 3x4 by 4x5
    ("matmul", lambda: t(7, 1, 3, 4) @ t(2, 4, 5), 7*2*60),
    ("matmul", lambda: np.ones((3, 4)) @ t(4, 5), 60),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "run", "macs"), MACS)
def test_macs_counted_by_hand(operator: str, run: Callable[[], Tensor], macs: int) -> None:
    with count_macs() as counter:
        result = run()
    assert counter.by_operator == {operator: macs}
    assert type(counter.total) is int
    with count_macs() as counter:
        result.backward(np.ones(result.shape))
    assert counter.total == 0, "the backward pass is not counted"


def test_a_layer_called_twice_counts_twice_and_operators_add_up() -> None:
    assert {operator for operator, _, _ in MACS} == COUNTED_OPERATORS, "every multiplying operator has a case"
    x, w = t(2, 3), t(3, 3)
    with count_macs() as counter, ag.no_grad():
        ag.linear(ag.linear(x, w), w) @ w
    ag.linear(x, w)  # is outside
    assert (counter.by_operator, counter.total) == ({"linear": 36, "matmul": 18}, 54)
    with count_macs() as counter:
        ag.operators.count("conv2d", 2**62 + 1)
        ag.operators.count("conv2d", 2**62 + 1)
    assert counter.total == 2**63 + 2  # exact beyond 64 bits


def test_a_counter_counts_inside_an_inner_one_in_its_own_thread_and_until_it_ends() -> None:
    def run() -> None:
        ag.linear(t(1, 2), t(2, 2))

    with count_macs() as outer:
        run()
        with count_macs() as inner:
            run()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()
        with pytest.raises(KeyError), count_macs() as failed:
            raise KeyError("x")
        run()
    assert (outer.total, inner.total, failed.total) == (12, 4, 0)


# Arguments. X, W and DW fit; G is one number per channel, D is float64.
X, W, DW, G, D = t(2, 5, 5, 3), t(3, 3, 3, 8), t(3, 3, 3), t(3), Tensor(np.ones(3))
STATS = np.ones(3)
SMALL, FILTER, PROJECT = t(1, 4, 4, 3), normed(3, 3, 3), normed(1, 1, 3, 3)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def given(*arguments: Any, **settings: Any) -> Arguments:
    return arguments, settings


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


VALUE_ERRORS: dict[str, list[Arguments]] = {
    "add": [given(t(2, 3), t(2))],
    "sum": [given(t(2, 3), 2)],
    "mean": [given(t(0, 3))],
    "clip": [given(X, 2, 1)],
    "reshape": [given(t(2, 3), (4, 2))],
    "transpose": [given(t(2, 3), (0, 5)), given(t(2, 3), (0, 0))],
    "concatenate": [given([]), given([t(2, 3), t(2, 2)])],
    "stack": [given([]), given([t(2), t(3)])],
    "matmul": [given(t(2, 3), t(2, 3)), given(t(3), t(3, 2))],
    "linear": [given(t(2, 3), t(4, 5)), given(t(), t(4, 5)), given(t(2, 3), t(3)), given(t(2, 3), t(3, 4), t(3))],
    "cross_entropy": [given(t(4), np.zeros(4, int)), given(t(2, 3), np.zeros(3, int)), given(t(2, 3), np.zeros(2)),
                      given(t(2, 3), np.array([0, 3])), given(t(2, 3), np.array([-1, 0]))],
    "conv2d": [given(t(5, 5, 3), W), given(X, DW), given(X, t(3, 3, 4, 8)), given(X, W, t(7)),
               given(X, t(3, 3, 1, 8), groups=3), given(t(1, 5, 5, 4), t(3, 3, 3, 8), groups=2),
               given(X, W, dilation=4, padding=1),
               *(given(X, W, **wrong) for wrong in [
                   *each("groups", 0, 2), *each("stride", 0, (1, -1), (1, 1, 1), 1.5), *each("dilation", 0),
                   *each("padding", -1, (1, 1, 1), "same"), *each("activation", "hswish")])],
    "depthwise_conv2d": [given(t(5, 5, 3), DW), given(X, W), given(X, t(3, 3, 4)), given(X, t(7, 2, 3)),
                         given(X, DW, stride=0), given(X, DW, padding=-1), given(X, DW, dilation=(1, 0))],
    "max_pool": [given(t(5, 5, 3), 2), given(X, 0), given(X, 2, stride=0), given(X, 2, padding=2)],
    "avg_pool": [given(X, (3, 1), padding=(2, 1)), given(X, 6)],
    "global_avg_pool": [given(t(2, 3)), given(t(2, 0, 3, 4))],
    "batch_norm": [given(t(3), G, G), given(t(0, 3), G, G), given(X, t(4), G), given(X, G, t(1, 3)),
                   given(X, G, G, eps=0.0), given(X, G, G, activation="gelu")],
    "batch_norm_infer": [given(X, G, G, np.ones(2), STATS), given(X, G, G, STATS, np.ones(4))],
    "inverted_residual": [
        *(given(x, None, FILTER, PROJECT) for x in (t(3, 4, 3), t(0, 4, 4, 3))),
        *(given(SMALL, None, wrong, PROJECT) for wrong in (normed(3, 3, 1, 3), normed(3, 2, 3), normed(3, 3, 4))),
        *(given(SMALL, None, FILTER, wrong) for wrong in (normed(1, 1, 4, 3), Normed(t(1, 1, 3, 2), G, t(2)))),
        given(SMALL, normed(1, 1, 3, 4), FILTER, PROJECT),
        *(given(SMALL, None, FILTER, PROJECT, **wrong) for wrong in (
            {"stride": 0}, {"eps": 0.0}, {"activation": "sigmoid"}, {"stride": 2, "residual": True}))],
}  # fmt: skip
NUMPYS = {"add", "sum", "reshape", "transpose", "concatenate", "stack"}  # here NumPy's own refusals are passed on

TYPE_ERRORS: dict[str, Arguments] = {
    "add": given(D, G), "multiply": given("a", X), "subtract": given(X, None), "matmul": given(G, D),
    "power": given(X, X), "stack": given([G, D]), "concatenate": given([G, np.ones(3)]),
    "linear": given(t(2, 3), t(3, 3), D), "batch_norm": given(X, D, G),
}  # fmt: skip


REFUSED = [(ValueError, name, wrong) for name, several in VALUE_ERRORS.items() for wrong in several]
REFUSED += [(TypeError, name, wrong) for name, wrong in TYPE_ERRORS.items()]


@pytest.mark.parametrize(("error", "name", "wrong"), REFUSED)
def test_arguments_that_break_a_rule_are_refused(error: type[Exception], name: str, wrong: Arguments) -> None:
    with pytest.raises(error, match="." if error is ValueError and name in NUMPYS else f"^{name}: "):
        ag.OPERATORS[name](*wrong[0], **wrong[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ag.conv2d(X, W, stride=(1, -1)), "conv2d: stride must be 1 or 2 integers >= 1, got (1, -1)"),
        (lambda: ag.conv2d(X, W, dilation=4, padding=1),
         "conv2d: a window of 9x9 does not fit a map of 5x5 padded to 7x7"),
        (lambda: ag.stack([]), "stack: needs at least one tensor, got none"),
        (lambda: D + G, "add: dtypes must be equal, got float64 and float32"),
        (lambda: ag.add(1.0, 2.0), "add: one operand must be a Tensor, got float and float"),
        (lambda: t(2, 3)[2], "index 2 is out of bounds for axis 0 with size 2"),
    ],
)  # fmt: skip
def test_a_message_names_operator_rule_and_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("name", sorted(ag.OPERATORS))
def test_every_operator_refuses_what_is_no_tensor(name: str) -> None:
    wrong: dict[str, tuple[object, ...]] = {
        **dict.fromkeys(("add", "subtract", "multiply", "divide", "matmul"), ([1.0], [2.0])),
        **dict.fromkeys(("concatenate", "stack"), ([[1.0]],)),
        **dict.fromkeys(("power", "getitem", "reshape", "max_pool", "avg_pool"), ([1.0], 1)),
        **dict.fromkeys(("linear", "conv2d", "depthwise_conv2d"), (X, [1.0])),
        "cross_entropy": ([1.0], np.zeros(1, int)),
        "batch_norm": ([1.0], G, G),
        "inverted_residual": ([1.0], None, Normed(G, G, G), Normed(G, G, G)),
        "batch_norm_infer": ([1.0], G, G, STATS, STATS),
    }
    with pytest.raises(TypeError, match=rf"^{name}: (expected a|one operand must be a) Tensor, got list"):
        ag.OPERATORS[name](*wrong.get(name, ([1.0],)))
