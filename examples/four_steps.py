"""Backpropagation in four steps, with the public array kernels, on real images.

Forward pass, error, backward pass, weight update: this is what ``fastbp.MLPClassifier``
does in one native call per epoch, spelled out.
"""

import numpy as np
from sklearn.datasets import load_digits

from fastbp.kernels import (
    adam_update,
    dense_backward,
    dense_forward,
    softmax_cross_entropy,
)


def main(epochs: int = 20) -> float:
    """Train on digits, print the loss, return the training accuracy."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    rng = np.random.default_rng(0)
    W1, b1 = rng.uniform(-0.2, 0.2, (64, 50)), np.zeros(50)
    W2, b2 = rng.uniform(-0.3, 0.3, (50, 10)), np.zeros(10)
    parameters = [W1, b1, W2, b2]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    step = 0
    for epoch in range(1, epochs + 1):
        for rows in np.array_split(rng.permutation(len(X)), 9):
            # 1. forward pass
            hidden = dense_forward(X[rows], W1, b1, "relu")
            logits = dense_forward(hidden, W2, b2)
            # 2. error
            loss, d_logits = softmax_cross_entropy(logits, y[rows])
            # 3. backward pass
            d_hidden, dW2, db2 = dense_backward(d_logits, hidden, W2, "relu")
            _, dW1, db1 = dense_backward(d_hidden, X[rows], W1)
            # 4. weight update
            step += 1
            gradients = [dW1, db1, dW2, db2]
            for p, (m, v), g in zip(parameters, moments, gradients, strict=True):
                adam_update(p, m, v, g, step, learning_rate=0.01)
        if epoch % 5 == 0:
            print(f"epoch {epoch:3d}: loss {loss:.4f}")
    logits = dense_forward(dense_forward(X, W1, b1, "relu"), W2, b2)
    accuracy = float((logits.argmax(axis=1) == y).mean())
    print(f"training accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
