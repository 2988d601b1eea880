"""Options that scikit-learn does not have: closed forms, statistics, behaviour."""

import copy
import pickle
import re
import sys

import numpy as np
import pytest
import sklearn
from numba import njit
from scipy import special
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import (
    d2_pinball_score,
    log_loss,
    mean_gamma_deviance,
    mean_pinball_loss,
)
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.class_weight import compute_class_weight

from fastbp import LossCurveDisplay, MLPClassifier, MLPRegressor, cache, lbfgs, training
from fastbp.initial import initial_weights
from fastbp.schedules import batch_rates

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_digits(n_class=4, return_X_y=True)
X, X_VAL, Y, Y_VAL = train_test_split(X / 16, Y, random_state=0)
RNG = np.random.default_rng(0)
T = X[:, 20:22] + 0.1 * RNG.standard_normal((len(X), 2))
QUICK = {"hidden_layer_sizes": (30, 9), "max_iter": 4, "random_state": 0}
#: All at once, of those that need not exclude each other.
MIXED = {
    **{"activation": ["gelu", "elu"], "solver": "nadam", "dropout": [0.2, 0.1]},
    **{"weight_decay": 0.1, "max_grad_norm": 0.5, "learning_rate": "one_cycle"},
    **{"init": "he_normal", "restore_best_weights": True},
}


def same(a, b):
    """Whether two models have the same bits."""
    pairs = zip((*a.coefs_, *a.intercepts_), (*b.coefs_, *b.intercepts_), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


# ------------------------------------------------------------- activations

Z = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0, -40.0, 40.0, 1e-9, -1e-9]])
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
#: Closed forms and their derivatives.
FORMS = {
    "leaky_relu": (
        lambda z: np.where(z > 0, z, 0.01 * z),
        lambda z: np.where(z > 0, 1.0, 0.01),
    ),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(z)),
        lambda z: np.where(z > 0, 1.0, np.exp(z)),
    ),
    "selu": (
        lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(z)),
        lambda z: SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * np.exp(z)),
    ),
    "gelu": (
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
    ),
    "silu": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) * (1 + z * special.expit(-z)),
    ),
    "mish": (
        lambda z: z * np.tanh(np.logaddexp(0, z)),
        lambda z: (
            np.tanh(np.logaddexp(0, z))
            + z * special.expit(z) / np.cosh(np.logaddexp(0, z)) ** 2
        ),
    ),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
}


def one_unit(activation, dtype):
    """A network that predicts f(x)."""
    model = MLPRegressor(
        "squared_error", (1,), activation, solver="sgd", max_iter=1, alpha=0.0
    )
    model.set_params(momentum=0.0, shuffle=False, batch_size=1)
    model.fit(np.zeros((1, 1), dtype), [0.0])
    model.coefs_ = [np.ones((1, 1), dtype), np.ones((1, 1), dtype)]
    model.intercepts_ = [np.zeros(1, dtype), np.zeros(1, dtype)]
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", FORMS)
def test_activations_are_their_closed_forms(activation, dtype):
    z = Z.astype(dtype)
    f, slope = FORMS[activation]
    model, eps = one_unit(activation, dtype), np.finfo(dtype).eps
    found = model.predict(z[:, None])
    assert found.dtype == dtype
    # a few roundings of the largest number in the formula, which is 1 or |z|
    error = 8 * eps * np.maximum(1, np.abs(Z))
    assert (np.abs(found - f(z.astype(float))) <= error).all()
    # one step of plain descent from an error of 1, at one point after the other
    for x in z[::173]:
        model = one_unit(activation, dtype).set_params(warm_start=True)
        target = model.predict(np.full((1, 1), x)) - 1
        model.set_params(learning_rate_init=1.0).fit(np.full((1, 1), x), target)
        moved = -model.intercepts_[0][0]  # rate * error * f'(z)
        assert abs(moved - slope(float(x))) <= 16 * eps * max(1, abs(float(x)))


@pytest.mark.parametrize("activation", FORMS)
def test_activations_hand_on_nan(activation):
    with np.errstate(all="ignore"):
        model = one_unit(activation, np.float64)
        model.intercepts_[0][:] = np.nan
        assert np.isnan(model.predict(np.ones((9, 1)))).all()


def test_one_activation_a_layer_is_one_for_all():
    a = MLPClassifier(**QUICK, activation="mish").fit(X, Y)
    b = MLPClassifier(**QUICK, activation=("mish", "mish")).fit(X, Y)
    assert same(a, b)
    plain = MLPClassifier(**QUICK, activation="tanh").fit(X, Y)
    listed = MLPClassifier(**QUICK, activation=["tanh", "tanh"]).fit(X, Y)
    assert same(plain, listed)
    np.testing.assert_array_equal(plain.predict_proba(X[:1]), listed.predict_proba(X[:1]))


# ------------------------------------------------------------- dropout


