"""Listening to what a module calls and executes.

The listener above sees the outermost functions of PyTorch that a module calls. A function with a rule is recorded
by it. A Python function without one is entered, so that its own calls are seen. Of any other the basic operators
that it executes are recorded, by the listener below, which also counts the products under functions with a rule;
if the two disagree over a call, it cannot be counted. What cannot be counted is noted, and reading goes on.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from math import prod
from threading import RLock, local
from types import FrameType, FunctionType
from typing import Any

from nachos_min.macs.readers.builder import Causes, Step, facts, require
from nachos_min.macs.readers.torch_executed import IN_PARTS, Operator, described
from nachos_min.macs.readers.torch_graph import (
    Recording,
    RunningModules,
    load_torch,
    memory,
    real_products,
    tensors_in,
    versions,
)
from nachos_min.macs.readers.torch_rules import RULES, Rule
from nachos_min.macs.readers.torch_spelling import spell
from nachos_min.macs.readers.torch_threads import Origins, threads_followed
from nachos_min.macs.record import CountError

Arguments = tuple[Any, ...]
Options = dict[str, Any]

# Functions and attributes that give the same array under another name.
_SAME = ("data", "data =", "detach", "requires_grad", "_base", "as_subclass")
_TO_NUMPY = ("numpy", "__array__", "__dlpack__")


def _cond(chosen: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], operands: Any = ()) -> Any:
    """Run torch.cond as Python runs an `if`."""
    return (if_true if chosen else if_false)(*operands)


def _while(holds: Callable[..., Any], turn: Callable[..., Any], carried: Any, constants: Any = ()) -> Any:
    """Run PyTorch's while_loop as Python runs a `while`."""
    while holds(*carried, *constants):
        carried = turn(*carried, *constants)
    return carried


def _flex(*args: Any, **options: Any) -> Any:
    """Run attention with functions of the user's as PyTorch does without its compiler."""
    return import_module("torch._higher_order_ops.flex_attention").math_attention(*args, **options)


_BRANCHES: dict[str, Callable[..., Any]] = {"cond": _cond, "while_loop": _while, "flex_attention": _flex}


class _Here(local):
    """What a thread is executing."""

    above: Any = None  # its listeners, None if it does not listen
    below: Any = None
    products: int | None = 0  # of the function whose rule says what is executed; None: not known
    calling: str | None = None  # that function
    fused = False  # whether attention was executed as one operator
    unruled = ""  # the function without a rule that is being executed
    executing = False  # whether a basic operator is: that is no call of the module's

    def __init__(self) -> None:
        self.entered: list[FunctionType] = []


