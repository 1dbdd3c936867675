"""Every kernel beside PyTorch's own operator and beside what the machine can do, on one thread.

    python bench/bench_kernels.py [--spaces tiny,ofa-mbv3] [--batch 32] [--rounds 15] [--rows] [--json]

Shapes are those of the largest network of each space (8x8x1 and 32x32x3 images, all exits). Kernels are called
through their operators, as training does: forward without a tape, then the gradients in the input and the weights,
each with its own tape of one step, whose forward pass is not timed. PyTorch runs the same in NCHW and in
channels_last; the faster one counts. `of limit` is the time that the machine needs at least, measured in the same
rounds, as a share of ours: for convolutions that are matrix products, one NumPy matrix product (BLAS) of the same
shape; for all others, copying the larger of the maps they read and write. Means are geometric. The kernels of
`dominance.py` are in `bench_nsga2.py`.
"""

import json as json_format
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from fire import Fire
from measuring import machine, on_threads, show

IMAGES = {"tiny": (8, 8, 1), "micro": (8, 8, 1), "ofa-mbv3": (32, 32, 3)}
LEAST = 2e-4  # seconds of a round: faster calls are repeated


@dataclass(frozen=True)
class Case:
    """One operator on one shape.

    Attributes:
        name, shape: for the table; the shape is N H W C of the input.
        inputs: arrays by name; the first is the map.
        ours: operator on our Tensors.
        theirs: the same on PyTorch's, maps N C H W.
        weights: how PyTorch's weights are made of ours, by name; others are the same.
        limit: pass (`forward` or the name of an input) -> a task that takes as long as the machine must.
    """

    name: str
    shape: tuple[int, ...]
    inputs: dict[str, Any]
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    limit: dict[str, Callable[[], Any]] = field(default_factory=dict)


