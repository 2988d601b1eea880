"""The same training by fastbp and its peers.

scikit-learn is timed on one and on all BLAS threads; PyTorch has fused Adam and no data
loader; JAX an epoch in one compiled scan.

A peer is a function of (problem, data) that returns a function ``train(epochs)``, which
trains from the start and returns the mean loss of each epoch and the weights.
What a user waits for is timed: for scikit-learn, skorch and fastbp the whole ``fit`` with
its checks, for the others the bare loop on prepared arrays.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sklearn.neural_network
from threadpoolctl import ThreadpoolController

import fastbp
from benchmarks import baseline, machine
from benchmarks.problems import ALPHA, BETAS, EPSILON, MOMENTUM, RATE
from benchmarks.rows import OURS

#: Adam's epsilon stands elsewhere in PyTorch's formula; its loss lacks the L2 term, and
#: its decay does not know of a short last batch.
_TORCH = 2e-2
#: Roundings, which Adam's first steps amplify: they go by the sign of a gradient.
_ROUNDING = {"float64": 1e-7, "float32": 1e-3}


class Trained(NamedTuple):
    losses: list  # mean over the rows, of each epoch
    weights: Callable  # (coefs, intercepts) as scikit-learn has them


def of_fastbp(problem, data):
    return _of_estimators(fastbp, problem, data)


def of_sklearn(problem, data):
    return _of_estimators(sklearn.neural_network, problem, data)


def _of_estimators(package, problem, data):
    name = "MLPClassifier" if problem.classifies else "MLPRegressor"
    model = getattr(package, name)(**problem.parameters())

    def train(epochs):
        model.set_params(max_iter=epochs, n_iter_no_change=epochs).fit(data.X, data.y)
        return Trained(model.loss_curve_, lambda: (model.coefs_, model.intercepts_))

    return train


def of_numpy(problem, data):
    """The baseline: a textbook's loop over mini-batches (``benchmarks.baseline``)."""
    (coefs, intercepts), orders = problem.start(data)
    out_activation = problem.out_activation(data)
    Y = data.y[:, None]
    if problem.classifies:
        outputs = problem.outputs(data.y)
        Y = Y if outputs == 1 else np.eye(outputs)[data.y]
    Y = Y.astype(data.X.dtype)

    def train(epochs):
        W, b = ([a.copy() for a in arrays] for arrays in (coefs, intercepts))
        update = {
            "adam": functools.partial(baseline.adam, state={}, rate=RATE),
            "sgd": functools.partial(
                baseline.sgd, state={}, rate=RATE, momentum=MOMENTUM
            ),
        }[problem.solver]
        losses = [
            baseline.train_epoch(
                *(W, b, data.X, Y, order, problem.batch),
                *(problem.activation, out_activation, ALPHA, update),
            )
            for order in orders[:epochs]
        ]
        return Trained(losses, lambda: (W, b))

    return train


# ---------------------------------------------------------------- PyTorch


def _torch_model(problem, data):
    """Layers with the problem's first weights, and a function that resets them."""
    import torch

    torch.set_num_threads(machine.threads())
    activation = {
        "relu": torch.nn.ReLU,
        "tanh": torch.nn.Tanh,
        "logistic": torch.nn.Sigmoid,
    }[problem.activation]
    (coefs, intercepts), _ = problem.start(data)
    dtype = torch.from_numpy(data.X).dtype
    linear = [torch.nn.Linear(*W.shape, dtype=dtype) for W in coefs]
    layers = [layer for one in linear for layer in (one, activation())][:-1]

    @torch.no_grad()
    def reset():
        for layer, W, b in zip(linear, coefs, intercepts, strict=True):
            layer.weight.copy_(torch.from_numpy(W.T.copy()))
            layer.bias.copy_(torch.from_numpy(b))

    def weights():
        arrays = [p.detach().numpy().copy() for p in model.parameters()]
        return [W.T for W in arrays[::2]], arrays[1::2]

    model = torch.nn.Sequential(*layers)
    reset()
    return model, reset, weights


def _torch_loss(problem, data):
    """(loss of outputs and targets, targets of all rows)"""
    import torch

    functions = torch.nn.functional
    if not problem.classifies:
        return (
            lambda Z, y: 0.5 * functions.mse_loss(Z[:, 0], y),
            torch.from_numpy(data.y),
        )
    if problem.outputs(data.y) == 1:
        entropy = functions.binary_cross_entropy_with_logits
        y = torch.from_numpy(data.y.astype(data.X.dtype))
        return lambda Z, y: entropy(Z[:, 0], y), y
    return functions.cross_entropy, torch.from_numpy(data.y.astype(np.int64))


