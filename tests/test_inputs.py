"""What the estimators accept, refuse, and leave alone."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.neural_network as reference
from scipy import sparse
from sklearn import config_context
from sklearn.exceptions import DataConversionWarning
from sklearn.utils._param_validation import InvalidParameterError

import fastbp
from fastbp import MLPClassifier, MLPRegressor

ESTIMATORS = (MLPClassifier, MLPRegressor)
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 2, "random_state": 0}
SKLEARN = tuple(int(n) for n in sklearn.__version__.split(".")[:2])

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def sklearn_twin(model):
    return getattr(reference, model.__name__)


def small_data(model, n=60, n_features=5, dtype=np.float64):
    """Small integers as floats: every dtype can hold them."""
    rng = np.random.RandomState(0)
    X = rng.randint(0, 2, (n, n_features)).astype(dtype)
    if model is MLPClassifier:
        return X, rng.randint(3, size=n)
    return X, X @ np.arange(1.0, n_features + 1).astype(dtype)


def outputs_of(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


def assert_equal_models(a, b):
    assert a.loss_curve_ == b.loss_curve_
    for v, w in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert v.dtype == w.dtype
        np.testing.assert_array_equal(v, w)


# Arrays in all forms


def strided(a):
    return np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3]


def reversed_memory(a):
    return a[::-1, ::-1].copy()[::-1, ::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[:] = a
    assert not view.flags.aligned
    return view


def big_endian(a):
    return a.astype(a.dtype.newbyteorder(">"))


def broadcast_rows(a):
    """Every row is the first row, in the same memory."""
    return np.broadcast_to(a[0], a.shape)


FORMS = {
    "fortran": np.asfortranarray,
    "strided": strided,
    "reversed": reversed_memory,
    "read_only": read_only,
    "unaligned": unaligned,
    "big_endian": big_endian,
    "subclass": lambda a: a.view(type("Rows", (np.ndarray,), {})),
}
CONVERTED = {
    "list": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int8": lambda a: a.astype(np.int8),
    "uint64": lambda a: a.astype(np.uint64),
    "bool": lambda a: a.astype(bool),
    "object": lambda a: a.astype(object),
    "big_endian_float32": lambda a: a.astype(">f4").astype(">f8"),
    "dataframe": pd.DataFrame,
    "dataframe_int": lambda a: pd.DataFrame(a.astype(np.int32)),
    "dataframe_nullable": lambda a: pd.DataFrame(a).astype("Float64"),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_memory_layout_does_not_matter(model, form, dtype):
    X, y = small_data(model, dtype=dtype)
    given = FORMS[form](X)
    if form == "big_endian":  # not NumPy's float32: float64, as in scikit-learn
        X = X.astype(np.float64)
    plain = model(**QUICK).fit(X, y)
    other = model(**QUICK).fit(given, y)
    assert_equal_models(other, plain)
    np.testing.assert_array_equal(outputs_of(plain, given), outputs_of(plain, X))


@pytest.mark.parametrize("form", CONVERTED)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_type_does_not_matter_where_numbers_are_equal(model, form):
    X, y = small_data(model)
    plain = model(**QUICK).fit(X, y)
    given = CONVERTED[form](X)
    assert_equal_models(model(**QUICK).fit(given, y), plain)
    np.testing.assert_array_equal(
        outputs_of(plain, np.asarray(given)), outputs_of(plain, X)
    )


@pytest.mark.parametrize("model", ESTIMATORS)
def test_broadcast_rows(model):
    X, y = small_data(model)
    given = broadcast_rows(X)
    assert_equal_models(model(**QUICK).fit(given, y), model(**QUICK).fit(given.copy(), y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_memory_mapped_files(model, dtype, tmp_path):
    X, y = small_data(model, dtype=dtype)
    maps = {}
    for name, array in {"X": X, "y": y}.items():
        path = tmp_path / name
        array.tofile(path)
        maps[name] = np.memmap(path, array.dtype, mode="r", shape=array.shape)
    mapped = model(**QUICK).fit(maps["X"], maps["y"])
    assert_equal_models(mapped, model(**QUICK).fit(X, y))
    np.testing.assert_array_equal(outputs_of(mapped, maps["X"]), outputs_of(mapped, X))


TARGET_FORMS = {
    "list": lambda y: y.tolist(),
    "strided": lambda y: np.repeat(y, 2)[::2],
    "reversed": lambda y: y[::-1].copy()[::-1],
    "read_only": read_only,
    "unaligned": unaligned,
    "big_endian": big_endian,
    "object": lambda y: y.astype(object),
    "series": lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
}


@pytest.mark.parametrize("form", TARGET_FORMS)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_form_of_the_targets_does_not_matter(model, form):
    X, y = small_data(model)
    if form == "object" and model is MLPClassifier:
        y = np.array(["a", "b", "c"])[y]
    plain = model(**QUICK).fit(X, y)
    assert_equal_models(model(**QUICK).fit(X, TARGET_FORMS[form](y)), plain)


@pytest.mark.parametrize("form", ["fortran", "strided", "read_only", "big_endian"])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_form_of_two_dimensional_targets_does_not_matter(model, form):
    if form == "big_endian" and model is MLPClassifier and SKLEARN < (1, 7):
        pytest.skip("scikit-learn 1.6 takes such numbers for several classes a row")
    X, _ = small_data(model)
    y = X[:, 1:4].copy()
    plain = model(**QUICK).fit(X, y)
    assert_equal_models(model(**QUICK).fit(X, FORMS[form](y)), plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_inputs_are_never_modified(model, order, columns, dtype):
    X, y = small_data(model, dtype=dtype)
    X = np.array(X, order=order)
    if columns > 1:
        y = np.array(X[:, :columns], order=order)
    copies = X.copy(), y.copy()
    flags = [str(a.flags) for a in (X, y)]
    fitted = model(**QUICK).fit(X, y)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(fitted, method):
            getattr(fitted, method)(X)
    fitted.score(X, y)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(y, copies[1])
    assert [str(a.flags) for a in (X, y)] == flags


@pytest.mark.parametrize("model", ESTIMATORS)
def test_the_model_does_not_share_memory_with_the_inputs(model):
    X, y = small_data(model)
    fitted = model(**QUICK).fit(X, y)
    before = [w.copy() for w in fitted.coefs_]
    given = X.copy()
    outputs = outputs_of(fitted, given)
    kept = outputs.copy()
    given[:], X[:] = 7.0, 7.0
    outputs_of(fitted, given)
    np.testing.assert_array_equal(outputs, kept)
    for a, b in zip(fitted.coefs_, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_predictions_of_another_dtype_than_the_model():
    # The model's dtype decides. scikit-learn promotes: float32 weights and float64
    # rows give float64 there, of float32's accuracy (1e-6 for sums of a few terms).
    X, y = small_data(MLPRegressor)
    for fitted_on, asked in ((np.float32, np.float64), (np.float64, np.float32)):
        model = MLPRegressor(**QUICK).fit(X.astype(fitted_on), y)
        assert model.predict(X.astype(asked)).dtype == fitted_on
        twin = reference.MLPRegressor(**QUICK).fit(X.astype(fitted_on), y)
        np.testing.assert_allclose(
            model.predict(X.astype(asked)), twin.predict(X.astype(asked)), rtol=1e-5
        )


# Data frames


@pytest.mark.parametrize("model", ESTIMATORS)
def test_feature_names(model):
    X, y = small_data(model)
    frame = pd.DataFrame(X, columns=list("abcde"))
    fitted = model(**QUICK).fit(frame, y)
    assert fitted.feature_names_in_.tolist() == list("abcde")
    assert fitted.n_features_in_ == 5
    np.testing.assert_array_equal(
        outputs_of(fitted, frame), outputs_of(model(**QUICK).fit(X, y), X)
    )
    fitted.fit(X, y)
    assert not hasattr(fitted, "feature_names_in_")


def raised(call):
    """Type and text of what ``call`` raises, and the warnings before it."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            call()
        except Exception as error:
            outcome = type(error), comparable(str(error))
        else:
            outcome = None
    return outcome, [(w.category, str(w.message)) for w in record]


