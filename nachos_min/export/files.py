"""Write a network in the formats that are asked for, and say of each file how large it is and how it answers."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nachos_min.data import Dataset
from nachos_min.errors import InputError, shorten
from nachos_min.export.c_check import c_answers, c_size, has_compiler
from nachos_min.export.c_layers import int8_code
from nachos_min.export.c_source import FILES, write_c, write_code
from nachos_min.export.comparison import Array, Comparison, Engine, onnx_answers
from nachos_min.export.npz_file import write_npz
from nachos_min.export.onnx_file import write_onnx
from nachos_min.export.quantised import quantised
from nachos_min.macs.count import count
from nachos_min.nas.result import FiguresOnTest, Network
from nachos_min.nas.runs import examples, solution, stored_problem
from nachos_min.targets import read_target

TOLERATED = 0.005  # accuracy that integers may cost without a warning


@dataclass(frozen=True)
class Written:
    """A file or a folder that was written."""

    path: str  # its name
    what: str  # what it is, for reading
    bytes: int  # its size on the disk
    notes: tuple[str, ...] = ()  # more about it, a line each
    comparison: Comparison | None = None  # with the engine; None: nothing here runs it
    figures: dict[str, Any] | None = None  # more about it, for JSON

    def lines(self) -> Iterator[str]:
        """Yield the lines that people read."""
        yield f"{self.path}: {self.what}, {self.bytes:,} bytes"
        yield from (f"  {note}" for note in (*self.notes, self.comparison) if note is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        found = {"path": self.path, "what": self.what, "bytes": self.bytes} | (self.figures or {})
        return found if self.comparison is None else found | {"comparison": asdict(self.comparison)}


def export(
    network: str,
    *,
    onnx: str | Path | None = None,
    gated: bool = False,
    npz: str | Path | None = None,
    c: str | Path | None = None,
    int8: bool = False,
    data: Any = None,
    max_bytes: int | None = None,
) -> tuple[Written, ...]:
    """Return what was written of network RUN#k, each file compared with the engine; arguments as of the command.

    InputError if nothing is asked for, a file cannot be written where it is to be, there is no such network, or
    `data` are other than those of the run.
    """
    paths = {"onnx": onnx, "npz": npz, "c": c}
    if gated and onnx is None:
        raise InputError(f"--gated must stand beside --onnx, got none for {shorten(network)}")
    for option, given in (("c", c), ("data", data)):
        if int8 and given is None:
            raise InputError(f"--int8 must stand beside --c and --data, got no --{option} for {shorten(network)}")
    if not any(paths.values()):
        raise InputError(f"export must have one of {', '.join(f'--{option}' for option in paths)}, got none")
    asked = {option: Path(path) for option, path in paths.items() if path is not None}
    for option, path in asked.items():
        _check(option, path)
    if len({os.path.realpath(path) for path in asked.values()}) < len(asked):
        raise InputError(f"what is written must have different names, got {', '.join(map(str, asked.values()))}")
    found = solution(network)
    dataset = None if data is None else stored_problem(found.run, data=data, max_bytes=max_bytes).data
    images = examples(found.run).images if dataset is None else dataset.test.images.unscaled()
    engine, written = Engine(found.trained, images), []
    if onnx is not None:
        written.append(onnx_written(engine, onnx, gated=gated))
    if npz is not None:
        write_npz(found.trained, npz)
        note = "nachos_min/export/README.md shows a reader in NumPy alone"
        written.append(Written(str(npz), "plain arrays", Path(npz).stat().st_size, (note,)))
    if c is not None and int8 and dataset is not None:
        written.append(int8_written(found, dataset, images, c))
    elif c is not None:
        written.append(c_written(engine, c))
    return tuple(written)


def _check(option: str, path: Path) -> None:
    """Refuse a path that is not what the option writes."""
    kind = f".{option}"
    rule, wrong = f"a {kind} file", path.suffix.lower() != kind or (os.path.lexists(path) and not path.is_file())
    if option == "c":
        rule, wrong = "a folder", os.path.lexists(path) and not path.is_dir()
    where = "a folder that may be written" if path.parent.is_dir() and not wrong else "an existing folder"
    if wrong or not os.access(path.parent, os.W_OK):
        raise InputError(f"--{option} must be {rule} in {where}, got {shorten(str(path))}")


def onnx_written(engine: Engine, path: str | Path, *, gated: bool) -> Written:
    """Return the ONNX file that is written; its MACs are counted in the file."""
    write_onnx(engine.trained, path, gated=gated)
    least, most, _ = read_target(str(path)).ways(lambda graph: count(graph).macs)
    what = "ONNX, one image at a time, stops early" if gated else "ONNX, every exit an output"
    notes, comparison = [f"{least:,} to {most:,} MACs" if gated else f"{most:,} MACs"], None
    try:
        comparison = engine.compare(*onnx_answers(path, engine.images, gated=gated))
    except ImportError:
        notes.append("not compared with the engine: the package onnxruntime is not installed")
    return Written(str(path), what, Path(path).stat().st_size, tuple(notes), comparison, {"macs": [least, most]})


def c_written(engine: Engine, folder: str | Path) -> Written:
    """Return the C source that is written, compiled and compared if there is a compiler."""
    trained, integers = engine.trained, engine.integers
    made = write_c(trained, folder) if integers is None else write_code(trained, int8_code(integers), folder)
    comparison = None
    figures: dict[str, Any] = {"constants": made.constants, "buffers": made.buffers}
    notes = [f"{made.constants:,} bytes of constants in flash, {made.buffers:,} bytes of buffers in RAM"]
    if not has_compiler():
        notes.append("not compiled and not compared with the engine: there is no C compiler (cc) here")
    else:
        comparison = engine.compare(*c_answers(folder, engine.images, len(engine.trained.thresholds)))
        if (size := c_size(folder)) is not None:
            figures |= dict(zip(("flash", "ram"), size, strict=True))
            notes.append(f"compiled here at -Os: {size[0]:,} bytes of flash, {size[1]:,} of RAM")
    total = sum(Path(folder, name).stat().st_size for name in FILES)
    return Written(str(folder), f"C99, {', '.join(FILES)}", total, tuple(notes), comparison, figures)


def int8_written(network: Network, data: Dataset, images: Array, folder: str | Path) -> Written:
    """Return the C source in integers; as many validation images leave at each exit as in float."""
    in_float, there = network.test, network.point.validation
    integers = quantised(network.trained, data.train.images).leaving(data.validation, there.exit_counts)
    counted = integers.figures(data.test, balanced=bool(in_float.class_samples))
    found = FiguresOnTest(**asdict(counted), kept=network.limits.admissible(counted))
    written = c_written(Engine(integers.trained, images, integers), folder)
    said = (
        f"{figures.metric:.2%} at {figures.average_macs:,.0f} MACs on average in {name}"
        for name, figures in (("integers", found), ("float", in_float))
    )
    notes = [f"test split: {', '.join(said)}"]
    if in_float.metric - found.metric > TOLERATED:
        notes.append("WARNING: in integers it is more than half a point less accurate")
    if not found.kept:
        notes.append("a limit of the search is missed there in integers")
    own = {"thresholds": list(integers.trained.thresholds)} | found.as_dict()
    figures = (written.figures or {}) | {"arithmetic": "int8", "test": own}
    what = written.what.replace("C99", "C99 in integers (int8)")
    return replace(written, what=what, notes=(*notes, *written.notes), figures=figures)
