"""Models to and from scikit-learn's own classes.

What reads scikit-learn's ``MLPClassifier`` or ``MLPRegressor`` by its class (ONNX
converters, code generators, explainers) so reads ours.
"""

import copy
from numbers import Number
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier

from fastbp.tables import ACTIVATIONS

#: State of one package that means nothing to the other.
_PRIVATE = (
    *("_optimizer", "_random_state", "_resumed_seed", "_skl_callbacks"),
    *("_scored_by", "_objective", "_checked_parameters"),
)


#: Parameters of which scikit-learn takes these values only.
_SMALLER = {
    "activation": ACTIVATIONS,
    "solver": ("lbfgs", "sgd", "adam"),
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "loss": ("squared_error", "poisson"),  # of those that know any
}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Number) and isinstance(b, Number):
        return a == b
    return a is b or (type(a) is type(b) and np.array_equal(a, b))


def to_sklearn(estimator: Any) -> Any:
    """scikit-learn's estimator with the parameters and fitted attributes of ours.

    Parameters
    ----------
    estimator : fastbp.MLPClassifier or fastbp.MLPRegressor
        Fitted or not. ``dtype`` and ``n_jobs`` have no counterpart and are left out.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        All arrays are copies. The optimizer's moments do not come along: a
        ``partial_fit`` starts with new ones.

    Raises
    ------
    ValueError
        If a parameter was changed that the installed scikit-learn does not have.
    """
    name = "MLPClassifier" if is_classifier(estimator) else "MLPRegressor"
    other = getattr(neural_network, name)
    known = other().get_params()
    parameters = estimator.get_params(deep=False)
    defaults = type(estimator)().get_params()
    for parameter in sorted(set(parameters) - {"dtype", "n_jobs"}):
        value = parameters[parameter]
        if parameter in known:
            taken = parameter not in _SMALLER or (
                isinstance(value, str) and value in _SMALLER[parameter]
            )
        else:
            taken = _same(value, defaults[parameter])
        if not taken:
            raise ValueError(
                f"{parameter}={value!r} has no counterpart in the installed "
                f"scikit-learn's {name}."
            )
    twin = other(**{k: v for k, v in parameters.items() if k in known})
    fitted = _fitted(estimator, parameters)
    if "coefs_" in fitted:  # scikit-learn's fits expect a copy of the best weights
        for name in ("coefs", "intercepts"):
            copies = copy.deepcopy(list(fitted[f"{name}_"]))
            fitted.setdefault(f"_best_{name}", copies)
    vars(twin).update(fitted)
    return twin


def from_sklearn(cls: type, estimator: Any) -> Any:
    """Our estimator with the parameters and fitted attributes of scikit-learn's.

    Parameters
    ----------
    cls : type
        ``fastbp.MLPClassifier`` or ``fastbp.MLPRegressor``.
    estimator : sklearn.neural_network.MLPClassifier or \
sklearn.neural_network.MLPRegressor
        Fitted or not.

    Returns
    -------
    cls
        All arrays are copies; see ``to_sklearn`` for the optimizer.

    Raises
    ------
    TypeError
        If ``estimator`` is not of the scikit-learn class that ``cls`` replaces.
    """
    wanted = getattr(
        neural_network, "MLPClassifier" if is_classifier(cls()) else "MLPRegressor"
    )
    if not isinstance(estimator, wanted):
        raise TypeError(
            f"{cls.__name__}.from_sklearn takes an estimator of "
            f"sklearn.neural_network.{wanted.__name__}, got {type(estimator).__name__}."
        )
    parameters = estimator.get_params()
    known = cls().get_params()
    twin = cls(**{k: v for k, v in parameters.items() if k in known})
    vars(twin).update(_fitted(estimator, parameters))
    return twin


def _fitted(estimator: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Copies of all attributes that are not parameters."""
    return {
        name: copy.deepcopy(value)
        for name, value in vars(estimator).items()
        if name not in parameters and name not in _PRIVATE and name != "loss"
    }
