"""Many models at once, and searches in threads: the same results as one by one."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from joblib.parallel import get_active_backend
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn import model_selection as reference
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp import (
    GridSearchCV,
    MLPClassifier,
    MLPRegressor,
    RandomizedSearchCV,
    fit_many,
    launch,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_digits(n_class=5, return_X_y=True)
X = X / 16
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, len(X))
SPLITS = list(StratifiedKFold(3).split(X, Y))
TRAIN = [train for train, _ in SPLITS]
QUICK = {"hidden_layer_sizes": (20,), "max_iter": 3, "random_state": 0}


def same(a, b):
    """Whether two models have the same bits."""
    pairs = zip((*a.coefs_, *a.intercepts_), (*b.coefs_, *b.intercepts_), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


MODELS = {
    "classifiers": MLPClassifier(**QUICK),
    "early stopping": MLPClassifier(**QUICK, early_stopping=True),
    "class weights": MLPClassifier(**QUICK, class_weight="balanced"),
    "a class weight": MLPClassifier(**QUICK, class_weight={0: 3.0, 1: 0.5}),
    "float32": MLPClassifier(**QUICK, dtype="float32"),
    "lbfgs": MLPClassifier(**QUICK, solver="lbfgs"),
    "dropout": MLPClassifier(**QUICK, dropout=0.3),
    "regressors": MLPRegressor(**QUICK),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, csr_array])
@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_that_of_its_rows(name, kind, weighted):
    if name == "dropout" and kind is csr_array:
        pytest.skip("programs of its own to compile; test_beyond has such a network")
    data, weight = kind(X), WEIGHTS if weighted else None
    models = [clone(MODELS[name]) for _ in TRAIN]
    assert fit_many(models, data, Y, TRAIN, sample_weight=weight) is not None
    for model, rows in zip(models, TRAIN, strict=True):
        alone = clone(model)
        alone.fit(data[rows], Y[rows], None if weight is None else weight[rows])
        assert same(model, alone)
        assert model.loss_curve_ == alone.loss_curve_ if name != "lbfgs" else True
        assert vars(model).keys() == vars(alone).keys()


def test_different_models_share_the_data_and_none_is_copied(monkeypatch):
    models = [
        MLPClassifier(**{**QUICK, "hidden_layer_sizes": (n,)}, dtype=dtype)
        for n in (5, 30)
        for dtype in ("float32", "float64")
    ]
    seen = []
    check = MLPClassifier._check_X_y

    def watched(self, X, y, **options):
        found = check(self, X, y, **options)
        seen.append(found[0])
        return found

    monkeypatch.setattr(MLPClassifier, "_check_X_y", watched)
    fit_many(models, X, Y)
    addresses = {array.ctypes.data for array in seen}
    assert len(seen) == 6
    assert len(addresses) == 2  # one for each dtype


def test_labels_that_only_some_rows_have_are_theirs():
    few = np.flatnonzero(Y < 3)
    models = [MLPClassifier(**QUICK), MLPClassifier(**QUICK)]
    one, all_ = fit_many(models, X, Y, [few, None])
    np.testing.assert_array_equal(one.classes_, [0, 1, 2])
    assert same(one, MLPClassifier(**QUICK).fit(X[few], Y[few]))
    assert same(all_, MLPClassifier(**QUICK).fit(X, Y))


def test_masks_negative_numbers_and_frames():
    frame = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    mask = np.arange(len(X)) % 3 > 0
    last = np.arange(-300, 0)
    models = [MLPClassifier(**QUICK), MLPClassifier(**QUICK)]
    a, b = fit_many(models, frame, Y, [mask, last])
    assert same(a, MLPClassifier(**QUICK).fit(X[mask], Y[mask]))
    assert same(b, MLPClassifier(**QUICK).fit(X[last], Y[last]))
    assert list(a.feature_names_in_) == list(frame.columns)
    a.predict(frame)  # without a warning of names


def test_multilabel_targets_may_be_sparse():
    indicators = np.eye(5, dtype=int)[Y]
    models = [MLPClassifier(**QUICK) for _ in TRAIN]
    fit_many(models, X, csr_array(indicators), TRAIN)
    for model, rows in zip(models, TRAIN, strict=True):
        assert same(model, MLPClassifier(**QUICK).fit(X[rows], indicators[rows]))


def test_weights_are_those_of_the_rows():
    weight, few = np.ones(len(X)), np.arange(100)
    weight[100:] = 1e35
    (model,) = fit_many(
        [MLPClassifier(**QUICK, dtype="float32")], X, Y, [few], sample_weight=weight
    )
    assert same(model, MLPClassifier(**QUICK, dtype="float32").fit(X[few], Y[few]))
    weight[:100] = 0
    with pytest.raises(ValueError, match="at least one non-zero number"):
        fit_many([model], X, Y, [few], sample_weight=weight)
    with pytest.raises(ValueError, match="Input sample_weight contains NaN"):
        fit_many([model], X, Y, [few], sample_weight=weight * np.nan)


def test_a_warm_fit_knows_the_names_of_columns():
    frame = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    model = MLPClassifier(**QUICK, warm_start=True).fit(frame, Y)
    fit_many([model], frame, Y)
    assert list(model.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="The feature names should match"):
        fit_many([model], frame[frame.columns[::-1]], Y)
    assert list(model.feature_names_in_) == list(frame.columns)


def test_the_longest_fits_begin_first(monkeypatch):
    begun = []
    fit_rows = MLPClassifier._fit_rows

    def noted(self, *args):
        begun.append(self.hidden_layer_sizes)
        return fit_rows(self, *args)

    monkeypatch.setattr(MLPClassifier, "_fit_rows", noted)
    sizes = [(20,), (5,), (40,), (10,)]
    models = [MLPClassifier(**{**QUICK, "hidden_layer_sizes": n}) for n in sizes]
    fit_many(models, X, Y, n_jobs=1)
    assert begun == [(40,), (20,), (10,), (5,)]


@pytest.mark.skipif(launch.thread_limit() < 2, reason="one thread only")
def test_two_fits_run_at_the_same_time(monkeypatch):
    both = threading.Barrier(2, timeout=60)  # seconds, or it is broken
    fit_rows = MLPClassifier._fit_rows

    def met(self, *args):
        both.wait()
        return fit_rows(self, *args)

    monkeypatch.setattr(MLPClassifier, "_fit_rows", met)
    fit_many([MLPClassifier(**QUICK) for _ in range(2)], X, Y, n_jobs=2)


def test_models_that_share_a_generator_are_fitted_in_their_order():
    sizes = [(5,), (40,), (10,), (30,)]

    def models(generator):
        options = [{**QUICK, "hidden_layer_sizes": n} for n in sizes]
        return [MLPClassifier(**{**o, "random_state": generator}) for o in options]

    many = fit_many(models(np.random.RandomState(0)), X, Y)
    alone = models(np.random.RandomState(0))
    for model, other in zip(many, alone, strict=True):
        assert same(model, other.fit(X, Y))
    alone[1].set_params(frozen_layers=3)
    with pytest.raises(ValueError, match="frozen_layers=3"):
        fit_many(alone, X, Y)
    assert alone[2].n_iter_ == 3


def test_what_is_wrong_is_named():
    model = MLPClassifier(**QUICK)
    with pytest.raises(TypeError, match="got LogisticRegression"):
        fit_many([LogisticRegression()], X, Y)
    with pytest.raises(ValueError, match="the same estimator twice"):
        fit_many([model, model], X, Y)
    with pytest.raises(ValueError, match="rows for each of the 1 estimators, got 2"):
        fit_many([model], X, Y, [None, None])
    for rows in ([], [[1, 2]], [0.5], ["a"]):
        with pytest.raises(ValueError, match="folds must hold arrays of row numbers"):
            fit_many([model], X, Y, [rows])
    with pytest.raises(ValueError, match="folds have numbers of rows that X, of 901"):
        fit_many([model], X, Y, [[0, 901]])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fit_many([model], X * np.nan, Y)
    with pytest.raises(TypeError, match="estimators must be a sequence, one for each"):
        fit_many(model, X, Y)
    with pytest.raises(TypeError, match="folds must be a sequence, one for each fit"):
        fit_many([model], X, Y, 5)
    assert not hasattr(model, "coefs_")
    assert fit_many([], X, Y) == []


def test_a_fit_that_fails_leaves_the_others_fitted():
    good, bad = MLPClassifier(**QUICK), MLPClassifier(**QUICK, learning_rate_init=1e300)
    with pytest.raises(ValueError, match="Solver produced"):
        fit_many([bad, good], X, Y)
    assert hasattr(good, "coefs_")
    assert not hasattr(bad, "coefs_")


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_warnings_come_from_the_callers_line():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\)") as record:
        fit_many([MLPClassifier(**QUICK), MLPClassifier(**QUICK)], X, Y)
    assert [w.filename for w in record] == [__file__] * 2


# ------------------------------------------------------------- searches


def scores_of(search):
    return {
        name: values
        for name, values in search.cv_results_.items()
        if "time" not in name and name != "params"
    }


GRID = {"mlpclassifier__alpha": [0.1, 1.0], "mlpclassifier__activation": ["relu", "tanh"]}


@pytest.mark.parametrize("n_jobs", [None, 1, 2])
def test_a_grid_search_is_scikit_learns(n_jobs):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**QUICK))
    options = {"cv": 3, "return_train_score": True, "scoring": ["accuracy", "f1_macro"]}
    options["refit"] = "accuracy"
    ours = GridSearchCV(pipeline, GRID, n_jobs=n_jobs, **options).fit(X, Y)
    theirs = reference.GridSearchCV(pipeline, GRID, **options).fit(X, Y)
    found, truth = scores_of(ours), scores_of(theirs)
    assert found.keys() == truth.keys()
    for name, values in truth.items():
        np.testing.assert_array_equal(found[name], values)
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert clone(ours).get_params().keys() == theirs.get_params().keys()


def test_a_randomized_search_is_scikit_learns():
    draws = {"alpha": loguniform(1e-3, 10)}
    options = {"n_iter": 4, "cv": 2, "random_state": 0}
    ours, theirs = (
        search(MLPClassifier(**QUICK), draws, **options).fit(X, Y, sample_weight=WEIGHTS)
        for search in (RandomizedSearchCV, reference.RandomizedSearchCV)
    )
    for name, values in scores_of(theirs).items():
        np.testing.assert_array_equal(scores_of(ours)[name], values)


def test_fits_that_fail_are_scored_as_scikit_learn_does():
    grid = {"learning_rate_init": [1e-3, 1e300]}
    search = GridSearchCV(MLPClassifier(**QUICK), grid, cv=2, error_score=-1.0)
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
        search.fit(X, Y)
    assert search.cv_results_["mean_test_score"][1] == -1.0


class Endless(MLPClassifier):
    """Trains for days, or, with a large alpha, fails when another one has begun."""

    begun, abandoned = threading.Event(), threading.Event()

    def fit(self, X, y):
        if self.alpha > 1:
            assert self.begun.wait(60)
            raise ValueError("alpha is too large")
        self.begun.set()
        try:
            return super().fit(X, y)
        except launch.AbandonedError:
            self.abandoned.set()
            raise


def test_an_error_that_ends_a_search_ends_its_other_fits():
    model = Endless(max_iter=10**9, n_iter_no_change=10**9, random_state=0)
    search = GridSearchCV(
        model, {"alpha": [0.1, 2]}, cv=[TRAIN[:2]], n_jobs=2, error_score="raise"
    )
    with pytest.raises(ValueError, match="alpha is too large"):
        search.fit(X, Y)
    assert Endless.abandoned.wait(60)


class Witness(ClassifierMixin, BaseEstimator):
    """Tells which backend it is fitted under, and in which thread."""

    seen: list = []  # noqa: RUF012 - of the class: clones are to write to it

    def __init__(self, alpha=0):
        self.alpha = alpha

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen.append(type(get_active_backend()[0]).__name__)
        return self

    def predict(self, X):
        return np.zeros(len(X))


class ThreadWitness(MLPClassifier):
    """An estimator of fastbp's that tells in which thread it is fitted."""

    threads: set = set()  # noqa: RUF012 - of the class: clones are to write to it

    def fit(self, X, y):
        self.threads.add(threading.current_thread())
        return super().fit(X, y)


