"""Every kernel beside PyTorch's own operator and beside what the machine can do, on one thread.

    python bench/bench_kernels.py [--spaces tiny,ofa-mbv3] [--batch 32] [--rounds 15] [--only conv] [--rows]
        [--json]

Shapes are those of the largest network of each space (8x8x1 and 32x32x3 images, all exits). What is timed, of
both libraries alike: `forward` is one call of the operator that records nothing; the gradient in the map `x`, in
the weights `w` and so on is one backward pass through that operator alone, its forward pass not timed and no other
gradient wanted. Both times hold the library's own cost of a call, which is all there is on the smallest maps.
PyTorch runs in NCHW and in channels_last; the faster one counts. Freed memory is kept, for both
(`nachos_min/autograd/memory.py`).

    times faster   PyTorch's time / ours, summed over the shapes of the row; `worst`: that of a single shape
    of limit       the least time the machine needs / ours, summed likewise; `largest`: of the largest map alone
    of peak        multiplications a second / those of a product of two 1024x1024 matrices

The limit is measured in the same rounds. For convolutions it is one NumPy product (BLAS) of matrices of that
shape, contiguous and warm, transposed beforehand or on the way, whichever is faster: 3x3 convolutions may do
better, by multiplying less (`winograd.py`). For all others it is copying as many bytes as the operator must read
and write if it touches every array once. The kernels of `dominance.py` are in `bench_nsga2.py`.
"""

import json as json_format
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        limits: pass (`forward`, or the input that a gradient is of) -> tasks, the fastest of which is the limit.
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
    biased, with_bias = copy_limits(forward=2 * n, b=n), {"x": x, "b": bias}
    yield Case("add bias", shape, with_bias, lambda x, b: x + b, lambda x, b: x + b[:, None, None], {}, biased)
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


def inside(array: Any) -> Any:
    """Return a tensor in the middle of a tape, where maps are in training: only a leaf's gradient is copied."""
    import numpy as np

    from nachos_min.autograd import Tensor
    from nachos_min.autograd.tape import record

    nothing = np.zeros((), array.dtype)
    return record(array, (Tensor(nothing, requires_grad=True), lambda _g: nothing))


def our_pass(case: Case, what: str) -> Prepared:
    """Return one pass of ours."""
    from nachos_min.autograd import Tensor, no_grad

    tensors = {name: Tensor(array) for name, array in case.inputs.items()}

    def forward() -> Any:
        with no_grad():
            return case.ours(**tensors)

    if what == "forward":
        return lambda: forward
    upstream = forward().data * 0 + 1

    def backward() -> Callable[[], Any]:
        y = case.ours(**tensors | {what: inside(case.inputs[what])})
        return lambda: y.backward(upstream)

    return backward


def torch_pass(case: Case, what: str, channels_last: bool) -> Prepared:
    """Return the same pass of PyTorch."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    tensors = {}
    for name, array in case.inputs.items():
        t = torch.from_numpy(array.copy())
        order = {"x": (0, 3, 1, 2), **case.weights}.get(name)
        t = t.permute(order) if order else t
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


def measure(space: str, case: Case, what: str, rounds: int, peers: bool) -> dict[str, Any]:
    """Return the row of one pass of a case, times in microseconds."""
    passes = {"ours": our_pass(case, what)}
    passes |= {f"limit {i}": lambda task=task: task for i, task in enumerate(case.limits[what])}
    if peers:
        passes |= {"torch": torch_pass(case, what, False), "channels_last": torch_pass(case, what, True)}
    us = {name: 1e6 * value for name, value in best(passes, rounds).items()}
    row: dict[str, Any] = {
        "kernel": case.name,
        "pass": what,
        "space": space,
        "shape": "x".join(map(str, case.shape)),
    }
    row |= {"ours us": us["ours"], "torch us": us.get("torch"), "channels_last us": us.get("channels_last")}
    row["peer us"] = min(us["torch"], us["channels_last"]) if peers else None
    row["limit us"] = min(value for name, value in us.items() if name.startswith("limit"))
    row["times faster"] = row["peer us"] / us["ours"] if peers else None
    row["of limit"] = row["limit us"] / us["ours"]
    return row | {"GMAC/s": case.macs / us["ours"] / 1e3 if case.macs else None}


def summary(rows: list[dict[str, Any]], peak: float) -> list[dict[str, Any]]:
    """Return one row for each pass of each kernel in each space: times summed over the shapes."""
    found = []
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kernel"], row["pass"], row["space"]), []).append(row)
    for (kernel, what, space), group in sorted(groups.items(), key=lambda item: item[0][0]):
        ours, limit = (sum(row[name] for row in group) for name in ("ours us", "limit us"))
        largest = max(group, key=lambda row: row["limit us"])
        line: dict[str, Any] = {
            "kernel": kernel,
            "pass": what,
            "space": space,
            "shapes": len(group),
            "ours us": ours,
        }
        peer = sum(row["peer us"] for row in group) if group[0]["peer us"] else None
        line |= {"torch us": peer, "times faster": peer / ours if peer else None}
        line["worst"] = min(row["times faster"] for row in group) if peer else None
        line |= {"of limit": limit / ours, "largest": largest["of limit"]}
        macs = sum((row["GMAC/s"] or 0) * row["ours us"] for row in group)
        found.append(line | {"of peak": macs / ours / peak if macs else None})
    return found


def large_product(rounds: int) -> float:
    """Return the thousand million multiplications a second of a product of two 1024x1024 matrices."""
    import numpy as np

    a, b, c = (np.ones((1024, 1024), np.float32) for _ in range(3))
    return 1024**3 / best({"product": lambda: lambda: np.matmul(a, b, out=c)}, rounds)["product"] / 1e9


def main(
    spaces: str | tuple[str, ...] = "tiny,ofa-mbv3",
    batch: int = 32,
    rounds: int = 15,
    only: str = "",
    rows: bool = False,
    threads: int = 1,
    json: bool = False,
) -> None:
    """Print sums over the shapes of each kernel; --rows prints every shape, --json one JSON object with both.

    --only takes the kernels whose names begin so.
    """
    on_threads(threads)
    from nachos_min.autograd.memory import keep_freed_memory

    keep_freed_memory()
    peers = find_spec("torch") is not None
    if peers:
        import torch

        torch.set_num_threads(threads)
    found: list[dict[str, Any]] = []
    peak = large_product(rounds)
    for space in spaces.split(",") if isinstance(spaces, str) else spaces:
        for case in cases_of(space, batch):
            if case.name.startswith(only):
                found += [measure(space, case, what, rounds, peers) for what in case.limits]
    facts = {**machine(threads), "batch": batch, "peak GMAC/s": round(max(peak, large_product(rounds)), 1)}
    if json:
        sums = summary(found, facts["peak GMAC/s"])
        print(json_format.dumps({"machine": facts, "batch": batch, "sums": sums, "rows": found}))
    else:
        show(facts, found if rows else summary(found, facts["peak GMAC/s"]))


if __name__ == "__main__":
    Fire(main)
