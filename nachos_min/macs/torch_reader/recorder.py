"""Watch a module run: each function that it calls becomes a record, and what PyTorch executes is held against it.

Two listeners are at work. The one above sees the outermost function of PyTorch that the module's code calls, so
that records are those of the layers as written. The one underneath counts the products that are really executed;
if the two disagree over one call, reading stops. A function in Python without a rule is entered, and what it
calls is seen instead; any other function without a rule that returns an array is refused by name. Read
`drafts.py`, `spelling.py` and `executed.py` first.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from types import FrameType, FunctionType
from typing import Any

from nachos_min.macs.ops import Graph
from nachos_min.macs.record import CountError
from nachos_min.macs.torch_reader.arrays import version
from nachos_min.macs.torch_reader.drafts import Drafts
from nachos_min.macs.torch_reader.elements import ELEMENT_RULES
from nachos_min.macs.torch_reader.executed import executed_macs
from nachos_min.macs.torch_reader.installed import load_torch
from nachos_min.macs.torch_reader.layers import LAYER_RULES
from nachos_min.macs.torch_reader.matrices import MATRIX_RULES
from nachos_min.macs.torch_reader.modules import RunningModules
from nachos_min.macs.torch_reader.norms import NORM_RULES
from nachos_min.macs.torch_reader.pools import POOL_RULES
from nachos_min.macs.torch_reader.spelling import Spelling, describe, spell
from nachos_min.macs.torch_reader.steps import Rule, Step, tensors_in

Arguments = tuple[Any, ...]
Options = dict[str, Any]

_RULES: dict[str, Rule] = {**LAYER_RULES, **NORM_RULES, **POOL_RULES, **MATRIX_RULES, **ELEMENT_RULES}
# Functions and attributes that give the same array under another name.
_SAME = ("data", "detach", "requires_grad", "_base", "as_subclass")


class Recorder:
    """Record what a module executes while `listening`; afterwards `graph` returns it.

    Attributes:
        error: the first thing that could not be counted, kept because the network may swallow an exception.
        failed: module and function of the last call that PyTorch itself refused.
    """

    def __init__(self, module: Any, inputs: object) -> None:
        self._modules = RunningModules(module)
        self._drafts = Drafts(inputs)
        self._executed = 0
        self._calling: str | None = None  # the function whose rule says what is being executed
        self._unruled = ""  # the function without a rule that is being executed
        self._below: Any = None
        self._entered: list[FunctionType] = []
        self._above: Any = None
        self.error: CountError | None = None
        self.failed = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to everything that runs inside."""
        torch = load_torch()
        underneath = torch.utils._python_dispatch.TorchDispatchMode
        above = torch.overrides.TorchFunctionMode
        with ExitStack() as stack:
            stack.enter_context(self._modules.followed())
            self._below = stack.enter_context(_listener(underneath, "__torch_dispatch__", self._on_executed))
            self._above = stack.enter_context(_listener(above, "__torch_function__", self._on_called))
            yield

    def graph(self, outputs: object) -> Graph:
        """Return what was recorded, given what the module returned."""
        return self._drafts.graph(outputs)

    def _on_executed(self, operator: Any, args: Arguments, options: Options, _caller: FrameType) -> Any:
        """Count what a basic operator multiplies; one that is made of others (in inference mode) is taken apart."""
        with self._below:
            output = operator.decompose(*args, **options)
        if output is not NotImplemented:
            return output
        output = operator(*args, **options)
        with self._located(self._calling or self._unruled):
            macs = executed_macs(operator._schema.name, args, output)
            if macs and self._calling is None:
                raise CountError(f"no rule for a function that executes {operator._schema.name}")
        self._executed += macs
        return output

    def _on_called(self, function: Any, args: Arguments, options: Options, caller: FrameType) -> Any:
        spelling = spell(function, caller)
        rule = (_RULES.get(spelling.text) or _RULES.get(spelling.rule)) if spelling else None
        if rule is not None and spelling is not None:
            return self._by_rule(rule, spelling, function, args, options)
        if isinstance(function, FunctionType) and not (self._entered and self._entered[-1] is function):
            return self._enter(function, args, options)
        self._unruled = spelling.text if spelling else describe(function)
        try:
            result = function(*args, **options)
        finally:
            self._unruled = ""
        if spelling is not None and spelling.rule in _SAME:
            for x in tensors_in(result):
                self._drafts.same(x, args[0], self._modules.innermost())
        elif any(True for _ in tensors_in(result)):
            with self._located(""):
                raise CountError(f"no rule for counting {spelling.text if spelling else describe(function)}")
        return result

    def _by_rule(self, rule: Rule, spelling: Spelling, function: Any, args: Arguments, options: Options) -> Any:
        given = list(tensors_in((args, options)))
        versions = [version(x) for x in given]
        before = self._executed
        self._calling = spelling.text
        try:
            result = function(*args, **options)
        except Exception:
            self.failed = self._where(spelling.text)
            raise
        finally:
            self._calling = None
        changed = {id(x) for x, old in zip(given, versions, strict=True) if version(x) != old}
        if given and id(given[0]) in changed and not (self._drafts.knows(given[0]) or given[0].is_floating_point()):
            return result  # a counter of the network's own, such as batch norm's number of batches
        with self._located(spelling.text):
            try:
                steps = rule(result, *args, **options)
            except TypeError as error:
                raise CountError(f"no rule for these arguments: {error}") from error
            _check(steps, self._executed - before)
            self._drafts.add(steps, changed, spelling.text, self._modules.innermost())
        return result

    def _enter(self, function: FunctionType, args: Arguments, options: Options) -> Any:
        """Run a function's own code with the listener above on again.

        PyTorch's functions in Python begin by asking whether somebody listens, and if so hand over to the
        listener, that is, to us. A copy of the function that is told nobody does goes on to its body.
        """
        questions = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
        deaf = dict.fromkeys(questions, lambda *_: False)
        code, name, defaults, closure = (
            function.__code__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        copy = FunctionType(code, {**function.__globals__, **deaf}, name, defaults, closure)
        copy.__kwdefaults__ = function.__kwdefaults__
        self._entered.append(function)
        try:
            with self._above:
                return copy(*args, **options)
        finally:
            self._entered.pop()

    def _where(self, function: str) -> str:
        return " ".join(part for part in (self._modules.innermost().path, function) if part)

    @contextmanager
    def _located(self, function: str) -> Iterator[None]:
        """Say in which module and function an error arose."""
        try:
            yield
        except CountError as error:
            where = self._where(function)
            self.error = self.error or CountError(f"{where}: {error}" if where else str(error))
            raise self.error from error


def _check(steps: list[Step], executed: int) -> None:
    """Check that records say what happened: as many products, as many elements."""
    counted = sum(step.batch * step.op.macs for step in steps)
    if counted != executed:
        raise CountError(f"PyTorch executed {executed} MACs where {counted} were counted")
    for step in steps:
        for x in step.makes:
            if step.batch * prod(step.op.output) != x.numel():
                raise CountError(f"PyTorch made an array {tuple(x.shape)} where {step.op.output} was expected")


def _listener(base: Any, method: str, handle: Callable[[Any, Arguments, Options, FrameType], Any]) -> Any:
    """Return one of PyTorch's modes that hands every call to `handle`, with the frame that called."""

    def listen(_self: Any, function: Any, _types: Any, args: Arguments = (), kwargs: Options | None = None) -> Any:
        return handle(function, args, kwargs or {}, sys._getframe(1))

    return type("Listener", (base,), {method: listen})()
