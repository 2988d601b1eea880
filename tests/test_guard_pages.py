"""Arrays that border on unmapped memory: nothing is read or written outside of them.

An access beyond such an array kills the process, so the work runs in processes of its
own, and prints what it is about to do. What it computes must be, bit for bit, what it
computes from ordinary arrays.
"""

import ctypes
import functools
import mmap
import os
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from scipy.sparse import csr_array

import fastbp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for pages")

# Compiling takes some 20 s per program, on a machine that has to do it for the first time
TIMEOUT = 280

DTYPES = ["float32", "float64"]
REGRESSION = ["squared_error", "poisson", "gamma", "huber", "quantile"]
LOSSES = ["binary", "multiclass", "multilabel", "squared_error", "poisson"]
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]

#: What borders on a guard: the last byte of an array, or its first, or its last cache
#: line. The last two begin on a cache line, as fastbp's own arrays do.
PLACES = ["end", "start", "line"]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 26))]

SIZES = [*range(1, 71)]
ROLES = {
    "n_features": [*SIZES, 95, 96, 97, 127, 128, 129, 191, 192, 193, 385],
    "n_outputs": SIZES,
    "batch_size": [*range(1, 61), 385, 577, 600],  # products of more than 384 have parts
    "more_rows": [*range(1, 42, 2)],
    "one_batch": [False, False, True],
    "depth": [0, 1, 2, 3, 4],
    "loss": LOSSES,
    "activation": ACTIVATIONS,
    "solver": ["adam", "adam", "sgd", "sgd", "lbfgs"],
    "n_jobs": [1, 2],
    "partial": [False, False, True],
    "weighted": [False, True],
    "early_stopping": [False, False, True],
    "many_tasks": [False, True],
    "places": [PLACES, PLACES[:2], PLACES[:2]],
}
#: What extended networks have, in place of the others or beside them.
MORE_ROLES = {
    "loss": ["binary", "multiclass", "multilabel", *REGRESSION],
    "activation": [*ACTIVATIONS, "leaky_relu", "elu", "gelu", "mish", "softplus"],
    "solver": ["adam", "adamw", "sgd", "rmsprop", "nadam", "lbfgs"],
    "dropout": [0.0, 0.3],
    "max_grad_norm": [None, 0.1],
    "weight_decay": [0.0, 0.1],
    "learning_rate": ["constant", "cosine"],
}
PARAMETERS = [
    *("activation", "solver", "batch_size", "n_jobs"),
    *("dropout", "max_grad_norm", "weight_decay", "learning_rate"),
]
WIDTHS = [*SIZES, 95, 96, 97, 100, 193]


# ------------------------------------------------------------- guard pages


