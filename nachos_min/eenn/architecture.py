"""An early-exit network as frozen data, before any weight exists, and its form as JSON.

`lowering.py` makes operator records of an Architecture (for counting), `network.py` modules (for running). Both
read nothing but this data. If the input has height 1, kernels, strides and pools have one dimension: 3 means 1x3.
Its JSON, in which input shapes are (C, H, W):

    {"input": [3, 32, 32], "classes": 10,
     "stem": {"channels": 16, "kernel": 3, "stride": 2, "activation": "hswish"},
     "trunk": [block, ...], "stages": [[block, ...], ...],
     "exits": [{"stage": 1, "pool": 2, "widths": [8]}],
     "final": {"expand": 960, "mix": 1280, "activation": "hswish"}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nachos_min.errors import InputError
from nachos_min.fields import Fields

Map = tuple[int, int, int]  # shape (H, W, C) of one sample's map

ACTIVATIONS = ("relu", "hswish")
_BITS = 40  # no layer in use has a side of 2^40; counts stay short enough to print
_MOST_PARTS = 1_500  # a dozen times what networks have; more would take minutes, and gigabytes


class ArchitectureError(InputError):
    """The object is not an architecture; the message names the field and the rule."""


def is_flat(input_shape: Map) -> bool:
    """Return whether a network is one-dimensional: its input has height 1, and so has every window."""
    return input_shape[0] == 1


def window(side: int, flat: bool) -> tuple[int, int]:
    """Return (height, width) of a window, stride or pool of `side` pixels, in a network that `is_flat` or not."""
    return (1 if flat else side), side


def least_side(feature_map: tuple[int, ...], flat: bool) -> int:
    """Return the shorter side in pixels of a map (H, W, ...), or its length in a network that `is_flat`."""
    return feature_map[1] if flat else min(feature_map[:2])


def strided(feature_map: Map, stride: int, channels: int) -> Map:
    """Return (H, W, C) behind an odd kernel k padded by k // 2: (side - 1) // stride + 1 pixels a side."""
    height, width, _ = feature_map
    return (height - 1) // stride + 1, (width - 1) // stride + 1, channels


@dataclass(frozen=True)
class Stem:
    """The first convolution: a `window` of `kernel` pixels with `stride`, batch norm, `activation`."""

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
    """An early-exit network of S stages and E exits."""

    input_shape: Map
    classes: int  # C; an early exit has C + 1 outputs, the final one C
    stem: Stem
    trunk: tuple[MBConvSpec, ...]  # blocks between the stem and the first stage, as Once-for-All's first block
    stages: tuple[tuple[MBConvSpec, ...], ...]
    exits: tuple[Exit, ...]  # early exits in order of their stage; empty for a static network
    final: FinalHead

    @property
    def flat(self) -> bool:
        """Whether the network is one-dimensional."""
        return is_flat(self.input_shape)

    @property
    def exit_stages(self) -> tuple[int, ...]:
        """Stage numbers (1-based) of all E exits; the last is the final exit, S."""
        return (*(early.stage for early in self.exits), len(self.stages))

    def segments(self) -> tuple[tuple[MBConvSpec, ...], ...]:
        """Return the blocks between consecutive exits: E tuples; what runs before each exit."""
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


