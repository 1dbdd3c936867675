"""The tables that come along: what they are, that searches may use them as they are, and find their fronts."""

from pathlib import Path

import pytest

import nachos_min
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas.configuration import AS_BEFORE, Configuration, load_problem
from nachos_min.nas.limits import Limits
from nachos_min.nas.runs import stored_problem
from nachos_min.nas.tabular import read_table

pytest.importorskip("bench.tabulation", reason="an installed copy has no bench")

from bench.tabulation import archive_of

ROOT = Path(__file__).parents[2]
DEEP, PAPER = ROOT / "bench" / "micro-digits.h5", ROOT / "bench" / "micro-digits-paper.h5"
RESULTS = ROOT / "bench" / "RESULTS.md"


@pytest.mark.parametrize("file", [DEEP, PAPER])
def test_it_is_the_one_that_the_results_name(file: Path) -> None:
    table = read_table(file)
    assert table.sha256 in RESULTS.read_text(encoding="utf-8")
    assert len(table.members) == 648 + 216  # with early exits, and static
    assert not table.failures


def test_a_search_by_the_papers_recipe_comes_near_its_true_front(tmp_path: Path) -> None:
    """Over 20 seeds, 40 evaluations reached 99.0 % of what all members together reach, and 96.9 % at the worst."""
    given = {"recipe": "paper", "standardise": "pixel"}
    found = nachos_min.search(space="micro", table=PAPER, evaluations=40, out=tmp_path / "run", **given)
    asked = Configuration("digits", "micro", Limits(40_000, 0.9), 0, recipe=PaperRecipe(), **AS_BEFORE)
    problem = load_problem(asked)
    truth = archive_of(read_table(PAPER), problem)
    assert 0.95 < found.hypervolume_admissible / truth.hypervolume(truth.admissible) <= 1
    assert all(s.accuracy >= 0.9 and s.total_macs <= 40_000 * s.samples for s in found.front)


def test_a_search_as_it_is_by_default_comes_near_its_true_front(tmp_path: Path) -> None:
    found = nachos_min.search(space="micro", table=DEEP, out=tmp_path / "run")
    truth = archive_of(read_table(DEEP), stored_problem(tmp_path / "run"))
    assert found.evaluated <= 16
    assert 0.97 < found.hypervolume_admissible / truth.hypervolume(truth.admissible) <= 1
