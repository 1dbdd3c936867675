"""Small PyTorch networks drawn at random, as people write them: layers, functions, methods and signs mixed.

`network(choose)` grows a network step by step, running it as it grows so that every step fits; `choose` picks one
of several things, by Hypothesis or by any other source. A step may branch. With `traced`, a network has what tools
that trace are tested on as well: heads whose answer is thrown away, arrays of its own, maps of any size.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F = torch.nn.functional
nn = torch.nn
Tensor = Any
Step = Callable[[Tensor], Tensor]
YES, RARELY = (True, False), (True, False, False, False)


class Draw(NamedTuple):
    """Where choices come from, and which tools the network is for."""

    one: Callable[[Sequence[Any]], Any]
    traced: bool


class Steps(nn.Module):
    """Calls functions one after another; the modules they call stand in it under names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def own(self, module: nn.Module) -> nn.Module:
        self.add_module(f"m{len(self._modules)}", module)
        return module

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


# Layers by names of their own, which some tools do not know.
DerivedConv2d, Separable = (type(name, (nn.Conv2d,), {}) for name in ("DerivedConv2d", "Separable"))
DerivedLinear = type("DerivedLinear", (nn.Linear,), {})
DerivedNorm = type("DerivedNorm", (nn.BatchNorm2d,), {})
OwnReLU = type("OwnReLU", (nn.ReLU,), {})


class Holder(nn.Module):
    """A parent that calls a function with its child or array, which may stand elsewhere, too."""

    def __init__(self, inner: Any, function: Callable[..., Tensor] = lambda x, inner: inner(x)) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.inner)


def _own_array(shape: tuple[int, ...], function: Callable[..., Tensor]) -> nn.Module:
    return Holder(nn.Parameter(torch.randn(shape)), function)


