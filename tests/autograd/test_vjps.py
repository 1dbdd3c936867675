"""Every operator, one line a case: its vjps against numeric derivatives, and against PyTorch; and the check itself.

A case is (operator, ours, theirs, how each input is drawn). `theirs` gets torch first, as `t`; SAME means
that ours runs on PyTorch's tensors too. Maps are NHWC here and NCHW there. Inputs are drawn away from kinks.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import nachos_min.autograd as ag
from nachos_min.autograd import COUNTED_OPERATORS, OPERATORS, Tensor, count_macs, gradcheck
from nachos_min.autograd.tape import record

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


def torch_linear(t: Any, x: Any, w: Any, *b: Any) -> Any:
    return t.nn.functional.linear(x, w.T, *b)


def activated(t: Any, x: Any, activation: str = "identity") -> Any:
    """Apply PyTorch's activation; its gradient of hardsigmoid multiplies by a float32 1/6 in float64 too."""
    if activation in ("identity", "hsigmoid"):
        return x if activation == "identity" else t.nn.functional.relu6(x + 3) / 6
    return getattr(t.nn.functional, {"hswish": "hardswish"}.get(activation, activation))(x)


def torch_conv(t: Any, x: Any, w: Any, *b: Any, padding: Any = 0, activation: str = "identity", **how: Any) -> Any:
    """Convolve NHWC maps with our weights (KH, KW, C/G, K), or (KH, KW, C) if depthwise."""
    if w.ndim == 3:
        w, how = w[:, :, None, :], how | {"groups": w.shape[-1]}
    top, bottom, left, right = padding if isinstance(padding, tuple) else (padding,) * 4
    x = t.nn.functional.pad(nchw(x), (left, right, top, bottom))
    y = t.nn.functional.conv2d(x, w.permute(3, 2, 0, 1), *b, **how)
    return activated(t, y.permute(0, 2, 3, 1), activation)


def torch_norm(t: Any, x: Any, gamma: Any, beta: Any, *fixed: np.ndarray, eps: float = 1e-5, **f: str) -> Any:
    mean, var = (t.tensor(each, dtype=x.dtype) for each in fixed) if fixed else (None, None)
    rows = x.reshape(-1, x.shape[-1])
    y = t.nn.functional.batch_norm(rows, mean, var, gamma, beta, training=not fixed, eps=eps)
    return activated(t, y.reshape(x.shape), **f)


def residual_block(x: Any, *parts: Any, **options: Any) -> Tensor:
    """Return our inverted residual's map; parts are weight, scale and shift of two or three convolutions."""
    *expand, depthwise, project = (ag.Normed(*parts[i : i + 3]) for i in range(0, len(parts), 3))
    return ag.inverted_residual(x, *(expand or [None]), depthwise, project, **options)[0]


def torch_block(t: Any, x: Any, *parts: Any, stride: int = 1, residual: bool = False, **f: str) -> Any:
    """Return the same map, one PyTorch function after the other."""
    y, last = x, len(parts) - 3
    for i in range(0, len(parts), 3):
        w, gamma, beta = parts[i : i + 3]
        padding = (w.shape[0] // 2,) * 2 + (w.shape[1] // 2,) * 2 if w.ndim == 3 else 0
        y = torch_conv(t, y, w, padding=padding, stride=stride if w.ndim == 3 else 1)
        y = torch_norm(t, y, gamma, beta, **({"activation": "relu"} | f if i < last else {}))
    return x + y if residual else y


def torch_pool(kind: str) -> Callable[..., Any]:
    def pool(t: Any, x: Any, size: Any, **options: Any) -> Any:
        return getattr(t.nn.functional, f"{kind}_pool2d")(nchw(x), size, **options).permute(0, 2, 3, 1)

    return pool


LAYERS: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
    "conv2d": (ag.conv2d, torch_conv),
    "depthwise_conv2d": (ag.depthwise_conv2d, torch_conv),
    "max_pool": (ag.max_pool, torch_pool("max")),
    "avg_pool": (ag.avg_pool, torch_pool("avg")),
    "batch_norm": (lambda *i, **options: ag.batch_norm(*i, **options)[0], torch_norm),
    "batch_norm_infer": (lambda *i, **options: ag.batch_norm_infer(*i, MEAN, VAR, **options),
                         lambda t, *i, **options: torch_norm(t, *i, MEAN, VAR, **options)),
    "inverted_residual": (residual_block, torch_block),
}  # fmt: skip


