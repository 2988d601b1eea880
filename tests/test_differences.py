"""Where fastbp differs from scikit-learn on purpose: README's table, line by line."""

import copy
import warnings

import numpy as np
import pytest
from numba import njit
from scipy.optimize import approx_fprime
from sklearn import neural_network as reference
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter

from fastbp import MLPClassifier, MLPRegressor, lbfgs, network, training
from fastbp.initial import initial_weights

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:overflow:RuntimeWarning",
    "ignore:invalid value:RuntimeWarning",
)
X, Y = make_classification(150, 8, n_informative=6, n_classes=3, random_state=0)
T = make_regression(150, 8, n_targets=2, random_state=0)[1] / 50
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 3, "batch_size": 40}
#: Rounding over a few epochs of a small network in float64.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def assert_same_weights(one, other):
    for a, b in zip(
        one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True
    ):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_a_warm_refit_that_finds_nothing_better_restores_the_best_weights():
    model = MLPClassifier(**SMALL | {"max_iter": 20}, early_stopping=True)
    best = copy.deepcopy(model.fit(X, Y))
    # at a rate that ruins the model at once
    model.set_params(warm_start=True, solver="sgd", learning_rate_init=100.0).fit(X, Y)
    assert len(model.validation_scores_) > len(best.validation_scores_)
    assert model.best_validation_score_ == best.best_validation_score_
    assert_same_weights(model, best)


def test_partial_fit_goes_on_drawing_where_it_stopped():
    # scikit-learn does the same when it is given a generator in place of its seed
    ours = MLPClassifier(**SMALL)
    theirs = reference.MLPClassifier(**SMALL).set_params(
        random_state=np.random.RandomState(3)
    )
    for _ in range(3):
        ours.partial_fit(X, Y, classes=[0, 1, 2])
        theirs.partial_fit(X, Y, classes=[0, 1, 2])
    assert_same_weights(ours, theirs)
    # the first call after a fit is scikit-learn's with the seed itself
    ours.fit(X, Y).partial_fit(X, Y)
    theirs.set_params(random_state=3).fit(X, Y).partial_fit(X, Y)
    assert_same_weights(ours, theirs)
    # and another seed is heard
    again = copy.deepcopy(ours).set_params(random_state=4).partial_fit(X, Y)
    assert not np.array_equal(again.coefs_[0], ours.partial_fit(X, Y).coefs_[0])


