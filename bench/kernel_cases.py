"""What `bench_kernels.py` measures: each operator on the shapes that the largest network of a space needs.

A case says what of ours stands beside what of PyTorch's, and beside which least work of the machine. Left out:
how they are timed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

IMAGES = {"tiny": (8, 8, 1), "micro": (8, 8, 1), "ofa-mbv3": (32, 32, 3)}


@dataclass(frozen=True)
class Case:
    """One operator on one shape.

    Attributes:
        name, shape: for the table; the shape is N H W C of the input.
        inputs: arrays by name; the first is the map.
        ours: operator on our Tensors.
        theirs: the same on PyTorch's, maps N C H W.
        weights: how PyTorch's weights are made of ours, by name; others are the same.
        limits: pass (`forward`, or the inputs that gradients are of) -> tasks, the fastest of which is the limit.
        macs: multiplications of each pass, 0 if it is bound by memory.
    """

    name: str
    shape: tuple[int, ...]
    inputs: dict[str, Any]
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    weights: dict[str, tuple[int, ...]]
    limits: dict[str, tuple[Callable[[], Any], ...]]
    macs: int = 0


def product_limits(rows: int, inner: int, columns: int) -> dict[str, tuple[Callable[[], Any], ...]]:
    """Return matrix products of the shapes of a convolution's three passes."""
    import numpy as np

    a, b, c = (np.ones(shape, np.float32) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    (x, w), (at, bt) = (np.empty_like(a), np.empty_like(b)), (np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))
    return {
        "forward": (lambda: np.matmul(a, b, out=c),),
        "x": (lambda: np.matmul(c, b.T, out=x), lambda: np.matmul(c, bt, out=x)),
        "w": (lambda: np.matmul(a.T, c, out=w), lambda: np.matmul(at, c, out=w)),
    }


def copy_limits(**numbers: float) -> dict[str, tuple[Callable[[], Any], ...]]:
    """Return, for each pass, a copy that reads and writes as many numbers in all."""
    import numpy as np

    def copy(count: int) -> Callable[[], Any]:
        source, target = np.ones(count, np.float32), np.ones(count, np.float32)
        return lambda: np.copyto(target, source)

    return {name: (copy(max(1, round(count / 2))),) for name, count in numbers.items()}


def convolutions(op: Any, batch: int, rng: Any) -> Iterator[Case]:
    """Yield the case of a convolution's record and, behind it, batch norm on what it writes."""
    import numpy as np

    from nachos_min.autograd import batch_norm, batch_norm_infer, conv2d, depthwise_conv2d

    if find_spec("torch"):
        import torch.nn.functional as F
    (height, width, channels), out, (kh, kw) = op.input, op.output, op.kernel
    x = rng.standard_normal((batch, height, width, channels), np.float32)
    settings = {"stride": op.stride, "padding": op.padding}
    square = {"stride": op.stride, "padding": (op.padding[0], op.padding[2])}
    if op.groups == channels and channels > 1:
        w = rng.standard_normal((kh, kw, channels), np.float32)
        yield Case(
            f"depthwise {kh}x{kw}/{op.stride[0]}",
            x.shape,
            {"x": x, "w": w},
            lambda x, w: depthwise_conv2d(x, w, **settings),
            lambda x, w: F.conv2d(x, w[:, None], None, **square, groups=channels),
            {"w": (2, 0, 1)},
            copy_limits(**dict.fromkeys(("forward", "x", "w"), x.size + batch * math.prod(out))),
        )
    else:
        w = rng.standard_normal((kh, kw, channels, out[2]), np.float32)
        yield Case(
            f"conv {kh}x{kw}/{op.stride[0]}",
            x.shape,
            {"x": x, "w": w},
            lambda x, w: conv2d(x, w, **settings),
            lambda x, w: F.conv2d(x, w, None, **square),
            {"w": (3, 2, 0, 1)},
            product_limits(batch * out[0] * out[1], kh * kw * channels, out[2]),
            w.size * batch * out[0] * out[1],
        )
    if op.bias:
        return  # of an exit's head, which has no batch norm
    y = rng.standard_normal((batch, *out), np.float32)
    gamma, beta, mean, var = (rng.random(out[2], np.float32) + 0.5 for _ in range(4))
    yield Case(
        "batch norm + hswish, training",
        y.shape,
        {"x": y, "gamma": gamma},
        lambda x, gamma: batch_norm(x, gamma, as_tensor(beta), eps=1e-5, activation="hswish")[0],
        lambda x, gamma: F.hardswish(F.batch_norm(x, None, None, gamma, as_torch(beta), True, 0.1, 1e-5)),
        {},
        copy_limits(forward=2 * y.size, x=3 * y.size, gamma=2 * y.size),
    )
    yield Case(
        "batch norm + hswish, inference",
        y.shape,
        {"x": y},
        lambda x: batch_norm_infer(x, as_tensor(gamma), as_tensor(beta), mean, var, eps=1e-5, activation="hswish"),
        lambda x: F.hardswish(F.batch_norm(x, *map(as_torch, (mean, var, gamma, beta)), False, 0.1, 1e-5)),
        {},
        copy_limits(forward=2 * y.size, x=3 * y.size),
    )


