"""PyTorch modules and ONNX files as targets of `macs`; how they are read is tested in tests/macs."""

import json
import sys
from pathlib import Path

import pytest

import nachos_min

MODULE = """
import torch

class Net(torch.nn.Sequential):
    pass

def net():
    return Net(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).train()

def with_input():
    return torch.nn.Linear(24, 16), (torch.zeros(1, 5, 24),)
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


MISTAKES = {
    "torch:mine:net": "--input must give the shape that 'torch:mine:net' reads, such as 1,3,224,224, got none",
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
    assert (found["macs"], found["input"]) == (12, [1, 4])
    assert {each["name"]: each["macs"] for each in found["branches"]} == {"gate/then": 8, "gate/else": 20}
    assert (found["least"], found["most"]) == (20, 32)
    shown = macs("net.onnx", "--input", "1,4")[1]
    assert "only on a condition" in shown
    assert "20 to 32 with one branch of each condition" in shown
