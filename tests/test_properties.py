"""Random configurations and sequences of calls, in step with scikit-learn.

Each example makes a network of either kind and gives both the same calls: ``fit``,
``partial_fit``, warm fits, with parameters changed in between. After every call both
have to be in the same state, up to rounding.

Where fastbp differs on purpose (README, *Differences from scikit-learn*), examples
either stay away or take the difference back on scikit-learn's side:

  * ``partial_fit`` with an integer seed: more than one call has a generator instead.
  * L-BFGS on several squared errors: not drawn.
  * a warm fit with early stopping: scikit-learn gets the copy of its best weights that
    it lacks (see ``separate_the_best``).
  * batches whose weights are all 0, parameters that diverge, a change of solver before
    ``partial_fit`` or from L-BFGS, of hidden layers or of early stopping before a warm
    fit: not drawn.

Four epochs at most, an epsilon of 1e-3 or more and rates of 1e-2 or less leave rounding
no time to grow.
"""

import inspect
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import sklearn
import sklearn.neural_network as reference
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

import fastbp

WITH_WEIGHTS = "sample_weight" in inspect.signature(reference.MLPRegressor.fit).parameters
#: Before 1.9, scikit-learn cannot stop early on labels that are strings.
STRINGS_STOP_EARLY = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
CLASSIFICATION = ("binary", "multiclass", "multilabel")
REGRESSION = ("regression", "multioutput")
POISSON = ("poisson", "poisson_multioutput") if WITH_WEIGHTS else ()  # both are of 1.7

LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
}

