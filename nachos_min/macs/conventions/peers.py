"""The tools themselves, run on a PyTorch module to compare what they report with what a convention predicts.

Each runs in silence, and what it leaves behind is undone: hooks, attributes and buffers of the module, and replaced
functions of torch. PyTorch and the tools are imported only when one of them is run.
"""

import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Peer:
    """Another tool: the package that is imported, and what counts a module called with arrays; it may raise."""

    package: str
    run: Callable[[Any, tuple[Any, ...]], int]


def installed(name: str) -> bool:
    """Return whether the tool behind the convention `name` can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in ("torch", PEERS[name].package))


def reported(name: str, module: Any, inputs: Sequence[Any]) -> tuple[int | None, str]:
    """Return what the tool behind the convention `name` reports for a module, which is not changed.

    Args:
        name: of a convention in `PEERS`.
        module: a torch.nn.Module.
        inputs: the torch.Tensors it is called with; they are not changed.

    Returns:
        The number and "", or None and the reason in one line: the tool is not installed, or what it raised.
    """
    if not installed(name):
        return None, f"{PEERS[name].package} is not installed"
    said = io.StringIO()
    try:
        with _silent(said), _torch_restored(), _module_restored(module):
            return PEERS[name].run(module, tuple(array.clone() for array in inputs)), ""
    except (Exception, SystemExit) as error:
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    """What was raised first, in one line: a tool may wrap what the network raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {error}"
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 120 else f"{line[:117]}..."


@contextlib.contextmanager
def _silent(said: io.StringIO) -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _descriptors_silent() -> Iterator[None]:
    """Below Python: PyTorch's exporter prints the network when it fails, from C++."""
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor, _ in saved:
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, kept in saved:
            os.dup2(kept, descriptor)
            os.close(kept)
        os.close(nowhere)


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


@contextlib.contextmanager
def _module_restored(module: Any) -> Iterator[None]:
    """Put back every attribute, hook and buffer of the modules inside.

    A copy of the module would not do: a network that calls its layers through functions of its own would go on
    calling the original's, which no tool has hooked.
    """
    modules = list(module.modules())
    attributes = [dict(each.__dict__) for each in modules]
    tables = [{name: dict(value) for name, value in own.items() if isinstance(value, dict)} for own in attributes]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for each, own, inner in zip(modules, attributes, tables, strict=True):
            each.__dict__.clear()
            each.__dict__.update(own)
            for name, entries in inner.items():
                own[name].clear()  # the same table, which handles of hooks refer to
                own[name].update(entries)
        for buffer, before in buffers:
            buffer.data.copy_(before)


def _counted(package: str, count: Callable[[Any, Any, tuple[Any, ...]], Any]) -> Peer:
    """Return the tool that `count` runs, given its package, the module and the arrays."""
    name = package.partition(".")[0]
    return Peer(name, lambda module, inputs: int(count(importlib.import_module(package), module, inputs)))


def _ptflops(backend: str) -> Callable[[Any, tuple[Any, ...]], int]:
    def run(module: Any, inputs: tuple[Any, ...]) -> int:
        from ptflops import get_model_complexity_info

        if len(inputs) != 1:
            raise ValueError(f"it makes its own input, one array; this network takes {len(inputs)}")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            macs, _ = get_model_complexity_info(
                module, tuple(inputs[0].shape[1:]), False, as_strings=False, backend=backend
            )
        if macs is None:  # it catches what the network raises, and prints it
            raise RuntimeError(said.getvalue().rpartition("exception:")[2].strip())
        return int(macs)

    return run


def _calflops_parts() -> tuple[Any, Any]:
    """Its package imports libraries of language models, which it does not need to count: enter by the side door."""
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


def _calflops(which: int) -> Callable[[Any, tuple[Any, ...]], int]:
    def run(module: Any, inputs: tuple[Any, ...]) -> int:
        import torch

        counter, pipeline = _calflops_parts()
        if next(module.parameters(), None) is None:  # it reads the device off the first parameter
            module.register_parameter("nothing_reads_this", torch.nn.Parameter(torch.zeros(1)))
        for leftover in (pipeline.module_flop_count, pipeline.module_mac_count):
            leftover.clear()  # of a network that raised an exception
        counts = counter.calculate_flops(module, args=list(inputs), print_results=False, output_as_string=False)
        return int(counts[which])

    return run


def _torch(module: Any, inputs: tuple[Any, ...]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def _onnx_tool(module: Any, inputs: tuple[Any, ...]) -> int:
    import onnx_tool
    import torch

    with tempfile.TemporaryDirectory() as folder, _descriptors_silent():
        path = str(Path(folder) / "network.onnx")
        # The exporter that needs no further package, and the last version that spells out layer norm.
        torch.onnx.export(module, inputs, path, dynamo=False, opset_version=16)
        graph = onnx_tool.loadmodel(path, {"verbose": False}).graph
        graph.shape_infer()
        graph.profile()
    return int(graph.macs[0])


PEERS: dict[str, Peer] = {
    "thop": _counted("thop", lambda thop, *call: thop.profile(*call, verbose=False)[0]),
    "fvcore": _counted("fvcore.nn", lambda fvcore, *call: fvcore.FlopCountAnalysis(*call).total()),
    "ptflops": Peer("ptflops", _ptflops("pytorch")),
    "ptflops-aten": Peer("ptflops", _ptflops("aten")),
    "torchprofile": _counted("torchprofile", lambda torchprofile, *call: torchprofile.profile_macs(*call)),
    "calflops": Peer("calflops", _calflops(1)),
    "calflops-flops": Peer("calflops", _calflops(0)),
    "torchinfo": _counted(
        "torchinfo", lambda tool, net, given: tool.summary(net, input_data=list(given), verbose=0).total_mult_adds
    ),
    "torch": Peer("torch", _torch),
    "onnx-tool": Peer("onnx_tool", _onnx_tool),
}
