"""Automatic differentiation on NumPy arrays. Read `tensor.py`, `tape.py`, `arithmetic.py`, in this order."""

from nachos_kernels.parts import set_threads
from nachos_min.autograd.activation import hsigmoid, hswish, relu, sigmoid, tanh
from nachos_min.autograd.arithmetic import add, clip, divide, exp, log, multiply, negate, power, subtract
from nachos_min.autograd.classification import cross_entropy, log_softmax, softmax
from nachos_min.autograd.convolution import conv2d, depthwise_conv2d
from nachos_min.autograd.counting import MacCounter, count_macs
from nachos_min.autograd.gradcheck import gradcheck
from nachos_min.autograd.inverted_residual import Normed, inverted_residual
from nachos_min.autograd.matrix import linear, matmul
from nachos_min.autograd.normalization import batch_norm, batch_norm_infer, follow_statistics
from nachos_min.autograd.pooling import avg_pool, global_avg_pool, max_pool
from nachos_min.autograd.reduction import mean, sum
from nachos_min.autograd.registry import COUNTED_OPERATORS, OPERATORS
from nachos_min.autograd.shape import concatenate, getitem, reshape, stack, transpose
from nachos_min.autograd.tape import backward, no_grad
from nachos_min.autograd.tensor import Array, Tensor

__all__ = [
    "COUNTED_OPERATORS",
    "OPERATORS",
    "Array",
    "MacCounter",
    "Normed",
    "Tensor",
    "add",
    "avg_pool",
    "backward",
    "batch_norm",
    "batch_norm_infer",
    "clip",
    "concatenate",
    "conv2d",
    "count_macs",
    "cross_entropy",
    "depthwise_conv2d",
    "divide",
    "exp",
    "follow_statistics",
    "getitem",
    "global_avg_pool",
    "gradcheck",
    "hsigmoid",
    "hswish",
    "inverted_residual",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max_pool",
    "mean",
    "multiply",
    "negate",
    "no_grad",
    "power",
    "relu",
    "reshape",
    "set_threads",
    "sigmoid",
    "softmax",
    "stack",
    "subtract",
    "sum",
    "tanh",
    "transpose",
]
