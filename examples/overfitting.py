"""
Overfitting seen and cured
==========================

A large network, few images, and a fifth of their labels drawn at random: it learns even
the wrong ones by heart, and predicts other images worse from epoch to epoch. Two cures
that scikit-learn's estimator has too: the L2 term ``alpha``, whose size a validation
curve finds, and ``early_stopping``.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import ValidationCurveDisplay, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp import MLPClassifier

short = "--short" in sys.argv
epochs = 5 if short else 100
warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are wanted

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, stratify=y, random_state=0
)
rng = np.random.default_rng(0)
drawn = rng.random(len(y_train)) < 0.2
y_train[drawn] = rng.integers(10, size=drawn.sum())
scaler = StandardScaler().fit(X_train)
X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)

# %%
# One epoch after the other: the loss of the training images falls without end, that of
# the others turns.


def losses(alpha):
    """Cross-entropy of the training and of the test images after each epoch."""
    model = MLPClassifier((300, 300), alpha=alpha, batch_size=50, random_state=0)
    found = []
    for _ in range(epochs):
        model.partial_fit(X_train, y_train, classes=np.arange(10))
        found.append(
            [
                log_loss(labels, model.predict_proba(rows))
                for rows, labels in ((X_train, y_train), (X_test, y_test))
            ]
        )
    return np.array(found)


figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for alpha, color in ((0, "C0"), (1, "C1")):
    train, test = losses(alpha).T
    axes.semilogy(train, color=color, linestyle=":", label=f"alpha={alpha}, training")
    axes.semilogy(test, color=color, label=f"alpha={alpha}, test")
    print(
        f"alpha={alpha}: test loss {test.min():.3f} after {test.argmin() + 1} epochs, "
        f"{test[-1]:.3f} after {epochs}"
    )
axes.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0.1, 3))
axes.legend()
figure.savefig("overfitting.png")
print("The picture is overfitting.png.")

# %%
# How large should ``alpha`` be? Cross-validation on the training images alone says so.
# (It cannot come near to 1: a fifth of the labels of the folds that it tests on were
# drawn at random, too.)

alphas = np.array([0.1, 1]) if short else np.logspace(-3, 2, 11)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
curve = ValidationCurveDisplay.from_estimator(
    make_pipeline(
        StandardScaler(),
        MLPClassifier((300, 300), max_iter=epochs // 3 + 1, random_state=0),
    ),
    X_train,
    y_train,
    param_name="mlpclassifier__alpha",
    param_range=alphas,
    scoring="accuracy",
    score_name="Accuracy",
    cv=3,
    ax=axes,
)
axes.set_xlabel("alpha")
figure.savefig("validation_curve.png")
print("The picture is validation_curve.png.")
best = float(alphas[curve.test_scores.mean(axis=1).argmax()].round(2))
print(f"Cross-validation chooses alpha={best:g}.")

# %%
# Early stopping keeps a tenth of the images out, and stops when they gain nothing more.
# All labels of the test images are right. A large ``alpha`` makes the network less sure
# of everything, which costs it some loss and keeps the accuracy.

for options in ({}, {"early_stopping": True}, {"alpha": best}):
    model = MLPClassifier((300, 300), max_iter=epochs, random_state=0, **options)
    model.fit(X_train, y_train)
    loss = log_loss(y_test, model.predict_proba(X_test))
    print(
        f"{options or 'neither'}: {model.n_iter_} epochs, test loss {loss:.3f}, "
        f"accuracy {model.score(X_test, y_test):.3f}"
    )
