"""A search of people's own data: arrays in memory and files are searched alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.errors import InputError
from nachos_min.nas.configuration import resolved

TINY: dict[str, Any] = {"space": "micro", "evaluations": 2, "finalists": 0, "epochs": 1, "workers": 0}
TINY |= {"max_macs": 100_000, "min_accuracy": 0.0}


def test_arrays_in_memory_and_a_file_are_one_data_set(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    images = (rng.integers(0, 99, (90, 8, 8)) + 50 * labels[:, None, None]).astype(np.uint8)
    words = np.array(["ape", "bee", "cat"])[labels]
    np.savez(tmp_path / "own.npz", x=images.transpose(0, 2, 1)[:, None], y=words)
    found = [
        nachos_min.search(data=(images.transpose(0, 2, 1), words), out=tmp_path / "one", **TINY),
        nachos_min.search(data=tmp_path / "own.npz", layout="chw", out=tmp_path / "two", **TINY),
    ]
    one, two = (json.dumps(result.as_dict() | {"run": None}, sort_keys=True) for result in found)
    assert one == two
    with pytest.raises(InputError, match="layout"):  # another configuration is another run
        nachos_min.search(data=tmp_path / "own.npz", layout="hwc", out=tmp_path / "two", **TINY)


def test_data_in_a_configuration_is_text(tmp_path: Path) -> None:
    pair = np.zeros((3, 2, 2)), np.arange(3)
    (tmp_path / "birds v1.2").mkdir()
    for source, text, folder in (
        (pair, "arrays", "arrays"),
        ({"train": pair}, "arrays", "arrays"),
        (tmp_path / "a.npz", str(tmp_path / "a.npz"), "a"),
        ("mine/b.h5", "mine/b.h5", "b"),
        (tmp_path / "folder" / ".", str(tmp_path / "folder"), "folder"),
        ("mine/cifar-10-binary.tar.gz", "mine/cifar-10-binary.tar.gz", "cifar-10-binary"),
        (tmp_path / "birds v1.2", str(tmp_path / "birds v1.2"), "birds v1.2"),
    ):
        asked = resolved({"data": source, "layout": None})
        assert (asked["data"], asked["out"], asked["layout"]) == (text, Path("runs") / folder, None)
