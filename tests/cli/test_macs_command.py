"""`macs`: targets of our own, tables, JSON, refusals; special files, broken modules, unprintable names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nachos_min
from nachos_min import cli
from nachos_min.eenn.architecture import architecture_to_json
from nachos_min.eenn.lowering import static_costs
from nachos_min.errors import InputError, printable
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Linear, MatMul, Node
from nachos_min.report.macs_report import executions
from nachos_min.targets import Target, TargetError, read_target


def test_a_configuration_is_counted_as_written_and_as_its_sampler_built_it(counted):
    written, built = counted("cnas.json"), counted("cnas.json", "--unpadded")
    assert (written["macs"], written["params"], written["input"]) == (4061904, 2153546, [3, 32, 32])
    assert (built["macs"], built["params"]) == (5970048, 3409466)


def test_json_says_what_the_network_costs(counted, eenn):
    found, costs = counted("net.json", "--layers"), static_costs(eenn)
    assert found["target"] == "net.json"
    assert (found["convention"], found["unit"]) == ("exact", "MACs")
    assert [each["cost"] for each in found["exits"]] == list(costs.exit_costs)
    assert [each["stage"] for each in found["exits"]] == list(eenn.exit_stages)
    heads = 0
    for each in found["exits"]:
        heads += each["head"]
        assert each["cost"] == each["backbone"] + heads
    assert found["macs"] == found["exits"][-1]["cost"] == sum(layer["macs"] for layer in found["layers"])
    assert (found["params"], found["peak_activation_bytes"]) == (costs.params, costs.peak_bytes)
    assert set(found["totals"]) == set(CONVENTIONS)
    assert found["columns"]["norm_elems"] > 0
    assert counted("genome.json", "--layers") == found | {"target": "genome.json"}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_can_be_counted_by_and_explained(convention, counted):
    found = counted("net.json", "--convention", convention, "--explain", "exact", "--layers")
    assert found["macs"] == found["totals"][convention]
    assert found["tool"] == CONVENTIONS[convention].tool
    assert sum(each["amount"] for each in found["explain"]["terms"]) == found["explain"]["difference"]
    assert found["explain"]["difference"] == found["totals"]["exact"] - found["macs"]


def test_the_table_has_every_convention_and_every_exit(macs, eenn):
    status, out, _ = macs("net.json")
    costs = static_costs(eenn)
    assert status == 0
    assert out.splitlines()[0] == "net.json, input 1x8x8"
    assert out.splitlines()[1] == f"{costs.worst_macs:,} MACs (exact); {costs.params:,} parameters"
    assert [name for name in CONVENTIONS if f"\n{name} " not in out] == []
    assert [cost for cost in costs.exit_costs if f"{cost:,}" not in out] == []


def test_layers_and_reasons_in_words(macs):
    _, out, _ = macs("net.json", "--layers", "--explain", "thop")
    hidden = "nodes that only hold, move or pick elements are not shown"
    for words in ("stem.norm", "Conv2d", "elements into batch norm", hidden):
        assert words in out


def test_what_is_executed_is_what_is_counted(macs, counted, eenn):
    executed = counted("net.json", "--execute")["execute"]
    assert [each["executed"] for each in executed] == list(static_costs(eenn).exit_costs)
    assert all(each["executed"] == each["counted"] for each in executed)
    assert "equal; 0 not run" in macs("net.json", "--execute").out


def test_layers_of_a_network_from_elsewhere_are_executed_one_by_one():
    conv = Conv2d((9, 7, 4), 6, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2), groups=2)
    graph = (
        Node("conv", conv, (-1,), batch=2, relaid=True),
        Node("linear", Linear((5, 24), 16), (-1,), batch=3, relaid=True),
        Node("product", MatMul((2, 1, 4, 8), (3, 8, 5)), (-1, -1), relaid=True),
        Node("up", ConvTranspose2d((4, 4, 2), 3, (2, 2)), (-1,), relaid=True),
    )
    *run, missing = executions(Target("graph", (), graph))
    assert [each["what"] for each in run] == ["conv", "linear", "product"]
    assert all(each["executed"] == each["counted"] for each in run)
    assert (missing["executed"], missing["what"]) == (None, "up (ConvTranspose2d: this engine has none)")


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Conv2d((2**20, 2**20, 1), 1, (1, 1)), "must have at most 134217728 elements, got 1099511627776"),
        (Linear((2**20,), 2**20), "must have at most 134217728 elements, got 1099512676352"),
        (Conv2d((2**12, 2**12, 1), 1, (2**9, 2**9)), "must have at most 1000000000000 MACs, got 3369"),
    ],
)
def test_too_large_to_execute(op, message):
    with pytest.raises(InputError, match=message):
        executions(Target("graph", (), (Node("large", op, (-1,)),)))


def test_a_solution_of_a_run_is_a_target(counted, refused):
    short = {"evaluations": 2, "finalists": 1, "epochs": 1, "points": "best", "workers": 1}
    found = nachos_min.search(space="micro", min_accuracy=0.0, max_macs=None, out="runs/a", **short)
    assert found.front
    for solution in found.front:
        count = counted(f"runs/a#{solution.solution}")
        assert [each["cost"] for each in count["exits"]] == list(solution.exit_costs)
        assert count["params"] == solution.params
    assert f"run 'runs/a' has {len(found.front)} solutions, numbered from 0, got 99\n" in refused("runs/a#99")


def test_counting_from_python(counted, eenn):
    found = counted("cnas.json", "--input", "3,224,224", "--classes", "1k")
    assert found["input"] == [3, 224, 224]
    assert found["macs"] == nachos_min.count_macs("cnas.json", (3, 224, 224), classes=1000)
    assert nachos_min.count_macs("cnas.json") == 4061904
    assert nachos_min.count_macs(Path("cnas.json"), (3, 32, 32), "thop") == 4322704
    assert nachos_min.count_macs(eenn) == static_costs(eenn).worst_macs
    with pytest.raises(TargetError, match=r"^target must be an architecture \.json, .*, got 'nothing'$"):
        nachos_min.count_macs("nothing")


def test_counts_beyond_machine_integers_are_printed_exactly(counted, eenn):
    side = 2**35
    net = json.loads(architecture_to_json(eenn)) | {"input": [1, side, side], "exits": []}
    Path("huge.json").write_text(json.dumps(net))
    Path("large.json").write_text(json.dumps(net | {"input": [1, side // 2, side // 2]}))
    huge, large = counted("huge.json")["macs"], counted("large.json")["macs"]
    # Four times as many pixels are four times the work, but for the layers behind the mean over the map.
    final = eenn.final
    fixed = (final.expand or eenn.stages[-1][-1].out_channels) * (final.mix or eenn.classes)
    fixed += final.mix * eenn.classes
    assert huge - fixed == 4 * (large - fixed)
    assert huge > 2**75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is not JSON: Expecting value"),
        ("{", " is not JSON: Expecting property name"),
        ("[]", " must be a JSON object, got list"),
        ("[" * 100_000, " is not JSON: it is nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", " is not JSON: Exceeds the limit"),
        (" " * (2**20 + 1), ": it must have at most 1,048,576 bytes, it has 1,048,577\n"),
        ('{"r": 32, "r": 64}', " is not JSON: field 'r' must be given once, got it 2 times\n"),
        ('{"ks": [{"\\u001b[2J": 1, "\\u001b[2J": 1}]}', r" is not JSON: field '\x1b[2J' must be given once"),
        ('{"r": NaN}', " is not JSON: numbers must be finite, got NaN"),
        ('{"r": -Infinity}', " is not JSON: numbers must be finite, got -Infinity"),
        ('{"r": 1e999, "ks": []}', ": configuration: r must be an integer from 1 to 2^40, got 'inf'"),
        ('\ufeff{"r": 1}', " is not JSON: Unexpected UTF-8 BOM"),
        ('{"\\ud800": 1}', r": architecture: a field must be one of input, classes, stem"),
    ],
)
def test_a_text_that_is_no_target(text, message, refused):
    Path("bad.json").write_text(text, encoding="utf-8")
    assert refused("bad.json").removeprefix("error: ").removeprefix("target ").startswith(f"'bad.json'{message}")


INTEGERS = "must be a list of integers from 1 to 2^40, got"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("net.json", {"input": None}, "architecture: input must be a list"),
        ("cnas.json", {"r": -1}, "configuration: r must be an integer from 1 to 2^"),
        ("cnas.json", {"r": None}, "configuration: r must be an integer from 1 to 2^"),
        ("cnas.json", {"r": 2**20 + 1}, "configuration: r must be an integer from 1 to 2^20"),
        ("cnas.json", {"d": [9] * 5}, "configuration: d must be of (2, 3, 4), got 9"),
        ("cnas.json", {"ks": [3]}, "configuration: ks must be a list of 10 or 20 entries, got 1"),
        ("genome.json", {"space": None}, "genome: space must be the name of a space or a .toml file"),
        ("genome.json", {"genome": 3}, "genome: genome must be a list"),
        ("genome.json", {"genome": ["a"]}, "genome: genome must be a list of integers"),
        ("genome.json", {"genome": [3]}, "genome of space tiny must have"),
        ("genome.json", {"classes": None}, "genome: classes must be an integer from 1 to 2^40"),
        ("genome.json", {"classes": 10**4000}, "genome: classes must be an integer from 1 to 2^40, got '1000"),
        ("genome.json", {"input": [1, 10**4000, 8]}, f"genome: input {INTEGERS} '[1, 1000"),
        ("genome.json", {"input": [0, 8, 8]}, f"genome: input {INTEGERS} '[0, 8, 8]'"),
        ("genome.json", {"sapce": 3}, "genome: a field must be one of space, genome, input, classes"),
    ],
)
def test_a_field_that_breaks_its_rule(file, changes, message, refused):
    Path("bad.json").write_text(json.dumps(json.loads(Path(file).read_text()) | changes))
    assert refused("bad.json").startswith(f"error: 'bad.json': {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("net", "target must be an architecture .json, RUN#k, an .onnx file or torch:"),
        ("nowhere.json", "target 'nowhere.json': No such file or directory"),
        ("NET.ONNX", "NET.ONNX"),
        ("runs/digits#x", "a network must be RUN#k, k the number of a solution, got 'runs/digits#x'"),
        ("runs/digits#0", "run runs/digits does not exist"),
        ("net.json --convention flops", "convention must be one of exact, exact-valid"),
        ("net.json --explain flops", "convention must be one of exact, exact-valid"),
        ("net.json --input 8,8", "--input must be C,H,W of one image for this kind of target, got (8, 8)"),
        ("net.json --unpadded", "'net.json': --unpadded does not apply to this kind of target, got 'True'"),
        ("net.onnx --classes 3", "--classes does not apply to this kind of target, got '3'"),
        ("net.json --verify", "--verify needs a PyTorch module (torch:...), got 'net.json'"),
        (
            f"net.json --classes {'9' * 4000}",
            "--classes must be a whole number from 1 to 2^63 - 1 such as 60000, 60k or 2.7M, got '9999",
        ),
        (
            f"cnas.json --classes {'9' * 4000}",
            "--classes must be a whole number from 1 to 2^63 - 1 such as 60000, 60k or 2.7M, got '9999",
        ),
    ],
)
def test_a_mistake_in_a_count_is_one_line(line, message, refused):
    assert message in refused(*line.split())


def test_the_help_names_every_convention():
    help_text = " ".join((cli.macs.__doc__ or "").split())
    for name in CONVENTIONS:
        assert f" {name}," in help_text or f" {name}." in help_text


# What no user means well

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


@pytest.mark.parametrize(
    ("place", "what"),
    [("/dev/zero", "a device"), ("/dev/full", "a device"), ("folder", "a folder"), ("pipe", "a pipe")],
)
def test_what_is_no_file_is_not_read(place, what, refused):
    os.mkdir("folder")
    os.mkfifo("pipe")
    os.symlink(place, "special.json")
    assert refused("special.json") == f"error: target 'special.json': it is {what}, not a file\n"
    os.symlink("a.json", "a.json")
    assert "target 'a.json': Too many levels of symbolic links" in refused("a.json")


STEERING = ["two\nlines.json", "red\x1b[31m.json", "s\u2028p\x85.json", "q'uo\"te.json"]


@pytest.mark.parametrize("name", [*STEERING, "net#1.json", "CAPITALS.JSON"])
def test_a_name_neither_breaks_a_line_nor_steers_the_terminal(name, macs, counted, refused):
    assert "No such file" in refused(name)
    Path(name).write_bytes(Path("net.json").read_bytes())
    assert macs(name).out.split("\n")[0] == f"{printable(name)}, input 1x8x8"
    assert counted(name)["target"] == name, "programs get the name as it is"


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
    Path("lists.json").write_text('{"a":[' + "[]," * (340_000) + "1]}")
    status, kilobytes = printed(
        "from nachos_min.cli import main\nstatus = main(['macs', 'lists.json'])\n"
        "print(status, *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    ).split()
    assert status == "2"
    assert int(kilobytes) < 200_000


@pytest.mark.parametrize("place", ["trunk", "stages", "exits", "widths"])
def test_more_parts_than_a_network_has(place, refused):
    fields = json.loads(Path("net.json").read_text()) | {"trunk": [], "stages": [[{}]], "exits": []}
    ones = [1] * 1_501
    more = {"trunk": ones, "stages": [ones], "exits": ones, "widths": [{"widths": ones}]}
    Path("many.json").write_text(json.dumps(fields | {"exits" if place == "widths" else place: more[place]}))
    assert "architecture: blocks, exits and widths must be at most 1500 together, got '150" in refused("many.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leaves", "the module failed: SystemExit: tensor("),
        ("own", "the module failed: Own; if it wants other inputs, give tensors"),
        ("steers", "the module failed: ValueError: red \\x1b[31m\\u202e line; if"),
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


def test_an_import_may_change_where_imports_are_found(hostile):
    Path("hostile_modules.py").write_text("import sys\nsys.path.clear()\nraise ValueError(1)")
    assert "must be a function that makes a module, got ValueError: 1" in hostile("torch:hostile_modules:f")
    assert not Path("__pycache__").exists(), "and leaves nothing behind"
    assert not sys.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE")


@pytest.mark.usefixtures("hostile")
def test_a_module_is_counted_in_evaluation_mode_and_can_be_interrupted(macs):
    assert not read_target("torch:hostile_modules:trained", (1, 4)).module.training
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
