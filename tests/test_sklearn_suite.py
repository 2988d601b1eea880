"""scikit-learn's own tests of its networks, run with fastbp's two classes.

The module is the installed scikit-learn's. It is executed anew, under a name of its own,
while scikit-learn's package holds fastbp's classes, so that the parameters of its tests,
which are made on import, hold them too. Its tests are then collected here.
"""

import inspect
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from unittest import mock

import pytest
import sklearn.neural_network

import fastbp

CLASSES = {"MLPClassifier": fastbp.MLPClassifier, "MLPRegressor": fastbp.MLPRegressor}

#: Tests that cannot run with another class, and why. All others do.
SKIPPED = {
    "test_gradient": "calls scikit-learn's private method _loss_grad_lbfgs",
}

# Where its tests leave the seed open, a fit may need all its epochs. Every other warning
# that they do not expect is an error, as in the rest of this suite.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def load_suite():
    path = find_spec("sklearn.neural_network.tests.test_mlp").origin
    spec = spec_from_file_location(f"{__name__}_of_scikit_learn", path)
    module = module_from_spec(spec)
    with mock.patch.multiple(sklearn.neural_network, **CLASSES):
        spec.loader.exec_module(module)
    return module


SUITE = load_suite()
TESTS = {name: test for name, test in vars(SUITE).items() if name.startswith("test")}

globals().update(TESTS)
for name in SKIPPED.keys() & TESTS.keys():
    globals()[name] = pytest.mark.skip(reason=SKIPPED[name])(TESTS[name])


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's suite uses by default."""
    return 42


def marks_of(test):
    return {mark.name: mark for mark in getattr(test, "pytestmark", [])}


def test_all_tests_of_scikit_learn_are_here():
    assert len(TESTS) >= 39  # as many as scikit-learn 1.6 has
    assert set(SKIPPED) <= set(TESTS), "a test that is skipped has gone: shorten the list"
    here = {name for name in TESTS if globals()[name] is TESTS[name]}
    assert here == set(TESTS)
    skipped = {name for name in TESTS if "skip" in marks_of(globals()[name])}
    assert skipped == set(SKIPPED)


def test_the_tests_use_fastbps_classes():
    for name, model in CLASSES.items():
        assert vars(SUITE)[name] is model
        assert getattr(sklearn.neural_network, name) is not model
    given = []
    for test in TESTS.values():
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize":
                given += [value for value in mark.args[1] if inspect.isclass(value)]
    networks = {value for value in given if value.__name__ in CLASSES}
    assert networks == set(CLASSES.values())
