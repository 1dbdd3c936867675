"""An Architecture as JSON, for people and other programs to write, and back; every field is checked.

Read `architecture.py` first. Input shapes are (C, H, W) here, as on the command line. The form:

    {"input": [3, 32, 32], "classes": 10,
     "stem": {"channels": 16, "kernel": 3, "stride": 2, "activation": "hswish"},
     "trunk": [block, ...],
     "stages": [[block, ...], ...],
     "exits": [{"stage": 1, "pool": 2, "widths": [8]}],
     "final": {"expand": 960, "mix": 1280, "activation": "hswish"}}

with a block {"middle": 48, "channels": 24, "kernel": 3, "stride": 2, "activation": "relu", "expand": true,
"squeezed": 0}. "trunk" and "exits" may be left out, as may "expand" (true) and "squeezed" (0) of a block, "pool"
(1) and "widths" ([]) of an exit, "expand" and "mix" (0) of "final". The caller may give "input" and "classes".
"""

import json
from collections.abc import Mapping
from typing import Any

from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, Map, MBConvSpec, Stem
from nachos_min.errors import InputError, shorten

_ACTIVATIONS = ("relu", "hswish")

# No layer in use has a side this long; a larger number is a mistake, and counts stay short enough to print.
_MOST = 1 << 40

# Fifty times what networks have; more would take minutes, and gigabytes.
_MOST_PARTS = 6_000


class ArchitectureError(InputError):
    """The text is not an architecture in the form above; the message names the field and the rule."""


def architecture_from_json(
    fields: Mapping[str, Any], input_shape: Map | None = None, classes: int | None = None
) -> Architecture:
    """Return the architecture that a parsed JSON object describes.

    Args:
        fields: the object.
        input_shape: (C, H, W), instead of the one in the object.
        classes: number of classes, instead of the one in the object.

    Raises:
        ArchitectureError: if a field is missing, unknown or breaks its rule, or the exits' stages are not
            ascending numbers below the number of stages, or an exit's pooling is larger than its map.
    """
    given = dict(fields)
    given["input"] = list(input_shape) if input_shape is not None else given.get("input")
    given["classes"] = classes if classes is not None else given.get("classes")
    return _Reader(given, "").architecture()


def architecture_to_json(architecture: Architecture) -> str:
    """Return the JSON text of `architecture`; reading it gives an equal one."""
    height, width, channels = architecture.input_shape
    stem, final = architecture.stem, architecture.final
    return json.dumps(
        {
            "input": [channels, height, width],
            "classes": architecture.classes,
            "stem": dict(vars(stem)),
            "trunk": [_block_fields(block) for block in architecture.trunk],
            "stages": [[_block_fields(block) for block in stage] for stage in architecture.stages],
            "exits": [
                {"stage": early.stage, "pool": early.head.pool, "widths": list(early.head.widths)}
                for early in architecture.exits
            ],
            "final": dict(vars(final)),
        }
    )


def _block_fields(block: MBConvSpec) -> dict[str, Any]:
    return {
        "middle": block.middle,
        "channels": block.out_channels,
        "kernel": block.kernel,
        "stride": block.stride,
        "activation": block.activation,
        "expand": block.expand,
        "squeezed": block.squeezed,
    }


