"""One pass over the weights does what the optimizers' formulas say."""

import numba
import numpy as np
import pytest

from benchmarks import baseline
from fastbp.kernels import simd
from fastbp.kernels.updates import update
from fastbp.tables import ADAM, GRADIENT, SGD, Step

DTYPES = [np.float32, np.float64]
RATE = 0.01


@numba.njit(error_model="numpy")
def call_update(theta, m, v, first, count, gradient, at, alpha, step):
    return update(theta, m, v, first, count, gradient, at, alpha, step)


def make_step(dtype, kind, **changes):
    """A ``Step`` in one dtype, as the kernels build it."""
    numbers = {
        "scale": 1.0,
        "alpha": 0.0,
        "rate": RATE,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "momentum": 0.9,
    } | changes
    nesterov = bool(numbers.pop("nesterov", True))
    for new, beta in (("new_1", "beta_1"), ("new_2", "beta_2")):
        numbers[new] = 1 - numbers[beta]
    numbers = {name: dtype(value) for name, value in numbers.items()}
    return Step(kind=kind, nesterov=nesterov, **numbers)


def draw(rng, dtype, n):
    return rng.standard_normal(n).astype(dtype)


def exact(number):
    """The parameter as the kernel has it: rounded to the dtype, then in float64."""
    return float(number)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [ADAM, SGD, GRADIENT], ids=["adam", "sgd", "none"])
