"""Training steps and predictions against the NumPy reference, for all sizes and kinds.

The kind GRADIENT leaves the gradient of a batch in m and changes nothing, so that one
step shows loss and gradients of the whole chain: forward, output, backward.
"""

import functools
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
import pytest
from scipy import sparse

from benchmarks import baseline
from fastbp import launch, network, threads
from fastbp.kernels import programs
from fastbp.network import _BLOCK_ROWS as BLOCK_ROWS
from fastbp.rows import RowReader
from fastbp.tables import ADAM, GRADIENT, OPTIMIZER, SGD

DTYPES = [np.float32, np.float64]
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
OUTPUTS = ["softmax", "logistic", "identity", "exp"]
#: The learning rate, where a test does not choose another.
RATE = 0.01
#: Standard deviations of the rounding errors that a result may be away from the truth.
SIGMAS = 5


def optimizer(kind, alpha=0.0, **changes):
    numbers = {
        "kind": kind,
        "corrects_bias": kind == ADAM,
        "alpha": alpha,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "max_grad_norm": np.inf,
        "seed": 0,
    } | changes
    return np.array([tuple(numbers[name] for name in OPTIMIZER.names)], OPTIMIZER)


class Case(NamedTuple):
    """A network and its data, in one dtype."""

    plan: network.Layout
    coefs: list
    intercepts: list
    activation: str
    out_activation: str
    X: np.ndarray  # (n, inputs)
    targets: np.ndarray  # as the kernels take them
    Y: np.ndarray  # (n, outputs) in float64, as the reference takes them
    order: np.ndarray  # rows of the batches
    weights: np.ndarray | None = None  # (n,)

    @property
    def batch_weights(self):
        """Weights of the batches' rows in float64."""
        if self.weights is None:
            return np.ones(len(self.order))
        return self.weights[self.order].astype(np.float64)


