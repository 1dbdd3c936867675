"""A search space: which backbones and exit placements there are, read from a TOML file.

Some spaces ship in `spaces/`; a user's own is a file with the same fields. With the shape and classes of a data set
a space builds architectures. Left out: members as integers (`genome.py`).
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nachos_min.eenn import architecture as arch
from nachos_min.eenn.architecture import ACTIVATIONS, Architecture, Map, MBConvSpec, Stem
from nachos_min.eenn.lowering import GridHead, head_ladder
from nachos_min.errors import InputError
from nachos_min.fields import Fields
from nachos_min.files import read_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_SHIPPED = Path(__file__).parent / "spaces"

_MOST_BYTES, _MOST_POINTS = 1 << 16, 500  # of a TOML file: keys of many parts, a.b.c, take much memory and time
_MOST_VALUES = 128  # of a gene: tables of costs have a row for each
_MOST_LAYERS = 256  # several times the deepest networks of this kind (EfficientNet-B7: 55): more is a typing error


class SpaceError(InputError):
    """A space, or a member of it, is not what the rule in the message says."""


@dataclass(frozen=True)
class StemSpec:
    """The first convolution; several `channels` or `stride` are the values of a gene."""

    channels: tuple[int, ...]
    kernel: int
    stride: tuple[int, ...]
    activation: str

    def one(self, channels: int, stride: int) -> Stem:
        """Return the stem with these of its values."""
        return Stem(channels, self.kernel, stride, self.activation)


@dataclass(frozen=True)
class StageSpec:
    """What all layers of a stage share: widths to choose from, stride of the first layer, form of the blocks."""

    channels: tuple[int, ...]
    stride: int
    activation: str
    squeeze_excite: bool


@dataclass(frozen=True)
class TrunkBlock:
    """A fixed block between the stem and the first stage."""

    channels: int
    stride: int
    kernel: int
    expansion: int
    activation: str
    squeeze_excite: bool


@dataclass(frozen=True)
class Genes:
    """The values that make one member of a space of S stages."""

    depths: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]  # beyond a depth not read
    expansions: tuple[tuple[int, ...], ...]
    exits: tuple[int, ...]  # stages (from 1) with an early exit
    resolution: int | None  # None: the data's own
    widths: tuple[int, ...]
    stem: Stem
    heads: tuple[GridHead, ...]  # after the first S - 1 stages; empty if a ladder decides


@dataclass(frozen=True)
class Space:
    """All choices of a search."""

    name: str  # of the shipped space, or the file's stem
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    resolutions: tuple[int, ...]  # of the input, see `fitted_size`; empty: the data's own; several: one more gene
    divisor: int  # of expanded and squeezed widths
    exit_widths: tuple[int, ...]  # 3x3 convolutions of the richest exit head, from which a ladder of heads descends
    stem: StemSpec
    trunk: tuple[TrunkBlock, ...]
    stages: tuple[StageSpec, ...]
    final: arch.FinalHead
    exit_heads: tuple[GridHead, ...] = ()  # the values of a gene for each early exit; empty: the ladder
    text: str = field(default="", compare=False, repr=False)  # of its TOML file

    @property
    def slots(self) -> int:
        """Layer slots of one stage, used or not: the largest depth."""
        return max(self.depths)

    @cached_property
    def optional(self) -> Mapping[str, tuple[Any, ...]]:
        """The values of the genes that a space need not have; a single value needs no gene."""
        widths = {f"width {number}": stage.channels for number, stage in enumerate(self.stages, start=1)}
        stem = {"stem channels": self.stem.channels, "stem stride": self.stem.stride}
        return {"resolution": self.resolutions or (None,)} | widths | stem

    @property
    def content(self) -> dict[str, Any]:
        """The fields by which a run recognises the space: what offers no choice is a plain number, or left out."""
        fields = asdict(self)
        del fields["text"]
        for table in (fields["stem"], *fields["stages"]):
            table |= {name: value[0] for name, value in table.items() if type(value) is tuple and len(value) == 1}
        return fields if self.exit_heads else {name: fields[name] for name in fields if name != "exit_heads"}

    def entering(self, stage: int) -> tuple[int, ...]:
        """Return the channels of the map that stage 1..S reads, for each value of the gene they depend on."""
        if stage > 1:
            return self.stages[stage - 2].channels
        return tuple(self.trunk[-1].channels if self.trunk else channels for channels in self.stem.channels)

    def maps(self, input_shape: Map, stem_stride: int) -> list[tuple[int, int]]:
        """Return (H, W) of the maps behind the trunk and behind each of the S stages."""
        strides = [block.stride for block in self.trunk] + [stage.stride for stage in self.stages]
        first = arch.strided(input_shape, stem_stride, 0)
        maps = accumulate(strides, lambda shape, stride: arch.strided(shape, stride, 0), initial=first)
        return [shape[:2] for shape in maps][len(self.trunk) :]

    def heads(self, size: int) -> list[arch.ExitHead]:
        """Return the heads that an early exit may have on a map whose `least_side` is `size`."""
        return [head.on(size) for head in self.exit_heads] or list(head_ladder(size, self.exit_widths))

    def trunk_behind(self, stem: Stem) -> tuple[MBConvSpec, ...]:
        """Return the fixed blocks that follow `stem`."""
        channels = [stem.channels, *(fixed.channels for fixed in self.trunk)]
        pairs = zip(self.trunk, channels, strict=False)
        return tuple(self.block(b, reads, b.channels, b.kernel, b.expansion, b.stride) for b, reads in pairs)

    def backbone(self, genes: Genes, input_shape: Map, classes: int) -> Architecture:
        """Return the architecture of `genes` without early exits, for images (H, W, C) as the network sees them."""
        trunk = self.trunk_behind(genes.stem)
        channels, stages = trunk[-1].out_channels if trunk else genes.stem.channels, []
        chosen = zip(self.stages, genes.depths, genes.kernels, genes.expansions, genes.widths, strict=True)
        for stage, depth, kernels, expansions, width in chosen:
            layers, stride = [], stage.stride
            for kernel, expansion in zip(kernels[:depth], expansions[:depth], strict=True):
                layers.append(self.block(stage, channels, width, kernel, expansion, stride))
                channels, stride = width, 1
            stages.append(tuple(layers))
        return Architecture(input_shape, classes, genes.stem, trunk, tuple(stages), (), self.final)

    def block(
        self, spec: StageSpec | TrunkBlock, reads: int, width: int, kernel: int, expansion: int, stride: int
    ) -> MBConvSpec:
        """Return one inverted residual in the form of `spec`, from `reads` to `width` channels."""
        wide = expansion > 1
        expanded = make_divisible(reads * expansion, self.divisor) if wide else reads
        squeezed = make_divisible(expanded // 4, self.divisor) if spec.squeeze_excite else 0
        return MBConvSpec(reads, expanded, width, kernel, stride, spec.activation, expand=wide, squeezed=squeezed)


@lru_cache(maxsize=4096)
def make_divisible(value: int, divisor: int) -> int:
    """Return the multiple of `divisor` nearest to `value`, at least `divisor` and never below 0.9 `value`.

    Source: MobileNetV2's released code, as Once-for-All uses it.

    >>> [make_divisible(value, 8) for value in (72, 18, 10, 4, 3)]
    [72, 24, 16, 8, 8]
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def shipped_spaces() -> tuple[str, ...]:
    """Return the names of the spaces that ship, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_space(name_or_path: str) -> Space:
    """Return a shipped space by its name, or the space in a TOML file by its path.

    Raises:
        SpaceError: there is neither, or the file breaks a rule; the message names file, field and rule.
    """
    path = _SHIPPED / f"{name_or_path}.toml"
    if name_or_path not in shipped_spaces():
        path = Path(name_or_path)
        if path.suffix != ".toml":
            known = ", ".join(shipped_spaces())
            raise SpaceError(f"space must be one of {known}, or a path to a .toml file, got {name_or_path!r}")
    try:
        content = read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpaceError(f"space {name_or_path!r} is not TOML: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise SpaceError(f"space {name_or_path!r}: {getattr(error, 'strerror', None) or error}") from None
    return read_space(StringIO(content, newline=None).read(), path.stem, name_or_path)


def read_space(text: str, name: str, said: str) -> Space:
    """Return the space called `name` that the TOML `text` describes; SpaceError, which calls it `said`."""
    if len(text) > _MOST_BYTES or text.count(".") > _MOST_POINTS:
        rule = f"must have at most {_MOST_BYTES:,} characters, {_MOST_POINTS} of them points"
        raise SpaceError(f"space {said!r} {rule}, it has {len(text):,} and {text.count('.'):,}")
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, and lists 1,000 deep
        raise SpaceError(f"space {said!r} is not TOML: {error}") from None
    checked = Fields(fields, lambda rule: SpaceError(f"space {said!r}: {rule}"), 20, most=_MOST_VALUES)
    return replace(_read_space(checked, name), text=text)


def _read_space(table: Fields, name: str) -> Space:
    lists = ("depths", "kernels", "expansions", "resolutions", "divisor")
    heads = ("exit_widths", "exit_heads")
    table.only("description", *lists, *heads, "stem", "trunk", "stages", "final")
    if len(given := [name for name in heads if name in table.table]) != 1:
        raise table.fail("early exits", "described by exit_widths or by exit_heads", given)
    depths, kernels, expansions = (table.integers(field, least=1, ascending=True) for field in lists[:3])
    if any(kernel % 2 == 0 for kernel in kernels):
        raise table.fail("kernels", "odd", list(kernels))
    stages = table.tables(table.listed("stages", least=2), "stages")
    if depths[-1] * len(stages) > _MOST_LAYERS:
        rule = f"such that {len(stages)} stages have at most {_MOST_LAYERS} layers in all"
        raise table.fail("depths", rule, list(depths))
    trunk = table.tables(table.listed("trunk", absent=[]), "trunk")
    exit_heads = table.tables(table.listed("exit_heads", least=1) if "exit_heads" in given else [], "exit_heads")
    return Space(
        name,
        depths,
        kernels,
        expansions,
        table.integers("resolutions", ascending=True),
        table.integer("divisor"),
        table.integers("exit_widths", absent=[]),
        _read(StemSpec, table.nested("stem"), stride=_choices),
        tuple(_read(TrunkBlock, each, channels=Fields.integer) for each in trunk),
        tuple(_read(StageSpec, each) for each in stages),
        _read(arch.FinalHead, table.nested("final")),
        tuple(_read(GridHead, each) for each in exit_heads),
    )


def _choices(table: Fields, field: str) -> tuple[int, ...]:
    """Return the values of a gene, or the only value."""
    if isinstance(table.table.get(field), list):
        return table.integers(field, least=1, ascending=True)
    return (table.integer(field),)


# How a field of each name is read, unless a part has its own way.
_FIELDS: dict[str, Callable[[Fields, str], Any]] = {
    "channels": _choices,
    "stride": Fields.integer,
    "kernel": Fields.odd,
    "expansion": Fields.integer,
    "activation": lambda table, field: table.choice(field, *ACTIVATIONS),
    "squeeze_excite": lambda table, field: table.typed(field, bool, "true or false"),
    "cells": Fields.integer,
    "widths": Fields.integers,
    "expand": lambda table, field: table.integer(field, 0),
    "mix": lambda table, field: table.integer(field, 0),
}


def _read(part: type[T], table: Fields, **own: Callable[[Fields, str], Any]) -> T:
    """Return a `part`, a dataclass, from a table; `own` says how to read some of its fields."""
    names = list(part.__dataclass_fields__)
    table.only(*names)
    return part(**{name: (_FIELDS | own)[name](table, name) for name in names})
