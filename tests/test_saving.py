"""A model that was saved predicts and goes on training as if it had not been."""

import copy
import io
import pickle
import subprocess
import sys

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import make_classification, make_regression

from fastbp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = make_classification(300, 40, n_informative=9, n_classes=3, random_state=0)
T = make_regression(300, 40, random_state=0)[1] / 50


def through_joblib(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
}


def bits(model):
    return [w.tobytes() for w in model.coefs_ + model.intercepts_]


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_a_copy_resumes_with_the_same_bits(way, solver, model):
    y = Y if model is MLPClassifier else T
    first = {"classes": [0, 1, 2]} if model is MLPClassifier else {}
    options = {"solver": solver, "learning_rate": "invscaling", "batch_size": 64}
    original = model(hidden_layer_sizes=(9,), random_state=1, **options)
    for _ in range(2):
        original.partial_fit(X, y, **first)
    twin = COPIES[way](original)
    np.testing.assert_array_equal(twin.predict(X), original.predict(X))
    for _ in range(2):
        assert bits(twin.partial_fit(X, y)) == bits(original.partial_fit(X, y))
    assert twin.loss_curve_ == original.loss_curve_
    again = (
        m.set_params(warm_start=True, max_iter=2).fit(X, y) for m in (twin, original)
    )
    assert bits(next(again)) == bits(next(again))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_pickle_is_little_more_than_parameters_and_moments(
    dtype, solver, early_stopping
):
    model = MLPClassifier((200,), solver=solver, early_stopping=early_stopping)
    model.set_params(max_iter=5, random_state=0).fit(X.astype(dtype), Y)
    parameters = sum(w.nbytes for w in model.coefs_ + model.intercepts_)
    moments = {"adam": 2, "sgd": 1, "lbfgs": 0}[solver]
    assert len(pickle.dumps(model)) <= 1.2 * (1 + moments) * parameters
    if not early_stopping:  # README says so
        theirs = neural_network.MLPClassifier((200,), solver=solver, max_iter=5)
        theirs.fit(X.astype(dtype), Y)
        assert len(pickle.dumps(theirs)) >= (2 + moments) * parameters


def test_copies_share_nothing():
    model = MLPClassifier((5,), random_state=0, max_iter=3).fit(X, Y)
    before = bits(model)
    copy.deepcopy(model).partial_fit(X, Y)
    assert bits(model) == before


LOADER = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
assert "numba" not in sys.modules, "loading imported numba"
print(model.predict([[0.0] * 40])[0], model.n_iter_)
"""


def test_a_new_process_loads_without_numba(tmp_path):
    path = tmp_path / "model.pickle"
    model = MLPClassifier((5,), random_state=0, max_iter=3).fit(X, Y)
    path.write_bytes(pickle.dumps(model))
    run = subprocess.run(
        [sys.executable, "-c", LOADER, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(model.predict(np.zeros((1, 40)))[0]), "3"]
