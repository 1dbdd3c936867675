"""The table that comes along: what it is, that searches may use it as they are, and that one finds its front."""

from pathlib import Path

import pytest

import nachos_min
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas.configuration import AS_BEFORE, Configuration, load_problem
from nachos_min.nas.limits import Limits
from nachos_min.nas.tabular import read_table

ROOT = Path(__file__).parents[2]
FILE, RESULTS = ROOT / "bench" / "micro-digits-paper.h5", ROOT / "bench" / "RESULTS.md"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="an installed copy has no bench")


def test_it_is_the_one_that_the_results_name() -> None:
    table = read_table(FILE)
    assert table.sha256 in RESULTS.read_text(encoding="utf-8")
    assert len(table.members) == 648 + 216  # with early exits, and static
    assert not table.failures


def test_a_search_by_the_papers_recipe_comes_near_its_true_front(tmp_path: Path) -> None:
    """Over 20 seeds, 40 evaluations reached 99.0 % of what all members together reach, and 96.9 % at the worst."""
    given = {"recipe": "paper", "standardise": "pixel"}
    found = nachos_min.search(space="micro", table=FILE, evaluations=40, out=tmp_path / "run", **given)
    asked = Configuration("digits", "micro", Limits(40_000, 0.9), 0, recipe=PaperRecipe(), **AS_BEFORE)
    problem = load_problem(asked)
    truth = read_table(FILE).archive(problem)
    assert 0.95 < found.hypervolume_admissible / truth.hypervolume(truth.admissible()) <= 1
    assert all(s.accuracy >= 0.9 and s.total_macs <= 40_000 * s.samples for s in found.front)
