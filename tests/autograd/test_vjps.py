"""Every operator, one line a case: its vjps against numeric derivatives, and against PyTorch.

A case is (operator, ours, theirs, how each input is drawn). `theirs` gets torch first, as `t`; SAME means
that ours runs on PyTorch's tensors too. Maps are NHWC here and NCHW there. Inputs are drawn away from kinks.
The last tests demand that no operator is forgotten.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import nachos_min.autograd as ag
from nachos_min.autograd import COUNTED_OPERATORS, OPERATORS, Tensor, count_macs, gradcheck

Draw = Callable[[np.random.Generator], np.ndarray]
SAME = None


class Case(NamedTuple):
    operator: str
    ours: Callable[..., Tensor]
    theirs: Callable[..., Any] | None
    inputs: tuple[Draw, ...]


def case(operator: str, ours: Callable[..., Any], theirs: Callable[..., Any] | None, *inputs: Draw) -> Case:
    return Case(operator, ours, theirs, inputs)


def normal(*shape: int) -> Draw:
    return lambda rng: rng.normal(size=shape)


def positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, size=shape)


def away(*kinks: float) -> Callable[..., Draw]:
    """Draw numbers that keep 0.05 away from every kink."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.normal(scale=2.5, size=shape)
        for kink in kinks:
            near = np.abs(x - kink) < 0.05
            x[near] = kink + 0.05 + np.abs(x[near] - kink)
        return x

    return lambda *shape: lambda rng: draw(rng, shape)


def distinct(*shape: int) -> Draw:
    """Draw numbers that all differ by 0.1 or more, so that no maximum has a rival."""
    return lambda rng: 0.1 * (rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2)


LABELS = np.array([2, 0, 3, 3])
ROWS = np.array([0, 2, 0, -1])
MEAN, VAR = np.array([0.3, -0.2, 1.0]), np.array([0.5, 1.0, 2.0])