class Recorder:
    """Record what a module executes while `listening`; afterwards `recording` holds it."""

    def __init__(self, module: Any, inputs: object) -> None:
        self._modules = RunningModules(module)
        self.recording = Recording(inputs)
        self._origins = Origins()
        self._operators: dict[Any, Operator] = {}  # those that are not made of others
        self._here = _Here()
        self._writing = RLock()
        self._over = False
        reals = (x for x in tensors_in(inputs) if x.is_floating_point() or x.is_complex())
        self._inputs = {id(x) for x in reals}  # integers say lengths and places
        self._left = False  # whether an array of the network's was handed to NumPy
        self._shared = set[int]()  # memory of other arrays that NumPy may write to
        self._mapped = load_torch()._C._functorch.peek_interpreter_stack  # not None inside torch.vmap
        self.causes = Causes()
        self.failed = ""  # module and function of the last call that PyTorch itself refused

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to everything that runs inside."""
        with self._modules.followed(self._in_thread), threads_followed(self._in_thread), self._in_thread():
            try:
                yield
            finally:
                self._over = True  # a thread may live on

    @contextmanager
    def _in_thread(self) -> Iterator[None]:
        """Listen in this thread, unless it does already."""
        torch, here = load_torch(), self._here
        if here.below is not None or self._over:
            yield
            return
        below, above = torch.utils._python_dispatch.TorchDispatchMode, torch.overrides.TorchFunctionMode
        here.below = _listener(below, "__torch_dispatch__", self._on_executed)
        here.above = _listener(above, "__torch_function__", self._on_called)
        try:
            with torch.no_grad(), here.below, here.above:
                yield
        finally:
            here.below = here.above = None

    # Basic operators.

    def _on_executed(self, operator: Any, args: Arguments, options: Options, _caller: FrameType) -> Any:
        """Count what a basic operator multiplies, or record it; one that is made of others is taken apart."""
        here = self._here
        if self._over:
            return operator(*args, **options)
        known = self._operators.get(operator)
        if known is None:
            parts = IN_PARTS.get(operator._schema.name, operator.decompose)
            with here.below:
                output = NotImplemented if operator.namespace == "prim" else parts(*args, **options)
            if output is not NotImplemented:
                return output
            known = self._operators[operator] = described(operator)
        here.executing = True
        try:
            if known.of_tensor and all(type(x) in (int, float, bool) for x in args):  # as TorchScript has numbers
                args = tuple(map(load_torch().tensor, args))
            output = operator(*args, **options)
        except Exception:
            self.failed = self._where(here.calling or here.unruled or known.name)
            raise
        finally:
            here.executing = False
        self._origins.note(output)
        if here.calling is None:
            self._noting(here.unruled, self._by_operator, known, output, args, options)
        elif here.products is not None and known.products is not None:
            here.fused |= "_scaled_dot_product_" in known.name
            more = self._noting(here.calling, _products, known, output, args, options)
            here.products = None if more is None else here.products + more
        return output

    def _by_operator(self, known: Operator, output: Any, args: Arguments, options: Options) -> None:
        """Record a basic operator by its rule; one that only gives a view of an array moves elements."""
        if "lift_fresh" in known.name:  # what was no array of PyTorch's before
            require(not self._left, "what NumPy computes is not seen, got torch.from_numpy")
            return
        rule, spelt = _operator_rule(known.name)
        products = _products(known, output, args, options)
        if rule is None and not known.views:
            made = any(True for _ in tensors_in(output))
            require(not made and not known.writes, f"no rule for the operator {known.name}")
            return
        changed = {id(x) for x in known.written(args, options)}
        steps = _steps(rule or RULES["view"], output, args, options)
        require(steps is not NotImplemented, f"no rule for the operator {known.name} with these arguments")
        self._add(steps, changed, spelt, products, args, heard=bool(self._here.unruled))

    # Functions.

    def _on_called(self, function: Any, args: Arguments, options: Options, caller: FrameType) -> Any:
        if self._here.executing or self._over:
            return function(*args, **options)
        spelling = spell(function, caller)
        if spelling:
            rule, text = RULES.get(spelling.text) or RULES.get(spelling.rule), spelling.text
        else:
            rule, text = _operator_rule(_qualified(function))
            text = text or getattr(function, "__name__", "") or str(function)
        if rule is not None and self._mapped() is None:
            return self._by_rule(rule, text, function, args, options, taken=spelling is not None and spelling.taken)
        if spelling is not None and spelling.rule in _SAME:
            return self._same(function, args, options)
        if text.endswith(_TO_NUMPY) and args:
            self._hand_over(args[0])
        return self._without_rule(text, function, args, options)

    def _by_rule(
        self, rule: Rule, spelt: str, function: Any, args: Arguments, options: Options, *, taken: bool
    ) -> Any:
        here, given = self._here, list(tensors_in((args, options)))
        before = versions(given)
        outer, here.calling, here.products, here.fused = here.calling, spelt, 0, False
        try:
            result = function(*args, **options)
        except Exception:
            self.failed = self._where(spelt)
            raise
        finally:
            here.calling, products = outer, here.products
        after = versions(given)
        changed = {id(given[i]) for i in range(len(given)) if before[i] != after[i]} if before != after else set()

        def record() -> Any:
            numbers = rule is RULES["tensor"] and _of_reals(result, given)
            unseen = self._left and (numbers or _holds_numpy((args, options)))
            require(not unseen, "what NumPy computes is not seen, got an array of its")
            steps = _steps(rule, result, args, options)
            if steps is NotImplemented:
                require(not changed, "no rule for these arguments")
                return steps
            seen = facts(taken=taken, fused=here.fused) if taken or here.fused else frozenset[str]()
            return self._add(steps, changed, spelt, products, given, seen=seen)

        declined = self._noting(spelt, record) is NotImplemented
        return self._without_rule(spelt, function, args, options) if declined else result

    def _without_rule(self, text: str, function: Any, args: Arguments, options: Options) -> Any:
        """Run a function whose own calls, or else whose basic operators are recorded."""
        here = self._here
        branch = _BRANCHES.get(getattr(function, "__name__", ""))
        if branch is not None and type(function).__module__.startswith("torch._higher_order_ops"):
            with here.above:
                return branch(*args, **options)
        entered = here.entered and here.entered[-1] is function
        if isinstance(function, FunctionType) and not entered and self._mapped() is None:
            return self._enter(function, args, options)
        outer, here.unruled = here.unruled, text
        try:
            return function(*args, **options)
        except Exception:
            self.failed = self.failed or self._where(text)
            raise
        finally:
            here.unruled = outer

    def _same(self, function: Any, args: Arguments, options: Options) -> Any:
        """Run a function whose result is its argument under another name, or is set as its argument's data."""
        here = self._here
        outer, here.calling = here.calling, ""
        try:
            result = function(*args, **options)
        finally:
            here.calling = outer
        place = self._modules.innermost()
        if result is None and len(args) == 2:  # an attribute was set
            self.recording.same(args[0], args[1], place)
        for x in tensors_in(result):
            self.recording.same(x, args[0], place)
        return result

    def _enter(self, function: FunctionType, args: Arguments, options: Options) -> Any:
        """Run a function's own code with the listener above on again.

        PyTorch's Python functions first look for a listener and call it. A copy that finds none runs its body.
        """
        checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
        names = {**function.__globals__, **dict.fromkeys(checks, lambda *_: False)}
        defaults, closure = function.__defaults__, function.__closure__
        copy = FunctionType(function.__code__, names, function.__name__, defaults, closure)
        copy.__kwdefaults__ = function.__kwdefaults__
        self._here.entered.append(function)
        try:
            with self._here.above:
                return copy(*args, **options)
        finally:
            self._here.entered.pop()

    # Records.

    def _add(
        self,
        steps: list[Step],
        changed: set[int],
        spelt: str,
        products: int | None,
        given: Any,
        heard: bool = True,
        seen: frozenset[str] = frozenset(),
    ) -> None:
        """Append the steps of a call that executed so many products; compiled code has constants unheard of."""
        own = changed and id(given[0]) in changed and not self.recording.knows(given[0])
        of_complex, counted = False, _counted(steps)
        if own and not (products or counted or given[0].is_floating_point()):
            return  # a counter of the network's own, such as batch norm's number of batches
        if products not in (None, counted) and any(x.is_complex() for x in tensors_in(given)):
            of_complex, counted = True, sum(step.batch * step.op.macs * real_products(step.op) for step in steps)
        require(products in (None, counted), f"PyTorch executed {products} MACs where {counted} were counted")
        for step in steps:
            for x in step.makes:
                shape, same = step.op.output, step.batch * prod(step.op.output) == x.numel()
                require(same, f"PyTorch made an array {tuple(x.shape)} where {shape} was expected")
        if heard:
            self.check_origins(x for step in steps for x in step.reads if not isinstance(x, Step))
        with self._writing:
            path, written = self._modules.innermost()
            self.recording.add(
                steps, changed, spelt, (path, replace(written, facts=seen) if seen else written), of_complex
            )

    def _hand_over(self, x: Any) -> None:
        """Note that NumPy has an array's elements: what it makes of the network's is not heard."""
        if self.recording.knows(x) or id(x) in self._inputs:
            self._left = True
            self._origins.begin()
        else:
            self._shared.add(memory(x))

    def check_origins(self, arrays: Iterable[Any]) -> None:
        """Check that what is heard, or existed before, made the arrays."""
        unknown = [x for x in arrays if not self.recording.knows(x)]
        if self._left and self._shared:
            require(self._shared.isdisjoint(map(memory, unknown)), "what NumPy writes into an array is not seen")
        self._origins.check(unknown)

    def check_outputs(self, outputs: object) -> None:
        """Note a cause if what made an output is not heard."""
        self._noting("output", self.check_origins, tensors_in(outputs))

    def _where(self, function: str) -> str:
        return " ".join(part for part in (self._modules.innermost()[0], function) if part)

    def _noting(self, function: str, action: Callable[..., Any], *arguments: Any) -> Any:
        """Return what an action does; if it says that a call cannot be counted, note it and return None."""
        try:
            return action(*arguments)
        except CountError as error:
            self.causes.add(f": {error}", self._where(function))
            return None


