"""Rows that a network is not trained on: their loss and their score after each epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlogy

from fastbp.network import Extras, Weights
from fastbp.typing import Array


class Validation(NamedTuple):
    """Rows held out, or given to ``fit`` as such."""

    X: Any  # (n, n_features), ndarray or CSR as the training rows
    score: Callable[[np.ndarray, Callable[[], Weights]], float]
    loss: Callable[[np.ndarray], float] | None  # None: nobody wants to know
    decides: bool  # when to stop, and which weights are the best
    goes_on: bool  # a later call may have the same rows


def mean_loss(
    kind: str,
    extras: Extras,
    own_loss: Callable[..., float] | None,
    outputs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None,
) -> float:
    """The mean loss of predictions, without penalty and label smoothing.

    Parameters
    ----------
    kind : str
        The network's loss, as ``network.layout`` has it.
    extras : Extras
        With the parameters of the loss.
    own_loss : callable or None
        The user's loss, for ``kind='own'``.
    outputs : ndarray of shape (n, n_outputs)
        Predictions.
    targets : ndarray of shape (n, n_outputs), or (n,) class numbers for softmax
    sample_weight : ndarray of shape (n,), or None

    Returns
    -------
    float
    """
    rows: Array
    p, eps = outputs.astype(np.float64), np.finfo(outputs.dtype).eps
    with np.errstate(all="ignore"):  # a network that diverges has no finite loss
        if kind == "softmax":
            likely = np.take_along_axis(p, targets.astype(np.intp)[:, None], axis=1)
            rows = -np.log(np.clip(likely[:, 0], eps, 1 - eps))
        else:
            y = targets.reshape(len(p), -1).astype(np.float64)
            if kind == "own":
                assert own_loss is not None
                unused, each = np.zeros(p.shape[1]), zip(y, p, strict=True)
                try:
                    rows = np.array([own_loss(*row, unused) for row in each])
                except Exception:  # as the kernels take it
                    return np.nan
            else:
                rows = _outputs_losses(kind, extras, p, y, eps)
    return float(np.average(rows, weights=sample_weight))


def _outputs_losses(kind, extras, p, y, eps) -> np.ndarray:
    """Losses of rows that are sums or means over outputs (formulas: the kernels')."""
    d = p - y
    if kind == "logistic":
        return -np.log(np.clip(np.where(y > 0.5, p, 1 - p), eps, 1 - eps)).sum(axis=1)
    if kind == "exp":
        return (xlogy(y, np.where(y == 0, 1, y / p)) + d).sum(axis=1)
    if kind == "gamma":
        return (y / p - 1 - np.log(y / p)).sum(axis=1)
    if kind == "absolute_error":
        losses = np.abs(d)
    elif kind == "huber":
        size, delta = np.abs(d), extras.delta
        losses = np.where(size < delta, d * d / 2, delta * (size - delta / 2))
    elif kind in ("quantile", "quantiles"):
        q = np.array(extras.quantiles)
        losses = np.maximum(-q * d, (1 - q) * d)
    else:
        losses = d * d / 2
    return losses.mean(axis=1)
