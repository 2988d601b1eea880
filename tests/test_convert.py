"""Models to and from scikit-learn's own classes."""

import numpy as np
import pytest
from sklearn import neural_network as reference
from sklearn.datasets import make_classification, make_regression

from fastbp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = make_classification(120, 8, n_informative=6, n_classes=3, random_state=0)
T = make_regression(120, 8, n_targets=2, random_state=0)[1] / 50
KINDS = {
    "multiclass": (MLPClassifier, Y),
    "binary": (MLPClassifier, np.array(["no", "yes"])[(Y > 0).astype(int)]),
    "multilabel": (MLPClassifier, np.eye(3, dtype=int)[Y]),
    "regression": (MLPRegressor, T[:, 0]),
    "several outputs": (MLPRegressor, T),
}
OPTIONS = {"hidden_layer_sizes": (6, 5), "activation": "tanh", "max_iter": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_the_same_on_both_sides(kind):
    model, y = KINDS[kind]
    theirs_class = getattr(reference, model.__name__)
    ours = model(**OPTIONS, random_state=0, n_jobs=1).fit(X, y)
    theirs = ours.to_sklearn()
    assert type(theirs) is theirs_class
    back = model.from_sklearn(theirs_class(**OPTIONS, random_state=0).fit(X, y))
    for method in ("predict", "predict_proba"):
        if not hasattr(ours, method):
            continue
        truth = getattr(ours, method)(X)
        for other in (theirs, back):
            found = getattr(other, method)(X)
            if found.dtype.kind == "f":  # sums in another order
                np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, truth)
    assert theirs.score(X, y) == pytest.approx(ours.score(X, y))
    assert theirs.n_iter_ == ours.n_iter_ == back.n_iter_
    parameters = ours.get_params()
    assert theirs.get_params().items() <= parameters.items()
    for name in set(parameters) - set(theirs.get_params()):
        assert parameters[name] == model().get_params()[name] or name == "n_jobs"


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_on_either_side_and_leaves_the_other_alone(kind):
    model, y = KINDS[kind]
    ours = model(**OPTIONS, random_state=0, warm_start=True).fit(X, y)
    before = [w.copy() for w in ours.coefs_]
    theirs = ours.to_sklearn()
    back = model.from_sklearn(theirs)
    for estimator in (theirs, back):
        estimator.fit(X, y).partial_fit(X, y)
    for a, b in zip(theirs.coefs_, back.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
    assert len(back.loss_curve_) == len(theirs.loss_curve_) == 4 + 4 + 1
    for a, b in zip(before, ours.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_stopping_goes_on_with_the_best_weights():
    ours = MLPClassifier(**OPTIONS, random_state=0, early_stopping=True, warm_start=True)
    theirs = ours.fit(X, Y).to_sklearn()
    theirs.set_params(learning_rate_init=1e-12).fit(X, Y)
    assert len(theirs.validation_scores_) == 8
    assert len(ours.validation_scores_) == 4
    np.testing.assert_allclose(theirs.coefs_[0], ours.coefs_[0], rtol=1e-9)


def test_an_estimator_that_was_not_fitted_takes_its_parameters_along():
    theirs = MLPClassifier((3,), alpha=0.5, dtype="float32").to_sklearn()
    assert theirs.get_params()["hidden_layer_sizes"] == (3,)
    assert theirs.alpha == 0.5
    assert not hasattr(theirs, "coefs_")
    assert MLPClassifier.from_sklearn(theirs).alpha == 0.5


@pytest.mark.parametrize(
    "changed",
    [
        {"activation": "gelu"},
        {"activation": ["relu", "relu"]},
        {"solver": "adamw"},
        {"learning_rate": "cosine"},
        {"dropout": [0.1, 0.2]},
        {"class_weight": {0: 2.0}},
        {"init": MLPClassifier()},
    ],
)
def test_what_scikit_learn_does_not_have_is_an_error(changed):
    ((name, _),) = changed.items()
    with pytest.raises(ValueError, match=f"{name}=.* has no counterpart"):
        MLPClassifier(**changed).to_sklearn()
    with pytest.raises(ValueError, match="loss='huber' has no counterpart"):
        MLPRegressor("huber").to_sklearn()


def test_defaults_of_another_type_are_defaults():
    MLPClassifier(dropout=0, warmup_epochs=0.0).to_sklearn()


def test_only_the_class_that_it_replaces_is_taken():
    with pytest.raises(TypeError, match=r"takes an estimator of sklearn.*MLPClassifier"):
        MLPClassifier.from_sklearn(reference.MLPRegressor())
    with pytest.raises(TypeError, match="got MLPClassifier"):
        MLPRegressor.from_sklearn(reference.MLPClassifier())
