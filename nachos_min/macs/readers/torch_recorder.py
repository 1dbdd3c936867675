"""Watch a module run: each function that it calls becomes a record, checked against what PyTorch executes.

The listener above sees the outermost functions of PyTorch that the module calls. The one below counts the products
that are executed; if the two disagree over a call, reading stops. A Python function without a rule is entered, so
that its own calls are seen. Any other function without a rule that returns an array is refused.
"""

import dis
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from math import prod
from operator import attrgetter
from types import FrameType, FunctionType
from typing import Any, NamedTuple

from nachos_min.macs.readers.builder import Step, require
from nachos_min.macs.readers.torch_graph import Recording, RunningModules, load_torch, tensors_in, version
from nachos_min.macs.readers.torch_rules import RULES
from nachos_min.macs.record import CountError

Arguments = tuple[Any, ...]
Options = dict[str, Any]

# Functions and attributes that give the same array under another name.
_SAME = ("data", "detach", "requires_grad", "_base", "as_subclass")


class Recorder:
    """Record what a module executes while `listening`; afterwards `recording` holds it."""

    def __init__(self, module: Any, inputs: object) -> None:
        self._modules = RunningModules(module)
        self.recording = Recording(inputs)
        self._executed = 0
        self._calling: str | None = None  # the function whose rule says what is being executed
        self._unruled = ""  # the function without a rule that is being executed
        self._entered: list[FunctionType] = []
        self._above: Any = None
        self._below: Any = None
        self.error: CountError | None = None  # the first one: the network may swallow an exception
        self.failed = ""  # module and function of the last call that PyTorch itself refused

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to everything that runs inside."""
        torch = load_torch()
        below, above = torch.utils._python_dispatch.TorchDispatchMode, torch.overrides.TorchFunctionMode
        with ExitStack() as stack:
            stack.enter_context(self._modules.followed())
            self._below = stack.enter_context(_listener(below, "__torch_dispatch__", self._on_executed))
            self._above = stack.enter_context(_listener(above, "__torch_function__", self._on_called))
            yield

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
        rule = (RULES.get(spelling.text) or RULES.get(spelling.rule)) if spelling else None
        if rule is not None and spelling is not None:
            return self._by_rule(rule, spelling.text, function, args, options)
        if isinstance(function, FunctionType) and not (self._entered and self._entered[-1] is function):
            return self._enter(function, args, options)
        unruled = self._unruled = spelling.text if spelling else _described(function)
        try:
            result = function(*args, **options)
        finally:
            self._unruled = ""
        if spelling is not None and spelling.rule in _SAME:
            for x in tensors_in(result):
                self.recording.same(x, args[0], self._modules.innermost())
        elif any(True for _ in tensors_in(result)):
            with self._located(""):
                raise CountError(f"no rule for counting {unruled}")
        return result

    def _by_rule(
        self, rule: Callable[..., list[Step]], spelt: str, function: Any, args: Arguments, options: Options
    ) -> Any:
        given = list(tensors_in((args, options)))
        versions = [version(x) for x in given]
        before = self._executed
        self._calling = spelt
        try:
            result = function(*args, **options)
        except Exception:
            self.failed = self._where(spelt)
            raise
        finally:
            self._calling = None
        changed = {id(x) for x, old in zip(given, versions, strict=True) if version(x) != old}
        unknown = given and not self.recording.knows(given[0]) and not given[0].is_floating_point()
        if unknown and id(given[0]) in changed:
            return result  # a counter of the network's own, such as batch norm's number of batches
        with self._located(spelt):
            try:
                steps = rule(result, *args, **options)
            except TypeError as error:
                raise CountError(f"no rule for these arguments: {error}") from error
            _check(steps, self._executed - before)
            self.recording.add(steps, changed, spelt, self._modules.innermost())
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
        self._entered.append(function)
        try:
            with self._above:
                return copy(*args, **options)
        finally:
            self._entered.pop()

    def _where(self, function: str) -> str:
        return " ".join(part for part in (self._modules.innermost()[0], function) if part)

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
    require(counted == executed, f"PyTorch executed {executed} MACs where {counted} were counted")
    for step in steps:
        for x in step.makes:
            if step.batch * prod(step.op.output) != x.numel():
                raise CountError(f"PyTorch made an array {tuple(x.shape)} where {step.op.output} was expected")


def _listener(base: Any, method: str, handle: Callable[[Any, Arguments, Options, FrameType], Any]) -> Any:
    """Return one of PyTorch's modes that hands every call to `handle`, with the frame that called."""

    def listen(_self: Any, function: Any, _types: Any, args: Arguments = (), kwargs: Options | None = None) -> Any:
        return handle(function, args, kwargs or {}, sys._getframe(1))

    return type("Listener", (base,), {method: listen})()


# How a call was spelt. A sign and the method of the same name are one function to PyTorch, but not to some tools.
# The instruction that the caller was executing tells them apart.

# fmt: off
_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "matmul": "@", "pow": "**", "floor_divide": "//",
    "remainder": "%", "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!=", "and": "&", "or": "|",
    "xor": "^", "neg": "-", "invert": "~",
}
_SHORT = {
    "rsub": "sub", "rdiv": "div", "rtruediv": "div", "truediv": "div", "rpow": "pow", "ipow": "pow", "radd": "add",
    "floordiv": "floor_divide", "rfloordiv": "floor_divide", "ifloordiv": "floor_divide", "rmod": "remainder",
    "mod": "remainder", "rmul": "mul",
}
# fmt: on
_ONE_OPERAND = ("neg", "invert")
_LONG = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "invert": "bitwise_not"}
_SIGN_INSTRUCTIONS = ("BINARY_OP", "COMPARE_OP", "UNARY_NEGATIVE", "UNARY_INVERT")


class Spelling(NamedTuple):
    """How a call was spelt: PyTorch's bare name, such as "add", and `Written.function`, such as "x += y"."""

    rule: str
    text: str


@cache
def _functions() -> dict[int, tuple[str, str]]:
    """Return function's id -> (namespace, name); what stands in several is called by the first."""
    torch = load_torch()
    spaces = [
        ("F", torch.nn.functional),
        ("torch", torch),
        ("Tensor", torch.Tensor),
        ("Tensor", torch._C.TensorBase),
    ]
    paths = ("linalg", "special", "nn.init", "fft", "_C._nn")
    spaces += [(f"torch.{path}", attrgetter(path)(torch)) for path in paths]
    found: dict[int, tuple[str, str]] = {}
    for space, holder in spaces:
        for name, function in vars(holder).items():
            if callable(function):
                found.setdefault(id(function), (space, name))
    return found


def spell(function: Any, caller: FrameType) -> Spelling | None:
    """Return how the frame `caller` spelt a call, None for a function that is not one of PyTorch's own."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        descriptor = function.__self__
        name = getattr(descriptor, "__name__", "") or getattr(getattr(descriptor, "fget", None), "__name__", "")
        return Spelling(name, f"Tensor.{name}")
    if id(function) not in _functions():
        return None
    space, name = _functions()[id(function)]
    bare = name.strip("_")
    dunder = name.startswith("__") and name.endswith("__")
    base = _SHORT.get(bare, bare) if dunder else name.removesuffix("_")
    in_place = (name.endswith("_") and not dunder) or (dunder and bare in ("ipow", "ifloordiv"))
    rule = _LONG.get(base, base) if dunder else base
    if base not in _SIGNS or not (dunder or (space == "Tensor" and _is_sign(name, caller))):
        return Spelling(rule, f"{space}.{name}")
    return Spelling(rule, f"{_SIGNS[base]}x" if base in _ONE_OPERAND else f"x {_SIGNS[base]}{'=' * in_place} y")


def _described(function: Any) -> str:
    """Return what to call a function that is not one of PyTorch's own, or not one with a name."""
    text = getattr(function, "_qualified_op_name", "") or getattr(function, "__name__", "") or str(function)
    return "torch.from_numpy" if "lift_fresh" in text else text


def _is_sign(name: str, caller: FrameType) -> bool:
    """Return whether the caller wrote a sign: its instruction is one, or it never names the method (`sum(xs)`)."""
    code = caller.f_code
    return dis.opname[code.co_code[caller.f_lasti]] in _SIGN_INSTRUCTIONS or name not in code.co_names


# Multiply-accumulates of PyTorch's basic operators, which its functions execute. Records are not used here.


def _attention(query: list[int], key: list[int], value: list[int]) -> int:
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# Operator -> MACs of its arrays' shapes, and the positions of the arguments that these are.
_PRODUCTS: dict[str, tuple[Callable[..., int], tuple[int, ...]]] = {
    **dict.fromkeys(("mm", "bmm"), (lambda left, right: prod(left) * right[-1], (0, 1))),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm"), (lambda left, right: prod(left) * right[-1], (1, 2))),
    **dict.fromkeys(("mv", "dot", "vdot"), (prod, (0,))),
    "addmv": (prod, (1,)),
}
_KINDS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
for _kind in (*_KINDS, "fused_attention_overrideable"):
    _PRODUCTS[f"_scaled_dot_product_{_kind}"] = (_attention, (0, 1, 2))

# What multiplies and accumulates under another name, by the words in the names of PyTorch's operators.
_SUSPICIOUS = re.compile(
    r"(?:^|_)(?:conv(?!ert)\w*|(?:int4pack_|int8pack_|add|b|baddb|addb|hsp|sspadd|s)?mm|mv|addmv|\w*dot|inner|matmul|"
    r"linear|bilinear|trilinear|lstm|gru|rnn|attention|mha|transformer|cdist|pdist|euclidean|fft|"
    r"linalg(?!_vector_norm)|inverse|cholesky|solve|spsolve|svd|qr|lu|eig)(?:_|$)"
)


def executed_macs(name: str, args: tuple[Any, ...], output: Any) -> int:
    """Return the MACs of a basic operator, of all samples; CountError if it may multiply and has no rule."""
    own, _, base = name.partition("::")
    if name == "aten::convolution":  # one product per weight and pixel that the window slides over
        x, weight, transposed = args[0].shape, args[1].shape, args[6]
        return int(prod((x[0], *(x if transposed else output.shape)[2:], *weight)))
    if own == "aten" and base in _PRODUCTS:
        rule, positions = _PRODUCTS[base]
        return rule(*(list(args[i].shape) for i in positions))
    if own not in ("aten", "prim", "profiler") or _SUSPICIOUS.search(base):
        raise CountError(f"no rule for the operator {name}, which may multiply and accumulate")
    return 0
