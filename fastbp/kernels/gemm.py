"""Register tiles: the one product that every dense layer is made of.

Shapes   a tile is TILE_ROWS rows by 1 to TILE_VECTORS registers of columns, or
         TALL_ROWS rows by one register; all its sums stay in registers while k runs.
Panels   a matrix M[R, N] inside a network is stored as panels of ``panel_width`` (PW)
         columns, [ceil(N / PW)][R][PW]: a tile reads its right operand front to back,
         and no row is a power of two apart from the next. The last panel of a weight
         matrix is narrower, N padded to whole registers.
Left     scalars, each used for a whole row of the tile: rows or columns of panels.
Depth    a long product is summed DEPTH steps of k at a time, for all tiles that share
         operands: so much of the left operand of many rows stays in the second-level
         cache while all panels of the right one pass by. The sums rest in the output
         meanwhile, which changes no bit of them.

A tile of 8 x 3 registers needs 24 sums, 3 right operands and 1 to 2 left ones of the
32 registers of AVX-512 and NEON; with 16 registers (AVX2, SSE2), 4 x 3 fits. One
register of columns is worth a tall tile: 8 x 1 would spend its time on loading scalars.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import simd
from fastbp.kernels.simd import kernel, lanes_of, part

TILE_ROWS = 8 if simd.REGISTERS == 32 else 4
TILE_VECTORS = 3
TALL_ROWS = TILE_ROWS * TILE_VECTORS

#: Columns of a panel at least: a multiple of TILE_ROWS, and of TILE_VECTORS registers of
#: 2, 4 or 8 lanes. Columns of inputs are rows of their weights' gradient.
_LEAST_PANEL = 24

#: Steps of k between two branches: the loop's own instructions cost an eighth otherwise.
_UNROLLED = 2

#: Steps of k that tiles sum before they make room for the next tile: whole panels.
DEPTH = 384
#: The most that are taken together, rather than leaving a short rest.
MOST_DEPTH = DEPTH + DEPTH // 2

#: Where the sums of a tile start, other than at a row of numbers (see ``multiply_tile``).
ZERO, RESUME = -1, -2

#: What is known of the rows of a left operand when a kernel is compiled.
ANY, ROWS, COLUMNS = range(3)

_INT = ir.IntType(64)


class Out(NamedTuple):
    """O[r, c] = array[first + r row + c]"""

    array: Any
    first: int
    row: int


class Left(NamedTuple):
    """L[r, k] = array[first + r row + (k // block) jump + (k % block) step]

    ``row`` is PW for rows of panels, or 1 for their columns.
    """

    array: Any
    first: int
    row: int
    step: int
    block: int
    jump: int


class Right(NamedTuple):
    """R[k, c] = array[first + k stride + c]"""

    array: Any
    first: int
    stride: int


def _add_products(builder, sums, left_pointers, column_pointer, vectors):
    """sums[r, c] += left_pointers[r][0] * column_pointer[c], for one k."""
    vector = sums[0].type.pointee
    columns = [
        simd.emit_vector_load(builder, column_pointer, vector, c) for c in range(vectors)
    ]
    for r, pointer in enumerate(left_pointers):
        row = simd.emit_splat(builder, builder.load(pointer), vector)
        for c, column in enumerate(columns):
            total = sums[r * vectors + c]
            builder.store(simd.emit_fma(builder, row, column, builder.load(total)), total)


def _initial_sums(builder, vector, targets, vectors, start_pointer, start):
    """Stack slots (registers, once optimised) with the sums' first values."""
    slots = [
        cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        for _ in range(len(targets) * vectors)
    ]
    with builder.if_then(builder.icmp_signed(">=", start, _INT(0))):
        for c in range(vectors):
            value = simd.emit_vector_load(builder, start_pointer, vector, c)
            for r in range(len(targets)):
                builder.store(value, slots[r * vectors + c])
    with builder.if_then(builder.icmp_signed("==", start, _INT(RESUME))):
        for r, target in enumerate(targets):
            for c in range(vectors):
                value = simd.emit_vector_load(builder, target, vector, c)
                builder.store(value, slots[r * vectors + c])
    return slots


@intrinsic(prefer_literal=True)
def multiply_tile(typingctx, rows, vectors, form, r, out, left, right, n, start, floor):
    """O[i, c] = max(S[c] + sum_k L[i, k] R[k, c], floor), k < n

    for ``rows`` rows i from r and ``vectors`` registers of columns c, both constants;
    S = right.array[start:], 0 where ``start`` is ZERO, or O[i] itself where it is RESUME.
    NaN stays NaN. One chain of fused multiply-adds for each element, in the order of k.
    ``form`` says what is known of left.row, as the many rows of a tall tile have no
    registers for their addresses: ROWS of panels, COLUMNS of panels, or ANY.
    """
    constants = (rows, vectors, form)
    rows, vectors, form = (constant.literal_value for constant in constants)
    array = out[0]
    width = panel_elements(simd.vector_of(array.dtype).lanes)
    known = {ANY: None, COLUMNS: 1, ROWS: width}[form]
    columns = vectors * simd.vector_of(array.dtype).lanes

    def codegen(context, builder, sig, args):
        r, out_v, left_v, right_v, n_v, start_v, floor_v = args[3:]
        out_array, out_first, out_row = cgutils.unpack_tuple(builder, out_v)
        left_array, first, row, step, block, jump = cgutils.unpack_tuple(builder, left_v)
        right_array, right_first, stride = cgutils.unpack_tuple(builder, right_v)
        vector = context.get_value_type(simd.vector_of(array.dtype))

        def pointer(array_type, array, offset):
            return simd.emit_pointer(context, builder, array_type, array, offset)

        def check(array_type, array, pointers, count):
            """Pointers that are equally far apart: the outermost two tell of all."""
            for outermost in (pointers[0], pointers[-1]):
                simd.emit_bounds_check(
                    context, builder, array_type, array, outermost, count
                )

        def advanced(cursor, distance):
            return builder.gep(builder.load(cursor), [distance])

        row = row if known is None else _INT(known)
        rows_apart = [builder.mul(_INT(i), row) for i in range(rows)]
        first = builder.add(first, builder.mul(r, row))
        block_start, left_cursor, right_cursor = (
            cgutils.alloca_once_value(builder, value)
            for value in (
                pointer(left[0], left_array, first),
                pointer(left[0], left_array, first),
                pointer(right[0], right_array, right_first),
            )
        )
        numbers = [builder.add(r, _INT(i)) for i in range(rows)]
        offsets = [builder.add(out_first, builder.mul(i, out_row)) for i in numbers]
        targets = [pointer(array, out_array, offset) for offset in offsets]
        check(array, out_array, targets, columns)
        start_pointer = pointer(right[0], right_array, start_v)
        with builder.if_then(builder.icmp_signed(">=", start_v, _INT(0))):
            check(right[0], right_array, [start_pointer], columns)
        sums = _initial_sums(builder, vector, targets, vectors, start_pointer, start_v)

        def add_products(times):
            for _ in range(times):
                left_pointers = [advanced(left_cursor, apart) for apart in rows_apart]
                right_pointer = builder.load(right_cursor)
                check(left[0], left_array, left_pointers, 1)
                check(right[0], right_array, [right_pointer], columns)
                _add_products(builder, sums, left_pointers, right_pointer, vectors)
                builder.store(advanced(left_cursor, step), left_cursor)
                builder.store(advanced(right_cursor, stride), right_cursor)

        with cgutils.for_range_slice(builder, _INT(0), n_v, block, _INT) as (k, _):
            builder.store(builder.load(block_start), left_cursor)
            rest = builder.sub(n_v, k)
            shorter = builder.icmp_signed("<", rest, block)
            count = builder.select(shorter, rest, block)
            shift = _INT(_UNROLLED.bit_length() - 1)
            with cgutils.for_range(builder, builder.ashr(count, shift)):
                add_products(_UNROLLED)
            with cgutils.for_range(builder, builder.and_(count, _INT(_UNROLLED - 1))):
                add_products(1)
            builder.store(advanced(block_start, jump), block_start)

        low = simd.emit_splat(builder, floor_v, vector)
        for i, target in enumerate(targets):
            for c in range(vectors):
                value = builder.load(sums[i * vectors + c])
                below = builder.fcmp_ordered("<", value, low)
                kept = builder.select(below, low, value)
                simd.emit_vector_store(builder, kept, target, c)
        return context.get_dummy_value()

    i = types.intp
    return types.void(*constants, i, out, left, right, i, i, array.dtype), codegen


def panel_elements(lanes):
    """PW: the columns of a panel, whole wide tiles, and whole tiles of rows too."""
    return max(TILE_VECTORS * lanes, _LEAST_PANEL)


@intrinsic
def panel_width(typingctx, array):
    """PW, a constant."""
    return simd.integer_constant(array, panel_elements(simd.vector_of(array.dtype).lanes))


@intrinsic
def row_grain(typingctx, array):
    """Rows of blocks and of stored weights: whole tiles, whole registers; a constant."""
    return simd.integer_constant(array, max(simd.vector_of(array.dtype).lanes, TILE_ROWS))


@part
def _multiply_columns(vectors, out, left, right, n, rows, start, floor):
    """``multiply`` for one tile's width of ``vectors`` registers."""
    tall = rows // TALL_ROWS * TALL_ROWS if vectors == 1 else 0
    if vectors == 3:
        for r in range(0, rows, TILE_ROWS):
            multiply_tile(TILE_ROWS, 3, ANY, r, out, left, right, n, start, floor)
    elif vectors == 2:
        for r in range(0, rows, TILE_ROWS):
            multiply_tile(TILE_ROWS, 2, ANY, r, out, left, right, n, start, floor)
    elif left.row == 1:
        for r in range(0, tall, TALL_ROWS):
            multiply_tile(TALL_ROWS, 1, COLUMNS, r, out, left, right, n, start, floor)
    else:
        for r in range(0, tall, TALL_ROWS):
            multiply_tile(TALL_ROWS, 1, ROWS, r, out, left, right, n, start, floor)
    if vectors == 1:
        for r in range(tall, rows, TILE_ROWS):
            multiply_tile(TILE_ROWS, 1, ANY, r, out, left, right, n, start, floor)


@part
def depth_at(k, n):
    """How many of the steps k, ..., n - 1 to take together: no short rest remains."""
    return DEPTH if n - k > MOST_DEPTH else n - k


@kernel
def multiply(out, left, right, n, rows, width, start, floor):
    """O[r, c] = max(S[c] + sum_k L[r, k] R[k, c], floor), k < n

    for r < rows, whole tiles, and c < width, whole registers of a panel. S is
    right.array[start:], or as in ``multiply_tile`` where ``start`` is ZERO or RESUME.
    """
    lanes = lanes_of(out.array)
    for c in range(0, width, TILE_VECTORS * lanes):
        vectors = min(TILE_VECTORS, (width - c) // lanes)
        part_of_out = Out(out.array, out.first + c, out.row)
        part_of_right = Right(right.array, right.first + c, right.stride)
        first = start + c if start >= 0 else start
        _multiply_columns(
            vectors, part_of_out, left, part_of_right, n, rows, first, floor
        )
