"""Read a table of numbers with a column of labels from a .csv file: commas, semicolons or tabs, maybe a header."""

import csv
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import MAX_VALUES, DataError

LABELS = ("label", "labels", "class", "target", "y")  # what the column of labels is called
ROW_NUMBERS = ("", "id", "index", "unnamed: 0")  # what a first column that numbers the rows is called
_ROWS = 1000  # converted together
_ELSE = "labels stand in the last column, or in one that a first line calls label"


def read_csv(path: Path, expected: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Return images float32 or float64 [N, features], labels [N], integers or text, and notes.

    The first line is a header if none of its cells is a number, or if one is in `LABELS`. Labels stand in the
    column that the header calls so, else in the last one. A first column in `ROW_NUMBERS` is left out, and empty
    lines are passed over. If labels may be missing, a table with one column for each of the `expected` values of a
    sample, (H, W, C), has no labels. DataError for any other content.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        rows = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
        parts: list[NDArray[np.floating[Any]]] = []
        labels: list[str] = []
        waiting: list[Sequence[str]] = []
        header: list[str] | None = None
        at, width, numbered, bare = -1, 0, False, False
        for row in filter(None, rows):
            if not width and expected is not None:
                bare = len(row) - (row[0].strip().lower() in ROW_NUMBERS) == prod(expected)
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
                raise DataError(f"{path}: line {rows.line_num} {rule}")
            label = row.pop(at).strip()
            del row[:numbered]
            if not label:
                raise DataError(f"{path}: line {rows.line_num} must have a label, got ''")
            labels.append(label)
            waiting.append(row)
            if len(waiting) == _ROWS:
                parts.append(_numbers(path, waiting, rows.line_num))
                waiting = []
            if len(labels) * width > MAX_VALUES:
                raise DataError(f"{path}: a table must have at most {MAX_VALUES} values, it has more")
        if waiting:
            parts.append(_numbers(path, waiting, rows.line_num))
    if not parts:
        raise DataError(f"{path}: a table must have rows, got none")
    if bare:
        return {"images": np.concatenate(parts)}
    named = "the last column" if header is None else f"column {header[at]!r}"
    found, notes = _labels(labels), [f"labels are in {named}"]
    if numbered and header is not None:
        notes.append(f"the first column, {header[0]!r}, is left out: it numbers the rows")
    if found.dtype.kind == "f" and (fraction := found != np.floor(found)).any():
        rule = f"labels must be whole numbers or text, {named} has {found[fraction][0]}"
        raise DataError(f"{path}: {rule}; {_ELSE}")
    return {"images": np.concatenate(parts), "labels": found, "notes": tuple(notes)}


def _columns(path: Path, row: list[str]) -> tuple[int, list[str] | None]:
    """Return the index of the column of labels, and the header if `row` is one."""
    names = [cell.strip() for cell in row]
    if len(names) < 2:
        raise DataError(f"{path}: a table must have features and a label in each row, got {len(names)} column")
    called = [index for index, name in enumerate(names) if name.lower() in LABELS]
    if len(called) > 1:  # y may be a coordinate
        called = [index for index in called if names[index].lower() != "y"]
    if len(called) > 1:
        raise DataError(f"{path}: one column must hold the labels, got {', '.join(names[at] for at in called)}")
    if called:
        return called[0], names
    return len(names) - 1, None if any(map(_is_number, names)) else names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, rows: Sequence[Sequence[str]], line: int) -> NDArray[np.floating[Any]]:
    """Return the cells as numbers, float32 where that is exact; `line` is the number of the last row's line."""
    try:
        with np.errstate(over="ignore"):  # becomes infinite, and so is not exact
            exact = np.array(rows, np.float64)
            short = exact.astype(np.float32)
            return short if np.array_equal(short, exact) else exact
    except ValueError:
        for row in rows:
            for cell in row:
                if not _is_number(cell):
                    where = f"a feature in one of the {len(rows)} rows up to line {line}"
                    advice = f"; {_ELSE}" if cell.strip()[:1].isalpha() else ""
                    raise DataError(f"{path}: {where} must be a number, got {cell!r}{advice}") from None
        raise


def _labels(cells: list[str]) -> NDArray[Any]:
    """Return labels as numbers if all of them are, else as text."""
    if not all(map(_is_number, cells)):
        return np.array(cells, dtype=np.str_)
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return np.array(cells, np.float64)
