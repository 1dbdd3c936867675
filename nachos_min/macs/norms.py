"""Records of the operators that normalise: none of their work is a MAC, all of it is `norm_elems`.

Read `record.py` first. Other tools bill these operators most differently (`conventions/`), so each has a record
of its own though all count the same here.
"""

from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.record import CountError, UnaryOperator, check_number, name


@dataclass(frozen=True)
class _Norm(UnaryOperator):
    """Whatever the mean and the variance are taken over, every element is normalised once."""

    @property
    def columns(self) -> dict[str, int]:
        return {"norm_elems": prod(self.input)}


@final
@dataclass(frozen=True)
class BatchNorm(_Norm):
    """Normalisation per channel (the last axis), the same work in training and inference.

    Args:
        input: (..., C).
        affine: whether a scale and a shift per channel are trained.

    Raises:
        CountError: input is not a shape.
    """

    affine: bool = True

    @property
    def params(self) -> int:
        return 2 * self.input[-1] * self.affine


@final
@dataclass(frozen=True)
class LayerNorm(_Norm):
    """Normalisation over the last `axes` axes of each row.

    Args:
        input: (..., features).
        axes: number of axes normalised over, 1 <= axes <= axes of input.
        affine: whether a scale is trained for each feature.
        bias: whether a shift is, too.

    Raises:
        CountError: a value breaks its rule.
    """

    axes: int = 1
    affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "axes", self.axes, 1)
        if self.axes > len(self.input):
            raise CountError(f"{name(self)}: axes must be <= {len(self.input)}, got {self.axes}")

    @property
    def params(self) -> int:
        return prod(self.input[-self.axes :]) * (self.affine + self.bias)


@final
@dataclass(frozen=True)
class GroupNorm(_Norm):
    """Normalisation over groups of channels (the last axis) of each sample.

    Args:
        input: (..., C).
        groups: >= 1, divides C.
        affine: whether a scale and a shift per channel are trained.

    Raises:
        CountError: a value breaks its rule.
    """

    groups: int
    affine: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "groups", self.groups, 1)
        if self.input[-1] % self.groups:
            raise CountError(f"{name(self)}: groups must divide {self.input[-1]} channels, got {self.groups}")

    @property
    def params(self) -> int:
        return 2 * self.input[-1] * self.affine


@final
@dataclass(frozen=True)
class InstanceNorm(_Norm):
    """Normalisation of each channel (the last axis) of each sample.

    Args:
        input: (..., C).
        affine: whether a scale and a shift per channel are trained.

    Raises:
        CountError: input is not a shape.
    """

    affine: bool = False

    @property
    def params(self) -> int:
        return 2 * self.input[-1] * self.affine
