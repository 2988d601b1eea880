"""Random calls on random estimators: each must end in a result or an ordinary error.

``python -m tests.fuzz --minutes 60 --seed 0`` runs workers one after another and exits
with 1 after a crash, a hang, an error of a type that scikit-learn does not document, or a
promise that is not kept (``Broken``). FUZZ_PLAIN=1 leaves out what scikit-learn's
networks do not have. The kernels' accesses are checked, unless under
NUMBA_BOUNDSCHECK=0. A worker says what it will do before it does it, so that the parent
knows what it died of. Case k depends on (seed, k) only: ``python -m tests.fuzz --seed 0
--case k`` shows its steps. An odd error is no defect if scikit-learn's own estimator, in
the same case, raises its like.
"""

import argparse
import contextlib
import copy
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fastbp


class Broken(Exception):
    """A promise of fastbp's that is not kept."""


def one(*items):
    """A generator of any of the items."""
    return lambda rng: items[rng.integers(len(items))]


def changed(table, usual, rng, *args):
    """What the table's first function, mostly, or else any makes of the arguments.

    The last argument itself, if NumPy, pandas or SciPy refuse.
    """
    change = table[rng.random() >= usual and rng.integers(len(table))]
    with contextlib.suppress(Exception):
        return change(rng, *args)
    return args[-1]


def same(rng, value):
    return value


def put(value):
    """Writes the value somewhere into an array, in place."""

    def change(rng, a):
        a.flat[rng.integers(a.size)] = value
        return a

    return change


def cast(*dtypes):
    return lambda rng, a: a.astype(one(*dtypes)(rng))


# Parameters


def layer_sizes(rng):
    sizes = rng.integers(1, 71, rng.choice(5, p=[0.1, 0.4, 0.3, 0.1, 0.1])).tolist()
    sizes += [300] * (rng.random() < 0.05)
    return one(tuple(sizes), sizes, np.array(sizes, np.int16), sizes[-1:] or 3)(rng)