def kept_units(seed, step, layer, rows, units, rate):
    """Which units stay, from the definition of the random numbers, in plain integers."""

    def splitmix(a, b):
        x = (a + (b + 1) * 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    key = splitmix(splitmix(seed, step), layer)
    x = np.arange(rows * units, dtype=np.uint64)
    for half in (key % 2**32, key >> 32):
        x ^= np.uint64(half)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            x ^= x >> np.uint64(shift)
            x = (x * np.uint64(factor)) % np.uint64(2**32)
    return (x < np.uint64((1 - rate) * 2**32)).reshape(rows, units)


def thinned_descent(model, seed, rates, rate, steps, batch):
    """Plain gradient descent on the squared error with dropout, tanh and NumPy."""
    coefs, intercepts = copy.deepcopy((model.coefs_, model.intercepts_))
    for step in range(1, steps + 1):
        rows = slice((step - 1) * batch % len(X), (step - 1) * batch % len(X) + batch)
        activations, slopes = [X[rows]], []
        for layer, p in enumerate(rates):
            a = np.tanh(activations[-1] @ coefs[layer] + intercepts[layer])
            stays = kept_units(seed, step, layer + 1, *a.shape, p) / (1 - p)
            slopes.append((1 - a * a) * stays)
            activations.append(a * stays)
        delta = activations[-1] @ coefs[-1] + intercepts[-1] - T[rows]
        deltas = [delta]
        for layer in range(len(rates), 0, -1):
            deltas.insert(0, deltas[0] @ coefs[layer].T * slopes[layer - 1])
        for W, b, a, d in zip(coefs, intercepts, activations, deltas, strict=True):
            W -= rate * a.T @ d / len(a)
            b -= rate * d.mean(axis=0)
    return coefs, intercepts


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_dropout_is_that_of_its_random_numbers(n_jobs):
    rates = (0.5, 0.2)
    model = MLPRegressor(
        **{**QUICK, "max_iter": 1, "activation": "tanh", "solver": "sgd"},
        **{"momentum": 0.0, "alpha": 0.0, "shuffle": False, "batch_size": 90},
        **{"dropout": rates, "n_jobs": n_jobs, "learning_rate_init": 0.2},
    )
    n = len(X) // 90 * 90
    first = copy.deepcopy(model).set_params(learning_rate_init=1e-30).fit(X[:n], T[:n])
    seed = first._optimizer.seed
    model.fit(X[:n], T[:n])
    wanted = thinned_descent(first, seed, rates, 0.2, n // 90, 90)
    for found, truth in zip(
        (*model.coefs_, *model.intercepts_), (*wanted[0], *wanted[1]), strict=True
    ):
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-13)  # sums of 90 rows


def test_dropouts_random_numbers_are_even_and_independent():
    """Binomial counts of rows, units and neighbours, five standard deviations wide."""
    rows, units, rate = 600, 500, 0.3
    one, two = (kept_units(7, step, 1, rows, units, rate) for step in (1, 2))
    other = kept_units(7, 1, 2, rows, units, rate)

    def is_even(hits, share):
        spread = np.sqrt(share * (1 - share) / hits.size)
        return abs(hits.mean() - share) < 5 * spread

    assert is_even(one, 1 - rate)
    both = (1 - rate) ** 2
    pairs = (
        *((one, two), (one, other)),
        *((one[1:], one[:-1]), (one[:, 1:], one[:, :-1])),
    )
    for a, b in pairs:
        assert is_even(a & b, both)
    for counts, n in ((one.sum(axis=0), rows), (one.sum(axis=1), units)):
        deviations = (counts - n * (1 - rate)) / np.sqrt(n * rate * (1 - rate))
        assert abs(deviations).max() < 5
        assert 0.8 < deviations.std() < 1.2


def test_dropout_predicts_with_all_units_and_follows_the_seed():
    a, b, c = (
        MLPClassifier(**{**QUICK, "random_state": seed}, dropout=0.4).fit(X, Y)
        for seed in (0, 0, 1)
    )
    assert same(a, b)
    assert not np.array_equal(a.coefs_[1], c.coefs_[1])
    assert not same(a, MLPClassifier(**QUICK).fit(X, Y))
    np.testing.assert_array_equal(a.predict_proba(X), a.predict_proba(X))
    hidden = np.maximum(0, X @ a.coefs_[0] + a.intercepts_[0])
    hidden = np.maximum(0, hidden @ a.coefs_[1] + a.intercepts_[1])
    truth = special.softmax(hidden @ a.coefs_[2] + a.intercepts_[2], axis=1)
    np.testing.assert_allclose(a.predict_proba(X), truth, rtol=1e-10)


def test_dropout_goes_on_over_partial_fit():
    whole = MLPClassifier(**{**QUICK, "max_iter": 3}, dropout=0.4, shuffle=False)
    parts = clone(whole)
    for _ in range(3):
        parts.partial_fit(X, Y, classes=np.unique(Y))
    assert same(whole.fit(X, Y), parts)


def test_dropout_that_comes_later_follows_the_seed():
    models = [MLPClassifier(**{**QUICK, "random_state": seed}) for seed in (0, 0, 1)]
    for model in models:
        model.partial_fit(X, Y, classes=range(4)).set_params(dropout=0.5)
        model.partial_fit(X, Y)
    assert same(models[0], models[1])
    assert models[0]._optimizer.seed != models[2]._optimizer.seed


# ------------------------------------------------------------- all together


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads_with_all_options(dtype):
    weights = RNG.uniform(0.5, 2, len(X))
    options = {**QUICK, **MIXED, "dtype": dtype, "class_weight": "balanced"}
    one, two = (
        MLPClassifier(**options, label_smoothing=0.1, n_jobs=n).fit(
            X, Y, weights, X_val=X_VAL, y_val=Y_VAL
        )
        for n in (1, 2)
    )
    assert same(one, two)
    assert one.loss_curve_ == two.loss_curve_
    assert one.validation_loss_curve_ == two.validation_loss_curve_


@pytest.mark.slow  # programs of its own to compile; ``.ci/run`` has it
@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_sparse_inputs_give_the_same_bits_with_all_options(model):
    thin = X * (RNG.random(X.shape) < 0.3)
    target = Y if model is MLPClassifier else T
    dense, sparse = (
        model(**QUICK, **MIXED, early_stopping=True).fit(data, target)
        for data in (thin, csr_array(thin))
    )
    assert same(dense, sparse)


def test_options_work_in_a_search_and_survive_a_pickle():
    grid = {"dropout": [0.0, 0.3], "solver": ["adamw", "rmsprop"]}
    search = GridSearchCV(MLPClassifier(**QUICK), grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    model = MLPClassifier(**QUICK, **MIXED).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert same(again.partial_fit(X, Y), model.partial_fit(X, Y))


def test_options_that_are_off_change_no_bit():
    plain = MLPClassifier(**QUICK).fit(X, Y)
    off = MLPClassifier(
        **QUICK,
        **{"dropout": [0.0, 0.0], "weight_decay": 0.0, "max_grad_norm": None},
        **{"class_weight": {k: 1.0 for k in range(4)}, "warmup_epochs": 0.0},
        **{"activation": ["relu", "relu"], "max_time": 1e9, "frozen_layers": 0},
    ).fit(X, Y)
    assert same(plain, off)


# ------------------------------------------------------------- class weights, losses


def test_class_weights_are_sample_weights():
    weight = {0: 3.0, 1: 0.5, 2: 1.0, 3: 2.0}
    by_class = MLPClassifier(**QUICK, class_weight=weight).fit(X, Y)
    by_row = MLPClassifier(**QUICK).fit(X, Y, [weight[label] for label in Y])
    assert same(by_class, by_row)
    rare = np.r_[np.flatnonzero(Y == 0)[:9], np.flatnonzero(Y > 0)]
    counts = np.bincount(Y[rare])
    balanced = MLPClassifier(**QUICK, class_weight="balanced").fit(X[rare], Y[rare])
    by_row = MLPClassifier(**QUICK)
    by_row.fit(X[rare], Y[rare], (len(rare) / (4 * counts))[Y[rare]])
    assert same(balanced, by_row)


def test_balanced_weights_take_a_weight_of_two_for_two_rows():
    weights = RNG.integers(0, 3, len(X))
    weights[Y == 2] *= 3
    options = {**QUICK, "solver": "lbfgs", "class_weight": "balanced"}
    weighted = MLPClassifier(**options).fit(X, Y, weights)
    rows = np.repeat(np.arange(len(X)), weights)
    repeated = MLPClassifier(**options).fit(X[rows], Y[rows])
    # sums in another order
    np.testing.assert_allclose(
        weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-6
    )
    if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9):  # counts them too
        truth = compute_class_weight(
            "balanced", classes=np.arange(4), y=Y, sample_weight=weights
        )
        by_row = MLPClassifier(**{**QUICK, "solver": "lbfgs"})
        assert same(weighted, by_row.fit(X, Y, weights * truth[Y]))


def test_class_weights_multiply_sample_weights_and_weigh_validation_rows():
    rows, weight = RNG.uniform(0.5, 2, len(X)), {0: 3.0, 1: 0.5, 2: 1.0, 3: 2.0}
    of_class = np.array([weight[label] for label in Y])
    both = MLPClassifier(**QUICK, class_weight=weight, early_stopping=True)
    both.fit(X, Y, rows)
    product = MLPClassifier(**QUICK, early_stopping=True).fit(X, Y, rows * of_class)
    assert same(both, product)
    assert both.validation_scores_ == product.validation_scores_


def test_balanced_weights_of_validation_rows_are_those_of_the_training_classes():
    few = np.r_[np.flatnonzero(Y == 0)[:9], np.flatnonzero(Y > 0)]
    model = MLPClassifier(**QUICK, class_weight="balanced")
    model.fit(X[few], Y[few], X_val=X_VAL, y_val=Y_VAL)
    weights = (len(few) / (4 * np.bincount(Y[few])))[Y_VAL]
    truth = log_loss(Y_VAL, model.predict_proba(X_VAL), sample_weight=weights)
    assert model.validation_loss_curve_[-1] == pytest.approx(truth)


def test_class_weights_for_labels_that_are_not_there():
    model = MLPClassifier(**QUICK, class_weight={3: 5.0})  # not in every chunk
    by_row = MLPClassifier(**QUICK)
    for rows in (Y < 3, Y > 1):
        model.partial_fit(X[rows], Y[rows], classes=range(4))
        weights = np.where(Y[rows] == 3, 5.0, 1.0)
        by_row.partial_fit(X[rows], Y[rows], weights, classes=range(4))
    assert same(model, by_row)
    more = MLPClassifier(**QUICK, class_weight={0: 2, 1: 2, 2: 2, 3: 2, 7: 5})
    assert same(more.fit(X, Y), MLPClassifier(**QUICK).fit(X, Y, np.full(len(X), 2.0)))
    # a slip, as in scikit-learn
    with pytest.raises(ValueError, match=r"The classes, \[1, 2, 3\], are not in class_w"):
        MLPClassifier(class_weight={0: 2.0, "1": 2.0}).fit(X, Y)
    for bad in (np.nan, np.inf, None, "2"):
        with pytest.raises(ValueError, match=r"class_weight\[0\] must be a number"):
            MLPClassifier(class_weight={0: bad}).fit(X, Y)
    with pytest.raises(ValueError, match="class_weight is for one label a row"):
        MLPClassifier(class_weight="balanced").fit(X, np.eye(4, dtype=int)[Y])


def test_balanced_weights_are_not_for_partial_fit():
    model = MLPClassifier(**QUICK, class_weight="balanced")
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        model.partial_fit(X, Y, classes=range(4))


def test_smoothed_targets_of_two_classes_and_of_labels():
    """The loss of a network that knows nothing is that of a coin, whatever the labels."""
    for y in (Y > 1, np.eye(4, dtype=int)[Y]):
        model = MLPClassifier(**QUICK, label_smoothing=0.2, alpha=0.0, warm_start=True)
        model.set_params(max_iter=1, learning_rate_init=1e-30).fit(X, y)
        model.coefs_ = [np.zeros_like(W) for W in model.coefs_]
        model.intercepts_ = [np.zeros_like(b) for b in model.intercepts_]
        outputs = model.n_outputs_
        assert model.fit(X, y).loss_curve_[-1] == pytest.approx(outputs * np.log(2))
        model.intercepts_[-1][:] = 0.7
        p, t = special.expit(0.7), y.reshape(len(X), -1) * 0.8 + 0.1
        truth = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1).mean()
        assert model.fit(X, y).loss_curve_[-1] == pytest.approx(truth)