@functools.cache
def libc():
    library = ctypes.CDLL(None, use_errno=True)
    library.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def guarded(array, at="end"):
    """A copy of the array at the end, or the start, of memory between two guard pages.

    The memory goes with the copy and its views.
    """
    page, no_access = mmap.PAGESIZE, 0
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + 2 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    for guard in (address, address + page + size):
        if libc().mprotect(guard, page, no_access):
            raise OSError(ctypes.get_errno(), "mprotect")
    used = {"start": size, "end": array.nbytes, "line": -(-array.nbytes // 64) * 64}[at]
    copy = np.ndarray(array.shape, array.dtype, memory, page + size - used)
    copy[...] = array
    return copy


def is_guarded(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


class GuardedNumPy:
    """NumPy, but new arrays have guards."""

    MAKERS = (
        *("arange", "array", "concatenate", "empty", "empty_like"),
        *("full", "ones", "zeros"),
    )

    def __init__(self, at):
        self._at = at

    def __getattr__(self, name):
        function = getattr(np, name)
        if name not in self.MAKERS:
            return function
        return lambda *args, **options: guarded(function(*args, **options), self._at)


def arrays_in(args):
    for arg in args:
        if isinstance(arg, tuple):
            yield from arrays_in(arg)
        elif isinstance(arg, np.ndarray):
            yield arg


@contextmanager
def guards_everywhere(at, many_tasks):
    """Every array that fastbp gives to native code has guards.

    Threads share the smallest work, and with ``many_tasks`` there is more to share.
    """
    # late, as this takes seconds, and not all processes are here for fits
    from fastbp import cache, lbfgs, network, rows, threads, training
    from fastbp.kernels import calls

    read_only, ready, init = network.read_only, cache.ready, training.Trainer.__init__
    call = threads.Team.call
    makers = fastbp.kernels, calls, lbfgs, network, rows, threads, training

    def guarded_read_only(array):
        return read_only(array if is_guarded(array) else guarded(array, at))

    def guarded_init(trainer, *args):
        init(trainer, *args)
        trainer._orders = guarded(trainer._orders, at)
        order = read_only(trainer._orders[:])
        trainer._data = trainer._data._replace(order=order)

    def guarded_scratch(dtype, *sizes):
        arrays = [guarded(np.empty(size, dtype), at) for size in sizes]
        return np.empty(0, np.uint8), arrays  # no memory to give back

    def check(name, args):
        assert all(map(is_guarded, arrays_in(args))), f"{name} gets unguarded arrays"

    def checked_ready(name, dtype, args, **options):
        check(name, args)
        return ready(name, dtype, args, **options)

    def checked_call(team, args, *numbers):
        check("a team", args)
        return call(team, args, *numbers)

    patches = [
        *(patch.object(module, "np", GuardedNumPy(at)) for module in makers),
        patch.object(network, "aligned_zeros", lambda *n: guarded(np.zeros(*n), at)),
        patch.object(network, "read_only", guarded_read_only),
        patch.object(calls, "_flat", guarded_read_only),
        patch.object(calls, "_borrow", guarded_scratch),
        patch.object(calls, "_WORTH_HELP", 0),
        patch.object(training.Trainer, "__init__", guarded_init),
        patch.object(cache, "ready", checked_ready),
        patch.object(threads.Team, "call", checked_call),
        # no room between the workers' parts of an array
        patch.object(network, "CACHE_LINE", 1),
        patch.object(network, "WORTH_HELP", 0),
        patch.object(threads.Pace, "_WORTH_SHARING", 0),
        patch.object(threads.Pace, "record", lambda self, seconds: None),
        # fits of two epochs come to the end of the orders either way
        patch.object(training, "_EPOCHS_AHEAD", 2 if many_tasks else 1),
    ]
    if many_tasks:
        patches += [
            patch.object(network, "_DELTA_BYTES", 0),
            patch.object(network, "_CACHE_BYTES", 0),
            patch.object(network, "_WIDE_TASK", (1, 2)),
            patch.object(calls, "_BLOCK_ROWS", 16),
        ]
    network.layout.cache_clear()
    with ExitStack() as stack:
        for change in patches:
            stack.enter_context(change)
        yield
    network.layout.cache_clear()


def assert_same_between_guards(work, places=PLACES[:2], many_tasks=False):
    """``work(keep)`` is the same bytes with all arrays between guards and with none.

    ``keep`` copies an array of the user's to where it is to be.
    """
    found = {}
    for at in places:
        with guards_everywhere(at, many_tasks):
            found[at] = work(functools.partial(guarded, at=at))
    # many tasks are whole panels; thirds would round the sums of squares elsewhere
    whole = patch("fastbp.network._TASKS", 1) if many_tasks else nullcontext()
    with whole:
        plain = work(np.copy)  # last: a mistake then goes on with ruined memory
    for at, result in found.items():
        assert result == plain, at


# ------------------------------------------------------------- processes


def run(function, *args):
    """Call a function of this file in another process, which has to come to its end."""
    code = f"from {__name__} import {function.__name__} as work; work(*{args!r})"
    finished = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    at_work_on = finished.stdout.splitlines()[-1:]
    errors, _, _ = finished.stderr.partition("\nExtension modules:")
    assert finished.returncode == 0, f"{at_work_on}\n{errors[-4000:]}"


def touch(at, i, new):
    """Read the i-th element of an array of three, or write it."""
    array = guarded(np.ones(3), at)
    pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    pointer[0], pointer[2] = pointer[2], pointer[0]
    if new is None:
        pointer[i]
    else:
        pointer[i] = new


def touch_beyond():
    """Each touch in a process of its own, without starting Python anew."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for at, i, new, code in [
        ("end", 2, 1.0, 0),
        ("end", 3, None, -signal.SIGSEGV),
        ("end", 3, 1.0, -signal.SIGSEGV),
        ("start", 0, 1.0, 0),
        ("start", -1, None, -signal.SIGSEGV),
        ("start", -1, 1.0, -signal.SIGSEGV),
        ("line", 7, 1.0, 0),
        ("line", 8, None, -signal.SIGSEGV),
    ]:
        print(f"{at=}, {i=}, {new=}", flush=True)
        process = os.fork()
        if process == 0:
            touch(at, i, new)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == code


# ------------------------------------------------------------- the work


def dealt(values, rng):
    """The values without end, all of them before one comes again."""
    while True:
        for i in rng.permutation(len(values)):
            yield values[i]


def as_bytes(result):
    if isinstance(result, (list, tuple)):
        return [as_bytes(part) for part in result]
    return np.asarray(result).tobytes()


def make_model(loss, **parameters):
    if loss in REGRESSION:
        return fastbp.MLPRegressor(loss=loss, random_state=0, **parameters)
    return fastbp.MLPClassifier(random_state=0, **parameters)


def make_targets(loss, n, n_outputs, rng):
    """y, and the classes if there are some."""
    if loss == "multilabel":
        k = max(2, n_outputs)
        return rng.permuted(np.arange(n * k) % 2).reshape(n, k), np.arange(k)
    if loss in REGRESSION:
        counts = rng.poisson(1.0, (n, n_outputs) if n_outputs > 1 else n)
        return counts + (0.5 if loss == "gamma" else 0.0), None
    k = 2 if loss == "binary" else max(3, n_outputs)
    return rng.permutation(np.arange(n) % k), np.arange(k)


def outputs(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


def csr_of(X, keep):
    X = csr_array(X)
    X.data, X.indices, X.indptr = keep(X.data), keep(X.indices), keep(X.indptr)
    return X


def fit_and_predict(case, hidden, dtype, sparse, keep):
    """A fitted model's numbers, and predictions for all rows and for a few."""
    rng = np.random.default_rng(0)
    loss, k = case["loss"], case["n_outputs"]
    partial = case["partial"] and case["solver"] != "lbfgs"
    n = case["more_rows"] + (0 if case["one_batch"] else case["batch_size"])
    if loss not in REGRESSION and not partial:  # which must see all classes
        n = max(n, k if loss == "multiclass" else 2, 3)
    X = rng.standard_normal((n, case["n_features"])).astype(dtype)
    if sparse:
        X *= rng.random(X.shape) < 0.3
    placed = functools.partial(csr_of, keep=keep) if sparse else keep
    y, classes = make_targets(loss, n, k, rng)
    if loss in REGRESSION:
        y = y.astype(dtype)
    given = {"sample_weight": keep(rng.uniform(0.5, 2, n))} if case["weighted"] else {}
    stops = case["early_stopping"] and n >= 20 and not partial
    model = make_model(
        loss,
        hidden_layer_sizes=hidden,
        early_stopping=stops and case["solver"] != "lbfgs",
        max_iter=2,
        **{name: case[name] for name in PARAMETERS if name in case},
    )
    if case["solver"] == "lbfgs":
        model.set_params(dropout=0.0)
    if partial and classes is not None:
        given["classes"] = classes
    (model.partial_fit if partial else model.fit)(placed(X), keep(y), **given)
    predictions = [outputs(model, placed(X)), outputs(model, placed(X[: 1 + n % 5]))]
    return as_bytes([model.coefs_, model.intercepts_, model.loss_, predictions])


def fit_networks(dtype, seed):
    rng = np.random.default_rng(seed)
    for sparse, more in (
        *((False, {}), (True, {})),
        # as many programs again: with seed 0, which is always run, one dtype
        *([(False, MORE_ROLES)] if seed or dtype == "float64" else []),
        *([(True, MORE_ROLES)] if seed else []),
    ):
        roles = {**ROLES, **more}
        decks = {name: dealt(values, rng) for name, values in roles.items()}
        widths = dealt(WIDTHS, rng)
        for _ in ROLES["n_features"]:
            case = {name: next(deck) for name, deck in decks.items()}
            hidden = tuple(next(widths) for _ in range(case["depth"]))
            print(f"{hidden=}, {dtype=}, {sparse=}, {case}", flush=True)
            work = functools.partial(fit_and_predict, case, hidden, dtype, sparse)
            # the norm of a gradient is a sum over tasks: more of them, another rounding
            many = case["many_tasks"] and not case.get("max_grad_norm")
            assert_same_between_guards(work, case["places"], many)


def predict(model, X, coefs, intercepts, keep):
    model.coefs_ = [keep(coef) for coef in coefs]
    model.intercepts_ = [keep(intercept) for intercept in intercepts]
    return as_bytes([outputs(model, keep(X[:n])) for n in (1, 2, 4, 5)])


def predict_few_rows(seed):
    """From ``coefs_`` and ``intercepts_`` where they are."""
    rng = np.random.default_rng(seed)
    inputs, widths, outs, depths, losses, activations = (
        dealt(values, rng)
        for values in (SIZES, SIZES, SIZES, range(5), LOSSES, ACTIVATIONS)
    )
    for i in range(2 * len(SIZES)):
        dtype = DTYPES[i // len(SIZES)]
        loss, activation = next(losses), next(activations)
        n_features, n_outputs = next(inputs), next(outs)
        hidden = [next(widths) for _ in range(next(depths))]
        print(f"{n_features=}, {hidden=}, {n_outputs=}, {loss=}, {dtype=}", flush=True)
        y, _ = make_targets(loss, 3 + n_outputs, n_outputs, rng)
        X = rng.standard_normal((len(y), n_features)).astype(dtype)
        model = make_model(
            loss, hidden_layer_sizes=hidden, activation=activation, max_iter=1
        ).fit(X, y)
        work = functools.partial(predict, model, X, model.coefs_, model.intercepts_)
        assert_same_between_guards(work)


def call_products(rows, inputs, outputs, dtype, keep):
    rng = np.random.default_rng(0)
    dZ, X, W, b = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((rows, outputs), (rows, inputs), (inputs, outputs), outputs)
    )
    kernels = fastbp.kernels
    return as_bytes(
        [
            (
                kernels.dense_forward(keep(X), keep(W), keep(b), activation),
                kernels.dense_backward(keep(dZ), keep(X), keep(W), activation),
            )
            for activation in ACTIVATIONS
        ]
    )


def call_losses(rows, outputs, dtype, keep):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((rows, outputs)).astype(dtype)
    Y = rng.integers(2, size=Z.shape).astype(dtype)
    kernels = fastbp.kernels
    return as_bytes(
        [
            kernels.softmax_cross_entropy(
                keep(Z), keep(rng.integers(outputs, size=rows))
            ),
            kernels.logistic_cross_entropy(keep(Z), keep(Y)),
            kernels.squared_error(keep(Z), keep(Y)),
            kernels.poisson_loss(keep(Z), keep(Y)),
        ]
    )


def call_updates(size, dtype, keep):
    rng = np.random.default_rng(0)
    theta, m, v, gradient = (keep(a) for a in rng.random((4, size)).astype(dtype))
    fastbp.kernels.adam_update(theta, m, v, gradient, t=2)
    fastbp.kernels.sgd_update(theta, m, gradient, nesterov=False)
    fastbp.kernels.sgd_update(theta, m, gradient, nesterov=True)
    return as_bytes([theta, m, v])


def call_kernels(seed):
    rng = np.random.default_rng(seed)
    sizes = [dealt(SIZES, rng) for _ in range(3)]
    products = [[next(deck) for deck in sizes] for _ in SIZES]
    for dtype in DTYPES:
        # the last of each have blocks of rows as long as blocks can be
        for shape in [*products, (9, 401, 7), (600, 71, 69)]:
            print("product", shape, dtype, flush=True)
            work = functools.partial(call_products, *shape, dtype)
            assert_same_between_guards(work, many_tasks=shape[0] != 600)
        for shape in [*(product[:2] for product in products), (4099, 70)]:
            print("loss", shape, dtype, flush=True)
            work = functools.partial(call_losses, *shape, dtype)
            assert_same_between_guards(work, many_tasks=shape[0] != 4099)
        for size in [*SIZES, *range(4089, 4104), 8191, 8193, 12300, 100_003]:
            print("update", size, dtype, flush=True)
            assert_same_between_guards(functools.partial(call_updates, size, dtype))


# ------------------------------------------------------------- tests


def test_guards_kill_who_goes_beyond():
    run(touch_beyond)


def test_guards_go_with_their_arrays():
    def mappings():
        return Path("/proc/self/maps").read_text().count("\n")

    before = mappings()
    kept = [guarded(np.ones(1000))[5:] for _ in range(500)]
    assert mappings() >= before + 500
    assert all((array == 1).all() for array in kept)
    kept.clear()
    assert mappings() < before + 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fits_and_predictions(dtype, seed):
    run(fit_networks, dtype, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_predictions_of_few_rows(seed):
    run(predict_few_rows, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_kernels_on_plain_arrays(seed):
    run(call_kernels, seed)