def make_case(dtype, units, rows, activation, out_activation, seed=0, spare=5):
    """Random weights and data; the batch is drawn out of ``spare`` more rows of X."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    n, outputs = rows + spare, units[-1]
    coefs = [
        (rng.standard_normal((i, o)) * np.sqrt(1.5 / i)).astype(dtype)
        for i, o in pairwise(units)
    ]
    intercepts = [(0.5 * rng.standard_normal(o)).astype(dtype) for o in units[1:]]
    if out_activation == "softmax":
        labels = rng.integers(0, outputs, n)
        targets, Y = labels.astype(dtype), np.eye(outputs)[labels]
    elif out_activation == "logistic":
        Y = rng.integers(0, 2, (n, outputs)).astype(float)
        targets = Y.astype(dtype)
    elif out_activation == "exp":
        Y = rng.poisson(1.0, (n, outputs)).astype(float)
        targets = Y.astype(dtype)
    else:
        targets = rng.standard_normal((n, outputs)).astype(dtype)
        Y = targets.astype(float)
    return Case(
        network.layout(tuple(units), activation, out_activation, dtype),
        coefs,
        intercepts,
        activation,
        out_activation,
        rng.standard_normal((n, units[0])).astype(dtype),
        targets,
        Y,
        rng.permutation(n)[:rows],
    )


class Trained(NamedTuple):
    parameters: tuple  # theta, m, v
    losses: np.ndarray
    taken: int
    work: object


def train(case, opt, batch_size=None, epochs=1, workers=1, coefs=None, rate=RATE):
    """Steps over all batches of the order."""
    plan, coefs = case.plan, case.coefs if coefs is None else coefs
    batch_size = batch_size or len(case.order)
    n_batches = -(-len(case.order) // batch_size)
    parameters = (
        network.pack(plan, coefs, case.intercepts),
        network.aligned_zeros(plan.n_parameters, plan.dtype),
        network.aligned_zeros(plan.n_parameters, plan.dtype),
    )
    work = network.training_workspace(plan, batch_size, workers, coefs)
    losses, taken = np.zeros((epochs, n_batches)), np.zeros(1, np.int64)
    rates = np.full(n_batches, rate)
    data = network.training_data(plan, case.X, case.targets, case.weights, case.order)
    team = threads.Team(plan.program("train_steps"), plan.dtype, work.team)
    for epoch in range(epochs):
        args = (
            *(plan.net, parameters, work, data, opt),
            *((0, n_batches), batch_size, rates, losses[epoch], taken),
        )
        team.call(args, workers)
    team.dismiss()
    return Trained(parameters, losses, int(taken[0]), work)


def float64(arrays):
    return [array.astype(np.float64) for array in arrays]


def dot(a, b):
    """Standard deviation of a product of matrices whose left factor has errors a."""
    return np.sqrt((a * a) @ (b * b))


def output_errors(case, P, z_error, unit):
    """Errors of the prediction and of the loss of each row."""
    Y, outputs = case.Y[case.order], P.shape[1]
    if case.out_activation == "identity":
        d = np.abs(P - Y)
        losses = d * z_error + (outputs + 4) * unit * d * d / 2
        return z_error, losses.mean(axis=1)
    if case.out_activation == "exp":
        # exp errs by 2 units; the loss moves by (1 - y / p) dp = (p - y) dz with p, and
        # errs by 2 units of log, a unit of y / p, and those of its other terms
        p_error = P * (z_error + 2 * unit)
        terms = Y * np.abs(np.log(np.maximum(Y, 0.5) / P)) + Y + P
        losses = np.abs(P - Y) * (z_error + 2 * unit) + (outputs + 4) * unit * terms
        return p_error, losses.sum(axis=1)
    if case.out_activation == "logistic":
        p_error = z_error * P * (1 - P) + 4 * unit * P
        likelihood = np.where(Y > 0.5, P, 1 - P)
    else:
        # e^(z - peak) / total: the errors of two z, of exp and of a sum over outputs
        spread = 2 * z_error.max(axis=1, keepdims=True) + (outputs + 8) * unit
        p_error = P * spread
        likelihood = np.where(Y > 0.5, P, 1)
    # -log p has the relative error of p, which is limited to eps = 2 units from below
    likelihood = np.maximum(likelihood, 2 * unit)
    losses = (p_error + unit) / likelihood
    losses += (outputs + 4) * unit * np.abs(np.log(likelihood))
    if case.out_activation == "softmax":
        losses = losses * Y
    return p_error, losses.sum(axis=1)


def expected_errors(case, alpha):
    """Rounding errors to be expected of (prediction, loss, gradients).

    Roundings are taken for independent: a sum of n products errs by about sqrt(n)
    units, a unit being eps / 2, of the sum of their absolute values (Higham and Mary,
    2019), and errors of its factors add up as their squares.
    """
    unit = np.finfo(case.plan.dtype).eps / 2
    coefs, intercepts = float64(case.coefs), float64(case.intercepts)
    sizes = [np.abs(W) for W in coefs]
    X = case.X[case.order].astype(np.float64)
    layers = baseline.forward(coefs, intercepts, X, case.activation, case.out_activation)
    errors, z_errors = [np.zeros_like(X)], []
    for A, W, b in zip(layers, sizes, intercepts, strict=False):
        terms = np.abs(A) @ W + np.abs(b)
        z_errors.append(dot(errors[-1], W) + np.sqrt(len(W) + 1) * unit * terms)
        # no activation is steeper than 1; each has an error of its own of 2 eps
        f = layers[len(z_errors)]
        errors.append(z_errors[-1] + 4 * unit * np.abs(f))
    P = layers[-1]
    errors[-1], row_loss = output_errors(case, P, z_errors[-1], unit)

    delta = P - case.Y[case.order]
    d_error = errors[-1] + unit * np.abs(delta)
    n = len(X)
    weights, total = case.batch_weights, abs(case.batch_weights.sum())
    if case.weights is not None:  # one more product
        Y = case.Y[case.order]
        losses = baseline.row_losses(P, Y, case.out_activation, 2 * unit)
        row_loss = (row_loss + unit * losses) * np.abs(weights)
        d_error = (d_error + unit * np.abs(delta)) * np.abs(weights)[:, None]
        delta = delta * weights[:, None]
    d_coefs, d_intercepts = [], []
    for depth in reversed(range(len(coefs))):
        A, W, size = np.abs(layers[depth]), sizes[depth], np.abs(delta)
        summed = dot(errors[depth].T, size) + dot(d_error.T, A).T
        summed += (np.sqrt(n) + 4) * unit * (A.T @ size + alpha * W)
        d_coefs.insert(0, summed / total)
        summed = np.sqrt((d_error**2).sum(axis=0))
        d_intercepts.insert(0, (summed + (np.sqrt(n) + 2) * unit * size.sum(0)) / total)
        if depth > 0:
            slope = baseline.DERIVATIVES[case.activation](layers[depth])
            slope_error = 2 * errors[depth] + 2 * unit
            if case.activation == "identity":
                slope_error = 0.0
            elif case.activation == "relu":  # the other side of the kink
                z = layers[depth - 1] @ coefs[depth - 1] + intercepts[depth - 1]
                slope_error = (np.abs(z) <= 5 * z_errors[depth - 1]).astype(float)
            back = np.abs(delta @ coefs[depth].T)
            summed = dot(d_error, W.T) + np.sqrt(W.shape[1]) * unit * (size @ W.T)
            d_error = (summed + 2 * unit * back) * slope + back * slope_error
            delta = (delta @ coefs[depth].T) * slope
    # squares are summed in the dtype tile by tile, the tiles in float64
    tile = launch.tile_shape(case.plan.dtype)
    terms = tile.rows * tile.panel // tile.lanes + tile.lanes
    loss = row_loss.sum() / total
    loss += terms * unit * baseline.penalty(coefs, alpha, total)
    return errors[-1], loss, d_coefs, d_intercepts


def check_gradients(case, alpha=0.0, workers=1):
    """Loss and gradients of one batch are those of the reference."""
    before = case.X.copy()
    result = train(case, optimizer(GRADIENT, alpha), workers=workers)
    coefs, intercepts = network.unpack(case.plan, result.parameters[1])
    loss, d_coefs, d_intercepts = baseline.loss_and_gradients(
        float64(case.coefs),
        float64(case.intercepts),
        case.X[case.order].astype(np.float64),
        case.Y[case.order],
        case.activation,
        case.out_activation,
        alpha,
        eps=np.finfo(case.plan.dtype).eps,
        weights=case.batch_weights,
    )
    _, loss_error, coefs_error, intercepts_error = expected_errors(case, alpha)
    errors = coefs_error + intercepts_error
    shapes = [W.shape for W in case.coefs]
    told = f"{shapes}, {len(case.order)} rows, {case.activation}, {case.out_activation}"
    found, wanted = coefs + intercepts, d_coefs + d_intercepts
    for got, want, error in zip(found, wanted, errors, strict=True):
        assert got.shape == want.shape, told
        assert (np.abs(got - want) <= SIGMAS * error).all(), told
    # the last sum runs in float64, in either order
    share = np.abs(case.batch_weights).sum() / abs(case.batch_weights.sum())
    loss_error += len(case.order) * np.finfo(np.float64).eps * abs(loss) * share
    assert abs(result.losses[0, 0] - loss) <= SIGMAS * loss_error, told
    np.testing.assert_array_equal(case.X, before)
    np.testing.assert_array_equal(
        result.parameters[0], network.pack(case.plan, case.coefs, case.intercepts)
    )
    assert not result.parameters[2].any(), told


def largest(dtype):
    """Twice the tile plus one: (inputs, units of a layer, rows)."""
    tile = launch.tile_shape(np.dtype(dtype))
    strip = max(tile.lanes, tile.rows)
    return 2 * strip + 1, 2 * tile.panel + 1, 2 * strip + 1


def kinds():
    """Activations and outputs in turn."""
    while True:
        for out in OUTPUTS:
            for activation in ACTIVATIONS:
                yield activation, out


# ------------------------------------------------------------- gradients, every size


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_for_every_number_of_inputs(dtype):
    for inputs, kind in zip(range(1, largest(dtype)[0] + 1), kinds(), strict=False):
        check_gradients(make_case(dtype, (inputs, 3, 2), 5, *kind), 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_for_every_number_of_outputs(dtype):
    for outputs in range(1, largest(dtype)[1] + 1):
        for out in OUTPUTS:
            check_gradients(make_case(dtype, (3, outputs), 5, "relu", out), 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_for_every_number_of_hidden_units(dtype):
    sizes = range(1, largest(dtype)[1] + 1)
    for hidden, kind in zip(sizes, kinds(), strict=False):
        check_gradients(make_case(dtype, (4, hidden, 3), 6, *kind), 0.1)
        check_gradients(make_case(dtype, (4, 5, hidden, 3), 6, *kind))
        check_gradients(make_case(dtype, (4, hidden, 5, 3), 6, *kind))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_for_every_batch_size(dtype):
    around_blocks = range(BLOCK_ROWS - 1, BLOCK_ROWS + 2)
    sizes = [*range(1, largest(dtype)[2] + 1), *around_blocks, 2 * BLOCK_ROWS + 1, 200]
    for rows, kind in zip(sizes, kinds(), strict=False):
        check_gradients(make_case(dtype, (5, 4, 3), rows, *kind), 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden_layers", range(4))
def test_gradients_of_networks_drawn_at_random(dtype, hidden_layers):
    inputs, units, rows = largest(dtype)
    rng = np.random.default_rng(hidden_layers)
    for seed, kind in zip(range(24), kinds(), strict=False):
        hidden = rng.integers(1, units + 1, hidden_layers).tolist()
        shape = (int(rng.integers(1, inputs + 1)), *hidden, int(rng.integers(1, 12)))
        case = make_case(dtype, shape, int(rng.integers(1, rows + 1)), *kind, seed)
        check_gradients(case, alpha=0.0 if seed % 2 else 3.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_gradients_of_layers_of_several_panels(dtype, activation, out_activation):
    case = make_case(dtype, (60, 100, 150, 70), 61, activation, out_activation)
    check_gradients(case, 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_deltas_larger_than_one_group_of_panels(dtype):
    # panels whose deltas exceed the cache are dealt out in groups
    case = make_case(dtype, (3, 150, 200, 4), 3000, "tanh", "softmax")
    check_gradients(case, 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_sums_taken_in_parts(dtype, activation):
    # inputs, outputs of a layer and rows of a batch beyond and at the limit of a part
    depth = launch.tile_shape(np.dtype(dtype)).depth
    for units, rows in (
        ((2 * depth + 5, depth + depth // 2 + 1, 3), 2),
        ((7, 3, 2 * depth, 2), depth + depth // 2),
        ((3, 5, 2), 2 * depth + 3),
    ):
        check_gradients(make_case(dtype, units, rows, activation, "identity"), 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_short_last_batch_counts_its_own_rows(dtype, out_activation):
    case = make_case(dtype, (5, 9, 3), 3 * 16 + 5, "tanh", out_activation)
    result = train(case, optimizer(GRADIENT, 0.1), batch_size=16)
    assert result.losses.shape == (1, 4)
    for i in range(4):
        batch = case._replace(order=case.order[16 * i : 16 * (i + 1)])
        alone = train(batch, optimizer(GRADIENT, 0.1))
        assert result.losses[0, i] == alone.losses[0, 0]
        if i == 3:
            np.testing.assert_array_equal(result.parameters[1], alone.parameters[1])


# ------------------------------------------------------------- weights of rows


def weigh(case, kind, seed=0):
    """The case with weights of its rows; the batch's never add up to 0."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 3, len(case.X))
    if kind == "zeros":
        weights[rng.random(len(weights)) < 0.6] = 0
        weights[case.order[0]] = 1.5
    elif kind == "negative":
        weights[case.order[1::2]] *= -0.5
    elif kind == "negative sum":
        weights *= -1
    elif kind == "large and small":
        weights *= 10.0 ** rng.integers(-6, 7, len(weights))
    return case._replace(weights=weights.astype(case.plan.dtype))


