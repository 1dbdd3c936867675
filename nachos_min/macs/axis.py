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
        The count, in O(kernel) steps however long the axis is.

    Source: derived here. For a fixed tap t let s = pad_before - t * dilation. Pixel o * stride - s is real
    for ceil(s / stride) <= o <= floor((s + length - 1) / stride); cut that range to 0 <= o < positions and
    count it.

    >>> valid_taps(positions=1, length=1, kernel=7, stride=1, pad_before=3, dilation=1)
    1
    >>> valid_taps(positions=4, length=4, kernel=3, stride=1, pad_before=1, dilation=1)
    10
    """
    total = 0
    for tap in range(kernel):
        shift = pad_before - tap * dilation
        first = max(0, -(-shift // stride))
        last = min(positions - 1, (shift + length - 1) // stride)
        total += max(0, last - first + 1)
    return total
