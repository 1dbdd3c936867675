"""How a call was spelt: which function it was, in which namespace, or which operator sign.

A sign and the method of the same name are one function to PyTorch; the instruction that the caller was executing
tells them apart. Other tools see the one and miss the other, so that conventions need to know.
"""

import dis
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

from nachos_min.macs.torch_reader.installed import load_torch

_SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "matmul": "@",
    "pow": "**",
    "floor_divide": "//",
    "remainder": "%",
    "gt": ">",
    "lt": "<",
    "ge": ">=",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
    "xor": "^",
    "neg": "-",
    "invert": "~",
}
_ONE_OPERAND = ("neg", "invert")
_LONG = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "invert": "bitwise_not"}
_SHORT = {
    "rsub": "sub",
    "rdiv": "div",
    "rtruediv": "div",
    "truediv": "div",
    "rpow": "pow",
    "ipow": "pow",
    "floordiv": "floor_divide",
    "rfloordiv": "floor_divide",
    "ifloordiv": "floor_divide",
    "rmod": "remainder",
    "mod": "remainder",
    "radd": "add",
    "rmul": "mul",
}
_SIGN_INSTRUCTIONS = ("BINARY_OP", "COMPARE_OP", "UNARY_NEGATIVE", "UNARY_INVERT")


@dataclass(frozen=True)
class Spelling:
    """How a call was spelt.

    Args:
        rule: PyTorch's name without namespace and without the underscore of in-place functions, such as "add".
        text: as `Written.function` has it, such as "F.relu", "Tensor.add" or "x + y".
    """

    rule: str
    text: str


@cache
def _names() -> dict[int, tuple[str, str]]:
    """Return function's id -> (namespace, name); what stands in several is called by the first."""
    torch = load_torch()
    spaces: list[tuple[str, Any]] = [
        ("F", torch.nn.functional),
        ("torch", torch),
        ("Tensor", torch.Tensor),
        ("Tensor", torch._C.TensorBase),
        ("torch.linalg", torch.linalg),
        ("torch.special", torch.special),
        ("torch.nn.init", torch.nn.init),
        ("torch.fft", torch.fft),
        ("torch._C._nn", torch._C._nn),
    ]
    found: dict[int, tuple[str, str]] = {}
    for space, holder in spaces:
        for name, function in vars(holder).items():
            if callable(function):
                found.setdefault(id(function), (space, name))
    return found


def spell(function: Any, caller: FrameType) -> Spelling | None:
    """Return how a call was spelt, None for a function that is not one of PyTorch's own.

    Args:
        function: what a torch-function mode was given.
        caller: the frame that called it.
    """
    name = getattr(function, "__name__", "")
    if name == "__get__":
        descriptor = function.__self__
        name = getattr(descriptor, "__name__", "") or getattr(getattr(descriptor, "fget", None), "__name__", "")
        return Spelling(name, f"Tensor.{name}")
    if id(function) not in _names():
        return None
    space, name = _names()[id(function)]
    bare = name.strip("_")
    dunder = name.startswith("__") and name.endswith("__")
    base = _SHORT.get(bare, bare) if dunder else name.removesuffix("_")
    in_place = (name.endswith("_") and not dunder) or (dunder and bare in ("ipow", "ifloordiv"))
    rule = _LONG.get(base, base) if dunder else base
    if base in _SIGNS and (dunder or (space == "Tensor" and _is_sign(name, caller))):
        if base in _ONE_OPERAND:
            return Spelling(rule, f"{_SIGNS[base]}x")
        return Spelling(rule, f"x {_SIGNS[base]}{'=' * in_place} y")
    return Spelling(rule, f"{space}.{name}")


def describe(function: Any) -> str:
    """Return what to call a function that is not one of PyTorch's own, or not one with a name."""
    text = getattr(function, "_qualified_op_name", "") or getattr(function, "__name__", "") or str(function)
    return "torch.from_numpy" if "lift_fresh" in text else text


def _is_sign(name: str, caller: FrameType) -> bool:
    """Return whether the caller wrote a sign: its instruction is one, or it never names the method (`sum(xs)`)."""
    code = caller.f_code
    instruction = dis.opname[code.co_code[caller.f_lasti]]
    return instruction in _SIGN_INSTRUCTIONS or name not in code.co_names
