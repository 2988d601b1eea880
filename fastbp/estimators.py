"""``MLPClassifier`` and ``MLPRegressor`` with scikit-learn's interface.

Here are the parameters' defaults, labels, scores and predictions; the rest of a fit is in
``base``.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import d2_pinball_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import (
    check_classification_targets,
    type_of_target,
    unique_labels,
)

from fastbp import network, own_loss, parameters
from fastbp.base import BaseMLP, Given, Labels, unless_lbfgs
from fastbp.callbacks import with_callbacks
from fastbp.parameters import one_of
from fastbp.typing import (
    Activation,
    Array,
    Initialization,
    Matrix,
    Precision,
    RegressionLoss,
    Schedule,
    Scoring,
    Seed,
    Sizes,
    Solver,
)

#: Losses of regressors that scikit-learn does not have.
_MORE_LOSSES = ("gamma", "absolute_error", "huber", "quantile")


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
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', \
'gelu', 'silu', 'mish', 'softplus'} or list of these, default='relu'
        Activation function of the hidden layers, or of each of them (formulas and
        papers: ``fastbp.kernels.hidden``).
    solver : {'lbfgs', 'sgd', 'adam', 'adamw', 'rmsprop', 'nadam'}, default='adam'
        'adam' (Kingma and Ba, 2015), stochastic gradient descent with momentum, or
        SciPy's L-BFGS-B on all rows at once. 'adamw' is 'adam' with decoupled
        ``weight_decay`` (Loshchilov and Hutter, 2019), 'rmsprop' divides the gradient by
        the root of its decaying mean square with rate ``beta_2`` (Tieleman and Hinton,
        2012), 'nadam' is Adam with Nesterov's look-ahead (Dozat, 2016; formulas:
        ``fastbp.kernels.more_updates``). 'lbfgs' takes no notice of what stochastic
        solvers are told: batches, rates, momentum, early stopping and its scores,
        ``weight_decay``, ``max_grad_norm``, ``restore_best_weights``.
    alpha : float, default=0.0001
        Strength of the L2 penalty on the weights (not on the biases).
    batch_size : int or 'auto', default='auto'
        Rows of a mini-batch; 'auto' is ``min(200, n_samples)``.
    learning_rate : {'constant', 'invscaling', 'adaptive', 'cosine', 'one_cycle', \
'reduce_on_plateau'}, default='constant'
        Schedule of the learning rate; the second and the third are for ``solver='sgd'``
        only, the others for all stochastic solvers. 'invscaling' divides
        ``learning_rate_init`` by ``(t_ + 1) ** power_t`` after each epoch; 'adaptive'
        divides the rate by 5 when the loss has stopped improving, and ends the training
        when it is 1e-6; 'reduce_on_plateau' is the same. 'cosine' falls to 0 along half
        a cosine, from step to step, by the end of epoch ``max_iter`` (Loshchilov and
        Hutter, 2017); 'one_cycle' rises from a 25th of ``learning_rate_init`` to it in
        the first 30 % of ``max_iter`` epochs, and falls to nearly 0 in the others (Smith
        and Topin, 2018). Both go on over calls of ``partial_fit``, and begin anew after
        ``max_iter`` epochs.
    learning_rate_init : float, default=0.001
        Step size, at the start.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Largest number of epochs, or of iterations of 'lbfgs'.
    shuffle : bool, default=True
        Whether to draw a new order of the rows for every epoch.
    random_state : int, RandomState instance or None, default=None
        Draws the initial weights, the order of the rows, the rows that
        ``early_stopping`` holds out, and the seed of dropout.
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
        more. 'lbfgs' ignores it. With ``X_val`` given to ``fit``, those are the rows.
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
    init : {'glorot_uniform', 'he_normal', 'lecun_normal', 'orthogonal'} or fitted \
estimator, default='glorot_uniform'
        How the first weights are drawn: as scikit-learn does, with the variance
        ``2 / fan_in`` (He et al., 2015) or ``1 / fan_in`` (LeCun et al., 1998), or
        orthonormal (Saxe et al., 2014). A fitted network of the same hidden layers and
        activations gives their weights, and only the output layer is new. In a search
        wrap it in :class:`sklearn.frozen.FrozenEstimator`, as clones are not fitted.
    frozen_layers : int, default=0
        Layers of weights, from the first, that keep their values. The penalty ``alpha``
        is on the others.
    dropout : float or list of float, default=0.0
        Share of the units of each hidden layer, or of each one, that every step leaves
        out for each row, in [0, 1) (Srivastava et al., 2014). Training losses are those
        of the thinned networks. Not for 'lbfgs'.
    weight_decay : float or None, default=None
        Share of the weights (not of the biases), times the learning rate, that every
        step takes from them, beside the gradient. None is 0.01 for 'adamw', else 0.
    max_grad_norm : float or None, default=None
        Longer gradients, over all weights and biases, are scaled to this norm (Pascanu
        et al., 2013).
    warmup_epochs : float, default=0
        Epochs in which the learning rate grows in proportion to the number of steps; for
        'one_cycle' those before its largest rate.
    scoring : str, callable or None, default=None
        What scores validation rows: 'loss', the name of a scorer or a scorer of
        scikit-learn's; None is accuracy or R^2.
    restore_best_weights : bool, default=False
        Whether to end with the weights of the best epoch without ``early_stopping``,
        too: those after the epoch of the best validation score if there are validation
        rows, else those of the smallest training loss, which belongs to the weights
        before an epoch; the last ones are looked at, too. Not for ``partial_fit``.
    max_time : float or None, default=None
        Seconds after which no new epoch begins; compiling does not count.
    progress_bar : bool, default=False
        Whether ``fit`` shows epochs, loss, validation score and the time left; needs
        tqdm.
    class_weight : dict, 'balanced' or None, default=None
        Weight of each class, which multiplies those of its rows, validation rows too; 1
        for those that a dict does not name. 'balanced' is ``n_samples / (n_classes *
        np.bincount(y))`` of the rows that ``fit`` is given, each of which counts as much
        as its weight. Not for multilabel targets.
    label_smoothing : float, default=0.0
        Share of every target that is spread evenly over the classes, in [0, 1) (Szegedy
        et al., 2016).

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
        Its last and its smallest value; with ``early_stopping`` ``best_loss_`` is None.
    n_iter_ : int
        Epochs run.
    t_ : int
        Training samples seen.
    n_layers_, n_outputs_ : int
        Layers, inputs and outputs included; units of the output layer.
    out_activation_ : {'softmax', 'logistic'}
        'logistic' for two classes and multilabel targets.
    validation_scores_, best_validation_score_ : list of float, float
        Scores of the validation rows after each epoch, and the best; None without any.
        Without ``early_stopping`` those of the last call.
    validation_loss_curve_ : list of float
        Mean loss of the validation rows after each epoch of the last call, without
        penalty and label smoothing; only with ``X_val`` or ``scoring='loss'``.
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
    class_weight: Mapping[Any, float] | Literal["balanced"] | None
    label_smoothing: float
    loss = "log_loss"  # as scikit-learn's has it; it is no parameter

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [*one_of("balanced"), dict, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }

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
        init: Initialization = "glorot_uniform",
        frozen_layers: int = 0,
        dropout: float | Sequence[float] | Array = 0.0,
        weight_decay: float | None = None,
        max_grad_norm: float | None = None,
        warmup_epochs: float = 0,
        scoring: Scoring = None,
        restore_best_weights: bool = False,
        max_time: float | None = None,
        progress_bar: bool = False,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self._keep(locals())

    @with_callbacks
    def fit(
        self,
        X: Matrix,
        y: Matrix,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Matrix | None = None,
        y_val: Matrix | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
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
        X_val : {array-like, sparse matrix} of shape (n_val, n_features), default=None
            Rows to look at after every epoch (see ``validation_loss_curve_``), which
            ``early_stopping`` then takes, too, instead of holding out others.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the data are not finite or of
            inconsistent length, all weights are zero, the training diverged, or
            'lbfgs' is to use validation rows or dropout.
        TypeError
            If a parameter, the targets or a loss are of a kind that cannot be used.
        ImportError
            If ``progress_bar`` is True without tqdm.
        """
        self._check_parameters()
        return self._fit(X, y, Given(sample_weight, X_val, y_val, sample_weight_val))

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

        The optimizer, its learning rate, decay and clipping among it, is that of the
        first call, or of the last ``fit``. Not available for ``solver='lbfgs'``.

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
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit, which does "
                "not see all rows. Use sklearn.utils.class_weight.compute_class_weight"
                "('balanced', classes=classes, y=y) on a large enough sample, and give "
                "class_weight a dict of what it returns."
            )
        classes = self._first_classes(classes)
        return self._fit(X, y, Given(sample_weight), incremental=True, classes=classes)

    def _encode(self, y, incremental, classes, sample_weight=None):
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
        extras = network.Extras(label_smoothing=float(self.label_smoothing))
        targets = self._numbered(y, known, binarizer)
        if targets.ndim == 1 and len(known) > 2:
            shape, kind = len(known), "softmax"
        else:
            shape, kind = targets.shape[1] if targets.ndim == 2 else 1, "logistic"
        weights = self._weights_of_classes(targets, known, sample_weight)
        return Labels(targets, kind, shape, attributes, kind, extras, weights)

    def _numbered(self, y, known, binarizer) -> np.ndarray:
        """Class numbers, or a 0/1 matrix for multilabel targets."""
        if not binarizer.y_type_.startswith("multilabel"):
            return np.searchsorted(known, y)
        targets = binarizer.transform(y)
        if issparse(targets):
            targets = targets.toarray()
        return targets != 0

    def _encode_again(self, y, labels) -> np.ndarray:
        """The targets of validation rows."""
        binarizer, known = (
            labels.attributes[name] for name in ("_label_binarizer", "classes_")
        )
        self._check_known(y, known, binarizer, True)
        multilabel = binarizer.y_type_.startswith("multilabel")
        if multilabel and not type_of_target(y).startswith("multilabel"):
            raise ValueError("The object was fitted with multilabel input.")
        return self._numbered(y, known, binarizer)

    def _weights_of_classes(self, targets, known, sample_weight) -> np.ndarray | None:
        """The weight of each class, in the order of ``known``; None: all the same."""
        if self.class_weight is None:
            return None
        if targets.ndim == 2:
            raise ValueError(
                "class_weight is for one label a row; with multilabel targets give fit a "
                "sample_weight."
            )
        if self.class_weight == "balanced":
            counts = np.bincount(targets, sample_weight, minlength=len(known))
            present = counts > 0
            return counts.sum() / (max(1, present.sum()) * np.where(present, counts, 1))
        weights = np.ones(len(known))
        places = {label: i for i, label in enumerate(known.tolist())}
        for label, weight in self.class_weight.items():
            if not (isinstance(weight, Real) and np.isfinite(weight)):
                raise ValueError(f"class_weight[{label!r}] must be a number: {weight!r}.")
            if label in places:
                weights[places[label]] = weight
        left = [label for label in places if label not in self.class_weight]
        unknown = [label for label in self.class_weight if label not in places]
        if left and unknown:
            raise ValueError(
                f"The classes, {left}, are not in class_weight, and {unknown}, which are "
                "in it, are no classes."
            )
        return weights

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

    def _strata(self, labels, rows):
        """What early stopping stratifies by: as in scikit-learn, binary targets only.

        As text, which scikit-learn makes of its matrix of one column, row by row.
        """
        if labels.n_outputs > 1:
            return None
        return np.array(["False", "True"])[labels.targets[rows].reshape(-1).astype(int)]

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
    loss : {'squared_error', 'poisson', 'gamma', 'absolute_error', 'huber', 'quantile'} \
