"""A search as a classifier by the conventions of scikit-learn, which is not imported.

Left out: weights of samples in `fit`, sparse matrices, and more than one label a sample.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.labels import plain_labels
from nachos_min.eenn.trained import Prediction
from nachos_min.errors import InputError
from nachos_min.nas.configuration import AUTO, OPTIONS, Options, Problem
from nachos_min.nas.views import SETTINGS, picked
from nachos_min.options import taking
from nachos_min.report.notebook import search
from nachos_min.report.search_report import closest_sentence

Array = NDArray[Any]

# The parameters that are options of a search, with their defaults; None stands for the default of the search.
FIRST: Mapping[str, Any] = {"max_macs": AUTO, "min_accuracy": None, "max_minutes": None, "workers": 0}
SEARCHED = {**FIRST, **{name: None for name in OPTIONS if name not in {*FIRST, "data", "max_bytes", "seed"}}}


class NotFittedError(InputError, AttributeError):
    """A classifier is used before `fit`."""


class EarlyExitClassifier:
    """A classifier that searches early-exit networks within limits on accuracy and MACs, and is the best of them.

    `fit` holds samples out by itself: to choose thresholds, to choose networks, and 20 % to test the result.

    Attributes:
        classes_: the labels, ascending.
        n_features_in_: numbers in a sample.
        feature_names_in_: names of a data frame's columns, if X was one.
        result_: the outcome of the search, with all its networks.
        network_: the network that answers; `network_.test` has its figures on samples that chose nothing.
    """

    @taking({name: replace(OPTIONS[name], default=default) for name, default in SEARCHED.items()})
    def __init__(
        self,
        *,
        pick: str = "accurate",
        image_shape: tuple[int, ...] | None = None,
        random_state: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Note the parameters, which `fit` checks.

        Args:
            pick: which network answers: the most accurate of the front, its knee or its cheapest.
            image_shape: (H, W) or (H, W, C) of images that are rows of X; None: a row is a signal.
            random_state: seed of every random choice; None: 0.
            options: those of `nachos_min.search`, None for their default. `max_macs`: most MACs of an answer on
                average, None for no limit; `min_accuracy`: least share of right answers; `max_minutes`: time of
                the search; `workers`: processes, 0 for this one; `out`: folder that keeps the run of one `fit`.
        """
        if unknown := options.keys() - SEARCHED.keys():
            raise TypeError(f"EarlyExitClassifier() got an unexpected keyword argument {min(unknown)!r}")
        self.pick, self.image_shape, self.random_state = pick, image_shape, random_state
        vars(self).update({**SEARCHED, **options})

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  (scikit-learn passes it)
        """Return the parameters by their names; `deep` changes nothing."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **params: Any) -> Self:
        """Return this classifier with other parameters; InputError for an unknown name."""
        for name, value in params.items():
            if name not in PARAMETERS:
                valid = ", ".join(PARAMETERS)
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: {valid}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.get_params().items() if value != PARAMETERS[name]}
        return f"EarlyExitClassifier({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def fit(self, X: Any, y: Any) -> Self:
        """Return this classifier, fitted: the search is done, and one of its networks is picked.

        Args:
            X: [N, features], or images [N, H, W] or [N, H, W, C], channels first with `layout` "chw".
            y: [N], whole numbers, text or truth values, of at least two classes.

        Raises:
            InputError: if X, y or a parameter breaks its rule, or no network keeps the limits.
        """
        if self.pick not in SETTINGS:
            raise InputError(f"pick must be one of {', '.join(SETTINGS)}, got {self.pick!r}")
        if not (self.random_state is None or OPTIONS["seed"].kind.holds(_plain(self.random_state))):
            raise InputError(f"random_state must be None or {OPTIONS['seed'].kind.rule}, got {self.random_state!r}")
        rows, labels = _numbers(X), _labels(y)
        if len(rows) != len(labels):
            raise InputError(f"X and y must have as many samples, got {len(rows)} and {len(labels)}")
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"y must have at least 2 classes, got 1 class, {classes[0]}")
        data = {"images": self._shaped(rows), "labels": numbers, "class_names": classes.astype(str)}
        options: dict[str, Any] = {name: _plain(getattr(self, name)) for name in SEARCHED}
        if options["max_macs"] == AUTO:
            del options["max_macs"]
        kept = options.pop("out")
        with TemporaryDirectory() as folder:
            out = Path(folder) / "classifier" if kept is None else kept
            result = search(**options, data=data, seed=_plain(self.random_state), out=out)
        if not result.front:
            raise InputError(closest_sentence(result))
        own: dict[str, Any] = {"run": "classifier"} if kept is None else {}
        front = [replace(row, problem=_without_data(row.problem), **own) for row in result.front]
        self.result_ = replace(result, front=tuple(front), **own)
        self.network_ = picked(front, self.pick)
        self.classes_ = classes
        self.n_features_in_ = math.prod(rows.shape[1:])
        vars(self).pop("feature_names_in_", None)
        if (names := _names(X)) is not None:
            self.feature_names_in_ = names
        return self

    def answers(self, X: Any) -> Prediction:
        """Return the labels of samples with their exits, confidence, MACs and probabilities.

        Args:
            X: as of `fit`. Values of images, not of rows, must be on the scale of those in `fit`.

        Raises:
            NotFittedError: before `fit`.
            InputError: if X is unlike the samples of `fit`.
        """
        if "network_" not in vars(self):
            raise NotFittedError(f"{type(self).__name__} must be fitted before it answers, got no call of fit")
        rows, known = _numbers(X), vars(self).get("feature_names_in_")
        if rows.ndim == 2 and rows.shape[1] != self.n_features_in_:
            rule = f"EarlyExitClassifier is expecting {self.n_features_in_} features as input"
            raise InputError(f"X has {rows.shape[1]} features, but {rule}")
        if known is not None and (names := _names(X)) is not None and (names != known).any():
            place = int((names != known).argmax())
            raise InputError(f"columns must be those of fit in their order, {known[place]!r}, got {names[place]!r}")
        trained, images = self.network_.trained, self._shaped(rows)
        found = trained.answers(trained.seen.images(images, any_scale=images.ndim == 2))
        return replace(found, labels=self.classes_[found.classes])

    def predict(self, X: Any) -> Array:
        """Return the label of each sample, [N]; errors as of `answers`."""
        return self.answers(X).labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, in the order of `classes_`, [N, C]; errors as of `answers`."""
        return self.answers(X).probabilities

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of samples, or of their weight, whose label is right; errors as of `answers`."""
        found, labels = self.predict(X), _labels(y)
        if len(found) != len(labels):
            raise InputError(f"X and y must have as many samples, got {len(found)} and {len(labels)}")
        return float(np.average(found == labels, weights=sample_weight))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(three_d_array=True),
        )

    def _shaped(self, rows: Array) -> Array:
        """Return samples in the shape of images, if the parameter says so."""
        shape = self.image_shape
        if shape is None or rows.ndim != 2:
            return rows
        if not isinstance(shape, tuple | list) or len(shape) not in (2, 3) or math.prod(shape) != rows.shape[1]:
            raise InputError(f"image_shape must be (H, W) or (H, W, C) of {rows.shape[1]} values, got {shape!r}")
        return rows.reshape(-1, *shape)


PARAMETERS = {name: each.default for name, each in inspect.signature(EarlyExitClassifier).parameters.items()}


def _plain(value: Any) -> Any:
    """Return a parameter without NumPy's types, as grids of parameters have them."""
    return value.item() if isinstance(value, np.generic) else value