def _torch_optimizer(problem):
    """A class, and the arguments of its best CPU form but for the parameters."""
    import torch

    if problem.solver == "sgd":
        arguments = {"momentum": MOMENTUM, "nesterov": True, "fused": True}
        return torch.optim.SGD, {"lr": RATE, **arguments}
    return torch.optim.Adam, {"lr": RATE, "betas": BETAS, "eps": EPSILON, "fused": True}


def of_torch(problem, data, compiled=False):
    """PyTorch without a data loader: fused optimizer with the decay inside.

    Eager, or with the forward and backward pass compiled by ``torch.compile``.
    """
    import torch

    _, orders = problem.start(data)
    model, reset, weights = _torch_model(problem, data)
    loss_of, y = _torch_loss(problem, data)
    X, n, batch = torch.from_numpy(data.X), len(data.X), problem.batch
    optimizer_class, arguments = _torch_optimizer(problem)

    def objective(X, y):
        return loss_of(model(X), y)

    if compiled:
        torch._dynamo.reset()  # of the networks before: it gives up after some
        objective = torch.compile(objective, dynamic=False)

    def train(epochs):
        reset()
        decayed = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": ALPHA / batch}, {"params": others}]
        optimizer = optimizer_class(groups, **arguments)
        losses = []
        for order in orders[:epochs]:
            rows = torch.from_numpy(order)
            X_epoch, y_epoch, total = X[rows], y[rows], 0.0
            for i in range(0, n, batch):
                X_batch = X_epoch[i : i + batch]
                loss = objective(X_batch, y_epoch[i : i + batch])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(X_batch)
            losses.append(float(total) / n)
        return Trained(losses, weights)

    return train


def of_skorch(problem, data):
    """skorch, PyTorch behind scikit-learn's interface: a whole ``fit``, no printing."""
    import skorch
    import torch

    _, orders = problem.start(data)
    model, reset, weights = _torch_model(problem, data)
    loss_of, y = _torch_loss(problem, data)
    optimizer_class, arguments = _torch_optimizer(problem)

    class Ordered(torch.utils.data.Sampler):
        """The rows of an epoch in its order."""

        def __init__(self):
            self.epochs = iter(orders)

        def __iter__(self):
            return iter(next(self.epochs).tolist())

        def __len__(self):
            return len(orders[0])

    class Criterion(torch.nn.Module):
        def forward(self, Z, y):
            return loss_of(Z, y)

    class Net(skorch.NeuralNet):
        def initialize_module(self):
            reset()  # skorch would make a module of its own
            self.module_ = model
            return self

    def train(epochs):
        net = Net(
            model,
            Criterion,
            optimizer=optimizer_class,
            **{f"optimizer__{name}": value for name, value in arguments.items()},
            optimizer__param_groups=[
                ("*.weight", {"weight_decay": ALPHA / problem.batch})
            ],
            max_epochs=epochs,
            batch_size=problem.batch,
            iterator_train__sampler=Ordered(),
            train_split=None,
            callbacks__print_log=None,
            verbose=0,
        )
        net.fit(data.X, y)
        return Trained(net.history[:, "train_loss"], weights)

    return train


# ---------------------------------------------------------------- JAX


