"""Evaluations: reproducible to the last bit, certified by execution, and stored without loss."""

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nachos_min.data import Dataset, Split, load
from nachos_min.eenn.confidence import LEARNED, fit_softmax
from nachos_min.eenn.inference import ExitAnswers, ExitTables
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, Recipe, lengthened
from nachos_min.eenn.thresholds import OperatingPoint
from nachos_min.nas import evaluate as room
from nachos_min.nas.backbones import Backbone, Backbones
from nachos_min.nas.evaluate import (
    DivergenceError,
    Evaluation,
    ExecutionError,
    Failure,
    Settings,
    Trial,
    as_seen,
    build,
    choose_confidence,
    evaluate,
    measure,
)
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits
from nachos_min.nas.records import from_record, key, to_record, trial_key
from nachos_min.nas.space import load_space
from nachos_min.store.values import decode, encode

SHORT, DEEP = PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1), DeepRecipe(epochs=1)
SETTINGS = Settings(seed=0, limits=Limits(60_000, 0.5), thresholds="exact", recipe=SHORT)
CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 10)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """With a calibration split, as searches have it."""
    full = load("digits", "pixel")
    first = Split(full.train.images[:200], full.train.labels[:200])
    return replace(full, train=first)


@pytest.fixture(scope="module")
def evaluation(digits: Dataset) -> Evaluation:
    return evaluate(CODER, digits, SETTINGS, Trial(CODER.sample(np.random.default_rng(3))))


