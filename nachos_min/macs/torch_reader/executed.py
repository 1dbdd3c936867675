"""Multiply-accumulates of what PyTorch's dispatcher really executes, from the shapes that arrive there.

This is the second opinion on every record made from a Python call: underneath the functions that a network calls
PyTorch executes a few hundred basic operators, of which these multiply and accumulate. One that does so in
disguise and has no rule here is refused, so that nothing is left out silently. It knows nothing of records.
"""

import re
from collections.abc import Callable
from math import prod
from typing import Any

from nachos_min.macs.record import CountError

_Shape = list[int]


def _matrix(left: _Shape, right: _Shape) -> int:
    return prod(left) * right[-1]


def _vector(left: _Shape, _right: _Shape) -> int:
    return prod(left)


def _attention(query: _Shape, key: _Shape, value: _Shape) -> int:
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _convolution(args: tuple[Any, ...], output: Any) -> int:
    """Return one product per weight and pixel that the window slides over, of all samples."""
    x, weight = args[0].shape, args[1].shape
    slides_over = x if args[6] else output.shape
    return int(prod((x[0], *slides_over[2:], *weight)))


# Operator -> rule, and the positions of the arguments whose shapes it takes.
_PRODUCTS: dict[str, tuple[Callable[..., int], tuple[int, ...]]] = {
    "aten::mm": (_matrix, (0, 1)),
    "aten::bmm": (_matrix, (0, 1)),
    "aten::addmm": (_matrix, (1, 2)),
    "aten::baddbmm": (_matrix, (1, 2)),
    "aten::addbmm": (_matrix, (1, 2)),
    "aten::mv": (_vector, (0, 1)),
    "aten::addmv": (_vector, (1, 2)),
    "aten::dot": (_vector, (0, 1)),
    "aten::vdot": (_vector, (0, 1)),
    "aten::_scaled_dot_product_flash_attention": (_attention, (0, 1, 2)),
    "aten::_scaled_dot_product_flash_attention_for_cpu": (_attention, (0, 1, 2)),
    "aten::_scaled_dot_product_efficient_attention": (_attention, (0, 1, 2)),
    "aten::_scaled_dot_product_cudnn_attention": (_attention, (0, 1, 2)),
    "aten::_scaled_dot_product_fused_attention_overrideable": (_attention, (0, 1, 2)),
}

# What multiplies and accumulates under another name, by the words in the names of PyTorch's operators.
_SUSPICIOUS = re.compile(
    r"(?:^|_)(?:conv(?!ert)\w*|(?:int4pack_|int8pack_|add|b|baddb|addb|hsp|sspadd|s)?mm|mv|addmv|\w*dot|inner|matmul|"
    r"linear|bilinear|trilinear|lstm|gru|rnn|attention|mha|transformer|cdist|pdist|euclidean|fft|"
    r"linalg(?!_vector_norm)|inverse|cholesky|solve|spsolve|svd|qr|lu|eig)(?:_|$)"
)


def executed_macs(name: str, args: tuple[Any, ...], output: Any) -> int:
    """Return the multiply-accumulates of one basic operator.

    Args:
        name: with its namespace, such as "aten::mm".
        args: what it was called with.
        output: what it returned.

    Returns:
        The count, of all samples.

    Raises:
        CountError: the operator is not PyTorch's own, or may multiply and accumulate and has no rule.
    """
    if name == "aten::convolution":
        return _convolution(args, output)
    if name in _PRODUCTS:
        rule, positions = _PRODUCTS[name]
        return rule(*(list(args[i].shape) for i in positions))
    own, _, base = name.partition("::")
    if own not in ("aten", "prim", "profiler") or _SUSPICIOUS.search(base):
        raise CountError(f"no rule for the operator {name}, which may multiply and accumulate")
    return 0
