"""scikit-learn's checks of the conventions that every estimator has to keep."""

import pytest
import sklearn.neural_network as reference
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastbp import MLPClassifier, MLPRegressor

# Checks fit on odd data, with few epochs: warnings are no failures, as in scikit-learn.
pytestmark = pytest.mark.filterwarnings("ignore")


def expected_failures(model):
    """The checks that scikit-learn expects its own class to fail: none so far."""
    try:
        from sklearn.utils._test_common.instance_generator import (
            PER_ESTIMATOR_XFAIL_CHECKS,
        )
    except ImportError:  # private to scikit-learn
        return {}
    return PER_ESTIMATOR_XFAIL_CHECKS.get(getattr(reference, type(model).__name__), {})


CHECKS = parametrize_with_checks(
    [
        # the settings with which scikit-learn checks its own two classes
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100),
        # and the other way through a fit
        MLPClassifier(solver="lbfgs", max_iter=50),
        MLPRegressor(solver="lbfgs", max_iter=50),
    ],
    expected_failed_checks=expected_failures,
)


# a list: scikit-learn 1.6 makes a generator, which pytest 9 does not like
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "model",
    [
        # with these settings scikit-learn runs this check on its own classes
        MLPClassifier(solver="lbfgs", max_iter=100),
        MLPRegressor(solver="sgd", tol=1e-2, random_state=42, max_iter=100),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_weight_is_as_good_as_repeated_rows(model):
    name = "check_sample_weight_equivalence_on_dense_data"
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    check(type(model).__name__, model)
