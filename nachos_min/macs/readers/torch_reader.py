"""A PyTorch module as a graph of records: `read_torch` runs it once and records every operator that it executes.

Functions, methods, signs, shared layers and branches are recorded as executed; a layer that is never called is
not, nor are its parameters. What a module does outside PyTorch is not seen. What cannot be counted exactly is
refused, all causes at once, with the names of functions and modules.

A module on the meta device, or made of fake tensors, is counted without its weights: only shapes are computed.
"""

import gc
import sys
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any

from nachos_min.errors import shorten
from nachos_min.macs.count import check_graph
from nachos_min.macs.ops import Graph
from nachos_min.macs.readers.torch_graph import load_torch, tensors_in
from nachos_min.macs.readers.torch_recorder import Recorder
from nachos_min.macs.record import CountError

_MOST_ELEMENTS = 2**28  # 1 GiB of float32: a module is really executed, so its input really takes memory


class ModuleFailedError(CountError):
    """The module itself failed on these inputs."""


def read_torch(
    module: Any,
    inputs: object,
    options: Mapping[str, Any] | None = None,
    *,
    training: bool | None = False,
    seed: int = 0,
) -> Graph:
    """Return the graph of what a module executes when it is called once, without gradients.

    Args:
        module: a torch.nn.Module, TorchScript and compiled ones too, or a program of torch.export; its parameters,
            attributes, hooks, buffers and training flags are restored.
        inputs: as of `example_inputs`.
        options: as of `example_inputs`.
        training: False runs the module in evaluation mode, True in training mode, None with each flag as it is.
        seed: of all numbers drawn, by the module too.

    Returns:
        Nodes in execution order. The network's first array is -1, a further one a `Source`.

    Raises:
        CountError: an input that is none, or operators that cannot be counted exactly; ModuleFailedError: a module
            that fails.
    """
    torch = load_torch()
    args, named = example_inputs(module, inputs, options, seed)
    module = _as_called(module)
    try:
        recorder = Recorder(module, (args, named))
    except RecursionError:
        raise CountError(f"a module must not hold itself, got {type(module).__name__}") from None
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            _quiet(),
            restored(module, training),
            _uncompiled(),
            _old_objects_left_alone(),
        ):
            torch.manual_seed(seed)
            with recorder.listening():
                outputs = module(*args, **named)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        where = f" in {recorder.failed}" if recorder.failed else ""
        refused = recorder.causes.error()
        raise refused or ModuleFailedError(f"the module failed{where}: {_one_line(error)}") from error
    if isinstance(outputs, Iterator | Awaitable):
        raise CountError(f"a module must return what it has computed, got a {type(outputs).__name__} that waits")
    try:
        recorder.check_outputs(outputs)
        if (refused := recorder.causes.error()) is not None:
            raise refused
        graph = recorder.recording.graph(outputs)
    except RecursionError:
        kind = type(outputs).__name__
        raise CountError(f"what a module returns must not hold itself or be nested deeply, got a {kind}") from None
    check_graph(graph)
    return graph


def example_inputs(
    module: Any, inputs: object, options: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that a module is called with; CountError if it is none, or they are none or too large.

    Args:
        module: as of `read_torch`.
        inputs: a tensor; a tuple or list of arguments, one of which is or holds a tensor; a mapping of keyword
            arguments; a shape with its batch axis, for which normally distributed numbers are drawn, of the type
            and on the device of the module's first parameter; None for the inputs that a program brings.
        options: keyword arguments beside them.
        seed: of the numbers drawn.
    """
    torch = load_torch()
    program = _is_program(module)
    if not program and not isinstance(module, torch.nn.Module):
        raise CountError(f"the target must be a torch.nn.Module, got {type(module).__name__}")
    if inputs is None and program and module.example_inputs is not None:
        args, named = module.example_inputs
        return tuple(args), {**named, **(options or {})}
    try:
        like = next((x for x in module.parameters() if x.is_floating_point() or x.is_complex()), torch.empty(0))
        mixin = torch.nn.modules.lazy.LazyModuleMixin
        held = () if program else module.modules()
        lazy = any(isinstance(x, mixin) and x.has_uninitialized_params() for x in held)
    except Exception as error:
        raise CountError(f"the module cannot list what it holds, got {_one_line(error)}") from error
    if lazy:
        raise CountError(f"the module must know its shapes, got lazy parameters in {type(module).__name__}")
    if not _is_named(options := {} if options is None else options):
        raise CountError(f"keyword arguments must be a mapping with names, got {shorten(options)}")
    args, named = _arguments(inputs)
    named |= options
    try:
        given = list(tensors_in((args, named)))
    except Exception as error:  # of a list that holds itself, or a mapping of the user's own
        raise CountError(f"inputs must be nested lists and mappings of tensors, got {_one_line(error)}") from error
    if given:
        if any(x.is_nested for x in given):
            raise CountError(
                f"arrays must have one length along each axis, got a nested one of {type(module).__name__}"
            )
        return args, named
    return (_drawn(like, inputs, seed),), named


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments; a named tuple, such as a packed sequence, is one argument."""
    if type(inputs) in (tuple, list):
        return tuple(inputs), {}
    if inputs is None:
        return (), {}
    return ((), dict(inputs)) if _is_named(inputs) else ((inputs,), {})


def _is_named(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(key, str) for key in values)


def _drawn(like: Any, shape: Any, seed: int) -> Any:
    """Return an array of a shape, of the type and on the device of another."""
    torch = load_torch()
    if not isinstance(shape, tuple | list) or not shape or any(type(n) is not int or n < 1 for n in shape):
        raise CountError(f"inputs must be tensors or a shape of Python integers >= 1, got {shorten(shape)}")
    if like.is_meta or isinstance(like, torch._subclasses.FakeTensor):
        return like.detach().new_empty(tuple(shape))
    if prod(shape) > _MOST_ELEMENTS:
        raise CountError(f"an input must have at most {_MOST_ELEMENTS} elements, got {shorten(tuple(shape))}")
    drawn = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype=like.dtype, device=like.device)


