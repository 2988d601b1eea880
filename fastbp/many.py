"""Many independent models at once, one a thread, from the same rows where they are."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn import clone, config_context, get_config
from sklearn.utils.validation import _check_sample_weight, validate_data

from fastbp import launch, parameters
from fastbp.base import BaseMLP
from fastbp.typing import Matrix

Model = TypeVar("Model", bound=BaseMLP)


def fit_many(
    estimators: Sequence[Model],
    X: Matrix,
    y: Matrix,
    folds: Sequence[ArrayLike | None] | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> list[Model]:
    """Fit estimators in threads, each to rows of the same data.

    Parameters
    ----------
    estimators : sequence of MLPClassifier or MLPRegressor
        They are fitted in place. One that comes twice is an error.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Checked and converted once for all, and then read where it is: no fold is copied.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    folds : sequence of array-like of int, default=None
        For each estimator the numbers of its training rows; None is all rows.
    sample_weight : array-like of shape (n_samples,), default=None
    n_jobs : int or None, default=None
        Threads at most; None and -1 leave it to the machine (see ``fastbp.launch``).

    Returns
    -------
    list of estimator
        The estimators. Each has the bits that ``fit(X[rows], y[rows])`` gives it, one
        after the other; those that share a ``RandomState`` are fitted in their order.
        ``random_state=None`` draws from NumPy's own generator whenever it comes to that.

    Raises
    ------
    TypeError
        If an estimator is of another class.
    ValueError
        As for ``fit``, for the first estimator that fails; the others are fitted.
    KeyboardInterrupt
        After Ctrl-C. Estimators whose fits were not at their end are as they were.

    Examples
    --------
    >>> from fastbp import MLPClassifier, fit_many
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import StratifiedKFold
    >>> X, y = load_iris(return_X_y=True)
    >>> splits = list(StratifiedKFold().split(X, y))
    >>> models = [MLPClassifier(tol=0.1, random_state=0) for _ in splits]
    >>> models = fit_many(models, X, y, [train for train, _ in splits])
    >>> len(models)
    5
    """
    given = {"estimators": estimators, "folds": () if folds is None else folds}
    for name, value in given.items():
        if not isinstance(value, Iterable):
            raise TypeError(
                f"{name} must be a sequence, one for each fit, got "
                f"{type(value).__name__}."
            )
    estimators = list(estimators)
    rows_of = list(folds) if folds is not None else [None] * len(estimators)
    if len(rows_of) != len(estimators):
        raise ValueError(
            f"folds must have rows for each of the {len(estimators)} estimators, got "
            f"{len(rows_of)}."
        )
    for estimator in estimators:
        if not isinstance(estimator, BaseMLP):
            raise TypeError(
                "fit_many takes fastbp's MLPClassifier and MLPRegressor, got "
                f"{type(estimator).__name__}."
            )
    if len({id(estimator) for estimator in estimators}) < len(estimators):
        raise ValueError("fit_many got the same estimator twice: clone it.")
    checked: dict[tuple, tuple] = {}
    for estimator in estimators:
        estimator._check_parameters()
        key = (type(estimator), estimator.dtype)
        if key not in checked:
            checked[key] = clone(estimator)._check_X_y(X, y, reset=True)
            if sample_weight is not None:  # later no number is looked at
                _check_sample_weight(sample_weight, checked[key][0])
    n_samples = next(iter(checked.values()))[1].shape[0] if checked else 0
    indices = [_row_numbers(rows, n_samples) for rows in rows_of]

    config = get_config()  # of this thread; the others begin with the defaults

    def fit(i: int) -> Callable[[], None]:
        estimator = estimators[i]
        data, targets = checked[type(estimator), estimator.dtype]
        state = {k: v for k, v in vars(estimator).items() if k == "feature_names_in_"}
        with config_context(**{**config, "assume_finite": True}):
            if state and estimator.warm_start:
                validate_data(estimator, X, skip_check_array=True, reset=False)
            for name in state:  # data has none any more
                delattr(estimator, name)
            try:
                report = estimator._fit_rows(data, targets, sample_weight, indices[i])
            except BaseException:
                for name, value in state.items():
                    setattr(estimator, name, value)
                raise
            validate_data(estimator, X, skip_check_array=True, reset=True)
        return report

    reports: dict[int, Callable[[], None]] = {}
    errors: dict[int, BaseException] = {}
    worthless = Event()

    def fit_in_turn(numbers: list[int]) -> None:
        launch.abandoned.set(worthless)
        for i in numbers:
            try:
                reports[i] = fit(i)
            except Exception as error:
                errors[i] = error

    with ThreadPoolExecutor(launch.thread_limit(n_jobs), "fastbp-many") as pool:
        work = [_work(*each, X) for each in zip(estimators, indices, strict=True)]
        futures = [
            pool.submit(fit_in_turn, numbers)
            for numbers in sorted(
                _in_turn(estimators), key=lambda numbers: -sum(work[i] for i in numbers)
            )
        ]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C
            worthless.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for i in sorted(reports):
        reports[i]()
    for i in sorted(errors):
        raise errors[i]
    return estimators


def _in_turn(estimators: list[Model]) -> list[list[int]]:
    """The numbers of the estimators; together those that draw from one generator.

    What each of them draws depends on the one before.
    """
    groups: dict[int, list[int]] = {}
    for i, estimator in enumerate(estimators):
        drawn_from = estimator.random_state
        shared = isinstance(drawn_from, np.random.RandomState)
        groups.setdefault(id(drawn_from if shared else estimator), []).append(i)
    return list(groups.values())


def _row_numbers(rows: ArrayLike | None, n_samples: int) -> np.ndarray:
    """Numbers of rows as the kernels read them; a mask is its places."""
    if rows is None:
        return np.arange(n_samples)
    numbers = np.asarray(rows)
    if numbers.dtype == bool:
        if numbers.shape != (n_samples,):
            raise ValueError(
                f"folds have a mask of shape {numbers.shape}; X has {n_samples} rows."
            )
        numbers = np.flatnonzero(numbers)
    if numbers.ndim != 1 or numbers.dtype.kind not in "ui" or numbers.size == 0:
        raise ValueError("folds must hold arrays of row numbers, each with one at least.")
    if numbers.min() < -n_samples or numbers.max() >= n_samples:
        raise ValueError(f"folds have numbers of rows that X, of {n_samples}, has not.")
    return numbers.astype(np.int64) % n_samples


def _work(estimator: BaseMLP, rows: np.ndarray, X: Any) -> float:
    """What a fit may cost, in some unit."""
    units = [np.shape(X)[1], *parameters.hidden_layer_sizes(estimator)]
    weights = sum(a * b for a, b in pairwise([*units, 1]))
    return float(len(rows) * weights * estimator.max_iter)