def _steps(rule: Rule, result: Any, args: Arguments, options: Options) -> Any:
    """Return the steps of a call, or NotImplemented."""
    try:
        return rule(result, *args, **options)
    except (CountError, RecursionError):
        raise
    except Exception as error:  # whatever a rule stumbles over in arguments that it was not made for
        raise CountError(f"no rule for these arguments: {' '.join(str(error).split())[:160]}") from error


def _products(known: Operator, output: Any, args: Arguments, options: Options) -> int:
    """Return the products of an operator, those of the rule under its full name if nothing else is known."""
    try:
        return known.products(output, *args) if known.products is not None else 0
    except CountError:
        space, _, base = known.name.partition("::")
        rule = RULES.get(f"{space}.{base.removesuffix('_')}")
        if rule is None:
            raise
        return _counted(rule(output, *args, **options))


def _counted(steps: list[Step]) -> int:
    return sum(step.batch * step.op.macs for step in steps)


def _operator_rule(name: str) -> tuple[Rule | None, str]:
    """Return the rule of a basic operator such as "aten::add_", and how it is written in a graph."""
    space, colons, base = name.partition("::")
    if not colons:
        return None, ""
    bare = base if base.startswith("__") else base.removesuffix("_")
    own = RULES.get(f"{space}.{bare}")
    return own or (RULES.get(bare) if space == "aten" else None), f"{space}.{base}"


