"""Runs on the disk: continued, locked, refused, killed, damaged."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nachos_min.store import StoreError, check, check_writable, create_or_open, files, lock, open_run
from nachos_min.store.values import encode

CONFIGURATION = {
    "data": "digits",
    "max_macs": 60000,
    "space": {"depth": (1, 2), "stages": [{"width": 8}, {"width": 16}]},
}


def _message(function, *arguments):
    with pytest.raises(StoreError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _tree(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_a_run_is_created_written_and_continued(tmp_path):
    path = tmp_path / "runs" / "digits"
    with create_or_open(path, CONFIGURATION) as run:
        assert run.keys() == ()
        assert run.read("b2") is None
        run.write("b2", {"macs": 2**64, "table": np.eye(2)})
        run.write("a1", {"reason": "cost order"})
    assert _tree(path) == ["evaluations", "evaluations/a1.h5", "evaluations/b2.h5", "lock", "run.h5"]
    with create_or_open(str(path), CONFIGURATION) as run:
        assert run.keys() == ("a1", "b2")
        assert run.read("b2")["macs"] == 2**64
        run.write("a1", {"reason": "replaced"})
        assert run.read("a1") == {"reason": "replaced"}
    assert check(path) == ()


def test_a_run_is_read_while_it_is_written(tmp_path):
    with create_or_open(tmp_path / "run", CONFIGURATION) as writer:
        reader = open_run(tmp_path / "run")
        assert reader.configuration == CONFIGURATION
        writer.write("k", {"a": 1})
        assert reader.read("k") == {"a": 1}
        assert _message(reader.write, "k", {"a": 2}) == f"run {tmp_path / 'run'} is not open for writing"
    assert _message(writer.write, "k", {"a": 2}) == f"run {tmp_path / 'run'} is not open for writing"
    writer.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_macs": 90000}, "with max_macs 60000, this one asks for 90000"),
        ({"max_macs": None}, "with max_macs 60000, this one asks for None"),
        ({"seed": 3}, "without seed, this one asks for 3"),
        ({"data": "svhn", "max_macs": 1}, "with data digits, this one asks for svhn"),
        ({"space": {"depth": (1, 3), "stages": []}}, "with space.depth (1, 2), this one asks for (1, 3)"),
        (
            {"space": {"depth": (1, 2), "stages": [{"width": 8}, {"width": 24}]}},
            "with space.stages.1.width 16, this one asks for 24",
        ),
    ],
)
def test_another_configuration_is_refused_by_its_first_difference(tmp_path, change, told):
    path = tmp_path / "run"
    create_or_open(path, CONFIGURATION).close()
    before = (path / "run.h5").read_bytes()
    message = _message(create_or_open, path, CONFIGURATION | change)
    assert message == f"out {path} holds a run {told}; choose another --out"
    assert (path / "run.h5").read_bytes() == before
    create_or_open(path, CONFIGURATION).close()  # the refusal let go of the lock


def test_a_configuration_with_less_is_another_one(tmp_path):
    path = tmp_path / "run"
    create_or_open(path, CONFIGURATION).close()
    wanted = {key: value for key, value in CONFIGURATION.items() if key != "data"}
    told = "with data digits, this one asks for none"
    assert _message(create_or_open, path, wanted) == f"out {path} holds a run {told}; choose another --out"


def test_a_configuration_is_plain_and_nothing_is_written_for_one_that_is_not(tmp_path):
    message = _message(create_or_open, tmp_path / "run", {"a": {"b": np.zeros(2)}})
    assert message == "configuration: a.b must be a plain value, got an array"
    assert "configuration.a must be int, float" in _message(create_or_open, tmp_path / "run", {"a": object()})
    assert _tree(tmp_path) == []


def test_a_second_writer_is_kept_out(tmp_path):
    path = tmp_path / "run"
    second = f"""
from nachos_min.store import StoreError, create_or_open
try:
    create_or_open({str(path)!r}, {CONFIGURATION!r}).close()
except StoreError as error:
    print(error)
else:
    print("opened")
