"""scikit-learn's callbacks hear of every epoch."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV

from fastbp import MLPClassifier, MLPRegressor

pytest.importorskip("sklearn.callback", reason="new in scikit-learn 1.9")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = make_classification(90, 6, random_state=0)


class Recorder:
    """Writes down what it is told, and stops the fit after so many epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []
        self.models = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X, y):
        sizes = [None if data is None else len(data) for data in (X, y)]
        self.events.append(("begin", context.task_name, *sizes))

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        self.events.append(("end", context.task_name))
        if context.task_name == "epoch":
            self.models.append(fitted_estimator)
            return len(self.models) == self.stop_after
        return False


@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_every_epoch_is_told_with_a_model_that_predicts(model, solver):
    recorder = Recorder()
    estimator = model(hidden_layer_sizes=(5,), solver=solver, max_iter=3, random_state=0)
    estimator.set_callbacks(recorder).fit(X, Y)
    epoch = [("begin", "epoch", 90, 90), ("end", "epoch")]
    assert recorder.events == [
        "setup",
        ("begin", "fit", 90, 90),
        *(epoch * 3),
        ("end", "fit"),
        "teardown",
    ]
    for n, seen in enumerate(recorder.models, 1):
        alone = clone(estimator).set_params(max_iter=n).set_callbacks().fit(X, Y)
        # a fit of n epochs is the fit of 3 epochs after n of them
        np.testing.assert_allclose(seen.predict(X), alone.predict(X), rtol=1e-12)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_stops_the_fit(solver):
    recorder = Recorder(stop_after=2)
    model = MLPClassifier((5,), solver=solver, max_iter=50, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == 2
    assert recorder.events[-2:] == [("end", "fit"), "teardown"]


def test_partial_fit_is_one_epoch_and_tears_down():
    recorder = Recorder()
    model = MLPClassifier((5,), random_state=0).set_callbacks(recorder)
    for _ in range(2):
        model.partial_fit(X, Y, classes=[0, 1])
    one = ["setup", ("begin", "fit", 90, 90), ("begin", "epoch", 90, 90)]
    one += [("end", "epoch"), ("end", "fit"), "teardown"]
    assert recorder.events == one * 2
    assert "_callback_fit_ctx" not in vars(model)


def test_a_failing_fit_tears_the_callbacks_down():
    recorder = Recorder()
    model = MLPRegressor(solver="sgd", learning_rate_init=1e200, random_state=0)
    with pytest.raises(ValueError, match="non-finite"):
        model.set_callbacks(recorder).fit(X, Y)
    assert recorder.events[-1] == "teardown"


def test_epochs_inside_a_search_are_told():
    class Propagated(Recorder):
        max_propagation_depth = None

    recorder = Propagated()
    search = GridSearchCV(
        MLPClassifier((4,), max_iter=2, random_state=0), {"alpha": [0.1, 1.0]}, cv=2
    )
    search.set_callbacks(recorder).fit(X, Y)
    # 2 candidates x 2 folds, and the refit
    assert recorder.events.count(("end", "epoch")) == 5 * 2


def test_without_callbacks_nothing_is_kept():
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, Y)
    assert not [name for name in vars(model) if "callback" in name]


class Fails(Recorder):
    """Raises when the fit is over."""

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "fit":
            raise RuntimeError("disk full")
        return False


def test_an_error_at_the_end_of_a_fit_leaves_the_model_as_it_was():
    model = MLPClassifier(max_iter=3, random_state=0).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(RuntimeError, match="disk full"):
        model.set_callbacks(Fails()).fit(X[:, :5], Y)
    assert np.array_equal(model.predict_proba(X), before)
    assert model.n_features_in_ == len(model.coefs_[0]) == X.shape[1]
    new = MLPClassifier(max_iter=3).set_callbacks(Fails())
    with pytest.raises(RuntimeError, match="disk full"):
        new.fit(X, Y)
    assert not [name for name in vars(new) if name.endswith("_")]
