"""PyTorch modules and ONNX files as targets of `macs`; how they are read is tested in tests/macs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import nachos_min
from nachos_min.errors import InputError
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.ops import Linear, Node, Sample, Transform
from nachos_min.report import macs_report
from nachos_min.targets import Target

MODULE = """
import torch

class Net(torch.nn.Sequential):
    pass

def net():
    return Net(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).train()

def conv():
    return torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)

class Deep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        made = lambda *sides: torch.nn.Linear(*sides, bias=False)
        self.body = torch.nn.Sequential(made(8, 8), torch.nn.Sequential(made(8, 4)))
        self.weight = torch.nn.Parameter(torch.zeros(8, 4))
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(torch.nn.functional.linear(self.body(x), self.weight))

deep = Deep

def with_input():
    return torch.nn.Linear(24, 16), (torch.zeros(1, 5, 24),)

class Last(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4, bias=False)

    def forward(self, x, *, turns=1, more=None):
        for _ in range(turns):
            y = self.linear(x[:, -1])
        return y if more is None else y + more["left"] + more["right"][0]

def by_keyword():
    more = {"left": torch.zeros(1, 4), "right": [torch.zeros(4)]}
    return Last(), (torch.zeros(1, 16, 8),), {"turns": 3, "more": more}
"""


@pytest.fixture
def module(macs):
    """Run `macs` in a folder with PyTorch modules of the user's own."""
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    Path("mine.py").write_text(MODULE)
    yield macs
    sys.modules.pop("mine", None)


def test_a_pytorch_module_is_a_target(module):
    status, out, _ = module("torch:mine:net", "--input", "3,8,8", "--explain", "thop", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["macs"], found["input"], found["exits"]) == (8 * 8 * 8 * 3 * 9, [1, 3, 8, 8], [])
    assert [each["amount"] for each in found["explain"]["terms"]] == [4 * 512]


def test_a_module_may_bring_its_input_along(module):
    assert json.loads(module("torch:mine:with_input", "--json")[1])["macs"] == 5 * 24 * 16


def test_a_module_may_bring_keyword_arguments_along(module):
    found = json.loads(module("torch:mine:by_keyword", "--json")[1])
    assert (found["macs"], found["input"]) == (3 * 32, [1, 16, 8])
    assert found["inputs"] == {"x": [1, 16, 8], "more.left": [1, 4], "more.right.0": [4]}
    first = "torch:mine:by_keyword, inputs x 1x16x8, more.left 1x4, more.right.0 4"
    assert module("torch:mine:by_keyword")[1].splitlines()[0] == first


@pytest.mark.usefixtures("module")
def test_a_shape_that_means_two_things_is_refused(monkeypatch):
    """As written it is one sequence; with a batch of one in front the last of 16 sequences is taken."""
    import torch

    monkeypatch.syspath_prepend(".")
    from mine import Last

    both = r"^'Last' takes \(1, 16, 8\): 32 MACs, and \(1, 1, 16, 8\): 512 MACs; give an array, or a function"
    for words in ({"inputs": (1, 16, 8)}, {"inputs": [1, 16, 8]}, {"input_shape": (1, 16, 8)}):
        with pytest.raises(InputError, match=both):
            nachos_min.count_macs(Last(), **words)
    assert nachos_min.count_macs(Last(), torch.zeros(1, 16, 8)) == 32
    assert nachos_min.count_macs(Last(), {"x": torch.zeros(1, 1, 16, 8), "turns": 2}) == 1024
    count = nachos_min.count_macs(Last(), (torch.zeros(2, 1, 8),))
    assert (count, count.input, count.inputs) == (64, (2, 1, 8), {})


@pytest.mark.usefixtures("module")
def test_a_shape_is_taken_as_written_where_the_module_takes_it():
    import torch

    linear, conv = torch.nn.Linear(8, 4), torch.nn.Conv2d(3, 8, 3)
    for shape in ((8,), (5, 8), (2, 5, 8), (1, 2, 5, 8), (1, 1, 2, 5, 8)):
        assert nachos_min.count_macs(linear, shape).input == shape
    assert nachos_min.count_macs(conv, (3, 8, 8)).input == (1, 3, 8, 8), (
        "a convolution takes an image, others do not"
    )
    normed = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8))
    assert nachos_min.count_macs(normed, (3, 8, 8)).input == (1, 3, 8, 8)
    assert nachos_min.count_macs(normed, (2, 3, 8, 8)).input == (2, 3, 8, 8)
    two = r"^on floats of shape \(3, 8\): the module failed.*2D.*; of \(1, 3, 8\): the module failed.*3D"
    with pytest.raises(InputError, match=two):
        nachos_min.count_macs(torch.nn.Sequential(torch.nn.Conv1d(3, 8, 3), torch.nn.BatchNorm2d(8)), (3, 8))
    with pytest.raises(
        InputError, match="inputs of 'Linear' must be given, such as --input 1,3,224,224 or a tensor, got none"
    ):
        nachos_min.count_macs(linear)


