"""Matrix products: `matmul`, batched and broadcasting, and `linear`, the affine map of a layer.

Read `arithmetic.py` first. For Y = A B the vjps are gA = g B^T and gB = A^T g, because

    d<g, A B> = <g, dA B> + <g, A dB> = <g B^T, dA> + <A^T g, dB>

Both operators count one MAC per product of a row's and a column's element.
"""

import numpy as np

from nachos_min.autograd.arguments import check_axes, check_channels, check_tensors, operands
from nachos_min.autograd.arithmetic import unbroadcast
from nachos_min.autograd.counting import count
from nachos_min.autograd.registry import counted_operator
from nachos_min.autograd.tape import Vjp, record
from nachos_min.autograd.tensor import Operand, Tensor


@counted_operator
def matmul(a: Operand, b: Operand) -> Tensor:
    """Return the matrix products a @ b over the last two axes; the axes before them broadcast.

    Args:
        a: (..., m, k).
        b: (..., k, n), dtype of a. One of both may be an array, which becomes a constant.

    Returns:
        The products, (..., m, n). Counts batch * m * k * n MACs, batch after broadcasting.

    Raises:
        ValueError: if one has fewer than 2 axes, or k differs, or the axes before do not broadcast (NumPy).
        TypeError: if neither is a Tensor or dtypes differ.
    """
    x, y = operands("matmul", a, b)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ValueError(f"matmul: needs (..., m, k) and (..., k, n), got {x.shape} and {y.shape}")
    value = x.data @ y.data
    count("matmul", value.size * x.shape[-1])
    return record(
        value,
        (x, lambda g: unbroadcast(g @ np.swapaxes(y.data, -1, -2), x.shape)),
        (y, lambda g: unbroadcast(np.swapaxes(x.data, -1, -2) @ g, y.shape)),
    )


@counted_operator
def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x @ w + b over the last axis of x.

    Args:
        x: (..., in).
        w: (in, out), dtype of x.
        b: (out,), dtype of x, or None.

    Returns:
        (..., out). Counts rows * in * out MACs, rows being all axes of x but the last.

    Raises:
        ValueError: if w has not two axes, or `in` or `out` does not fit. TypeError: if dtypes differ.
    """
    check_tensors("linear", x, w, *(() if b is None else (b,)))
    check_axes("linear", "weight", w, "in out")
    if x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"linear: input has shape {x.shape}, weight {w.shape} expects (..., {w.shape[0]})")
    features, out = w.shape
    rows = x.data.reshape(-1, features)
    value = rows @ w.data
    count("linear", value.size * features)
    inputs: list[tuple[Tensor, Vjp]] = [
        (x, lambda g: (g.reshape(-1, out) @ w.data.T).reshape(x.shape)),
        (w, lambda g: rows.T @ g.reshape(-1, out)),
    ]
    if b is not None:
        check_channels("linear", out, bias=b)
        value += b.data
        inputs.append((b, lambda g: g.reshape(-1, out).sum(axis=0)))
    return record(value.reshape(*x.shape[:-1], out), *inputs)
