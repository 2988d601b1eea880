"""Stochastic training: epochs, batches, learning-rate schedules and when to stop.

One native call takes the steps of an epoch, or of a slice of it short enough for
Ctrl-C and printed progress to stay responsive. All rules are scikit-learn's.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastbp import launch, network, threads
from fastbp.tables import OPTIMIZER, SOLVERS


class Options(Protocol):
    """What training reads of an estimator's parameters (see ``MLPClassifier``)."""

    solver: str
    alpha: float
    batch_size: Any
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    tol: float
    verbose: Any
    momentum: float
    nesterovs_momentum: bool
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    n_jobs: int | None


@dataclass
class History:
    """What scikit-learn's fitted attributes record of the training."""

    n_iter: int = 0  # epochs of this fit
    samples_seen: int = 0
    loss_curve: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    no_improvement_count: int = 0
    stopped: bool = False  # by a stopping rule, not by ``max_iter``


def clipped_batch_size(batch_size: Any, n_samples: int) -> int:
    """Rows of a batch, with scikit-learn's warning when ``batch_size`` is too large."""
    if batch_size == "auto":
        return min(200, n_samples)
    if batch_size > n_samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than "
            "sample size. It is going to be clipped",
            stacklevel=4,
        )
    return int(np.clip(batch_size, 1, n_samples))


class Schedule:
    """The learning rate over the epochs: scikit-learn's three schedules for SGD."""

    def __init__(self, options: Options):
        self._options = options
        self._name = options.learning_rate if options.solver == "sgd" else "constant"
        self.rate = float(options.learning_rate_init)

    def end_epoch(self, samples_seen: int) -> None:
        """'invscaling': learning_rate_init / (samples seen + 1) ** power_t."""
        if self._name == "invscaling":
            options = self._options
            self.rate = options.learning_rate_init / (
                (samples_seen + 1) ** options.power_t
            )

    def stops(self, reason: str) -> bool:
        """Whether ``reason`` ends the training; 'adaptive' lowers the rate first."""
        if self._name != "adaptive":
            ending = " Stopping."
        elif self.rate <= 1e-6:
            ending = " Learning rate too small. Stopping."
        else:
            self.rate /= 5.0
            ending = f" Setting learning rate to {self.rate:f}"
        if self._options.verbose:
            print(reason + ending)
        return ending.endswith("Stopping.")


def _optimizer(options: Options) -> np.ndarray:
    """The optimizer's parameters as the kernels read them."""
    optimizer = np.zeros(1, OPTIMIZER)
    optimizer["kind"] = SOLVERS.index(options.solver)
    optimizer["corrects_bias"] = options.solver == "adam"
    optimizer["learning_rate"] = options.learning_rate_init
    optimizer["nesterov"] = options.nesterovs_momentum
    for name in ("alpha", "beta_1", "beta_2", "epsilon", "momentum"):
        optimizer[name] = getattr(options, name)
    return optimizer


class Trainer:
    """One network on its way through the epochs of a fit.

    Parameters
    ----------
    plan : network.Layout
    coefs, intercepts : list of ndarray
        The initial parameters, which are copied.
    options : Options
    X : ndarray of shape (n, n_features)
    targets : ndarray of shape (n, n_outputs), or (n,) class numbers for softmax
    random_state : RandomState
        Shuffles the rows; nothing else is drawn from it.
    """

    def __init__(self, plan, coefs, intercepts, options, X, targets, random_state):
        self.plan, self.options = plan, options
        self.history = History()
        self.schedule = Schedule(options)
        self._random_state = random_state
        self._n = len(X)
        self._batch_size = clipped_batch_size(options.batch_size, self._n)
        self._workers = launch.thread_limit(options.n_jobs)
        self._work = network.training_workspace(
            plan, self._batch_size, self._workers, coefs
        )
        self._parameters = (
            network.pack(plan, coefs, intercepts),
            network.aligned_zeros(plan.n_parameters, plan.dtype),
            network.aligned_zeros(plan.n_parameters, plan.dtype),
        )
        self._updates_taken = np.zeros(1, np.int64)
        self._order = np.arange(self._n)
        self._data = network.training_data(plan, X, targets, None, self._order)
        self._optimizer = _optimizer(options)
        self._team = threads.Team("train_steps", plan.dtype, self._work.team)
        # a step is three products: forward, backward, and one for the weights
        flops = 6 * plan.multiplications * self._batch_size
        self._pace = threads.Pace(self._workers, launch.serial_seconds(flops, plan.dtype))

    def weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The present ``coefs_`` and ``intercepts_``, as new arrays."""
        return network.unpack(self.plan, self._parameters[0])

    def run(self) -> History:
        """Train for up to ``max_iter`` epochs, or until a stopping rule says so."""
        try:
            for _ in range(self.options.max_iter):
                if self.options.shuffle:
                    permutation = np.arange(self._n)
                    self._random_state.shuffle(permutation)
                    self._order[:] = self._order[permutation]
                self._end_epoch(self._epoch())
                if self.history.stopped:
                    break
        except KeyboardInterrupt:
            self.history.stopped = True
            warnings.warn("Training interrupted by user.", stacklevel=4)
        finally:
            self._team.dismiss()
        return self.history

    def _epoch(self) -> float:
        """Take every batch once, in slices; the mean loss over the rows."""
        n_batches = -(-self._n // self._batch_size)
        losses = np.zeros(n_batches)
        self._optimizer["learning_rate"] = self.schedule.rate
        first = 0
        while first < n_batches:
            n_threads, steps = self._pace.next()
            last = min(first + steps, n_batches)
            seconds = self._team.call(
                (
                    self.plan.net,
                    self._parameters,
                    self._work,
                    self._data,
                    self._optimizer,
                    (first, last),
                    self._batch_size,
                    losses,
                    self._updates_taken,
                ),
                n_threads,
            )
            self._pace.record(seconds / (last - first))
            first = last
        rows = np.full(n_batches, float(self._batch_size))
        rows[-1] = self._n - (n_batches - 1) * self._batch_size
        return (losses * rows).sum() / self._n

    def _end_epoch(self, loss: float) -> None:
        """scikit-learn's bookkeeping at the end of an epoch, in its order."""
        history, options = self.history, self.options
        history.n_iter += 1
        history.samples_seen += self._n
        history.loss_curve.append(loss)
        if options.verbose:
            print(f"Iteration {history.n_iter}, loss = {loss:.8f}")
        if loss > history.best_loss - options.tol:
            history.no_improvement_count += 1
        else:
            history.no_improvement_count = 0
        history.best_loss = min(history.best_loss, loss)
        self.schedule.end_epoch(history.samples_seen)
        if np.isnan(loss):  # the weights are lost: more epochs cannot bring them back
            history.stopped = True
        elif history.no_improvement_count > options.n_iter_no_change:
            history.stopped = self.schedule.stops(
                f"Training loss did not improve more than tol={options.tol:f}"
                f" for {options.n_iter_no_change:.0f} consecutive epochs."
            )
            if not history.stopped:
                history.no_improvement_count = 0
