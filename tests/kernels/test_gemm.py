"""The register tile against NumPy, for every width and many lengths of the sum."""

import numba
import numpy as np
import pytest

from fastbp.kernels import simd
from fastbp.kernels.gemm import (
    ONE,
    THREE,
    TILE_ROWS,
    TILE_VECTORS,
    TWO,
    evenly,
    listed,
    multiply_tile,
    panel_width,
    product,
    tile_of_rows,
    tile_store,
)

DTYPES = [np.float32, np.float64]
WIDTHS = [ONE, TWO, THREE]
LENGTHS = range(2 * TILE_ROWS + 2)
UNTOUCHED = 77


@numba.njit(error_model="numpy")
def of_listed_rows(out, at, bias, left, offsets, walk, right, vectors):
    """A tile whose rows of the left operand start at offsets[1:]."""
    bias, start = bias
    right, first, stride, n = right
    at, pitch = at
    tile = tile_of_rows(bias, start, vectors)
    tile = product(tile, left, listed(offsets, 1), walk, right, first, stride, n)
    tile_store(out, at, pitch, tile, out.dtype.type(-np.inf))


@numba.njit(error_model="numpy")
def of_even_rows(out, at, bias, left, rows, walk, right, vectors):
    """A tile whose rows of the left operand are at ``rows`` (first, stride)."""
    bias, start = bias
    right, first, stride, n = right
    at, pitch = at
    rows = evenly(rows[0], rows[1])
    tile = tile_of_rows(bias, start, vectors)
    tile = product(tile, left, rows, walk, right, first, stride, n)
    tile_store(out, at, pitch, tile, out.dtype.type(-np.inf))


@numba.njit(error_model="numpy")
def chosen_by_width(out, floor, bias, left, right, n, width):
    """max(bias + left @ right, floor) for dense operands, of any width of a tile."""
    multiply_tile(
        out=out,
        at=0,
        pitch=width,
        floor=floor,
        bias=bias,
        start=0,
        left=left,
        rows=evenly(0, n),
        step=1,
        block=n,
        jump=0,
        right=right,
        first=0,
        stride=width,
        n=n,
        width=width,
    )


@numba.njit(error_model="numpy")
def stored(row, offset, floor, out, at, pitch, vectors):
    tile_store(out, at, pitch, tile_of_rows(row, offset, vectors), floor)


@numba.njit(error_model="numpy")
def width_of_panels(array):
    return panel_width(array)


def columns(dtype, vectors):
    return len(vectors) * simd.lanes(dtype)


def whole_numbers(rng, dtype, shape):
    """Small enough for every sum of products to be exact."""
    return rng.integers(-9, 10, shape).astype(dtype)


def split(out, at, pitch, width):
    """The tile in a flat array, after a check that nothing else was written."""
    places = at + np.arange(TILE_ROWS)[:, None] * pitch + np.arange(width)
    outside = np.delete(out, places.ravel())
    assert (outside == UNTOUCHED).all()
    return out[places]


def space(dtype, at, pitch):
    return np.full(at + TILE_ROWS * pitch + 5, UNTOUCHED, dtype)


