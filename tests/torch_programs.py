"""Random small networks in PyTorch, as people write them: layers, functions, methods and operator signs mixed.

A program is a chain of steps over one array; a step may branch. What a step may be depends on the array's axes.
"""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F = torch.nn.functional
nn = torch.nn

Step = Callable[[torch.Tensor], torch.Tensor]


class Chain(nn.Module):
    """Steps one after the other; modules among them are its parts."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.parts = nn.ModuleList([step for step in steps if isinstance(step, nn.Module)])

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


class Residual(nn.Module):
    def __init__(self, inner: nn.Module, function: Callable) -> None:
        super().__init__()
        self.inner = inner
        self.function = function

    def forward(self, x):
        return self.function(x, self.inner(x))


class DeadHead(nn.Module):
    """A head that runs, and whose answer is thrown away."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x):
        self.head(x)
        return x


class Twice(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


class Parameter(nn.Module):
    """An array of its own, combined with the input by a function."""

    def __init__(self, shape: tuple[int, ...], function: Callable) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.function = function

    def forward(self, x):
        return self.function(x, self.weight)


def _divisor(draw, number: int) -> int:
    return draw(st.sampled_from([d for d in range(1, number + 1) if number % d == 0]))


def _convolution(draw, shape):
    channels, height, width = shape[1:]
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    span = [dilation * (k - 1) + 1 for k in kernel]
    padding = draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    if padding == "valid":
        dilation, span = 1, list(kernel)
    if padding == "same":
        stride = 1
    elif min(height - span[0], width - span[1]) + 2 * (padding if padding != "valid" else 0) < 0:
        padding = max(span)
    groups = _divisor(draw, channels)
    out = groups * draw(st.integers(1, 3))
    bias = draw(st.booleans())
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "circular"]))
    mode = mode if padding in (0, 1) and min(height, width) > 1 else "zeros"
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    made = nn.Conv2d(channels, out, kernel, bias=bias, padding_mode=mode, **options)
    if draw(st.integers(0, 3)) or mode != "zeros":
        return made
    weight, added = made.weight.detach(), made.bias.detach() if bias else None
    return lambda x: F.conv2d(x, weight, added, **options)


def _transposed(draw, shape):
    groups = _divisor(draw, shape[1])
    stride = draw(st.integers(1, 2))
    kernel = draw(st.integers(2, 3))
    return nn.ConvTranspose2d(
        shape[1],
        groups * draw(st.integers(1, 3)),
        kernel,
        stride,
        draw(st.integers(0, 1)) if min(shape[2:]) > 2 else 0,
        output_padding=draw(st.integers(0, stride - 1)),
        groups=groups,
        bias=draw(st.booleans()),
    )


def _map_norm(draw, shape):
    channels, affine = shape[1], draw(st.booleans())
    pixels = shape[0] * shape[2] * shape[3]
    groups = _divisor(draw, channels)
    choices = [
        nn.BatchNorm2d(channels, affine=affine),
        nn.BatchNorm2d(channels),
        nn.LayerNorm(shape[-draw(st.integers(1, 3)) :], elementwise_affine=affine),
    ]
    if pixels * channels > groups:
        choices.append(nn.GroupNorm(groups, channels, affine=affine))
    if pixels > shape[0]:
        choices.append(nn.InstanceNorm2d(channels, affine=affine))
        choices.append(nn.BatchNorm2d(channels, affine=affine, track_running_stats=False))
    return draw(st.sampled_from(choices))


def _normed_convolution(draw, shape):
    """The common case: batch norm behind a convolution, which an exporter merges."""
    bias, again = draw(st.booleans()), draw(st.booleans())
    out = draw(st.integers(1, 6))
    steps = [nn.Conv2d(shape[1], out, 1, bias=bias), nn.BatchNorm2d(out)]
    return nn.Sequential(*steps, *([nn.BatchNorm2d(out)] if again else []))


def _bilinear(x, **options):
    return F.interpolate(x, mode="bilinear", **options)