def test_gamma_deviance_is_scikit_learns():
    y = np.exp(T[:, 0])
    model = MLPRegressor("gamma", **QUICK, alpha=0.0).fit(X, y, X_val=X, y_val=y)
    assert (model.predict(X) > 0).all()
    deviance = mean_gamma_deviance(y, model.predict(X))
    assert model.validation_loss_curve_[-1] == pytest.approx(deviance / 2)
    with pytest.raises(ValueError, match="y are not positive, which loss='gamma'"):
        model.fit(X, y - y.min())


def test_quantiles_cover_their_share_and_never_cross():
    """Uniform noise has known quantiles."""
    n, levels = 4000, [0.1, 0.5, 0.75]
    x = RNG.uniform(-1, 1, (n, 1))
    y = x[:, 0] + RNG.uniform(0, 1, n)
    model = MLPRegressor("quantile", quantile=levels, max_iter=150, random_state=0)
    model.set_params(
        learning_rate_init=0.01, learning_rate="cosine", n_iter_no_change=150
    ).fit(x, y)
    predicted = model.predict(x)
    assert predicted.shape == (n, 3)
    assert (np.diff(predicted, axis=1) >= 0).all()
    assert model.out_activation_ == "cumulative_softplus"
    shares = (y[:, None] <= predicted).mean(axis=0)
    # shares of 4,000 rows have a standard deviation of 0.008; what is left is training
    np.testing.assert_allclose(shares, levels, atol=0.03)
    np.testing.assert_allclose(predicted - x, [levels] * n, atol=0.12)
    scores = [d2_pinball_score(y, predicted[:, i], alpha=q) for i, q in enumerate(levels)]
    assert model.score(x, y) == pytest.approx(np.mean(scores))
    wild = model.predict(1e3 * RNG.standard_normal((500, 1)))
    assert (np.diff(wild, axis=1) >= 0).all()


def test_quantiles_and_outputs():
    with pytest.raises(ValueError, match="Several quantiles are of one target; y has 2"):
        MLPRegressor("quantile", quantile=[0.1, 0.9]).fit(X, T)
    assert MLPRegressor("quantile", **QUICK).fit(X, T).predict(X).shape == T.shape
    for bad in ([0.9, 0.1], [], [0.5, 1.0], [0.5, 0.5]):
        with pytest.raises(InvalidParameterError, match="The 'quantile' parameter of"):
            MLPRegressor("quantile", quantile=bad).fit(X, T[:, 0])


@njit
def halved_squares(y, z, gradient):
    """The squared error as fastbp has it for one output."""
    loss = 0.0
    for o in range(len(y)):
        d = z[o] - y[o]
        loss += d * d / 2
        gradient[o] = d
    return loss


@njit
def wrong_gradient(y, z, gradient):
    """A loss whose gradient has the wrong sign."""
    gradient[0] = y[0] - z[0]
    return (y[0] - z[0]) ** 2 / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_own_loss_is_the_built_in_one(dtype, solver):
    y = T[:, 0]
    options = {**QUICK, "dtype": dtype, "solver": solver}
    built_in = MLPRegressor(**options).fit(X, y)
    own = MLPRegressor(halved_squares, **options)
    own.fit(X, y, **({} if solver == "lbfgs" else {"X_val": X_VAL, "y_val": X_VAL[:, 3]}))
    assert own.loss_ == pytest.approx(built_in.loss_, rel=1e-5)
    tolerance = 1e-5 if dtype == "float32" else 1e-11  # steps of Adam, of a line search
    np.testing.assert_allclose(own.predict(X), built_in.predict(X), atol=tolerance)
    two = MLPRegressor(halved_squares, **options, n_jobs=2).fit(X, T)
    assert same(two, MLPRegressor(halved_squares, **options, n_jobs=1).fit(X, T))


@njit
def poisson_of_logarithms(y, z, gradient):
    """For counts, with a link of its own."""
    gradient[0] = np.exp(z[0]) - y[0]
    return np.exp(z[0]) - y[0] * z[0]


@njit
def refuses_much(y, z, gradient):
    """A loss that raises."""
    if z[0] > 3:
        raise ValueError("too much")
    gradient[0] = z[0] - y[0] - 1000
    return (z[0] - y[0] - 1000) ** 2 / 2


@njit
def says_nothing(y, z, gradient):
    """A loss that returns none."""
    gradient[0] = 1.0