FLAG, DECAY = one(False, True, np.True_), one(0.9, 0, 0.5, 1 - 1e-16, 5e-324)
VALID = {
    "hidden_layer_sizes": layer_sizes,
    "max_iter": one(1, 2, 3, 5, np.int8(2)),
    "solver": one("adam", "adam", "sgd", "sgd", "lbfgs"),
    "activation": one("relu", "tanh", "logistic", "identity"),
    "loss": one("squared_error", "poisson"),
    "alpha": one(0, 1e-4, 1.0, 1e10, 1e-300, 5e-324, Fraction(1, 3), np.inf),
    "batch_size": one("auto", 1, 2, 7, 32, 200, 299, 10**6, 2**70, np.int8(9)),
    "learning_rate": one("constant", "invscaling", "adaptive"),
    "learning_rate_init": one(1e-3, 0.1, 1, 1e10, 1e-300, 1e308, 5e-324, np.float32(0.5)),
    "power_t": one(0.5, 0, 1, 3.0, 1000),
    "random_state": one(0, 1, None, np.int64(2), np.random.RandomState(3)),
    "tol": one(1e-4, 0, 0.1, 1e300, np.inf),
    "momentum": one(0.9, 0, 1, 0.5),
    "validation_fraction": one(0.1, 0.5, 0.99, 0, 1e-9),
    "epsilon": one(1e-8, 1.0, 1e-300, 1e300, 5e-324),
    "n_iter_no_change": one(10, 1, 2, np.inf),
    "max_fun": one(15000, 1, 2, 10),
    "dtype": one("auto", "float32", "float64"),
    "n_jobs": one(None, 1, 2, 3, -1, np.int64(2)),
    "verbose": one(False),
    **dict.fromkeys(("beta_1", "beta_2"), DECAY),
    **dict.fromkeys(
        ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"), FLAG
    ),
}
#: Whether to leave out what follows, whose programs take minutes to compile.
PLAIN = os.environ.get("FUZZ_PLAIN") == "1"
#: What scikit-learn's networks do not have: other parameters, other values of its own.
BEYOND = {
    "activation": one(
        *("leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus"),
        *(["relu"], ["gelu", "tanh"], ("elu",) * 3, []),
    ),
    "solver": one("adamw", "rmsprop", "nadam"),
    "learning_rate": one("cosine", "one_cycle", "reduce_on_plateau"),
    "loss": one("gamma", "absolute_error", "huber", "quantile"),
    "init": one("he_normal", "lecun_normal", "orthogonal"),
    "frozen_layers": one(0, 1, 2),
    "dropout": one(0.5, 0.1, 0.0, 1 - 1e-16, 5e-324, [0.5], (0.2, 0.3)),
    "weight_decay": one(0.01, 0, 1.0, 1e10, None),
    "max_grad_norm": one(1.0, 1e-3, 1e300, 5e-324, None),
    "warmup_epochs": one(0, 1, 0.5, 1e300, 5e-324),
    "scoring": one(None, "loss", "r2", "accuracy", "neg_log_loss"),
    "restore_best_weights": FLAG,
    "max_time": one(1e9, 1e-9, None),
    "class_weight": one(None, "balanced", {0: 2.0}, {"a": 0.0, 1: 3}),
    "label_smoothing": one(0.1, 0.0, 1 - 1e-16),
    "quantile": one(0.5, 0.9, [0.1, 0.5], (0.01, 0.5, 0.99), 5e-324),
    "huber_delta": one(1.0, 0.1, 1e300, 5e-324),
}
ANYTHING = one(
    *(None, "", "word", b"adam", np.str_("sgd"), True, object(), int, {}, {"a": 1}),
    *(0, -1, 3, 2**70, -(2**70), 10**400, 0.5, -0.5, 1e308, np.nan, np.inf, -np.inf, 1j),
    *(np.float32(0.5), np.float64("nan"), np.int64(3), np.uint8(200), np.bool_(True)),
    *((), [], [[1, 2], [3]], (0,), (5, -1), (2.5,), (True,), (2**63,), 10**12, ((3,),)),
    *(np.array(3), np.array(0.5), np.array([5.0, 2.0]), np.array([[3, 4]]), [np.nan]),
    *(np.array("adam"), np.array([]), np.array(["relu", "tanh"]), Fraction(7, 2)),
    *(np.datetime64("2020"), np.ma.masked, pd.NA, pd.Series([4, 5]), range(2, 5)),
)


def parameters(case, rng, share, unknown=()):
    """Some valid parameters, and sometimes bad ones among them."""
    names = [n for n in VALID if n in case.known]
    chosen = {n: VALID[n](rng) for n in names if rng.random() < share}
    if rng.random() < 0.3:
        for name in rng.choice([*names, *unknown], rng.integers(1, 4)).tolist():
            chosen[name] = ANYTHING(rng)
    if isinstance(chosen.get("max_iter"), int) and chosen["max_iter"] > 100:
        chosen["max_iter"] = -5  # as many would take too long
    beyond = [name for name in BEYOND if name in case.known]
    if rng.random() < 0.3 and not PLAIN:
        more = {n: BEYOND[n](rng) for n in beyond if rng.random() < share / 2}
        if not case.twin:
            chosen |= more
    if case.twin:
        foreign = {"dtype", "n_jobs", *(set(beyond) - set(VALID))}
        chosen = {n: value for n, value in chosen.items() if n not in foreign}
    return chosen


# X: values, then dtype, then layout, then container


