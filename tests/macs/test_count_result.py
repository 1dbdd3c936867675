"""The result of a count: a number, and what it is the sum of; least and most where it depends on the data."""

import copy
import json
import math
import operator
import pickle
import statistics
from functools import partial

import pytest

from nachos_min import count_macs
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.ops import Activation, BatchNorm, Conv2d, Linear, Node, Written
from nachos_min.macs.readers.onnx_reader import Branch
from nachos_min.macs.record import CountError
from nachos_min.macs.result import Network, count_network, module_path

CONV = Conv2d((8, 8, 3), 16, (3, 3), padding=(1, 1, 1, 1))  # 27,648 MACs, 432 parameters
GRAPH = (
    Node("/net/net.0/conv/Conv", CONV, (-1,)),
    Node("/net/net.0/norm/BatchNormalization", BatchNorm((8, 8, 16)), (0,)),
    Node("/net/net.1/act/Relu", Activation((8, 8, 16), "relu"), (1,)),
    Node("/head/Gemm", Linear((8, 8, 16), 10), (2,)),  # 10,240 MACs, 170 parameters
)
TOTAL = 27648 + 10240


def linear(name, wide, source=-1):
    return Node(name, Linear((4,), wide), (source,))


def branching(*inner):
    """A network of 12 MACs always, and 8 or 20 more; inside the dearer branch 4 or 40 more, if asked for."""
    branches = [Branch("gate/then", (linear("a", 2),)), Branch("gate/else", (linear("b", 5),))]
    branches += [Branch(f"gate/else/if/{word}", (linear(word, wide),), "gate/else") for word, wide in inner]
    return Network("net.onnx", (1, 4), (linear("w", 3),), tuple(branches))


@pytest.fixture
def count():
    return count_macs(GRAPH)


def test_a_count_is_a_number(count):
    assert isinstance(count, int)
    assert (int(count), count.total, count.least, count.most) == (TOTAL,) * 4
    assert count == TOTAL
    assert TOTAL + 1 > count >= TOTAL
    assert {TOTAL: "found"}[count] == "found"
    assert range(50_000)[count] == TOTAL
    assert (count + 1, 2 * count, count / 2, -count) == (TOTAL + 1, 2 * TOTAL, TOTAL / 2, -TOTAL)
    assert sum([count, count]) == statistics.mean([count, 3 * count]) == 2 * TOTAL
    assert (f"{count}", f"{count:,}", str(count), f"{count:.2e}") == ("37888", "37,888", "37888", "3.79e+04")
    assert json.dumps({"macs": count}) == '{"macs": 37888}'


def test_print_gives_the_number_and_a_prompt_the_table(count, capsys):
    print(count)
    assert capsys.readouterr().out == "37888\n"
    assert repr(count).splitlines() == [
        "graph: 37,888 MACs (exact)",
        "",
        "module     MACs    share   parameters",
        "─" * 37,
        "net      27,648    73.0%          464",
        "head     10,240    27.0%          170",
        "total    37,888   100.0%          634",
    ]


