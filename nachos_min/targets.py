"""What a user may name as the target of a count, read into one graph of operator records.

net.json        an architecture (`eenn/architecture.py`), a configuration of CNAS ({"ks": [...], ...}),
                or a genome of a space ({"space": "tiny", "genome": [...], "input": [C, H, W], "classes": C})
runs/digits#0   solution 0 of a run
net.onnx        an ONNX file
torch:package.module:function    a function that returns a PyTorch module, (module, inputs)
                                 or (module, inputs, keyword arguments)
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nachos_min.eenn.architecture import Architecture, architecture_from_json
from nachos_min.eenn.lowering import CostOrderError, lower
from nachos_min.errors import InputError, shorten
from nachos_min.fields import Fields, parse_json
from nachos_min.files import read_file
from nachos_min.macs.conventions import find_convention
from nachos_min.macs.count import check_graph
from nachos_min.macs.ops import Node
from nachos_min.macs.record import CountError
from nachos_min.macs.result import Count, Network, count_network

if TYPE_CHECKING:  # a JSON target need not wait for the reader of another kind
    from nachos_min.nas.genome import Genome, GenomeCoder

Image = tuple[int, int, int]  # C, H, W

_MOST_BYTES = 2**20  # text of 5,000 blocks; what it parses to may take 50 times as much
_BITS = 40  # counts stay short enough to print
_FORMS = "an architecture .json, RUN#k, an .onnx file or torch:package.module:function"


class TargetError(InputError):
    """A target cannot be read; the message names it and the rule it breaks."""


@dataclass(frozen=True)
class Target(Network):
    """A network to be counted, and what it was read from."""

    architecture: Architecture | None = None  # None for a network read from elsewhere
    module: Any = None  # a PyTorch module, to run other tools on
    arguments: tuple[Any, ...] = ()  # what `module` was run on
    options: Mapping[str, Any] = field(default_factory=dict)  # by keyword

    def count(self, convention: str = "exact") -> Count:
        """Return the count by the convention of that name; InputError if a graph is not sound."""
        for graph in (self.graph, *(branch.graph for branch in self.branches)):
            check_graph(graph)
        plain = Network(self.name, self.input, self.graph, self.branches, self.inputs, self.stages)
        return count_network(plain, convention)


def read_target(name: str, inputs: Any = None, classes: int | None = None, *, unpadded: bool = False) -> Target:
    """Return the network that `name` stands for, its graph not yet checked; InputError if it cannot be read.

    The arguments are options of the command line; None stands for what the target says, or 10 classes of CNAS.
    `inputs` are as of `count_macs`.
    """
    if name.startswith("torch:"):
        from nachos_min.macs.readers.torch_reader import load_torch_target

        _refuse(classes=classes, unpadded=unpadded)
        module, own, options = load_torch_target(name.removeprefix("torch:"))
        return _module(name, module, own if inputs is None else inputs, options)
    if Path(name).suffix.lower() == ".onnx":
        from nachos_min.macs.readers.onnx_reader import read_onnx

        _refuse(classes=classes, unpadded=unpadded)
        reading = read_onnx(name, _file_shapes(inputs))
        first = next(iter(reading.inputs.values()), ())
        several = reading.inputs if len(reading.inputs) > 1 else {}
        return Target(name, first, reading.graph, reading.branches, several)
    if Path(name).suffix.lower() == ".json":
        return _json(name, inputs, classes, unpadded)
    if "#" in Path(name).name:
        _refuse(input=inputs, classes=classes, unpadded=unpadded)
        from nachos_min.nas.runs import solution

        found = solution(name)
        assert found.problem is not None, "a stored run knows its space"
        return target_of(found.problem.coder.decode(found.genome), name)
    raise TargetError(f"target must be {_FORMS}, got {shorten(name)}")


def target_of(architecture: Architecture, name: str = "architecture") -> Target:
    """Return `architecture` as a target called `name`."""
    height, width, channels = architecture.input_shape
    stages, graph = architecture.exit_stages, lower(architecture)
    return Target(name, (channels, height, width), graph, stages=stages, architecture=architecture)


def _file_shapes(inputs: Any) -> Any:
    """Return the shapes of a file's inputs, by name or of the first; arrays have theirs."""
    if isinstance(inputs, Mapping):
        return {name: _file_shapes(each) for name, each in inputs.items()}
    shape = getattr(inputs, "shape", inputs)
    if shape is not None and not isinstance(shape, tuple | list):
        raise TargetError(f"inputs of a file must be a shape, or shapes by name, got {shorten(inputs)}")
    return shape and tuple(shape)


def _refuse(**options: object) -> None:
    for option, value in options.items():
        if value not in (None, False):
            raise TargetError(f"--{option} does not apply to this kind of target, got {shorten(str(value))}")


def _json(name: str, inputs: Any, classes: int | None, unpadded: bool) -> Target:
    try:
        fields = _object(name)
        try:
            image = None if inputs is None else _image(inputs)
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