@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_lbfgs_has_no_partial_fit(model):
    assert not hasattr(model(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'") as error:
        model(solver="lbfgs").partial_fit(X, Y)
    assert "lbfgs is not stochastic" in str(error.value.__cause__)


def test_a_diverging_fit_with_early_stopping_keeps_the_best_weights():
    model = MLPRegressor(
        hidden_layer_sizes=(50,),
        activation="identity",
        solver="sgd",
        learning_rate_init=0.02,
        momentum=0.0,
        max_iter=300,
        early_stopping=True,
        random_state=0,
    )
    with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
        model.fit(X * 3, T)
    assert not np.isfinite(model.loss_)
    assert not np.isfinite(model.validation_scores_[-1])
    assert model.n_iter_ < 300
    assert np.isfinite(model.best_validation_score_)
    assert np.isfinite(model.predict(X)).all()
    # no epoch with a finite score: nothing worth keeping
    with pytest.raises(ValueError, match="non-finite"):
        model.set_params(learning_rate_init=1e200).fit(X * 3, T)


def test_poisson_rejects_negative_targets():
    model = MLPRegressor("poisson", **SMALL)
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"negative.*the smallest is -1"):
            fit(X, np.where(np.arange(150) == 7, -1.0, 1.0))
    assert not hasattr(model, "coefs_")


def objective(activation="tanh", alpha=0.3, outputs=2):
    units = (8, 5, outputs)
    plan = network.layout(units, activation, "identity", np.dtype(float))
    weights = network.Weights(
        *initial_weights(units, activation, np.random.RandomState(0), float)
    )
    options = MLPRegressor(alpha=alpha)
    weight = np.random.RandomState(1).uniform(0.5, 2, 150)
    rows = training.Rows(X, T[:, :outputs].copy(), weight, np.arange(150))
    return lbfgs.Objective(plan, weights, options, rows)


@pytest.mark.parametrize("outputs", [1, 2])
def test_lbfgs_sees_a_loss_and_its_own_gradient(outputs):
    function = objective(outputs=outputs)
    x = function.start()
    _, gradient = function(x)
    numeric = approx_fprime(x, lambda x: function(x)[0], 1e-6)
    # forward differences err by about the step times the curvature, of order 1
    np.testing.assert_allclose(gradient[gradient != 0], numeric[gradient != 0], atol=1e-4)
    # padding has no gradient, and the loss does not depend on it
    assert np.abs(numeric[gradient == 0]).max(initial=0) <= 1e-4


def test_lbfgs_minimises_the_sum_over_several_outputs():
    options = {"solver": "lbfgs", "max_iter": 300, "tol": 1e-9, "alpha": 0.0}
    ours = MLPRegressor(**SMALL | options).fit(X, T)
    theirs = reference.MLPRegressor(**SMALL | options).fit(X, T)
    squares = ((ours.predict(X) - T) ** 2).sum(axis=0)
    assert ours.loss_ == pytest.approx(squares.sum() / 2 / len(X))
    # which is where the gradient vanishes that scikit-learn computes, but not its loss
    assert theirs.loss_ == pytest.approx(((theirs.predict(X) - T) ** 2).mean() / 2)


def test_a_batch_without_weight_is_left_out():
    weight = np.ones(150)
    weight[50:100] = 0
    options = {"shuffle": False, "batch_size": 50}
    if has_fit_parameter(reference.MLPClassifier(), "sample_weight"):  # since 1.7
        with pytest.raises(ZeroDivisionError):
            reference.MLPClassifier(**SMALL | options).fit(X, Y, sample_weight=weight)
    ours = MLPClassifier(**SMALL | options).fit(X, Y, sample_weight=weight)
    kept = weight > 0
    without = MLPClassifier(**SMALL | options).fit(X[kept], Y[kept])
    for a, b in zip(ours.coefs_, without.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    # the loss of an epoch counts all rows, those of the batch with a loss of zero
    np.testing.assert_allclose(
        ours.loss_curve_, np.array(without.loss_curve_) * 100 / 150, rtol=1e-12
    )


def test_early_stopping_holds_out_scikit_learns_rows():
    # the scores of an untrained network tell the rows apart
    for y in (Y, Y > 0, np.eye(3, dtype=int)[Y]):
        options = SMALL | {"early_stopping": True, "validation_fraction": 0.3}
        ours = MLPClassifier(**options).fit(X, y)
        theirs = reference.MLPClassifier(**options).fit(X, y)
        assert ours.validation_scores_ == theirs.validation_scores_
        assert_same_weights(ours, theirs)


def test_chunks_of_partial_fit_may_lack_classes_whatever_warm_start_says():
    some = Y < 2
    chunks = [(X, Y), (X[some], Y[some])]
    models = [MLPClassifier(**SMALL, warm_start=warm) for warm in (False, True)]
    for model in models:
        for chunk in chunks:
            model.partial_fit(*chunk, classes=[0, 1, 2])
    assert_same_weights(*models)


@pytest.mark.parametrize("first", ["adam", "lbfgs", "early"])
def test_a_warm_refit_may_change_solver_and_early_stopping(first):
    options = {"early": {"early_stopping": True}}.get(first, {"solver": first})
    model = MLPClassifier(**SMALL | options, warm_start=True).fit(X, Y)
    for change in (
        {"solver": "adam", "early_stopping": True},
        {"solver": "sgd", "early_stopping": False},
        {"solver": "lbfgs"},
        {"solver": "adam", "early_stopping": True},
    ):
        before = [w.copy() for w in model.coefs_]
        # so small a rate that no weight moves by more than rounding
        model.set_params(**change, learning_rate_init=1e-15).fit(X, Y)
        if model.solver != "lbfgs":
            for a, b in zip(model.coefs_, before, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        if change.get("early_stopping"):
            assert max(model.validation_scores_) == model.best_validation_score_


def test_partial_fit_takes_a_new_optimizer_when_the_solver_changed():
    model = MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1, 2])
    changed = copy.deepcopy(model).set_params(solver="sgd", learning_rate_init=0.05)
    begun = MLPClassifier(**SMALL, solver="sgd", learning_rate_init=0.05, warm_start=True)
    begun.coefs_, begun.intercepts_ = model.coefs_, model.intercepts_
    begun.t_ = 0
    changed.random_state = begun.random_state = 8
    changed.partial_fit(X, Y)
    begun.partial_fit(X, Y, classes=[0, 1, 2])
    assert_same_weights(changed, begun)


@pytest.mark.parametrize("sizes", [(5,), (6, 6), ()])
def test_a_warm_refit_of_another_shape_names_both(sizes):
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    before = copy.deepcopy(model)
    model.set_params(hidden_layer_sizes=sizes)
    with pytest.raises(ValueError, match=r"\(8, 6, 3\)") as error:
        model.fit(X, Y)
    assert str((8, *sizes, 3)) in str(error.value)
    assert_same_weights(model, before)
    np.testing.assert_array_equal(
        model.set_params(hidden_layer_sizes=(6,)).predict(X), before.predict(X)
    )


@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_partial_fit_with_early_stopping_changes_nothing(model):
    estimator = model(early_stopping=True)
    before = set(vars(estimator))
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        estimator.partial_fit(X, Y)
    assert set(vars(estimator)) == before


def test_a_warm_refit_with_another_loss_has_its_output():
    model = MLPRegressor(**SMALL, warm_start=True).fit(X, T)
    model.set_params(loss="poisson").fit(X, np.abs(T))
    assert model.out_activation_ == "exp"
    assert np.isfinite(model.loss_curve_).all()
    assert (model.predict(X) > 0).all()


def test_a_warm_refit_with_another_loss_begins_its_best_anew():
    # weights of the old loss mean nothing behind the new output, nor does its best score
    y = np.maximum(5 + X[:, 0], 0.1)
    model = MLPRegressor(**SMALL | {"max_iter": 500}, early_stopping=True)
    model.set_params(learning_rate_init=0.01, warm_start=True).fit(X, y)
    assert model.n_iter_ < 500  # it was stopped, so patience is at its end
    model.set_params(loss="poisson").fit(X, y)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert len(model.validation_scores_) == model.n_iter_ > 1
    assert model.score(X, y) > 0.5  # e to the power of the old outputs is far off


@pytest.mark.parametrize(
    ("first", "change"),  # each makes the loss larger
    [
        ({}, {"label_smoothing": 0.2}),
        ({}, {"dropout": 0.5}),
        ({"class_weight": {0: 0.1, 1: 3.0}}, {"class_weight": None}),
    ],
)
def test_a_warm_refit_for_another_objective_has_its_own_best_loss(first, change):
    model = MLPClassifier(**SMALL | {"max_iter": 2000}, tol=1e-3, warm_start=True)
    before = model.set_params(**first).fit(X, Y).best_loss_
    model.set_params(**change).fit(X, Y)
    assert model.n_iter_ > model.n_iter_no_change  # no loss was compared with another's
    assert model.best_loss_ == min(model.loss_curve_[-model.n_iter_ :]) > before


def test_a_warm_refit_with_another_own_loss_has_its_own_best_loss():
    @njit
    def squared_error(y, z, gradient):
        gradient[0] = z[0] - y[0]
        return gradient[0] ** 2 / 2

    @njit
    def a_thousandth(y, z, gradient):
        gradient[0] = (z[0] - y[0]) / 1000
        return (z[0] - y[0]) ** 2 / 2000

    model = MLPRegressor(**SMALL, loss=a_thousandth, warm_start=True).fit(X, T[:, 0])
    model.set_params(loss=squared_error, max_iter=100).fit(X, T[:, 0])
    assert model.n_iter_ > model.n_iter_no_change + 2  # none was compared with another's
    assert model.best_loss_ == min(model.loss_curve_[-model.n_iter_ :])


def test_a_model_predicts_in_its_own_dtype():
    for few_or_many in (X[:2], X):
        for fitted, asked in ((np.float32, np.float64), (np.float64, np.float32)):
            model = MLPRegressor(**SMALL).fit(X.astype(fitted), T)
            predicted = model.predict(few_or_many.astype(asked))
            assert predicted.dtype == fitted
            np.testing.assert_allclose(
                predicted,
                model.predict(few_or_many.astype(fitted)),
                rtol=1e-4,  # rows rounded to float32
                atol=1e-5,
            )


def test_errors_on_targets_do_not_print_them_all():
    with pytest.raises(ValueError, match="Unknown label type: continuous") as error:
        MLPClassifier(**SMALL).fit(X, T[:, 0])
    assert len(str(error.value)) < 250


def test_float32_stays_float32_throughout():
    for model in (
        MLPRegressor(**SMALL),
        MLPRegressor(**SMALL, solver="sgd"),
        MLPRegressor(**SMALL, solver="lbfgs"),
    ):
        model.fit(X.astype(np.float32), T)
        moments = getattr(model, "_optimizer", None)
        moments = [w for m in moments.moments for w in (*m.coefs,)] if moments else []
        for w in (*model.coefs_, *model.intercepts_, *moments):
            assert w.dtype == np.float32
        assert model.predict(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_infinite_loss_is_an_error_even_with_finite_weights(solver):
    # the square of the error overflows, its gradient does not
    model = MLPRegressor(solver=solver, max_iter=50, random_state=0)
    with pytest.raises(ValueError, match=r"produced a non-finite loss.*in epoch [01]:"):
        model.fit(X, T * 1e160)
    assert not hasattr(model, "coefs_")
    model.fit(X, T)


def test_an_infinite_poisson_loss_alone_is_no_error():
    # y > 0 with a prediction that underflows: the loss is inf, the gradient finite
    y = np.zeros(20)
    y[0] = 1.0
    model = MLPRegressor("poisson", (), alpha=0.0, max_iter=1, random_state=0)
    model.fit(np.full((20, 1), 0.1), y)
    model.intercepts_[0][:] = -1000.0
    estimators = [model]
    if "loss" in reference.MLPRegressor().get_params():  # since 1.7
        estimators.append(model.to_sklearn())
    for estimator in estimators:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.partial_fit(np.full((20, 1), 0.1), y)
    assert model.loss_ == np.inf
    assert np.isfinite(model.coefs_[0]).all()