def of_jax(problem, data):
    """JAX: an epoch is one compiled scan over its whole batches, then the short one."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", data.X.dtype == np.float64)
    (coefs, intercepts), orders = problem.start(data)
    kind, dtype = problem.out_activation(data), data.X.dtype
    X = jnp.asarray(data.X)
    y = jnp.asarray(data.y.astype(np.int32 if kind == "softmax" else dtype))
    n, batch = len(data.X), problem.batch
    whole = n // batch * batch
    activation = {
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
        "logistic": jax.nn.sigmoid,
    }[problem.activation]

    def loss_of(weights, rows):
        a, size = X[rows], len(rows)
        for W, b in weights[:-1]:
            a = activation(a @ W + b)
        W, b = weights[-1]
        z = a @ W + b
        if kind == "logistic":
            loss = jnp.mean(jnp.logaddexp(0, z[:, 0]) - y[rows] * z[:, 0])
        elif kind == "identity":
            loss = 0.5 * jnp.mean((z[:, 0] - y[rows]) ** 2)
        else:
            picked = jnp.take_along_axis(z, y[rows][:, None], axis=1)[:, 0]
            loss = jnp.mean(jax.nn.logsumexp(z, axis=1) - picked)
        return loss + 0.5 * ALPHA / size * sum(jnp.sum(W * W) for W, _ in weights)

    def adam(weights, moments, t, gradients):
        m, v = moments
        rate = RATE * jnp.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)
        m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, gradients)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, gradients)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v
        )
        return weights, (m, v)

    def sgd(weights, moments, t, gradients):
        v = jax.tree.map(lambda v, g: MOMENTUM * v - RATE * g, moments[0], gradients)
        weights = jax.tree.map(
            lambda w, v, g: w + MOMENTUM * v - RATE * g, weights, v, gradients
        )
        return weights, (v,)

    update = {"adam": adam, "sgd": sgd}[problem.solver]

    def step(state, rows):
        weights, moments, t = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows)
        t = t + 1
        weights, moments = update(weights, moments, t, gradients)
        return (weights, moments, t), loss * len(rows)

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, order):
        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, batch))
        total = jnp.sum(losses)
        if whole < n:
            state, loss = step(state, order[whole:])
            total = total + loss
        return state, total / n

    def train(epochs):
        weights = [
            (jnp.array(W), jnp.array(b)) for W, b in zip(coefs, intercepts, strict=True)
        ]
        moments = tuple(
            jax.tree.map(jnp.zeros_like, weights)
            for _ in range(2 if problem.solver == "adam" else 1)
        )
        state = (weights, moments, jnp.zeros((), dtype))
        losses = []
        for order in orders[:epochs]:
            state, loss = epoch(state, jnp.asarray(order))
            losses.append(loss)
        losses = [float(loss) for loss in losses]  # waits for the last one
        final = [[np.asarray(a) for a in pair] for pair in state[0]]
        return Trained(losses, lambda: tuple(map(list, zip(*final, strict=True))))

    return train


# ---------------------------------------------------------------- all of them

#: The peers by name: a function of problem and data, and what must be installed for it.
PEERS = {
    "NumPy": (of_numpy, None),
    "PyTorch": (of_torch, "torch"),
    "PyTorch, compiled": (functools.partial(of_torch, compiled=True), "torch"),
    "JAX": (of_jax, "jax"),
    "skorch": (of_skorch, "skorch"),
}
#: scikit-learn's is on as many BLAS threads as are best for it.
SKLEARN = "scikit-learn"


def on_blas_threads(function: Callable) -> dict[str, Callable]:
    """scikit-learn's contestants: its function on one and on all BLAS threads."""
    controller = ThreadpoolController()  # looking for the libraries is not timed

    def limited(blas_threads):
        def run(*arguments):
            with controller.limit(limits=blas_threads, user_api="blas"):
                return function(*arguments)

        return run

    return {
        f"{SKLEARN}, {n} BLAS thread{'s' * (n > 1)}": limited(n)
        for n in sorted({1, machine.threads()})
    }


def missing() -> list[str]:
    """Names of the peers that are not installed."""
    return [
        name
        for name, (_, module) in PEERS.items()
        if module is not None and importlib.util.find_spec(module) is None
    ]


def tolerance(name, dtype):
    torch = name.startswith(("PyTorch", "skorch"))
    return _TORCH if torch else _ROUNDING[dtype]


def agreement(trainers, problem, dtype):
    """A check of what a contestant has trained: that it has scikit-learn's losses."""
    truth = next(t for name, t in trainers.items() if name.startswith(SKLEARN))
    losses = truth(problem.epochs).losses

    def check(name, trained):
        np.testing.assert_allclose(
            trained.losses, losses, rtol=tolerance(name, dtype), err_msg=name
        )

    return check


def contestants(problem, data, without=()):
    """fastbp and the peers, but those whose names begin with one of ``without``."""
    theirs = on_blas_threads(of_sklearn(problem, data))
    found = {OURS: of_fastbp(problem, data), **theirs}
    for name, (peer, _) in PEERS.items():
        if name not in missing() and not name.startswith(tuple(without)):
            found[name] = peer(problem, data)
    return found
