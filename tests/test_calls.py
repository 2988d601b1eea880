"""Calls in odd orders and with odd data, beside scikit-learn's."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import neural_network as reference
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter

from fastbp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = make_classification(150, 8, n_informative=6, n_classes=3, random_state=0)
T = X[:, 0] + X[:, 1] ** 2
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 3, "batch_size": 40}
weighted = pytest.mark.skipif(
    not has_fit_parameter(reference.MLPClassifier(), "sample_weight"),
    reason="weights are new in scikit-learn 1.7",
)


def both(call, **options):
    """The classifier of fastbp and of scikit-learn after the same calls."""
    models = [
        package(**QUICK | options) for package in (MLPClassifier, reference.MLPClassifier)
    ]
    for model in models:
        call(model)
    return models


def assert_same_training(ours, theirs):
    # rounding over a few epochs of a small network in float64
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    "rows",
    [
        lambda X: np.asfortranarray(X)[:1],
        lambda X: np.asfortranarray(X)[:3],
        lambda X: pd.DataFrame(X)[:1],
        lambda X: np.repeat(X, 2, axis=1)[:2, ::2],
        lambda X: X[::-1, ::-1][:3][:, ::-1],
    ],
)
@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_few_rows_of_any_layout_predict_after_rows_of_another(model, rows):
    fitted = model(**QUICK).fit(X, Y)
    fitted.predict(X[:1])
    few = rows(X)
    np.testing.assert_array_equal(
        fitted.predict(few), fitted.predict(np.ascontiguousarray(few))
    )


@pytest.mark.parametrize("values", [(0, 2), (-1, 1)])
def test_multilabel_targets_count_as_yes_or_no(values):
    M = np.where(np.random.RandomState(1).rand(150, 4) > 0.6, *values[::-1])
    assert_same_training(*both(lambda model: model.fit(X, M)))
    early = {"early_stopping": True, "validation_fraction": 0.3}
    ours, theirs = both(lambda model: model.fit(X, M), **early)
    assert ours.validation_scores_ == theirs.validation_scores_


@pytest.mark.parametrize("first", [Y, (Y > 0).astype(int)], ids=["three", "two"])
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_model_of_classes_does_not_go_on_with_several_labels(first, warm_start):
    K = int(first.max()) + 1

    def call(model):
        model.fit(X, first)
        before = copy.deepcopy(model)
        method = model.fit if warm_start else model.partial_fit
        with pytest.raises(ValueError, match="was not fitted with multilabel input"):
            method(X, np.eye(K, dtype=int)[first])
        np.testing.assert_array_equal(model.coefs_[0], before.coefs_[0])

    both(call, warm_start=warm_start)


def test_early_stopping_with_one_class_scores_one():
    y = np.zeros(150)
    ours, theirs = both(lambda model: model.fit(X, y), early_stopping=True)
    assert ours.validation_scores_ == theirs.validation_scores_ == [1.0] * 4


def test_a_fit_by_lbfgs_leaves_no_best_weights_of_another_model():
    model = MLPClassifier((5,), early_stopping=True, random_state=0, max_iter=30)
    model.fit(X, Y > 0)
    model.set_params(solver="lbfgs", hidden_layer_sizes=(7,)).fit(X[:, :5], Y == 0)
    good = model.score(X[:, :5], Y == 0)
    # so small a rate that no weight moves: what came before is what is restored
    model.set_params(solver="adam", warm_start=True, learning_rate_init=1e-12)
    assert model.fit(X[:, :5], Y == 0).score(X[:, :5], Y == 0) == good
    model.set_params(early_stopping=False).partial_fit(X[:, :5], Y == 0)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_a_warning_that_is_raised_does_not_cost_the_model(options):
    model = MLPClassifier(**QUICK | options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning):
            model.fit(X, Y)
    alone = MLPClassifier(**QUICK | options).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))


def test_warnings_point_to_the_callers_line():
    model = MLPClassifier(**QUICK | {"batch_size": 500})
    for call in (lambda: model.fit(X, Y), lambda: model.partial_fit(X, Y)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert caught
        assert {warning.filename for warning in caught} == {__file__}


def test_weights_loaded_by_hand_predict():
    fitted = MLPRegressor(**QUICK).fit(X, T)
    model = MLPRegressor(**QUICK)
    for name in ("coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_"):
        setattr(model, name, getattr(fitted, name))
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))


@pytest.mark.parametrize(
    "bad",
    [
        {"sample_weight": np.zeros(150)},
        {"sample_weight": np.ones(7)},
        {"y": T},
        {"y": Y[:10]},
    ],
    ids=["no weight", "too few weights", "no classes", "too few labels"],
)
def test_a_fit_that_fails_leaves_the_model_as_it_was(bad):
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(8)])
    model = MLPClassifier(**QUICK).fit(frame, Y)
    before = copy.deepcopy(vars(model))
    with pytest.raises(ValueError):  # noqa: PT011 (which one is tested elsewhere)
        model.fit(X[:, :5], **{"y": Y, **bad})
    assert set(vars(model)) == set(before)
    assert model.n_features_in_ == 8
    np.testing.assert_array_equal(model.feature_names_in_, before["feature_names_in_"])
    np.testing.assert_array_equal(model.classes_, before["classes_"])
    model.predict(frame)
    with pytest.raises(ValueError):  # noqa: PT011
        MLPClassifier(**QUICK).fit(X[:, :5], **{"y": Y, **bad})


@pytest.mark.parametrize(
    "y", [T.astype(str), np.arange(150).astype("datetime64[D]")], ids=["text", "dates"]
)
def test_regression_targets_must_be_numbers(y):
    with pytest.raises(TypeError, match=r"y must hold numbers, got an array of"):
        MLPRegressor(**QUICK).fit(X, y)


@weighted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-25, 1e25, 1e300])
def test_the_scale_of_weights_does_not_matter(dtype, scale):
    weight = np.random.RandomState(0).uniform(0.5, 2.0, 150)
    for options in ({}, {"solver": "sgd"}, {"solver": "lbfgs"}):
        options = QUICK | options | {"alpha": 0.0}
        plain = MLPClassifier(**options).fit(X.astype(dtype), Y, sample_weight=weight)
        scaled = MLPClassifier(**options)
        scaled.fit(X.astype(dtype), Y, sample_weight=weight * scale)
        # weights are rounded once more, in the dtype
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(scaled.loss_, plain.loss_, rtol=1e4 * eps)
        np.testing.assert_allclose(
            scaled.coefs_[0], plain.coefs_[0], rtol=1e5 * eps, atol=1e5 * eps
        )


@weighted
def test_small_weights_meet_the_penalty_as_in_scikit_learn():
    weight = np.random.RandomState(0).uniform(0.5, 2.0, 150) * 1e-8
    options = {"alpha": 1e-7}
    assert_same_training(
        *both(lambda model: model.fit(X, Y, sample_weight=weight), **options)
    )


def test_best_weights_come_back_in_the_dtype_asked_for():
    model = MLPClassifier(**QUICK, early_stopping=True, warm_start=True)
    model.fit(X.astype(np.float32), Y)
    model.set_params(dtype="float64", learning_rate_init=1e-12).fit(X, Y)
    assert {w.dtype for w in model.coefs_} == {np.dtype(float)}


def test_no_validation_rows_are_scikit_learns_error():
    texts = []
    for package in (MLPClassifier, reference.MLPClassifier):
        with pytest.raises(ValueError, match="test_size") as error:
            package(**QUICK, early_stopping=True, validation_fraction=0.0).fit(X, Y)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_a_subclass_of_scikit_learns_is_converted_without_its_own_parameters():
    class Named(reference.MLPClassifier):
        def __init__(self, name="", alpha=0.1):
            super().__init__(alpha=alpha)
            self.name = name

    assert MLPClassifier.from_sklearn(Named("a", alpha=0.5)).alpha == 0.5
