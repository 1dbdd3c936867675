"""Results as they look at a Python prompt, in a notebook, and as a table of pandas; not in a terminal."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from nachos_min.errors import InputError, some
from nachos_min.nas.settings import setting_names

if TYPE_CHECKING:  # they call this file
    from nachos_min.nas.result import Network, SearchResult

MOST = 6  # rows of a result at a prompt, which ten lines hold with what stands around them
COLUMNS = (
    *("k", "setting", "accuracy", "average MACs", "test accuracy (95%)", "test MACs", "leave after stage"),
    *("worst MACs", "parameters"),
)


def network_text(row: "Network") -> str:
    """Return the `repr` of a network: one line, since a front is a tuple of them."""
    name = f"{row.run}#{row.solution}: " if row.run else ""
    found = f"{row.metric:.4f} at {row.average_macs:,.0f} average MACs"
    return f"<Network {name}{found}, on test {row.test.metric:.4f} at {row.test.average_macs:,.0f}>"


def title(result: "SearchResult") -> str:
    """Return what a result is, in one line."""
    accuracy = "accuracy" if result.metric == "accuracy" else "balanced accuracy"
    limits = [f"{accuracy} >= {result.min_accuracy:g}"] if result.min_accuracy else []
    limits += [] if result.max_macs is None else [f"average MACs <= {result.max_macs:,}"]
    found = f"{some(len(result.front), 'solution')} from {some(result.evaluated, 'trained network')}"
    return f"{result.run}: {found}, {' and '.join(limits) or 'without limits'}"


def result_text(result: "SearchResult") -> str:
    """Return the `repr` of a result, at most ten lines: the rows that have a setting, as far as they fit."""
    shown = [network_text(row) for row in result.front if row.solution in setting_names(result.settings)][:MOST]
    others = len(result.front) - len(shown)
    shown += [f"and {others} more in .front"] if others else []
    return "\n  ".join([f"<SearchResult {title(result)}", *shown]) + ">"


def html_table(rows: Iterable["Network"], title: str, named: Mapping[int, str]) -> str:
    """Return a table of networks for a notebook, with the settings `named`; it scrolls where there are many."""
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in COLUMNS)
    lines = [_cells(row, named.get(row.solution, "")) for row in rows]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    table = f"<table><caption>{escape(title)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div style='max-height: 32em; overflow: auto'>{table}</div>"


def _cells(row: "Network", setting: str) -> list[str]:
    """Return what stands in COLUMNS; a mark where the test figures miss a limit."""
    low, high = row.test.metric_interval95
    left = zip(row.exits, row.exit_counts, strict=True)
    stages = " ".join(f"{stage}:{count / row.samples:.1%}" for stage, count in left)
    on_test = f"{row.test.metric:.1%} ({low * 100:.1f}-{high * 100:.1f}){'' if row.test.kept else ' !'}"
    average, test, worst = (
        f"{round(count):,}" for count in (row.average_macs, row.test.average_macs, row.worst_macs)
    )
    return [
        str(row.solution),
        setting,
        f"{row.metric:.1%}",
        average,
        on_test,
        test,
        stages,
        worst,
        f"{row.params:,}",
    ]


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
