"""Check an operator's vjps against numeric derivatives.

All of the Jacobian J is tested at once. For a random direction d in an input and random weights v on the value,
<v, J d> is a numeric derivative of one number, and <J^T v, d> is what the vjp claims.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd.tape import Tensor, no_grad

# Central differences err by about step^2 (truncation) + 1e-16 / step (rounding): least near 6e-6.
_STEP = 6e-6


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: NDArray[Any],
    rng: np.random.Generator,
    tolerance: float = 1e-6,
) -> float:
    """Return the largest relative error of the gradients of `function` in its inputs.

    >>> rng = np.random.default_rng(0)
    >>> gradcheck(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0]), rng=rng) < 1e-6
    True

    Args:
        function: takes one Tensor per input, returns a Tensor of any shape; must not change its inputs.
        inputs: arrays, converted to float64; away from kinks (relu at 0) by more than 1e-4.
        rng: draws the directions and weights.
        tolerance: the largest error that passes.

    Returns:
        max over inputs of |vjp - numeric| / size, size being the largest of the numeric derivative, the
        gradient's Euclidean norm, and 1e-3 <|v|, |f|> (a derivative far below drowns in rounding).

    Raises:
        AssertionError: if an error exceeds `tolerance` or is NaN; the message names the input.

    Source: derived here; the numeric side is (phi(x + step d) - phi(x - step d)) / (2 step), phi(x) = <v, f(x)>.
    """
    leaves = [Tensor(np.array(value, np.float64), requires_grad=True) for value in inputs]
    value = function(*leaves)
    weights = rng.normal(size=value.shape)
    value.backward(weights)

    def phi(place: int, step: NDArray[Any]) -> float:
        moved = [Tensor(leaf.data.copy()) for leaf in leaves]
        moved[place].data += step
        with no_grad():
            return float((weights * function(*moved).data).sum())

    floor = max(1e-3 * float(np.abs(weights * value.data).sum()), np.finfo(np.float64).tiny)
    worst = 0.0
    for place, leaf in enumerate(leaves):
        gradient = np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad
        direction = rng.normal(size=leaf.shape)
        numeric = (phi(place, _STEP * direction) - phi(place, -_STEP * direction)) / (2 * _STEP)
        claimed = float((gradient * direction).sum())
        error = abs(claimed - numeric) / max(abs(numeric), float(np.linalg.norm(gradient)), floor)
        if not error <= tolerance:
            names = list(inspect.signature(function).parameters)
            raise AssertionError(
                f"gradcheck: input {place} ({names[min(place, len(names) - 1)]}): vjp gives {claimed:.9g} along a "
                f"random direction, central differences {numeric:.9g}: "
                f"relative error {error:.1e} > {tolerance:.1e}"
            )
        worst = max(worst, error)
    return worst
