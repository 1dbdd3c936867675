"""The map of the house in nachos_min/README.md: one line a file, made from the files' first lines.

    python bench/house_map.py            # write the map
    python bench/house_map.py --check    # exit 1 if it is not what would be written

Lines are rounded to ten. What stands outside the two marks of a section is written by hand.
"""

import ast
import re
import sys
from pathlib import Path

from fire import Fire

ROOT = Path(__file__).parents[1]
README = ROOT / "nachos_min" / "README.md"
# Each room, from the bottom of the house to its top.
ROOMS = {
    "kernels/nachos_kernels": "loops over arrays",
    "nachos_min/autograd": "what a derivative is",
    "nachos_min/nn": "layers, and how they learn",
    "nachos_min/macs": "counting from shapes alone",
    "nachos_min/macs/conventions": "what other tools would count",
    "nachos_min/macs/readers": "anyone's network as a graph of records",
    "nachos_min/data": "images and labels",
    "nachos_min/store": "a run on disk",
    "nachos_min/eenn": "early-exit networks",
    "nachos_min/nas": "the search",
    "nachos_min/nas/surrogates": "cheap predictions of a network's figures",
    "nachos_min/report": "what people look at",
    "nachos_min/export": "the network out",
    "nachos_min": "the command line",
}
# In this order they tell the whole method, and nothing twice.
MUST_READ = (
    "tests/test_tiny.py",
    "nachos_min/autograd/tape.py",
    "nachos_min/autograd/arithmetic.py",
    "nachos_min/autograd/convolution.py",
    "kernels/nachos_kernels/conv2d.py",
    "nachos_min/autograd/normalization.py",
    "kernels/nachos_kernels/inverted_residual.py",
    "nachos_min/nn/blocks.py",
    "nachos_min/macs/count.py",
    "nachos_min/eenn/architecture.py",
    "nachos_min/eenn/lowering.py",
    "nachos_min/eenn/network.py",
    "nachos_min/eenn/confidence.py",
    "nachos_min/eenn/losses.py",
    "kernels/nachos_kernels/exits_loss.py",
    "nachos_min/eenn/training.py",
    "nachos_min/eenn/inference.py",
    "nachos_min/eenn/thresholds.py",
    "nachos_min/eenn/threshold_search.py",
    "nachos_min/nas/space.py",
    "nachos_min/nas/genome.py",
    "nachos_min/nas/limits.py",
    "nachos_min/nas/sampling.py",
    "nachos_min/nas/evaluate.py",
    "nachos_min/nas/surrogates/surrogate.py",
    "nachos_min/nas/nsga2.py",
    "nachos_min/nas/aims.py",
    "nachos_min/nas/nachos.py",
)


def main(check: bool = False) -> None:
    """Write the map, or say whether it is up to date."""
    old = README.read_text(encoding="utf-8")
    new = section(section(old, "must-read path", must_read()), "map", house_map())
    if not check:
        README.write_text(new, encoding="utf-8")
    elif new != old:
        sys.exit("nachos_min/README.md: the map is out of date; run python bench/house_map.py")


def section(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the marks of section `name`."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    if len(re.findall(f"{start}.*?{end}", text, re.DOTALL)) != 1:
        sys.exit(f"{README.name} must have {start.strip()} and {end.strip()} once")
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}{content}{end}", text, flags=re.DOTALL)


def house_map() -> str:
    """Return a table of the files of each room, and the sums."""
    parts, total = [], 0
    for room, idea in ROOMS.items():
        files = sorted(path for path in (ROOT / room).glob("*.py") if path.name != "__init__.py")
        total += sum(map(lines_of, (ROOT / room).glob("*.py")))
        rows = [f"| `{path.name}` | {rounded(lines_of(path))} | {first_line(path)} |\n" for path in files]
        parts.append(f"\n**`{room}/`: {idea}**\n\n| file | lines | |\n| --- | ---: | --- |\n{''.join(rows)}")
    missing = {path.parent.relative_to(ROOT).as_posix() for path in sources()} - set(ROOMS)
    if missing:
        sys.exit(f"ROOMS of {Path(__file__).name} must list {', '.join(sorted(missing))}")
    files = sum(1 for _ in sources())
    return f"{''.join(parts)}\n{files} files with the packages' `__init__.py`, {rounded(total):,} lines.\n"


def must_read() -> str:
    """Return a numbered table of the files that tell the whole method."""
    rows = [
        f"| {number} | `{name}` | {rounded(lines_of(ROOT / name))} | {first_line(ROOT / name)} |\n"
        for number, name in enumerate(MUST_READ, 1)
    ]
    total = rounded(sum(lines_of(ROOT / name) for name in MUST_READ))
    return f"| | file | lines | |\n| ---: | --- | ---: | --- |\n{''.join(rows)}| | | {total:,} | |\n"


def sources() -> list[Path]:
    """Return all files of the product."""
    return [path for room in ("nachos_min", "kernels/nachos_kernels") for path in (ROOT / room).rglob("*.py")]


def lines_of(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def rounded(lines: int) -> int:
    """Return `lines` to the nearest ten, at least 10."""
    return max(10, round(lines, -1))


def first_line(path: Path) -> str:
    """Return the first line of a file's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    Fire(main)
