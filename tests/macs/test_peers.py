"""Running other tools: they report what was recorded, fail in one line, and leave nothing behind."""

import subprocess
import sys

import pytest
from macs.test_conventions import LAYERS, RECORDED

from nachos_min.macs.conventions import CONVENTIONS, peers
from nachos_min.macs.conventions.exceptions import cause_of
from nachos_min.macs.conventions.peers import PEERS, Peer, installed, reported

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
F, nn = torch.nn.functional, torch.nn
MAP = (1, 8, 16, 16)

each_tool = pytest.mark.parametrize("tool", PEERS)


def needs(tool: str) -> None:
    if not installed(tool):
        pytest.skip(f"{PEERS[tool].package} is not installed")


class Network(nn.Module):
    """Some of everything that a tool may replace or hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.calls = 0

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return torch.add(x, torch.mul(x, 2)).mean((2, 3))


class Failing(Network):
    def forward(self, x):
        super().forward(x)
        raise KeyError("of the network's own")


def names_of_torch() -> list[dict]:
    """Every function, by identity, of the places where tools put their own."""
    places = (F, torch, torch.Tensor)
    return [{name: id(value) for name, value in vars(place).items() if callable(value)} for place in places]


def state_of(module) -> list:
    """All that a tool may leave in a module: attributes, hooks, flags and what buffers hold."""
    return [
        (
            {name: value for name, value in vars(each).items() if not isinstance(value, dict)},
            {name: list(value.items()) for name, value in vars(each).items() if name.endswith("_hooks")},
            sorted(each._buffers),
            [buffer.tolist() for buffer in each.buffers()],
        )
        for each in module.modules()
    ]


@each_tool
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_tools_report_what_was_recorded(tool: str) -> None:
    """Every tenth layer: that the tools are called as the reference measured them."""
    needs(tool)
    from macs import torch_cases

    for record in LAYERS[::10]:
        case = torch_cases.CASES[record["case"]]
        number, _ = reported(tool, case.make().train(case.training), (torch.randn(case.shape),))
        expected = record.get(RECORDED.get(tool, tool))
        assert number == (expected if isinstance(expected, int) else None), record["case"]


@each_tool
@pytest.mark.parametrize("kind", [Network, Failing])
def test_nothing_is_left_behind_even_by_an_exception(tool: str, kind: type) -> None:
    needs(tool)
    # What it imports on its first call stays imported.
    first = reported(tool, Network().eval(), (torch.zeros(MAP),))
    module = kind().train()
    handle = module.conv.register_forward_hook(lambda *_: None)
    x = torch.randn(MAP)
    before, functions, state, random = x.clone(), names_of_torch(), state_of(module), torch.get_rng_state()

    number, reason = reported(tool, module, (x,))

    assert (number is None) == (kind is Failing) == bool(reason)
    assert ("of the network's own" in reason) == (kind is Failing)
    assert "\n" not in reason
    assert names_of_torch() == functions
    assert state_of(module) == state
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random)
    handle.remove()
    assert not module.conv._forward_hooks, "handles of the caller's hooks still work"
    assert reported(tool, Network().eval(), (torch.zeros(MAP),)) == first, "an exception harms no later count"


MISSING = "surely_no_such_package"
LONG = OverflowError("y" * 500 + "\nsecond line")


@pytest.mark.parametrize(
    ("package", "error", "cause", "reason"),
    [
        (MISSING, None, None, f"{MISSING} is not installed"),
        ("json", SystemExit(3), None, "SystemExit: 3"),
        ("json", ValueError("x"), LONG, f"OverflowError: {'y' * 102}..."),
    ],
)
def test_a_reason_is_one_short_line_and_tools_are_silent(monkeypatch, capfd, package, error, cause, reason) -> None:
    def shouts(_module, _inputs):
        print("on standard output")
        print("on standard error", file=sys.stderr)
        raise error from cause

    monkeypatch.setitem(peers.PEERS, "shouting", Peer(package, shouts))
    assert installed("shouting") == (package != MISSING)
    assert reported("shouting", Network(), ()) == (None, reason)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tool", "module", "arrays", "says"),
    [
        ("ptflops", nn.Bilinear(2, 2, 2), 2, "this network takes 2"),
        ("onnx-tool", nn.AdaptiveAvgPool2d(3), 1, "SymbolicValueError"),  # PyTorch prints the network from C++
    ],
)
def test_what_a_tool_cannot_count(capfd, tool: str, module: nn.Module, arrays: int, says: str) -> None:
    needs(tool)
    number, reason = reported(tool, module, (torch.randn(MAP),) * arrays)
    assert number is None
    assert says in reason
    assert capfd.readouterr() == ("", "")


def test_nothing_is_imported_beforehand() -> None:
    packages = sorted({peer.package for peer in PEERS.values()})
    program = (
        "import sys, nachos_min.macs.conventions.peers as p; p.installed('thop')\n"
        f"print([name for name in {[*packages, 'numpy']!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Lengths(nn.Module):
    """Multiplies lengths in Python, which torchprofile traces; a chunk is a slice of computed length in a file."""

    def forward(self, x):
        return x.chunk(2, 1)[0].reshape(x.shape[0] * x.shape[1] // 2, -1)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 6, bidirectional=True)

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2, 1])
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]


class ByName(nn.Module):
    def forward(self, x, *, factor=1):
        return x * factor


@pytest.mark.parametrize("tool", ["torchprofile", "onnx-tool"])
def test_arithmetic_on_lengths_is_a_known_cause_of_just_its_amount(tool: str) -> None:
    needs(tool)
    from nachos_min.macs.readers.torch_reader import read_torch

    x, module = torch.zeros(3, 4, 5), Lengths()
    number, _ = reported(tool, module, (x,))
    call = (tool, graph := read_torch(module, (x,)), number)
    assert number - CONVENTIONS[tool].total(graph) > 0
    assert "arithmetic on lengths" in cause_of(*call, module, (x,))
    assert cause_of(tool, graph, number + 1, module, (x,)) == ""
    assert cause_of("thop", graph, 7, module, (x,)) == "", "it has no part in what this tool counts"


@pytest.mark.parametrize("tool", ["thop", "torchprofile", "torchinfo", "onnx-tool"])
def test_further_steps_of_a_packed_sequence_are_a_known_cause(tool: str) -> None:
    needs(tool)
    from nachos_min.macs.readers.torch_reader import read_torch

    call = Packed(), (torch.zeros(4, 3, 5),)
    graph, (number, _) = read_torch(*call), reported(tool, *call)
    assert number > CONVENTIONS[tool].total(graph)
    assert "packed" in cause_of(tool, graph, number, *call)
    assert cause_of(tool, graph, number + 1, *call) == ""


def test_arguments_by_their_names_are_handed_over_by_position() -> None:
    needs("thop")
    attention, x = nn.MultiheadAttention(8, 2), torch.zeros(3, 1, 8)
    options = {"value": x, "key": x, "need_weights": False}
    assert reported("torch", attention, (x,), options) == reported("torch", attention, (x, x, x, None, False))
    number, reason = reported("thop", ByName(), (x,), {"factor": 2})
    assert (number, reason) == (
        None,
        "ValueError: arguments are given by position; this network takes factor by name",
    )