def equal(a: object, b: object) -> bool:
    """Whether two records are the same, arrays to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


def test_an_evaluation_does_not_depend_on_what_was_computed_before(digits: Dataset, evaluation: Evaluation) -> None:
    evaluate(CODER, digits, SETTINGS, Trial(CODER.sample(np.random.default_rng(8))))
    again = evaluate(CODER, digits, SETTINGS, evaluation.trial)
    assert equal(to_record(again), to_record(evaluation))


def test_a_backbone_trained_before_changes_the_time_and_nothing_else(
    digits: Dataset, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genome = np.array(evaluation.genome)
    genome[CODER.exit_genes] = 1 - genome[CODER.exit_genes]
    genome[CODER.exit_genes][0] |= not genome[CODER.exit_genes].any()
    sibling = tuple(CODER.canonical(genome[None])[0].tolist())
    assert CODER.backbone_genes(sibling) == CODER.backbone_genes(evaluation.genome)
    backbones = Backbones(tmp_path)
    evaluate(CODER, digits, SETTINGS, Trial(sibling), backbones)
    assert len(list(tmp_path.iterdir())) == 1

    def refuse(*_: object) -> list[float]:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(room, "train_backbone", refuse)
        again = evaluate(CODER, digits, SETTINGS, evaluation.trial, backbones)
    assert equal(to_record(again), to_record(evaluation))
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])  # damaged: it is trained again, and written again
    assert equal(to_record(evaluate(CODER, digits, SETTINGS, evaluation.trial, backbones)), to_record(evaluation))
    assert backbones.find(CODER.backbone_genes(sibling)) is not None


def test_backbones_beyond_their_share_of_the_disk_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nachos_min.nas.backbones.MOST_BYTES", 1500)
    backbones, kept = Backbones(tmp_path), Backbone(np.ones(200, np.float32), (1.0, 0.5))
    for genes in ([0, 1], [1, 0]):
        backbones.keep(genes, kept)
    found = backbones.find([0, 1])
    assert found is not None
    assert (found.losses, found.weights.tobytes()) == (kept.losses, kept.weights.tobytes())
    assert backbones.find([1, 0]) is None
    nowhere = Backbones(tmp_path / "gone" / "too")  # nothing is kept, nothing raised
    nowhere.keep([0, 1], kept)
    assert nowhere.find([0, 1]) is None


def test_another_run_seed_gives_another_network(digits: Dataset, evaluation: Evaluation) -> None:
    other = evaluate(CODER, digits, replace(SETTINGS, seed=1), evaluation.trial)
    assert not equal(to_record(other)["weights"], to_record(evaluation)["weights"])


def test_candidates_with_the_same_backbone_start_from_the_same_backbone() -> None:
    genome = np.array(CODER.sample(np.random.default_rng(0)))
    networks = []
    for bits in ([1, 0], [1, 1]):
        genome[CODER.exit_genes] = bits
        networks.append(build(CODER, tuple(map(int, genome)), seed=5))
    first, second = ([p.data for p in n.backbone_parameters().values()] for n in networks)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_the_figures_are_those_of_the_tables_and_of_execution(digits: Dataset, evaluation: Evaluation) -> None:
    assert evaluation.validation.samples == len(digits.validation.labels)
    assert evaluation.test.samples == len(digits.test.labels)
    assert digits.calibration is not None
    assert evaluation.calibration is not None
    assert evaluation.calibration.samples == len(digits.calibration.labels)
    for figures in (evaluation.validation, evaluation.test, evaluation.calibration):
        assert sum(figures.exit_counts) == figures.samples
        costs = zip(figures.exit_counts, evaluation.costs.exit_costs, strict=True)
        assert figures.total_macs == sum(n * cost for n, cost in costs)
    assert evaluation.validation.total_macs <= 60_000 * evaluation.validation.samples
    assert evaluation.thresholds[-1] == 0.0
    assert evaluation.exits[-1] == 3


def test_a_wrong_count_is_never_ignored(digits: Dataset, evaluation: Evaluation) -> None:
    network = build(CODER, evaluation.genome, seed=0)
    first, *rest = evaluation.costs.exit_costs
    wrong = replace(evaluation.costs, exit_costs=(first + 1, *rest))
    everybody_first = (0.0,) * len(evaluation.thresholds)
    with pytest.raises(ExecutionError, match=r"executed \d+ MACs, counted \d+ for exit counts"):
        measure(network, digits.test, everybody_first, LEARNED, wrong)


def test_figures_that_do_not_repeat_are_never_ignored(
    digits: Dataset, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boastful(*tables: object) -> OperatingPoint:
        honest = room.exact(*tables)  # type: ignore[arg-type]  # whatever evaluate() hands over
        return replace(honest, figures=replace(honest.figures, correct=honest.figures.correct + 1))

    monkeypatch.setitem(room.THRESHOLDS, "exact", boastful)
    with pytest.raises(ExecutionError, match=r"thresholds promised .* inference gave"):
        evaluate(CODER, digits, SETTINGS, evaluation.trial)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow on the way to infinity is the point here
@pytest.mark.parametrize("phase", ["backbone", "exits"])
def test_a_diverged_training_is_a_failure_and_no_figure(
    digits: Dataset, evaluation: Evaluation, phase: str
) -> None:
    wild = replace(SETTINGS, recipe=replace(SHORT, **{f"{phase}_rate": 1e38}))
    with pytest.raises(DivergenceError, match=rf"training the {phase} diverged: \S+ must be finite"):
        evaluate(CODER, digits, wild, evaluation.trial)


def test_records_keep_everything(evaluation: Evaluation) -> None:
    for found in (evaluation, replace(evaluation, calibration=None, effort=4, repeat=2)):
        back = from_record(to_record(found))
        assert isinstance(back, Evaluation)
        assert equal(to_record(back), to_record(found))
        assert (back.calibration, back.trial) == (found.calibration, found.trial)
    assert key(evaluation.genome) == "-".join(str(gene) for gene in evaluation.genome)
    for failure in (Failure((1, 0, 2), "ValueError: too bad"), Failure((1,), "no", effort=4, repeat=1)):
        assert from_record(to_record(failure)) == failure


# Longer trainings and repetitions


def test_trials_have_names_of_their_own() -> None:
    genome = (1, 0)
    trials = [Trial(genome, effort, repeat) for effort in (1, 4) for repeat in (0, 1, 11)]
    names = [trial_key(trial) for trial in trials]
    assert names == ["1-0", "1-0.r1", "1-0.r11", "1-0.x4", "1-0.x4.r1", "1-0.x4.r11"]
    long = [trial_key(replace(trial, genome=(1,) * 150)) for trial in trials]
    assert len(set(long)) == 6
    assert max(map(len, long)) <= 200


@pytest.mark.parametrize("recipe", [SHORT, DEEP], ids=["paper", "deep"])
def test_more_effort_is_more_epochs_and_a_repeat_another_seed(
    digits: Dataset, evaluation: Evaluation, recipe: Recipe
) -> None:
    few = replace(digits, train=digits.train.take(np.arange(60)))
    settings = replace(SETTINGS, recipe=recipe)
    trials = [Trial(evaluation.genome, *how) for how in ((1, 0), (3, 0), (1, 1), (1, 2))]
    found = [evaluate(CODER, few, settings, trial) for trial in trials]
    assert [each.trial for each in found] == trials
    epochs = 3 if recipe is SHORT else 1
    assert [len(each.losses) for each in found] == [epochs, 3 * epochs, epochs, epochs]
    assert len({b"".join(weight.tobytes() for weight in each.weights.values()) for each in found}) == 4
    assert equal(to_record(evaluate(CODER, few, settings, trials[3])), to_record(found[3]))


def test_a_longer_training_neither_takes_nor_keeps_a_backbone_of_the_usual_length(
    digits: Dataset, evaluation: Evaluation, tmp_path: Path
) -> None:
    few = replace(digits, train=digits.train.take(np.arange(60)))
    backbones = Backbones(tmp_path)
    evaluate(CODER, few, SETTINGS, evaluation.trial, backbones)
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    for trial in (Trial(evaluation.genome, effort=2), Trial(evaluation.genome, repeat=1)):
        alone, beside = (evaluate(CODER, few, SETTINGS, trial, there) for there in (None, backbones))
        assert equal(to_record(alone), to_record(beside))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_a_recipe_that_measures_its_epochs_is_lengthened_too() -> None:
    assert lengthened(DeepRecipe(), 4, 2_000).passes(2_000) == 4 * DeepRecipe().passes(2_000)


# What exits are believed by


def hypervolume_of(tables: ExitTables, labels: np.ndarray, costs: tuple[int, ...]) -> float:
    """Area below (error 1, the worst path) under all thresholds that tell samples apart, one after the other."""
    c, right = tables.confidence, tables.policy_tables(labels, costs).correct
    points = []
    for thresholds in product(*([*np.unique(column), 2.0] for column in c[:, :-1].T)):
        exits = (c >= (*thresholds, 0.0)).argmax(axis=1)
        points.append((1 - right[np.arange(len(c)), exits].mean(), np.array(costs)[exits].mean()))
    return hypervolume(np.array(points), (1.0, costs[-1]))


def test_the_best_confidence_is_the_one_of_the_larger_hypervolume() -> None:
    genome = [0] * CODER.length
    genome[CODER.exit_genes] = [1, 1]
    costs, rng, chosen = static_costs(CODER.decode(genome)), np.random.default_rng(0), set()
    asked = replace(SETTINGS, limits=Limits(None, 0.0), confidence="best")
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
            given = replace(asked, confidence=name)
            found = choose_confidence(answers.tables, partial(fit_softmax, logits, labels), labels, costs, given)
            assert found == expected
    assert LEARNED in chosen
    assert len(chosen) > 2, "softmax has been the best, too"


@pytest.mark.parametrize("points", ["best", "curve"])
def test_temperatures_are_stored_and_repeat_the_figures(
    digits: Dataset, evaluation: Evaluation, points: str, tmp_path: Path
) -> None:
    asked = replace(SETTINGS, confidence="softmax", points=points)
    (tmp_path / "one.h5").write_bytes(encode(to_record(evaluate(CODER, digits, asked, evaluation.trial))))
    back = from_record(decode(tmp_path / "one.h5"))
    assert isinstance(back, Evaluation)
    assert back.confidence.name == "softmax"
    assert len(back.confidence.temperatures or ()) == len(back.exits) - 1
    network = build(CODER, back.genome, seed=9)
    network.load_state(back.weights)
    for point in back.points():
        for split, figures in (
            (digits.validation, point.validation),
            (digits.test, point.test),
            (digits.calibration, point.calibration),
        ):
            assert split is not None
            assert measure(network, split, point.thresholds, back.confidence, back.costs) == figures


def test_a_space_with_a_fixed_resolution_resizes_the_images(digits: Dataset) -> None:
    coder = replace(CODER, space=replace(CODER.space, resolutions=(12,)))
    few = Split(digits.train.images[:60], digits.train.labels[:60], np.linspace(0, 1, 60, dtype=np.float32))
    small = replace(digits, train=few, validation=few, test=few)
    found = evaluate(
        coder, small, replace(SETTINGS, limits=Limits(None, 0.0)), Trial(coder.sample(np.random.default_rng(3)))
    )
    assert found.test.samples == 60
    assert coder.decode(found.genome).input_shape == (12, 12, 1)
    seen = as_seen(few, build(coder, found.genome, 0))
    assert seen.images.shape == (60, 12, 12, 1)
    np.testing.assert_array_equal(seen.difficulty, few.difficulty)
