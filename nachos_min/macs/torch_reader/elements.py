"""Rules for what has no weights and makes no products: activations, sums, reductions, moved elements.

Read `steps.py` first. Most of it is a table from PyTorch's names to the kinds that records are counted by.
"""

from functools import partial
from typing import Any

from nachos_min.macs.ops import Activation, Add, Move, Multiply, Pointwise, Reduce, Softmax
from nachos_min.macs.record import CountError
from nachos_min.macs.torch_reader.steps import Rule, Step, Steps, Tensor, facts, rows_of, shape_of, tensors_in


def _activation(kind: str, result: Tensor, input: Tensor, *_rest: object, **_options: object) -> Steps:
    batch, shape = rows_of(input)
    return [Step(Activation(shape, kind), (input,), (result,), batch=batch)]


def _prelu(result: Tensor, input: Tensor, weight: Tensor) -> Steps:
    batch, shape = rows_of(input)
    found = facts(unbatched=input.dim() == 1, slopes=weight.numel() > 1)
    return [Step(Activation(shape, "prelu"), (input,), (result,), (weight,), batch, facts=found)]


def _glu(result: Tensor, input: Tensor, *_rest: object, **_options: object) -> Steps:
    """Return one half of the elements times the sigmoid of the other."""
    shape = shape_of(result)
    halves = [Step(Move((shape_of(input),), shape), (input,)) for _ in range(2)]
    gate = Step(Activation(shape, "sigmoid"), (halves[1],))
    return [*halves, gate, Step(Multiply((shape, shape)), (halves[0], gate), (result,))]


def _clipped(kind: str, result: Tensor, input: Tensor, low: Any, high: Any) -> Steps:
    """Return a clip, which from 0 to 6 is a relu6 whoever wrote it."""
    if not list(tensors_in((low, high))) and (low, high) == (0, 6):
        return _activation("relu6", result, input)
    if kind == "hardtanh":
        return _activation(kind, result, input)
    return _pointwise(kind, result, input, low, high)


def _hardtanh(
    result: Tensor,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,  # noqa: ARG001 -- PyTorch's signature
) -> Steps:
    return _clipped("hardtanh", result, input, min_val, max_val)


def _clamp(result: Tensor, input: Tensor, min: Any = None, max: Any = None, **_options: object) -> Steps:
    return _clipped("clamp", result, input, min, max)


def _softmax(result: Tensor, input: Tensor, dim: int | None = None, *_rest: object, **_options: object) -> Steps:
    if dim is None:  # F.softmax's old rule for an axis that is not named
        dim = 0 if input.dim() in (0, 1, 3) else 1
    shape = shape_of(input)
    batch, row = (1, shape) if dim in (0, -input.dim()) else rows_of(input)
    return [Step(Softmax(row, shape[dim]), (input,), (result,), batch=batch)]


def _elementwise(record: type[Add] | type[Multiply], result: Tensor, *args: Any, **options: Any) -> Steps:
    reads = _operands(args, options)
    return [Step(record(tuple(map(shape_of, reads))), reads, (result,))]


def _pointwise(kind: str, result: Any, *args: Any, **options: Any) -> Steps:
    reads = _operands(args, options)
    return [Step(Pointwise(tuple(map(shape_of, reads)), kind), reads, tuple(tensors_in(result)))]


def _operands(args: object, options: dict[str, Any]) -> tuple[Tensor, ...]:
    return tuple(tensors_in((args, {key: value for key, value in options.items() if key != "out"})))


def _reduce(kind: str, result: Any, input: Tensor, *args: Any, **options: Any) -> Steps:
    if _operands(args, options):  # the larger of two arrays, not the largest of one
        return _pointwise(kind, result, input, *args, **options)
    made = tuple(tensors_in(result))
    return [Step(Reduce(shape_of(input), shape_of(made[0]), kind), (input,), made)]


def _move(result: Any, *args: Any, **options: Any) -> Steps:
    """Return one record per array that is made; nothing is computed."""
    reads = _operands(args, options)
    shapes = tuple(map(shape_of, reads))
    return [Step(Move(shapes, shape_of(made)), reads, (made,)) for made in tensors_in(result)]


def _assign(_result: None, input: Tensor, *args: Any) -> Steps:
    return _move(input, input, *args)


def _dropout(
    result: Tensor, input: Tensor, p: float = 0.5, training: bool = True, *_rest: object, **_options: object
) -> Steps:
    return _pointwise("dropout", result, input) if training and p > 0 else _move(result, input)


def _constant(_result: Any, *args: Any, **options: Any) -> Steps:
    """Return nothing: an array that is not computed becomes a source when something reads it."""
    for value in (*args, *options.values()):
        if type(value).__name__ == "ndarray":
            raise CountError(f"what NumPy computes is not seen, got an array of shape {value.shape}")
    return []


def _converted(result: Tensor, data: Any, **options: Any) -> Steps:
    """Return a copy of tensors, or nothing if only numbers are made into a tensor."""
    return _move(result, data) if any(True for _ in tensors_in(data)) else _constant(result, data, **options)


