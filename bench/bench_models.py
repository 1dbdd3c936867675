"""Networks that others wrote, counted here and by PyTorch's FlopCounterMode.

    python bench/bench_models.py [--family torchvision.detection] [--only resnet18,vit_b_16] [--json]
    python bench/bench_models.py --speed

Each network of `models.py` is made and counted in a process of its own, with limits of time and memory; the
largest ones on PyTorch's device "meta", where arrays have no elements. The table has a row per family; below it
stand all differences and refusals. A difference is traced: a further listener notes the operators that
FlopCounterMode has no formula for, and what each of them multiplies. What these do not add up to is "unexplained".
"""

import gc
import json as json_format
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from importlib import import_module
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from fire import Fire
from measuring import machine, peak_megabytes, show
from models import BOXES, Inputs, Made, Model, make, models, published

from nachos_min import count_macs
from nachos_min.errors import InputError

Row = dict[str, Any]
GIGABYTE = 1 << 30
THREADS = 2
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


def peer(module: Any, inputs: Inputs, *, listen: bool = True) -> tuple[float, Counter[str]]:
    """Return half of FlopCounterMode's operations, and the MACs of what it has no formula for, by their names.

    Without `listen` nothing but FlopCounterMode runs.
    """
    torch = import_module("torch")
    missed: Counter[str] = Counter()

    class Listener(import_module("torch.utils._python_dispatch").TorchDispatchMode):
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
    with torch.no_grad(), Listener() if listen else nullcontext(), counter:
        module(*positional, **named)
    return counter.get_total_flops() / 2, missed


def ours(module: Any, inputs: Inputs) -> int:
    """Return what `count_macs` returns."""
    return int(count_macs(module, inputs))


def measured(model: Model, device: str) -> Row:
    """Return what both report on one network."""
    row: Row = {"name": model.name, "family": model.family, "device": device, "published": published(model)}
    module, inputs = make(model, device)
    start = time.perf_counter()
    try:
        row["macs"] = ours(module, inputs)
    except InputError as error:
        row["refused"] = str(error)
    row["seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    row["peer"], missed = peer(module, inputs)
    row["peer_seconds"] = time.perf_counter() - start
    row["missed"] = dict(missed)
    row["heads"] = heads(module)
    return row


def heads(module: Any) -> dict[str, float]:
    """Return the MACs that a detector spends on one box in each of its heads; {} of another network."""
    found = getattr(module, "roi_heads", None)
    parts = {kind: getattr(found, f"{kind}_head", None) for kind in ("box", "mask", "keypoint")}
    chains = {
        kind: import_module("torch").nn.Sequential(head, getattr(found, f"{kind}_predictor")).eval()
        for kind, head in parts.items()
        if head is not None
    }
    empty, channels = import_module("torch").zeros, 256
    sides = {"box": 7, "mask": 14, "keypoint": 14}
    return {kind: peer(chain, (empty(1, channels, sides[kind], sides[kind]),))[0] for kind, chain in chains.items()}


def in_process(task: Callable[[], Any], seconds: int = 600, gigabytes: int = 9, threads: int = THREADS) -> Any:
    """Return a task's result, from a process of its own; RuntimeError if it fails or takes too much."""
    context = get_context("fork")  # libraries are loaded once
    near, far = context.Pipe()
    child = context.Process(target=_send, args=(far, task, seconds, gigabytes, threads))
    child.start()
    far.close()
    try:
        result, failure = near.recv()
    except EOFError:
        result, failure = None, "the process was ended: it took too long, or too much memory"
    child.join()
    if failure:
        raise RuntimeError(failure)
    return result


def _send(pipe: Connection, task: Callable[[], Any], seconds: int, gigabytes: int, threads: int) -> None:
    import_module("torch").set_num_threads(threads)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_DATA, (gigabytes * GIGABYTE, gigabytes * GIGABYTE))
    try:
        pipe.send((task(), ""))
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"))


def device_of(model: Model) -> str:
    """Return "meta" for a network that would take long; boxes and quantised arrays need elements."""
    if model.family == "timm":
        return "meta" if in_process(lambda: peer(*make(model, "meta"))[0]) > HEAVY * 1e9 else "cpu"
    heavy = max(published(model), default=0) > HEAVY and not model.family.endswith(("detection", "quantization"))
    return "meta" if heavy else "cpu"


def row_of(model: Model, device: str, seconds: int) -> Row:
    """Return what `measured` returns, or why there is nothing, from a process of its own."""
    try:
        row: Row = in_process(lambda: measured(model, device), seconds)
    except RuntimeError as error:
        return {"name": model.name, "family": model.family, "refused": str(error)}
    return row


# Time and memory.

SPEED = ("resnet50", "mobilenet_v3_large", "vit_b_16", "efficientnet_b0")
TOOLS: dict[str, Callable[[Any, Inputs], Any]] = {"ours": ours, "peer": lambda *given: peer(*given, listen=False)}