def comparable(text):
    """``text`` with the options of ``{...}`` sorted: they come from a set."""
    return re.sub(
        r"\{([^{}]*)\}",
        lambda match: "{" + ", ".join(sorted(match[1].split(", "))) + "}",
        text,
    )


def assert_same_error(model, call):
    theirs = raised(lambda: call(sklearn_twin(model)))
    ours = raised(lambda: call(model))
    assert theirs[0] is not None, "scikit-learn accepts this"
    assert ours == theirs


@pytest.mark.parametrize(
    "names", [list("abcdx"), list("edcba"), [f"long_name_{i}" for i in range(5)]]
)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_wrong_feature_names_are_scikit_learns_error(model, names):
    X, y = small_data(model)

    def call(estimator):
        fitted = estimator(**QUICK).fit(pd.DataFrame(X, columns=list("abcde")), y)
        fitted.predict(pd.DataFrame(X, columns=names))

    assert_same_error(model, call)


@pytest.mark.parametrize("model", ESTIMATORS)
def test_missing_feature_names_are_scikit_learns_warning(model):
    X, y = small_data(model)
    frame = pd.DataFrame(X, columns=list("abcde"))
    for given, asked in ((frame, X), (X, frame)):
        outcomes = [
            raised(lambda: estimator(**QUICK).fit(given, y).predict(asked))  # noqa: B023
            for estimator in (model, sklearn_twin(model))
        ]
        assert outcomes[0] == outcomes[1]
        assert "feature names" in outcomes[0][1][-1][1]


# Refused, in scikit-learn's words


def with_value(value, dtype=np.float64):
    def change(X):
        X = X.astype(dtype)
        X[3, 2] = value
        return X

    return change


