"""`macs` fed with what no user means well: special files, broken modules, names that steer a terminal."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nachos_min import cli
from nachos_min.errors import InputError, printable
from nachos_min.options import SIDES
from nachos_min.targets import read_target

GENOME = {"space": "tiny", "genome": [0] * 23, "input": [1, 8, 8], "classes": 10}

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

def raising(error):
    def forward(x):
        raise error
    return Calls(forward)

def leaves():
    return Calls(sys.exit)

def own():
    return raising(Own())

def steers():
    return raising(ValueError("red \\x1b[31m\\u202e\\nline"))

def asked():
    raise Own

def held():
    made = torch.nn.Module()
    made._modules["itself"] = made
    return made

def unlisted():
    return Unlisted()

def circle():
    def forward(x):
        found = [x]
        found.append(found)
        return found
    return Calls(forward)

def number():
    return torch.nn.Linear(4, 4), 5

def trained():
    return torch.nn.Linear(4, 4).train()

def stopped():
    raise KeyboardInterrupt
"""


@pytest.fixture
def refused(macs):
    """Run `macs` in a folder; return the one line that it has to say."""

    def line(*arguments):
        status, out, err = macs(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert err[:-1].isprintable()
        return err

    return line


@pytest.fixture
def hostile(refused, monkeypatch):
    """The same in a folder with modules that do harm."""
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    Path("hostile_modules.py").write_text(MODULES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "hostile_modules", raising=False)
    yield refused
    sys.modules.pop("hostile_modules", None)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/full", "folder"])
def test_what_is_no_file_is_not_read(place, refused, tmp_path):
    (tmp_path / "folder").mkdir()
    os.symlink(place, "special.json")
    assert refused("special.json") == "error: target must be an ordinary file, got 'special.json'\n"


def test_a_pipe_is_not_waited_for(refused):
    os.mkfifo("pipe.json")
    assert "target must be an ordinary file, got 'pipe.json'" in refused("pipe.json")


def test_a_circle_of_links_is_one_line(refused):
    os.symlink("b.json", "a.json")
    os.symlink("a.json", "b.json")
    assert "target 'a.json': Too many levels of symbolic links" in refused("a.json")


@pytest.mark.parametrize("name", ["two\nlines.json", "red\x1b[31m.json", "s\u2028p\x85.json", "q'uo\"te.json"])
def test_a_name_neither_breaks_a_line_nor_steers_the_terminal(name, macs, refused):
    assert "No such file" in refused(name)
    Path(name).write_bytes(Path("net.json").read_bytes())
    status, out, _ = macs(name)
    assert status == 0
    assert out.split("\n")[0] == f"{printable(name)}, input 1x8x8"
    assert json.loads(macs(name, "--json")[1])["target"] == name, "programs get the name as it is"


@pytest.mark.parametrize("name", ["net#1.json", "NET.JSON"])
def test_the_ending_says_what_a_file_is(name, macs):
    Path(name).write_bytes(Path("net.json").read_bytes())
    assert macs(name)[0] == 0


def test_an_ending_in_capitals_is_an_onnx_file(refused):
    assert "NET.ONNX" in refused("NET.ONNX")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 10**4000}, "genome: classes must be an integer from 1 to 2^40, got '1000"),
        ({"input": [1, 10**4000, 8]}, "genome: input must be a list of integers from 1 to 2^40, got '[1, 1000"),
        ({"input": [0, 8, 8]}, "genome: input must be a list of integers from 1 to 2^40, got '[0, 8, 8]'"),
    ],
)
def test_numbers_too_long_to_print(fields, message, refused):
    Path("genome.json").write_text(json.dumps(GENOME | fields))
    assert message in refused("genome.json")


@pytest.mark.parametrize("target", ["cnas.json", "net.json"])
def test_classes_too_many_to_print(target, refused):
    assert "classes must be an integer from 1 to 2^40, got '9999" in refused(target, "--classes", "9" * 4000)


