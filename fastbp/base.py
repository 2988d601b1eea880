"""What the classifier and the regressor share: from a call to the fitted attributes.

Here are parameters, input checks, state across calls, warnings and attributes; what
happens between them is in ``training`` and ``lbfgs``, and below them in the kernels.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import contextmanager
from numbers import Complex, Integral, Real
from operator import is_
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from fastbp import (
    convert,
    gradients,
    lbfgs,
    network,
    own_loss,
    parameters,
    training,
)
from fastbp.callbacks import CallbackSupportMixin, Events, with_callbacks
from fastbp.gradients import GradientReport
from fastbp.initial import initial_weights
from fastbp.messages import warn
from fastbp.parameters import Parameters
from fastbp.predicting import SPARSE, Predictor
from fastbp.progress import ProgressBar
from fastbp.typing import Array, Matrix, Method
from fastbp.validation import Validation, mean_loss

_FLOATS = {
    "auto": (np.float64, np.float32),
    "float32": np.float32,
    "float64": np.float64,
}

#: Weights within 2^-20 to 2^20 are left as they are.
_MODEST_EXPONENT = 20


def unless_lbfgs(method: Method) -> Method:
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
    loss: str  # as ``network.layout`` has it
    extras: network.Extras  # what belongs to the loss
    class_weights: np.ndarray | None = None  # one a class number

    def weights(self, targets: np.ndarray) -> np.ndarray | None:
        """The weights of the classes of some rows, if classes have weights."""
        return None if self.class_weights is None else self.class_weights[targets]


class Given(NamedTuple):
    """What comes to ``fit`` beside X and y."""

    sample_weight: Any = None
    X_val: Any = None
    y_val: Any = None
    sample_weight_val: Any = None


def _checked_sample_weight(sample_weight, X, rows=slice(None)) -> np.ndarray | None:
    """One finite weight for each of the rows of X, or None."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Complex) and not isinstance(sample_weight, Real):
        raise ValueError(f"Complex data not supported, got {sample_weight=}.")
    return _check_sample_weight(sample_weight, X)[rows]


def _scaled_weights(
    sample_weight: np.ndarray | None, class_weight: np.ndarray | None, dtype: Any
) -> tuple[np.ndarray | None, float]:
    """The products of the weights of rows and of their classes, not all of them zero,

    and their scale. Very small or large weights are multiplied by a power of two, which
    leaves them far from underflow; alpha times the same number makes the same model, bit
    for bit.
    """
    weights = [w for w in (sample_weight, class_weight) if w is not None]
    if not weights:
        return None, 1.0
    product = functools.reduce(np.multiply, weights)
    largest = np.abs(product).max(initial=0.0)
    if largest == 0:
        raise ValueError("Sample weights must contain at least one non-zero number.")
    exponent = int(np.frexp(largest)[1])
    scale = 1.0 if abs(exponent) <= _MODEST_EXPONENT else 2.0 ** min(-exponent, 1000)
    return (product.astype(np.float64) * scale).astype(dtype), scale


