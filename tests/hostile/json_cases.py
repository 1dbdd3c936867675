"""Hostile texts: JSON targets of `macs`, and spaces in TOML."""

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import changed, damaged, name, number, value
from hostile.lines import SEARCH, file_name, special
from hostile.valid import SPACE, put, valid

GENOME: dict[str, Any] = {"space": "tiny", "genome": [0] * 25, "input": [1, 8, 8], "classes": 10}
CNAS: dict[str, Any] = {"ks": [3, 5, 5, 3, 7, 5, 3, 3, 3, 3], "e": [3] * 10, "d": [2] * 5, "r": 32}


@cache
def texts() -> tuple[str, ...]:
    """Return valid targets: an architecture, a genome, a configuration of CNAS."""
    import numpy as np

    from nachos_min.eenn.architecture import architecture_to_json
    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.space import load_space

    coder = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
    genome = coder.sample(np.random.default_rng(3))
    return (
        architecture_to_json(coder.decode(genome)),
        json.dumps(GENOME | {"genome": list(genome)}),
        json.dumps(CNAS),
    )


def of_target(rng: Random, name: str) -> list[str]:
    """Return a line that counts the target called `name`."""
    options = [[], [], ["--json"], ["--layers"], ["--input", "1,8,8"], ["--classes", "3"], ["--explain", "thop"]]
    return ["macs", name, *rng.choice(options)]


def target(rng: Random, folder: Path, content: bytes, expected: str = EITHER) -> Case:
    path = file_name(rng, ".json", "net")
    (folder / path).write_bytes(content)
    return Case(of_target(rng, path), expected)


@hostile("json", share=2)
def flipped(rng: Random, folder: Path) -> Case:
    return target(rng, folder, damaged(rng, rng.choice(texts()).encode()))


@hostile("json", share=4)
def fields(rng: Random, folder: Path) -> Case:
    """One or a few fields of another value."""
    made = json.loads(rng.choice(texts()))
    for _ in range(rng.choice((1, 1, 1, 3))):
        made = changed(rng, made)
    try:
        text = json.dumps(made)
    except ValueError:  # an integer of more than 4,300 digits
        text = "{}"
    return target(rng, folder, text.encode())


@hostile("json", share=2)
def lexical(rng: Random, folder: Path) -> Case:
    """Nesting, repetition, encodings, long names and numbers."""
    text, deep = rng.choice(texts()), rng.choice((100, 990, 5000, 100_000))
    member = rng.choice(("input", "classes", "stem", "genome", "ks", "e"))
    match rng.randrange(9):
        case 0:
            content = "[" * deep + "]" * rng.choice((0, deep))
        case 1:
            content = text.replace("{", '{"a": ' + '{"a":' * deep + "1" + "}" * deep + ", ", 1)
        case 2:
            twice = f'{{"{member}": {json.dumps(value(rng), default=str)[:1000]}, ' if number(rng) < 2**70 else "{"
            return target(rng, folder, text.replace("{", twice, 1).encode("utf-8", "replace"))
        case 3:
            return target(rng, folder, text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig"))), EITHER)
        case 4:
            content = text.replace(
                "10", rng.choice(("1" * 5000, "1e999", "NaN", "-Infinity", "0x10", "10.0", "1e1")), 1
            )
        case 5:
            content = text.replace("{", "{" + json.dumps(name(rng) * rng.choice((1, 20))) + ": 1, ", 1)
        case 6:
            content = json.dumps({name(rng): number(rng) % 10**9 for _ in range(rng.choice((1, 50)))})
        case 7:
            content = rng.choice(("", "null", "3", '"x"', "[]", "{}", " " * 10**6, '{"a":1}{"b":2}', "{" * 10**6))
        case _:
            content = "[" + "1," * rng.choice((10**5, 4 * 10**6)) + "1]"
    return target(rng, folder, content.encode("utf-8", "surrogatepass"))


@hostile("json")
def no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "net.json", valid("own.npz"))
    return Case(["macs", "net.json"], REFUSED)


# TOML


def toml(made: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(made, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in made.items()) + "}"
    if isinstance(made, list):
        return "[" + ", ".join(map(toml, made)) + "]"
    if isinstance(made, str):
        return json.dumps(made)
    return (
        {None: '""', True: "true", False: "false"}.get(made, str(made))
        if not isinstance(made, int) or isinstance(made, bool)
        else hex(made)
        if made > 0
        else str(made % -(2**70))
    )


def space(rng: Random, folder: Path, content: bytes, expected: str = EITHER) -> Case:
    """Write a space; return a count of its first member, or rarely a search."""
    path = file_name(rng, ".toml", "space")
    (folder / path).write_bytes(content)
    if rng.random() < 0.03:
        put(folder, "own.npz")
        return Case([path if word == "micro" else word for word in (*SEARCH, "--data", "own.npz")], expected)
    genome = GENOME | {"space": path, "genome": [0] * rng.choice((7, 7, 7, 9))}
    (folder / "net.json").write_text(json.dumps(genome))
    return Case(of_target(rng, "net.json"), expected)


@hostile("toml", share=2)
def toml_flipped(rng: Random, folder: Path) -> Case:
    return space(rng, folder, damaged(rng, SPACE.encode()))


@hostile("toml", share=4)
def toml_fields(rng: Random, folder: Path) -> Case:
    import tomllib

    made = tomllib.loads(SPACE)
    for _ in range(rng.choice((1, 1, 1, 3))):
        made = changed(rng, made)
    made = made if isinstance(made, dict) else {"depths": made}
    lines = "\n".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in made.items())
    return space(rng, folder, lines.encode("utf-8", "surrogatepass"))


@hostile("toml", share=2)
def toml_lexical(rng: Random, folder: Path) -> Case:
    many = rng.choice((100, 2000, 20_000, 200_000))
    brace = "{a = " * min(many, 2000) + "1" + "}" * min(many, 2000)
    odd = rng.choice([
        ".".join("a" * many) + " = 1", "[" + ".".join("a" * many) + "]", "a = " + "[" * many + "]" * many, "\ufeff",
        "divisor = 0x" + "f" * many, "divisor = " + "9" * many, "a = " + brace, "[stem]\na = 1", "depths = [1]",
        "\n".join(f"[a{each}]" for each in range(many)), "\n".join(f"a.b{each} = 1" for each in range(many)),
        "[[stages]]\n" * many, "a = '" + "x" * many + "'", "a = 1979-05-27T07:32:00Z", "depths = [nan]", "a = inf",
        "stages = []", "divisor = 1e1000", f"{json.dumps(name(rng))} = 1", "a = \x00", "a = 1.0e-" + "9" * many,
        "description = " + json.dumps(name(rng)), "a = \"\"\"" + "x" * many, "#" + "\x1b" * many,
        "depths = [" + "1," * many + "]", "description = [" + "0.1," * many + "]",
    ])  # fmt: skip
    parts = [SPACE, odd] if rng.random() < 0.6 else [odd, SPACE]
    return space(
        rng,
        folder,
        "\n".join(parts).encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace"),
    )


@hostile("toml")
def toml_no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "space.toml", valid("own.npz"))
    (folder / "net.json").write_text(json.dumps(GENOME | {"space": "space.toml"}))
    return Case(["macs", "net.json"], REFUSED)
