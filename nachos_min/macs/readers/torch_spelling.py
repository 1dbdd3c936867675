"""How a call was spelt in Python.

A sign and the method of the same name are one function to PyTorch, but not to some tools. The instruction that the
caller was executing tells them apart.
"""

import dis
from functools import cache
from operator import attrgetter
from types import CodeType, FrameType
from typing import Any, NamedTuple

from nachos_min.macs.readers.torch_graph import load_torch

_METHODS = "add sub mul div matmul pow floor_divide remainder gt lt ge le eq ne and or xor neg invert"
_WRITTEN = "+ - * / @ ** // % > < >= <= == != & | ^ - ~"
_SIGNS = dict(zip(_METHODS.split(), _WRITTEN.split(), strict=True))
_SHORTER = """radd:add rsub:sub rmul:mul rdiv:div truediv:div rtruediv:div pow:pow rpow:pow ipow:pow mod:remainder
    rmod:remainder floordiv:floor_divide rfloordiv:floor_divide ifloordiv:floor_divide"""
_SHORT = dict(pair.split(":") for pair in _SHORTER.split())
_ONE_OPERAND = ("neg", "invert")
_LONG = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "invert": "bitwise_not"}
_OWN = ("torch/nn/functional.py", "torch/functional.py")
_BETWEEN = ("torch/overrides.py", "torch/_jit_internal.py")  # code between a call and the listener
_SIGN_INSTRUCTIONS = ("BINARY_OP", "COMPARE_OP", "UNARY_NEGATIVE", "UNARY_INVERT")


class Spelling(NamedTuple):
    """How a call was spelt."""

    rule: str  # PyTorch's bare name, such as "add"
    text: str  # `Written.function`, such as "x += y"
    taken: bool = False  # whether the caller took the function out of its module before, under whatever name


class _Function(NamedTuple):
    """One of PyTorch's own functions."""

    name: str  # in its namespace
    plain: Spelling
    taken: Spelling | None  # None for a method, which is always looked up
    sign: Spelling | None  # None if there is no sign for it
    only_sign: bool  # whether nothing else calls it, such as __add__


@cache
def _functions() -> dict[int, _Function]:
    """Return PyTorch's functions by identity; what stands in several namespaces is called by the first."""
    torch = load_torch()
    spaces = [("F", torch.nn.functional), ("torch", torch)]
    spaces += [("Tensor", holder) for holder in (torch.Tensor, torch._C.TensorBase)]
    paths = ("linalg", "special", "nn.init", "fft", "_C._nn")
    spaces += [(f"torch.{path}", attrgetter(path)(torch)) for path in paths]
    found: dict[int, _Function] = {}
    for space, holder in spaces:
        for name, function in vars(holder).items():
            if callable(function) and id(function) not in found:
                found[id(function)] = _function(space, name)
    return found


def _function(space: str, name: str) -> _Function:
    bare = name.strip("_")
    dunder = name.startswith("__") and name.endswith("__")
    base = _SHORT.get(bare, bare) if dunder else name.removesuffix("_")
    in_place = (name.endswith("_") and not dunder) or (dunder and bare in ("ipow", "ifloordiv"))
    rule = _LONG.get(base, base) if dunder else base
    plain, sign = Spelling(rule, f"{space}.{name}"), None
    if base in _SIGNS and (dunder or space == "Tensor"):
        text = f"{_SIGNS[base]}x" if base in _ONE_OPERAND else f"x {_SIGNS[base]}{'=' * in_place} y"
        sign = Spelling(rule, text)
    return _Function(name, plain, plain._replace(taken=True) if space in ("F", "torch") else None, sign, dunder)


def spell(function: Any, caller: FrameType) -> Spelling | None:
    """Return how the frame `caller` spelt a call, None for a function that is not one of PyTorch's own."""
    known = _functions().get(id(function))
    if known is None:
        name = getattr(function, "__name__", "")
        if name not in ("__get__", "__set__"):
            return None
        own, sets = function.__self__, " =" if name == "__set__" else ""
        name = getattr(own, "__name__", "") or getattr(getattr(own, "fget", None), "__name__", "")
        return Spelling(f"{name}{sets}", f"Tensor.{name}{sets}")
    if known.sign is not None and (known.only_sign or _is_sign(known.name, caller)):
        return known.sign
    taken = known.taken is not None and _is_taken(function, known.name, caller)
    return known.taken if taken else known.plain


def _is_sign(name: str, caller: FrameType) -> bool:
    """Return whether the caller wrote a sign: its instruction is one, or it never names the method (`sum(xs)`)."""
    code = caller.f_code
    return dis.opname[code.co_code[caller.f_lasti]] in _SIGN_INSTRUCTIONS or name not in code.co_names


def _is_taken(function: Any, name: str, caller: FrameType | None) -> bool:
    """Return whether the code that called a function holds it, as a name of its own or as an attribute.

    An argument may have been looked up just before, by the code that called that code.
    """
    if caller is None:
        return False
    code = caller.f_code
    own = code.co_filename.endswith(_OWN)  # which looks functions up in its own module
    if code.co_filename.endswith(_BETWEEN) or (own and code.co_name.strip("_") == name):
        return _is_taken(function, name, caller.f_back)
    if own or name in _attributes(code):
        return False
    local = list(caller.f_locals.values())  # slow, so last
    holders = [caller.f_globals, *(x.__dict__ for x in local if isinstance(x, load_torch().nn.Module))]
    if any(holder.get(each) is function for holder in holders for each in code.co_names):
        return True
    return any(x is function for x in local) and _is_taken(function, name, caller.f_back)


_SEEN: dict[int, tuple[CodeType, frozenset[str]]] = {}  # by identity: code is slow to hash


def _attributes(code: CodeType) -> frozenset[str]:
    """Return the names that code looks up in modules and other objects."""
    if id(code) not in _SEEN:
        looked_up = (
            each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_ATTR", "LOAD_METHOD")
        )
        _SEEN[id(code)] = code, frozenset(looked_up)
    return _SEEN[id(code)][1]
