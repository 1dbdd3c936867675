"""Is the search worth its price? Methods at equal CPU time, judged on images that took part in no choice.

    python bench/bench_study.py                                      # all of it; the same command goes on
    python bench/bench_study.py --kinds letters --methods default,rule --seeds 1
    python bench/bench_study.py --today ../before --kinds letters    # the search of another checkout beside it
    python bench/bench_study.py --report                             # the tables of what is done, at once

Kinds of data: letters and shapes (`fresh_data.py`, each seed another set with 10,000 fresh images), digits (five
outer splits, so that each image is test once), digits32 (its test scenes show 359 digits: intervals are clustered
by digit). A budget is a limit on average MACs. At a budget a method shows the row of its front with the best figure
within it; what counts is that row's accuracy on the fresh images. Each run is one folder, made by one process whose
CPU time is kept beside it. Each kind gives methods whose trainings are cheaper more of them, `Kind.effort`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fire import Fire
from measuring import machine, on_threads

PAPER: dict[str, Any] = {"recipe": "paper", "standardise": "pixel", "old_space": True}
FULL_PAPER = PAPER | {"points": "best", "start": "random", "backbone": "frozen", "thresholds": "grid-repair"}
METHODS: dict[str, dict[str, Any]] = {
    "default": {},
    "random": {"method": "random"},
    "rule": {"method": "rule"},
    "two networks": {"method": "rule", "evaluations": 2},
    "rule, old space": {"method": "rule", "old_space": True},
    "largest": {"method": "largest"},
    "two-stage": {"method": "two-stage"},
    "static": {"method": "static"},
    "edanas": {"method": "edanas"},
    "paper": FULL_PAPER,
    "paper, curves": PAPER,
    "today": {"old_space": True},
}
OFTEN = ("default", "random", "rule")  # on every kind, with several seeds
ONCE = ("letters", "digits")  # kinds on which the other methods run, with one seed


@dataclass(frozen=True)
class Kind:
    """One kind of data: what is asked for, and the budgets at which methods are compared.

    Attributes:
        effort: options of a method that bring it to the CPU time of the default.
    """

    name: str
    space: str
    old_space: str
    min_accuracy: float
    budgets: tuple[int, int, int]
    effort: Mapping[str, Mapping[str, int]]
    seeds: int = 3

    @property
    def max_macs(self) -> int:
        """The limit of the searches: the largest budget."""
        return self.budgets[-1]


# Trainings of the other methods: networks by a rule are trained longer, the paper's recipe is quicker.
FEW = {name: {"evaluations": 13} for name in ("default", "random")} | {"today": {"evaluations": 8}}
FEWER = {name: {"evaluations": 10} for name in ("default", "random")}
PAPERS = {name: {"evaluations": 32} for name in ("paper", "paper, curves", "today")}
OTHERS = {name: {"evaluations": 40} for name in ("rule", "rule, old space", "static")} | {
    "largest": {"evaluations": 28}
}
KINDS = {
    "letters": Kind("letters", "flex16", "small32", 0.8, (35_000, 45_000, 60_000), OTHERS | PAPERS),
    "shapes": Kind("shapes", "flex32", "small32", 0.7, (100_000, 150_000, 200_000), OTHERS | FEW),
    "digits": Kind("digits", "flex8", "tiny", 0.9, (10_000, 20_000, 40_000), OTHERS, 5),
    "digits32": Kind(
        "digits32", "flex32", "small32", 0.7, (100_000, 150_000, 200_000), {"rule": {"evaluations": 24}} | FEWER
    ),
}


def data_of(kind: Kind, seed: int, folder: Path) -> str:
    """Return the data set of a seed, made if it is missing: a path, or a built-in name."""
    if kind.name == "digits32":
        return kind.name
    file = folder / f"{kind.name}-{seed}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if kind.name == "digits":
            _outer_split(seed, file)
        else:
            from fresh_data import main as make

            make(kind.name, str(file), seed=100 + seed)  # those below served to set the difficulty
    return str(file.resolve())


def _outer_split(fold: int, file: Path) -> None:
    """Write the digits with every fifth image of each class as test, beginning with the `fold`-th."""
    import numpy as np

    from nachos_min.data.load import load_unscaled

    digits = load_unscaled("digits")
    splits = (digits.train, digits.validation, digits.test)
    images, labels = (np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels"))
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[fold::5]] = True
    np.savez_compressed(
        file, images=images[~test], labels=labels[~test], test_images=images[test], test_labels=labels[test]
    )


def run(kind: Kind, method: str, seed: int, folder: Path, workers: int, today: str) -> dict[str, Any]:
    """Return the JSON of one search with its CPU seconds; one that was done is read."""
    place = folder / f"{kind.name}-{method.replace(', ', '-').replace(' ', '-')}-{seed}"
    record = place.with_suffix(".json")
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    options = dict(METHODS[method])
    asked = {
        "data": data_of(kind, 0 if kind.name == "digits32" else seed, folder),
        "space": kind.old_space if options.pop("old_space", False) else kind.space,
        "max_macs": kind.max_macs,
        "min_accuracy": kind.min_accuracy,
        "seed": seed,
        "workers": workers,
        "out": str(place.resolve()),
    }
    command = [sys.executable, "-c", _CHILD, json.dumps(asked | kind.effort.get(method, {}) | options)]
    environment, where = dict(os.environ), None
    if method == "today":  # what is imported comes from the folder in which a process starts, then from PYTHONPATH
        where = Path(today).resolve()
        environment["PYTHONPATH"] = str(where / "kernels")
    done = subprocess.run(command, env=environment, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind.name} {method} {seed}: {done.stderr}")
    record.write_text(done.stdout, encoding="utf-8")
    return dict(json.loads(done.stdout))


_CHILD = """
import json, resource, sys
import nachos_min
if __name__ == "__main__":
    found = nachos_min.search(**json.loads(sys.argv[1])).as_dict()
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(found | {"cpu": sum(each.ru_utime + each.ru_stime for each in spent)}))
"""


def at_budget(found: Mapping[str, Any], budget: int) -> dict[str, Any] | None:
    """Return the row that a method shows at a budget, or None if it has none within it."""
    rows = [row for row in found["front"] if row["average_macs"] <= budget]
    return max(rows, key=lambda row: (row["accuracy"], -row["average_macs"])) if rows else None


def figures(kind: Kind, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one run is judged by."""
    import numpy as np

    from nachos_min.nas.hypervolume import hypervolume

    rows = found["front"]
    kept = [
        row["test"]["correct"] >= kind.min_accuracy * row["test"]["samples"]
        and row["test"]["total_macs"] <= kind.max_macs * row["test"]["samples"]
        for row in rows
    ]
    fresh = [(1 - row["test"]["accuracy"], row["test"]["average_macs"]) for row in rows]
    inside = [point for point, keeps in zip(fresh, kept, strict=True) if keeps]
    area = hypervolume(np.array(inside), (1.0, kind.max_macs)) / kind.max_macs if inside else 0.0
    shown = [at_budget(found, budget) for budget in kind.budgets]
    return {
        "accuracy": [np.nan if row is None else 100 * row["test"]["accuracy"] for row in shown],
        "kept": 100 * float(np.mean(kept)) if kept else np.nan,
        "flattery": 100 * float(np.mean([row["accuracy"] - row["test"]["accuracy"] for row in rows] or [np.nan])),
        "area": 100 * area,
        "rows": len(rows),
        "cpu": found["cpu"],
        "trained": found["evaluated"],
    }


