"""What `macs` prints: everything that one count of a network has to say, as JSON or as tables.

In a pipe every row is one line; in a narrow terminal words and shapes take several lines. Of many thousand rows the
first are shown. JSON has everything.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nachos_min.eenn.architecture import Architecture
from nachos_min.errors import InputError
from nachos_min.macs import ops
from nachos_min.macs.conventions import CONVENTIONS, Convention, Difference
from nachos_min.macs.count import count, exit_costs, peak_activation_bytes
from nachos_min.macs.record import name
from nachos_min.macs.result import Count, Explanation, does_work, shown_shape
from nachos_min.report.console import output, table
from nachos_min.targets import Target

_MOST_ELEMENTS = 1 << 27  # of an array that is executed: 512 MiB of float32
_MOST_MACS = 10**12  # executed in all: some minutes
_MOST_ROWS = 5_000  # of a table, whose layout takes Rich a second or two
NARROWEST = 79  # columns; a narrower terminal wraps


Rows = tuple[dict[str, Any], ...]  # each a JSON object


@dataclass(frozen=True)
class MacsReport:
    """One network, counted."""

    target: Target
    count: Count
    peak_bytes: int  # of float32 activations alive at once, outside the branches
    totals: dict[str, Count]  # by every convention
    branches: Rows  # what runs on a condition: name, macs in the convention, params
    explanation: Explanation | None
    verified: Rows  # convention, predicted, reported (None: for a reason), reason, cause of a difference, version
    executed: Rows  # as `executions` returns them

    @property
    def different(self) -> bool:
        """Whether a tool reports, or our engine executes, something else than predicted, and no cause is stated."""
        tools = (row["reported"] not in (None, row["predicted"]) and not row["cause"] for row in self.verified)
        return any(tools) or any(row["executed"] not in (None, row["counted"]) for row in self.executed)

    def as_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """Return the report for JSON, integers exact, with every node if `layers`; what is empty is left out.

        A total that depends on the data has a least and a most.
        """
        counted = self.count
        tool = CONVENTIONS[counted.convention].tool
        found: dict[str, Any] = {"target": self.target.name, "convention": counted.convention, "unit": counted.unit}
        found |= {"tool": tool, "input": list(self.target.input), "macs": _one(counted), "params": counted.params}
        found |= {"valid_macs": _one(self.totals["exact-valid"]), "peak_activation_bytes": self.peak_bytes}
        found |= {"columns": counted.columns, "exits": [each._asdict() for each in counted.exits]}
        found["totals"] = {
            name: _one(each) if isinstance(each, int) else {"least": each.least, "most": each.most}
            for name, each in self.totals.items()
        }
        further: dict[str, Any] = {"inputs": {name: list(shape) for name, shape in self.target.inputs.items()}}
        if self.branches:
            further |= {"branches": list(self.branches), "least": counted.least, "most": counted.most}
        if why := self.explanation:
            terms = [_reason(each, *why.conventions) for each in why]
            further["explain"] = {"convention": why.conventions[0], "difference": why.difference, "terms": terms}
        further |= {"verify": list(self.verified), "execute": list(self.executed)}
        found |= {name: each for name, each in further.items() if each not in ({}, [])}
        return found | {"layers": [_layer(*each) for each in counted.nodes]} if layers else found


def _reason(why: Difference, theirs: str, ours: str) -> dict[str, Any]:
    sides = {theirs: why.left, ours: why.right}
    return {"amount": why.amount, "subject": why.subject, **sides, "nodes": list(why.nodes)}


def _layer(node: ops.Node, billed: int) -> dict[str, Any]:
    reads, writes = [list(shape) for shape in node.op.operands], list(node.op.output)
    found: dict[str, Any] = {"name": node.name, "operator": name(node.op), "exit": node.exit}
    found |= {"inputs": reads, "output": writes}
    found |= {"batch": node.batch, "macs": billed, "exact_macs": node.macs, "valid_macs": node.valid_macs}
    return found | {"params": node.params, "columns": node.columns}


def _one(counted: Count) -> int | None:
    """Return the total; None if it depends on the data."""
    return counted.least if isinstance(counted, int) else None


def report_macs(
    target: Target, convention: Convention, against: Convention | None, *, verify: bool, execute: bool
) -> MacsReport:
    """Return the count of `target` by a convention, and what else was requested, as the options of `macs`."""
    counted = target.count(convention.name)
    totals = {each: counted.as_convention(each) for each in CONVENTIONS}
    return MacsReport(
        target=target,
        count=counted,
        peak_bytes=peak_activation_bytes(target.graph),
        totals=totals,
        branches=tuple(
            {"name": each.name, "macs": convention.total(each.graph), "params": count(each.graph).params}
            for each in target.branches
        ),
        explanation=None if against is None else counted.explain(against.name),
        verified=_verify(target, totals) if verify else (),
        executed=executions(target) if execute else (),
    )


def _verify(target: Target, totals: dict[str, Count]) -> Rows:
    """Return each convention's count beside what the real tool reports for the same module."""
    if target.module is None:
        raise InputError(f"--verify needs a PyTorch module (torch:...), got {target.name!r}")
    from nachos_min.macs.conventions.exceptions import cause_of
    from nachos_min.macs.conventions.peers import PEERS, reported

    call, rows = (target.module, target.arguments, target.options), []
    for tool in PEERS:
        predicted, (found, reason) = totals[tool].total, reported(tool, *call)
        row = {"convention": tool, "predicted": predicted, "reported": found, "reason": reason}
        row["cause"] = "" if found in (None, predicted) else cause_of(tool, target.graph, found, *call)
        rows.append(row | {"version": CONVENTIONS[tool].version_note})
    return tuple(rows)


