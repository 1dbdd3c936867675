"""Rules of matrix products: Gemm, MatMul and its integer forms, Einsum, Attention.

Read `call.py` first. A Gemm with constant weights is a linear layer. A MatMul stays a product of two arrays, a
constant one among them a node of its own, and the Add after it a sum: the file does not say that they were one
layer, and the multiplications are the same.
"""

from collections import Counter
from dataclasses import replace
from string import ascii_letters

import numpy as np

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.assembly import record_shape, rows
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.ops import Einsum, Linear, MatMul, Multiply, Reduce, Softmax
from nachos_min.macs.record import CountError, Shape


def matmul(call: Call, right_at: int = 1) -> tuple[Array, ...]:
    """Return a product of two arrays; one of a single axis is a row on the left, a column on the right."""
    left, right = call.input(), call.input(right_at)
    if call.operator in ("QLinearMatMul", "MatMulInteger"):
        right = right.weight  # trained before they were rounded
    return (_product(call, left, right),)


def gemm(call: Call) -> tuple[Array, ...]:
    """Return alpha * A @ B + beta * C, a linear layer if B is constant, C its bias, and both factors are 1."""
    left, right, bias = call.input(), call.input(1), call.optional(2)
    if len(left.shape) != 2 or len(right.shape) != 2:
        raise CountError(f"A and B must have 2 axes, got {left.shape} and {right.shape}")
    rows_left = left.shape[::-1] if call.attributes.integer("transA", 0) else left.shape
    inner, features = right.shape[::-1] if call.attributes.integer("transB", 0) else right.shape
    if rows_left[1] != inner:
        raise CountError(f"inner lengths must be equal, got {rows_left} times {(inner, features)}")
    alpha, beta = call.attributes.number("alpha", 1.0), call.attributes.number("beta", 1.0)
    if beta == 0:
        bias = None
    flat = bias is None or (bias.constant and bias.elements == features and bias.shape[-1:] == (features,))
    shape = (rows_left[0], features)
    if right.constant and flat and alpha == 1 and (beta == 1 or bias is None):
        weights = (right.weight,) if bias is None else (right.weight, bias.weight)
        op = Linear((inner,), features, bias is not None)
        return (call.layer(op, left, shape, rows_left[0], weights),)
    made = call.add(MatMul(rows_left, (inner, features)), (left, right), shape)
    if alpha != 1:
        made = call.add(Multiply((shape,)), (made,), shape)
    if bias is None:
        return (made,)
    if beta != 1:
        bias = call.elementwise((bias,), Multiply)
    total = call.plus((made, bias))
    if total.shape != shape:
        raise CountError(f"C must broadcast to {shape}, got {bias.shape}")
    return (total,)


def einsum(call: Call) -> tuple[Array, ...]:
    """Return an Einstein sum, its ellipsis written out and its output stated.

    An axis of length 1 that the other array stretches is none of the array's own, and an axis that only one of
    two arrays has and the result has not is summed over first: it takes part in no product.
    """
    arrays = call.given()
    if len(arrays) > 2:
        raise CountError(f"an Einstein sum must have one or two arrays, got {len(arrays)}")
    stated = call.attributes.text("equation", "").replace(" ", "")
    terms, result = written_out(stated, tuple(len(array.shape) for array in arrays))
    lengths: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for letter, length in zip(term, array.shape, strict=True):
            lengths[letter] = max(length, lengths.get(letter, 1))
    if len(arrays) == 2:
        whole = [
            "".join(c for c, n in zip(term, array.shape, strict=True) if n == lengths[c])
            for term, array in zip(terms, arrays, strict=True)
        ]
        terms = [
            "".join(c for c in term if c in result + other) for term, other in zip(whole, whole[::-1], strict=True)
        ]
        arrays = tuple(
            _summed(call, array, tuple(lengths[c] for c in term), tuple(lengths[c] for c in kept))
            for array, term, kept in zip(arrays, whole, terms, strict=True)
        )
    if not all(terms):
        raise CountError(f"an Einstein sum must have axes to multiply along, got {stated[:80]!r}")
    op = Einsum(f"{','.join(terms)}->{result}", tuple(array.shape for array in arrays))
    return (call.add(op, arrays, op.output),)


def _summed(call: Call, array: Array, before: Shape, after: Shape) -> Array:
    if before == after:
        return replace(array, shape=after)
    return call.add(Reduce(record_shape(before), record_shape(after), "sum"), (array,), after)


