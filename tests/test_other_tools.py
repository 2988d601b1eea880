"""Tools of other people that models go into, and data that come out of them."""

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import sklearn.neural_network as reference
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.inspection import DecisionBoundaryDisplay, PartialDependenceDisplay
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fastbp
from fastbp import MLPClassifier, MLPRegressor
from fastbp.tables import MORE_ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

QUICK = {"hidden_layer_sizes": (8, 5), "max_iter": 30, "random_state": 0}
X = StandardScaler().fit_transform(load_wine().data)
Y = load_wine().target
T = StandardScaler().fit_transform(load_diabetes().data)[: len(X), :3]
#: Sums of a dozen numbers in another order: a few roundings of each dtype.
TOLERANCES = {"float64": 1e-12, "float32": 3e-5}


# ------------------------------------------------------------- ONNX

CLASSES = {
    "binary": Y > 0,
    "three classes": Y,
    "floats": Y / 1.0,
    "strings": np.array(["barbera", "barolo", "grignolino"])[Y],
    "objects": np.array(["barbera", "barolo", "grignolino"], object)[Y],
    "two strings": np.array(["no", "yes"])[(Y > 1).astype(int)],
    "one class": np.zeros(len(Y), int) + 3,
    "multilabel": np.column_stack([Y > 0, Y == 1]).astype(int),
}
TARGETS = {
    "one target": ({}, T[:, 0]),
    "several targets": ({}, T),
    "poisson": ({"loss": "poisson"}, np.exp(T[:, 0])),
    "several poisson": ({"loss": "poisson"}, np.exp(T)),
}


def run(graph, inputs):
    """ONNX Runtime's outputs by name."""
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("labels", CLASSES)
def test_onnx_classifies_alike(labels, dtype):
    rows, y = X.astype(dtype), CLASSES[labels]
    model = MLPClassifier(**QUICK).fit(rows, y)
    found = run(fastbp.to_onnx(model, rows[:1]), {"X": rows})
    expected = model.predict_proba(rows)
    assert found["probabilities"].dtype == dtype
    np.testing.assert_allclose(
        found["probabilities"], expected, rtol=0, atol=TOLERANCES[dtype]
    )
    if labels == "multilabel":
        margin = np.abs(expected - 0.5)
    else:
        margin = np.diff(np.sort(expected)[:, -2:])
    clear = (margin > 1e-4).all(axis=1) | (labels == "one class")
    assert clear.sum() > 0.9 * len(rows)  # the others may be a tie for float32
    np.testing.assert_array_equal(found["label"][clear], model.predict(rows)[clear])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("targets", TARGETS)
def test_onnx_regresses_alike(targets, dtype):
    rows, (options, y) = X.astype(dtype), TARGETS[targets]
    model = MLPRegressor(**QUICK, **options).fit(rows, y)
    found = run(fastbp.to_onnx(model, rows[:1]), {"X": rows})["variable"]
    assert found.dtype == dtype
    expected = model.predict(rows).reshape(len(rows), -1)
    # relative to what exp has multiplied
    atol = TOLERANCES[dtype] * max(1, expected.max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (7,)])
def test_onnx_has_every_activation(activation, hidden):
    options = {**QUICK, "hidden_layer_sizes": hidden, "activation": activation}
    model = MLPRegressor(**options).fit(X, T)
    found = run(fastbp.to_onnx(model, X), {"X": X})["variable"]
    np.testing.assert_allclose(
        found, model.predict(X), rtol=0, atol=TOLERANCES["float64"]
    )


@pytest.mark.parametrize("activation", MORE_ACTIVATIONS)
def test_onnx_has_the_activations_that_scikit_learn_has_not(activation):
    model = MLPRegressor(**QUICK, activation=[activation, "tanh"]).fit(X, T)
    found = run(fastbp.to_onnx(model, X), {"X": X})["variable"]
    dtype = "float32" if activation == "gelu" else "float64"  # ONNX Runtime's Erf
    np.testing.assert_allclose(found, model.predict(X), rtol=0, atol=TOLERANCES[dtype])
    rows = X.astype(np.float32)
    found = run(fastbp.to_onnx(model, rows), {"X": rows})["variable"]
    tolerance = TOLERANCES["float32"]
    np.testing.assert_allclose(found, model.predict(X), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [{"loss": "gamma"}, {"loss": "quantile", "quantile": [0.1, 0.5, 0.9]}],
    ids=["gamma", "quantiles"],
)
def test_onnx_has_the_outputs_that_scikit_learn_has_not(options):
    model = MLPRegressor(**QUICK, **options).fit(X, np.exp(T[:, 0]))
    found = run(fastbp.to_onnx(model, X), {"X": X})["variable"]
    expected = model.predict(X).reshape(len(X), -1)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCES["float64"])


def test_onnx_of_a_pipeline_of_columns():
    frame = pd.DataFrame(X[:, :4], columns=["a", "b", "c", "d"])
    frame["origin"] = np.array(["north", "south"])[(X[:, 5] > 0).astype(int)]
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["a", "b", "c", "d"]),
            ("words", OneHotEncoder(), ["origin"]),
        ]
    )
    pipeline = make_pipeline(columns, MLPClassifier(**QUICK)).fit(frame, Y)
    graph = fastbp.to_onnx(pipeline, frame[:1])
    inputs = {name: frame[[name]].to_numpy() for name in frame}
    found = run(graph, inputs)
    # skl2onnx's OneHotEncoder is float32, so what joins it is too
    np.testing.assert_allclose(
        found["probabilities"],
        pipeline.predict_proba(frame),
        rtol=0,
        atol=TOLERANCES["float32"],
    )
    np.testing.assert_array_equal(found["label"], pipeline.predict(frame))


def test_onnx_of_a_data_frame_has_an_input_a_column():
    frame = pd.DataFrame(X[:, :3], columns=["a", "b", "c"])
    model = MLPRegressor(**QUICK).fit(frame, T)
    inputs = {name: frame[[name]].to_numpy() for name in frame}
    found = run(fastbp.to_onnx(model, frame[:1]), inputs)["variable"]
    np.testing.assert_allclose(
        found, model.predict(frame), rtol=0, atol=TOLERANCES["float64"]
    )


def test_onnx_probabilities_as_dictionaries_if_asked_for():
    rows = X.astype(np.float32)
    model = MLPClassifier(**QUICK).fit(rows, Y)
    found = run(fastbp.to_onnx(model, rows[:1], options={}), {"X": rows})
    (probabilities,) = (value for name, value in found.items() if "prob" in name)
    assert list(probabilities[0]) == [0, 1, 2]
    expected = model.predict_proba(rows)
    assert probabilities[5][2] == pytest.approx(expected[5, 2], abs=TOLERANCES["float32"])


def test_onnx_probabilities_as_columns_if_asked_for():
    model = MLPClassifier(**QUICK).fit(X, Y)
    options = {MLPClassifier: {"zipmap": "columns"}}
    _, *columns = run(fastbp.to_onnx(model, X, options=options), {"X": X}).values()
    np.testing.assert_allclose(
        np.column_stack(columns),
        model.predict_proba(X),
        rtol=0,
        atol=TOLERANCES["float64"],
    )


def test_onnx_in_float32_of_a_model_in_float64():
    rows = X.astype(np.float32)
    model = MLPRegressor(**QUICK).fit(X, T)
    found = run(fastbp.to_onnx(model, rows), {"X": rows})["variable"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, model.predict(X), rtol=0, atol=TOLERANCES["float32"]
    )


def test_onnx_of_what_a_search_has_found():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 1]}, cv=2).fit(X, Y)
    found = run(fastbp.to_onnx(search.best_estimator_, X), {"X": X})
    np.testing.assert_allclose(
        found["probabilities"],
        search.predict_proba(X),
        rtol=0,
        atol=TOLERANCES["float64"],
    )


def test_onnx_refuses_what_it_cannot_say():
    with pytest.raises(NotFittedError):
        fastbp.to_onnx(MLPClassifier(), X)
    with pytest.raises(NotFittedError):
        fastbp.to_onnx(MLPRegressor(), X)
    with pytest.raises(TypeError, match="needs X, one row of it at least"):
        fastbp.to_onnx(MLPRegressor(**QUICK).fit(X, T))
    model = MLPClassifier(**QUICK).fit(X, np.array([0, 1, 2**63], np.uint64)[Y])
    with pytest.raises(ValueError, match="whole numbers or strings"):
        fastbp.to_onnx(model, X)
    for rows, kind in (
        (X.tolist(), "builtins.list"),
        (pl.DataFrame(X), "polars.DataFrame"),
        (csr_array(X), "scipy.csr_array"),
    ):
        with pytest.raises(TypeError, match=f"a pandas DataFrame, got {kind}"):
            fastbp.to_onnx(model, rows)


def test_onnx_of_a_model_of_sparse_rows_takes_dense_ones():
    rows = np.where(np.abs(X) > 1, X, 0.0)
    model = MLPRegressor(**QUICK).fit(csr_array(rows), T)
    found = run(fastbp.to_onnx(model, rows[:1]), {"X": rows})["variable"]
    np.testing.assert_allclose(
        found, model.predict(csr_array(rows)), rtol=0, atol=TOLERANCES["float64"]
    )


def test_onnx_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    with pytest.raises(ImportError, match="pip install skl2onnx"):
        fastbp.to_onnx(MLPClassifier(**QUICK).fit(X, Y), X)


# ------------------------------------------------------------- skops


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("network", [MLPClassifier, MLPRegressor])
def test_skops_gives_back_the_model(network, solver):
    import skops.io

    model = make_pipeline(StandardScaler(), network(**QUICK, solver=solver)).fit(X, Y)
    saved = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=saved)
    assert all(name.startswith("fastbp.") for name in unknown)  # nothing odd inside
    twin = skops.io.loads(saved, trusted=unknown)
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    if solver != "lbfgs":  # which has no partial_fit
        for estimator in (twin[-1], model[-1]):
            estimator.partial_fit(X, Y)  # the moments, and the next random numbers
        for ours, theirs in zip(twin[-1].coefs_, model[-1].coefs_, strict=True):
            np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------- SHAP


@pytest.mark.filterwarnings("ignore")  # SHAP uses what others deprecate
def test_shap_values_add_up_to_the_predictions():
    import shap  # takes seconds

    rows = X[:, :6]
    model = MLPRegressor(**QUICK).fit(rows, T[:, 0])
    explainer = shap.explainers.Exact(model.predict, rows[:20])
    explanation = explainer(rows[:5])
    # Shapley's efficiency: what the features contribute adds up to the prediction
    np.testing.assert_allclose(
        explanation.values.sum(axis=1) + explanation.base_values,
        model.predict(rows[:5]),
        rtol=1e-9,
    )
    assert explanation.base_values[0] == pytest.approx(model.predict(rows[:20]).mean())
    theirs = shap.explainers.Exact(model.to_sklearn().predict, rows[:20])(rows[:5])
    np.testing.assert_allclose(explanation.values, theirs.values, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------- pandas, polars

FRAMES = {
    "pandas": (pd.DataFrame, pd.Series),
    "pandas of float32": (
        lambda data: pd.DataFrame(data).astype("float32"),
        pd.Series,
    ),
    "pandas of Arrow": (
        lambda data: pd.DataFrame(data).astype("double[pyarrow]"),
        pd.Series,
    ),
    "polars": (pl.DataFrame, pl.Series),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_data_frames_are_taken_as_scikit_learn_takes_them(kind):
    if kind == "pandas of Arrow":
        pytest.importorskip("pyarrow", exc_type=ImportError)  # it needs NumPy 2
    frame, series = FRAMES[kind]
    data = frame({f"column {i}": X[:, i] for i in range(5)})
    labels = series(Y.tolist())
    ours, theirs = (
        model(**QUICK).fit(data, labels)
        for model in (MLPClassifier, reference.MLPClassifier)
    )
    names = getattr(theirs, "feature_names_in_", None)  # None: polars before 1.7
    np.testing.assert_array_equal(getattr(ours, "feature_names_in_", None), names)
    tolerance = TOLERANCES["float32" if kind.endswith("float32") else "float64"]
    np.testing.assert_allclose(
        ours.predict_proba(data), theirs.predict_proba(data), rtol=0, atol=tolerance
    )
    if names is not None:
        with pytest.raises(ValueError, match="The feature names should match"):
            ours.predict(data[data.columns[::-1]])


# ------------------------------------------------------------- sklearn.inspection


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_partial_dependence_is_scikit_learns():
    displays = [
        PartialDependenceDisplay.from_estimator(
            model(**QUICK).fit(X[:, :4], T[:, 0]), X[:, :4], [1], kind="both"
        )
        for model in (MLPRegressor, reference.MLPRegressor)
    ]
    ours, theirs = (display.pd_results[0] for display in displays)
    for values in ("average", "individual", "grid_values"):
        np.testing.assert_allclose(ours[values], theirs[values], rtol=1e-7, atol=1e-9)
    assert np.ptp(theirs["average"]) > 0.01  # the feature matters


def test_decision_boundary_is_scikit_learns():
    ours, theirs = (
        DecisionBoundaryDisplay.from_estimator(
            model(**QUICK).fit(X[:, :2], Y > 0),
            X[:, :2],
            response_method="predict_proba",
            grid_resolution=20,
        )
        for model in (MLPClassifier, reference.MLPClassifier)
    )
    np.testing.assert_allclose(ours.response, theirs.response, rtol=0, atol=1e-9)