BAD_X = {
    "nan": with_value(np.nan),
    "inf": with_value(np.inf),
    "minus_inf": with_value(-np.inf),
    "nan_float32": with_value(np.nan, np.float32),
    "inf_float32": with_value(np.inf, np.float32),
    "nan_object": with_value(np.nan, object),
    "string": with_value("a word", object),
    "none": with_value(None, object),
    "dict": with_value({}, object),
    "strings": lambda X: np.full(X.shape, "word"),
    "complex": lambda X: X + 1j,
    "one_dimension": lambda X: X[:, 0],
    "three_dimensions": lambda X: X[:, :, None],
    "scalar": lambda X: 3.0,
    "none_at_all": lambda X: None,
    "text": lambda X: "text",
    "no_rows": lambda X: X[:0],
    "no_columns": lambda X: X[:, :0],
    "too_few_rows": lambda X: X[:-1],
    "ragged": lambda X: [[1.0, 2.0], [3.0]],
    "frame_with_words": lambda X: pd.DataFrame(X).assign(word="x"),
    "frame_with_nan": lambda X: pd.DataFrame(with_value(np.nan)(X)),
    "frame_with_mixed_names": lambda X: pd.DataFrame(X, columns=["a", 1, "c", 2, 3]),
}
BAD_Y = {
    "nan": lambda y: np.where(y == y[0], np.nan, y),
    "inf": lambda y: np.where(y == y[0], np.inf, y),
    "too_short": lambda y: y[:-1],
    "too_long": lambda y: np.append(y, y[0]),
    "empty": lambda y: y[:0],
    "none": lambda y: None,
    "scalar": lambda y: 1.0,
    "three_dimensions": lambda y: y.reshape(-1, 1, 1),
    "complex": lambda y: y + 1j,
    "ragged": lambda y: [[1.0, 2.0], [3.0]],
    "strings_and_numbers": lambda y: np.array([*y.tolist()[:-1], "a"], dtype=object),
    "dicts": lambda y: np.array([{} for _ in y], dtype=object),
    "nan_object": lambda y: np.array([*y.tolist()[:-1], np.nan], dtype=object),
    "no_outputs": lambda y: np.zeros((len(y), 0)),
}
BAD_LABELS = {
    "continuous_multioutput": lambda y: np.c_[y + 0.5, y],
    "multiclass_multioutput": lambda y: np.c_[y, y],
    "label_sequences": lambda y: [[0], [1, 2]] * (len(y) // 2),
}


@pytest.mark.parametrize("bad", BAD_X)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_X_in_fit_is_scikit_learns_error(model, bad):
    X, y = small_data(model)
    assert_same_error(model, lambda m: m(**QUICK).fit(BAD_X[bad](X), y))


@pytest.mark.parametrize("bad", [*BAD_X, "too_few_columns", "too_many_columns"])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_X_in_predict_is_scikit_learns_error(model, bad):
    if bad == "too_few_rows":
        pytest.skip("any number of rows can be predicted")
    X, y = small_data(model)
    changes = {
        "too_few_columns": lambda X: X[:, 1:],
        "too_many_columns": lambda X: np.c_[X, X],
        **BAD_X,
    }

    def call(estimator):
        estimator(**QUICK).fit(X, y).predict(changes[bad](X))

    assert_same_error(model, call)


@pytest.mark.parametrize("bad", BAD_Y)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_y_is_scikit_learns_error(model, bad):
    X, y = small_data(model)
    assert_same_error(model, lambda m: m(**QUICK).fit(X, BAD_Y[bad](y)))


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_bad_labels_are_scikit_learns_error(bad):
    X, y = small_data(MLPClassifier)
    assert_same_error(MLPClassifier, lambda m: m(**QUICK).fit(X, BAD_LABELS[bad](y)))


def test_labels_of_none_are_scikit_learns_error():
    X, y = small_data(MLPClassifier)
    nones = np.array([None for _ in y], dtype=object)
    assert_same_error(MLPClassifier, lambda m: m(**QUICK).fit(X, nones))


def test_targets_of_none_are_missing_values():
    # They become NaN after the check for NaN, in both: the fit ends with the error of
    # diverged fits, which fastbp extends by the epoch.
    X, y = small_data(MLPRegressor)
    nones = np.array([None for _ in y], dtype=object)
    for model in (MLPRegressor, reference.MLPRegressor):
        with pytest.raises(ValueError, match="Solver produced non-finite"):
            model(**QUICK).fit(X, nones)


def test_words_as_regression_targets_are_an_error():
    X, y = small_data(MLPRegressor)
    words = np.array(["some", "words"])[(y > 3).astype(int)]
    objects = words.astype(object)
    assert_same_error(MLPRegressor, lambda m: m(**QUICK).fit(X, objects))
    # scikit-learn fails later here, on a subtraction, and names a ufunc
    for model in (MLPRegressor, reference.MLPRegressor):
        with pytest.raises(TypeError):
            model(**QUICK).fit(X, words)


@pytest.mark.parametrize("model", ESTIMATORS)
def test_dates_are_numbers_of_days(model):
    # scikit-learn fits them so too, but its predict then fails on a matrix product
    X, y = small_data(model)
    plain = model(**QUICK).fit(X, y)
    dates = X.astype("M8[D]")
    assert_equal_models(model(**QUICK).fit(dates, y), plain)
    np.testing.assert_array_equal(outputs_of(plain, dates), outputs_of(plain, X))


BAD_PARAMETERS = [
    {"hidden_layer_sizes": (0,)},
    {"hidden_layer_sizes": (5, -1)},
    {"hidden_layer_sizes": [5, 0, 3]},
    {"hidden_layer_sizes": np.array([5, 0])},
    {"hidden_layer_sizes": 0},
    {"hidden_layer_sizes": -3},
    {"hidden_layer_sizes": 2.5},
    {"hidden_layer_sizes": None},
    {"hidden_layer_sizes": "wide"},
    {"activation": "swish"},
    {"activation": None},
    {"activation": "softmax"},
    {"solver": "hadoken"},
    {"solver": 1},
    {"alpha": -1},
    {"alpha": np.nan},
    {"alpha": "small"},
    {"alpha": None},
    {"batch_size": 0},
    {"batch_size": -5},
    {"batch_size": 2.5},
    {"batch_size": "all"},
    {"batch_size": None},
    {"learning_rate": "converge"},
    {"learning_rate_init": 0},
    {"learning_rate_init": -1.0},
    {"learning_rate_init": np.nan},
    {"power_t": -0.5},
    {"max_iter": 0},
    {"max_iter": -1},
    {"max_iter": 2.0},
    {"max_iter": np.inf},
    {"shuffle": "true"},
    {"shuffle": 1},
    {"random_state": -1},
    {"random_state": 2**32},
    {"random_state": "seed"},
    {"random_state": np.random.default_rng(0)},
    {"tol": -1e-9},
    {"tol": None},
    {"verbose": "yes"},
    {"verbose": -1},
    {"warm_start": 2},
    {"momentum": 1.5},
    {"momentum": -0.1},
    {"nesterovs_momentum": "no"},
    {"early_stopping": "never"},
    {"validation_fraction": 1.0},
    {"validation_fraction": -0.1},
    {"beta_1": 1},
    {"beta_1": -0.5},
    {"beta_2": 1.0},
    {"beta_2": -0.5},
    {"epsilon": 0},
    {"epsilon": -1e-8},
    {"n_iter_no_change": 0},
    {"n_iter_no_change": 1.5},
    {"n_iter_no_change": -np.inf},
    {"max_fun": 0},
    {"max_fun": 1.5},
]


#: Parameters that take more than scikit-learn's do.
TAKE_MORE = {"activation", "solver", "learning_rate", "loss"}


def name_of(parameters):
    ((name, value),) = parameters.items()
    return f"{name}={type(value).__name__}-{np.size(value)}"


@pytest.mark.parametrize("bad", BAD_PARAMETERS, ids=name_of)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_parameters_are_scikit_learns_error(model, bad):
    X, y = small_data(model)
    theirs, ours = (
        raised(lambda m=m: m(**{**QUICK, **bad}).fit(X, y))
        for m in (sklearn_twin(model), model)
    )
    if TAKE_MORE & set(bad):  # the texts tell all that they take
        theirs, ours = (re.sub("must be .* Got", "", str(e)) for e in (theirs, ours))
    assert ours == theirs != (None, [])


@pytest.mark.parametrize("bad", [(2.5,), (5.0,), np.array([5.0]), (True,)], ids=repr)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_layer_sizes_that_are_not_integers_are_a_type_error(model, bad):
    # scikit-learn's text is NumPy's; only the type is compared
    X, y = small_data(model)
    for estimator in (sklearn_twin(model), model):
        with pytest.raises(TypeError):
            estimator(hidden_layer_sizes=bad).fit(X, y)


@pytest.mark.skipif(
    "loss" not in reference.MLPRegressor().get_params(),
    reason="scikit-learn 1.6 knows one loss",
)
@pytest.mark.parametrize("bad", ["log_loss", "median", None, (100,)])
def test_bad_loss_is_scikit_learns_error(bad):
    X, y = small_data(MLPRegressor)
    theirs, ours = (
        raised(lambda m=m: m(bad, random_state=0).fit(X, y))[0]
        for m in (reference.MLPRegressor, MLPRegressor)
    )
    got = re.compile(r"must be .* Got")  # ours tells of more than they take
    assert ours[0] is theirs[0]
    assert got.sub("", ours[1]) == got.sub("", theirs[1])


@pytest.mark.parametrize(
    "bad", [{"dtype": "float16"}, {"dtype": np.float32}, {"n_jobs": 1.5}]
)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_parameters_of_its_own_are_invalid_parameter_errors(model, bad):
    X, y = small_data(model)
    (name,) = bad
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of "):
        model(**{**QUICK, **bad}).fit(X, y)


def test_parameters_are_checked_before_the_data():
    for model in ESTIMATORS:
        assert_same_error(model, lambda m: m(alpha=-1).fit(None, None))
        assert_same_error(model, lambda m: m(hidden_layer_sizes=(0,)).fit(3, 4))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_parameter_checks_can_be_switched_off_as_in_scikit_learn(model):
    X, y = small_data(model)
    with config_context(skip_parameter_validation=True):
        fitted = model(**QUICK, tol=-1.0).fit(X, y)  # below the range, but harmless
    assert_equal_models(fitted, model(**QUICK).fit(X, y))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_an_error_leaves_a_fitted_model_usable(model):
    X, y = small_data(model)
    fitted = model(**QUICK).fit(X, y)
    before = outputs_of(fitted, X)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fitted.fit(with_value(np.nan)(X), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.fit(X, y[:-1])
    np.testing.assert_array_equal(outputs_of(fitted, X), before)


BAD_WEIGHTS = {
    "nan": (np.nan, "Input sample_weight contains NaN"),
    "inf": (np.inf, "Input sample_weight contains infinity"),
    "text": ("heavy", "could not convert string to float"),
    "zero": (0.0, "must contain at least one non-zero number"),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
@pytest.mark.parametrize("model", ESTIMATORS)
def test_bad_weights_are_a_named_error_and_change_nothing(model, bad):
    X, y = small_data(model)
    weight, message = BAD_WEIGHTS[bad]
    fitted, rows = model(**QUICK).fit(X, y), np.full(len(X), weight)
    before = outputs_of(fitted, X)
    for call in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=message):
            call(X, y, sample_weight=rows)
        with pytest.raises(ValueError, match="must be 1D array or scalar"):
            call(X, y, sample_weight=np.ones((len(X), 2)))
    np.testing.assert_array_equal(outputs_of(fitted, X), before)
    assert_equal_models(fitted.fit(X, y), model(**QUICK).fit(X, y))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_a_validation_set_without_weight_is_an_error(model):
    X, y = small_data(model)
    weights = np.zeros(len(X))
    weights[0] = 1  # a row that this seed trains on
    with pytest.raises(ValueError, match="of the validation set add up to zero"):
        model(**QUICK, early_stopping=True).fit(X, y, sample_weight=weights)


def torn(form):
    """A sparse matrix that tells of numbers that it does not have."""
    X = getattr(sparse, f"{form}_array")(np.ones((30, 30)))
    if form == "coo":
        X.row[5] = 10**6
    else:
        X.indptr[5] = 10**6
    return X


def far(form):
    X = getattr(sparse, f"{form}_array")(np.ones((30, 30)))
    X.indices[7] = 10**6
    return X


def hidden(form):
    """As ``torn``, although its number of stored numbers is said to be 0."""
    X = torn(form)
    X.indptr[-1] = 0
    return X


@pytest.mark.parametrize(
    ("damage", "form"),
    [(torn, "csr"), (torn, "csc"), (torn, "bsr"), (torn, "coo"), (hidden, "csr")]
    + [(hidden, "csc"), (far, "csr"), (far, "csc")],
)
def test_sparse_matrices_with_wrong_indices_are_an_error(damage, form):
    # SciPy and scikit-learn read outside of their arrays, which may end the process
    X, y = damage(form), np.arange(30) % 2
    fitted = MLPClassifier(**QUICK).fit(np.eye(30), y)
    message = "indptr|index|indices"
    for call in (fitted.predict, lambda X: fitted.fit(X, y)):
        with pytest.raises(ValueError, match=message):
            call(X)
    assert fitted.predict(np.eye(30)).shape == (30,)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
def test_sparse_inputs_are_never_modified(form):
    # their checks by SciPy replace indices and byte order where they find reason to
    X = getattr(sparse, f"{form}_array")(small_data(MLPClassifier)[0])
    if form in ("csr", "csc"):  # of others SciPy cannot convert such numbers
        X.data = X.data.astype(">f8")
    if form != "coo":
        X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int32)
    before = {name: value for name, value in vars(X).items() if hasattr(value, "dtype")}
    copies = {name: value.copy() for name, value in before.items()}
    MLPClassifier(**QUICK).fit(X, np.arange(60) % 2).predict(X)
    for name, value in before.items():
        assert vars(X)[name] is value
        np.testing.assert_array_equal(value, copies[name])


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_frames_of_big_endian_numbers(model, dtype):
    X, y = small_data(model)
    frame = pd.DataFrame(X.astype(dtype))
    same = X.astype(np.dtype(dtype).newbyteorder("="))
    fitted = model(**QUICK).fit(frame, y)
    assert_equal_models(fitted, model(**QUICK).fit(same, y))
    np.testing.assert_array_equal(outputs_of(fitted, frame), outputs_of(fitted, same))


def test_sparse_regression_targets_are_dense_ones():
    X, y = small_data(MLPRegressor)
    Y = np.c_[y, y % 2]
    expected = MLPRegressor(**QUICK).fit(X, Y)
    for container in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        assert_equal_models(MLPRegressor(**QUICK).fit(X, container(Y)), expected)


@pytest.mark.parametrize(
    "name", ["alpha", "learning_rate_init", "power_t", "tol", "epsilon"]
)
def test_numbers_beyond_all_floats_are_invalid_parameters(name):
    X, y = small_data(MLPRegressor)
    with pytest.raises(InvalidParameterError, match=f"{name}.* a float can hold"):
        MLPRegressor(**QUICK, **{name: 10**400}).fit(X, y)


@pytest.mark.parametrize("size", [2**63, 10**400])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_layers_larger_than_any_array_are_an_error(model, size):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be sizes"):
        model(hidden_layer_sizes=(3, size)).fit(*small_data(model))


def test_huge_and_small_whole_numbers_that_are_counts():
    X, y = small_data(MLPRegressor, n=400)
    huge = {"batch_size": 10**400, "n_iter_no_change": 10**400}
    with pytest.warns(match="It is going to be clipped"):
        model = MLPRegressor(**QUICK, **huge).fit(X, y)
    whole = MLPRegressor(**QUICK, batch_size=400).fit(X, y)
    assert_equal_models(model, whole)
    many = MLPRegressor(hidden_layer_sizes=(6,), max_iter=10**400, tol=1e3)
    assert many.fit(X, y).n_iter_ < 100
    few = {**QUICK, "max_iter": np.int8(2), "batch_size": 1}  # 800 steps
    assert MLPRegressor(**few).fit(X, y).n_iter_ == 2


def test_a_learning_rate_that_falls_below_all_numbers_is_0():
    X, y = small_data(MLPRegressor)
    options = {"solver": "sgd", "learning_rate": "invscaling", "power_t": 1000}
    model = MLPRegressor(**QUICK, **options).fit(X, y)
    assert np.isfinite(model.loss_)
    assert model._optimizer.learning_rate == 0


@pytest.mark.parametrize("model", ESTIMATORS)
@pytest.mark.parametrize(
    "change", [{"activation": "swish"}, {"dtype": "half"}, {"batch_size": 0}]
)
def test_parameters_changed_to_bad_ones_before_partial_fit(model, change):
    X, y = small_data(model)
    fitted = model(**QUICK).partial_fit(
        X, y, **({"classes": range(3)} if model is MLPClassifier else {})
    )
    name = next(iter(change))
    good, before = fitted.get_params()[name], outputs_of(fitted, X)
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        fitted.set_params(**change).partial_fit(X, y)
    fitted.set_params(**{name: good})
    np.testing.assert_array_equal(outputs_of(fitted, X), before)


def test_inputs_that_share_memory():
    memory = np.random.default_rng(0).uniform(1, 2, 60 * 6)
    X, y, weights = memory[: 60 * 5].reshape(60, 5), memory[7:67], memory[300:]
    copies = [a.copy() for a in (X, y, weights)]
    shared = MLPRegressor(**QUICK).fit(X, y, sample_weight=weights)
    assert_equal_models(shared, MLPRegressor(**QUICK).fit(*copies))
    np.testing.assert_array_equal(X, copies[0])
    # coefs_ of a network that shares one matrix between its layers
    model = MLPRegressor(hidden_layer_sizes=(5, 5), max_iter=1).fit(X, y)
    model.coefs_[1] = model.coefs_[0]
    apart = model.predict(X), model.predict(X[:1])
    model.coefs_[1] = model.coefs_[0].copy()
    np.testing.assert_array_equal(apart[0], model.predict(X))
    np.testing.assert_array_equal(apart[1], model.predict(X[:1]))
    model.set_params(warm_start=True).fit(X, y)


# Small and odd, but accepted


def assert_same_fit(model, X, y, **parameters):
    """Same loss, weights and predictions as scikit-learn's, after two epochs.

    Sums of few terms in float64: 1e-9 is far above their rounding.
    """
    parameters = {**QUICK, **parameters}
    ours = model(**parameters).fit(X, y)
    theirs = sklearn_twin(model)(**parameters).fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(
        outputs_of(ours, X), outputs_of(theirs, X), rtol=1e-9, atol=1e-12
    )
    a, b = ours.predict(X), theirs.predict(X)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if model is MLPClassifier:
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        assert ours.classes_.dtype == theirs.classes_.dtype
        np.testing.assert_array_equal(a, b)
    return ours


@pytest.mark.parametrize("n_features", [1, 5])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_few_rows_and_one_feature(model, n, n_features):
    X, y = small_data(model, n, n_features)
    fitted = assert_same_fit(model, X, y)
    assert fitted.predict(X[:1]).shape == (1,)


@pytest.mark.parametrize("label", [0, 1, 7, "only"])
def test_one_class(label):
    X, _ = small_data(MLPClassifier)
    fitted = assert_same_fit(MLPClassifier, X, np.full(len(X), label))
    assert fitted.predict_proba(X).shape == (len(X), 2)
    assert (fitted.n_outputs_, fitted.classes_.tolist()) == (1, [label])


LABELS = {
    "strings": ["cherry", "apple", "banana"],
    "two_strings": ["yes", "no", "no"],
    "objects": np.array(["b", "c", "a"], dtype=object),
    "bools": [False, True, True],
    "negative": [-5, 3, 0],
    "minus_one_and_one": [-1, 1, 1],
    "whole_floats": [2.0, 1.0, 7.0],
    "far_apart": [0, 2**40, -(2**40)],
    "uint8": np.array([200, 3, 90], np.uint8),
}


@pytest.mark.parametrize("labels", LABELS)
def test_labels_of_all_kinds(labels):
    X, y = small_data(MLPClassifier)
    assert_same_fit(MLPClassifier, X, np.asarray(LABELS[labels])[y])


def test_categorical_labels_of_pandas():
    X, y = small_data(MLPClassifier)
    labels = pd.Series(np.array(["u", "v", "w"])[y]).astype("category")
    assert_same_fit(MLPClassifier, X, labels)


MULTILABEL = {
    "usual": lambda Y: Y,
    "bools": lambda Y: Y.astype(bool),
    "floats": lambda Y: Y.astype(float),
    "empty_label": lambda Y: np.c_[Y, np.zeros(len(Y), int)],
    "full_label": lambda Y: np.c_[Y, np.ones(len(Y), int)],
    "two_labels": lambda Y: Y[:, :2],
    "list": lambda Y: Y.tolist(),
    "frame": pd.DataFrame,
}


@pytest.mark.parametrize("form", MULTILABEL)
def test_multilabel_targets_of_all_kinds(form):
    X, y = small_data(MLPClassifier)
    Y = MULTILABEL[form](np.eye(3, dtype=int)[y] | np.eye(3, dtype=int)[y[::-1]])
    assert_same_fit(MLPClassifier, X, Y)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
def test_sparse_multilabel_targets_give_sparse_predictions(container):
    X, y = small_data(MLPClassifier)
    Y = np.eye(3, dtype=int)[y]
    fitted = MLPClassifier(**QUICK).fit(X, container(Y))
    twin = reference.MLPClassifier(**QUICK).fit(X, container(Y))
    ours, theirs = fitted.predict(X), twin.predict(X)
    assert type(ours) is type(theirs)
    np.testing.assert_array_equal(ours.toarray(), theirs.toarray())
    assert_equal_models(fitted, MLPClassifier(**QUICK).fit(X, Y))


@pytest.mark.parametrize("model", ESTIMATORS)
def test_targets_in_one_column_are_raveled_with_a_warning(model):
    X, y = small_data(model)
    texts = []
    for estimator in (model, sklearn_twin(model)):
        with pytest.warns(DataConversionWarning) as record:
            fitted = estimator(**QUICK).fit(X, y[:, None])
        texts.append([str(w.message) for w in record if w.category is not UserWarning])
        assert fitted.predict(X).shape == (len(X),)
    assert texts[0] == texts[1]
    with pytest.warns(DataConversionWarning):
        column = model(**QUICK).fit(X, y[:, None])
    assert_equal_models(column, model(**QUICK).fit(X, y))


def test_regression_targets_of_all_dtypes():
    X, y = small_data(MLPRegressor)
    plain = MLPRegressor(**QUICK).fit(X, y)
    for dtype in (np.float32, np.int8, np.int64, np.uint16, np.longdouble, object):
        assert_same_fit(MLPRegressor, X, y.astype(dtype))
        assert_equal_models(MLPRegressor(**QUICK).fit(X, y.astype(dtype)), plain)
    assert_same_fit(MLPRegressor, X, y > 3)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e-200, 1e-310])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_large_and_small_values(model, scale):
    X, y = small_data(model)
    assert_same_fit(model, scale * X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("scale", [1e5, 1e100, 1e300])
def test_predictions_of_huge_values(activation, scale):
    X, y = small_data(MLPClassifier)
    parameters = {**QUICK, "activation": activation}
    ours = MLPClassifier(**parameters).fit(X, y)
    theirs = reference.MLPClassifier(**parameters).fit(X, y)
    # probabilities next to 0 and 1 from huge logits, which agree to 1e-14 relative;
    # where rows saturate, both are 0 and 1
    np.testing.assert_allclose(
        ours.predict_proba(scale * X), theirs.predict_proba(scale * X), atol=1e-7
    )


def test_rows_too_large_for_the_models_dtype():
    # see test_predictions_of_another_dtype_than_the_model: 1e60 is a float64
    X, y = small_data(MLPClassifier)
    model = MLPClassifier(**QUICK).fit(X.astype(np.float32), y)
    huge = X.copy()
    huge[0] = 1e60
    with pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
        outputs = model.predict_proba(huge)
    np.testing.assert_array_equal(outputs[1:], model.predict_proba(X)[1:])


# Weights assigned by hand


def with_assigned(estimator, change):
    X, y = small_data(MLPRegressor)
    fitted = estimator(**QUICK).fit(X, y)
    change(fitted)
    return fitted.predict(X)


def assign(name, layer, value):
    def change(model):
        getattr(model, name)[layer] = value

    return change


def cast_all(dtype):
    def change(model):
        for name in ("coefs_", "intercepts_"):
            arrays = [10 * w for w in getattr(model, name)]
            setattr(model, name, [w.astype(dtype) for w in arrays])

    return change


WRONG_SHAPES = {
    "too_many_rows": assign("coefs_", 0, np.ones((7, 6))),
    "too_few_rows": assign("coefs_", 0, np.ones((3, 6))),
    "too_few_rows_within": assign("coefs_", 1, np.ones((5, 1))),
    "too_many_columns": assign("coefs_", 0, np.ones((5, 9))),
    "too_few_columns": assign("coefs_", 0, np.ones((5, 4))),
    "long_bias": assign("intercepts_", 0, np.ones(8)),
    "flat_weights": assign("coefs_", 0, np.ones(30)),
}


@pytest.mark.parametrize("change", WRONG_SHAPES)
def test_assigned_weights_of_a_wrong_shape_are_an_error(change):
    for estimator in (reference.MLPRegressor, MLPRegressor):
        with pytest.raises(ValueError, match=r"shape|dimension|size"):
            with_assigned(estimator, WRONG_SHAPES[change])


def without_last_layer(model):
    model.coefs_.pop()
    model.intercepts_.pop()


def without_layers(model):
    model.coefs_, model.intercepts_ = [], []


def without_outputs(model):
    model.coefs_[-1], model.intercepts_[-1] = np.ones((6, 0)), np.ones(0)


@pytest.mark.parametrize("change", [without_last_layer, without_layers, without_outputs])
@pytest.mark.parametrize("model", ESTIMATORS)
def test_assigned_weights_of_too_few_layers_or_columns_are_an_error(model, change):
    X, y = small_data(model)
    fitted = model(**QUICK).fit(X, y)
    outputs_of(fitted, X[:1])  # the row reader knows the weights as they were
    change(fitted)
    for rows in (X, X[:1]):
        with pytest.raises(ValueError, match="coefs_"):
            outputs_of(fitted, rows)


CASTS = {
    "float64": cast_all(np.float64),
    "float32": cast_all(np.float32),
    "fortran": lambda m: setattr(m, "coefs_", list(map(np.asfortranarray, m.coefs_))),
    "tuple": lambda m: setattr(m, "coefs_", tuple(m.coefs_)),
    "read_only": lambda m: setattr(m, "coefs_", list(map(read_only, m.coefs_))),
    "nan": assign("intercepts_", 1, np.array([np.nan])),
}


@pytest.mark.parametrize("change", CASTS)
def test_assigned_weights_of_other_types(change):
    predictions = [
        with_assigned(estimator, CASTS[change])
        for estimator in (MLPRegressor, reference.MLPRegressor)
    ]
    # scikit-learn promotes float32 weights and float64 rows to float64
    rtol = 1e-5 if change == "float32" else 1e-10
    np.testing.assert_allclose(*predictions, rtol=rtol)


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.longdouble, ">f8"])
def test_assigned_weights_that_no_program_is_made_for(dtype):
    change = cast_all(dtype)
    theirs = with_assigned(reference.MLPRegressor, change)
    ours = with_assigned(MLPRegressor, change)
    rtol = 1e-2 if dtype is np.float16 else 1e-10  # float16 has 11 bits
    np.testing.assert_allclose(ours, theirs, rtol=rtol)


