"""Records of the operators that slide a window over a map: convolutions and pools.

The two axes of a window are independent, so output sizes and counts are products of what `axis.py` says about
one axis. Read `axis.py` and `record.py` first; the other operators, and the words used here, are in `ops.py`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.axis import transposed_length, valid_taps, window_length
from nachos_min.macs.record import (
    CountError,
    Padding,
    Pair,
    Shape,
    UnaryOperator,
    check_map,
    check_number,
    check_numbers,
    name,
)


@dataclass(frozen=True)
class _Convolution(UnaryOperator):
    """A window of weights that slides over one map and touches another; which is which, the subclass says."""

    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False

    def __post_init__(self) -> None:
        check_map(self)
        check_number(self, "out_channels", self.out_channels, 1)
        check_numbers(self, "kernel", self.kernel, 2, 1)
        check_numbers(self, "stride", self.stride, 2, 1)
        check_numbers(self, "padding", self.padding, 4, 0)
        check_numbers(self, "dilation", self.dilation, 2, 1)
        check_number(self, "groups", self.groups, 1)
        if self.input[2] % self.groups or self.out_channels % self.groups:
            raise CountError(
                f"{name(self)}: groups must divide the {self.input[2]} input and {self.out_channels} "
                f"output channels, got {self.groups}"
            )

    @property
    @abstractmethod
    def _slides_over(self) -> Shape:
        """The map whose every pixel is one position of the window."""

    @property
    @abstractmethod
    def _touches(self) -> Shape:
        """The map whose pixels the window's taps fall on, or miss."""

    @property
    def _channel_pairs(self) -> int:
        """Products made at one tap: every channel with each of the other side's channels in its group."""
        return self.input[2] * self.out_channels // self.groups

    @property
    def macs(self) -> int:
        height, width, _ = self._slides_over
        return height * width * prod(self.kernel) * self._channel_pairs

    @property
    def valid_macs(self) -> int:
        """The axes are independent, so the taps that hit are a product of one count per axis."""
        hits = 1
        for axis in (0, 1):
            hits *= valid_taps(
                self._slides_over[axis],
                self._touches[axis],
                self.kernel[axis],
                self.stride[axis],
                self.padding[2 * axis],
                self.dilation[axis],
            )
        return hits * self._channel_pairs

    @property
    def params(self) -> int:
        return prod(self.kernel) * self._channel_pairs + self.bias * self.out_channels

    @property
    def columns(self) -> dict[str, int]:
        return {"bias_adds": prod(self.output)} if self.bias else {}


