"""Fits follow scikit-learn's, epoch by epoch, down to rounding."""

import re
import warnings
from itertools import product

import numpy as np
import pytest
import sklearn.neural_network as reference
from sklearn.exceptions import ConvergenceWarning

import fastbp
from fastbp import threads, training
from fastbp.schedules import batch_rates

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
TARGETS = ("binary", "multiclass", "multilabel", "regression", "multioutput")
SIZES = ((), (1,), (77, 33, 17), (100,), (150, 3), (16,), (5, 4, 3, 2))
FEATURES = (1, 3, 8, 9, 17, 30)

SOLVERS = {
    "adam": {},
    "adam_betas": {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4, "alpha": 0.1},
    "adam_without_moments": {"beta_1": 0.0, "beta_2": 0.0, "epsilon": 1e-3},
    "adam_large_epsilon": {"epsilon": 1.0, "learning_rate_init": 0.1},
    "adam_ignores_schedule": {"learning_rate": "invscaling", "power_t": 1.0},
    "sgd": {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05},
    "sgd_nesterov_without_momentum": {
        "solver": "sgd",
        "momentum": 0.0,
        "nesterovs_momentum": True,
        "learning_rate_init": 0.05,
    },
    "sgd_momentum": {
        "solver": "sgd",
        "momentum": 0.9,
        "nesterovs_momentum": False,
        "learning_rate_init": 0.01,
    },
    "sgd_full_momentum": {
        "solver": "sgd",
        "momentum": 1.0,
        "nesterovs_momentum": False,
        "learning_rate_init": 0.001,
    },
    "sgd_nesterov": {"solver": "sgd", "momentum": 0.7, "learning_rate_init": 0.01},
    "sgd_invscaling": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.1,
        "power_t": 0.3,
    },
    "sgd_invscaling_power_0": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.01,
        "power_t": 0,
    },
    "sgd_adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.05,
        "tol": 10.0,
        "n_iter_no_change": 1,
    },
    "unshuffled": {"shuffle": False},
    "unshuffled_sgd": {"shuffle": False, "solver": "sgd", "batch_size": 7},
    "batch_1": {"batch_size": 1},
    "batch_7": {"batch_size": 7},
    "batch_13": {"batch_size": 13, "solver": "sgd", "learning_rate_init": 0.01},
    "batch_auto": {"batch_size": "auto"},
    "no_penalty": {"alpha": 0},
    "large_penalty": {"alpha": 10.0},
    "n_iter_no_change_inf": {"n_iter_no_change": np.inf, "tol": 100.0},
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_data(target, n=83, n_features=9, dtype=np.float64, seed=0):
    """Rows that a small network can learn something from, with ``target``'s kind."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((n, n_features))
    latent = X @ rng.standard_normal((n_features, 3)) + rng.standard_normal((n, 3))
    y = {
        "binary": (latent[:, 0] > 0).astype(int),
        "multiclass": latent.argmax(axis=1) + (latent[:, 0] > 1.5),
        "multilabel": (latent > 0.2).astype(int),
        "regression": np.tanh(latent[:, 0]) + 0.1 * latent[:, 1],
        "multioutput": np.tanh(latent),
    }[target]
    return X.astype(dtype), y.astype(dtype) if y.dtype.kind == "f" else y


def classes_for(target):
    name = "MLPRegressor" if target in ("regression", "multioutput") else None
    name = name or "MLPClassifier"
    return getattr(fastbp, name), getattr(reference, name)


def fit_both(target, X, y, **parameters):
    ours, theirs = classes_for(target)
    parameters = {"random_state": 3, "max_iter": 5, "batch_size": 32, **parameters}
    return ours(**parameters).fit(X, y), theirs(**parameters).fit(X, y)


def outputs_of(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


def assert_same_model(ours, theirs, X, rtol=1e-7, atol=1e-10):
    """The default tolerances are for float64.

    Two exact implementations differ by the order of the terms of their sums: 1e-14
    relative after a few epochs, seen in practice. 1e-7 leaves room for other BLAS
    libraries and for Adam's amplification of rounding where gradients nearly vanish;
    a mistake in any rule shows up as 1e-3 or more. ``atol`` is for numbers near 0.
    """
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    assert ours.n_layers_ == theirs.n_layers_
    assert ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_
    assert ours._no_improvement_count == theirs._no_improvement_count
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
    assert ours.loss_ == ours.loss_curve_[-1]
    np.testing.assert_allclose(ours.best_loss_, theirs.best_loss_, rtol=rtol)
    for name in ("coefs_", "intercepts_"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    a, b = outputs_of(ours, X), outputs_of(theirs, X)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_same_labels(ours, theirs, X):
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        a, b = ours.predict(X), theirs.predict(X)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


def rotate(values, *indices):
    return values[sum(indices) % len(values)]


@pytest.mark.parametrize("solver", ["adam", "sgd_nesterov"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_trajectory_for_every_activation_and_target(activation, target, solver):
    a, t = ACTIVATIONS.index(activation), TARGETS.index(target)
    shift = 3 * (solver == "adam")
    sizes, n_features = rotate(SIZES, 2 * a, t, shift), rotate(FEATURES, a, t, shift)
    X, y = make_data(target, 60 + 13 * a + 5 * t, n_features)
    models = fit_both(
        target, X, y, activation=activation, hidden_layer_sizes=sizes, **SOLVERS[solver]
    )
    assert_same_model(*models, X)
    assert_same_labels(*models, X)


@pytest.mark.parametrize(
    ("option", "target"),
    [
        (option, rotate(TARGETS, 2 * i, j))
        for i, option in enumerate(SOLVERS)
        for j in (0, 1)
    ],
)
def test_trajectory_for_every_option(option, target):
    i, t = list(SOLVERS).index(option), TARGETS.index(target)
    X, y = make_data(target, n_features=rotate(FEATURES, i))
    models = fit_both(
        target,
        X,
        y,
        activation=rotate(ACTIVATIONS, i, t),
        hidden_layer_sizes=rotate(SIZES[1:], i),
        **SOLVERS[option],
    )
    assert_same_model(*models, X)
    assert_same_labels(*models, X)
    if option == "sgd_adaptive":  # the rate must have dropped for this to test it
        assert models[1]._optimizer.learning_rate < 0.05 / 4


@pytest.mark.parametrize("target", ["multiclass", "regression"])
@pytest.mark.parametrize("sizes", SIZES)
def test_trajectory_for_odd_layer_sizes(sizes, target):
    i = SIZES.index(sizes)
    X, y = make_data(target, n_features=rotate(FEATURES, i, 4))
    models = fit_both(
        target, X, y, hidden_layer_sizes=sizes, activation=rotate(ACTIVATIONS, i, 2)
    )
    assert_same_model(*models, X)


@pytest.mark.parametrize(
    "sizes", [7, [7], np.array([7]), (np.int32(7),)], ids=lambda s: type(s).__name__
)
def test_layer_sizes_as_int_list_and_array(sizes):
    X, y = make_data("binary")
    assert_same_model(*fit_both("binary", X, y, hidden_layer_sizes=sizes), X)


def test_trajectory_of_a_batch_larger_than_the_data():
    X, y = make_data("multiclass")
    texts = []
    for model in classes_for("multiclass"):
        with pytest.warns(UserWarning, match="batch_size") as record:
            model(batch_size=84, max_iter=2, random_state=0).fit(X, y)
        texts.append([(w.category, str(w.message)) for w in record])
    assert texts[0] == texts[1]
    with pytest.warns(UserWarning, match="batch_size"):
        models = fit_both("multiclass", X, y, batch_size=1000)
    assert_same_model(*models, X)


def test_trajectory_of_integer_regression_targets():
    X, y = make_data("regression")
    y = np.round(5 * y).astype(np.int64)
    assert_same_model(*fit_both("regression", X, y), X)


def test_trajectory_over_many_epochs():
    # rounding grows with the steps, hence 1e-6 after 60 epochs of 9 steps
    X, y = make_data("multiclass")
    models = fit_both("multiclass", X, y, max_iter=60, batch_size=10, tol=0.0)
    assert models[1].n_iter_ == 60
    assert_same_model(*models, X, rtol=1e-6, atol=1e-9)


def test_trajectory_of_a_large_network_and_full_batches():
    # both large enough for more than one thread where there is one
    X, y = make_data("multiclass", n=450, n_features=200)
    models = fit_both(
        "multiclass", X, y, hidden_layer_sizes=(190, 70), batch_size=200, max_iter=3
    )
    assert_same_model(*models, X)


# float32. One rounding is 6e-8 relative; a sum of n terms in another order differs by
# up to n times that of its largest term, and the errors of the steps add up.
#   * loss_curve_: measured below 5e-6 over 5 epochs; 5e-5 leaves a factor 10.
#   * SGD: weights move by the rate times the gradient's error, measured below 2e-7;
#     outputs of several layers below 2e-6. 2e-5 absolute for both.
#   * Adam: where a gradient is as small as its rounding error, m / (sqrt(v) + eps) has
#     size 1 and any sign, so that a single weight can be off by its whole step, the
#     learning rate (0.001): also when scikit-learn is run on another BLAS, and because
#     it takes parts of the computation in float64. Nearly all weights have ordinary
#     gradients. So 99 % of the weights within 2e-5, all within one step; outputs
#     gather many weights: 1e-4 (measured below 2e-5).
FLOAT32_TOLERANCE = 2e-5


def assert_same_float32_model(ours, theirs, X, *, step):
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=5e-5)
    errors = []
    for a, b in zip(
        ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        assert a.dtype == np.float32
        errors.append(np.abs(a - b).ravel())
    errors = np.concatenate(errors)
    assert np.quantile(errors, 0.99) <= FLOAT32_TOLERANCE
    assert errors.max() <= max(step, FLOAT32_TOLERANCE)
    a, b = outputs_of(ours, X), outputs_of(theirs, X)
    assert a.dtype == np.float32
    atol = 1e-4 if step else FLOAT32_TOLERANCE
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("solver", ["adam", "sgd_nesterov", "sgd_adaptive"])
@pytest.mark.parametrize(
    ("activation", "target"),
    [
        pair
        for i, pair in enumerate(product(ACTIVATIONS, TARGETS))
        if i % 2 == 0 or pair[0] == "relu"
    ],
)
def test_float32_trajectory(activation, target, solver):
    i = ACTIVATIONS.index(activation) + TARGETS.index(target)
    X, y = make_data(target, n_features=rotate(FEATURES, i), dtype=np.float32)
    models = fit_both(
        target,
        X,
        y,
        activation=activation,
        hidden_layer_sizes=rotate(SIZES, i),
        **SOLVERS[solver],
    )
    assert_same_float32_model(*models, X, step=1e-3 if solver == "adam" else 0.0)


@pytest.mark.parametrize("target", ["regression", "multioutput"])
def test_float32_trajectory_of_float64_targets(target):
    # scikit-learn then runs its backward pass in float64, fastbp in float32
    X, y = make_data(target)
    models = fit_both(target, X.astype(np.float32), y)
    assert_same_float32_model(*models, X.astype(np.float32), step=1e-3)


@pytest.mark.parametrize("option", ["no_penalty", "adam_betas", "batch_1"])
def test_float32_trajectory_of_options(option):
    X, y = make_data("multiclass", dtype=np.float32)
    models = fit_both("multiclass", X, y, **SOLVERS[option])
    assert_same_float32_model(*models, X, step=1e-3)


@pytest.mark.parametrize("target", TARGETS)
def test_dtype_option_is_the_same_as_data_of_that_dtype(target):
    X, y = make_data(target)
    X = X.astype(np.float32).astype(np.float64)  # equal numbers in both dtypes
    if y.dtype.kind == "f":
        y = y.astype(np.float32).astype(np.float64)
    ours, _ = classes_for(target)
    parameters = {"random_state": 0, "max_iter": 3}
    for dtype, given in (("float32", np.float64), ("float64", np.float32)):
        asked = ours(dtype=dtype, **parameters).fit(X.astype(given), y)
        plain = ours(**parameters).fit(X.astype(dtype), y)
        assert asked.loss_curve_ == plain.loss_curve_
        for a, b in zip(asked.coefs_, plain.coefs_, strict=True):
            assert a.dtype == dtype
            np.testing.assert_array_equal(a, b)


# Stopping


STOPPING = {
    "tol": {"tol": 0.02, "n_iter_no_change": 2},
    "tol_0": {"tol": 0.0, "n_iter_no_change": 2, "learning_rate_init": 0.3},
    "one_epoch": {"tol": 5.0, "n_iter_no_change": 1},
    "sgd": {"solver": "sgd", "tol": 0.01, "n_iter_no_change": 3},
    "invscaling": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.1,
        "tol": 1e-3,
        "n_iter_no_change": 4,
    },
    "adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 1e-3,
        "tol": 0.01,
        "n_iter_no_change": 2,
    },
    "adaptive_to_the_end": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 1e-5,
        "tol": 1.0,
        "n_iter_no_change": 1,
    },
}


def distance_from_a_tie(model):
    """How near the losses came to the comparison that counts an epoch as bad."""
    losses = np.array(model.loss_curve_)
    best = np.minimum.accumulate(losses)[:-1]
    return np.abs(losses[1:] - (best - model.tol)).min()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", ["multiclass", "regression"])
@pytest.mark.parametrize("rule", STOPPING)
def test_stops_at_the_same_epoch_with_the_same_messages(rule, target, capsys):
    X, y = make_data(target)
    ours, theirs = classes_for(target)
    options = {"max_iter": 300, "random_state": 1, "batch_size": 20, "verbose": True}
    theirs = theirs(**options, **STOPPING[rule]).fit(X, y)
    expected = capsys.readouterr()
    assert 1 < theirs.n_iter_ < 300
    assert distance_from_a_tie(theirs) > 1e-8  # rounding must not decide
    ours = ours(**options, **STOPPING[rule]).fit(X, y)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == expected.out.splitlines()
    assert printed.err == expected.err
    assert printed.out.rstrip().endswith("Stopping.")
    assert ("Setting learning rate to" in printed.out) == rule.startswith("adaptive")
    # many epochs: rounding had time to grow
    assert_same_model(ours, theirs, X, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("verbose", [False, 0, True, 1, 2])
def test_verbose_levels_print_the_same(verbose, capsys):
    X, y = make_data("binary")
    ours, theirs = classes_for("binary")
    texts = []
    for model in (ours, theirs):
        model(max_iter=3, random_state=0, verbose=verbose).fit(X, y)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert bool(texts[0]) == bool(verbose)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", ["binary", "regression"])
def test_warning_when_max_iter_is_reached(target):
    X, y = make_data(target)
    texts = []
    for model in classes_for(target):
        with pytest.warns(ConvergenceWarning) as record:
            model(max_iter=4, random_state=0).fit(X, y)
        texts.append([(w.category, str(w.message)) for w in record])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 1


def test_warning_points_at_the_caller():
    X, y = make_data("binary")
    with pytest.warns(ConvergenceWarning) as record:
        fastbp.MLPClassifier(max_iter=1, random_state=0).fit(X, y)
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match="clipped") as record:
        fastbp.MLPClassifier(max_iter=1, batch_size=1000).fit(X, y)
    assert {w.filename for w in record} == {__file__}


@pytest.mark.filterwarnings("error")
def test_no_warning_when_stopped_in_the_last_epoch_allowed():
    X, y = make_data("multiclass")
    # every epoch but the first is bad: counter 2 > 1 in epoch 3
    options = {"tol": 10.0, "n_iter_no_change": 1, "random_state": 0}
    for model in classes_for("multiclass"):
        assert model(max_iter=3, **options).fit(X, y).n_iter_ == 3
        with pytest.warns(ConvergenceWarning):
            assert model(max_iter=2, **options).fit(X, y).n_iter_ == 2


@pytest.mark.parametrize("calls_before", [1, 2, 3])
@pytest.mark.parametrize("at", ["begin", "end"])
def test_ctrl_c_keeps_the_model_of_the_whole_epochs(at, calls_before, monkeypatch):
    X, y = make_data("multiclass")
    parameters = {"random_state": 0, "batch_size": 1000, "max_iter": 50}
    calls = []
    call = threads.Team.call

    def interrupted(self, *args):
        calls.append(self)
        if len(calls) > calls_before and at == "begin":
            raise KeyboardInterrupt
        seconds = call(self, *args)
        if len(calls) > calls_before:
            raise KeyboardInterrupt
        return seconds

    monkeypatch.setattr(threads.Team, "call", interrupted)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model = fastbp.MLPClassifier(**parameters).fit(X, y)
    monkeypatch.undo()
    messages = [str(w.message) for w in record if "batch_size" not in str(w.message)]
    assert messages == ["Training interrupted by user."]
    n = model.n_iter_  # a call may take several epochs
    assert calls_before <= n < 50
    assert (model.t_, len(model.loss_curve_)) == (n * len(X), n)
    with pytest.warns(UserWarning, match="batch_size"):
        whole = fastbp.MLPClassifier(**{**parameters, "max_iter": n}).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))
    assert model.loss_curve_ == whole.loss_curve_


# Several epochs in one call


TOGETHER = {
    **{name: SOLVERS[name] for name in ("adam", "batch_7", "unshuffled", "sgd_adaptive")},
    **STOPPING,
    "warm_up": {"warmup_epochs": 2.5},
    "cosine": {"learning_rate": "cosine", "solver": "sgd"},
    "one_cycle": {"learning_rate": "one_cycle"},
    "plateau": {"learning_rate": "reduce_on_plateau", "tol": 0.02, "n_iter_no_change": 2},
    "dropout": {"dropout": 0.3},
}


@pytest.mark.parametrize("option", TOGETHER)
def test_epochs_taken_together_are_those_taken_one_by_one(option, monkeypatch):
    X, y = make_data("multiclass")
    options = {"max_iter": 70, "batch_size": 20, **TOGETHER[option]}

    def fit():
        generator = np.random.RandomState(3)
        model = fastbp.MLPClassifier(random_state=generator, **options).fit(X, y)
        return model, generator.get_state()

    taken = []
    take = training.Trainer._take_epochs

    def noted(trainer, n_epochs):
        taken.append(n_epochs)
        take(trainer, n_epochs)

    monkeypatch.setattr(training.Trainer, "_take_epochs", noted)
    together, state = fit()
    assert max(taken) > 1 or option == "invscaling"
    monkeypatch.setattr(training, "_EPOCHS_AHEAD", 1)
    del taken[:]
    one_by_one, expected = fit()
    assert taken == [1] * one_by_one.n_iter_
    assert same_state(state, expected)
    assert together.loss_curve_ == one_by_one.loss_curve_
    for name in ("n_iter_", "t_", "best_loss_", "_no_improvement_count"):
        assert getattr(together, name) == getattr(one_by_one, name)
    np.testing.assert_array_equal(together.predict_proba(X), one_by_one.predict_proba(X))


WATCHED = {
    "verbose": {"verbose": True},
    "early_stopping": {"early_stopping": True},
    "max_time": {"max_time": 1e6},
    "restore_best_weights": {"restore_best_weights": True},
    "progress_bar": {"progress_bar": True},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling"},
}


@pytest.mark.parametrize("watcher", WATCHED)
def test_epochs_that_are_watched_have_calls_of_their_own(watcher, monkeypatch):
    X, y = make_data("multiclass")
    ends = []
    end = training.Trainer._end_epoch

    def noted(trainer, *args):
        ends.append(int(trainer._updates_taken[0]))
        end(trainer, *args)

    monkeypatch.setattr(training.Trainer, "_end_epoch", noted)
    options = {"batch_size": 1000, "max_iter": 6, "random_state": 0}
    with pytest.warns(UserWarning, match="batch_size"):
        fastbp.MLPClassifier(**options, **WATCHED[watcher]).fit(X, y)
    assert ends == [1, 2, 3, 4, 5, 6]  # steps that had been taken at the end of each


def test_a_fit_that_diverges_among_several_epochs_ends_there(monkeypatch):
    X, y = make_data("regression")
    options = {"solver": "sgd", "learning_rate_init": 0.5, "batch_size": 20}
    messages = []
    for ahead in (16, 1):
        monkeypatch.setattr(training, "_EPOCHS_AHEAD", ahead)
        model = fastbp.MLPRegressor(random_state=0, **options)
        with pytest.raises(ValueError, match="non-finite") as error:
            model.fit(X, 20 * y)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert int(re.search(r"epoch (\d+)", messages[0])[1]) > 1


def test_ctrl_c_between_epochs_of_a_call_keeps_all_of_it(monkeypatch):
    X, y = make_data("multiclass")
    options = {"random_state": 0, "batch_size": 20, "n_iter_no_change": np.inf}
    end, ended = training.Optimizer.end_epoch, []

    def interrupted(optimizer, *args):
        end(optimizer, *args)
        ended.append(optimizer)
        if len(ended) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Optimizer, "end_epoch", interrupted)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model = fastbp.MLPClassifier(**options, max_iter=100).fit(X, y)
    monkeypatch.undo()
    assert model.n_iter_ == len(model.loss_curve_) == 32  # two calls of 16
    whole = fastbp.MLPClassifier(**options, max_iter=32).fit(X, y)
    assert model.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))


def test_ctrl_c_leaves_the_learning_rate_of_a_step_that_was_taken(monkeypatch):
    X, y = make_data("multiclass")
    options = {"random_state": 0, "batch_size": len(X), "learning_rate": "one_cycle"}
    call = threads.Team.call

    def interrupted(self, *args):
        call(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads.Team, "call", interrupted)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model = fastbp.MLPClassifier(**options, max_iter=100).fit(X, y)
    rates = [batch_rates("one_cycle", 1e-3, i, 1, 100, 0.0)[0] for i in range(100)]
    assert model._optimizer.last_rate == rates[model.n_iter_ - 1] < rates[model.n_iter_]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_patience_of_an_unsigned_type():
    X, y = make_data("multiclass")
    models = []
    for patience in (3, np.uint8(3)):
        model = fastbp.MLPClassifier(tol=10.0, warm_start=True, random_state=0)
        model.set_params(n_iter_no_change=20, max_iter=12, batch_size=20).fit(X, y)
        model.set_params(n_iter_no_change=patience, max_iter=60).fit(X, y)
        models.append(model)
    assert models[0].n_iter_ == models[1].n_iter_
    assert_same_model(*models, X)


# Random states


def same_state(a, b):
    return a[0] == b[0] and np.array_equal(a[1], b[1]) and a[2:] == b[2:]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("target", ["binary", "multioutput"])
def test_generator_is_left_in_the_same_state(target, shuffle):
    X, y = make_data(target)
    generators = [np.random.RandomState(11), np.random.RandomState(11)]
    models = []
    for model, generator in zip(classes_for(target), generators, strict=True):
        generator.standard_normal(3)  # not fresh
        parameters = {"max_iter": 3, "random_state": generator, "shuffle": shuffle}
        models.append(model(**parameters).fit(X, y))
    assert same_state(*(g.get_state() for g in generators))
    assert_same_model(*models, X)
    # the generators go on: a second fit differs from the first, alike in both
    first = models[0].loss_curve_
    for model in models:
        model.fit(X, y)
    assert models[0].loss_curve_ != first
    assert_same_model(*models, X)
    assert same_state(*(g.get_state() for g in generators))


def test_random_state_none_is_numpys_global_generator():
    X, y = make_data("multiclass")
    saved = np.random.get_state()  # noqa: NPY002
    try:
        models, states = [], []
        for model in classes_for("multiclass"):
            np.random.seed(5)  # noqa: NPY002
            models.append(model(max_iter=3).fit(X, y))
            states.append(np.random.get_state())  # noqa: NPY002
    finally:
        np.random.set_state(saved)  # noqa: NPY002
    assert_same_model(*models, X)
    assert same_state(*states)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7)])
def test_integer_seeds(seed):
    X, y = make_data("binary")
    saved = np.random.get_state()  # noqa: NPY002
    models = fit_both("binary", X, y, random_state=seed, max_iter=2)
    assert_same_model(*models, X)
    assert same_state(saved, np.random.get_state())  # noqa: NPY002


def test_int_seed_starts_afresh_at_every_fit():
    X, y = make_data("regression")
    model = fastbp.MLPRegressor(random_state=0, max_iter=3)
    first = model.fit(X, y).loss_curve_
    assert model.fit(X, y).loss_curve_ == first
    assert model.t_ == 3 * len(X)
