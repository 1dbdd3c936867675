"""Evaluations: reproducible to the last bit, certified by execution, and stored without loss."""

import os
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numba.core.event import trigger_event

from nachos_kernels import _jit
from nachos_min.data import Dataset, Split, load
from nachos_min.eenn.confidence import LEARNED, fit_softmax
from nachos_min.eenn.inference import ExitAnswers
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, Recipe, lengthened
from nachos_min.eenn.thresholds import ExitTables, OperatingPoint
from nachos_min.nas import evaluate as room
from nachos_min.nas import steps as steps_module
from nachos_min.nas.configuration import Configuration, load_problem
from nachos_min.nas.evaluate import Backbones, build, evaluate, measure
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits
from nachos_min.nas.records import from_record, key, to_record, trial_key
from nachos_min.nas.result import Archive
from nachos_min.nas.space import load_space
from nachos_min.nas.steps import Step, Steps
from nachos_min.nas.workers import Workers
from nachos_min.store.values import decode, encode

SHORT, DEEP = PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1), DeepRecipe(epochs=1)
LIMITED = {"limits": Limits(60_000, 0.5), "points": "best", "aims": "ends", "confidence": "learned"}
ASKED = Configuration("digits", "micro", seed=0, recipe=SHORT, **LIMITED)
CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
GENOME = CODER.sample(np.random.default_rng(3))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """With a calibration split, as searches have it."""
    full = load("digits", "pixel")
    return replace(full, train=full.train.take(np.arange(60)))


@pytest.fixture(scope="module")
def evaluation(digits: Dataset) -> Evaluation:
    return evaluate(CODER, digits, ASKED, Trial(GENOME))


