"""The tools themselves, run on a PyTorch module to compare what they report with what a convention predicts.

Each runs in silence, and what it leaves behind is undone: hooks, attributes and buffers of the module, and replaced
functions of torch. PyTorch and the tools are imported only when one of them is run.
"""

import contextlib
import importlib.util
import inspect
import io
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nachos_min.macs.readers.torch_reader import restored

Options = Mapping[str, Any] | None  # arguments by their names


@dataclass(frozen=True)
class Peer:
    """Another tool: the package that is imported, and what counts a module called with arrays; it may raise.

    `part` returns how much of the count is what the tool's cause in `exceptions.py` says.
    """

    package: str
    run: Callable[[Any, tuple[Any, ...]], Any]
    part: Callable[[Any, tuple[Any, ...]], Any] = lambda _module, _inputs: 0


def installed(name: str) -> bool:
    """Return whether the tool behind the convention `name` can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in ("torch", PEERS[name].package))


def reported(name: str, module: Any, inputs: Sequence[Any], options: Options = None) -> tuple[int | None, str]:
    """Return what the tool behind the convention `name` reports for a torch.nn.Module called with torch.Tensors.

    None of them is changed. `options` are arguments by their names, which are handed over by position. The result
    is the number and "", or None and the reason in one line: the tool is not installed, or what it raised.
    """
    if not installed(name):
        return None, f"{PEERS[name].package} is not installed"
    return _counted(PEERS[name].run, module, inputs, options or {})


def part_of(name: str, module: Any, inputs: Sequence[Any], options: Options = None) -> int:
    """Return how much of what `reported` returns a tool's stated cause makes; 0 if the tool fails."""
    return _counted(PEERS[name].part, module, inputs, options or {})[0] or 0


def _counted(
    run: Callable[[Any, tuple[Any, ...]], Any], module: Any, inputs: Sequence[Any], options: Mapping[str, Any]
) -> tuple[int | None, str]:
    try:
        with _silent(), _torch_restored(), restored(module):
            given = _by_position(module, inputs, options) if options else inputs
            return int(run(module, tuple(getattr(x, "clone", lambda x=x: x)() for x in given))), ""
    except (Exception, SystemExit) as error:
        return None, _reason(error)


