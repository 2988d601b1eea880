"""
The four steps of backpropagation, by hand
==========================================

A network with two inputs (the size of a house and its rooms), two hidden units and one
output (its price). Forward pass, error, backward pass, weight update: each is one call of
a kernel on plain NumPy arrays, and every number is printed.
"""

import numpy as np

from fastbp.kernels import dense_backward, dense_forward, sgd_update, squared_error

np.set_printoptions(precision=4, suppress=True)

# %%
# Four houses: size in 100 square metres, rooms in tens; prices in 100,000.

X = np.array([[0.5, 0.2], [0.9, 0.3], [1.2, 0.5], [2.0, 0.8]])
y = np.array([[1.0], [1.9], [2.6], [4.2]])

W1, b1 = np.array([[0.3, -0.1], [0.2, 0.4]]), np.array([0.1, 0.2])
W2, b2 = np.array([[0.5], [0.6]]), np.array([0.1])

# %%
# **1. Forward pass.** Each hidden unit adds up its weighted inputs and its bias, and lets
# through what is positive; the output adds up the hidden units.

hidden = dense_forward(X, W1, b1, "relu")
price = dense_forward(hidden, W2, b2)
print("1. Forward pass")
print("   hidden units, a row for each house:")
print(hidden)
print("   prices that the network says:", price.ravel())
print("   prices that were paid:       ", y.ravel())

# %%
# **2. Error.** Half the mean squared difference, and how it changes with each output.

loss, d_price = squared_error(price, y)
print(f"2. Error: {loss:.4f}")
print("   its slope along each price:", d_price.ravel())

# %%
# **3. Backward pass.** The slopes go through the layers in reverse: along the weights
# (``dW``), along the biases (``db``), and along the layer's inputs, which are the outputs
# of the layer below.

d_hidden, dW2, db2 = dense_backward(d_price, hidden, W2, "relu")
_, dW1, db1 = dense_backward(d_hidden, X, W1)
print("3. Backward pass")
print("   dW2:", dW2.ravel(), " db2:", db2)
print("   slopes along the hidden units, a row for each house:")
print(d_hidden)
print("   dW1:", dW1[0], dW1[1], " db1:", db1)

# %%
# Is that right? The slope along one weight is what the error gains when that weight alone
# grows a little, divided by how much it grew.

step = 1e-6
nudged = W1.copy()
nudged[0, 0] += step
nudged_price = dense_forward(dense_forward(X, nudged, b1, "relu"), W2, b2)
slope = (squared_error(nudged_price, y)[0] - loss) / step
print(f"   dW1[0, 0] is {dW1[0, 0]:.6f}; by trying it out, {slope:.6f}")

# %%
# **4. Weight update.** Every weight takes a small step against its slope.

rate = 0.1
parameters = W1, b1, W2, b2
before = [p.copy() for p in parameters]
velocities = [np.zeros_like(p) for p in parameters]
for p, velocity, gradient in zip(
    parameters, velocities, (dW1, db1, dW2, db2), strict=True
):
    sgd_update(p, velocity, gradient, learning_rate=rate, momentum=0, nesterov=False)
print("4. Weight update")
for name, old, new in zip(("W1", "b1", "W2", "b2"), before, parameters, strict=True):
    print(f"   {name} was {old.ravel()} and is {new.ravel()}")

# %%
# The four steps again and again are the training.


def train_step():
    """One pass over the four houses; returns the error before it."""
    hidden = dense_forward(X, W1, b1, "relu")
    loss, d_price = squared_error(dense_forward(hidden, W2, b2), y)
    d_hidden, dW2, db2 = dense_backward(d_price, hidden, W2, "relu")
    _, dW1, db1 = dense_backward(d_hidden, X, W1)
    for p, velocity, gradient in zip(
        parameters, velocities, (dW1, db1, dW2, db2), strict=True
    ):
        sgd_update(p, velocity, gradient, learning_rate=rate, momentum=0, nesterov=False)
    return loss


for number in range(2, 1001):
    loss = train_step()
    if number in (2, 10, 100, 1000):
        print(f"step {number:4d}: error {loss:.6f}")

price = dense_forward(dense_forward(X, W1, b1, "relu"), W2, b2)
print("the network says", price.ravel(), "for", y.ravel())