def layer(operator: str, *inputs: Draw, **options: Any) -> Case:
    """Return a case in which ours and PyTorch's take the same options."""
    ours, theirs = LAYERS[operator]
    return Case(operator, lambda *i: ours(*i, **options), lambda t, *i: theirs(t, *i, **options), inputs)


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
    case("hswish", ag.hswish, lambda t, x: activated(t, x, "hswish"), away(-3, 3)(5, 7)),
    case("hsigmoid", ag.hsigmoid, lambda t, x: activated(t, x, "hsigmoid"), away(-3, 3)(5, 7)),
    case("sigmoid", ag.sigmoid, lambda t, x: t.sigmoid(x), normal(2, 3)),
    case("sigmoid", ag.sigmoid, lambda t, x: t.sigmoid(x), normal()),
    case("tanh", ag.tanh, lambda t, x: t.tanh(x), normal(2, 3)),
    case("log_softmax", ag.log_softmax, lambda t, x: t.log_softmax(x, -1), normal(4, 5)),
    case("log_softmax", lambda x: ag.log_softmax(x, 0), lambda t, x: t.log_softmax(x, 0), normal(4, 5)),
    case("softmax", ag.softmax, lambda t, x: t.softmax(x, -1), normal(4, 5)),
    case("softmax", lambda x: ag.softmax(x, 1), lambda t, x: t.softmax(x, 1), normal(4, 5, 2)),
    case("cross_entropy", lambda x: ag.cross_entropy(x, LABELS),
         lambda t, x: t.nn.functional.cross_entropy(x, t.tensor(LABELS), reduction="none"), normal(4, 5)),
    layer("conv2d", normal(2, 5, 6, 3), normal(3, 3, 3, 4)),
    layer("conv2d", normal(2, 3, 3, 4), normal(1, 1, 4, 5), normal(5)),
    layer("conv2d", normal(1, 7, 6, 2), normal(3, 2, 2, 3), stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
    layer("conv2d", normal(2, 1, 9, 3), normal(1, 5, 3, 4), normal(4), stride=(1, 2), padding=(0, 0, 2, 2)),
    layer("conv2d", normal(2, 5, 4, 6), normal(3, 3, 2, 9), normal(9), stride=2, padding=1, groups=3),
    layer("conv2d", normal(2, 5, 4, 3), normal(3, 3, 3, 4), normal(4), padding=1, activation="relu"),
    layer("conv2d", normal(2, 5, 4, 3), normal(1, 1, 3, 4), activation="relu"),
    case("conv2d", lambda x, w: ag.conv2d(x.transpose((3, 2, 1, 0)), w.transpose(), padding=1),
         lambda t, x, w: torch_conv(t, x.permute(3, 2, 1, 0), w.permute(3, 2, 1, 0), padding=1),
         normal(2, 4, 5, 2), normal(3, 2, 3, 3)),
    layer("depthwise_conv2d", normal(2, 4, 5, 3), normal(3, 3, 3)),
    layer("depthwise_conv2d", normal(1, 5, 6, 4), normal(3, 5, 4), stride=2, padding=3, dilation=(2, 1)),
    layer("depthwise_conv2d", normal(2, 1, 13, 4), normal(1, 7, 4), stride=(1, 3), padding=(0, 0, 3, 3)),
    layer("max_pool", distinct(2, 5, 4, 3), size=2),
    layer("max_pool", distinct(2, 1, 9, 3), size=(1, 4)),
    layer("max_pool", distinct(2, 5, 4, 3), size=3, stride=(2, 1), padding=1),
    layer("avg_pool", normal(2, 5, 4, 3), size=2),
    layer("avg_pool", normal(2, 5, 4, 3), size=(3, 2), stride=2, padding=1),
    case("global_avg_pool", ag.global_avg_pool, lambda t, x: t.mean(x, (1, 2)), normal(2, 3, 4, 5)),
    layer("batch_norm", normal(4, 3), positive(3), normal(3)),
    layer("batch_norm", normal(2, 3, 4, 3), normal(3), normal(3), eps=0.1),
    layer("batch_norm", normal(2, 3, 2, 3), positive(3), normal(3), activation="relu"),
    layer("batch_norm", normal(2, 3, 2, 3), positive(3), normal(3), activation="hswish"),
    layer("inverted_residual", normal(3, 4, 5, 2), normal(1, 1, 2, 6), positive(6), normal(6), normal(3, 3, 6),
          positive(6), normal(6), normal(1, 1, 6, 2), positive(2), normal(2), activation="hswish", residual=True),
    layer("inverted_residual", normal(5, 6, 5, 2), normal(1, 1, 2, 4), positive(4), normal(4), normal(5, 5, 4),
          positive(4), normal(4), normal(1, 1, 4, 3), positive(3), normal(3), stride=2),
    layer("inverted_residual", normal(6, 1, 9, 2), normal(1, 1, 2, 4), positive(4), normal(4), normal(1, 5, 4),
          positive(4), normal(4), normal(1, 1, 4, 3), positive(3), normal(3), stride=2),
    layer("inverted_residual", normal(4, 3, 2, 3), normal(3, 3, 3), positive(3), normal(3), normal(1, 1, 3, 4),
          positive(4), normal(4)),
    layer("batch_norm_infer", normal(2, 3, 2, 3), positive(3), normal(3)),
    layer("batch_norm_infer", normal(4, 3), positive(3), normal(3), activation="sigmoid", eps=0.1),
    layer("batch_norm_infer", normal(4, 3), positive(3), normal(3), activation="hsigmoid"),
]  # fmt: skip


