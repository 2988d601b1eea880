"""Where scikit-learn's networks fit in, fastbp's fit in with the same outcome.

Every test does the same twice, with scikit-learn's network and with fastbp's, from one
seed, in one of scikit-learn's tools.
"""

import inspect
from itertools import product

import numpy as np
import pandas as pd
import pytest
import sklearn.neural_network as reference
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import (
    ColumnTransformer,
    TransformedTargetRegressor,
    make_column_transformer,
)
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    learning_curve,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import fastbp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

QUICK = {"hidden_layer_sizes": (8,), "max_iter": 8, "batch_size": 30, "random_state": 0}
CLASSIFIERS = (fastbp.MLPClassifier, reference.MLPClassifier)
REGRESSORS = (fastbp.MLPRegressor, reference.MLPRegressor)

# Two exact float64 implementations differ by rounding, 1e-14 relative after a few epochs
# (see test_trajectory). A tool around them may lose digits, so the outcomes have to agree
# to 1e-6; a network that is trained on other rows, for one epoch more, or with another
# seed or weight differs by 1e-3 or more. Accuracies are counts: they have to be equal.
RTOL, ATOL = 1e-6, 1e-8

needs_sample_weight = pytest.mark.skipif(
    "sample_weight" not in inspect.signature(reference.MLPClassifier.fit).parameters,
    reason="the networks of scikit-learn 1.6 take no sample_weight: no truth to compare",
)


def classification(n=120):
    X, y = load_wine(return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return StandardScaler().fit_transform(X)[rows], y[rows]


def regression(n=120):
    X, y = load_diabetes(return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return StandardScaler().fit_transform(X)[rows], (y[rows] - 150.0) / 80.0


def assert_close(ours, theirs):
    assert np.shape(ours) == np.shape(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=ATOL)


def assert_same_probabilities(ours, theirs, X):
    """The probabilities agree and, as they are no ties, so do the labels."""
    probabilities = theirs.predict_proba(X)
    assert_close(ours.predict_proba(X), probabilities)
    first, second = np.sort(probabilities)[:, :-3:-1].T
    assert (first - second).min() > 1e-5
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_pipeline():
    X, y = classification()
    X = 7.0 * X + 3.0  # for the scaler
    ours, theirs = (
        make_pipeline(StandardScaler(), model(**QUICK)).fit(X, y) for model in CLASSIFIERS
    )
    assert_same_probabilities(ours, theirs, X)
    assert ours.score(X, y) == theirs.score(X, y)
    (ours,), (theirs,) = (
        [step for _, step in pipeline.steps[1:]] for pipeline in (ours, theirs)
    )
    assert_close(ours.loss_curve_, theirs.loss_curve_)


@pytest.mark.parametrize("sparse_threshold", [0.0, 1.0])
def test_column_transformer_of_a_data_frame_with_strings(sparse_threshold):
    X, y = classification()
    frame = pd.DataFrame(X[:, :4], columns=["a", "b", "c", "d"])
    frame["origin"] = np.array(["north", "south", "west"])[np.digitize(X[:, 5], [-1, 1])]
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["a", "b", "c", "d"]),
            ("words", OneHotEncoder(), ["origin"]),
        ],
        sparse_threshold=sparse_threshold,  # 1: its output is a sparse matrix
    )
    labels = pd.Series(y).map({0: "barolo", 1: "grignolino", 2: "barbera"})
    ours, theirs = (
        make_pipeline(columns, model(**QUICK)).fit(frame, labels) for model in CLASSIFIERS
    )
    assert theirs[-1].n_features_in_ == 7
    assert_same_probabilities(ours, theirs, frame)
    assert set(ours.predict(frame)) <= {"barolo", "grignolino", "barbera"}


def assert_same_search(ours, theirs, X):
    assert ours.best_params_ == theirs.best_params_
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    np.testing.assert_array_equal(
        ours.cv_results_["rank_test_score"], theirs.cv_results_["rank_test_score"]
    )
    for name in ("mean_test_score", "mean_train_score"):
        assert_close(ours.cv_results_[name], theirs.cv_results_[name])
    assert len(set(theirs.cv_results_["mean_test_score"])) > 1  # there is a choice
    assert_close(ours.best_estimator_.predict(X), theirs.best_estimator_.predict(X))


def test_grid_search():
    X, y = regression()
    grid = {
        "solver": ["adam", "sgd", "lbfgs"],
        "hidden_layer_sizes": [(), (6, 3)],
        "early_stopping": [False, True],
    }
    ours, theirs = (
        GridSearchCV(
            model(**{**QUICK, "learning_rate_init": 0.01, "max_iter": 4}),
            grid,
            cv=2,
            return_train_score=True,
        ).fit(X, y)
        for model in REGRESSORS
    )
    assert_same_search(ours, theirs, X)


