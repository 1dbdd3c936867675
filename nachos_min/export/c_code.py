"""What C computes a network: statements, constants, and buffers that share memory where their lives do not overlap.

`c_layers.py` makes it of layers; `c_source.py` writes it down.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import taps
from nachos_min.eenn.trained import Trained

_BYTES = {"float": 4, "int8_t": 1}
_WIDTH = 100  # of a line of numbers


@dataclass(frozen=True)
class Step:
    """One statement and the buffer it writes."""

    statement: str  # with {y} for that buffer, {x0}, {x1} for what it reads; "": the first of `inputs`, as it is
    inputs: tuple[int, ...]  # indices of the steps whose buffers it reads
    count: int  # numbers in the buffer
    exit: int = 0  # as of `Layer`; the last step of a head writes floats, the logits
    type: str = "float"  # of the numbers in C, "float" or "int8_t"
    overwrites: bool = False  # {y} may be the buffer of an input: each number is read before it is written

    @property
    def bytes(self) -> int:
        """Of the buffer, in whole words of four bytes."""
        return -(-self.count * _BYTES[self.type] // 4) * 4


@dataclass(frozen=True)
class Code:
    """A network as C."""

    arithmetic: str  # what it computes in, for reading
    functions: tuple[str, ...]  # texts of C files; what the steps call of them is written
    constants: tuple[str, ...]  # definitions of arrays
    constant_bytes: int  # of all constants together
    steps: tuple[Step, ...]  # in order of execution


class Constants:
    """Definitions of constant arrays, collected with their size."""

    def __init__(self) -> None:
        self.texts, self.bytes = list[str](), 0

    def add(self, name: str, values: NDArray[Any], kind: str = "float") -> str:
        """Define an array of the C type `kind`, such as int8_t; return its name."""
        numbers = [str(value) + ("f" if kind == "float" else "") for value in values.ravel()]
        lines, line = [], ""
        for number in numbers:
            if len(line) + len(number) > _WIDTH:
                lines.append(line.rstrip())
                line = ""
            line += number + ", "
        body = "\n    ".join([*lines, line.rstrip(", ")])
        self.texts.append(f"static const {kind} {name}[{values.size}] = {{\n    {body}}};")
        self.bytes += values.nbytes
        return name

    def window(self, name: str, fields: Sequence[int]) -> None:
        """Define a C struct `window`."""
        self.texts.append(f"static const window {name} = {{{', '.join(map(str, fields))}}};")
        self.bytes += 4 * len(fields)


def image_steps(trained: Trained, constants: Constants) -> list[Step]:
    """Return the steps that scale an image, and resize it if the network's input is smaller, in float."""
    scaling, image, wanted = trained.seen.scaling, trained.seen.shape, trained.architecture.input_shape
    constants.add("image_mean", np.asarray(scaling.mean, np.float64), "double")
    constants.add("image_inverse", np.asarray(scaling.inverse, np.float64), "double")
    (height, width, channels), (rows, columns, _) = image, wanted
    if image == wanted:
        return [Step(f"scale_image(image, {{y}}, {height * width * channels});", (), height * width * channels)]
    counts = []
    for axis, length, to in (("row", height, rows), ("column", width, columns)):
        pixels, weights = taps(length, to)
        constants.add(f"{axis}_pixels", pixels.astype(np.int32), "int32_t")
        constants.add(f"{axis}_weights", weights)
        counts.append(len(pixels))
    values = width * channels
    first = f"resize_rows(image, {{y}}, {rows}, {values}, {counts[0]});"
    then = f"resize_columns({{x0}}, {{y}}, {rows}, {width}, {columns}, {channels}, {counts[1]});"
    return [Step(first, (), rows * values), Step(then, (0,), rows * columns * channels)]


def planned(steps: Sequence[Step], outputs: Sequence[int]) -> tuple[list[int], int]:
    """Return the first byte of each step's buffer, and the bytes of all together.

    Buffers that are alive at once do not overlap. A buffer lives from the step that writes it to the last that
    reads it. The largest is placed first, each at the lowest place that is free during its life. Steps in
    `outputs` have their own place: -1.
    """
    owner = list(range(len(steps)))
    for index, step in enumerate(steps):
        if not step.statement:
            owner[index] = owner[step.inputs[0]]
    last = list(range(len(steps)))
    for index, step in enumerate(steps):
        for each in step.inputs:
            last[owner[each]] = index
    for index, step in enumerate(steps):
        if not step.overwrites or index in outputs or not step.statement:
            continue
        for each in step.inputs:
            before = owner[each]
            if last[before] == index and steps[before].bytes == step.bytes:
                owner = [before if mine == index else mine for mine in owner]
                last[before] = last[index]
                break
    buffers = sorted(set(owner) - set(outputs), key=lambda each: (-steps[each].bytes, each))
    place = dict.fromkeys(outputs, -1)
    for each in buffers:
        others = [o for o in place if o not in outputs and o <= last[each] and last[o] >= each]
        begin = 0
        for other in sorted(others, key=place.__getitem__):
            if place[other] - begin >= steps[each].bytes:
                break
            begin = max(begin, place[other] + steps[other].bytes)
        place[each] = begin
    total = max((place[each] + steps[each].bytes for each in buffers), default=0)
    return [place[each] for each in owner], total


def called(texts: Sequence[str], statements: str) -> list[str]:
    """Return the definitions in C `texts`, divided by blank lines, that `statements` use, directly or not."""
    parts = [part for text in texts for part in text.strip().split("\n\n")]
    kept, used = list[str](), statements
    for part in reversed(parts):  # a function stands before those that call it
        code = re.sub(r"/\*.*?\*/", "", part, flags=re.S)
        name = re.search(r"(\w+)\(|\} (\w+);", code)
        if name and re.search(rf"\b{name[1] or name[2]}\b", used):
            kept.insert(0, part)
            used += code
    return kept


def source_of(name: str) -> str:
    """Return the text of a C file of this folder."""
    return Path(__file__).with_name(name).read_text("utf-8")
