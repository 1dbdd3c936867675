"""An early-exit network as frozen data: what is built, counted and stored, before any weight exists.

Read this first of the room. `lowering.py` turns an Architecture into operator records (for counting),
`network.py` into modules (for running); both read nothing but this data, so they cannot disagree by intent,
and the execution check proves that they do not by accident. Where architectures come from is `nas/space.py`.
"""

from dataclasses import dataclass, replace

Map = tuple[int, int, int]  # shape (H, W, C) of one sample's map


def strided(feature_map: Map, stride: int, channels: int) -> Map:
    """Return (H, W, C) behind an odd kernel k padded by k // 2: (side - 1) // stride + 1 pixels a side."""
    height, width, _ = feature_map
    return (height - 1) // stride + 1, (width - 1) // stride + 1, channels


@dataclass(frozen=True)
class Stem:
    """The first convolution: `kernel` x `kernel` with `stride`, batch norm, `activation`."""

    channels: int
    kernel: int
    stride: int
    activation: str

    def output(self, feature_map: Map) -> Map:
        """Return the shape (H, W, C) it makes of a map."""
        return strided(feature_map, self.stride, self.channels)


@dataclass(frozen=True)
class MBConvSpec:
    """One inverted residual; widths in channels. `expand` False: no 1x1 before the depthwise filter."""

    in_channels: int
    middle: int
    out_channels: int
    kernel: int
    stride: int
    activation: str
    expand: bool = True
    squeezed: int = 0

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output: stride 1 and equal widths."""
        return self.stride == 1 and self.in_channels == self.out_channels

    def output(self, feature_map: Map) -> Map:
        """Return the shape (H, W, C) it makes of a map."""
        return strided(feature_map, self.stride, self.out_channels)


@dataclass(frozen=True)
class ExitHead:
    """An early exit: max-pool `pool` (1: none), ReLU, 3x3 convolutions `widths`, linear to C + 1 outputs."""

    pool: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Exit:
    """An early exit after stage `stage` (1-based)."""

    stage: int
    head: ExitHead


@dataclass(frozen=True)
class FinalHead:
    """Everything after the last stage: 1x1 expand with batch norm, mean over the map, 1x1 mix, linear to C.

    `expand` or `mix` 0 leaves that part out; `mix` has neither batch norm nor bias.
    """

    expand: int
    mix: int
    activation: str


@dataclass(frozen=True)
class Architecture:
    """A whole early-exit network.

    Attributes:
        input_shape: (H, W, C) of one image.
        classes: number of classes C; an early exit has C + 1 outputs, the final one C.
        stem: first convolution.
        stages: S stages, each a tuple of MBConv specifications; a block that the space puts before its first
            stage (Once-for-All's first block) belongs to no stage and stands in `trunk`.
        trunk: blocks between the stem and the first stage.
        exits: early exits in order of their stage; empty for a static network.
        final: the final classifier.
    """

    input_shape: Map
    classes: int
    stem: Stem
    trunk: tuple[MBConvSpec, ...]
    stages: tuple[tuple[MBConvSpec, ...], ...]
    exits: tuple[Exit, ...]
    final: FinalHead

    @property
    def exit_stages(self) -> tuple[int, ...]:
        """Stage numbers (1-based) of all E exits; the last is the final exit, S."""
        return (*(early.stage for early in self.exits), len(self.stages))

    def segments(self) -> tuple[tuple[MBConvSpec, ...], ...]:
        """Return the blocks between consecutive exits: E tuples; what runs before asking each exit."""
        found, begin = [], 0
        for end in self.exit_stages:
            blocks = [block for stage in self.stages[begin:end] for block in stage]
            found.append((*(self.trunk if begin == 0 else ()), *blocks))
            begin = end
        return tuple(found)

    def exit_maps(self) -> tuple[Map, ...]:
        """Return the shape (H, W, C) of the map that feeds each of the E exits."""
        shape, found = self.stem.output(self.input_shape), []
        for blocks in self.segments():
            for block in blocks:
                shape = block.output(shape)
            found.append(shape)
        return tuple(found)

    def with_exits(self, exits: tuple[Exit, ...]) -> "Architecture":
        """Return the same backbone with other early exits."""
        return replace(self, exits=exits)
