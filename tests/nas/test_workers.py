"""Worker processes: failures are answers, deaths are errors, and nothing depends on who does what when."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nachos_min.data import Dataset, Images, Split, load
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, Recipe
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluate import evaluate
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.pools import keep_freed_memory
from nachos_min.nas.space import load_space
from nachos_min.nas.steps import Step
from nachos_min.nas.tasks import MachineError, opened, share, tell, threads
from nachos_min.nas.workers import WorkerDiedError, Workers
from nachos_min.store.values import decode

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
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A file of 90 digits."""
    full, path = load("digits"), tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(path, images=full.train.images[:90], labels=full.train.labels[:90])
    return load(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def two(data: Dataset, folder: Path) -> Iterator[Workers]:
    with Workers(2, CODER, data, ASKED, folder) as pool:
        yield pool


def test_answers_are_those_of_this_process_in_any_order(two: Workers, data: Dataset, folder: Path) -> None:
    rng = np.random.default_rng(0)
    genomes = [CODER.sample(rng) for _ in range(3)]
    for order in (genomes, genomes[::-1]):
        answers = {found.trial.genome: found for found in two.evaluate([*map(Trial, order)])}
        assert answers.keys() == set(genomes)
        for genome in genomes:
            assert answers[genome] == evaluate(CODER, data, ASKED, Trial(genome))
            genes, kept = CODER.backbone_genes(genome), dict[str, Any]()
            for file in (folder / "backbones").iterdir():
                kept[str(decode(file)["of"]["genes"])] = decode(file)["losses"]
            assert tuple(kept[str(tuple(genes))]) == answers[genome].losses[:1]


def test_a_failure_is_an_answer_and_the_others_come_too(two: Workers) -> None:
    good = CODER.sample(np.random.default_rng(0))
    answers = {found.trial.genome: found for found in two.evaluate([Trial((1,), 4, 2), Trial(good, 2, 1)])}
    reason = "SpaceError: genome of space micro must have 17 genes, got 1"
    assert answers[(1,)] == Failure(Trial((1,), 4, 2), reason)
    assert isinstance(answers[good], Evaluation)
    assert answers[good].trial == Trial(good, 2, 1)


def test_workers_run_on_one_thread(data: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    names = [("OPENBLAS_NUM_THREADS",), ("MKL_NUM_THREADS",)]
    with Workers(1, CODER, data, ASKED, tmp_path) as pool:
        assert pool.starmap(os.getenv, names) == ["1", "1"]
        assert dict(os.environ) == before
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.starmap(os.getenv, names)
    assert dict(os.environ) == before


def test_too_little_memory_says_nothing_about_the_candidate(two: Workers) -> None:
    with pytest.raises(WorkerDiedError, match="out of memory"):
        list(two.evaluate([Trial(Endless())]))


class Mortal(tuple[int, ...]):
    """The genome `genes`, which ends the first worker that unpacks it."""

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        return survivor, (os.environ["DIED"], tuple(self))


def survivor(died: str, genes: tuple[int, ...]) -> tuple[int, ...]:
    if not os.path.exists(died):
        open(died, "w").close()
        os._exit(1)
    return genes


def test_what_a_dead_worker_had_is_given_out_once_more(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    genomes = [CODER.sample(np.random.default_rng(seed)) for seed in range(2)]
    with Workers(1, CODER, data, ASKED, tmp_path) as pool:
        trials = [Trial(genomes[0]), Trial(Mortal(genomes[1]))]
        answers = {found.trial.genome: found for found in pool.evaluate(trials)}
    assert (tmp_path / "died").exists()
    assert answers == {genome: evaluate(CODER, data, ASKED, Trial(genome)) for genome in genomes}


def test_a_second_death_is_an_error_and_leaves_no_process_and_no_data(data: Dataset, tmp_path: Path) -> None:
    before = set(active_children())  # those of the other tests

    def lose_workers() -> None:
        with Workers(1, CODER, data, ASKED, tmp_path) as pool:
            next(pool.evaluate([Trial((1,))]))
            assert (tmp_path / "shared").exists()
            list(pool.evaluate([Trial(Lethal())]))

    with pytest.raises(WorkerDiedError, match=r"a worker process died .* the same command continues"):
        lose_workers()
    assert not {*active_children()} - before
    assert not (tmp_path / "shared").exists()


def fatal(_: np.ndarray) -> None:
    os._exit(1)


def test_the_death_of_workers_before_they_read_a_full_pipe_ends_the_search(data: Dataset, tmp_path: Path) -> None:
    with Workers(1, CODER, data, ASKED, tmp_path) as pool, pytest.raises(WorkerDiedError, match="died"):
        pool.starmap(fatal, [(np.zeros(1 << 17),)] * 3)  # a megabyte each; a pipe holds 64 kB


def test_a_task_is_small_and_workers_map_its_data(tmp_path: Path) -> None:
    images = np.arange(5000 * 4, dtype=np.uint8).reshape(5000, 2, 2, 1)
    labels = np.arange(5000) % 2
    splits = Split(Images(images), labels), Split(Images(images, np.arange(4000)), labels[:4000])
    own = Dataset("own", splits[0], splits[1], splits[1], 2, "")
    task = share(CODER, own, ASKED, tmp_path)
    assert len(pickle.dumps(task)) < 1_000
    _, found, _, _ = opened(task)
    assert isinstance(found.train.images.stored.base, np.memmap)
    assert found.validation.images.stored is found.train.images.stored, "it is mapped once"
    for name in ("train", "validation", "test"):
        for there, here in ((getattr(own, name), getattr(found, name)),):
            assert np.array_equal(there.labels, here.labels)
            assert np.array_equal(there.images[:7], here.images[:7])


def test_shared_files_of_another_content_are_not_used(data: Dataset, tmp_path: Path) -> None:
    for place, name in ((0, "task"), (-1, "task"), (0, "0.npy"), (80, "0.npy"), (-1, "0.npy")):
        with Workers(0, CODER, data, ASKED, tmp_path) as pool:
            assert list(pool.evaluate([Trial((1,))]))
            file = tmp_path / "shared" / name
            content = bytearray(file.read_bytes())
            content[place] ^= 1
            file.write_bytes(content)
            with pytest.raises(MachineError, match=rf"the file {name} must be what the search wrote.*continues"):
                opened(pool._task())
            file.unlink()
            file.symlink_to(tmp_path / "elsewhere")
            with pytest.raises(OSError, match="it is a link"):
                opened(pool._task())
            file.unlink()
        assert not (tmp_path / "shared").exists()


def test_a_folder_of_shared_files_that_is_not_ours_is_neither_used_nor_emptied(
    data: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "task").write_text("mine")
    (tmp_path / "shared").symlink_to(other)
    with Workers(0, CODER, data, ASKED, tmp_path) as pool, pytest.raises(MachineError, match="it is a link"):
        list(pool.evaluate([Trial((1,))]))
    assert [file.name for file in other.iterdir()] == ["task"]
    (tmp_path / "shared").unlink()
    with Workers(0, CODER, data, ASKED, tmp_path) as pool:
        list(pool.evaluate([Trial((1,))]))
        (tmp_path / "shared" / "notes.txt").write_text("mine")
    assert [file.name for file in (tmp_path / "shared").iterdir()] == ["notes.txt"]


# Executors


def numbers(seed: int) -> list[float]:
    """What a worker computes from a seed, and tells."""
    tell(seed)
    return np.random.default_rng(seed).random(3).tolist()


@pytest.mark.parametrize("kind", ["here", "processes", "threads"])
def test_any_executor_gives_the_same_answers(kind: str, two: Workers, data: Dataset, tmp_path: Path) -> None:
    genomes = [CODER.sample(np.random.default_rng(seed)) for seed in range(3)]
    wanted = {found.trial: found for found in two.evaluate([*map(Trial, genomes)])}
    with ExitStack() as ends:
        executor: int | Executor = 0
        if kind == "processes":
            executor = ends.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        elif kind == "threads":
            executor = ends.enter_context(ThreadPoolExecutor(2))
        with threads(1), Workers(executor, CODER, data, ASKED, tmp_path) as pool:
            assert {found.trial: found for found in pool.evaluate([*map(Trial, genomes)])} == wanted
            assert pool.starmap(numbers, [(3,), (1,)]) == two.starmap(numbers, [(3,), (1,)])
            (failure,) = pool.evaluate([Trial((1,))])
            assert isinstance(failure, Failure)
        if isinstance(executor, Executor):
            assert executor.submit(abs, -1).result() == 1, "its owner ends it"


def test_the_parent_hears_what_workers_tell(two: Workers, data: Dataset, tmp_path: Path) -> None:
    with Workers(0, CODER, data, ASKED, tmp_path) as here:
        for pool in (two, here):
            told: list[Any] = []
            list(pool.evaluate([], told.append))
            pool.starmap(numbers, [(seed,) for seed in range(5)])
            assert sorted(told) == [0, 1, 2, 3, 4]


def test_an_interruption_in_this_process_is_no_answer(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Workers(0, CODER, data, ASKED, tmp_path) as pool:
        pool.starmap(interrupted, [()])


def interrupted() -> None:
    raise KeyboardInterrupt


def test_a_script_without_its_guard_is_told_so_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import nachos_min\nnachos_min.search(space='micro', evaluations=2, epochs=1, workers=2)\n")
    ended = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("nachos_min.nas.pools.UnguardedError: search must be called below `if __name__ ==")
    assert ended.stderr.count("Traceback") == 1
    assert "multiprocessing" not in ended.stderr


def test_a_script_from_standard_input_needs_no_file(tmp_path: Path) -> None:
    given = "space='micro', evaluations=1, finalists=0, epochs=1, min_accuracy=0, workers=1"
    script = (
        f"import nachos_min\nprint(nachos_min.search({given}).evaluated, globals().get('__file__', '<stdin>'))\n"
    )
    ended = subprocess.run([sys.executable], input=script, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("1 <stdin>\n", "")


@pytest.mark.parametrize("recipe", [ASKED.recipe, DeepRecipe()], ids=["paper", "deep"])
def test_a_shared_backbone_is_trained_once(recipe: Recipe, tmp_path: Path) -> None:
    genome = CODER.sample(np.random.default_rng(0))
    siblings = [(*genome[:-2], *bits) for bits in ((1, 0), (0, 1), (1, 1))]
    trials = [*map(Trial, [*siblings, (1 - genome[0], *genome[1:])])]
    asked: list[Trial] = []
    ahead: list[int] = []  # how many were asked for while the first was trained

    class Delayed(Executor):
        def submit(self, *call: Any) -> Future[Any]:
            asked.append(call[-2])  # behind the task; the time to stop follows
            future: Future[Any] = Future()
            if len(asked) == 1:
                threading.Timer(0.05, lambda: ahead.append(len(asked)) or future.set_result(0)).start()
            else:
                future.set_result(len(asked) - 1)
            return future

    with Workers(Delayed(), CODER, load("digits"), replace(ASKED, recipe=recipe), tmp_path) as pool:
        assert sorted(pool.evaluate(trials)) == [0, 1, 2, 3]
    waited = isinstance(recipe, PaperRecipe)
    assert asked == ([trials[0], trials[3], *trials[1:3]] if waited else trials)
    assert ahead == [2 if waited else 4]


def test_a_c_library_that_keeps_no_freed_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # a C library without mallopt
    assert keep_freed_memory() is False


def test_running_trials_tell_their_epochs_and_none_starts_out_of_time(two: Workers) -> None:
    trials, steps = [Trial(CODER.sample(np.random.default_rng(seed))) for seed in (0, 1)], list[Step]()
    assert list(two.evaluate(trials, steps.append, until=0.0)) == []
    assert steps == []
    assert len(list(two.evaluate(trials, steps.append))) == 2
    assert {(step.trial, step.epoch) for step in steps} == {
        (trial, epoch) for trial in trials for epoch in range(4)
    }
