"""The method against its baselines and without its parts: searches over seeds, with intervals and figures.

    python bench/make_table.py
    python bench/bench_method.py --study baselines --table bench/micro-digits.h5 --seeds 20
    python bench/bench_method.py --study improvements --table bench/micro-digits.h5 --figures figures
    python bench/bench_method.py --study baselines --space tiny --seeds 3          # trains every candidate
    python bench/bench_method.py --variants '{"nachos": {}, "rbf": {"surrogate": "rbf"}}' --table ...

A study is a few variants of one search, each a dictionary of options of `nachos_min.search`; the first is the one
that others are compared with, seed by seed. On a table (`make_table.py`) a search takes seconds, and its
hypervolume is also given as a share of what all members together reach. A variant that changes the loss needs a
table trained with that loss: give several to --table, separated by commas. Every search is kept in a results file
as soon as it is done; the same command goes on, and only new variants and seeds are run. After a change of the
search itself, name another file.

Hypervolumes are shares of the reference area (error 1 times the MACs of the largest network). Intervals are 95 %:
Student's t for means and paired differences, bootstrap for medians. On a table they are of searches on its few
trainings, however many seeds there are; a variant with a table of its own differs by its trainings, too, so that
its differences have intervals over trainings, not searches. Read `method_runs.py` and `intervals.py` next.
"""

import json as json_format
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asked import OPTIONS
from fire import Fire
from measuring import machine, on_threads

# The paper's method is the base of its parts' studies.
PAPER = OPTIONS | {"backbone": "frozen", "start": "random", "points": "best"}
FROZEN = OPTIONS | {"backbone": "frozen"}
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "baselines": {
        "nachos": {},
        "random": {"method": "random"},
        "two-stage": {"method": "two-stage"},
        "static": {"method": "static"},
        "edanas": {"method": "edanas"},
    },
    "terms": {
        "frozen backbone": FROZEN,
        "without peak": FROZEN | {"gamma": 0.0},
        "without cost": FROZEN | {"beta": 0.0},
        "without both": FROZEN | {"beta": 0.0, "gamma": 0.0},
        "joint backbone": OPTIONS | {"backbone": "joint"},
    },
    "parts": {
        "as it is": OPTIONS,
        "grid-repair": OPTIONS | {"thresholds": "grid-repair", "points": "best"},
        "exact, one point": OPTIONS | {"thresholds": "exact", "points": "best"},
        "adaptive-penalty": OPTIONS | {"constraints": "adaptive-penalty"},
        "rbf": OPTIONS | {"surrogate": "rbf"},
        "trees": OPTIONS | {"surrogate": "trees"},
        "mlp": OPTIONS | {"surrogate": "mlp"},
    },
    "improvements": {
        "paper": PAPER,
        "spread start": PAPER | {"start": "spread"},
        "cost features": PAPER | {"features": "costs"},
        "curve": PAPER | {"points": "curve"},
        "joint backbone": PAPER | {"backbone": "joint"},
        "spread, curve": PAPER | {"start": "spread", "points": "curve"},
        "default": {},
    },
}


def jobs_of(
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    shared: Mapping[str, Any],
    tables: Sequence[str],
) -> dict[str, list[Any]]:
    """Return for each variant its searches, one a seed. Ends the program if a variant has no table."""
    from method_runs import Job

    from nachos_min.nas.configuration import METHODS
    from nachos_min.nas.tabular import read_table

    read = [(path, read_table(path)) for path in tables]
    jobs: dict[str, list[Any]] = {}
    for name, options in variants.items():
        regularised = METHODS[options.get("method", "nachos")].regularised
        paper = options.get("recipe") == "paper"
        weight = float(paper and regularised)
        needed = {"beta": options.get("beta", weight), "gamma": options.get("gamma", weight)}
        if paper:
            needed |= {"joint": options.get("backbone", "joint") == "joint"}
        fitting = [
            each
            for each in read
            if needed.items() <= each[1].about["recipe"].items() and paper == ("joint" in each[1].about["recipe"])
        ]
        if read and not fitting:
            wanted = " ".join(f"--{key} {value}" for key, value in needed.items())
            recipe = "--recipe paper " if paper else ""
            raise SystemExit(f"{name} needs one more table: python bench/make_table.py {recipe}{wanted} --out FILE")
        path, sha256 = (fitting[0][0], fitting[0][1].sha256) if fitting else (None, None)
        jobs[name] = [Job({**shared, **options, "seed": seed}, path, sha256) for seed in seeds]
    return jobs


