"""Small PyTorch networks drawn at random, for holding predictions against what other tools report.

`network(choose)` grows a network step by step, running it as it grows so that every step fits; `choose` picks one
of several things, by Hypothesis or by any other source.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F = torch.nn.functional
nn = torch.nn
Choose = Callable[[Sequence[Any]], Any]
Tensor = Any
YES = (True, False)


class Steps(nn.Module):
    """Calls functions one after another; the modules they call stand in it under names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[Tensor], Tensor]] = []

    def own(self, module: nn.Module) -> nn.Module:
        self.add_module(f"m{len(self._modules)}", module)
        return module

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class DerivedConv2d(nn.Conv2d):
    pass


class Separable(nn.Conv2d):
    """A convolution whose class name does not say so."""


class DerivedLinear(nn.Linear):
    pass


class DerivedNorm(nn.BatchNorm2d):
    pass


class OwnReLU(nn.ReLU):
    pass


class Holder(nn.Module):
    """A parent whose only child may stand elsewhere, too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def network(choose: Choose) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode, and an array to call it with."""
    torch.manual_seed(0)
    net = Steps().eval()
    axes = choose((2, 2, 2, 1))
    shape = (choose((1, 1, 2, 3)), choose((3, 4, 8)), *(choose((7, 8, 12)) for _ in range(axes)))
    given = torch.randn(shape)
    x = given
    for _ in range(choose((1, 2, 3, 4, 5))):
        x = _grow(net, choose, x, choose(MAP_STEPS))
    if choose(YES):
        x = _grow(net, choose, x, choose(ENDS))
        for _ in range(choose((0, 1, 2, 3))):
            x = _grow(net, choose, x, choose(ROW_STEPS))
    return net.eval(), given


def _grow(net: Steps, choose: Choose, x: Tensor, draw: Callable[..., Callable[[Tensor], Tensor]]) -> Tensor:
    step = draw(net, choose, x)
    net.steps.append(step)
    with torch.no_grad():
        return net.eval().steps[-1](x.clone())


