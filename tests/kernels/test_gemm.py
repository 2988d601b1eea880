"""Products of register tiles against NumPy: every width, height and length of the sum."""

from itertools import cycle, pairwise

import numba
import numpy as np
import pytest

from fastbp.kernels import simd
from fastbp.kernels.gemm import (
    DEPTH,
    RESUME,
    TALL_ROWS,
    TILE_ROWS,
    TILE_VECTORS,
    ZERO,
    Left,
    Out,
    Right,
    multiply,
    panel_elements,
    panel_width,
)

DTYPES = [np.float32, np.float64]
VECTORS = range(1, 2 * TILE_VECTORS + 2)
LENGTHS = range(2 * TILE_ROWS + 2)
HEIGHTS = range(TILE_ROWS, 2 * TALL_ROWS + TILE_ROWS + 1, TILE_ROWS)
UNTOUCHED = 77


@numba.njit(error_model="numpy")
def multiplied(out, at, pitch, left, walk, right, place, n, rows, width, start, floor):
    first, row, step, block, jump = walk
    left = Left(left, first, row, step, block, jump)
    right = Right(right, place[0], place[1])
    multiply(Out(out, at, pitch), left, right, n, rows, width, start, floor)


@numba.njit(error_model="numpy")
def width_of_panels(array):
    return panel_width(array)


def panel(dtype):
    return panel_elements(simd.lanes(dtype))


def whole_numbers(rng, dtype, shape):
    """Small enough for every sum of products to be exact."""
    return rng.integers(-9, 10, shape).astype(dtype)


def split(out, at, pitch, rows, width):
    """The product in a flat array, after a check that nothing else was written."""
    places = at + np.arange(rows)[:, None] * pitch + np.arange(width)
    outside = np.delete(out, places.ravel())
    assert (outside == UNTOUCHED).all()
    return out[places]


def space(dtype, at, pitch, rows):
    return np.full(at + rows * pitch + 5, UNTOUCHED, dtype)


def walks(dtype, n):
    """(first, row, step, block, jump) as training reads panels."""
    pitch = panel(dtype)
    yield 4, pitch, 1, max(n, 1), 0  # rows of one panel
    yield 0, pitch, 1, 5, 100 * pitch  # of panels of five columns
    yield 2, pitch, 1, 1, 31  # of columns far apart
    yield 3, 1, pitch, max(n, 1), 0  # columns of a panel


def left_places(walk, n, rows):
    first, row, step, block, jump = walk
    k = np.arange(n)
    return first + row * np.arange(rows)[:, None] + k // block * jump + k % block * step


def product(dtype, left, walk, right, n, rows, width, start=-1, floor=-np.inf, **places):
    """``multiply`` into a larger array, whose other elements it must leave alone."""
    at, pitch = places.get("at", 3), places.get("pitch", width)
    first, stride = places.get("first", 0), places.get("stride", width)
    out = space(dtype, at, pitch, rows)
    multiplied(
        *(out, at, pitch, left, walk, right, (first, stride)),
        *(n, rows, width, start, dtype(floor)),
    )
    return split(out, at, pitch, rows, width)


