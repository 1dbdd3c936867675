"""What cannot be read is refused in one line that names it, and leaves nothing behind."""

from contextlib import suppress

import pytest
from macs.torch_cases import CASES, Calling, F, nn, torch
from torch.nn.modules import module as hooks

from nachos_min.macs import CountError, count
from nachos_min.macs.readers import torch_graph
from nachos_min.macs.readers.torch_reader import example_inputs, executed_macs, load_torch_target, read_torch
from nachos_min.macs.readers.torch_rules import RULES


def listeners():
    """How many hooks and modes are switched on."""
    return (
        len(hooks._global_forward_hooks),
        len(hooks._global_forward_pre_hooks),
        len(torch.overrides._get_current_function_mode_stack()),
        len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
    )


def refusal(function, *arguments) -> str:
    """The one line that refuses a call."""
    with pytest.raises(CountError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# fmt: off
CALLS = [
    (torch.fft.fft, "body: torch.fft.fft: no rule for the operator aten::_fft_r2c, which may"),
    (lambda x: torch.cdist(x, x), "body cdist: no rule for the operator aten::_cdist_forward, which may multiply"),
    (lambda x: torch.ops.aten.mm(x, x), "aten::mm: no rule for a function that executes aten::mm"),
    (lambda x: F.cosine_similarity(x, x), "body: no rule for counting F.cosine_similarity"),
    (lambda x: torch.from_numpy(x.numpy()), "no rule for counting torch.from_numpy"),
    (lambda x: x * torch.tensor(x.numpy()), "what NumPy computes is not seen, got an array of shape (4, 4)"),
    (lambda x: torch.vmap(nn.Linear(4, 4))(x), "F.linear: PyTorch executed 64 MACs where 16 were counted"),
    (lambda x: torch.einsum("ij,jk,kl->il", x, x, x), "an Einstein sum must have one or two arrays, got 3"),
    (lambda x: nn.LSTM(4, 4)(x)[0], "torch.lstm: no rule for the operator aten::mkldnn_rnn_layer"),
    (lambda x: x @ torch.ones(3), "the module failed in body x @ y: RuntimeError: size mismatch"),
    (lambda x: [][len(x)], "the module failed: IndexError: "),
]
# fmt: on


@pytest.mark.parametrize(("function", "message"), CALLS)
def test_a_call_that_cannot_be_counted(function, message):
    module = nn.Sequential()
    module.add_module("body", Calling(function))
    before = listeners()
    assert message in refusal(read_torch, module, (4, 4)).replace("body torch", "body: torch")
    assert listeners() == before
    assert torch.is_grad_enabled()


def test_an_error_that_the_module_swallows_is_still_one():
    def swallow(x):
        with suppress(ValueError):
            torch.fft.fft(x)
        return x

    assert "no rule for the operator" in refusal(read_torch, Calling(swallow), (4,))


def test_a_kind_of_operator_from_elsewhere_is_refused():
    for name in ("mine::twice", "aten::_native_multi_head_attention"):
        assert f"no rule for the operator {name}, which may multiply" in refusal(executed_macs, name, (), None)
    assert executed_macs("aten::sqrt", (), None) == executed_macs("aten::upsample_bilinear2d", (), None) == 0


WRONG = [
    (list, "no rule for these arguments: "),
    (lambda y, x, **_: RULES["relu"](y, x[:1]), "PyTorch made an array (2, 3) where (3,) was expected"),
    (lambda y, x, **_: RULES["matmul"](y, x, x.T), "PyTorch executed 0 MACs where 12 were counted"),
]


@pytest.mark.parametrize(("rule", "message"), WRONG)
def test_a_rule_that_is_wrong_is_found_out(rule, message, monkeypatch):
    monkeypatch.setitem(RULES, "F.relu", rule)
    assert message in refusal(read_torch, nn.ReLU(), (2, 3))


@pytest.mark.parametrize("inputs", [(), (1, -1), (1, 2.0), "3", None, ([1],), (True, 2)])
def test_inputs_that_are_none(inputs):
    assert "inputs must be tensors or a shape of Python integers >= 1, got " in refusal(
        read_torch, nn.ReLU(), inputs
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, on TorchScript
def test_compiled_code_is_refused():
    with pytest.raises(CountError, match="the module must be Python code, got compiled TorchScript in"):
        read_torch(torch.jit.trace(nn.ReLU(), torch.zeros(1, 2)), (1, 2))


def test_modules_and_inputs_that_are_refused():
    for module, inputs, message in (
        (nn.ReLU(), (2**14, 2**15), "an input must have at most 268435456 elements, got"),
        (3, (1,), "the target must be a torch.nn.Module, got int"),
        (nn.LazyLinear(3), (1, 2), "the module must know its shapes, got lazy parameters in LazyLinear"),
    ):
        assert message in refusal(read_torch, module, inputs)


def test_nothing_is_left_behind():
    module = CASES["BN2d affine TRAIN"].make()
    module.train()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    before = listeners()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    for training in (True, False, None):
        read_torch(module, (2, 8, 4, 4), training=training)
    assert torch.equal(torch.rand(1), expected), "the caller's random numbers"
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert module.training
    assert listeners() == before


def test_flags_as_given():
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[0].eval()
    assert [node.written.training for node in read_torch(module, (2, 2), training=None)] == [False, True]
    assert [node.written.training for node in read_torch(module, (2, 2))] == [False, False]
    assert [each.training for each in module] == [False, True]


def test_inputs_are_of_the_modules_type_and_drawn_by_the_seed():
    module = nn.Linear(2, 2).double()
    (first,) = example_inputs(module, (3, 2))
    assert first.dtype == torch.float64
    assert torch.equal(first, example_inputs(module, (3, 2))[0])
    assert not torch.equal(first, example_inputs(module, (3, 2), seed=1)[0])
    assert count(read_torch(nn.Linear(2, 2, device="meta"), (3, 2))).macs == 12


SOURCE = """
import torch
def fine(): return torch.nn.Linear(3, 2)
def with_inputs(): print("loud"); return torch.nn.Linear(3, 2), (torch.zeros(5, 3),)
def number(): return 3
def broken(): raise RuntimeError("two\\nlines")
def leaves(): raise SystemExit(1)
ready = torch.nn.ReLU()
constant = 5
"""


def test_targets(tmp_path, monkeypatch, capsys):
    (tmp_path / "package_of_networks").mkdir()
    (tmp_path / "package_of_networks" / "small.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    place = "package_of_networks.small"
    assert load_torch_target(f"{place}:fine")[1] is None
    assert isinstance(load_torch_target(f"{place}:ready")[0], nn.ReLU)
    module, inputs = load_torch_target(f"{place}:with_inputs")
    assert count(read_torch(module, inputs)).macs == 5 * 6
    assert capsys.readouterr().out == "", "standard output is for results"
    makes = "must be a function that makes a module, got"
    for target, message in {
        "small": "a PyTorch target must be torch:package.module:function, got 'small'",
        f"{place}:number": "must return a torch.nn.Module, got int",
        f"{place}:broken": f"{makes} RuntimeError: two lines",
        f"{place}:leaves": f"{makes} SystemExit: 1",
        f"{place}:missing": f"{makes} AttributeError: ",
        f"{place}:constant": f"{makes} TypeError: 'int' object is not callable",
        "no_such_package_here:f": f"{makes} ModuleNotFoundError: ",
    }.items():
        assert message in refusal(load_torch_target, target)


def test_without_pytorch(monkeypatch):
    def missing(name):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(torch_graph, "import_module", missing)
    assert "PyTorch must be installed to read a module, got no torch" in refusal(torch_graph.load_torch)
    assert "PyTorch must be installed" in refusal(load_torch_target, "a:b")
