"""`macs` fed with what no user means well: special files, broken modules, names that steer a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nachos_min import cli
from nachos_min.errors import printable
from nachos_min.targets import read_target

MODULES = """
import sys
import torch

class Own(BaseException):
    def __str__(self):
        raise RuntimeError("no text")

class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)

class Unlisted(torch.nn.Module):
    def parameters(self, recurse=True):
        raise ValueError("no\\nlist")

def raises(error):
    raise error

def held():
    made = torch.nn.Module()
    made._modules["itself"] = made
    return made

def circle():
    found = []
    found.append(found)
    return Calls(lambda x: found)

leaves = lambda: Calls(sys.exit)
own = lambda: Calls(lambda x: raises(Own()))
steers = lambda: Calls(lambda x: raises(ValueError("red \\x1b[31m\\u202e\\nline")))
asked = lambda: raises(Own())
unlisted = lambda: Unlisted()
number = lambda: (torch.nn.Linear(4, 4), 5)
trained = lambda: torch.nn.Linear(4, 4).train()
stopped = lambda: raises(KeyboardInterrupt())
"""


@pytest.fixture
def hostile(refused, monkeypatch):
    """Run `macs` in a folder with modules that do harm; return its one line."""
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    Path("hostile_modules.py").write_text(MODULES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "hostile_modules", raising=False)
    yield refused
    sys.modules.pop("hostile_modules", None)


def printed(code):
    """Return the last line that a program prints."""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return found.stdout.splitlines()[-1]


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/full", "folder", "pipe"])
def test_what_is_no_file_is_not_read(place, refused):
    os.mkdir("folder")
    os.mkfifo("pipe")
    os.symlink(place, "special.json")
    assert refused("special.json") == "error: target must be an ordinary file, got 'special.json'\n"


def test_a_link_to_itself_is_one_line(refused):
    os.symlink("a.json", "a.json")
    assert "target 'a.json': Too many levels of symbolic links" in refused("a.json")


@pytest.mark.parametrize("name", ["two\nlines.json", "red\x1b[31m.json", "s\u2028p\x85.json", "q'uo\"te.json"])
def test_a_name_neither_breaks_a_line_nor_steers_the_terminal(name, macs, counted, refused):
    assert "No such file" in refused(name)
    Path(name).write_bytes(Path("net.json").read_bytes())
    assert macs(name).out.split("\n")[0] == f"{printable(name)}, input 1x8x8"
    assert counted(name)["target"] == name, "programs get the name as it is"


@pytest.mark.parametrize("name", ["net#1.json", "NET.JSON"])
def test_the_ending_says_what_a_file_is(name, macs):
    Path(name).write_bytes(Path("net.json").read_bytes())
    assert macs(name).status == 0


@pytest.mark.parametrize(
    "place", ['"ks": {}, "r": 32', '"space": "tiny", "genome": {}', '"classes": {}, "input": 1']
)
@pytest.mark.parametrize("depth", [500, 900, 960, 990, 100_000])
def test_lists_in_lists_are_one_line_at_any_depth(place, depth, refused):
    Path("deep.json").write_text("{" + place.replace("{}", "[" * depth + "]" * depth) + "}")
    assert "deep.json" in refused("deep.json")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory was taken")
@pytest.mark.usefixtures("run")
def test_what_a_large_file_parses_to_is_bounded():
    """Lists in lists take thirty times their text."""
    Path("lists.json").write_text('{"a":[' + "[]," * (2_700_000) + "1]}")
    status, kilobytes = printed(
        "from nachos_min.cli import main\nstatus = main(['macs', 'lists.json'])\n"
        "print(status, *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    ).split()
    assert status == "2"
    assert int(kilobytes) < 500_000


@pytest.mark.parametrize("place", ["trunk", "stages", "exits", "widths"])
def test_more_parts_than_a_network_has(place, refused):
    fields = json.loads(Path("net.json").read_text())
    fields |= {"trunk": [], "stages": [[{}]], "exits": []}
    ones = [1] * 6_001
    more = {"trunk": ones, "stages": [ones], "exits": ones, "widths": [{"widths": ones}]}
    Path("many.json").write_text(json.dumps(fields | {"exits" if place == "widths" else place: more[place]}))
    assert "architecture: blocks, exits and widths must be at most 6000 together, got '600" in refused("many.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leaves", "the module failed: SystemExit: tensor("),
        ("own", "the module failed: Own\n"),
        ("steers", "the module failed: ValueError: red ?[31m? line\n"),
        ("asked", "must be a function that makes a module, got Own\n"),
        ("held", "must be a function that makes a module, got RecursionError: "),
        ("unlisted", "the module cannot list what it holds, got ValueError: no list\n"),
        ("circle", "what a module returns must not hold itself"),
        ("number", "inputs must be tensors or a shape of Python integers >= 1, got 5"),
    ],
)
def test_whatever_a_module_does_is_one_line(name, message, hostile):
    shape = () if name == "number" else ("--input", "1,4")
    assert message in hostile(f"torch:hostile_modules:{name}", *shape)


def test_an_import_leaves_nothing_behind(hostile):
    assert hostile("torch:hostile_modules:asked")
    assert not Path("__pycache__").exists()
    assert not sys.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE")


@pytest.mark.usefixtures("hostile")
def test_a_module_is_counted_in_evaluation_mode():
    assert not read_target("torch:hostile_modules:trained", (1, 4)).module.training


def test_an_import_may_change_where_imports_are_found(hostile):
    Path("hostile_modules.py").write_text("import sys\nsys.path.clear()\nraise ValueError(1)")
    assert "must be a function that makes a module, got ValueError: 1" in hostile("torch:hostile_modules:f")


@pytest.mark.usefixtures("hostile")
def test_ctrl_c_passes_through_a_module(macs):
    assert macs("torch:hostile_modules:stopped", "--input", "1,4") == (130, "", "interrupted\n")


def test_no_more_memory_is_one_line(capsys, monkeypatch, tmp_path):
    def reader(*_, **__):
        raise MemoryError

    monkeypatch.setattr("nachos_min.targets.read_target", reader)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)  # with a file descriptor
        assert cli.main(["macs", "net.json"]) == 2
    assert capsys.readouterr().err == "error: the system refused: no more memory\n"


@pytest.mark.usefixtures("macs")
def test_an_own_file_loads_no_library_that_it_does_not_need():
    loaded = printed(
        "import sys\nfrom nachos_min.cli import main\n"
        "for name in ('net.json', 'cnas.json', 'genome.json'):\n"
        "    assert main(['macs', name, '--layers', '--explain', 'thop']) == 0\n"
        "print(sorted({'numba', 'scipy', 'torch', 'onnx', 'h5py'} & sys.modules.keys()))"
    )
    assert loaded == "[]"