def test_own_losses_of_other_links_and_sizes():
    counts = RNG.poisson(1000, len(X))
    MLPRegressor(poisson_of_logarithms, **QUICK).fit(X, counts)
    MLPRegressor(halved_squares, **QUICK).fit(X, 1e9 * T)
    with pytest.raises(TypeError, match="must return a float, got None"):
        MLPRegressor(says_nothing, **QUICK).fit(X, T[:, 0])


def test_an_own_loss_that_raises_is_a_training_that_diverges(capfd):
    model = MLPRegressor(refuses_much, **{**QUICK, "max_iter": 500}, tol=0.0)
    with pytest.raises(ValueError, match="Solver produced a non-finite loss"):
        model.set_params(learning_rate_init=0.1).fit(X, T[:, 0] - 2)
    assert capfd.readouterr().err == ""


def test_an_own_loss_that_raises_on_validation_rows_loses_no_model():
    model = MLPRegressor(refuses_much, **{**QUICK, "max_iter": 500}, tol=0.0)
    model.set_params(learning_rate_init=0.1, restore_best_weights=True)
    y = T[:, 0] - 2
    with pytest.warns(ConvergenceWarning, match="diverged.*best validation score"):
        model.fit(X, y, X_val=X, y_val=y)
    assert np.isfinite(model.score(X, y))
    assert np.isnan(model.validation_loss_curve_[-1])


def test_the_poisson_loss_of_nothing_where_nothing_is_predicted_is_0():
    rows, none = np.ones((40, 1), np.float32), np.zeros(40)
    model = MLPRegressor("poisson", hidden_layer_sizes=(), max_iter=1, warm_start=True)
    model.fit(rows, none + 1)
    model.intercepts_[0][:] = -200  # e to this power is 0 in float32
    model.set_params(learning_rate_init=1e-30).fit(rows, none, X_val=rows, y_val=none)
    assert model.validation_loss_curve_ == [0.0]


def test_an_own_loss_must_be_compiled_and_have_its_gradient():
    with pytest.raises(TypeError, match=r"function that numba\.njit has compiled"):
        MLPRegressor(lambda y, z, g: 0.0).fit(X, T)
    with pytest.raises(TypeError, match=r"function of \(y, z, gradient\).* of 2 param"):
        MLPRegressor(njit(lambda y, z: 0.0)).fit(X, T)
    with pytest.raises(ValueError, match="The loss and its gradient do not fit"):
        MLPRegressor(wrong_gradient).fit(X, T[:, 0])


@njit
def forgets_the_last(y, z, gradient):
    """Squares, but one derivative is never written."""
    loss = 0.0
    for o in range(len(y)):
        loss += (z[o] - y[o]) ** 2
    for o in range(len(y) - 1):
        gradient[o] = 2 * (z[o] - y[o])
    return loss


@njit
def small_with_the_wrong_sign(y, z, gradient):
    """A loss of small numbers."""
    gradient[0] = 1e-4 * (y[0] - z[0])
    return 1e-4 * (y[0] - z[0]) ** 2 / 2


@njit
def writes_nothing(y, z, gradient):
    """A loss of small numbers without a gradient."""
    return 1e-4 * (y[0] - z[0]) ** 2 / 2


@njit
def wrong_above(y, z, gradient):
    """A loss of three times the distance above the target, whose slope is 1 there."""
    d = z[0] - y[0]
    gradient[0] = 1.0 if d > 0 else -1.0
    return 3 * d if d > 0 else -d


@njit
def small_distances(y, z, gradient):
    """Small numbers, kinks at whole numbers, an output without weight: all as it is."""
    loss = 0.0
    for o in range(len(y)):
        d = 1e-6 * (z[o] - y[o]) if o > 0 else 0.0
        loss += abs(d)
        gradient[o] = np.sign(d) * 1e-6
    return loss


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (forgets_the_last, np.c_[T, T[:, 0]]),
        (small_with_the_wrong_sign, T[:, 0]),
        (writes_nothing, T[:, 0]),
        (wrong_above, T[:, 0]),
    ],
)
@pytest.mark.parametrize("first", [0, 20, 40])
def test_a_slip_in_the_gradient_is_an_error(loss, y, first):
    with pytest.raises(ValueError, match="The loss and its gradient do not fit"):
        MLPRegressor(loss, **QUICK).fit(X[first:], y[first:])


@pytest.mark.parametrize("size", [10, 1e6])
def test_small_losses_with_kinks_are_no_slip(size):
    MLPRegressor(small_distances, **QUICK).fit(X, np.round(size * T))


# ------------------------------------------------------------- weights and schedules


@pytest.mark.parametrize(("init", "variance"), [("he_normal", 2), ("lecun_normal", 1)])
def test_normal_weights_have_their_variance(init, variance):
    coefs, intercepts = initial_weights(
        (400, 300, 5), "relu", np.random.RandomState(0), np.float64, init
    )
    W = coefs[0]
    spread = np.sqrt(2 / W.size)  # of a sample variance, relative
    assert W.var() * 400 == pytest.approx(variance, rel=5 * spread)
    assert abs(W.mean()) < 5 * W.std() / np.sqrt(W.size)
    assert not any(b.any() for b in intercepts)


def test_orthogonal_weights_are_orthonormal_and_turned_every_way():
    shapes = [(90, 30), (30, 90), (40, 40)]
    for shape in shapes:
        W = initial_weights(shape, "relu", np.random.RandomState(0), float, "orthogonal")
        W = W[0][0]
        gram = W.T @ W if shape[0] >= shape[1] else W @ W.T
        np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-13)
    signs = [
        initial_weights((3, 3), "relu", np.random.RandomState(s), float, "orthogonal")
        for s in range(400)
    ]
    positive = np.mean([W[0][0, 0] > 0 for W, _ in signs])
    assert abs(positive - 0.5) < 5 * 0.5 / 20


def test_schedules_are_their_closed_forms():
    n, epochs = 10, 8

    def whole(schedule, warmup=0.0):
        parts = [batch_rates(schedule, 0.3, e, n, epochs, warmup) for e in range(epochs)]
        return np.concatenate(parts)

    k = np.arange(n * epochs)
    np.testing.assert_allclose(
        whole("cosine"), 0.15 * (1 + np.cos(np.pi * k / 80)), atol=1e-15
    )
    warm = whole("cosine", 2.0)
    np.testing.assert_allclose(warm[:20], 0.3 * (k[:20] + 1) / 20)
    np.testing.assert_allclose(
        warm[20:], 0.15 * (1 + np.cos(np.pi * k[:60] / 60)), atol=1e-15
    )
    np.testing.assert_allclose(whole("constant", 0.5), 0.3 * np.minimum((k + 1) / 5, 1))
    later = batch_rates("constant", 0.3, epochs, n, epochs, 0.5)  # no second warm-up
    np.testing.assert_array_equal(later, 0.3)
    cycle = whole("one_cycle")
    top = 24  # 30 % of 80 steps
    assert cycle[0] == pytest.approx(0.3 / 25)
    assert cycle.argmax() == top
    assert cycle[top] == pytest.approx(0.3)
    assert (np.diff(cycle[: top + 1]) > 0).all()
    assert (np.diff(cycle[top:]) < 0).all()
    assert cycle[-1] < 0.3 / 25
    again = batch_rates("one_cycle", 0.3, epochs, n, epochs, 0.0)
    np.testing.assert_array_equal(again, cycle[:n])
    assert whole("one_cycle", 4.0).argmax() == 40


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_schedule_is_what_the_steps_take(warmup):
    """Plain descent with one row a batch: each step moves the bias by its rate."""
    model = MLPRegressor(
        hidden_layer_sizes=(), solver="sgd", momentum=0.0, alpha=0.0, batch_size=1
    )
    model.set_params(shuffle=False, max_iter=1, learning_rate="cosine", warm_start=True)
    model.set_params(learning_rate_init=0.5, random_state=0, warmup_epochs=warmup)
    zeros, y = np.zeros((8, 1)), np.arange(8.0)
    model.fit(zeros, y)
    b = np.random.RandomState(0).uniform(-np.sqrt(3), np.sqrt(3), 2)[1]
    for rate, target in zip(batch_rates("cosine", 0.5, 0, 8, 1, warmup), y, strict=True):
        b -= rate * (b - target)
    assert model.intercepts_[0][0] == pytest.approx(b, rel=1e-12)


