"""The tape: operators record what they did, `backward` walks back through it.

Read `tensor.py` first. Nothing here knows any mathematics. An operator hands over its value and, for each
input, a *vjp* (vector-Jacobian product): the function that takes the gradient of the loss in the value to the
gradient of the loss in that input. One function per input, so that `backward` never computes a gradient
nobody asked for.

To see one gradient travel, set a breakpoint in the inner loop of `backward` and look at `tensor`, `upstream`,
`source` and `share`.

Left out on purpose: second derivatives (vjps compute on arrays, not on Tensors) and keeping the tape after
`backward`, which would keep every intermediate array alive.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nachos_min.autograd.tensor import Array, Tensor

Vjp: TypeAlias = Callable[[Array], Array]

# A context variable: each thread has its own, so no_grad in one does not disturb another.
_recording: ContextVar[bool] = ContextVar("recording", default=True)
_clock = count()


class Node(NamedTuple):
    """How a tensor was computed."""

    time: int
    """When it was recorded. Inputs are recorded before what is computed from them."""
    inputs: tuple[tuple[Tensor, Vjp], ...]
    """The inputs that need a gradient, each with the vjp that leads to it."""

    @property
    def operator(self) -> str:
        """The name of the operator: vjps are written inside it, and Python remembers where."""
        return self.inputs[0][1].__qualname__.partition(".")[0] if self.inputs else "a freed tape"


# Takes the place of a node that `backward` has used.
_FREED = Node(-1, ())


def record(value: ArrayLike, *inputs: tuple[Tensor, Vjp]) -> Tensor:
    """Return `value` as a Tensor that remembers the inputs it was computed from.

    Args:
        value: float32 or float64 array, what the operator computed.
        inputs: pairs of an input and its vjp. The vjp takes an array of the shape and dtype of `value` and
            returns one of the shape and dtype of the input. It must not change its argument, which others may
            hold, but it may return it, or a view of it. It is called at most once.
    """
    result = Tensor(value)
    if _recording.get():
        needed = tuple(pair for pair in inputs if pair[0].requires_grad)
        if needed:
            result.requires_grad = True
            result.node = Node(next(_clock), needed)
    return result


def once(compute: Callable[[Array], tuple[Array, ...]]) -> Callable[[Array], tuple[Array, ...]]:
    """Return `compute`, run at its first call only: for operators whose gradients come from one pass over a map.

    A tape serves once, so every call brings the same gradient.
    """
    results: list[tuple[Array, ...]] = []

    def remembered(g: Array) -> tuple[Array, ...]:
        if not results:
            results.append(compute(g))
        return results[0]

    return remembered


@contextmanager
def no_grad() -> Iterator[None]:
    """Return a context in which nothing is recorded, in this thread; contexts may be nested.

    >>> x = Tensor(3.0, requires_grad=True)
    >>> with no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def backward(result: Tensor, gradient: ArrayLike | None = None) -> None:
    """Add to every leaf's `grad` the gradient of `result` in that leaf, and free the tape behind `result`.

    Gradients add up over calls until the caller sets `grad` to None. A tape serves once: intermediate arrays
    are released on the way, so whatever shares a part of it must be summed up before.

    Args:
        result: a tensor that requires a gradient.
        gradient: the gradient of the loss in `result`, same shape, converted to its dtype; may be left out if
            `result` has one element, and is then 1.

    Raises:
        RuntimeError: if `result` needs no gradient, or a part of its tape was freed by an earlier `backward`.
        ValueError: if `gradient` is missing and `result` has not one element, or `gradient` has another
            shape; or if a vjp returns another shape or dtype than its input has (a defect of that operator).

    Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, section 3.2 (reverse mode).
    """
    if not result.requires_grad:
        raise RuntimeError(
            "backward: nothing was recorded: no input requires a gradient, or it was computed under no_grad"
        )
    waiting = _oldest_first(result)
    gradients = {result: _seed(result, gradient)}
    while waiting:
        tensor, node = waiting.pop()
        upstream = gradients.pop(tensor)  # complete: all that was computed from `tensor` is younger than it
        tensor.node = _FREED
        for source, vjp in node.inputs:
            share = vjp(upstream)
            data = source.data
            if share.shape != data.shape or share.dtype != data.dtype:
                raise ValueError(
                    f"{node.operator}: vjp returned {share.dtype} {share.shape} "
                    f"for an input of {source.dtype} {source.shape}"
                )
            # Not +=, which would change an array that another input may have been handed as well.
            gradients[source] = gradients[source] + share if source in gradients else share
    for leaf, share in gradients.items():  # what is left was computed from nothing
        _deliver(leaf, share)


def _deliver(leaf: Tensor, gradient: Array) -> None:
    """Add `gradient` to the leaf's own, copied: several inputs may have been handed the same array."""
    if leaf.grad is None:
        leaf.grad = np.array(gradient, order="C")
    else:
        leaf.grad = np.asarray(leaf.grad + gradient)


def _oldest_first(result: Tensor) -> list[tuple[Tensor, Node]]:
    """Return all computed tensors that `result` depends on, itself included, with their nodes, as recorded.

    That is a topological order, found without recursion: a value is recorded after its inputs. Leaves, half of
    all tensors, are not looked for: what is not computed hands nothing on.
    """
    found: list[tuple[Tensor, Node]] = []
    todo, seen = [result], {result}
    for tensor in todo:  # grows while it is walked
        node = tensor.node
        if node is _FREED:
            raise RuntimeError(
                "backward: this tape was freed by an earlier backward; compute the value again, "
                "or add the losses up and call backward once"
            )
        if node is not None:
            found.append((tensor, node))
            for source, _ in node.inputs:
                if source.node is not None and source not in seen:
                    seen.add(source)
                    todo.append(source)
    found.sort(key=_time)
    return found


def _time(computed: tuple[Tensor, Node]) -> int:
    return computed[1].time


def _seed(result: Tensor, gradient: ArrayLike | None) -> Array:
    """Return the gradient that the walk starts from, checked against `result`."""
    if gradient is None:
        if result.size != 1:
            raise ValueError(f"backward without a gradient needs one element, got shape {result.shape}")
        return np.ones(result.shape, result.dtype)
    seed: Array = np.asarray(gradient, result.dtype)
    if seed.shape != result.shape:
        raise ValueError(f"backward: gradient has shape {seed.shape}, tensor has {result.shape}")
    return seed