def test_counting_a_module_from_python(module):
    import torch

    layer = torch.nn.Conv2d(3, 8, 3, padding=1)
    assert nachos_min.count_macs(layer, (3, 8, 8)) == nachos_min.count_macs(layer, (1, 3, 8, 8)) == 13824
    assert nachos_min.count_macs(layer, (1, 3, 8, 8), "torch") == 2 * 13824
    assert module("torch:mine:net", "--input", "3,8,8")[0] == 0


def test_the_tools_are_run_beside_the_predictions(module):
    status, out, _ = module("torch:mine:net", "--input", "3,8,8", "--verify", "--json")
    verified = {each["convention"]: each for each in json.loads(out)["verify"]}
    assert status == 0
    assert verified["torch"]["reported"] == verified["torch"]["predicted"] == 2 * 13824
    assert all(each["reason"] or each["reported"] == each["predicted"] for each in verified.values())
    assert "equal" in module("torch:mine:net", "--input", "3,8,8", "--verify")[1]


@pytest.mark.parametrize(
    ("reported", "status", "words"),
    [
        ((5, ""), 4, "DIFFERENT"),
        ((6, ""), 0, "differs: it counts to six"),
        ((None, "not installed"), 0, "not installed"),
        ((13824, ""), 0, "equal"),
    ],
)
def test_a_difference_without_a_cause_has_its_own_status(reported, status, words, module, monkeypatch):
    conventions = "nachos_min.macs.conventions"
    monkeypatch.setattr(f"{conventions}.peers.PEERS", {"thop": None})
    monkeypatch.setattr(f"{conventions}.peers.reported", lambda *_: reported)
    causes = {6: "it counts to six"}
    monkeypatch.setattr(f"{conventions}.exceptions.cause_of", lambda _, __, number, *_call: causes.get(number, ""))
    line = ("torch:mine:conv", "--input", "1,3,8,8", "--verify")
    found = module(*line)
    assert found.status == module(*line, "--json").status == status
    assert words in found.out


def test_what_is_executed_otherwise_has_the_same_status(macs, monkeypatch):
    row = {"what": "a", "counted": 3, "executed": 4}
    monkeypatch.setattr("nachos_min.report.macs_report.executions", lambda _: (row,))
    assert macs("net.json", "--execute").status == 4
    assert macs("net.json").status == 0


@pytest.mark.usefixtures("module")
def test_a_module_is_left_as_it_was():
    """It is run once or twice, and may keep what depends on the shape."""
    import torch

    class Keeps(torch.nn.Linear):
        calls, seen = 0, None

        def forward(self, x):
            self.calls += 1
            self.seen = {**(self.seen or {}), x.shape: torch.nn.Identity()}
            self.known[x.shape] = self.inner = torch.nn.Identity()
            self.count += 1
            return super().forward(x)

    keeps = Keeps(8, 4)
    keeps.known = {}
    keeps.register_buffer("count", torch.zeros(1))
    hook = keeps.register_forward_hook(lambda *_: None)
    assert nachos_min.count_macs(keeps, (5, 8)) == 5 * 32
    assert (keeps.calls, keeps.seen, keeps.known, int(keeps.count)) == (0, None, {}, 0)
    assert not list(keeps.children())
    assert len(keeps._forward_hooks) == 1
    hook.remove()
    assert not keeps._forward_hooks


def test_columns_and_long_lists_in_the_tables(capsys, monkeypatch):
    nodes = (
        Node("sampled", Sample(((4, 4, 3),), (2, 2, 3), 4), (-1,)),
        Node("wave", Transform((3, 4), 4), (0,), relaid=True),
    )
    many = tuple(Node(f"body.{n}", Linear((4,), 4), (-1,), relaid=True) for n in range(9))
    monkeypatch.setattr(macs_report, "_MOST_ROWS", 5)
    for graph, words in (
        (nodes, "beside exact MACs: interpolation 48, fft_ops 120\n"),
        (many, "5 more lines are not shown (add --json for all layers)"),
    ):
        target = Target("net", (4, 4, 3), graph)
        report = macs_report.report_macs(target, CONVENTIONS["exact"], None, verify=False, execute=False)
        macs_report.show_macs(report, layers=True)
        assert words in capsys.readouterr().out
    assert len(report.as_dict(layers=True)["layers"]) == 9


