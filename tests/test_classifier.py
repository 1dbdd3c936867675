"""`EarlyExitClassifier` is used as scikit-learn's own classifiers are, and keeps what a search promises."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import nachos_min
from nachos_min import EarlyExitClassifier, InputError, NotFittedError

# scikit-learn's checks that do not apply, and why.
OTHERWISE = {
    "check_estimators_unfitted": "it wants scikit-learn's own class; ours is a ValueError and AttributeError, too",
    "check_supervised_y_2d": "a column of labels is taken without a warning, whose class would be scikit-learn's",
}
SMALL: dict[str, Any] = {"space": "micro", "evaluations": 1, "finalists": 0, "epochs": 2, "max_macs": None}


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """Rows of 64 pixels, and a name for each of three digits."""
    from nachos_min.data.load import load_unscaled

    train = load_unscaled("digits").train
    chosen = np.flatnonzero(train.labels < 3)[:240]
    return train.images.stored[train.images.rows[chosen]].reshape(-1, 64), np.array(["nil", "one", "two"])[
        train.labels[chosen]
    ]


@pytest.fixture(scope="module")
def fitted(digits: tuple[Any, Any]) -> EarlyExitClassifier:
    """A classifier of the digits."""
    return EarlyExitClassifier(**SMALL | {"epochs": 12}, image_shape=(8, 8), pick="cheap").fit(*digits)


# No class of scikit-learn is a base of ours. The check of the array API needs a variable in SciPy's environment.
@pytest.mark.filterwarnings("ignore:Estimator EarlyExitClassifier does not inherit")
def test_it_passes_scikit_learns_checks() -> None:
    classifier = EarlyExitClassifier(**SMALL, validation="whole")
    done = check_estimator(classifier, expected_failed_checks=OTHERWISE, on_skip=None)
    assert {each["check_name"] for each in done if each["status"] == "xfail"} == {*OTHERWISE}
    assert {each["check_name"] for each in done if each["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(done) > 50


def test_it_works_in_pipelines_and_searches_of_parameters(digits: tuple[Any, Any]) -> None:
    X, y = digits
    classifier = EarlyExitClassifier(**SMALL | {"epochs": 6}, image_shape=(8, 8))
    assert cross_val_score(make_pipeline(StandardScaler(), classifier), X, y, cv=2).mean() > 0.6
    classifier.set_params(epochs=2)
    grid = GridSearchCV(classifier, {"max_macs": np.array([30_000, 90_000])}, cv=2, refit=False).fit(X, y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


def test_it_answers_as_the_network_that_was_picked(digits: tuple[Any, Any], fitted: EarlyExitClassifier) -> None:
    X, y = digits
    answers, network = fitted.answers(X), fitted.network_
    assert (network.run, network.average_macs) == (
        "classifier",
        min(each.average_macs for each in fitted.result_.front),
    )
    assert fitted.classes_.tolist() == ["nil", "one", "two"]
    assert fitted.score(X, y) == np.mean(fitted.predict(X) == y) > 0.8
    assert fitted.score(X, y, sample_weight=y == "nil") == np.mean(fitted.predict(X[y == "nil"]) == "nil")
    np.testing.assert_array_equal(answers.labels, fitted.classes_[fitted.predict_proba(X).argmax(axis=1)])
    np.testing.assert_array_equal(answers.macs, np.array(network.exit_costs)[answers.exits])
    again = clone(fitted).fit(X, y.tolist())
    copy = pickle.loads(pickle.dumps(fitted))
    for other in (again, copy):
        np.testing.assert_array_equal(other.predict_proba(X), fitted.predict_proba(X))
    assert network.problem is not None
    assert network.problem.dataset is None, "images are not kept"


def test_a_kept_run_is_a_run_like_others(digits: tuple[Any, Any], tmp_path: Path) -> None:
    X, y = digits
    images = X.reshape(-1, 8, 8, 1)
    fitted = EarlyExitClassifier(**SMALL, out=tmp_path / "mine").fit(images, y)
    assert (fitted.n_features_in_, fitted.result_.run) == (64, str(tmp_path / "mine"))
    stored = nachos_min.load_run(tmp_path / "mine")
    np.testing.assert_array_equal(stored.front[0].predict(images[:9]).labels, fitted.predict(images[:9]))


@pytest.mark.parametrize("labels", [[False, True], [2.0, 3.0], [-7, 7], ["b", "a"]])
def test_labels_come_back_as_they_were(labels: list[Any]) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = pd.Series(np.array(labels)[np.arange(60) % 2])
    fitted = EarlyExitClassifier(**SMALL).fit(X, y)
    assert fitted.classes_.tolist() == sorted(labels)
    assert fitted.predict(X).dtype == fitted.classes_.dtype == np.unique(y).dtype


def test_columns_have_their_names_and_order() -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    fitted = EarlyExitClassifier(**SMALL).fit(X, np.arange(60) % 2)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(fitted.predict(X), fitted.predict(X.to_numpy()))
    with pytest.raises(InputError, match="columns must be those of fit in their order, 'a', got 'b'"):
        fitted.predict(X[["b", "a", "c"]])
    assert "feature_names_in_" not in vars(fitted.fit(X.to_numpy(), np.arange(60) % 2))
    assert len(fitted.predict(1e6 * X.to_numpy())) == 60, "a table has outliers"


def test_its_repr_has_what_was_changed() -> None:
    classifier = EarlyExitClassifier(max_macs=9_000, random_state=3)
    assert repr(classifier) == "EarlyExitClassifier(max_macs=9000, random_state=3)"
    assert repr(classifier.set_params(max_macs=None)) == "EarlyExitClassifier(max_macs=None, random_state=3)"


ROWS = np.random.default_rng(0).normal(size=(40, 6))
REFUSED = [
    ({"pick": "best"}, {}, "pick must be one of accurate, knee, cheap, got 'best'"),
    ({"random_state": -1}, {}, "random_state must be None or a whole number from 0 to 2\\^128 - 1, got -1"),
    ({"image_shape": (2, 2)}, {}, r"image_shape must be \(H, W\) or \(H, W, C\) of 6 values, got \(2, 2\)"),
    ({"max_macs": "few"}, {}, "max_macs must be a whole number from 1 to 2\\^63 - 1, got 'few'"),
    ({"max_macs": 1}, {}, "max_macs must be >= "),
    ({"min_accuracy": 1.0}, {}, "No admissible solution"),
    ({}, {"y": np.arange(39) % 2}, "X and y must have as many samples, got 40 and 39"),
    ({}, {"y": np.zeros(40)}, "y must have at least 2 classes, got 1 class, 0.0"),
    ({}, {"y": np.eye(40)[:, :2]}, r"y must be \[N\], got shape \(40, 2\)"),
    ({}, {"X": ROWS.astype(str) + "x"}, "X must be numbers, got could not convert string to float"),
    ({}, {"X": ROWS[0]}, r"got 1D array of shape \(6,\)"),
]


@pytest.mark.parametrize(("parameters", "given", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_a_mistake_is_one_line(parameters: dict[str, Any], given: dict[str, Any], message: str) -> None:
    classifier = EarlyExitClassifier(**SMALL | parameters)
    with pytest.raises(InputError, match=message) as refusal:
        classifier.fit(**{"X": ROWS, "y": np.arange(40) % 2} | given)
    assert "\n" not in str(refusal.value)
    with pytest.raises(NotFittedError, match="must be fitted before it answers"):
        classifier.predict(ROWS)


def test_unknown_parameters_are_refused(fitted: EarlyExitClassifier, digits: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'data'"):
        EarlyExitClassifier(data="digits")
    with pytest.raises(InputError, match=r"^Invalid parameter 'macs' for estimator EarlyExitClassifier"):
        fitted.set_params(macs=3)
    X, y = digits
    with pytest.raises(InputError, match="as many samples, got 240 and 239"):
        fitted.score(X, y[1:])
    with pytest.raises(InputError, match="on the scale of the training images, 0 to 16, got 0 to 1"):
        fitted.predict(X / 16)


def test_scikit_learn_is_not_imported() -> None:
    program = "import sys, nachos_min; nachos_min.EarlyExitClassifier(); print('sklearn' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