or callable, default='squared_error'
        'poisson' and 'gamma' are half the deviances for counts and rates, ``y >= 0``, and
        for positive amounts, ``y > 0``, with an exponential output. 'absolute_error' and
        'huber' (Huber, 1964) mind outliers less; 'quantile' is the pinball loss
        (Koenker and Bassett, 1978). All but the deviances are means over the outputs; the
        steps of 'squared_error' are those of the sum, as in scikit-learn.
        A function ``loss(y, z, gradient)`` that ``numba.njit`` has compiled returns the
        loss of one row and writes its derivatives by the outputs ``z`` to ``gradient``;
        all three are arrays of shape (n_outputs,). It is compared with finite
        differences before the training, and is called from several threads at once.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, \
learning_rate_init, power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, \
momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun, dtype, n_jobs, init, frozen_layers, dropout, \
weight_decay, max_grad_norm, warmup_epochs, scoring, restore_best_weights, max_time, \
progress_bar
        As for :class:`MLPClassifier`.
    quantile : float or list of float, default=0.5
        For ``loss='quantile'``, in (0, 1); several are ascending, of one target, and
        their predictions never cross: each is the one before plus a softplus.
    huber_delta : float, default=1.0
        Errors up to this count by their square in ``loss='huber'``, others in proportion.

    Attributes
    ----------
    out_activation_ : {'identity', 'exp', 'cumulative_softplus'}
    quantiles_ : ndarray of shape (n_outputs,)
        Of the columns of predictions; only with several quantiles.
    coefs_, intercepts_, loss_curve_, loss_, best_loss_, n_iter_, t_, n_layers_, \
