"""What the machine refuses stops a search in one line, is stored nowhere, and the same command continues."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nachos_min
from nachos_min import cli
from nachos_min.nas import evaluate, nachos, tasks
from nachos_min.nas.evaluate import DivergenceError, ExecutionError
from nachos_min.nas.evaluation import cause_of
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.tasks import MachineError, of_machine
from nachos_min.nas.workers import WorkerDiedError, Workers
from nachos_min.store import create_or_open, open_run

FULL = OSError(errno.ENOSPC, "No space left on device", "/cache/kernel.nbi")


def wrapped(inner: BaseException, outer: Exception) -> Exception:
    """The exception `outer`, raised while `inner` was handled, which it hides."""
    try:
        try:
            raise inner
        except BaseException:
            raise outer from None
    except Exception as error:
        return error


TROUBLES: dict[str, Callable[[], BaseException]] = {
    "full": lambda: FULL,
    "hidden": lambda: wrapped(FULL, RuntimeError("cannot cache")),
    "half": lambda: ImportError("cannot import name 'blas'"),
    "threads": lambda: RuntimeError("can't start new thread"),
    "memory": lambda: wrapped(MemoryError(), ValueError("no array")),
    "diverged": lambda: wrapped(FULL, DivergenceError("training diverged")),
    "defect": lambda: ExecutionError("executed 1 MACs, counted 2"),
}


@dataclass(frozen=True)
class Troubled(GenomeCoder):
    """A coder whose networks are in trouble where they are trained, while the file `TROUBLE` names it."""

    def decode(self, genome: Genome) -> Any:
        named = Path(os.environ["TROUBLE"])
        if named.exists():
            raise TROUBLES[named.read_text(encoding="utf-8")]()
        return super().decode(genome)


class InTrouble(Workers):
    """Workers whose trainings are in trouble."""

    def __init__(self, executor: int | Executor, coder: GenomeCoder, *rest: Any) -> None:
        super().__init__(executor, Troubled(**vars(coder)), *rest)


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that names the trouble; without it there is none."""
    monkeypatch.setenv("TROUBLE", str(tmp_path / "trouble"))
    monkeypatch.setattr(nachos, "Workers", InTrouble)
    return tmp_path / "trouble"


def search(folder: Path, workers: int, **options: Any) -> Any:
    given = {"space": "micro", "max_macs": 60_000, "min_accuracy": 0.0, "epochs": 1, "finalists": 0}
    return nachos_min.search(out=folder, workers=workers, evaluations=2, **given | options)


def records(folder: Path) -> dict[str, bytes]:
    """The evaluations of a run and their order, by their names."""
    return {file.name: file.read_bytes() for file in [*folder.glob("evaluations/*"), folder / "order.h5"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_in_trouble_stores_nothing_and_the_same_command_continues(
    workers: int, trouble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "full": "the system refused: No space left on device: /cache/kernel.nbi",
        "hidden": "the system refused: No space left on device: /cache/kernel.nbi",
        "half": "the system refused: ImportError: cannot import name 'blas'",
        "threads": "the system refused: RuntimeError: can't start new thread",
    }
    for name in ("hidden",) if workers else said:
        trouble.write_text(name)
        with pytest.raises(MachineError) as stopped:
            search(tmp_path / "run", workers)
        assert str(stopped.value) == f"{said[name]}; what was evaluated is kept, the same command continues"
        assert not [*tmp_path.glob("run/evaluations/*"), *tmp_path.glob("run/shared")]
    trouble.write_text("memory")
    with pytest.raises(WorkerDiedError, match=r"out of memory.*the same command continues"):
        search(tmp_path / "run", workers)
    trouble.write_text("full")
    line = f"search --space micro --out {tmp_path / 'run'} --workers {workers} --evaluations 2 --epochs 1 --quiet"
    limits = " --finalists 0 --max-macs 60k --min-accuracy 0"
    assert cli.main((line + limits).split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not [*tmp_path.glob("run/evaluations/*")]
    trouble.unlink()
    assert search(tmp_path / "run", workers).failed == 0
    search(tmp_path / "alone", 0)
    assert records(tmp_path / "run") == records(tmp_path / "alone")


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_full_of_shared_data_ends_a_search_and_one_full_of_backbones_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"recipe": "paper", "epochs": 4}
    search(tmp_path / "alone", 0, **given)
    with monkeypatch.context() as patch:
        patch.setattr(tasks.npy, "write_array", full)
        with pytest.raises(MachineError, match=r"run.shared cannot be written: No space left on .*continues$"):
            search(tmp_path / "run", 0, **given)
        assert not (tmp_path / "run" / "shared").exists()
    monkeypatch.setattr(evaluate, "replacing", full)
    search(tmp_path / "run", 0, **given)
    assert not [*(tmp_path / "run" / "backbones").iterdir()]
    assert [*(tmp_path / "alone" / "backbones").iterdir()]
    assert records(tmp_path / "run") == records(tmp_path / "alone")


def test_what_genome_and_data_decide_is_stored_with_its_cause_and_retried_when_asked(
    trouble: Path, tmp_path: Path
) -> None:
    causes = {}
    for name in ("diverged", "defect"):
        trouble.write_text(name)
        found = search(tmp_path / "run", 0, retry_failed=True)
        causes[name] = found.as_dict()["failures"]
        assert search(tmp_path / "run", 0).reused == 2
        assert nachos_min.load_run(tmp_path / "run").as_dict()["failures"] == causes[name]
    assert causes == {"diverged": {"diverged": 2}, "defect": {"defect": 2}}
    trouble.unlink()
    assert search(tmp_path / "run", 0).failed == 2, "they are not tried again unasked"
    assert search(tmp_path / "run", 0, retry_failed=True).failed == 0
    search(tmp_path / "alone", 0)
    assert records(tmp_path / "run") == records(tmp_path / "alone")


def test_failures_of_the_last_version_that_were_the_machines_are_tried_again(trouble: Path, tmp_path: Path) -> None:
    trouble.write_text("defect")
    search(tmp_path / "run", 0)
    trouble.unlink()
    identity = open_run(tmp_path / "run").configuration
    with create_or_open(tmp_path / "run", identity) as run:
        first, second = run.keys()
        for key, reason in ((first, "OSError: [Errno 28] No space left on device"), (second, "KeyError: 'x'")):
            record = dict(run.read(key) or {}) | {"reason": reason}
            del record["cause"]
            run.write(key, record)
    assert nachos_min.load_run(tmp_path / "run").as_dict()["failures"] == {"defect": 1, "machine": 1}
    found = search(tmp_path / "run", 0)
    assert (found.evaluated, found.as_dict()["failures"], found.reused) == (1, {"defect": 1}, 1)


@pytest.mark.parametrize("reason", ["PermissionError: x", "MemoryError: ", "ModuleNotFoundError: no", "OSError"])
def test_a_reason_alone_says_whose_it_was(reason: str) -> None:
    assert cause_of(reason) == "machine"


def test_an_exception_that_arose_from_itself_has_an_end() -> None:
    error = ValueError("round")
    error.__context__ = KeyError("and round")
    error.__context__.__context__ = error
    assert of_machine(error) is None