def test_layers_are_a_tree_of_modules_with_sums(module):
    out = module("torch:mine:net", "--input", "1,3,8,8", "--layers")[1].splitlines()
    rows = [line.split() for line in out[2:5]]
    assert rows[0] == ["0", "Conv2d", "8x8x3", "8x8x8", "13,824", "100.0%", "216"]
    assert rows[1] == ["1", "BatchNorm", "8x8x8", "8x8x8", "0", "0.0%", "16"]
    deep = [line.split() for line in module("torch:mine:deep", "--input", "1,8", "--layers")[1].splitlines()]
    assert deep[2:7] == [
        ["body", "96", "75.0%", "96"],
        ["0", "Linear", "8", "8", "64", "50.0%", "64"],
        ["1.0", "Linear", "8", "4", "32", "25.0%", "32"],
        ["F.linear", "Linear", "4", "8", "32", "25.0%", "32"],
        ["relu", "Activation", "8", "8", "0", "0.0%"],
    ]


MISTAKES = {
    "torch:mine:net": "inputs of 'torch:mine:net' must be given, such as --input 1,3,224,224 or a tensor, got none",
    "torch:mine:nothing --input 3,8,8": "has no attribute 'nothing'",
    "torch:nowhere:net --input 3,8,8": "No module named 'nowhere'",
    "torch:mine:net --input 4,8,8": "the module failed in 0 F.conv2d: RuntimeError",
    "torch:mine:net --classes 3": "--classes does not apply to this kind of target, got '3'",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES.items())
def test_a_mistake_about_a_module_is_one_line(line, message, module):
    status, out, err = module(*line.split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_onnx_file_is_a_target_and_its_branches_stand_apart(macs):
    pytest.importorskip("onnx", reason="onnx is an extra")
    from macs.onnx_cases import graph, model, node

    small, large = (graph([node("MatMul", f"x w{n}", "o")], {}, {"o": None}) for n in (2, 5))
    gate = node("If", "c", "z", name="gate", then_branch=small, else_branch=large)
    weights = {"w0": (4, 3), "w2": (4, 2), "w5": (4, 5)}
    inputs, outputs = {"x": ("batch", "width"), "c": ()}, {"y": None, "z": None}
    made = model([node("MatMul", "x w0"), gate], inputs, outputs, weights)
    Path("net.onnx").write_bytes(made.SerializeToString())
    status, _, err = macs("net.onnx")
    assert status == 2
    assert "dynamic dimensions (batch, width): give them with --input" in err
    found = json.loads(macs("net.onnx", "--input", "1,4", "--json")[1])
    assert (found["macs"], found["input"]) == (None, [1, 4])
    assert {each["name"]: each["macs"] for each in found["branches"]} == {"gate/then": 8, "gate/else": 20}
    assert (found["least"], found["most"]) == (20, 32)
    assert (found["totals"]["exact"], found["totals"]["torch"]) == (
        {"least": 20, "most": 32},
        {"least": 40, "most": 64},
    )
    assert (found["valid_macs"], found["inputs"]) == (None, {"x": [1, 4], "c": []})
    shown = macs("net.onnx", "--input", "1,4", "--layers")[1]
    assert "only on a condition" in shown
    assert "\n20 to 32 MACs (exact), with one branch of each condition; 32 parameters\n" in shown
    assert "net.onnx, inputs x 1x4, c one number\n" in shown
    assert "of each condition the dearest branch is shown" in shown
    for shape in ({"x": (1, 4)}, {"x": np.zeros((1, 4))}, [1, 4], np.zeros((1, 4))):
        assert nachos_min.count_macs("net.onnx", shape).most == 32
    for wrong in (5, {"x": 5}, "x"):
        with pytest.raises(InputError, match="inputs of a file must be a shape, or shapes by name, got"):
            nachos_min.count_macs("net.onnx", wrong)
    count = nachos_min.count_macs("net.onnx", (1, 4))
    assert (count.least, count.most, count.inputs) == (20, 32, {"x": (1, 4), "c": ()})
    with pytest.raises(InputError, match=r"^MACs of net.onnx depend on its data: at least 20, at most 32$"):
        int(count)
