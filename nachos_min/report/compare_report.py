"""What `compare` prints: two runs of the same data, A and B, within budgets, with intervals over test images."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from math import ceil, log10
from typing import Any, TextIO

import numpy as np
from rich.text import Text

from nachos_min.errors import InputError, cut, some
from nachos_min.nas.gain import Gain, paired_gain, right_answers
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.result import Network, SearchResult
from nachos_min.nas.runs import examples, load_run, open_run
from nachos_min.nas.views import undominated
from nachos_min.report.console import output, table
from nachos_min.report.search_report import gain_text

MOST = 6  # budgets
Pair = tuple[SearchResult, SearchResult]


def report_comparison(one: str, other: str) -> dict[str, Any]:
    """Return the runs in two folders, A and B, beside each other, as the object that `compare --json` prints.

    Within each budget of average MACs stand the networks that are most accurate on validation, and the accuracy of
    B minus that of A on the test images. InputError if they have other data or another metric, or a run lacks what
    is compared.
    """
    stored = [_options(open_run(path).configuration) for path in (one, other)]
    for name, what in (("data_content", "data"), ("metric", "metric")):
        if stored[0].get(name) != stored[1].get(name):
            raise InputError(f"the runs must have the same {what}, got others in {one} and {other}")
    runs = load_run(one), load_run(other)
    for run in runs:
        if not run.front:
            raise InputError(f"run {run.run} must have a network within its limits, got none")
    values = {
        name: [each.get(name) for each in stored] for name in {**stored[0], **stored[1]} if "data" not in name
    }
    values["retrained"] = [None if run.retrained is None else run.retrained.of for run in runs]
    labels, reference = examples(one).labels, max(run.reference for run in runs)
    areas = [hypervolume([(1 - row.metric, row.average_macs) for row in run.front], reference) for run in runs]
    return {
        "runs": [run.run for run in runs],
        "evaluated": [run.evaluated for run in runs],
        "options": {name: pair for name, pair in values.items() if pair[0] != pair[1]},
        "budgets": [{"max_macs": most} | _within(most, runs, labels) for most in budgets_of(runs)],
        "hypervolume": {"runs": areas, "reference": list(reference)},
    }


def _options(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a configuration holds, those of its recipe as recipe.name, and a table's name."""
    plain = {name: value for name, value in configuration.items() if not isinstance(value, Mapping)}
    recipe = {f"recipe.{name}": value for name, value in configuration["recipe"].items()}
    return plain | recipe | {"table": configuration.get("table", {}).get("name")}


def budgets_of(runs: Pair) -> list[int]:
    """Return up to MOST budgets, among them the least and the most; each is two digits and zeros.

    They lie where a run has its next better network.
    """
    costs = [row.average_macs for run in runs for row in undominated(run.front)]
    units = [10 ** max(0, int(log10(cost)) - 1) for cost in costs]
    budgets = sorted({ceil(cost / unit) * unit for cost, unit in zip(costs, units, strict=True)})
    places = np.linspace(0, len(budgets) - 1, min(MOST, len(budgets))).round().astype(int)
    return [budgets[place] for place in places]


def _within(most: int, runs: Pair, labels: Any) -> dict[str, Any]:
    """Return the best network of each run within `most` MACs, None without one; with both, what B gains."""
    rows = [next((row for row in undominated(run.front) if row.average_macs <= most), None) for run in runs]
    found, right = {"networks": [row and _plain(row) for row in rows]}, []
    for run, row in zip(runs, rows, strict=True):
        if row is None:
            return found
        if (answers := row.evaluation.on_test) is None:
            lacks = "was stored by an earlier version, without its answers to the test images"
            raise InputError(f"run {run.run} {lacks}; search again in another folder")
        right.append(right_answers(answers, row.thresholds, labels).astype(np.float64))
    return found | asdict(paired_gain(right[1] - right[0], labels if runs[0].metric == "balanced" else None))


def _plain(row: Network) -> dict[str, Any]:
    test = {"accuracy": row.test.metric, "average_macs": row.test.average_macs}
    return {"solution": row.solution, "accuracy": row.metric, "average_macs": row.average_macs, "test": test}


def show_comparison(found: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print what `report_comparison` returns, to `stream` or standard output."""
    console = output(stream or sys.stdout, 72)
    for letter, run, evaluated in zip("AB", found["runs"], found["evaluated"], strict=True):
        console.print(f"{letter}: {run}, {evaluated:,} evaluated")
    pairs = (
        cut(f"{name} {' / '.join('none' if each is None else str(each) for each in pair)}")
        for name, pair in found["options"].items()
    )
    console.print(Text(f"Options that differ, A / B: {', '.join(pairs) or 'none at all'}."), "", sep="\n")
    console.print("The best on validation within a budget of average MACs, on the test images:", "", sep="\n")
    heads = [f"{run}\n{what}" for run in "AB" for what in ("k", "accuracy", "MACs")]
    rows, gains = [], list[Gain]()
    for each in found["budgets"]:
        cells, gain = [cell for network in each["networks"] for cell in _cells(network)], "-"
        if "difference" in each:
            gains.append(Gain(each["difference"], each["interval95"]))
            gain = gain_text(gains[-1])
        rows.append((each["max_macs"], *cells, gain))
    error, macs = found["hypervolume"]["reference"]
    a, b = (area / (error * macs) for area in found["hypervolume"]["runs"])
    better, worse = sum(gain.interval95[0] > 0 for gain in gains), sum(gain.interval95[1] < 0 for gain in gains)
    console.print(table(["budget", *heads, "B - A (95%)\nin points"], "r" * 8, rows, gap=1))
    console.print("", f"Of {some(len(gains), 'interval')} {better} show B better and {worse} worse.", sep="\n")
    console.print(f"Hypervolume (of error {error:g} x {macs:,} MACs): A {a:.4f}, B {b:.4f}.")


def _cells(network: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if network is None:
        return "-", "-", "-"
    test = network["test"]
    return str(network["solution"]), f"{test['accuracy']:.1%}", f"{round(test['average_macs']):,}"