def test_halving_grid_search_over_epochs():
    X, y = regression()
    grid = {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 3e-3, 1e-2]}
    ours, theirs = (
        HalvingGridSearchCV(
            model(**QUICK),
            grid,
            resource="max_iter",
            min_resources=2,
            max_resources=12,
            factor=2,
            cv=2,
            random_state=0,
            return_train_score=True,
        ).fit(X, y)
        for model in REGRESSORS
    )
    assert ours.n_resources_ == theirs.n_resources_
    assert len(theirs.n_resources_) > 1
    assert ours.best_estimator_.n_iter_ == theirs.best_estimator_.n_iter_
    assert_same_search(ours, theirs, X)


def test_randomized_search():
    X, y = regression()
    choices = {
        "activation": ["identity", "logistic", "tanh", "relu"],
        "batch_size": list(range(10, 60)),
        "learning_rate_init": np.geomspace(1e-3, 1e-1, 20).tolist(),
        "shuffle": [True, False],
        "momentum": [0.0, 0.5, 0.9],
    }
    ours, theirs = (
        RandomizedSearchCV(
            model(**{**QUICK, "solver": "sgd"}),
            choices,
            n_iter=8,
            cv=2,
            random_state=0,
            return_train_score=True,
        ).fit(X, y)
        for model in REGRESSORS
    )
    assert_same_search(ours, theirs, X)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibrated_classifier(method):
    X, y = classification()
    y = (y > 0).astype(int)
    ours, theirs = (
        CalibratedClassifierCV(model(**QUICK), method=method, cv=3).fit(X, y)
        for model in CLASSIFIERS
    )
    assert len(ours.calibrated_classifiers_) == 3
    assert_same_probabilities(ours, theirs, X)


def test_stacking():
    X, y = classification()
    ours, theirs = (
        StackingClassifier(
            [
                ("network", model(**QUICK)),
                ("tree", DecisionTreeClassifier(max_depth=2, random_state=0)),
            ],
            final_estimator=LogisticRegression(),
            cv=3,
        ).fit(X, y)
        for model in CLASSIFIERS
    )
    assert_same_probabilities(ours, theirs, X)
    assert_close(ours.final_estimator_.coef_, theirs.final_estimator_.coef_)


@needs_sample_weight  # bagging passes them to networks that take them, in some versions
def test_bagging():
    X, y = classification()
    ours, theirs = (
        BaggingClassifier(
            model(**QUICK), n_estimators=4, max_features=0.7, random_state=0
        ).fit(X, y)
        for model in CLASSIFIERS
    )
    assert_same_probabilities(ours, theirs, X)
    X, y = regression()
    ours, theirs = (
        BaggingRegressor(
            model(**QUICK), n_estimators=4, oob_score=False, random_state=0
        ).fit(X, y, sample_weight=np.linspace(0.1, 2.0, len(X)))
        for model in REGRESSORS
    )
    assert_close(ours.predict(X), theirs.predict(X))


@needs_sample_weight
def test_adaboost():
    X, y = classification()
    y = y.copy()
    y[::7] = (y[::7] + 1) % 3  # some wrong labels: boosting needs something to do
    ours, theirs = (
        AdaBoostClassifier(
            model(**{**QUICK, "learning_rate_init": 0.01}),
            n_estimators=4,
            random_state=0,
        ).fit(X, y)
        for model in CLASSIFIERS
    )
    assert len(theirs.estimators_) == 4
    assert_close(ours.estimator_errors_, theirs.estimator_errors_)
    assert_close(ours.estimator_weights_, theirs.estimator_weights_)
    for a, b in zip(ours.estimators_, theirs.estimators_, strict=True):
        assert_same_probabilities(a, b, X)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_multi_output_classifier():
    X, y = classification()
    Y = np.column_stack([y, X[:, 0] > 0.3])
    ours, theirs = (
        MultiOutputClassifier(model(**QUICK)).fit(X, Y) for model in CLASSIFIERS
    )
    for a, b in zip(ours.predict_proba(X), theirs.predict_proba(X), strict=True):
        assert_close(a, b)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_multi_output_classifier_partial_fit():
    X, y = classification()
    Y = np.column_stack([y, X[:, 0] > 0.3])
    classes = [[0, 1, 2], [0, 1]]
    models = []
    for model in CLASSIFIERS:
        # one call, and the seed as scikit-learn uses it
        outer = MultiOutputClassifier(model(**QUICK))
        models.append(outer.partial_fit(X[:60], Y[:60], classes=classes))
    for a, b in zip(*(m.predict_proba(X) for m in models), strict=True):
        assert_close(a, b)


