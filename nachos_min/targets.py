"""What a user may name as the target of a count, read into one graph of operator records.

net.json        an architecture (`eenn/architecture.py`), a configuration of CNAS ({"ks": [...], ...}),
                or a genome of a space ({"space": "tiny", "genome": [...], "input": [C, H, W], "classes": C})
runs/digits#0   solution 0 of a run
net.onnx        an ONNX file
torch:package.module:function    a function that returns a PyTorch module
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nachos_min.eenn.architecture import Architecture, architecture_from_json
from nachos_min.eenn.lowering import CostOrderError, lower
from nachos_min.errors import InputError, shorten
from nachos_min.fields import Fields, parse_json
from nachos_min.files import read_file
from nachos_min.macs.count import check_graph
from nachos_min.macs.ops import Graph

if TYPE_CHECKING:  # a JSON target need not wait for the reader of another kind
    from nachos_min.macs.readers.onnx_reader import Branch
    from nachos_min.nas.genome import Genome, GenomeCoder

Image = tuple[int, int, int]  # C, H, W

_MOST_BYTES = 2**20  # text of 5,000 blocks; what it parses to may take 50 times as much
_BITS = 40  # counts stay short enough to print
_FORMS = "an architecture .json, RUN#k, an .onnx file or torch:package.module:function"


class TargetError(InputError):
    """A target cannot be read; the message names it and the rule it breaks."""


@dataclass(frozen=True)
class Target:
    """A network to be counted."""

    name: str  # as the user typed it
    input: tuple[int, ...]  # shape as its source has it: (C, H, W), or with a batch axis in front
    graph: Graph
    architecture: Architecture | None = None  # None for a network read from elsewhere
    branches: "tuple[Branch, ...]" = ()  # what runs on a condition
    module: Any = None  # a PyTorch module, to run other tools on
    arguments: tuple[Any, ...] = ()  # what `module` was run on

    def span(self, cost: Callable[[Graph], int]) -> tuple[int, int]:
        """Return the least and the most `cost` of all ways through the branches, that of the graph included."""

        def through(pick: Callable[[list[int]], int], graph: Graph, name: str) -> int:
            ways = dict[str, list[int]]()
            for branch in inside.get(name, ()):
                ways.setdefault(branch.decision, []).append(through(pick, branch.graph, branch.name))
            return cost(graph) + sum(map(pick, ways.values()))

        inside: dict[str, list[Branch]] = {}
        for branch in self.branches:
            inside.setdefault(branch.inside, []).append(branch)
        return through(min, self.graph, ""), through(max, self.graph, "")


def read_target(
    name: str, input_shape: tuple[int, ...] | None = None, classes: int | None = None, *, unpadded: bool = False
) -> Target:
    """Return the network that `name` stands for, its graph not yet checked; InputError if it cannot be read.

    The arguments are options of the command line; None stands for what the target says, or 10 classes of CNAS.
    """
    if name.startswith("torch:"):
        from nachos_min.macs.readers.torch_reader import load_torch_target

        _refuse(classes=classes, unpadded=unpadded)
        module, inputs, options = load_torch_target(name.removeprefix("torch:"))
        return _module(name, module, inputs if input_shape is None else input_shape, options)
    if Path(name).suffix.lower() == ".onnx":
        from nachos_min.macs.readers.onnx_reader import read_onnx

        _refuse(classes=classes, unpadded=unpadded)
        reading = read_onnx(name, input_shape)
        return Target(name, next(iter(reading.inputs.values()), ()), reading.graph, branches=reading.branches)
    if Path(name).suffix.lower() == ".json":
        return _json(name, input_shape, classes, unpadded)
    if "#" in Path(name).name:
        _refuse(input=input_shape, classes=classes, unpadded=unpadded)
        from nachos_min.nas.runs import solution

        found = solution(name)
        assert found.problem is not None, "a stored run knows its space"
        return target_of(found.problem.coder.decode(found.genome), name)
    raise TargetError(f"target must be {_FORMS}, got {shorten(name)}")


def target_of(architecture: Architecture, name: str = "architecture") -> Target:
    """Return `architecture` as a target called `name`."""
    height, width, channels = architecture.input_shape
    return Target(name, (channels, height, width), lower(architecture), architecture)


def _refuse(**options: object) -> None:
    """Refuse options that this kind of target does not have."""
    for option, value in options.items():
        if value not in (None, False):
            raise TargetError(f"--{option} does not apply to this kind of target, got {shorten(str(value))}")


def _json(name: str, input_shape: tuple[int, ...] | None, classes: int | None, unpadded: bool) -> Target:
    try:
        fields = _object(name)
        try:
            image = None if input_shape is None else _image(input_shape)
            return target_of(_architecture(fields, image, classes, unpadded), name)
        except (InputError, CostOrderError) as error:
            raise TargetError(f"{shorten(name)}: {error}") from None
    except RecursionError:  # while lists are parsed, or written into a message
        raise TargetError(f"target {shorten(name)} is not JSON: it is nested too deeply") from None


def _object(name: str) -> Mapping[str, Any]:
    try:
        fields = parse_json(read_file(name, _MOST_BYTES))
    except OSError as error:
        raise TargetError(f"target {shorten(name)}: {error.strerror or error}") from None
    except ValueError as error:
        raise TargetError(f"target {shorten(name)} is not JSON: {error}") from None
    if not isinstance(fields, Mapping):
        raise TargetError(f"target {shorten(name)} must be a JSON object, got {type(fields).__name__}")
    return fields


def _image(shape: tuple[int, ...]) -> Image:
    """Return (C, H, W) of a shape with or without a batch axis of 1."""
    image = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    if len(image) != 3:
        raise TargetError(f"--input must be C,H,W of one image for this kind of target, got {shape}")
    channels, height, width = image
    return channels, height, width


def _architecture(
    fields: Mapping[str, Any], image: Image | None, classes: int | None, unpadded: bool
) -> Architecture:
    if "ks" in fields:
        coder, genome = _configuration(fields, image, classes or 10, unpadded)
    else:
        _refuse(unpadded=unpadded)
        if "genome" not in fields:
            return architecture_from_json(fields, image, classes)
        coder, genome = _genome(fields, image, classes)
    return coder.decode(genome) if any(genome[coder.exit_genes]) else coder.backbone(genome)


def _configuration(
    fields: Mapping[str, Any], image: Image | None, classes: int, unpadded: bool
) -> "tuple[GenomeCoder, Genome]":
    """Return the genome of a CNAS configuration; it may have any resolution, not only the space's own."""
    from nachos_min.eenn.architecture import is_flat, least_side
    from nachos_min.nas.genome import GenomeCoder, from_cnas
    from nachos_min.nas.space import load_space

    resolution = fields.get("r") if image is None else least_side(image[1:], is_flat((*image[1:], image[0])))
    table = dict(fields) | {"classes": classes, "r": resolution}
    checked = Fields(table, lambda message: TargetError(f"configuration: {message}"), _BITS)
    side, classes = checked.integer("r"), checked.integer("classes")
    if side > 1 << 20:
        raise checked.fail("r", "an integer from 1 to 2^20", side)
    channels, height, width = image or (3, side, side)
    space = replace(load_space("ofa-mbv3"), resolutions=(side,))
    coder = GenomeCoder(space, (height, width, channels), classes)
    return coder, from_cnas(coder, dict(fields) | {"r": side}, unpadded=unpadded)


