"""What PyTorch's basic operators do, which its functions execute: products, writes, views. Records are not used."""

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from nachos_min.macs.readers.torch_graph import load_torch, tensors_in
from nachos_min.macs.record import CountError

Shape = Sequence[int]


class Operator(NamedTuple):
    """What the schema of a basic operator says."""

    name: str  # such as "aten::add_"
    writes: tuple[int | str, ...]  # positions and names of the arguments that it writes to
    views: bool  # whether its result is an argument's memory seen otherwise
    products: Callable[..., int] | None  # MACs of its result and arguments, None for none
    of_tensor: bool  # whether its first argument is an array

    def written(self, args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
        """Return the arrays among the arguments that it writes to."""
        given = [options.get(i) if isinstance(i, str) else args[i] if i < len(args) else None for i in self.writes]
        return list(tensors_in(given))


def described(operator: Any) -> Operator:
    """Return what an operator's schema says."""
    schema = operator._schema
    writes = tuple(
        argument.name if argument.kwarg_only else position
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    shared = [each.alias_info for each in schema.returns if each.alias_info is not None]
    views = bool(shared) and not any(each.is_write for each in shared)
    of_tensor = any(str(argument.type) == "Tensor" for argument in schema.arguments[:1])
    return Operator(schema.name, writes, views, products_of(schema.name), of_tensor)


def _product(_y: Any, left: Any, right: Any, *_: Any) -> int:
    columns = right.shape[-1] if right.dim() > 1 else 1
    return prod(map(int, (*left.shape, columns, _real(left))))


def _grouped(y: Any, left: Any, right: Any, ends: Any = None, *_: Any) -> int:
    if ends is None:
        return _product(y, left, right)
    rows = routed_rows(left, ends) if right.dim() == 3 else int(left.shape[-2])
    return rows * int(left.shape[-1]) * int(right.shape[-1])


def routed_rows(rows: Any, ends: Any) -> int:
    """Return how many rows belong to a group, of which `ends` are the ends; all, where there are no values."""
    torch = load_torch()
    if ends.is_meta or isinstance(ends, torch._subclasses.FakeTensor):
        return int(rows.shape[0])
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        return int(ends[-1])


def _convolution(
    y: Any, x: Any, weight: Any, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool, *_: Any
) -> int:
    """Return one product per weight and pixel that the window slides over."""
    pixels = (x if transposed else y).shape[2:]
    return prod(map(int, (x.shape[0], *pixels, *weight.shape, _real(x))))


def _trilinear(_y: Any, left: Any, weight: Any, *_: Any) -> int:
    made, features, others = weight.shape
    return int(left.shape[0] * made * (features + 1) * others) * _real(left)


def _recurrent(_y: Any, x: Any, inner: Any, outer: Any, *_: Any) -> int:
    return int(prod(x.shape[:2]) * (inner.numel() + outer.numel()))


def _attention(_y: Any, query: Any, key: Any, value: Any, *_: Any) -> int:
    return int(prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _distances(y: Any, left: Any, _right: Any, power: float = 2, *_: Any) -> int:
    """Return one product for each feature of two rows whose 2-norm is measured."""
    return int(prod(y.shape) * left.shape[-1]) if power == 2 else 0


def _real(x: Any) -> int:
    """Return the real multiplications of one product of elements such as those of `x`."""
    return 4 if x.is_complex() else 1


_RULES: dict[str, Callable[..., int]] = {
    "mm bmm _int_mm _scaled_mm mv dot vdot": _product,
    "addmm baddbmm addbmm addmv": lambda y, _added, *arrays, **_: _product(y, *arrays),
    "_grouped_mm": _grouped,
    "convolution _convolution": _convolution,
    "_trilinear": _trilinear,
    "mkldnn_rnn_layer": _recurrent,
    "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_euclidean_dist _cdist_forward": _distances,
    "affine_grid_generator": lambda y, *_: int(prod(y.shape) * (y.shape[-1] + 1)),
    "_fft_c2c _fft_r2c _fft_c2r": lambda *_: 0,
}
# Operator -> MACs of its result and its arguments.
_PRODUCTS = {name: rule for names, rule in _RULES.items() for name in names.split()}

# What multiplies and accumulates under another name, by the words in the names of PyTorch's operators.
_SUSPICIOUS = re.compile(
    r"(?:^|_)(?:conv(?!ert)\w*|(?:int4pack_|int8pack_|add|b|baddb|addb|hsp|sspadd|s)?mm|mv|addmv|\w*dot|inner|matmul|"
    r"linear|bilinear|trilinear|lstm|gru|rnn|attention|mha|transformer|pdist|fft|"
    r"linalg(?!_vector_norm|_check_errors|_cross)|inverse|cholesky|solve|spsolve|svd|qr|lu|eig)(?:_|$)"
)


def products_of(name: str) -> Callable[..., int] | None:
    """Return what counts a basic operator's MACs, of all samples, or refuses if it may multiply; None for none."""
    own, _, base = name.partition("::")
    base = base.removesuffix("_")
    if own == "aten" and base in _PRODUCTS:
        return _PRODUCTS[base]

    def refuse(*_: Any) -> int:
        raise CountError(f"no rule for the operator {name}, which may multiply and accumulate")

    return refuse if own not in ("aten", "prim", "profiler") or _SUSPICIOUS.search(base) else None


def _attend(query: Any, key: Any, value: Any, width: int, heads: int, *args: Any) -> tuple[Any, Any]:
    """Return attention between linear layers, whose arguments are weights, biases and options."""
    defaults: tuple[Any, ...] = (None, True, True, None)
    into, into_bias, out, out_bias, mask, needed, averaged, kind = (*args, *defaults[len(args) - 4 :])
    options = {"training": False, "need_weights": needed, "average_attn_weights": averaged}
    options["key_padding_mask" if kind == 1 else "attn_mask"] = mask.flatten(0, 1) if kind == 2 else mask
    arrays = (x.transpose(0, 1) for x in (query, key, value))  # samples are their second axis
    given = (width, heads, into, into_bias, None, None, False, 0.0, out, out_bias)
    made, scores = load_torch().nn.functional.multi_head_attention_forward(*arrays, *given, **options)
    return made.transpose(0, 1), scores if needed else query.new_empty(0)


def _encode(x: Any, width: int, heads: int, *args: Any) -> Any:
    """Return what a layer of a transformer's encoder makes: attention and two linear layers, each with a norm."""
    gelu, norm_first, epsilon, scale, shift, *others = args[4:11]
    wide, wide_bias, narrow, narrow_bias, mask, kind = (*args[11:], None, None)[:6]
    functional = load_torch().nn.functional
    active = functional.gelu if gelu else functional.relu
    for attends, (weight, bias) in (True, (scale, shift)), (False, others):
        inner = functional.layer_norm(x, (width,), weight, bias, epsilon) if norm_first else x
        if attends:
            made, _ = _attend(inner, inner, inner, width, heads, *args[:4], mask, False, True, kind)
        else:
            made = functional.linear(active(functional.linear(inner, wide, wide_bias)), narrow, narrow_bias)
        x = x + made if norm_first else functional.layer_norm(x + made, (width,), weight, bias, epsilon)
    return x


# Operators that stand for whole layers, and what is executed in their place, so that it is seen.
IN_PARTS: dict[str, Callable[..., Any]] = {
    "aten::_native_multi_head_attention": _attend,
    "aten::_transformer_encoder_layer_fwd": _encode,
}