@final
@dataclass(frozen=True)
class Conv2d(_Convolution):
    """Convolution of a map, dense, grouped or depthwise (groups = C): OH * OW * K * (C / G) * KH * KW MACs.

    Args:
        input: (H, W, C).
        out_channels: K >= 1, a multiple of groups.
        kernel: (KH, KW), each >= 1.
        stride: (height, width), each >= 1.
        padding: (top, bottom, left, right) zeros, each >= 0.
        dilation: (height, width), each >= 1.
        groups: G >= 1, divides C and K.
        bias: whether one number per output channel is added.

    Raises:
        CountError: a value breaks its rule, or the window does not fit the padded map.

    >>> Conv2d((8, 8, 16), 32, kernel=(3, 3), padding=(1, 1, 1, 1)).macs == 8 * 8 * 32 * 16 * 3 * 3
    True
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window_fits(self, self.kernel, self.padding, self.dilation)

    @property
    def output(self) -> Shape:
        top, bottom, left, right = self.padding
        height = window_length(self.input[0], self.kernel[0], self.stride[0], top + bottom, self.dilation[0])
        width = window_length(self.input[1], self.kernel[1], self.stride[1], left + right, self.dilation[1])
        return (height, width, self.out_channels)

    @property
    def _slides_over(self) -> Shape:
        return self.output

    @property
    def _touches(self) -> Shape:
        return self.input


@final
@dataclass(frozen=True)
class ConvTranspose2d(_Convolution):
    """Transposed convolution, every input pixel paints a window: H * W * C * (K / G) * KH * KW MACs.

    It is a convolution's gradient with respect to its input. What that convolution reads from padded zeros,
    this one paints outside the output, where it is cropped: `valid_macs` leaves those products out.

    Args:
        input: (H, W, C).
        out_channels: K >= 1, a multiple of groups.
        kernel: (KH, KW), each >= 1.
        stride: (height, width), each >= 1.
        padding: (top, bottom, left, right) output pixels cropped, each >= 0.
        dilation: (height, width), each >= 1.
        groups: G >= 1, divides C and K.
        bias: whether one number per output channel is added.
        output_padding: (height, width) output pixels added at the bottom and right, each >= 0 and below the
            larger of its axis's stride and dilation.

    Raises:
        CountError: a value breaks its rule, or the padding crops everything.
    """

    output_padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "output_padding", self.output_padding, 2, 0)
        limits = tuple(map(max, self.stride, self.dilation))
        if any(extra >= limit for extra, limit in zip(self.output_padding, limits, strict=True)):
            raise CountError(
                f"{name(self)}: output_padding must be below max(stride, dilation) = {limits}, "
                f"got {self.output_padding}"
            )
        if min(self.output) < 1:
            raise CountError(f"{name(self)}: padding must leave some output, got {self.padding}")

    @property
    def output(self) -> Shape:
        top, bottom, left, right = self.padding
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        height = transposed_length(self.input[0], kh, sh, top + bottom, dh, self.output_padding[0])
        width = transposed_length(self.input[1], kw, sw, left + right, dw, self.output_padding[1])
        return (height, width, self.out_channels)

    @property
    def _slides_over(self) -> Shape:
        return self.input

    @property
    def _touches(self) -> Shape:
        return self.output


@dataclass(frozen=True)
class _Pool(UnaryOperator):
    """A sliding window without weights."""

    size: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False

    def __post_init__(self) -> None:
        check_map(self)
        check_numbers(self, "size", self.size, 2, 1)
        check_numbers(self, "stride", self.stride, 2, 1)
        check_numbers(self, "padding", self.padding, 4, 0)
        check_numbers(self, "dilation", self.dilation, 2, 1)
        overhang = (self.stride[0] - 1, self.stride[1] - 1) if self.ceil else (0, 0)
        _check_window_fits(self, self.size, self.padding, self.dilation, overhang)

    @property
    def output(self) -> Shape:
        return (self._length(0), self._length(1), self.input[2])

    def _length(self, axis: int) -> int:
        """Positions along an axis. With `ceil` a last window may hang over the end, if it begins before it."""
        before, after = self.padding[2 * axis : 2 * axis + 2]
        stride, length = self.stride[axis], self.input[axis]
        slack = stride - 1 if self.ceil else 0
        found = window_length(length, self.size[axis], stride, before + after + slack, self.dilation[axis])
        return found - 1 if self.ceil and (found - 1) * stride >= length + before else found

    @property
    def columns(self) -> dict[str, int]:
        return {"pool_in": prod(self.input), "pool_out": prod(self.output)}


@final
@dataclass(frozen=True)
class MaxPool(_Pool):
    """Largest value of each window.

    Args:
        input: (H, W, C).
        size: (height, width) of the window, each >= 1.
        stride: (height, width), each >= 1.
        padding: (top, bottom, left, right), each >= 0.
        dilation: (height, width) from one tap to the next, each >= 1.
        ceil: whether a last window that hangs over the end of the padded map, by less than a stride, counts too,
            even if it is the only one.

    Raises:
        CountError: a value breaks its rule, or the window does not fit the padded map.
    """


@final
@dataclass(frozen=True)
class AvgPool(_Pool):
    """Mean of each window; arguments as of `MaxPool`."""


def _check_window_fits(
    record: _Convolution | _Pool, window: Pair, padding: Padding, dilation: Pair, overhang: Pair = (0, 0)
) -> None:
    for axis, side in ((0, "height"), (1, "width")):
        span = dilation[axis] * (window[axis] - 1) + 1
        room = record.input[axis] + padding[2 * axis] + padding[2 * axis + 1] + overhang[axis]
        if span > room:
            raise CountError(
                f"{name(record)}: the window's {side} with dilation must fit the padded map's {room}, got {span}"
            )
