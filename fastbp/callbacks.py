"""Who is told of every epoch: scikit-learn's callbacks (new in 1.9), the progress bar.

With older versions of scikit-learn the estimators have no ``set_callbacks``.
"""

from collections.abc import Callable
from typing import Any

from fastbp.typing import Method

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:
    _with_callbacks = None

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's where that has none."""


def with_callbacks(method: Method) -> Method:
    """The method, after which scikit-learn's callbacks are taken down."""
    return method if _with_callbacks is None else _with_callbacks(method)


__all__ = ["CallbackSupportMixin", "Events", "with_callbacks"]


class Events:
    """Tells the callbacks of an estimator, and its progress bar, how its fit goes on.

    Parameters
    ----------
    estimator : estimator
        A ``CallbackSupportMixin``; without callbacks nothing is told.
    X, y, sample_weight
        As they came to ``fit``.
    task : str
        What the fit consists of.
    n_tasks : int
        How many of them there are at most.
    attributes : callable
        Makes the fitted attributes that prediction needs out of (coefs, intercepts).
    bar : ProgressBar or None
    """

    def __init__(
        self, estimator, X, y, sample_weight, task, n_tasks, attributes, bar=None
    ):
        self._estimator, self._task = estimator, task
        self._attributes, self._bar = attributes, bar
        self._fit = self._current = None
        if not getattr(estimator, "_skl_callbacks", None):
            return
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._told = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fit = estimator._init_callback_context(max_subtasks=n_tasks)
        self._fit.call_on_fit_task_begin(**self._told)

    @property
    def are_followed(self) -> bool:
        """Whether there is anyone to tell."""
        return self._fit is not None or self._bar is not None

    def begin(self) -> None:
        """A task begins."""
        if self._fit is not None:
            self._current = self._fit.subcontext(self._task)
            self._current.call_on_fit_task_begin(**self._told)

    def end(self, weights: Callable[[], Any], figures: dict[str, float]) -> bool:
        """A task is done; whether a callback asks to stop. ``weights`` makes the present
        ones, if a callback wants to see them; the bar shows ``figures``."""
        if self._bar is not None:
            self._bar.step(figures)
        return self._end(self._current, weights)

    def finish(self, weights: Callable[[], Any]) -> None:
        """The fit is done."""
        self._end(self._fit, weights)

    def close(self) -> None:
        """Nothing more will be told, whatever has happened."""
        if self._bar is not None:
            self._bar.close()

    def _end(self, context, weights) -> bool:
        if context is None:
            return False
        return context.call_on_fit_task_end(
            **self._told, reconstruction_attributes=lambda: self._attributes(*weights())
        )