n_outputs_, validation_scores_, best_validation_score_, validation_loss_curve_, \
n_features_in_, feature_names_in_
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

    quantiles_: Array
    quantile: float | Sequence[float] | Array
    huber_delta: float

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "loss": [*one_of("squared_error", "poisson", *_MORE_LOSSES), callable],
        "quantile": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        loss: RegressionLoss = "squared_error",
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
        init: Initialization = "glorot_uniform",
        frozen_layers: int = 0,
        dropout: float | Sequence[float] | Array = 0.0,
        weight_decay: float | None = None,
        max_grad_norm: float | None = None,
        warmup_epochs: float = 0,
        scoring: Scoring = None,
        restore_best_weights: bool = False,
        max_time: float | None = None,
        progress_bar: bool = False,
        quantile: float | Sequence[float] | Array = 0.5,
        huber_delta: float = 1.0,
    ) -> None:
        self._keep(locals())

    @with_callbacks
    def fit(
        self,
        X: Matrix,
        y: Matrix,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Matrix | None = None,
        y_val: Matrix | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the network to data and targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. float32 and float64 are used as they are (see ``dtype``),
            everything else is converted to float64. It is never modified, and is
            copied only if it is not C-contiguous, or not CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers; not negative for ``loss='poisson'``, positive for 'gamma'.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss; every row counts 1 without it.
        X_val : {array-like, sparse matrix} of shape (n_val, n_features), default=None
            Rows to look at after every epoch (see ``validation_loss_curve_``), which
            ``early_stopping`` then takes, too, instead of holding out others.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the data are not finite or of
            inconsistent length, all weights are zero, the training diverged, or
            'lbfgs' is to use validation rows or dropout.
        TypeError
            If a parameter, the targets or a loss are of a kind that cannot be used.
        ImportError
            If ``progress_bar`` is True without tqdm.
        """
        self._check_parameters()
        return self._fit(X, y, Given(sample_weight, X_val, y_val, sample_weight_val))

    @unless_lbfgs
    @with_callbacks
    def partial_fit(
        self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go on training with one epoch of mini-batches over the given data.

        The optimizer, its learning rate, decay and clipping among it, is that of the
        first call, or of the last ``fit``. Not available for ``solver='lbfgs'``.

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
        return self._fit(X, y, Given(sample_weight), incremental=True)

    def _check_X_y(self, X, y, **options):
        if issparse(y):
            network.check_indices(y)
            y = y.toarray()
        return super()._check_X_y(X, y, y_numeric=True, **options)

    def _encode(self, y, incremental, classes, sample_weight=None):
        if y.dtype.kind not in "buif":
            raise TypeError(f"y must hold numbers, got an array of {y.dtype}.")
        targets = y.reshape(len(y), -1)
        n_outputs, extras = targets.shape[1], network.NO_EXTRAS
        output, loss, attributes = "identity", self.loss, {}
        if callable(loss):
            if not own_loss.is_compiled(loss):
                raise TypeError(
                    "A loss of your own must be a function that numba.njit has compiled, "
                    f"got {loss!r}."
                )
            own_loss.check_gradient(loss, targets)
            loss = "own"
        elif loss == "squared_error":
            loss = "identity"
        elif loss == "poisson":
            self._check_sign(targets, "negative", (targets < 0).any())
            output = loss = "exp"
        elif loss == "gamma":
            self._check_sign(targets, "not positive", (targets <= 0).any())
            output = "exp"
        elif loss == "huber":
            extras = extras._replace(delta=float(self.huber_delta))
        elif loss == "quantile":
            levels = parameters.quantiles(self)
            extras = extras._replace(quantiles=levels)
            if len(levels) > 1:
                if n_outputs > 1:
                    raise ValueError(
                        f"Several quantiles are of one target; y has {n_outputs} columns."
                    )
                n_outputs, loss = len(levels), "quantiles"
                attributes = {"quantiles_": np.array(levels)}
                output = "cumulative_softplus"
        return Labels(targets, output, n_outputs, attributes, loss, extras)

    def _encode_again(self, y, labels):
        """The targets of validation rows."""
        targets = self._encode(y, False, None).targets
        if targets.shape[1] != labels.targets.shape[1]:
            raise ValueError(
                f"y_val has {targets.shape[1]} columns, but y has "
                f"{labels.targets.shape[1]}."
            )
        return targets

    def _check_sign(self, targets, what, wrong) -> None:
        if wrong:
            raise ValueError(
                f"Some values of y are {what}, which loss={self.loss!r} does not allow: "
                f"the smallest is {targets.min()}."
            )

    def _strata(self, labels, rows):
        """Early stopping does not stratify numbers."""

    def _score_outputs(self, outputs, targets, labels, sample_weight) -> float:
        """R^2, or D^2 of several quantiles; NaN if an output is not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        if labels.loss == "quantiles":
            return self._d2_of_quantiles(
                labels.extras.quantiles, outputs, targets.ravel(), sample_weight
            )
        return float(r2_score(targets, outputs, sample_weight=sample_weight))

    def _d2_of_quantiles(self, levels, predicted, y, sample_weight) -> float:
        """The mean of the quantiles' pinball scores D^2."""
        return float(
            np.mean(
                [
                    d2_pinball_score(
                        y, predicted[:, i], sample_weight=sample_weight, alpha=level
                    )
                    for i, level in enumerate(levels)
                ]
            )
        )

    def score(
        self, X: Matrix, y: Matrix, sample_weight: ArrayLike | None = None
    ) -> float:
        """R^2 of the predictions; for several quantiles the mean of their D^2.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        score : float
            :func:`sklearn.metrics.r2_score`, or the mean over the quantiles of
            :func:`sklearn.metrics.d2_pinball_score`.
        """
        if getattr(self, "out_activation_", None) != "cumulative_softplus":
            return float(super().score(X, y, sample_weight))
        return self._d2_of_quantiles(self.quantiles_, self.predict(X), y, sample_weight)

    def predict(self, X: Matrix) -> Array:
        """Predict targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            For several quantiles a column of each, ascending in every row.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
