"""Arithmetic of one image axis: how long the output is, and how many taps fall on real pixels.

A two-dimensional window is the product of two of these, one for the height and one for the width, so nothing
here knows about channels or operators. Read this first, then `record.py`. Whole numbers in, whole numbers out;
the caller has checked their ranges.
"""


def window_length(length: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Return the number of positions of a sliding window; below 1 if the window does not fit.

    Args:
        length: pixels along the axis, >= 1.
        kernel: taps of the window, >= 1.
        stride: pixels from one position to the next, >= 1.
        pad: zeros added before and after, together, >= 0.
        dilation: pixels from one tap to the next, >= 1.

    Returns:
        floor((length + pad - dilation * (kernel - 1) - 1) / stride) + 1

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", relationship 15.

    >>> window_length(17, kernel=3, stride=2, pad=2, dilation=1)
    9
    """
    return (length + pad - dilation * (kernel - 1) - 1) // stride + 1


def transposed_length(length: int, kernel: int, stride: int, pad: int, dilation: int, output_padding: int) -> int:
    """Return the output length of a transposed convolution: each pixel paints `kernel` taps, `pad` are cropped.

    Args:
        length: input pixels along the axis, >= 1.
        kernel: taps painted by each, >= 1.
        stride: output pixels from one input pixel's first tap to the next one's, >= 1.
        pad: output pixels cropped at both ends, together, >= 0.
        dilation: output pixels from one tap to the next, >= 1.
        output_padding: output pixels added at the far end, >= 0.

    Returns:
        (length - 1) * stride + dilation * (kernel - 1) + 1 - pad + output_padding

    Source: Dumoulin and Visin, relationship 14, with dilation and output padding as in PyTorch.

    >>> transposed_length(8, kernel=3, stride=2, pad=2, dilation=1, output_padding=1)
    16
    """
    return (length - 1) * stride + dilation * (kernel - 1) + 1 - pad + output_padding


def valid_taps(positions: int, length: int, kernel: int, stride: int, pad_before: int, dilation: int) -> int:
    """Return the number of (position, tap) pairs that fall on one of the `length` real pixels of the axis.

    Position o, tap t touches pixel o * stride + t * dilation - pad_before. For a convolution the positions
    are output pixels and the axis is the input; for a transposed convolution it is the other way round.

    Args:
        positions: number of window positions, >= 0.
        length: pixels of the axis that is touched, >= 1.
        kernel: taps per position, >= 1.
        stride: pixels from one position to the next, >= 1.
        pad_before: zeros (cropped pixels, when transposed) before the first pixel, >= 0.
        dilation: pixels from one tap to the next, >= 1.

    Returns:
        The count, in a number of steps that grows with the digits of the numbers, not with the numbers: a file
        from elsewhere may state a kernel of a thousand million taps.

    Source: derived here. Real pixels lie at or after the first one and before the end, so the count is
    below(pad_before + length) - below(pad_before), with below(x) the pairs whose o * stride + t * dilation < x.

    >>> valid_taps(positions=1, length=1, kernel=7, stride=1, pad_before=3, dilation=1)
    1
    >>> valid_taps(positions=4, length=4, kernel=3, stride=1, pad_before=1, dilation=1)
    10
    """
    ends = (pad_before + length, pad_before)
    after, before = (_pairs_below(end, positions, kernel, stride, dilation) for end in ends)
    return after - before


def _pairs_below(x: int, positions: int, kernel: int, stride: int, dilation: int) -> int:
    """Return how many pairs 0 <= o < positions, 0 <= t < kernel have o * stride + t * dilation < x.

    Tap t has ceil((x - t * dilation) / stride) such positions, but at most all: taps up to `whole` have all,
    taps from `none` on have none, and between them one floor is summed.
    """
    none = min(kernel, max(0, -(-x // dilation)))
    whole = min(none, max(0, (x - (positions - 1) * stride - 1) // dilation + 1))
    last = x - (none - 1) * dilation  # what remains for the last tap that has any; the sum runs backwards from it
    return whole * positions + _floor_sum(none - whole, stride, dilation, last + stride - 1)


def _floor_sum(count: int, divisor: int, step: int, first: int) -> int:
    """Return the sum of floor((first + i * step) / divisor) over i = 0 .. count - 1, in O(log divisor) steps.

    Source: lattice points under a line, by Euclid's algorithm: whole steps are taken out, then rows and columns
    change places (Graham, Knuth and Patashnik, "Concrete Mathematics", section 3.5).
    """
    total, sign = 0, 1
    while count > 0:
        total += sign * (count * (count - 1) // 2 * (step // divisor) + count * (first // divisor))
        step, first = step % divisor, first % divisor
        highest = first + (count - 1) * step
        rows = highest // divisor  # lines that the points cross
        total += sign * rows * count
        # The points left of each crossing, which were counted too many, are the same sum turned round.
        sign, count, first, divisor, step = -sign, rows, step - 1 + divisor - first, step, divisor
    return total