def product_limits(rows: int, inner: int, columns: int) -> dict[str, Callable[[], Any]]:
    """Return matrix products of the shapes of a convolution's three passes."""
    import numpy as np

    a, b, c = (np.ones(shape, np.float32) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    x, w = np.empty_like(a), np.empty_like(b)
    return {
        "forward": lambda: np.matmul(a, b, out=c),
        "x": lambda: np.matmul(c, b.T, out=x),
        "w": lambda: np.matmul(a.T, c, out=w),
    }


def copy_limits(elements: int, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
    """Return, for each pass, the copying of an array of so many elements."""
    import numpy as np

    source, target = np.ones(elements, np.float32), np.empty(elements, np.float32)
    return dict.fromkeys(("forward", *names), lambda: np.copyto(target, source))


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
            copy_limits(max(x.size, batch * math.prod(out)), ("x", "w")),
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
        )
    if op.bias:
        return  # of an exit's head, which has no batch norm
    y = rng.standard_normal((batch, *out), np.float32)
    gamma, beta, mean, var = (rng.random(out[2], np.float32) + 0.5 for _ in range(4))
    yield Case(
        "batch norm + hswish, training",
        y.shape,
        {"x": y, "gamma": gamma, "beta": beta},
        lambda x, gamma, beta: batch_norm(x, gamma, beta, eps=1e-5, activation="hswish")[0],
        lambda x, gamma, beta: F.hardswish(F.batch_norm(x, None, None, gamma, beta, True, 0.1, 1e-5)),
        {},
        copy_limits(y.size, ("x", "gamma", "beta")),
    )
    yield Case(
        "batch norm + hswish, inference",
        y.shape,
        {"x": y},
        lambda x: batch_norm_infer(x, as_tensor(gamma), as_tensor(beta), mean, var, eps=1e-5, activation="hswish"),
        lambda x: F.hardswish(F.batch_norm(x, *map(as_torch, (mean, var, gamma, beta)), False, 0.1, 1e-5)),
        {},
        copy_limits(y.size, ("x",)),
    )


def elementwise(shape: tuple[int, ...], rng: Any) -> Iterator[Case]:
    """Yield activations and pools on a map."""
    import numpy as np

    from nachos_min import autograd

    if find_spec("torch"):
        import torch
        import torch.nn.functional as F
    x = rng.standard_normal(shape, np.float32)
    limits = copy_limits(x.size, ("x",))
    cases: dict[str, tuple[Any, Any]] = {
        "relu": (autograd.relu, lambda x: torch.relu(x)),
        "hswish": (autograd.hswish, lambda x: F.hardswish(x)),
        "hsigmoid": (autograd.hsigmoid, lambda x: F.hardsigmoid(x)),
        "sigmoid": (autograd.sigmoid, lambda x: torch.sigmoid(x)),
        "global average": (autograd.global_avg_pool, lambda x: x.mean((2, 3))),
    }
    if shape[1] % 2 == 0:
        cases["max pool 2x2"] = (lambda x: autograd.max_pool(x, size=2, stride=2), lambda x: F.max_pool2d(x, 2))
        cases["average pool 2x2"] = (lambda x: autograd.avg_pool(x, size=2, stride=2), lambda x: F.avg_pool2d(x, 2))
    for name, (ours, theirs) in cases.items():
        yield Case(name, shape, {"x": x}, ours, theirs, {}, limits)


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


Prepared = Callable[[], Callable[[], Any]]  # makes ready what is not timed, and returns what is


def our_pass(case: Case, what: str) -> Prepared:
    """Return one pass of ours."""
    from nachos_min.autograd import Tensor, no_grad

    tensors = {name: Tensor(array, requires_grad=name == what) for name, array in case.inputs.items()}

    def forward() -> Any:
        with no_grad():
            return case.ours(**tensors)

    if what == "forward":
        return lambda: forward
    upstream = forward().data * 0 + 1

    def backward() -> Callable[[], Any]:
        tensors[what].grad = None
        y = case.ours(**tensors)
        return lambda: y.backward(upstream)

    return backward


def torch_pass(case: Case, what: str, channels_last: bool) -> Prepared:
    """Return the same pass of PyTorch."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    tensors = {}
    for name, array in case.inputs.items():
        t = torch.from_numpy(array.copy())
        t = t.permute(0, 3, 1, 2) if name == "x" else t.permute(case.weights[name]) if name in case.weights else t
        t = t.contiguous(memory_format=layout) if t.ndim == 4 else t.contiguous()
        tensors[name] = t.requires_grad_(name == what)

    def forward() -> Any:
        with torch.no_grad():
            return case.theirs(**tensors)

    if what == "forward":
        return lambda: forward
    upstream = torch.ones_like(forward())

    def backward() -> Callable[[], Any]:
        y = case.theirs(**tensors)
        return lambda: torch.autograd.grad(y, tensors[what], upstream)

    return backward


def best(passes: dict[str, Prepared], rounds: int) -> dict[str, float]:
    """Return the seconds of the best call of each pass, the passes taking turns."""
    found = dict.fromkeys(passes, float("inf"))
    for turn in range(-1, rounds):
        for name, prepare in passes.items():
            spent = 0.0
            while spent < LEAST:
                task = prepare()
                begin = time.perf_counter()
                task()
                once = time.perf_counter() - begin
                spent += once
                if turn >= 0:
                    found[name] = min(found[name], once)
    return found


def geometric_mean(values: list[float]) -> float | None:
    """Return the geometric mean, None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def main(
    spaces: str | tuple[str, ...] = "tiny,ofa-mbv3",
    batch: int = 32,
    rounds: int = 15,
    rows: bool = False,
    threads: int = 1,
    json: bool = False,
) -> None:
    """Print means over the shapes of each kernel; --rows prints every shape, --json one JSON object with both."""
    on_threads(threads)
    peers = find_spec("torch") is not None
    if peers:
        import torch

        torch.set_num_threads(threads)
    found: list[dict[str, Any]] = []
    for space in spaces.split(",") if isinstance(spaces, str) else spaces:
        for case in cases_of(space, batch):
            for what in ("forward", *case.inputs):
                passes = {"ours": our_pass(case, what), "limit": lambda task=case.limit[what]: task}
                if peers:
                    passes["torch"] = torch_pass(case, what, False)
                    passes["channels_last"] = torch_pass(case, what, True)
                us = {name: 1e6 * value for name, value in best(passes, rounds).items()}
                peer = min((us[name] for name in ("torch", "channels_last") if name in us), default=None)
                row: dict[str, Any] = {"space": space, "kernel": case.name, "pass": what}
                row |= {"shape": "x".join(map(str, case.shape)), "ours us": us["ours"]}
                row |= {"torch us": us.get("torch"), "channels_last us": us.get("channels_last")}
                row |= {"times faster": peer / us["ours"] if peer else None, "of limit": us["limit"] / us["ours"]}
                found.append(row)
    means = []
    for space, kernel, what in dict.fromkeys((row["space"], row["kernel"], row["pass"]) for row in found):
        group = [row for row in found if (row["space"], row["kernel"], row["pass"]) == (space, kernel, what)]
        mean: dict[str, Any] = {"space": space, "kernel": kernel, "pass": what, "shapes": len(group)}
        for figure in ("ours us", "times faster", "of limit"):
            mean[figure] = geometric_mean([row[figure] for row in group if row[figure] is not None])
        mean["worst"] = min((row["times faster"] for row in group if row["times faster"]), default=None)
        means.append(mean)
    facts = machine(threads)
    if json:
        print(json_format.dumps({"machine": facts, "batch": batch, "means": means, "rows": found}))
    else:
        show({**facts, "batch": batch}, found if rows else means)


if __name__ == "__main__":
    Fire(main)
