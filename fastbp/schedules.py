"""Learning rates of the batches of an epoch, for schedules that change within it."""

import numpy as np

#: What ``learning_rate`` may be beside scikit-learn's, and is for every solver.
MORE_SCHEDULES = ("cosine", "one_cycle", "reduce_on_plateau")

#: One cycle begins with the largest rate over the first of these numbers, reaches it
#: after this share of the epochs, and ends with the first rate over the third.
_FIRST, _SHARE, _LAST = 25.0, 0.3, 1e4


def batch_rates(
    schedule: str,
    rate: float,
    epoch: int,
    n_batches: int,
    n_epochs: int,
    warmup_epochs: float,
) -> np.ndarray:
    """The learning rate of each batch of an epoch.

    Parameters
    ----------
    schedule : str
        'cosine' falls to 0 along half a cosine (Loshchilov and Hutter, 2017, without
        restarts within a fit). 'one_cycle' rises along one and falls along another
        (Smith and Topin, 2018). Any other is constant within the epoch.
    rate : float
        The rate without warm-up; for 'one_cycle' the largest.
    epoch : int
        How many epochs came before; 'cosine' and 'one_cycle' begin anew after
        ``n_epochs``.
    n_batches : int
        Batches of an epoch.
    n_epochs : int
        When a schedule ends.
    warmup_epochs : float
        Epochs in which the rate grows in proportion to the number of the step (Goyal et
        al., 2017); 'one_cycle' takes as many to its largest rate, and a share of
        ``n_epochs`` if they are 0.

    Returns
    -------
    ndarray of shape (n_batches,)
    """
    changes = schedule in ("cosine", "one_cycle")
    if not changes and not warmup_epochs:
        return np.full(n_batches, rate)
    if changes:
        epoch %= n_epochs
    passed = epoch + np.arange(n_batches) / n_batches
    if schedule == "one_cycle":
        top = min(warmup_epochs or _SHARE * n_epochs, n_epochs)
        rise = np.minimum(passed / top, 1.0)
        first, last = rate / _FIRST, rate / _FIRST / _LAST
        fall = _progress(passed, top, n_epochs)
        rising = _between(first, rate, rise)
        return np.where(passed < top, rising, _between(rate, last, fall))
    rates = np.full(n_batches, rate)
    if schedule == "cosine":
        rates = _between(rate, 0.0, _progress(passed, warmup_epochs, n_epochs))
    if warmup_epochs > 0:
        steps = epoch * n_batches + np.arange(n_batches) + 1
        rates = rates * np.minimum(steps / (warmup_epochs * n_batches), 1.0)
    return rates


def _progress(passed: np.ndarray, start: float, end: float) -> np.ndarray:
    """The share of the way from ``start`` to ``end`` that has passed."""
    if end <= start:
        return np.zeros_like(passed)
    return np.clip((passed - start) / (end - start), 0.0, 1.0)


def _between(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1.0 + np.cos(np.pi * progress)) / 2.0
