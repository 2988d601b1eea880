"""NUMBA_BOUNDSCHECK=1: an access beyond an array is an IndexError, none within is."""

import numpy as np
import pytest

from fastbp import network, threads
from fastbp.kernels import simd
from fastbp.tables import OPTIMIZER
from tests.processes import run_python

PRIMITIVES = """
import numba
from fastbp.kernels import gemm, simd, team

@numba.njit
def load(a, i):
    return simd.lane_sum(simd.vload(a, i))

@numba.njit
def store(a, i):
    simd.vstore(a, i, simd.splat(a[0]))

@numba.njit
def transpose(source, first, stride, target, to, pitch):
    simd.transpose_square(source, first, stride, target, to, pitch)

@numba.njit
def multiply(out, left, right, n, rows, columns, bias):
    gemm.multiply(
        gemm.Out(out, 0, columns),
        gemm.Left(left, 0, gemm.panel_width(out), 1, n, 0),
        gemm.Right(right, 0, columns),
        n, rows, columns, bias, out.dtype.type(-np.inf),
    )

@numba.njit
def element(a, i):
    return a[i]

@numba.njit
def ticket(words):
    return team.take_ticket(words)

def outcome(function, *args):
    try:
        function(*args)
    except IndexError:
        return "IndexError"
    return "ok"

def check(expected, function, *args):
    found = outcome(function, *args)
    assert found == expected, (function.__name__, args[1:], found)

for dtype in (np.float32, np.float64):
    lanes = simd.lanes(dtype)
    a = np.zeros(3 * lanes, dtype)
    for function in (load, store):
        check("ok", function, a, 0)
        check("ok", function, a, 2 * lanes)
        check("IndexError", function, a, 2 * lanes + 1)
        check("IndexError", function, a, -1)
        check("IndexError", function, a[:lanes - 1], 0)
        check("IndexError", function, a, 2**40)
    check("IndexError", element, a, a.size)
    square = lanes * lanes
    small, large = np.zeros(square, dtype), np.zeros(square + 5, dtype)
    check("ok", transpose, small, 0, lanes, large, 5, lanes)
    check("ok", transpose, large, 0, lanes + 5 // lanes, small, 0, lanes)
    for args in (
        (small, 1, lanes, large, 0, lanes),
        (small, 0, lanes + 1, large, 0, lanes),
        (large, 0, lanes, small, 1, lanes),
        (large, 0, lanes, small, 0, lanes + 1),
        (large, 0, lanes, small, -1, lanes),
    ):
        check("IndexError", transpose, *args)
    for vectors in (1, 2, 3, 4):  # and both rows and tall tiles
        for rows in (gemm.TILE_ROWS, gemm.TALL_ROWS):
            n, columns = 5, vectors * lanes
            pitch = gemm.panel_elements(lanes)
            left = (rows - 1) * pitch + n
            sizes = {"out": rows * columns, "left": left, "right": n * columns}
            arrays = {name: np.zeros(size, dtype) for name, size in sizes.items()}
            check("ok", multiply, *arrays.values(), n, rows, columns, gemm.ZERO)
            check("ok", multiply, *arrays.values(), n, rows, columns, 0)
            beyond = sizes["right"] - columns + 1
            check("IndexError", multiply, *arrays.values(), n, rows, columns, beyond)
            for name in arrays:
                short = {**arrays, name: arrays[name][:-1]}
                check("IndexError", multiply, *short.values(), n, rows, columns, -1)
check("ok", ticket, np.zeros(32, np.int64))
check("IndexError", ticket, np.zeros(0, np.int64))
"""


def test_every_access_is_checked(tmp_path):
    run_python(PRIMITIVES, tmp_path, NUMBA_BOUNDSCHECK="1")


@pytest.mark.skipif(not simd.CHECKED, reason="under NUMBA_BOUNDSCHECK=1 only")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "name", ["activations", "deltas", "transposed", "row_loss", "scratch", "squares"]
)
def test_a_fit_in_too_little_memory_is_an_error(name, n_threads):
    # on several threads too, where nobody may wait for the one that failed
    plan = network.layout((5, 40, 30, 1), "relu", "identity", np.dtype(np.float64))
    shapes = [(5, 40), (40, 30), (30, 1)]
    coefs = [np.ones(shape) for shape in shapes]
    theta = network.pack(plan, coefs, [np.zeros(shape[1]) for shape in shapes])
    parameters = (theta, *(network.aligned_zeros(theta.size, "f8") for _ in range(2)))
    data = network.training_data(plan, np.ones((90, 5)), np.ones(90), None, np.arange(90))
    work = network.training_workspace(plan, 90, n_threads, coefs)
    optimizer = np.zeros(1, OPTIMIZER)
    optimizer["epsilon"] = 1e-3

    def train(work):
        args = (plan.net, parameters, work, data, optimizer, (0, 1), 90)
        args = (*args, np.full(1, 1e-3), np.zeros(1))
        team = threads.Team("train_steps", plan.dtype, work.team)
        try:
            team.call((*args, np.zeros(1, np.int64)), n_threads)
        finally:
            team.dismiss()

    train(work)
    short = getattr(work, name)[: len(getattr(work, name)) // 8]
    with pytest.raises(IndexError, match="out of bounds"):
        train(work._replace(**{name: short}, team=threads.team_state()))
