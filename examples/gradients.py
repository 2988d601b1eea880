"""
Vanishing and exploding gradients
=================================

In a deep network the gradient of the first layer is a product of many factors, one a
layer. Factors below 1 let it vanish, and the first layers learn nothing; factors above 1
let it explode, and training diverges. Three cures: an activation whose slope is 1 where
it is active, initial weights of the right size, and a limit on the gradient's norm.

The network is written with the public array kernels, so that every layer's gradient is
there to look at.
"""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

from fastbp.kernels import (
    dense_backward,
    dense_forward,
    sgd_update,
    softmax_cross_entropy,
)

LAYERS, WIDTH = 10, 64
epochs = 2 if "--short" in sys.argv else 15
X, y = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(X)


def initial_weights(gain):
    """Weights with a standard deviation of ``gain / sqrt(fan_in)``."""
    rng = np.random.default_rng(0)
    units = [X.shape[1], *[WIDTH] * LAYERS, 10]
    return [
        (rng.normal(0, gain / np.sqrt(i), (i, o)), np.zeros(o))
        for i, o in pairwise(units)
    ]


def gradients(layers, activation, X, y):
    """(loss, gradients of weights and biases, of the layers' sums), first layer first."""
    outputs = [X]
    for W, b in layers[:-1]:
        outputs.append(dense_forward(outputs[-1], W, b, activation))
    loss, delta = softmax_cross_entropy(dense_forward(outputs[-1], *layers[-1]), y)
    found, deltas = [], []
    for i in reversed(range(len(layers))):
        deltas.insert(0, delta)
        below = activation if i else "identity"
        delta, dW, db = dense_backward(delta, outputs[i], layers[i][0], below)
        found.insert(0, (dW, db))
    return loss, found, deltas


def norm(arrays):
    """Euclidean norm of all numbers of the arrays."""
    return np.sqrt(sum(float((a * a).sum()) for a in arrays))


# %%
# What reaches each layer before training begins: the error goes from the last to the
# first.

SETTINGS = {
    "sigmoid, gain 1: vanishes": ("logistic", 1.0),
    "ReLU, gain 3: explodes": ("relu", 3.0),
    "ReLU, gain √2 (He): keeps its size": ("relu", np.sqrt(2)),
}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for label, (activation, gain) in SETTINGS.items():
    _, _, deltas = gradients(initial_weights(gain), activation, X, y)
    norms = [norm([delta]) for delta in deltas]
    axes.semilogy(range(1, len(norms) + 1), norms, "o-", label=label)
    print(f"{label}: last layer {norms[-1]:.1e}, first layer {norms[0]:.1e}")
axes.set(xlabel="layer", ylabel="norm of the gradient of its sums X @ W + b")
axes.legend()
figure.savefig("gradient_norms.png")
print("The picture is gradient_norms.png.")


# %%
# And what comes of it. The network whose gradient explodes can be saved by a limit on the
# norm of all its gradients together.


def train(activation, gain, max_norm=np.inf, rate=0.05):
    """Mean loss of each epoch of gradient descent with momentum."""
    layers, rng = initial_weights(gain), np.random.default_rng(1)
    velocities = [(np.zeros_like(W), np.zeros_like(b)) for W, b in layers]
    losses = []
    for _ in range(epochs):
        batches = np.array_split(rng.permutation(len(X)), 18)
        total = 0.0
        for rows in batches:
            loss, found, _ = gradients(layers, activation, X[rows], y[rows])
            total += loss / len(batches)
            size = norm([g for pair in found for g in pair])
            if not np.isfinite(size):
                return losses  # it has diverged
            limited = rate * min(1.0, max_norm / size)
            for parameters, velocity, gradient in zip(
                layers, velocities, found, strict=True
            ):
                for p, v, g in zip(parameters, velocity, gradient, strict=True):
                    sgd_update(p, v, g, limited)
        losses.append(total)
    return losses


figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
RUNS = {
    "sigmoid, gain 1": ("logistic", 1.0),
    "ReLU, gain 3": ("relu", 3.0),
    "ReLU, gain 3, norm at most 1": ("relu", 3.0, 1.0),
    "ReLU, gain √2": ("relu", np.sqrt(2)),
}
for label, setting in RUNS.items():
    with np.errstate(over="ignore", invalid="ignore"):
        losses = train(*setting)
    end = f"{losses[-1]:.3f}" if len(losses) == epochs else "diverged"
    axes.semilogy(range(1, len(losses) + 1), losses, label=f"{label}: {end}")
    print(f"{label}: loss after {len(losses)} epochs {end}")
axes.set(xlabel="epoch", ylabel="cross-entropy")
figure.legend(loc="outside upper center", ncols=2)
figure.savefig("gradients.png")
print("The picture is gradients.png.")
