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
    products: Callable[[tuple[Any, ...], Any], int] | None  # MACs of its arguments and result, None for none

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
    return Operator(schema.name, writes, views, products_of(schema.name))


def _matrices(left: Any, right: Any) -> int:
    return prod(map(int, (*left.shape, right.shape[-1], real_products(left))))


def _vector(left: Any) -> int:
    return int(prod(left.shape)) * real_products(left)


def _grouped(left: Any, right: Any, ends: Any = None) -> int:
    if ends is None:
        return _matrices(left, right)
    rows = routed_rows(left, ends) if right.dim() == 3 else int(left.shape[-2])
    return rows * int(left.shape[-1]) * int(right.shape[-1])


def routed_rows(rows: Any, ends: Any) -> int:
    """Return how many rows belong to a group, of which `ends` are the ends; all, where there are no values."""
    torch = load_torch()
    if ends.is_meta or isinstance(ends, torch._subclasses.FakeTensor):
        return int(rows.shape[0])
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        return int(ends[-1])


def _trilinear(left: Any, weight: Any) -> int:
    made, features, others = weight.shape
    return int(left.shape[0] * made * (features + 1) * others)


def _recurrent(x: Any, inner: Any, outer: Any) -> int:
    return int(prod(x.shape[:2]) * (inner.numel() + outer.numel()))


def _attention(query: Any, key: Any, value: Any) -> int:
    q, k, v = query.shape, key.shape, value.shape
    return int(prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))


def real_products(x: Any) -> int:
    """Return the real multiplications of one product of elements such as those of `x`."""
    return 4 if x.is_complex() else 1


_KINDS = "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention fused_attention_overrideable"
# Operator -> MACs of its arrays, and the positions of the arguments that these are.
PRODUCTS: dict[str, tuple[Callable[..., int], tuple[int, ...]]] = {
    **dict.fromkeys(("mm", "bmm", "_int_mm", "_scaled_mm"), (_matrices, (0, 1))),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm"), (_matrices, (1, 2))),
    **dict.fromkeys(("mv", "dot", "vdot"), (_vector, (0,))),
    "addmv": (_vector, (1,)),
    "_grouped_mm": (_grouped, (0, 1, 2)),
    "_trilinear": (_trilinear, (0, 1)),
    "mkldnn_rnn_layer": (_recurrent, (0, 1, 2)),
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), (lambda: 0, ())),
    **{f"_scaled_dot_product_{kind}": (_attention, (0, 1, 2)) for kind in _KINDS.split()},
}

# What multiplies and accumulates under another name, by the words in the names of PyTorch's operators.
_SUSPICIOUS = re.compile(
    r"(?:^|_)(?:conv(?!ert)\w*|(?:int4pack_|int8pack_|add|b|baddb|addb|hsp|sspadd|s)?mm|mv|addmv|\w*dot|inner|matmul|"
    r"linear|bilinear|trilinear|lstm|gru|rnn|attention|mha|transformer|pdist|fft|"
    r"linalg(?!_vector_norm|_check_errors|_cross)|inverse|cholesky|solve|spsolve|svd|qr|lu|eig)(?:_|$)"
)


def _convolution(args: tuple[Any, ...], output: Any) -> int:
    """Return one product per weight and pixel that the window slides over."""
    x, weight, transposed = args[0], args[1], args[6]
    spatial = (x.shape if transposed else output.shape)[2:]
    return prod((int(x.shape[0]), *spatial, *weight.shape)) * real_products(x)


def _distances(args: tuple[Any, ...], output: Any) -> int:
    """Return one product for each feature of two rows whose 2-norm is measured."""
    return int(prod(output.shape) * args[0].shape[-1]) if args[2:3] in ((), (2,)) else 0


# Operator -> MACs of its arguments and its result.
_OF_RESULTS: dict[str, Callable[[tuple[Any, ...], Any], int]] = {
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(("_euclidean_dist", "_cdist_forward"), _distances),
    "affine_grid_generator": lambda _args, output: int(prod(output.shape) * (output.shape[-1] + 1)),
}


def products_of(name: str) -> Callable[[tuple[Any, ...], Any], int] | None:
    """Return what counts a basic operator's MACs, of all samples, or refuses if it may multiply; None for none."""
    own, _, base = name.partition("::")
    if own == "aten" and base in _OF_RESULTS:
        return _OF_RESULTS[base]
    if own == "aten" and base in PRODUCTS:
        rule, positions = PRODUCTS[base]
        return lambda args, _output: rule(*(args[i] for i in positions if i < len(args)))

    def refuse(_args: tuple[Any, ...], _output: Any) -> int:
        raise CountError(f"no rule for the operator {name}, which may multiply and accumulate")

    return refuse if own not in ("aten", "prim", "profiler") or _SUSPICIOUS.search(base) else None
