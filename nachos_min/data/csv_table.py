"""Read a table of numbers with a column of labels from a .csv file: commas, semicolons or tabs, maybe a header."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError
from nachos_min.data.labels import LONGEST_TEXT
from nachos_min.data.limits import Asked, Room
from nachos_min.errors import shorten
from nachos_min.files import open_file

LABELS = ("label", "labels", "class", "target", "y")  # what the column of labels is called
ROW_NUMBERS = ("", "id", "index", "unnamed: 0")  # what a first column that numbers the rows is called
_LONGEST = 1 << 20  # characters of a line
_TOGETHER = 1 << 20  # characters converted together, at least: as cells they may take 30 times as many bytes
_LINE = 200  # bytes that a line counts, beside its numbers: it takes time, and its label Python's text
_ELSE = "labels stand in the last column, or in one that a first line calls label"


def read_csv(path: Path, asked: Asked) -> dict[str, Any]:
    """Return images [N, features] of the narrowest type, labels [N], integers or text, and notes.

    The first line is a header if none of its cells is a number, or if one is in `LABELS`. Labels stand in the
    column that the header calls so, else in the last one. A first column in `ROW_NUMBERS` is left out, and empty
    lines are passed over. A cell stands in one line. If labels may be missing, a table with one column for each of
    the expected values of a sample has no labels. DataError for any other content.
    """
    with open_file(path) as stored, io.TextIOWrapper(stored, encoding="utf-8-sig", newline="") as file:
        numbers, known = _Numbers(asked.room), dict[str, str]()
        labels: list[str] = []
        waiting: list[Sequence[str]] = []
        header: list[str] | None = None
        at, width, numbered, bare, held = -1, 0, False, False, 0
        for line, size, row in _rows(path, file, asked.room):
            if not width and asked.expected is not None:
                bare = len(row) - (row[0].strip().lower() in ROW_NUMBERS) == prod(asked.expected)
            if bare:  # a column of labels, which is dropped at the end
                row.append("0" if any(map(_is_number, row)) else LABELS[0])
            if not width:
                width = len(row)
                at, header = _columns(path, row)
                if header is not None:
                    numbered = width > 2 and at > 0 and header[0].lower() in ROW_NUMBERS
                    continue
            if len(row) != width:
                rule = f"must have {width - bare} cells like the first, got {len(row) - bare}"
                raise DataError(f"{path}: line {line} {rule}")
            label = row.pop(at).strip()
            del row[:numbered]
            if not 1 <= len(label) <= LONGEST_TEXT:
                rule = f"must have a label of 1 to {LONGEST_TEXT} characters"
                raise DataError(f"{path}: line {line} {rule}, got {shorten(label)}")
            labels.append(known.setdefault(label, label))  # one text for each class
            waiting.append(row)
            held += size
            if held >= _TOGETHER:
                numbers.add(_numbers(path, waiting, line))
                waiting, held = [], 0
        if waiting:
            numbers.add(_numbers(path, waiting, line))
    if not labels:
        raise DataError(f"{path}: a table must have rows, got none")
    images = np.frombuffer(numbers.content, numbers.kind).reshape(len(labels), -1)
    if bare:
        return {"images": images}
    named = "the last column" if header is None else f"column {shorten(header[at])}"
    asked.room.take(4 * len(labels) * max(map(len, known)), "the labels")
    found, notes = _labels(labels), [f"labels are in {named}"]
    if numbered and header is not None:
        notes.append(f"the first column, {shorten(header[0])}, is left out: it numbers the rows")
    if found.dtype.kind == "f" and (fraction := found != np.floor(found)).any():
        rule = f"labels must be whole numbers or text, {named} has {found[fraction][0]}"
        raise DataError(f"{path}: {rule}; {_ELSE}")
    return {"images": images, "labels": found, "notes": tuple(notes)}


@dataclass
class _Numbers:
    """The numbers of a table, row after row, in the narrowest type that holds those so far."""

    room: Room
    content: bytearray = field(default_factory=bytearray)  # grows where it is: no second copy is in memory
    kind: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows; DataError if there is no room."""
        wider, before = np.result_type(self.kind, rows.dtype), len(self.content)
        growth = before // self.kind.itemsize * (wider.itemsize - self.kind.itemsize)
        self.room.take(growth + rows.size * wider.itemsize, "the table")
        if wider != self.kind:
            self.content = bytearray(np.frombuffer(self.content, self.kind).astype(wider).data)
            self.kind = wider
        self.content += rows.astype(wider, copy=False).data


def _rows(path: Path, file: TextIO, room: Room) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the number of each line that is not empty, its characters, and its cells."""
    delimiter = ","
    for number, line in enumerate(iter(partial(file.readline, _LONGEST + 1), ""), start=1):
        if len(line) > _LONGEST:
            raise DataError(f"{path}: line {number} must have at most {_LONGEST:,} characters, it has more")
        room.take(_LINE, "the table")
        if number == 1:
            delimiter = max(",;\t", key=line.count)
        yield from ((number, len(line), row) for row in csv.reader([line], delimiter=delimiter, strict=True) if row)


def _columns(path: Path, row: list[str]) -> tuple[int, list[str] | None]:
    """Return the index of the column of labels, and the header if `row` is one."""
    names = [cell.strip() for cell in row]
    if len(names) < 2:
        raise DataError(f"{path}: a table must have features and a label in each row, got {len(names)} column")
    called = [index for index, name in enumerate(names) if name.lower() in LABELS]
    if len(called) > 1:  # y may be a coordinate
        called = [index for index in called if names[index].lower() != "y"]
    if len(called) > 1:
        raise DataError(f"{path}: one column must hold the labels, got {', '.join(names[at] for at in called[:9])}")
    if called:
        return called[0], names
    return len(names) - 1, None if any(map(_is_number, names)) else names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, rows: Sequence[Sequence[str]], line: int) -> NDArray[Any]:
    """Return the cells as uint8 or float32 where that is exact, else as float64; `line` is that of the last row."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # infinite or any byte, and so not exact
            exact = np.array(rows, np.float64)
            for kind in (np.uint8, np.float32):
                short = exact.astype(kind)
                if np.array_equal(short, exact) and np.array_equal(np.signbit(short), np.signbit(exact)):
                    return short
            return exact
    except ValueError:
        for row in rows:
            for cell in row:
                if not _is_number(cell):
                    where = f"a feature in one of the {len(rows)} rows up to line {line}"
                    advice = f"; {_ELSE}" if cell.strip()[:1].isalpha() else ""
                    raise DataError(f"{path}: {where} must be a number, got {shorten(cell)}{advice}") from None
        raise


def _labels(cells: list[str]) -> NDArray[Any]:
    """Return labels as numbers if all of them are, else as text."""
    if not all(map(_is_number, cells)):
        return np.array(cells, dtype=np.str_)
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return np.array(cells, np.float64)
