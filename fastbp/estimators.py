"""``MLPClassifier`` and ``MLPRegressor`` with scikit-learn's interface.

Here are parameters, input and label handling, warnings and fitted attributes; what
happens between them is in ``training`` and, below it, in the kernels.
"""

import warnings
import weakref
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from fastbp import network, rows, training

_FLOATS = {
    "auto": (np.float64, np.float32),
    "float32": np.float32,
    "float64": np.float64,
}


_PLAIN_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))

#: Packing the weights for the register tiles does not pay for so many rows and less.
_FEW_ROWS = 4
#: The row reader of each estimator; not in its state, as it holds addresses.
_ROW_READERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _one_of(*names):
    return [StrOptions(set(names))]


class _BaseMLP(BaseEstimator):
    """What the classifier and the regressor share."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "activation": _one_of("identity", "logistic", "tanh", "relu"),
        "solver": _one_of("lbfgs", "sgd", "adam"),
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "learning_rate": _one_of("constant", "invscaling", "adaptive"),
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
        "dtype": _one_of("auto", "float32", "float64"),
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

    def _check_supported(self, X, sample_weight) -> None:
        """Raise NotImplementedError for what scikit-learn has and fastbp has not yet."""
        unsupported = {
            "solver='lbfgs'": self.solver == "lbfgs",
            "loss='poisson'": self.loss == "poisson",
            "early_stopping=True": self.early_stopping,
            "warm_start=True": self.warm_start,
            "sample_weight": sample_weight is not None,
            "sparse X": issparse(X),
        }
        for option, asked in unsupported.items():
            if asked:
                raise NotImplementedError(
                    f"{type(self).__name__} of fastbp does not support {option} yet."
                )

    def _hidden_layer_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if any(isinstance(n, bool) or not isinstance(n, Integral) for n in sizes):
            raise TypeError(f"hidden_layer_sizes must be integers, got {sizes}.")
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def fit(self, X, y, sample_weight=None):
        """Fit the network to data and targets, in mini-batches.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data. float32 and float64 are used as they are (see ``dtype``),
            everything else is converted to float64. It is never modified, and is
            copied only if it is not C-contiguous.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, a binary indicator matrix (multilabel), or numbers.
        sample_weight : None
            Not supported yet.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the data are not finite or of
            inconsistent length, or the training diverged.
        NotImplementedError
            If an option is asked for that fastbp does not support yet.
        """
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        self._check_supported(X, sample_weight)
        hidden = self._hidden_layer_sizes()
        X, targets, out_activation, n_outputs = self._validate_input(X, y)

        units = (X.shape[1], *hidden, n_outputs)
        random_state = check_random_state(self.random_state)
        coefs, intercepts = network.initial_weights(
            units, self.activation, random_state, X.dtype
        )
        plan = network.layout(units, self.activation, out_activation, X.dtype)
        trainer = training.Trainer(
            plan, coefs, intercepts, self, X, targets, random_state
        )
        history = trainer.run()

        self.coefs_, self.intercepts_ = trainer.weights()
        self.n_layers_ = len(units)
        self.n_outputs_ = n_outputs
        self.out_activation_ = out_activation
        self.n_iter_ = history.n_iter
        self.t_ = history.samples_seen
        self.loss_curve_ = history.loss_curve
        self.loss_ = history.loss_curve[-1] if history.loss_curve else np.inf
        self.best_loss_ = history.best_loss
        self.validation_scores_ = None
        self.best_validation_score_ = None
        self._no_improvement_count = history.no_improvement_count
        self._random_state = random_state
        if not history.stopped:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._check_finite()
        return self

    def _check_finite(self) -> None:
        if all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            return
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain "
            "large values and need to be preprocessed. The training diverged in epoch "
            f"{self.n_iter_}: scale the data (for example with StandardScaler) or "
            f"lower learning_rate_init={self.learning_rate_init}."
        )

    def _check_X_y(self, X, y, **options):
        X, y = validate_data(
            self, X, y, multi_output=True, dtype=_FLOATS[self.dtype], **options
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _outputs(self, X) -> np.ndarray:
        """Outputs of the network for the rows of ``X``, shape (n, n_outputs)."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)
        plain = self._is_plain(X)
        if not plain:
            if issparse(X):
                self._check_supported(X, None)
            X = validate_data(self, X, reset=False)
        reader = self._row_reader(X) if len(X) <= _FEW_ROWS else None
        if reader is not None:
            outputs, finite = reader.predict(X, self.activation, self.out_activation_)
        else:
            outputs, finite = self._predict_blocks(X)
        if plain and not finite:
            validate_data(self, X, reset=False)  # says so, unless told to assume it
        return outputs

    def _predict_blocks(self, X) -> tuple[np.ndarray, bool]:
        weights = network.checked_weights(self.coefs_, self.intercepts_, X.shape[1])
        plan = network.layout(
            (X.shape[1], *(len(b) for b in weights.intercepts)),
            self.activation,
            self.out_activation_,
            weights.coefs[0].dtype,
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
            and X.shape[1] == self.n_features_in_
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


class MLPClassifier(ClassifierMixin, _BaseMLP):
    """Multilayer perceptron classifier.

    A drop-in replacement for :class:`sklearn.neural_network.MLPClassifier`: the same
    parameters, defaults, random draws and, up to rounding, the same model. It minimises
    the log-loss plus ``alpha / 2`` times the squared weights over the batch size.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int or int, default=(100,)
        Units of each hidden layer; empty for a linear model.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Activation function of the hidden layers.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        'adam' (Kingma and Ba, 2015) or stochastic gradient descent with momentum.
        'lbfgs' is not supported yet.
    alpha : float, default=0.0001
        Strength of the L2 penalty on the weights (not on the biases).
    batch_size : int or 'auto', default='auto'
        Rows of a mini-batch; 'auto' is ``min(200, n_samples)``.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of the learning rate, for ``solver='sgd'``. 'invscaling' divides
        ``learning_rate_init`` by ``(t_ + 1) ** power_t`` after each epoch; 'adaptive'
        divides the rate by 5 when the loss has stopped improving.
    learning_rate_init : float, default=0.001
        Step size, at the start.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Largest number of epochs.
    shuffle : bool, default=True
        Whether to draw a new order of the rows for every epoch.
    random_state : int, RandomState instance or None, default=None
        Draws the initial weights and the order of the rows.
    tol : float, default=1e-4
        The training stops when the loss has not improved by ``tol`` for more than
        ``n_iter_no_change`` epochs in a row.
    verbose : bool or int, default=False
        Whether to print the loss of every epoch.
    warm_start : bool, default=False
        True is not supported yet.
    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's look-ahead.
    early_stopping : bool, default=False
        True is not supported yet.
    validation_fraction : float, default=0.1
        Share of the rows held out by ``early_stopping``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of Adam's first and second moment, in [0, 1).
    epsilon : float, default=1e-8
        Added to the root of Adam's second moment.
    n_iter_no_change : int or np.inf, default=10
        See ``tol``.
    max_fun : int, default=15000
        Largest number of loss evaluations of 'lbfgs'.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        Precision of the whole computation. 'auto' follows ``X`` as scikit-learn does:
        float32 stays float32, everything else becomes float64. 'float32' is about
        twice as fast.
    n_jobs : int or None, default=None
        Largest number of threads; None and -1 leave it to the machine (see
        ``fastbp.launch``). The result does not depend on it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer.
    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.
    loss_curve_ : list of float
        Mean loss over the batches of each epoch, each taken before its update.
    loss_, best_loss_ : float
        Its last and its smallest value.
    n_iter_ : int
        Epochs run.
    t_ : int
        Training samples seen.
    n_layers_, n_outputs_ : int
        Layers, inputs and outputs included; units of the output layer.
    out_activation_ : {'softmax', 'logistic'}
        'logistic' for two classes and multilabel targets.
    validation_scores_, best_validation_score_ : None
    n_features_in_ : int
        Columns of ``X``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if ``X`` has names that are all strings.

    Examples
    --------
    >>> from fastbp import MLPClassifier
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier(max_iter=30, tol=1e-2, random_state=0).fit(X / 16, y)
    >>> bool(model.score(X / 16, y) > 0.95)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dtype="auto",
        n_jobs=None,
    ):
        super().__init__(
            loss="log_loss",
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            dtype=dtype,
            n_jobs=n_jobs,
        )

    def _validate_input(self, X, y):
        """Checked X, targets for the kernels, output activation and outputs."""
        X, y = self._check_X_y(X, y)
        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._label_binarizer.classes_
        if not self._label_binarizer.y_type_.startswith("multilabel"):
            targets = np.searchsorted(self.classes_, y).astype(X.dtype)
            if len(self.classes_) > 2:
                return X, targets, "softmax", len(self.classes_)
            return X, targets, "logistic", 1
        targets = self._label_binarizer.transform(y)
        if issparse(targets):
            targets = targets.toarray()
        return X, targets.astype(X.dtype), "logistic", targets.shape[1]

    def predict(self, X):
        """Predict class labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The most probable class, or for multilabel targets an indicator matrix.
        """
        outputs = self._outputs(X)
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return self._label_binarizer.inverse_transform(outputs)
        if self.n_outputs_ == 1:
            labels = (outputs.ravel() > 0.5).astype(np.intp)
        else:
            labels = outputs.argmax(axis=1)
        return self.classes_.take(labels, mode="clip")  # there may be one class only

    def predict_proba(self, X):
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Probability of each class, in the order of ``classes_``.
        """
        outputs = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - outputs, outputs])
        return outputs

    def predict_log_proba(self, X):
        """Predict logarithms of probabilities, ``log(predict_proba(X))``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        log_y_prob : ndarray of shape (n_samples, n_classes)
        """
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Not supported yet."""
        raise NotImplementedError(
            "MLPClassifier of fastbp does not support partial_fit yet."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _BaseMLP):
    """Multilayer perceptron regressor.

    A drop-in replacement for :class:`sklearn.neural_network.MLPRegressor`: the same
    parameters, defaults, random draws and, up to rounding, the same model. It minimises
    half the mean squared error plus ``alpha / 2`` times the squared weights over the
    batch size.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        'poisson' is not supported yet.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, \
