"""Estimates from counts: what makes them grow, and how."""

from typing import Any

import pytest

from nachos_min.nas.estimate import training_seconds, worker_bytes

COUNTS: dict[str, Any] = {"worst_macs": 1_000_000, "samples": 6_400, "epochs": 4}
SHAPE: dict[str, Any] = {"batch": 16, "exits": 3, "numbers": 3_072, "measured": 3_000}
MEMORY: dict[str, Any] = {"peak_bytes": 65_536, "params": 50_000, "batch": 16, "exits": 3, "classes": 10}
MEMORY |= {"samples": 10_000, "measured": 3_000}


def test_every_count_takes_time_and_larger_batches_spare_some() -> None:
    given = COUNTS | SHAPE
    usual = training_seconds(**given)
    for name in given:
        assert (training_seconds(**given | {name: 2 * given[name]}) > usual) is (name != "batch")


def test_a_batch_has_no_more_samples_than_there_are() -> None:
    one, more = (training_seconds(**COUNTS | SHAPE | {"batch": batch}) for batch in (6_400, 10_000))
    assert one == more


def test_training_takes_as_long_as_its_epochs() -> None:
    none, one, five = (training_seconds(**COUNTS | SHAPE | {"epochs": epochs}) for epochs in (0, 1, 5))
    assert five - none == pytest.approx(5 * (one - none))


def test_every_count_takes_memory_and_the_default_recipe_fits() -> None:
    usual = worker_bytes(**MEMORY)
    assert all(worker_bytes(**MEMORY | {name: 2 * MEMORY[name]}) > usual for name in MEMORY)
    assert 100_000_000 < usual < 350_000_000
