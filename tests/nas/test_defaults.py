"""What a search is asked for where nothing is said: each data set's own, and what was given goes before."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import nachos_min
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas import nachos
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.defaults import DEFAULTS, defaults_of
from nachos_min.nas.limits import Limits
from nachos_min.nas.space import load_space


class Asked(Exception):
    """Carries the configuration that a search was about to load."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def load(configuration: Configuration) -> None:
        raise Asked(configuration)

    def configuration(**options: Any) -> Configuration:
        monkeypatch.setattr(nachos, "load_problem", load)
        with pytest.raises(Asked) as stopped:
            nachos_min.search(**options, out=tmp_path / "run")
        found = stopped.value.args[0]
        assert isinstance(found, Configuration)
        return found

    return configuration


@pytest.mark.parametrize("data", [*DEFAULTS, "mine.npz"])
def test_a_data_set_brings_its_own(data: str, asked: Any) -> None:
    usual, found = defaults_of(data), asked(data=data)
    assert (found.space, found.limits) == (usual.space, Limits(usual.max_macs, usual.min_accuracy))
    assert asdict(found.recipe) == asdict(PaperRecipe()) | dict(usual.recipe)


@pytest.mark.parametrize("data", DEFAULTS)
def test_what_is_given_goes_before(data: str, asked: Any) -> None:
    found = asked(data=data, space="micro", max_macs=7, min_accuracy=0.0, beta=2.0)
    assert (found.space, found.limits) == ("micro", Limits(7, 0.0))
    assert asdict(found.recipe) == asdict(PaperRecipe()) | dict(DEFAULTS[data].recipe) | {"beta": 2.0}


def test_none_is_no_limit(asked: Any) -> None:
    assert asked(max_macs=None).limits.max_macs is None


def test_a_curve_unless_thresholds_are_one_choice(asked: Any) -> None:
    assert (asked().points, asked(thresholds="grid-repair").points) == ("curve", "best")
    assert asked(points="best").points == "best"


@pytest.mark.parametrize("data", DEFAULTS)
def test_spaces_exist(data: str) -> None:
    assert load_space(DEFAULTS[data].space).stages
