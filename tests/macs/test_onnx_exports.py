"""Networks that PyTorch exports count what the same modules count when PyTorch runs them."""

import itertools
import warnings

import pytest

pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")
pytest.importorskip("bench.torch_networks", reason="an installed copy has no bench")

from macs.torch_cases import F, With, nn, torch

from bench import torch_networks
from nachos_min.macs import CountError, count
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
        torch.onnx.export(module, x if isinstance(x, tuple) else (x,), path, dynamo=dynamo, **options)


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


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is the one way to export a Python `if` or loop
        return torch.jit.script(module)


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
    export(
        scripted(Exits().eval()), torch.rand(1, 3, 8, 8), tmp_path / "model.onnx", dynamo=False, opset_version=17
    )
    reading = read_onnx(tmp_path / "model.onnx", (1, 3, 8, 8))
    assert count(reading.graph).macs == 64 * 4 * 27 + 40
    found = {branch.name.rpartition("/")[2]: count(branch.graph) for branch in reading.branches}
    assert {name: (each.macs, each.params) for name, each in found.items()} == {
        "then": (9 * 8 * 36 + 80, 8 * 36 + 8 + 90),
        "else": (0, 0),
    }


# Operators that differ between exporters, each with MACs by hand.


class Turns(nn.Module):
    """One layer, three times in a loop that stays one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x)
        return x


def calls(function, **modules):
    return lambda: With(lambda m, *x: function(m, *x), **modules)


def recurrent(make, *args, **options):
    return calls(lambda m, x: m.layer(x)[0], layer=make(*args, **options))


def packed(m, x):
    x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(m.layer(x)[0], batch_first=True)[0]


def folded(m, x):
    return F.fold(m.layer(F.unfold(x, 3, padding=1).mT).mT, (6, 6), 3, padding=1)


def complex_product(_m, x):
    return torch.view_as_real(torch.view_as_complex(x) @ torch.view_as_complex(x))


def sampled(_m, x, grid):
    return F.grid_sample(x, grid, align_corners=False)


def volume():
    layers = nn.Conv3d(3, 6, 3, 2, 1, groups=3), nn.BatchNorm3d(6), nn.MaxPool3d(2), nn.Upsample(scale_factor=2)
    return nn.Sequential(*layers, nn.ConvTranspose3d(6, 2, 2, 2), nn.AvgPool3d(2), nn.LocalResponseNorm(2))


def positions(m, x):
    """Positions go through a layer: no input reaches it."""
    return x @ m.layer(m.table).T


OLDER, NEWER = "opset 17", "torch.export"
WAYS[OLDER] = {"dynamo": False, "opset_version": 17}
# name -> what makes the network, the shapes of its inputs, its MACs by hand, and how many more each exporter writes
# fmt: off
FOUND = {
    "lstm": (recurrent(nn.LSTM, 5, 7, 2, bidirectional=True, batch_first=True), [(2, 6, 5)],
        2 * 2 * 6 * 28 * (5 + 7 + 14 + 7), {OLDER: 0}),
    "gru": (recurrent(nn.GRU, 5, 7, 2), [(6, 2, 5)], 2 * 6 * 21 * (5 + 7 + 7 + 7), {OLDER: 0, NEWER: 0}),
    # The newer exporter writes each step out, and computes the first one's product with a state of zeros.
    "rnn": (recurrent(nn.RNN, 5, 7), [(6, 2, 5)], 2 * 6 * 7 * (5 + 7), {OLDER: 0, NEWER: -2 * 7 * 7}),
    "packed lstm": (calls(packed, layer=nn.LSTM(5, 7, batch_first=True)), [(2, 4, 5)], (4 + 2) * 28 * 12,
        {OLDER: 0}),
    "three axes": (volume, [(1, 3, 8, 8, 8)], 4**3 * 6 * 27 + 4**3 * 6 * 2 * 8, {OLDER: 0, NEWER: 0}),
    "one axis": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2), [(2, 4, 7)], 2 * 7 * 4 * 3 * 3, {OLDER: 0}),
    "causal attention": (calls(lambda _m, q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        [(1, 2, 5, 8)], 2 * 2 * 5 * 5 * 8, {OLDER: 0}),
    "heads shared": (calls(lambda _m, q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)),
        [(1, 4, 5, 8), (1, 2, 6, 8)], 2 * 4 * 5 * 6 * 8, {NEWER: 0}),
    "einsum": (calls(lambda _m, x: torch.einsum("bhid,bhjd->bhij", x, x)), [(2, 3, 4, 5)], 480, {OLDER: 0}),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)], 2 * 5 * (3 * 4 + 4), {NEWER: 0}),
    "columns and back": (calls(folded, layer=nn.Linear(27, 27)), [(1, 3, 6, 6)], 36 * 27 * 27, {NEWER: 0}),
    "complex product": (calls(complex_product), [(4, 4, 2)], 4 * 64, {NEWER: 0}),
    "sampled between pixels": (calls(sampled), [(2, 3, 5, 6), (2, 7, 9, 2)], 0, {OLDER: 0}),
    "fourier transform": (calls(lambda _m, x: torch.fft.fft(x).real), [(3, 16)], 0, {NEWER: 0}),
    "loop": (lambda: scripted(Turns()), [(2, 5)], 3 * 2 * 25, {OLDER: 0}),
    # The older exporter writes squared differences and their sum, or a product of arrays with two columns more.
    "distances": (calls(lambda _m, x, y: torch.cdist(x, y)), [(3, 4), (5, 4)], 3 * 5 * 4, {OLDER: -3 * 5 * 4}),
    "distances of many": (calls(lambda _m, x, y: torch.cdist(x, y)), [(30, 4), (31, 4)],
        30 * 31 * 4, {OLDER: 30 * 31 * 2}),
    "constants": (calls(positions, layer=nn.Linear(2, 5), table=nn.Parameter(torch.ones(6, 2))), [(3, 5)],
        6 * 10 + 3 * 30, {OLDER: 0, NEWER: -6 * 10}),
}
# fmt: on


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, case in FOUND.items() for way in case[3]])
def test_a_file_has_the_module_s_count_or_differs_by_what_the_exporter_does(name, way, tmp_path):
    make, shapes, macs, more = FOUND[name]
    module, inputs = make().eval(), tuple(map(torch.rand, shapes))
    export(module, inputs, tmp_path / "model.onnx", **WAYS[way])
    expected, found = count(read_torch(module, inputs)), count(read_onnx(tmp_path / "model.onnx").graph)
    assert (expected.macs, found.macs) == (macs, macs + more[way])
    for column in ("interpolation", "fft_ops"):
        assert found.columns.get(column) == expected.columns.get(column), column


class Experts(nn.Module):
    """Rows go to one of two linear layers, by their values."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        out = torch.zeros_like(x)
        for sign, layer in zip((1, -1), self.layers, strict=True):
            rows = torch.where(x[:, 0] * sign > 0)[0]
            out = out.index_add(0, rows, layer(x[rows]))
        return out


