"""Hostile tables of numbers, and texts in general."""

from pathlib import Path
from random import Random

from hostile.cases import REFUSED, Case, hostile
from hostile.damage import FLOATS, damaged, name, number
from hostile.lines import special, write
from hostile.valid import samples, valid


def rows() -> list[list[str]]:
    images, labels = samples()
    return [
        [*map(str, image.ravel()[:6].tolist()), str(label)] for image, label in zip(images, labels, strict=True)
    ]


def joined(table: list[list[str]], separator: str = ",") -> bytes:
    return "\n".join(map(separator.join, table)).encode("utf-8", "surrogatepass") + b"\n"


@hostile("csv", share=2)
def flipped(rng: Random, folder: Path) -> Case:
    header = [[*"abcdef", "label"]] if rng.random() < 0.5 else []
    return Case(write(rng, folder, ".csv", damaged(rng, joined(header + rows(), rng.choice(",;\t")))))


@hostile("csv", share=3)
def cells(rng: Random, folder: Path) -> Case:
    """One cell or header of another kind."""
    table = [[*"abcdef", "label"], *rows()] if rng.random() < 0.6 else rows()
    for _ in range(rng.choice((1, 1, 5))):
        numbers = [
            "1e5",
            "1_0",
            "0x1",
            "1" * 5000,
            "1" * 1_000_000,
            "\u0661\u0662",
            " 1 ",
            "1.5.5",
            "--1",
            "\ufeff1",
        ]
        texts = [name(rng), str(number(rng)), str(rng.choice(FLOATS)), '"', '"a,b"', "True", "=cmd()"]
        value = rng.choice(numbers + texts)
        row = table[rng.randrange(len(table))]
        row[rng.randrange(len(row))] = value
    return Case(write(rng, folder, ".csv", joined(table, rng.choice(",;\t")), search=0.02))


@hostile("csv", share=2)
def shapes(rng: Random, folder: Path) -> Case:
    """Rows of different lengths, many columns, other encodings, nothing at all."""
    table = rows()
    match rng.randrange(8):
        case 0:
            content = joined([*table, table[0] * rng.choice((2, 1000)), [], table[0][:2]])
        case 1:
            content = joined([[*row[:-1] * rng.choice((1000, 20_000)), row[-1]] for row in table[:6]])
        case 2:
            content = joined(table).decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "cp037")))
        case 3:
            content = rng.choice((b"", b"\n", b"\n" * 100_000, b"," * 1_000_000, b"\0" * 1000, b"\r" * 1000, b'"'))
        case 4:
            content = joined([[name(rng) for _ in row] for row in table])
        case 5:
            content = joined([[name(rng)[:500] for _ in range(7)], *table])
        case 6:
            content = joined([[*row[:-1], (name(rng) or "x")[:250]] for row in table])
        case _:
            content = joined([rng.choice((["label"] * 7, ["y", "label", "x", "x", "x", "", ""])), *table])
    return Case(write(rng, folder, ".csv", content))


@hostile("csv")
def no_file(rng: Random, folder: Path) -> Case:
    special(rng, folder / "own.csv", valid("own.npz"))
    return Case(["data", "own.csv"], REFUSED)
