"""Worker processes: failures are answers, deaths are errors, and nothing depends on who does what when."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nachos_min.data import Dataset, load
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, Recipe
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluate import Backbones, Evaluation, Failure, Trial, evaluate
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.space import load_space
from nachos_min.nas.workers import WorkerDiedError, Workers, keep_freed_memory

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
QUICK = PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1)
ASKED = Configuration("digits", "micro", Limits(None, 0.0), 0, recipe=QUICK)


class Lethal(tuple[int, ...]):
    """A genome that ends the worker that unpacks it, as the system does when memory runs out."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (1,)


class Endless(tuple[int, ...]):
    """A genome that in the worker has so many genes that a list of them exceeds every memory."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return range, (2**62,)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Dataset]:
    """What workers load for themselves: a file of 90 digits."""
    full, path = load("digits"), tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(path, images=full.train.images[:90], labels=full.train.labels[:90])
    return partial(load, str(path))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture(scope="module")
def two(loader: Callable[[], Dataset], backbones: Path) -> Iterator[Workers]:
    with Workers(2, CODER, loader, ASKED, backbones) as pool:
        yield pool


def test_answers_are_those_of_this_process_in_any_order(two: Workers, loader: Any, backbones: Path) -> None:
    data = loader()
    rng = np.random.default_rng(0)
    genomes = [CODER.sample(rng) for _ in range(3)]
    for order in (genomes, genomes[::-1]):
        answers = {found.trial.genome: found for found in two.evaluate([*map(Trial, order)])}
        assert answers.keys() == set(genomes)
        for genome in genomes:
            assert answers[genome] == evaluate(CODER, data, ASKED, Trial(genome))
            kept = Backbones(backbones).find(CODER.backbone_genes(genome))
            assert kept is not None
            assert tuple(kept[1]) == answers[genome].losses[:1]


def test_a_failure_is_an_answer_and_the_others_come_too(two: Workers) -> None:
    good = CODER.sample(np.random.default_rng(0))
    answers = {found.trial.genome: found for found in two.evaluate([Trial((1,), 4, 2), Trial(good, 2, 1)])}
    reason = "SpaceError: genome of space micro must have 17 genes, got 1"
    assert answers[(1,)] == Failure(Trial((1,), 4, 2), reason)
    assert isinstance(answers[good], Evaluation)
    assert answers[good].trial == Trial(good, 2, 1)


def test_workers_run_on_one_thread(loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    names = [("OPENBLAS_NUM_THREADS",), ("MKL_NUM_THREADS",)]
    with Workers(1, CODER, loader, ASKED, tmp_path) as pool:
        assert pool.starmap(os.getenv, names) == ["1", "1"]
        assert dict(os.environ) == before
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.starmap(os.getenv, names)
    assert dict(os.environ) == before


def test_too_little_memory_says_nothing_about_the_candidate(two: Workers) -> None:
    with pytest.raises(WorkerDiedError, match="out of memory"):
        list(two.evaluate([Trial(Endless())]))


def test_a_dead_worker_is_an_error_and_leaves_no_process(loader: Callable[[], Dataset], tmp_path: Path) -> None:
    before = set(active_children())  # those of the other tests

    def lose_a_worker() -> None:
        with Workers(1, CODER, loader, ASKED, tmp_path) as pool:
            with pytest.raises(WorkerDiedError):
                list(pool.evaluate([Trial(Lethal())]))
            list(pool.evaluate([Trial((1,))]))  # a pool that lost a worker refuses new genomes the same way

    with pytest.raises(WorkerDiedError, match=r"a worker process died .* the same command continues"):
        lose_a_worker()
    assert not {*active_children()} - before


def test_a_worker_that_dies_while_it_starts_is_an_error(tmp_path: Path) -> None:
    """The data set is loaded by the worker: handed over, it would fill the pipe and wait for ever."""
    with pytest.raises(WorkerDiedError), Workers(1, CODER, partial(os._exit, 1), ASKED, tmp_path) as pool:
        list(pool.evaluate([Trial(CODER.sample(np.random.default_rng(0)))]))


@pytest.mark.parametrize("recipe", [ASKED.recipe, DeepRecipe()], ids=["paper", "deep"])
def test_a_shared_backbone_is_trained_once(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    genome = CODER.sample(np.random.default_rng(0))
    siblings = [(*genome[:-2], *bits) for bits in ((1, 0), (0, 1), (1, 1))]
    trials = [*map(Trial, [*siblings, (1 - genome[0], *genome[1:])])]
    asked: list[tuple[Trial, Future[Any]]] = []

    def submit(_function: Any, arguments: list[tuple[Trial]]) -> list[Future[Any]]:
        asked.extend((each, Future()) for (each,) in arguments)
        return [future for _, future in asked[-len(arguments) :]] if arguments else []

    with Workers(1, CODER, lambda: load("digits"), replace(ASKED, recipe=recipe), tmp_path) as pool:
        monkeypatch.setattr(pool, "_submit", submit)
        answers = pool.evaluate(trials)
        threading.Timer(0.05, lambda: asked[0][1].set_result("first")).start()
        assert next(answers) == "first"
        shared = [trials[0], trials[3], *trials[1:3]]
        assert [trial for trial, _ in asked] == (shared if isinstance(recipe, PaperRecipe) else trials)
        for place, (_, future) in enumerate(asked[1:]):
            future.set_result(place)
        assert sorted(answers) == [0, 1, 2]


def test_a_c_library_that_keeps_no_freed_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # a C library without mallopt
    assert keep_freed_memory() is False