def architecture_from_json(
    fields: Mapping[str, Any], input_shape: Map | None = None, classes: int | None = None
) -> Architecture:
    """Return the architecture that a JSON object describes; `input_shape` (C, H, W), `classes` replace its own.

    A block is {"middle": 48, "channels": 24, "kernel": 3, "stride": 2, "activation": "relu", "expand": true,
    "squeezed": 0}. "trunk" and "exits" may be left out, as may "expand" (true) and "squeezed" (0) of a block,
    "pool" (1) and "widths" ([]) of an exit, "expand" and "mix" (0) of "final".

    Raises:
        ArchitectureError: if a field is missing, unknown or breaks its rule, or the exits' stages are not
            ascending numbers below the number of stages, or an exit's pooling is larger than its map.
    """
    given = dict(fields)
    given["input"] = list(input_shape) if input_shape is not None else given.get("input")
    given["classes"] = classes if classes is not None else given.get("classes")
    top = Fields(given, lambda message: ArchitectureError(f"architecture: {message}"), _BITS)
    top.only("input", "classes", "stem", "trunk", "stages", "exits", "final")
    image = top.integers("input")
    if len(image) != 3:
        raise top.fail("input", "a list of 3 integers", list(image))
    lists = {field: top.listed(field, absent=[]) for field in ("trunk", "exits")}
    # Counted before any of them is read
    widths = [early.get("widths") for early in lists["exits"] if isinstance(early, dict)]
    parts = [*lists.values(), *top.listed("stages", least=1), *widths]
    if (count := sum(len(each) for each in parts if isinstance(each, list))) > _MOST_PARTS:
        raise top.fail("blocks, exits and widths", f"at most {_MOST_PARTS} together", count)

    stem, final = top.nested("stem"), top.nested("final")
    stem.only("channels", "kernel", "stride", "activation")
    final.only("expand", "mix", "activation")
    activation = stem.choice("activation", *ACTIVATIONS)
    first = Stem(stem.integer("channels"), stem.odd("kernel"), stem.integer("stride"), activation)
    activation = final.choice("activation", *ACTIVATIONS)
    last = FinalHead(final.integer("expand", 0, absent=0), final.integer("mix", 0, absent=0), activation)
    channels, trunk = _read_blocks(top.tables(lists["trunk"], "trunk block"), first.channels)
    stages = []
    for number, blocks in enumerate(top.listed("stages"), start=1):
        if not isinstance(blocks, list) or not blocks:
            raise top.fail(f"stage {number}", "a list of at least one block", blocks)
        channels, stage = _read_blocks(top.tables(blocks, f"stage {number} block"), channels)
        stages.append(stage)
    exits = []
    for each in top.tables(lists["exits"], "exit"):
        each.only("stage", "pool", "widths")
        head = ExitHead(each.integer("pool", absent=1), each.integers("widths", absent=[]))
        exits.append(Exit(each.integer("stage"), head))
    places = [early.stage for early in exits]
    if places != sorted(set(places)) or (places and places[-1] >= len(stages)):
        raise top.fail("stages of exits", f"ascending numbers from 1 to {len(stages) - 1}", places)
    shape, outputs = (image[1], image[2], image[0]), top.integer("classes")
    found = Architecture(shape, outputs, first, trunk, tuple(stages), tuple(exits), last)
    for early, feature_map in zip(exits, found.exit_maps(), strict=False):
        if early.head.pool > (most := least_side(feature_map, found.flat)):
            rule = f"at most the {most} pixels of its map"
            raise top.fail(f"exit after stage {early.stage}: pool", rule, early.head.pool)
    return found


def _read_blocks(each: list[Fields], channels: int) -> tuple[int, tuple[MBConvSpec, ...]]:
    """Return the channels behind some blocks, of which the first reads `channels`, and the blocks."""
    blocks = []
    for fields in each:
        fields.only("middle", "channels", "kernel", "stride", "activation", "expand", "squeezed")
        expand, middle = fields.typed("expand", bool, "true or false", absent=True), fields.integer("middle")
        if not expand and middle != channels:
            rule = f"the {channels} channels that arrive, where nothing expands them"
            raise fields.fail("middle", rule, middle)
        out, kernel, stride = fields.integer("channels"), fields.odd("kernel"), fields.integer("stride")
        activation, squeezed = fields.choice("activation", *ACTIVATIONS), fields.integer("squeezed", 0, absent=0)
        blocks.append(MBConvSpec(channels, middle, out, kernel, stride, activation, expand, squeezed))
        channels = out
    return channels, tuple(blocks)


def architecture_to_json(architecture: Architecture) -> str:
    """Return the JSON text of `architecture`; reading it gives an equal one."""

    def fields_of(block: MBConvSpec) -> dict[str, Any]:
        fields = {"middle": block.middle, "channels": block.out_channels} | vars(block)
        return {name: value for name, value in fields.items() if name not in ("in_channels", "out_channels")}

    height, width, channels = architecture.input_shape
    return json.dumps(
        {
            "input": [channels, height, width],
            "classes": architecture.classes,
            "stem": vars(architecture.stem),
            "trunk": [fields_of(block) for block in architecture.trunk],
            "stages": [[fields_of(block) for block in stage] for stage in architecture.stages],
            "exits": [{"stage": early.stage} | vars(early.head) for early in architecture.exits],
            "final": vars(architecture.final),
        }
    )
