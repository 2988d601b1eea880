"""``MLPClassifier`` and ``MLPRegressor`` with scikit-learn's interface.

Here are the parameters' defaults, labels, scores and predictions; the rest of a fit is in
``base``.
"""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import (
    check_classification_targets,
    type_of_target,
    unique_labels,
)

from fastbp import network
from fastbp.base import BaseMLP, Labels, one_of, unless_lbfgs
from fastbp.callbacks import with_callbacks
from fastbp.typing import (
    Activation,
    Array,
    Matrix,
    Precision,
    Schedule,
    Seed,
    Sizes,
    Solver,
)


def _binarizer_of(y) -> LabelBinarizer:
    """A binarizer fitted on labels; numbers that are no labels get a short error."""
    try:
        return LabelBinarizer().fit(y)
    except ValueError:
        if type_of_target(y) == "continuous":
            check_classification_targets(y)
        raise


class MLPClassifier(ClassifierMixin, BaseMLP):
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
        'adam' (Kingma and Ba, 2015), stochastic gradient descent with momentum, or
        SciPy's L-BFGS-B on all rows at once.
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
        Largest number of epochs, or of iterations of 'lbfgs'.
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
        Whether ``fit`` goes on with the weights of the fit before.
    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's look-ahead.
    early_stopping : bool, default=False
        Whether to hold out some rows, to stop when their score (accuracy or R^2) has not
        improved by ``tol`` for more than ``n_iter_no_change`` epochs in a row, and to
        keep the weights of the best score. Rows are stratified by two classes, not by
        more. 'lbfgs' ignores it.
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
    validation_scores_, best_validation_score_ : list of float, float
        Scores of the rows held out after each epoch, and the best; None without
        ``early_stopping``.
    n_features_in_ : int
        Columns of ``X``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if ``X`` has names that are all strings.

    Examples
    --------
    >>> from fastbp import MLPClassifier
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier(tol=1e-2, random_state=0).fit(X / 16, y)
    >>> bool(model.score(X / 16, y) > 0.95)
    True
    """

    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: Sizes = (100,),
        activation: Activation = "relu",
        *,
        solver: Solver = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Seed = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Precision = "auto",
        n_jobs: int | None = None,
    ) -> None:
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

    @with_callbacks
    def fit(self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the network to data and targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. float32 and float64 are used as they are (see ``dtype``),
            everything else is converted to float64. It is never modified, and is
            copied only if it is not C-contiguous, or not CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Class labels, or a 0/1 matrix (multilabel), which may be sparse.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss; every row counts 1 without it.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the data are not finite or of
            inconsistent length, all weights are zero, or the training diverged.
        """
        self._check_parameters()
        return self._fit(X, y, sample_weight)

    @unless_lbfgs
    @with_callbacks
    def partial_fit(
        self,
        X: Matrix,
        y: Matrix,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Go on training with one epoch of mini-batches over the given data.

        Not available for ``solver='lbfgs'``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Class labels, or a 0/1 matrix (multilabel).
        sample_weight : array-like of shape (n_samples,), default=None
        classes : array-like of shape (n_classes,), default=None
            The labels of all calls to come; required in the first call. A later ``y``
            need not have all of them.

        Returns
        -------
        self : object
            The trained estimator.

        Raises
        ------
        ValueError
            As for ``fit``, and if ``classes`` is missing or changes, or if
            ``early_stopping`` is set.
        """
        self._check_partial_fit()
        classes = self._first_classes(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _encode(self, y, incremental, classes):
        """Class numbers, or a 0/1 matrix for multilabel targets."""
        if classes is not None:  # the first call of partial_fit
            known = classes
            multilabel = type_of_target(y).startswith("multilabel")
            binarizer = LabelBinarizer().fit(y if multilabel else classes)
            self._check_known(y, known, binarizer, incremental)
        elif hasattr(self, "classes_") and (incremental or self.warm_start):
            known, binarizer = self.classes_, self._label_binarizer
            self._check_known(y, known, binarizer, incremental)
        else:
            binarizer = _binarizer_of(y)
            known = binarizer.classes_
        attributes = {"_label_binarizer": binarizer, "classes_": known}
        if not binarizer.y_type_.startswith("multilabel"):
            targets = np.searchsorted(known, y)
            if len(known) > 2:
                return Labels(targets, "softmax", len(known), attributes)
            return Labels(targets, "logistic", 1, attributes)
        targets = binarizer.transform(y)
        if issparse(targets):
            targets = targets.toarray()
        return Labels(targets != 0, "logistic", targets.shape[1], attributes)

    def _check_known(self, y, known, binarizer, incremental) -> None:
        """Training may go on only with labels that it began with."""
        multilabel = binarizer.y_type_.startswith("multilabel")
        if (issparse(y) or y.ndim == 2) and not multilabel:
            raise ValueError("The object was not fitted with multilabel input.")
        present = unique_labels(y)
        if not incremental:
            if set(present) != set(known):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in "
                    f"the previous call to fit. Previously got {known}, `y` has {present}"
                )
        elif len(np.setdiff1d(present, known, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {known}. 'y' has {present}."
            )

    def _first_classes(self, classes):
        """The labels of all calls of ``partial_fit`` if this is the first, else None."""
        known = getattr(self, "classes_", None)
        if classes is None:
            if known is None:
                raise ValueError(
                    "classes must be passed on the first call to partial_fit."
                )
            return None
        labels = unique_labels(classes)
        if known is None:
            return labels
        if not np.array_equal(known, labels):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, "
                f"was: {known!r}"
            )
        return None

    def _strata(self, labels):
        """What early stopping stratifies by: as in scikit-learn, binary targets only."""
        if labels.n_outputs > 1:
            return None
        return labels.targets.reshape(-1, 1).astype(bool)

    def _score_outputs(self, outputs, targets, labels, sample_weight) -> float:
        """Accuracy; of whole rows for multilabel targets."""
        if labels.out_activation == "softmax":
            hits = outputs.argmax(axis=1) == targets
        else:
            hits = ((outputs > 0.5) == targets.reshape(outputs.shape)).all(axis=1)
        if len(labels.attributes["classes_"]) == 1:
            hits[:] = True  # there is nothing else to predict
        return float(np.average(hits, weights=sample_weight))

    def predict(self, X: Matrix) -> Array:
        """Predict class labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

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

    def predict_proba(self, X: Matrix) -> Array:
        """Predict probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Probability of each class, in the order of ``classes_``.
        """
        outputs = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - outputs, outputs])
        return outputs

    def predict_log_proba(self, X: Matrix) -> Array:
        """Predict logarithms of probabilities, ``log(predict_proba(X))``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        log_y_prob : ndarray of shape (n_samples, n_classes)
        """
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multilayer perceptron regressor.

    A drop-in replacement for :class:`sklearn.neural_network.MLPRegressor`: the same
    parameters, defaults, random draws and, up to rounding, the same model. It minimises
    half the mean squared error plus ``alpha / 2`` times the squared weights over the
    batch size.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        'poisson' is half the Poisson deviance for counts and rates, ``y >= 0``, with an
        exponential output.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, \