Run = tuple[str, int, Callable[[], object] | None]  # what is run, the MACs counted for it, a call that does it


def executions(target: Target) -> Rows:
    """Return what running one sample of `target` multiplies: what is run, MACs counted, MACs executed.

    One of our own networks runs once for each exit, leaving there. A network read from elsewhere has no weights
    here: each of its layers that multiply runs by itself, on random numbers of its shapes. None is executed of an
    operator that this engine lacks. InputError if an array, or a layer's weights, would have more than 2**27
    elements, or there are more than 10^12 MACs.
    """
    from nachos_min.autograd import count_macs, no_grad  # loads the kernels, which counting needs not

    shapes = [shape for node in target.graph for shape in (*node.op.operands, node.op.output)]
    elements = max((*map(prod, shapes), *(node.op.params for node in target.graph)), default=0)
    if elements > _MOST_ELEMENTS:
        raise InputError(f"an array to be executed must have at most {_MOST_ELEMENTS} elements, got {elements}")
    if (macs := sum(node.macs for node in target.graph)) > _MOST_MACS:
        raise InputError(f"a network to be executed must have at most {_MOST_MACS} MACs, got {macs}")
    own = target.architecture
    found = []
    for what, counted, run in _layer_runs(target.graph) if own is None else _exit_runs(own, target.graph):
        with no_grad(), count_macs() as counter:
            if run is not None:
                run()
        found.append({"what": what, "counted": counted, "executed": None if run is None else counter.total})
    return tuple(found)


def _exit_runs(architecture: Architecture, graph: ops.Graph) -> Iterator[Run]:
    from nachos_min.eenn.inference import predict
    from nachos_min.eenn.network import EarlyExitNetwork

    rng = np.random.default_rng(0)
    network = EarlyExitNetwork(architecture, rng, rng)
    image = rng.standard_normal((1, *architecture.input_shape), np.float32)
    costs = exit_costs(graph).costs
    for leaving, (stage, cost) in enumerate(zip(architecture.exit_stages, costs, strict=True)):
        # No confidence reaches 2 and every one reaches 0: the sample leaves at exit `leaving`.
        thresholds = tuple(2.0 if place < leaving else 0.0 for place in range(len(costs)))
        yield f"a sample that leaves after stage {stage}", cost, partial(predict, network, image, thresholds)