def test_widths_go_up_to_the_widest_tile():
    assert [len(width) for width in WIDTHS] == list(range(1, TILE_VECTORS + 1))
    for dtype in DTYPES:
        assert width_of_panels(np.zeros(1, dtype)) == columns(dtype, THREE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", WIDTHS, ids=len)
def test_product_of_listed_rows_is_exact_on_whole_numbers(dtype, vectors):
    rng, width = np.random.default_rng(0), columns(dtype, vectors)
    for n in LENGTHS:
        # rows of a larger matrix, one of them twice, in no order
        left = whole_numbers(rng, dtype, (TILE_ROWS + 2, n + 3))
        chosen = rng.permutation(TILE_ROWS + 2)[:TILE_ROWS]
        chosen[-1] = chosen[0]
        offsets = np.concatenate([[-1], chosen * left.shape[1]])
        for pitch, stride, first, at in ((width, width, 0, 0), (width + 5, 64, 3, 7)):
            right = whole_numbers(rng, dtype, first + n * stride + width)
            bias = whole_numbers(rng, dtype, 2 + width)
            for offset in (2, -1):
                out = space(dtype, at, pitch)
                of_listed_rows(
                    *(out, (at, pitch), (bias, offset), left.ravel(), offsets),
                    *((1, n, 0), (right, first, stride, n), vectors),
                )
                matrix = right[first : first + n * stride].reshape(n, stride)
                truth = left[chosen, :n] @ matrix[:, :width]
                if offset >= 0:
                    truth = truth + bias[offset:]
                np.testing.assert_array_equal(split(out, at, pitch, width), truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", WIDTHS, ids=len)
def test_product_walks_over_panels_and_columns_of_the_left_operand(dtype, vectors):
    rng, width = np.random.default_rng(1), columns(dtype, vectors)
    begin, at = 4, 1
    none = (np.zeros(1, dtype), -1)
    for n in LENGTHS:
        right = whole_numbers(rng, dtype, (n, width))
        for row_stride, step, block, jump in (
            (n + 2, 1, n, 0),  # rows of a matrix
            (1, TILE_ROWS + 3, n, 0),  # its columns
            (5, 1, 5, 100),  # rows of panels of five columns
            (3, 1, 3, 3 * TILE_ROWS),
            (1, 7, 1, 31),  # blocks of one
        ):
            k = np.arange(n)
            walk = (k // max(block, 1)) * jump + k % max(block, 1) * step
            rows = begin + row_stride * np.arange(TILE_ROWS)
            places = rows[:, None] + walk
            left = whole_numbers(rng, dtype, places.max(initial=0) + 1)
            out = space(dtype, at, width)
            of_even_rows(
                *(out, (at, width), none, left, (begin, row_stride)),
                *((step, block, jump), (right.ravel(), 0, width, n), vectors),
            )
            truth = left[places] @ right
            np.testing.assert_array_equal(split(out, at, width, width), truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", WIDTHS, ids=len)
def test_product_rounds_like_one_chain_of_sums(dtype, vectors):
    rng, width = np.random.default_rng(2), columns(dtype, vectors)
    eps = np.finfo(dtype).eps
    for n in (*LENGTHS, 1000):
        left = rng.standard_normal((TILE_ROWS, n)).astype(dtype)
        right = rng.standard_normal((n, width)).astype(dtype)
        bias = rng.standard_normal(width).astype(dtype)
        out = space(dtype, 0, width)
        third = max(n // 3, 1)  # three blocks, one behind the other
        of_even_rows(
            *(out, (0, width), (bias, 0), left.ravel(), (0, n)),
            *((1, third, third), (right.ravel(), 0, width, n), vectors),
        )
        a, b = left.astype(np.float64), right.astype(np.float64)
        error = np.abs(split(out, 0, width, width) - (a @ b + bias))
        # n + 1 terms, each rounded n + 1 times by at most eps / 2; the other half of
        # each eps is left to the truth's own rounding in float64
        assert (error <= (n + 1) * eps * (np.abs(a) @ np.abs(b) + np.abs(bias))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", WIDTHS, ids=len)
def test_store_has_a_floor_and_keeps_nan(dtype, vectors):
    width, at = columns(dtype, vectors), 3
    special = np.array([-np.inf, -2, -1e-30, -0.0, 0, 1e-30, 2, np.inf, np.nan], dtype)
    row = np.resize(special, width)
    for shift in range(special.size):
        row = np.roll(row, shift)
        for floor in (-np.inf, -1.0, 0.0):
            for pitch in (width, width + 2):
                out = space(dtype, at, pitch)
                stored(row, 0, dtype(floor), out, at, pitch, vectors)
                expected = np.tile(np.maximum(row, dtype(floor)), (TILE_ROWS, 1))
                found = split(out, at, pitch, width)
                np.testing.assert_array_equal(found, expected)
        out = space(dtype, at, width)
        stored(row, -1, dtype(-np.inf), out, at, width, vectors)
        assert (split(out, at, width, width) == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiply_tile_takes_every_width(dtype):
    rng = np.random.default_rng(3)
    for vectors in WIDTHS:
        width = columns(dtype, vectors)
        for n in LENGTHS:
            left = whole_numbers(rng, dtype, (TILE_ROWS, n))
            right = whole_numbers(rng, dtype, (n, width))
            bias = whole_numbers(rng, dtype, width)
            for floor in (-np.inf, 0.0):
                out = space(dtype, 0, width)
                operands = (bias, left.ravel(), right.ravel())
                chosen_by_width(out, dtype(floor), *operands, n, width)
                np.testing.assert_array_equal(
                    split(out, 0, width, width), np.maximum(left @ right + bias, floor)
                )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_nan_spoils_no_other_row(dtype):
    width, n = columns(dtype, THREE), 5
    left, right = np.ones((TILE_ROWS, n), dtype), np.ones((n, width), dtype)
    left[TILE_ROWS // 2, 3] = np.nan
    out = space(dtype, 0, width)
    operands = (right[0].copy(), left.ravel(), right.ravel())
    chosen_by_width(out, dtype(0), *operands, n, width)
    broken = np.isnan(split(out, 0, width, width))
    assert broken[TILE_ROWS // 2].all()
    assert broken.sum() == width
