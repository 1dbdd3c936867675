"""Rules of attention, as ONNX has it and as ONNX Runtime fuses it (domain com.microsoft).

A causal mask or a window does not lessen the count. Of a cache that is a buffer, the keys that are filled count.

Source: the operator references of ONNX and ONNX Runtime (ContribOperators.md).
"""

from collections.abc import Sequence
from dataclasses import replace

from nachos_min.macs import ops
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import array_shape, require
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, rule
from nachos_min.macs.record import CountError


@rule("Attention")
def _attention(call: Call, query: Array, key: Array, value: Array) -> tuple[Array, ...]:
    """Return scaled dot product attention, keys and values with those of a cache before them, and the scores."""
    flat = len(query.shape) == 3
    if flat:
        query = _heads(call, query, call.get("q_num_heads", 0))
        key, value = (_heads(call, array, call.get("kv_num_heads", 0)) for array in (key, value))
    key, value = (_cached(call, call.optional(index), array, index) for index, array in ((4, key), (5, value)))
    made, scores = _attend(call, query, key, value, call.optional(3))
    return _together(call, made) if flat else made, key, value, scores


@rule("~MultiHeadAttention")
def _multi_head(call: Call) -> tuple[Array, ...]:
    """Return attention of arrays (N, L, features), or of one that has all three, with biases added before."""
    arrays = [array for array in map(call.optional, (0, 1, 2)) if array is not None]
    count, bias = call.get("num_heads", 0), call.optional(3)
    if len(arrays[-1].shape) == 5:  # (N, L, heads, 2 or 3, features)
        samples, length, heads, parts, size = arrays.pop().shape
        whole, shape = call.input(len(arrays)), (samples, heads, length, size)
        arrays += [call.move(shape, None, whole, part=part) for part in range(parts)]
    require(len(arrays) == 3, f"queries, keys and values must be given, got {len(call.inputs)} inputs")
    for place, array in enumerate(arrays):
        if bias is not None and len(array.shape) == 3:
            array = call.elementwise((array, call.move(array.shape[2:], None, bias, part=place)), ops.Add)
        arrays[place] = _heads(call, array, count) if len(array.shape) == 3 else array
    key, value = (_cached(call, call.optional(index + 5), arrays[index], index + 5) for index in (1, 2))
    made, scores = _attend(call, arrays[0], key, value, call.optional(5))
    return _together(call, made), key, value, scores


@rule("~GroupQueryAttention")
def _group_query(call: Call) -> tuple[Array, ...]:
    """Return attention whose heads share keys and values; input 7 says how many keys there are with the cache."""
    count, shared, past = call.get("num_heads", 0), call.get("kv_num_heads", 0), call.optional(3)
    arrays: Sequence[Array] = call.given()[:3]
    if call.optional(1) is None:
        arrays = _parted(call, call.input(), (count, shared, shared))
    query, key, value = (_heads(call, x, n) for x, n in zip(arrays, (count, shared, shared), strict=True))
    if call.get("do_rotary", 0):
        query, key = (_rotated(call, x, 2 * call.input(7).shape[-1]) for x in (query, key))
    require(call.optional(14) is None and call.optional(15) is None, "no rule for norms of queries and keys")
    length = key.shape[2]
    total = call.input(6).fixed if past is not None and past.elements else length
    if total is None:
        raise CountError(f"how much of its cache is filled depends on the data, got input 7 {call.input(6).shape}")
    room = max(total, 0 if past is None else past.shape[2])
    both = zip((key, value), (past, call.optional(4)), strict=True)
    filled = [_cached(call, before, x, 3 + place, total) for place, (x, before) in enumerate(both)]
    made, _ = _attend(call, query, filled[0], filled[1], call.optional(10))
    kept = [x if room == total else call.move((*x.shape[:2], room, x.shape[3]), None, x) for x in filled]
    return _together(call, made), *kept