learning_rate_init, power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, \
momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun, dtype, n_jobs
        As for :class:`MLPClassifier`.

    Attributes
    ----------
    out_activation_ : 'identity'
    coefs_, intercepts_, loss_curve_, loss_, best_loss_, n_iter_, t_, n_layers_, \
n_outputs_, validation_scores_, best_validation_score_, n_features_in_, \
feature_names_in_
        As for :class:`MLPClassifier`.

    Examples
    --------
    >>> from fastbp import MLPRegressor
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> model = MLPRegressor(max_iter=2000, tol=0.1, random_state=1).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **_BaseMLP._parameter_constraints,
        "loss": _one_of("squared_error", "poisson"),
    }

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dtype="auto",
        n_jobs=None,
    ):
        super().__init__(
            loss=loss,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            dtype=dtype,
            n_jobs=n_jobs,
        )

    def _validate_input(self, X, y):
        """Checked X, targets for the kernels, output activation and outputs."""
        X, y = self._check_X_y(X, y, y_numeric=True)
        targets = y.reshape(len(y), -1).astype(X.dtype)
        return X, targets, "identity", targets.shape[1]

    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def partial_fit(self, X, y, sample_weight=None):
        """Not supported yet."""
        raise NotImplementedError(
            "MLPRegressor of fastbp does not support partial_fit yet."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
