"""Train every member of a small space and write what all networks say to one file, the tabular benchmark.

    python bench/make_table.py --seeds 0            # bench/micro-digits.h5: 648 members, 216 static ones, each once
    python bench/make_table.py --recipe paper       # bench/micro-digits-paper.h5
    python bench/make_table.py --units 20           # 20 of its 432 backbones now; the next call goes on
    python bench/make_table.py --recipe paper --gamma 0 --out bench/micro-digits-nopeak.h5

Each backbone is on disk as soon as it is trained (in a folder named as the file, with the ending .parts), so
the command may be killed and given again. What the file holds is in `nachos_min/nas/tabular.py`; a search uses
it with `python -m nachos_min search --space micro --table bench/micro-digits.h5`.
"""

import sys
import time
from pathlib import Path
from typing import Any

from fire import Fire
from measuring import machine, on_threads


def main(
    data: str = "digits",
    space: str = "micro",
    seeds: Any = (0, 1),
    max_macs: int | None = 40_000,
    workers: int = 2,
    out: str = "",
    units: int | None = None,
    recipe: str = "deep",
    **values: Any,
) -> None:
    """Print where the table is, or how far it is.

    Args:
        data: name or file.
        space: name or file.
        seeds: each trains every member once.
        max_macs: limit in the cost term of the loss.
        workers: processes that train.
        out: file to write; bench/SPACE-DATA.h5 unless given.
        units: stop after this many backbones.
        recipe: deep or paper, with all that a search by it has.
        values: what differs from the recipe's usual values, such as --beta 2 or --gamma 0.
    """
    on_threads(1)
    from asked import configuration
    from tabulation import tabulate

    import nachos_min
    from nachos_min.eenn.recipes import DeepRecipe
    from nachos_min.nas.configuration import Configuration
    from nachos_min.nas.limits import Limits

    name = f"{Path(space).stem}-{Path(data).stem}{'' if recipe == 'deep' else f'-{recipe}'}.h5"
    file = Path(out) if out else Path(__file__).parent / name
    if recipe == "deep":
        asked = Configuration(data, space, Limits(max_macs, 0.0), seed=0, recipe=DeepRecipe(**values))
    else:
        asked = configuration(data, space, max_macs, recipe=values)
    begin, last = time.monotonic(), 0.0

    def tell(found: int, trained: int, wanted: int) -> None:
        nonlocal last
        now = time.monotonic()
        left = (now - begin) / trained * (wanted - found - trained)
        if now - last > 10 or left == 0:
            last = now
            line = f"{found + trained} of {wanted} backbones, {now - begin:.0f} s, all in {left:.0f} s more"
            print(line, file=sys.stderr, flush=True)

    numbers = tuple(seeds) if isinstance(seeds, tuple | list) else (seeds,)
    passing = ("load", "threads", "torch")
    versions = {"nachos_min": nachos_min.__version__} | {k: v for k, v in machine(1).items() if k not in passing}
    if tabulate(asked, numbers, file, workers=workers, versions=versions, on_progress=tell, units=units):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    else:
        print(f"{file} is not finished; the same command goes on")


if __name__ == "__main__":
    Fire(main)