# Divergence

DIVERGING = {
    "rate": (1.0, {"solver": "sgd", "learning_rate_init": 1e10}),
    "data": (1e200, {"solver": "sgd", "learning_rate_init": 0.5}),
}


@pytest.mark.parametrize("cause", DIVERGING)
def test_a_diverging_fit_is_an_error_and_can_be_mended(cause):
    scale, parameters = DIVERGING[cause]
    X, y = small_data(MLPRegressor)
    X = X * scale
    parameters = {"max_iter": 30, "random_state": 0, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows in NumPy
        with pytest.raises(ValueError, match="non-finite") as expected:
            reference.MLPRegressor(**parameters).fit(X, y)
    model = MLPRegressor(**parameters)
    with pytest.raises(ValueError, match="diverged") as error:
        model.fit(X, y)
    # scikit-learn's text comes first; fastbp adds when it happened and what helps
    assert str(error.value).startswith(str(expected.value))
    assert re.search(r"in epoch \d+", str(error.value))
    assert f"learning_rate_init={parameters['learning_rate_init']}" in str(error.value)

    good = {"solver": "sgd", "learning_rate_init": 1e-3}
    fresh = MLPRegressor(**{**parameters, **good}).fit(X / scale, y)
    assert_equal_models(model.set_params(**good).fit(X / scale, y), fresh)
    np.testing.assert_array_equal(model.predict(X / scale), fresh.predict(X / scale))


def test_a_diverging_fit_stops_at_once(capsys):
    X, y = small_data(MLPRegressor)
    model = MLPRegressor(
        solver="sgd", learning_rate_init=1e10, max_iter=10**6, verbose=True
    )
    with pytest.raises(ValueError, match="non-finite"):
        model.fit(X, y)
    assert len(capsys.readouterr().out.splitlines()) < 1000


def test_the_package_lists_its_estimators():
    assert {"MLPClassifier", "MLPRegressor"} <= set(dir(fastbp))
    with pytest.raises(AttributeError, match="no attribute 'MLPTransformer'"):
        _ = fastbp.MLPTransformer
