"""The same training by fastbp and its peers, each at its best settings.

A peer is a function of a ``Problem`` that returns a function which trains from the start
and returns the mean loss of each epoch. All begin with the same weights, take the same
batches in the same order, and minimise the same loss: cross-entropy plus ``ALPHA / 2``
times the squared weights over the batch size, by Adam. What a user waits for is timed:
for scikit-learn and fastbp the whole ``fit`` with its checks, for the others the bare
loop on prepared arrays.
"""

import functools
from typing import NamedTuple

import numpy as np
import sklearn.neural_network
from threadpoolctl import threadpool_limits

import fastbp
from fastbp import network

ALPHA, RATE, BETAS, EPSILON = 1e-4, 1e-3, (0.9, 0.999), 1e-8


class Problem(NamedTuple):
    X: np.ndarray
    y: np.ndarray  # class numbers
    hidden: tuple
    batch: int
    epochs: int
    threads: int

    @property
    def outputs(self):
        """Two classes take one logistic output, as in scikit-learn."""
        classes = int(self.y.max()) + 1
        return 1 if classes == 2 else classes

    @property
    def units(self):
        return (self.X.shape[1], *self.hidden, self.outputs)

    def flops(self):
        """Useful ones of the training: no padding, no delta of the inputs."""
        products = [a * b for a, b in zip(self.units, self.units[1:], strict=False)]
        return (6 * sum(products) - 2 * products[0]) * len(self.X) * self.epochs

    def start(self):
        """Initial weights and the order of each epoch, as scikit-learn draws them."""
        random_state = np.random.RandomState(0)
        weights = network.initial_weights(self.units, "relu", random_state, self.X.dtype)
        orders, order = [], np.arange(len(self.X))
        for _ in range(self.epochs):
            permutation = np.arange(len(self.X))
            random_state.shuffle(permutation)
            order = order[permutation]
            orders.append(order)
        return weights, orders

    def parameters(self):
        return {
            "hidden_layer_sizes": self.hidden,
            "batch_size": self.batch,
            "max_iter": self.epochs,
            "n_iter_no_change": self.epochs,
            "random_state": 0,
        }


def of_fastbp(problem):
    model = fastbp.MLPClassifier(**problem.parameters(), n_jobs=problem.threads)
    return lambda: model.fit(problem.X, problem.y).loss_curve_


def of_sklearn(problem, blas_threads):
    model = sklearn.neural_network.MLPClassifier(**problem.parameters())

    def train():
        with threadpool_limits(blas_threads, user_api="blas"):
            return model.fit(problem.X, problem.y).loss_curve_

    return train


def of_torch(problem):
    """Eager PyTorch: fused Adam, no data loader, weight decay inside the optimizer."""
    import torch

    torch.set_num_threads(problem.threads)
    (coefs, intercepts), orders = problem.start()
    X = torch.from_numpy(problem.X)
    logistic = problem.outputs == 1
    y = torch.from_numpy(problem.y.astype(problem.X.dtype if logistic else np.int64))
    loss_of = torch.nn.functional.cross_entropy
    if logistic:
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def train():
        layers = []
        for W, b in zip(coefs, intercepts, strict=True):
            linear = torch.nn.Linear(*W.shape, dtype=X.dtype)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(W.T)))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1])
        weights = [p for p in model.parameters() if p.ndim == 2]
        biases = [p for p in model.parameters() if p.ndim == 1]
        decay = ALPHA / problem.batch
        optimizer = torch.optim.Adam(
            [{"params": weights, "weight_decay": decay}, {"params": biases}],
            lr=RATE,
            betas=BETAS,
            eps=EPSILON,
            fused=True,
        )
        losses = []
        for order in orders:
            rows = torch.from_numpy(order)
            X_epoch, y_epoch, total = X[rows], y[rows], 0.0
            for i in range(0, len(X), problem.batch):
                outputs = model(X_epoch[i : i + problem.batch])
                outputs = outputs[:, 0] if logistic else outputs
                loss = loss_of(outputs, y_epoch[i : i + problem.batch])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(outputs)
            losses.append(float(total) / len(X))
        return losses

    return train


def of_jax(problem):
    """JAX: an epoch is one compiled scan over its whole batches, then the short one."""
    import jax
    import jax.numpy as jnp

    if problem.X.dtype == np.float64:
        jax.config.update("jax_enable_x64", True)
    (coefs, intercepts), orders = problem.start()
    X, logistic = jnp.asarray(problem.X), problem.outputs == 1
    y = jnp.asarray(problem.y.astype(problem.X.dtype if logistic else np.int32))
    n, batch = len(problem.X), problem.batch
    whole = n // batch * batch

    def loss_of(weights, rows):
        a, size = X[rows], len(rows)
        for W, b in weights[:-1]:
            a = jax.nn.relu(a @ W + b)
        W, b = weights[-1]
        z = a @ W + b
        if logistic:
            data = jnp.mean(jnp.logaddexp(0, z[:, 0]) - y[rows] * z[:, 0])
        else:
            picked = jnp.take_along_axis(z, y[rows][:, None], axis=1)[:, 0]
            data = jnp.mean(jax.nn.logsumexp(z, axis=1) - picked)
        return data + 0.5 * ALPHA / size * sum(jnp.sum(W * W) for W, _ in weights)

    def step(state, rows):
        weights, m, v, t = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows)
        t = t + 1
        rate = RATE * jnp.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)
        m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, gradients)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, gradients)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v
        )
        return (weights, m, v, t), loss * len(rows)

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, order):
        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, batch))
        total = jnp.sum(losses)
        if whole < n:
            state, loss = step(state, order[whole:])
            total = total + loss
        return state, total / n

    def train():
        weights = [
            (jnp.array(W), jnp.array(b)) for W, b in zip(coefs, intercepts, strict=True)
        ]
        zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
        state = (weights, *zeros, jnp.zeros((), X.dtype))
        losses = []
        for order in orders:
            state, loss = epoch(state, jnp.asarray(order))
            losses.append(loss)
        return [float(loss) for loss in losses]

    return train


#: Functions of a problem, by name; a peer whose import fails is reported as missing.
PEERS = {
    "scikit-learn, 1 BLAS thread": functools.partial(of_sklearn, blas_threads=1),
    "scikit-learn, 2 BLAS threads": functools.partial(of_sklearn, blas_threads=2),
    "PyTorch": of_torch,
    "JAX": of_jax,
}