@rule("~Attention")
def _projected(call: Call, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
    """Return attention of what a linear layer makes of (N, L, features), and its keys and values in one array."""
    past = call.optional(4)
    require(not call.get("past_present_share_buffer", 0), "no rule for a cache that is a buffer")
    axes = len(x.shape) == 3 and len(weight.shape) == 2 and x.shape[2] == weight.shape[0]
    require(axes, f"weights must fit (N, L, features), got {x.shape} and {weight.shape}")
    count, width = call.get("num_heads", 0), weight.shape[1]
    own = tuple(each.weight for each in (weight, bias) if each is not None)
    op = ops.Linear(x.shape[1:], width, bias is not None)
    made = call.add(op, (x,), (*x.shape[:2], width), x.shape[0], own)
    parts = _parted(call, made, call.get("qkv_hidden_sizes", (1, 1, 1)))
    query, key, value = (_heads(call, part, count) for part in parts)
    if call.get("do_rotary", 0):
        query, key = (_rotated(call, each, each.shape[3]) for each in (query, key))
    if past is not None:
        halves = [call.move(past.shape[1:], None, past, part=part) for part in (1, 2)]
        key, value = (_cached(call, halves[i], x, 3 + i) for i, x in enumerate((key, value)))
    out, _ = _attend(call, query, key, value, call.optional(5))
    present = call.move((2, *key.shape), None, key, value) if call.outputs > 1 else key
    return _together(call, out), present


@rule("~QAttention")
def _quantised(call: Call) -> Array | tuple[Array, ...]:
    inputs = tuple(call.optional(index) for index in (0, 1, 2, 5, 8))
    return RULES["com.microsoft.Attention"](replace(call, inputs=inputs))


def _parted(call: Call, array: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Return parts of the last axis, whose lengths are as `sizes` are to one another."""
    whole = array.shape[-1] if array.shape else 0
    each = whole // (sum(sizes) or 1)
    fits = each * sum(sizes) == whole and len(sizes) == 3 and min(sizes) > 0
    require(fits, f"queries, keys and values must share {whole} features, got {sizes[:8]}")
    shapes = ((*array.shape[:-1], size * each) for size in sizes)
    return [call.move(shape, None, array, part=10 + place) for place, shape in enumerate(shapes)]


def _cached(call: Call, before: Array | None, array: Array, part: int, total: int | None = None) -> Array:
    """Return keys or values (N, heads, L, features) with those of a cache before them, `total` in all."""
    if before is None:
        return array
    axes = len(array.shape) == len(before.shape) == 4
    fits = axes and (*before.shape[:2], before.shape[3]) == (*array.shape[:2], array.shape[3])
    require(fits, f"a cache must fit {array.shape}, got {before.shape}")
    length = before.shape[2] + array.shape[2] if total is None else total
    return call.move((*array.shape[:2], length, array.shape[3]), None, before, array, part=part)


def _attend(call: Call, query: Array, key: Array, value: Array, mask: Array | None) -> tuple[Array, Array]:
    """Return attention of (N, heads, L, features), in which heads may share keys and values, and its scores."""
    if not len(query.shape) == len(key.shape) == len(value.shape) == 4:
        got = f"{query.shape}, {key.shape}, {value.shape}"
        raise CountError(f"queries, keys and values must have 3 or 4 axes, got {got}")
    count, shared = query.shape[1], key.shape[1]
    divides = shared >= 1 and count % shared == 0
    require(divides, f"{count} heads of queries must be a multiple of those of keys, got {shared}")
    turned = (key.shape[0], shared, key.shape[3], key.shape[2])
    key = call.move(turned, None, key, part=20)
    if count != shared:
        key = call.move((key.shape[0], count, *key.shape[2:]), None, key, part=21)
        many = value.shape[1] * (count // shared)
        value = call.move((value.shape[0], many, *value.shape[2:]), None, value, part=22)
    length = key.shape[3]
    if mask is not None and mask.shape and 1 < mask.shape[-1] < length:  # the rest is left out
        mask = call.move((*mask.shape[:-1], length), None, mask)
    shapes = (query.shape, (*key.shape[:2], length, key.shape[2]), value.shape)
    masked = None if mask is None else (mask, array_shape(mask.shape))
    scores, *_, made = call.run(products.attention((query, key, value), shapes, masked, by_rows=True))
    return made, scores


def _together(call: Call, array: Array) -> Array:
    """Return (N, heads, L, features) as (N, L, heads * features)."""
    return call.move((array.shape[0], array.shape[2], array.shape[1] * array.shape[3]), None, array)


def _heads(call: Call, array: Array, count: int) -> Array:
    """Return (N, L, features) as (N, count, L, features / count)."""
    sound = count >= 1 and len(array.shape) == 3 and array.shape[2] % count == 0
    require(sound, f"heads must divide the last of 3 axes, got {count} of {array.shape}")
    return call.move((array.shape[0], count, array.shape[1], array.shape[2] // count), None, array)


@rule("RotaryEmbedding", "~RotaryEmbedding")
def _rotary(call: Call, x: Array) -> Array:
    """Return queries or keys turned by their places, of (N, heads, L, features) or (N, L, heads * features)."""
    count = call.get("num_heads", 0)
    flat = len(x.shape) == 3 and count > 0
    made = _rotated(call, _heads(call, x, count) if flat else x, call.get("rotary_embedding_dim", 0))
    return replace(made, shape=x.shape)


def _rotated(call: Call, x: Array, part: int) -> Array:
    """Return x * cos + turned x * sin, of the first `part` features of each head, of all if it is 0."""
    part = part or x.shape[-1]
    require(0 < part <= x.shape[-1], f"rotary_embedding_dim must be 0 to {x.shape[-1]}, got {part}")
    whole, shape = part == x.shape[-1], (*x.shape[:-1], part)
    taken = x if whole else call.move(shape, None, x)
    made = call.elementwise(tuple(call.elementwise((taken,), ops.Multiply) for _ in range(2)), ops.Add)
    return made if whole else call.move(x.shape, None, made, x)
