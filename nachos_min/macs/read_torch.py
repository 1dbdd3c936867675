"""Read a PyTorch module by running it once: every operator that it executes becomes a record of a graph.

Functional calls, methods, operator signs, layers that are shared or called twice and branches that depend on
data are all recorded as executed; a layer that is never called is not. PyTorch need not be installed for
anything else, so it is imported here only when asked for. How a module is watched is in `torch_reader/`;
what cannot be counted exactly is refused with the name of the function and of the module that called it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

from nachos_min.macs.ops import Graph
from nachos_min.macs.record import CountError
from nachos_min.macs.torch_reader.installed import load_torch
from nachos_min.macs.torch_reader.recorder import Recorder
from nachos_min.macs.torch_reader.steps import tensors_in

_MOST_ELEMENTS = 2**28  # 1 GiB of float32: a module is really executed, so its input really takes memory


def read_torch(module: Any, inputs: object, *, training: bool | None = False, seed: int = 0) -> Graph:
    """Return the graph of what a module executes when it is called once.

    Args:
        module: a torch.nn.Module; its parameters, buffers and flags are as before afterwards.
        inputs: a tensor, a tuple of what the module is called with, or a shape with its batch axis, for which
            normally distributed numbers are drawn.
        training: False runs the module in evaluation mode, as for counting; True in training mode; None with
            each module's flag as it is.
        seed: of the numbers drawn, also of those that the module draws.

    Returns:
        Nodes in execution order. Its parameters are those of layers executed; a layer never called has none.

    Raises:
        CountError: an input that is none, a module that fails, or an operator that cannot be counted exactly.
    """
    torch = load_torch()
    if not isinstance(module, torch.nn.Module):
        raise CountError(f"the target must be a torch.nn.Module, got {type(module).__name__}")
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _unchanged(module, training):
        torch.manual_seed(seed)
        given = _inputs(torch, module, inputs)
        recorder = Recorder(module, given)
        try:
            with recorder.listening():
                outputs = module(*given)
        except Exception as error:
            raise recorder.error or CountError(f"the module failed: {_one_line(error)}") from error
    if recorder.error is not None:
        raise recorder.error
    return recorder.graph(outputs)


def load_torch_target(target: str) -> tuple[Any, object]:
    """Return the module that "package.module:function" makes, and what to call it with if that is returned, too.

    Args:
        target: where the function stands; the current folder is searched first.

    Returns:
        The module, and a tuple of inputs or None.

    Raises:
        CountError: there is no such function, or it fails, or returns no module.
    """
    torch = load_torch()
    place, colon, attribute = target.partition(":")
    if not (colon and place and attribute):
        raise CountError(f"a PyTorch target must be torch:package.module:function, got {target!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = import_module(place)
        for part in attribute.split("."):
            function = getattr(function, part)
        if not callable(function):
            raise CountError(f"{target!r} must be a function that returns a module, got {type(function).__name__}")
        made = function() if not isinstance(function, torch.nn.Module) else function
    except CountError:
        raise
    except Exception as error:
        raise CountError(f"cannot make a module of {target!r}: {_one_line(error)}") from error
    finally:
        sys.path.remove(here)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise CountError(f"{target!r} must return a torch.nn.Module, got {type(module).__name__}")
    return module, inputs


def _inputs(torch: Any, module: Any, inputs: object) -> tuple[Any, ...]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,)
    if not isinstance(inputs, tuple | list) or not inputs:
        raise CountError(f"inputs must be a tuple of tensors or a shape, got {inputs!r}")
    if any(True for _ in tensors_in(inputs)):
        return tuple(inputs)
    if any(type(length) is not int or length < 1 for length in inputs):
        raise CountError(f"an input shape must be Python integers >= 1, got {tuple(inputs)}")
    if prod(inputs) > _MOST_ELEMENTS:
        raise CountError(f"an input must have at most {_MOST_ELEMENTS} elements, got {tuple(inputs)}")
    kinds = [x for x in module.parameters() if x.is_floating_point()]
    like = {"dtype": kinds[0].dtype, "device": kinds[0].device} if kinds else {}
    return (torch.randn(*inputs, **like),)


@contextmanager
def _unchanged(module: Any, training: bool | None) -> Iterator[None]:
    """Set the modules' training flags; give them back, and the buffers' contents, as they were."""
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


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