def written_out(equation: str, axes: tuple[int, ...]) -> tuple[list[str], str]:
    """Return the letters of each array and of the result, with letters for the ellipsis.

    Args:
        equation: without spaces.
        axes: number of axes of each array.

    Raises:
        CountError: not one term per array, or a term that cannot have so many axes.

    >>> written_out("...ij,...jk", (3, 2))
    (['aij', 'jk'], 'aik')
    """
    terms_text, arrow, result = equation.partition("->")
    terms = terms_text.split(",")
    if len(terms) != len(axes):
        raise CountError(f"equation must have {len(axes)} terms, got {equation[:80]!r}")
    hidden = [
        count - len(term.replace("...", "")) if "..." in term else 0
        for term, count in zip(terms, axes, strict=True)
    ]
    free = [letter for letter in ascii_letters if letter not in equation][: max(*hidden, 0)]
    if len(free) < max(hidden):
        raise CountError(f"equation must leave {max(hidden)} letters for '...', got {equation[:80]!r}")
    common = "".join(free)
    full = [
        term.replace("...", common[len(common) - max(count, 0) :], 1)
        for term, count in zip(terms, hidden, strict=True)
    ]
    if not arrow:
        times = Counter(terms_text)
        result = ("..." if "..." in terms_text else "") + "".join(
            letter for letter in sorted(times) if letter.isalpha() and times[letter] == 1
        )
    if any(len(term) != count for term, count in zip(full, axes, strict=True)):
        raise CountError(f"equation must fit arrays of {axes} axes, got {equation[:80]!r}")
    return full, result.replace("...", common, 1)


def attention(call: Call) -> tuple[Array, ...]:
    """Return scaled dot product attention: a product, a softmax, a product; caches are not followed."""
    query, key, value = (call.input(index) for index in (0, 1, 2))
    if any(call.optional(index) is not None for index in (4, 5)) or call.outputs > 1:
        raise CountError(f"no rule for Attention with a cache, got {len(call.inputs)} inputs")
    heads = call.attributes.integer("q_num_heads", 0), call.attributes.integer("kv_num_heads", 0)
    whole = query.shape
    if len(whole) == 3:
        query, key, value = (
            _heads(call, array, count) for array, count in ((query, heads[0]), (key, heads[1]), (value, heads[1]))
        )
    if not len(query.shape) == len(key.shape) == len(value.shape) == 4:
        raise CountError(f"queries, keys and values must have 3 or 4 axes, got {whole}, {key.shape}, {value.shape}")
    if key.shape[1] < 1 or query.shape[1] % key.shape[1]:
        raise CountError(
            f"{query.shape[1]} heads of queries must be a multiple of those of keys, got {key.shape[1]}"
        )
    repeats = query.shape[1] // key.shape[1]
    turned = (*key.shape[:2], key.shape[3], key.shape[2])
    key = call.move((key,), turned, lambda values: np.swapaxes(values, 2, 3))
    if repeats > 1:
        key, value = (_repeated(call, array, repeats, part) for part, array in enumerate((key, value)))
    scores = _product(call, query, key)
    if (mask := call.optional(3)) is not None:
        scores = call.plus((scores, mask))
    batch, sample = rows(scores.shape)
    weights = call.add(Softmax(sample, sample[-1]), (scores,), scores.shape, batch)
    made = _product(call, weights, value)
    if len(whole) == 4:
        return (made,)
    joined = (made.shape[0], made.shape[2], made.shape[1] * made.shape[3])
    return (call.move((made,), joined, lambda values: np.swapaxes(values, 1, 2).reshape(joined)),)


def _product(call: Call, left: Array, right: Array) -> Array:
    a: Shape = (1, *left.shape) if len(left.shape) == 1 else left.shape
    b: Shape = (*right.shape, 1) if len(right.shape) == 1 else right.shape
    op = MatMul(record_shape(a), record_shape(b))
    *outer, rows_out, columns = op.output
    shape = (*outer, *(() if len(left.shape) == 1 else (rows_out,)), *(() if len(right.shape) == 1 else (columns,)))
    return call.add(op, (left, right), shape)


def _heads(call: Call, array: Array, heads: int) -> Array:
    samples, length, features = array.shape if len(array.shape) == 3 else (0, 0, 0)
    if heads < 1 or features % heads or len(array.shape) != 3:
        raise CountError(f"heads must divide the last of 3 axes, got {heads} of {array.shape}")
    split = (samples, length, heads, features // heads)
    return call.move(
        (array,),
        (samples, heads, length, features // heads),
        lambda values: np.swapaxes(values.reshape(split), 1, 2),
    )


def _repeated(call: Call, array: Array, times: int, part: int) -> Array:
    shape = (array.shape[0], array.shape[1] * times, *array.shape[2:])
    return call.move((array,), shape, lambda values: np.repeat(values, times, axis=1), part)
