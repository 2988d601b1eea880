"""What each public kernel computes, in NumPy: as one writes it, and as fast as it goes.

A *way* is a function without arguments that computes everything anew and returns its
arrays. The first NumPy way is what a textbook has; the second allocates nothing: every
operation writes into an array that was made before. Both run on the BLAS that NumPy came
with, on as many threads as fastbp.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from scipy.special import expit

from benchmarks import baseline
from benchmarks.problems import ALPHA, BETAS, EPSILON, MOMENTUM, RATE
from fastbp import MLPClassifier, kernels, launch, network, threads
from fastbp.initial import initial_weights
from fastbp.kernels import programs
from fastbp.training import Optimizer

PLAIN, PREALLOCATED = "NumPy", "NumPy, preallocated"
BETA_1, BETA_2 = BETAS


class Contest(NamedTuple):
    """fastbp's kernel and NumPy's ways to the same arrays."""

    ways: dict
    flops: float  # useful ones
    nbytes: float  # that are read and written
    footprint: float  # bytes of all arrays
    limited_by: str  # 'fma' or 'memory'
    terms: int = 1  # of the longest sums

    def verify(self):
        """Assert that all ways agree: rounding errors of the sums apart."""
        truth = [np.array(a) for a in self.ways[PLAIN]()]
        eps = max(np.finfo(a.dtype).eps for a in truth)
        for name, way in self.ways.items():
            found = way() if name != PLAIN else truth
            for a, expected in zip(found, truth, strict=True):
                same = np.ndim(a) == 0 or a.dtype == expected.dtype
                assert same, f"{name} computes in {a.dtype}"
                tolerance = 16 * eps * np.sqrt(self.terms) * np.abs(expected).max()
                assert np.abs(a - expected).max() <= tolerance, name


def _random(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------- dense layers


def dense_forward(B, inputs, outputs, dtype):
    X, W = _random((B, inputs), dtype), _random((inputs, outputs), dtype, 1)
    b, Z = _random(outputs, dtype, 2), np.empty((B, outputs), dtype)

    def plain():
        return (np.maximum(X @ W + b, 0),)

    def preallocated():
        np.matmul(X, W, out=Z)
        np.add(Z, b, out=Z)
        np.maximum(Z, 0, out=Z)
        return (Z,)

    def ours():
        return (kernels.dense_forward(X, W, b, "relu"),)

    size = X.nbytes + W.nbytes + b.nbytes + Z.nbytes
    return _contest(
        ours, plain, preallocated, 2 * B * inputs * outputs, size, "fma", inputs
    )


def dense_backward(B, inputs, outputs, dtype):
    dZ, W = _random((B, outputs), dtype), _random((inputs, outputs), dtype, 1)
    X = np.maximum(_random((B, inputs), dtype, 2), 0)
    dX, dW, db = np.empty_like(X), np.empty_like(W), np.empty(outputs, dtype)
    active = np.empty(X.shape, bool)

    def plain():
        return (dZ @ W.T) * (X > 0), X.T @ dZ, dZ.sum(axis=0)

    def preallocated():
        np.matmul(dZ, W.T, out=dX)
        np.greater(X, 0, out=active)
        np.multiply(dX, active, out=dX)
        np.matmul(X.T, dZ, out=dW)
        np.sum(dZ, axis=0, out=db)
        return dX, dW, db

    def ours():
        return kernels.dense_backward(dZ, X, W, "relu")

    size = 2 * X.nbytes + 2 * W.nbytes + dZ.nbytes + db.nbytes
    return _contest(
        ours, plain, preallocated, 4 * B * inputs * outputs, size, "fma", max(B, outputs)
    )


# ---------------------------------------------------------------- losses

# Flops of an element of a loss, each function counted as one: a roofline needs a number,
# and these operations are not multiply-adds.
_LOSS_FLOPS = 8


def softmax_cross_entropy(B, outputs, dtype):
    Z = _random((B, outputs), dtype)
    y = np.random.default_rng(1).integers(0, outputs, B)
    rows, dZ, column = np.arange(B), np.empty_like(Z), np.empty((B, 1), dtype)

    def plain():
        P = np.exp(Z - Z.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        loss = -np.log(P[rows, y]).mean()
        P[rows, y] -= 1
        return loss, P / B

    def preallocated():
        np.max(Z, axis=1, keepdims=True, out=column)
        np.subtract(Z, column, out=dZ)
        np.exp(dZ, out=dZ)
        np.sum(dZ, axis=1, keepdims=True, out=column)
        np.divide(dZ, column, out=dZ)
        loss = -np.log(dZ[rows, y]).mean()
        dZ[rows, y] -= 1
        np.divide(dZ, B, out=dZ)
        return loss, dZ

    def ours():
        return kernels.softmax_cross_entropy(Z, y)

    return _loss(ours, plain, preallocated, Z, y.nbytes)


def logistic_cross_entropy(B, outputs, dtype):
    Z = _random((B, outputs), dtype)
    Y = (_random(Z.shape, dtype, 1) > 0).astype(dtype)
    P, dZ, terms = np.empty_like(Z), np.empty_like(Z), np.empty_like(Z)

    def plain():
        P = expit(Z)
        loss = -(Y * np.log(P) + (1 - Y) * np.log(1 - P)).sum() / B
        return loss, (P - Y) / B

    def preallocated():
        expit(Z, out=P)
        np.subtract(P, Y, out=dZ)
        np.absolute(dZ, out=terms)  # 1 - p of the class that it is
        np.negative(terms, out=terms)
        np.log1p(terms, out=terms)
        loss = -terms.sum() / B
        np.divide(dZ, B, out=dZ)
        return loss, dZ

    def ours():
        return kernels.logistic_cross_entropy(Z, Y)

    return _loss(ours, plain, preallocated, Z, Y.nbytes)


def squared_error(B, outputs, dtype):
    Z, Y = _random((B, outputs), dtype), _random((B, outputs), dtype, 1)
    dZ = np.empty_like(Z)

    def plain():
        return 0.5 * ((Z - Y) ** 2).sum() / B, (Z - Y) / B

    def preallocated():
        np.subtract(Z, Y, out=dZ)
        loss = 0.5 * np.dot(dZ.reshape(-1), dZ.reshape(-1)) / B
        np.divide(dZ, B, out=dZ)
        return loss, dZ

    def ours():
        return kernels.squared_error(Z, Y)

    return _loss(ours, plain, preallocated, Z, Y.nbytes)


def poisson_loss(B, outputs, dtype):
    Z = _random((B, outputs), dtype)
    Y = np.random.default_rng(1).poisson(1.0, Z.shape).astype(dtype)
    P, terms, dZ = np.empty_like(Z), np.empty_like(Z), np.empty_like(Z)
    positive, ones = Y > 0, np.ones_like(Z)

    def plain():
        P = np.exp(Z)
        log_Y = np.log(np.where(Y > 0, Y, 1))
        return (Y * (log_Y - Z) - Y + P).sum() / B, (P - Y) / B

    def preallocated():
        np.exp(Z, out=P)
        np.subtract(P, Y, out=dZ)
        np.copyto(terms, ones)
        np.copyto(terms, Y, where=positive)
        np.log(terms, out=terms)
        np.subtract(terms, Z, out=terms)
        np.multiply(terms, Y, out=terms)
        np.add(terms, dZ, out=terms)
        loss = terms.sum() / B
        np.divide(dZ, B, out=dZ)
        return loss, dZ

    def ours():
        return kernels.poisson_loss(Z, Y)

    return _loss(ours, plain, preallocated, Z, Y.nbytes)


def _loss(ours, plain, preallocated, Z, target_bytes):
    nbytes = 2 * Z.nbytes + target_bytes
    return _contest(ours, plain, preallocated, _LOSS_FLOPS * Z.size, nbytes, "memory")


# ---------------------------------------------------------------- updates


def _adam_rate(t):
    # a Python float: one of NumPy's would turn float32 arrays into float64
    return RATE * math.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)


def _adam_in_place(theta, m, v, g, t, one, two):
    """A step of Adam in the scratch arrays ``one`` and ``two``."""
    rate = _adam_rate(t)
    np.multiply(m, BETA_1, out=m)
    np.multiply(g, 1 - BETA_1, out=one)
    np.add(m, one, out=m)
    np.multiply(v, BETA_2, out=v)
    np.multiply(g, g, out=one)
    np.multiply(one, 1 - BETA_2, out=one)
    np.add(v, one, out=v)
    np.sqrt(v, out=one)
    np.add(one, EPSILON, out=one)
    np.divide(m, one, out=two)
    np.multiply(two, rate, out=two)
    np.subtract(theta, two, out=theta)


def adam_update(n, dtype):
    g = _random(n, dtype)
    states = [[_random(n, dtype, 1), *np.zeros((2, n), dtype)] for _ in range(3)]
    steps, one, two = [0, 0, 0], np.empty(n, dtype), np.empty(n, dtype)

    def ours():
        steps[0] += 1
        kernels.adam_update(*states[0], g, steps[0])
        return tuple(states[0])

    def plain():
        steps[1] += 1
        theta, m, v = states[1]
        rate = _adam_rate(steps[1])
        m = BETA_1 * m + (1 - BETA_1) * g
        v = BETA_2 * v + (1 - BETA_2) * g * g
        states[1] = [theta - rate * m / (np.sqrt(v) + EPSILON), m, v]
        return tuple(states[1])

    def preallocated():
        steps[2] += 1
        _adam_in_place(*states[2], g, steps[2], one, two)
        return tuple(states[2])

    moved, size = 7 * g.nbytes, 4 * g.nbytes  # theta, m and v are read and written
    return _contest(ours, plain, preallocated, 12 * n, moved, "memory", footprint=size)


def sgd_update(n, dtype):
    g, momentum = _random(n, dtype), MOMENTUM
    states = [[_random(n, dtype, 1), np.zeros(n, dtype)] for _ in range(3)]
    step = np.empty(n, dtype)

    def ours():
        kernels.sgd_update(*states[0], g, RATE, momentum)
        return tuple(states[0])

    def plain():
        theta, velocity = states[1]
        velocity = momentum * velocity - RATE * g
        states[1] = [theta + momentum * velocity - RATE * g, velocity]
        return tuple(states[1])

    def preallocated():
        theta, velocity = states[2]
        np.multiply(g, RATE, out=step)
        np.multiply(velocity, momentum, out=velocity)
        np.subtract(velocity, step, out=velocity)
        np.subtract(theta, step, out=theta)
        np.multiply(velocity, momentum, out=step)
        np.add(theta, step, out=theta)
        return theta, velocity

    moved, size = 5 * g.nbytes, 3 * g.nbytes
    return _contest(ours, plain, preallocated, 7 * n, moved, "memory", footprint=size)


# ---------------------------------------------------------------- parts of the epoch


class _Training:
    """A network of fastbp's and a batch, as ``training.Trainer`` prepares them."""

    def __init__(self, units, B, out_activation, dtype):
        self.coefs, self.intercepts = initial_weights(
            units, "relu", np.random.RandomState(0), dtype
        )
        self.X, self.out_activation = _random((B, units[0]), dtype), out_activation
        self.Y = targets = _random((B, units[-1]), dtype, 1)
        if out_activation == "logistic":
            self.Y = targets = (targets > 0).astype(dtype)
        elif out_activation == "softmax":
            labels = targets.argmax(axis=1)
            self.Y, targets = np.eye(units[-1], dtype=dtype)[labels], labels
        self.plan = plan = network.layout(units, "relu", out_activation, np.dtype(dtype))
        self.threads = launch.thread_limit()
        self.work = network.training_workspace(plan, B, self.threads, self.coefs)
        self.parameters = (
            network.pack(plan, self.coefs, self.intercepts),
            *(network.aligned_zeros(plan.n_parameters, dtype) for _ in range(2)),
        )
        self.data = network.training_data(plan, self.X, targets, None, np.arange(B))
        self.optimizer = Optimizer(MLPClassifier()).record(ALPHA)
        self.rates, self.losses = np.full(1, RATE), np.zeros(1)
        self.taken = np.zeros(1, np.int64)
        self._team = threads.Team(plan.program("train_steps"), plan.dtype, self.work.team)

    def step(self):
        args = (
            *(self.plan.net, self.parameters, self.work, self.data, self.optimizer),
            *((0, 1), len(self.X), self.rates, self.losses, self.taken),
        )
        self._team.call(args, self.threads)

    def moments(self):
        """Means of gradients and of their squares: (1 - beta) times these after a step.

        They tell whether gradients agree better than the weights do: Adam's first step
        goes by the sign of a gradient, be it next to nothing.
        """
        unpacked = [network.unpack(self.plan, p) for p in self.parameters[1:]]
        return [a for coefs, intercepts in unpacked for a in (*coefs, *intercepts)]