def test_threads_are_for_fastbps_estimators_only():
    search = GridSearchCV(
        ThreadWitness(**QUICK), {"alpha": [0.1, 0.2]}, cv=3, refit=False
    )
    ThreadWitness.threads.clear()
    search.fit(X, Y)
    in_threads = threading.main_thread() not in ThreadWitness.threads
    assert in_threads or launch.thread_limit() == 1
    ThreadWitness.threads.clear()
    with parallel_config("sequential"):
        search.fit(X, Y)
    assert ThreadWitness.threads == {threading.main_thread()}
    Witness.seen.clear()
    GridSearchCV(Witness(), {"alpha": [1, 2]}, cv=2, refit=False).fit(X, Y)
    assert set(Witness.seen) <= {"LokyBackend", "SequentialBackend"}


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int32"])
def test_rows_may_be_numbered_in_any_integers(solver, dtype):
    options = {**QUICK, "solver": solver}
    rows = np.arange(200)
    (model,) = fit_many([MLPClassifier(**options)], X, Y, [rows.astype(dtype)])
    assert same(model, MLPClassifier(**options).fit(X[rows], Y[rows]))


def test_a_mask_has_a_place_for_every_row():
    for mask in (np.ones(100, bool), np.arange(len(X) + 1) < 100):
        with pytest.raises(ValueError, match=f"mask of shape .*; X has {len(X)} rows"):
            fit_many([MLPClassifier(**QUICK)], X, Y, [mask])