def correct_at(run_folder: Path, found: Mapping[str, Any], budget: int) -> Any:
    """Return whether the row shown at a budget is right about each test image, bool (N,); None without a row."""
    from nachos_min.eenn.inference import predict
    from nachos_min.nas.evaluate import as_seen, build
    from nachos_min.nas.evaluation import Evaluation
    from nachos_min.nas.runs import stored_evaluations, stored_problem

    row, problem = at_budget(found, budget), stored_problem(run_folder, with_data=True)
    if row is None:
        return None
    for evaluated in stored_evaluations(run_folder):
        for point in evaluated.points if isinstance(evaluated, Evaluation) else ():
            if (list(evaluated.genome), list(point.thresholds)) == (row["genome"], row["thresholds"]):
                network, test = build(problem.coder, evaluated.genome, 0), problem.dataset.test
                network.load_state(evaluated.weights)
                seen = as_seen(test, network)
                answer = predict(network, seen.images, point.thresholds, evaluated.confidence)
                if int((answer.labels == test.labels).sum()) == row["test"]["correct"]:
                    return answer.labels == test.labels
    raise SystemExit(f"{run_folder} must hold the network of every row of its result")


def clustered(kind: Kind, folder: Path, method: str, base: str, seeds: Sequence[int]) -> list[Any]:
    """Return at each budget the difference in points of two methods on digits32, bootstrapped over its digits.

    None where a method has no row within the budget, whatever the seed.
    """
    import numpy as np
    from intervals import Interval

    digits = 359  # test scene i shows digit i mod 359 (`data/scenes.py`)
    found = []
    for budget in kind.budgets:
        differences = []
        for seed in seeds:
            pair = []
            for name in (method, base):
                place = folder / f"{kind.name}-{name}-{seed}"
                told = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
                pair.append(correct_at(place, told, budget))
            if pair[0] is not None and pair[1] is not None:
                differences.append(pair[0].astype(float) - pair[1])
        if not differences:
            found.append(None)
            continue
        scene = np.mean(differences, axis=0)
        sums = np.bincount(np.arange(len(scene)) % digits, weights=scene)
        counts = np.bincount(np.arange(len(scene)) % digits)
        drawn = np.random.default_rng(0).integers(0, digits, (9_999, digits))
        resampled = 100 * sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(resampled, (0.025, 0.975))
        found.append(Interval(100 * float(scene.mean()), float(low), float(high)))
    return found