def _without_data(problem: Problem | None) -> Problem | None:
    return None if problem is None else replace(problem, dataset=None)


def _numbers(X: Any) -> Array:
    """Return samples as an array of real, finite numbers of at least two axes."""
    rows = np.asarray(X)
    if rows.ndim == 0 and type(X).__module__.startswith("scipy.sparse"):
        raise InputError(f"X must be dense, got a sparse {type(X).__name__}")
    if rows.dtype.kind == "c":
        raise InputError(f"Complex data not supported: X must be real numbers, got {rows.dtype}")
    if rows.dtype.kind not in "buif":
        try:
            rows = rows.astype(np.float64)
        except ValueError as error:
            raise InputError(f"X must be numbers, got {error}") from None
    if rows.ndim < 2:
        shape = "Reshape your data: X must be [N, features], [N, H, W] or [N, H, W, C]"
        raise InputError(f"{shape}, got {rows.ndim}D array of shape {rows.shape}")
    if 0 in rows.shape:
        what = "feature" if len(rows) else "sample"
        raise InputError(f"X has 0 {what}(s) (shape={rows.shape}) while a minimum of 1 is required.")
    if not np.isfinite(rows).all():
        raise InputError(f"X must have no NaN and no infinity, got {rows[~np.isfinite(rows)][0]}")
    return rows


def _names(X: Any) -> Array | None:
    """Return the names of a data frame's columns, if all are text."""
    columns = [*getattr(X, "columns", ())]
    return np.array(columns, object) if columns and all(isinstance(each, str) for each in columns) else None


def _labels(y: Any) -> Array:
    """Return labels [N] as they were given."""
    if y is None:
        raise InputError(f"EarlyExitClassifier requires y to be passed, but the target y is {y}")
    labels = np.asarray(y)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1:
        raise InputError(f"y must be [N], got shape {labels.shape}")
    plain_labels("Unknown label type", "y", labels)
    return labels