class Callback:
    """Says and does nothing."""

    def setup(self, estimator, context):
        """Nothing to prepare."""

    def teardown(self, estimator, context):
        """Nothing to tidy up."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing to look at."""

    def on_fit_task_end(self, estimator, context):
        """Nothing to say."""


def test_callbacks_hear_of_the_rows_of_the_fold():
    pytest.importorskip("sklearn.callback", reason="new in scikit-learn 1.9")
    seen = []

    class Look(Callback):
        def on_fit_task_begin(self, estimator, context, *, X, y, metadata):
            seen.append((X, y, metadata["sample_weight"]))

    model = MLPClassifier(**QUICK).set_callbacks(Look())
    fit_many([model], X, Y, [TRAIN[0]], sample_weight=WEIGHTS)
    assert len(seen) == 1 + QUICK["max_iter"]
    for told in seen:
        for found, whole in zip(told, (X, Y, WEIGHTS), strict=True):
            np.testing.assert_array_equal(found, whole[TRAIN[0]])


@pytest.mark.skipif(launch.thread_limit() < 2, reason="two fits at a time")
def test_no_fit_begins_after_an_interrupt():
    pytest.importorskip("sklearn.callback", reason="new in scikit-learn 1.9")
    trained = threading.Event()

    class Interrupts(Callback):
        def on_fit_task_begin(self, estimator, context):
            assert trained.wait(60)
            raise KeyboardInterrupt

    class Waits(Callback):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "fit":
                trained.set()
                time.sleep(0.5)  # in which the caller hears of the interrupt

    generator = np.random.RandomState(0)  # the three that share it are one task
    group = [MLPClassifier(**{**QUICK, "random_state": generator}) for _ in range(3)]
    group[0].set_callbacks(Waits())
    longest = MLPClassifier(**{**QUICK, "max_iter": 100}).set_callbacks(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        fit_many([*group, longest], X, Y, n_jobs=2)
    assert [hasattr(model, "coefs_") for model in group] == [True, False, False]
