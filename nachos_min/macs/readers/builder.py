"""The graph of a network that is read: its nodes, its sources, and the weights that nodes share.

Records have shapes of one sample, channels last. Arrays that are read have a batch axis first, channels second.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from nachos_min.errors import printable
from nachos_min.macs.ops import Conv, Node, Source, Written
from nachos_min.macs.record import CountError, Operator, Shape

_NAME_SHOWN = 60  # characters of a name
_PATH_SHOWN = 240  # of one that is made of names of modules
_MOST_SHOWN = 500  # of a message about all that cannot be counted
_MOST_CAUSES = 1000  # that are told apart

Weight = tuple[Hashable, int]  # what two nodes have in common that use it, and its trained values


@dataclass(frozen=True, eq=False)
class Step:
    """One record of an operator or call."""

    op: Operator
    reads: tuple[Any, ...]  # arrays, or earlier steps of the same call, in the order of the operands
    makes: tuple[Any, ...] = ()  # arrays of the call's result whose elements this step writes
    weights: tuple[Any, ...] = ()  # arrays that are part of the record, such as a kernel and a bias
    batch: int = 1  # samples treated at once; the record is of one
    padding: str = ""  # "same" or "valid" if the padding was given by that word
    facts: frozenset[str] = frozenset()  # what else the shapes do not show, as of `Written`
    border: Shape = ()  # zeros that it puts around what it reads: before and after, from the last axis to the first


def require(holds: object, message: str) -> None:
    """Check that `holds`; CountError with the message otherwise."""
    if not holds:
        raise CountError(message)


def label(text: str, most: int = _NAME_SHOWN) -> str:
    """Return a name as tables show it: control characters escaped, cut in the middle if it is long."""
    shown = printable(text if len(text) <= 2 * most else text[:most] + text[-most:])
    return shown if len(shown) <= most else f"{shown[: most // 2]}...{shown[-most // 2 + 3 :]}"


def path_label(text: str) -> str:
    """Return the name of a node, which holds those of the modules around it."""
    return label(text, _PATH_SHOWN)


def quoted(text: str) -> str:
    """Return a name as a message quotes it."""
    return f"'{label(text)}'"


def facts(**known: bool) -> frozenset[str]:
    """Return the names of the facts that hold."""
    return frozenset(fact for fact, holds in known.items() if holds)


class Causes:
    """What cannot be counted: where each cause first arose, and how often."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._times = Counter[str]()

    def add(self, cause: str, where: str) -> None:
        """Note a cause, such as ": no rule", that arose at a place, "" if it has no name."""
        cause = cause if len(self._first) < _MOST_CAUSES else ""
        self._first.setdefault(cause, f"{where}{cause}".removeprefix(": "))
        self._times[cause] += 1

    def error(self) -> CountError | None:
        """Return all causes in one line, the most frequent first; None if there is none."""
        found = self._times.most_common()
        shown = f"{len(found)} causes: " if len(found) > 1 else ""
        for place, (cause, times) in enumerate(found):
            text = self._first[cause] + (f" ({times} times)" if times > 1 else "")
            left = f"; and {len(found) - place} causes more"
            if place and len(shown + text + left) + 2 > _MOST_SHOWN:
                return CountError(shown + left)
            shown += f"; {text}" if place else text[: _MOST_SHOWN - 50]
        return CountError(shown) if found else None


