"""Lines as nobody should type them: valid ones with words repeated, dropped, glued, misspelt, moved or replaced."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from hostile.cases import EITHER, REFUSED, Case, hostile
from hostile.damage import NAMES, number
from hostile.valid import TABLE, put

SEARCH = "--space micro --max-macs 1M --min-accuracy 0.5 --evaluations 3 --seed 1 --out made --beta 0 --json"
LINES = {
    "search": f"search --data nowhere.npz {SEARCH} --quiet --max-minutes 1 --max-exits 3",
    "data": "data own.npz --layout hwc --resolution 8 --json",
    "show": "show run --max-macs 1M --min-accuracy 0.2 --pick knee --json",
    "compare": "compare run run --json",
    "predict": "predict run#0 own.npz --split test --to made.csv --json",
    "export": "export run#0 --onnx made.onnx --npz made.npz --json",
    "retrain": "retrain run#0 --data nowhere.npz --epochs 2 --seeds 2 --workers 0 --out made --json --quiet",
    "report": "report run --to made.html",
    "plot": "plot run --to made.svg",
    "macs": "macs run#0 --convention thop --explain exact --layers --json",
}
# fmt: off
VALUES = [
    *(name for name in NAMES if "/" not in name and ".." not in name),
    "True", "false", "none", "-", "--", "=", "==", "-1", "-0", "+1", "1e400", "1e-400", "inf", "0x10", "1_000",
    "1,000", "1 000", " 1", "1 ", "'1'", '"1"', "[1]", "{}", "(1,2)", "٣", "\uff11\uff12", "²", "½", "1.", ".5",
    "5k", "K", "1" * 100_000 + "x", "9" * 300 + "G", "9" * 4301, "1" * 100_000, "0." + "0" * 5000 + "1",
    "1e" + "9" * 400, "m" * 1_000_000, "\udcff", "\ud800", "é", "-é", "--é", "знач", "\uff5e", "\u22121", "-x",
    "-seed", "---seed", "--seed=", "--no", "--nojson",
]
FLAGS = ["--seed", "--json", "--nojson", "--out", "--data", "--to", "--max-macs", "--time", "--table", "-s"]
# fmt: on


def twice(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    return words[:place] + words[place : place + rng.choice((1, 2))] * 2 + words[place + 2 :]


def without(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    return words[:place] + words[place + 1 :]


def moved(rng: Random, words: list[str]) -> list[str]:
    words = words.copy()
    words.insert(rng.randrange(len(words)), words.pop(rng.randrange(len(words))))
    return words


def glued(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    return [*words[:place], rng.choice(("=", "", "==", " ")).join(words[place : place + 2]), *words[place + 2 :]]


def replaced(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    return [*words[:place], strange(rng), *words[place + 1 :]]


def added(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words) + 1)
    return (
        words[:place]
        + rng.choice(([strange(rng)], [rng.choice(FLAGS)], [rng.choice(FLAGS), strange(rng)]))
        + words[place:]
    )


def valued(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    return [*words[:place], f"{words[place]}={strange(rng)}", *words[place + 1 :]]


def misspelt(rng: Random, words: list[str]) -> list[str]:
    place = rng.randrange(len(words))
    changes: list[Callable[[str], str]] = [str.upper, str.title, lambda word: word.replace("-", "_")]
    changes += [lambda word: "-" + word, lambda word: word[1:], lambda word: "--no" + word.lstrip("-")]
    changes += [lambda word: word[:-1], lambda word: word + word[-1:], lambda word: "--" + word]
    return [*words[:place], rng.choice(changes)(words[place]), *words[place + 1 :]]


def strange(rng: Random) -> str:
    """Return a text that few options take."""
    return str(number(rng)) if rng.random() < 0.2 else rng.choice(VALUES)


def line(rng: Random, name: str) -> list[str]:
    """Return a line of a command, changed in one to three places; `--data nowhere.npz` and its network stay."""
    ways = (twice, without, moved, glued, replaced, added, valued, misspelt)
    kept, words = [], LINES[name].split()[1:]
    if "nowhere.npz" in words:  # a search ends here at the latest
        kept, words = words[:2] if name == "search" else words[:3], words[2 if name == "search" else 3 :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        words = rng.choice(ways)(rng, words or ["--json"])
    words = [word for word in words if word not in ("-h", "--help")]
    return [name, *kept, *words]


@hostile("line", share=10)
def changed_line(rng: Random, folder: Path) -> Case:
    name = rng.choice(list(LINES))
    put(folder, "own.npz", *([] if name in ("search", "data") else ["run"]))
    words = line(rng, name)
    named = {part.split("/")[0] for word in words for part in (word, word.partition("=")[2])}
    changes = (named - {"run", "own.npz"}) | ({"run"} if name in ("report", "plot") else set())
    return Case(words, REFUSED if "nowhere.npz" in words else EITHER, changes=tuple(changes))


@hostile("line", share=2)
def figures(rng: Random, folder: Path) -> Case:
    """A search in a table, where nothing is trained, with one figure that is near the end of some type."""
    put(folder, "own.npz", "small.toml", "table.h5")
    option = rng.choice(
        ("max-macs", "min-accuracy", "evaluations", "seed", "margin", "max-exits", "max-params", "workers")
    )
    return Case([*TABLE, f"--{option}={strange(rng)}"], changes=("run",))