def network(choose: Callable[[Sequence[Any]], Any], traced: bool = False) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode, and an array to call it with."""
    torch.manual_seed(0)
    draw = Draw(choose, traced)
    axes = choose((2, 2, 2, 1, 0) if traced else (2, 2, 2, 1))
    sizes = tuple(range(1, 10)) if traced else (7, 8, 12)
    shape = (choose((1, 1, 2, 3)), choose((3, 4, 6, 8)), *(choose(sizes) for _ in range(axes)))
    given = torch.randn(shape)
    net, x = _chain(draw, given, choose((1, 2, 3, 4, 5)))
    if x.dim() > 2 and choose(YES):
        x = _grow(draw, net, x, choose((_flat, _flat, _tokens)))
        for _ in range(choose((0, 1, 2, 3))):
            x = _grow(draw, net, x, choose(ROW_STEPS))
    return net.eval(), given


def _chain(draw: Draw, x: Tensor, longest: int) -> tuple[Steps, Tensor]:
    net = Steps().eval()
    for _ in range(longest):
        if x.numel() <= 20_000 and x.dim() in (2, 3, 4):
            steps = ROW_STEPS if x.dim() == 2 else (*MAP_STEPS, *TRACED_STEPS) if draw.traced else MAP_STEPS
            x = _grow(draw, net, x, draw.one(steps))
    return net, x


def _grow(draw: Draw, net: Steps, x: Tensor, kind: Callable[[Draw, Steps, Tensor], Step]) -> Tensor:
    net.steps.append(kind(draw, net, x))
    with torch.no_grad():
        return net.eval().steps[-1](x.clone())


def _placed(draw: Draw, net: Steps, module: nn.Module) -> Step:
    """A module of the network: once, under two parents, or within a parent that calls it twice."""
    where = draw.one(("here", "here", "here", "here", "two parents", "two names", "nested"))
    if where == "two parents":
        net.own(Holder(module))
        return net.own(Holder(module))
    if where == "two names":
        net.own(module)
    return net.own(nn.Sequential(Holder(module)) if where == "nested" else module)


def _divisor(draw: Draw, number: int) -> int:
    return draw.one([d for d in range(1, number + 1) if number % d == 0])


def _conv(draw: Draw, net: Steps, x: Tensor) -> Step:
    channels, axes = x.shape[1], x.dim() - 2
    kernel = tuple(draw.one((1, 2, 3, 4)) for _ in range(axes))
    groups = _divisor(draw, channels)
    word = draw.one((None, None, "same", "valid"))
    options = {
        "stride": 1 if word == "same" else draw.one((1, 2, 3, (2, 1)[:axes])),
        "padding": word or draw.one((0, 1, 2, (1, 0)[:axes])),
        "dilation": draw.one((1, 1, 2)),
        "groups": groups,
        "bias": draw.one(YES),
        "padding_mode": draw.one(("zeros", "zeros", "zeros", "circular", "circular" if draw.traced else "reflect")),
    }
    spans = [options["dilation"] * (k - 1) + 1 for k in kernel]
    if min(n - span for n, span in zip(x.shape[2:], spans, strict=True)) < 0:
        kernel, options["padding"] = (1,) * axes, 0
    if min(x.shape[2:]) < 4 or (draw.traced and options["padding"] not in (0, 1)):
        options["padding_mode"] = "zeros"
    kind = draw.one((nn.Conv2d, nn.Conv2d, nn.Conv2d, DerivedConv2d, Separable)) if axes == 2 else nn.Conv1d
    module = kind(channels, groups * draw.one((1, 2, 3)), kernel, **options)
    if draw.one(RARELY):
        weight, function = module.weight.detach(), "conv2d" if axes == 2 else "conv1d"
        bias = None if module.bias is None else module.bias.detach()
        rest = (options["stride"], options["padding"], options["dilation"], groups)
        return lambda x: getattr(F, function)(x, weight, bias, *rest)
    return _placed(draw, net, module)


def _transposed(draw: Draw, net: Steps, x: Tensor) -> Step:
    groups, stride = _divisor(draw, x.shape[1]), draw.one((1, 2))
    kind = nn.ConvTranspose2d if x.dim() == 4 else nn.ConvTranspose1d
    out, kernel = groups * draw.one((1, 2, 3)), draw.one((2, 3))
    padding, extra = draw.one((0, 1)) if min(x.shape[2:]) > 2 else 0, draw.one((0, stride - 1))
    bias, dilation = draw.one(YES), 1 if draw.traced else draw.one((1, 1, 2))
    return _placed(draw, net, kind(x.shape[1], out, kernel, stride, padding, extra, groups, bias, dilation))


def _norm(draw: Draw, net: Steps, x: Tensor) -> Step:
    channels, flat, affine = x.shape[1], x.dim() == 3, draw.one(YES)
    batch_norm = nn.BatchNorm1d if flat else nn.BatchNorm2d
    kinds = [
        lambda: batch_norm(channels, affine=affine),
        lambda: (batch_norm if flat else DerivedNorm)(channels, affine=affine),
        lambda: nn.LayerNorm(x.shape[1:], elementwise_affine=affine),
        lambda: nn.LayerNorm(x.shape[-1], bias=affine),
    ]
    if min(x.shape[2:]) > 1:
        kinds.append(lambda: nn.GroupNorm(_divisor(draw, channels), channels, affine=affine))
        kinds.append(lambda: batch_norm(channels, affine=affine, track_running_stats=False))
        kinds.append(lambda: (nn.InstanceNorm1d if flat else nn.InstanceNorm2d)(channels, affine=affine))
    return _placed(draw, net, draw.one(kinds)())


def _normed_convolution(draw: Draw, net: Steps, x: Tensor) -> Step:
    """The common case: batch norm behind a convolution, which an exporter merges."""
    if x.dim() == 3:
        return _conv(draw, net, x)
    out = draw.one((1, 2, 5))
    steps = [nn.Conv2d(x.shape[1], out, 1, bias=draw.one(YES)), nn.BatchNorm2d(out), nn.BatchNorm2d(out)]
    return net.own(nn.Sequential(*steps[: draw.one((2, 3))]))


# fmt: off
MODULES = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU,
    nn.PReLU, nn.Tanh, nn.Dropout, nn.Identity, nn.Softplus, nn.Mish, nn.Hardtanh, OwnReLU, nn.SELU,
    lambda: nn.Softmax(1))
# Tools that patch a function see it only if it is looked up when it is called.
CALLS = (
    lambda x: F.relu(x), lambda x: F.relu(x, inplace=True), lambda x: torch.relu(x), lambda x: x.relu(),
    lambda x: x.relu_(), lambda x: F.relu6(x), lambda x: F.hardswish(x), lambda x: F.silu(x), lambda x: F.gelu(x),
    lambda x: F.elu(x), lambda x: F.leaky_relu(x), lambda x: torch.sigmoid(x), lambda x: torch.tanh(x),
    lambda x: x.sigmoid(), lambda x: x.tanh(), lambda x: x.clamp(0, 6), lambda x: x.clamp(-1, 1), lambda x: x.exp(),
    lambda x: x.softmax(1), lambda x: F.softmax(x, 1), lambda x: torch.softmax(x, -1),
    lambda x: F.softmax(x, dim=-1), lambda x: x * F.relu6(x + 3) / 6, lambda x: F.relu6(x + 3) / 6,
    lambda x: x * torch.sigmoid(x),
)
SIGNS = (
    lambda x: x + x, lambda x: x * x, lambda x: x + 1, lambda x: 2 * x, lambda x: 1 - x, lambda x: x / 2,
    lambda x: x**2, lambda x: torch.add(x, x), lambda x: torch.add(x, 2), lambda x: torch.mul(x, x),
    lambda x: x.mul(3), lambda x: x.clone().mul_(2), lambda x: x.abs(), lambda x: (x * x + 1).sqrt(),
    lambda x: (x > 0).float() * x, lambda x: torch.maximum(x, -x), lambda x: F.relu(x) + F.relu(x),
    lambda x: x.sum(1, keepdim=True) + x, lambda x: x * x.mean(-1, keepdim=True),
    lambda x: torch.mul(x.mean(-1, keepdim=True), x), lambda x: x - x.mean(-1, keepdim=True),
    lambda x: torch.cat((x, x), 1), lambda x: x.reshape(x.shape), lambda x: x.transpose(-1, -2).contiguous(),
    lambda x: x[:, : max(1, x.shape[1] // 2)],
)
PAIRS = (
    lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y, lambda x, y: torch.add(x, y),
    lambda x, y: torch.add(y, x), lambda x, y: torch.mul(x, y), lambda x, y: x.add(y), lambda x, y: x.add_(y),
    lambda x, y: x.mul(y),
)
OWN = (lambda x, w: x * w, lambda x, w: x + w, lambda x, w: torch.mul(x, w), lambda x, w: x * (w * 2),
    lambda x, w: x * w.exp(), lambda x, w: x - w)
BRANCHES = (lambda x, f: x + f(x), lambda x, f: torch.add(x, f(x)), lambda x, f: f(x.clone()).add_(x),
    lambda x, f: f(x) * x, lambda x, f: x - f(x), lambda x, f: F.relu(f(x) + x))
MEANS = (lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True), lambda x: x.mean((2, 3), keepdim=True),
    lambda x: F.adaptive_avg_pool2d(x, 1))
BATCHED = (
    lambda x: torch.bmm(x, x.transpose(1, 2)), lambda x: x.bmm(x.transpose(1, 2)),
    lambda x: torch.baddbmm(torch.zeros(1), x, x.transpose(1, 2)),
    lambda x: F.scaled_dot_product_attention(x, x, x),
    lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).squeeze(1),
    lambda x: torch.softmax(x @ x.transpose(-2, -1) / x.shape[-1] ** 0.5, -1) @ x,
)
# fmt: on


def _activation(draw: Draw, net: Steps, x: Tensor) -> Step:
    if draw.one(YES):
        return _placed(draw, net, draw.one(MODULES)())
    return _placed(draw, net, nn.PReLU(x.shape[1])) if draw.one(RARELY) else draw.one(CALLS)


def _sign(draw: Draw, _net: Steps, x: Tensor) -> Step:
    spatial = (1,) * (x.dim() - 2)
    shapes = ((1, 1, *spatial), (x.shape[1], *spatial), x.shape[-1:], x.shape[1:], (1, *x.shape[1:]))
    y, function = torch.ones(draw.one(shapes)), draw.one(PAIRS)
    return draw.one((*SIGNS, *(lambda x: function(x, y),) * len(PAIRS)))


def _parameter(draw: Draw, net: Steps, x: Tensor) -> Step:
    shape = draw.one(((x.shape[1], *(1,) * (x.dim() - 2)), x.shape[-1:], (1,)))
    return net.own(_own_array(shape, draw.one(OWN)))


def _pool(draw: Draw, net: Steps, x: Tensor) -> Step:
    d, least = x.dim() - 2, min(x.shape[2:])
    size, stride, ceil = draw.one(range(1, min(3, least) + 1)), draw.one((None, 1, 2)), draw.one(YES)
    padding, goal = draw.one((0, size // 2)), draw.one((1, 1, least, min(2, least), min(3, least)))
    if draw.traced and least % goal:
        goal = 1  # no tool that exports has windows of unequal sizes
    name = draw.one(("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool"))
    arguments = (goal,) if name.startswith("adaptive") else (size, stride, padding)
    if draw.one(YES):
        return lambda x: getattr(F, f"{name}{d}d")(x, *arguments)
    kind = {"max_pool": "MaxPool", "avg_pool": "AvgPool"}.get(name, "Adaptive" + name[9:12].title() + "Pool")
    options = {} if name.startswith("adaptive") else {"ceil_mode": ceil}
    return _placed(draw, net, getattr(nn, f"{kind}{d}d")(*arguments, **options))


def _resize(draw: Draw, net: Steps, x: Tensor) -> Step:
    if max(x.shape[2:]) > 20:
        return nn.Identity()
    d = x.dim() - 2
    modes = ("nearest", "bilinear") if draw.traced else ("nearest", "bilinear", "bicubic", "nearest-exact")
    mode = draw.one(modes if d == 2 else ("nearest",) if draw.traced else ("nearest", "linear"))
    told = draw.one(({"scale_factor": 2}, {"size": (9, 10)[:d]}, {"size": 9}))
    if draw.one(YES):
        return _placed(draw, net, nn.Upsample(mode=mode, **told))
    return lambda x: F.interpolate(x, mode=mode, **told)


def _block(draw: Draw, net: Steps, x: Tensor) -> Step:
    """A residual connection, squeeze-and-excitation, or a layer called twice."""
    c, kind = x.shape[1], draw.one(("residual", "twice", "excite"))
    if kind != "excite" or x.dim() == 3:
        conv = (nn.Conv2d if x.dim() == 4 else nn.Conv1d)(c, c, 3, padding=1, bias=draw.one(YES))
        if kind == "twice":
            return net.own(Holder(conv, lambda x, conv: conv(conv(x))))
        placed, branch = _placed(draw, net, conv), draw.one(BRANCHES)
        return lambda x: branch(x, placed)
    squeeze, excite, mean = net.own(nn.Conv2d(c, 2, 1)), net.own(nn.Conv2d(2, c, 1)), draw.one(MEANS)
    hard = lambda x: x * F.hardsigmoid(excite(F.relu(squeeze(mean(x)))))  # noqa: E731 -- three alike
    soft = lambda x: torch.mul(x, torch.sigmoid(excite(F.silu(squeeze(mean(x))))))  # noqa: E731 -- three alike
    old = lambda x: x * F.relu6(excite(F.relu(squeeze(mean(x)))) + 3) / 6  # noqa: E731 -- three alike
    return draw.one((hard, soft, old))


def _branch(draw: Draw, net: Steps, x: Tensor) -> Step:
    """A chain beside the input, or a head that runs and whose answer is thrown away."""
    inner, y = _chain(draw, x, 2)
    if y.shape != x.shape or draw.one(RARELY):
        return net.own(Holder(inner, lambda x, inner: (x, inner(x.clone()))[0]))
    return net.own(Holder(inner, draw.one(BRANCHES)))


def _tokens(draw: Draw, _net: Steps, _x: Tensor) -> Step:
    choices = (lambda x: x.flatten(2), lambda x: x.flatten(2).transpose(1, 2), lambda x: x.transpose(1, -1))
    return draw.one(choices)


def _flat(draw: Draw, _net: Steps, x: Tensor) -> Step:
    spatial = tuple(range(2, x.dim()))
    choices = (nn.Flatten(), lambda x: x.flatten(1), lambda x: torch.flatten(x, 1), lambda x: x.mean(spatial))
    return draw.one((*choices, lambda x: x.mean(-1)))


def _linear(draw: Draw, net: Steps, x: Tensor) -> Step:
    kind = draw.one((nn.Linear, nn.Linear, DerivedLinear))
    module = kind(x.shape[-1], draw.one((1, 2, 4, 5)), bias=draw.one(YES))
    if draw.one((True, False, False)):
        weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
        return lambda x: F.linear(x, weight, bias)
    return _placed(draw, net, module)


def _product(draw: Draw, net: Steps, x: Tensor) -> Step:
    k, n = x.shape[-1], draw.one((1, 3)) if draw.traced else 3
    w, many = torch.ones(k, n), torch.ones(2, k, n)
    calls = [lambda x: x @ w, lambda x: torch.matmul(x, w), lambda x: x.matmul(w), lambda x: F.softmax(x, -1)]
    calls.append(lambda x: torch.matmul(x.unsqueeze(-3), many))
    if not draw.traced:
        calls.append(lambda x: torch.matmul(x.contiguous(), w[:, 0]).unsqueeze(-1))
    else:
        calls += [lambda x: x @ x.transpose(-1, -2), net.own(_own_array((k, n), lambda x, w: x @ w))]
    # An Einstein sum's axes of length 1 are read as none, which changes estimates that start from its letters.
    long = min(*x.shape, n) > 1 if draw.traced else k > 1
    if long and not draw.traced:
        calls.append(lambda x: torch.einsum("...k,kn->...n", x, w))
    if x.dim() == 2:
        calls += [lambda x: torch.mm(x, w), lambda x: x.mm(w), lambda x: torch.addmm(torch.ones(n), x, w)]
        calls += [lambda x: torch.einsum("ij,jk->ik", x, w)] if long else []
    if x.dim() == 3:
        calls += BATCHED
        calls += [lambda x: torch.einsum("bik,bjk->bij", x, x)] if long else []
        calls += [lambda x: torch.einsum("bij,jk->bik", x, w)] if long and draw.traced else []
    if x.dim() == 4 and long:
        channels = torch.randn(n, x.shape[1])
        calls.append(lambda x: torch.einsum("nchw,oc->nohw", x, channels))
    return draw.one(calls)


def _row_norm(draw: Draw, net: Steps, x: Tensor) -> Step:
    if x.dim() == 2 and draw.one(YES):
        return _placed(draw, net, nn.BatchNorm1d(x.shape[1], affine=draw.one(YES)))
    return _placed(draw, net, nn.LayerNorm(x.shape[-1], elementwise_affine=draw.one(YES)))


MAP_STEPS = (_conv,) * 3 + (_transposed, _norm, _norm, _activation, _activation, _sign, _pool, _resize, _block)
TRACED_STEPS = (_normed_convolution, _parameter, _branch, _product)
ROW_STEPS = (_linear, _linear, _activation, _sign, _product, _row_norm)
