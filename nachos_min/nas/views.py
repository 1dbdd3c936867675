"""Rows of a front for people: which are looked at first, and how they look in Python, a notebook and pandas.

First come, of each network, its most accurate row, its knee and its cheapest.
"""

from collections.abc import Iterable, Mapping
from html import escape
from math import inf
from typing import TYPE_CHECKING, Any

from nachos_min.errors import InputError, cut, some

if TYPE_CHECKING:  # they call this file, and so does the command line's help
    from nachos_min.nas.evaluation import Trial
    from nachos_min.nas.result import Network, SearchResult

SETTINGS = ("accurate", "knee", "cheap")
MOST = 6  # rows of a result at a prompt, which ten lines hold with what stands around them
COLUMNS = (
    *("k", "setting", "accuracy", "average MACs", "test accuracy (95%)", "test MACs", "leave after stage"),
    *("worst MACs", "parameters"),
)


def by_network(rows: Iterable["Network"]) -> "dict[Trial, list[Network]]":
    """Return the rows of each trained network, in their order."""
    found: dict[Trial, list[Network]] = {}
    for row in rows:
        found.setdefault(row.evaluation.trial, []).append(row)
    return found


def undominated(front: Iterable["Network"]) -> list["Network"]:
    """Return the rows that no other row dominates, one of equals; the most accurate first."""
    fewest, rows = inf, []
    for row in sorted(front, key=lambda row: (-row.metric, row.average_macs)):
        if row.average_macs < fewest:
            fewest = row.average_macs
            rows.append(row)
    return rows


def settings(front: Iterable["Network"]) -> tuple[dict[str, "Network"], ...]:
    """Return for each network its rows by SETTINGS, the most accurate network first.

    Rows that a row of any network dominates do not count; a network has no entry if all its rows are dominated.
    "accurate" and "cheap" are the ends of the rest. "knee" is the row farthest above the line between them.
    """
    return tuple(map(_named, by_network(undominated(front)).values()))


def picked(front: Iterable["Network"], setting: str) -> "Network":
    """Return the most accurate row of a front, its knee or its cheapest row, over all networks."""
    return _named(undominated(front))[setting]


def _named(rows: list["Network"]) -> dict[str, "Network"]:
    return {"accurate": rows[0], "knee": _knee(rows), "cheap": rows[-1]}


def setting_names(chosen: Iterable[dict[str, "Network"]]) -> dict[int, str]:
    """Return the name in `settings` of each solution, by its number; of a row with several names the first."""
    return {row.solution: name for rows in chosen for name, row in reversed(rows.items())}


def _knee(rows: list["Network"]) -> "Network":
    """Return the row farthest above the line from the first to the last; the first if none is above."""
    first, last = rows[0].point.shown, rows[-1].point.shown

    def above(row: "Network") -> int:  # the distance times a constant, in whole numbers: 0 at both ends
        gain, extra = row.point.shown.score - last.score, row.total_macs - last.total_macs
        return gain * (first.total_macs - last.total_macs) - (first.score - last.score) * extra

    return max(rows, key=above)


def network_text(row: "Network") -> str:
    """Return the `repr` of a network: one line, since a front is a tuple of them."""
    name = cut(f"{row.run}#{row.solution}: ") if row.run else ""
    found = f"{row.metric:.4f} at {row.average_macs:,.0f} average MACs"
    return f"<Network {name}{found}, on test {row.test.metric:.4f} at {row.test.average_macs:,.0f}>"


def title(result: "SearchResult") -> str:
    """Return what a result is, in one line."""
    accuracy = "accuracy" if result.metric == "accuracy" else "balanced accuracy"
    limits = [f"{accuracy} >= {result.min_accuracy:g}"] if result.min_accuracy else []
    limits += [] if result.max_macs is None else [f"average MACs <= {result.max_macs:,}"]
    found = f"{some(len(result.front), 'solution')} from {some(result.evaluated, 'trained network')}"
    return cut(f"{result.run}: {found}, {' and '.join(limits) or 'without limits'}")


def result_text(result: "SearchResult") -> str:
    """Return the `repr` of a result, at most ten lines: the rows that have a setting, as far as they fit."""
    shown = [network_text(row) for row in result.front if row.solution in setting_names(result.settings)][:MOST]
    others = len(result.front) - len(shown)
    shown += [f"and {others} more in .front"] if others else []
    return "\n  ".join([f"<SearchResult {title(result)}", *shown]) + ">"


def html_table(rows: Iterable["Network"], title: str, named: Mapping[int, str]) -> str:
    """Return a table of networks for a notebook, with the settings `named`; it scrolls where there are many."""
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in COLUMNS)
    lines = [_all_cells(row, named.get(row.solution, "")) for row in rows]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    table = f"<table><caption>{escape(title)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div style='max-height: 32em; overflow: auto'>{table}</div>"


def cells(row: "Network", setting: str, shares: str, marks: tuple[str, str]) -> tuple[str, ...]:
    """Return what stands in COLUMNS up to the `shares` that leave; `marks` stand behind the test figures."""
    test, (low, high) = row.test, row.test.metric_interval95
    on_test = f"{test.metric:.1%} ({low * 100:.1f}-{high * 100:.1f}){marks[0]}"
    average, test_average = f"{round(row.average_macs):,}", f"{round(test.average_macs):,}{marks[1]}"
    return str(row.solution), setting, f"{row.metric:.1%}", average, on_test, test_average, shares


def _all_cells(row: "Network", setting: str) -> list[str]:
    """Return what stands in COLUMNS; a mark where the test figures miss a limit."""
    left = zip(row.exits, row.exit_counts, strict=True)
    shares = " ".join(f"{stage}:{count / row.samples:.1%}" for stage, count in left)
    first = cells(row, setting, shares, ("" if row.test.kept else " !", ""))
    return [*first, f"{row.worst_macs:,}", f"{row.params:,}"]


def frame(rows: Iterable["Network"]) -> Any:
    """Return networks as a `pandas.DataFrame`; InputError without pandas.

    A row is a network, by its number; the columns are those of its JSON object, of the test figures as `test_...`.
    """
    try:
        from pandas import DataFrame
    except ImportError:
        raise InputError("to_pandas needs the package 'pandas', got none; try pip install pandas") from None
    found = [row.as_dict() for row in rows]
    tests = [{f"test_{name}": value for name, value in row.pop("test").items()} for row in found]
    flat = [row | test for row, test in zip(found, tests, strict=True)]
    return DataFrame(flat).set_index("solution") if flat else DataFrame()
