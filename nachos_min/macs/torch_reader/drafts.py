"""The graph as it grows: steps become nodes that know which earlier nodes they read and whose weights they use.

A node is a draft until the run is over, for only then is it known whether the network's output depends on it.
Read `steps.py` and `arrays.py` first.
"""

from dataclasses import dataclass

from nachos_min.macs.ops import Graph, Move, Node, Source
from nachos_min.macs.record import name
from nachos_min.macs.torch_reader.arrays import MadeBy, Tensor
from nachos_min.macs.torch_reader.installed import load_torch
from nachos_min.macs.torch_reader.modules import Place
from nachos_min.macs.torch_reader.steps import Step, shape_of, tensors_in
from nachos_min.macs.written import Written


@dataclass(frozen=True)
class _Draft:
    """A node of which it is not yet known whether it is used.

    Args:
        step, function, place: what it does, how its call was spelt, and where it was made.
        inputs: nodes whose arrays it reads.
        weights_from: nodes that computed its weights; no operands, but it depends on them.
        shares, trained: as of `Node`.
    """

    step: Step
    function: str
    place: Place
    inputs: tuple[int, ...]
    weights_from: tuple[int, ...] = ()
    shares: int | None = None
    trained: int | None = None


class Drafts:
    """Nodes in execution order, and where every tensor comes from."""

    def __init__(self, inputs: object) -> None:
        """Begin with the network's first array, which is -1; any other becomes a source when it is read."""
        first = next(tensors_in(inputs))
        self._samples = shape_of(first)[0]
        self._drafts: list[_Draft] = []
        self._made_by = MadeBy()
        self._made_by.put(first, -1)
        self._counted: dict[int, Tensor] = {}  # weights whose trained values some node has counted
        self._users: dict[tuple[int, ...], int] = {}  # weights -> the first node that used just these

    def knows(self, x: Tensor) -> bool:
        """Return whether `x` comes from a node or is the network's input."""
        return x in self._made_by

    def add(self, steps: list[Step], changed: set[int], function: str, place: Place) -> None:
        """Append one call's steps as nodes.

        Args:
            steps: what the call comes to.
            changed: identities of the tensors that it wrote over.
            function: how the call was spelt.
            place: the module that made the call.
        """
        made: dict[int, int] = {}
        for step in steps:
            inputs = tuple(
                made[id(source)] if isinstance(source, Step) else self.position(source, place)
                for source in step.reads
            )
            weights_from = tuple(self.position(x, place) for x in step.weights if x in self._made_by)
            shares, trained = self._weights(step)
            made[id(step)] = self._append(_Draft(step, function, place, inputs, weights_from, shares, trained))
            for x in step.makes:
                (self._made_by.overwrite if id(x) in changed else self._made_by.put)(x, made[id(step)])

    def same(self, result: Tensor, source: Tensor, place: Place) -> None:
        """Note that `result` is the array `source` under another name."""
        self._made_by.put(result, self.position(source, place))

    def position(self, x: Tensor, place: Place) -> int:
        """Return the node that a tensor is read from; one that no node made becomes a source."""
        if x not in self._made_by:
            source = Step(Source(shape_of(x), self._count(x)), ())
            self._made_by.put(x, self._append(_Draft(source, "", place, ())))
        for write in self._made_by.later_writes(x):
            written = self._drafts[write].step
            arriving = (shape_of(x), (written.batch, *written.op.output))
            step = Step(Move(arriving, shape_of(x)), ())
            self._made_by.put(x, self._append(_Draft(step, "", place, (self._made_by.position(x), write))))
        return self._made_by.position(x)

    def _append(self, draft: _Draft) -> int:
        self._drafts.append(draft)
        return len(self._drafts) - 1

    def _weights(self, step: Step) -> tuple[int | None, int | None]:
        """Return whose weights a step uses again, and how many trained values it brings if not all of its record's.

        A record's `params` is right unless the weights are computed, constant or partly another node's.
        """
        new = sum(self._count(x) for x in step.weights)
        first = self._users.setdefault(tuple(map(id, step.weights)), len(self._drafts)) if step.weights else None
        if new == step.op.params:
            return None, None
        if new == 0 and first is not None and first < len(self._drafts):
            earlier = self._drafts[first]
            if earlier.trained is None and earlier.step.op.params == step.op.params:
                return first, None
        return None, new

    def _count(self, x: Tensor) -> int:
        """Return the trained values of a tensor that no node has counted yet; it is kept, so its identity stays."""
        if id(x) in self._counted:
            return 0
        self._counted[id(x)] = x
        return int(x.numel()) if isinstance(x, load_torch().nn.Parameter) else 0

    def graph(self, outputs: object) -> Graph:
        """Return all nodes; those that `outputs` do not depend on are marked as not used.

        What became a Python number on the way, such as the confidence that decides a branch, is no use of an array.
        """
        waiting = [self._made_by.position(x) for x in tensors_in(outputs) if x in self._made_by]
        used: set[int] = set()
        while waiting:
            position = waiting.pop()
            if position >= 0 and position not in used:
                used.add(position)
                draft = self._drafts[position]
                waiting += [*draft.inputs, *draft.weights_from]
        return tuple(self._node(draft, position in used) for position, draft in enumerate(self._drafts))

    def _node(self, draft: _Draft, used: bool) -> Node:
        step, place = draft.step, draft.place
        written = Written(
            function=draft.function,
            module=place.module,
            layer=place.layer,
            leaf=place.leaf,
            paths=place.paths,
            used=used,
            training=place.training,
            padding=step.padding,
            samples=self._samples,
            facts=step.facts - ({"statistics"} if place.training else set()),
        )
        spelt = draft.function or name(step.op)
        own_layer = place.path and place.module == place.layer
        return Node(
            name=place.path if own_layer and draft.function else f"{place.path} {spelt}".strip(),
            op=step.op,
            inputs=draft.inputs,
            shares=draft.shares,
            batch=step.batch,
            relaid=True,
            written=written,
            trained=draft.trained,
        )