WEIGHTS = ["random", "zeros", "negative", "negative sum", "large and small"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_of_weighted_rows(dtype, out_activation, weights):
    for rows in (1, 7, 33, 2 * BLOCK_ROWS + 5, 401):
        for outputs in (1, 3, 17):
            case = make_case(dtype, (5, 9, outputs), rows, "tanh", out_activation)
            check_gradients(weigh(case, weights, rows), 0.1)
    case = make_case(dtype, (60, 100, 70), 61, "relu", out_activation)
    check_gradients(weigh(case, weights), 0.1, workers=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_weights_of_one_change_no_bit(dtype, out_activation):
    case = make_case(dtype, (7, 30, 5), 45, "tanh", out_activation)
    plain = train(case, optimizer(ADAM, 0.1), batch_size=20)
    ones = case._replace(weights=np.ones(len(case.X), dtype))
    check_same(train(ones, optimizer(ADAM, 0.1), batch_size=20), plain)


def check_same(one, other):
    """Two trainings agree in every bit."""
    np.testing.assert_array_equal(one.losses, other.losses)
    for a, b in zip(one.parameters, other.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.taken == other.taken


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_of_zero_takes_a_row_out_of_the_batch(dtype):
    case = weigh(make_case(dtype, (5, 9, 3), 40, "tanh", "softmax"), "random")
    case.weights[case.order[::3]] = 0
    kept = case._replace(order=case.order[case.weights[case.order] != 0])
    found, wanted = (train(c, optimizer(GRADIENT, 0.1)) for c in (case, kept))
    # a product with an exact 0 adds nothing to a sum
    np.testing.assert_array_equal(found.parameters[1], wanted.parameters[1])
    np.testing.assert_array_equal(found.losses, wanted.losses)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("cancelled", [(0,), (2,), (4,), (0, 1), (3, 4), (0, 2, 4)])
def test_a_batch_whose_weights_add_up_to_zero_is_left_out(dtype, kind, cancelled):
    case = weigh(make_case(dtype, (5, 9, 3), 4 * 16 + 6, "tanh", "softmax"), "random")
    left = np.ones(len(case.order), bool)
    for i in cancelled:
        rows = case.order[16 * i : 16 * (i + 1)]
        # all zero, or as many positive as negative ones
        case.weights[rows] = 0 if i % 4 else np.resize([0.5, -0.5], len(rows))
        left[16 * i : 16 * (i + 1)] = False
    kept = [i for i in range(5) if i not in cancelled]
    wanted = train(case._replace(order=case.order[left]), optimizer(kind, 0.1), 16, 2)
    for workers in (1, 2, 3):
        found = train(case, optimizer(kind, 0.1), 16, 2, workers)
        assert found.taken == 2 * len(kept)
        np.testing.assert_array_equal(found.losses[:, kept], wanted.losses)
        assert not found.losses[:, list(cancelled)].any()
        for a, b in zip(found.parameters, wanted.parameters, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [ADAM, SGD, GRADIENT], ids=["adam", "sgd", "none"])
def test_weights_that_are_all_zero_change_nothing(kind):
    case = make_case(np.float64, (5, 9, 3), 40, "tanh", "softmax")
    case = case._replace(weights=np.zeros(len(case.X)))
    for workers in (1, 2):
        result = train(case, optimizer(kind, 0.1), 16, 2, workers)
        assert result.taken == 0
        assert not result.losses.any()
        theta = network.pack(case.plan, case.coefs, case.intercepts)
        np.testing.assert_array_equal(result.parameters[0], theta)
        assert not result.parameters[1].any()
        assert not result.parameters[2].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_workers_do_not_change_a_bit_of_weighted_training(dtype, out_activation):
    case = weigh(make_case(dtype, (30, 100, 10), 333, "tanh", out_activation), "negative")
    alone = train(case, optimizer(SGD, 0.1), batch_size=150, epochs=2)
    assert np.isfinite(alone.losses).all()
    for workers in WORKERS:
        again = train(case, optimizer(SGD, 0.1), 150, 2, workers)
        check_same(again, alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("kind", [ADAM, SGD], ids=["adam", "sgd"])
def test_weighted_steps_follow_the_reference(dtype, out_activation, kind):
    case = make_case(dtype, (7, 40, 5), 45, "tanh", out_activation)
    case = weigh(case, "zeros")
    opt = optimizer(kind, 0.1, epsilon=1e-2)
    result = train(case, opt, batch_size=20, epochs=4)
    losses, coefs, intercepts = reference_steps(case, opt, 4, 20)
    got = network.unpack(case.plan, result.parameters[0])
    tolerance = 12 * 40 * np.finfo(dtype).eps  # as without weights
    for found, truth in zip(got[0] + got[1], coefs + intercepts, strict=True):
        np.testing.assert_allclose(found, truth, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(result.losses.ravel(), losses, rtol=tolerance)


# ------------------------------------------------------------- finite differences

PROBLEMS = {
    "regression": (1, "identity"),
    "binary": (1, "logistic"),
    "multiclass": (4, "softmax"),
    "multilabel": (3, "logistic"),
    "counts": (2, "exp"),
}


@functools.cache
def smooth_case(activation, problem):
    """A small network none of whose relus is near its kink."""
    outputs, out = PROBLEMS[problem]
    for seed in range(1000):
        case = make_case(np.float64, (3, 4, 3, outputs), 6, activation, out, seed)
        layers = [case.X[case.order]]
        distances = []
        for W, b in zip(case.coefs[:-1], case.intercepts, strict=False):
            z = layers[-1] @ W + b
            distances.append(np.abs(z).min())
            layers.append(baseline.HIDDEN[activation](z))
        if activation != "relu" or min(distances) > 1e-2:
            return case
    raise AssertionError("no seed keeps away from the kinks")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradients_are_the_slopes_of_the_loss(activation, problem):
    case, alpha, h = smooth_case(activation, problem), 0.3, 1e-4
    opt = optimizer(GRADIENT, alpha)
    coefs, intercepts = network.unpack(case.plan, train(case, opt).parameters[1])

    def loss_at(layer, kind, place, change):
        changed = [[W.copy() for W in case.coefs], [b.copy() for b in case.intercepts]]
        changed[kind][layer].flat[place] += change
        moved = case._replace(coefs=changed[0], intercepts=changed[1])
        return train(moved, opt).losses[0, 0]

    for kind, gradients in enumerate((coefs, intercepts)):
        for layer, gradient in enumerate(gradients):
            for place in range(0, gradient.size, 2 if gradient.size > 4 else 1):
                # central difference of fourth order
                near = loss_at(layer, kind, place, h) - loss_at(layer, kind, place, -h)
                far = loss_at(layer, kind, place, 2 * h)
                far -= loss_at(layer, kind, place, -2 * h)
                slope = (8 * near - far) / (12 * h)
                # rounding: eps loss / h = 1e-11; truncation: h^4 times the fifth
                # derivative = 1e-16 times some thousands
                assert abs(gradient.flat[place] - slope) <= 1e-9


# ------------------------------------------------------------- extreme predictions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", ["softmax", "logistic"])
def test_loss_of_hopeless_predictions_is_limited_by_eps(dtype, out_activation):
    case = make_case(dtype, (1, 3), 9, "relu", out_activation, spare=0)
    coefs = [np.zeros((1, 3), dtype)]
    logits = np.array([-500, 500, -500] if out_activation == "softmax" else [500] * 3)
    case = case._replace(coefs=coefs, intercepts=[logits.astype(dtype)])
    result = train(case, optimizer(GRADIENT))
    eps = float(np.finfo(dtype).eps)
    P = np.repeat([[0.0, 1, 0] if out_activation == "softmax" else [1.0] * 3], 9, 0)
    truth = baseline.data_loss(P, case.Y[case.order], out_activation, eps)
    # 1 - eps is a number of the dtype, and log is good to an eps
    assert abs(result.losses[0, 0] - truth) <= 4 * eps * truth
    delta = network.unpack(case.plan, result.parameters[1])[1][0]
    # probabilities of e^-88 instead of 0 do not show beside 1
    np.testing.assert_allclose(
        delta, (P - case.Y[case.order]).mean(axis=0), rtol=4 * eps, atol=1e-30
    )


def poisson_case(dtype, logits, Y):
    """One row whose pre-activations of the outputs are ``logits``."""
    case = make_case(dtype, (1, len(logits)), 1, "relu", "exp", spare=0)
    return case._replace(
        coefs=[np.zeros((1, len(logits)), dtype)],
        intercepts=[np.array(logits, dtype)],
        targets=np.array([Y], dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("z", "y", "loss"),
    [
        (-1e4, 0.0, 0.0),  # scikit-learn: 0 log(0 / 0) is NaN
        (-1e4, 1.0, np.inf),
        (1e4, 0.0, np.inf),
        (1e4, 1.0, np.inf),  # scikit-learn: 1 log(1 / inf) - 1 + inf is NaN
        (0.0, 0.0, 1.0),
        (0.0, 1.0, 0.0),
        (80.0, 1e-35, np.exp(np.longdouble(80))),  # y / p is denormal in float32
    ],
)
def test_poisson_losses_of_hopeless_predictions(dtype, z, y, loss):
    case = poisson_case(dtype, [z], [y])
    result = train(case, optimizer(GRADIENT))
    np.testing.assert_allclose(result.losses[0, 0], loss, rtol=2 * np.finfo(dtype).eps)
    with np.errstate(over="ignore"):
        p = np.exp(dtype(z))
    P, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
    np.testing.assert_allclose(P, [[p]], rtol=np.finfo(dtype).eps)
    delta = network.unpack(case.plan, result.parameters[1])[1][0]
    np.testing.assert_allclose(delta, [p - y], rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_loss_of_a_negative_target_is_nan(dtype):
    result = train(poisson_case(dtype, [0.5, 0.5], [1.0, -1.0]), optimizer(GRADIENT))
    assert np.isnan(result.losses).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_loss_is_exact_where_the_target_is_zero(dtype):
    z = np.linspace(-80, 80, 999)
    for first in range(0, 999, 37):
        case = poisson_case(dtype, z[first : first + 1], [0])
        P, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
        assert train(case, optimizer(GRADIENT)).losses[0, 0] == P[0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_stays_finite_for_distant_rows_and_large_logits(dtype):
    huge = float(np.finfo(dtype).max) / 4
    case = make_case(dtype, (1, 3), 4, "relu", "softmax", spare=0)
    case = case._replace(
        coefs=[np.array([[1, 0, -1]], dtype)],
        intercepts=[np.zeros(3, dtype)],
        X=np.array([[huge], [-huge], [0], [700]], dtype),
    )
    P, finite = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
    assert finite
    third = 1 / 3
    truth = [[1, 0, 0], [0, 0, 1], [third, third, third], [1, 0, 0]]
    np.testing.assert_allclose(P, truth, rtol=2 * np.finfo(dtype).eps, atol=1e-30)
    assert np.isfinite(train(case, optimizer(GRADIENT)).parameters[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_inputs_make_the_loss_nan(dtype, activation, out_activation):
    case = make_case(dtype, (4, 5, 3), 7, activation, out_activation)
    case.X[case.order[3], 2] = np.nan
    losses = train(case, optimizer(GRADIENT)).losses
    assert np.isnan(losses).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_saturated_units_leave_no_denormals(dtype, activation, out_activation):
    # a processor takes a hundred times as long for a product with a denormal
    info = np.finfo(dtype)
    for share in (0.5, 0.9, 0.97, 1.0, 1.02, 2.0):
        case = make_case(dtype, (6, 20, 8, 3), 40, activation, out_activation)
        far = share * np.log(float(info.tiny))
        case.intercepts[0][:10] = far
        case.intercepts[-1][0] = far
        work = train(case, optimizer(GRADIENT)).work
        for array in (work.activations, work.deltas):
            normal = (array == 0) | (np.abs(array) >= info.tiny)
            if out_activation == "exp":  # which overflows, and infinity times 0 is NaN
                normal |= np.isnan(array)
            assert normal.all(), share


# ------------------------------------------------------------- optimizers


def reference_steps(case, opt, epochs, batch_size, rate=RATE):
    """Losses and parameters of the same steps, in float64."""
    opt = opt.view(np.recarray)[0]
    coefs, intercepts = float64(case.coefs), float64(case.intercepts)
    state, losses = {}, []
    for _ in range(epochs):
        for first in range(0, len(case.order), batch_size):
            rows = case.order[first : first + batch_size]
            loss, d_coefs, d_intercepts = baseline.loss_and_gradients(
                coefs,
                intercepts,
                case.X[rows].astype(np.float64),
                case.Y[rows],
                case.activation,
                case.out_activation,
                opt.alpha,
                eps=np.finfo(case.plan.dtype).eps,
                weights=case.weights if case.weights is None else case.weights[rows],
            )
            losses.append(loss)
            params, gradients = coefs + intercepts, d_coefs + d_intercepts
            if opt.kind == ADAM:
                decays = (opt.beta_1, opt.beta_2, opt.epsilon)
                baseline.adam(params, gradients, state, rate, *decays)
            else:
                baseline.sgd(
                    *(params, gradients, state, rate),
                    *(opt.momentum, opt.nesterov),
                )
    return losses, coefs, intercepts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "opt",
    [
        # an epsilon next to which the noise of vanishing gradients does not count:
        # Adam would turn its sign into a whole step
        optimizer(ADAM, 0.1, epsilon=1e-2),
        optimizer(SGD, 0.1),
        optimizer(SGD, 0.1, nesterov=False),
        optimizer(SGD, 0.0, momentum=0.0, nesterov=False),
    ],
    ids=["adam", "nesterov", "momentum", "plain"],
)
def test_steps_follow_the_reference(dtype, activation, out_activation, opt):
    case = make_case(dtype, (7, 40, 21, 5), 45, activation, out_activation)
    # the exponential runs away at the rates of the others
    rate = RATE / 10 if out_activation == "exp" else RATE
    result = train(case, opt, batch_size=20, epochs=4, rate=rate)
    losses, coefs, intercepts = reference_steps(case, opt, 4, 20, rate)
    assert result.taken == 12
    got = network.unpack(case.plan, result.parameters[0])
    # 12 steps, each of which moves the weights by errors of the gradients (sums of at
    # most 40 terms) and hands on those of all steps before it
    tolerance = 12 * 40 * np.finfo(dtype).eps
    for found, truth in zip(got[0] + got[1], coefs + intercepts, strict=True):
        np.testing.assert_allclose(found, truth, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(result.losses.ravel(), losses, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposed_weights_follow_the_weights(dtype):
    case = make_case(dtype, (7, 50, 100, 5), 45, "tanh", "softmax")
    result = train(case, optimizer(ADAM, 0.1), batch_size=20, epochs=3)
    coefs, _ = network.unpack(case.plan, result.parameters[0])
    np.testing.assert_array_equal(
        result.work.transposed, network.transposed_weights(case.plan, coefs)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("kind", [ADAM, SGD], ids=["adam", "sgd"])
def test_padding_stays_exactly_zero(dtype, kind, out_activation):
    # the logistic of a padded unit is 1/2: it must not leak into any weight
    for units in ((3, 5, 7, 2), (17, 33, 50, 3), (1, 1, 1, 1), (9, 100, 49)):
        case = make_case(dtype, units, 37, "logistic", out_activation)
        result = train(case, optimizer(kind, 0.1), batch_size=16, epochs=4)
        inside = network.pack(
            case.plan,
            [np.ones_like(W) for W in case.coefs],
            [np.ones_like(b) for b in case.intercepts],
        ).astype(bool)
        for array in result.parameters:
            assert not array[~inside].any()
        assert result.parameters[1][inside].any()


# ------------------------------------------------------------- predictions


def check_prediction(case):
    before = case.X.copy()
    P, finite = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
    assert finite
    everything = case._replace(order=np.arange(len(case.X)))
    truth = baseline.forward(
        float64(case.coefs),
        float64(case.intercepts),
        case.X.astype(np.float64),
        case.activation,
        case.out_activation,
    )[-1]
    error = expected_errors(everything, 0.0)[0]
    assert P.dtype == case.X.dtype
    assert P.shape == truth.shape
    assert (np.abs(P - truth) <= SIGMAS * error).all(), (len(case.X), P.shape)
    np.testing.assert_array_equal(case.X, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_for_every_number_of_rows(dtype):
    for rows, kind in zip(range(1, 2 * BLOCK_ROWS + 3), kinds(), strict=False):
        check_prediction(make_case(dtype, (5, 7, 3), rows, *kind, spare=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_for_every_number_of_outputs(dtype):
    for outputs in range(1, largest(dtype)[1] + 1):
        for out in OUTPUTS:
            case = make_case(dtype, (3, outputs), 9, "tanh", out, spare=0)
            check_prediction(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_predictions_of_networks_drawn_at_random(dtype, activation, out_activation):
    rng = np.random.default_rng(7)
    for hidden_layers in (0, 1, 2, 3) * 3:
        units = rng.integers(1, 160, hidden_layers + 2).tolist()
        rows = int(rng.integers(1, 200))
        kind = (activation, out_activation)
        check_prediction(make_case(dtype, units, rows, *kind, spare=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_single_rows_are_predicted_with_the_same_bits(dtype, out_activation):
    for units in ((3, 5), (7, 40, 21, 5), (2, 3, 1)):
        case = make_case(dtype, units, 9, "tanh", out_activation, spare=0)
        P, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
        reader = RowReader(case.coefs, case.intercepts)
        rows, finite = reader.predict(case.X, "tanh", out_activation)
        assert finite
        np.testing.assert_array_equal(rows, P)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_make_no_predictions(dtype):
    case = make_case(dtype, (3, 4, 2), 1, "relu", "softmax")
    P, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X[:0], 1)
    assert P.shape == (0, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prediction_does_not_depend_on_the_other_rows(dtype):
    case = make_case(dtype, (20, 60, 5), 130, "tanh", "softmax", spare=0)
    together, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
    for first, last in ((0, 1), (50, 51), (3, 100), (129, 130)):
        X = case.X[first:last]
        alone, _ = network.predict(case.plan, case.coefs, case.intercepts, X, 1)
        np.testing.assert_array_equal(alone, together[first:last])


# ------------------------------------------------------------- same bits

WORKERS = [1, 2, 3, 5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
def test_workers_do_not_change_a_bit_of_the_training(dtype, out_activation):
    case = make_case(dtype, (30, 100, 50, 10), 333, "tanh", out_activation)
    opt = optimizer(ADAM, 0.1)
    alone = train(case, opt, batch_size=150, epochs=2)
    assert np.isfinite(alone.losses).all()
    for workers in WORKERS:
        again = train(case, opt, batch_size=150, epochs=2, workers=workers)
        np.testing.assert_array_equal(again.losses, alone.losses)
        for a, b in zip(again.parameters, alone.parameters, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parallel_gradients_follow_the_reference(dtype):
    for rows, kind in zip((1, 7, 50, 130), kinds(), strict=False):
        case = make_case(dtype, (9, 60, 5), rows, *kind)
        check_gradients(case, 0.1, workers=3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_gives_the_same_bits_run_after_run(dtype):
    case = make_case(dtype, (30, 100, 50, 10), 333, "relu", "softmax")
    runs = [train(case, optimizer(SGD), batch_size=150, workers=2) for _ in range(10)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.losses, runs[0].losses)
        np.testing.assert_array_equal(run.parameters[0], runs[0].parameters[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_workers_do_not_change_a_bit_of_the_predictions(dtype):
    case = make_case(dtype, (20, 60, 5), 501, "logistic", "softmax", spare=0)
    expected, _ = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
    theta = network.pack(case.plan, case.coefs, case.intercepts)
    inputs = network.training_data(case.plan, case.X, (), None, np.arange(len(case.X)))
    for workers in WORKERS:
        for block in (8, 48):
            out = np.full(expected.shape, np.nan, dtype)
            work = network.prediction_workspace(case.plan, len(out), block, workers)
            flag = np.ones(1, np.bool_)
            args = (case.plan.net, theta, inputs, out.reshape(-1), work, flag)
            team = threads.Team(
                case.plan.program("predict_rows"), case.plan.dtype, work.team
            )
            team.call(args, workers)
            np.testing.assert_array_equal(out, expected)
            team.dismiss()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_tell_of_numbers_that_are_not_finite(dtype, bad):
    for inputs in range(1, largest(dtype)[0]):
        case = make_case(dtype, (inputs, 3, 2), 50, "relu", "softmax", spare=0)
        case.X[37, inputs // 2] = bad
        P, finite = network.predict(case.plan, case.coefs, case.intercepts, case.X, 1)
        assert not finite
        assert np.isfinite(np.delete(P, 37, axis=0)).all()


# ------------------------------------------------------------- sparse inputs


def make_sparse(case, density, container=sparse.csr_matrix, seed=0):
    """The case with only some of its inputs not zero: dense, and sparse."""
    kept = np.random.default_rng(seed).random(case.X.shape) < density
    case = case._replace(X=np.where(kept, case.X, case.X.dtype.type(0)))
    units = tuple(case.plan.net.layers["units"].tolist())
    kind = (case.activation, case.out_activation, case.plan.dtype)
    plan = network.layout(units, *kind, sparse=True)
    return case, case._replace(plan=plan, X=container(case.X))


def check_sparse_steps(case, density, opt, **settings):
    dense, stored = make_sparse(case, density)
    wanted, found = (train(c, opt, **settings) for c in (dense, stored))
    assert np.isfinite(wanted.losses).all()
    check_same(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.02, 0.3, 1])
def test_sparse_steps_have_the_bits_of_dense_ones(dtype, density):
    rng, largest_units = np.random.default_rng(0), largest(dtype)[1]
    shapes = [(1, 3), (1, 1, 1), (60, 100, 150, 70), (1000, 7, 3), (300, 250)]
    for _ in range(20):
        hidden = rng.integers(1, largest_units, rng.integers(0, 3)).tolist()
        shapes.append((*rng.integers(1, 150, 1).tolist(), *hidden, 4))
    for units, kind, solver in zip(
        shapes, kinds(), [ADAM, SGD, GRADIENT] * 9, strict=False
    ):
        case = make_case(dtype, units, int(rng.integers(1, 70)), *kind)
        check_sparse_steps(case, density, optimizer(solver, 0.1), rate=1e-3)
        check_sparse_steps(
            weigh(case, "random"),
            density,
            optimizer(solver, 0.1),
            rate=1e-3,
            batch_size=16,
            epochs=2,
            workers=2,
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_activation", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sparse_gradients_of_every_kind(dtype, activation, out_activation):
    for units in ((33, 3), (33, 60, 5)):
        case = make_case(dtype, units, 50, activation, out_activation)
        check_sparse_steps(case, 0.2, optimizer(GRADIENT, 0.1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_gradients_of_long_batches(dtype):
    # sums that dense inputs take in parts; deltas dealt out in groups of panels
    for units, rows in (((70, 30, 3), 900), ((250, 500, 4), 3000), ((2000, 20, 3), 50)):
        case = make_case(dtype, units, rows, "relu", "softmax")
        check_sparse_steps(case, 0.05, optimizer(SGD, 0.1), workers=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_rows_may_be_empty(dtype):
    case = make_case(dtype, (50, 20, 3), 40, "tanh", "softmax")
    case.X[case.order[10:30]] = 0
    check_sparse_steps(case, 0.1, optimizer(ADAM, 0.1), batch_size=10, epochs=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_workers_do_not_change_a_bit_of_sparse_training(dtype):
    case = make_case(dtype, (500, 100, 10), 333, "tanh", "softmax")
    _, case = make_sparse(case, 0.05)
    alone = train(case, optimizer(ADAM, 0.1), batch_size=150, epochs=2)
    for workers in WORKERS:
        check_same(train(case, optimizer(ADAM, 0.1), 150, 2, workers), alone)


def predict(case, n_jobs=1):
    return network.predict(case.plan, case.coefs, case.intercepts, case.X, n_jobs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.02, 0.3, 1])
def test_sparse_predictions_have_the_bits_of_dense_ones(dtype, density):
    shapes = [(1, 3), (60, 100, 150, 70), (1000, 7, 3), (300, 250), (20, 40, 1)] * 5
    containers = [sparse.csr_matrix, sparse.csr_array] * 13
    for units, kind, container in zip(shapes, kinds(), containers, strict=False):
        for rows in (1, 30, 2 * BLOCK_ROWS + 5):
            case = make_case(dtype, units, rows, *kind, spare=0)
            dense, stored = make_sparse(case, density, container)
            found, finite = predict(stored, n_jobs=None)
            assert finite
            np.testing.assert_array_equal(found, predict(dense)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_predictions_tell_of_numbers_that_are_not_finite(dtype):
    case = make_case(dtype, (70, 3, 2), 2 * BLOCK_ROWS, "relu", "softmax", spare=0)
    for row in (0, 37, len(case.X) - 1):
        for bad in (np.nan, np.inf, -np.inf):
            _, stored = make_sparse(case, 0.1)
            stored.X.data[stored.X.indptr[row]] = bad
            P, finite = predict(stored)
            assert not finite
            assert np.isfinite(np.delete(P, row, axis=0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_sparse_rows_make_no_predictions(dtype):
    _, case = make_sparse(make_case(dtype, (3, 4, 2), 1, "relu", "softmax"), 0.5)
    P, finite = predict(case._replace(X=case.X[:0]))
    assert P.shape == (0, 2)
    assert finite


@pytest.mark.parametrize("dtype", DTYPES)
def test_unsorted_and_repeated_entries_count_as_their_sums(dtype):
    case = make_case(dtype, (9, 5, 2), 40, "tanh", "softmax", spare=0)
    dense, stored = make_sparse(case, 0.4)
    # each number twice, a half each, from the last column to the first
    X = stored.X
    parts = [
        np.repeat(np.arange(X.indptr[i], X.indptr[i + 1])[::-1], 2)
        for i in range(X.shape[0])
    ]
    entries = np.concatenate(parts)
    twice = sparse.csr_matrix(
        (X.data[entries] / 2, X.indices[entries], 2 * X.indptr), shape=X.shape
    )
    before = [a.copy() for a in (twice.data, twice.indices, twice.indptr)]
    twice = stored._replace(X=twice)
    np.testing.assert_array_equal(predict(twice)[0], predict(dense)[0])
    opt = optimizer(ADAM, 0.1)
    check_same(train(twice, opt, 15), train(dense, opt, 15))
    for a, b in zip((twice.X.data, twice.X.indices, twice.X.indptr), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_blocks_of_rows_keep_all_workers_busy_to_the_end():
    @numba.njit
    def block_rows(rows, most, grain, workers):
        return programs._block_rows(rows, most, grain, workers)

    def longest(rows, block, workers):
        """Rows of the worker that ends last; whoever is free takes the next block."""
        busy = [0] * workers
        for begin in range(0, rows, block):
            busy[busy.index(min(busy))] += min(block, rows - begin)
        return max(busy)

    most = 48
    for grain in (8, 16):
        blocks = range(grain, most + 1, grain)
        for workers in (1, 2, 3, 8):
            for rows in (1, 7, 16, 32, 48, 50, 96, 197, 200, 256, 1000):
                block = block_rows(rows, most, grain, workers)
                assert block in blocks
                ends = {b: longest(rows, b, workers) for b in blocks}
                assert ends[block] == min(ends.values())
                # no smaller than need be: each block reads all weights
                assert block == max(b for b in blocks if ends[b] == ends[block])
