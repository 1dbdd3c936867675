"""`macs` as users meet it: targets of our own, tables, JSON, refusals. Other sources are tested in tests/macs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nachos_min
from nachos_min import cli
from nachos_min.eenn.architecture import architecture_to_json
from nachos_min.eenn.lowering import static_costs
from nachos_min.errors import InputError
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Linear, MatMul, Node
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space
from nachos_min.report.macs_report import executions
from nachos_min.targets import Target, TargetError

ROOT = Path(__file__).parents[2]

# As in conftest.py, where it is a file.
CNAS = {"ks": [3, 5, 5, 3, 7, 5, 3, 3, 3, 3], "e": [3] * 10, "d": [2] * 5, "r": 32}


def test_a_configuration_is_counted_as_written_and_as_its_sampler_built_it(macs):
    _, out, _ = macs("cnas.json", "--json")
    written = json.loads(out)
    assert (written["macs"], written["params"], written["input"]) == (4061904, 2153546, [3, 32, 32])
    _, out, _ = macs("cnas.json", "--unpadded", "--json")
    built = json.loads(out)
    assert (built["macs"], built["params"]) == (5970048, 3409466)


def test_json_says_what_the_network_costs(macs, eenn):
    status, out, err = macs("net.json", "--json", "--layers")
    found = json.loads(out)
    assert (status, err) == (0, "")
    costs = static_costs(eenn)
    assert found["target"] == "net.json"
    assert (found["convention"], found["unit"]) == ("exact", "MACs")
    assert [each["cost"] for each in found["exits"]] == list(costs.exit_costs)
    assert [each["stage"] for each in found["exits"]] == list(eenn.exit_stages)
    heads = 0
    for each in found["exits"]:
        heads += each["head"]
        assert each["cost"] == each["backbone"] + heads
    assert found["macs"] == found["exits"][-1]["cost"] == sum(layer["macs"] for layer in found["layers"])
    assert found["params"] == costs.params
    assert found["peak_activation_bytes"] == costs.peak_bytes
    assert set(found["totals"]) == set(CONVENTIONS)
    assert found["columns"]["norm_elems"] > 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_can_be_counted_by_and_explained(convention, macs):
    status, out, _ = macs("net.json", "--convention", convention, "--explain", "exact", "--json", "--layers")
    found = json.loads(out)
    assert status == 0
    assert found["macs"] == found["totals"][convention]
    assert found["tool"] == CONVENTIONS[convention].tool
    assert sum(each["amount"] for each in found["explain"]["terms"]) == found["explain"]["difference"]
    assert found["explain"]["difference"] == found["totals"]["exact"] - found["macs"]


def test_the_table_has_every_convention_and_every_exit(macs, eenn):
    status, out, _ = macs("net.json")
    assert status == 0
    first, second, *_ = out.splitlines()
    assert first == "net.json, input 1x8x8"
    assert second == f"{static_costs(eenn).worst_macs:,} MACs (exact); {static_costs(eenn).params:,} parameters"
    for name in CONVENTIONS:
        assert f"\n{name} " in out
    for cost in static_costs(eenn).exit_costs:
        assert f"{cost:,}" in out


def test_layers_and_reasons_in_words(macs):
    _, out, _ = macs("net.json", "--layers", "--explain", "thop")
    assert "stem.norm" in out
    assert "Conv2d" in out
    assert "elements into batch norm" in out
    assert "nodes that only hold, move or pick elements are not shown" in out


def test_what_is_executed_is_what_is_counted(macs, eenn):
    status, out, _ = macs("net.json", "--execute", "--json")
    executed = json.loads(out)["execute"]
    assert status == 0
    assert [each["executed"] for each in executed] == list(static_costs(eenn).exit_costs)
    assert all(each["executed"] == each["counted"] for each in executed)
    assert "equal; 0 not run" in macs("net.json", "--execute")[1]


def test_layers_of_a_network_from_elsewhere_are_executed_one_by_one():
    graph = (
        Node(
            "conv",
            Conv2d((9, 7, 4), 6, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2), groups=2),
            (-1,),
            batch=2,
            relaid=True,
        ),
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
    with pytest.raises(
        InputError, match="an array to be executed must have at most 268435456 elements, got 1099511627776"
    ):
        executions(Target("graph", (), graph))


def test_a_genome_is_a_target(macs, eenn):
    genome = list(GenomeCoder(load_space("tiny"), (8, 8, 1), 10).sample(np.random.default_rng(3)))
    Path("genome.json").write_text(
        json.dumps({"space": "tiny", "genome": genome, "input": [1, 8, 8], "classes": 10})
    )
    assert json.loads(macs("genome.json", "--json")[1])["macs"] == static_costs(eenn).worst_macs


def test_a_solution_of_a_run_is_a_target(macs):
    limits = {"min_accuracy": 0.0, "max_macs": None}
    short = {"evaluations": 2, "finalists": 1, "epochs": 1, "points": "best"}
    found = nachos_min.search(space="micro", **limits, **short, workers=1, out="runs/a")
    assert found.front
    for solution in found.front:
        counted = json.loads(macs(f"runs/a#{solution.solution}", "--json")[1])
        assert [each["cost"] for each in counted["exits"]] == list(solution.exit_costs)
        assert counted["params"] == solution.params
    status, _, err = macs("runs/a#99")
    assert (status, err) == (
        2,
        f"error: run 'runs/a' has {len(found.front)} solutions, numbered from 0, got 99\n",
    )


def test_input_and_classes_may_be_said_on_the_line(macs):
    _, out, _ = macs("cnas.json", "--input", "3,224,224", "--classes", "1k", "--json")
    found = json.loads(out)
    assert (found["input"], found["macs"]) == (
        [3, 224, 224],
        nachos_min.count_macs("cnas.json", (3, 224, 224), classes=1000),
    )


def test_counting_from_python(macs, eenn):
    assert nachos_min.count_macs("cnas.json") == 4061904
    assert nachos_min.count_macs(Path("cnas.json"), (3, 32, 32), "thop") == 4322704
    assert nachos_min.count_macs(eenn) == static_costs(eenn).worst_macs
    assert macs("cnas.json")[0] == 0
    with pytest.raises(TargetError, match=r"^target must be an architecture \.json, .*, got 'nothing'$"):
        nachos_min.count_macs("nothing")


def test_counts_beyond_machine_integers_are_printed_exactly(macs, eenn):
    side = 2**35
    net = json.loads(architecture_to_json(eenn)) | {"input": [1, side, side], "exits": []}
    Path("huge.json").write_text(json.dumps(net))
    Path("large.json").write_text(json.dumps(net | {"input": [1, side // 2, side // 2]}))
    huge, large = (json.loads(macs(name, "--json")[1])["macs"] for name in ("huge.json", "large.json"))
    # Four times as many pixels are four times the work, but for the layers behind the mean over the map.
    final = eenn.final
    fixed = (final.expand or eenn.stages[-1][-1].out_channels) * (final.mix or eenn.classes)
    fixed += final.mix * eenn.classes
    assert huge - fixed == 4 * (large - fixed)
    assert huge > 2**75


def test_a_json_target_loads_no_compiler_and_no_framework():
    script = (
        "import sys; from nachos_min.cli import main; main(['macs', sys.argv[1], '--explain', 'thop', '--layers']);"
        "sys.exit(bool({'numba', 'torch', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    path = ROOT / "tests" / "data_files" / "cnas_example.json"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


NESTED = "[" * 100_000
GENOME = {"genome": [3], "space": "tiny", "input": [1, 8, 8], "classes": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "target 'bad.json' is not JSON: Expecting value"),
        ("{", "target 'bad.json' is not JSON: Expecting property name"),
        ("[]", "target 'bad.json' must be a JSON object, got list"),
        (NESTED, "target 'bad.json' is not JSON: it is nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "target 'bad.json' is not JSON: Exceeds the limit"),
        ({}, "'bad.json': architecture: input must be a list"),
        (CNAS | {"r": -1}, "'bad.json': configuration: r must be an integer from 1 to 2^"),
        (CNAS | {"r": None}, "'bad.json': configuration: r must be an integer from 1 to 2^"),
        (CNAS | {"r": 2**20 + 1}, "'bad.json': configuration: r must be an integer from 1 to 2^20"),
        (CNAS | {"d": [9] * 5}, "'bad.json': configuration: d must be of (2, 3, 4), got 9"),
        (CNAS | {"ks": [3]}, "'bad.json': configuration: ks must be a list of 10 or 20 entries, got 1"),
        (GENOME | {"space": None}, "'bad.json': genome: space must be the name of a space or a .toml file"),
        (GENOME | {"genome": 3}, "'bad.json': genome: genome must be a list"),
        (GENOME | {"genome": ["a"]}, "'bad.json': genome: genome must be a list of integers"),
        (GENOME, "'bad.json': genome of space tiny must have"),
        (GENOME | {"classes": None}, "'bad.json': genome: classes must be an integer from 1 to 2^40"),
        (GENOME | {"sapce": "tiny"}, "'bad.json': genome: a field must be one of space, genome, input, classes"),
    ],
)
def test_a_bad_file_is_one_line(text, message, macs):
    Path("bad.json").write_text(text if isinstance(text, str) else json.dumps(text))
    status, out, err = macs("bad.json")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "macs needs a TARGET, got none; try python -m nachos_min macs --help"),
        (["a.json", "b"], "macs takes one TARGET and options, got 'b'"),
        (["net"], "target must be an architecture .json, RUN#solution, an .onnx file or torch:"),
        (["nowhere.json"], "target 'nowhere.json': No such file or directory"),
        (["runs/digits#x"], "target must end in # and the number of a solution, got 'runs/digits#x'"),
        (["runs/digits#0"], "run runs/digits does not exist"),
        (["net.json", "--convention", "flops"], "convention must be one of exact, exact-valid"),
        (["net.json", "--explain", "flops"], "convention must be one of exact, exact-valid"),
        (["net.json", "--input", "3,x"], "--input must be one to eight whole numbers from 1 to 2^40 with commas"),
        (["net.json", "--input", "0,8,8"], "--input must be one to eight whole numbers from 1 to 2^40 with commas"),
        (["net.json", "--input", "8,8"], "--input must be C,H,W of one image for this kind of target, got (8, 8)"),
        (["cnas.json", "--input", "3,32,31"], "'cnas.json': --input must be square for a configuration, got"),
        (["net.json", "--unpadded"], "'net.json': --unpadded does not apply to this kind of target, got 'True'"),
        (["net.onnx", "--classes", "3"], "--classes does not apply to this kind of target, got '3'"),
        (["net.json", "--verify"], "--verify needs a PyTorch module (torch:...), got 'net.json'"),
    ],
)
def test_a_mistake_in_a_count_is_one_line(line, message, macs):
    status, out, err = macs(*line)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_file_that_is_too_large_is_not_read(macs, tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(8 * 2**20 + 1)
    status, _, err = macs("large.json")
    assert (status, err) == (2, "error: target 'large.json' must be at most 8388608 bytes, got 8388609\n")


def test_the_help_names_every_convention():
    help_text = " ".join((cli.macs.__doc__ or "").split())
    for name in CONVENTIONS:
        assert f" {name}," in help_text or f" {name}." in help_text
