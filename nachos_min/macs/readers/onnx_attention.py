"""Rules of attention, as ONNX has it and as ONNX Runtime fuses it (domain com.microsoft).

A causal mask or a window does not lessen the count. Of a cache that is a buffer, the keys that are filled count.

Source: the operator references of ONNX and ONNX Runtime (ContribOperators.md).
"""

from collections.abc import Sequence

from nachos_min.macs import ops
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import array_shape, require
from nachos_min.macs.readers.onnx_call import Array, Call, layer_weights, rule
from nachos_min.macs.record import CountError


@rule("Attention")
def _attention(call: Call, query: Array, key: Array, value: Array) -> tuple[Array, ...]:
    """Return scaled dot product attention, keys and values with those of a cache before them, and the scores."""
    heads, cache = (call.get("q_num_heads", 0), call.get("kv_num_heads", 0)), (call.optional(4), call.optional(5))
    made, *others = _attend(call, (query, key, value), heads, cache, call.optional(3))
    return _together(call, made) if len(query.shape) == 3 else made, *others


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
            own = call.move(array.shape[2:], None, bias, part=place)
            arrays[place] = call.elementwise((array, own), ops.Add)
    cache = (call.optional(6), call.optional(7))
    made, *others = _attend(call, arrays, (count, count), cache, call.optional(5))
    return _together(call, made), *others


@rule("~GroupQueryAttention")
def _group_query(call: Call, query: Array) -> tuple[Array, ...]:
    """Return attention whose heads share keys and values; input 7 says how many keys there are with the cache."""
    count, shared, past = call.get("num_heads", 0), call.get("kv_num_heads", 0), call.optional(3)
    packed = call.optional(1) is None
    arrays = _parted(call, query, (count, shared, shared)) if packed else [query, call.input(1), call.input(2)]
    if call.get("do_rotary", 0):
        each = 2 * call.input(7).shape[-1]
        arrays[:2] = [_rotated(call, x, each, heads) for x, heads in zip(arrays, (count, shared), strict=False)]
    require(call.optional(14) is None and call.optional(15) is None, "no rule for norms of queries and keys")
    total = call.input(6).fixed if past is not None and past.elements else arrays[1].shape[-2]
    if total is None:
        raise CountError(f"how much of its cache is filled depends on the data, got input 7 {call.input(6).shape}")
    room, cache = max(total, 0 if past is None else past.shape[2]), (past, call.optional(4))
    made, *filled, _ = _attend(call, arrays, (count, shared), cache, call.optional(10), total)
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
    op = ops.Linear(x.shape[1:], width, bias is not None)
    made = call.add(op, (x,), (*x.shape[:2], width), x.shape[0], layer_weights(weight, bias))
    arrays = _parted(call, made, call.get("qkv_hidden_sizes", (1, 1, 1)))
    if call.get("do_rotary", 0):
        arrays[:2] = [_rotated(call, each, 0, count) for each in arrays[:2]]
    cache = [past and call.move(past.shape[1:], None, past, part=part) for part in (1, 2)]
    out, key, value, _ = _attend(call, arrays, (count, count), cache, call.optional(5))
    present = call.move((2, *key.shape), None, key, value) if call.outputs > 1 else key
    return _together(call, out), present


def _parted(call: Call, array: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Return parts of the last axis, whose lengths are as `sizes` are to one another."""
    whole = array.shape[-1] if array.shape else 0
    each = whole // (sum(sizes) or 1)
    fits = each * sum(sizes) == whole and len(sizes) == 3 and min(sizes) > 0
    require(fits, f"queries, keys and values must share {whole} features, got {sizes[:8]}")
    shapes = ((*array.shape[:-1], size * each) for size in sizes)
    return [call.move(shape, None, array, part=10 + place) for place, shape in enumerate(shapes)]


def _heads(call: Call, array: Array, count: int) -> Array:
    """Return (N, L, features) as (N, count, L, features / count); an array of four axes has heads already."""
    if len(array.shape) == 4:
        return array
    sound = count >= 1 and len(array.shape) == 3 and array.shape[2] % count == 0
    require(sound, f"heads must divide the last of 3 axes, got {count} of {array.shape}")
    return call.move((array.shape[0], count, array.shape[1], array.shape[2] // count), None, array)


def _together(call: Call, array: Array) -> Array:
    """Return (N, heads, L, features) as (N, L, heads * features)."""
    return call.move((array.shape[0], array.shape[2], array.shape[1] * array.shape[3]), None, array)


def _attend(
    call: Call,
    arrays: Sequence[Array],
    heads: tuple[int, int],
    cache: Sequence[Array | None],
    mask: Array | None,
    total: int | None = None,
) -> tuple[Array, ...]:
    """Return attention of (N, heads, L, features), its keys and values with a cache before them, and its scores.

    Heads may share keys and values; `total`: how many keys are filled.
    """
    query, *both = (_heads(call, x, n) for x, n in zip(arrays, (*heads, heads[1]), strict=True))
    for place, before in enumerate(cache):
        if before is not None:
            samples, count, length, size = both[place].shape
            fits = len(before.shape) == 4 and (*before.shape[:2], before.shape[3]) == (samples, count, size)
            require(fits, f"a cache must fit {both[place].shape}, got {before.shape}")
            length = before.shape[2] + length if total is None else total
            both[place] = call.move((samples, count, length, size), None, before, both[place], part=3 + place)
    (samples, shared, length, size), (key, value), count = both[0].shape, both, query.shape[1]
    divides = shared >= 1 and count % shared == 0
    require(divides, f"{count} heads of queries must be a multiple of those of keys, got {shared}")
    key = call.move((samples, shared, size, length), None, key, part=20)
    if count != shared:
        key = call.move((samples, count, size, length), None, key, part=21)
        many = value.shape[1] * (count // shared)
        value = call.move((value.shape[0], many, *value.shape[2:]), None, value, part=22)
    if mask is not None and mask.shape and 1 < mask.shape[-1] < length:  # the rest is left out
        mask = call.move((*mask.shape[:-1], length), None, mask)
    masked = None if mask is None else (mask, array_shape(mask.shape))
    shapes = (query.shape, (samples, count, length, size), value.shape)
    scores, *_, made = call.run(products.attention((query, key, value), shapes, masked, by_rows=True))
    return made, *both, scores


@rule("RotaryEmbedding", "~RotaryEmbedding")
def _rotary(call: Call, x: Array) -> Array:
    heads = call.get("num_heads", 0) if len(x.shape) == 3 else 1
    return _rotated(call, x, call.get("rotary_embedding_dim", 0), heads or 1)


def _rotated(call: Call, x: Array, part: int, heads: int) -> Array:
    """Return x * cos + turned x * sin, of the first `part` features of each of its heads, of all if it is 0."""
    require(heads > 0 and x.shape[-1] % heads == 0, f"heads must divide the last axis of {x.shape}, got {heads}")
    whole = x.shape[-1] // heads
    part = part or whole
    require(0 < part <= whole, f"rotary_embedding_dim must be 0 to {whole}, got {part}")
    taken = x if part == whole else call.move((*x.shape[:-1], part * heads), None, x)
    made = call.elementwise(tuple(call.elementwise((taken,), ops.Multiply) for _ in range(2)), ops.Add)
    return made if part == whole else call.move(x.shape, None, made, x)