def equal(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations are the same, arrays to the last bit."""
    return encode(to_record(a)) == encode(to_record(b))


def stored(evaluation: Evaluation, folder: Path) -> Evaluation:
    """The evaluation, written and read back."""
    (folder / "one.h5").write_bytes(encode(to_record(evaluation)))
    return cast(Evaluation, from_record(decode(folder / "one.h5")))


def check_by_execution(evaluation: Evaluation, data: Dataset) -> None:
    """Check that every point is what the network does."""
    network = build(CODER, evaluation.genome, seed=9)
    network.load_state(evaluation.weights)
    for point, name in product(evaluation.points, room.SPLITS):
        split, figures = getattr(data, name), getattr(point, name)
        assert (split is None) == (figures is None)
        if split is not None:
            assert measure(network, split, point.thresholds, evaluation.confidence, evaluation.costs) == figures


def test_an_evaluation_does_not_depend_on_what_was_computed_before(digits: Dataset, evaluation: Evaluation) -> None:
    evaluate(CODER, digits, ASKED, Trial(CODER.sample(np.random.default_rng(8))))
    assert equal(evaluate(CODER, digits, ASKED, evaluation.trial), evaluation)
    other = evaluate(CODER, digits, replace(ASKED, seed=1), evaluation.trial)
    assert not equal(replace(evaluation, weights=other.weights), evaluation)


def test_a_stored_backbone_changes_no_result(
    digits: Dataset, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genome = np.array(evaluation.genome)
    genome[CODER.exit_genes] = 1 - genome[CODER.exit_genes]
    genome[CODER.exit_genes][0] |= not genome[CODER.exit_genes].any()
    sibling = tuple(CODER.canonical(genome[None])[0].tolist())
    assert CODER.backbone_genes(sibling) == CODER.backbone_genes(evaluation.genome)
    backbones = Backbones(tmp_path)
    evaluate(CODER, digits, ASKED, Trial(sibling), backbones)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(room, "train_backbone", lambda *_: pytest.fail("trained again"))
        assert equal(evaluate(CODER, digits, ASKED, evaluation.trial, backbones), evaluation)


WEIGHTS, LOSSES = np.linspace(-1, 1, 50, dtype=np.float32), [1.0, 0.5]


def found(backbones: Backbones, genes: list[int]) -> tuple[bytes, list[float]] | None:
    kept = backbones.find(genes, WEIGHTS, len(LOSSES))
    return None if kept is None else (kept[0].tobytes(), kept[1])


@pytest.fixture
def backbones(tmp_path: Path) -> tuple[Backbones, list[str], Path]:
    """Some with one backbone, what they have said, and the file."""
    kept, told = Backbones(tmp_path / "backbones", "a run"), list[str]()
    kept.told = told.append
    kept.keep([0, 1], WEIGHTS, LOSSES)
    (file,) = (tmp_path / "backbones").iterdir()
    return kept, told, file


def test_a_backbone_with_any_bit_changed_is_named_and_trained_again(
    backbones: tuple[Backbones, list[str], Path],
) -> None:
    kept, told, file = backbones
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for place in [*range(80), *rng.integers(80, len(whole), 200), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(8)
        file.write_bytes(changed)
        assert found(kept, [0, 1]) is None
    for content in (b"", whole[:100], whole[:-1], whole + b"0", b"\0" * 5_000, b"PK\3\4", b"\x93NUMPY"):
        file.write_bytes(content)
        assert found(kept, [0, 1]) is None
    assert len(told) == 281 + 7
    assert set(told) == {
        f"{file} is damaged: its content is not what its checksum says; this backbone is trained again"
    }
    kept.keep([0, 1], WEIGHTS, LOSSES)
    assert file.read_bytes() == whole
    assert found(kept, [0, 1]) == (WEIGHTS.tobytes(), LOSSES)
    assert len(told) == 288


NAMED: dict[str, Any] = {"of": {"run": "a run", "genes": (0, 1)}, "weights": WEIGHTS, "losses": np.array(LOSSES)}
SEALED: list[dict[str, Any]] = [
    {"weights": WEIGHTS[:-1]},
    {"weights": WEIGHTS.astype(np.float64)},
    {"weights": WEIGHTS.reshape(2, 25)},
    {"weights": np.where(WEIGHTS > 0, np.nan, WEIGHTS).astype(np.float32)},
    {"weights": [[1], [1, 2]]},
    {"weights": {"a": 1}},
    {"losses": np.array([1.0])},
    {"losses": np.array([1.0, np.inf])},
    {"losses": "many"},
    {"of": {"run": "a run", "genes": (1, 0)}},
    {"of": {"run": "another", "genes": (0, 1)}},
    {"of": None},
]


@pytest.mark.parametrize("content", SEALED, ids=str)
def test_a_sealed_record_of_other_content_is_no_backbone(
    content: dict[str, Any], backbones: tuple[Backbones, list[str], Path]
) -> None:
    kept, told, file = backbones
    file.write_bytes(encode(NAMED))
    assert found(kept, [0, 1]) == (WEIGHTS.tobytes(), LOSSES)
    file.write_bytes(encode(NAMED | content))
    assert found(kept, [0, 1]) is None
    assert len(told) == 1
    assert told[0].startswith(f"{file} is damaged")


def test_what_is_no_file_is_neither_opened_nor_replaced(backbones: tuple[Backbones, list[str], Path]) -> None:
    kept, told, file = backbones
    elsewhere = file.parent.parent / "elsewhere"
    elsewhere.write_bytes(file.read_bytes())
    makes = {
        "a link": lambda: file.symlink_to(elsewhere),
        "a pipe": lambda: os.mkfifo(file),
        "a folder": file.mkdir,
    }
    for kind, make in makes.items():
        file.unlink()
        make()
        assert found(kept, [0, 1]) is None
        assert f"it is {kind}, not a file" in told[-1]
        kept.keep([0, 1], WEIGHTS, [2.0, 3.0])
    assert elsewhere.read_bytes() == encode(NAMED)
    file.rmdir()
    file.parent.rmdir()
    (elsewhere.parent / "other").mkdir()
    file.parent.symlink_to(elsewhere.parent / "other")
    kept.keep([0, 1], WEIGHTS, LOSSES)
    assert not [*(elsewhere.parent / "other").iterdir()]


def test_a_damaged_backbone_changes_no_result_and_is_a_warning_of_the_search(
    digits: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for damage in (b"", b"other"):
        with Workers(0, CODER, digits, ASKED, run) as pool:
            (whole,) = pool.evaluate([Trial(GENOME)])
            (file,) = (run / "backbones").iterdir()
            content = file.read_bytes()
            file.write_bytes(damage)
            with pytest.warns(UserWarning, match=rf"{file.name} is damaged: .* this backbone is trained again"):
                (again,) = pool.evaluate([Trial(GENOME)])
        assert file.read_bytes() == content
        assert isinstance(again, Evaluation)
        assert isinstance(whole, Evaluation)
        assert equal(again, whole)


def test_backbones_beyond_the_limit_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", len(encode(NAMED)))
    backbones = Backbones(tmp_path)
    for genes in ([0, 1], [1, 0]):
        backbones.keep(genes, WEIGHTS, LOSSES)
    assert found(backbones, [0, 1]) == (WEIGHTS.tobytes(), LOSSES)
    assert found(backbones, [1, 0]) is None
    nowhere = Backbones(tmp_path / "gone" / "too")  # nothing is kept, nothing raised
    nowhere.keep([0, 1], WEIGHTS, LOSSES)
    assert found(nowhere, [0, 1]) is None


def test_a_backbone_is_kept_while_another_worker_names_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*listed(folder), folder / "renamed.tmp"])
    backbones = Backbones(tmp_path)
    backbones.keep([0, 1], WEIGHTS, LOSSES)
    assert found(backbones, [0, 1]) == (WEIGHTS.tobytes(), LOSSES)


def test_the_figures_are_those_of_execution(digits: Dataset, evaluation: Evaluation) -> None:
    chosen = evaluation.chosen
    assert evaluation.points == (chosen,)
    check_by_execution(evaluation, digits)
    assert chosen.validation.samples == len(digits.validation)
    assert chosen.validation.total_macs <= 60_000 * chosen.validation.samples
    assert (chosen.thresholds[-1], evaluation.exits[-1]) == (0.0, 3)


def test_figures_must_repeat(digits: Dataset, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(CODER, evaluation.genome, seed=0)
    first, *rest = evaluation.costs.exit_costs
    wrong = replace(evaluation.costs, exit_costs=(first + 1, *rest))
    with pytest.raises(room.ExecutionError, match=r"executed \d+ MACs, counted \d+ for exit counts"):
        measure(network, digits.test, (0.0,) * len(evaluation.exits), LEARNED, wrong)
    exact = room.THRESHOLDS["exact"]

    def boastful(*tables: Any) -> OperatingPoint:
        honest = exact(*tables)
        return replace(honest, figures=replace(honest.figures, correct=honest.figures.correct + 1))

    monkeypatch.setitem(room.THRESHOLDS, "exact", boastful)
    with pytest.raises(room.ExecutionError, match=r"thresholds promised .* inference gave"):
        evaluate(CODER, digits, ASKED, Trial(GENOME))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow on the way to infinity is the point here
@pytest.mark.parametrize("phase", ["backbone", "exits"])
def test_a_diverged_training_is_a_failure_and_no_figure(digits: Dataset, phase: str) -> None:
    wild = replace(ASKED, recipe=replace(SHORT, **{f"{phase}_rate": 1e38}))
    with pytest.raises(room.DivergenceError, match=rf"training the {phase} diverged: \S+ must be finite"):
        evaluate(CODER, digits, wild, Trial(GENOME))


def test_records_keep_everything(evaluation: Evaluation, tmp_path: Path) -> None:
    whole = replace(evaluation, points=(replace(evaluation.chosen, calibration=None),), trial=Trial(GENOME, 4, 2))
    for found in (evaluation, whole):
        assert equal(stored(found, tmp_path), found)
    assert key(GENOME) == "-".join(str(gene) for gene in GENOME)
    for failure in (Failure(Trial((1, 0, 2)), "ValueError: too bad"), Failure(Trial((1,), 4, 1), "no")):
        assert from_record(to_record(failure)) == failure


def test_trials_have_names_of_their_own() -> None:
    trials = [Trial((1, 0), effort, repeat) for effort in (1, 4) for repeat in (0, 1, 11)]
    names = [trial_key(trial) for trial in trials]
    assert names == ["1-0", "1-0.r1", "1-0.r11", "1-0.x4", "1-0.x4.r1", "1-0.x4.r11"]
    long = [trial_key(replace(trial, genome=(1,) * 150)) for trial in trials]
    assert len(set(long)) == 6
    assert max(map(len, long)) <= 200


@pytest.mark.parametrize("recipe", [SHORT, DEEP], ids=["paper", "deep"])
def test_effort_is_epochs_and_a_repeat_another_seed(digits: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    asked = replace(ASKED, recipe=recipe)
    trials = [Trial(GENOME, *how) for how in ((1, 0), (3, 0), (1, 1), (1, 2))]
    found = [evaluate(CODER, digits, asked, trial) for trial in trials]
    assert [each.trial for each in found] == trials
    epochs = 3 if recipe is SHORT else 1
    assert [len(each.losses) for each in found] == [epochs, 3 * epochs, epochs, epochs]
    assert len({b"".join(weight.tobytes() for weight in each.weights.values()) for each in found}) == 4
    backbones = Backbones(tmp_path)  # only a training of the usual length takes or keeps one
    for trial, alone in zip([*trials, trials[0]], [*found, found[0]], strict=True):
        assert equal(evaluate(CODER, digits, asked, trial, backbones), alone)
        assert len(list(tmp_path.iterdir())) == (recipe is SHORT)
    assert lengthened(DeepRecipe(), 4, 2_000).passes(2_000) == 4 * DeepRecipe().passes(2_000)


def test_a_space_with_a_fixed_resolution_resizes_the_images(digits: Dataset) -> None:
    coder = replace(CODER, space=replace(CODER.space, resolutions=(12,)))
    split = Split(digits.train.images, digits.train.labels, np.linspace(0, 1, 60, dtype=np.float32))
    small = replace(digits, train=split, validation=split, test=split)
    genome = coder.sample(np.random.default_rng(3))
    found = evaluate(coder, small, replace(ASKED, limits=Limits(None, 0.0)), Trial(genome))
    assert found.chosen.test.samples == 60
    assert coder.decode(genome).input_shape == (12, 12, 1)
    seen = room.as_seen(split, build(coder, genome, 0))
    assert seen.images.shape == (60, 12, 12, 1)
    np.testing.assert_array_equal(seen.difficulty, split.difficulty)


def hypervolume_of(tables: ExitTables, labels: np.ndarray, costs: tuple[int, ...]) -> float:
    """Area below (error 1, the worst path) under all thresholds that tell samples apart, one after the other."""
    c, right = tables.confidence, tables.predicted == labels[:, None]
    points = []
    for thresholds in product(*([*np.unique(column), 2.0] for column in c[:, :-1].T)):
        exits = (c >= (*thresholds, 0.0)).argmax(axis=1)
        points.append((1 - right[np.arange(len(c)), exits].mean(), np.array(costs)[exits].mean()))
    return hypervolume(np.array(points), (1.0, costs[-1]))


def test_the_best_confidence_is_the_one_of_the_larger_hypervolume() -> None:
    genome = [0] * CODER.length
    genome[CODER.exit_genes] = [1, 1]
    costs, rng, chosen = static_costs(CODER.decode(genome)), np.random.default_rng(0), set()
    asked = replace(ASKED, limits=Limits(None, 0.0), confidence="best")
    for _ in range(12):
        labels = rng.integers(0, 10, 25)
        logits = rng.standard_normal((25, 3, 10)) + 2 * np.eye(10)[labels][:, None]
        right = logits.argmax(axis=2) == labels[:, None]
        answers = ExitAnswers(0.3 * rng.random((25, 2)) + rng.random() * right[:, :2] / 2, logits)
        softmax = fit_softmax(logits, labels)
        areas = [hypervolume_of(answers.tables(each), labels, costs.exit_costs) for each in (softmax, LEARNED)]
        best = softmax if areas[0] >= areas[1] else LEARNED
        chosen.add(best)
        for name, expected in (("best", best), ("softmax", softmax), ("learned", LEARNED)):
            said = lambda _, confidence: answers.tables(confidence)  # noqa: B023, E731  (called in this round)
            splits, given = {"validation": labels, "test": labels}, replace(asked, confidence=name)
            assert room.choose(said, splits, partial(fit_softmax, logits, labels), costs, given)[0] == expected
    assert LEARNED in chosen
    assert len(chosen) > 2, "softmax has been the best, too"


FROZEN = PaperRecipe(backbone_epochs=3, warmup_epochs=1, support_epochs=1, joint=False)
WAYS: dict[str, dict[str, Any]] = {  # both have long curves
    "paper": {"recipe": FROZEN, "confidence": "learned", "standardise": "pixel", "validation": "whole"},
    "deep": {"recipe": DEEP, "confidence": "softmax"},
}


@pytest.fixture(scope="module", params=WAYS)
def curves(request: pytest.FixtureRequest) -> tuple[Any, list[Evaluation]]:
    """A problem, and three evaluations with curves."""
    asked = Configuration("digits", "micro", Limits(45_000, 0.2), 0, points="curve", **WAYS[request.param])
    problem, rng = load_problem(asked), np.random.default_rng(1)
    trials = [Trial(CODER.sample(rng)) for _ in range(3)]
    return problem, [evaluate(CODER, problem.dataset, asked.acting, trial) for trial in trials]


def test_every_point_of_a_curve_is_what_the_network_does(curves: Any, tmp_path: Path) -> None:
    problem, found = curves
    longest = max(found, key=lambda each: len(each.points))
    assert len(longest.points) > 3
    check_by_execution(longest, problem.dataset)
    asked = replace(problem.configuration.acting, points="best", aims="ends")
    assert evaluate(CODER, problem.dataset, asked, longest.trial).points == (longest.chosen,)
    for each in found:  # stored with temperatures, and read back
        back = stored(each, tmp_path)
        assert equal(back, each)
        assert len(back.confidence.temperatures or back.exits[1:]) == len(back.exits) - 1
    assert "curve" not in to_record(replace(each, points=(each.chosen,)))


def test_an_archive_of_curves_holds_more_counts_candidates_and_leads_to_both_ends(curves: Any) -> None:
    problem, found = curves
    whole = Archive(problem, found)
    chosen = Archive(problem, [replace(each, points=(each.chosen,)) for each in found])
    assert len(whole) == len(chosen) == 3
    assert whole.hypervolume(whole.admissible) > chosen.hypervolume(chosen.admissible)
    front = whole.front(whole.admissible)
    assert len({each.genome for each in front}) < len(front), "a network stands in the front more than once"
    ends = [each.ends for each in whole.leading(limited=True)]
    assert ends == sorted(ends)
    for each in found:
        errors = [1 - point.validation.accuracy for point in each.points]
        assert each.ends == (min(errors), min(point.validation.average_macs for point in each.points))
        assert any(error <= each.ends[0] and macs <= each.ends[1] for error, macs in ends)


@pytest.mark.parametrize(("recipe", "epochs"), [(replace(SHORT, warmup_epochs=2), 4), (DEEP, 1)])
def test_each_epoch_is_told_once(recipe: Recipe, epochs: int, digits: Dataset, tmp_path: Path) -> None:
    backbones, trial = Backbones(tmp_path), Trial(GENOME)
    steps: list[Step] = []
    asked = replace(ASKED, recipe=recipe)
    alone = evaluate(CODER, digits, asked, trial)
    assert equal(evaluate(CODER, digits, asked, trial, backbones, steps.append), alone)
    told = [step for step in steps if not step.compiling]
    assert sorted({step.epoch for step in told}) == [*range(epochs + 1)]
    assert all((step.trial, step.epochs) == (trial, epochs) for step in steps)
    assert [step.seconds for step in told] == sorted(step.seconds for step in told)
    steps.clear()  # the backbone is there now: its epoch is done at once
    assert equal(evaluate(CODER, digits, asked, trial, backbones, steps.append), alone)
    assert [step.epoch for step in steps] == [*range(epochs + 1)]


def test_compilation_is_told_and_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for module in (steps_module, _jit):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    told: list[Step] = []
    with Steps(Trial(GENOME), 3, told.append) as steps:
        now[0] = 10.0
        with trigger_event("numba:compile"), trigger_event("numba:compile"):  # one kernel calls the other
            now[0] = 50.0
        now[0] = 70.0
        steps(1)
    with trigger_event("numba:compile"):
        pass
    told_of = [(step.epoch, step.compiling, step.seconds) for step in told]
    assert told_of == [(0, False, 0.0), (0, True, 10.0), (0, False, 10.0), (1, False, 30.0)]
