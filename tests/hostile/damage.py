"""What damage there is: of bytes, names and numbers."""

from random import Random
from typing import Any

# fmt: off
NAMES = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nb", "a\r\nb: forged", "\x00", "\x7f\x80\x9b31m", "\u202eabc",
    "\u2028x", "n" * 300, "n" * 100_000, "\U000e0041", "", " ", ".", "..", "../beside/kept.h5", "/no/such/file",
    "a/b", "-x", "--json", "%s%n{0}", "${HOME}", "`id`", "None", "nan",
    "[red]markup[/red]", "[/]", "a" + "\u0301" * 50,
    "\ufdfa" * 20, "<script>",
]
NUMBERS = [
    0, 1, -1, 2, 3, 7, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**63,
    2**64, -(2**31), -(2**63), 10**18, 10**30, 10**400,
]
# fmt: on
FLOATS = [0.0, -0.0, 1e-320, 1e-45, 0.5, 1e38, 3.5e38, 1e300, -1e300, float("inf"), float("-inf"), float("nan")]


def damaged(rng: Random, content: bytes) -> bytes:
    """Return `content` with one to three places flipped, cut, doubled, zeroed, filled or moved; not as it was."""
    made = bytearray(content)
    while bytes(made) == content:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _damage_once(rng, made)
    return bytes(made)


def _damage_once(rng: Random, made: bytearray) -> None:
    size = len(made)
    begin = (
        rng.randrange(size + 1) if rng.random() < 0.6 else rng.randrange(min(size, 600) + 1)
    )  # headers stand in front
    end = min(size, begin + rng.choice((1, 1, 2, 4, 8, 64, 1000, size)))
    match rng.randrange(9):
        case 0 | 1 if begin < size:
            made[begin] ^= 1 << rng.randrange(8)
        case 2:
            del made[begin:]
        case 3:
            del made[begin:end]
        case 4:
            made[begin:begin] = made[begin:end]
        case 5:
            made[begin:end] = bytes(end - begin)
        case 6:
            made[begin:end] = b"\xff" * (end - begin)
        case 7:
            made[begin:begin] = rng.randbytes(rng.choice((1, 4, 100)))
        case _:
            other = rng.randrange(size + 1)
            made[begin:end] = made[other : other + end - begin]


def name(rng: Random) -> str:
    """Return a name that is no ordinary one."""
    return (
        rng.choice(NAMES)
        if rng.random() < 0.9
        else "".join(chr(rng.randrange(1, 0xD800)) for _ in range(rng.randrange(1, 40)))
    )


def number(rng: Random) -> int:
    """Return a whole number near the end of some type, or small."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.randrange(-10, 100)


def value(rng: Random, depth: int = 0) -> Any:
    """Return a value as JSON has them: of any type, perhaps nested."""
    match rng.randrange(9 if depth < 3 else 6):
        case 0:
            return number(rng)
        case 1:
            return rng.choice(FLOATS)
        case 2 | 3:
            return name(rng)
        case 4:
            return rng.choice((None, True, False))
        case 5:
            return rng.choice(([], {}, "", [[]]))
        case 6:
            return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
        case 7:
            return [number(rng)] * rng.choice((1, 10, 10_000))
        case _:
            return {name(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def changed(rng: Random, record: Any) -> Any:
    """Return a nested record with one place, drawn at random, of another value, removed, doubled or renamed."""
    if isinstance(record, dict) and record and rng.random() < 0.85:
        key = rng.choice(list(record))
        match rng.randrange(8):
            case 0:
                return {each: inner for each, inner in record.items() if each != key}
            case 1:
                return record | {name(rng): value(rng)}
            case 2:
                return {name(rng) if each == key else each: inner for each, inner in record.items()}
            case _:
                return record | {key: changed(rng, record[key])}
    if isinstance(record, list | tuple) and record and rng.random() < 0.85:
        place = rng.randrange(len(record))
        match rng.randrange(6):
            case 0:
                made = [*record[:place], *record[place + 1 :]]
            case 1:
                made = [*record[:place], *[record[place]] * rng.choice((2, 2, 1000)), *record[place + 1 :]]
            case _:
                made = [*record[:place], changed(rng, record[place]), *record[place + 1 :]]
        return type(record)(made)
    if isinstance(record, int) and rng.random() < 0.6:
        return number(rng)
    return name(rng) if isinstance(record, str) and rng.random() < 0.6 else value(rng)