class _Result:
    """Arrays that are unpacked when they are looked at, which is not timed."""

    def __init__(self, unpack):
        self._unpack = unpack

    def __iter__(self):
        return iter(self._unpack())


@njit(parallel=True, error_model="numpy", nogil=True)
def _update_weights(net, parameters, data, work, optimizer):
    """The second region of a training step; every task has scratch of its own.

    On Numba's threads, as it is no program of fastbp's: training has less to wait for.
    """
    for task in prange(work.tasks.shape[0]):
        programs._train_weights(net, parameters, data, work, optimizer[0], task, task)


def weight_gradient_and_adam(B, inputs, outputs, dtype):
    """The second half of a step of one layer: ``X.T @ delta``, L2 term, Adam."""
    training = _Training((inputs, outputs), B, "identity", dtype)
    X, coefs, intercepts = training.X, training.coefs, training.intercepts
    training.rates[:] = 0  # this step is to fill the workspace
    training.step()
    training.work.region["rate"] = RATE
    for moment in training.parameters[1:]:
        moment[:] = 0
    work, n_tasks = training.work, len(training.work.tasks)
    work = work._replace(scratch=network.aligned_zeros(work.share * n_tasks, dtype))
    arguments = training.plan.net, training.parameters, training.data, work
    arguments = *arguments, training.optimizer
    delta = X @ coefs[0] + intercepts[0] - training.Y
    plain_params = [coefs[0].copy(), intercepts[0].copy()]
    plain_moments = [np.zeros_like(p) for p in plain_params * 2]
    params = [coefs[0].copy(), intercepts[0].copy()]
    moments = [[np.zeros_like(p) for p in params] for _ in range(2)]
    gradients = [np.empty_like(p) for p in params]
    scratch = [[np.empty_like(p) for p in params] for _ in range(2)]
    result = _Result(training.moments)

    def ours():
        _update_weights(*arguments)
        return result

    def plain():
        gradients = (X.T @ delta + ALPHA * plain_params[0]) / B, delta.sum(axis=0) / B
        state = {"t": 0, "m": plain_moments[:2], "v": plain_moments[2:]}
        baseline.adam(plain_params, gradients, state, RATE)
        return plain_moments

    def preallocated():
        np.matmul(X.T, delta, out=gradients[0])
        np.multiply(params[0], ALPHA, out=scratch[0][0])
        np.add(gradients[0], scratch[0][0], out=gradients[0])
        np.sum(delta, axis=0, out=gradients[1])
        for p, g, m, v, one, two in zip(
            params, gradients, *moments, *scratch, strict=True
        ):
            np.divide(g, B, out=g)
            _adam_in_place(p, m, v, g, 1, one, two)
        return [*moments[0], *moments[1]]

    # X, delta; weights and two moments, read and written
    nbytes = X.nbytes + delta.nbytes + 6 * coefs[0].nbytes
    flops = 2 * B * inputs * outputs + 12 * inputs * outputs
    return _contest(ours, plain, preallocated, flops, nbytes, "fma", B)


