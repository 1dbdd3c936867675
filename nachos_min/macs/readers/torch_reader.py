"""A PyTorch module as a graph of records: `read_torch` runs it once and records every operator that it executes.

Functions, methods, signs, shared layers and branches are recorded as executed; a layer that is never called is
not, nor are its parameters. What a module does outside PyTorch is not seen. What cannot be counted exactly is
refused with the name of its function and module.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any

from nachos_min.macs.count import check_graph
from nachos_min.macs.ops import Graph
from nachos_min.macs.readers.torch_graph import load_torch
from nachos_min.macs.readers.torch_recorder import Recorder
from nachos_min.macs.record import CountError

_MOST_ELEMENTS = 2**28  # 1 GiB of float32: a module is really executed, so its input really takes memory


def read_torch(module: Any, inputs: object, *, training: bool | None = False, seed: int = 0) -> Graph:
    """Return the graph of what a module executes when it is called once, without gradients.

    Args:
        module: a torch.nn.Module; its parameters, buffers and training flags are restored.
        inputs: as of `example_inputs`.
        training: False runs the module in evaluation mode, True in training mode, None with each flag as it is.
        seed: of all numbers drawn, by the module too.

    Returns:
        Nodes in execution order. The network's first array is -1, a further one a `Source`.

    Raises:
        CountError: an input that is none, a module that fails, or an operator that cannot be counted exactly.
    """
    torch = load_torch()
    given = example_inputs(module, inputs, seed)
    recorder = Recorder(module, given)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _quiet(), _restored(module, training):
            torch.manual_seed(seed)
            with recorder.listening():
                outputs = module(*given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        where = f" in {recorder.failed}" if recorder.failed else ""
        raise recorder.error or CountError(f"the module failed{where}: {_one_line(error)}") from error
    if recorder.error is not None:
        raise recorder.error
    try:
        graph = recorder.recording.graph(outputs)
    except RecursionError:
        kind = type(outputs).__name__
        raise CountError(f"what a module returns must not hold itself or be nested deeply, got a {kind}") from None
    check_graph(graph)
    return graph


def example_inputs(module: Any, inputs: object, seed: int = 0) -> tuple[Any, ...]:
    """Return what a module is called with.

    Args:
        module: a torch.nn.Module.
        inputs: a tensor, a tuple whose first is a tensor, or a shape with its batch axis, for which normally
            distributed numbers are drawn, of the type and on the device of the module's first parameter.
        seed: of the numbers drawn.

    Raises:
        CountError: no such module, no such inputs, or more than 2**28 elements.
    """
    torch = load_torch()
    if not isinstance(module, torch.nn.Module):
        raise CountError(f"the target must be a torch.nn.Module, got {type(module).__name__}")
    try:
        arrays, inside = (*module.parameters(), *module.buffers()), tuple(module.modules())
    except Exception as error:
        raise CountError(f"the module cannot list what it holds, got {_one_line(error)}") from error
    if any(torch.nn.parameter.is_lazy(x) for x in arrays):
        raise CountError(f"the module must know its shapes, got lazy parameters in {type(module).__name__}")
    if any(base.__name__ == "ScriptModule" for each in inside for base in type(each).__mro__):
        raise CountError(f"the module must be Python code, got compiled TorchScript in {type(module).__name__}")
    given = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    if isinstance(given, tuple | list) and given and isinstance(given[0], torch.Tensor):
        return tuple(given)
    if not isinstance(given, tuple | list) or not given or any(type(n) is not int or n < 1 for n in given):
        raise CountError(f"inputs must be tensors or a shape of Python integers >= 1, got {_shown(given)}")
    if prod(given) > _MOST_ELEMENTS:
        raise CountError(f"an input must have at most {_MOST_ELEMENTS} elements, got {_shown(tuple(given))}")
    like = next((x for x in module.parameters() if x.is_floating_point()), torch.empty(0))
    drawn = torch.randn(tuple(given), generator=torch.Generator().manual_seed(seed))
    return (drawn.to(dtype=like.dtype, device=like.device),)


def load_torch_target(target: str) -> tuple[Any, Any]:
    """Return the module that a function makes, in evaluation mode, and the inputs that it returns with it, if any.

    Args:
        target: "package.module:function", searched for in the current folder first.

    Raises:
        CountError: there is no such function, or it fails, or returns no module.
    """
    torch = load_torch()
    place, _, attribute = target.partition(":")
    if not place or not attribute:
        raise CountError(f"a PyTorch target must be torch:package.module:function, got {_shown(target)}")
    here, compiled = str(Path.cwd()), sys.dont_write_bytecode
    sys.path.insert(0, here)
    sys.dont_write_bytecode = True  # nothing is left behind in the user's folder
    try:
        with _quiet():
            function: Any = attrgetter(attribute)(import_module(place))
            made = function if isinstance(function, torch.nn.Module) else function()
            module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
            if isinstance(module, torch.nn.Module):
                module.eval()  # some tools do it, some do not
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        reason = _one_line(error)
        raise CountError(f"{_shown(target)} must be a function that makes a module, got {reason}") from error
    finally:
        sys.dont_write_bytecode = compiled
        with suppress(ValueError):  # what was imported may have taken it out
            sys.path.remove(here)
    if not isinstance(module, torch.nn.Module):
        raise CountError(f"{_shown(target)} must return a torch.nn.Module, got {type(module).__name__}")
    return module, inputs


@contextmanager
def _restored(module: Any, training: bool | None) -> Iterator[None]:
    """Set the training flags; afterwards restore them, and the buffers' contents (running statistics)."""
    flags = [(each, each.training) for each in module.modules()]
    buffers = [(x, x.clone()) for x in module.buffers()]
    if training is not None:
        module.train(training)
    try:
        yield
    finally:
        for each, flag in flags:
            each.training = flag
        for x, before in buffers:
            x.copy_(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output for results, and hide PyTorch's advice to a network's author."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of the module's own
        text = ""
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