class _Reader:
    """Takes checked fields out of a JSON object; every complaint names the place."""

    def __init__(self, fields: Mapping[str, Any], inside: str) -> None:
        self.fields, self.inside = fields, inside

    def fail(self, field: str, rule: str, value: object) -> ArchitectureError:
        return ArchitectureError(f"architecture: {self.inside}{field} must be {rule}, got {shorten(repr(value))}")

    def only(self, *known: str) -> None:
        if unknown := sorted(self.fields.keys() - set(known)):
            raise self.fail("a field", f"one of {', '.join(known)}", unknown[0])

    def integer(self, field: str, least: int = 1, absent: int | None = None) -> int:
        value = self.fields.get(field, absent)
        if type(value) is not int or not least <= value <= _MOST:
            raise self.fail(field, f"an integer from {least} to 2^40", value)
        return value

    def odd(self, field: str) -> int:
        value = self.integer(field)
        if value % 2 == 0:
            raise self.fail(field, "odd", value)
        return value

    def activation(self) -> str:
        value = self.fields.get("activation")
        if value not in _ACTIVATIONS:
            raise self.fail("activation", f"one of {', '.join(_ACTIVATIONS)}", value)
        return str(value)

    def listed(self, field: str, absent: list[Any] | None = None) -> list[Any]:
        value = self.fields.get(field, absent)
        if not isinstance(value, list):
            raise self.fail(field, "a list", value)
        return value

    def integers(self, field: str, count: int | None = None, absent: list[int] | None = None) -> tuple[int, ...]:
        values = self.listed(field, absent)
        if count is not None and len(values) != count:
            raise self.fail(field, f"a list of {count} integers", values)
        if not all(type(value) is int and 1 <= value <= _MOST for value in values):
            raise self.fail(field, "a list of integers from 1 to 2^40", values)
        return tuple(values)

    def objects(self, values: list[Any], place: str) -> list["_Reader"]:
        for number, value in enumerate(values, start=1):
            if not isinstance(value, dict):
                raise self.fail(f"{place} {number}", "an object", value)
        return [_Reader(value, f"{self.inside}{place} {i}: ") for i, value in enumerate(values, start=1)]

    def object(self, field: str) -> "_Reader":
        value = self.fields.get(field)
        if not isinstance(value, dict):
            raise self.fail(field, "an object", value)
        return _Reader(value, f"{field}: ")

    def architecture(self) -> Architecture:
        self.only("input", "classes", "stem", "trunk", "stages", "exits", "final")
        channels, height, width = self.integers("input", count=3)
        self.bounded()
        stem = self.object("stem").stem()
        before, trunk = stem.channels, []
        for block in self.objects(self.listed("trunk", absent=[]), "trunk block"):
            trunk.append(block.block(before))
            before = trunk[-1].out_channels
        stages = []
        for number, blocks in enumerate(self.listed("stages"), start=1):
            if not isinstance(blocks, list) or not blocks:
                raise self.fail(f"stage {number}", "a list of at least one block", blocks)
            stage = []
            for block in self.objects(blocks, f"stage {number} block"):
                stage.append(block.block(before))
                before = stage[-1].out_channels
            stages.append(tuple(stage))
        if not stages:
            raise self.fail("stages", "a list of at least one stage", [])
        exits = tuple(each.exit() for each in self.objects(self.listed("exits", absent=[]), "exit"))
        places = [early.stage for early in exits]
        if places != sorted(set(places)) or (places and places[-1] >= len(stages)):
            raise self.fail("stages of exits", f"ascending numbers from 1 to {len(stages) - 1}", places)
        found = Architecture(
            (height, width, channels),
            self.integer("classes"),
            stem,
            tuple(trunk),
            tuple(stages),
            exits,
            self.object("final").final(),
        )
        for early, (rows, columns, _) in zip(exits, found.exit_maps(), strict=False):
            if early.head.pool > min(rows, columns):
                rule = f"at most the {min(rows, columns)} pixels of its map"
                raise self.fail(f"exit after stage {early.stage}: pool", rule, early.head.pool)
        return found

    def bounded(self) -> None:
        """Complain of more parts than a network has, before any of them is read."""
        exits = self.listed("exits", absent=[])
        widths = [early.get("widths") for early in exits if isinstance(early, dict)]
        lists = [self.listed("trunk", absent=[]), *self.listed("stages"), exits, *widths]
        if (parts := sum(len(each) for each in lists if isinstance(each, list))) > _MOST_PARTS:
            raise self.fail("blocks, exits and widths", f"at most {_MOST_PARTS} together", parts)

    def stem(self) -> Stem:
        self.only("channels", "kernel", "stride", "activation")
        return Stem(self.integer("channels"), self.odd("kernel"), self.integer("stride"), self.activation())

    def block(self, before: int) -> MBConvSpec:
        self.only("middle", "channels", "kernel", "stride", "activation", "expand", "squeezed")
        expand = self.fields.get("expand", True)
        if not isinstance(expand, bool):
            raise self.fail("expand", "true or false", expand)
        middle = self.integer("middle")
        if not expand and middle != before:
            raise self.fail("middle", f"the {before} channels that arrive, where nothing expands them", middle)
        return MBConvSpec(
            before,
            middle,
            self.integer("channels"),
            self.odd("kernel"),
            self.integer("stride"),
            self.activation(),
            expand=expand,
            squeezed=self.integer("squeezed", 0, absent=0),
        )

    def exit(self) -> Exit:
        self.only("stage", "pool", "widths")
        head = ExitHead(self.integer("pool", absent=1), self.integers("widths", absent=[]))
        return Exit(self.integer("stage"), head)

    def final(self) -> FinalHead:
        self.only("expand", "mix", "activation")
        return FinalHead(self.integer("expand", 0, 0), self.integer("mix", 0, 0), self.activation())