def unaligned(rng, a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(rng, a):
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(rng, a):
    with tempfile.TemporaryFile() as file:
        view = np.memmap(file, a.dtype, "w+", shape=a.shape)
        view[...] = a
        return view


VALUES = [
    same,
    lambda rng, a: np.round(a),
    lambda rng, a: np.full_like(a, 2.5),
    *(lambda rng, a, scale=scale: a * scale for scale in (0, 1e-300, 1e300, 1e30)),
    *map(put, (np.nan, np.inf, -np.inf, 5e-324, 1e300, -1e40)),
]
DTYPES = [*"fdeilB?OUSDg", ">f8", ">f4", ">i4", "M8[D]", "m8[s]"]
LAYOUTS = [
    same,
    lambda rng, a: np.asfortranarray(a),
    lambda rng, a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    lambda rng, a: a[::-1, ::-1].copy()[::-1, ::-1],
    lambda rng, a: np.broadcast_to(a[0], a.shape),
    lambda rng, a: np.broadcast_to(a[:, :1], a.shape),
    lambda rng, a: a.view(np.matrix),
    lambda rng, a: np.ma.masked_array(a, a == a.flat[0]),
    *(unaligned, read_only, mapped),
]


def unsorted(rng, S):
    """Another matrix, whose indices descend."""
    stored = S.data[::-1].copy(), S.indices[::-1].copy(), S.nnz - S.indptr[::-1]
    return type(S)(stored, shape=S.shape)


def twice(rng, S):
    """Every entry is stored in two parts."""
    stored = np.repeat(S.data, 2), np.repeat(S.indices, 2), 2 * S.indptr
    return type(S)(stored, shape=S.shape)


def wide(rng, S):
    for name in one(["indices"], ["indptr"], ["indices", "indptr"])(rng):
        setattr(S, name, getattr(S, name).astype(np.int64))
    return S


def foreign(rng, S):
    S.data = S.data.astype(S.data.dtype.newbyteorder(">"))
    return S


def torn(rng, S):
    """Some index is out of range."""
    arrays = ("row", "col") if S.format == "coo" else ("indices", "indptr")
    place, value = rng.integers(-1, 2), one(-1, *S.shape, 302, 2**31 - 1)(rng)
    getattr(S, one(*arrays)(rng)).put(place, value)
    return S


def as_sparse(rng, a):
    """Mostly zeros, in any format, which are stored in part."""
    name = one("csr", "csr", "csr", "csc", "coo", "lil", "dok", "bsr", "dia")(rng)
    make = getattr(sparse, name + one("_matrix", "_array")(rng))
    S = make(np.where(rng.random(a.shape) < 0.3, a, 0).astype(a.dtype))
    if rng.random() < 0.2:
        S.data[::2] = 0
    return changed([same, unsorted, twice, wide, foreign, torn], 0.4, rng, S)


CONTAINERS = [
    same,
    *[as_sparse] * 8,
    lambda rng, a: a.tolist(),
    lambda rng, a: tuple(map(tuple, a.tolist())),
    lambda rng, a: pd.DataFrame(a),
    lambda rng, a: pd.DataFrame(a).add_prefix("x"),
    lambda rng, a: pd.DataFrame(a).add_prefix(one("a", "x")(rng)).iloc[:, ::-1],
    lambda rng, a: pd.DataFrame(a).assign(word=one("w", 3, None, True)(rng)),
    lambda rng, a: pd.DataFrame(a).convert_dtypes(),
    lambda rng, a: a[:, 0],
    lambda rng, a: a[:, :, None],
    lambda rng, a: one(None, 3.0, "text", [], {}, [[1.0], [2.0, 3.0]], np.array(1.0))(
        rng
    ),
]


def inputs(case, rng, n):
    """X, mostly of n rows and the case's number of columns."""
    shape = [n, case.columns]
    if rng.random() < 0.08:
        shape[rng.integers(2)] = one(0, 1, 2, 5, 301)(rng)
    X = rng.standard_normal(shape).astype(case.dtype)
    for table, usual in (VALUES, 0.8), ([same, cast(*DTYPES)], 0.6), (LAYOUTS, 0.8):
        X = changed(table, usual, rng, X)
    return changed(CONTAINERS, 0.65, rng, X)


# y, classes and sample weights

LABELS = one(
    *(np.arange(k) for k in (2, 2, 3, 5, 17)),
    *(
        np.array(["b", "a", "word"]),
        np.array(["x", "yy"], object),
        np.array([b"s", b"t"]),
    ),
    *(np.array([1.0, -2.0]), np.array([True, False]), np.array([2**62, -5, 0])),
    *(None, None),  # multilabel
)
TARGETS = [
    same,
    lambda rng, y: y.tolist(),
    lambda rng, y: y.reshape(len(y), -1)[:, :1],
    lambda rng, y: np.c_[y, y],
    lambda rng, y: pd.Series(y, index=np.arange(len(y))[::-1]),
    lambda rng, y: pd.Series(y).astype("category"),
    lambda rng, y: pd.DataFrame(y),
    lambda rng, y: y.astype(y.dtype.newbyteorder(">")),
    lambda rng, y: np.repeat(y, 2, 0)[::2],
    read_only,
    cast(*DTYPES),
    lambda rng, y: np.full_like(y, y.flat[0]),
    lambda rng, y: np.where(y == y.flat[0], y.flat[-1], y),
    lambda rng, y: rng.integers(0, len(y), len(y)),
    lambda rng, y: rng.standard_normal(len(y)),
    lambda rng, y: rng.poisson(2, (len(y), one(1, 3)(rng))).astype(float),
    lambda rng, y: rng.integers(0, 2, (len(y), one(1, 2, 3, 9)(rng))),
    lambda rng, y: sparse.csr_array(rng.integers(0, 2, (len(y), 3))).asformat(
        one("csr", "csc", "coo", "lil")(rng)
    ),
    lambda rng, y: y[one(np.s_[1:], np.s_[:0], np.s_[:, None, None], np.s_[::-1])(rng)],
    lambda rng, y: np.zeros((len(y), 0)),
    lambda rng, y: np.array([*y.tolist()[1:], one("new", None, 7, [])(rng)], object),
    lambda rng, y: put(one(np.nan, np.inf, 1e300, -1.0, 99.0, 0.5)(rng))(rng, y * 1.0),
    lambda rng, y: one(None, 1.0, "text", [], {}, [[0], [1, 2]], np.array(1))(rng),
]
CLASSES = [
    same,
    lambda rng, labels: None,
    lambda rng, labels: labels.tolist()[::-1],
    lambda rng, labels: labels[:1],
    lambda rng, labels: np.append(labels, 99),
    lambda rng, labels: one([], 3, "ab", [np.nan, 1], [[1, 2], [3, 4]], [None, 1])(rng),
]
WEIGHTS = [
    lambda rng, n: None,
    lambda rng, n: np.ones(n),
    lambda rng, n: rng.random(n),
    lambda rng, n: rng.random(n).astype(np.float32),
    lambda rng, n: rng.integers(0, 3, n),
    lambda rng, n: np.arange(n) == n - 1,
    lambda rng, n: rng.standard_normal(n),
    lambda rng, n: np.arange(n) % 2 * 2.0 - 1,
    lambda rng, n: put(one(np.nan, np.inf, 1e300, -1)(rng))(rng, np.ones(n)),
    lambda rng, n: np.full(n, one(0, 1e300, 1e38, 1.7e308, 1e-300, 5e-324, 1e-40)(rng)),
    lambda rng, n: np.full(n, one("w", 1, None)(rng), object),
    lambda rng, n: np.ones(one(n - 1, (n, 1), 0)(rng)),
    lambda rng, n: one(2.0, "balanced", [], {}, np.array(3.0), True, 1j, [1] * n)(rng),
]


def data(case, rng):
    """X, y and sample weights that go together, mostly."""
    n = one(1, 2, 3, 8, 30, 99, 201, 300, int(rng.integers(1, 301)))(rng)
    y = changed(TARGETS, 0.7, rng, case.targets(rng, n))
    return inputs(case, rng, n), y, changed(WEIGHTS, 0.6, rng, n)


# Steps: each builds its inputs, and returns a call and these inputs


def is_moderate(model, X):
    """Whether neither the numbers of X nor the weights can make an overflow."""
    arrays = [X.toarray() if sparse.issparse(X) else X, *model.coefs_, *model.intercepts_]
    return all(np.abs(np.asarray(a, float)).max(initial=0) < 1e3 for a in arrays)


def predicting(method):
    def step(case, rng):
        X = inputs(case, rng, one(1, 1, 2, 4, 5, 48, 49, 99, 300)(rng))

        def call(model):
            outputs = getattr(model, method)(X)
            if outputs.shape[0] != (X.shape[0] if hasattr(X, "shape") else len(X)):
                raise Broken(f"{outputs.shape} for X of another length")
            if sparse.issparse(outputs) or outputs.dtype.kind != "f":
                return
            if model.out_activation_ == "exp" or not is_moderate(model, X):
                return
            if method != "predict_log_proba" and not np.isfinite(outputs).all():
                raise Broken("outputs are not finite")
            exclusive = model.out_activation_ == "softmax" or model.n_outputs_ == 1
            sums = outputs.sum(axis=-1) if method == "predict_proba" else 1
            if exclusive and not np.allclose(sums, 1, rtol=0, atol=1e-5):
                raise Broken("rows do not sum to 1")

        return call, (X,)

    return step


def training(method):
    def step(case, rng):
        X, y, weight = data(case, rng)
        more = {"sample_weight": weight}
        if method == "partial_fit" and case.classifies:
            more["classes"] = changed(CLASSES, 0.7, rng, case.classes)
        if method == "fit" and rng.random() < 0.1:
            validation = dict(zip(("X_val", "y_val"), data(case, rng), strict=False))
            more |= {} if case.twin else validation

        def call(model):
            getattr(model, method)(X, y, **more)
            if not all(np.isfinite(w).all() for w in (*model.coefs_, *model.intercepts_)):
                raise Broken("weights are not finite")

        return call, (X, y, weight)

    return step


def fit_in_threads(case, rng):
    X, y, weight = data(case, rng)

    def call(model):
        models = [clone(model) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(m.fit, X, y, weight) for m in models]
        first, second = (job.result().coefs_ for job in jobs)
        if model.random_state is not None and not all(map(np.array_equal, first, second)):
            raise Broken("the models of two threads differ")

    return call, (X, y, weight)


def score(case, rng):
    X, y, weight = data(case, rng)
    return lambda model: model.score(X, y, sample_weight=weight), (X, y, weight)


def set_params(case, rng):
    changes = parameters(case, rng, 0.1, unknown=["nonsense"])
    return lambda model: model.set_params(**changes), (changes,)


def construct(case, rng):
    small = {n: VALID[n](rng) for n in ("hidden_layer_sizes", "max_iter")}
    chosen = {**small, **parameters(case, rng, 0.6)}
    return lambda model: case.estimator(**chosen), (chosen,)


def there_and_back(case, rng):
    if case.twin:
        return lambda model: None, ()
    return lambda model: case.estimator.from_sklearn(model.to_sklearn()), ()


EDITS = [
    *map(put, (np.nan, np.inf, 1e300, 1e38, 0.0)),
    cast(*DTYPES),
    *LAYOUTS,
    lambda rng, w: w.T,
    lambda rng, w: w.ravel(),
    lambda rng, w: w[one(np.s_[:-1], np.s_[..., :-1], np.s_[:0], None)(rng)],
    lambda rng, w: w.tolist(),
    lambda rng, w: np.concatenate([w, w], axis=-1),
    lambda rng, w: one(None, 0.5, "text", [], [[1.0, 2.0], [3.0]], np.array(1.0))(rng),
]


def edit(case, rng):
    """Change one array or all arrays of the weights, if there are any."""
    change, layer, share = EDITS[rng.integers(len(EDITS))], rng.integers(3), rng.random()
    for name in one(["coefs_"], ["intercepts_"], ["coefs_", "intercepts_"])(rng):
        if arrays := list(getattr(case.model, name, ())):
            which = range(len(arrays)) if share < 0.3 else [layer % len(arrays)]
            for i in which:
                arrays[i] = changed([change], 1, rng, arrays[i])
            setattr(case.model, name, arrays[: -1 if share > 0.97 else None])
    return lambda model: None, ()


def plain(function):
    return lambda case, rng: (function, ())


STEPS = {
    **{name: training(name) for name in ("fit", "partial_fit")},
    **{n: predicting(n) for n in ("predict", "predict_proba", "predict_log_proba")},
    **{f.__name__: f for f in (score, set_params, edit, fit_in_threads, construct)},
    "sklearn": there_and_back,
    "clone": plain(clone),
    "pickle": plain(lambda model: pickle.loads(pickle.dumps(model))),
    "deepcopy": plain(copy.deepcopy),
    "get_params": plain(lambda model: len(model.get_params())),
    "repr": plain(repr),
}
OFTEN = [
    *["fit"] * 4,
    *["partial_fit", "predict", "edit"] * 2,
    "predict_proba",
    "set_params",
]


# A case


def buffers(x):
    """Copies of all memory of an input."""
    if isinstance(x, pd.DataFrame | pd.Series):
        return pickle.dumps(x)
    if isinstance(x, np.ndarray):
        return x.tobytes()
    parts = [getattr(x, n, None) for n in ("data", "indices", "indptr", "row", "col")]
    return [a.tobytes() for a in parts if isinstance(a, np.ndarray)]


def is_torn(x):
    """Whether x is a sparse matrix with indices out of range."""
    places = []
    if hasattr(x, "indptr"):
        n = x.shape[x.format != "csc"] // getattr(x, "blocksize", (1, 1))[1]
        places = [(x.indices, n), (x.indptr, x.indices.size + 1)]
        if x.indptr[0] != 0 or (np.diff(x.indptr) < 0).any():
            return True
    elif hasattr(x, "coords"):
        places = zip(x.coords, x.shape, strict=True)
    return any(((a < 0) | (a >= n)).any() for a, n in places)


def fitted(model):
    """Every bit of the fitted attributes."""
    return {n: pickle.dumps(v) for n, v in vars(model).items() if n.endswith("_")}


def short(x):
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {short(v)}" for k, v in x.items()) + "}"
    if getattr(x, "shape", ()):
        return f"{type(x).__name__}{x.shape} {getattr(x, 'dtype', '')}"
    return repr(x)[:70]


