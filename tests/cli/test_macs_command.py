"""`macs` as users meet it: targets of our own, tables, JSON, refusals. Other sources are tested in tests/macs."""

import json
from pathlib import Path

import pytest

import nachos_min
from nachos_min import cli
from nachos_min.eenn.architecture import architecture_to_json
from nachos_min.eenn.lowering import static_costs
from nachos_min.errors import InputError
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Linear, MatMul, Node
from nachos_min.report.macs_report import executions
from nachos_min.targets import Target, TargetError


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


def test_too_large_to_execute():
    graph = (Node("conv", Conv2d((2**20, 2**20, 1), 1, (1, 1)), (-1,)),)
    with pytest.raises(InputError, match="must have at most 268435456 elements, got 1099511627776"):
        executions(Target("graph", (), graph))


def test_a_solution_of_a_run_is_a_target(counted, refused):
    short = {"evaluations": 2, "finalists": 1, "epochs": 1, "points": "best", "workers": 1}
    found = nachos_min.search(space="micro", min_accuracy=0.0, max_macs=None, out="runs/a", **short)
    assert found.front
    for solution in found.front:
        count = counted(f"runs/a#{solution.solution}")
        assert [each["cost"] for each in count["exits"]] == list(solution.exit_costs)
        assert count["params"] == solution.params
    assert f"run 'runs/a' has {len(found.front)} solutions, numbered from 0, got 99\n" in refused("runs/a#99")


def test_input_and_classes_may_be_given_as_options(counted):
    found = counted("cnas.json", "--input", "3,224,224", "--classes", "1k")
    assert found["input"] == [3, 224, 224]
    assert found["macs"] == nachos_min.count_macs("cnas.json", (3, 224, 224), classes=1000)


@pytest.mark.usefixtures("macs")
def test_counting_from_python(eenn):
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
        ("", "is not JSON: Expecting value"),
        ("{", "is not JSON: Expecting property name"),
        ("[]", "must be a JSON object, got list"),
        ("[" * 100_000, "is not JSON: it is nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "is not JSON: Exceeds the limit"),
        (" " * (8 * 2**20 + 1), "must be at most 8388608 bytes, got 8388609\n"),
    ],
)
def test_a_text_that_is_no_target(text, message, refused):
    Path("bad.json").write_text(text)
    assert refused("bad.json").startswith(f"error: target 'bad.json' {message}")


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
        ("net", "target must be an architecture .json, RUN#solution, an .onnx file or torch:"),
        ("nowhere.json", "target 'nowhere.json': No such file or directory"),
        ("NET.ONNX", "NET.ONNX"),
        ("runs/digits#x", "target must end in # and the number of a solution, got 'runs/digits#x'"),
        ("runs/digits#0", "run runs/digits does not exist"),
        ("net.json --convention flops", "convention must be one of exact, exact-valid"),
        ("net.json --explain flops", "convention must be one of exact, exact-valid"),
        ("net.json --input 8,8", "--input must be C,H,W of one image for this kind of target, got (8, 8)"),
        ("cnas.json --input 3,32,31", "'cnas.json': --input must be square for a configuration, got"),
        ("net.json --unpadded", "'net.json': --unpadded does not apply to this kind of target, got 'True'"),
        ("net.onnx --classes 3", "--classes does not apply to this kind of target, got '3'"),
        ("net.json --verify", "--verify needs a PyTorch module (torch:...), got 'net.json'"),
        (f"net.json --classes {'9' * 4000}", "classes must be an integer from 1 to 2^40, got '9999"),
        (f"cnas.json --classes {'9' * 4000}", "classes must be an integer from 1 to 2^40, got '9999"),
    ],
)
def test_a_mistake_in_a_count_is_one_line(line, message, refused):
    assert message in refused(*line.split())


def test_the_help_names_every_convention():
    help_text = " ".join((cli.macs.__doc__ or "").split())
    for name in CONVENTIONS:
        assert f" {name}," in help_text or f" {name}." in help_text
