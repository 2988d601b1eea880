"""What the classifier and the regressor share: from a call to the fitted attributes.

Here are parameters, input checks, state across calls, warnings and attributes; what
happens between them is in ``training`` and ``lbfgs``, and below them in the kernels.
"""

import copy
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from numbers import Complex, Integral, Real
from operator import is_
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from fastbp import convert, lbfgs, network, rows, training
from fastbp.callbacks import CallbackSupportMixin, Events
from fastbp.messages import warn
from fastbp.typing import Array

_FLOATS = {
    "auto": (np.float64, np.float32),
    "float32": np.float32,
    "float64": np.float64,
}
_SPARSE = ("csr", "csc")
_PLAIN_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))

#: Parameters that may be any number, a whole one of a thousand digits among them.
_REAL_PARAMETERS = ("alpha", "learning_rate_init", "power_t", "tol", "epsilon")
#: Weights within 2^-20 to 2^20 are left as they are.
_MODEST_EXPONENT = 20
#: Packing the weights for the register tiles does not pay for so many rows and less.
_FEW_ROWS = 4
#: The row reader of each estimator; not in its state, as it holds addresses.
_ROW_READERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

_Method = TypeVar("_Method", bound=Callable[..., Any])


def one_of(*names: str) -> list:
    """The constraint of a parameter that is one of some names."""
    return [StrOptions(set(names))]


def unless_lbfgs(method: _Method) -> _Method:
    """A method that estimators with ``solver='lbfgs'`` do not have."""
    return available_if(BaseMLP._has_partial_fit)(method)


class Outcome(NamedTuple):
    """What training has found."""

    weights: network.Weights
    attributes: dict[str, Any]  # other fitted attributes
    diverged: bool  # to a loss that is not finite, and no earlier weights are kept
    report: Callable[[], None]  # warns, when all is done


class Labels(NamedTuple):
    """y as the network learns it."""

    targets: np.ndarray  # (n, n_outputs), or (n,) class numbers
    out_activation: str
    n_outputs: int
    attributes: dict[str, Any]  # fitted attributes that tell how to read outputs


def _checked_sample_weight(sample_weight, X) -> tuple[np.ndarray | None, float]:
    """One finite weight a row in the dtype of X, not all of them zero, and their scale.

    Very small or large weights are multiplied by a power of two, which leaves them far
    from underflow; alpha times the same number makes the same model, bit for bit.
    """
    if sample_weight is None:
        return None, 1.0
    if isinstance(sample_weight, Complex) and not isinstance(sample_weight, Real):
        raise ValueError(f"Complex data not supported, got {sample_weight=}.")
    sample_weight = _check_sample_weight(sample_weight, X)
    largest = np.abs(sample_weight).max(initial=0.0)
    if largest == 0:
        raise ValueError("Sample weights must contain at least one non-zero number.")
    exponent = int(np.frexp(largest)[1])
    scale = 1.0 if abs(exponent) <= _MODEST_EXPONENT else 2.0 ** min(-exponent, 1000)
    return (sample_weight.astype(np.float64) * scale).astype(X.dtype), scale


