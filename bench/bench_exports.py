"""Networks that others wrote, exported to ONNX: the count of the file beside that of the module.

    python bench/bench_exports.py [--family timm] [--only resnet18,vit_b_16] [--rows rows.jsonl] [--keep folder]
    python bench/bench_exports.py --table rows.jsonl

Each network of `models.py` is exported by both exporters of PyTorch, each time in a process of its own with limits
of time and memory. ONNX Runtime then optimises the file, and quantises those of classifiers. A difference has a
cause: nodes of the module that no input reaches, which the exporter computed once and for all, or one of `CAUSES`.
Rows are added to a file as they are found; what stands there is not measured again.

Needs torch, onnx, onnxscript, onnxruntime, and the libraries whose networks are exported.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fire import Fire
from models import Inputs, Model, make, models

from nachos_min.macs.count import count
from nachos_min.macs.ops import Graph, Node, Source
from nachos_min.macs.readers.torch_reader import read_torch
from nachos_min.macs.record import CountError
from nachos_min.targets import read_target

Row = dict[str, Any]
SECONDS, GIGABYTES = 300, 7
EXPORTERS: dict[str, dict[str, Any]] = {
    "torchscript": {"dynamo": False, "opset_version": 17},
    "dynamo": {"dynamo": True, "verbose": False},
}
QUANTISED = 40_000_000  # bytes of a file that is quantised
LARGEST = 1_500_000_000  # bytes of weights that stand in the file itself
FEW = 16_384  # bytes of a constant whose values are kept
FORMS = "If Loop Scan Split ScatterND ScatterElements Einsum Attention Gelu LSTM GRU RNN LayerNormalization Gemm"
FORMS += (
    " RMSNormalization SequenceConstruct SequenceAt ConcatFromSequence SequenceEmpty GridSample RoiAlign Resize"
)
FORMS += " NonMaxSuppression NonZero GatherND GatherElements TopK DFT STFT Col2Im CumSum Range Where Expand Tile"
FORMS += " InstanceNormalization GroupNormalization BatchNormalization Constant ConstantOfShape Shape Identity"
# (network, exporter) -> the difference, file minus module, and its cause as traced by hand.
CAUSES: dict[tuple[str, str], tuple[int, str]] = {}


# One network, in a child process.


def measure(model: Model, exporter: str, folder: Path, keep: Path | None) -> Iterator[Row]:
    """Give, part by part, what becomes of a network that an exporter writes."""
    module, inputs = make(model)
    for part in module.modules():
        if (config := getattr(part, "config", None)) is not None:
            config.use_cache = False  # a file has no place for one
    graph: Graph = ()
    import_module("torch").backends.mha.set_fastpath_enabled(False)  # the older exporter does not know it
    try:
        graph = ours(module, inputs)
        yield {"module": count(graph).macs}
    except CountError as error:
        yield {"module_refused": str(error)}
    path = folder / "model.onnx"
    writers: dict[str, Callable[[Path], None]] = {
        "file": lambda later: export(module, inputs, later, exporter),
        "optimised": lambda later: optimise(path, later),
        "QOperator": lambda later: quantise(path, later, "QOperator"),
        "QDQ": lambda later: quantise(path, later, "QDQ"),
    }
    for way, write in writers.items():
        kept = None if keep is None else keep / f"{model.name}.{exporter}.{way}.onnx"
        if kept is not None and (kept.exists() or kept.with_suffix(".txt").exists()):
            found = kept
        elif way == "file" or (path.exists() and (way == "optimised" or is_small_classifier(path, inputs))):
            found = path if way == "file" else folder / f"{way}.onnx"
            try:
                write(found)
            except Exception as error:  # whatever an exporter raises is its reason
                found.unlink(missing_ok=True)
                found.with_suffix(".txt").write_text(reason(error))
            if kept is not None:
                store(found, kept)
        else:
            continue
        if found.exists():
            yield counted(way, found, graph, inputs)
            yield {"operators" if way == "file" else f"{way}_operators": operators(found)}
        else:
            yield {f"{way}_not_made": found.with_suffix(".txt").read_text()}


def store(found: Path, kept: Path) -> None:
    """Keep a file without the values of its weights, or the reason why there is none."""
    if not found.exists():
        kept.with_suffix(".txt").write_text(found.with_suffix(".txt").read_text())
        return
    onnx = import_module("onnx")
    model = onnx.load(str(found), load_external_data=False)
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if len(tensor.raw_data) > FEW:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value="weights")
    kept.write_bytes(model.SerializeToString())


def ours(module: Any, inputs: Inputs) -> Graph:
    """Return the module's graph of records."""
    if isinstance(inputs, dict):
        module, inputs = by_place(module, tuple(inputs)), tuple(inputs.values())
    return read_torch(module, inputs)


