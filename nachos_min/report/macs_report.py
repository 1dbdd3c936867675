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
from nachos_min.macs.conventions import CONVENTIONS, Convention, Difference, amounts, explain
from nachos_min.macs.count import ExitCosts, Totals, check_graph, count, exit_costs, peak_activation_bytes
from nachos_min.macs.record import name
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
    convention: Convention
    exact: Totals
    peak_bytes: int  # of float32 activations alive at once
    exits: Rows  # stage, backbone, head, cost
    billed: tuple[int, ...]  # what each node adds in the convention
    totals: dict[str, int]  # by every convention
    branches: Rows  # what runs on a condition: name, macs in the convention, params
    span: tuple[int, int]  # in the convention, on the cheapest and on the dearest way through the branches
    against: str  # the convention that `differences` compare with; "" for none
    differences: tuple[Difference, ...]
    verified: Rows  # convention, predicted, reported (None: for a reason), reason
    executed: Rows  # as `executions` returns them

    @property
    def macs(self) -> int:
        """The total by the convention."""
        return self.totals[self.convention.name]

    def as_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """Return the report for JSON, integers exact, with every node if `layers`; what is empty is left out."""
        found: dict[str, Any] = {
            "target": self.target.name,
            "convention": self.convention.name,
            "unit": self.convention.unit,
            "tool": self.convention.tool,
            "input": list(self.target.input),
            "macs": self.macs,
            "params": self.exact.params,
            "valid_macs": self.exact.valid_macs,
            "peak_activation_bytes": self.peak_bytes,
            "columns": self.exact.columns,
            "exits": list(self.exits),
            "totals": self.totals,
        }
        if self.branches:
            found["branches"] = list(self.branches)
            found |= dict(zip(("least", "most"), self.span, strict=True))
        if self.against:
            found["explain"] = {
                "convention": self.against,
                "difference": self.totals[self.against] - self.macs,
                "terms": [
                    {
                        "amount": each.amount,
                        "subject": each.subject,
                        self.against: each.left,
                        self.convention.name: each.right,
                        "nodes": list(each.nodes),
                    }
                    for each in self.differences
                ],
            }
        if self.verified:
            found["verify"] = list(self.verified)
        if self.executed:
            found["execute"] = list(self.executed)
        if layers:
            found["layers"] = [
                {
                    "name": node.name,
                    "operator": name(node.op),
                    "exit": node.exit,
                    "inputs": [list(shape) for shape in node.op.operands],
                    "output": list(node.op.output),
                    "batch": node.batch,
                    "macs": billed,
                    "exact_macs": node.macs,
                    "valid_macs": node.valid_macs,
                    "params": node.params,
                    "columns": node.columns,
                }
                for node, billed in zip(self.target.graph, self.billed, strict=True)
            ]
        return found


def report_macs(
    target: Target, convention: Convention, against: Convention | None, *, verify: bool, execute: bool
) -> MacsReport:
    """Return the count of `target` by a convention, and what else was requested, as the options of `macs`."""
    graph, architecture = target.graph, target.architecture
    check_graph(graph)
    terms = {each.name: each.terms(graph) for each in CONVENTIONS.values()}
    totals = {tool: sum(term.amount for term in each) for tool, each in terms.items()}
    return MacsReport(
        target=target,
        convention=convention,
        exact=count(graph),
        peak_bytes=peak_activation_bytes(graph),
        exits=() if architecture is None else _exits(architecture.exit_stages, convention.exit_costs(graph)),
        billed=tuple(amounts(terms[convention.name], len(graph))),
        totals=totals,
        branches=tuple(
            {"name": each.name, "macs": convention.total(each.graph), "params": count(each.graph).params}
            for each in target.branches
        ),
        span=target.span(convention.total),
        against="" if against is None else against.name,
        differences=() if against is None else explain(graph, terms[against.name], terms[convention.name]),
        verified=_verify(target, totals) if verify else (),
        executed=executions(target) if execute else (),
    )


def _exits(stages: tuple[int, ...], costs: ExitCosts) -> Rows:
    rows = zip(stages, costs.backbone, costs.heads, costs.costs, strict=True)
    return tuple(dict(zip(("stage", "backbone", "head", "cost"), row, strict=True)) for row in rows)


