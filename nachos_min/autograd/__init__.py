"""Automatic differentiation on NumPy arrays: `tape.py` has the idea, `arithmetic.py` the first operators."""

# fmt: off
# isort: off
from nachos_kernels import set_threads
from nachos_kernels.batch_norm import follow as follow_statistics
from nachos_min.autograd.arithmetic import (
    add, clip, concatenate, cross_entropy, divide, exp, getitem, hsigmoid, hswish, linear, log, log_softmax, matmul,
    mean, multiply, negate, power, relu, reshape, sigmoid, softmax, stack, subtract, sum, tanh, transpose,
)
from nachos_min.autograd.convolution import avg_pool, conv2d, depthwise_conv2d, global_avg_pool, max_pool
from nachos_min.autograd.gradcheck import gradcheck
from nachos_min.autograd.normalization import Normed, batch_norm, batch_norm_infer, inverted_residual
from nachos_min.autograd.operators import COUNTED_OPERATORS, OPERATORS, MacCounter, count_macs
from nachos_min.autograd.tape import Array, Tensor, backward, no_grad

__all__ = [
    "COUNTED_OPERATORS", "OPERATORS", "Array", "MacCounter", "Normed", "Tensor", "add", "avg_pool", "backward",
    "batch_norm", "batch_norm_infer", "clip", "concatenate", "conv2d", "count_macs", "cross_entropy",
    "depthwise_conv2d", "divide", "exp", "follow_statistics", "getitem", "global_avg_pool", "gradcheck",
    "hsigmoid", "hswish", "inverted_residual", "linear", "log", "log_softmax", "matmul", "max_pool", "mean",
    "multiply", "negate", "no_grad", "power", "relu", "reshape", "set_threads", "sigmoid", "softmax", "stack",
    "subtract", "sum", "tanh", "transpose",
]