def counted(what: str, path: Path, graph: Graph, inputs: Inputs) -> Row:
    """Return the MACs of a file, and which nodes have no counterpart in the module's graph; or its refusal."""
    try:
        target = read_target(str(path))
        least, most, _ = target.ways(lambda part: count(part).macs)
    except CountError as error:
        return {f"{what}_refused": str(error)}
    row: Row = {what: least, f"{what}_most": most}
    if graph and sum(node.macs for node in graph) != least:
        here, there = amounts(graph), amounts(target.graph)
        gone, new = here - there, there - here
        row[f"{what}_folded"] = not new and gone <= amounts(graph[place] for place in resting(graph, inputs))
        row[f"{what}_only_module"], row[f"{what}_only_file"] = named(graph, gone), named(target.graph, new)
    return row


def amounts(nodes: Iterable[Node]) -> Counter[int]:
    """Return how many nodes have so many MACs."""
    return Counter(node.macs for node in nodes if node.macs)


def named(graph: Graph, wanted: Counter[int], most: int = 12) -> list[str]:
    """Return as many nodes of each amount as are asked for, those with most MACs first."""
    found = []
    for node in sorted(graph, key=lambda node: -node.macs):
        if wanted[node.macs] > 0:
            wanted[node.macs] -= 1
            found.append(f"{node.name} {type(node.op).__name__} {node.op.operands} {node.macs}")
    return found[:most]


def resting(graph: Graph, inputs: Inputs) -> list[int]:
    """Return the places of nodes that no input reaches; a source of an input's shape may be an input."""
    given = {tuple(x.shape) for x in tensors(inputs)}
    still: set[int] = set()
    for place, node in enumerate(graph):
        fixed = isinstance(node.op, Source) and (node.op.trained or node.op.shape not in given)
        if fixed or (node.inputs and still.issuperset(node.inputs)):
            still.add(place)
    return sorted(still)


