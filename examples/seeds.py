"""
What a seed decides
===================

Initial weights and the order of the rows come from ``random_state``. How much does the
result depend on that luck, and on what does it not depend? The same seed gives the same
bits on any number of threads, so a difference between two models is never the machine's.
"""

import hashlib
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from fastbp import MLPClassifier

n_seeds = 3 if "--short" in sys.argv else 30
warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are wanted
X, y = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(X)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

# %%
# The same split and parameters, other seeds.

SIZES = {"5 units": (5,), "20 units": (20,), "100 units": (100,)}
scores = {}
for name, hidden in SIZES.items():
    scores[name] = [
        MLPClassifier(hidden, max_iter=50, random_state=seed)
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for seed in range(n_seeds)
    ]
    low, high = min(scores[name]), max(scores[name])
    print(
        f"{name}: accuracy from {low:.3f} to {high:.3f} in {n_seeds} seeds, "
        f"standard deviation {np.std(scores[name]):.4f}"
    )

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.boxplot(list(scores.values()), tick_labels=list(scores))
axes.set(xlabel="hidden layer", ylabel="test accuracy", title=f"{n_seeds} seeds each")
figure.savefig("seeds.png")
print("The picture is seeds.png.")


# %%
# The same seed on one thread and on all.


def digest(n_jobs):
    """A short name for the bits of all weights."""
    model = MLPClassifier((100,), max_iter=20, random_state=0, n_jobs=n_jobs)
    model.fit(X_train, y_train)
    weights = b"".join(a.tobytes() for a in (*model.coefs_, *model.intercepts_))
    return hashlib.sha256(weights).hexdigest()[:16]


one, every = digest(n_jobs=1), digest(n_jobs=None)
print(f"weights of one thread {one}, of all threads {every}")
assert one == every
