"""A count of a network for people: the number, what else is done, every convention, and why they differ.

Read `macs_report.py` first. In a pipe every row is one line; in a narrow terminal words and shapes take several
lines. Neither cuts anything. `macs --json` has the same numbers for programs.
"""

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nachos_min.errors import printable
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.report.console import output
from nachos_min.report.macs_report import MacsReport

NARROWEST = 79  # columns; a narrower terminal wraps


def show_macs(report: MacsReport, *, layers: bool = False, stream: TextIO | None = None) -> None:
    """Print a report of a count.

    Args:
        report: what was counted.
        layers: whether to list every layer.
        stream: where to; standard output unless given.
    """
    console = output(stream or sys.stdout, NARROWEST)
    if layers:
        console.print(layer_rows(report), "", sep="\n")
    console.print(headline(report))
    if report.target.architecture is not None:
        console.print("", exit_table(report), sep="\n")
    if report.branches:
        console.print("", branch_table(report), sep="\n")
    if report.verified:
        console.print("", verify_table(report), sep="\n")
    if report.against:
        console.print("", difference_table(report), sep="\n")
    if not (report.verified or report.against or report.executed):
        console.print("", totals_table(report), sep="\n")
    if report.executed:
        console.print("", execution_table(report), sep="\n")


def headline(report: MacsReport) -> str:
    """Return the lines that say what was counted, and how much it is."""
    shape = "x".join(map(str, report.target.input))
    exact, unit = report.exact, report.convention.unit
    lines = [f"{printable(report.target.name)}, input {shape}"]
    lines.append(f"{report.macs:,} {unit} ({report.convention.name}); {exact.params:,} parameters")
    if report.convention.name == "exact" and exact.valid_macs != exact.macs:
        lines.append(f"{exact.valid_macs:,} of them without products with padded zeros")
    work = [f"{column} {amount:,}" for column, amount in exact.columns.items() if amount]
    lines.append("beside exact MACs: " + (", ".join(work) or "nothing"))
    lines.append(f"activations held at one time: at most {report.peak_bytes:,} bytes in float32")
    return "\n".join(lines)


def exit_table(report: MacsReport) -> Table:
    """Return what a sample has cost when it leaves at each exit."""
    table = _table(("leave after stage", "backbone", "head", "cost in all"), text=0)
    for stage, backbone, head, cost in report.exit_rows():
        table.add_row(str(stage), f"{backbone:,}", f"{head:,}", f"{cost:,}")
    return table


def branch_table(report: MacsReport) -> Table:
    """Return what runs on a condition only, and is not in the total."""
    table = _table(("only on a condition", report.convention.unit, "parameters"), text=1)
    for branch in report.branches:
        table.add_row(branch.name, f"{branch.macs:,}", f"{branch.params:,}")
    return table


def totals_table(report: MacsReport) -> Table:
    """Return the total of every convention and its distance from the chosen one."""
    chosen = report.convention.name
    table = _table(("convention", "total", f"minus {chosen}", "what it adds up"), text=1, words=True)
    for name, total in report.totals.items():
        convention = CONVENTIONS[name]
        unit = "" if convention.unit == "MACs" else f" {convention.unit}"
        table.add_row(name, f"{total:,}{unit}", f"{total - report.macs:+,}", convention.about)
    return table


def difference_table(report: MacsReport) -> Table:
    """Return why two totals differ, term by term, the largest first, with their sum."""
    chosen, against = report.convention.name, report.against
    table = _table((f"{against} - {chosen}", "of what", against, chosen, "where"), text=0, words=True)
    table.columns[0].justify = "right"
    for each in report.differences:
        table.add_row(f"{each.amount:+,}", each.subject, each.left.words, each.right.words, _where(each.nodes))
    if not report.differences:
        table.add_row("", "no term differs", "", "", "")
    total = report.totals[against] - report.macs
    table.add_section()
    table.add_row(f"{total:+,}", f"{against} {report.totals[against]:,}, {chosen} {report.macs:,}", "", "", "")
    return table


def layer_rows(report: MacsReport) -> Table:
    """Return one row per layer that does or adds anything."""
    unit = report.convention.unit
    table = _table(("layer", "operator", "reads", "writes", unit, "params"), text=4)
    idle = 0
    for row, billed in zip(report.rows, report.billed, strict=True):
        if not (billed or row.macs or row.params or row.columns):
            idle += 1
            continue
        reads = " ".join(_shape(shape, row.batch) for shape in row.operands)
        params = f"{row.params:,}" if row.params else ""
        table.add_row(
            printable(row.name), row.operator, reads, _shape(row.output, row.batch), f"{billed:,}", params
        )
    notes = []
    if idle:
        notes.append(f"{idle} nodes that only hold, move or pick elements are not shown (add --json for all)")
    if any(node.relaid for node in report.target.graph):
        notes.append("what works on maps is shown as height x width x channels, the rest in the source's own axes")
    table.caption = "\n".join(notes) or None
    return table


def verify_table(report: MacsReport) -> Table:
    """Return predicted beside reported for every tool."""
    table = _table(("tool", "predicted", "reported", ""), text=1, words=True)
    table.columns[2].justify = "right"
    for each in report.verified:
        reported = "" if each.reported is None else f"{each.reported:,}"
        verdict = each.reason or ("equal" if each.reported == each.predicted else "DIFFERENT")
        table.add_row(each.convention, f"{each.predicted:,}", reported, verdict)
    return table


def execution_table(report: MacsReport) -> Table:
    """Return what was executed beside what was counted, and whether they are equal."""
    table = _table(("run through our engine", "counted", "executed", ""), text=1)
    for each in report.executed:
        executed = "not run" if each.executed is None else f"{each.executed:,}"
        verdict = "" if each.executed is None else "equal" if each.agrees else "DIFFERENT"
        table.add_row(each.what, f"{each.counted:,}", executed, verdict)
    run = [each for each in report.executed if each.executed is not None]
    same = sum(each.agrees for each in run)
    table.caption = f"{same} of {len(run)} equal; {len(report.executed) - len(run)} not run"
    return table


def _table(headings: Iterable[str], *, text: int, words: bool = False) -> Table:
    """Return an empty table: the first `text` columns to the left, the others to the right.

    With `words` the columns after the first number are text. Text may take several lines, numbers not.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, caption_justify="left")
    for place, heading in enumerate(headings):
        left = place < text or (words and place > text + (1 if text else 0))
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    return table


def _shape(shape: tuple[int, ...], batch: int) -> str:
    sides = "x".join(map(str, shape))
    return sides if batch == 1 else f"{batch} * {sides}"


def _where(nodes: tuple[str, ...]) -> str:
    if len(nodes) < 3:
        return printable(", ".join(nodes))
    return f"{printable(nodes[0])} and {len(nodes) - 1} more"
