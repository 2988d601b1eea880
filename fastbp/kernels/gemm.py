"""Register tiles: the one product that every dense layer is made of.

Shapes   a tile is TILE_ROWS rows by 1 to TILE_VECTORS registers of columns; all its
         sums stay in registers while k runs.
Panels   a matrix M[R, N] inside a network is stored as panels of ``panel_width`` (PW)
         columns, [ceil(N / PW)][R][PW]: a tile reads its right operand front to back,
         and no row is a power of two apart from the next. The last panel of a weight
         matrix is narrower, N padded to whole registers.
Left     scalars, read in place: rows of X through the shuffled index, rows of panels,
         or columns of a strip of inputs.

A tile of 8 x 3 registers needs 24 sums, 3 right operands and 1 to 2 left ones of the
32 registers of AVX-512 and NEON; with 16 registers (AVX2, SSE2), 4 x 3 fits.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import simd
from fastbp.kernels.simd import kernel, lanes_of, part

TILE_ROWS = 8 if simd.REGISTERS == 32 else 4
TILE_VECTORS = 3

# The width of a tile as a type: pass one of these where a kernel asks for ``vectors``.
ONE, TWO, THREE = (0,), (0, 0), (0, 0, 0)

_INT = ir.IntType(64)


@intrinsic
def evenly(typingctx, first, stride):
    """(first, first + stride, ...): offsets of the TILE_ROWS rows of a left operand."""

    def codegen(context, builder, sig, args):
        rows = [
            builder.add(args[0], builder.mul(args[1], _INT(r))) for r in range(TILE_ROWS)
        ]
        return context.make_tuple(builder, sig.return_type, rows)

    return types.UniTuple(types.intp, TILE_ROWS)(types.intp, types.intp), codegen


@intrinsic
def listed(typingctx, offsets, first):
    """offsets[first : first + TILE_ROWS] as a tuple: row offsets of a left operand."""

    def codegen(context, builder, sig, args):
        pointer = simd.emit_pointer(context, builder, sig.args[0], *args)
        rows = [builder.load(builder.gep(pointer, [_INT(r)])) for r in range(TILE_ROWS)]
        return context.make_tuple(builder, sig.return_type, rows)

    return types.UniTuple(types.intp, TILE_ROWS)(offsets, types.intp), codegen


def _tile_type(array, vectors):
    return types.UniTuple(simd.vector_of(array.dtype), TILE_ROWS * len(vectors))


@intrinsic
def tile_of_rows(typingctx, array, offset, vectors):
    """A tile with array[offset : offset + width] in every row; zeros for offset -1."""
    tile = _tile_type(array, vectors)

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(tile.dtype)
        zero = ir.Constant(vector, None)
        before = builder.block
        given = builder.icmp_signed(">=", args[1], _INT(0))
        with builder.if_then(given):
            pointer = simd.emit_pointer(context, builder, sig.args[0], *args[:2])
            loaded = [
                simd.emit_vector_load(builder, pointer, vector, c)
                for c in range(len(vectors))
            ]
            loading = builder.block
        row = []
        for value in loaded:
            node = builder.phi(vector)
            node.add_incoming(zero, before)
            node.add_incoming(value, loading)
            row.append(node)
        return context.make_tuple(builder, tile, row * TILE_ROWS)

    return tile(array, types.intp, vectors), codegen


@intrinsic
def tile_store(typingctx, array, offset, pitch, tile, floor):
    """array[offset + r * pitch + c] = max(tile[r, c], floor); NaN stays NaN."""

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(tile.dtype)
        pointer = simd.emit_pointer(context, builder, sig.args[0], *args[:2])
        low = simd.emit_splat(builder, args[4], vector)
        vectors = len(tile) // TILE_ROWS
        for n, value in enumerate(cgutils.unpack_tuple(builder, args[3])):
            row = builder.gep(pointer, [builder.mul(args[2], _INT(n // vectors))])
            below = builder.fcmp_ordered("<", value, low)
            kept = builder.select(below, low, value)
            simd.emit_vector_store(builder, kept, row, n % vectors)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile, array.dtype), codegen


@intrinsic
def product(typingctx, tile, left, rows, walk, right, first, pitch, n):
    """tile[r, c] + sum_k left[rows[r] + w(k)] * right[first + k pitch + c], k < n.

    ``walk = (step, block, jump)``: w(k) = (k // block) jump + (k % block) step.
    One chain of fused multiply-adds for each element, in the order of k.
    """

    def codegen(context, builder, sig, args):
        tile_v, left_v, rows_v, walk_v, right_v, first_v, pitch_v, n_v = args
        vector = context.get_value_type(tile.dtype)
        vectors = len(tile) // len(rows)
        start = cgutils.unpack_tuple(builder, tile_v)
        step, block, jump = cgutils.unpack_tuple(builder, walk_v)
        row_pointers = [
            simd.emit_pointer(context, builder, sig.args[1], left_v, row)
            for row in cgutils.unpack_tuple(builder, rows_v)
        ]
        right_pointer = simd.emit_pointer(context, builder, sig.args[4], right_v, first_v)

        def phis(values, origin):
            nodes = [builder.phi(value.type) for value in values]
            for node, value in zip(nodes, values, strict=True):
                node.add_incoming(value, origin)
            return nodes

        before = builder.block
        outer = builder.append_basic_block("product.block")
        inner = builder.append_basic_block("product")
        turn = builder.append_basic_block("product.turn")
        after = builder.append_basic_block("product.end")
        builder.cbranch(builder.icmp_signed(">", n_v, _INT(0)), outer, after)

        builder.position_at_end(outer)  # blocks of k: left starts anew, right goes on
        k_outer, offset_outer, *sums_outer = phis([_INT(0), _INT(0), *start], before)
        rest = builder.sub(n_v, k_outer)
        shorter = builder.icmp_signed("<", rest, block)
        k_end = builder.add(k_outer, builder.select(shorter, rest, block))
        builder.branch(inner)

        builder.position_at_end(inner)
        k, element, *sums = phis([k_outer, offset_outer, *sums_outer], outer)
        columns = builder.gep(right_pointer, [builder.mul(k, pitch_v)])
        column_vectors = [
            simd.emit_vector_load(builder, columns, vector, c) for c in range(vectors)
        ]
        new = []
        for r, pointer in enumerate(row_pointers):
            scalar = builder.load(builder.gep(pointer, [element]))
            row = simd.emit_splat(builder, scalar, vector)
            new += [
                simd.emit_fma(builder, row, column, sums[r * vectors + c])
                for c, column in enumerate(column_vectors)
            ]
        k_next = builder.add(k, _INT(1))
        advanced = [k_next, builder.add(element, step), *new]
        for node, value in zip([k, element, *sums], advanced, strict=True):
            node.add_incoming(value, inner)
        builder.cbranch(builder.icmp_signed("<", k_next, k_end), inner, turn)

        builder.position_at_end(turn)
        advanced = [k_end, builder.add(offset_outer, jump), *new]
        nodes = [k_outer, offset_outer, *sums_outer]
        for node, value in zip(nodes, advanced, strict=True):
            node.add_incoming(value, turn)
        builder.cbranch(builder.icmp_signed("<", k_end, n_v), outer, after)

        builder.position_at_end(after)
        result = phis(start, before)
        for node, value in zip(result, new, strict=True):
            node.add_incoming(value, turn)
        return context.make_tuple(builder, tile, result)

    i = types.intp
    return tile(tile, left, rows, types.UniTuple(i, 3), right, i, i, i), codegen


@part
def panel_width(array):
    """PW: elements of TILE_VECTORS registers."""
    return TILE_VECTORS * lanes_of(array)


@kernel
def multiply_tile(
    out,
    at,
    pitch,
    floor,
    bias,
    start,
    left,
    rows,
    step,
    block,
    jump,
    right,
    first,
    stride,
    n,
    width,
):
    """out[at + r pitch + c] = max(bias[start + c] + left[r, :] @ right[:, c], floor)

    for TILE_ROWS rows r and ``width`` columns c, 1 to TILE_VECTORS registers; no bias
    where ``start`` is -1. ``left`` is read at ``rows`` along (step, block, jump), and
    ``right`` at ``first`` with ``stride``, for k < n: see ``product``.
    """
    walk = (step, block, jump)
    vectors = width // lanes_of(out)
    if vectors == 3:
        three = tile_of_rows(bias, start, THREE)
        three = product(three, left, rows, walk, right, first, stride, n)
        tile_store(out, at, pitch, three, floor)
    elif vectors == 2:
        two = tile_of_rows(bias, start, TWO)
        two = product(two, left, rows, walk, right, first, stride, n)
        tile_store(out, at, pitch, two, floor)
    else:
        one = tile_of_rows(bias, start, ONE)
        one = product(one, left, rows, walk, right, first, stride, n)
        tile_store(out, at, pitch, one, floor)