def jobs(kinds: Sequence[str], methods: Sequence[str], seeds: int | None) -> Iterator[tuple[Kind, str, int]]:
    """Yield kind, method and seed of every run, the ones that matter most first."""
    for name in kinds:
        kind = KINDS[name]
        for seed in range(kind.seeds if seeds is None else seeds):
            for method in methods or METHODS:
                often = bool(methods) or method in OFTEN
                if often or (name in ONCE and method != "today" and seed == 0):
                    yield kind, method, seed


def tables(
    done: Mapping[tuple[str, str], Mapping[int, dict[str, Any]]],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield titles and tables of each kind: means over seeds, and differences from the default seed by seed.

    Where a method has no row within a budget on some seed, its mean is of the others.
    """
    import numpy as np
    from intervals import paired_interval

    for name in dict.fromkeys(kind for kind, _ in done):
        kind, rows, differences = KINDS[name], [], []
        for (own, method), found in done.items():
            if own != name:
                continue
            values = {key: np.mean([each[key] for each in found.values()]) for key in ("cpu", "trained", "rows")}
            line: dict[str, Any] = {"method": method, "seeds": len(found), "CPU s": values["cpu"]}
            line["trainings"], line["rows"] = values["trained"], values["rows"]
            for place, budget in enumerate(kind.budgets):
                reached = [each["accuracy"][place] for each in found.values()]
                line[f"at {budget // 1000}k"] = float(np.nanmean(reached)) if np.isfinite(reached).any() else np.nan
            base = done.get((name, "default"), {})
            common = [seed for seed in found if seed in base]
            if common and method != "default":
                mine, theirs = (np.array([each[seed]["accuracy"] for seed in common]) for each in (found, base))
                better: dict[str, Any] = {"default better than": method, "seeds": len(common)}
                at = [f"at {budget // 1000}k" for budget in kind.budgets]
                for title, own, its in zip([*at, "on average"], [*mine.T, mine], [*theirs.T, theirs], strict=True):
                    gains = its - own if own.ndim == 1 else np.nanmean(its - own, axis=1)
                    there = np.isfinite(gains)
                    both = gains[there], np.zeros(there.sum())
                    better[title] = paired_interval(*both).text(2, sign="+") if there.any() else ""
                differences.append(better)
            for key, title in (("area", "fresh area %"), ("kept", "rows kept %"), ("flattery", "shown - fresh")):
                line[title] = float(np.nanmean([each[key] for each in found.values()]))
            rows.append(line)
        yield f"{name}: fresh accuracy in % within a budget of average MACs", rows
        yield f"{name}: points by which the default is better, paired by seed, with 95 % intervals", differences


def main(
    kinds: Any = "letters,shapes,digits,digits32",
    methods: Any = "",
    seeds: int | None = None,
    folder: str = "runs/study",
    workers: int = 2,
    today: str = "",
    report: bool = False,
) -> None:
    """Run what is missing and print a table a kind.

    Args:
        kinds: of data.
        methods: of METHODS; unless given, those of OFTEN with all seeds, the others on ONCE with one.
        seeds: of each kind, unless it says otherwise.
        folder: of the runs, made if missing.
        workers: processes of a search.
        today: a checkout of another version; its default search is the method `today`.
        report: run nothing.
    """
    on_threads(1)
    from measuring import show

    chosen = [str(each) for each in (kinds.split(",") if isinstance(kinds, str) else kinds)]
    asked = [str(each) for each in (methods.split(",") if isinstance(methods, str) else methods) if each]
    place = Path(folder)
    done: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for kind, method, seed in jobs(chosen, asked or list(METHODS) * report, seeds):
        record = place / f"{kind.name}-{method.replace(', ', '-').replace(' ', '-')}-{seed}.json"
        if report and not record.exists():
            continue
        found = run(kind, method, seed, place, workers, today)
        done.setdefault((kind.name, method), {})[seed] = judged = figures(kind, found)
        accuracy = " ".join(f"{each:.1f}" for each in judged["accuracy"])
        print(f"{kind.name} {method} {seed}: {accuracy}, {judged['cpu']:.0f} s of CPU", file=sys.stderr, flush=True)
    facts = machine(1)
    for title, rows in tables(done):
        print(title)
        show(facts, rows)
        facts = {}
        print()
    if ("digits32", "default") in done:
        common = sorted(done["digits32", "default"])
        for method in ("random", "rule"):
            if sorted(done.get(("digits32", method), {})) == common:
                differences = clustered(KINDS["digits32"], place, "default", method, common)
                told = ["no row" if each is None else each.text(2, sign="+") for each in differences]
                print(f"digits32, default - {method}, points, clustered by digit: {'; '.join(told)}")


if __name__ == "__main__":
    Fire(main)
