"""Full-batch training: SciPy's L-BFGS-B on the native loss and gradient.

The vector that SciPy sees is the parameters as they are while a network trains, padding
included: padded entries are zero, and so is their gradient, so they never move.
"""

from typing import Any

import numpy as np
from scipy import optimize

from fastbp import cache, launch, network, threads
from fastbp.callbacks import Events
from fastbp.parameters import Parameters
from fastbp.tables import GRADIENT, OPTIMIZER, SQUARED_ERROR
from fastbp.training import Rows

#: Status of a run that a callback or Ctrl-C has stopped; SciPy has 99 for callbacks.
STOPPED, INTERRUPTED = 99, 100


class Objective:
    """Loss and gradient of all rows at once.

    With several outputs the squared error is summed over them, not averaged as for
    'adam' and 'sgd': only the sum has the gradient that scikit-learn computes, and a
    line search needs both of the same function.

    Parameters
    ----------
    plan : network.Layout
    weights : network.Weights
        Parameters to start from, which are copied.
    options : Parameters
    rows : Rows
    """

    def __init__(
        self,
        plan: network.Layout,
        weights: network.Weights,
        options: Parameters,
        rows: Rows,
    ):
        self._plan, self._alpha = plan, float(options.alpha) * rows.weight_scale
        n = len(rows.order)
        self._total = float(n)
        if rows.sample_weight is not None:
            self._total = float(rows.sample_weight[rows.order].sum(dtype=np.float64))
        n_threads = launch.thread_limit(options.n_jobs)
        self._work = network.training_workspace(plan, n, n_threads, weights.coefs)
        self._theta = network.pack(plan, *weights)
        self._gradient = network.aligned_zeros(plan.n_parameters, plan.dtype)
        record = np.zeros(1, OPTIMIZER)
        record["kind"], record["alpha"] = GRADIENT, self._alpha
        record["max_grad_norm"] = np.inf
        self._losses = np.zeros(1)
        unused = network.aligned_zeros(0, plan.dtype)
        data = network.training_data(
            plan, rows.X, rows.targets, rows.sample_weight, rows.order
        )
        self._args = (
            plan.net,
            (self._theta, self._gradient, unused),
            self._work,
            data,
            record,
            (0, 1),
            n,
            np.zeros(1),  # the learning rate means nothing
            self._losses,
            np.zeros(1, np.int64),
        )
        self._team = threads.Team(
            plan.program("train_steps"), plan.dtype, self._work.team, waits=True
        )
        flops = 6 * plan.multiplications * n
        self._pace = threads.Pace(n_threads, launch.serial_seconds(flops, plan.dtype))

    def start(self) -> np.ndarray:
        """The vector to start from, in float64 as SciPy computes."""
        return self._theta.astype(np.float64)

    def weights_at(self, x: np.ndarray) -> network.Weights:
        """The parameters of a vector."""
        return network.Weights(
            *network.unpack(self._plan, x.astype(self._plan.dtype, copy=False))
        )

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) at x, both in float64."""
        self._theta[:] = x
        network.transpose_weights(self._plan, self._theta, self._work.transposed)
        n_threads, _ = self._pace.next()
        expected = self._pace.expects(1)
        self._pace.record(self._team.call(self._args, n_threads, expected))
        return self._consistent(self._losses[0]), self._gradient.astype(np.float64)

    def _consistent(self, loss: float) -> float:
        """The loss whose gradient the kernels compute."""
        net = self._plan.net
        n_outputs = int(net.layers["units"][-1])
        if net.loss != SQUARED_ERROR or n_outputs == 1:
            return loss
        first = net.layers["weights"][self._plan.frozen + 1]
        end = net.layers["biases"][1]
        W = self._theta[first:end].astype(np.float64)
        penalty = 0.5 * self._alpha * W.dot(W) / self._total
        return penalty + n_outputs * (loss - penalty)

    @property
    def mean_loss(self) -> float:
        """The last loss as 'adam' and 'sgd' have it."""
        return float(self._losses[0])

    def dismiss(self) -> None:
        """Send the helping threads away."""
        self._team.dismiss()


def minimize(
    plan: network.Layout,
    weights: network.Weights,
    options: Any,
    rows: Rows,
    events: Events,
) -> tuple[network.Weights, optimize.OptimizeResult]:
    """The parameters that L-BFGS-B finds, and SciPy's report.

    ``tol`` bounds the gradient, ``max_iter`` the iterations and ``max_fun`` the
    evaluations, as in scikit-learn. After Ctrl-C they are those of the last iteration.
    """
    objective = Objective(plan, weights, options, rows)
    start = objective.start()
    deadline = cache.working_seconds() + (options.max_time or np.inf)
    last = optimize.OptimizeResult(x=start, fun=np.inf, nit=0, status=INTERRUPTED)

    def end_iteration(intermediate_result: optimize.OptimizeResult) -> None:
        events.begin()
        last.x, last.fun = intermediate_result.x.copy(), intermediate_result.fun
        last.nit += 1
        figures = {"loss": float(last.fun)}
        stops = events.end(lambda: objective.weights_at(last.x), figures)
        if stops or cache.working_seconds() > deadline:
            raise StopIteration

    try:
        result = optimize.minimize(
            objective,
            start,
            method="L-BFGS-B",
            jac=True,
            callback=end_iteration,
            options={
                "maxfun": options.max_fun,
                "maxiter": options.max_iter,
                "gtol": options.tol,
            },
        )
    except KeyboardInterrupt:
        result = last
    finally:
        objective.dismiss()
    return objective.weights_at(result.x), result