def test_update_writes_its_range_only(dtype, kind):
    lanes, rng = simd.lanes(dtype), np.random.default_rng(0)
    n = 8 * lanes
    before = [draw(rng, dtype, n), draw(rng, dtype, n), draw(rng, dtype, n) ** 2]
    gradient = draw(rng, dtype, n)
    for registers in range(5):
        for first, at in ((0, 0), (3, 1), (2 * lanes, lanes)):
            after = [array.copy() for array in before]
            count = registers * lanes
            step = make_step(dtype, kind)
            args = (first, count, gradient, at, dtype(0.1), step)
            squares = call_update(*after, *args)
            inside = np.zeros(n, bool)
            inside[first : first + count] = True
            for name, old, new in zip("tmv", before, after, strict=True):
                changes = {ADAM: "tmv", SGD: "tm", GRADIENT: "m"}[kind]
                np.testing.assert_array_equal(new[~inside], old[~inside])
                assert (new != old)[inside].all() == (name in changes or count == 0)
            total = np.sum(before[0][inside].astype(np.float64) ** 2)
            # as many roundings as terms in a lane, and a tree over the lanes
            terms = registers + np.log2(lanes)
            assert abs(squares - total) <= terms * np.finfo(dtype).eps * total


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_kind_stores_the_scaled_gradient_with_its_l2_term(dtype):
    lanes, rng = simd.lanes(dtype), np.random.default_rng(1)
    n, eps = 4 * lanes, np.finfo(dtype).eps
    theta, gradient = draw(rng, dtype, n), draw(rng, dtype, n)
    m, v = np.zeros(n, dtype), np.zeros(n, dtype)
    for alpha, scale in ((0.0, 1.0), (0.3, 1 / 7), (1e3, 1e-3)):
        step = make_step(dtype, GRADIENT, scale=scale)
        call_update(theta, m, v, 0, n, gradient, 0, dtype(alpha), step)
        alpha, scale = exact(dtype(alpha)), exact(step.scale)
        truth = (gradient.astype(np.float64) + alpha * theta) * scale
        size = (np.abs(gradient) + alpha * np.abs(theta)) * scale
        # one fused sum, one product
        assert (np.abs(m - truth) <= 2 * eps * size).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_adam_follows_the_reference(dtype, alpha):
    lanes, rng = simd.lanes(dtype), np.random.default_rng(2)
    n, eps, steps, rows = 4 * lanes, np.finfo(dtype).eps, 20, 5
    theta = draw(rng, dtype, n)
    m, v = np.zeros(n, dtype), np.zeros(n, dtype)
    params, state = [theta.astype(np.float64)], {}
    for t in range(1, steps + 1):
        gradient = draw(rng, dtype, n)
        rate = RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        step = make_step(dtype, ADAM, scale=1 / rows, rate=rate)
        call_update(theta, m, v, 0, n, gradient, 0, dtype(alpha), step)
        truth = (gradient.astype(np.float64) + alpha * params[0]) / rows
        baseline.adam(params, [truth], state, RATE)
    # 1 - beta_2 is taken in the dtype: relative error eps / (1 - beta_2), which the
    # square root halves; a step is at most the rate times 1 / sqrt(1 - beta_2)
    step_error = (0.5 * eps / (1 - 0.999) + 50 * eps) * RATE / np.sqrt(1 - 0.999)
    bound = steps * (step_error + 4 * eps * np.abs(params[0]))
    assert (np.abs(theta - params[0]) <= bound).all()
    # moments are sums of steps terms no larger than 2; the decays are rounded
    assert (np.abs(m - state["m"][0]) <= steps * 4 * eps * 2).all()
    v_bound = (eps / (1 - 0.999) + steps * 4 * eps) * state["v"][0]
    assert (np.abs(v - state["v"][0]) <= v_bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_the_reference(dtype, nesterov, momentum):
    lanes, rng = simd.lanes(dtype), np.random.default_rng(3)
    n, eps, steps, rows, alpha = 4 * lanes, np.finfo(dtype).eps, 20, 3, 0.25
    theta = draw(rng, dtype, n)
    m, v = np.zeros(n, dtype), np.zeros(n, dtype)
    params, state = [theta.astype(np.float64)], {}
    step = make_step(dtype, SGD, scale=1 / rows, momentum=momentum, nesterov=nesterov)
    for _ in range(steps):
        gradient = draw(rng, dtype, n)
        call_update(theta, m, v, 0, n, gradient, 0, dtype(alpha), step)
        truth = (gradient.astype(np.float64) + alpha * params[0]) / rows
        baseline.sgd(params, [truth], state, RATE, momentum, nesterov)
    # a step rounds the weight once, and a velocity of at most 10 rates about 8 times
    bound = steps * eps * (np.abs(params[0]) + 1 + 8 * 10 * RATE)
    assert (np.abs(theta - params[0]) <= bound).all()
    assert (np.abs(m - state["m"][0]) <= steps * 8 * eps * 10 * RATE).all()
    assert (v == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_without_memory_of_squares_moves_on_through_a_gradient_of_zero(dtype):
    # v is 0 again while m is not: a unit that no row of the batch has switched on
    n, beta_1, epsilon = simd.lanes(dtype), 0.5, 1e-3
    theta, m, v = (np.zeros(n, dtype) for _ in range(3))
    step = make_step(dtype, ADAM, beta_1=beta_1, beta_2=0.0, epsilon=epsilon)
    for gradient in (1.0, 0.0, 1e-20, 0.0):
        mean = beta_1 * m.astype(float) + (1 - beta_1) * gradient
        truth = theta - RATE * mean / (np.abs(gradient) + epsilon)
        call_update(theta, m, v, 0, n, np.full(n, gradient, dtype), 0, dtype(0), step)
        # a handful of roundings of numbers no larger than the move
        np.testing.assert_allclose(theta, truth, rtol=10 * np.finfo(dtype).eps)
        np.testing.assert_allclose(m, mean, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [ADAM, SGD], ids=["adam", "sgd"])
def test_state_of_a_dead_unit_decays_to_zero_and_not_to_denormals(dtype, kind):
    lanes, tiny = simd.lanes(dtype), np.finfo(dtype).tiny
    # 0.9^2000 = 1e-92: with a beta_2 of 0.9, v crosses all magnitudes of float32 too;
    # those of float64 are more, so that it starts further down
    start = np.geomspace(1e-5, 1.0, lanes) * (1 if dtype == np.float32 else 1e-220)
    theta = np.ones(lanes, dtype)
    m, v = start.astype(dtype), start.astype(dtype)
    m[1::2] *= -1
    gradient = np.zeros(lanes, dtype)
    step = make_step(dtype, kind, beta_2=0.9)
    for _ in range(2000):
        call_update(theta, m, v, 0, lanes, gradient, 0, dtype(0), step)
        for state in (m, v) if kind == ADAM else (m,):
            assert ((state == 0) | (np.abs(state) >= tiny)).all()
    assert (m == 0).all()
    assert np.isfinite(theta).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_without_any_gradient_keep_their_value(dtype):
    lanes = simd.lanes(dtype)
    theta, zeros = np.linspace(-2, 2, lanes).astype(dtype), np.zeros(lanes, dtype)
    for kind in (ADAM, SGD):
        for epsilon in (1e-8, np.finfo(dtype).tiny):
            after, m, v = theta.copy(), zeros.copy(), zeros.copy()
            step = make_step(dtype, kind, epsilon=epsilon)
            call_update(after, m, v, 0, lanes, zeros, 0, dtype(0), step)
            np.testing.assert_array_equal(after, theta)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [ADAM, SGD, GRADIENT], ids=["adam", "sgd", "none"])
def test_nan_gradients_are_not_hidden(dtype, kind):
    lanes = simd.lanes(dtype)
    theta, m, v = (np.ones(lanes, dtype) for _ in range(3))
    gradient = np.zeros(lanes, dtype)
    gradient[1] = np.nan
    call_update(theta, m, v, 0, lanes, gradient, 0, dtype(0), make_step(dtype, kind))
    reached = m if kind == GRADIENT else theta
    np.testing.assert_array_equal(np.isnan(reached), np.isnan(gradient))