def _placed(net: Steps, choose: Choose, module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A module of the network: once, under two parents, or within a parent that calls it twice."""
    where = choose(("here", "here", "here", "here", "two parents", "two names", "nested"))
    if where == "two parents":
        net.own(Holder(module))
        return net.own(Holder(module))
    if where == "two names":
        net.own(module)
    return net.own(nn.Sequential(Holder(module)) if where == "nested" else module)


def _conv(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    channels = x.shape[1]
    axes = x.dim() - 2
    kernel = tuple(choose((1, 2, 3)) for _ in range(axes))
    groups = choose([g for g in (1, 1, 2, 4, channels) if channels % g == 0])
    out = groups * choose((1, 2, 3))
    word = choose((None, None, "same", "valid"))
    options = {
        "stride": 1 if word == "same" else choose((1, 2, (2, 1)[:axes])),
        "padding": word or choose((0, 1, (1, 0)[:axes])),
        "dilation": choose((1, 1, 2)),
        "groups": groups,
        "bias": choose(YES),
        "padding_mode": choose(("zeros", "zeros", "zeros", "reflect", "circular")),
    }
    reach = [options["dilation"] * (k - 1) + 1 for k in kernel]
    if min(n - r for n, r in zip(x.shape[2:], reach, strict=True)) < 0:
        kernel, options["padding"] = (1,) * axes, 0
    if min(x.shape[2:]) < 4:
        options["padding_mode"] = "zeros"
    kind = choose((nn.Conv2d, nn.Conv2d, nn.Conv2d, DerivedConv2d, Separable)) if axes == 2 else nn.Conv1d
    module = kind(channels, out, kernel, **options)
    if choose((True, False, False, False)):
        weight, function = module.weight.detach(), "conv2d" if axes == 2 else "conv1d"
        bias = None if module.bias is None else module.bias.detach()
        rest = (options["stride"], options["padding"], options["dilation"], groups)
        return lambda x: getattr(F, function)(x, weight, bias, *rest)
    return _placed(net, choose, module)


def _transposed(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    channels = x.shape[1]
    stride = choose((1, 2))
    padding = choose((0, 1)) if min(x.shape[2:]) > 1 else 0
    groups = choose([g for g in (1, 2, channels) if channels % g == 0])
    kind = nn.ConvTranspose2d if x.dim() == 4 else nn.ConvTranspose1d
    module = kind(
        channels,
        groups * choose((1, 2, 4)),
        choose((2, 3)),
        stride,
        padding,
        output_padding=choose((0, stride - 1)),
        groups=groups,
        bias=choose(YES),
        dilation=choose((1, 1, 2)),
    )
    return _placed(net, choose, module)


def _norm(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    channels, flat = x.shape[1], x.dim() == 3
    groups = 2 if channels % 2 == 0 else 1
    affine = choose(YES)
    kinds = [
        lambda: (nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, affine=affine),
        lambda: (nn.BatchNorm1d if flat else DerivedNorm)(channels, affine=affine),
        lambda: (nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, affine=affine, track_running_stats=False),
        lambda: nn.GroupNorm(groups, channels, affine=affine),
        lambda: nn.LayerNorm(x.shape[1:], elementwise_affine=affine),
        lambda: nn.LayerNorm(x.shape[-1], bias=affine),
    ]
    if min(x.shape[2:]) > 1:
        kinds.append(lambda: (nn.InstanceNorm1d if flat else nn.InstanceNorm2d)(channels, affine=affine))
    return _placed(net, choose, choose(kinds)())


MODULES = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.Sigmoid,
        nn.SiLU,
        nn.GELU,
        nn.ELU,
        nn.LeakyReLU,
        nn.PReLU,
    ),
    *(nn.Tanh, nn.Dropout, nn.Identity, nn.Softplus, nn.Mish, nn.Hardtanh, OwnReLU, nn.SELU),
)
CALLS = (
    lambda x: F.relu(x),
    lambda x: F.relu(x, inplace=True),
    lambda x: torch.relu(x),
    lambda x: x.relu(),
    lambda x: x.relu_(),
    lambda x: F.relu6(x),
    lambda x: F.hardswish(x),
    lambda x: F.silu(x),
    lambda x: F.gelu(x),
    lambda x: F.elu(x),
    lambda x: F.leaky_relu(x),
    lambda x: torch.sigmoid(x),
    lambda x: x.sigmoid(),
    lambda x: x.tanh(),
    lambda x: x.clamp(0, 6),
    lambda x: x.exp(),
    lambda x: x.softmax(1),
    lambda x: F.softmax(x, 1),
    lambda x: torch.softmax(x, -1),
    lambda x: x * F.relu6(x + 3) / 6,
    lambda x: F.relu6(x + 3) / 6,
    lambda x: x * torch.sigmoid(x),
)


def _activation(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    if choose(YES):
        return _placed(net, choose, choose(MODULES)())
    if choose((True, False, False, False)):
        return _placed(net, choose, nn.PReLU(x.shape[1]))
    return choose(CALLS)


def _sign(_net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    spatial = (1,) * (x.dim() - 2)
    shapes = ((1, 1, *spatial), (x.shape[1], *spatial), x.shape[-1:], x.shape[1:], (1, *x.shape[1:]))
    y = torch.ones(choose(shapes))
    return choose(
        (
            lambda x: x + x,
            lambda x: x + y,
            lambda x: torch.add(x, y),
            lambda x: torch.add(y, x),
            lambda x: torch.add(x, 2),
            lambda x: x.add(y),
            lambda x: x.add_(y),
            lambda x: x.mul(y),
            lambda x: x.mul(3),
            lambda x: torch.mul(x, y),
            lambda x: x * y,
            lambda x: 2 * x,
            lambda x: x - y,
            lambda x: 1 - x,
            lambda x: x / 2,
            lambda x: x * x.mean(-1, keepdim=True),
            lambda x: torch.mul(x.mean(-1, keepdim=True), x),
            lambda x: torch.cat((x, x), 1),
            lambda x: x[:, : max(1, x.shape[1] // 2)],
        )
    )


def _pool(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    if min(x.shape[2:]) < 3:
        return nn.Identity()
    d = x.dim() - 2
    size, stride, padding = choose((2, 3)), choose((None, 1, 2)), choose((0, 1))
    ceil = choose(YES)
    adaptive = choose((1, 2, 3))
    kinds = {
        2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    }[d]
    made = choose(range(8))
    if made == 0:
        return _placed(net, choose, kinds[0](size, stride, padding, ceil_mode=ceil))
    if made == 1:
        return _placed(net, choose, kinds[1](size, stride, padding, ceil_mode=ceil))
    if made in (2, 3):
        return _placed(net, choose, kinds[made](adaptive))
    name = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")[made - 4] + f"{d}d"
    arguments = (size, stride, padding) if made < 6 else (adaptive,)
    return lambda x: getattr(F, name)(x, *arguments)


def _resize(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    if x.shape[-1] > 20:
        return nn.Identity()
    d = x.dim() - 2
    mode = choose(("nearest", "bilinear", "bicubic", "nearest-exact") if d == 2 else ("nearest", "linear"))
    told = choose(({"scale_factor": 2}, {"size": (9, 10)[:d]}, {"size": 9}))
    if choose(YES):
        return _placed(net, choose, nn.Upsample(mode=mode, **told))
    return lambda x: F.interpolate(x, mode=mode, **told)


def _block(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Residual connection, or squeeze-and-excitation."""
    c = x.shape[1]
    if choose(YES) or x.dim() == 3:
        kind = nn.Conv2d if x.dim() == 4 else nn.Conv1d
        conv = _placed(net, choose, kind(c, c, 3, padding=1, bias=choose(YES)))
        return choose(
            (
                lambda x: x + conv(x),
                lambda x: torch.add(x, conv(x)),
                lambda x: conv(x).add_(x),
                lambda x: conv(conv(x)) + x,
                lambda x: F.relu(conv(x) + x),
            )
        )
    squeeze, excite = net.own(nn.Conv2d(c, 2, 1)), net.own(nn.Conv2d(2, c, 1))
    mean = choose(
        (
            lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True),
            lambda x: x.mean((2, 3), keepdim=True),
            lambda x: F.adaptive_avg_pool2d(x, 1),
        )
    )
    return choose(
        (
            lambda x: x * F.hardsigmoid(excite(F.relu(squeeze(mean(x))))),
            lambda x: torch.mul(x, torch.sigmoid(excite(F.silu(squeeze(mean(x)))))),
            lambda x: x * F.relu6(excite(F.relu(squeeze(mean(x)))) + 3) / 6,
        )
    )


