"""``python -m fastbp``: fastbp and scikit-learn side by side on real data.

``python -m fastbp --doctor`` tells about the installation instead.
"""

import argparse
import time
import warnings
from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastbp
from fastbp import maintenance

DATA = {
    "digits": (sklearn.datasets.load_digits, "images of handwritten digits"),
    "breast-cancer": (sklearn.datasets.load_breast_cancer, "tumour measurements"),
    "wine": (sklearn.datasets.load_wine, "chemical analyses of wines"),
}


#: Epochs of each fit of the search, so that scikit-learn's half does not take long.
SEARCH_EPOCHS = 30


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fastbp",
        description="Train fastbp's and scikit-learn's MLPClassifier with the same "
        "seed on the same data, compare models and times, then search a small grid.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data",
        choices=DATA,
        default="digits",
        help="; ".join(f"{name}: {about}" for name, (_, about) in DATA.items()),
    )
    parser.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="precision of the data, and so of both models",
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=[100],
        metavar="UNITS",
        help="units of each hidden layer; none for a linear model",
    )
    parser.add_argument("--epochs", type=int, default=200, help="largest number")
    parser.add_argument("--seed", type=int, default=0, help="random_state of both")
    parser.add_argument(
        "--doctor",
        action="store_true",
        help="print versions, processor, threads and compile cache, and try a fit",
    )
    arguments = parser.parse_args(argv)
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be from 0 to 2**32 - 1, got {arguments.seed}")
    if any(units < 1 for units in arguments.hidden):
        parser.error(f"--hidden takes positive numbers, got {arguments.hidden}")
    return arguments


def _pipeline(classifier: Any, arguments: argparse.Namespace) -> Any:
    return make_pipeline(
        StandardScaler(),
        classifier(
            hidden_layer_sizes=tuple(arguments.hidden),
            max_iter=arguments.epochs,
            random_state=arguments.seed,
        ),
    )


def _seconds(action: Any, *args: Any) -> float:
    started = time.perf_counter()
    action(*args)
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> None:
    """Run the comparison, or the doctor, and print it."""
    arguments = _arguments(argv)
    if arguments.doctor:
        for line in maintenance.report():
            print(line, flush=True)
        return
    warnings.simplefilter("ignore", ConvergenceWarning)
    load, about = DATA[arguments.data]
    X, y = load(return_X_y=True)
    X = X.astype(arguments.dtype)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, random_state=arguments.seed, stratify=y
    )
    print(
        f"Data      {about}: {len(X_train)} rows to train on, {len(X_test)} to test, "
        f"{X.shape[1]} features, {len(np.unique(y))} classes, {arguments.dtype}",
        flush=True,
    )

    ours = _pipeline(fastbp.MLPClassifier, arguments)
    theirs = _pipeline(sklearn.neural_network.MLPClassifier, arguments)
    print(
        "Compiling fastbp's kernels (cached on disk for the next time) ...",
        end=" ",
        flush=True,
    )
    started = time.perf_counter()
    first = clone(ours).set_params(mlpclassifier__max_iter=1)
    first.fit(X_train, y_train).predict(X_test)
    print(f"{time.perf_counter() - started:.1f} s", flush=True)

    print("Training scikit-learn ...", end=" ", flush=True)
    their_seconds = _seconds(theirs.fit, X_train, y_train)
    print(f"{theirs[-1].n_iter_} epochs in {their_seconds:.3f} s", flush=True)
    print("Training fastbp ...", end=" ", flush=True)
    our_seconds = _seconds(ours.fit, X_train, y_train)
    print(f"{ours[-1].n_iter_} epochs in {our_seconds:.3f} s", flush=True)

    epochs = min(ours[-1].n_iter_, theirs[-1].n_iter_)
    difference = np.abs(
        np.array(ours[-1].loss_curve_[:epochs])
        - np.array(theirs[-1].loss_curve_[:epochs])
    ).max()
    print()
    print(f"{'':24}{'scikit-learn':>14}{'fastbp':>14}")
    scores = theirs.score(X_test, y_test), ours.score(X_test, y_test)
    print(f"{'Test accuracy':24}{scores[0]:14.4f}{scores[1]:14.4f}")
    losses = theirs[-1].loss_, ours[-1].loss_
    print(f"{'Final training loss':24}{losses[0]:14.6f}{losses[1]:14.6f}")
    print(f"{'Fit time':24}{their_seconds:12.3f} s{our_seconds:12.3f} s")
    print(f"Largest difference between the two loss curves: {difference:.1e}")
    print(f"fastbp is {their_seconds / our_seconds:.1f} times as fast.")

    grid = {"mlpclassifier__alpha": [1e-4, 1e-2, 1.0]}
    epochs = min(arguments.epochs, SEARCH_EPOCHS)
    print(
        f"\nGridSearchCV over alpha = {grid['mlpclassifier__alpha']}, 3 folds, "
        f"{epochs} epochs:"
    )
    for name, pipeline in (("scikit-learn", theirs), ("fastbp", ours)):
        candidate = clone(pipeline).set_params(mlpclassifier__max_iter=epochs)
        search = GridSearchCV(candidate, grid, cv=3)
        seconds = _seconds(search.fit, X_train, y_train)
        print(
            f"{name:>14}: best alpha {search.best_params_['mlpclassifier__alpha']}, "
            f"accuracy {search.best_score_:.4f}, {seconds:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