def _pool(draw, shape):
    size = (draw(st.integers(1, min(3, shape[2]))), draw(st.integers(1, min(3, shape[3]))))
    options = {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, min(size) // 2))}
    ceil = draw(st.booleans())
    goal = (draw(st.sampled_from([1, shape[2]])), draw(st.sampled_from([1, shape[3]])))
    return draw(
        st.sampled_from(
            [
                nn.MaxPool2d(size, ceil_mode=ceil, **options),
                nn.AvgPool2d(size, ceil_mode=ceil, **options),
                lambda x: F.max_pool2d(x, size, **options),
                lambda x: F.avg_pool2d(x, size),
                nn.AdaptiveAvgPool2d(1),
                nn.AdaptiveAvgPool2d(goal),
                nn.AdaptiveMaxPool2d(1),
                lambda x: F.adaptive_avg_pool2d(x, 1),
                lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True),
                lambda x: x.mean((2, 3), keepdim=True),
                nn.Upsample(scale_factor=2),
                nn.Upsample(scale_factor=2, mode="bilinear"),
                lambda x: _bilinear(x, size=(5, 4)),
                lambda x: F.interpolate(x, scale_factor=2),
            ]
        )
    )


def _activation(draw, _shape):
    return draw(
        st.sampled_from(
            [
                nn.ReLU(),
                nn.ReLU6(),
                nn.Hardswish(),
                nn.Hardsigmoid(),
                nn.Sigmoid(),
                nn.SiLU(),
                nn.GELU(),
                nn.ELU(),
                nn.LeakyReLU(),
                nn.PReLU(),
                nn.Tanh(),
                nn.Softplus(),
                nn.Mish(),
                nn.Hardtanh(),
                nn.Softmax(1),
                nn.Dropout(),
                nn.Identity(),
                F.relu,
                F.relu6,
                F.hardswish,
                F.silu,
                F.gelu,
                F.leaky_relu,
                torch.relu,
                torch.sigmoid,
                torch.tanh,
                lambda x: x.relu(),
                lambda x: x.sigmoid(),
                lambda x: F.softmax(x, dim=-1),
                lambda x: x * F.relu6(x + 3) / 6,
                lambda x: F.relu6(x + 3) / 6,
                lambda x: x * torch.sigmoid(x),
                lambda x: x.clamp(0, 6),
                lambda x: x.clamp(-1, 1),
            ]
        )
    )


def _elements(draw, _shape):
    return draw(
        st.sampled_from(
            [
                lambda x: x + x,
                lambda x: x * x,
                lambda x: x + 1,
                lambda x: x * 2,
                lambda x: 1 - x,
                lambda x: x / 3,
                lambda x: torch.add(x, x),
                lambda x: torch.mul(x, x),
                lambda x: x.mul(2),
                lambda x: x.add(x),
                lambda x: x - x.mean(-1, keepdim=True),
                lambda x: x.abs(),
                lambda x: x.exp(),
                lambda x: (x * x + 1).sqrt(),
                lambda x: x**2,
                lambda x: (x > 0).float() * x,
                lambda x: torch.maximum(x, -x),
                lambda x: F.relu(x) + F.relu(x),
                lambda x: torch.cat([x, x], 1),
                lambda x: x.clone().mul_(2),
                lambda x: x.sum(1, keepdim=True) + x,
                lambda x: x.reshape(x.shape),
                lambda x: x.transpose(-1, -2).contiguous(),
            ]
        )
    )


def _parameter(draw, shape):
    place = draw(st.sampled_from([(shape[1], *(1,) * (len(shape) - 2)), shape[-1:], (1,)]))
    function = draw(
        st.sampled_from(
            [
                lambda x, w: x * w,
                lambda x, w: x + w,
                lambda x, w: torch.mul(x, w),
                lambda x, w: x * (w * 2),
                lambda x, w: x * w.exp(),
                lambda x, w: x - w,
            ]
        )
    )
    return Parameter(place, function)


def _product(draw, shape):
    last, out = shape[-1], draw(st.integers(1, 4))
    weight = torch.randn(last, out)
    choices = [
        lambda x: x @ weight,
        lambda x: torch.matmul(x, weight),
        lambda x: x @ x.transpose(-1, -2),
        Parameter((last, out), lambda x, w: x @ w),
    ]
    # An Einstein sum's axes of length 1 are read as none, which changes estimates that start from its letters.
    long = min(*shape, out) > 1
    if len(shape) == 2:
        choices.append(lambda x: torch.mm(x, weight))
        choices.append(lambda x: torch.addmm(torch.ones(out), x, weight))
    if len(shape) == 2 and long:
        choices.append(lambda x: torch.einsum("ij,jk->ik", x, weight))
    if len(shape) == 3:
        many = torch.randn(shape[0], last, out)
        choices.append(lambda x: torch.bmm(x, many))
        choices.append(lambda x: torch.ones(2, shape[0], 2, shape[1]) @ x)
    if len(shape) == 3 and long:
        choices.append(lambda x: torch.einsum("bij,jk->bik", x, weight))
        choices.append(lambda x: torch.einsum("bij,bkj->bik", x, x))
    if len(shape) == 4:
        channels = torch.randn(out, shape[1])
        if long:
            choices.append(lambda x: torch.einsum("nchw,oc->nohw", x, channels))
        choices.append(lambda x: torch.ones(3, 1, 2, shape[2]) @ x if x.shape[0] == 1 else x @ weight)
        choices.append(lambda x: F.scaled_dot_product_attention(x, x, x))
    return draw(st.sampled_from(choices))


