"""Operators that slide a window over a map of 1, 2 or 3 axes: convolutions, pools, and the arithmetic of one axis.

A map is (L, C), (H, W, C) or (D, H, W, C). The axes of a window are independent: output sizes and counts are
products of what holds for one axis. A field that is left empty is filled with its neutral value on every axis.
"""

from functools import cached_property
from math import prod
from operator import add, le
from typing import TypeAlias

from nachos_min.macs.record import MapOperator, Shape


def window_length(length: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Return floor((length + pad - dilation * (kernel - 1) - 1) / stride) + 1, the positions of a sliding window.

    `pad` are zeros on both sides together. It is below 1 if the window does not fit.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", relationship 15.

    >>> window_length(17, kernel=3, stride=2, pad=2, dilation=1)
    9
    """
    return (length + pad - dilation * (kernel - 1) - 1) // stride + 1


def transposed_length(length: int, kernel: int, stride: int, pad: int, dilation: int, output_padding: int) -> int:
    """Return the output length of a transposed convolution: each pixel paints `kernel` taps, `pad` are cropped.

    Source: Dumoulin and Visin, relationship 14, with dilation and output padding as in PyTorch.
    """
    return (length - 1) * stride + dilation * (kernel - 1) + 1 - pad + output_padding


def valid_taps(positions: int, length: int, kernel: int, stride: int, pad_before: int, dilation: int) -> int:
    """Return the number of (position, tap) pairs that fall on one of the `length` real pixels of an axis.

    Position o, tap t touches pixel o * stride + t * dilation - pad_before. A convolution's positions are output
    pixels and the axis is the input; for a transposed convolution it is the other way round.

    Source: derived here. The count is below(pad_before + length) - below(pad_before), where below(x) is the number
    of pairs with o * stride + t * dilation < x.

    >>> valid_taps(positions=4, length=4, kernel=3, stride=1, pad_before=1, dilation=1)
    10
    """
    after = _pairs_below(pad_before + length, positions, kernel, stride, dilation)
    return after - _pairs_below(pad_before, positions, kernel, stride, dilation)


def _pairs_below(x: int, positions: int, kernel: int, stride: int, dilation: int) -> int:
    """Return how many pairs 0 <= o < positions, 0 <= t < kernel have o * stride + t * dilation < x.

    Tap t has ceil((x - t * dilation) / stride) such positions, but at most all. Taps below `full` have all, taps
    from `none` on have none, and between them one floor is summed, backwards from the last tap that has any.
    """
    none = min(kernel, max(0, -(-x // dilation)))
    full = min(none, max(0, (x - (positions - 1) * stride - 1) // dilation + 1))
    last = x - (none - 1) * dilation
    return full * positions + _floor_sum(none - full, stride, dilation, last + stride - 1)


def _floor_sum(count: int, divisor: int, step: int, first: int) -> int:
    """Return the sum of floor((first + i * step) / divisor) over i = 0 .. count - 1, in O(log divisor) steps.

    Source: lattice points under a line, by Euclid's algorithm: full steps are taken out, then rows and columns
    change places (Graham, Knuth and Patashnik, "Concrete Mathematics", section 3.5).
    """
    total, sign = 0, 1
    while count > 0:
        total += sign * (count * (count - 1) // 2 * (step // divisor) + count * (first // divisor))
        step, first = step % divisor, first % divisor
        rows = (first + (count - 1) * step) // divisor  # lines that the points cross
        total += sign * rows * count
        # The points left of each crossing were counted too often; they are the same sum turned round.
        sign, count, first, divisor, step = -sign, rows, step - 1 + divisor - first, step, divisor
    return total


class _Window(MapOperator):
    """A window that slides; `padding` are zeros before and after the map, two numbers for each axis."""

    def __post_init__(self) -> None:
        for field, value in (("stride", 1), ("dilation", 1), ("padding", 0), ("zeros", 0), ("output_padding", 0)):
            if getattr(self, field, None) == ():
                values = (value,) * (self.spatial * (2 if field in ("padding", "zeros") else 1))
                object.__setattr__(self, field, values)  # a frozen record, not yet made
        super().__post_init__()


class _Convolution(_Window):
    """A window of weights that slides over one map and touches another; `groups` divides both maps' channels.

    `zeros`: how much of the input's border an operator before has padded, for `valid_macs`.
    """

    out_channels: int
    kernel: Shape
    stride: Shape = ()
    padding: Shape = ()
    dilation: Shape = ()
    groups: int = 1
    bias: bool = False
    zeros: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input[-1] % self.groups or self.out_channels % self.groups:
            channels = f"the {self.input[-1]} input and {self.out_channels} output channels"
            self.require(False, f"groups must divide {channels}", self.groups)

    @property
    def _maps(self) -> tuple[Shape, Shape]:
        """The map whose pixels are the window's positions, and the map that its taps fall on or miss."""
        return self.output, self.input

    @property
    def _channel_pairs(self) -> int:
        """Products made at one tap: every channel with each of the other side's channels in its group."""
        return self.input[-1] * self.out_channels // self.groups

    @property
    def macs(self) -> int:
        return prod(self._maps[0][:-1]) * prod(self.kernel) * self._channel_pairs

    @property
    def valid_macs(self) -> int:
        """The axes are independent, so the taps that hit are a product of one count per axis."""
        places, touched = self._maps
        before, after = self.zeros[::2], self.zeros[1::2]
        inside = (length - a - b for length, a, b in zip(touched, before, after, strict=False))
        pads = map(add, self.padding[::2], before)
        hits = map(valid_taps, places, inside, self.kernel, self.stride, pads, self.dilation)
        return prod(hits) * self._channel_pairs

    @property
    def params(self) -> int:
        return prod(self.kernel) * self._channel_pairs + self.bias * self.out_channels


class Conv(_Convolution, plural="convolutions"):
    """Convolution of a map, dense, grouped or depthwise (groups = C): outputs * K * (C / G) * taps MACs.

    >>> Conv((8, 8, 16), 32, kernel=(3, 3), padding=(1, 1, 1, 1)).macs == 8 * 8 * 32 * 16 * 3 * 3
    True
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window_fits(self)
        if any(self.zeros):
            border = map(add, self.zeros[::2], self.zeros[1::2])
            self.require(all(map(le, border, self.input)), "zeros must be inside the map", self.zeros)

    @cached_property
    def output(self) -> Shape:
        return (*positions(self), self.out_channels)


class ConvTranspose(_Convolution, plural="transposed convolutions"):
    """Transposed convolution, every input pixel paints a window: inputs * C * (K / G) * taps MACs.

    It is a convolution's gradient with respect to its input. Padding crops the output; `valid_macs` leaves out what
    is painted outside. `output_padding` adds pixels at the end of each axis, below max(stride, dilation).
    """

    output_padding: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = tuple(map(max, self.stride, self.dilation))
        small = all(extra < limit for extra, limit in zip(self.output_padding, limits, strict=True))
        self.require(small, f"output_padding must be below max(stride, dilation) = {limits}", self.output_padding)
        self.require(min(self.output) >= min(1, *self.input), "padding must leave some output", self.padding)
        self.require(not any(self.zeros), "zeros are not known of what it reads", self.zeros)

    @property
    def output(self) -> Shape:
        each_side = (self.input, self.kernel, self.stride, _pads(self), self.dilation, self.output_padding)
        return (*map(transposed_length, *each_side), self.out_channels)

    @property
    def _maps(self) -> tuple[Shape, Shape]:
        return self.input, self.output


Conv2d: TypeAlias = Conv  # as a network of two axes has them
ConvTranspose2d: TypeAlias = ConvTranspose


class Pool(MapOperator):
    """Any pool; its work is no MAC."""

    @property
    def columns(self) -> dict[str, int]:
        return {"pool_in": prod(self.input), "pool_out": prod(self.output)}


class _WindowPool(Pool, _Window):
    """A sliding window without weights.

    With `ceil` a last window may hang over the end of the padded map by less than a stride, if it begins before.
    """

    size: Shape
    stride: Shape
    padding: Shape = ()
    dilation: Shape = ()
    ceil: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window_fits(self)

    @property
    def output(self) -> Shape:
        found = list(positions(self))
        for axis, stride in enumerate(self.stride):
            begins = (found[axis] - 1) * stride
            found[axis] -= self.ceil and begins >= self.input[axis] + self.padding[2 * axis]
        return (*found, self.input[-1])


class MaxPool(_WindowPool, plural="max pooling"):
    """Largest value of each window."""


class AvgPool(_WindowPool, plural="average pooling"):
    """Mean of each window."""


def positions(record: _Convolution | _WindowPool, pads: Shape = (), dilation: Shape = ()) -> Shape:
    """Return how many positions the window has on each axis, with other zeros in all or dilation if given."""
    steps = dilation or record.dilation
    return tuple(map(window_length, record.input, _taps(record), record.stride, pads or _pads(record), steps))


def _taps(record: _Convolution | _WindowPool) -> Shape:
    return record.size if isinstance(record, _WindowPool) else record.kernel


def _pads(record: _Convolution | _WindowPool) -> Shape:
    """Zeros on both sides of an axis together; with `ceil`, what the last window may hang over the end as well."""
    pads = tuple(map(add, record.padding[::2], record.padding[1::2]))
    if isinstance(record, _WindowPool) and record.ceil:
        return tuple(map(add, pads, (stride - 1 for stride in record.stride)))
    return pads


def _check_window_fits(record: _Convolution | _WindowPool) -> None:
    names = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}[record.spatial]
    rooms = map(add, record.input, _pads(record))
    for side, step, taps, room in zip(names, record.dilation, _taps(record), rooms, strict=True):
        if (span := step * (taps - 1) + 1) > room:
            record.require(False, f"the window's {side} with dilation must fit the padded map's {room}", span)