def speed_of(name: str, batch: int, rounds: int = 7) -> Row:
    """Return the median seconds of both on one network, which take turns, and the memory of a process of each.

    The memory is how far the process grows beyond what it has with the network made and run once.
    """
    model = models("torchvision.classification", name)[0]
    times = in_process(lambda: _times(model, batch, rounds))
    grown = {tool: in_process(lambda tool=tool: _growth(model, batch, tool)) for tool in ("run", *TOOLS)}
    row: Row = {"network": name, "batch": batch, **{f"{tool} s": times[tool] for tool in TOOLS}}
    row["time ratio"] = times["ours"] / times["peer"]
    row |= {f"{tool} MB": megabytes for tool, megabytes in grown.items()}
    row["memory ratio"] = grown["ours"] / grown["peer"]
    return row


def _batch(model: Model, batch: int) -> Made:
    module, inputs = make(model)
    return module.requires_grad_(False), tuple(x.repeat(batch, 1, 1, 1) for x in inputs)


def _times(model: Model, batch: int, rounds: int) -> dict[str, float]:
    module, inputs = _batch(model, batch)
    found: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for turn in range(rounds + 1):
        for tool, count_it in TOOLS.items():
            start = time.perf_counter()
            count_it(module, inputs)
            if turn:  # the first calls load parts of PyTorch
                found[tool].append(time.perf_counter() - start)
    return {tool: median(seconds) for tool, seconds in found.items()}


def _growth(model: Model, batch: int, tool: str) -> float:
    module, inputs = _batch(model, batch)
    with import_module("torch").no_grad():
        module(*(x[:1] for x in inputs))
        before = _forget_peak()
        _ = module(*inputs) if tool == "run" else TOOLS[tool](module, inputs)
    return peak_megabytes() - before


def _forget_peak() -> float:
    """Return the memory of this process, from which its peak is measured anew (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak_megabytes()


def large_language_model() -> Row:
    """Return how long a Llama of seven billion parameters takes on "meta", and what it needs for 128 words."""
    torch, library = import_module("torch"), import_module("transformers")
    start = time.perf_counter()
    with torch.device("meta"):
        module = library.LlamaForCausalLM(library.LlamaConfig()).eval()
        inputs = {"input_ids": torch.zeros(1, 128, dtype=torch.int64)}
    made = time.perf_counter()
    macs = ours(module, inputs)
    counted = time.perf_counter()
    parameters = sum(x.numel() for x in module.parameters())
    return {"parameters": parameters, "MACs": macs, "making s": made - start, "counting s": counted - made}


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


def of_other_boxes(row: Row) -> str:
    """Return which numbers of boxes and masks bring a detector's count to the published one, "" if none do.

    The published figures are of trained weights: how many boxes each head is given depends on them.
    """
    box, *later = row.get("heads", {}).values()
    for figure in row["published"]:
        for kept in range(101 if later else 1):
            missing = figure * 1e9 - row["macs"] - sum(later) * (kept - BOXES)
            more = round(missing / box)
            if abs(more) <= 1000 and abs(missing - more * box) < 5e5:
                return f": that of {more:+,} boxes" + f" and of {kept} instead of {BOXES} at the end" * bool(later)
    return ""


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
            cause = of_other_boxes(row) if row.get("heads") else ""
            yield f"- {row['name']}: {row['macs'] / 1e9:.3f}, published {row['published']}{cause}"
    yield "\nRefused:\n"
    yield from (f"- {row['name']}: {row['refused']}" for row in table if outcome(row) == "refused")


def main(
    family: str = "",
    only: str | tuple[str, ...] = "",
    json: bool = False,
    device: str = "",
    seconds: int = 240,
    rows: str = "",
    speed: bool = False,
) -> None:
    """Print what both report.

    Args:
        family: the families' names begin so.
        only: comma-separated names of networks.
        json: print one JSON object a line, as soon as a network is counted.
        device: "cpu" or "meta" for all networks.
        seconds: the most that one network may take.
        rows: a file of what `--json` printed: its table, and nothing is counted.
        speed: measure time and memory of a few networks instead.
    """
    if speed:
        show(machine(THREADS), [speed_of(name, batch) for name in SPEED for batch in (1, 8)])
        show({}, [in_process(large_language_model)])
        return
    names = only if isinstance(only, str) else ",".join(only)  # Fire makes a tuple of a,b
    stored = Path(rows).read_text(encoding="utf-8").splitlines() if rows else []
    table: list[Row] = [json_format.loads(line) for line in stored]
    for model in models(family, names) if not rows else ():
        table.append(row_of(model, device or device_of(model), seconds))
        if json:
            print(json_format.dumps(table[-1]), flush=True)
        else:
            print(model.name, outcome(table[-1]), file=sys.stderr, flush=True)
    if not json:
        print("\n".join(_lines(table)))


if __name__ == "__main__":
    Fire(main)
