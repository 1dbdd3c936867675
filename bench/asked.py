"""Configurations that benchmarks ask for: the paper's method, and what a table can answer."""

from dataclasses import replace
from typing import Any

# With these a search is the method as the paper has it, but for what a benchmark changes.
OPTIONS: dict[str, Any] = {"recipe": "paper", "standardise": "pixel"}


def configuration(data: str, space: str, max_macs: int | None, min_accuracy: float = 0.0, **changes: Any) -> Any:
    """Return the configuration of a search by the recipe `paper` with the data set's own epochs.

    Args:
        data: name or file.
        space: name or file.
        max_macs, min_accuracy: the limits.
        changes: fields of the Configuration; values of the recipe in a dictionary `recipe`.
    """
    from nachos_min.nas.configuration import configure, resolved

    asked: Any = {"data": data, "space": space, "max_macs": max_macs, "min_accuracy": min_accuracy, "aims": "ends"}
    made = configure(resolved(asked | OPTIONS))
    return replace(made, recipe=replace(made.recipe, **changes.pop("recipe", {})), **changes)


def of_table(table: Any, max_macs: int | None, min_accuracy: float, seed: int, **changes: Any) -> Any:
    """Return the configuration of a search that `table` can answer; `changes` are further fields of it."""
    from nachos_min.eenn.recipes import from_record
    from nachos_min.nas.configuration import AS_BEFORE, BY_AIMS, Configuration
    from nachos_min.nas.limits import Limits

    about = table.about
    made = {name: about.get(name, AS_BEFORE[name]) for name in ("standardise", "validation")}
    made["confidence"] = "learned" if table.temperatures is None else "best"
    made |= {"aims": "ends", **BY_AIMS["ends"]}
    limits, recipe = Limits(max_macs, min_accuracy), from_record(about["recipe"])
    return Configuration(about["data"], about["space"], limits, seed, recipe=recipe, **(made | changes))
