"""Stochastic training: epochs, batches, learning-rate schedules and when to stop.

One native call takes the steps of an epoch, or of a slice of it short enough for
Ctrl-C and printed progress to stay responsive. All rules are scikit-learn's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastbp import launch, network, threads
from fastbp.callbacks import Events
from fastbp.messages import warn
from fastbp.tables import OPTIMIZER, POISSON, SOLVERS


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


class Rows(NamedTuple):
    """The rows that a network is trained on."""

    X: Any  # (n, n_features), ndarray or CSR
    targets: np.ndarray  # (n, n_outputs), or (n,) class numbers for softmax
    sample_weight: np.ndarray | None  # (n,)
    order: np.ndarray  # numbers of the rows to train on
    weight_scale: float = 1.0  # what the weights were multiplied by


class Validation(NamedTuple):
    """The rows held out by early stopping, and how well outputs for them score."""

    X: Any
    score: Callable[[np.ndarray], float]


@dataclass
class History:
    """What scikit-learn's fitted attributes record of the training.

    All but the first four continue over warm fits and calls of ``partial_fit``.
    """

    n_iter: int = 0  # epochs of this call
    stopped: bool = False  # by a stopping rule, not by the number of epochs
    interrupted: bool = False  # by Ctrl-C
    diverged: bool = False
    samples_seen: int = 0
    loss_curve: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    no_improvement_count: int = 0
    validation_scores: list[float] = field(default_factory=list)
    best_score: float = -np.inf
    best: network.Weights | None = None  # those of the best score


class Optimizer:
    """An optimizer's settings and what it remembers from one call to the next.

    As in scikit-learn, the settings are those of the call that began: later changes of
    the estimator's parameters wait for the next ``fit``.

    Parameters
    ----------
    options : Options

    Attributes
    ----------
    learning_rate : float
        The present one of the schedule.
    updates : int
        Steps taken.
    moments : list of network.Weights
        Adam's means of gradients and of their squares, or the velocity of SGD, in the
        shapes of the parameters. Empty before the first step.
    """

    def __init__(self, options: Options):
        self.solver = options.solver
        self.schedule = options.learning_rate if options.solver == "sgd" else "constant"
        self.learning_rate_init = float(options.learning_rate_init)
        self.learning_rate = self.learning_rate_init
        self.power_t = float(options.power_t)
        self.momentum = float(options.momentum)
        self.nesterovs_momentum = bool(options.nesterovs_momentum)
        self.beta_1, self.beta_2 = float(options.beta_1), float(options.beta_2)
        self.epsilon = float(options.epsilon)
        self.updates = 0
        self.moments: list[network.Weights] = []

    @property
    def n_moments(self) -> int:
        """How many numbers are remembered for each parameter."""
        return 2 if self.solver == "adam" else 1

    def record(self, alpha: float) -> np.ndarray:
        """The settings as the kernels read them."""
        record = np.zeros(1, OPTIMIZER)
        record["kind"] = SOLVERS.index(self.solver)
        record["corrects_bias"] = self.solver == "adam"
        record["nesterov"] = self.nesterovs_momentum
        record["alpha"] = alpha
        for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "momentum"):
            record[name] = getattr(self, name)
        return record

    def end_epoch(self, samples_seen: int) -> None:
        """'invscaling': learning_rate_init / (samples seen + 1) ** power_t."""
        if self.schedule == "invscaling":
            with np.errstate(over="ignore"):  # the rate is 0 then
                decay = np.float64(samples_seen + 1) ** self.power_t
            self.learning_rate = float(self.learning_rate_init / decay)

    def stops(self, reason: str, verbose: Any) -> bool:
        """Whether ``reason`` ends the training; 'adaptive' lowers the rate first."""
        if self.schedule != "adaptive":
            ending = " Stopping."
        elif self.learning_rate <= 1e-6:
            ending = " Learning rate too small. Stopping."
        else:
            self.learning_rate /= 5.0
            ending = f" Setting learning rate to {self.learning_rate:f}"
        if verbose:
            print(reason + ending)
        return ending.endswith("Stopping.")


def clipped_batch_size(batch_size: Any, n_samples: int) -> int:
    """Rows of a batch, with scikit-learn's warning when ``batch_size`` is too large."""
    if batch_size == "auto":
        return min(200, n_samples)
    if batch_size > n_samples:
        warn(
            "Got `batch_size` less than 1 or larger than "
            "sample size. It is going to be clipped"
        )
    return int(np.clip(batch_size, 1, n_samples))


def has_diverged(plan: network.Layout, losses: Any) -> bool:
    """Whether losses tell that training cannot recover: one is NaN or infinite.

    Poisson's may be infinite for a while: where a prediction underflows and the target
    is not 0, the gradient is finite and leads back.
    """
    lost = np.isnan(losses)
    if plan.net.loss != POISSON:
        lost = lost | np.isinf(losses)
    return bool(np.any(lost))


