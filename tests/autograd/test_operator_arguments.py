"""Every message with which an operator refuses its arguments."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nachos_min.autograd as ag
from nachos_min.autograd import Tensor


def t(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32))


X, W, DW = t(2, 5, 5, 3), t(3, 3, 3, 8), t(3, 3, 3)
G = t(3)
STATS = np.ones(3)


def block(
    x: Tensor | None = None,
    depthwise: ag.Normed | None = None,
    project: ag.Normed | None = None,
    **options: Any,
) -> object:
    """Run an inverted residual without expansion, on 3 channels unless told otherwise."""
    return ag.inverted_residual(
        t(1, 4, 4, 3) if x is None else x,
        None,
        depthwise or ag.Normed(t(3, 3, 3), G, G),
        project or ag.Normed(t(1, 1, 3, 3), G, G),
        **options,
    )


VALUE_ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: ag.clip(X, 2, 1), "clip: low must be <= high, got 2 and 1"),
    (lambda: t(0, 3).mean(), "mean: needs at least one element, got shape (0, 3)"),
    (lambda: ag.concatenate([]), "concatenate: needs at least one tensor, got none"),
    (lambda: ag.stack([]), "stack: needs at least one tensor, got none"),
    (lambda: t(2, 3) @ t(2, 3), "matmul: needs (..., m, k) and (..., k, n), got (2, 3) and (2, 3)"),
    (lambda: t(3) @ t(3, 2), "matmul: needs (..., m, k) and (..., k, n), got (3,) and (3, 2)"),
    (lambda: ag.linear(t(2, 3), t(4, 5)), "linear: input has shape (2, 3), weight (4, 5) expects (..., 4)"),
    (lambda: ag.linear(t(), t(4, 5)), "linear: input has shape (), weight (4, 5) expects (..., 4)"),
    (lambda: ag.linear(t(2, 3), t(3)), "linear: weight must be (in, out), got shape (3,)"),
    (lambda: ag.linear(t(2, 3), t(3, 4), t(3)), "linear: bias must have shape (4,), got (3,)"),
    (lambda: ag.cross_entropy(t(4), np.zeros(4, int)),
     "cross_entropy: logits must be (N, C), got shape (4,)"),
    (lambda: ag.cross_entropy(t(2, 3), np.zeros(3, int)),
     "cross_entropy: labels must be 2 integers, got int64 of shape (3,)"),
    (lambda: ag.cross_entropy(t(2, 3), np.zeros(2)),
     "cross_entropy: labels must be 2 integers, got float64 of shape (2,)"),
    (lambda: ag.cross_entropy(t(2, 3), np.array([0, 3])), "cross_entropy: labels must be in 0..2, got 3"),
    (lambda: ag.cross_entropy(t(2, 3), np.array([-1, 0])), "cross_entropy: labels must be in 0..2, got -1"),
    (lambda: ag.conv2d(t(5, 5, 3), W), "conv2d: input must be (N, H, W, C), got shape (5, 5, 3)"),
    (lambda: ag.conv2d(X, DW), "conv2d: weight must be (KH, KW, C/groups, K), got shape (3, 3, 3)"),
    (lambda: ag.conv2d(X, t(3, 3, 4, 8)),
     "conv2d: input has 3 channels, weight (3, 3, 4, 8) with groups 1 expects 4"),
    (lambda: ag.conv2d(t(1, 5, 5, 4), t(3, 3, 3, 8), groups=2),
     "conv2d: input has 4 channels, weight (3, 3, 3, 8) with groups 2 expects 6"),
    (lambda: ag.conv2d(X, W, groups=2),
     "conv2d: groups must divide the 3 input and 8 output channels, got 2"),
    (lambda: ag.conv2d(X, t(3, 3, 1, 8), groups=3),
     "conv2d: groups must divide the 3 input and 8 output channels, got 3"),
    (lambda: ag.conv2d(X, W, groups=0), "conv2d: groups must be >= 1, got 0"),
    (lambda: ag.conv2d(X, W, t(7)), "conv2d: bias must have shape (8,), got (7,)"),
    (lambda: ag.conv2d(X, W, stride=0), "conv2d: stride must be >= 1, got 0"),
    (lambda: ag.conv2d(X, W, stride=(1, -1)), "conv2d: stride must be >= 1, got (1, -1)"),
    (lambda: ag.conv2d(X, W, stride=(1, 1, 1)), "conv2d: stride must be 1 or 2 integers, got (1, 1, 1)"),
    (lambda: ag.conv2d(X, W, stride=1.5), "conv2d: stride must be 1 or 2 integers, got 1.5"),
    (lambda: ag.conv2d(X, W, dilation=0), "conv2d: dilation must be >= 1, got 0"),
    (lambda: ag.conv2d(X, W, padding=-1), "conv2d: padding must be >= 0, got -1"),
    (lambda: ag.conv2d(X, W, padding=(1, 1, 1)), "conv2d: padding must be 1, 2 or 4 integers, got (1, 1, 1)"),
    (lambda: ag.conv2d(X, W, padding="same"), "conv2d: padding must be 1, 2 or 4 integers, got 'same'"),
    (lambda: ag.conv2d(X, W, dilation=4, padding=1),
     "conv2d: a window of 9x9 does not fit a map of 5x5 padded to 7x7"),
    (lambda: ag.depthwise_conv2d(t(5, 5, 3), DW),
     "depthwise_conv2d: input must be (N, H, W, C), got shape (5, 5, 3)"),
    (lambda: ag.depthwise_conv2d(X, W),
     "depthwise_conv2d: weight must be (KH, KW, C), got shape (3, 3, 3, 8)"),
    (lambda: ag.depthwise_conv2d(X, t(3, 3, 4)),
     "depthwise_conv2d: input has 3 channels, weight (3, 3, 4) expects 4"),
    (lambda: ag.depthwise_conv2d(X, DW, stride=0), "depthwise_conv2d: stride must be >= 1, got 0"),
    (lambda: ag.depthwise_conv2d(X, DW, padding=-1), "depthwise_conv2d: padding must be >= 0, got -1"),
    (lambda: ag.depthwise_conv2d(X, DW, dilation=(1, 0)),
     "depthwise_conv2d: dilation must be >= 1, got (1, 0)"),
    (lambda: ag.depthwise_conv2d(X, t(7, 2, 3)),
     "depthwise_conv2d: a window of 7x2 does not fit a map of 5x5 padded to 5x5"),
    (lambda: ag.max_pool(t(5, 5, 3), 2), "max_pool: input must be (N, H, W, C), got shape (5, 5, 3)"),
    (lambda: ag.max_pool(X, 0), "max_pool: size must be >= 1, got 0"),
    (lambda: ag.max_pool(X, 2, stride=0), "max_pool: stride must be >= 1, got 0"),
    (lambda: ag.max_pool(X, 2, padding=2), "max_pool: padding must be < size 2, got 2"),
    (lambda: ag.avg_pool(X, (3, 1), padding=(2, 1)), "avg_pool: padding must be < size (3, 1), got (2, 1)"),
    (lambda: ag.avg_pool(X, 6), "avg_pool: a window of 6x6 does not fit a map of 5x5 padded to 5x5"),
    (lambda: ag.global_avg_pool(t(2, 3)), "global_avg_pool: input must be (N, H, W, C), got shape (2, 3)"),
    (lambda: ag.global_avg_pool(t(2, 0, 3, 4)),
     "global_avg_pool: a window of 1x1 does not fit a map of 0x3 padded to 0x3"),
    (lambda: ag.batch_norm(t(3), G, G),
     "batch_norm: input must be (..., C) with at least one row, got shape (3,)"),
    (lambda: ag.batch_norm(t(0, 3), G, G),
     "batch_norm: input must be (..., C) with at least one row, got shape (0, 3)"),
    (lambda: ag.batch_norm(X, t(4), G), "batch_norm: gamma must have shape (3,), got (4,)"),
    (lambda: ag.batch_norm(X, G, t(1, 3)), "batch_norm: beta must have shape (3,), got (1, 3)"),
    (lambda: ag.batch_norm(X, G, G, eps=0.0), "batch_norm: eps must be > 0, got 0.0"),
    (lambda: ag.batch_norm(X, G, G, activation="gelu"),
     "batch_norm: activation must be one of identity, relu, hswish, hsigmoid, sigmoid, got 'gelu'"),
    (lambda: ag.batch_norm_infer(X, G, G, np.ones(2), STATS),
     "batch_norm_infer: mean must have shape (3,), got (2,)"),
    (lambda: ag.batch_norm_infer(X, G, G, STATS, np.ones(4)),
     "batch_norm_infer: var must have shape (3,), got (4,)"),
    (lambda: ag.conv2d(X, W, activation="hswish"), "conv2d: activation must be identity or relu, got 'hswish'"),
    (lambda: block(t(3, 4, 3)), "inverted_residual: input must be (N, H, W, C), got shape (3, 4, 3)"),
    (lambda: block(t(0, 4, 4, 3)), "inverted_residual: input must have at least one row, got shape (0, 4, 4, 3)"),
    (lambda: block(depthwise=ag.Normed(t(3, 3, 1, 3), G, G)),
     "inverted_residual: depthwise weight must be (KH, KW, M), got shape (3, 3, 1, 3)"),
    (lambda: block(depthwise=ag.Normed(t(3, 2, 3), G, G)),
     "inverted_residual: 3 channels need odd sides and a weight (3, 2, 3), got (3, 2, 3)"),
    (lambda: block(project=ag.Normed(t(1, 1, 4, 3), G, G)),
     "inverted_residual: 3 channels need odd sides and a weight (1, 1, 3, 3), got (1, 1, 4, 3)"),
    (lambda: block(project=ag.Normed(t(1, 1, 3, 2), G, t(2))),
     "inverted_residual: gamma must have shape (2,), got (3,)"),
    (lambda: block(stride=0), "inverted_residual: stride must be >= 1 and eps > 0, got 0 and 1e-05"),
    (lambda: block(eps=0.0), "inverted_residual: stride must be >= 1 and eps > 0, got 1 and 0.0"),
    (lambda: block(activation="sigmoid"),
     "inverted_residual: activation must be one of identity, relu, hswish, got 'sigmoid'"),
    (lambda: block(stride=2, residual=True),
     "inverted_residual: a residual needs stride 1 and 3 channels written, got 2 and 3"),
]  # fmt: skip

D = Tensor(np.ones(3))

TYPE_ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: ag.add(1.0, 2.0), "add: one operand must be a Tensor, got float and float"),
    (lambda: X + None, "add: expected a Tensor, number or array, got NoneType"),
    (lambda: "a" * X, "multiply: expected a Tensor, number or array, got str"),
    (lambda: D + G, "add: dtypes must be equal, got float64 and float32"),
    (lambda: t(2, 3) @ Tensor(np.ones((3, 2))), "matmul: dtypes must be equal, got float32 and float64"),
    (lambda: ag.power(X, X), "power: exponent must be a number, got Tensor"),
    (lambda: ag.relu(np.ones(3)), "relu: expected a Tensor, got ndarray"),
    (lambda: ag.stack([G, D]), "stack: dtypes must be equal, got float32 and float64"),
    (lambda: ag.concatenate([G, np.ones(3)]), "concatenate: expected a Tensor, got ndarray"),
    (lambda: ag.linear(t(2, 3), t(3, 3), D), "linear: dtypes must be equal, got float32 and float64"),
    (lambda: ag.conv2d(X.data, W), "conv2d: expected a Tensor, got ndarray"),
    (lambda: ag.batch_norm(X, D, G), "batch_norm: dtypes must be equal, got float32 and float64"),
]


@pytest.mark.parametrize(("call", "message"), VALUE_ERRORS, ids=[message for _, message in VALUE_ERRORS])
def test_value_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS, ids=[message for _, message in TYPE_ERRORS])
def test_type_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
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
        "inverted_residual": ([1.0], None, ag.Normed(G, G, G), ag.Normed(G, G, G)),
        "batch_norm_infer": ([1.0], G, G, STATS, STATS),
    }
    with pytest.raises(TypeError, match=rf"^{name}: (expected a|one operand must be a) Tensor, got list"):
        ag.OPERATORS[name](*wrong.get(name, ([1.0],)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: t(2, 3) + t(2),
        lambda: t(2, 3).sum(2),
        lambda: t(2, 3).reshape((4, 2)),
        lambda: t(2, 3).transpose((0, 5)),
        lambda: t(2, 3).transpose((0, 0)),
        lambda: ag.concatenate([t(2, 3), t(2, 2)]),
        lambda: ag.stack([t(2), t(3)]),
    ],
)
def test_numpys_own_refusals_are_passed_on(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()


def test_index_out_of_bounds() -> None:
    with pytest.raises(IndexError, match="index 2 is out of bounds"):
        t(2, 3)[2]
