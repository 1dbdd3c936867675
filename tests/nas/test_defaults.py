"""What a search is asked for: defaults of each recipe and data set, what is given counts first, and refusals."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe
from nachos_min.errors import InputError
from nachos_min.nas.configuration import PAPER_DIGITS32, Configuration, configure, resolved
from nachos_min.nas.limits import Limits
from nachos_min.nas.space import load_space

DEEP = {"recipe": DeepRecipe(), "start": "rule"}
PAPER = {"recipe": PaperRecipe(), "start": "spread", "confidence": "learned", "validation": "whole", "aims": "ends"}
PAPER |= {"surrogate": "switching", "features": "genes", "initial": 40, "chosen": 8}
LONGER = {"recipe": PaperRecipe(**PAPER_DIGITS32)}
DEFAULTS = [
    ({}, "digits", "flex8", Limits(40_000, 0.9), DEEP, (16, 2)),
    ({}, "mine.npz", "auto", Limits(None, 0.0), DEEP, (16, 2)),
    ({}, "digits32", "flex32", Limits(450_000, 0.8), DEEP, (16, 2)),
    ({"recipe": "paper"}, "mine.npz", "auto", Limits(None, 0.0), PAPER, (100, 0)),
    ({"recipe": "paper"}, "digits", "tiny", Limits(40_000, 0.9), PAPER, (100, 0)),
    ({"recipe": "paper"}, "digits32", "small32", Limits(450_000, 0.8), PAPER | LONGER, (100, 0)),
]


def asked(**options: Any) -> Configuration:
    return configure(resolved(options))


@pytest.mark.parametrize(("given", "data", "space", "limits", "others", "trained"), DEFAULTS)
def test_defaults(given: Any, data: str, space: str, limits: Limits, others: Any, trained: Any) -> None:
    assert asked(data=data, **given) == Configuration(data, space, limits, 0, **others)
    assert space == "auto" or load_space(space).stages
    found = resolved({"data": data, **given})
    assert (found["evaluations"], found["finalists"]) == trained
    assert resolved({"data": data, "recipe": None, "seed": None, **given}) == found


@pytest.mark.parametrize("recipe", ["deep", "paper"])
def test_what_is_given_counts_first(recipe: str) -> None:
    options = {"start": "random", "confidence": "softmax", "validation": "whole", "surrogate": "trees", "seed": 3}
    found = asked(recipe=recipe, space="micro", max_macs=7, min_accuracy=0.0, beta=2.0, gamma=0.0, **options)
    assert {name: getattr(found, name) for name in options} == options
    assert (found.space, found.limits) == ("micro", Limits(7, 0.0))
    assert (found.recipe.beta, found.recipe.gamma) == (2.0, 0.0)


def test_the_papers_method_takes_one_option_for_each_of_its_parts() -> None:
    parts = {"points": "best", "start": "random", "thresholds": "grid-repair", "standardise": "pixel"}
    expected = Configuration("digits", "tiny", Limits(40_000, 0.9), 0, **PAPER | parts)
    assert asked(recipe="paper", backbone="frozen", **parts) == replace(expected, recipe=PaperRecipe(joint=False))


def test_curves_aims_and_finalists_follow_from_what_is_given() -> None:
    assert (asked(thresholds="grid-repair").points, asked(points="best").points) == ("best", "best")
    assert asked().aims == "budgets"
    assert asked(points="best").aims == asked(constraints="adaptive-penalty").aims == "ends"
    assert asked(aims="ends").surrogate == "switching"
    for alone in ({"method": "rule"}, {"table": "members.h5"}):
        assert resolved({"finalists": 3, **alone})["finalists"] == 0, "nothing is trained twice"


GRID, ENDS = {"thresholds": "grid-repair"}, "ends with points best and constraints domination"
PAPER_FROZEN = {"recipe": "paper", "backbone": "frozen"}
LONG = "a number of thousands of digits"
FROZEN = "a frozen backbone, whose maps are computed once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_macs": 0}, "max_macs must be a whole number from 1 to 2^63 - 1, got 0"),
        ({"max_macs": np.int64(-1)}, "max_macs must be a whole number from 1 to 2^63 - 1, got np.int64(-1)"),
        ({"max_macs": 10**5000}, f"max_macs must be a whole number from 1 to 2^63 - 1, got {LONG}"),
        ({"evaluations": 2**63}, "evaluations must be a whole number from 1 to 2^63 - 1, got 9223372036854775808"),
        ({"epochs": np.float64(3)}, "epochs must be a whole number from 1 to 2^20 - 1, got np.float64(3.0)"),
        ({"out": "a\0b"}, r"out must be a folder, got 'a\x00b'"),
        ({"out": "\ud800"}, r"out must be a folder, got '\ud800'"),
        ({"max_params": True}, "max_params must be a whole number from 1 to 2^63 - 1, got True"),
        ({"min_accuracy": 1.5}, "min_accuracy must be a number from 0 to 1, got 1.5"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2^128 - 1, got -1"),
        ({"recipe": "best"}, "recipe must be one of deep, paper, got 'best'"),
        ({"backbone": "frozen"}, "backbone must be joint with the recipe deep, which has one phase, got 'frozen'"),
        (PAPER_FROZEN | {"augment": "shift"}, f"augment must be none with {FROZEN}, got 'shift'"),
        ({"batch": 1}, "batch must be a whole number from 2 to 2^63 - 1, got 1"),
        ({"rate": 0}, "rate must be a number above 0, got 0"),
        ({"max_exits": 1}, "max_exits must be a whole number from 2 to 2^63 - 1, got 1"),
        ({"epochs": 1.5}, "epochs must be a whole number from 1 to 2^20 - 1, got 1.5"),
        ({"beta": -1}, "beta must be a number >= 0, got -1"),
        ({"gamma": float("nan")}, "gamma must be a number >= 0, got nan"),
        ({"margin": 1.0}, "margin must be a number >= 0 and below 1, got 1.0"),
        ({"margin": 0.11}, "margin must be <= 0.1 with min_accuracy 0.9, got 0.11"),
        ({"guarantee": 1.0}, "guarantee must be a number above 0 and below 1, got 1.0"),
        ({"guarantee": 0.9, "validation": "whole"}, "guarantee needs validation halves, got 'whole'"),
        (GRID | {"points": "curve"}, "points must be best with grid-repair thresholds, got 'curve'"),
        ({"aims": "budgets", "points": "best"}, f"aims must be {ENDS}, got 'budgets'"),
        ({"aims": "middle"}, "aims must be one of ends, budgets, got 'middle'"),
        ({"out": ""}, "out must be a folder, got ''"),
        ({"finalists": 1.5}, "finalists must be a whole number from 0 to 2^63 - 1, got 1.5"),
        ({"thresholds": "best"}, "thresholds must be one of exact, grid-repair, got 'best'"),
    ],
)
def test_refused_options_write_nothing(options: dict[str, Any], message: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        nachos_min.search(**{"space": "micro", "evaluations": 1, "out": tmp_path / "run", **options})
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers() -> None:
    given: Any = {"max_macs": np.int32(9), "min_accuracy": np.float32(0.25), "seed": np.uint64(3)}
    found = resolved(given)
    assert [(found[name], type(found[name])) for name in given] == [(9, int), (0.25, float), (3, int)]


def test_an_unknown_option_is_no_keyword_argument() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
        nachos_min.search(sede=4)  # type: ignore[call-arg]  # which is what is tested
