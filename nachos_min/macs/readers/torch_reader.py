"""A PyTorch module as a graph of records: `read_torch` runs it once and records every operator that it executes.

Functions, methods, signs, shared layers and branches are recorded as executed; a layer that is never called is
not, nor are its parameters. What a module does outside PyTorch is not seen. What cannot be counted exactly is
refused with the name of its function and module.

The listener above sees the outermost functions of PyTorch that the module calls. The one below counts the products
that are executed; if the two disagree over a call, reading stops. A Python function without a rule is entered, so
that its own calls are seen. Any other function without a rule that returns an array is refused.
"""

import dis
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from math import prod
from operator import attrgetter
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, NamedTuple

from nachos_min.macs.count import check_graph
from nachos_min.macs.ops import Graph
from nachos_min.macs.readers.builder import Step, require
from nachos_min.macs.readers.torch_graph import Recording, RunningModules, load_torch, tensors_in, version
from nachos_min.macs.readers.torch_rules import RULES, Rule
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
    """Return what a module is called with; CountError if it is none, or the inputs are none or too large.

    `inputs` are a tensor, a tuple whose first is a tensor, or a shape with its batch axis, for which normally
    distributed numbers are drawn, of the type and on the device of the module's first parameter.
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

    `target` is "package.module:function", searched for in the current folder first. CountError if there is no such
    function, or it fails, or returns no module.
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


# Listening to what the module calls and executes.

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
        """Count what a basic operator multiplies; one that is made of others is taken apart."""
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

    def _by_rule(self, rule: Rule, spelt: str, function: Any, args: Arguments, options: Options) -> Any:
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
    counted = sum(step.batch * step.op.macs * step.real for step in steps)
    require(counted == executed, f"PyTorch executed {executed} MACs where {counted} were counted")
    for step in steps:
        for x in step.makes:
            shape, same = step.op.output, step.batch * prod(step.op.output) == x.numel()
            require(same, f"PyTorch made an array {tuple(x.shape)} where {shape} was expected")


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
    """How a call was spelt."""

    rule: str  # PyTorch's bare name, such as "add"
    text: str  # `Written.function`, such as "x += y"


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


def _matrices(left: Sequence[int], right: Sequence[int]) -> int:
    return prod(left) * right[-1]


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_KINDS = "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention fused_attention_overrideable"
# Operator -> MACs of its arrays' shapes, and the positions of the arguments that these are.
_PRODUCTS: dict[str, tuple[Callable[..., int], tuple[int, ...]]] = {
    **dict.fromkeys(("mm", "bmm"), (_matrices, (0, 1))),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm"), (_matrices, (1, 2))),
    **dict.fromkeys(("mv", "dot", "vdot"), (prod, (0,))),
    "addmv": (prod, (1,)),
    **{f"_scaled_dot_product_{kind}": (_attention, (0, 1, 2)) for kind in _KINDS.split()},
}

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
        return rule(*(args[i].shape for i in positions))
    if own not in ("aten", "prim", "profiler") or _SUSPICIOUS.search(base):
        raise CountError(f"no rule for the operator {name}, which may multiply and accumulate")
    return 0