def _layer_runs(graph: ops.Graph) -> Iterator[Run]:
    from nachos_min.autograd import Tensor, conv2d, matmul

    def random(*shape: int) -> Tensor:
        return Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))

    for node in graph:
        counted, what, run = node.macs, node.name, None
        match node.op:
            case op if not op.macs:
                continue
            case ops.Conv() as op if op.spatial < 3:
                flat = (1,) * (2 - op.spatial)  # a sequence is a map of height 1
                weight = random(*flat, *op.kernel, op.input[-1] // op.groups, op.out_channels)
                windows: Any = {"stride": (*flat, *op.stride), "dilation": (*flat, *op.dilation)}
                windows["padding"] = (*(0, 0) * len(flat), *op.padding)
                image = random(node.batch, *flat, *op.input)
                run = partial(conv2d, image, weight, **windows, groups=op.groups)
            case ops.Linear() as op:
                run = partial(matmul, random(node.batch, *op.input), random(op.input[-1], op.out_features))
            case ops.MatMul() as op:
                run = partial(matmul, random(*op.left), random(*op.right))
            case op:
                what = f"{what} ({name(op)}: this engine has none)"
        yield what, counted, run


def show_macs(report: MacsReport, *, layers: bool) -> None:
    """Print a report as tables, with every layer if `layers`."""
    parts: list[Group | Table] = [_layers(report)] if layers else []
    parts.append(_headline(report))
    if exits := report.count.exits:
        parts.append(table(("leave after stage", "backbone", "head", "cost in all"), "rrrr", exits))
    if report.branches:
        counts = (row.values() for row in report.branches[:_MOST_ROWS])
        parts.append(table(("only on a condition", report.count.unit, "parameters"), "lrr", counts))
    if report.verified:
        parts.append(table(("tool", "predicted", "reported", ""), "lrrl", map(_verified, report.verified)))
    if why := report.explanation:
        headings, *rows = why.rows()
        parts.append(table(headings, "rllll", rows))
    if not (report.verified or report.explanation or report.executed):
        parts.append(_totals(report))
    if report.executed:
        parts.append(_executed(report))
    console = output(sys.stdout, NARROWEST)
    console.print(parts[0])
    for part in parts[1:]:
        console.print("", part, sep="\n")


def _verdict(expected: int, found: int) -> str:
    return "equal" if found == expected else "DIFFERENT"


def _verified(row: dict[str, Any]) -> tuple[object, ...]:
    """Return a tool's row: its name, what was predicted and reported, and what to say about it."""
    tool, predicted, found, reason, cause, version = row.values()
    words = reason or (f"differs: {cause}" if cause else _verdict(predicted, found))
    return tool, predicted, "" if found is None else found, "; ".join(filter(None, (words, version)))


def _headline(report: MacsReport) -> Group:
    """Return the lines that say what was counted, and how much it is."""
    counted = report.count
    lines = [counted.what]
    ways = ", with one branch of each condition" if report.branches else ""
    lines.append(f"{counted:,} {counted.unit} ({counted.convention}){ways}; {counted.params:,} parameters")
    valid = report.totals["exact-valid"]
    if counted.convention == "exact" and (valid.least, valid.most) != (counted.least, counted.most):
        lines.append(f"{valid:,} of them without products with padded zeros")
    work = [f"{column} {amount:,}" for column, amount in counted.columns.items() if amount]
    lines.append("beside exact MACs: " + (", ".join(work) or "nothing"))
    lines.append(f"activations held at one time: at most {report.peak_bytes:,} bytes in float32")
    if report.branches:
        lines.append("parameters, what stands beside and what is explained are of the dearest way;")
        lines.append("activations, outside the branches")
    return Group(*lines)


def _totals(report: MacsReport) -> Table:
    """Return the total of every convention and its difference from the chosen one."""
    rows = []
    for each, total in report.totals.items():
        unit = "" if total.unit == "MACs" else f" {total.unit}"
        sure = isinstance(total, int) and isinstance(report.count, int)
        more = f"{total.least - report.count.least:+,}" if sure else ""
        rows.append((each, f"{total:,}{unit}", more, CONVENTIONS[each].about))
    return table(("convention", "total", f"minus {report.count.convention}", "what it adds up"), "lrrl", rows)


def _layers(report: MacsReport) -> Table:
    """Return the tree of modules with their sums, and every layer in it that does or adds anything."""
    counted, rows = report.count, list[tuple[object, ...]]()
    for level, called, part in counted.tree().lines():
        node, words = part.node, ("", "", "")
        if node is not None:
            times = "" if node.batch == 1 else f"{node.batch} * "
            *reads, writes = (times + shown_shape(each) for each in (*node.op.operands, node.op.output))
            words = name(node.op), " ".join(reads), writes
        numbers = part.amount, counted.share(part.amount), part.params or ""
        rows.append(("  " * level + called, *words, *numbers))
    headings = ("layer", "operator", "reads", "writes", counted.unit, "share", "params")
    made = table(headings, "llllrrr", rows[:_MOST_ROWS])
    notes = []
    if len(rows) > _MOST_ROWS:
        notes.append(f"{len(rows) - _MOST_ROWS} more lines are not shown (add --json for all layers)")
    if idle := sum(not does_work(*each) for each in counted.nodes):
        notes.append(f"{idle} nodes that only hold, move or pick elements are not shown (add --json for all)")
    if any(node.relaid for node, _ in counted.nodes):
        notes.append("maps and signals are shown with channels last, the rest in the source's own axes")
    if report.branches:
        notes.append("of each condition the dearest branch is shown")
    made.caption = Text("\n".join(notes)) if notes else None
    return made


def _executed(report: MacsReport) -> Table:
    """Return what was executed beside what was counted, and whether they are equal."""
    rows: list[tuple[object, ...]] = []
    for what, counted, executed in map(dict.values, report.executed):
        found = ("not run", "") if executed is None else (executed, _verdict(counted, executed))
        rows.append((what, counted, *found))
    made = table(("run through our engine", "counted", "executed", ""), "lrrr", rows[:_MOST_ROWS])
    verdicts = [row[-1] for row in rows]
    missing = verdicts.count("")
    made.caption = f"{verdicts.count('equal')} of {len(rows) - missing} equal; {missing} not run"
    return made