def is_ordinary(error, name):
    if isinstance(error, IndexError) or "matching definition" in str(error):
        return False  # the latter is Numba's TypeError
    if name == "score" and isinstance(error, ZeroDivisionError):
        return True  # of scikit-learn's metrics
    if isinstance(error, AttributeError) and not isinstance(error, NotFittedError):
        return name == "partial_fit" and "has no attribute 'partial_fit'" in str(error)
    return isinstance(error, ValueError | TypeError)


class Case:
    """A random estimator and random calls; ``twin`` makes it scikit-learn's."""

    def __init__(self, seed, number, twin=False, tell=lambda **line: None):
        self.seed, self.number, self.twin, self.tell = seed, number, twin, tell
        rng = self.rng(0)
        self.classifies = bool(rng.integers(2))
        name = "MLPClassifier" if self.classifies else "MLPRegressor"
        self.estimator = getattr(neural_network if twin else fastbp, name)
        self.known = getattr(fastbp, name)().get_params()
        self.columns = one(1, 2, 3, 5, 8, 13, 17, 33, 64, 100)(rng)
        self.dtype = one(np.float64, np.float64, np.float32)(rng)
        self.labels = LABELS(rng) if self.classifies else None
        self.classes = np.arange(3) if self.labels is None else self.labels
        self.outputs, self.counts = one((), (), (1,), (2,), (5,))(rng), rng.random() < 0.5
        self.model = None
        more = rng.choice([*OFTEN, *STEPS], rng.integers(2, 8)).tolist()
        self.steps = ["construct", *["fit"] * (rng.random() < 0.7), *more]

    def rng(self, step):
        return np.random.default_rng([self.seed, self.number, step])

    def targets(self, rng, n):
        """y as this case's model learns it."""
        if self.labels is not None:
            return self.labels[rng.integers(0, len(self.labels), n)]
        if self.classifies:
            return rng.integers(0, 2, (n, 3))
        y = rng.standard_normal((n, *self.outputs)).astype(self.dtype)
        return np.abs(y) if self.counts else y

    def run(self, leave_out=()):
        """(outcome of each call, the odd one that ended it or None)."""
        np.random.seed((self.seed + self.number) % 2**32)  # noqa: NPY002
        outcomes = []
        for i, name in enumerate(self.steps):
            if name.startswith("predict_") and not self.classifies:
                name = "predict"
            error = None if i in leave_out else self.step(i, name)
            kind = type(error).__name__ if error else "ok"
            self.tell(step=i, call=name, ended=kind, text=str(error or "")[:200])
            outcomes.append(kind)
            if error is not None and not self.twin and not is_ordinary(error, name):
                text = "".join(traceback.format_exception(error))
                return outcomes, {"step": i, "call": name, "type": kind, "text": text}
        return outcomes, None

    def step(self, i, name):
        """What the step raised; its inputs are made outside of the ``try``."""
        rng = self.rng(i + 1)
        call, given = STEPS[name](self, rng)
        if self.twin and any(map(is_torn, given)):
            return ValueError("such matrices make scikit-learn crash")
        warnings.resetwarnings()  # threads leave behind what others have changed
        warnings.simplefilter("ignore")
        before = list(map(buffers, given))
        state = fitted(self.model) if self.model else {}
        self.tell(step=i, call=name, given=list(map(short, given)))
        try:
            result = call(self.model)
            self.model = result if hasattr(result, "get_params") else self.model
            if list(map(buffers, given)) != before:
                raise Broken("the inputs were modified")
        except Exception as error:
            try:
                return error if self.twin else self.checked(error, state, rng)
            except Broken as broken:
                return broken
        return None

    def checked(self, error, state, rng):
        """The error, if it has changed nothing and the model can be fitted after it."""
        if self.model and fitted(self.model) != state and not isinstance(error, Broken):
            raise Broken("a call that failed has changed fitted attributes") from error
        if self.model and rng.random() < 0.1:
            X, usable = rng.standard_normal((20, 3)), self.estimator().get_params()
            usable |= {"hidden_layer_sizes": (5,), "max_iter": 2}
            try:
                self.model.set_params(**usable).fit(X, np.arange(20) % 2)
            except Exception as second:
                raise Broken(f"unusable after {error!r}") from second
        return error


