"""Slow oracles for MAC counts: carry out every multiplication of an operator, one by one, and count it.

Each returns (output array, multiplications, multiplications whose product is not lost). A product is lost
when one factor is a padded zero (convolution) or when it is painted outside the output (transposed
convolution). Weights are [KH, KW, C // G, K], maps [H, W, C].
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(x: Array, w: Array, stride, padding, dilation, groups) -> tuple[Array, int, int]:
    top, bottom, left, right = padding
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)))
    real = np.pad(np.ones(x.shape, bool), ((top, bottom), (left, right), (0, 0)))
    kh, kw, per_group, out_channels = w.shape
    rows = [o for o in range(0, padded.shape[0], stride[0]) if o + dilation[0] * (kh - 1) < padded.shape[0]]
    columns = [o for o in range(0, padded.shape[1], stride[1]) if o + dilation[1] * (kw - 1) < padded.shape[1]]
    y = np.zeros((len(rows), len(columns), out_channels))
    made = useful = 0
    for (i, top_row), (j, left_column), k in product(enumerate(rows), enumerate(columns), range(out_channels)):
        first = k // (out_channels // groups) * per_group
        for p, q, c in product(range(kh), range(kw), range(per_group)):
            at = (top_row + p * dilation[0], left_column + q * dilation[1], first + c)
            y[i, j, k] += padded[at] * w[p, q, c, k]
            made += 1
            useful += bool(real[at])
    return y, made, useful


def convolve_transposed(x, w, stride, padding, dilation, groups, output_padding) -> tuple[Array, int, int]:
    """`w` is [KH, KW, K // G, C], as it would be for the convolution that this is the gradient of."""
    height, width, channels = x.shape
    kh, kw, per_group, _ = w.shape
    full = np.zeros(
        (
            (height - 1) * stride[0] + dilation[0] * (kh - 1) + 1 + output_padding[0],
            (width - 1) * stride[1] + dilation[1] * (kw - 1) + 1 + output_padding[1],
            per_group * groups,
        )
    )
    top, bottom, left, right = padding
    kept = np.zeros(full.shape, bool)
    kept[top : full.shape[0] - bottom, left : full.shape[1] - right] = True
    made = useful = 0
    for i, j, c in product(range(height), range(width), range(channels)):
        first = c // (channels // groups) * per_group
        for p, q, k in product(range(kh), range(kw), range(per_group)):
            at = (i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1], first + k)
            full[at] += x[i, j, c] * w[p, q, k, c]
            made += 1
            useful += bool(kept[at])
    return full[top : full.shape[0] - bottom, left : full.shape[1] - right], made, useful


def multiply_matrices(left: Array, right: Array) -> tuple[Array, int]:
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    y = np.zeros((*batch, left.shape[-2], right.shape[-1]))
    made = 0
    for at in np.ndindex(*y.shape):
        *where, row, column = at
        for k in range(left.shape[-1]):
            y[at] += left[(*where, row, k)] * right[(*where, k, column)]
            made += 1
    return y, made


def sum_letters(equation: str, *arrays: Array) -> tuple[Array, int]:
    """Einstein sum by walking over every combination of indices: one multiplication each."""
    terms, _, result = equation.partition("->")
    letters = sorted(set(terms) - {","})
    lengths = {
        c: max(a.shape[t.index(c)] for t, a in zip(terms.split(","), arrays, strict=True) if c in t)
        for c in letters
    }
    y = np.zeros([lengths[c] for c in result])
    made = 0
    for indices in product(*(range(lengths[c]) for c in letters)):
        at = dict(zip(letters, indices, strict=True))
        factors = [
            a[tuple(at[c] if a.shape[axis] > 1 else 0 for axis, c in enumerate(t))]
            for t, a in zip(terms.split(","), arrays, strict=True)
        ]
        y[tuple(at[c] for c in result)] += np.prod(factors)
        made += 1
    return y, made