class Builder:
    """Nodes in execution order. Trained values count at the first node that uses them."""

    def __init__(self, spend: Callable[[int], None] | None = None, times: int = 1) -> None:
        """Start a graph; `spend` is told before each node how many steps it takes to count it.

        A node that is added runs `times` times, such as one in a loop.
        """
        self._spend, self.times = spend, times
        self.nodes: list[Node] = []
        self._sources: dict[Hashable, int] = {}
        self._borders: dict[int, Shape] = {}  # node -> zeros around the array that it makes
        self._users: dict[tuple[Hashable, ...], int] = {}  # weights -> the first node that used just these
        self._counted: set[Hashable] = set()

    def given(self, name: str, shape: Shape) -> int:
        """Return a new node for an array that another graph makes."""
        return self._append(Node(name, Source(array_shape(shape)), (), relaid=True))

    def source(self, name: str, shape: Shape, weight: Weight, written: Written | None = None) -> int:
        """Return the node that stands for an array which no operator makes."""
        key, _ = weight
        if (key, self.times) not in self._sources:
            op = Source(array_shape(shape), self._new_values(weight))
            self._sources[key, self.times] = self._append(Node(name, op, (), relaid=True, written=written))
        return self._sources[key, self.times]

    def add(
        self,
        name: str,
        step: Step,
        inputs: tuple[int, ...],
        weights: Sequence[Weight],
        written: Written | None = None,
        real: int = 1,
    ) -> int:
        """Return the position of a new node; it shares an earlier node's weights if it has just the same.

        Inputs and weights stand for what the step reads. A convolution is told of the zeros around its input.
        """
        op, around = step.op, self._borders.get(inputs[0], ()) if inputs else ()
        if step.border:
            self._borders[len(self.nodes)] = tuple(map(sum, zip_longest(step.border, around, fillvalue=0)))
        if isinstance(op, Conv) and any(around):
            axes = len(op.kernel)
            zeros = (*around, *(0,) * 2 * axes)
            sides = tuple(zeros[2 * axis + side] for axis in reversed(range(axes)) for side in (0, 1))
            op = replace(op, zeros=sides)
        new = sum(self._new_values(weight) for weight in weights)
        keys = tuple(key for key, _ in weights)
        first = self._users.setdefault(keys, len(self.nodes)) if keys else len(self.nodes)
        shares, trained = None, None if new == op.params else new
        earlier = self.nodes[first] if first < len(self.nodes) else None
        if trained == 0 and earlier and earlier.trained is None and earlier.op.params == op.params:
            shares, trained = first, None
        return self._append(Node(name, op, inputs, 0, shares, step.batch, True, written, trained, real))

    def _append(self, node: Node) -> int:
        if self._spend is not None:
            self._spend(100 + sum(20 + 8 * len(shape) for shape in node.op.operands))
        self.nodes.append(replace(node, batch=node.batch * self.times) if self.times != 1 else node)
        return len(self.nodes) - 1

    def _new_values(self, weight: Weight) -> int:
        key, trained = weight
        if key in self._counted:
            return 0
        self._counted.add(key)
        return trained


def array_shape(shape: Shape) -> Shape:
    """Return the shape as records have it: a single number is (1,)."""
    return shape or (1,)


def rows(shape: Shape) -> tuple[int, Shape]:
    """Return the batch and the shape of one sample: the first axis is the batch, if there are two."""
    return (shape[0], shape[1:]) if len(shape) > 1 else (1, array_shape(shape))


def maps(shape: Shape, axes: int) -> tuple[int, Shape]:
    """Return the batch and (*lengths, C) of a map of `axes` 1 to 3 axes, with or without a batch axis."""
    fits = axes in (1, 2, 3) and len(shape) in (axes + 1, axes + 2)
    require(fits, f"a map must have one to three axes besides batch and channels, got shape {shape}")
    batch = shape[0] if len(shape) == axes + 2 else 1
    return batch, (*shape[-axes:], shape[-axes - 1])


def channels_last(shape: Shape) -> tuple[int, Shape]:
    """Return the batch and (..., C) of an array (N, C, ...)."""
    require(len(shape) >= 2, f"must read an array (N, C, ...), got {shape}")
    batch, channels, *spatial = shape
    return batch, (*spatial, channels)


def both_sides(each: Sequence[int]) -> Shape:
    """Return the same number before and after, for each axis."""
    return tuple(value for value in each for _ in range(2))