def _in_dtype(weights: network.Weights, dtype) -> network.Weights:
    """The weights, copied only if their dtype is another."""
    return network.Weights(
        *([w.astype(dtype, copy=False) for w in arrays] for arrays in weights)
    )


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """What the classifier and the regressor share."""

    coefs_: list[Array]
    intercepts_: list[Array]
    loss_curve_: list[float]
    loss_: float
    best_loss_: float | None
    n_iter_: int
    t_: int
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    n_features_in_: int
    feature_names_in_: Array

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "activation": one_of("identity", "logistic", "tanh", "relu"),
        "solver": one_of("lbfgs", "sgd", "adam"),
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "learning_rate": one_of("constant", "invscaling", "adaptive"),
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dtype": one_of("auto", "float32", "float64"),
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
    }

    def __init__(
        self,
        loss,
        hidden_layer_sizes,
        activation,
        solver,
        alpha,
        batch_size,
        learning_rate,
        learning_rate_init,
        power_t,
        max_iter,
        shuffle,
        random_state,
        tol,
        verbose,
        warm_start,
        momentum,
        nesterovs_momentum,
        early_stopping,
        validation_fraction,
        beta_1,
        beta_2,
        epsilon,
        n_iter_no_change,
        max_fun,
        dtype,
        n_jobs,
    ):
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dtype = dtype
        self.n_jobs = n_jobs

    def _hidden_layer_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if any(isinstance(n, bool) or not isinstance(n, Integral) for n in sizes):
            raise TypeError(f"hidden_layer_sizes must be integers, got {sizes}.")
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        if any(size > np.iinfo(np.intp).max for size in sizes):
            raise ValueError("hidden_layer_sizes must be sizes that an array can have.")
        return [int(size) for size in sizes]

    def _fit(self, X, y, sample_weight, incremental=False, classes=None):
        """Train from scratch or go on; the order of events is scikit-learn's.

        Attributes change only when all has gone well.
        """
        with self._names_kept_on_failure():
            report = self._fit_checked(X, y, sample_weight, incremental, classes)
        report()
        return self

    def _fit_checked(self, X, y, sample_weight, incremental, classes):
        """``_fit`` without its last words, the warnings, which this returns."""
        hidden = self._hidden_layer_sizes()
        goes_on = hasattr(self, "coefs_") and (self.warm_start or incremental)
        told = X, y, sample_weight
        X, y = self._check_X_y(X, y, reset=not goes_on)
        sample_weight, scale = _checked_sample_weight(sample_weight, X)
        labels = self._encode(y, incremental, classes)
        units = (X.shape[1], *hidden, labels.n_outputs)
        random_state = self._generator(goes_on and incremental)
        if goes_on:
            weights = self._present_weights(units, X.dtype)
        else:
            weights = network.Weights(
                *network.initial_weights(units, self.activation, random_state, X.dtype)
            )
        plan = network.layout(
            units,
            self.activation,
            labels.out_activation,
            weights.coefs[0].dtype,
            sparse=issparse(X),
        )
        order = np.arange(X.shape[0])
        rows = training.Rows(X, labels.targets, sample_weight, order, scale)

        def attributes(coefs, intercepts):
            return {
                **labels.attributes,
                "coefs_": coefs,
                "intercepts_": intercepts,
                "n_layers_": len(units),
                "n_outputs_": labels.n_outputs,
                "out_activation_": labels.out_activation,
            }

        n_epochs = 1 if incremental else int(self.max_iter)
        events = Events(self, *told, "epoch", n_epochs, attributes)
        if self.solver == "lbfgs":
            outcome = self._minimize(plan, weights, rows, goes_on, events)
        else:
            outcome = self._train(
                plan, weights, rows, labels, random_state, goes_on, incremental, events
            )
        self._check_finite(outcome)
        weights = outcome.weights
        if not goes_on or self.solver == "lbfgs":  # of another model
            for name in ("_best_coefs", "_best_intercepts"):
                vars(self).pop(name, None)
        if not goes_on:
            vars(self).pop("_optimizer", None)
        seed = self.random_state if isinstance(self.random_state, Integral) else None
        vars(self).update(
            **attributes(*weights),
            **outcome.attributes,
            _random_state=random_state,
            _resumed_seed=seed if incremental else None,
        )
        events.finish(lambda: weights)
        return outcome.report

    @contextmanager
    def _names_kept_on_failure(self):
        """Whoever fails to fit other data still knows the columns of the old."""
        names = ("n_features_in_", "feature_names_in_")
        before = {name: vars(self)[name] for name in names if name in vars(self)}
        try:
            yield
        except BaseException:
            for name in names:
                vars(self).pop(name, None)
            vars(self).update(before)
            raise

    def _generator(self, resumes: bool) -> np.random.RandomState:
        """The generator of a call; ``partial_fit`` goes on with that of the call before.

        scikit-learn seeds anew in every call of ``partial_fit``, so that all calls with
        the same number of rows shuffle them alike.
        """
        same_seed = (
            isinstance(self.random_state, Integral)
            and getattr(self, "_resumed_seed", None) == self.random_state
        )
        if resumes and same_seed:
            resumed = np.random.RandomState(0)
            resumed.set_state(self._random_state.get_state())
            return resumed
        return check_random_state(self.random_state)

    def _present_weights(self, units, dtype) -> network.Weights:
        """The weights to go on with, which users may have edited."""
        weights = network.checked_weights(self.coefs_, self.intercepts_, units[0])
        found = (units[0], *(len(b) for b in weights.intercepts))
        if found != units:
            raise ValueError(
                f"Training goes on with coefs_ and intercepts_ of a network of {found} "
                "units (inputs, hidden layers, outputs), but hidden_layer_sizes and the "
                f"data ask for {units}. Call fit with warm_start=False to begin anew."
            )
        if self.dtype != "auto":
            weights = _in_dtype(weights, dtype)
        return weights

    def _minimize(self, plan, weights, rows, goes_on, events) -> Outcome:
        """What L-BFGS finds."""
        weights, result = lbfgs.minimize(plan, weights, self, rows, events)
        interrupted = result.status == lbfgs.INTERRUPTED

        def report():
            if interrupted:
                warn("Training interrupted by user.")
            elif result.status != lbfgs.STOPPED:
                _check_optimize_result("lbfgs", result, self.max_iter)

        found = {
            "n_iter_": min(result.nit, self.max_iter),
            "loss_": float(result.fun),
            "t_": getattr(self, "t_", 0) if goes_on else 0,
        }
        diverged = not interrupted and training.has_diverged(plan, result.fun)
        return Outcome(weights, found, diverged, report)

    def _train(
        self,
        plan,
        weights,
        rows,
        labels,
        random_state,
        goes_on,
        incremental,
        events,
    ) -> Outcome:
        """What the epochs of 'adam' or 'sgd' find."""
        optimizer = training.Optimizer(self)
        if incremental and goes_on:
            kept = getattr(self, "_optimizer", optimizer)
            if kept.solver == self.solver:
                optimizer = copy.copy(kept)
        history = self._history() if goes_on else training.History()
        validation = None
        if self.early_stopping:
            rows, validation = self._hold_out(rows, labels, random_state)
        trainer = training.Trainer(
            plan, weights, optimizer, history, self, rows, random_state, validation
        )
        trainer.run(1 if incremental else int(self.max_iter), events)
        weights = trainer.weights()
        found = {
            "n_iter_": history.n_iter,
            "t_": history.samples_seen,
            "loss_curve_": history.loss_curve,
            "loss_": history.loss_curve[-1] if history.loss_curve else np.inf,
            "best_loss_": history.best_loss,
            "validation_scores_": None,
            "best_validation_score_": None,
            "_no_improvement_count": history.no_improvement_count,
            "_optimizer": optimizer,
        }
        if history.validation_scores:
            found["validation_scores_"] = history.validation_scores
            found["best_validation_score_"] = history.best_score
        if validation is not None:
            found["best_loss_"] = None
            if history.best is not None:
                weights = _in_dtype(history.best, plan.dtype)
                found["_best_coefs"] = list(weights.coefs)
                found["_best_intercepts"] = list(weights.intercepts)

        def report():
            if history.interrupted:
                warn("Training interrupted by user.")
            if history.diverged:
                warn(
                    f"The training diverged in epoch {history.n_iter}; the weights of "
                    "the best validation score are kept.",
                    ConvergenceWarning,
                )
            elif not history.stopped and not incremental:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                )

        diverged = history.diverged and (validation is None or history.best is None)
        return Outcome(weights, found, diverged, report)

    def _history(self) -> training.History:
        """What earlier calls recorded; whatever they did not begins anew."""
        history = training.History(samples_seen=getattr(self, "t_", 0))
        history.loss_curve = list(getattr(self, "loss_curve_", []))
        history.no_improvement_count = getattr(self, "_no_improvement_count", 0)
        best_loss = getattr(self, "best_loss_", None)
        if best_loss is not None:
            history.best_loss = best_loss
        scores = getattr(self, "validation_scores_", None)
        if scores and hasattr(self, "_best_coefs"):
            history.validation_scores = list(scores)
            history.best_score = vars(self)["best_validation_score_"]
            history.best = network.Weights(self._best_coefs, self._best_intercepts)
        return history

    def _hold_out(self, rows, labels, random_state):
        """The rows to train on, and those that early stopping scores."""
        with config_context(skip_parameter_validation=True):  # fit has done it
            order, held_out = train_test_split(
                rows.order,
                random_state=random_state,
                test_size=self.validation_fraction,
                stratify=self._strata(labels),
            )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        targets, sample_weight = labels.targets[held_out], rows.sample_weight
        if sample_weight is not None:
            sample_weight = sample_weight[held_out]
            if sample_weight.sum() == 0:
                raise ValueError(
                    "The sample weights of the validation set add up to zero. Increase "
                    "'validation_fraction' or give more rows a weight."
                )

        def score(outputs):
            return self._score_outputs(outputs, targets, labels, sample_weight)

        validation = training.Validation(rows.X[held_out], score)
        return rows._replace(order=order), validation

    def _check_finite(self, outcome: Outcome) -> None:
        finite = all(np.isfinite(w).all() for arrays in outcome.weights for w in arrays)
        if finite and not outcome.diverged:
            return
        what = "a non-finite loss" if finite else "non-finite parameter weights"
        raise ValueError(
            f"Solver produced {what}. The input data may contain large values and need "
            "to be preprocessed. The training diverged in epoch "
            f"{outcome.attributes['n_iter_']}: scale the data (for example with "
            f"StandardScaler) or lower learning_rate_init={self.learning_rate_init}."
        )

    def _check_parameters(self) -> None:
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
            for name in _REAL_PARAMETERS:
                try:
                    float(getattr(self, name))
                except OverflowError:
                    raise InvalidParameterError(
                        f"The {name!r} parameter of {type(self).__name__} must be a "
                        "number that a float can hold. Got a larger one instead."
                    ) from None

    def _check_partial_fit(self) -> None:
        present = [vars(self).get(name) for name in self._parameter_constraints]
        before = getattr(self, "_checked_parameters", [])
        if len(before) < len(present) or not all(map(is_, present, before)):
            self._check_parameters()
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        self._checked_parameters = present

    def _has_partial_fit(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def _check_X_y(self, X, y, **options):
        for given in (X, y):
            network.check_indices(given)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=_SPARSE,
            multi_output=True,
            dtype=_FLOATS[self.dtype],
            **options,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        X = X.tocsr() if issparse(X) else X
        return X.astype(X.dtype.newbyteorder("="), copy=False), y

    def to_sklearn(self) -> Any:
        """scikit-learn's own estimator with these parameters and this model.

        Returns
        -------
        sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
            With copies of all arrays; ``dtype`` and ``n_jobs`` are left out, and so are
            the optimizer's moments.

        Raises
        ------
        ValueError
            If a parameter was changed that the installed scikit-learn does not have.
        """
        return convert.to_sklearn(self)

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Self:
        """An estimator with the parameters and the model of scikit-learn's.

        Parameters
        ----------
        estimator : estimator
            Of the scikit-learn class that has the name of this one, fitted or not.

        Returns
        -------
        MLPClassifier or MLPRegressor
            With copies of all arrays, but not the optimizer's moments.

        Raises
        ------
        TypeError
            If ``estimator`` is of another class.
        """
        return convert.from_sklearn(cls, estimator)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_checked_parameters", None)
        if state.get("_resumed_seed") is None:  # every call makes it anew
            state.pop("_random_state", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _outputs(self, X) -> np.ndarray:
        """Outputs of the network for the rows of ``X``, shape (n, n_outputs)."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)
        plain = self._is_plain(X)
        if not plain:
            network.check_indices(X)
            X = validate_data(self, X, accept_sparse=_SPARSE, reset=False)
        if issparse(X):
            X = X.tocsr()
        few = X.shape[0] <= _FEW_ROWS and not issparse(X)
        reader = self._row_reader(X) if few else None
        if reader is not None:
            outputs, finite = reader.predict(X, self.activation, self.out_activation_)
        else:
            outputs, finite = self._predict_blocks(X)
        if plain and not finite:
            validate_data(self, X, reset=False)  # says so, unless told to assume it
        n_outputs = getattr(self, "n_outputs_", outputs.shape[1])
        if outputs.shape[1] != n_outputs:
            raise ValueError(
                f"coefs_ and intercepts_ end in {outputs.shape[1]} outputs, but the "
                f"model has n_outputs_={n_outputs}."
            )
        return outputs

    def _predict_blocks(self, X) -> tuple[np.ndarray, bool]:
        weights = network.checked_weights(self.coefs_, self.intercepts_, X.shape[1])
        plan = network.layout(
            (X.shape[1], *(len(b) for b in weights.intercepts)),
            self.activation,
            self.out_activation_,
            weights.coefs[0].dtype,
            sparse=issparse(X),
        )
        return network.predict(plan, *weights, X, self.n_jobs)

    def _is_plain(self, X) -> bool:
        """Whether ``X`` passes scikit-learn's checks at a glance, if it is finite.

        For anything else ``validate_data`` has the last word.
        """
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype in _PLAIN_DTYPES
            and X.flags.c_contiguous
            and X.flags.aligned
            and len(X) > 0
            and X.shape[1] == getattr(self, "n_features_in_", None)
            and not hasattr(self, "feature_names_in_")
        )

    def _row_reader(self, X) -> rows.RowReader | None:
        """What predicts single rows from the present weights, if they allow it."""
        reader, weights = _ROW_READERS.get(self), (self.coefs_, self.intercepts_)
        if reader is None or not reader.reads(*weights, X.shape[1]):
            network.checked_weights(*weights, X.shape[1])
            if not rows.RowReader.can_read(*weights, X.dtype):
                return None
            reader = _ROW_READERS[self] = rows.RowReader(*weights)
        return reader if reader.dtype == X.dtype else None
