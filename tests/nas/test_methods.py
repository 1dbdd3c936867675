"""What NACHOS is held against: each method is the loop with one part taken out, and nothing else changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import instant

import nachos_min
from nachos_min.data import Dataset
from nachos_min.eenn.lowering import GridHead
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas import fitting, nachos
from nachos_min.nas.configuration import Configuration, Problem, configure, load_problem
from nachos_min.nas.evaluate import evaluate
from nachos_min.nas.evaluation import Evaluation
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.result import SearchResult
from nachos_min.nas.runs import stored_evaluations
from nachos_min.nas.sampling import place_by_hand, placed, placements

QUICK = PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1)
LIMITS = Limits(40_000, 0.1)
PAPER = {"confidence": "learned", "standardise": "pixel", "validation": "whole"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[SearchResult, list[Evaluation]]]:
    """Search with hardly any training, in this process; return the result and all evaluations in their order."""
    small = {"recipe": QUICK, "initial": 4, "chosen": 3, "generations": 3}
    monkeypatch.setattr(fitting, "configure", lambda asked: replace(configure(asked), **small))
    evaluations: list[Evaluation] = []

    def here(_count: int, coder: Any, data: Dataset, asked: Configuration, *_: Any) -> Any:
        """Stand in for `Workers`."""

        def answer(coder: Any, trial: Any) -> Evaluation:
            evaluations.append(evaluate(coder, data, asked, trial))
            return evaluations[-1]

        return instant(answer)(1, coder)

    monkeypatch.setattr(nachos, "Workers", here)

    def search(**options: Any) -> tuple[SearchResult, list[Evaluation]]:
        evaluations.clear()
        given: dict[str, Any] = {"space": "micro", "max_macs": 40_000, "min_accuracy": 0.1, "evaluations": 8}
        given |= {"out": tmp_path / "run", "recipe": "paper", "standardise": "pixel"}
        return nachos_min.search(**given | options), list(evaluations)

    return search


def problem(**options: Any) -> Problem:
    return load_problem(Configuration("digits", "micro", LIMITS, 0, recipe=QUICK, **PAPER, **options))


def test_random_search_goes_on_where_the_start_of_the_same_seed_ends(run: Any, tmp_path: Path) -> None:
    _, guided = run(evaluations=4, start="random")
    result, drawn = run(method="random", out=tmp_path / "random")
    assert [found.genome for found in drawn[:4]] == [found.genome for found in guided]
    assert len({found.genome for found in drawn}) == result.evaluated == 8


def test_static_networks_have_no_exit_and_pay_for_none(run: Any, tmp_path: Path) -> None:
    result, found = run(method="static", max_macs=60_000)
    assert result.evaluated == 8
    for each in found:
        validation = each.chosen.validation
        assert (each.exits, each.chosen.thresholds, validation.exit_counts) == ((3,), (0.0,), (validation.samples,))
        assert validation.average_macs == each.costs.worst_macs <= 60_000
    assert [s.test.exit_counts for s in result.front] == [(s.test.samples,) for s in result.front]
    assert nachos_min.load_run(tmp_path / "run").front == result.front
    assert len(list(stored_evaluations(tmp_path / "run"))) == 8


def test_two_stages_search_backbones_and_then_place_exits_by_hand(run: Any) -> None:
    result, found = run(method="two-stage", evaluations=7)
    first, second = found[:4], found[4:]
    assert result.evaluated == 7
    assert {each.exits for each in first} == {(3,)}
    assert any(each.costs.worst_macs > 40_000 for each in first), "exits are still to come"
    coder = problem().coder
    assert [each.genome for each in second] == list(place_by_hand(StaticCheck(coder, LIMITS), first))[:3]
    backbones = [{tuple(coder.backbone_genes(each.genome)) for each in stage} for stage in (second, first)]
    assert backbones[0] <= backbones[1]


def test_hands_place_many_exits_first_and_on_the_best_backbones(run: Any) -> None:
    _, found = run(method="static", max_macs=None, evaluations=4)
    coder = problem().coder
    placed = list(place_by_hand(StaticCheck(coder, Limits(None, 0.0)), found))
    assert len(placed) == 4 * len(placements(coder)) == 12
    assert [genome[coder.exit_genes] for genome in placed[:4]] == [(1, 1)] * 4
    best = max(found, key=lambda each: (each.chosen.validation.correct, -each.chosen.validation.total_macs))
    first = next(each for each in found if coder.backbone_genes(each.genome) == coder.backbone_genes(placed[0]))
    assert first.chosen.validation.accuracy == best.chosen.validation.accuracy


def test_hands_give_exits_the_last_linear_head_that_keeps_the_order(run: Any) -> None:
    result, found = run(method="two-stage", space="flex16", evaluations=2)
    assert result.evaluated == 2
    coder = load_problem(replace(problem().configuration, space="flex16")).coder
    assert [coder.genes(each.genome).heads[0] for each in found[1:]] == [GridHead(4, ())]
    check, bits = StaticCheck(replace(coder, classes=26), Limits(None, 0.0)), (1, 1)
    rng, heads = np.random.default_rng(0), set()
    for genome in (coder.sample(rng) for _ in range(100)):
        genes = placed(check, np.array(genome), bits)
        if genes is not None:
            assert genes == tuple(coder.canonical(np.array([genes]))[0])
            assert coder.backbone_genes(genes) == coder.backbone_genes(genome)
            assert genes[coder.exit_genes] == bits
            heads.add(max(genes[coder.head_genes]))
    assert {1, 2} <= heads <= {0, 1, 2}


def test_edanas_meets_the_limits_at_the_end_only(run: Any) -> None:
    asked = problem(method="edanas").configuration
    assert (asked.limits, asked.acting.limits) == (LIMITS, Limits(None, 0.0))
    assert (asked.acting.recipe.beta, asked.acting.recipe.gamma) == (0.0, 0.0)
    assert replace(asked, method="nachos").acting.recipe == QUICK
    result, found = run(method="edanas", max_macs=30_000)
    assert any(each.costs.cheapest > 30_000 for each in found)
    assert all(solution.total_macs <= 30_000 * solution.samples for solution in result.front)


def test_margins_tighten_both_limits_as_decimals_and_are_told(run: Any) -> None:
    asked = replace(problem().configuration, limits=Limits(40_001, 0.9, 7), margin=0.01)
    assert asked.acting.limits == Limits(39_600, 0.91, 7)  # 39,600.99, and no more than that
    assert Limits(None, 0.99).tightened(0.01) == Limits(None, 1.0)
    assert replace(asked, margin=0.0).acting.limits == asked.limits
    result, _ = run(margin=0.2)
    assert (result.limits.max_macs, result.limits.min_accuracy, result.margin) == (40_000, 0.1, 0.2)
    assert all(s.total_macs <= 32_000 * s.samples and s.accuracy >= 0.3 for s in result.front)