def test_transformed_target():
    X, y = regression()
    y = np.exp(y)
    ours, theirs = (
        TransformedTargetRegressor(model(**QUICK), func=np.log, inverse_func=np.exp).fit(
            X, y
        )
        for model in REGRESSORS
    )
    assert_close(ours.predict(X), theirs.predict(X))
    assert_close(ours.score(X, y), theirs.score(X, y))


def test_permutation_importance():
    X, y = regression()
    ours, theirs = (
        permutation_importance(model(**QUICK).fit(X, y), X, y, random_state=0)
        for model in REGRESSORS
    )
    assert np.abs(theirs.importances_mean).max() > 1e-3
    assert_close(ours.importances, theirs.importances)


def test_learning_curve():
    X, y = regression()
    ours, theirs = (
        learning_curve(
            model(**QUICK), X, y, train_sizes=[0.4, 0.7, 1.0], cv=3, random_state=0
        )
        for model in REGRESSORS
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def test_learning_curve_by_partial_fit():
    X, y = regression()
    curves = []
    for model in REGRESSORS:
        network = model(**{**QUICK, "shuffle": False})  # the same rows at every call
        curves.append(
            learning_curve(
                network,
                X,
                y,
                train_sizes=[0.5, 1.0],
                cv=3,
                exploit_incremental_learning=True,
            )
        )
    for a, b in zip(*curves, strict=True):
        assert_close(a, b)


def test_sequential_feature_selection():
    X, y = regression()
    ours, theirs = (
        SequentialFeatureSelector(
            model(**{**QUICK, "max_iter": 3}), n_features_to_select=2, cv=2
        ).fit(X[:, :5], y)
        for model in REGRESSORS
    )
    np.testing.assert_array_equal(ours.get_support(), theirs.get_support())


def test_data_frames_between_the_steps():
    X, y = classification()
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(X.shape[1])])
    with config_context(transform_output="pandas"):
        ours, theirs = (
            make_pipeline(
                make_column_transformer((StandardScaler(), list(frame.columns[:6]))),
                model(**QUICK, early_stopping=True),
            ).fit(frame, y)
            for model in CLASSIFIERS
        )
        assert len(theirs[-1].feature_names_in_) == 6
        np.testing.assert_array_equal(
            ours[-1].feature_names_in_, theirs[-1].feature_names_in_
        )
        assert_same_probabilities(ours, theirs, frame)


@needs_sample_weight
def test_routed_sample_weights():
    X, y = regression()
    weight = np.random.RandomState(1).uniform(0.0, 5.0, len(X))
    with config_context(enable_metadata_routing=True):
        searches = {}
        for model, to_fit in product(REGRESSORS, (True, False)):
            network = model(**QUICK)
            network.set_fit_request(sample_weight=to_fit)
            network.set_score_request(sample_weight=True)
            search = GridSearchCV(
                make_pipeline(
                    StandardScaler().set_fit_request(sample_weight=False), network
                ),
                {"mlpregressor__learning_rate_init": [1e-3, 3e-3, 1e-2]},
                cv=3,
                return_train_score=True,
            )
            searches[model, to_fit] = search.fit(X, y, sample_weight=weight)
        for to_fit in (True, False):
            assert_same_search(*(searches[model, to_fit] for model in REGRESSORS), X)
    weighted, plain = (searches[fastbp.MLPRegressor, to_fit] for to_fit in (True, False))
    # the weights arrived: without them in fit, or in score, the scores are others
    assert abs(weighted.best_score_ - plain.best_score_) > 1e-3
    with config_context(enable_metadata_routing=True):
        score = weighted.score(X, y, sample_weight=weight)
        assert abs(score - weighted.score(X, y)) > 1e-3


@needs_sample_weight
def test_routed_sample_weights_of_partial_fit():
    X, y = classification()
    weight = np.random.RandomState(1).uniform(0.1, 5.0, len(X))
    with config_context(enable_metadata_routing=True):
        ours, theirs = (
            MultiOutputClassifier(
                model(**QUICK).set_partial_fit_request(sample_weight=True)
            ).partial_fit(X, y[:, None], classes=[[0, 1, 2]], sample_weight=weight)
            for model in CLASSIFIERS
        )
        plain = MultiOutputClassifier(fastbp.MLPClassifier(**QUICK)).partial_fit(
            X, y[:, None], classes=[[0, 1, 2]]
        )
    (a,), (b,), (c,) = (m.predict_proba(X) for m in (ours, theirs, plain))
    assert_close(a, b)
    assert np.abs(a - c).max() > 1e-4
