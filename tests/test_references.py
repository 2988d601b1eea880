"""Options that scikit-learn does not have, against runs of PyTorch (tests/references)."""

from itertools import pairwise

import numpy as np
import pytest

from fastbp import MLPClassifier, MLPRegressor
from tests.references import cases

VALUES = np.load(cases.FILE)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def start(name, dtype, **changes):
    """An estimator that stands where a case starts, and its data in a dtype."""
    X, y, coefs, intercepts = cases.data(name)
    X = X.astype(dtype)
    classifies = name in cases.CLASSIFIERS
    options = {
        **cases.COMMON,
        **(cases.CLASSIFIERS if classifies else cases.REGRESSORS)[name],
    }
    model = (MLPClassifier if classifies else MLPRegressor)(
        hidden_layer_sizes=cases.HIDDEN, **{**options, "warm_start": True, **changes}
    )
    epochs = model.max_iter
    model.set_params(max_iter=1, learning_rate_init=1e-30).fit(X, y)  # for the attributes
    for name_, value in (("loss_curve_", []), ("best_loss_", np.inf), ("t_", 0)):
        setattr(model, name_, value)
    model.coefs_ = [W.astype(dtype) for W in coefs]
    model.intercepts_ = [b.astype(dtype) for b in intercepts]
    model.set_params(max_iter=epochs, learning_rate_init=options["learning_rate_init"])
    return model, X, y


def kept(name, model):
    """Coefs and intercepts at the end of PyTorch's run, and its loss curve."""
    units = [len(model.coefs_[0]), *map(len, model.intercepts_)]
    shapes = [*pairwise(units), *((n,) for n in units[1:])]
    places = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    parts = np.split(VALUES[name], places[1:])
    return [p.reshape(s) for p, s in zip(parts, shapes, strict=False)], parts[-1]


def tolerance(name, dtype):
    """A few roundings in each of nine steps; PyTorch adds 1e-6 to the norm."""
    if "clipped" in name or name == "all together":
        return 3e-6
    return 50 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*cases.CLASSIFIERS, *cases.REGRESSORS])
def test_ends_with_pytorchs_weights(name, dtype):
    model, X, y = start(name, dtype)
    model.fit(X, y)
    expected, curve = kept(name, model)
    error = tolerance(name, dtype)
    for found, wanted in zip((*model.coefs_, *model.intercepts_), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=error, atol=error)
    np.testing.assert_allclose(model.loss_curve_, curve, rtol=error)


# never clipped: it is to change nothing; quantiles: networks of one have fewer outputs
EFFECTIVE = {*cases.CLASSIFIERS, *cases.REGRESSORS} - {"never clipped", "quantiles"}


@pytest.mark.parametrize("name", sorted(EFFECTIVE))
def test_options_change_something(name):
    """The comparison would say nothing if the option were without effect."""
    options = {**cases.CLASSIFIERS, **cases.REGRESSORS}[name]
    defaults = {
        **{"activation": "tanh", "solver": "sgd", "max_grad_norm": None},
        **{"loss": "squared_error", "frozen_layers": 0, "label_smoothing": 0.0},
        **{"class_weight": None, "weight_decay": None},
    }
    model, X, y = start(
        name, np.float64, **{k: defaults[k] for k in options if k in defaults}
    )
    model.fit(X, y)
    expected, _ = kept(name, model)
    different = [
        not np.allclose(found, wanted, rtol=1e-4)
        for found, wanted in zip(model.coefs_, expected, strict=False)
    ]
    assert any(different)
