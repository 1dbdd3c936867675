"""Runs on the disk: continued, locked, refused, killed, damaged."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from nachos_min.errors import InputError
from nachos_min.files import write_file
from nachos_min.store import OtherRunError, StoreError, create_or_open, open_run, own_folder
from nachos_min.store.values import decode, encode

SPACE = {"depth": (1, 2), "stages": [{"width": 8}, {"width": 16}]}
CONFIGURATION = {"data": "digits", "max_macs": 60000, "space": SPACE}
DAMAGED = "is damaged: its content is not what its checksum says"


def _message(function, *arguments):
    with pytest.raises(StoreError, match=r"\A.*\Z") as caught:  # one line
        function(*arguments)
    return str(caught.value)


def _tree(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


@pytest.fixture
def path(tmp_path):
    """The folder of a run that holds one record."""
    with create_or_open(tmp_path / "run", CONFIGURATION) as run:
        run.write("k", {"a": "old"})
    return tmp_path / "run"


def test_a_run_is_created_written_and_continued(tmp_path):
    path = tmp_path / "runs" / "digits"
    with create_or_open(path, CONFIGURATION) as run:
        assert run.keys() == ()
        assert run.read("b2") is None
        run.write("b2", {"macs": 2**64, "table": np.eye(2)})
        run.write("v1.2", {"reason": "cost order"})
    assert _tree(path) == ["evaluations", "evaluations/b2.h5", "evaluations/v1.2.h5", "lock", "run.h5"]
    with create_or_open(str(path), CONFIGURATION) as run:
        assert run.keys() == ("b2", "v1.2")
        assert run.read("b2")["macs"] == 2**64
        run.write("v1.2", {"reason": "replaced"})
        assert run.read("v1.2") == {"reason": "replaced"}


def test_a_run_is_read_while_it_is_written(path):
    with create_or_open(path, CONFIGURATION) as writer:
        reader = open_run(path)
        assert reader.configuration == CONFIGURATION
        writer.write("k", {"a": 1})
        assert reader.read("k") == {"a": 1}
        assert _message(reader.write, "k", {"a": 2}) == f"run {path} is not open for writing"
        for key in ("", "../x", "a/b", ".hidden", "x" * 201, "ü", "a b"):  # keys are file names
            told = f"a key must be 1 to 200 letters, digits, '.', '_' or '-', got {key!r}"
            assert _message(writer.write, key, {}) == _message(reader.read, key) == told
    assert _message(writer.write, "k", {"a": 2}) == f"run {path} is not open for writing"
    writer.close()


@pytest.mark.parametrize(
    ("change", "there", "wanted"),
    [
        ({"max_macs": 90000}, "with max_macs 60000", "90000"),
        ({"max_macs": None}, "with max_macs 60000", "None"),
        ({"seed": 3}, "without seed", "3"),
        ({"data": "svhn", "max_macs": 1}, "with data digits", "svhn"),
        ({"space": {"depth": (1, 3), "stages": []}}, "with space.depth (1, 2)", "(1, 3)"),
        ({"space": SPACE | {"stages": [{"width": 8}, {"width": 24}]}}, "with space.stages.1.width 16", "24"),
        ({"data": ...}, "with data digits", "none"),  # a configuration with less is another one
    ],
)
def test_another_configuration_is_refused_by_its_first_difference(path, change, there, wanted):
    changed = {name: value for name, value in (CONFIGURATION | change).items() if value is not ...}
    before = (path / "run.h5").read_bytes()
    told = f"out {path} holds a run {there}, this one asks for {wanted}; choose another --out"
    assert _message(create_or_open, path, changed) == told
    assert (path / "run.h5").read_bytes() == before
    create_or_open(path, CONFIGURATION).close()  # the refusal released the lock


def test_a_run_without_an_evaluation_gives_way_to_another_configuration(path):
    (path / "evaluations" / "k.h5").unlink()
    other, about = CONFIGURATION | {"max_macs": 90000}, {"image_shape": (8, 8, 1), "class_names": ("cat", "dog")}
    (path / "backbones").mkdir()
    (path / "backbones" / f"{'a' * 64}.npz").write_bytes(b"by the former configuration")
    with create_or_open(path, CONFIGURATION):
        assert _message(create_or_open, path, other) == f"run {path} is in use by another process"
    with create_or_open(path, other, about) as run:
        assert (run.configuration, run.about) == (other, about)
        run.write("k", {"a": 1})
    assert _tree(path) == ["evaluations", "evaluations/k.h5", "lock", "run.h5"]
    assert (open_run(path).configuration, open_run(path).about) == (other, about)
    with pytest.raises(OtherRunError) as refusal:
        create_or_open(path, CONFIGURATION | {"seed": 1}, about)
    assert refusal.value.different == {"max_macs": (90000, 60000), "seed": (None, 1)}
    with create_or_open(path, other) as run:
        assert run.about == about, "what is stored with a run stays"


def test_some_of_a_record_can_be_left_unread(path):
    with create_or_open(path, CONFIGURATION) as run:
        run.write("k", {"a": 1, "weights": {"stem": np.eye(2)}, "b": "x"})
    assert open_run(path).read("k", without=("weights",)) == {"a": 1, "b": "x"}


def test_a_configuration_is_plain_and_nothing_is_written_for_one_that_is_not(tmp_path):
    message = _message(create_or_open, tmp_path / "run", {"a": {"b": np.zeros(2)}})
    assert message == "configuration: a.b must be a plain value, got an array"
    assert "configuration.a must be int, float" in _message(create_or_open, tmp_path / "run", {"a": object()})
    assert _tree(tmp_path) == []


def _python(*arguments):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_writer_is_kept_out(path):
    second = f"""