def nchw(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def torch_linear(t: Any, x: Any, w: Any, *b: Any) -> Any:
    return t.nn.functional.linear(x, w.T, *b)


def torch_conv(t: Any, x: Any, w: Any, *b: Any, pad: tuple[int, ...] = (0, 0, 0, 0), **options: Any) -> Any:
    """Convolve NHWC maps with our weights (KH, KW, C/G, K); `pad` is (left, right, top, bottom)."""
    x = t.nn.functional.pad(nchw(x), pad)
    return nhwc(t.nn.functional.conv2d(x, w.permute(3, 2, 0, 1), *b, **options))


def torch_depthwise(t: Any, x: Any, w: Any, **options: Any) -> Any:
    return torch_conv(t, x, w[:, :, None, :], groups=w.shape[-1], **options)


def torch_norm(t: Any, x: Any, gamma: Any, beta: Any, *statistics: np.ndarray, eps: float = 1e-5) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    mean, var = (t.tensor(s, dtype=x.dtype) for s in statistics) if statistics else (None, None)
    y = t.nn.functional.batch_norm(rows, mean, var, gamma, beta, training=not statistics, eps=eps)
    return y.reshape(x.shape)


def residual_block(x: Any, *parts: Any, **options: Any) -> Tensor:
    """Return our inverted residual's map; parts are weight, scale and shift of two or three convolutions."""
    normed = [ag.Normed(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    expand = normed.pop(0) if len(normed) == 3 else None
    return ag.inverted_residual(x, expand, *normed, **options)[0]


def torch_block(t: Any, x: Any, *parts: Any, stride: int = 1, residual: bool = False, f: str = "relu") -> Any:
    """Return the same map, one PyTorch function after the other."""
    y = x
    for i in range(0, len(parts), 3):
        w, last = parts[i], i + 3 == len(parts)
        filtered = w.ndim == 3
        y = torch_depthwise(t, y, w, stride=stride, padding=w.shape[0] // 2) if filtered else torch_conv(t, y, w)
        y = torch_norm(t, y, *parts[i + 1 : i + 3])
        y = y if last else getattr(t.nn.functional, f)(y)
    return x + y if residual else y


def norm(*inputs: Tensor, **options: Any) -> Tensor:
    return ag.batch_norm(*inputs, **options)[0]


def fixed_norm(x: Tensor, gamma: Tensor, beta: Tensor, **options: Any) -> Tensor:
    return ag.batch_norm_infer(x, gamma, beta, MEAN, VAR, **options)


CASES = [
    case("add", lambda x, y: x + y, SAME, normal(2, 3), normal(2, 3)),
    case("add", lambda x, y: x + y, SAME, normal(2, 1, 3), normal(4, 1)),
    case("add", lambda x, y: x + y, SAME, normal(), normal(2, 3)),
    case("add", lambda x, y: x + y, SAME, normal(), normal()),
    case("add", lambda x, y: x + y, SAME, normal(4), normal(2, 3, 2, 4)),
    case("add", lambda x, y: x + y, SAME, normal(2, 3, 4, 1), normal(3, 1, 1)),
    case("add", lambda x: x + x, SAME, normal(2, 3)),
    case("add", lambda x: 2 + x, SAME, normal(3)),
    case("subtract", lambda x, y: x - y, SAME, normal(2, 3), normal(3)),
    case("subtract", lambda x: 1.5 - x, SAME, normal(3)),
    case("multiply", lambda x, y: x * y, SAME, normal(2, 3, 3, 4), normal(2, 1, 1, 4)),
    case("multiply", lambda x, y: x * y, SAME, normal(1), normal()),
    case("multiply", lambda x: x * x, SAME, normal(3)),
    case("multiply", lambda x: 3 * x, SAME, normal(3)),
    case("divide", lambda x, y: x / y, SAME, normal(2, 3), positive(3)),
    case("divide", lambda x: 2.0 / x, SAME, positive(3)),
    case("negate", lambda x: -x, SAME, normal(2, 3)),
    case("power", lambda x: x**3, SAME, normal(2, 3)),
    case("power", lambda x: x**-0.5, SAME, positive(2, 3)),
    case("power", lambda x: x**0, SAME, normal(2, 3)),
    case("exp", ag.exp, lambda t, x: t.exp(x), normal(2, 3)),
    case("log", ag.log, lambda t, x: t.log(x), positive(2, 3)),
    case("clip", lambda x: ag.clip(x, -1, 1), lambda t, x: t.clip(x, -1, 1), away(-1, 1)(5, 7)),
    case("clip", lambda x: ag.clip(x, high=0.5), lambda t, x: t.clip(x, max=0.5), away(0.5)(9)),
    case("clip", lambda x: ag.clip(x, 0), lambda t, x: t.clip(x, 0), away(0)(9)),
    case("sum", lambda x: x.sum(), SAME, normal(2, 3, 4)),
    case("sum", lambda x: x.sum(1), SAME, normal(2, 3, 4)),
    case("sum", lambda x: x.sum((0, -1)), SAME, normal(2, 3, 4)),
    case("sum", lambda x: x.sum(-1, True), SAME, normal(2, 3, 4)),
    case("mean", lambda x: x.mean(), SAME, normal(2, 3, 4)),
    case("mean", lambda x: x.mean((0, 2)), SAME, normal(2, 3, 4)),
    case("mean", lambda x: x.mean(1, True), SAME, normal(2, 3, 4)),
    case("reshape", lambda x: x.reshape((4, 6)), SAME, normal(2, 3, 4)),
    case("reshape", lambda x: x.reshape(-1), SAME, normal(2, 3)),
    case("transpose", lambda x: x.transpose(), lambda t, x: t.permute(x, (2, 1, 0)), normal(2, 3, 4)),
    case("transpose", lambda x: x.transpose((1, -1, 0)), lambda t, x: t.permute(x, (1, 2, 0)),
         normal(2, 3, 4)),
    case("concatenate", lambda x, y: ag.concatenate((x, y, x)), lambda t, x, y: t.cat((x, y, x)),
         normal(2, 3), normal(1, 3)),
    case("concatenate", lambda x, y: ag.concatenate((x, y), -1), lambda t, x, y: t.cat((x, y), -1),
         normal(2, 3), normal(2, 2)),
    case("stack", lambda x, y: ag.stack((x, y)), lambda t, x, y: t.stack((x, y)), normal(2, 3), normal(2, 3)),
    case("stack", lambda x, y: ag.stack((x, y), -1), lambda t, x, y: t.stack((x, y), -1),
         normal(2, 3), normal(2, 3)),
    case("stack", lambda x, y: ag.stack((x, y)), lambda t, x, y: t.stack((x, y)), normal(), normal()),
    case("getitem", lambda x: x[1], SAME, normal(3, 4)),
    case("getitem", lambda x: x[2, -1], SAME, normal(3, 4)),
    case("getitem", lambda x: x[1:, ::2], SAME, normal(3, 4)),
    case("getitem", lambda x: x[..., ::-1, None], lambda t, x: t.flip(x, (-1,))[..., None], normal(3, 4)),
    case("getitem", lambda x: x[ROWS], SAME, normal(3, 4)),
    case("getitem", lambda x: x[:, ROWS], SAME, normal(3, 4)),
    case("getitem", lambda x: x[ROWS, ROWS], SAME, normal(3, 4)),
    case("getitem", lambda x: x[[0, 0, 1]], SAME, normal(3, 4)),
    case("getitem", lambda x: x[ROWS > 0], lambda t, x: x[t.tensor(ROWS > 0)], normal(4, 2)),
    case("matmul", lambda x, y: x @ y, SAME, normal(2, 3), normal(3, 4)),
    case("matmul", lambda x, y: x @ y, SAME, normal(5, 2, 3), normal(5, 3, 4)),
    case("matmul", lambda x, y: x @ y, SAME, normal(5, 1, 2, 3), normal(4, 3, 2)),
    case("linear", ag.linear, torch_linear, normal(4, 3), normal(3, 5), normal(5)),
    case("linear", ag.linear, torch_linear, normal(2, 4, 3), normal(3, 5), normal(5)),
    case("linear", ag.linear, torch_linear, normal(3), normal(3, 5)),
    case("relu", ag.relu, lambda t, x: t.relu(x), away(0)(5, 7)),
    case("hswish", ag.hswish, lambda t, x: t.nn.functional.hardswish(x), away(-3, 3)(5, 7)),
    # relu6(x + 3) / 6 and not hardsigmoid: PyTorch's gradient of that multiplies by a float32 1/6 in float64 too.
    case("hsigmoid", ag.hsigmoid, lambda t, x: t.nn.functional.relu6(x + 3) / 6, away(-3, 3)(5, 7)),
    case("sigmoid", ag.sigmoid, lambda t, x: t.sigmoid(x), normal(2, 3)),
    case("sigmoid", ag.sigmoid, lambda t, x: t.sigmoid(x), normal()),
    case("tanh", ag.tanh, lambda t, x: t.tanh(x), normal(2, 3)),
    case("log_softmax", ag.log_softmax, lambda t, x: t.log_softmax(x, -1), normal(4, 5)),
    case("log_softmax", lambda x: ag.log_softmax(x, 0), lambda t, x: t.log_softmax(x, 0), normal(4, 5)),
    case("softmax", ag.softmax, lambda t, x: t.softmax(x, -1), normal(4, 5)),
    case("softmax", lambda x: ag.softmax(x, 1), lambda t, x: t.softmax(x, 1), normal(4, 5, 2)),
    case("cross_entropy", lambda x: ag.cross_entropy(x, LABELS),
         lambda t, x: t.nn.functional.cross_entropy(x, t.tensor(LABELS), reduction="none"), normal(4, 5)),
    case("conv2d", ag.conv2d, torch_conv, normal(2, 5, 6, 3), normal(3, 3, 3, 4)),
    case("conv2d", ag.conv2d, torch_conv, normal(2, 3, 3, 4), normal(1, 1, 4, 5), normal(5)),
    case("conv2d", lambda x, w: ag.conv2d(x, w, stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
         lambda t, x, w: torch_conv(t, x, w, pad=(2, 1, 1, 0), stride=(2, 1), dilation=(1, 2)),
         normal(1, 7, 6, 2), normal(3, 2, 2, 3)),
    case("conv2d", lambda x, w, b: ag.conv2d(x, w, b, stride=2, padding=1, groups=3),
         lambda t, x, w, b: torch_conv(t, x, w, b, stride=2, padding=1, groups=3),
         normal(2, 5, 4, 6), normal(3, 3, 2, 9), normal(9)),
    case("conv2d", lambda x, w, b: ag.conv2d(x, w, b, padding=1, activation="relu"),
         lambda t, x, w, b: t.relu(torch_conv(t, x, w, b, padding=1)),
         normal(2, 5, 4, 3), normal(3, 3, 3, 4), normal(4)),
    case("conv2d", lambda x, w: ag.conv2d(x, w, activation="relu"), lambda t, x, w: t.relu(torch_conv(t, x, w)),
         normal(2, 5, 4, 3), normal(1, 1, 3, 4)),
    case("conv2d", lambda x, w: ag.conv2d(x.transpose((3, 2, 1, 0)), w.transpose(), padding=1),
         lambda t, x, w: torch_conv(t, x.permute(3, 2, 1, 0), w.permute(3, 2, 1, 0), padding=1),
         normal(2, 4, 5, 2), normal(3, 2, 3, 3)),
    case("depthwise_conv2d", ag.depthwise_conv2d, torch_depthwise, normal(2, 4, 5, 3), normal(3, 3, 3)),
    case("depthwise_conv2d", lambda x, w: ag.depthwise_conv2d(x, w, stride=2, padding=3, dilation=(2, 1)),
         lambda t, x, w: torch_depthwise(t, x, w, stride=2, padding=3, dilation=(2, 1)),
         normal(1, 5, 6, 4), normal(3, 5, 4)),
    case("max_pool", lambda x: ag.max_pool(x, 2),
         lambda t, x: nhwc(t.nn.functional.max_pool2d(nchw(x), 2)), distinct(2, 5, 4, 3)),
    case("max_pool", lambda x: ag.max_pool(x, 3, stride=(2, 1), padding=1),
         lambda t, x: nhwc(t.nn.functional.max_pool2d(nchw(x), 3, (2, 1), 1)), distinct(2, 5, 4, 3)),
    case("avg_pool", lambda x: ag.avg_pool(x, 2),
         lambda t, x: nhwc(t.nn.functional.avg_pool2d(nchw(x), 2)), normal(2, 5, 4, 3)),
    case("avg_pool", lambda x: ag.avg_pool(x, (3, 2), stride=2, padding=1),
         lambda t, x: nhwc(t.nn.functional.avg_pool2d(nchw(x), (3, 2), 2, 1)), normal(2, 5, 4, 3)),
    case("global_avg_pool", ag.global_avg_pool, lambda t, x: t.mean(x, (1, 2)), normal(2, 3, 4, 5)),
    case("batch_norm", norm, torch_norm, normal(4, 3), positive(3), normal(3)),
    case("batch_norm", lambda *i: norm(*i, eps=0.1), lambda t, *i: torch_norm(t, *i, eps=0.1),
         normal(2, 3, 4, 3), normal(3), normal(3)),
    case("batch_norm", lambda *i: norm(*i, activation="relu"), lambda t, *i: t.relu(torch_norm(t, *i)),
         normal(2, 3, 2, 3), positive(3), normal(3)),
    case("batch_norm", lambda *i: norm(*i, activation="hswish"),
         lambda t, *i: t.nn.functional.hardswish(torch_norm(t, *i)),
         normal(2, 3, 2, 3), positive(3), normal(3)),
    case("inverted_residual", lambda *i: residual_block(*i, activation="hswish", residual=True),
         lambda t, *i: torch_block(t, *i, residual=True, f="hardswish"),
         normal(3, 4, 5, 2), normal(1, 1, 2, 6), positive(6), normal(6), normal(3, 3, 6), positive(6), normal(6),
         normal(1, 1, 6, 2), positive(2), normal(2)),
    case("inverted_residual", lambda *i: residual_block(*i, stride=2), lambda t, *i: torch_block(t, *i, stride=2),
         normal(5, 6, 5, 2), normal(1, 1, 2, 4), positive(4), normal(4), normal(5, 5, 4), positive(4), normal(4),
         normal(1, 1, 4, 3), positive(3), normal(3)),
    case("inverted_residual", residual_block, torch_block,
         normal(4, 3, 2, 3), normal(3, 3, 3), positive(3), normal(3), normal(1, 1, 3, 4), positive(4), normal(4)),
    case("batch_norm_infer", fixed_norm, lambda t, *i: torch_norm(t, *i, MEAN, VAR),
         normal(2, 3, 2, 3), positive(3), normal(3)),
    case("batch_norm_infer", lambda *i: fixed_norm(*i, activation="sigmoid", eps=0.1),
         lambda t, *i: t.sigmoid(torch_norm(t, *i, MEAN, VAR, eps=0.1)),
         normal(4, 3), positive(3), normal(3)),
    case("batch_norm_infer", lambda *i: fixed_norm(*i, activation="hsigmoid"),
         lambda t, *i: t.nn.functional.relu6(torch_norm(t, *i, MEAN, VAR) + 3) / 6,
         normal(4, 3), positive(3), normal(3)),
]  # fmt: skip


def each_case() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("place", "case"), [pytest.param(i, c, id=f"{c.operator}-{i}") for i, c in enumerate(CASES)]
    )


def draw(place: int, case: Case, dtype: type = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(place)
    return [np.asarray(draw_one(rng), dtype) for draw_one in case.inputs]


@each_case()
def test_vjp_is_the_numeric_derivative_and_only_multiplying_operators_count(place: int, case: Case) -> None:
    arrays = draw(place, case)
    gradcheck(case.ours, *arrays, rng=np.random.default_rng(1000 + place))
    with count_macs() as counter:
        result = case.ours(*(Tensor(array, requires_grad=True) for array in arrays))
    assert result.node is not None
    assert result.node.operator == case.operator
    assert set(counter.by_operator) == {case.operator} & COUNTED_OPERATORS


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@each_case()
def test_value_dtype_and_gradients_are_pytorchs(place: int, case: Case, dtype: type, tolerance: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer in tests only")
    arrays = draw(place, case, dtype)
    ours = [Tensor(array, requires_grad=True) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = case.ours(*ours)
    expected = case.theirs(torch, *theirs) if case.theirs else case.ours(*theirs)
    gradient = np.random.default_rng(2000 + place).normal(size=value.shape).astype(dtype)
    value.backward(gradient)
    expected.backward(torch.tensor(gradient))
    same(value.data, expected.detach().numpy(), tolerance)
    for leaf, peer in zip(ours, theirs, strict=True):
        assert leaf.grad is not None
        same(leaf.grad, peer.grad.numpy(), tolerance)


def same(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == expected.dtype
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, strict=True)


@each_case()
def test_no_reference_cycle_and_inputs_are_left_alone(place: int, case: Case) -> None:
    arrays = draw(place, case)
    leaves = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    gc.disable()  # a cycle would now live on
    try:
        for used in (False, True):
            result = case.ours(*leaves)
            found = [weakref.ref(result), weakref.ref(result.data)] if used else [weakref.ref(result)]
            if used:
                result.backward(np.ones(result.shape))
            del result
            assert not any(each() is not None for each in found)
    finally:
        gc.enable()
    for leaf, original in zip(leaves, arrays, strict=True):
        np.testing.assert_array_equal(leaf.data, original)


def test_every_operator_has_a_case_and_is_public_under_its_name() -> None:
    assert {case.operator for case in CASES} == set(OPERATORS)
    assert all(getattr(ag, name) is function for name, function in OPERATORS.items())
    assert set(OPERATORS) <= set(ag.__all__)
