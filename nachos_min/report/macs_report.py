"""What `macs` prints: everything that one count of a network has to say, as JSON or as tables.

In a pipe every row is one line; in a narrow terminal words and shapes take several lines. Neither cuts anything.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal, TextIO

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from nachos_min.eenn.architecture import Architecture
from nachos_min.errors import InputError, printable
from nachos_min.macs import ops
from nachos_min.macs.conventions import CONVENTIONS, Convention, Difference, amounts, explain
from nachos_min.macs.count import Count, ExitCosts, check_graph, count, exit_costs, peak_activation_bytes
from nachos_min.macs.record import name
from nachos_min.report.console import output
from nachos_min.targets import Target

# 1 GiB of float32 in one array is more than any layer that one would wait for.
_MOST_ELEMENTS = 1 << 28

NARROWEST = 79  # columns; a narrower terminal wraps


@dataclass(frozen=True)
class Verified:
    """One convention's count beside what the real tool reported for the same module, or why it reported nothing."""

    convention: str
    predicted: int
    reported: int | None
    reason: str


@dataclass(frozen=True)
class Executed:
    """What this project's engine multiplied beside what was counted from shapes.

    Attributes:
        what: an exit, or a layer's name.
        counted: MACs counted from shapes.
        executed: MACs that the engine's calls added up; None if it has no such operator.
    """

    what: str
    counted: int
    executed: int | None

    @property
    def agrees(self) -> bool:
        """Whether what was executed is what was counted."""
        return self.executed == self.counted


@dataclass(frozen=True)
class BranchCount:
    """What runs only on a condition: MACs in the convention, and parameters."""

    name: str
    macs: int
    params: int


@dataclass(frozen=True)
class MacsReport:
    """One network, counted.

    Attributes:
        target: what was counted.
        convention: by whose rules.
        exact: totals in our own convention.
        peak_bytes: largest number of bytes of float32 activations alive at once.
        exits: (stage, backbone, head, cost) of every exit, the last one last; none for a network without.
        billed: what each node adds in the convention.
        totals: every convention's total.
        branches: what runs on a condition.
        against: the convention that `differences` compare with; "" for none.
        differences: why the two totals differ.
        verified: predicted beside reported, one per tool.
        executed: executed beside counted.
    """

    target: Target
    convention: Convention
    exact: Count
    peak_bytes: int
    exits: tuple[tuple[int, int, int, int], ...]
    billed: tuple[int, ...]
    totals: dict[str, int]
    branches: tuple[BranchCount, ...] = ()
    against: str = ""
    differences: tuple[Difference, ...] = ()
    verified: tuple[Verified, ...] = ()
    executed: tuple[Executed, ...] = ()

    @property
    def macs(self) -> int:
        """The total by the convention."""
        return self.totals[self.convention.name]

    def as_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """Return the report as plain values for JSON, integers exact; what was not requested is left out.

        Args:
            layers: whether to list every node.
        """
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
            "exits": [dict(zip(("stage", "backbone", "head", "cost"), row, strict=True)) for row in self.exits],
            "totals": self.totals,
        }
        if self.branches:
            found["branches"] = [vars(branch) for branch in self.branches]
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
            found["verify"] = [vars(each) for each in self.verified]
        if self.executed:
            found["execute"] = [vars(each) for each in self.executed]
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
    target: Target,
    convention: Convention,
    against: Convention | None = None,
    *,
    verify: bool = False,
    execute: bool = False,
) -> MacsReport:
    """Return the count of `target` by a convention, and what else was requested.

    Args:
        target: the network.
        convention: by whose rules it is counted.
        against: a convention whose difference is to be explained.
        verify: whether to run the real tools that are installed; `target` must be a PyTorch module.
        execute: whether to run one sample and count what is executed.

    Raises:
        InputError: if the graph is broken, or something requested does not apply to the target.
    """
    graph, architecture = target.graph, target.architecture
    check_graph(graph)
    terms = {each.name: each.terms(graph) for each in CONVENTIONS.values()}
    totals = {tool: sum(term.amount for term in each) for tool, each in terms.items()}
    return MacsReport(
        target=target,
        convention=convention,
        exact=count(graph),
        peak_bytes=peak_activation_bytes(graph),
        exits=() if architecture is None else _exits(convention.exit_costs(graph), architecture.exit_stages),
        billed=tuple(amounts(terms[convention.name], len(graph))),
        totals=totals,
        branches=tuple(
            BranchCount(name=branch.name, params=count(branch.graph).params, macs=convention.total(branch.graph))
            for branch in target.branches
        ),
        against="" if against is None else against.name,
        differences=() if against is None else explain(graph, terms[against.name], terms[convention.name]),
        verified=_verify(target, totals) if verify else (),
        executed=executions(target) if execute else (),
    )