def test_schedules_are_for_adam_and_go_on_over_partial_fit():
    options = {**QUICK, "max_iter": 3, "shuffle": False, "learning_rate": "one_cycle"}
    whole, parts = MLPClassifier(**options).fit(X, Y), MLPClassifier(**options)
    for _ in range(3):
        parts.partial_fit(X, Y, classes=range(4))
    assert same(whole, parts)
    options["learning_rate"] = "constant"
    assert not same(whole, MLPClassifier(**options).fit(X, Y))


def test_reduce_on_plateau_lowers_the_rate_of_adam(capsys):
    model = MLPClassifier(**{**QUICK, "max_iter": 40}, learning_rate="reduce_on_plateau")
    model.set_params(tol=10.0, n_iter_no_change=1, verbose=True).fit(X, Y)
    printed = capsys.readouterr().out
    assert "Setting learning rate to 0.000200" in printed
    assert "Learning rate too small. Stopping." in printed


def test_frozen_layers_stay_and_the_others_train():
    first = MLPClassifier(**QUICK).fit(X, Y)
    for solver in ("adam", "lbfgs"):
        tuned = MLPClassifier(**QUICK, init=first, frozen_layers=1, solver=solver)
        tuned.set_params(max_iter=60).fit(X, Y % 2)
        np.testing.assert_array_equal(tuned.coefs_[0], first.coefs_[0])
        np.testing.assert_array_equal(tuned.intercepts_[0], first.intercepts_[0])
        assert not np.array_equal(tuned.coefs_[1], first.coefs_[1])
        assert tuned.n_outputs_ == 1
        assert tuned.score(X, Y % 2) > 0.8  # a coin: 0.5
    lbfgs = MLPRegressor(**QUICK, init=first, frozen_layers=1, solver="lbfgs", alpha=50.0)
    lbfgs.fit(X, T)
    squares = sum((W**2).sum() for W in lbfgs.coefs_[1:]) * 50.0 / 2 / len(X)
    errors = ((lbfgs.predict(X) - T) ** 2).sum() / 2 / len(X)
    assert lbfgs.loss_ == pytest.approx(squares + errors)
    with pytest.raises(ValueError, match="frozen_layers=3 must not be more than"):
        MLPClassifier(**QUICK, frozen_layers=3).fit(X, Y)


def test_a_model_to_start_from_gives_all_but_its_output_layer():
    first = MLPClassifier(**QUICK).fit(X, Y)
    tuned = MLPRegressor(**{**QUICK, "max_iter": 1}, init=first, learning_rate_init=1e-30)
    tuned.fit(X, T)
    for layer in (0, 1):
        np.testing.assert_allclose(tuned.coefs_[layer], first.coefs_[layer], rtol=1e-12)
    frozen = MLPClassifier(**QUICK, init=FrozenEstimator(first))
    assert same(clone(frozen).fit(X, Y), MLPClassifier(**QUICK, init=first).fit(X, Y))
    with pytest.raises(NotFittedError):
        clone(MLPClassifier(init=first)).fit(X, Y)
    with pytest.raises(TypeError, match="init must be a fitted multilayer perceptron"):
        MLPClassifier(init=make_pipeline(first)).fit(X, Y)
    with pytest.raises(NotFittedError, match="MLPRegressor given as init is not fitted"):
        MLPClassifier(init=MLPRegressor()).fit(X, Y)
    with pytest.raises(ValueError, match="network given as init: coefs_"):
        MLPClassifier(**QUICK, init=first).fit(X[:, 1:], Y)
    with pytest.raises(ValueError, match=r"hidden layers of \(30, 9\) units"):
        MLPClassifier((7,), init=first).fit(X, Y)
    with pytest.raises(ValueError, match=r"with activation=\('relu', 'relu'\)"):
        MLPClassifier(**QUICK, activation="tanh", init=first).fit(X, Y)
    named = MLPClassifier(**QUICK, activation=["relu", "relu"], init=first)
    assert same(named.fit(X, Y), MLPClassifier(**QUICK, init=first).fit(X, Y))


# ------------------------------------------------------------- validation, time, progress


def test_validation_rows_are_scored_after_every_epoch():
    model = MLPClassifier(**QUICK).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert same(model, MLPClassifier(**QUICK).fit(X, Y))
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 4
    assert model.validation_scores_[-1] == model.score(X_VAL, Y_VAL)
    truth = log_loss(Y_VAL, model.predict_proba(X_VAL))
    assert model.validation_loss_curve_[-1] == pytest.approx(truth)