def run_case(seed, number, tell):
    """Run a case, and the same with scikit-learn's estimator if it ends oddly."""
    outcomes, odd = Case(seed, number, tell=tell).run()
    if odd is not None:
        tell(call="the same of scikit-learn")
        twin, step = Case(seed, number, twin=True), odd["step"]
        kept = {i for i, n in enumerate(twin.steps) if n in ("construct", "set_params")}
        others = set(range(len(twin.steps))) - kept - {step}  # which may end otherwise
        odd["twin"] = [twin.run(leave_out)[0][step] for leave_out in ((), others)]
        ours = odd["type"] in ("IndexError", "Broken")
        odd["known"] = odd["type"] in odd["twin"] and not ours
    return outcomes, odd


# Workers and their parent

SABOTAGE = {
    "crash": os.abort,
    "hang": lambda: time.sleep(3600),
    "exception": lambda: {"call": "sabotage", "type": "IndexError", "text": "sabotage"},
}


def work(options):
    """Run a batch of cases and print a JSON line before and after each step."""
    out = sys.stdout

    def tell(**line):
        print(json.dumps(line), file=out, flush=True)

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for number in range(options.first, options.first + options.batch):
            tell(case=number)
            if number == 0 and options.sabotage:
                outcomes, odd = [], SABOTAGE[options.sabotage]()
            else:
                outcomes, odd = run_case(options.seed, number, tell)
            tell(case=number, outcomes=outcomes, odd=odd)


