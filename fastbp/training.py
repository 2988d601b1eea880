"""Stochastic training: epochs, batches, learning-rate schedules and when to stop.

One native call takes the steps of an epoch, of a slice of it short enough for Ctrl-C and
printed progress to stay responsive, or of several short epochs that nobody looks at one
by one. The rules are scikit-learn's, but for what it does not have.
"""

import math
import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastbp import cache, launch, network, threads
from fastbp.callbacks import Events
from fastbp.messages import warn
from fastbp.parameters import Parameters
from fastbp.schedules import MORE_SCHEDULES, batch_rates
from fastbp.tables import GAMMA, GRADIENT, OPTIMIZER, POISSON, SOLVER_KINDS
from fastbp.validation import Validation

#: Epochs of one call at most, and their rows: Python's share is small by then.
_EPOCHS_AHEAD, _ROWS_AHEAD = 16, 1 << 16


class Rows(NamedTuple):
    """The rows that a network is trained on."""

    X: Any  # (n, n_features), ndarray or CSR
    targets: np.ndarray  # (n, n_outputs), or (n,) class numbers for softmax
    sample_weight: np.ndarray | None  # (n,)
    order: np.ndarray  # numbers of the rows to train on
    weight_scale: float = 1.0  # what the weights were multiplied by


@dataclass
class History:
    """What scikit-learn's fitted attributes record of the training.

    ``samples_seen`` and ``loss_curve`` continue over warm fits and calls of
    ``partial_fit``; the best and the patience as long as the objective is the same,
    scores as long as the scorer and the rows are, too.
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
    validation_losses: list[float] = field(default_factory=list)
    best_score: float = -np.inf
    keeps_best: bool = False  # weights of the best score, or else of the smallest loss
    best: network.Weights | None = None
    smallest_loss: float = np.inf  # of this call


class Optimizer:
    """An optimizer's settings and what it remembers from one call to the next.

    As in scikit-learn, the settings are those of the call that began: later changes of
    the estimator's parameters wait for the next ``fit``.

    Parameters
    ----------
    options : Parameters
    seed : int, default=0
        Of dropout.

    Attributes
    ----------
    learning_rate : float
        The present one of the schedule, as far as it changes between epochs only.
    updates : int
        Steps taken.
    epochs : int
        Epochs taken.
    last_rate : float
        The learning rate of the last step.
    moments : list of network.Weights
        Adam's means of gradients and of their squares, or the velocity of SGD, in the
        shapes of the parameters. Empty before the first step.
    """

    def __init__(self, options: Parameters, seed: int = 0):
        self.solver = options.solver
        self.schedule = str(options.learning_rate)
        if options.solver != "sgd" and self.schedule not in MORE_SCHEDULES:
            self.schedule = "constant"
        self.learning_rate_init = float(options.learning_rate_init)
        self.learning_rate = self.learning_rate_init
        self.power_t = float(options.power_t)
        self.momentum = float(options.momentum)
        self.nesterovs_momentum = bool(options.nesterovs_momentum)
        self.beta_1, self.beta_2 = float(options.beta_1), float(options.beta_2)
        self.epsilon = float(options.epsilon)
        usual_decay = 0.01 if options.solver == "adamw" else 0.0
        decay = options.weight_decay
        self.weight_decay = usual_decay if decay is None else float(decay)
        self.max_grad_norm = float(options.max_grad_norm or np.inf)
        self.warmup_epochs = float(options.warmup_epochs)
        self.n_epochs = int(options.max_iter)
        self.seed = seed
        self.updates = self.epochs = 0
        self.last_rate = self.learning_rate_init
        self.moments: list[network.Weights] = []

    @property
    def n_moments(self) -> int:
        """How many numbers are remembered for each parameter."""
        return 1 if self.solver == "sgd" else 2

    @property
    def is_extended(self) -> bool:
        """Whether it does what scikit-learn's do not."""
        others = self.solver in ("rmsprop", "nadam") or self.weight_decay > 0
        return others or self.clips

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped."""
        return self.max_grad_norm < np.inf

    def record(self, alpha: float) -> np.ndarray:
        """The settings as the kernels read them."""
        record = np.zeros(1, OPTIMIZER)
        record["kind"] = SOLVER_KINDS[self.solver]
        record["corrects_bias"] = self.solver in ("adam", "adamw", "nadam")
        record["nesterov"] = self.nesterovs_momentum
        record["alpha"] = alpha
        for name in ("beta_1", "beta_2", "epsilon", "momentum"):
            record[name] = getattr(self, name)
        for name in ("weight_decay", "max_grad_norm", "seed"):
            record[name] = getattr(self, name)
        return record

    def rates(self, n_batches: int, n_epochs: int) -> np.ndarray:
        """The learning rates of the batches of the next epochs."""
        rates = [
            batch_rates(
                self.schedule,
                self.learning_rate,
                self.epochs + i,
                n_batches,
                self.n_epochs,
                self.warmup_epochs,
            )
            for i in range(n_epochs)
        ]
        return np.concatenate(rates)

    def end_epoch(self, samples_seen: int) -> None:
        """'invscaling': learning_rate_init / (samples seen + 1) ** power_t."""
        self.epochs += 1
        if self.schedule == "invscaling":
            with np.errstate(over="ignore"):  # the rate is 0 then
                decay = np.float64(samples_seen + 1) ** self.power_t
            self.learning_rate = float(self.learning_rate_init / decay)

    def stops(self, reason: str, verbose: Any) -> bool:
        """Whether ``reason`` ends the training; some schedules lower the rate first."""
        if self.schedule not in ("adaptive", "reduce_on_plateau"):
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
    is not 0, the gradient is finite and leads back. So may Gamma's, where one overflows.
    """
    if math.isfinite(np.add.reduce(losses, axis=None)):  # as nearly always
        return False
    lost = np.isnan(losses)
    if plan.net.loss not in (POISSON, GAMMA):
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
    options : Parameters
    rows : Rows
    random_state : RandomState
        Shuffles the rows; nothing else is drawn from it.
    validation : Validation or None
        Rows to look at after each epoch.
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
        self._order = rows.order  # of the last epoch
        self._n = len(rows.order)
        ahead = max(1, min(_EPOCHS_AHEAD, _ROWS_AHEAD // self._n))
        self._orders = np.empty((ahead, self._n), np.int64)  # of the epochs of a call
        self._losses, self._booked = np.empty(0), 0  # of their batches; epochs noted
        self._batch_size = clipped_batch_size(options.batch_size, self._n)
        n_batches = -(-self._n // self._batch_size)
        self._batch_rows = np.full(n_batches, float(self._batch_size))  # of each batch
        self._batch_rows[-1] = self._n - (n_batches - 1) * self._batch_size
        self._workers = launch.thread_limit(options.n_jobs)
        self._work = network.training_workspace(
            plan, self._batch_size, self._workers, weights.coefs, optimizer.clips
        )
        moments = [network.pack(plan, *moment) for moment in optimizer.moments]
        while len(moments) < 2:
            moments.append(network.aligned_zeros(plan.n_parameters, plan.dtype))
        self._parameters = (network.pack(plan, *weights), *moments)
        self._updates_taken = np.array([optimizer.updates])
        self._data = network.training_data(
            plan, rows.X, rows.targets, rows.sample_weight, self._orders
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
        deadline = cache.working_seconds() + (self.options.max_time or np.inf)
        try:
            left = max_epochs
            while left > 0:
                n_epochs = 1 if events.are_followed else self._epochs_ahead(left)
                left -= n_epochs
                events.begin()
                self._draw_orders(n_epochs)
                self._take_epochs(n_epochs)
                self._keep_books()
                if events.end(self.weights, self._figures()):
                    self.history.stopped = True
                if cache.working_seconds() > deadline:
                    self._stop("The training took longer than max_time.")
                if self.history.stopped:
                    break
            if self._keeps("loss") and not self.history.diverged:
                self._look_at_the_last()
        except KeyboardInterrupt:
            self._keep_books(interrupted=True)
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
        steps = max_epochs * len(self._batch_rows)
        alone = steps < network.WORTH_HELP / step
        return threads.Pace(1 if alone else self._workers, step)

    def _epochs_ahead(self, left: int) -> int:
        """How many epochs to take at once.

        None but the last of them can end the training, unless it diverges, and none asks
        for more than to note its loss.
        """
        watched = (
            self.options.verbose
            or self.options.max_time
            or self.validation is not None
            or self._keeps("loss")
            or self.optimizer.schedule == "invscaling"
        )
        if watched:
            return 1
        # an int of Python's: numpy's unsigned ones would wrap round
        patience = int(min(self.options.n_iter_no_change, sys.maxsize))
        patience -= self.history.no_improvement_count
        return max(1, min(left, len(self._orders), patience + 1))

    def _draw_orders(self, n_epochs: int) -> None:
        """The orders of the rows in the next epochs, each from the one before."""
        for order in self._orders[:n_epochs]:
            order[:] = self._order
            if self.options.shuffle:
                self._random_state.shuffle(order)
            self._order = order

    def _take_epochs(self, n_epochs: int) -> None:
        """Take every batch of the next epochs, in slices.

        Not those after a slice that has diverged. Losses of batches that are not taken
        are NaN.
        """
        n_batches = len(self._batch_rows)
        self._begun = self._parameters[0].copy() if self._keeps("loss") else None
        rates = self.optimizer.rates(n_batches, n_epochs)
        losses = np.full(n_epochs * n_batches, np.nan)
        self._rates, self._losses = rates[n_batches - 1 :: n_batches], losses
        self._booked = 0
        first = 0
        while first < len(losses):
            n_threads, steps = self._pace.next()
            last = min(first + steps, len(losses))
            seconds = self._call(
                *(self._parameters, self._record, (first, last), rates, losses),
                *(self._updates_taken, n_threads),
            )
            self._pace.record(seconds / (last - first))
            if last < len(losses) and has_diverged(self.plan, losses[first:last]):
                break
            first = last

    def _call(self, parameters, record, batches, rates, losses, taken, n_threads):
        """One native call, for the batches (first, last); its seconds."""
        first, last = batches
        return self._team.call(
            (
                *(self.plan.net, parameters, self._work, self._data, record, batches),
                *(self._batch_size, rates, losses, taken),
            ),
            n_threads,
            self._pace.expects(last - first),
        )

    def _keep_books(self, interrupted: bool = False) -> None:
        """Note how the epochs that were taken went, as far as that is not done.

        That is up to the one that ends the training, or was ``interrupted``.
        """
        losses = self._losses.reshape(-1, len(self._batch_rows))
        while self._booked < len(losses) and not self.history.stopped:
            epoch = self._booked
            if interrupted and np.isnan(losses[epoch]).any():
                break
            self._booked += 1
            self.optimizer.last_rate = float(self._rates[epoch])
            self._end_epoch(self._mean(losses[epoch]))

    def _look_at_the_last(self) -> None:
        """Keep the present weights if their loss is the smallest.

        It is that of an epoch with the last batches in which nothing moves.
        """
        n_batches, theta = len(self._batch_rows), self._parameters[0]
        record, losses = self._record.copy(), np.empty(n_batches)
        record["kind"], record["max_grad_norm"] = GRADIENT, np.inf
        gradient, unused = (
            network.aligned_zeros(n, self.plan.dtype) for n in (len(theta), 0)
        )
        n_threads, _ = self._pace.next()
        self._team.dismiss()  # the helpers know of the other record and arrays
        self._call(
            *((theta, gradient, unused), record, (0, n_batches), np.zeros(n_batches)),
            *(losses, self._updates_taken.copy(), n_threads),
        )
        loss = self._mean(losses)
        if loss < self.history.smallest_loss:
            self.history.smallest_loss, self.history.best = loss, self.weights()

    def _mean(self, losses: np.ndarray) -> float:
        """The loss of an epoch out of those of its batches."""
        return np.add.reduce(losses * self._batch_rows) / self._n

    def _end_epoch(self, loss: float) -> None:
        """scikit-learn's bookkeeping at the end of an epoch, in its order."""
        history, options = self.history, self.options
        history.n_iter += 1
        history.samples_seen += self._n
        history.loss_curve.append(loss)
        if options.verbose:
            print(f"Iteration {history.n_iter}, loss = {loss:.8f}")
        if self.validation is not None:
            improved = self._validate(self.validation)
        if self.validation is None or not self.validation.decides:
            improved = not loss > history.best_loss - options.tol
            if self._begun is not None and loss < history.smallest_loss:
                history.smallest_loss, history.best = loss, self._unpacked(self._begun)
            history.best_loss = min(history.best_loss, loss)
        history.no_improvement_count = 0 if improved else history.no_improvement_count + 1
        self.optimizer.end_epoch(history.samples_seen)
        if not math.isfinite(loss) and has_diverged(self.plan, loss):
            history.stopped = history.diverged = True
        elif history.no_improvement_count > options.n_iter_no_change:
            by_score = self.validation is not None and self.validation.decides
            what = "Validation score" if by_score else "Training loss"
            history.stopped = self.optimizer.stops(
                f"{what} did not improve more than tol={options.tol:f}"
                f" for {options.n_iter_no_change:.0f} consecutive epochs.",
                options.verbose,
            )
            if not history.stopped:
                history.no_improvement_count = 0

    def _stop(self, reason: str) -> None:
        if self.options.verbose:
            print(f"{reason} Stopping.")
        self.history.stopped = True

    def _keeps(self, measure: str) -> bool:
        """Whether the weights of the best 'loss' or 'score' are kept."""
        kept = "loss" if self.validation is None else "score"
        return self.history.keeps_best and measure == kept

    def _figures(self) -> dict[str, float]:
        """What a progress bar shows of the last epoch."""
        history = self.history
        figures = {"loss": history.loss_curve[-1]}
        if history.validation_scores:
            figures["validation score"] = history.validation_scores[-1]
        return figures

    def _validate(self, validation: Validation) -> bool:
        """Whether the score on the rows held out has improved; keeps the best weights."""
        history, theta = self.history, self._parameters[0]
        outputs, _ = network.predict_packed(
            self.plan, theta, validation.X, self.options.n_jobs
        )
        if validation.loss is not None:
            history.validation_losses.append(validation.loss(outputs))
        score = validation.score(outputs, self.weights)
        history.validation_scores.append(score)
        if self.options.verbose:
            print(f"Validation score: {score:f}")
        improved = not score < history.best_score + self.options.tol
        if score > history.best_score:
            history.best_score = score
            if self._keeps("score"):
                history.best = self._unpacked(theta)
        return improved