def _tokens(_net: Steps, choose: Choose, _x: Tensor) -> Callable[[Tensor], Tensor]:
    return choose((lambda x: x.flatten(2), lambda x: x.flatten(2).transpose(1, 2), lambda x: x.transpose(1, -1)))


def _flat(_net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    spatial = tuple(range(2, x.dim()))
    return choose(
        (lambda x: x.flatten(1), lambda x: torch.flatten(x, 1), lambda x: x.mean(spatial), lambda x: x.mean(-1))
    )


def _linear(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    kind = choose((nn.Linear, nn.Linear, DerivedLinear))
    module = kind(x.shape[-1], choose((2, 4, 5)), bias=choose(YES))
    if choose((True, False, False)):
        weight = module.weight.detach()
        bias = None if module.bias is None else module.bias.detach()
        return lambda x: F.linear(x, weight, bias)
    return _placed(net, choose, module)


def _product(_net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    k = x.shape[-1]
    w, many = torch.ones(k, 3), torch.ones(2, k, 3)
    calls = [
        lambda x: x @ w,
        lambda x: torch.matmul(x, w),
        lambda x: x.matmul(w),
        lambda x: F.softmax(x, -1),
        lambda x: torch.matmul(x.contiguous(), w[:, 0]).unsqueeze(-1),
        lambda x: torch.matmul(x.unsqueeze(-3), many),
    ]
    if k > 1:  # a sum over a single element is none to PyTorch, but is to NumPy, which calflops asks
        calls += [lambda x: torch.einsum("...k,kn->...n", x, w)]
    if x.dim() == 2:
        calls += [
            lambda x: torch.mm(x, w),
            lambda x: x.mm(w),
            lambda x: torch.addmm(torch.ones(3), x, w),
        ]
    if x.dim() == 3:
        calls += [
            lambda x: torch.bmm(x, x.transpose(1, 2)),
            lambda x: x.bmm(x.transpose(1, 2)),
            lambda x: torch.baddbmm(torch.zeros(1), x, x.transpose(1, 2)),
            lambda x: torch.einsum("bik,bjk->bij", x, x) if k > 1 else x,
            lambda x: F.scaled_dot_product_attention(x, x, x),
            lambda x: F.scaled_dot_product_attention(x.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1)).squeeze(1),
            lambda x: torch.softmax(x @ x.transpose(-2, -1) / k**0.5, -1) @ x,
        ]
    return choose(calls)


def _row_norm(net: Steps, choose: Choose, x: Tensor) -> Callable[[Tensor], Tensor]:
    if x.dim() == 2 and choose(YES):
        return _placed(net, choose, nn.BatchNorm1d(x.shape[1], affine=choose(YES)))
    return _placed(net, choose, nn.LayerNorm(x.shape[-1], elementwise_affine=choose(YES)))


MAP_STEPS = (
    _conv,
    _conv,
    _conv,
    _transposed,
    _norm,
    _norm,
    _activation,
    _activation,
    _sign,
    _pool,
    _resize,
    _block,
)
SEQUENCE_STEPS = MAP_STEPS
ENDS = (_flat, _flat, _tokens)
ROW_STEPS = (_linear, _linear, _activation, _sign, _product, _row_norm)
