"""The estimators behave as scikit-learn's estimators do."""

import inspect
import pickle
import threading
from functools import partial

import numpy as np
import pytest
import sklearn.neural_network as reference
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
)
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from fastbp import MLPClassifier, MLPRegressor, launch, threads

ESTIMATORS = (MLPClassifier, MLPRegressor)
#: Parameters that scikit-learn has not.
COMMON = {
    **{"dtype": "auto", "n_jobs": None, "init": "glorot_uniform", "frozen_layers": 0},
    **{"dropout": 0.0, "weight_decay": None, "max_grad_norm": None, "warmup_epochs": 0},
    **{"scoring": None, "restore_best_weights": False, "max_time": None},
    **{"progress_bar": False},
}
ADDED = {
    MLPClassifier: {**COMMON, "class_weight": None, "label_smoothing": 0.0},
    MLPRegressor: {**COMMON, "quantile": 0.5, "huber_delta": 1.0},
}
#: What fit takes that scikit-learn's does not.
FIT_KEYWORDS = ["X_val", "y_val", "sample_weight_val"]
#: loss and sample_weight came with scikit-learn 1.7.
has_loss = pytest.mark.skipif(
    "loss" not in reference.MLPRegressor().get_params(),
    reason="scikit-learn 1.6 knows one loss, and no weights",
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def sklearn_twin(model):
    """scikit-learn's class for a class of fastbp, or its copy of an estimator."""
    if isinstance(model, type):
        return getattr(reference, model.__name__)
    parameters = model.get_params(deep=False)
    twin = sklearn_twin(type(model))
    known = twin().get_params()
    return twin(**{name: parameters[name] for name in parameters if name in known})


def small_data(model, n=90, n_features=7):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((n, n_features))
    if issubclass(model, MLPClassifier):
        return X, X[:, :3].argmax(axis=1)
    return X, np.sin(X[:, 0]) + X[:, 1]


# In scikit-learn's tools


LOADERS = {
    "digits": (load_digits, MLPClassifier),
    "breast_cancer": (load_breast_cancer, MLPClassifier),
    "wine": (load_wine, MLPClassifier),
    "diabetes": (load_diabetes, MLPRegressor),
}


def real_data(name, n=400):
    load, model = LOADERS[name]
    X, y = load(return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return X[rows], y[rows], model


def assert_same_scores(ours, theirs):
    """Accuracies are equal; R^2 may differ by the rounding of many steps, 1e-6."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", LOADERS)
def test_same_cross_validation_scores_in_a_pipeline(name):
    X, y, model = real_data(name)
    step = model(hidden_layer_sizes=(30,), max_iter=15, random_state=0)
    scores = [
        cross_val_score(make_pipeline(StandardScaler(), estimator), X, y, cv=3)
        for estimator in (step, sklearn_twin(step))
    ]
    if model is MLPClassifier:
        assert scores[0].tolist() == scores[1].tolist()
    else:
        assert_same_scores(*scores)


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_same_grid_search(name):
    X, y, model = real_data(name, 150)
    prefix = f"{model.__name__.lower()}__"
    grid = {
        f"{prefix}activation": ["tanh", "relu"],
        f"{prefix}hidden_layer_sizes": [(), (9, 5)],
        f"{prefix}solver": ["adam", "sgd"],
    }
    step = model(max_iter=8, random_state=0)
    searches = [
        GridSearchCV(
            make_pipeline(StandardScaler(), estimator), grid, cv=2, n_jobs=1
        ).fit(X, y)
        for estimator in (step, sklearn_twin(step))
    ]
    assert searches[0].best_params_ == searches[1].best_params_
    scores = [search.cv_results_["mean_test_score"] for search in searches]
    if model is MLPClassifier:
        assert scores[0].tolist() == scores[1].tolist()
    else:
        assert_same_scores(*scores)
    predictions = [search.predict(X) for search in searches]
    np.testing.assert_allclose(*predictions, rtol=1e-6)  # as the scores


@pytest.mark.parametrize("model", ESTIMATORS)
def test_same_score_method(model):
    X, y = small_data(model)
    ours = model(max_iter=20, random_state=0)
    theirs = sklearn_twin(ours)
    weight = np.linspace(0.0, 2.0, len(X))
    for options in ({}, {"sample_weight": weight}):
        scores = [m.fit(X, y).score(X, y, **options) for m in (ours, theirs)]
        assert_same_scores(*scores)


@pytest.mark.parametrize("target", ["binary", "multiclass", "multilabel"])
def test_predict_log_proba_is_the_log_of_predict_proba(target):
    X, y = small_data(MLPClassifier)
    y = {"binary": y > 0, "multiclass": y, "multilabel": np.eye(3, dtype=int)[y]}[target]
    ours = MLPClassifier(max_iter=3, random_state=0).fit(X, y)
    theirs = sklearn_twin(ours).fit(X, y)
    np.testing.assert_array_equal(
        ours.predict_log_proba(X), np.log(ours.predict_proba(X))
    )
    # logs of probabilities that agree to 1e-14 or so
    np.testing.assert_allclose(
        ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-7
    )


def test_log_of_a_probability_of_zero_is_minus_infinity_as_in_scikit_learn():
    X, y = small_data(MLPClassifier)
    ours = MLPClassifier((), max_iter=3, random_state=0).fit(X, y)
    theirs = sklearn_twin(ours).fit(X, y)
    logs = []
    for model in (ours, theirs):
        with pytest.warns(RuntimeWarning, match="divide by zero"):
            logs.append(model.predict_log_proba(1e6 * X))
    np.testing.assert_array_equal(np.isneginf(logs[0]), np.isneginf(logs[1]))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_same_fitted_attributes(model):
    X, y = small_data(model)
    ours = model(max_iter=3, random_state=0).fit(X, y)
    theirs = sklearn_twin(ours).fit(X, y)

    def fitted(estimator):
        return {a for a in vars(estimator) if a.endswith("_") and a[0] != "_"}

    assert fitted(ours) == fitted(theirs)
    assert ours.loss == getattr(theirs, "loss", "squared_error")
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "n_features_in_"):
        assert isinstance(getattr(ours, name), int)
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.validation_scores_ is None
    assert ours.best_validation_score_ is None
    assert isinstance(ours.loss_, float)
    assert isinstance(ours.loss_curve_, list)
    assert isinstance(ours.coefs_, list)
    assert isinstance(ours.intercepts_, list)
    for a in (*ours.coefs_, *ours.intercepts_):
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert a.flags.owndata


@pytest.mark.parametrize("model", ESTIMATORS)
def test_same_tags(model):
    ours, theirs = get_tags(model()), get_tags(sklearn_twin(model)())
    assert ours.estimator_type == theirs.estimator_type
    assert ours.classifier_tags == theirs.classifier_tags
    assert ours.regressor_tags == theirs.regressor_tags
    assert ours.non_deterministic == theirs.non_deterministic
    assert ours.input_tags.allow_nan == theirs.input_tags.allow_nan
    assert ours.target_tags.required
    # scikit-learn's regressor takes several outputs but does not say so
    assert ours.target_tags.multi_output is (model is MLPRegressor)
    assert is_classifier(model()) is (model is MLPClassifier)
    assert is_regressor(model()) is (model is MLPRegressor)


@pytest.mark.parametrize("model", ESTIMATORS)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_predicting_before_fitting_is_an_error(model, method):
    if not hasattr(model, method):
        pytest.skip("a classifier's method")
    X, _ = small_data(model)
    texts = []
    for estimator in (model(), sklearn_twin(model)()):
        with pytest.raises(NotFittedError) as error:
            getattr(estimator, method)(X)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


# Parameters


@has_loss
@pytest.mark.parametrize("model", ESTIMATORS)
def test_signature_is_scikit_learns_plus_keywords(model):
    ours = dict(inspect.signature(model).parameters)
    theirs = dict(inspect.signature(sklearn_twin(model)).parameters)
    for name, default in ADDED[model].items():
        added = ours.pop(name)
        assert added.kind is inspect.Parameter.KEYWORD_ONLY
        assert added.default == default
    bare = inspect.Parameter.empty  # scikit-learn has no annotations
    assert [p.replace(annotation=bare) for p in ours.values()] == list(theirs.values())
    for name in ("fit", "predict", "score"):
        a = inspect.signature(getattr(model, name))
        b = inspect.signature(getattr(sklearn_twin(model), name))
        more = FIT_KEYWORDS if name == "fit" else []
        assert list(a.parameters) == list(b.parameters) + more
        for keyword in more:
            assert a.parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("model", ESTIMATORS)
def test_public_methods_are_scikit_learns(model):
    theirs = {name for name in dir(sklearn_twin(model)) if not name.startswith("_")}
    assert theirs <= set(dir(model))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_get_params_and_set_params_round_trip(model):
    theirs = {"loss": "squared_error"} if model is MLPRegressor else {}
    theirs |= sklearn_twin(model)().get_params()
    assert model().get_params() == {**theirs, **ADDED[model]}
    sizes = [7, 5]
    changed = model().set_params(
        hidden_layer_sizes=sizes, alpha=0.5, dtype="float32", n_jobs=1
    )
    assert changed.hidden_layer_sizes is sizes  # kept as it is given
    assert model(**changed.get_params()).get_params() == changed.get_params()
    assert clone(changed).get_params() == changed.get_params()
    with pytest.raises(ValueError, match="Invalid parameter 'layers'"):
        changed.set_params(layers=3)


@pytest.mark.parametrize("model", ESTIMATORS)
def test_clone_of_a_fitted_model_is_not_fitted(model):
    X, y = small_data(model)
    fitted = model(max_iter=2, random_state=0).fit(X, y)
    copy = clone(fitted)
    assert not hasattr(copy, "coefs_")
    np.testing.assert_array_equal(copy.fit(X, y).predict(X), fitted.predict(X))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_repr(model):
    name = model.__name__
    assert repr(model()) == f"{name}()"
    changed = model(alpha=0.5, n_jobs=2, dtype="float32")
    assert repr(changed) == f"{name}(alpha=0.5, dtype='float32', n_jobs=2)"
    assert name in changed._repr_html_()


# Fitted models


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_pickled_models_predict_the_same(model, dtype):
    X, y = small_data(model)
    X = X.astype(dtype)
    fitted = model(max_iter=3, random_state=0).fit(X, y)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(fitted, protocol))
        np.testing.assert_array_equal(copy.predict(X), fitted.predict(X))
        assert copy.loss_curve_ == fitted.loss_curve_


@pytest.mark.parametrize("model", ESTIMATORS)
def test_predict_sees_weights_edited_in_place_and_assigned(model):
    X, y = small_data(model)
    fitted = model(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X, y)
    method = "predict_proba" if model is MLPClassifier else "predict"
    outputs = getattr(fitted, method)
    before = outputs(X)
    fitted.coefs_[1][:] = 0.0
    fitted.intercepts_[1][:] = 0.0
    flat = outputs(X)
    assert np.array_equal(flat, np.broadcast_to(flat[0], flat.shape))
    assert not np.array_equal(flat, before)

    theirs = sklearn_twin(fitted).fit(X, y)
    rng = np.random.RandomState(1)
    theirs.coefs_ = [rng.standard_normal(w.shape) for w in theirs.coefs_]
    fitted.coefs_ = [np.asfortranarray(w) for w in theirs.coefs_]
    fitted.intercepts_ = list(theirs.intercepts_)
    # sums of a few terms in float64
    np.testing.assert_allclose(outputs(X), getattr(theirs, method)(X), rtol=1e-12)


@pytest.mark.parametrize("model", ESTIMATORS)
def test_refit_replaces_the_model_and_keeps_old_arrays_alive(model):
    X, y = small_data(model)
    fitted = model(max_iter=2, random_state=0).fit(X, y)
    old, values = fitted.coefs_, [w.copy() for w in fitted.coefs_]
    fitted.set_params(random_state=1, hidden_layer_sizes=(6,)).fit(X[:, :4], y)
    assert fitted.n_features_in_ == 4
    assert fitted.coefs_[0].shape == (4, 6)
    for a, b in zip(old, values, strict=True):
        np.testing.assert_array_equal(a, b)


# Threads


def large_data(model, dtype):
    """Enough work in a step for two threads."""
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(600, 784)).astype(dtype)
    if model is MLPClassifier:
        return X, rng.randint(10, size=600)
    return X, rng.standard_normal((600, 3))


LARGE = {
    "hidden_layer_sizes": (256, 128),
    "batch_size": 200,
    "max_iter": 2,
    "random_state": 0,
}


@pytest.fixture
def parallel_calls(monkeypatch):
    """The names of the programs that ran on more than one thread."""
    if launch.thread_limit(2) < 2:
        pytest.skip("this machine allows one thread only")
    monkeypatch.setattr(threads.Pace, "_retry_at", 0.0)  # no earlier neighbour
    monkeypatch.setattr(launch, "_ended", {})  # nor a thread that may come back
    names = []
    call_helpers = threads.Team._call_helpers

    def counted(self, program, args, n_threads):
        assert n_threads == 2
        names.append(self._name)
        return call_helpers(self, program, args, n_threads)

    monkeypatch.setattr(threads.Team, "_call_helpers", counted)
    return names


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_fits_do_not_depend_on_the_number_of_threads(model, dtype, parallel_calls):
    X, y = large_data(model, dtype)
    two = model(n_jobs=2, **LARGE).fit(X, y)
    assert "train_steps" in parallel_calls
    parallel_calls.clear()
    one = model(n_jobs=1, **LARGE).fit(X, y)
    assert not parallel_calls
    assert one.loss_curve_ == two.loss_curve_
    for a, b in zip(
        one.coefs_ + one.intercepts_, two.coefs_ + two.intercepts_, strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_rows", [1, 2, 47, 599, 600])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_predictions_do_not_depend_on_threads_or_neighbours(
    model, n_rows, parallel_calls
):
    X, y = large_data(model, np.float64)
    fitted = model(n_jobs=1, **{**LARGE, "max_iter": 1}).fit(X, y)
    outputs = partial(
        MLPClassifier.predict_proba if model is MLPClassifier else model.predict
    )
    one = outputs(fitted, X)
    assert not parallel_calls
    fitted.set_params(n_jobs=2)
    np.testing.assert_array_equal(outputs(fitted, X[:n_rows]), one[:n_rows])
    assert ("predict_rows" in parallel_calls) or n_rows < 47


def test_subclasses_have_their_own_parameters():
    class Narrow(MLPClassifier):
        def __init__(self, width=5):
            super().__init__((width,))
            self.width = width

    for model in ESTIMATORS:
        names = sorted(inspect.signature(model).parameters)
        for _ in range(2):
            assert list(model().get_params()) == names
    assert clone(Narrow(3)).get_params() == {"width": 3}
    assert clone(Narrow(3)).set_params(width=4).width == 4


@pytest.mark.parametrize("n_jobs", [None, -1, 2])
def test_run_after_run_is_equal(n_jobs):
    X, y = large_data(MLPClassifier, np.float32)
    model = MLPClassifier(n_jobs=n_jobs, **LARGE)
    first = model.fit(X, y).predict_proba(X)
    for _ in range(3):
        np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)


def test_fits_in_a_second_python_thread():
    X, y = large_data(MLPRegressor, np.float32)
    results = []

    def fit():
        results.append(MLPRegressor(**LARGE).fit(X, y).predict(X))

    expected = MLPRegressor(**LARGE).fit(X, y).predict(X)
    thread = threading.Thread(target=fit)
    with pytest.MonkeyPatch.context() as patch:
        # a warning in a thread is printed; an error would be lost
        patch.setattr(threading, "excepthook", lambda args: results.append(args))
        thread.start()
        thread.join()
    assert len(results) == 1
    np.testing.assert_array_equal(results[0], expected)