@pytest.mark.parametrize(
    "place", ['"ks": {}, "r": 32', '"space": "tiny", "genome": {}', '"classes": {}, "input": 1']
)
@pytest.mark.parametrize("depth", [500, 900, 960, 990, 100_000])
def test_lists_in_lists_are_one_line_at_any_depth(place, depth, refused):
    Path("deep.json").write_text("{" + place.replace("{}", "[" * depth + "]" * depth) + "}")
    assert "deep.json" in refused("deep.json")


def test_lists_that_cannot_be_written_into_a_message(refused, monkeypatch):
    def reader(*_):
        raise RecursionError

    monkeypatch.setattr("nachos_min.targets.architecture_from_json", reader)
    assert "target 'net.json' is not JSON: it is nested too deeply" in refused("net.json")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory was taken")
def test_what_a_large_file_parses_to_is_bounded(tmp_path):
    """Lists in lists take thirty times their text."""
    (tmp_path / "lists.json").write_text('{"a":[' + "[]," * (2_700_000) + "1]}")
    code = (
        "from nachos_min.cli import main\nstatus = main(['macs', 'lists.json'])\n"
        "print(status, *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    status, kilobytes = found.stdout.split()
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


@pytest.mark.parametrize("text", ["(1,2", "1,2)", "((1,2))", ")1,2("])
def test_brackets_of_a_shape_come_in_pairs(text):
    with pytest.raises(InputError, match="one to eight whole numbers"):
        SIDES.typed("--input", text)
    assert SIDES.typed("--input", "(1,2)") == (1, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leaves", "the module failed: SystemExit: tensor("),
        ("own", "the module failed: Own\n"),
        ("steers", "the module failed: ValueError: red ?[31m? line\n"),
        ("asked", "must be a function that makes a module, got Own\n"),
        ("held", "must be a function that makes a module, got RecursionError: "),
        ("unlisted", "the module cannot list what it holds, got ValueError: no list\n"),
        ("circle", "what a module returns must not hold itself, nor be nested deeply, got a list\n"),
    ],
)
def test_whatever_a_module_does_is_one_line(name, message, hostile):
    assert message in hostile(f"torch:hostile_modules:{name}", "--input", "1,4")


def test_an_input_that_is_none(hostile):
    assert "inputs must be tensors or a shape of Python integers >= 1, got 5" in hostile(
        "torch:hostile_modules:number"
    )


def test_an_import_leaves_nothing_behind(hostile):
    assert hostile("torch:hostile_modules:asked")
    assert not Path("__pycache__").exists()
    assert not sys.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE")


def test_a_module_is_counted_in_evaluation_mode(hostile):
    assert not read_target("torch:hostile_modules:trained", (1, 4)).module.training
    assert hostile("torch:hostile_modules:asked")


def test_an_import_may_change_where_imports_are_found(hostile):
    Path("hostile_modules.py").write_text("import sys\nsys.path.clear()\nraise ValueError(1)")
    assert "must be a function that makes a module, got ValueError: 1" in hostile("torch:hostile_modules:f")


def test_ctrl_c_passes_through_a_module(hostile, macs):
    status, out, err = macs("torch:hostile_modules:stopped", "--input", "1,4")
    assert (status, out, err) == (130, "", "interrupted\n")
    assert hostile("torch:hostile_modules:asked")


def test_no_more_memory_is_one_line(monkeypatch, tmp_path):
    def reader(*_, **__):
        raise MemoryError

    monkeypatch.setattr("nachos_min.targets.read_target", reader)
    said = io.StringIO()
    with (tmp_path / "out").open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        assert cli.main(["macs", "net.json"]) == 2
    assert said.getvalue() == "error: the system refused: no more memory\n"


def test_an_own_file_loads_no_library_that_it_does_not_need(macs):
    Path("genome.json").write_text(json.dumps(GENOME))
    code = (
        "import sys\nfrom nachos_min.cli import main\n"
        "for name in ('net.json', 'cnas.json', 'genome.json'):\n"
        "    assert main(['macs', name, '--layers', '--explain', 'thop']) == 0\n"
        "print(sorted({'numba', 'scipy', 'torch', 'onnx', 'h5py'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert macs("net.json")[0] == 0
