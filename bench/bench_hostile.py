"""Thousands of malformed inputs: none may end in a traceback, a crash, a wrong result, or take long or much memory.

    python bench/bench_hostile.py                         # 20,000 cases of `tests/hostile/`, in two processes
    python bench/bench_hostile.py --only npz --cases 500  # of one class
    python bench/bench_hostile.py --only npz --case 123   # one case, with all that came of it

A case is known by seed, class and number. "Over 5 s" is time of the processor, or half a minute without an end;
"over 1 GB" is the memory of the whole process. Of a wrong acceptance the input was certainly broken, or the
result is not that of the undamaged input. An escape is a steering character, a refusal that is not one line of at
most 500 letters, or a file changed where nothing may be. Exit status 1 if there is any.
"""

import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fire import Fire

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from hostile import cases  # noqa: E402  (from a folder that is no package, named above)
from hostile.runner import judge  # noqa: E402  (as above)
from hostile.valid import MAKERS, valid  # noqa: E402  (as above)

WRONG = ("traceback", "over 5 s", "over 1 GB", "crash", "wrong acceptance", "escape")


def main(
    cases_: int = 20_000, seed: int = 0, only: str = "", case: int | None = None, workers: int = 2, shown: int = 20
) -> None:
    """Print a table by class, and failing cases with the command that repeats each."""
    counts = cases.numbers(cases_)
    if only:
        kinds = [only] if isinstance(only, str) else list(only)
        counts = {kind: cases_ // len(kinds) for kind in kinds}
    began, outcomes, bad = time.monotonic(), defaultdict[str, Counter[str]](Counter), []
    with tempfile.TemporaryDirectory() as parent:
        for name in MAKERS:
            valid(name)
        if case is not None:
            [(_, _, found)] = judge(seed, [(only, case)], Path(parent))
            print(json.dumps({"generator": cases.name_of(only, case)} | found, indent=2))
            sys.exit(bool(found["wrong"]))
        # Every child takes cases of all classes, so that what one class leaves in a process meets the others.
        every = sorted(
            ((number / count, kind, number) for kind, count in counts.items() for number in range(count))
        )
        parts = [[(kind, number) for _, kind, number in every[each::workers]] for each in range(workers)]

        def take(part: list[tuple[str, int]]) -> None:
            for kind, number, found in judge(seed, part, Path(parent)):
                count(outcomes[kind], found)
                if found["wrong"]:
                    bad.append((kind, number, found))
                    if len(bad) <= shown:
                        print(described(seed, kind, number, found), flush=True)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(take, parts))
    print(table(outcomes))
    done, minutes = sum(each["cases"] for each in outcomes.values()), (time.monotonic() - began) / 60
    print(f"{done:,} cases in {minutes:.1f} minutes")
    by = Counter(
        (kind, cases.name_of(kind, number), what) for kind, number, found in bad for what in found["wrong"]
    )
    for (kind, name, what), times in by.most_common():
        numbers = [
            number
            for of, number, found in bad
            if (of, cases.name_of(of, number)) == (kind, name) and what in found["wrong"]
        ]
        print(f"{times:5} {kind} {name}: {what}, cases {sorted(numbers)[:6]}")
    sys.exit(bool(bad))


def count(outcomes: Counter[str], found: dict[str, Any]) -> None:
    """Count one case."""
    outcomes.update(["cases", *found["wrong"]])
    outcomes["refused"] += found["status"] == 2
    outcomes["accepted"] += found["status"] in (0, 3, 4)
    outcomes["slowest"] = max(outcomes["slowest"], int(1000 * found["processor"]))
    outcomes["largest"] = max(outcomes["largest"], found["peak"] >> 20)


def described(seed: int, kind: str, number: int, found: dict[str, Any]) -> str:
    """Return what went wrong in one case, and how to see it again."""
    what = "; ".join(f"{name}: {' '.join(text.split())[-300:]}" for name, text in found["wrong"].items())
    return f"{kind} {number} ({cases.name_of(kind, number)}) --seed {seed}: {str(found['line'])[:200]}\n    {what}"


def table(outcomes: dict[str, Counter[str]]) -> str:
    """Return the outcomes by class."""
    columns = ("cases", "refused", "accepted", *WRONG, "slowest", "largest")
    heads = (*columns[:-2], "slowest, ms", "largest, MB")
    rows = [[kind, *(f"{outcomes[kind][name]:,}" for name in columns)] for kind in sorted(outcomes)]
    whole = [sum(each[name] for each in outcomes.values()) for name in columns[:-2]]
    whole += [max(each[name] for each in outcomes.values()) for name in columns[-2:]]
    rows.append(["all", *(f"{number:,}" for number in whole)])
    lines = [["class", *heads], ["---", *["---:"] * len(heads)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Fire(lambda cases=20_000, **options: main(cases, **options))