LOSSES = {
    "squared_error": lambda y, p: ((p - y) ** 2).mean() / 2,
    "absolute_error": lambda y, p: abs(p - y).mean(),
    "poisson": lambda y, p: (special.xlogy(y, y / p) - y + p).sum(axis=1).mean(),
    "huber": lambda y, p: special.huber(1.0, p - y).mean(),
    "quantile": lambda y, p: (abs(p - y) / 2).mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_validation_losses_are_the_losses(loss):
    y = np.abs(T)
    weights = RNG.uniform(0.5, 2, len(X))
    model = MLPRegressor(loss, **QUICK).fit(
        X, y, X_val=X, y_val=y, sample_weight_val=np.ones(len(X))
    )
    found = model.validation_loss_curve_[-1]
    assert found == pytest.approx(LOSSES[loss](y, model.predict(X)))
    model.set_params(alpha=0.0, learning_rate_init=1e-30, warm_start=True, max_iter=1)
    model.set_params(batch_size=len(X))
    model.fit(X, y, weights, X_val=X, y_val=y, sample_weight_val=weights)
    assert model.validation_loss_curve_[-1] == pytest.approx(model.loss_curve_[-1])


def test_validation_losses_of_two_classes_of_labels_and_of_quantiles():
    options = {**QUICK, "max_iter": 2}
    binary = MLPClassifier(**options).fit(X, Y % 2, X_val=X_VAL, y_val=Y_VAL % 2)
    truth = log_loss(Y_VAL % 2, binary.predict_proba(X_VAL))
    assert binary.validation_loss_curve_[-1] == pytest.approx(truth)
    labels = np.c_[Y % 2, Y > 1], np.c_[Y_VAL % 2, Y_VAL > 1]
    several = MLPClassifier(**options).fit(X, labels[0], X_val=X_VAL, y_val=labels[1])
    p = several.predict_proba(X_VAL)
    truth = sum(log_loss(labels[1][:, o], p[:, o]) for o in range(2))
    assert several.validation_loss_curve_[-1] == pytest.approx(truth)
    y, y_val = X[:, 20], X_VAL[:, 20]
    fan = MLPRegressor("quantile", **options, quantile=[0.1, 0.5, 0.8])
    fan.fit(X, y, X_val=X_VAL, y_val=y_val)
    p = fan.predict(X_VAL)
    truth = np.mean(
        [mean_pinball_loss(y_val, p[:, i], alpha=q) for i, q in enumerate(fan.quantile)]
    )
    assert fan.validation_loss_curve_[-1] == pytest.approx(truth)
    assert not hasattr(fan.set_params(loss="squared_error").fit(X, y), "quantiles_")
    own = MLPRegressor(halved_squares, **options).fit(X, y, X_val=X_VAL, y_val=y_val)
    truth = ((own.predict(X_VAL) - y_val) ** 2).mean() / 2
    assert own.validation_loss_curve_[-1] == pytest.approx(truth)


FEW = {"X_val": X[:9], "y_val": Y[:9]}
OTHER_ROWS = {
    "another scorer": ({}, {"scoring": "neg_log_loss"}, {}),
    "held out, then given": ({}, {}, {"X_val": X_VAL, "y_val": Y_VAL}),
    "given, then others": (FEW, {}, {"X_val": X, "y_val": Y}),
    "given, then held out": (FEW, {}, {}),
}


@pytest.mark.parametrize("change", OTHER_ROWS)
def test_a_best_score_of_other_rows_or_scorers_says_nothing(change):
    before, options, after = OTHER_ROWS[change]
    model = MLPClassifier(**{**QUICK, "max_iter": 60}, early_stopping=True)
    model.set_params(warm_start=True).fit(X, Y, **before)
    model.set_params(max_iter=5, learning_rate_init=1e-30, **options).fit(X, Y, **after)
    assert len(model.validation_scores_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_)


def test_scorers_are_given_the_weights_of_rows():
    weights = np.where(Y == 0, 5.0, 1.0), np.where(Y_VAL == 0, 5.0, 1.0)
    given = {"X_val": X_VAL, "y_val": Y_VAL, "sample_weight_val": weights[1]}
    model = MLPClassifier(**QUICK, scoring="neg_log_loss").fit(X, Y, weights[0], **given)
    truth = log_loss(Y_VAL, model.predict_proba(X_VAL), sample_weight=weights[1])
    assert model.validation_scores_[-1] == pytest.approx(-truth)
    model.set_params(scoring=lambda model, X, y: model.score(X, y))
    with pytest.raises(ValueError, match="does not take the sample_weight that fit was"):
        model.fit(X, Y, weights[0], **given)
    given["sample_weight_val"] = np.where(np.arange(len(X_VAL)) == 0, 1.0, 0.0)
    given["sample_weight_val"][1] = -1.0
    with pytest.raises(ValueError, match="weights of the validation set add up to zero"):
        model.fit(X, Y, weights[0], **given)


def test_early_stopping_takes_the_validation_rows_given():
    model = MLPClassifier(**{**QUICK, "max_iter": 300}, early_stopping=True)
    model.set_params(learning_rate_init=0.02, n_iter_no_change=5)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert model.n_iter_ < 300
    assert model.score(X_VAL, Y_VAL) == model.best_validation_score_
    assert max(model.validation_scores_) == model.best_validation_score_


@pytest.mark.parametrize("scoring", ["neg_log_loss", "f1_macro", "loss"])
def test_scoring_decides_what_is_best(scoring):
    model = MLPClassifier(**{**QUICK, "max_iter": 30}, early_stopping=True)
    model.set_params(scoring=scoring).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    best = model.best_validation_score_
    assert best == max(model.validation_scores_)
    if scoring == "f1_macro":
        return
    assert best == pytest.approx(-log_loss(Y_VAL, model.predict_proba(X_VAL)))


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_scorer_that_does_not_exist_is_an_error(early_stopping):
    model = MLPClassifier(**QUICK, early_stopping=early_stopping, scoring="acuracy")
    with pytest.raises(ValueError, match="acuracy"):
        model.fit(X, Y)


def test_scorers_that_refuse_nan_do_not_end_a_training_that_keeps_its_best():
    y = 1e3 * X[:, 20]
    model = MLPRegressor(**QUICK, solver="sgd", learning_rate_init=10.0)
    model.set_params(
        activation="identity",
        restore_best_weights=True,
        scoring="neg_mean_absolute_error",
    )
    model.set_params(max_iter=50, batch_size=len(X), n_iter_no_change=50)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
        model.fit(X, y, X_val=X, y_val=y)
    assert np.isfinite(model.predict(X)).all()


def test_scorers_without_weights_are_not_given_those_of_classes():
    def accuracy(model, X, y):
        return model.score(X, y)

    model = MLPClassifier(**QUICK, class_weight="balanced", scoring=accuracy)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert model.validation_scores_[-1] == model.score(X_VAL, Y_VAL)


def test_a_scorer_of_another_kind_of_estimator_is_an_error():
    model = MLPRegressor(**QUICK, early_stopping=True, scoring="neg_log_loss")
    with pytest.raises(ValueError, match="scoring='neg_log_loss' is not for MLPRegr"):
        model.fit(X, T[:, 0])


def test_a_scorer_of_frames_sees_no_names_that_it_would_miss():
    import pandas as pd

    frame = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    model = MLPClassifier(**QUICK, early_stopping=True, scoring="accuracy").fit(frame, Y)
    assert same(model, MLPClassifier(**QUICK, early_stopping=True).fit(frame, Y))


def test_best_weights_come_back_without_early_stopping():
    options = {**QUICK, "max_iter": 25, "learning_rate_init": 0.2, "tol": 0.0}
    model = MLPClassifier(**options, restore_best_weights=True)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    scores = model.validation_scores_
    assert model.n_iter_ == 25
    assert model.score(X_VAL, Y_VAL) == max(scores) > scores[-1]
    by_loss = MLPClassifier(**options, restore_best_weights=True).fit(X, Y)
    # an epoch's loss is that of the weights before its updates, as nearly as it is known
    epochs = int(np.argmin(by_loss.loss_curve_))
    shorter = MLPClassifier(**{**options, "max_iter": epochs}).fit(X, Y)
    assert 0 < epochs < 24
    assert same(by_loss, shorter)


def test_the_last_weights_may_be_the_best():
    options = {**QUICK, "max_iter": 1}
    model = MLPClassifier(**options, restore_best_weights=True).fit(X, Y)
    assert same(model, MLPClassifier(**options).fit(X, Y))
    whole = {**options, "batch_size": len(X), "solver": "sgd", "shuffle": False}
    wild = {**whole, "learning_rate_init": 1e3}  # the first step makes it worse
    kept = MLPClassifier(**wild, restore_best_weights=True).fit(X, Y)
    still = MLPClassifier(**{**whole, "learning_rate_init": 1e-300}).fit(X, Y)
    assert same(kept, still)


@pytest.mark.parametrize("validation", [{}, {"X_val": X_VAL, "y_val": Y_VAL}])
def test_best_weights_are_those_of_a_call(validation):
    """Later calls see other rows: what was best for the old ones says nothing."""
    model = MLPClassifier(**QUICK, restore_best_weights=True, warm_start=True)
    plain = MLPClassifier(**QUICK, warm_start=True)
    for estimator in (model, plain):
        estimator.fit(X, Y, **validation)
    model.coefs_, model.intercepts_ = copy.deepcopy((plain.coefs_, plain.intercepts_))
    before = copy.deepcopy(model)
    assert not same(model.partial_fit(X, Y), before)
    assert same(model, plain.partial_fit(X, Y))
    model.fit(X[:, ::-1], Y)
    assert not same(model, before)


def test_weights_that_blew_up_are_not_the_best():
    y = 100 * X[:, 20]
    model = MLPRegressor(**QUICK, solver="sgd", learning_rate_init=0.1, batch_size=len(X))
    model.set_params(max_iter=30, alpha=0.0, restore_best_weights=True, shuffle=False)
    model.fit(X, y)
    loss = ((model.predict(X) - y) ** 2).mean() / 2
    assert loss == pytest.approx(min(model.loss_curve_))
    assert max(model.loss_curve_) > 10 * loss or not np.isfinite(model.loss_curve_[-1])


def test_curves_of_validation_rows_are_of_the_last_call():
    model = MLPClassifier(**QUICK, warm_start=True).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert (len(model.loss_curve_), len(model.validation_loss_curve_)) == (8, 4)
    plt = pytest.importorskip("matplotlib.pyplot")
    display = LossCurveDisplay.from_estimator(model)
    np.testing.assert_array_equal(display.lines_[1].get_xdata(), [5, 6, 7, 8])
    plt.close("all")
    model.partial_fit(X, Y)
    assert not hasattr(model, "validation_loss_curve_")
    assert model.validation_scores_ is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y_val": Y_VAL}, "y_val is given without X_val"),
        ({"sample_weight_val": Y_VAL}, "sample_weight_val is given without X_val"),
        ({"X_val": X_VAL}, "X_val is given without y_val"),
        ({"X_val": X_VAL[:, 1:], "y_val": Y_VAL}, "validation rows: X has 63 features"),
        ({"X_val": X_VAL, "y_val": Y_VAL[1:]}, "validation rows: Found input variables"),
        ({"X_val": X_VAL, "y_val": Y_VAL + 9}, "classes not in `self.classes_`"),
        ({"X_val": X_VAL * np.nan, "y_val": Y_VAL}, "contains NaN"),
    ],
)
def test_bad_validation_rows_are_an_error_and_change_nothing(given, message):
    model = MLPClassifier(**QUICK).fit(X, Y)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, **given)
    assert same(model, before)


