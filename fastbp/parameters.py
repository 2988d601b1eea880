"""The parameters of the estimators: what each is, and which values it may have.

What they mean is said once, in the docstring of ``MLPClassifier``.
"""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)

from fastbp.initial import INITIALIZATIONS
from fastbp.schedules import MORE_SCHEDULES
from fastbp.tables import ACTIVATIONS, MORE_ACTIVATIONS, SOLVER_KINDS
from fastbp.typing import (
    Activation,
    Array,
    Initialization,
    Precision,
    Schedule,
    Scoring,
    Seed,
    Sizes,
    Solver,
)


class Parameters:
    """What the classifier and the regressor can be asked for, as attributes."""

    loss: str | Callable[..., float]
    hidden_layer_sizes: Sizes
    activation: Activation
    solver: Solver
    alpha: float
    batch_size: int | Literal["auto"]
    learning_rate: Schedule
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Seed
    tol: float
    verbose: bool | int
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    # scikit-learn's estimators do not have those below
    dtype: Precision
    n_jobs: int | None
    init: Initialization
    frozen_layers: int
    dropout: float | list[float] | tuple[float, ...] | Array
    weight_decay: float | None
    max_grad_norm: float | None
    warmup_epochs: float
    scoring: Scoring
    restore_best_weights: bool
    max_time: float | None
    progress_bar: bool


def one_of(*names: str) -> list:
    """The constraint of a parameter that is one of some names."""
    return [StrOptions(set(names))]


_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_SHARE = Interval(Real, 0, 1, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")

#: What scikit-learn's parameter validation is told.
CONSTRAINTS: dict[str, list] = {
    "hidden_layer_sizes": ["array-like", _COUNT],
    "activation": [*one_of(*ACTIVATIONS, *MORE_ACTIVATIONS), list, tuple],
    "solver": one_of("lbfgs", *SOLVER_KINDS),
    "alpha": [_NOT_NEGATIVE],
    "batch_size": [StrOptions({"auto"}), _COUNT],
    "learning_rate": one_of("constant", "invscaling", "adaptive", *MORE_SCHEDULES),
    "learning_rate_init": [_POSITIVE],
    "power_t": [_NOT_NEGATIVE],
    "max_iter": [_COUNT],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [_NOT_NEGATIVE],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [_SHARE],
    "beta_1": [_SHARE],
    "beta_2": [_SHARE],
    "epsilon": [_POSITIVE],
    "n_iter_no_change": [_COUNT, Options(Real, {np.inf})],
    "max_fun": [_COUNT],
    "dtype": one_of("auto", "float32", "float64"),
    "n_jobs": [Interval(Integral, None, -1, closed="right"), _COUNT, None],
    "init": [*one_of(*INITIALIZATIONS), HasMethods("predict")],
    "frozen_layers": [Interval(Integral, 0, None, closed="left")],
    "dropout": [_SHARE, "array-like"],
    "weight_decay": [_NOT_NEGATIVE, None],
    "max_grad_norm": [_POSITIVE, None],
    "warmup_epochs": [_NOT_NEGATIVE],
    "scoring": [str, callable, None],
    "restore_best_weights": ["boolean"],
    "max_time": [_POSITIVE, None],
    "progress_bar": ["boolean"],
}

#: Parameters that may be any number, a whole one of a thousand digits among them.
_NUMBERS = (
    "alpha",
    "learning_rate_init",
    "power_t",
    "tol",
    "epsilon",
    "weight_decay",
    "max_grad_norm",
    "warmup_epochs",
    "max_time",
)


def check_floats(estimator: Any) -> None:
    """Raise InvalidParameterError if a number is too large for a float."""
    for name in _NUMBERS:
        value = getattr(estimator, name)
        try:
            if value is not None:
                float(value)
        except OverflowError:
            raise InvalidParameterError(
                f"The {name!r} parameter of {type(estimator).__name__} must be a "
                "number that a float can hold. Got a larger one instead."
            ) from None


def _invalid(estimator: Any, name: str, wanted: str, value: Any) -> Exception:
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {wanted}. "
        f"Got {value!r} instead."
    )


def hidden_layer_sizes(estimator: Any) -> list[int]:
    """Units of each hidden layer."""
    sizes = estimator.hidden_layer_sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if any(isinstance(n, bool) or not isinstance(n, Integral) for n in sizes):
        raise TypeError(f"hidden_layer_sizes must be integers, got {sizes}.")
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    if any(size > np.iinfo(np.intp).max for size in sizes):
        raise ValueError("hidden_layer_sizes must be sizes that an array can have.")
    return [int(size) for size in sizes]


def activations(estimator: Any, n_hidden: int) -> str | tuple[str, ...]:
    """The activation of all hidden layers, or that of each."""
    value = estimator.activation
    if isinstance(value, str):
        return value
    known = {*ACTIVATIONS, *MORE_ACTIVATIONS}
    if len(value) != n_hidden or not all(
        isinstance(name, str) and name in known for name in value
    ):
        wanted = f"a name, or one for each hidden layer, {n_hidden} in all, out of "
        raise _invalid(estimator, "activation", wanted + f"{sorted(known)}", value)
    return tuple(value)


def dropout_rates(estimator: Any, n_hidden: int) -> tuple[float, ...]:
    """The dropout of each hidden layer; nothing if no layer has any."""
    value = estimator.dropout
    rates = [value] * n_hidden if np.ndim(value) == 0 else list(value)
    if len(rates) != n_hidden or not all(
        isinstance(rate, Real) and 0 <= float(rate) < 1 for rate in rates
    ):
        wanted = f"a share in [0, 1), or one for each hidden layer, {n_hidden} in all"
        raise _invalid(estimator, "dropout", wanted, value)
    return tuple(map(float, rates)) if any(rates) else ()


def check_frozen_layers(estimator: Any, n_hidden: int) -> None:
    """Raise ValueError if nothing is left to train."""
    if estimator.frozen_layers > n_hidden:
        raise ValueError(
            f"frozen_layers={estimator.frozen_layers} must not be more than the number "
            f"of hidden layers, {n_hidden}: the output layer has to train."
        )


def quantiles(estimator: Any) -> tuple[float, ...]:
    """The quantiles of ``loss='quantile'``, ascending."""
    value = estimator.quantile
    levels = [value] if np.ndim(value) == 0 else list(value)
    if not levels or not all(
        isinstance(level, Real) and 0 < float(level) < 1 for level in levels
    ):
        raise _invalid(estimator, "quantile", "in (0, 1), or a list of such", value)
    if levels != sorted(set(levels)):
        raise _invalid(estimator, "quantile", "ascending", value)
    return tuple(map(float, levels))