"""
    with create_or_open(path, CONFIGURATION):
        assert _message(create_or_open, path, CONFIGURATION) == f"run {path} is in use by another process"
        assert _python("-c", second) == f"run {path} is in use by another process"
    assert _python("-c", second) == "opened"


def _python(*arguments):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_disk_without_locks_is_used_without_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")

    def no_locks(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    held = lock.acquire(tmp_path / "lock")
    assert held is not None
    held.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is forked")
def test_killed_at_any_moment_a_run_is_whole(tmp_path):
    written = _python(str(Path(__file__).with_name("killed_writer.py")), str(tmp_path / "run"), "25")
    assert int(written) > 0


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch, step):
    with create_or_open(tmp_path / "run", CONFIGURATION) as run:
        run.write("k", {"a": "old"})
        before = _tree(tmp_path)

        def fail(*_arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files.os, step, fail)
            file = tmp_path / "run" / "evaluations" / "k.h5"
            expected = f"{file} cannot be written: No space left on device"
            assert _message(run.write, "k", {"a": "new"}) == expected
        assert run.read("k") == {"a": "old"}
        assert _tree(tmp_path) == before
        run.write("k", {"a": "new"})
        assert run.read("k") == {"a": "new"}


def test_a_record_that_cannot_be_stored_leaves_the_old_one(tmp_path):
    with create_or_open(tmp_path / "run", CONFIGURATION) as run:
        run.write("k", {"a": "old"})
        assert "a must be int, float" in _message(run.write, "k", {"a": object()})
        assert run.read("k") == {"a": "old"}


def test_leftovers_of_a_killed_process_are_removed_once_the_lock_is_held(tmp_path):
    path = tmp_path / "run"
    create_or_open(path, CONFIGURATION).close()
    (path / "run.h5.1.2.tmp").write_bytes(b"half")
    (path / "evaluations" / "k.h5.1.2.tmp").write_bytes(b"half")
    assert open_run(path).keys() == ()
    assert len(list(path.rglob("*.tmp"))) == 2  # a reader changes nothing
    with create_or_open(path, CONFIGURATION) as run:
        assert list(path.rglob("*.tmp")) == []
        assert run.keys() == ()


def test_a_folder_with_somebody_elses_files_is_refused_and_kept(tmp_path):
    (tmp_path / "draft.tmp").write_text("mine")
    expected = f"out {tmp_path} is no run and not empty, it holds 'draft.tmp'; choose another --out"
    assert _message(create_or_open, tmp_path, CONFIGURATION) == expected
    assert _tree(tmp_path) == ["draft.tmp"]


def test_evaluations_that_lost_their_configuration_are_not_taken_for_anothers(tmp_path):
    with create_or_open(tmp_path, CONFIGURATION) as run:
        run.write("0-1", {"a": 1})
    (tmp_path / "run.h5").unlink()
    expected = f"out {tmp_path} is no run and not empty, it holds 'evaluations/0-1.h5'; choose another --out"
    assert _message(create_or_open, tmp_path, CONFIGURATION) == expected


def test_a_run_killed_while_it_was_created_is_created_again(tmp_path):
    path = tmp_path / "run"
    (path / "evaluations").mkdir(parents=True)
    (path / "lock").touch()
    (path / "run.h5.1.2.tmp").write_bytes(b"half")
    assert _message(open_run, path) == f"{path} is no run: it holds no run.h5"
    create_or_open(path, CONFIGURATION).close()
    assert open_run(path).configuration == CONFIGURATION


def test_damaged_evaluations_are_named_and_can_be_written_again(tmp_path):
    path = tmp_path / "run"
    with create_or_open(path, CONFIGURATION) as run:
        for key in ("a", "b", "c"):
            run.write(key, {"table": np.arange(100)})
        file = path / "evaluations" / "b.h5"
        file.write_bytes(file.read_bytes()[:-500])
        told = f"{file} is damaged: its content is not what its checksum says"
        assert _message(run.read, "b") == told
        assert check(path) == (told,)
        assert run.keys() == ("a", "b", "c")
        run.write("b", {"table": np.arange(100)})
        assert check(path) == ()


def test_a_damaged_configuration_is_named_and_kept(tmp_path):
    path = tmp_path / "run"
    create_or_open(path, CONFIGURATION).close()
    (path / "run.h5").write_bytes(b"not HDF5")
    told = f"{path / 'run.h5'} is damaged: its content is not what its checksum says"
    assert _message(create_or_open, path, CONFIGURATION) == told
    assert _message(open_run, path) == told
    assert check(path) == (told,)
    assert (path / "run.h5").read_bytes() == b"not HDF5"


def test_other_formats_and_versions_are_refused(tmp_path):
    path = tmp_path / "run"
    create_or_open(path, CONFIGURATION).close()
    run_file = path / "run.h5"
    run_file.write_bytes(encode({"format": "other"}))
    assert _message(open_run, path) == f"{path} is no run: run.h5 must say 'nachos_min run', got 'other'"
    run_file.write_bytes(encode({"format": "nachos_min run", "version": 2}))
    assert _message(open_run, path) == f"run {path} has version 2, this program reads 1"
    assert check(path) == (f"run {path} has version 2, this program reads 1",)


def test_there_is_no_run(tmp_path):
    assert _message(open_run, tmp_path / "none") == f"run {tmp_path / 'none'} does not exist"
    assert _message(check, tmp_path) == f"{tmp_path} is no run: it holds no run.h5"


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "x" * 201, "ü", "a b"])
def test_keys_are_file_names(tmp_path, key):
    with create_or_open(tmp_path / "run", CONFIGURATION) as run:
        expected = f"a key must be 1 to 200 letters, digits, '.', '_' or '-', got {key!r}"
        assert _message(run.write, key, {}) == expected
        assert _message(run.read, key) == expected


def test_keys_with_dots_come_back_whole(tmp_path):
    with create_or_open(tmp_path / "run", CONFIGURATION) as run:
        run.write("v1.2", {})
        assert run.keys() == ("v1.2",)
        assert run.read("v1.2") == {}


def test_check_writable_writes_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert _tree(tmp_path) == []
    create_or_open(tmp_path / "run", CONFIGURATION).close()
    check_writable(tmp_path / "run")


def test_places_that_cannot_hold_a_run(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("text")
    for function in (check_writable, lambda path: create_or_open(path, CONFIGURATION)):
        for path in (file, file / "deeper"):
            assert _message(function, path) == f"out {path}: {file} is not a folder; choose another --out"
        expected = f"out {tmp_path} is no run and not empty, it holds 'file'; choose another --out"
        assert _message(function, tmp_path) == expected
        long = tmp_path / ("x" * 300)
        assert _message(function, long) == f"{long} cannot be written: File name too long"
        assert "embedded null" in _message(function, str(tmp_path / "a\0b"))
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    target = tmp_path / "new"
    assert _message(check_writable, target) == f"out {target}: {tmp_path} may not be written; choose another --out"


def test_a_run_that_cannot_be_completed_lets_go_of_its_lock(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "evaluations").write_text("a file where a folder belongs")
    assert _message(create_or_open, path, CONFIGURATION) == f"{path} cannot be written: File exists"
    (path / "evaluations").unlink()
    create_or_open(path, CONFIGURATION).close()


def test_a_folder_that_refuses_is_reported(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    path = tmp_path / "run"
    assert _message(create_or_open, path, CONFIGURATION) == f"{path} cannot be written: Permission denied"
