"""What cannot be read is refused in one line that names it, and leaves nothing behind."""

from contextlib import suppress

import numpy as np
import pytest
from macs.torch_cases import CASES, Calling, nn, torch
from torch.nn.modules import module as hooks

from nachos_min.macs import CountError, count
from nachos_min.macs.readers import torch_graph
from nachos_min.macs.readers.builder import Causes
from nachos_min.macs.readers.torch_executed import products_of
from nachos_min.macs.readers.torch_reader import example_inputs, load_torch_target, read_torch
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


ONES = np.ones((4, 4), np.float32)

# fmt: off
CALLS = [
    (lambda x: torch.cdist(x, x) @ torch.linalg.inv(x + torch.eye(4)),
     "linalg.inv: no rule for the operator aten::linalg_inv_ex, which may multiply"),
    (lambda x: torch.from_numpy(x.numpy()), "body: what NumPy computes is not seen, got torch.from_numpy"),
    (lambda x: x * torch.tensor(x.numpy()), "body torch.tensor: what NumPy computes is not seen, got an array"),
    (lambda x: torch.as_tensor(data=x.numpy() @ ONES), "torch.as_tensor: what NumPy computes is not seen"),
    (lambda x: torch.tensor([*(x.numpy() @ ONES)]), "torch.tensor: what NumPy computes is not seen"),
    (lambda x: torch.tensor((x.numpy() @ ONES).tolist()), "torch.tensor: what NumPy computes is not seen"),
    (lambda x: torch.from_dlpack(np.from_dlpack(x) @ ONES), "output: what made the array (4, 4) is not heard"),
    (lambda x: torch.from_dlpack(np.from_dlpack(x) @ ONES) + 1, "x + y: what made the array (4, 4) is not heard"),
    (lambda x: np.matmul(x.numpy(), ONES, (made := torch.empty(4, 4)).numpy()) is None or made + 1,
     "what NumPy writes into an array is not seen"),
    (lambda x: torch.poisson(x.abs()), "body torch.poisson: no rule for the operator aten::poisson"),
    (lambda x: x @ torch.ones(3), "the module failed in body x @ y: RuntimeError: size mismatch"),
    (lambda x: [][len(x)], "the module failed: IndexError: "),
]
# fmt: on


@pytest.mark.parametrize(("function", "message"), CALLS)
def test_a_call_that_cannot_be_counted(function, message):
    module = nn.Sequential()
    module.add_module("body", Calling(function))
    before = listeners()
    assert message in refusal(read_torch, module, (4, 4))
    assert listeners() == before
    assert torch.is_grad_enabled()


def test_an_error_that_the_module_swallows_is_still_one():
    def swallow(x):
        with suppress(ValueError):
            torch.linalg.inv(x)
        return x

    assert "no rule for the operator" in refusal(read_torch, Calling(swallow), (4, 4))


def test_a_kind_of_operator_from_elsewhere_is_refused():
    for name in ("mine::twice", "aten::_native_multi_head_attention"):
        assert f"no rule for the operator {name}, which may multiply" in refusal(products_of(name), (), None)
    assert products_of("aten::sqrt") is products_of("aten::upsample_bilinear2d") is None


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


@pytest.mark.parametrize("options", [3, [1], {1: 2}])
def test_keyword_arguments_that_are_none(options):
    message = refusal(read_torch, nn.ReLU(), (torch.ones(2, 3),), options)
    assert message == f"keyword arguments must be a mapping with names, got {options}"


def test_inputs_that_hold_themselves():
    held = [torch.ones(2, 3)]
    held.append(held)
    message = refusal(read_torch, nn.ReLU(), (held,))
    assert message.startswith("inputs must be nested lists and mappings of tensors, got RecursionError")


def test_a_module_that_holds_itself():
    module = nn.Sequential(nn.ReLU())
    module.again = module
    assert refusal(read_torch, module, (2, 3)) == "a module must not hold itself, got Sequential"


def test_a_result_that_waits_is_no_result():
    message = refusal(read_torch, Calling(lambda x: (x @ x for _ in range(3))), (4, 4))
    assert message == "a module must return what it has computed, got a generator that waits"


def test_a_recursion_without_end_is_no_gap_in_the_rules():
    def deeper(x):
        return deeper(x.relu())

    assert refusal(read_torch, Calling(deeper), (4, 4)).startswith("the module failed: RecursionError")


def test_all_causes_are_listed_at_once_the_most_frequent_first():
    def several(x):
        inverse = torch.linalg.inv(x)
        for _ in range(3):
            torch.poisson(x.abs())
        return inverse @ torch.linalg.svd(x)[0]

    operators = "no rule for the operator aten::{}"
    assert refusal(read_torch, Calling(several), (4, 4)) == "3 causes: " + "; ".join((
        f"torch.poisson: {operators.format('poisson')} (3 times)",
        f"torch.linalg.inv: {operators.format('linalg_inv_ex')}, which may multiply and accumulate",
        f"torch.linalg.svd: {operators.format('_linalg_svd')}, which may multiply and accumulate",
    ))  # fmt: skip


def test_a_list_of_many_causes_is_cut():
    causes = Causes()
    for k in range(100):
        causes.add(f": cause {k} {'x' * 40}", "place")
    assert str(causes.error()).startswith("100 causes: place: cause 0 xxx")
    assert str(causes.error()).endswith("; and 92 causes more")
    assert len(str(causes.error())) <= 500


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
    (first,), _ = example_inputs(module, (3, 2))
    assert first.dtype == torch.float64
    assert torch.equal(first, example_inputs(module, (3, 2))[0][0])
    assert not torch.equal(first, example_inputs(module, (3, 2), seed=1)[0][0])
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
    module, inputs, _ = load_torch_target(f"{place}:with_inputs")
    assert count(read_torch(module, inputs)).macs == 5 * 6
    assert capsys.readouterr().out == "", "standard output is for results"
    makes = "must be a function that makes a module, got"
    for target, message in {
        "small": "a PyTorch target must be torch:package.module:function, got 'small'",
        f"{place}:number": "must return a torch.nn.Module, (module, inputs) or (module, inputs, keyword ",
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
    torch_graph.load_torch.cache_clear()  # which errors do not fill
    assert "PyTorch must be installed to read a module, got no torch" in refusal(torch_graph.load_torch)
    assert "PyTorch must be installed" in refusal(load_torch_target, "a:b")


def test_nested_arrays_are_refused():
    nested = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)
    assert "got a nested one of Linear" in refusal(read_torch, nn.Linear(4, 5), nested)


class LowRank(torch.Tensor):
    """A matrix that is kept as two factors, and multiplied one after the other."""

    @staticmethod
    def __new__(cls, one, other):
        return torch.Tensor._make_wrapper_subclass(cls, (one.shape[0], other.shape[1]), dtype=one.dtype)

    def __init__(self, one, other):
        self.factors = one, other

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.aten.mm.default
        one, other = args[1].factors
        return args[0] @ one @ other


def test_what_an_array_of_a_kind_of_its_own_executes():
    matrix = LowRank(torch.ones(4, 1), torch.ones(1, 5))
    with_rule, without = Calling(lambda x: x @ matrix), Calling(lambda x: torch.ops.aten.mm(x, matrix))
    message = f"PyTorch executed {2 * 4 + 2 * 5} MACs where {2 * 4 * 5} were counted"
    assert message in refusal(read_torch, with_rule, (2, 4))
    assert message in refusal(read_torch, without, (2, 4))