def _image(shape: Any) -> Image:
    """Return (C, H, W) of a shape with or without a batch axis of 1."""
    image = shape[1:] if _is_shape(shape) and len(shape) == 4 and shape[0] == 1 else shape
    if not _is_shape(image) or len(image) != 3:
        raise TargetError(f"--input must be C,H,W of one image for this kind of target, got {shorten(shape)}")
    channels, height, width = image
    return channels, height, width


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(type(length) is int for length in value)


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
    """Return a PyTorch module, run on `inputs` and keyword arguments, as a target."""
    from nachos_min.macs.readers.torch_graph import load_torch

    if inputs is None and options is None and isinstance(module, load_torch().nn.Module):
        raise TargetError(
            f"inputs of {shorten(name)} must be given, such as --input 1,3,224,224 or a tensor, got none"
        )
    if _is_shape(inputs):
        return _of_shape(name, module, tuple(inputs), options)
    return _of_arrays(name, module, inputs, options)


def _of_arrays(name: str, module: Any, inputs: Any, options: Any) -> Target:
    from nachos_min.macs.readers.torch_reader import example_inputs, read_torch

    arguments, named = example_inputs(module, inputs, options)
    shapes = dict(_shapes(_by_parameter(module, arguments, named)))
    first, several = next(iter(shapes.values()), ()), shapes if len(shapes) > 1 else {}
    graph = read_torch(module, arguments, named)
    return Target(name, first, graph, inputs=several, module=module, arguments=arguments, options=named)


def _of_shape(name: str, module: Any, shape: tuple[int, ...], options: Any) -> Target:
    """Return what a module does with an array of `shape`.

    If it takes none, or a layer finds no axis of samples in it, a batch of one of that shape is meant. TargetError
    if it takes both and they cost differently: the shape does not say what is meant.
    """
    from nachos_min.macs.readers.torch_reader import ModuleFailedError

    found, failed, batch = list[Target](), list[str](), (1, *shape)
    for each in (shape, batch):
        try:
            found.append(_of_arrays(name, module, each, options))
        except ModuleFailedError as error:
            failed.append(str(error))
        except CountError:
            if not found:
                raise
    if not found:
        told = [f"{each}: {error}" for each, error in zip((shape, batch), failed, strict=True)]
        advice = "if it wants other inputs, give tensors: a function may return (module, inputs)"
        raise ModuleFailedError(f"on floats of shape {'; of '.join(told[: len({*failed})])}; {advice}")
    one, *other = (each.count().total for each in found)
    if other and other != [one]:
        both = f"{shorten(name)} takes {shape}: {one:,} MACs, and {batch}: {other[0]:,} MACs"
        raise TargetError(f"{both}; give an array, or a function that returns (module, inputs), got only a shape")
    written = (node.written.facts for node in found[0].graph if node.written and len(shape) > 1)
    return found[-1 if any("unbatched" in facts for facts in written) else 0]


def _by_parameter(module: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a module is called with by the names of its parameters, or by position if it hides them."""
    try:
        return inspect.signature(module.forward).bind(*arguments, **options).arguments
    except (AttributeError, TypeError, ValueError):
        return {**{str(place): value for place, value in enumerate(arguments)}, **options}


def _shapes(values: Any, name: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (name, shape) of the arrays in nested lists and mappings."""
    from nachos_min.macs.readers.torch_graph import load_torch

    if isinstance(values, Mapping | tuple | list):
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        for key, value in pairs:
            yield from _shapes(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, load_torch().Tensor):
        yield name, tuple(map(int, values.shape))


def count_macs(
    target: Any,
    inputs: Any = None,
    convention: str = "exact",
    *,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
) -> Count:
    """Return the multiply-accumulates of a network: a `Count`, which acts as an integer of any size.

    Args:
        target: a name as in `read_target`, a path, an Architecture, a graph of records, or a PyTorch module.
        inputs: what a PyTorch module is called with: a tensor, arguments in a tuple or list, nested as the module
            wants them, or keyword arguments in a mapping. Or a shape, for which numbers are drawn; it is taken as
            written, or if the module takes no such array, or a layer finds no axis of samples in it, with a batch
            of one in front. For an ONNX file a shape, or a mapping of names to shapes; for an architecture (C, H,
            W). None: the target has it.
        convention: whose rules to count by, such as "exact" or "thop".
        input_shape: another name for `inputs`.
        classes: number of classes, for a target that leaves it open.

    Raises:
        InputError: if the target cannot be read or counted, a shape can mean two things that cost differently, or
            there is no such convention.

    >>> from nachos_min.macs.ops import Conv2d, Node
    >>> count = count_macs((Node("stem", Conv2d((8, 8, 3), 16, (3, 3), padding=(1, 1, 1, 1)), (-1,)),))
    >>> print(count, count.by_operator(), f"{count + 352:,}")
    27648 {'Conv2d': 27648} 28,000
    """
    find_convention(convention)
    if input_shape is not None:
        if inputs is not None:
            raise TargetError(f"input_shape must be absent where inputs are given, got {shorten(input_shape)}")
        inputs = input_shape
    if isinstance(target, str | Path):
        return read_target(str(target), inputs, classes).count(convention)
    _refuse(classes=classes)
    graph = isinstance(target, tuple) and all(isinstance(node, Node) for node in target)
    if not graph and not isinstance(target, Architecture):
        return _module(type(target).__name__, target, inputs).count(convention)
    _refuse(input=inputs)
    found = target_of(target) if isinstance(target, Architecture) else Target("graph", (), target)
    return found.count(convention)
