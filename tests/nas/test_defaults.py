"""What a search is asked for where nothing is said: each data set's own, and what was given goes before."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nachos_min
from nachos_min.eenn.recipes import RECIPES, PaperRecipe
from nachos_min.errors import InputError
from nachos_min.nas import nachos
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.defaults import BY_RECIPE, DEFAULTS, FAR, defaults_of
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


EACH = [(recipe, data) for recipe, usual in DEFAULTS.items() for data in usual]


@pytest.mark.parametrize(("recipe", "data"), [*EACH, ("deep", "mine.npz"), ("paper", "mine.npz")])
def test_a_data_set_brings_its_own(recipe: str, data: str, asked: Any) -> None:
    usual, found = defaults_of(data, recipe), asked(data=data, recipe=recipe)
    far = FAR * usual.max_macs if recipe == "deep" else None
    assert (found.space, found.limits) == (usual.space, Limits(usual.max_macs, usual.min_accuracy, far))
    assert found.recipe == replace(RECIPES[recipe](), **usual.recipe)
    assert {name: getattr(found, name) for name in BY_RECIPE[recipe]} == BY_RECIPE[recipe]
    if recipe == "deep":
        assert asked(data=data) == found


@pytest.mark.parametrize(("recipe", "data"), EACH)
def test_what_is_given_goes_before(recipe: str, data: str, asked: Any) -> None:
    options = {"start": "random", "confidence": "softmax", "validation": "whole"}
    limits = {"space": "micro", "max_macs": 7, "min_accuracy": 0.0}
    found = asked(data=data, recipe=recipe, beta=2.0, **limits, **options)
    assert (found.space, found.limits) == ("micro", Limits(7, 0.0, 21 if recipe == "deep" else None))
    assert found.recipe == replace(RECIPES[recipe](), **defaults_of(data, recipe).recipe, beta=2.0)
    assert {name: getattr(found, name) for name in options} == options


def test_the_papers_method_takes_one_option_for_each_of_its_parts(asked: Any) -> None:
    given = {"points": "best", "start": "random", "thresholds": "grid-repair", "standardise": "pixel"}
    found = asked(recipe="paper", backbone="frozen", **given)
    whole = {"validation": "whole", "confidence": "learned"}
    assert found == Configuration(
        "digits",
        "tiny",
        Limits(40_000, 0.9),
        0,
        recipe=PaperRecipe(joint=False),
        aims="ends",
        surrogate="switching",
        features="genes",
        initial=40,
        batch=8,
        **given,
        **whole,
    )


def test_none_is_no_limit(asked: Any) -> None:
    assert asked(max_macs=None).limits == Limits(None, 0.9)


def test_the_last_exit_may_cost_what_is_asked_for(asked: Any) -> None:
    assert asked(max_macs=30_000).limits.max_worst_macs == FAR * 30_000
    assert asked(max_macs=30_000, max_worst_macs=31_000).limits.max_worst_macs == 31_000


def test_a_curve_unless_thresholds_are_one_choice(asked: Any) -> None:
    assert (asked().points, asked(thresholds="grid-repair").points) == ("curve", "best")
    assert asked(points="best").points == "best"


@pytest.mark.parametrize(("recipe", "data"), EACH)
def test_spaces_exist(recipe: str, data: str) -> None:
    assert load_space(DEFAULTS[recipe][data].space).stages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "best"}, "recipe must be one of deep, paper, got 'best'"),
        ({"backbone": "frozen"}, "backbone must be joint with the recipe deep, which has one phase, got 'frozen'"),
        ({"recipe": "paper", "augment": "shift"}, "augment must be none with the recipe paper, got 'shift'"),
        ({"augment": "rotate"}, "augment must be one of auto, none, shift, shift-flip, got 'rotate'"),
        ({"recipe": "paper", "augment": "rotate"}, "augment must be none with the recipe paper, got 'rotate'"),
        ({"confidence": "sure"}, "confidence must be one of learned, softmax, best, got 'sure'"),
        ({"standardise": "image"}, "standardise must be one of channel, pixel, got 'image'"),
        ({"validation": "thirds"}, "validation must be one of halves, whole, got 'thirds'"),
        ({"start": "smart"}, "start must be one of random, spread, rule, got 'smart'"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer >= 1, got 1.5"),
        ({"guarantee": 1.0}, "guarantee must be above 0 and below 1, got 1.0"),
        ({"guarantee": float("nan")}, "guarantee must be above 0 and below 1, got nan"),
        ({"guarantee": 0.9, "validation": "whole"}, "guarantee needs validation halves, got 'whole'"),
        ({"guarantee": 0.9, "recipe": "paper"}, "guarantee needs validation halves, got 'whole'"),
    ],
)
def test_refused_options_are_one_line_and_write_nothing(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        nachos_min.search(space="micro", evaluations=1, out=tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []
