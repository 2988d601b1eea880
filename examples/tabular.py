"""
A table of mixed types
======================

The Auto MPG data (UCI, 1983): how far do 392 cars get on a gallon? Numbers, categories
and a maker's name in one ``DataFrame``; a ``ColumnTransformer`` prepares them, and
``GridSearchCV`` finds the network's parameters. Nothing in it knows that the regressor is
not scikit-learn's.
"""

import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mlxtend.data
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastbp import MLPRegressor

short = "--short" in sys.argv
warnings.simplefilter("ignore", ConvergenceWarning)  # the search decides how many

# %%
# mlxtend ships the file; its own reader leaves the names out.

NUMBERS = ["displacement", "horsepower", "weight", "acceleration", "year"]
cars = pd.read_csv(
    Path(mlxtend.data.__file__).parent / "data" / "autompg.csv.gz",
    names=["cylinders", *NUMBERS, "origin", "name", "mpg"],
)
cars["origin"] = cars["origin"].map({1: "America", 2: "Europe", 3: "Japan"})
cars["maker"] = cars["name"].str.split().str[0]
X, y = cars.drop(columns=["name", "mpg"]), cars["mpg"]
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
print(X.head(3).to_string())

# %%
# Makers that are rare share a column.


def pipeline(regressor):
    """The regressor on prepared columns, for targets of mean 0 and deviation 1."""
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), NUMBERS),
            (
                "categories",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist",
                    min_frequency=8,
                    sparse_output=False,
                ),
                ["cylinders", "origin", "maker"],
            ),
        ]
    )
    return TransformedTargetRegressor(
        make_pipeline(columns, regressor), transformer=StandardScaler()
    )


grid = {
    "regressor__mlpregressor__hidden_layer_sizes": [(20,), (50,), (50, 20)],
    "regressor__mlpregressor__alpha": [0.01, 0.1, 1, 10],
    "regressor__mlpregressor__activation": ["relu", "tanh"],
}
if short:
    grid = {"regressor__mlpregressor__alpha": [0.1, 1]}
search = GridSearchCV(
    pipeline(MLPRegressor(max_iter=20 if short else 300, random_state=0)),
    grid,
    scoring="neg_mean_absolute_error",
    cv=3 if short else 5,
)
started = time.perf_counter()
search.fit(X_train, y_train)
seconds = time.perf_counter() - started
n_fits = len(search.cv_results_["params"]) * search.n_splits_ + 1
print(f"{n_fits} fits in {seconds:.1f} s; the best parameters:")
for name, value in search.best_params_.items():
    print(f"   {name.rpartition('__')[2]} = {value}")

# %%
# Miles per gallon by which the predictions for other cars are wrong, on average.

linear = pipeline(RidgeCV(np.logspace(-3, 3, 13))).fit(X_train, y_train)
for name, model in (("linear model", linear), ("network", search.best_estimator_)):
    error = np.abs(model.predict(X_test) - y_test).mean()
    print(f"{name}: {error:.2f} miles per gallon off")

# %%
# What the network looks at: how much worse it is when a column is shuffled.

found = permutation_importance(
    search.best_estimator_,
    X_test,
    y_test,
    scoring="neg_mean_absolute_error",
    n_repeats=3 if short else 20,
    random_state=0,
)
order = found.importances_mean.argsort()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.scatter(y_test, search.predict(X_test), s=12)
left.axline((20, 20), slope=1, color="0.6", linewidth=1)
left.set(xlabel="miles per gallon", ylabel="predicted", aspect="equal")
right.barh(
    X.columns[order], found.importances_mean[order], xerr=found.importances_std[order]
)
right.set_xlabel("miles per gallon lost when the column is shuffled")
figure.savefig("tabular.png")
print("The picture is tabular.png.")