def test_rows_that_the_data_chooses_are_not_counted(tmp_path):
    export(Experts().eval(), (torch.rand(3, 4) - 0.5,), tmp_path / "model.onnx", **WAYS[OLDER])
    with pytest.raises(CountError, match="rows that it multiplies depend on the data"):
        read_onnx(tmp_path / "model.onnx")


def test_a_layer_that_the_newer_exporter_writes_wrongly_is_refused(tmp_path):
    module, x = recurrent(nn.LSTM, 5, 7, proj_size=3)(), torch.rand(6, 2, 5)
    export(module.eval(), (x,), tmp_path / "model.onnx", **WAYS[NEWER])
    with pytest.raises(CountError, match=r"first states must have shape \(1, 2, 3\), got .*\(1, 2, 7\)"):
        read_onnx(tmp_path / "model.onnx")


# What ONNX Runtime makes of such a file.


def pictures():
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU6(),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def words():
    layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4))


@pytest.mark.parametrize(("make", "shape", "way"), [(pictures, (1, 3, 9, 9), OLDER), (words, (2, 7, 16), NEWER)])
def test_an_optimised_file_has_the_same_count(make, shape, way, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra, not a dependency")
    before, after = tmp_path / "model.onnx", tmp_path / "optimised.onnx"
    torch.manual_seed(0)
    export(make().eval(), (torch.rand(shape),), before, **WAYS[way])
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(after), 3
    runtime.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
    assert b"com.microsoft" in after.read_bytes()
    assert count(read_onnx(after).graph).macs == count(read_onnx(before).graph).macs > 0


@pytest.mark.parametrize("form", ["QOperator", "QDQ"])
def test_a_quantised_file_has_the_same_count(form, tmp_path):
    tools = pytest.importorskip("onnxruntime.quantization", reason="ONNX Runtime is an extra, not a dependency")
    before, after = tmp_path / "model.onnx", tmp_path / "quantised.onnx"
    torch.manual_seed(0)
    export(pictures().eval(), (torch.rand(1, 3, 9, 9),), before, **WAYS[OLDER], input_names=["x"])

    class Samples(tools.CalibrationDataReader):
        data = iter([{"x": torch.rand(1, 3, 9, 9).numpy()}])

        def get_next(self):
            return next(self.data, None)

    tools.quantize_static(str(before), str(after), Samples(), quant_format=tools.QuantFormat[form])
    assert (b"QLinearConv" if form == "QOperator" else b"DequantizeLinear") in after.read_bytes()
    assert count(read_onnx(after).graph).macs == count(read_onnx(before).graph).macs > 0
