"""Records of the operators that make a map smaller or larger with neither weights nor a fixed window.

Read `record.py` first; pools with a fixed window are in `windows.py`. None of this is a MAC.
"""

from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.record import (
    CountError,
    Pair,
    Shape,
    UnaryOperator,
    check_map,
    check_numbers,
    check_shape,
    check_word,
    name,
)


@final
@dataclass(frozen=True)
class GlobalAvgPool(UnaryOperator):
    """Mean over the whole map: (H, W, C) to (C,).

    Args:
        input: (H, W, C).

    Raises:
        CountError: input is not a map.
    """

    def __post_init__(self) -> None:
        check_map(self)

    @property
    def output(self) -> Shape:
        return self.input[2:]

    @property
    def columns(self) -> dict[str, int]:
        return {"mean_out": self.input[2]}


@dataclass(frozen=True)
class _AdaptivePool(UnaryOperator):
    """As many windows as the output has pixels, of whatever size covers the map."""

    size: Pair

    def __post_init__(self) -> None:
        check_map(self)
        check_numbers(self, "size", self.size, 2, 1)

    @property
    def output(self) -> Shape:
        return (*self.size, self.input[2])


@final
@dataclass(frozen=True)
class AdaptiveAvgPool(_AdaptivePool):
    """Means over a grid of windows that cover the map; to one pixel it is the mean over the whole map.

    Args:
        input: (H, W, C).
        size: (height, width) of the output, each >= 1.

    Raises:
        CountError: a value breaks its rule.
    """

    @property
    def columns(self) -> dict[str, int]:
        if self.size == (1, 1):
            return {"mean_out": self.input[2]}
        return {"pool_in": prod(self.input), "pool_out": prod(self.output)}


@final
@dataclass(frozen=True)
class AdaptiveMaxPool(_AdaptivePool):
    """Largest values of a grid of windows that cover the map; arguments as of `AdaptiveAvgPool`."""

    @property
    def columns(self) -> dict[str, int]:
        return {"pool_in": prod(self.input), "pool_out": prod(self.output)}


@final
@dataclass(frozen=True)
class Reduce(UnaryOperator):
    """Mean, sum or another reduction over some axes.

    Args:
        input: any shape.
        result: shape of what is left; a single number is (1,).
        kind: its name in small letters, such as "mean", "sum" or "max".

    Raises:
        CountError: a value breaks its rule, or more elements are left than there were.
    """

    result: Shape
    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shape(self, "result", self.result)
        check_word(self, "kind", self.kind)
        if prod(self.input) % prod(self.result):
            raise CountError(f"{name(self)}: result must divide the {prod(self.input)} elements, got {self.result}")

    @property
    def output(self) -> Shape:
        return self.result

    @property
    def columns(self) -> dict[str, int]:
        if self.kind == "mean":
            return {"mean_out": prod(self.result)}
        return {f"reduce_in:{self.kind}": prod(self.input)}


@final
@dataclass(frozen=True)
class Resize(UnaryOperator):
    """Map of another height and width, by interpolation.

    Args:
        input: (H, W, C).
        size: (height, width) of the output, each >= 1.
        mode: name of the interpolation in small letters, such as "nearest" or "bilinear".

    Raises:
        CountError: a value breaks its rule.
    """

    size: Pair
    mode: str

    def __post_init__(self) -> None:
        check_map(self)
        check_numbers(self, "size", self.size, 2, 1)
        check_word(self, "mode", self.mode)

    @property
    def output(self) -> Shape:
        return (*self.size, self.input[2])

    @property
    def columns(self) -> dict[str, int]:
        return {f"resize_out:{self.mode}": prod(self.output)}