def _spread(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """An array for n rows that has these values in some of them."""
    spread = np.zeros((n, *values.shape[1:]), values.dtype)
    spread[rows] = values
    return spread


def _in_dtype(weights: network.Weights, dtype) -> network.Weights:
    """The weights, copied only if their dtype is another."""
    return network.Weights(
        *([w.astype(dtype, copy=False) for w in arrays] for arrays in weights)
    )


class BaseMLP(Parameters, Predictor, CallbackSupportMixin, BaseEstimator):
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
    validation_loss_curve_: list[float]
    n_features_in_: int
    feature_names_in_: Array

    _parameter_constraints: ClassVar[dict] = parameters.CONSTRAINTS

    @classmethod
    @functools.cache
    def _get_param_names(cls) -> list[str]:
        """scikit-learn's, once a class: a signature takes a tenth of a millisecond."""
        return super()._get_param_names()

    def _keep(self, given: dict[str, Any]) -> None:
        """Make attributes of a constructor's parameters, which are its local names."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    def _fit(self, X, y, given, incremental=False, classes=None):
        """Train from scratch or go on; the order of events is scikit-learn's.

        Attributes change only when all has gone well.
        """
        with self._names_kept_on_failure():
            report = self._fit_checked(X, y, given, incremental, classes)
        report()
        return self

    @with_callbacks
    def _fit_rows(self, X, y, sample_weight, rows) -> Callable[[], None]:
        """Fit to some rows, given by their numbers; return what warns if need be."""
        with self._names_kept_on_failure():
            return self._fit_checked(X, y, Given(sample_weight), False, None, rows)

    def _fit_checked(self, X, y, given, incremental, classes, numbers=None):
        """``_fit`` without its last words, the warnings, which this returns.

        With ``numbers`` of rows the training is that with these rows of X, y and the
        sample weights alone; they are read where they are.
        """
        hidden = parameters.hidden_layer_sizes(self)
        activations = parameters.activations(self, len(hidden))
        dropout = parameters.dropout_rates(self, len(hidden))
        parameters.check_frozen_layers(self, len(hidden))
        goes_on = hasattr(self, "coefs_") and (self.warm_start or incremental)
        told = self._told(X, y, given.sample_weight, numbers)
        X, y = self._check_X_y(X, y, reset=not goes_on)
        chosen = slice(None) if numbers is None else numbers
        sample_weight = _checked_sample_weight(given.sample_weight, X, chosen)
        labels = self._encode(y[chosen], incremental, classes, sample_weight)
        sample_weight, scale = _scaled_weights(
            sample_weight, labels.weights(labels.targets), X.dtype
        )
        units = (X.shape[1], *hidden, labels.n_outputs)
        random_state = self._generator(goes_on and incremental)
        if goes_on:
            weights = self._present_weights(units, X.dtype)
        else:
            weights = self._first_weights(units, activations, random_state, X.dtype)
        optimizer = self._begin_optimizer(incremental and goes_on, dropout, random_state)
        if dropout and optimizer is None:
            raise ValueError(
                "dropout needs a stochastic solver: L-BFGS minimises one function, and "
                "with dropout every evaluation is of another. Use solver='adam'."
            )
        plan = self._plan(
            *(X, units, activations, labels, weights.coefs[0].dtype),
            dropout=dropout,
            optimizer=optimizer is not None and optimizer.is_extended,
        )
        order = np.arange(X.shape[0]) if numbers is None else numbers
        if numbers is not None:
            labels = labels._replace(targets=_spread(labels.targets, order, X.shape[0]))
            if sample_weight is not None:
                sample_weight = _spread(sample_weight, order, X.shape[0])
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

        rows, validation = self._validation(
            rows, y, labels, given, random_state, attributes
        )
        n_epochs = 1 if incremental else int(self.max_iter)
        counted = "iteration" if optimizer is None else "epoch"
        shows = self.progress_bar and not incremental
        bar = ProgressBar(n_epochs, counted) if shows else None
        events = Events(self, *told, "epoch", n_epochs, attributes, bar)
        try:
            if optimizer is None:
                outcome = self._minimize(plan, weights, rows, goes_on, events)
            else:
                class_weight = getattr(self, "class_weight", None)
                objective = self.loss, labels.extras, dropout, class_weight
                history = training.History()
                if goes_on:
                    history = self._history(given, objective)
                restores = self.restore_best_weights and not incremental
                history.keeps_best = self.early_stopping or restores
                trainer = training.Trainer(
                    *(plan, weights, optimizer, history, self, rows),
                    *(random_state, validation),
                )
                trainer.run(n_epochs, events)
                outcome = self._trained(trainer, incremental, objective)
        finally:
            events.close()
        self._check_finite(outcome)
        weights, before = outcome.weights, dict(vars(self))
        if not goes_on or optimizer is None:  # of another model
            for name in ("_best_coefs", "_best_intercepts"):
                vars(self).pop(name, None)
        if not goes_on:
            vars(self).pop("_optimizer", None)
        for name in ("validation_loss_curve_", "quantiles_"):
            vars(self).pop(name, None)  # of another call
        seed = self.random_state if isinstance(self.random_state, Integral) else None
        vars(self).update(
            **attributes(*weights),
            **outcome.attributes,
            _random_state=random_state,
            _resumed_seed=seed if incremental else None,
        )
        try:
            events.finish(lambda: weights)
        except BaseException:  # a callback's
            vars(self).clear()
            vars(self).update(before)
            raise
        return outcome.report

    def _told(self, X, y, sample_weight, numbers) -> tuple:
        """X, y and the weights that callbacks hear of: those of the rows to fit."""
        told = X, y, sample_weight
        if numbers is None or not getattr(self, "_skl_callbacks", None):
            return told
        return tuple(None if a is None else _safe_indexing(a, numbers) for a in told)

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

    def _first_weights(self, units, activations, random_state, dtype) -> network.Weights:
        """Drawn ones; hidden layers of a fitted model, if ``init`` is one."""
        if isinstance(self.init, str):
            return network.Weights(
                *initial_weights(units, activations, random_state, dtype, self.init)
            )
        pretrained: Any = getattr(self.init, "estimator", self.init)  # FrozenEstimator's
        if not hasattr(pretrained, "hidden_layer_sizes"):
            raise TypeError(
                "init must be a fitted multilayer perceptron, or a name; got "
                f"{type(pretrained).__name__}."
            )
        check_is_fitted(
            *(pretrained, "coefs_"), msg="The %(name)s given as init is not fitted yet."
        )
        try:
            known = network.checked_weights(
                pretrained.coefs_, pretrained.intercepts_, units[0]
            )
        except ValueError as error:
            raise ValueError(f"Of the network given as init: {error}") from error
        sizes = tuple(len(b) for b in known.intercepts[:-1])
        if sizes != units[1:-1]:
            raise ValueError(
                f"The network given as init has hidden layers of {sizes} units; "
                f"hidden_layer_sizes asks for {units[1:-1]}."
            )
        theirs, ours = (
            (names,) * len(sizes) if isinstance(names, str) else names
            for names in (parameters.activations(pretrained, len(sizes)), activations)
        )
        if theirs != ours:
            raise ValueError(
                f"The network given as init was trained with activation={theirs}; with "
                f"{ours} its weights mean nothing."
            )
        last = activations
        if not isinstance(activations, str):
            last = activations[-1] if activations else "identity"
        new = initial_weights(units[-2:], last, random_state, dtype)
        return network.Weights(
            *(
                [w.copy() for w in old[:-1]] + drawn
                for old, drawn in zip(_in_dtype(known, dtype), new, strict=True)
            )
        )

    def _begin_optimizer(self, resumes, dropout, random_state):
        """A new one, or that of the call before; None for 'lbfgs'."""
        if self.solver == "lbfgs":
            return None
        kept = getattr(self, "_optimizer", None) if resumes else None
        new = kept is None or kept.solver != self.solver
        optimizer = training.Optimizer(self) if new else copy.copy(kept)
        if dropout and not optimizer.seed:
            optimizer.seed = int(random_state.randint(2**31 - 1))
        return optimizer

    def _plan(self, X, units, activations, labels, dtype, **extras) -> network.Layout:
        """The layout of a network that learns these labels from rows like those of X."""
        own = own_loss.address(self.loss, dtype) if callable(self.loss) else 0
        extras = {**extras, "frozen": int(self.frozen_layers), "own_loss": own}
        return network.layout(
            units,
            activations,
            labels.loss,
            dtype,
            sparse=issparse(X),
            extras=labels.extras._replace(**extras),
        )

    def _trained(self, trainer, incremental, objective) -> Outcome:
        """What the epochs of a stochastic solver have found."""
        history, validation = trainer.history, trainer.validation
        decides = validation is not None and validation.decides
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
            "_optimizer": trainer.optimizer,
            "_scored_by": None,
            "_objective": objective,
        }
        if decides and validation.goes_on:
            found["_scored_by"] = (self.scoring,)
        if history.validation_losses:
            found["validation_loss_curve_"] = history.validation_losses
        if history.validation_scores:
            found["validation_scores_"] = history.validation_scores
            found["best_validation_score_"] = history.best_score
        if decides:
            found["best_loss_"] = None
        if history.keeps_best and history.best is not None:
            weights = _in_dtype(history.best, trainer.plan.dtype)
            found["_best_coefs"] = list(weights.coefs)
            found["_best_intercepts"] = list(weights.intercepts)

        best = "training loss" if validation is None else "validation score"

        def report():
            if history.interrupted:
                warn("Training interrupted by user.")
            if history.diverged:
                warn(
                    f"The training diverged in epoch {history.n_iter}; the weights of "
                    f"the best {best} are kept.",
                    ConvergenceWarning,
                )
            elif not history.stopped and not incremental:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                )

        diverged = history.diverged and "_best_coefs" not in found
        return Outcome(weights, found, diverged, report)

    def _history(self, given, objective) -> training.History:
        """What earlier calls recorded; whatever they did not begins anew.

        The best loss and the patience mean something as long as the ``objective`` is the
        same: the loss, what belongs to it, and the weights of the classes. The best
        score, and its weights, as long as the scorer is the same too, and rows are held
        out, not given to each call.
        """
        history = training.History(samples_seen=getattr(self, "t_", 0))
        history.loss_curve = list(getattr(self, "loss_curve_", []))
        if getattr(self, "_objective", objective) != objective:
            return history
        history.no_improvement_count = getattr(self, "_no_improvement_count", 0)
        best_loss = getattr(self, "best_loss_", None)
        if best_loss is not None:
            history.best_loss = best_loss
        scores = getattr(self, "validation_scores_", None)
        comparable = getattr(self, "_scored_by", (None,)) == (self.scoring,)
        comparable = comparable and self.early_stopping and given.X_val is None
        if scores and comparable and hasattr(self, "_best_coefs"):
            history.validation_scores = list(scores)
            history.best_score = vars(self)["best_validation_score_"]
            history.best = network.Weights(self._best_coefs, self._best_intercepts)
        return history

    def _validation(self, rows, y, labels, given, random_state, attributes):
        """(rows to train on, ``Validation`` or None): rows held out, or given to fit."""
        scoring = self.scoring
        if scoring is not None and scoring != "loss":
            scorer = check_scoring(self, scoring)
        if given.X_val is None:
            for name in ("y_val", "sample_weight_val"):
                if getattr(given, name) is not None:
                    raise ValueError(f"{name} is given without X_val.")
            if not self.early_stopping or self.solver == "lbfgs":
                return rows, None
            rows, held_out = self._hold_out(rows, labels, random_state)
            X, sample_weight = rows.X[held_out], rows.sample_weight
            y, targets = y[held_out], labels.targets[held_out]
            if sample_weight is not None:
                sample_weight = sample_weight[held_out]
        elif self.solver == "lbfgs":
            raise ValueError(
                "solver='lbfgs' does not look at validation rows: use a stochastic "
                "solver, or leave X_val out."
            )
        else:
            try:
                X, y = self._check_validation_rows(rows.X, given)
                targets = self._encode_again(y, labels)
                sample_weight, _ = _scaled_weights(
                    _checked_sample_weight(given.sample_weight_val, X),
                    *(labels.weights(targets), X.dtype),
                )
            except ValueError as error:
                raise ValueError(f"Of the validation rows: {error}") from error

        def loss(outputs):
            own = self.loss if callable(self.loss) else None
            return mean_loss(
                labels.loss, labels.extras, own, outputs, targets, sample_weight
            )

        def score(outputs, weights):
            if scoring == "loss":
                return -loss(outputs)
            if scoring is None:
                return self._score_outputs(outputs, targets, labels, sample_weight)
            if not np.isfinite(outputs).all():
                return float("nan")  # no scorer likes such predictions
            model = copy.copy(self)
            vars(model).update(attributes(*weights()))
            vars(model).pop("feature_names_in_", None)  # X is an array
            # weights of classes alone are no reason to ask a scorer for what it has not
            told = given.sample_weight if given.X_val is None else given.sample_weight_val
            weighs = {} if told is None else {"sample_weight": sample_weight}
            try:
                return float(scorer(model, X, y, **weighs))
            except AttributeError as error:  # it asks for what a regressor has not
                name = type(self).__name__
                raise ValueError(f"{scoring=} is not for {name}: {error}") from error
            except TypeError as error:
                if "sample_weight" not in str(error):
                    raise
                raise ValueError(
                    f"{scoring=} does not take the sample_weight that fit was given: "
                    "use a scorer that does, or scoring='loss'."
                ) from error

        if sample_weight is not None and sample_weight.sum() == 0:
            raise ValueError(
                "The sample weights of the validation set add up to zero. Increase "
                "'validation_fraction' or give more rows a weight."
            )
        shown = given.X_val is not None or scoring == "loss"
        return rows, Validation(
            *(X, score, loss if shown else None, self.early_stopping),
            goes_on=given.X_val is None,
        )

    def _check_validation_rows(self, X, given):
        """X_val and y_val, checked and in the form of the training's."""
        if given.y_val is None:
            raise ValueError("X_val is given without y_val.")
        X_val, y_val = self._check_X_y(given.X_val, given.y_val, reset=False)
        X_val = X_val.astype(X.dtype, copy=False)
        if issparse(X_val) and not issparse(X):
            X_val = X_val.toarray()
        elif issparse(X) and not issparse(X_val):
            X_val = type(X)(X_val)
        return X_val, y_val

    def _hold_out(self, rows, labels, random_state):
        """The rows to train on, and the numbers of those that early stopping scores."""
        with config_context(skip_parameter_validation=True):  # fit has done it
            order, held_out = train_test_split(
                rows.order,
                random_state=random_state,
                test_size=self.validation_fraction,
                stratify=self._strata(labels, rows.order),
            )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        return rows._replace(order=order), held_out

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
            parameters.check_floats(self)

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
            accept_sparse=SPARSE,
            multi_output=True,
            dtype=_FLOATS[self.dtype],
            **options,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        X = X.tocsr() if issparse(X) else X
        return X.astype(X.dtype.newbyteorder("="), copy=False), y

    def gradient_report(
        self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None
    ) -> GradientReport:
        """How gradients and activations go through the layers, for some rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Some hundred rows say enough; all are taken at once.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        GradientReport
            For each layer the root mean squares of activations, gradient and weights,
            the size of the optimizer's last update, dead and saturated shares; with a
            verdict and a plot. ``print`` shows it as a table.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted. One epoch of ``partial_fit`` is enough.
        """
        check_is_fitted(self, "coefs_")
        data, told = self._check_X_y(X, y, reset=False)
        sample_weight = _checked_sample_weight(sample_weight, data)
        labels = self._encode(told, True, None, sample_weight)
        sample_weight, scale = _scaled_weights(
            sample_weight, labels.weights(labels.targets), data.dtype
        )
        weights = network.checked_weights(self.coefs_, self.intercepts_, data.shape[1])
        dtype = weights.coefs[0].dtype
        units = (data.shape[1], *(len(b) for b in weights.intercepts))
        wanted = labels.n_outputs, labels.out_activation
        if wanted != (units[-1], self.out_activation_):
            raise ValueError(
                f"y and the parameters ask for {wanted[0]} outputs ({wanted[1]}), but "
                f"the model was fitted with {units[-1]} ({self.out_activation_})."
            )
        names = parameters.activations(self, len(units) - 2)
        names = (names,) * (len(units) - 2) if isinstance(names, str) else names
        plan = self._plan(data, units, names, labels, dtype)
        order = np.arange(len(labels.targets))
        rows = training.Rows(data, labels.targets, sample_weight, order, scale)
        outputs = [*names, self.out_activation_]
        stochastic = self.solver != "lbfgs"
        optimizer = getattr(self, "_optimizer", None) if stochastic else None
        return gradients.report(plan, weights, outputs, optimizer, self, rows)

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