def _qualified(function: Any) -> str:
    """Return the full name of an operator that Python called, "" if it is none."""
    schema = getattr(function, "_schema", None)
    return str(getattr(schema, "name", "") or getattr(function, "_qualified_op_name", ""))


def _of_reals(made: Any, given: list[Any]) -> bool:
    """Return whether an array was made of several Python numbers that are no integers."""
    return made.numel() > 1 and not given and (made.is_floating_point() or made.is_complex())


def _holds_numpy(values: Any) -> bool:
    """Return whether NumPy made a value, or one of nested lists and mappings."""
    if isinstance(values, tuple | list | Mapping):
        return any(map(_holds_numpy, values.values() if isinstance(values, Mapping) else values))
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(values, numpy.ndarray | numpy.inexact)


def _executes(kind: Any) -> bool:
    """Return whether arrays of a kind execute other operators in an operator's place, which are heard instead."""
    torch = load_torch()
    return (
        kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ and kind is not torch._subclasses.FakeTensor
    )


def _listener(base: Any, method: str, handle: Callable[[Any, Arguments, Options, FrameType], Any]) -> Any:
    """Return one of PyTorch's modes that hands every call to `handle`, with the frame that called."""

    def listen(_self: Any, function: Any, types: Any, args: Arguments = (), kwargs: Options | None = None) -> Any:
        if method == "__torch_dispatch__" and any(map(_executes, types)):
            return NotImplemented
        return handle(function, args, kwargs or {}, sys._getframe(1))

    # PyTorch would else guard each call against its compiler, which does not run.
    members = {method: listen, "_should_skip_dynamo": classmethod(lambda _cls: False)}
    return type("Listener", (base,), members)()