def _verify(target: Target, totals: dict[str, int]) -> Rows:
    """Return each convention's count beside what the real tool reports for the same module."""
    from nachos_min.macs.conventions.peers import PEERS, reported

    if target.module is None:
        raise InputError(f"--verify needs a PyTorch module (torch:...), got {target.name!r}")
    rows = []
    for tool in PEERS:
        found, reason = reported(tool, target.module, target.arguments)
        rows.append({"convention": tool, "predicted": totals[tool], "reported": found, "reason": reason})
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
    if report.exits:
        costs = (row.values() for row in report.exits)
        parts.append(table(("leave after stage", "backbone", "head", "cost in all"), "rrrr", costs))
    if report.branches:
        counts = (row.values() for row in report.branches[:_MOST_ROWS])
        parts.append(table(("only on a condition", report.convention.unit, "parameters"), "lrr", counts))
    if report.verified:
        rows = [
            (tool, predicted, "" if found is None else found, reason or _verdict(predicted, found))
            for tool, predicted, found, reason in map(dict.values, report.verified)
        ]
        parts.append(table(("tool", "predicted", "reported", ""), "lrrl", rows))
    if report.against:
        parts.append(_differences(report))
    if not (report.verified or report.against or report.executed):
        parts.append(_totals(report))
    if report.executed:
        parts.append(_executed(report))
    console = output(sys.stdout, NARROWEST)
    console.print(parts[0])
    for part in parts[1:]:
        console.print("", part, sep="\n")


def _verdict(expected: int, found: int) -> str:
    return "equal" if found == expected else "DIFFERENT"


def _headline(report: MacsReport) -> Group:
    """Return the lines that say what was counted, and how much it is."""
    exact, shape = report.exact, "x".join(map(str, report.target.input))
    lines = [f"{report.target.name}, input {shape}"]
    total = f"{report.macs:,} {report.convention.unit} ({report.convention.name})"
    lines.append(f"{total}; {exact.params:,} parameters")
    if report.branches:
        lines.append("{:,} to {:,} with one branch of each condition".format(*report.span))
    if report.convention.name == "exact" and exact.valid_macs != exact.macs:
        lines.append(f"{exact.valid_macs:,} of them without products with padded zeros")
    work = [f"{column} {amount:,}" for column, amount in exact.columns.items() if amount]
    lines.append("beside exact MACs: " + (", ".join(work) or "nothing"))
    lines.append(f"activations held at one time: at most {report.peak_bytes:,} bytes in float32")
    return Group(*lines)


def _totals(report: MacsReport) -> Table:
    """Return the total of every convention and its difference from the chosen one."""
    rows = []
    for each in CONVENTIONS.values():
        total, unit = report.totals[each.name], "" if each.unit == "MACs" else f" {each.unit}"
        rows.append((each.name, f"{total:,}{unit}", f"{total - report.macs:+,}", each.about))
    return table(("convention", "total", f"minus {report.convention.name}", "what it adds up"), "lrrl", rows)


def _differences(report: MacsReport) -> Table:
    """Return why two totals differ, term by term, the largest first, with their sum."""
    chosen, against = report.convention.name, report.against
    rows = []
    for each in report.differences:
        others = len(each.nodes) - 1
        where = ", ".join(each.nodes) if others < 2 else f"{each.nodes[0]} and {others} more"
        rows.append((f"{each.amount:+,}", each.subject, each.left, each.right, where))
    headings = (f"{against} - {chosen}", "of what", against, chosen, "where")
    made = table(headings, "rllll", rows or [("", "no term differs", "", "", "")])
    totals = f"{against} {report.totals[against]:,}, {chosen} {report.macs:,}"
    made.add_section()
    made.add_row(f"{report.totals[against] - report.macs:+,}", totals, "", "", "")
    return made


def _layers(report: MacsReport) -> Table:
    """Return one row per layer that does or adds anything."""
    rows = []
    for node, billed in zip(report.target.graph, report.billed, strict=True):
        if billed or node.macs or node.params or node.columns:
            times = "" if node.batch == 1 else f"{node.batch} * "
            *reads, writes = (times + "x".join(map(str, each)) for each in (*node.op.operands, node.op.output))
            rows.append((node.name, name(node.op), " ".join(reads), writes, billed, node.params or ""))
    headings = ("layer", "operator", "reads", "writes", report.convention.unit, "params")
    made = table(headings, "llllrr", rows[:_MOST_ROWS])
    notes = []
    if len(rows) > _MOST_ROWS:
        notes.append(f"{len(rows) - _MOST_ROWS} more layers are not shown (add --json for all)")
    if idle := len(report.target.graph) - len(rows):
        notes.append(f"{idle} nodes that only hold, move or pick elements are not shown (add --json for all)")
    if any(node.relaid for node in report.target.graph):
        notes.append("what works on maps is shown as height x width x channels, the rest in the source's own axes")
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