class Trainer:
    """One network on its way through the epochs of a call.

    Parameters
    ----------
    plan : network.Layout
    weights : network.Weights
        The present parameters, which are copied.
    optimizer : Optimizer
    history : History
    options : Options
    rows : Rows
    random_state : RandomState
        Shuffles the rows; nothing else is drawn from it.
    validation : Validation or None
        For early stopping.
    """

    def __init__(
        self,
        plan,
        weights,
        optimizer,
        history,
        options,
        rows,
        random_state,
        validation=None,
    ):
        self.plan, self.options = plan, options
        self.history, self.optimizer = history, optimizer
        self.validation = validation
        self._random_state = random_state
        self._order = rows.order.copy()
        self._n = len(rows.order)
        self._batch_size = clipped_batch_size(options.batch_size, self._n)
        self._workers = launch.thread_limit(options.n_jobs)
        self._work = network.training_workspace(
            plan, self._batch_size, self._workers, weights.coefs
        )
        moments = [network.pack(plan, *moment) for moment in optimizer.moments]
        while len(moments) < 2:
            moments.append(network.aligned_zeros(plan.n_parameters, plan.dtype))
        self._parameters = (network.pack(plan, *weights), *moments)
        self._updates_taken = np.array([optimizer.updates])
        self._data = network.training_data(
            plan, rows.X, rows.targets, rows.sample_weight, self._order
        )
        self._record = optimizer.record(options.alpha * rows.weight_scale)
        self._team = threads.Team(
            plan.program("train_steps"), plan.dtype, self._work.team, waits=True
        )

    def weights(self) -> network.Weights:
        """The present parameters, as new arrays."""
        return self._unpacked(self._parameters[0])

    def _unpacked(self, theta: np.ndarray) -> network.Weights:
        return network.Weights(*network.unpack(self.plan, theta))

    def run(self, max_epochs: int, events: Events) -> None:
        """Train for up to ``max_epochs``, or until a stopping rule or a callback says so.

        ``history`` and ``optimizer`` then tell how it went.
        """
        self._pace = self._begin_pace(max_epochs)
        try:
            for _ in range(max_epochs):
                events.begin()
                if self.options.shuffle:
                    permutation = np.arange(self._n)
                    self._random_state.shuffle(permutation)
                    self._order[:] = self._order[permutation]
                self._end_epoch(self._epoch())
                if events.end(self.weights):
                    self.history.stopped = True
                if self.history.stopped:
                    break
        except KeyboardInterrupt:
            self.history.stopped = self.history.interrupted = True
        finally:
            self._team.dismiss()
        theta, *packed = self._parameters
        self._parameters = (theta,)
        self.optimizer.moments = [  # one at a time, in place of the packed one
            self._unpacked(packed.pop(0)) for _ in range(self.optimizer.n_moments)
        ]
        self.optimizer.updates = int(self._updates_taken[0])

    def _begin_pace(self, max_epochs: int) -> threads.Pace:
        # a step is three products: forward, backward, and one for the weights
        flops = 6 * self.plan.multiplications * self._batch_size
        step = launch.serial_seconds(flops, self.plan.dtype)
        steps = max_epochs * -(-self._n // self._batch_size)
        alone = steps < network.WORTH_HELP / step
        return threads.Pace(1 if alone else self._workers, step)

    def _epoch(self) -> float:
        """Take every batch once, in slices; the mean loss over the rows.

        Not those after a batch that has diverged; the mean is not finite then.
        """
        n_batches = -(-self._n // self._batch_size)
        losses = np.zeros(n_batches)
        self._record["learning_rate"] = self.optimizer.learning_rate
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
                    self._record,
                    (first, last),
                    self._batch_size,
                    losses,
                    self._updates_taken,
                ),
                n_threads,
                self._pace.expects(last - first),
            )
            self._pace.record(seconds / (last - first))
            if has_diverged(self.plan, losses[first:last]):
                break
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
        if self.validation is None:
            improved = not loss > history.best_loss - options.tol
            history.best_loss = min(history.best_loss, loss)
        else:
            improved = self._validate(self.validation)
        history.no_improvement_count = 0 if improved else history.no_improvement_count + 1
        self.optimizer.end_epoch(history.samples_seen)
        if has_diverged(self.plan, loss):
            history.stopped = history.diverged = True
        elif history.no_improvement_count > options.n_iter_no_change:
            what = "Training loss" if self.validation is None else "Validation score"
            history.stopped = self.optimizer.stops(
                f"{what} did not improve more than tol={options.tol:f}"
                f" for {options.n_iter_no_change:.0f} consecutive epochs.",
                options.verbose,
            )
            if not history.stopped:
                history.no_improvement_count = 0

    def _validate(self, validation: Validation) -> bool:
        """Whether the score on the rows held out has improved; keeps the best weights."""
        history, theta = self.history, self._parameters[0]
        outputs, _ = network.predict_packed(
            self.plan, theta, validation.X, self.options.n_jobs
        )
        score = validation.score(outputs)
        history.validation_scores.append(score)
        if self.options.verbose:
            print(f"Validation score: {score:f}")
        improved = not score < history.best_score + self.options.tol
        if score > history.best_score:
            history.best_score, history.best = score, self._unpacked(theta)
        return improved