each_case = pytest.mark.parametrize(
    ("place", "case"), [pytest.param(i, c, id=f"{c.operator}-{i}") for i, c in enumerate(CASES)]
)


def draw(place: int, case: Case, dtype: type = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(place)
    return [np.asarray(draw_one(rng), dtype) for draw_one in case.inputs]


@each_case
def test_vjp_is_the_numeric_derivative_and_only_multiplying_operators_count(place: int, case: Case) -> None:
    arrays = draw(place, case)
    gradcheck(case.ours, *arrays, rng=np.random.default_rng(1000 + place))
    with count_macs() as counter:
        result = case.ours(*(Tensor(array, requires_grad=True) for array in arrays))
    assert result.node is not None
    assert result.node.operator == case.operator
    assert set(counter.by_operator) == {case.operator} & COUNTED_OPERATORS


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@each_case
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
    pairs = [(value.data, expected.detach()), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
    for got, wanted in pairs:
        assert isinstance(got, np.ndarray)
        assert got.dtype == wanted.numpy().dtype
        scale = np.abs(wanted.numpy()).max(initial=1.0)
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=tolerance * scale, strict=True)


@each_case
def test_no_reference_cycle_and_inputs_are_left_alone(place: int, case: Case) -> None:
    arrays = draw(place, case)
    leaves = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    gc.disable()  # a cycle would now live on
    try:
        unused, result = case.ours(*leaves), case.ours(*leaves)
        found = [weakref.ref(unused), weakref.ref(result), weakref.ref(result.data)]
        result.backward(np.ones(result.shape))
        del unused, result
        assert not any(each() is not None for each in found)
    finally:
        gc.enable()
    for leaf, original in zip(leaves, arrays, strict=True):
        np.testing.assert_array_equal(leaf.data, original)


def test_every_operator_has_a_case_and_is_public_under_its_name() -> None:
    assert {case.operator for case in CASES} == set(OPERATORS)
    assert {name: getattr(ag, name) for name in OPERATORS} == OPERATORS
    assert set(OPERATORS) <= set(ag.__all__)


# The gradient check notices a wrong vjp, and says in which input.

X, Y = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([2.0, -1.0])


def check(function: Callable[..., Tensor], *inputs: np.ndarray) -> float:
    return gradcheck(function, *inputs, rng=np.random.default_rng(0))


def test_right_gradients_pass_with_a_small_error_and_inputs_stay() -> None:
    x = X.copy()
    assert 0.0 <= check(lambda x, y: x * y * y, x, Y) < 1e-8
    np.testing.assert_array_equal(x, X)
    assert check(ag.multiply, X.astype(np.float32), Y) < 1e-8  # in float64, too
    assert check(lambda x, y: x + 0.0 * y, X, Y) < 1e-8  # the gradient in y is 0
    assert check(lambda x, y: x * 1.0, X, Y) < 1e-8  # noqa: ARG005  (y takes no part)


@pytest.mark.parametrize("factor", [1.00001, 0.0, -1.0, np.nan])
def test_a_wrong_vjp_is_found_and_its_input_named(factor: float) -> None:
    def product(left: Tensor, right: Tensor) -> Tensor:
        wrong = (right, lambda g: (factor * g * left.data).sum(axis=0))
        return record(left.data * right.data, (left, lambda g: g * right.data), wrong)

    with pytest.raises(AssertionError, match=r"gradcheck: input 1 \(right\): vjp gives .*central differences"):
        check(product, X, Y)


def test_a_single_wrong_element_is_found_and_variadic_inputs_are_named_by_place() -> None:
    slip = np.array([[1.0, 1.0], [1.001, 1.0]])

    def second_is_wrong(*tensors: Tensor) -> Tensor:
        one, two = tensors
        return record(one.data + two.data, (one, lambda g: g), (two, lambda g: slip * g))

    with pytest.raises(AssertionError, match=r"gradcheck: input 1 \(tensors\).* relative error .* > 1.0e-06"):
        check(second_is_wrong, X, X)