def test_lbfgs_tells_what_it_cannot_do():
    model = MLPClassifier(**QUICK, solver="lbfgs")
    with pytest.raises(ValueError, match="does not look at validation rows"):
        model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    with pytest.raises(ValueError, match="dropout needs a stochastic solver"):
        model.set_params(dropout=0.1).fit(X, Y)


@pytest.fixture
def clock(monkeypatch):
    """What the training takes for the time, which passes when the test says so."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(cache, "time", clock)
    return clock


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_time_ends_the_training(solver, clock, monkeypatch):
    def passes(work):
        def longer(*args):
            clock.now += 1.0
            return work(*args)

        return longer

    # an epoch, or an evaluation of the objective, takes a second
    monkeypatch.setattr(
        training.Trainer, "_take_epochs", passes(training.Trainer._take_epochs)
    )
    monkeypatch.setattr(
        lbfgs.Objective, "_consistent", passes(lbfgs.Objective._consistent)
    )
    model = MLPClassifier(solver=solver, max_iter=100, tol=0.0, random_state=0)
    model.set_params(max_time=3.5, n_iter_no_change=100).fit(X, Y)
    if solver == "adam":
        assert model.n_iter_ == 4
    else:  # an iteration is an evaluation, or a few
        assert 1 <= model.n_iter_ <= 4
    assert clock.now < 10


def test_compiling_does_not_count_as_training_time(clock, monkeypatch):
    load = cache._load

    def slow(*args):
        clock.now += 100.0
        return load(*args)

    monkeypatch.setattr(cache, "_load", slow)
    monkeypatch.setattr(cache, "_programs", {})
    model = MLPClassifier(**QUICK, max_time=3.5).fit(X, Y)
    assert clock.now == 100.0
    assert model.n_iter_ == 4


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_progress_bar_counts_and_ends(solver, capsys):
    model = MLPClassifier(**QUICK, solver=solver, progress_bar=True).fit(X, Y)
    shown = capsys.readouterr().err
    assert f"{model.n_iter_}/4" in shown
    assert "loss=" in shown
    assert "epoch" in shown if solver == "adam" else "iteration" in shown
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", shown)  # time taken and left
    if solver == "adam":
        model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
        score = model.validation_scores_[-1]
        assert f"validation score={score:.3g}" in capsys.readouterr().err
    model.partial_fit(X, Y) if solver == "adam" else None
    assert capsys.readouterr().err == ""


def test_the_loss_curve_display_draws_what_is_there():
    plt = pytest.importorskip("matplotlib.pyplot")
    model = MLPClassifier(**QUICK).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    display = LossCurveDisplay.from_estimator(model)
    curves = (model.loss_curve_, model.validation_loss_curve_, model.validation_scores_)
    for line, curve in zip(display.lines_, curves, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curve)
    ax = plt.figure().gca()
    alone = LossCurveDisplay.from_estimator(MLPClassifier(**QUICK).fit(X, Y), ax=ax)
    assert alone.ax_ is ax
    assert len(alone.lines_) == 1
    plt.close("all")
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(MLPClassifier())
    with pytest.raises(ValueError, match="has no loss_curve_; the stochastic"):
        LossCurveDisplay.from_estimator(MLPClassifier(**QUICK, solver="lbfgs").fit(X, Y))


# ------------------------------------------------------------- gradient report


def test_the_gradient_report_tells_what_numpy_computes():
    model = MLPRegressor(**QUICK, activation="tanh", alpha=0.1).fit(X, T)
    report = model.gradient_report(X, T)
    activations = [X]
    for W, b in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        activations.append(np.tanh(activations[-1] @ W + b))
    activations.append(activations[-1] @ model.coefs_[-1] + model.intercepts_[-1])
    delta, squares = activations[-1] - T, 0.0
    for layer in (2, 1, 0):
        gradient = activations[layer].T @ delta + 0.1 * model.coefs_[layer]
        gradient /= len(X)
        squares += (gradient**2).sum() + (delta.mean(axis=0) ** 2).sum()
        found = report.layers[layer]
        assert found.gradient_rms == pytest.approx(np.sqrt((gradient**2).mean()))
        outputs = activations[layer + 1]
        assert found.activation_rms == pytest.approx(np.sqrt((outputs**2).mean()))
        W = model.coefs_[layer]
        assert found.weight_rms == pytest.approx(np.sqrt((W**2).mean()))
        delta = delta @ W.T * (1 - activations[layer] ** 2)
    assert report.gradient_norm == pytest.approx(np.sqrt(squares))
    assert [layer.units for layer in report.layers] == [30, 9, 2]


def test_the_update_ratio_is_that_of_the_last_step():
    for solver in ("adam", "nadam", "sgd", "rmsprop"):
        model = MLPRegressor(**QUICK, solver=solver, batch_size=len(X), shuffle=False)
        model.set_params(nesterovs_momentum=False)
        if solver == "rmsprop":  # it remembers the size of gradients, if they are alike
            model.set_params(learning_rate_init=1e-6)
        before = model.fit(X, T).coefs_
        model.partial_fit(X, T)
        report = model.gradient_report(X, T)
        for layer, (old, new) in enumerate(zip(before, model.coefs_, strict=True)):
            ratio = np.linalg.norm(new - old) / np.linalg.norm(new)
            # Nesterov's look-ahead is not in the moments
            error = {"nadam": 0.3, "rmsprop": 0.01}.get(solver, 1e-4)
            found = report.layers[layer].update_ratio
            assert found == pytest.approx(ratio, rel=error)


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({}, "Healthy"),
        ({"hidden_layer_sizes": (20,) * 8, "activation": "logistic"}, "Vanishing"),
        (
            {"solver": "sgd", "learning_rate_init": 5.0, "max_grad_norm": 1.0},
            "Dead",
        ),
        ({"activation": "tanh", "learning_rate_init": 3.0}, "Saturated"),
    ],
)
def test_the_verdict_finds_what_was_done_to_the_network(options, verdict):
    model = MLPClassifier(**{**QUICK, **options}).fit(X, Y)
    report = model.gradient_report(X, Y)
    assert report.verdict.startswith(verdict)
    assert str(report).endswith(report.verdict)
    assert len(str(report).splitlines()) == len(model.coefs_) + 2
    with pytest.raises(NotFittedError):
        MLPClassifier().gradient_report(X, Y)


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"learning_rate_init": 1.0, "activation": "identity"}, "Large steps"),
        ({"learning_rate_init": 1e-12}, "Small steps"),
    ],
)
def test_the_verdict_tells_of_steps(options, verdict):
    model = MLPRegressor(**QUICK, **options).fit(X, T)
    assert model.gradient_report(X, T).verdict.startswith(verdict)
    if verdict == "Large steps":
        lbfgs = model.set_params(solver="lbfgs", warm_start=True).fit(X, T)
        ratios = [layer.update_ratio for layer in lbfgs.gradient_report(X, T).layers]
        assert np.isnan(ratios).all()  # it has no last step


def test_the_verdict_of_gradients_that_explode():
    model = MLPRegressor(**QUICK, activation="identity").fit(X, T)
    model.coefs_[0] *= 1e-6  # what comes to the other layers, and so their gradients
    model.intercepts_ = [0.0 * b for b in model.intercepts_]
    report = model.gradient_report(X, T)
    assert report.layers[0].gradient_rms > 1e3 * report.layers[-1].gradient_rms
    assert report.verdict.startswith("Exploding")


def test_shares_of_dead_units_and_saturated_values():
    model = MLPRegressor(**QUICK).fit(X, T)
    model.intercepts_[0][:6] = -1e6
    hidden = np.maximum(0, X @ model.coefs_[0] + model.intercepts_[0])
    dead = (hidden == 0).all(axis=0).mean()
    assert model.gradient_report(X, T).layers[0].dead == dead >= 0.2
    for activation, function in (("tanh", np.tanh), ("logistic", special.expit)):
        model = MLPRegressor(**QUICK, activation=activation).fit(X, T)
        model.coefs_[0] *= 10.0
        values = function(X @ model.coefs_[0] + model.intercepts_[0])
        low = -1.0 if activation == "tanh" else 0.0
        share = (values - low) / (1.0 - low)  # of the way from bound to bound
        saturated = ((share < 0.01) | (share > 0.99)).mean()
        found = model.gradient_report(X, T).layers[0].saturated
        assert 0.05 < saturated < 0.95
        assert found == pytest.approx(saturated, abs=2 / values.size)  # rounding at 1 %


def test_the_report_of_frozen_layers_and_schedules():
    first = MLPRegressor(**QUICK).fit(X, T)
    options = {**QUICK, "batch_size": len(X), "shuffle": False, "solver": "sgd"}
    tuned = MLPRegressor(**options, init=first, frozen_layers=1, learning_rate="cosine")
    before = copy.deepcopy(tuned).set_params(max_iter=1, learning_rate_init=1e-30)
    before.fit(X, T)
    report = tuned.set_params(nesterovs_momentum=False).fit(X, T).gradient_report(X, T)
    assert report.layers[0].frozen
    assert np.isnan(report.layers[0].gradient_rms)
    assert "too low" not in report.verdict
    assert report.loss == pytest.approx(
        ((tuned.predict(X) - T) ** 2).mean() / 2
        + sum((W**2).sum() for W in tuned.coefs_[1:]) * 1e-4 / 2 / len(X)
    )
    adam = MLPRegressor(**{**options, "solver": "adam", "learning_rate": "cosine"})
    adam.set_params(max_iter=10).fit(X, T)
    nine = clone(adam)
    for _ in range(9):
        nine.partial_fit(X, T)
    start = nine.coefs_
    nine.partial_fit(X, T)
    ratio = np.linalg.norm(nine.coefs_[1] - start[1]) / np.linalg.norm(nine.coefs_[1])
    found = nine.gradient_report(X, T).layers[1].update_ratio
    assert found == pytest.approx(ratio, rel=1e-4)


def test_the_report_of_other_targets_is_an_error():
    model = MLPRegressor(**QUICK).fit(X, T)
    with pytest.raises(ValueError, match=r"ask for 1 outputs \(identity\), but"):
        model.gradient_report(X, T[:, 0])
    with pytest.raises(ValueError, match=r"ask for 2 outputs \(exp\), but the model"):
        model.set_params(loss="poisson").gradient_report(X, np.abs(T))


def test_plots_without_matplotlib_say_what_to_install(monkeypatch):
    model = MLPClassifier(**QUICK).fit(X, Y)
    report = model.gradient_report(X, Y)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for plot in (report.plot, lambda: LossCurveDisplay.from_estimator(model)):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            plot()


def test_the_report_draws_its_layers():
    plt = pytest.importorskip("matplotlib.pyplot")
    report = MLPClassifier(**QUICK).fit(X, Y).gradient_report(X, Y)
    ax = report.plot()
    values = [layer.gradient_rms for layer in report.layers]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
    plt.close("all")


# ------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "bad",
    [
        {"activation": ["relu"]},
        {"activation": ["relu", "swish"]},
        {"dropout": 1.0},
        {"dropout": [0.1]},
        {"dropout": [0.1, -0.1]},
        {"weight_decay": -1.0},
        {"max_grad_norm": 0.0},
        {"label_smoothing": 1.0},
        {"class_weight": "equal"},
        {"init": "zeros"},
        {"frozen_layers": -1},
        {"warmup_epochs": -1},
        {"max_time": 0},
        {"max_time": 10**1000},
        {"progress_bar": "yes"},
        {"scoring": 3},
    ],
    ids=repr,
)
def test_bad_parameters_are_named(bad):
    ((name, _),) = bad.items()
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of MLPC"):
        MLPClassifier(**{**QUICK, **bad}).fit(X, Y)


def test_dead_units_are_named_when_no_gradient_is_left():
    model = MLPRegressor(**QUICK, alpha=0.0).fit(X, T)
    model.intercepts_[1][:] = -1e6
    assert model.gradient_report(X, T).verdict.startswith("Dead units: 100%")
