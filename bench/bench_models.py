"""Networks that others wrote, counted here and by PyTorch's FlopCounterMode.

    python bench/bench_models.py [--family torchvision.detection] [--only resnet18,vit_b_16] [--json]

Each network of `models.py` is made and counted in a process of its own, with limits of time and memory; the
largest ones on PyTorch's device "meta", where arrays have no elements. The table has a row per family; below it
stand all differences and refusals. A difference is traced: a further listener notes the operators that
FlopCounterMode has no formula for, and what each of them multiplies. What these do not add up to is "unexplained".
"""

import json as json_format
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import import_module
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from fire import Fire
from models import Inputs, Model, make, models, published

from nachos_min.macs.count import count
from nachos_min.macs.readers.torch_reader import read_torch
from nachos_min.macs.record import CountError

Row = dict[str, Any]
GIGABYTE = 1 << 30
HEAVY = 12.0  # billions of MACs, as published; heavier networks are counted on "meta"


# What FlopCounterMode has no formula for: operator -> its MACs, by its arguments and its result.


def _recurrent(args: Any, _output: Any) -> int:
    """Return the MACs of one layer and direction: each step multiplies by both matrices."""
    x, inner, outer = args[0], args[1], args[2]
    return int(prod(x.shape[:2]) * (inner.numel() + outer.numel()))


def _encoder_layer(args: Any, _output: Any) -> int:
    """Return the MACs of a fused layer of an encoder: four matrices, and attention."""
    x, weights = args[0], (args[3], args[5], args[13], args[15])
    batch, length, width = x.shape
    return int(batch * length * (sum(weight.numel() for weight in weights) + 2 * length * width))


def _fused_attention(args: Any, _output: Any) -> int:
    """Return the MACs of MultiheadAttention's fused form: two matrices, and attention."""
    query, key, width, weights = args[0], args[1], args[3], (args[5], args[7])
    batch, length, _ = query.shape
    return int(batch * length * (sum(weight.numel() for weight in weights) + 2 * key.shape[1] * width))


def _deformable(args: Any, output: Any) -> int:
    return int(output.numel() * prod(args[1].shape[1:]))


def _grouped(args: Any, output: Any) -> int:
    """Return the MACs of a product of which each row is multiplied by one of several matrices."""
    return int(output.numel() * args[0].shape[-1])


def _quantised_convolution(args: Any, output: Any) -> int:
    weight = args[1].weight()
    return int(output.numel() * prod(weight.shape[1:]))


def _quantised_linear(args: Any, output: Any) -> int:
    weight = (
        args[1].unpack()[0]
        if hasattr(args[1], "unpack")
        else import_module("torch").ops.quantized.linear_unpack(args[1])[0]
    )
    return int(output.numel() * weight.shape[1])


def _vector(args: Any, _output: Any) -> int:
    return int(args[0].numel())


UNSEEN: dict[str, tuple[str, Callable[[Any, Any], int]]] = {
    "aten::mkldnn_rnn_layer": ("recurrent layers", _recurrent),
    "aten::_transformer_encoder_layer_fwd": ("fused layers of encoders", _encoder_layer),
    "aten::_native_multi_head_attention": ("fused attention of MultiheadAttention", _fused_attention),
    "aten::mv": ("products of a matrix and a vector", _vector),
    "aten::dot": ("products of two vectors", _vector),
    "aten::_grouped_mm": ("grouped matrix products", _grouped),
    "torchvision::deform_conv2d": ("deformable convolutions", _deformable),
    "quantized::conv2d": ("quantised convolutions", _quantised_convolution),
    "quantized::conv2d_relu": ("quantised convolutions", _quantised_convolution),
    "quantized::linear": ("quantised linear layers", _quantised_linear),
    "quantized::linear_relu": ("quantised linear layers", _quantised_linear),
}


