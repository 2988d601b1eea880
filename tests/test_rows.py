"""Single rows, predicted from the weights in place: the bits of a batch, never stale."""

import copy
import gc
import pickle
import warnings

import numpy as np
import pytest
import sklearn.neural_network
from sklearn import config_context

import fastbp
from fastbp import predicting

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FEW = predicting._FEW_ROWS


def fitted(model=fastbp.MLPClassifier, dtype=np.float64, classes=3, **parameters):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 7)).astype(dtype)
    y = rng.integers(0, classes, 60)
    if model is fastbp.MLPRegressor:
        y = rng.standard_normal((60, classes)).astype(dtype)
    return model(max_iter=3, random_state=0, **parameters).fit(X, y), X


def outputs(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("model", [fastbp.MLPClassifier, fastbp.MLPRegressor])
def test_rows_get_the_bits_that_they_get_in_a_batch(model, activation, dtype):
    rng = np.random.default_rng(1)
    for hidden in ((), (1,), (5, 3), (16,), (33, 64, 65), (200,)):
        for classes in (2, 3, 40):
            clf, X = fitted(
                model, dtype, classes, hidden_layer_sizes=hidden, activation=activation
            )
            X = rng.standard_normal((30, 7)).astype(dtype)
            together = outputs(clf, X)
            for few in range(1, FEW + 1):
                np.testing.assert_array_equal(outputs(clf, X[:few]), together[:few])
    assert clf in predicting._ROW_READERS


def test_edited_and_replaced_weights_count():
    model, X = fitted(hidden_layer_sizes=(20,))
    row = X[:1]
    outputs(model, row)
    model.coefs_[0] *= 2
    np.testing.assert_array_equal(outputs(model, row)[0], outputs(model, X)[0])
    model.intercepts_[1] = np.array([5.0, 0.0, 0.0])
    gc.collect()
    np.testing.assert_array_equal(outputs(model, row)[0], outputs(model, X)[0])
    model.coefs_ = [np.asfortranarray(W) for W in model.coefs_]
    np.testing.assert_array_equal(outputs(model, row)[0], outputs(model, X)[0])
    model.set_params(activation="tanh")
    np.testing.assert_array_equal(outputs(model, row)[0], outputs(model, X)[0])
    model.coefs_ = model.coefs_[::-1]
    with pytest.raises(ValueError, match="must have shape"):
        outputs(model, row)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_read_their_own_weights(duplicate):
    model, X = fitted()
    expected = outputs(model, X[:1])
    other = duplicate(model)
    other.coefs_[0] += 1
    assert (outputs(other, X[:1]) != expected).any()
    del model
    gc.collect()
    np.testing.assert_array_equal(outputs(other, X[:1])[0], outputs(other, X)[0])


def test_readers_do_not_keep_estimators_alive():
    model, X = fitted()
    outputs(model, X[:1])
    before = len(predicting._ROW_READERS)
    del model
    gc.collect()
    assert len(predicting._ROW_READERS) == before - 1


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_get_scikit_learns_words(rows, bad):
    model, X = fitted()
    theirs = sklearn.neural_network.MLPClassifier(max_iter=1).fit(X, np.arange(60) % 3)
    for column in range(7):
        broken = X[:rows].copy()
        broken[-1, column] = bad
        messages = []
        for estimator in (model, theirs):
            with pytest.raises(ValueError, match="Input X contains") as error:
                estimator.predict_proba(broken)
            messages.append(str(error.value).replace("fastbp", ""))
        assert messages[0] == messages[1]
    with config_context(assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's own exp of NaN
        assert model.predict_proba(broken).shape == (rows, 3)


def test_numbers_whose_sum_is_not_finite_are_fine():
    model, _ = fitted()
    for rows in (1, 60):
        large = np.full((rows, 7), 1e308)
        assert np.isfinite(model.predict_proba(large)).any()


def test_a_read_only_row_is_left_alone():
    model, X = fitted()
    row = X[:1].copy()
    row.flags.writeable = False
    before = row.copy()
    np.testing.assert_array_equal(outputs(model, row)[0], outputs(model, X)[0])
    np.testing.assert_array_equal(row, before)
    assert not row.flags.writeable


def test_a_view_of_the_row_stays_writeable():
    model, X = fitted()
    row = X[:1]
    outputs(model, row)
    assert row.flags.writeable
    assert X.flags.writeable


def test_a_failed_refit_with_fewer_features_does_not_read_beyond_the_row():
    model, X = fitted()
    outputs(model, X[:1])
    model.n_features_in_ = 3  # as a fit that failed after its checks of X leaves it
    for rows in (1, 60):
        with pytest.raises(ValueError, match="must have shape"):
            outputs(model, np.ones((rows, 3)))