learning_rate_init, power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, \
momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun, dtype, n_jobs
        As for :class:`MLPClassifier`.

    Attributes
    ----------
    out_activation_ : {'identity', 'exp'}
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
        **BaseMLP._parameter_constraints,
        "loss": one_of("squared_error", "poisson"),
    }

    def __init__(
        self,
        loss: Literal["squared_error", "poisson"] = "squared_error",
        hidden_layer_sizes: Sizes = (100,),
        activation: Activation = "relu",
        *,
        solver: Solver = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Seed = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Precision = "auto",
        n_jobs: int | None = None,
    ) -> None:
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

    @with_callbacks
    def fit(self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the network to data and targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. float32 and float64 are used as they are (see ``dtype``),
            everything else is converted to float64. It is never modified, and is
            copied only if it is not C-contiguous, or not CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers; not negative for ``loss='poisson'``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss; every row counts 1 without it.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the data are not finite or of
            inconsistent length, all weights are zero, or the training diverged.
        """
        self._check_parameters()
        return self._fit(X, y, sample_weight)

    @unless_lbfgs
    @with_callbacks
    def partial_fit(
        self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go on training with one epoch of mini-batches over the given data.

        Not available for ``solver='lbfgs'``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : object
            The trained estimator.

        Raises
        ------
        ValueError
            As for ``fit``, and if ``early_stopping`` is set.
        """
        self._check_partial_fit()
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_X_y(self, X, y, **options):
        if issparse(y):
            network.check_indices(y)
            y = y.toarray()
        return super()._check_X_y(X, y, y_numeric=True, **options)

    def _encode(self, y, incremental, classes):
        if y.dtype.kind not in "buif":
            raise TypeError(f"y must hold numbers, got an array of {y.dtype}.")
        targets = y.reshape(len(y), -1)
        if self.loss == "poisson":
            if (targets < 0).any():
                raise ValueError(
                    "Some values of y are negative, which loss='poisson' does not allow: "
                    f"the smallest is {targets.min()}."
                )
            return Labels(targets, "exp", targets.shape[1], {})
        return Labels(targets, "identity", targets.shape[1], {})

    def _strata(self, labels):
        """Early stopping does not stratify numbers."""

    def _score_outputs(self, outputs, targets, labels, sample_weight) -> float:
        """R^2, or NaN if an output is not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        return float(r2_score(targets, outputs, sample_weight=sample_weight))

    def predict(self, X: Matrix) -> Array:
        """Predict targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
