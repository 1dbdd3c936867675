"""A tabular benchmark: what it answers is what training gives, it is made in steps, and it refuses to guess."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import instant

import nachos_min
from nachos_min.data import load
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe
from nachos_min.errors import InputError
from nachos_min.nas import fitting, nachos
from nachos_min.nas.configuration import Configuration, Problem, configure, load_problem
from nachos_min.nas.evaluate import evaluate
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.limits import Limits
from nachos_min.nas.records import to_record
from nachos_min.nas.result import Archive, result_of
from nachos_min.nas.runs import stored_problem
from nachos_min.nas.tabular import Table, TableError, answers_from, read_table
from nachos_min.report.search_report import summary
from nachos_min.store.values import decode, encode

pytest.importorskip("bench.tabulation", reason="an installed copy has no bench")

from bench.tabulation import all_members, archive_of, tabulate, train_members

SHORT = PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1)
USUAL = {"recipe": SHORT, "standardise": "pixel", "validation": "halves", "confidence": "best", "aims": "ends"}
SPACE = """
depths = [1]
kernels = [3]
expansions = [1, 2]
resolutions = []
divisor = 4
exit_widths = []
stem = { channels = 4, kernel = 3, stride = 2, activation = "relu" }
stages = [
    { channels = 4, stride = 1, activation = "relu", squeeze_excite = false },
    { channels = 8, stride = 2, activation = "relu", squeeze_excite = false },
    { channels = 8, stride = 1, activation = "relu", squeeze_excite = false },
]
final = { expand = 12, mix = 0, activation = "relu" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with few digits, a space of 8 backbones and the table of its 32 members, made in two steps."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "small.toml").write_text(SPACE)
    digits = load("digits").train
    np.savez(folder / "few.npz", images=digits.images[:600], labels=digits.labels[:600])
    told: list[tuple[int, int, int]] = []
    make = partial(tabulate, configuration(folder), (0, 7), folder / "small.h5", workers=1, versions={})
    make = partial(make, on_progress=lambda *counts: told.append(counts))
    assert not make(units=5)
    assert not (folder / "small.h5").exists()
    assert make()
    assert told == [(0, done, 16) for done in range(1, 6)] + [(5, done, 16) for done in range(1, 12)]
    assert {entry.name for entry in folder.iterdir()} == {"few.npz", "small.h5", "small.toml"}
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return read_table(folder / "small.h5")


def configuration(folder: Path, seed: int = 0, max_macs: int = 6_000, **options: Any) -> Configuration:
    data, space = str(folder / "few.npz"), str(folder / "small.toml")
    return Configuration(data, space, Limits(max_macs, 0.1), seed, **(USUAL | options))


@pytest.fixture(scope="module")
def problem(folder: Path) -> Problem:
    return load_problem(configuration(folder))


@pytest.fixture
def search(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The public search with short training; without a table it must not get as far as a worker."""

    def small(asked: Any) -> Configuration:
        return replace(configure(asked), initial=6, chosen=4, recipe=replace(SHORT, beta=asked["beta"]))

    monkeypatch.setattr(fitting, "configure", small)
    monkeypatch.setattr(nachos, "Workers", instant(lambda *_: pytest.fail("a worker was asked for")))
    given: dict[str, Any] = {"max_macs": 6_000, "min_accuracy": 0.1, "recipe": "paper", "standardise": "pixel"}
    given |= {"validation": "halves", "confidence": "best", "table": folder / "small.h5"}
    return partial(nachos_min.search, data=str(folder / "few.npz"), space=str(folder / "small.toml"), **given)


def bits(evaluation: Evaluation | Failure) -> str:
    """All of an evaluation but its weights, exactly."""
    record = to_record(evaluation) | {"weights": {}}
    return json.dumps(record, default=lambda array: [array.dtype.str, array.shape, array.tobytes().hex()])


@pytest.mark.parametrize("points", ["best", "curve"])
@pytest.mark.parametrize("case", [(0, 0, "best"), (1, 7, "learned"), (5, 7, "softmax"), (8, 0, "best")])
def test_it_answers_as_training_does(folder: Path, problem: Problem, table: Table, case: Any, points: str) -> None:
    seed, trained_with, confidence = case
    for genome in list(table.members)[seed : seed + 2]:
        given = {"points": points, "confidence": confidence}
        asked = replace(problem, configuration=configuration(folder, seed, **given))
        settings = configuration(folder, trained_with, **given).acting
        coder = replace(problem.coder, static=True)  # decodes members without early exits, too
        trained = evaluate(coder, problem.dataset, settings, Trial(genome))
        assert trained.chosen.calibration is not None
        assert bits(table.answer(replace(asked, coder=coder), genome)) == bits(trained)


def test_a_table_by_deep_supervision_of_a_whole_split(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "single.toml").write_text(SPACE.replace("[1, 2]", "[2]"))
    limits, given = Limits(6_000, 0.1), {"recipe": DeepRecipe(epochs=1), "validation": "whole"}
    asked = Configuration(str(folder / "few.npz"), str(tmp_path / "single.toml"), limits, 3, **given)
    out = tmp_path / "single.h5"
    assert tabulate(asked, (3,), out, workers=1, versions={}, on_progress=lambda *_: None)
    problem, table = load_problem(asked), read_table(out)
    assert "calibration" not in table.splits
    table.identity(problem)
    for genome in table.members:
        coder = replace(problem.coder, static=True)
        trained = evaluate(coder, problem.dataset, asked.acting, Trial(genome))
        assert bits(table.answer(replace(problem, coder=coder), genome)) == bits(trained)


def test_the_true_front_of_two_stages(folder: Path, table: Table, search: Any, tmp_path: Path) -> None:
    asked = load_problem(configuration(folder, method="two-stage", max_macs=60_000))
    archive = archive_of(table, asked)
    assert archive.genomes() == set(table.members)
    found = search(method="two-stage", max_macs=60_000, evaluations=32, out=tmp_path / "run")
    assert any(len(solution.exits) == 1 for solution in found.front), "backbones are among what is returned"
    assert found.front == result_of(archive, tmp_path, reused=0, inadmissible=None).front, (
        "all members were evaluated"
    )


@pytest.mark.parametrize("confidence", ["learned", "softmax"])
def test_limits_choose_thresholds(folder: Path, problem: Problem, table: Table, confidence: str) -> None:
    def answer(max_macs: int) -> Any:
        asked = configuration(folder, max_macs=max_macs, confidence=confidence)
        return table.answer(replace(problem, configuration=asked), max(table.members))

    found = answer(6_000)
    least, *_, most = found.costs.exit_costs
    for limit in (least, (least + most) // 2, most):
        other = answer(limit)
        assert other.tables.confidence.tobytes() == found.tables.confidence.tobytes()
        assert other.chosen.validation.total_macs <= limit * other.chosen.validation.samples


def test_stored_curves_within_tighter_limits_are_those_chosen_for_them(problem: Problem, table: Table) -> None:
    def shown(stored_within: int, limit: int) -> set[Any]:
        how = {"confidence": "softmax", "points": "curve"}
        given = (replace(problem.configuration, limits=Limits(most, 0.1), **how) for most in (stored_within, limit))
        searched, asked = (replace(problem, configuration=each) for each in given)
        archive = Archive(asked, archive_of(table, searched).candidates)
        return {(row.genome, row.point.validation, row.point.shown) for row in archive.admissible}

    for limit in (3_000, 4_500):
        assert shown(6_000, limit) == shown(limit, limit)
        assert shown(6_000, limit) < shown(6_000, 6_000)


def test_the_true_front_is_the_best_of_all_members(problem: Problem, table: Table) -> None:
    archive = archive_of(table, problem)
    members = {genome for group in all_members(problem.coder).values() for genome in group}
    assert (len(members), len(table.members)) == (32, 32)
    assert archive.genomes() == {genome for genome in members if any(genome[problem.coder.exit_genes])}
    front = [row.point.validation for row in archive.front(archive.admissible)]
    assert front
    assert {each.confidence.name for each in archive.evaluations} == {"learned", "softmax"}
    for found in (row.point.validation for row in archive.admissible):
        assert any(best.correct >= found.correct and best.total_macs <= found.total_macs for best in front)


def test_a_search_on_a_table(search: Any, problem: Problem, table: Table, tmp_path: Path) -> None:
    found = search(evaluations=24, out=tmp_path / "run", seed=4)
    assert (found.evaluated, found.failed) == (24, 0)
    true = result_of(archive_of(table, problem), tmp_path, reused=0, inadmissible=None)
    assert (found.hypervolume_admissible, found.front) == (true.hypervolume_admissible, true.front)
    named = {"name": "small.h5", "sha256": table.sha256, "trained_with_max_macs": 6_000, "trained_with_seed": 0}
    assert found.as_dict()["table"] == named
    again = nachos_min.load_run(tmp_path / "run")
    assert again.as_dict() | {"reused": 0} == found.as_dict()
    assert search(evaluations=24, out=tmp_path / "run", seed=4).reused == found.evaluated
    told = "Answered from table small.h5 (trained with max_macs 6000, seed 0), nothing was trained."
    assert told in summary(found)
    with pytest.raises(InputError, match=r"holds a run with table.name small.h5, this one asks for none"):
        search(evaluations=24, out=tmp_path / "run", seed=4, table=None)


def test_another_space_or_data_set_is_refused(search: Any, table: Table, problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"small.h5 must be of the space asked for, micro, got one of .*small.toml"
    ):
        search(out=tmp_path / "run", space="micro", max_macs=20_000)
    with pytest.raises(
        InputError, match="method must be one that trains each network once with a table, got 'rule'"
    ):
        search(out=tmp_path / "run", method="rule")
    assert not (tmp_path / "run").exists()
    other = replace(table, about={**table.about, "data": "elsewhere.h5", "data_content": "0"})
    with pytest.raises(TableError, match=r"must be of the data set asked for, .*few.npz, got one of elsewhere"):
        other.identity(problem)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"recipe": replace(SHORT, beta=2.0)}, ("beta 2.0", "1.0")),
        ({"recipe": DeepRecipe()}, ("recipe deep", "paper")),
        ({"standardise": "channel"}, ("standardise channel", "pixel")),
        ({"validation": "whole"}, ("validation whole", "halves")),
    ],
)
def test_a_table_made_in_another_way_is_refused(table: Table, problem: Problem, options: Any, rule: Any) -> None:
    asked = replace(problem, configuration=replace(problem.configuration, **options))
    message = "table small.h5 must be made with {}, as the search asks for, got {}".format(*rule)
    with pytest.raises(TableError, match=f"^{message}$"):
        table.identity(asked)


def test_a_table_without_softmax_answers_for_learned(folder: Path, table: Table, problem: Problem) -> None:
    splits = {name: replace(table.splits[name], softmax=None) for name in ("validation", "test")}
    about = {name: value for name, value in table.about.items() if name not in ("standardise", "validation")}
    old = replace(table, temperatures=None, about=about, splits=splits)
    whole = replace(problem, configuration=configuration(folder, validation="whole", confidence="learned"))
    old.identity(whole)
    assert {each.confidence.name for each in archive_of(old, whole).evaluations} == {"learned"}
    for confidence in ("softmax", "best"):
        other = replace(whole, configuration=replace(whole.configuration, confidence=confidence))
        rule = f"^table small.h5 must hold softmax scores for confidence {confidence}, got none$"
        with pytest.raises(TableError, match=rule):
            old.identity(other)


def test_a_file_that_is_no_table_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.h5"
    for change, rule in (
        ({"format": "another"}, "is no table: its format"),
        ({"version": 99}, "of version 1, got 99"),
    ):
        file.write_bytes(encode(decode(folder / "small.h5", given=True) | change))
        with pytest.raises(TableError, match=rule):
            read_table(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TableError, match="is damaged: its content is not what its checksum says"):
        read_table(file)
    with pytest.raises(TableError, match=r"table .*missing.h5 cannot be read"):
        read_table(tmp_path / "missing.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(TableError, match=r"table .*pipe.h5 cannot be read: it is a pipe, not a file"):
        read_table(tmp_path / "pipe.h5")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": np.arange(3)}, r"is no table: its format must be 'nachos_min table', got array"),
    ({"version": np.arange(3)}, r"must be of version 1, got array"),
    ({"about": 3}, "about must be named fields"),
    ({"about": {"data": 3}}, "about.data must be text, got"),
    ({"about": {"seeds": []}}, "about.seeds must be a list of whole"),
    ({"about": {"seeds": (0, 1)}}, "about.seeds must be a list of whole"),
    ({"about": {"recipe": {"batch": np.arange(3)}}}, r"about\.recipe\.batch must be plain values, got"),
    ({"failures": {"a": 3}}, r"failures\.a must be text, got"),
    ({"failures": np.zeros(3)}, "failures must be named fields"),
    ({"genomes": np.zeros((3, 2))}, "genomes must be an array of int64"),
    ({"losses": np.full((1, 1, 1), np.inf)}, "losses must be an array of float64"),
    ({"test": {"labels": np.arange(3.0)}}, r"test\.labels must be an array of uint8"),
    ({"test": {"confidence": np.ones(3, np.float32)}}, r"test\.confidence must be an array of float32"),
    ({"another": 3}, "another must be"),
]


@pytest.mark.parametrize(("changes", "rule"), WRONG, ids=[rule for _, rule in WRONG])
def test_sealed_content_of_another_form_is_named(
    folder: Path, tmp_path: Path, changes: dict[str, Any], rule: str
) -> None:
    record = decode(folder / "small.h5", given=True)
    for name, value in changes.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    (tmp_path / "table.h5").write_bytes(encode(record))
    with pytest.raises(TableError, match=rf"^table \S*table.h5 (is damaged: )?{rule}"):
        read_table(tmp_path / "table.h5")


def test_a_table_has_the_labels_of_its_data(folder: Path, tmp_path: Path, problem: Problem) -> None:
    record = decode(folder / "small.h5", given=True)
    record["test"]["labels"] = record["test"]["labels"][::-1]
    (tmp_path / "table.h5").write_bytes(encode(record))
    with pytest.raises(TableError, match="must hold the labels of the data and all stages"):
        answers_from(tmp_path / "table.h5", problem)


def test_numbers_that_no_training_gives_are_refused(table: Table, problem: Problem) -> None:
    genome = max(table.members)
    test = table.splits["test"]
    unsure = replace(test, confidence=test.confidence * np.nan)
    another = replace(test, predicted=test.predicted + 10)
    for rule, wrong in (
        ("hold all numbers of 0-0-0-0-.*, got NaN", {"losses": table.losses * np.nan}),
        ("hold all numbers", {"temperatures": table.temperatures * np.nan}),
        (
            "hold all numbers",
            {"splits": table.splits | {"test": unsure}},
        ),
        (
            "name one of 10 classes",
            {"splits": table.splits | {"test": another}},
        ),
    ):
        with pytest.raises(TableError, match=f"table small.h5 must {rule}"):
            replace(table, **wrong).answer(problem, genome)


def test_what_the_table_does_not_hold_is_not_made_up(table: Table, problem: Problem) -> None:
    genome = max(table.members)
    few = replace(table, members={})
    with pytest.raises(TableError, match="must hold every genome asked for, has none of 0-0-0-0-"):
        few.answer(problem, genome)
    wrong = replace(table, exit_costs=table.exit_costs + 1)
    with pytest.raises(TableError, match=r"must have exit costs \(.*\) of 0-0-0-0-.*, as counted, got"):
        wrong.answer(problem, genome)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow on the way to infinity is the point here
def test_a_training_that_diverges_is_kept_as_a_failure(folder: Path, problem: Problem, table: Table) -> None:
    genome = max(table.members)
    wild = configuration(folder, recipe=replace(SHORT, backbone_rate=1e38))
    (entry,) = train_members(wild, [genome])["members"].values()
    assert entry["reason"].startswith("DivergenceError: training the backbone diverged")
    failed = replace(table, failures={f"{'-'.join(map(str, genome))} 0": entry["reason"]})
    assert failed.answer(problem, genome) == Failure(Trial(genome), entry["reason"], "diverged")


def test_a_space_too_large_to_list_is_refused() -> None:
    large = load_problem(Configuration("digits", "tiny", Limits(None, 0.0), 0))
    with pytest.raises(TableError, match=r"a space to tabulate must have at most 1,048,576 genomes, got \d"):
        all_members(large.coder)


BENCH = Path(__file__).parents[2] / "bench"
DEEP, PAPER = BENCH / "micro-digits.h5", BENCH / "micro-digits-paper.h5"


AS_PAPER = {"recipe": "paper", "standardise": "pixel", "evaluations": 40}


@pytest.mark.parametrize(("table", "options", "least"), [(DEEP, {}, 0.97), (PAPER, AS_PAPER, 0.95)])
def test_a_search_comes_near_its_true_front(table: Path, options: Any, least: float, tmp_path: Path) -> None:
    members = read_table(table)
    assert members.sha256 in (BENCH / "RESULTS.md").read_text(encoding="utf-8")
    assert len(members.members) == 648 + 216  # with early exits, and static
    assert not members.failures
    found = nachos_min.search(space="micro", table=table, out=tmp_path / "run", **options)
    true = archive_of(members, stored_problem(tmp_path / "run"))
    assert found.evaluated <= options.get("evaluations", 16)
    assert least < found.hypervolume_admissible / true.hypervolume(true.admissible) <= 1