PARAMETERS = {
    "activation": st.sampled_from(["identity", "logistic", "tanh", "relu"]),
    "alpha": st.sampled_from([0.0, 1e-4, 0.1, 2.0]),
    "batch_size": st.just("auto") | st.integers(1, 70),
    "learning_rate": st.sampled_from(["constant", "invscaling", "adaptive"]),
    "learning_rate_init": st.sampled_from([1e-4, 1e-3, 1e-2]),
    "power_t": st.sampled_from([0.0, 0.3, 1.0]),
    "max_iter": st.integers(1, 4),
    "shuffle": st.booleans(),
    "tol": st.sampled_from([0.0, 1e-4, 0.0123, 10.0]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    "nesterovs_momentum": st.booleans(),
    "beta_1": st.sampled_from([0.0, 0.5, 0.9]),
    "beta_2": st.sampled_from([0.0, 0.9, 0.999]),
    "epsilon": st.sampled_from([1e-3, 1e-2, 0.1]),
    "n_iter_no_change": st.sampled_from([1, 2, 10, np.inf]),
    "validation_fraction": st.sampled_from([0.2, 0.35, 0.5]),
    "max_fun": st.sampled_from([3, 15000]),
}
SIZES = st.lists(st.integers(1, 20), max_size=3).map(tuple)
ROWS = st.integers(5, 60)


@dataclass
class Call:
    """One call of ``fit`` or ``partial_fit``, with its rows and what is set before it."""

    method: str
    n_rows: int
    changes: dict
    weights: str | None = None
    classes_again: bool = False  # of partial_fit: given although they are known
    some_classes: bool = False  # of partial_fit: rows of one class less


@dataclass
class Example:
    """A network, the kind of its data, and the calls it gets."""

    target: str
    dtype: str
    layout: str
    n_features: int
    strings: bool
    seed: int
    generator: bool  # a RandomState instead of an integer
    parameters: dict
    calls: list


@st.composite
def examples(draw, sequence):
    target = draw(st.sampled_from(CLASSIFICATION + REGRESSION + POISSON))
    partial = sequence == "partial_fits"
    solvers = ["adam", "sgd"]
    if not partial and target != "multioutput":
        solvers.append("lbfgs")
    parameters = draw(st.fixed_dictionaries(PARAMETERS))
    parameters["hidden_layer_sizes"] = draw(SIZES)
    parameters["solver"] = draw(st.sampled_from(solvers))
    parameters["warm_start"] = sequence == "warm_fits"
    parameters["early_stopping"] = not partial and draw(st.booleans())
    if target in POISSON:
        parameters["loss"] = "poisson"

    optional = dict(PARAMETERS)
    if sequence == "fits":
        optional |= {"hidden_layer_sizes": SIZES, "solver": st.sampled_from(solvers)}
    elif not partial and parameters["solver"] != "lbfgs":
        stays_stochastic = parameters["early_stopping"]
        optional["solver"] = st.sampled_from(solvers[:2] if stays_stochastic else solvers)
    methods = {
        "fits": st.lists(st.just("fit"), min_size=1, max_size=2),
        "warm_fits": st.lists(st.just("fit"), min_size=2, max_size=3),
        "partial_fits": st.lists(
            st.sampled_from(["partial_fit", "partial_fit", "fit"]), min_size=1, max_size=4
        ).filter(lambda methods: "partial_fit" in methods),
    }[sequence]
    calls, current = [], dict(parameters)
    for i, method in enumerate(draw(methods)):
        changes = draw(st.fixed_dictionaries({}, optional=optional)) if i else {}
        current |= changes
        stops_early = current["early_stopping"] and current["solver"] != "lbfgs"
        weights = [None, "positive"]
        if not stops_early:  # the rows that are left are not known here
            weights.append("zeros")
        calls.append(
            Call(
                method,
                draw(st.integers(12, 60) if stops_early else ROWS),
                changes,
                draw(st.sampled_from(weights)) if WITH_WEIGHTS else None,
                draw(st.booleans()),
                i > 0 and method == "partial_fit" and draw(st.booleans()),
            )
        )
    return Example(
        target,
        draw(st.sampled_from(["float64", "float64", "float64", "float32"])),
        draw(st.sampled_from(list(LAYOUTS))),
        draw(st.integers(1, 12)),
        draw(st.booleans()) and (STRINGS_STOP_EARLY or not parameters["early_stopping"]),
        draw(st.integers(0, 1000)),
        len(calls) > 1 if partial else draw(st.booleans()),
        parameters,
        calls,
    )


N_CLASSES = {"binary": 2, "multiclass": 4}


def labels_of(example, numbers):
    return np.array(["a", "b", "c", "d"])[numbers] if example.strings else numbers


def rows_of(example, n_rows, rng, *, some_classes=False):
    """Rows and targets: every class has a row, two where they are enough."""
    X = rng.standard_normal((n_rows, example.n_features))
    if example.layout.startswith("cs"):
        X[rng.uniform(size=X.shape) < 0.6] = 0.0
    mix = np.random.RandomState(example.seed).standard_normal((example.n_features, 4))
    latent = np.tanh(X @ mix) + 0.5 * rng.standard_normal((n_rows, 4))
    X = LAYOUTS[example.layout](X.astype(example.dtype))
    if example.target in N_CLASSES:
        n_classes = N_CLASSES[example.target]
        y = latent[:, :n_classes].argmax(axis=1)
        given_rows = min(n_rows, 2 * n_classes)
        y[:given_rows] = np.arange(given_rows) % n_classes
        if some_classes:
            y = np.minimum(y, n_classes - 2)
        return X, labels_of(example, y)
    return X, {
        "multilabel": (latent[:, :3] > 0).astype(int),
        "regression": latent[:, 0],
        "multioutput": latent[:, :3],
        "poisson": rng.poisson(np.exp(0.5 * latent[:, 0])),
        "poisson_multioutput": rng.poisson(np.exp(0.5 * latent[:, :2])).astype(float),
    }[example.target]


def weights_of(call, parameters, rng):
    """Sample weights; no batch has zeros only."""
    weights = rng.uniform(0.1, 3.0, call.n_rows)
    if call.weights == "zeros":
        size = parameters["batch_size"]
        if size == "auto" or parameters["solver"] == "lbfgs":
            size = call.n_rows
        size = min(size, call.n_rows)
        smallest_batch = call.n_rows % size or size
        zeros = rng.permutation(call.n_rows)[: min(smallest_batch - 1, call.n_rows // 3)]
        weights[zeros] = 0.0
    return weights


def run(model, method, arguments):
    """Calls a method; the texts of its warnings that are about training."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        getattr(model, method)(**arguments)
    return [
        str(w.message)
        for w in record
        if issubclass(w.category, ConvergenceWarning) or "batch_size" in str(w.message)
    ]


def separate_the_best(theirs):
    """Early stopping leaves coefs_ and the copy of the best weights the same arrays in
    scikit-learn, so that a warm fit changes the copy. This makes it a copy again."""
    for name in ("_best_coefs", "_best_intercepts"):
        if hasattr(theirs, name):
            setattr(theirs, name, [w.copy() for w in getattr(theirs, name)])


def far_from_a_tie(model, margin):
    """Whether no loss of the last call was so near to the comparison that counts an
    epoch as one without progress that rounding could decide it."""
    losses = np.array(model.loss_curve_)
    best = np.minimum.accumulate(losses)[:-1] - model.tol
    last = slice(-model.n_iter_, None)
    distance = np.abs(losses[1:] - best)[last]
    return bool((distance > margin * (1.0 + np.abs(losses[1:][last]))).all())


# Measured: scikit-learn against scikit-learn on rows that differ by a rounding (1e-15
# relative in float64, 6e-8 in float32), over 400 examples of each sequence. At most, and
# relative to 0.01 + |value|: 5e-13 in float64 for every solver, 4e-6 in float32 for adam
# and sgd, 7e-6 for lbfgs. fastbp against scikit-learn: 2e-13, 3e-5 and 7e-6, as another
# order of sums rounds at every step and not once, and scikit-learn computes parts of a
# float32 fit in float64. The rest is room. A wrong rule shows in the float64 examples as
# 1e-6 or more.
TOLERANCES = {
    ("float64", False): {"rtol": 1e-9, "atol": 1e-10},
    ("float64", True): {"rtol": 1e-8, "atol": 1e-9},
    ("float32", False): {"rtol": 2e-4, "atol": 2e-4},
    ("float32", True): {"rtol": 1e-3, "atol": 1e-3},
}  # by the rows' dtype, and whether by lbfgs


def assert_in_step(ours, theirs, X, dtype):
    lbfgs = theirs.solver == "lbfgs"
    tolerance = TOLERANCES[dtype, lbfgs]
    names = ["n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"]
    numbers = ["loss_"]
    if not lbfgs:
        names.append("_no_improvement_count")
        numbers += ["loss_curve_", "best_loss_"]
        numbers += ["validation_scores_", "best_validation_score_"]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in numbers:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if other is None:
            assert mine is None, name
        else:
            np.testing.assert_allclose(mine, other, **tolerance, err_msg=name)
    if theirs.solver == "sgd":
        np.testing.assert_allclose(
            ours._optimizer.learning_rate, theirs._optimizer.learning_rate, rtol=1e-12
        )
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert a.dtype == dtype
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, **tolerance, err_msg=name)
    mine, other = ours.predict(X), theirs.predict(X)
    assert mine.shape == other.shape
    if not hasattr(theirs, "predict_proba"):
        np.testing.assert_allclose(mine, other, **tolerance, err_msg="predict")
        return
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    assert mine.dtype == other.dtype
    a, b = ours.predict_proba(X), theirs.predict_proba(X)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, **tolerance, err_msg="predict_proba")
    if mine.ndim == 2:
        clear = np.abs(b - 0.5) > 2 * tolerance["atol"]
    else:
        clear = np.diff(np.sort(b)[:, -2:])[:, 0] > 2 * tolerance["atol"]
    np.testing.assert_array_equal(mine[clear], other[clear])


def run_in_step(example):
    name = "MLPClassifier" if example.target in CLASSIFICATION else "MLPRegressor"
    models = []
    for module in (fastbp, reference):
        seed = example.seed
        seed = np.random.RandomState(seed) if example.generator else seed
        models.append(getattr(module, name)(random_state=seed, **example.parameters))
    ours, theirs = models
    rng = np.random.RandomState(example.seed + 1)
    asked, _ = rows_of(example, 20, rng)
    known = False
    for call in example.calls:
        for model in models:
            model.set_params(**call.changes)
        X, y = rows_of(example, call.n_rows, rng, some_classes=call.some_classes)
        arguments = {"X": X, "y": y}
        if call.weights:
            arguments["sample_weight"] = weights_of(call, theirs.get_params(), rng)
        gives_classes = call.method == "partial_fit" and (call.classes_again or not known)
        if name == "MLPClassifier" and gives_classes:
            n_classes = N_CLASSES.get(example.target, 3)
            classes = np.arange(n_classes)
            if example.target in N_CLASSES:
                classes = labels_of(example, classes)
            arguments["classes"] = classes
        separate_the_best(theirs)
        try:
            expected = run(theirs, call.method, arguments)
        except ValueError as error:
            assume("non-finite" not in str(error))
            raise
        weights = [np.abs(w).max() for w in theirs.coefs_ + theirs.intercepts_]
        assume(max(weights) < 30.0)
        if theirs.solver != "lbfgs":
            assume(far_from_a_tie(theirs, 1e-9 if example.dtype == "float64" else 1e-5))
        warned = run(ours, call.method, arguments)
        assert warned == expected
        assert_in_step(ours, theirs, X, example.dtype)
        assert_in_step(ours, theirs, asked, example.dtype)
        if example.generator:
            states = [model.random_state.get_state(legacy=False) for model in models]
            np.testing.assert_equal(*states)
        known = True


SEQUENCES = ("fits", "warm_fits", "partial_fits")
SETTINGS = {
    "derandomize": True,  # the same examples in every run
    "database": None,
    "deadline": None,  # a first fit compiles
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "phases": [Phase.generate, Phase.shrink],
}


@pytest.mark.timeout(900)  # shrinking a failure takes up to 5 minutes
@pytest.mark.parametrize("sequence", SEQUENCES)
@settings(max_examples=15, **SETTINGS)
@given(data=st.data())
def test_in_step_with_scikit_learn(sequence, data):
    run_in_step(data.draw(examples(sequence)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sequence", SEQUENCES)
@settings(max_examples=400, **SETTINGS)
@given(data=st.data())
def test_in_step_with_scikit_learn_over_many_examples(sequence, data):
    run_in_step(data.draw(examples(sequence)))