def _by_position(module: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return all arguments in the order of `forward`, up to the last one that is given."""
    bound = inspect.signature(module.forward).bind(*inputs, **options)
    given = list(bound.arguments)
    bound.apply_defaults()
    if bound.kwargs:
        raise ValueError(f"arguments are given by position; this network takes {min(bound.kwargs)} by name")
    return bound.args[: max(map(list(bound.arguments).index, given)) + 1]


def _reason(error: BaseException) -> str:
    """What was raised first, in one line: a tool may wrap what the network raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 120 else f"{line[:117]}..."


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _descriptors_silent() -> Iterator[None]:
    """Below Python: PyTorch's exporter prints the network when it fails, from C++."""
    with open(os.devnull, "wb") as nowhere, contextlib.ExitStack() as undone:
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            undone.callback(os.close, kept)
            undone.callback(os.dup2, kept, descriptor)
            os.dup2(nowhere.fileno(), descriptor)
        yield


@contextlib.contextmanager
def _torch_restored() -> Iterator[None]:
    """Put back every name of the places where tools replace functions, and the state of random numbers."""
    import torch

    places = (torch, torch.nn.functional, torch.Tensor)
    before = [dict(vars(place)) for place in places]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for place, names in zip(places, before, strict=True):
            for name, value in dict(vars(place)).items():
                if name not in names:
                    delattr(place, name)
                elif value is not names[name]:
                    setattr(place, name, names[name])


def _ptflops(backend: str, module: Any, inputs: tuple[Any, ...]) -> Any:
    from ptflops import get_model_complexity_info

    if len(inputs) != 1:
        raise ValueError(f"it makes its own input, one array; this network takes {len(inputs)}")
    shape, said = tuple(inputs[0].shape[1:]), io.StringIO()
    with contextlib.redirect_stdout(said):
        macs, _ = get_model_complexity_info(module, shape, False, as_strings=False, backend=backend)
    if macs is None:  # it catches what the network raises, and prints it
        raise RuntimeError(said.getvalue().rpartition("exception:")[2].strip())
    return macs


def _calflops_parts() -> tuple[Any, Any]:
    """Its package imports libraries of language models, which counting does not need: import two files of it."""
    if "calflops" not in sys.modules and (found := importlib.util.find_spec("calflops")) is not None:
        package = types.ModuleType("calflops")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["calflops"] = package
        try:
            for part in ("flops_counter", "calculate_pipline"):
                importlib.import_module(f"calflops.{part}")
        finally:
            del sys.modules["calflops"]
    return sys.modules["calflops.flops_counter"], sys.modules["calflops.calculate_pipline"]


def _calflops(which: int, module: Any, inputs: tuple[Any, ...]) -> Any:
    import torch

    counter, pipeline = _calflops_parts()
    if next(module.parameters(), None) is None:  # it reads the device off the first parameter
        module.register_parameter("nothing_reads_this", torch.nn.Parameter(torch.zeros(1)))
    for leftover in (pipeline.module_flop_count, pipeline.module_mac_count):
        leftover.clear()  # of a network that raised an exception
    return counter.calculate_flops(module, args=list(inputs), print_results=False, output_as_string=False)[which]


def _torch(module: Any, inputs: tuple[Any, ...]) -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def _onnx_graph(module: Any, inputs: tuple[Any, ...]) -> Any:
    import onnx_tool
    import torch

    with tempfile.TemporaryDirectory() as folder, _descriptors_silent():
        path = str(Path(folder) / "network.onnx")
        # The exporter that needs no further package, and the last version that spells out layer norm.
        torch.onnx.export(module, inputs, path, dynamo=False, opset_version=16)
        graph = onnx_tool.loadmodel(path, {"verbose": False}).graph
        graph.shape_infer()
        graph.profile()
    return graph


def _onnx_lengths(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Sum up operators on integers made of shapes and constants alone, such as an index for a slice."""
    graph, total = _onnx_graph(module, inputs), 0
    lengths: set[str] = set()
    fixed = set(graph.initials)
    for node in graph.nodemap.values():
        read = {*node.input}
        integers = bool(read) and "int64" in str(graph.tensormap[node.input[0]].dtype)
        if node.op_type == "Shape" or (integers and read <= lengths | fixed):
            lengths |= {*node.output}
            total += node.macs[0]
        elif read <= fixed:
            fixed |= {*node.output}
    return total


def _torchprofile_lengths(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Sum up products of two single integers."""
    from torchprofile import profile_macs

    found: Any = profile_macs(module, inputs, reduction=None)
    return sum(found[node] for node in found if (node.outputs[0].dtype, node.outputs[0].ndim) == ("long", 0))


def _torchinfo(module: Any, inputs: tuple[Any, ...]) -> Any:
    from torchinfo import summary

    return summary(module, input_data=list(inputs), verbose=0)


def _torchinfo_own(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Sum up the modules without modules inside whose class is not one of torch.nn."""
    layers = (each for each in _torchinfo(module, inputs).summary_list if each.is_leaf_layer)
    return sum(each.macs for each in layers if not type(each.module).__module__.startswith("torch.nn."))


def _imported(package: str, count: Callable[[Any, Any, tuple[Any, ...]], Any], **options: Any) -> Peer:
    """Return the tool that `count` runs, given its package, the module and the arrays."""
    name = package.partition(".")[0]
    return Peer(name, lambda module, inputs: count(importlib.import_module(package), module, inputs), **options)


PEERS: dict[str, Peer] = {
    "thop": _imported("thop", lambda thop, *call: thop.profile(*call, verbose=False)[0]),
    "fvcore": _imported("fvcore.nn", lambda fvcore, *call: fvcore.FlopCountAnalysis(*call).total()),
    "ptflops": Peer("ptflops", partial(_ptflops, "pytorch")),
    "ptflops-aten": Peer("ptflops", partial(_ptflops, "aten")),
    "torchprofile": _imported(
        "torchprofile", lambda torchprofile, *call: torchprofile.profile_macs(*call), part=_torchprofile_lengths
    ),
    "calflops": Peer("calflops", partial(_calflops, 1)),
    "calflops-flops": Peer("calflops", partial(_calflops, 0)),
    "torchinfo": Peer("torchinfo", lambda *call: _torchinfo(*call).total_mult_adds, _torchinfo_own),
    "torch": Peer("torch", _torch),
    "onnx-tool": Peer("onnx_tool", lambda *call: _onnx_graph(*call).macs[0], _onnx_lengths),
}