class Parent:
    """Starts workers, and counts what becomes of them."""

    def __init__(self, options):
        self.options, self.cases = options, 0
        self.outcomes, self.known, self.defects = Counter(), Counter(), Counter()

    def run(self):
        options, started, first = self.options, time.monotonic(), 0
        last = np.inf if options.cases is None else options.cases
        while first < last and time.monotonic() - started < 60 * options.minutes:
            first = self.run_worker(first, int(min(options.batch, last - first)))
            seconds, defects = time.monotonic() - started, self.defects.total()
            print(f"{seconds:.0f} s: {first} cases, {defects} defects", flush=True)
        print(f"cases finished: {self.cases}, calls: {self.outcomes.total()}")
        print("outcomes:", dict(self.outcomes.most_common()))
        print("odd as scikit-learn's:", dict(self.known.most_common()))
        print("defects:", dict(self.defects.most_common()))
        return 1 if self.defects else 0

    def run_worker(self, first, count):
        """The first case that this worker did not come to."""
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--worker"]
        command += [f"--seed={self.options.seed}", f"--first={first}", f"--batch={count}"]
        command += [f"--sabotage={self.options.sabotage}"] * bool(self.options.sabotage)
        env = {"NUMBA_BOUNDSCHECK": "1", **os.environ}
        pipe, root = subprocess.PIPE, Path(__file__).parents[1]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command, stdout=pipe, stderr=errors, text=True, cwd=root, env=env
            ) as process,
        ):
            case, line, hung = self.listen(process, first)
            errors.seek(0)
            if hung or process.returncode:
                what = "hang" if hung else f"exit code {process.returncode}"
                text = "".join(line[:200] for line in errors.readlines()[-40:])
                told = f"at {line} of a worker that began with case {first}\n{text}"
                self.note_defect(what, case, told)
        return case + 1

    def listen(self, process, case):
        """(last case, last line, whether the worker fell silent)."""
        lines, line = queue.SimpleQueue(), {}

        def read():
            for text in process.stdout:
                lines.put(json.loads(text))
            process.wait()
            lines.put(None)

        threading.Thread(target=read).start()
        with contextlib.suppress(queue.Empty):
            while (new := lines.get(timeout=self.options.limit)) is not None:
                case, line = new.get("case", case), new
                if "outcomes" in line:
                    self.note(case, line["outcomes"], line["odd"])
            return case, line, False
        process.kill()
        return case, line, True

    def note(self, case, outcomes, odd):
        self.cases += 1
        self.outcomes.update(outcomes)
        if odd is not None and odd.get("known"):
            self.known[f"{odd['type']} of {odd['call']}"] += 1
        elif odd is not None:
            told = f"of {odd['call']}; scikit-learn: {odd.get('twin')}\n{odd['text']}"
            self.note_defect(odd["type"], case, told)

    def note_defect(self, what, case, told):
        self.defects[what] += 1
        again = f"python -m tests.fuzz --seed {self.options.seed} --case {case}"
        print(f"DEFECT: {what} in case {case}, {told}\n  shown by: {again}\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--batch", type=int, default=200, help="cases of a worker")
    parser.add_argument("--limit", type=float, default=120, help="seconds of silence")
    parser.add_argument("--case", type=int, help="run this case alone and show it")
    parser.add_argument("--sabotage", choices=SABOTAGE, help="to see what is reported")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    if options.case is None:
        return Parent(options).run()
    odd = run_case(options.seed, options.case, lambda **line: print(line, flush=True))[1]
    return print(odd["text"] if odd else "nothing odd")


if __name__ == "__main__":
    sys.exit(main())