# fmt: off
_ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "hardswish": "hswish", "hardsigmoid": "hsigmoid", "sigmoid": "sigmoid",
    "tanh": "tanh", "silu": "silu", "gelu": "gelu", "elu": "elu", "selu": "selu", "celu": "celu", "mish": "mish",
    "leaky_relu": "leaky_relu", "rrelu": "rrelu", "softplus": "softplus", "softsign": "softsign",
    "logsigmoid": "logsigmoid", "hardshrink": "hardshrink", "softshrink": "softshrink", "tanhshrink": "tanhshrink",
    "threshold": "threshold", "expit": "sigmoid",
}
_POINTWISE = {
    "sub": "sub", "subtract": "sub", "rsub": "sub", "div": "div", "divide": "div", "true_divide": "div",
    "floor_divide": "floor_divide", "remainder": "remainder", "fmod": "remainder", "pow": "pow",
    "float_power": "pow", "square": "square", "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp", "exp2": "exp",
    "expm1": "exp", "log": "log", "log2": "log", "log10": "log", "log1p": "log", "sin": "sin", "cos": "cos",
    "tan": "tan", "atan": "atan", "atan2": "atan2", "erf": "erf", "abs": "abs", "absolute": "abs", "neg": "neg",
    "negative": "neg", "sign": "sign", "floor": "floor", "ceil": "ceil", "round": "round", "trunc": "trunc",
    "frac": "frac", "reciprocal": "reciprocal", "gt": "compare", "lt": "compare", "ge": "compare", "le": "compare",
    "eq": "compare", "ne": "compare", "greater": "compare", "less": "compare", "greater_equal": "compare",
    "less_equal": "compare", "isnan": "compare", "isinf": "compare", "isfinite": "compare",
    "logical_and": "logic", "logical_or": "logic", "logical_not": "logic", "logical_xor": "logic",
    "bitwise_and": "logic", "bitwise_or": "logic", "bitwise_not": "logic", "bitwise_xor": "logic",
    "maximum": "max", "minimum": "min", "fmax": "max", "fmin": "min", "where": "where", "lerp": "lerp",
    "addcmul": "addcmul", "addcdiv": "addcdiv", "masked_fill": "where", "cumsum": "cumsum", "cumprod": "cumprod",
    "nan_to_num": "where", "logaddexp": "logaddexp", "bernoulli": "random", "_weight_norm": "weight_norm",
    "heaviside": "compare", "clamp_min": "clamp", "clamp_max": "clamp",
}
_REDUCTIONS = {
    "mean": "mean", "sum": "sum", "prod": "prod", "max": "max", "min": "min", "amax": "max", "amin": "min",
    "argmax": "argmax", "argmin": "argmin", "var": "var", "std": "std", "var_mean": "var", "std_mean": "std",
    "logsumexp": "logsumexp", "vector_norm": "norm", "linalg_vector_norm": "norm", "any": "any", "all": "all",
    "nansum": "sum", "nanmean": "mean", "median": "median", "count_nonzero": "count", "aminmax": "max",
}
_MOVES = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "adjoint", "swapaxes", "swapdims",
    "moveaxis", "movedim", "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "tile",
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "split",
    "split_with_sizes", "tensor_split", "chunk", "unbind", "hsplit", "vsplit", "select", "narrow",
    "select_scatter", "slice_scatter", "index_select", "index_put", "index_fill", "index_copy", "gather", "take",
    "take_along_dim", "scatter", "masked_select", "masked_scatter", "roll", "flip", "fliplr", "flipud", "rot90",
    "pad", "constant_pad_nd", "contiguous", "clone", "to", "float", "double", "half", "bfloat16", "type",
    "type_as", "cpu", "cuda", "int", "long", "short", "bool", "byte", "view_as", "reshape_as", "as_strided",
    "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "tril", "triu",
    "diag", "diagonal", "diag_embed", "broadcast_to", "broadcast_tensors", "meshgrid", "sort", "argsort", "topk",
    "one_hot", "embedding", "copy", "ravel", "atleast_1d", "atleast_2d", "atleast_3d", "T", "mT", "H", "mH",
    "getitem", "nonzero", "unfold_copy", "im2col", "fill", "zero", "align_to", "refine_names", "block_diag",
    "resolve_conj", "resolve_neg", "max_unpool1d", "max_unpool2d",
)
_CONSTANTS = (
    "zeros", "ones", "full", "empty", "eye", "arange", "linspace", "logspace", "range", "scalar_tensor", "rand",
    "randn", "randint", "randperm", "normal", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like",
    "randn_like", "randint_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "tril_indices",
    "triu_indices", "uniform", "exponential", "random", "hann_window", "hamming_window", "constant",
    "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "trunc_normal",
)
# fmt: on

ELEMENT_RULES: dict[str, Rule] = {
    **dict.fromkeys(_CONSTANTS, _constant),
    **{name: partial(_activation, kind) for name, kind in _ACTIVATIONS.items()},
    **{name: partial(_pointwise, kind) for name, kind in _POINTWISE.items()},
    **{name: partial(_reduce, kind) for name, kind in _REDUCTIONS.items()},
    **dict.fromkeys(_MOVES, _move),
    **dict.fromkeys(("tensor", "as_tensor", "asarray"), _converted),
    "prelu": _prelu,
    "glu": _glu,
    "hardtanh": _hardtanh,
    **dict.fromkeys(("clamp", "clip"), _clamp),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "add": partial(_elementwise, Add),
    "mul": partial(_elementwise, Multiply),
    "multiply": partial(_elementwise, Multiply),
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"), _dropout
    ),
    "setitem": _assign,
}