def training_step(units, B, dtype):
    """A whole step: forward pass, loss, backward pass, update by Adam."""
    out_activation = "logistic" if units[-1] == 1 else "softmax"
    training = _Training(units, B, out_activation, dtype)
    plain_params = [a.copy() for a in (*training.coefs, *training.intercepts)]
    depth, state = len(training.coefs), {}
    prepared = _PreparedStep(training)
    result = _Result(training.moments)

    def ours():
        training.step()
        return result

    def plain():
        _, d_coefs, d_intercepts = baseline.loss_and_gradients(
            *(plain_params[:depth], plain_params[depth:], training.X, training.Y),
            *("relu", out_activation, ALPHA),
        )
        baseline.adam(plain_params, [*d_coefs, *d_intercepts], state, RATE)
        return [*state["m"], *state["v"]]

    products = [W.size for W in training.coefs]
    flops = (6 * sum(products) - 2 * products[0]) * B
    parameters = sum(a.nbytes for a in plain_params)
    nbytes = training.X.nbytes + 6 * parameters
    return _contest(ours, plain, prepared, flops, nbytes, "fma", B * max(units))


class _PreparedStep:
    """A training step of which NumPy allocates nothing."""

    def __init__(self, training):
        self.X, self.Y, self.kind = training.X, training.Y, training.out_activation
        self.params = [a.copy() for a in (*training.coefs, *training.intercepts)]
        self.depth, self.t = len(training.coefs), 0
        self.moments, self.scratch = (
            [[np.zeros_like(p) for p in self.params] for _ in range(2)] for _ in range(2)
        )
        self.gradients = [np.empty_like(p) for p in self.params]
        B = len(self.X)
        self.outputs = [np.empty((B, W.shape[1]), W.dtype) for W in training.coefs]
        self.deltas = [np.empty_like(a) for a in self.outputs]
        self.active = [np.empty(a.shape, bool) for a in self.outputs]
        self.column = np.empty((B, 1), self.X.dtype)

    def __call__(self):
        B, depth, A = len(self.X), self.depth, self.X
        coefs, intercepts = self.params[:depth], self.params[depth:]
        for layer, Z in enumerate(self.outputs):
            np.matmul(A, coefs[layer], out=Z)
            np.add(Z, intercepts[layer], out=Z)
            A = np.maximum(Z, 0, out=Z) if layer < depth - 1 else Z
        self._predict(A)
        P, column = np.clip(A, EPSILON, 1 - EPSILON, out=self.deltas[-1]), self.column
        if self.kind == "softmax":
            np.einsum("ij,ij->i", P, self.Y, out=column[:, 0])
        else:
            np.subtract(1 - self.Y, P, out=column)
            np.absolute(column, out=column)
        np.log(column, out=column)
        squares = sum(np.dot(W.reshape(-1), W.reshape(-1)) for W in coefs)
        loss = (0.5 * ALPHA * squares - column.sum()) / B
        np.subtract(A, self.Y, out=self.deltas[-1])
        for layer in reversed(range(depth)):
            below, delta = [self.X, *self.outputs][layer], self.deltas[layer]
            np.matmul(below.T, delta, out=self.gradients[layer])
            np.multiply(coefs[layer], ALPHA, out=self.scratch[0][layer])
            np.add(
                self.gradients[layer], self.scratch[0][layer], out=self.gradients[layer]
            )
            np.sum(delta, axis=0, out=self.gradients[depth + layer])
            if layer > 0:
                np.matmul(delta, coefs[layer].T, out=self.deltas[layer - 1])
                np.greater(below, 0, out=self.active[layer - 1])
                np.multiply(
                    self.deltas[layer - 1],
                    self.active[layer - 1],
                    out=self.deltas[layer - 1],
                )
        self.t += 1
        for p, g, m, v, one, two in zip(
            self.params, self.gradients, *self.moments, *self.scratch, strict=True
        ):
            np.divide(g, B, out=g)
            _adam_in_place(p, m, v, g, self.t, one, two)
        self.loss = loss
        return [*self.moments[0], *self.moments[1]]

    def _predict(self, Z):
        if self.kind == "logistic":
            expit(Z, out=Z)
            return
        np.max(Z, axis=1, keepdims=True, out=self.column)
        np.subtract(Z, self.column, out=Z)
        np.exp(Z, out=Z)
        np.sum(Z, axis=1, keepdims=True, out=self.column)
        np.divide(Z, self.column, out=Z)


def _contest(
    ours, plain, preallocated, flops, nbytes, limited_by, terms=1, footprint=None
):
    ways = {"fastbp": ours, PLAIN: plain, PREALLOCATED: preallocated}
    footprint = nbytes if footprint is None else footprint
    return Contest(ways, float(flops), float(nbytes), footprint, limited_by, terms)