def _genome(fields: Mapping[str, Any], image: Image | None, classes: int | None) -> "tuple[GenomeCoder, Genome]":
    """Return the canonical genome of a table with fields space, genome, input and classes."""
    import numpy as np

    from nachos_min.nas.genome import GenomeCoder, as_genome
    from nachos_min.nas.space import load_space

    table = dict(fields) | {"classes": classes or fields.get("classes")}
    if image is not None:
        table["input"] = list(image)
    checked = Fields(table, lambda message: TargetError(f"genome: {message}"), _BITS)
    checked.only("space", "genome", "input", "classes")
    space = checked.typed("space", str, "the name of a space or a .toml file")
    genome = tuple(checked.listed("genome"))
    if not all(type(gene) is int for gene in genome):
        raise checked.fail("genome", "a list of integers", genome)
    channels, height, width = _image(checked.integers("input"))
    coder = GenomeCoder(load_space(space), (height, width, channels), checked.integer("classes"))
    coder.genes(genome)  # their ranges are checked before they are put into an array
    return coder, as_genome(coder.canonical(np.array([genome]))[0])


def _module(name: str, module: Any, inputs: Any, options: Any = None) -> Target:
    """Return a PyTorch module as a target; `inputs` are tensors or a shape, of which C,H,W stands for one image."""
    from nachos_min.macs.readers.torch_graph import tensors_in
    from nachos_min.macs.readers.torch_reader import example_inputs, read_torch

    if inputs is None:
        raise TargetError(f"--input must give the shape that {shorten(name)} reads, such as 1,3,224,224, got none")
    image = isinstance(inputs, tuple) and len(inputs) == 3 and all(type(side) is int for side in inputs)
    arguments, options = example_inputs(module, (1, *inputs) if image else inputs, options)
    shown = tuple(int(side) for side in next(tensors_in((arguments, options))).shape)
    return Target(name, shown, read_torch(module, arguments, options), module=module, arguments=arguments)


def count_macs(
    target: Any,
    input_shape: tuple[int, ...] | None = None,
    convention: str = "exact",
    *,
    classes: int | None = None,
) -> int:
    """Return the multiply-accumulates of a network, as Python integer of any size.

    Args:
        target: a name as in `read_target`, a path, an Architecture, a graph of records, or a PyTorch module.
        input_shape: (C, H, W) of one image, or any shape with its batch axis in front; None: the target has it.
        convention: whose rules to count by, such as "exact" or "thop".
        classes: number of classes, for a target that leaves it open.

    Raises:
        InputError: if the target cannot be read or counted, its branches differ, or there is no such convention.

    >>> from nachos_min.macs.ops import Conv2d, Node
    >>> count_macs((Node("stem", Conv2d((8, 8, 3), 16, (3, 3), padding=(1, 1, 1, 1)), (-1,)),))
    27648
    """
    from nachos_min.macs.conventions import find_convention

    rules = find_convention(convention)
    if isinstance(target, str | Path):
        found = read_target(str(target), input_shape, classes)
    elif isinstance(target, Architecture):
        found = target_of(target)
    elif isinstance(target, tuple):
        found = Target("graph", (), target)
    else:
        found = _module(type(target).__name__, target, input_shape)
    for graph in (found.graph, *(branch.graph for branch in found.branches)):
        check_graph(graph)
    least, most = found.span(rules.total)
    if least != most:
        raise TargetError(f"MACs of {found.name} must be the same in all branches, got {least:,} to {most:,}")
    return least
