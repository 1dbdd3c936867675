"""Networks that PyTorch exports count what the same modules count when PyTorch runs them."""

import itertools
import warnings

import pytest

pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")
pytest.importorskip("bench.torch_networks", reason="an installed copy has no bench")

from macs.torch_cases import F, With, nn, torch

from bench import torch_networks
from nachos_min.macs import count
from nachos_min.macs.readers.onnx_reader import read_onnx
from nachos_min.macs.readers.torch_reader import read_torch


def attention():
    def forward(m, x):
        return m.out(m.norm(x + m.attend(x, x, x, need_weights=False)[0])).mean(1)

    attend = nn.MultiheadAttention(16, 4, batch_first=True)
    return With(forward, attend=attend, norm=nn.LayerNorm(16), out=nn.Linear(16, 5))


def decoder():
    """Transposed convolution, resizing, norms by group and instance, shapes computed from shapes."""

    def forward(m, x):
        x = m.conv(x)
        larger = F.interpolate(x, scale_factor=2, mode="bilinear")
        z = F.interpolate(m.up(x), size=(x.shape[2] * 2, x.shape[3] * 2))
        z = F.max_pool2d(z, 3, 2, ceil_mode=True)
        batch, channels, height, width = z.shape
        z = z.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height * width)
        return z @ torch.ones(height * width, 7), larger

    up = nn.ConvTranspose2d(8, 4, 3, 2, 1, 1, groups=2)
    up = nn.Sequential(up, nn.GroupNorm(2, 4), nn.PReLU(4), nn.InstanceNorm2d(4, affine=True))
    return With(forward, conv=nn.Conv2d(3, 8, 3, padding=1), up=up)


def audio():
    """Convolution, norm and pool along one axis, an Einstein sum, one layer's weights used twice."""

    def forward(m, x):
        x = F.avg_pool1d(torch.relu(m.layers(x)), 2).mean(-1)
        return torch.einsum("bi,ji->bj", x, m.out.weight) + F.softmax(m.out(x), 0)

    layers = nn.Sequential(nn.Conv1d(3, 8, 5, 2, 2, dilation=2), nn.BatchNorm1d(8))
    return With(forward, layers=layers, out=nn.Linear(8, 4))


NETWORKS = {
    "mobilenet_v3_large": (torch_networks.mobilenet_v3_large, (1, 3, 64, 64)),
    "resnet20_a": (torch_networks.resnet20_a, (2, 3, 32, 32)),
    "both exits": (lambda: torch_networks.two_exits("all"), (1, 3, 32, 32)),
    "last exit": (lambda: torch_networks.two_exits("final"), (1, 3, 32, 32)),
    "ofa_mbv3": (lambda: torch_networks.ofa_mbv3((3,) * 20, (3,) * 20, (2,) * 5), (1, 3, 32, 32)),
    "attention": (attention, (2, 7, 16)),
    "decoder": (decoder, (2, 3, 9, 10)),
    "audio": (audio, (2, 3, 31)),
}
WAYS = {
    "opset 11": {"dynamo": False, "opset_version": 11},
    "opset 13, every axis open": {"dynamo": False, "opset_version": 13, "open": True},
    "opset 17, nothing folded": {"dynamo": False, "opset_version": 17, "do_constant_folding": False},
    "torch.export": {"dynamo": True, "verbose": False, "external_data": False},
}
# PyTorch cannot export these to so old an operator set.
NOT_EXPORTED = {("attention", "opset 11"), ("audio", "opset 11"), ("attention", "opset 13, every axis open")}
NOT_EXPORTED |= {("last exit", "torch.export")}  # as both exits


def made(name):
    """A network with weights that differ: exporters merge initialisers that are equal."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = build().eval()
    for values in itertools.chain(module.parameters(), module.buffers()):
        if values.is_floating_point():
            values.data.copy_(torch.rand_like(values) + 0.1)
    return module, torch.rand(shape)


def export(module, x, path, dynamo, **options):
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch.export writes ONNX with it")
    if options.pop("open", False):
        options |= {"input_names": ["x"], "dynamic_axes": {"x": {axis: f"d{axis}" for axis in range(x.dim())}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about themselves
        torch.onnx.export(module, (x,), path, dynamo=dynamo, **options)


SMALL = ("both exits", "last exit", "attention", "decoder", "audio")  # others take seconds to export
CASES = [(name, way) for name in NETWORKS for way in WAYS if name in SMALL or way == "opset 17, nothing folded"]


@pytest.mark.parametrize(("name", "way"), [case for case in CASES if case not in NOT_EXPORTED])
def test_an_exported_network_has_the_module_s_count(name, way, tmp_path):
    module, x = made(name)
    export(module, x, tmp_path / "model.onnx", **WAYS[way])
    shape = None if way == "torch.export" else tuple(x.shape)
    found, expected = count(read_onnx(tmp_path / "model.onnx", shape).graph), count(read_torch(module, (x,)))
    assert (found.macs, found.valid_macs) == (expected.macs, expected.valid_macs)
    if way == "opset 17, nothing folded":
        assert found.params == expected.params


class Exits(nn.Module):
    """A first classifier, and a second one that runs if the first is not sure."""

    def __init__(self):
        super().__init__()
        self.first, self.early = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)
        self.second, self.late = nn.Conv2d(4, 8, 3, 2), nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.first(x))
        out = self.early(x.mean((2, 3)))
        if bool(torch.softmax(out, 1).max() < 0.5):
            out = self.late(torch.relu(self.second(x)).mean((2, 3)))
        return out


def test_exits_that_depend_on_the_data_are_branches(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is the one way to export a Python `if`
        scripted = torch.jit.script(Exits().eval())
    export(scripted, torch.rand(1, 3, 8, 8), tmp_path / "model.onnx", dynamo=False, opset_version=17)
    reading = read_onnx(tmp_path / "model.onnx", (1, 3, 8, 8))
    assert count(reading.graph).macs == 64 * 4 * 27 + 40
    found = {branch.name.rpartition("/")[2]: count(branch.graph) for branch in reading.branches}
    assert {name: (each.macs, each.params) for name, each in found.items()} == {
        "then": (9 * 8 * 36 + 80, 8 * 36 + 8 + 90),
        "else": (0, 0),
    }
