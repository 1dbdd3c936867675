"""Activation functions. Formulas and derivatives are in `nachos_kernels/activation.py`, tanh is NumPy's.

Read `tape.py` first. An activation that follows batch norm is computed together with it: `normalization.py`.
"""

import numpy as np

from nachos_kernels import activation as kernels
from nachos_min.autograd.arguments import check_tensors, for_kernel
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Array, Tensor


def _value(x: Tensor, code: int) -> Array:
    """Return f(x)."""
    return kernels.activation_forward(for_kernel(x.data), code)


def _grad(g: Array, x: Tensor, code: int) -> Array:
    """Return g * f'(x)."""
    return kernels.activation_grad_input(for_kernel(g), for_kernel(x.data), code)


@operator
def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), any shape; the gradient at 0 is 0."""
    check_tensors("relu", x)
    return record(_value(x, kernels.RELU), (x, lambda g: _grad(g, x, kernels.RELU)))


@operator
def hswish(x: Tensor) -> Tensor:
    """Return x * hsigmoid(x), any shape.

    Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """
    check_tensors("hswish", x)
    return record(_value(x, kernels.HSWISH), (x, lambda g: _grad(g, x, kernels.HSWISH)))


@operator
def hsigmoid(x: Tensor) -> Tensor:
    """Return min(max(x + 3, 0), 6) / 6, any shape: a sigmoid made of three straight lines.

    Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """
    check_tensors("hsigmoid", x)
    return record(_value(x, kernels.HSIGMOID), (x, lambda g: _grad(g, x, kernels.HSIGMOID)))


@operator
def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), any shape; 0 and 1 far out, never NaN."""
    check_tensors("sigmoid", x)
    return record(_value(x, kernels.SIGMOID), (x, lambda g: _grad(g, x, kernels.SIGMOID)))


@operator
def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent of x, any shape."""
    check_tensors("tanh", x)
    value = np.tanh(x.data)
    return record(value, (x, lambda g: g * (1.0 - value * value)))
