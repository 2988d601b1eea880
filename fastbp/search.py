"""scikit-learn's searches, in threads where that is the faster way.

Fits of fastbp's estimators release the interpreter's lock, so threads train them side by
side without processes to start, data to send and modules to import; kernels are compiled
and loaded once. Everything else is scikit-learn's own code, so are the results.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import Any, Self

from joblib import parallel_config
from joblib.parallel import ThreadingBackend, get_active_backend
from sklearn import model_selection
from sklearn.pipeline import Pipeline

from fastbp import launch
from fastbp.base import BaseMLP
from fastbp.typing import Matrix


def _trains_in_threads(estimator: Any) -> bool:
    """Whether it is one of fastbp's, or a pipeline that ends with one."""
    while isinstance(estimator, Pipeline) and estimator.steps:
        estimator = estimator.steps[-1][1]
    return isinstance(estimator, BaseMLP)


class SearchThreads(ThreadingBackend):
    """joblib's threads, whose fits end when it needs their results no more.

    That is after Ctrl-C, and after an error that ends the search.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worthless = Event()

    def submit(self, func: Callable, callback: Callable | None = None) -> Any:
        """Have a thread call it, which can be told that its work is worthless."""

        def call() -> Any:
            launch.abandoned.set(self._worthless)
            return func()

        submit = getattr(super(), "submit", None) or super().apply_async
        return submit(call, callback)

    apply_async = submit  # its name before joblib 1.5

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drop all calls, those that are being made too."""
        self._worthless.set()
        super().abort_everything(ensure_ready)


def _threads_for(search: Any) -> AbstractContextManager:
    """Threads for fastbp's estimators, unless the user has chosen a joblib backend."""
    either, other = (
        get_active_backend(prefer=hint)[0] for hint in ("threads", "processes")
    )
    chosen = type(either) is type(other)  # whatever one would prefer
    if chosen or not _trains_in_threads(search.estimator):
        return nullcontext()
    _, n_jobs = get_active_backend()
    if search.n_jobs is None and n_jobs in (None, 1):
        n_jobs = launch.thread_limit()
    return parallel_config(SearchThreads(), n_jobs=n_jobs)


class _InThreads:
    """Goes before a search class of scikit-learn's."""

    def fit(self, X: Matrix, y: Any = None, **params: Any) -> Self:
        """Try sets of parameters, as scikit-learn's does, and fit with the best.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        **params : dict
            Go to ``fit`` of the estimator, the splitter and the scorer.

        Returns
        -------
        self : object
        """
        search: Any = super()  # that of scikit-learn's, which stands behind this class
        with _threads_for(self):
            return search.fit(X, y, **params)


class GridSearchCV(_InThreads, model_selection.GridSearchCV):
    """scikit-learn's :class:`sklearn.model_selection.GridSearchCV`, in threads.

    The same parameters, attributes and results. Estimators of fastbp's, and pipelines
    that end with one, are fitted in threads of this process, whatever scikit-learn would
    do by default; all others as scikit-learn does it, and so are all within a
    ``joblib.parallel_config`` that names a backend.

    Parameters
    ----------
    estimator, param_grid, scoring, n_jobs, refit, cv, verbose, pre_dispatch, \
error_score, return_train_score
        As for scikit-learn's, but for fastbp's estimators ``n_jobs=None`` leaves the
        number of threads to the machine (see ``fastbp.launch``).

    Examples
    --------
    >>> from fastbp import GridSearchCV, MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(tol=0.1, random_state=0)
    >>> search = GridSearchCV(model, {"alpha": [0.01, 1.0]}, cv=2).fit(X, y)
    >>> sorted(search.best_params_)
    ['alpha']
    """


class RandomizedSearchCV(_InThreads, model_selection.RandomizedSearchCV):
    """scikit-learn's :class:`sklearn.model_selection.RandomizedSearchCV`, in threads.

    Parameters
    ----------
    estimator, param_distributions, n_iter, scoring, n_jobs, refit, cv, verbose, \
pre_dispatch, random_state, error_score, return_train_score
        As for scikit-learn's; see :class:`GridSearchCV` for ``n_jobs`` and threads.

    Examples
    --------
    >>> from fastbp import MLPClassifier, RandomizedSearchCV
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(tol=0.1, random_state=0)
    >>> search = RandomizedSearchCV(
    ...     model, {"alpha": loguniform(1e-4, 1)}, n_iter=3, cv=2, random_state=0
    ... ).fit(X, y)
    >>> sorted(search.best_params_)
    ['alpha']
    """