from nachos_min.store import create_or_open
try:
    create_or_open({str(path)!r}, {CONFIGURATION!r}).close()
    print("opened")
except Exception as error:
    print(error)
"""
    with create_or_open(path, CONFIGURATION):
        assert _message(create_or_open, path, CONFIGURATION) == f"run {path} is in use by another process"
        assert _python("-c", second) == f"run {path} is in use by another process"
    assert _python("-c", second) == "opened"


def test_a_disk_without_locks_is_used_without_one(path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with create_or_open(path, CONFIGURATION) as run:
        assert run.keys() == ("k",)


class Windows:
    """Locks of Windows, of bytes from where a file stands; the end of a file may free them late."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def __init__(self, has_locks=True):
        self.has_locks, self.locked = has_locks, set()

    def locking(self, descriptor, mode, length):
        assert (os.lseek(descriptor, 0, os.SEEK_CUR), length) == (0, 1)
        file = os.fstat(descriptor).st_ino
        if not self.has_locks:
            raise OSError(errno.EINVAL, "Invalid argument")
        if (file in self.locked) == (mode == self.LK_NBLCK):
            raise OSError(errno.EACCES, "Permission denied")
        self.locked ^= {file}


@pytest.mark.skipif(os.name == "nt", reason="plays Windows, which has its own locks")
def test_windows_locks_too(path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", windows := Windows())
    with create_or_open(path, CONFIGURATION):
        assert windows.locked == {(path / "lock").stat().st_ino}
        assert _message(create_or_open, path, CONFIGURATION) == f"run {path} is in use by another process"
    assert windows.locked == set()
    create_or_open(path, CONFIGURATION).close()
    monkeypatch.setitem(sys.modules, "msvcrt", Windows(has_locks=False))
    with create_or_open(path, CONFIGURATION) as run:
        assert run.keys() == ("k",)


def test_windows_waits_for_readers_of_a_file_that_it_replaces(path, monkeypatch):
    replace, times = os.replace, list[float]()

    def while_read(source, target):
        if len(times) < 2:
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr("time.sleep", times.append)
    with create_or_open(path, CONFIGURATION) as run:
        monkeypatch.setattr(os, "replace", while_read)
        assert "Permission denied" in _message(run.write, "k", {"a": "new"})
        monkeypatch.setattr(sys, "platform", "win32")
        run.write("k", {"a": "new"})
        assert (run.read("k"), len(times)) == ({"a": "new"}, 2)
        monkeypatch.undo()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is forked")
def test_killed_at_any_moment_a_run_is_whole(tmp_path):
    assert int(_python(str(Path(__file__).with_name("killed_writer.py")), str(tmp_path / "run"), "25")) > 0


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(path, monkeypatch, step):
    before = _tree(path)
    with create_or_open(path, CONFIGURATION) as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, step, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
            told = f"{path / 'evaluations' / 'k.h5'} cannot be written: No space left on device"
            assert _message(run.write, "k", {"a": "new"}) == told
        assert "a must be int, float" in _message(run.write, "k", {"a": object()})
        assert (run.read("k"), _tree(path)) == ({"a": "old"}, before)
        run.write("k", {"a": "new"})
        assert run.read("k") == {"a": "new"}


def test_shared_data_of_a_killed_search_is_removed_in_a_run_alone(path):
    (path / "shared").mkdir()
    (path / "shared" / "0.npy").write_bytes(b"half")
    create_or_open(path, CONFIGURATION).close()
    assert not (path / "shared").exists()
    other = path.parent / "no run"
    (other / "shared").mkdir(parents=True)
    assert "it holds 'shared'" in _message(create_or_open, other, CONFIGURATION)
    assert (other / "shared").exists()


KINDS = {
    "link": lambda place, kept: place.symlink_to(kept),
    "dangling link": lambda place, kept: place.symlink_to(kept / "none"),
    "pipe": lambda place, _: os.mkfifo(place),
    "folder": lambda place, _: place.mkdir(),
    "file": lambda place, _: place.write_text("x"),
}
TEMPORARY = "1.2.tmp"
FILES = ("run.h5", "order.h5", "examples.h5", "lock", "evaluations/k.h5", f"run.h5.{TEMPORARY}")
FILES += (f"evaluations/x.h5.{TEMPORARY}", f"backbones/{'a' * 64}.npz", "shared/0.npy", "shared/task")
FOLDERS = ("evaluations", "backbones", "shared")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows, which has no such pipes")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in FILES + FOLDERS
        for kind in KINDS
        if (kind == "file") == (name in FOLDERS) or "link" in kind
    ],
)
def test_what_is_no_file_or_folder_of_a_run_is_refused_before_anything_changes(path, name, kind):
    place, kept = path / name, path.parent / "kept"
    kept.mkdir()
    (kept / f"k.h5.{TEMPORARY}").write_text("another's")
    (path / f"order.h5.{TEMPORARY}").write_text("left by a killed process")
    if name == "evaluations":
        (path / name).rename(kept / name)
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    KINDS[kind](place, kept)
    before = _tree(path.parent)
    what = f"it is a {kind.split()[-1]}, not a {'folder' if name in FOLDERS else 'file'}"
    told = f"{place} cannot be used: {what}"
    assert _message(create_or_open, path, CONFIGURATION) == told
    assert _tree(path.parent) == before

    def read():
        run = open_run(path)
        return run.get("order"), run.get("examples"), [run.read(key) for key in (*run.keys(), "k")]

    if name in ("run.h5", "order.h5", "examples.h5"):
        assert _message(read) == f"{place} cannot be read: {what}"
    elif name.startswith("evaluations"):
        assert _message(read) == told
    else:
        read()
    assert _tree(path.parent) == before