def own_trainings(jobs: Mapping[str, list[Any]]) -> dict[str, list[int]]:
    """Return the variants that another table answers than the first variant, and the training of each search."""
    from nachos_min.nas.tabular import read_table

    first = next(iter(jobs.values()))[0].sha256
    apart = {name: each for name, each in jobs.items() if each[0].table and each[0].sha256 != first}
    tables = {name: read_table(each[0].table) for name, each in apart.items()}
    return {name: [tables[name].training(job.options["seed"]) for job in each] for name, each in apart.items()}


def last(record: Mapping[str, Any], evaluations: int) -> float:
    """Return the hypervolume after `evaluations`; a search that ended before keeps what it had."""
    grown = record["hypervolume"][:evaluations]
    return float(grown[-1]) if grown else 0.0


def compared(
    found: Mapping[str, list[Mapping[str, Any]]],
    at: Sequence[int],
    seed: int,
    trainings: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Return one row a variant: figures with intervals, and differences from the first, seed by seed.

    Args:
        found: variant -> its records, one a seed.
        at: after how many evaluations.
        seed: of the bootstrap.
        trainings: variants that have a table of their own -> which training answered each seed: what such a
            variant's difference is, is known no better than from as many trainings.
    """
    import numpy as np
    from intervals import by_group, gain_at_equal_macs, mean_interval, median_interval, paired_interval

    base = next(iter(found.values()))
    rows = []
    for name, records in found.items():
        row: dict[str, Any] = {"variant": name, "seeds": len(records)}
        groups = (trainings or {}).get(name)
        for evaluations in at:
            reached = [last(record, evaluations) for record in records]
            row[f"hypervolume at {evaluations}"] = mean_interval(reached)
            row[f"difference at {evaluations}"] = paired_interval(
                reached, [last(each, evaluations) for each in base], groups
            )
        if records[0]["truth"] is not None:
            shares = [
                last(record, at[-1]) / record["truth"]["hypervolume"] if record["truth"]["hypervolume"] else np.nan
                for record in records
            ]
            row["of truth, median"] = median_interval(shares, np.random.default_rng(seed))
            row["of truth, worst"] = min(shares)
        fronts = [network for record in records for network in record["front"]]
        row["networks"] = len(fronts)
        for key in ("kept_on_test", "kept_within_interval"):
            row[key] = sum(network[key] for network in fronts) / len(fronts) if fronts else np.nan
        for split, accuracy, macs in (("validation", "accuracy", "macs"), ("test", "test_accuracy", "test_macs")):
            gains = [
                gain_at_equal_macs(*([[n[macs], n[accuracy]] for n in each["front"]] for each in (record, other)))
                for record, other in zip(records, base, strict=True)
            ]
            places = [place for place, gain in enumerate(gains) if gain is not None]
            met = [gains[place] for place in places]
            if groups is not None:
                met = by_group(met, [groups[place] for place in places])
            row[f"accuracy at equal MACs, {split}"] = mean_interval(met) if met else None
            row[f"seeds whose fronts overlap, {split}"] = len(places)
        row["best accuracy"] = mean_interval(
            [max((n["accuracy"] for n in r["front"]), default=0.0) for r in records]
        )
        row["seconds"] = float(np.mean([record["seconds"] for record in records]))
        rows.append(row)
    return rows


def tables_of(rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Return what is printed: the hypervolumes, then what the networks found are worth."""
    first, second = [], []
    for row in rows:
        line: dict[str, Any] = {"variant": row["variant"], "seeds": row["seeds"]}
        for evaluations in at:
            line[f"hypervolume at {evaluations}"] = row[f"hypervolume at {evaluations}"].text(4)
        line["difference"] = row[f"difference at {at[-1]}"].text(4, sign="+")
        if "of truth, median" in row:
            line |= {
                "of own truth, median %": row["of truth, median"].text(2, 100),
                "worst %": row["of truth, worst"] * 100,
            }
        first.append(line)
        line = {"variant": row["variant"], "networks": row["networks"]}
        line |= {
            "kept on test %": 100 * row["kept_on_test"],
            "within interval %": 100 * row["kept_within_interval"],
        }
        for split in ("validation", "test"):
            gain = row[f"accuracy at equal MACs, {split}"]
            line[f"points at equal MACs, {split}"] = None if gain is None else gain.text(2, 100, "+")
        line |= {"best accuracy": row["best accuracy"].text(4), "s": row["seconds"]}
        second.append(line)
    return [first, second]


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: Intervals as objects, and null for what is not a number."""
    from intervals import Interval

    if isinstance(value, Interval):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return None if value != value else value


def main(
    study: str = "baselines",
    variants: Any = None,
    table: Any = "",
    seeds: int = 10,
    evaluations: int = 100,
    at: Any = (),
    data: str = "digits",
    space: str = "micro",
    max_macs: int = 40_000,
    min_accuracy: float = 0.9,
    workers: int = 2,
    results: str = "runs/bench_method.jsonl",
    figures: str = "",
    json: bool = False,
) -> None:
    """Print the comparison of a study's variants; with --json one JSON object.

    Args:
        study: baselines, terms, parts, improvements.
        variants: a dictionary name -> options of `search` in place of a study.
        table: file, or files separated by commas, that answer instead of training.
        seeds: searches of each variant, with seeds 0, 1, ...
        evaluations: candidates of each search.
        at: after how many evaluations to compare; half of them and all unless given.
        data: as of `search`.
        space: as of `search`.
        max_macs: as of `search`.
        min_accuracy: as of `search`.
        workers: searches side by side on a table; processes that train otherwise.
        results: file of the searches done, made if missing.
        figures: folder for fronts and growth of the hypervolume, PNG and SVG.
        json: print JSON.
    """
    on_threads(1)
    from measuring import show
    from method_runs import Results, run_all

    if variants is None and study not in STUDIES:
        raise SystemExit(f"--study must be one of {', '.join(STUDIES)}, got {study!r}")
    tables = [str(each) for each in (table.split(",") if isinstance(table, str) else table) if each]
    checkpoints = [int(each) for each in (at if isinstance(at, tuple | list) else (at,))]
    checkpoints = checkpoints or [evaluations // 2, evaluations]
    shared = {
        "data": data,
        "space": space,
        "max_macs": max_macs,
        "min_accuracy": min_accuracy,
        "evaluations": evaluations,
    }
    jobs = jobs_of(variants or STUDIES[study], range(seeds), shared, tables)
    kept = Results(Path(results))
    run_all(
        [job for each in jobs.values() for job in each], kept, workers, lambda line: print(line, file=sys.stderr)
    )
    found = {name: [kept.records[job.key] for job in each] for name, each in jobs.items()}
    rows = compared(found, checkpoints, seed=0, trainings=own_trainings(jobs))
    name = study if variants is None else "variants"
    if figures:
        from method_figures import draw

        for file in draw(found, name, Path(figures), max_macs):
            print(file, file=sys.stderr)
    facts = machine(1)
    if json:
        print(json_format.dumps(plain({"machine": facts, "study": name, "shared": shared, "rows": rows})))
        return
    for place, printed in enumerate(tables_of(rows, checkpoints)):
        show(facts if place == 0 else {}, printed)
        print()


if __name__ == "__main__":
    Fire(main)
