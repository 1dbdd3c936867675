"""Steps of what both readers spell out as several records: Einstein sums and attention."""

from collections import Counter
from string import ascii_letters
from typing import Any

from nachos_min.macs.ops import Add, Einsum, MatMul, Multiply, Reduce, Softmax, letter_lengths
from nachos_min.macs.readers.builder import Step, array_shape, facts, require, rows
from nachos_min.macs.record import Operator, Shape


def einsum(equation: str, arrays: tuple[Any, ...], shapes: tuple[Shape, ...], ones: bool) -> list[Step]:
    """Return an Einstein sum, its ellipsis written out and its output stated; of three arrays, that of two first.

    An axis that only one operand has is summed over first. `ones`: whether axes of length 1 count as axes, as in
    ONNX. PyTorch leaves them out, and reads a letter that one array has twice as its diagonal.
    """
    known = facts(dots="..." in equation)
    terms, result = written_out(equation, tuple(map(len, shapes)))
    if len(arrays) > 2:
        one, other, *rest = terms
        pair = "".join(dict.fromkeys(letter for letter in one + other if letter in "".join(rest) + result))
        first = einsum(f"{one},{other}->{pair}", arrays[:2], shapes[:2], ones)
        lengths = letter_lengths((one, other), shapes[:2])
        shape = tuple(lengths[letter] for letter in pair)
        equation = f"{','.join((pair, *rest))}->{result}"
        return [*first, *einsum(equation, (first[-1], *arrays[2:]), (shape, *shapes[2:]), ones)]
    if len(arrays) == 1 and (terms[0] or not ones):
        return [Step(Einsum(f"{terms[0]}->{result}", shapes), arrays, facts=known)]
    lengths = letter_lengths(terms, shapes)
    own = [  # letters of each array, without axes of length 1 that broadcast
        "".join(c for c, n in zip(term, shape, strict=True) if n == lengths[c] and (ones or n > 1))
        for term, shape in zip(terms, shapes, strict=True)
    ]
    kept = ["".join(c for c in term if c in result + other) for term, other in zip(own, own[::-1], strict=True)]
    if not ones:
        kept = ["".join(dict.fromkeys(term)) for term in kept]
        result = "".join(c for c in result if lengths[c] > 1)
    steps: list[Step] = []
    reads: list[Any] = []
    for array, shape, before, after in zip(arrays, shapes, own, kept, strict=True):
        left, remaining = (tuple(lengths[c] for c in letters) for letters in (before, after))
        if left != remaining:
            summed = Reduce(array_shape(left if ones else shape), array_shape(remaining), "sum")
            steps.append(Step(summed, (array,)))
        reads.append(array if left == remaining else steps[-1])
    sizes = tuple(tuple(lengths[c] for c in term) for term in kept)
    if all(sizes):
        op: Operator = Einsum(f"{','.join(kept)}->{result}", sizes)
        if ones or op.output or op.macs:
            return [*steps, Step(op, tuple(reads), facts=known)]
    require(not ones, f"an Einstein sum must have axes to multiply along, got {equation[:80]!r}")
    return [*steps, Step(Multiply(tuple(map(array_shape, sizes))), tuple(reads))]


def written_out(equation: str, axes: tuple[int, ...]) -> tuple[list[str], str]:
    """Return the letters of each array of so many axes and of the result, with letters for the ellipsis.

    >>> written_out("...ij,...jk", (3, 2))
    (['aij', 'jk'], 'aik')
    """
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    require(len(terms) == len(axes), f"equation must have {len(axes)} terms, got {equation[:80]!r}")
    hidden = [
        max(count - len(term.replace("...", "")), 0) if "..." in term else 0
        for term, count in zip(terms, axes, strict=True)
    ]
    longest = max(hidden)
    dots = "".join([letter for letter in ascii_letters if letter not in equation][:longest])
    require(len(dots) >= longest, f"equation must leave {longest} letters for '...', got {equation[:80]!r}")
    full = [term.replace("...", dots[longest - count :], 1) for term, count in zip(terms, hidden, strict=True)]
    fits = tuple(map(len, full)) == axes
    require(fits, f"equation must fit arrays of {axes} axes, got {equation[:80]!r}")
    if not arrow:
        times = Counter(left)
        result = "..." + "".join(c for c in sorted(times) if c.isalpha() and times[c] == 1)
    return full, result.replace("...", dots, 1)


def attention(
    arrays: tuple[Any, Any, Any],
    shapes: tuple[Shape, Shape, Shape],
    mask: tuple[Any, Shape] | None,
    by_rows: bool = False,
    causal: bool = False,
) -> list[Step]:
    """Return softmax(query @ key^T [+ mask]) @ value, of arrays (..., length, features).

    The mask has its shape beside it. `by_rows`: the softmax's first axis is the batch. `causal`: later are masked.
    """
    query, key, value = shapes
    turned = (*key[:-2], key[-1], key[-2])
    steps = [Step(MatMul(query, turned), arrays[:2], facts=facts(scaled=True, causal=causal))]
    if mask is not None:
        steps.append(Step(Add((steps[-1].op.output, mask[1])), (steps[-1], mask[0])))
    scores = steps[-1].op.output
    batch, sample = rows(scores) if by_rows else (1, scores)
    steps.append(Step(Softmax(sample, scores[-1]), (steps[-1],), batch=batch))
    return [*steps, Step(MatMul(scores, value), (steps[-1], arrays[2]))]
