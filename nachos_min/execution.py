"""Run one sample through this project's own engine with counting on: executed must equal counted.

Read `targets.py` first. One of our own networks is built and run, once for each exit, leaving there. A network
read from elsewhere has no weights here: each of its layers is run by itself on random numbers of its shapes. An
operator that this engine does not have is listed as not executed, with the MACs that are therefore not checked.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor, conv2d, count_macs, matmul, no_grad
from nachos_min.eenn.architecture import Architecture
from nachos_min.eenn.inference import predict
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.errors import InputError
from nachos_min.macs.count import exit_costs
from nachos_min.macs.ops import Conv2d, Graph, Linear, MatMul, Node
from nachos_min.macs.record import name
from nachos_min.targets import Target

# 1 GiB of float32 in one array is more than any layer that one would wait for.
_MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Executed:
    """One thing that was run.

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


def execute(target: Target) -> tuple[Executed, ...]:
    """Return what running one sample of `target` really multiplied, beside what was counted.

    Args:
        target: a network.

    Returns:
        One entry per exit for one of our own networks, else one per layer that multiplies and accumulates.

    Raises:
        InputError: if an array would have more than 2**28 elements.
    """
    elements = max(
        (prod(shape) for node in target.graph for shape in (*node.op.operands, node.op.output)), default=0
    )
    if elements > _MOST_ELEMENTS:
        raise InputError(f"an array to be executed must have at most {_MOST_ELEMENTS} elements, got {elements}")
    if target.architecture is not None:
        return _run_network(target.architecture, target.graph)
    return tuple(_run_layer(node) for node in target.graph if node.op.macs)


def _run_network(architecture: Architecture, graph: Graph) -> tuple[Executed, ...]:
    rng = np.random.default_rng(0)
    network = EarlyExitNetwork(architecture, rng, rng)
    image = rng.standard_normal((1, *architecture.input_shape), np.float32)
    found = []
    costs = exit_costs(graph).costs
    for leaving, cost in enumerate(costs):
        # No confidence reaches 2 and every one reaches 0: the sample leaves at exit `leaving`.
        thresholds = tuple(2.0 if place < leaving else 0.0 for place in range(len(costs)))
        with count_macs() as counter:
            predict(network, image, thresholds)
        stage = architecture.exit_stages[leaving]
        found.append(Executed(f"a sample that leaves after stage {stage}", cost, counter.total))
    return tuple(found)


def _run_layer(node: Node) -> Executed:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Tensor:
        return Tensor(rng.standard_normal(shape, np.float32))

    counted = node.batch * node.op.macs
    with no_grad(), count_macs() as counter:
        match node.op:
            case Conv2d() as op:
                weight = random(*op.kernel, op.input[2] // op.groups, op.out_channels)
                settings: dict[str, Any] = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
                conv2d(random(node.batch, *op.input), weight, **settings, groups=op.groups)
            case Linear() as op:
                matmul(random(node.batch, *op.input), random(op.input[-1], op.out_features))
            case MatMul() as op:
                matmul(random(*op.left), random(*op.right))
            case op:
                return Executed(f"{node.name} ({name(op)}: this engine has none)", counted, None)
    return Executed(node.name, counted, counter.total)