@pytest.mark.parametrize("made", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("convention", ["exact", "thop", "nachos-official"])
def test_copies_are_the_same_count(made, convention, count):
    one, other = count.as_convention(convention), made(count.as_convention(convention))
    assert (int(other), repr(other), other.by_operator()) == (int(one), repr(one), one.by_operator())
    between = count_network(branching(), convention)
    assert (made(between).least, made(between).most) == (between.least, between.most)


def test_parts_add_up_by_every_convention_at_every_depth(count):
    for name in CONVENTIONS:
        each = count.as_convention(name)
        assert each.convention == name
        for depth in (None, 1, 2, 3, 9):
            assert sum(each.by_module(depth).values()) == each
        assert sum(each.by_operator().values()) == each
        assert sum(part.amount for level, _, part in each.tree().lines() if level == 0) == each
    assert count.by_module(1) == {"net": 27648, "head": 10240}
    assert count.by_module(2) == {"net.0": 27648, "net.1": 0, "head": 10240}
    assert count.by_operator() == {"Conv2d": 27648, "BatchNorm": 0, "Activation": 0, "Linear": 10240}
    assert count.as_convention("thop").by_operator()["BatchNorm"] == 4 * 8 * 8 * 16
    assert (count.params, count.columns["norm_elems"]) == (432 + 32 + 170, 1024)


@pytest.mark.parametrize("depth", [0, -1, 1.5, True, "1"])
def test_a_depth_must_be_a_whole_number(depth, count):
    with pytest.raises(CountError, match="depth must be a Python integer >= 1 or None, got"):
        count.by_module(depth)
    with pytest.raises(CountError, match="depth must be a Python integer >= 1 or None, got"):
        count.table(depth)


def test_what_no_operator_adds_stands_by_itself(count):
    rounded = count.as_convention("nachos-official")
    words = "rounding of the backbone to 0.01 M"
    assert rounded.by_module(1)[words] == rounded.by_operator()[words] == 10_000 * round(TOTAL / 1e4) - TOTAL
    assert f"\n{words} " in rounded.table()


def test_why_another_convention_differs(count):
    why = count.explain("thop")
    assert why.difference == sum(each.amount for each in why) == count.as_convention("thop") - count
    assert [each.amount for each in why] == [4 * 8 * 8 * 16]
    assert str(why).splitlines()[-1].split() == ["+4,096", "thop", "41,984,", "exact", "37,888"]
    assert "4 x 1,024" in why._repr_html_()
    assert "no term differs" in str(count.explain("exact"))
    with pytest.raises(CountError, match="convention must be one of exact"):
        count.explain("flops")


WRITTEN = Written("F.linear", "Linear", "Linear")


@pytest.mark.parametrize(
    ("name", "written", "path"),
    [
        ("stage2.1.excite.scale", None, "stage2 1 excite scale"),
        ("/layer1/layer1.0/conv1/Conv", None, "layer1 0 conv1"),
        ("/f/f.0/f.0.10/Conv", None, "f 0 10"),
        ("/Relu", None, ""),
        ("model/a/b.c", None, "model a b c"),
        ("Conv_3", None, "Conv_3"),
        ("", None, ""),
        ("encoder.0.fc", WRITTEN, "encoder 0 fc"),
        ("F", WRITTEN, "F"),
        ("encoder.0 F.linear", WRITTEN, "encoder 0"),
        ("F.linear", WRITTEN, ""),
        ("block x / y", Written("x / y"), "block"),
        ("x / y", Written("x / y"), ""),
        ("block Linear", Written(""), "block"),
        ("/".join("abcdefghij" * 10), None, " ".join("abcdefghij" * 5) + " " + ".".join("abcdefghij" * 5)),
    ],
)
def test_modules_are_told_by_names(name, written, path):
    assert module_path(Node(name, Linear((4,), 4), (-1,), written=written))[0] == tuple(path.split())


def test_a_module_in_a_module_is_one_row_and_small_tables_stay_small():
    graph = tuple(linear(f"model.layers.{n // 2}.{'qk'[n % 2]}", n + 1) for n in range(60))
    count = count_macs(graph)
    assert count.by_module(1) == {"model": count}
    lines = repr(count).splitlines()
    assert len(lines) == 4 + 20 + 2
    assert lines[4].split()[:3] == ["model.layers", f"{count:,}", "100.0%"]
    assert lines[5].split()[:3] == ["0", "12", "0.2%"]
    assert lines[-2].split()[:5] == ["...", "and", "11", "more", f"{sum(4 * (n + 1) for n in range(38, 60)):,}"]
    assert len(count.table(None).splitlines()) == 4 + 1 + 30 + 60 + 1


def test_names_neither_break_a_table_nor_become_markup():
    count = count_macs((linear("<b>&\n\x1b[31m", 2),))
    assert "<b>&amp;" not in count._repr_html_()
    assert "&lt;b&gt;&amp;\\n\\x1b[31m" in count._repr_html_()
    assert "<b>&\\n\\x1b[31m" in repr(count)


# Totals that depend on the data


PAIRS = "add sub mul truediv floordiv mod pow lt le gt ge eq ne lshift and_ or_ xor"
ALONE = [int, float, complex, bool, abs, round, hex, math.floor, operator.neg, range(99).__getitem__, "%d".__mod__]


@pytest.mark.parametrize(
    "use",
    [
        *(partial(getattr(operator, name), 5) for name in PAIRS.split()),
        *((lambda x, name=name: getattr(operator, name)(x, 5)) for name in PAIRS.split()),
        *ALONE,
        partial(divmod, 5),
        lambda x: max(x, 5),
        lambda x: sum([x]),
        lambda x: x.total,
    ],
)
def test_no_number_is_made_of_a_total_that_depends_on_the_data(use):
    with pytest.raises(CountError, match=r"^MACs of net.onnx depend on its data: at least 20, at most 32$"):
        use(count_network(branching()))


def test_least_and_most():
    count = count_network(branching())
    assert (count.least, count.most) == (20, 32)
    assert not isinstance(count, int)
    assert (str(count), f"{count:>4,}") == ("20 to 32", "  20 to   32")
    with pytest.raises(TypeError):
        json.dumps(count)
    assert (count == count, count == "20") == (True, False)
    assert len({count, count}) == 1
    assert repr(count).splitlines()[0] == "net.onnx, input 1x4: 20 to 32 MACs (exact)"
    assert count.by_module() == {"w": 12, "b": 20}
    assert count.params == sum(part.params for _, _, part in count.tree().lines()) == 15 + 25
    torch = count.as_convention("torch")
    assert (torch.least, torch.most, torch.unit) == (40, 64, "FLOPs")
    assert count.explain("torch").difference == 32


def test_branches_inside_branches():
    nested = count_network(branching(("then", 1), ("else", 10)))
    assert (nested.least, nested.most) == (20, 12 + 20 + 40)
    assert nested.by_module() == {"w": 12, "b": 20, "else": 40}


def test_branches_that_cost_the_same_are_a_number():
    same = Network("net", (4,), (), tuple(Branch(f"gate/{word}", (linear(word, 2),)) for word in ("then", "else")))
    count = count_network(same)
    assert count == 8
    assert count.by_module() == {"then": 8}


# What `count_macs` refuses


def test_inputs_are_given_once_and_only_where_they_apply(tmp_path):
    for words in ({"inputs": (1, 8)}, {"input_shape": (1, 8)}):
        with pytest.raises(ValueError, match="--input does not apply to this kind of target"):
            count_macs(GRAPH, **words)
    with pytest.raises(ValueError, match="input_shape must be absent where inputs are given, got"):
        count_macs(tmp_path / "net.onnx", (1, 8), input_shape=(1, 8))
    with pytest.raises(ValueError, match="--classes does not apply"):
        count_macs(GRAPH, classes=3)


def test_a_tuple_of_numbers_is_no_network():
    with pytest.raises(ValueError, match=r"the target must be a torch.nn.Module, got tuple"):
        count_macs((1, 3, 224, 224), (1, 2))