def _exits(costs: ExitCosts, stages: tuple[int, ...]) -> tuple[tuple[int, int, int, int], ...]:
    return tuple(zip(stages, costs.backbone, costs.heads, costs.costs, strict=True))


def _verify(target: Target, totals: dict[str, int]) -> tuple[Verified, ...]:
    from nachos_min.macs.conventions.peers import PEERS, reported

    if target.module is None:
        raise InputError(f"--verify needs a PyTorch module (torch:...), got {target.name!r}")
    return tuple(Verified(tool, totals[tool], *reported(tool, target.module, target.arguments)) for tool in PEERS)


Run = tuple[str, int, Callable[[], object] | None]  # what is run, the MACs counted for it, a call that does it


def executions(target: Target) -> tuple[Executed, ...]:
    """Return what running one sample of `target` multiplies, beside what was counted.

    One of our own networks runs once for each exit, leaving there. A network read from elsewhere has no weights
    here: each of its layers that multiply runs by itself, on random numbers of its shapes.

    Raises:
        InputError: if an array would have more than 2**28 elements.
    """
    from nachos_min.autograd import count_macs, no_grad  # loads the kernels, which counting needs not

    shapes = [shape for node in target.graph for shape in (*node.op.operands, node.op.output)]
    elements = max(map(prod, shapes), default=0)
    if elements > _MOST_ELEMENTS:
        raise InputError(f"an array to be executed must have at most {_MOST_ELEMENTS} elements, got {elements}")
    own = target.architecture
    found = []
    for what, counted, run in _layer_runs(target.graph) if own is None else _exit_runs(own, target.graph):
        with no_grad(), count_macs() as counter:
            if run is not None:
                run()
        found.append(Executed(what, counted, None if run is None else counter.total))
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
            case ops.Conv2d() as op:
                weight = random(*op.kernel, op.input[2] // op.groups, op.out_channels)
                windows: Any = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
                image = random(node.batch, *op.input)
                run = partial(conv2d, image, weight, **windows, groups=op.groups)
            case ops.Linear() as op:
                run = partial(matmul, random(node.batch, *op.input), random(op.input[-1], op.out_features))
            case ops.MatMul() as op:
                run = partial(matmul, random(*op.left), random(*op.right))
            case op:
                what = f"{what} ({name(op)}: this engine has none)"
        yield what, counted, run


def show_macs(report: MacsReport, *, layers: bool = False, stream: TextIO | None = None) -> None:
    """Print a report of a count as tables.

    Args:
        report: what was counted.
        layers: whether to list every layer.
        stream: where to; standard output unless given.
    """
    unit = report.convention.unit
    parts: list[str | Table] = [_layers(report)] if layers else []
    parts.append(_headline(report))
    if report.exits:
        parts.append(_table(("leave after stage", "backbone", "head", "cost in all"), "rrrr", report.exits))
    if report.branches:
        rows = [(branch.name, branch.macs, branch.params) for branch in report.branches]
        parts.append(_table(("only on a condition", unit, "parameters"), "lrr", rows))
    if report.verified:
        parts.append(_verified(report))
    if report.against:
        parts.append(_differences(report))
    if not (report.verified or report.against or report.executed):
        parts.append(_totals(report))
    if report.executed:
        parts.append(_executed(report))
    console = output(stream or sys.stdout, NARROWEST)
    console.print(parts[0])
    for part in parts[1:]:
        console.print("", part, sep="\n")


def _headline(report: MacsReport) -> str:
    """The lines that say what was counted, and how much it is."""
    exact, shape = report.exact, "x".join(map(str, report.target.input))
    lines = [f"{printable(report.target.name)}, input {shape}"]
    total = f"{report.macs:,} {report.convention.unit} ({report.convention.name})"
    lines.append(f"{total}; {exact.params:,} parameters")
    if report.convention.name == "exact" and exact.valid_macs != exact.macs:
        lines.append(f"{exact.valid_macs:,} of them without products with padded zeros")
    work = [f"{column} {amount:,}" for column, amount in exact.columns.items() if amount]
    lines.append("beside exact MACs: " + (", ".join(work) or "nothing"))
    lines.append(f"activations held at one time: at most {report.peak_bytes:,} bytes in float32")
    return "\n".join(lines)


def _totals(report: MacsReport) -> Table:
    """The total of every convention and its distance from the chosen one."""
    rows = []
    for each in CONVENTIONS.values():
        total, unit = report.totals[each.name], "" if each.unit == "MACs" else f" {each.unit}"
        rows.append((each.name, f"{total:,}{unit}", f"{total - report.macs:+,}", each.about))
    return _table(("convention", "total", f"minus {report.convention.name}", "what it adds up"), "lrrl", rows)


def _differences(report: MacsReport) -> Table:
    """Why two totals differ, term by term, the largest first, with their sum."""
    chosen, against = report.convention.name, report.against
    rows = []
    for each in report.differences:
        others = len(each.nodes) - 1
        where = ", ".join(each.nodes) if others < 2 else f"{each.nodes[0]} and {others} more"
        rows.append((f"{each.amount:+,}", each.subject, each.left, each.right, printable(where)))
    headings = (f"{against} - {chosen}", "of what", against, chosen, "where")
    table = _table(headings, "rllll", rows or [("", "no term differs", "", "", "")])
    totals = f"{against} {report.totals[against]:,}, {chosen} {report.macs:,}"
    table.add_section()
    table.add_row(f"{report.totals[against] - report.macs:+,}", totals, "", "", "")
    return table


def _layers(report: MacsReport) -> Table:
    """One row per layer that does or adds anything."""
    rows = []
    for node, billed in zip(report.target.graph, report.billed, strict=True):
        if billed or node.macs or node.params or node.columns:
            times = "" if node.batch == 1 else f"{node.batch} * "
            *reads, writes = (times + "x".join(map(str, each)) for each in (*node.op.operands, node.op.output))
            rows.append((printable(node.name), name(node.op), " ".join(reads), writes, billed, node.params or ""))
    headings = ("layer", "operator", "reads", "writes", report.convention.unit, "params")
    table = _table(headings, "llllrr", rows)
    notes = []
    if idle := len(report.target.graph) - len(rows):
        notes.append(f"{idle} nodes that only hold, move or pick elements are not shown (add --json for all)")
    if any(node.relaid for node in report.target.graph):
        notes.append("what works on maps is shown as height x width x channels, the rest in the source's own axes")
    table.caption = "\n".join(notes) or None
    return table


def _verified(report: MacsReport) -> Table:
    """Predicted beside reported for every tool."""
    rows = []
    for each in report.verified:
        verdict = each.reason or ("equal" if each.reported == each.predicted else "DIFFERENT")
        rows.append((each.convention, each.predicted, "" if each.reported is None else each.reported, verdict))
    return _table(("tool", "predicted", "reported", ""), "lrrl", rows)


def _executed(report: MacsReport) -> Table:
    """What was executed beside what was counted, and whether they are equal."""
    rows: list[tuple[object, ...]] = []
    for each in report.executed:
        if each.executed is None:
            rows.append((each.what, each.counted, "not run", ""))
        else:
            rows.append((each.what, each.counted, each.executed, "equal" if each.agrees else "DIFFERENT"))
    table = _table(("run through our engine", "counted", "executed", ""), "lrrr", rows)
    same = sum(each.agrees for each in report.executed)
    missing = sum(each.executed is None for each in report.executed)
    table.caption = f"{same} of {len(rows) - missing} equal; {missing} not run"
    return table


def _table(headings: Iterable[str], sides: str, rows: Iterable[Iterable[object]]) -> Table:
    """Return a table with columns to the left ("l") or right ("r"). Text on the left may take several lines."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, caption_justify="left")
    for heading, side in zip(headings, sides, strict=True):
        justify: Literal["left", "right"] = "left" if side == "l" else "right"
        table.add_column(heading, justify=justify, no_wrap=side == "r", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table