def tensors(inputs: Any) -> list[Any]:
    """Return the tensors in nested lists and dictionaries."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, tuple | list):
        return [x for each in inputs for x in tensors(each)]
    return [inputs] if hasattr(inputs, "shape") else []


def is_small_classifier(path: Path, inputs: Inputs) -> bool:
    """Return whether the one input is a batch of images, and the file small enough to be quantised."""
    images = isinstance(inputs, tuple) and len(inputs) == 1 and getattr(inputs[0], "ndim", 0) == 4
    return images and path.stat().st_size < QUANTISED


def export(module: Any, inputs: Inputs, path: Path, exporter: str) -> None:
    """Write an ONNX file; the older exporter knows arguments by their places only."""
    torch = import_module("torch")
    options = dict(EXPORTERS[exporter])
    if options["dynamo"]:
        options["external_data"] = sum(getattr(x, "nbytes", 0) for x in module.state_dict().values()) > LARGEST
    elif isinstance(inputs, dict):
        module, inputs = by_place(module, tuple(inputs)), tuple(inputs.values())
    positional, named = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    with torch.no_grad():
        torch.onnx.export(module, positional, str(path), kwargs=named, **options)


def by_place(module: Any, names: tuple[str, ...]) -> Any:
    """Return the module, to be called with arguments in the order of their names."""

    class Placed(import_module("torch").nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *given: Any) -> Any:
            return tensors(self.inner(**dict(zip(names, given, strict=True))))

    return Placed().eval()


def operators(path: Path) -> dict[str, int]:
    """Return how often each operator occurs in a file, in branches, bodies and functions, too."""
    model, found = import_module("onnx").load(str(path), load_external_data=False), Counter[str]()

    def walk(nodes: Iterable[Any]) -> None:
        for node in nodes:
            found[f"{node.domain}.{node.op_type}".removeprefix(".")] += 1
            for attribute in node.attribute:
                walk(attribute.g.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    found["operator set"] = next(each.version for each in model.opset_import if not each.domain)
    return dict(found)


def optimise(path: Path, later: Path) -> None:
    """Let ONNX Runtime write the file with what it fuses on a CPU."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(later), 4
    options.intra_op_num_threads = 1
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantise(path: Path, later: Path, way: str) -> None:
    """Let ONNX Runtime write the file in integers, by one drawn sample, after what its guide says to do before."""
    tools, numpy = import_module("onnxruntime.quantization"), import_module("numpy")
    before = path.with_suffix(".before.onnx")
    prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    prepare(str(path), str(before), skip_symbolic_shape=True)
    value = import_module("onnx").load(str(path), load_external_data=False).graph.input[0]
    shape = [each.dim_value for each in value.type.tensor_type.shape.dim]
    samples = iter([{value.name: numpy.random.default_rng(0).random(shape, numpy.float32)}])

    class Reader(tools.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(samples, None)

    tools.quantize_static(str(before), str(later), Reader(), quant_format=tools.QuantFormat[way])


def reason(error: Exception) -> str:
    """Return an exporter's reason on one line: the first exception of a chain says it."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def _in_child(pipe: Connection, model: Model, exporter: str, folder: Path, keep: Path | None) -> None:
    for stream in (1, 2):  # exporters print there, from C++, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    warnings.simplefilter("ignore")
    import_module("torch").set_num_threads(1)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES << 30, GIGABYTES << 30))
    try:
        for part in measure(model, exporter, folder, keep):
            pipe.send(part)
    except Exception as error:  # the row says what failed
        pipe.send({"failed": f"{type(error).__name__}: {error}"[:300]})
    pipe.close()
    os._exit(0)


def in_child(model: Model, exporter: str, keep: Path | None) -> Row:
    """Return the row of a network and an exporter."""
    row: Row = {"name": model.name, "family": model.family, "exporter": exporter}
    context = get_context("fork")  # libraries are loaded once
    near, far = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_in_child, args=(far, model, exporter, Path(folder), keep))
        child.start()
        far.close()
        try:
            while True:
                row |= near.recv()
        except EOFError:
            child.join()
        if child.exitcode:
            row["failed"] = f"ended with {child.exitcode}"
    return row


# The table.


def verdict(row: Row, way: str = "file") -> tuple[str, str]:
    """Return "equal", "explained", "differs" and so on, and the cause.

    A file must be equal to the module, and what ONNX Runtime writes to the file before it.
    """
    if f"{way}_not_made" in row or f"{way}_refused" in row:
        word = "not made" if f"{way}_not_made" in row else "refused"
        return word, row[f"{way}_{word.replace(' ', '_')}"]
    if way not in row:
        return "not made", row.get("failed", "") if way == "file" else ""
    base = "module" if way == "file" else "file"
    if base not in row:
        return f"{base} refused", row.get(f"{base}_refused", "")
    difference, most = row[way] - row[base], row[f"{way}_most"] - row[base]
    if difference == most == 0:
        return "equal", ""
    amount, cause = CAUSES.get((row["name"], row["exporter"]), (0, ""))
    if cause and amount == difference == most:
        return "explained", f"{difference:+,}: {cause}"
    if row.get(f"{way}_folded"):
        return "explained", f"{difference:+,}: computed once when the file was written, as no input reaches it"
    return "differs", f"{difference:+,} to {most:+,} of {row[base]:,}"


VERDICTS = ("equal", "explained", "differs", "refused", "module refused")
LATER = ("optimised", "QOperator", "QDQ")


def line(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def show(rows: list[Row]) -> None:
    """Print the tables of rows, then each difference and refusal."""
    print(line("family", "exporter", "networks", "exported", *VERDICTS), line(*["---"] * 9), sep="\n")
    for family, exporter in sorted({(row["family"], row["exporter"]) for row in rows}):
        found = [verdict(row)[0] for row in rows if (row["family"], row["exporter"]) == (family, exporter)]
        exported = len(found) - found.count("not made")
        print(line(family, exporter, len(found), exported, *map(found.count, VERDICTS)))
    heads = ("equal to the file before", "explained", "differs", "refused", "file refused")
    print("", line("written by ONNX Runtime", "of", "made", *heads), line(*["---"] * 8), sep="\n")
    for way, exporter in product(LATER, EXPORTERS):
        found = [verdict(row, way)[0] for row in rows if row["exporter"] == exporter]
        words = map(found.count, ("equal", *heads[1:]))
        print(line(way, exporter, len(found) - found.count("not made"), *words))
    print("", line("operator", *(f"files, nodes: {each}" for each in EXPORTERS)), line(*["---"] * 3), sep="\n")
    for form in FORMS.split():
        cells = []
        for exporter in EXPORTERS:
            times = [r["operators"].get(form, 0) for r in rows if r["exporter"] == exporter and "operators" in r]
            cells.append(f"{sum(map(bool, times))}, {sum(times)}")
        if set(cells) != {"0, 0"}:
            print(line(form, *cells))
    print()
    causes = defaultdict[tuple[str, str], list[str]](list)
    for row, way in product(rows, ("file", *LATER)):
        word, cause = verdict(row, way)
        if word != "equal" and cause:
            causes[word, cause].append(" ".join((row["name"], row["exporter"], *[way] * (way != "file"))))
        for part in ("only_module", "only_file") if word == "differs" else ():
            causes[word, cause].append(f"{part}: {'; '.join(row.get(f'{way}_{part}', ()))}")
    for (word, cause), names in sorted(causes.items()):
        print(f"- {word}: {cause}: {', '.join(names)}")


def main(
    family: str = "",
    only: str | tuple[str, ...] = "",
    exporters: str | tuple[str, ...] = tuple(EXPORTERS),
    rows: str = "",
    keep: str = "",
    table: str = "",
) -> None:
    """Export, count and print.

    Args:
        family: the families' names begin so.
        only: comma-separated names of networks.
        exporters: comma-separated, of torchscript and dynamo.
        rows: a file to which each row is added as soon as it is known.
        keep: a folder for the files, without the values of weights; what is there is counted again, not exported.
        table: a file of rows, to print without measuring.
    """
    if table:
        show([json.loads(line) for line in Path(table).read_text().splitlines()])
        return
    names = only if isinstance(only, str) else ",".join(only)  # Fire makes a tuple of a,b
    ways = exporters.split(",") if isinstance(exporters, str) else exporters
    kept = Path(rows).read_text().splitlines() if rows and Path(rows).exists() else []
    found: list[Row] = list(map(json.loads, kept))
    known = {(row["name"], row["exporter"]) for row in found}
    for model in models(family, names):
        for exporter in ways:
            if (model.name, exporter) in known:
                continue
            found.append(in_child(model, exporter, Path(keep) if keep else None))
            print(model.name, exporter, *verdict(found[-1]), file=sys.stderr, flush=True)
            if rows:
                with Path(rows).open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    show(found)


if __name__ == "__main__":
    Fire(main)
