"""Every kernel beside PyTorch's own operator and beside what the machine can do, on one thread.

    python bench/bench_kernels.py [--spaces tiny,ofa-mbv3] [--batch 32] [--rounds 15] [--only conv] [--rows]
        [--json]

Shapes are those of the largest network of each space (8x8x1 and 32x32x3 images, all exits). What is timed, of
both libraries alike: `forward` is one call of the operator that records nothing; the gradient in the map `x`, in
the weights `w` and so on is one backward pass through that operator alone, its forward pass not timed and no other
gradient wanted (`x b`: these two). Both times hold the library's own cost of a call, which is all there is on the
smallest maps. PyTorch runs in NCHW and in channels_last; the faster one counts. Freed memory is kept, for both
(`keep_freed_memory`). What is held against what: `kernel_cases.py`.

    times faster   PyTorch's time / ours, summed over the shapes of the row; `worst`: that of a single shape
    of limit       the least time the machine needs / ours, summed likewise; `largest`: of the largest map alone
    of peak        multiplications a second / those of a product of two 1024x1024 matrices

The limit is measured in the same rounds. For convolutions it is one NumPy product (BLAS) of matrices of that
shape, contiguous and warm, transposed beforehand or on the way, whichever is faster. For all others it is
copying as many bytes as the operator must read and write if it touches every array once.
The kernels of `dominance.py` are in `bench_nsga2.py`.
"""

import json as json_format
import time
from collections.abc import Callable
from typing import Any

from fire import Fire
from kernel_cases import Case, cases_of
from measuring import machine, on_threads, peer_on_threads, show

LEAST = 2e-4  # seconds of a round: faster calls are repeated

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
        y = case.ours(**tensors | {name: inside(case.inputs[name]) for name in what.split()})
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
        tensors[name] = t.requires_grad_(name in what.split())

    def forward() -> Any:
        with torch.no_grad():
            return case.theirs(**tensors)

    if what == "forward":
        return lambda: forward
    upstream = torch.ones_like(forward())

    def backward() -> Callable[[], Any]:
        y = case.theirs(**tensors)
        return lambda: torch.autograd.grad(y, [tensors[name] for name in what.split()], upstream)

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
    from nachos_min.nas.pools import keep_freed_memory

    keep_freed_memory()
    peers = peer_on_threads(threads)
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
