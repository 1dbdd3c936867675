"""Rules for products of arrays: matrix products, Einstein sums and attention.

Read `steps.py` first. A vector is promoted to a matrix of one row or column, as PyTorch does.
"""

from math import isqrt, prod
from typing import Any

from nachos_min.macs.ops import Add, Einsum, MatMul, Move, Multiply, Reduce, Softmax
from nachos_min.macs.record import CountError, Operator
from nachos_min.macs.torch_reader.steps import Rule, Step, Steps, Tensor, facts, shape_of, tensors_in


def matmul(result: Tensor, *args: Any, **options: Any) -> Steps:
    """Return the product of two arrays whose leading axes broadcast."""
    first, second, *_ = tensors_in((args, options))
    left, right = shape_of(first), shape_of(second)
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    vector = second.dim() == 1
    found = facts(vector=vector, strided=vector and not second.requires_grad and not _folds(first))
    return [Step(MatMul(left, right), (first, second), (result,), facts=found)]


def _folds(x: Tensor) -> bool:
    """Return whether all axes but the last can be seen as one without a copy."""
    return all(x.stride(i) == x.stride(i + 1) * x.shape[i + 1] for i in range(x.dim() - 2))


def _reflected(result: Tensor, input: Tensor, other: Tensor) -> Steps:
    return matmul(result, other, input)


def _plus_product(result: Tensor, input: Tensor, first: Tensor, second: Tensor, **_options: object) -> Steps:
    """Return input + first @ second."""
    product = matmul(None, first, second)[0]
    step = Step(product.op, product.reads, facts=product.facts)
    return [step, Step(Add((shape_of(input), shape_of(result))), (input, step), (result,))]


def _addbmm(result: Tensor, input: Tensor, batch1: Tensor, batch2: Tensor, **_options: object) -> Steps:
    product = Step(MatMul(shape_of(batch1), shape_of(batch2)), (batch1, batch2))
    total = Step(Reduce(product.op.output, shape_of(result), "sum"), (product,))
    return [product, total, Step(Add((shape_of(input), shape_of(result))), (input, total), (result,))]


def _contraction(result: Tensor, input: Tensor, other: Tensor, *_rest: object, **_options: object) -> Steps:
    """Return a sum over some axes of both arrays: as many products as their elements times the result's, rooted."""
    left, right, out = (prod(shape_of(x)) for x in (input, other, result))
    summed = isqrt(left * right // out)
    op = MatMul((left // summed, summed), (summed, right // summed))
    return [Step(op, (input, other), (result,))]


def _outer(result: Tensor, input: Tensor, other: Tensor, **_options: object) -> Steps:
    return [Step(Multiply(((*shape_of(input), 1), (1, *shape_of(other)))), (input, other), (result,))]


def _einsum(result: Tensor, equation: str, *operands: Any) -> Steps:
    """Return an Einstein sum; what one array alone is summed over, PyTorch sums up before it multiplies."""
    arrays = tuple(tensors_in(operands))
    if len(arrays) > 2:
        raise CountError(f"an Einstein sum must have one or two arrays, got {len(arrays)}")
    terms, output = _written_out(equation.replace(" ", ""), [x.dim() for x in arrays])
    if len(arrays) == 1:
        return [Step(Einsum(f"{terms[0]}->{output}", (shape_of(arrays[0]),)), arrays, (result,))]
    # An axis of length 1 multiplies nothing, so it is none; a letter that stands twice is one axis, the diagonal.
    axes = [
        {c: int(n) for c, n in zip(t, x.shape, strict=True) if n != 1} for t, x in zip(terms, arrays, strict=True)
    ]
    lengths = axes[0] | axes[1]
    steps: Steps = []
    reads: list[Tensor | Step] = []
    kept: list[str] = []
    for x, own, other in zip(arrays, axes, reversed(axes), strict=True):
        kept.append("".join(c for c in own if c in other or c in output))
        reads.append(x)
        if prod(lengths[c] for c in kept[-1]) != x.numel():
            summed = Reduce(shape_of(x), tuple(lengths[c] for c in kept[-1]) or (1,), "sum")
            reads[-1] = Step(summed, (x,))
            steps.append(reads[-1])
    shapes = tuple(tuple(lengths[c] for c in letters) for letters in kept)
    if all(shapes):
        op: Operator = Einsum(f"{','.join(kept)}->{''.join(c for c in output if c in lengths)}", shapes)
        if op.output or op.macs:
            return [*steps, Step(op, tuple(reads), (result,), facts=facts(dots="..." in equation))]
    return [*steps, Step(Multiply(tuple(shape or (1,) for shape in shapes)), tuple(reads), (result,))]


def _written_out(equation: str, axes: list[int]) -> tuple[list[str], str]:
    """Return the letters of each array and of the result: dots replaced by letters, the result stated."""
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in equation]
    longest = 0
    for i, (term, count) in enumerate(zip(terms, axes, strict=True)):
        if "..." in term:
            hidden = count - (len(term) - 3)
            longest = max(longest, hidden)
            terms[i] = term.replace("...", "".join(free[:26][-hidden:] if hidden else []))
    dots = "".join(free[:26][-longest:]) if longest else ""
    if not arrow:
        once = sorted(c for c in set("".join(terms)) - set(dots) if "".join(terms).count(c) == 1)
        output = "..." + "".join(once)
    return terms, output.replace("...", dots)


def _attention(
    result: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_rest: object,
    enable_gqa: bool = False,
    **_options: object,
) -> Steps:
    """Return softmax(query @ key^T [+ mask]) @ value; heads that are shared are repeated first."""
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    steps: Steps = []
    reads: list[Tensor | Step] = [key, value]
    if enable_gqa:
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
        reads = [Step(Move((shape_of(x),), shape), (x,)) for x, shape in ((key, k), (value, v))]
        steps.extend(step for step in reads if isinstance(step, Step))
    # What PyTorch asks for before it runs attention as one operator on a processor.
    plain = len(q) == 4 and all(x.stride(-1) == 1 for x in (query, key, value))
    found = facts(fused=plain and q[:2] == k[:2] == v[:2] and q[-1] == k[-1] == v[-1])
    scores = Step(MatMul(q, (*k[:-2], k[-1], k[-2])), (query, reads[0]), facts=found | facts(scaled=True))
    steps.append(scores)
    if attn_mask is not None:
        scores = Step(Add((scores.op.output, shape_of(attn_mask))), (scores, attn_mask))
        steps.append(scores)
    weights = Step(Softmax(scores.op.output, k[-2]), (scores,))
    return [*steps, weights, Step(MatMul(weights.op.output, v), (weights, reads[1]), (result,), facts=found)]


MATRIX_RULES: dict[str, Rule] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), matmul),
    "rmatmul": _reflected,
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _plus_product),
    "addbmm": _addbmm,
    **dict.fromkeys(("inner", "tensordot"), _contraction),
    **dict.fromkeys(("outer", "ger"), _outer),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
}