def elementwise(shape: tuple[int, ...], rng: Any) -> Iterator[Case]:
    """Yield activations, sums, products and pools on a map."""
    import numpy as np

    from nachos_min import autograd

    if find_spec("torch"):
        import torch
        import torch.nn.functional as F
    x, other, bias = (rng.standard_normal(size, np.float32) for size in (shape, shape, shape[3]))
    n, averages = x.size, shape[0] * shape[3]
    activations: dict[str, tuple[Any, Any]] = {
        "relu": (autograd.relu, lambda x: torch.relu(x)),
        "hswish": (autograd.hswish, lambda x: F.hardswish(x)),
        "hsigmoid": (autograd.hsigmoid, lambda x: F.hardsigmoid(x)),
        "sigmoid": (autograd.sigmoid, lambda x: torch.sigmoid(x)),
    }
    for name, (ours, theirs) in activations.items():
        yield Case(name, shape, {"x": x}, ours, theirs, {}, copy_limits(forward=2 * n, x=3 * n))
    pair, maps = {"x": x, "y": other}, {"y": (0, 3, 1, 2)}
    yield Case("add", shape, pair, lambda x, y: x + y, lambda x, y: x + y, maps, copy_limits(forward=3 * n))
    both = copy_limits(forward=3 * n, x=3 * n, y=3 * n)
    yield Case("multiply", shape, pair, lambda x, y: x * y, lambda x, y: x * y, maps, both)
    for name, relu, limits in (
        ("bias", False, copy_limits(forward=2 * n, b=n)),
        ("bias + relu", True, copy_limits(**{"forward": 2 * n, "x b": 3 * n})),
    ):
        ours, theirs = partial(biased, relu=relu), partial(torch_biased, relu=relu)
        yield Case(name, shape, {"x": x.copy(), "b": bias}, ours, theirs, {}, limits)
    averaged = copy_limits(forward=n + averages, x=n + averages)
    yield Case("global average", shape, {"x": x}, autograd.global_avg_pool, lambda x: x.mean((2, 3)), {}, averaged)
    if shape[1] % 2 == 0:
        quartered, placed = copy_limits(forward=1.25 * n, x=1.25 * n), copy_limits(forward=1.5 * n, x=1.5 * n)
        pools: dict[str, tuple[Any, Any, Any]] = {
            "max pool 2x2": (autograd.max_pool, lambda x: F.max_pool2d(x, 2), placed),
            "average pool 2x2": (autograd.avg_pool, lambda x: F.avg_pool2d(x, 2), quartered),
        }
        for name, (pool, theirs, limits) in pools.items():
            yield Case(name, shape, {"x": x}, lambda x, pool=pool: pool(x, size=2), theirs, {}, limits)


def biased(x: Any, b: Any, relu: bool) -> Any:
    """Return x plus b, added in place: what a convolution does behind its products, forward and back."""
    from nachos_kernels.batch_norm import bias_forward, bias_grad
    from nachos_min.autograd.tape import once, record

    bias_forward(x.data, b.data, relu)
    behind = once(lambda g: bias_grad(g, x.data, relu))
    return record(x.data, (x, lambda g: behind(g)[0]), (b, lambda g: behind(g)[1]))


def torch_biased(x: Any, b: Any, relu: bool) -> Any:
    """Return the same of PyTorch, in place where nothing is recorded, as only the forward pass is timed there."""
    import torch

    recorded = torch.is_grad_enabled()
    y = x + b[:, None, None] if recorded else x.add_(b[:, None, None])
    return (torch.relu(y) if recorded else y.relu_()) if relu else y


def cases_of(space: str, batch: int) -> Iterator[Case]:
    """Yield the cases of the largest network of a space, each shape once."""
    import numpy as np

    from nachos_min.eenn.lowering import lower
    from nachos_min.macs.windows import Conv2d
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.space import load_space

    coder = GenomeCoder(load_space(space), IMAGES[space], 10)
    graph = lower(coder.decode(tuple(coder.canonical(np.array([coder.upper]))[0].tolist())))
    rng = np.random.default_rng(0)
    seen = set()
    for op in dict.fromkeys(node.op for node in graph if isinstance(node.op, Conv2d)):
        for case in convolutions(op, batch, rng):
            shapes = tuple(array.shape for array in case.inputs.values())
            if (case.name, shapes) not in seen:
                seen.add((case.name, shapes))
                yield case
    for shape in sorted({(batch, *node.op.output) for node in graph if isinstance(node.op, Conv2d)}):
        yield from elementwise(shape, rng)


def as_tensor(array: Any) -> Any:
    """Return a constant of this project."""
    from nachos_min.autograd import Tensor

    return Tensor(array)


def as_torch(array: Any) -> Any:
    """Return a constant of PyTorch."""
    import torch

    return torch.from_numpy(array)
