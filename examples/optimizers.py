"""
Optimizers compared
===================

One problem, one network, the same initial weights and batches; only the rule that turns
gradients into steps differs. Each has the learning rate that does best here, of those
tried.
"""

import sys
import warnings

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from fastbp import MLPClassifier

short = "--short" in sys.argv
epochs = 3 if short else 30
warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are wanted
X, y = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(X)

OPTIMIZERS = {
    "SGD": {"solver": "sgd", "momentum": 0},
    "momentum": {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False},
    "Nesterov": {"solver": "sgd", "momentum": 0.9},
    "RMSprop": {"solver": "rmsprop"},
    "Adam": {"solver": "adam"},
}
RATES = [1e-2] if short else [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1, 3]


def train(options, rate):
    """The model after all epochs, or None if the training diverges."""
    model = MLPClassifier(
        (100,),
        learning_rate_init=rate,
        batch_size=100,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=0,
        **options,
    )
    try:
        return model.fit(X, y)
    except ValueError:  # "Solver produced a non-finite loss"
        return None


figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, options in OPTIMIZERS.items():
    models = [train(options, rate) for rate in RATES]
    best = min(filter(None, models), key=lambda model: model.loss_)
    axes.semilogy(
        range(1, epochs + 1),
        best.loss_curve_,
        label=f"{name}, rate {best.learning_rate_init:g}",
    )
    print(
        f"{name:9} learning rate {best.learning_rate_init:<6g} "
        f"loss after {epochs} epochs {best.loss_:.5f}"
    )
axes.set(xlabel="epoch", ylabel="cross-entropy", title="Digits, 100 hidden units")
axes.legend()
figure.savefig("optimizers.png")
print("The picture is optimizers.png.")
