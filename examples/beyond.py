"""
Beyond scikit-learn
===================

Four things that scikit-learn's networks do not have, each where it helps, on real data:
dropout against wrong labels, class weights for a rare class, a schedule for few epochs,
and clipping against steps that are too long. Every score is a mean over several splits;
the picture, and the report at the end, are of one.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from fastbp import LossCurveDisplay, MLPClassifier, MLPRegressor

short = "--short" in sys.argv
splits = range(1 if short else 8)
warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are wanted
X, y = load_digits(return_X_y=True)


def scaled_split(X, y, seed, **options):
    """Training rows, test rows and their targets; scaled by the training rows."""
    X_train, X_test, *targets = train_test_split(X, y, random_state=seed, **options)
    scaler = StandardScaler().fit(X_train)
    return scaler.transform(X_train), scaler.transform(X_test), *targets


def mean_score(score):
    """The mean of ``score(seed)`` over the splits."""
    return np.mean([score(seed) for seed in splits])


# %%
# **Dropout.** 600 images, a fifth of their labels drawn at random, a network that is
# large enough to learn them by heart. With half or more of its units left out in every
# step it cannot.


def accuracy_with(dropout, seed):
    X_train, X_test, y_train, y_test = scaled_split(
        X, y, seed, train_size=600, stratify=y
    )
    rng = np.random.default_rng(seed)
    wrong = rng.random(600) < 0.2
    y_train[wrong] = rng.integers(10, size=wrong.sum())
    model = MLPClassifier(
        (300, 300),
        dropout=dropout,
        max_iter=3 if short else 100,
        n_iter_no_change=100,
        random_state=seed,
    )
    return model.fit(X_train, y_train).score(X_test, y_test)


for dropout in (0.0, 0.7) if short else (0.0, 0.5, 0.7):
    accuracy = mean_score(lambda seed, p=dropout: accuracy_with(p, seed))
    print(f"dropout={dropout}: accuracy {accuracy:.3f}")

# %%
# **Class weights.** Which images show an 8? One in ten does, and with strong
# regularisation the network that minimises the loss never says so. Balanced weights make
# the tenth count as much as the rest. (The balanced accuracy of a coin is 0.5.)


def balanced_accuracy_with(class_weight, seed):
    X_train, X_test, y_train, y_test = train_test_split(
        X / 16, y == 8, train_size=200, stratify=y == 8, random_state=seed
    )
    model = MLPClassifier(
        (50,),
        alpha=1.0,
        class_weight=class_weight,
        max_iter=100,
        random_state=seed,
    )
    predicted = model.fit(X_train, y_train).predict(X_test)
    return balanced_accuracy_score(y_test, predicted)


for weight in (None, "balanced"):
    accuracy = mean_score(lambda seed, w=weight: balanced_accuracy_with(w, seed))
    print(f"class_weight={weight!r}: balanced accuracy {accuracy:.3f}")

# %%
# **Schedules.** Eight epochs of gradient descent with a rate that is good to begin with
# and too large to end with: at a constant one the loss grows again; one that falls lets
# the weights settle.


def fitted_with(learning_rate, seed):
    X_train, X_test, y_train, y_test = scaled_split(X, y, seed, train_size=1000)
    model = MLPClassifier(
        solver="sgd",
        learning_rate_init=0.1,
        learning_rate=learning_rate,
        batch_size=16,
        max_iter=8,
        random_state=seed,
    )
    return model.fit(X_train, y_train, X_val=X_test, y_val=y_test)


figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for ax, schedule in zip(axes, ("constant", "cosine", "one_cycle"), strict=True):
    models = [fitted_with(schedule, seed) for seed in splits]
    accuracy = np.mean([model.validation_scores_[-1] for model in models])
    print(f"learning_rate={schedule!r}: accuracy {accuracy:.3f}")
    display = LossCurveDisplay(
        loss_curve=models[0].loss_curve_,
        validation_loss_curve=models[0].validation_loss_curve_,
    )
    display.plot(ax=ax)
    ax.set_title(schedule)
    if ax is not axes[-1]:  # one legend is enough
        ax.get_legend().remove()
figure.savefig("schedules.png")
print("The picture is schedules.png.")

# %%
# **Clipping.** Targets of the size of 150 make gradients as large, and gradient descent
# leaves the data after a few steps. A limit for the length of the gradient keeps it.

X, y = load_diabetes(return_X_y=True)


def r2_with(max_grad_norm, seed):
    X_train, X_test, y_train, y_test = scaled_split(X, y, seed)
    model = MLPRegressor(
        hidden_layer_sizes=(50, 50),
        solver="sgd",
        learning_rate_init=0.01,
        max_grad_norm=max_grad_norm,
        max_iter=100,
        random_state=seed,
    )
    try:
        return model.fit(X_train, y_train).score(X_test, y_test)
    except ValueError:  # it says that the training diverged
        return np.nan


for limit in (None, 10.0, 1.0):
    r2 = mean_score(lambda seed, c=limit: r2_with(c, seed))
    print(f"max_grad_norm={limit}: {f'R^2 {r2:.2f}' if r2 > -1 else 'diverged'}")

# %%
# What a network does with its gradients, the report of one says at a glance.

model = MLPRegressor("huber", (50, 50), max_iter=20, random_state=0).fit(X, y)
print(model.gradient_report(X, y))