def peer(module: Any, inputs: Inputs) -> tuple[float, Counter[str]]:
    """Return half of FlopCounterMode's operations, and the MACs of what it has no formula for, by their names."""
    torch = import_module("torch")
    missed: Counter[str] = Counter()

    class Listener(import_module("torch.utils._python_dispatch").TorchDispatchMode):  # type: ignore[misc] # untyped
        def __torch_dispatch__(self, operator: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = operator(*args, **(kwargs or {}))
            if operator._schema.name in UNSEEN:
                name, rule = UNSEEN[operator._schema.name]
                missed[name] += rule(args, output)
            return output

    counter = import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    module.requires_grad_(False)  # the counter's hooks on gradients refuse some networks
    positional, named = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    torch.manual_seed(0)
    with torch.no_grad(), Listener(), counter:
        module(*positional, **named)
    return counter.get_total_flops() / 2, missed


def ours(module: Any, inputs: Inputs) -> int:
    """Return the MACs of the graph of records."""
    torch = import_module("torch")
    if isinstance(inputs, dict):
        names = list(inputs)

        class Named(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = module

            def forward(self, *given):
                return self.inner(**dict(zip(names, given, strict=True)))

        module, inputs = Named(), tuple(inputs.values())
    elif isinstance(inputs[0], list):

        class Listed(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = module

            def forward(self, *given):
                return self.inner(list(given))

        module, inputs = Listed(), tuple(inputs[0])
    return int(count(read_torch(module, inputs)).macs)


def measured(model: Model, device: str) -> Row:
    """Return what both report on one network."""
    row: Row = {"name": model.name, "family": model.family, "device": device, "published": published(model)}
    module, inputs = make(model, device)
    start = time.perf_counter()
    try:
        row["macs"] = ours(module, inputs)
    except CountError as error:
        row["refused"] = str(error)
    row["seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    row["peer"], missed = peer(module, inputs)
    row["peer_seconds"] = time.perf_counter() - start
    row["missed"] = dict(missed)
    return row


def _in_child(pipe: Connection, model: Model, device: str, seconds: int, gigabytes: int) -> None:
    import_module("torch").set_num_threads(1)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_DATA, (gigabytes * GIGABYTE, gigabytes * GIGABYTE))
    try:
        row = measured(model, device)
    except Exception as error:
        row = {"name": model.name, "family": model.family, "refused": f"{type(error).__name__}: {error}"}
    pipe.send(row)


def device_of(model: Model) -> str:
    """Return "meta" for a network that would take long; boxes and quantised arrays need elements."""
    heavy = max(published(model), default=0) > HEAVY and not model.family.endswith(("detection", "quantization"))
    return "meta" if heavy else "cpu"


def in_child(model: Model, device: str, seconds: int, gigabytes: int = 9) -> Row:
    """Return what `measured` returns, from a process that is ended when it takes too long or too much memory."""
    context = get_context("fork")  # libraries are loaded once
    near, far = context.Pipe()
    child = context.Process(target=_in_child, args=(far, model, device, seconds, gigabytes))
    child.start()
    far.close()
    try:
        row: Row = near.recv()
    except EOFError:
        child.join()
        row = {"name": model.name, "family": model.family, "refused": f"its process ended with {child.exitcode}"}
    child.join()
    return row


# What is printed.


def outcome(row: Row) -> str:
    """Return whether a network was refused, or its count is equal, explained or unexplained."""
    if "macs" not in row:
        return "refused"
    if row["macs"] == row["peer"]:
        return "equal"
    return "unexplained" if rest(row) else "explained"


def rest(row: Row) -> float:
    """Return what of a difference no cause explains."""
    return float(row["macs"] - row["peer"] - sum(row["missed"].values()))


def agrees(row: Row) -> bool:
    """Return whether a published figure is ours, rounded as it is."""
    return any(round(row["macs"] / 1e9, 3) == figure for figure in row["published"])


def _lines(rows: Iterable[Row]) -> Iterable[str]:
    table = list(rows)
    kinds = ("equal", "explained", "unexplained", "refused")
    yield "| family | networks | counted | equal | explained | unexplained | refused | as published |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for family in [*dict.fromkeys(row["family"] for row in table), "all"]:
        mine = [row for row in table if family in (row["family"], "all")]
        found = Counter(map(outcome, mine))
        known = [row for row in mine if "macs" in row and row["published"]]
        cells = [len(mine), len(mine) - found["refused"], *(found[kind] for kind in kinds)]
        shown = f"{sum(map(agrees, known))} of {len(known)}" if known else ""
        yield f"| {family} | " + " | ".join(f"{cell}" for cell in cells) + f" | {shown} |"
    yield "\nDifferences from FlopCounterMode / 2:\n"
    for row in table:
        if outcome(row) in ("explained", "unexplained"):
            causes = [f"{name} {amount:,}" for name, amount in row["missed"].items() if amount]
            causes += [f"unexplained {rest(row):,.1f}"] if rest(row) else []
            yield f"- {row['name']}: {row['macs']:,} - {row['peer']:,.0f} = {', '.join(causes)}"
    yield "\nOther than published:\n"
    for row in table:
        if "macs" in row and row["published"] and not agrees(row):
            yield f"- {row['name']}: {row['macs'] / 1e9:.3f}, published {row['published']}"
    yield "\nRefused:\n"
    yield from (f"- {row['name']}: {row['refused']}" for row in table if outcome(row) == "refused")


def main(
    family: str = "", only: str | tuple[str, ...] = "", json: bool = False, device: str = "", seconds: int = 240
) -> None:
    """Print what both report.

    Args:
        family: the families' names begin so.
        only: comma-separated names of networks.
        json: print one JSON object a line, as soon as a network is counted.
        device: "cpu" or "meta" for all networks.
        seconds: the most that one network may take.
    """
    names = only if isinstance(only, str) else ",".join(only)  # Fire makes a tuple of a,b
    rows = []
    for model in models(family, names):
        rows.append(in_child(model, device or device_of(model), seconds))
        if json:
            print(json_format.dumps(rows[-1]), flush=True)
        else:
            print(model.name, outcome(rows[-1]), file=sys.stderr, flush=True)
    if not json:
        print("\n".join(_lines(rows)))


if __name__ == "__main__":
    Fire(main)