def _row_layer(draw, shape):
    last = shape[-1]
    bias = draw(st.booleans())
    linear = nn.Linear(last, draw(st.integers(1, 5)), bias=bias)
    weight = linear.weight.detach()
    choices = [
        linear,
        lambda x: F.linear(x, weight),
        nn.LayerNorm(last, elementwise_affine=bias),
        nn.LayerNorm(last, bias=False),
        nn.Softmax(-1),
    ]
    if len(shape) == 2:
        choices.append(nn.BatchNorm1d(last))
    return draw(st.sampled_from(choices))


def _sequence_layer(draw, shape):
    channels, length = shape[1:]
    choices = [
        nn.Conv1d(channels, draw(st.integers(1, 4)), draw(st.integers(1, 3)), padding=2, bias=draw(st.booleans())),
        nn.BatchNorm1d(channels),
        nn.AdaptiveAvgPool1d(1),
        nn.MaxPool1d(min(2, length)),
        nn.AvgPool1d(min(2, length)),
        nn.ConvTranspose1d(channels, 3, 2, 2),
    ]
    return draw(st.sampled_from(choices))


def _branch(draw, shape):
    inner = _chain(draw, shape, 2, shape)
    if inner is None:
        return nn.Identity()
    function = draw(
        st.sampled_from(
            [
                lambda x, y: x + y,
                lambda x, y: x * y,
                lambda x, y: torch.add(x, y),
                lambda x, y: x.clone().add_(y),
                lambda x, y: x - y,
            ]
        )
    )
    return Residual(inner, function)


def _dead(draw, shape):
    return DeadHead(_chain(draw, shape, 2, None) or nn.Identity())


def _twice(draw, shape):
    if len(shape) == 4:
        return Twice(nn.Conv2d(shape[1], shape[1], 3, padding=1, bias=draw(st.booleans())))
    return Twice(nn.Linear(shape[-1], shape[-1]))


def _flatten(draw, _shape):
    choices = [nn.Flatten(), lambda x: x.flatten(1), lambda x: x.flatten(2), lambda x: x.mean((2, 3))]
    return draw(st.sampled_from(choices))


_SHARED = [_activation, _elements, _parameter, _product]
_STEPS = {
    4: [_convolution] * 5
    + [_transposed, _map_norm, _map_norm, _normed_convolution, _pool, _pool, _branch, _dead, _twice, _flatten]
    + [_activation, *_SHARED],
    3: [_row_layer, _row_layer, _row_layer, _sequence_layer, _sequence_layer, _twice, _branch, _dead, *_SHARED],
    2: [_row_layer, _row_layer, _row_layer, _twice, _branch, _dead, *_SHARED],
}


def _chain(draw, shape: tuple[int, ...], longest: int, must_be: tuple[int, ...] | None) -> Chain | None:
    """Return a chain of at most `longest` steps; None if it does not come out with the shape it must have."""
    steps: list[Step] = []
    x = torch.zeros(shape)
    for _ in range(draw(st.integers(1, longest))):
        step = draw(st.sampled_from(_STEPS[x.dim()]))(draw, tuple(x.shape))
        with torch.no_grad():
            x = (step.eval() if isinstance(step, nn.Module) else step)(x)
        steps.append(step)
        if x.numel() > 20_000 or x.dim() not in _STEPS:
            break
    return Chain(steps) if must_be in (None, tuple(x.shape)) else None


@st.composite
def programs(draw) -> tuple[nn.Module, torch.Tensor]:
    """A network in evaluation mode and an input for it: a map, a sequence of rows, or rows."""
    batch = draw(st.integers(1, 2))
    axes = draw(st.sampled_from([2, 3, 4, 4, 4]))
    if axes == 4:
        shape = (batch, draw(st.sampled_from([2, 4, 6])), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    else:
        shape = (batch, *(draw(st.integers(1, 6)) for _ in range(axes - 1)))
    network = _chain(draw, shape, 5, None)
    return network.eval(), torch.ones(shape)