def test_names_that_are_not_of_a_run_are_left_alone(path):
    (path / "shared").mkdir()
    for name in ("notes.txt", "order.h5.old.tmp", "evaluations/my notes.h5", "shared/mine", "shared/0.npy"):
        (path / name).write_text("mine")
    with create_or_open(path, CONFIGURATION) as run:
        assert run.keys() == ("k",)
    kept = {"notes.txt", "order.h5.old.tmp", "evaluations/my notes.h5", "shared/mine"}
    assert {*_tree(path)} == kept | {"evaluations", "evaluations/k.h5", "lock", "run.h5", "shared"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_the_folder_of_a_run_may_be_a_link_and_a_checked_folder_in_it_is_none(path):
    link = path.with_name("link")
    link.symlink_to(path)
    with create_or_open(link, CONFIGURATION) as run:
        run.write("k", {"a": 1})
    assert open_run(path).read("k") == {"a": 1}
    assert own_folder(link, "shared").is_dir()
    (path / "shared" / "0.npy").symlink_to(path / "run.h5")
    told = f"{link / 'shared' / '0.npy'} cannot be used: it is a link, not a file"
    assert _message(own_folder, link, "shared") == told


def test_a_record_is_of_its_run_and_its_name_alone(path, tmp_path):
    with create_or_open(tmp_path / "other", CONFIGURATION | {"seed": 1}) as other:
        other.write("k", {"a": "other"})
    with create_or_open(path, CONFIGURATION) as run:
        run.write("k2", {"a": 2})
        run.put("order", {"keys": []})
    files = {name: path / f"{name}.h5" for name in ("evaluations/k", "evaluations/k2", "order", "examples")}
    own, another = open_run(path), tmp_path / "other" / "evaluations" / "k.h5"
    for source, name in ((another, "evaluations/k"), (files["evaluations/k"], "evaluations/k2")):
        content = files[name].read_bytes()
        files[name].write_bytes(source.read_bytes())
        told = f"{files[name]} is damaged: it must be {name} of this run, got another record"
        assert _message(own.get, name) == told
        files[name].write_bytes(content)
    files["examples"].write_bytes(files["order"].read_bytes())
    assert "it must be examples of this run" in _message(own.get, "examples")
    files["order"].write_bytes(encode({"keys": []}))
    assert "it must be order of this run" in _message(own.get, "order")
    assert own.read("k") == {"a": "old"}
    changed = decode(path / "run.h5") | {"configuration": CONFIGURATION | {"seed": 2}}
    (path / "run.h5").write_bytes(encode(changed))
    told = f"{path / 'run.h5'} is damaged: it must have the identity of its configuration, got another"
    assert _message(open_run, path) == told


def test_a_run_of_an_earlier_version_is_opened_and_continued(path):
    former = decode(path / "run.h5")
    del former["identity"]
    (path / "run.h5").write_bytes(encode(former))
    (path / "evaluations" / "k.h5").write_bytes(encode({"a": "former"}))
    with create_or_open(path, CONFIGURATION) as run:
        run.write("k2", {"a": 2})
        assert (run.read("k"), run.read("k2")) == ({"a": "former"}, {"a": 2})
    assert open_run(path).read("k") == {"a": "former"}
    with create_or_open(path.with_name("other"), CONFIGURATION | {"seed": 1}) as other:
        other.write("k", {"a": "other"})
    (path / "evaluations" / "k.h5").write_bytes((path.with_name("other") / "evaluations" / "k.h5").read_bytes())
    assert "it must be evaluations/k of this run" in _message(open_run(path).read, "k")


def test_leftovers_of_a_killed_process_are_removed_once_the_lock_is_held(path):
    (path / "run.h5.1.2.tmp").write_bytes(b"half")
    (path / "evaluations" / "x.h5.1.2.tmp").write_bytes(b"half")
    assert open_run(path).keys() == ("k",)
    assert len(list(path.rglob("*.tmp"))) == 2  # a reader changes nothing
    (path / "evaluations" / "k.h5").unlink()
    (path / "run.h5").unlink()  # as if it was killed before the run was made
    assert _message(open_run, path) == f"{path} is no run: it holds no run.h5"
    create_or_open(path, CONFIGURATION).close()
    assert list(path.rglob("*.tmp")) == []
    assert open_run(path).configuration == CONFIGURATION


def test_a_damaged_evaluation_is_named_and_can_be_written_again(path):
    with create_or_open(path, CONFIGURATION) as run:
        file = path / "evaluations" / "k.h5"
        file.write_bytes(file.read_bytes()[:-500])
        assert _message(run.read, "k") == f"{file} {DAMAGED}"
        assert run.keys() == ("k",)
        run.write("k", {"a": 1})
        assert run.read("k") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"not HDF5", f"{{run}}/run.h5 {DAMAGED}"),
        (encode({"format": "other"}), "{run} is no run: run.h5 must say 'nachos_min run', got 'other'"),
        (encode({"format": "nachos_min run", "version": 2}), "run {run} has version 2, this program reads 1"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named_and_kept(path, content, told):
    (path / "run.h5").write_bytes(content)
    for function in (open_run, lambda path: create_or_open(path, CONFIGURATION)):
        assert _message(function, path) == told.format(run=path)
    assert (path / "run.h5").read_bytes() == content


def test_places_that_cannot_hold_a_run(path, monkeypatch):
    def refused(place):
        return _message(create_or_open, place, CONFIGURATION)

    file, folder = path / "run.h5", path.parent
    for place in (file, file / "deeper"):
        assert refused(place) == f"out {place}: {file} is not a folder; choose another --out"
    assert refused(folder) == f"out {folder} is no run and not empty, it holds 'run'; choose another --out"
    long = folder / ("x" * 300)
    assert refused(long) == f"{long} cannot be used: File name too long"
    assert "embedded null" in refused(str(folder / "a\0b"))
    assert _message(open_run, folder / "none") == f"run {folder / 'none'} does not exist"
    file.unlink()  # evaluations that lost their configuration may be of any other one
    told = f"out {path} is no run and not empty, it holds 'evaluations/k.h5'; choose another --out"
    assert refused(path) == told
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert refused(folder / "new") == f"out {folder / 'new'}: {folder} may not be written; choose another --out"
    assert not (folder / "new").exists()


def test_a_run_that_cannot_be_completed_releases_its_lock(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    (path / "evaluations").write_text("a file where a folder belongs")
    assert (
        _message(create_or_open, path, CONFIGURATION)
        == f"{path / 'evaluations'} cannot be used: it is a file, not a folder"
    )
    (path / "evaluations").unlink()
    create_or_open(path, CONFIGURATION).close()
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    new = tmp_path / "new"
    assert _message(create_or_open, new, CONFIGURATION) == f"{new} cannot be written: Permission denied"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_written_file_leaves_links_and_pipes_as_they_are(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe cannot be written: it is a pipe, not a file"):
        write_file(tmp_path / "pipe", b"new")
    assert _tree(tmp_path) == ["file", "link", "pipe"]


def test_a_run_may_lie_many_folders_deep(tmp_path):
    path = tmp_path.joinpath(*"d" * 1500)
    create_or_open(path, CONFIGURATION).close()
    assert open_run(path).configuration == CONFIGURATION
    shutil.rmtree(path)
    for folder in list(path.parents)[:1499]:  # one by one: shutil.rmtree is recursive in old Pythons
        folder.rmdir()
