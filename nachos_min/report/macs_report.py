"""Everything that one count of a network has to say, gathered once for the table and for the JSON.

Read `targets.py` and `macs/explain.py` first; `macs_table.py` prints it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from nachos_min.eenn.architecture import Architecture
from nachos_min.errors import InputError
from nachos_min.macs.conventions import CONVENTIONS, Convention, Tally
from nachos_min.macs.count import (
    Count,
    ExitCosts,
    LayerRow,
    check_graph,
    count,
    exit_costs,
    layer_table,
    peak_activation_bytes,
)
from nachos_min.macs.explain import Difference, explain
from nachos_min.macs.ops import Conv2d, Graph, Linear, MatMul
from nachos_min.macs.record import name as operator_name
from nachos_min.targets import Target

# 1 GiB of float32 in one array is more than any layer that one would wait for.
_MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Verified:
    """One convention's count beside what the real tool reported for the same module."""

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
        macs: the total by those rules.
        exact: totals in our own convention.
        peak_bytes: largest number of bytes of float32 activations alive at once.
        exits: cost of leaving at each exit; None for a network without.
        rows: one per node, and `billed` what each adds in the convention.
        totals: every convention's total.
        branches: what runs on a condition.
        against: the convention that `differences` compare with; "" if none was asked for.
        differences: why the two totals differ.
        verified: predicted beside reported, one per tool.
        executed: executed beside counted.
    """

    target: Target
    convention: Convention
    macs: int
    exact: Count
    peak_bytes: int
    exits: ExitCosts | None
    rows: tuple[LayerRow, ...]
    billed: tuple[int, ...]
    totals: dict[str, int]
    branches: tuple[BranchCount, ...] = ()
    against: str = ""
    differences: tuple[Difference, ...] = ()
    verified: tuple[Verified, ...] = ()
    executed: tuple[Executed, ...] = ()

    def as_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """Return the report as plain values for JSON, integers exact.

        Args:
            layers: whether to list every node.

        Returns:
            Keys target, convention, unit, input, macs, params, columns, exits and more; parts that were not
            asked for are left out.
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
            "exits": [
                {"stage": stage, "backbone": backbone, "head": head, "cost": cost}
                for stage, backbone, head, cost in self.exit_rows()
            ],
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
                        self.against: each.left.words,
                        self.convention.name: each.right.words,
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
            found["layers"] = [_layer(row, billed) for row, billed in zip(self.rows, self.billed, strict=True)]
        return found

    def exit_rows(self) -> list[tuple[int, int, int, int]]:
        """Return (stage, backbone, head, cost) of every exit, the last one last."""
        if self.exits is None or self.target.architecture is None:
            return []
        stages = self.target.architecture.exit_stages
        return list(zip(stages, self.exits.backbone, self.exits.heads, self.exits.costs, strict=True))


def _layer(row: LayerRow, billed: int) -> dict[str, Any]:
    return {
        "name": row.name,
        "operator": row.operator,
        "exit": row.exit,
        "inputs": [list(shape) for shape in row.operands],
        "output": list(row.output),
        "batch": row.batch,
        "macs": billed,
        "exact_macs": row.macs,
        "valid_macs": row.valid_macs,
        "params": row.params,
        "columns": row.columns,
    }


def report_macs(
    target: Target,
    convention: Convention,
    against: Convention | None = None,
    *,
    verify: bool = False,
    execute: bool = False,
) -> MacsReport:
    """Return the count of `target` by a convention, and what else was asked for.

    Args:
        target: the network.
        convention: by whose rules it is counted.
        against: a convention whose difference is to be explained.
        verify: whether to run the real tools that are installed; `target` must be a PyTorch module.
        execute: whether to run one sample and count what is executed.

    Raises:
        InputError: if the graph is broken, or something asked for does not apply to the target.
    """
    graph = target.graph
    check_graph(graph)
    tallies = {name: each.tally(graph, checked=True) for name, each in CONVENTIONS.items()}
    tally = tallies[convention.name]
    billed = tally.amounts(len(graph))
    own = target.architecture is not None
    return MacsReport(
        target=target,
        convention=convention,
        macs=tally.total,
        exact=count(graph),
        peak_bytes=peak_activation_bytes(graph),
        exits=convention.exit_costs(graph) if own else None,
        rows=layer_table(graph),
        billed=tuple(billed),
        totals={name: each.total for name, each in tallies.items()},
        branches=tuple(
            BranchCount(branch.name, convention.tally(branch.graph).total, count(branch.graph).params)
            for branch in target.branches
        ),
        against="" if against is None else against.name,
        differences=() if against is None else explain(graph, against, convention),
        verified=_verify(target, tallies) if verify else (),
        executed=executions(target) if execute else (),
    )


def _verify(target: Target, tallies: dict[str, Tally]) -> tuple[Verified, ...]:
    from nachos_min.macs.conventions.peers import PEERS, reported

    if target.module is None:
        raise InputError(f"--verify needs a PyTorch module (torch:...), got {target.name!r}")
    found = []
    for name in PEERS:
        number, reason = reported(name, target.module, target.arguments)
        found.append(Verified(name, tallies[name].total, number, reason))
    return tuple(found)


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


def _exit_runs(architecture: Architecture, graph: Graph) -> Iterator[Run]:
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


def _layer_runs(graph: Graph) -> Iterator[Run]:
    from nachos_min.autograd import Tensor, conv2d, matmul

    def random(*shape: int) -> Tensor:
        return Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))

    for node in graph:
        counted, what, run = node.batch * node.op.macs, node.name, None
        match node.op:
            case op if not op.macs:
                continue
            case Conv2d() as op:
                weight = random(*op.kernel, op.input[2] // op.groups, op.out_channels)
                windows: Any = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
                image = random(node.batch, *op.input)
                run = partial(conv2d, image, weight, **windows, groups=op.groups)
            case Linear() as op:
                run = partial(matmul, random(node.batch, *op.input), random(op.input[-1], op.out_features))
            case MatMul() as op:
                run = partial(matmul, random(*op.left), random(*op.right))
            case op:
                what = f"{what} ({operator_name(op)}: this engine has none)"
        yield what, counted, run