def _is_program(target: Any) -> bool:
    return type(target).__name__ == "ExportedProgram" and type(target).__module__.startswith("torch.export")


def _as_called(module: Any) -> Any:
    """Return what is called in a target's place: a program's module, or that which was compiled."""
    if _is_program(module):
        return module.module()
    compiled = any(kind.__name__ == "OptimizedModule" for kind in type(module).__mro__)
    return _as_called(module._orig_mod) if compiled else module


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep what exists from garbage collection, which the many records that are made would else set off."""
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run what was compiled as it was written."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        yield
    else:
        with load_torch().compiler.set_stance("force_eager"):
            yield


def load_torch_target(target: str) -> tuple[Any, Any, Any]:
    """Return the module that a function makes, in evaluation mode, and what it returns with it: inputs, options.

    `target` is "package.module:function", searched for in the current folder first. What is not returned is None.
    CountError if there is no such function, or it fails, or returns no module.
    """
    torch = load_torch()
    place, _, attribute = target.partition(":")
    if not place or not attribute:
        raise CountError(f"a PyTorch target must be torch:package.module:function, got {shorten(target)}")
    here, compiled = str(Path.cwd()), sys.dont_write_bytecode
    sys.path.insert(0, here)
    sys.dont_write_bytecode = True  # nothing is left behind in the user's folder
    try:
        with _quiet():
            function: Any = attrgetter(attribute)(import_module(place))
            made = function if _is_program(function) or isinstance(function, torch.nn.Module) else function()
            several = isinstance(made, tuple) and len(made) in (2, 3)
            module, inputs, options = (*made, None, None)[:3] if several else (made, None, None)
            if isinstance(module, torch.nn.Module):
                with suppress(NotImplementedError):  # a program of torch.export
                    module.eval()  # some tools do it, some do not
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        reason = _one_line(error)
        raise CountError(f"{shorten(target)} must be a function that makes a module, got {reason}") from error
    finally:
        sys.dont_write_bytecode = compiled
        with suppress(ValueError):  # what was imported may have taken it out
            sys.path.remove(here)
    if not _is_program(module) and not isinstance(module, torch.nn.Module):
        rule = "must return a torch.nn.Module, (module, inputs) or (module, inputs, keyword arguments)"
        raise CountError(f"{shorten(target)} {rule}, got {type(module).__name__}")
    return module, inputs, options


_TABLES = (dict, OrderedDict)  # a module's tables of parameters, hooks and the like


@contextmanager
def restored(module: Any, training: bool | None = None) -> Iterator[None]:
    """Set the training flags; afterwards put back every attribute, hook and buffer of the modules inside.

    A copy would not do: functions of its own may call the layers of the original, which nothing would hook.
    """
    modules = tuple(module.modules())
    flags = [(each, each.training) for each in modules if getattr(each, "training", None) is not None]
    buffers = [(x, x.clone()) for x in module.buffers()]
    before = [(own, dict(own)) for own in map(vars, modules)]
    # Hooks and the like are in tables, to which handles refer, so these are emptied and filled again.
    held = (each for _, own in before for each in own.values() if type(each) in _TABLES)
    tables: list[tuple[Any, Any]] = [(each, dict(each) if each else ()) for each in held]  # most are empty
    if training is not None and any(flag is not training for _, flag in flags):
        with suppress(NotImplementedError, AttributeError):  # of programs of torch.export and frozen TorchScript
            module.train(training)
    try:
        yield
    finally:
        for table, entries in (*before, *tables):
            if table or entries:
                table.clear()
                table.update(entries)
        for each, flag in flags:
            if each.training is not flag:  # TorchScript keeps flags elsewhere
                each.training = flag
        for x, values in buffers:
            x.data.copy_(values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output for results, and hide PyTorch's advice to a network's author."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of the module's own
        text = ""
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
