"""
Three-input XOR
===============

The classic of a problem that no straight line solves: the answer is 1 if an odd number of
the three inputs is. One hidden layer of sigmoids learns it in 1,500 steps, each of them
over the whole table.
"""

import warnings
from itertools import product

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastbp import MLPClassifier

warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps are wanted
X = np.array(list(product([0, 1], repeat=3)), dtype=float)
y = X.sum(axis=1).astype(int) % 2

model = MLPClassifier(
    hidden_layer_sizes=(8,),
    activation="logistic",
    batch_size=8,
    learning_rate_init=0.05,
    max_iter=1500,
    n_iter_no_change=1500,  # all of them
    alpha=0,
    random_state=0,
).fit(X, y)

# %%
# The whole table, and how sure the network is.

for inputs, odd, (_, p) in zip(X.astype(int), y, model.predict_proba(X), strict=True):
    print(*inputs, "->", odd, f"  the network says {p:.3f}")
print(f"{model.n_iter_} steps, {(model.predict(X) == y).sum()} of 8 right")