def test_a_panel_holds_whole_tiles_on_every_target():
    for dtype in DTYPES:
        assert width_of_panels(np.zeros(1, dtype)) == panel(dtype)
    for lanes in (2, 4, 8, 16):
        for grain in (lanes, TILE_VECTORS * lanes, 8):
            assert panel_elements(lanes) % grain == 0
        assert DEPTH % panel_elements(lanes) == 0  # parts of a sum are whole panels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_product_is_exact_on_whole_numbers(dtype, vectors):
    rng, width = np.random.default_rng(0), vectors * simd.lanes(dtype)
    for n in LENGTHS:
        for rows, walk in zip(cycle(HEIGHTS), walks(dtype, n), strict=False):
            places = left_places(walk, n, rows)
            left = whole_numbers(rng, dtype, places.max(initial=0) + 1)
            for pitch, stride, first in ((width, width, 0), (width + 5, width + 16, 3)):
                right = whole_numbers(rng, dtype, first + n * stride + 2 * width)
                for start in (ZERO, 2):
                    found = product(
                        *(dtype, left, walk, right, n, rows, width, start),
                        **{"pitch": pitch, "stride": stride, "first": first},
                    )
                    matrix = right[first : first + n * stride].reshape(n, stride)
                    truth = left[places] @ matrix[:, :width]
                    if start >= 0:
                        truth = truth + right[start : start + width]
                    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_every_height_in_every_walk(dtype, vectors):
    rng, width, n = np.random.default_rng(1), vectors * simd.lanes(dtype), 7
    right = whole_numbers(rng, dtype, (n, width))
    for rows in HEIGHTS:
        for walk in walks(dtype, n):
            places = left_places(walk, n, rows)
            left = whole_numbers(rng, dtype, places.max() + 1)
            found = product(dtype, left, walk, right.ravel(), n, rows, width)
            np.testing.assert_array_equal(found, left[places] @ right)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_product_rounds_like_one_chain_of_sums(dtype, vectors):
    rng, width = np.random.default_rng(2), vectors * simd.lanes(dtype)
    eps, rows = np.finfo(dtype).eps, TALL_ROWS + TILE_ROWS
    for n in (*LENGTHS, 1000):
        walk = (0, 1, rows, max(n // 3, 1), max(n // 3, 1) * rows)  # three blocks
        left = rng.standard_normal((max(n, 1), rows)).astype(dtype)
        right = rng.standard_normal((n + 1, width)).astype(dtype)
        found = product(
            dtype, left.ravel(), walk, right.ravel(), n, rows, width, n * width
        )
        a, b = left[:n].T.astype(np.float64), right[:n].astype(np.float64)
        bias = right[n].astype(np.float64)
        # n + 1 terms, each rounded n + 1 times by at most eps / 2; the other half of
        # each eps is left to the truth's own rounding in float64
        bound = (n + 1) * eps * (np.abs(a) @ np.abs(b) + np.abs(bias))
        assert (np.abs(found - (a @ b + bias)) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_a_sum_taken_in_parts_has_the_same_bits(dtype, vectors):
    rng, width = np.random.default_rng(3), vectors * simd.lanes(dtype)
    rows, n = TALL_ROWS + TILE_ROWS, 29
    left = rng.standard_normal((n, rows)).astype(dtype)
    right = rng.standard_normal((n + 1, width)).astype(dtype)
    for start in (ZERO, n * width):
        whole, parts = np.zeros((2, rows * width), dtype)
        for out, cuts in ((whole, (0, n)), (parts, (0, 7, 8, n))):
            for k, end in pairwise(cuts):
                multiplied(
                    *(out, 0, width, left.ravel(), (k * rows, 1, rows, n, 0)),
                    *(right.ravel(), (k * width, width), end - k, rows, width),
                    *(start if k == 0 else RESUME, dtype(-np.inf)),
                )
        np.testing.assert_array_equal(parts, whole)
        assert np.abs(whole).min() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_the_result_has_a_floor_and_keeps_nan(dtype, vectors):
    width, rows = vectors * simd.lanes(dtype), TALL_ROWS + TILE_ROWS
    special = np.array([-np.inf, -2, -1e-30, -0.0, 0, 1e-30, 2, np.inf, np.nan], dtype)
    walk, left = (0, 1, rows, 1, 0), np.zeros(rows, dtype)
    for shift in range(special.size):
        start_values = np.roll(np.resize(special, width), shift)
        for floor in (-np.inf, -1.0, 0.0):
            found = product(*(dtype, left, walk, start_values, 0, rows, width, 0, floor))
            expected = np.tile(np.maximum(start_values, dtype(floor)), (rows, 1))
            np.testing.assert_array_equal(found, expected)
        nothing = product(dtype, left, walk, start_values, 0, rows, width)
        assert (nothing == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", VECTORS)
def test_a_row_of_nan_spoils_no_other_row(dtype, vectors):
    width, rows, n = vectors * simd.lanes(dtype), TALL_ROWS, 5
    left, right = np.ones((n, rows), dtype), np.ones((n, width), dtype)
    left[3, TILE_ROWS // 2] = np.nan
    walk = (0, 1, rows, n, 0)
    found = product(dtype, left.ravel(), walk, right.ravel(), n, rows, width, 0, 0.0)
    broken = np.isnan(found)
    assert broken[TILE_ROWS // 2].all()
    assert broken.sum() == width
