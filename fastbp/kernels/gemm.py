"""Register tiles: the one product that every dense layer is made of.

Shapes   a tile is TILE_ROWS rows by 1 to TILE_VECTORS registers of columns; all its
         sums stay in registers while k runs.
Panels   a matrix M[R, N] that takes part as the right operand is stored as panels:
         its columns, padded to whole registers, are split into runs of at most
         TILE_VECTORS registers, and each run is stored as [R][width], row after row.
         A tile then reads its right operand front to back, and the tile that it
         writes is one contiguous piece of memory.
Left     scalars, read in place: rows of X through the shuffled index, or rows and
         columns of a panel.

A tile of 8 x 3 registers needs 24 sums, 3 right operands and 1 to 2 left ones of the
32 registers of AVX-512 and NEON; with 16 registers (AVX2, SSE2), 4 x 3 fits.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import simd

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
            builder.add(args[0], builder.mul(args[1], _INT(r)))
            for r in range(TILE_ROWS)
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
    """A tile each of whose rows is array[offset : offset + len(vectors) * lanes]."""
    tile = _tile_type(array, vectors)

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(tile.dtype)
        pointer = simd.emit_pointer(context, builder, sig.args[0], *args[:2])
        row = [
            simd.emit_vector_load(builder, pointer, vector, c)
            for c in range(len(vectors))
        ]
        return context.make_tuple(builder, tile, row * TILE_ROWS)

    return tile(array, types.intp, vectors), codegen


@intrinsic
def tile_of_zeros(typingctx, array, vectors):
    """A tile of zeros of ``array``'s dtype, ``len(vectors)`` registers wide."""
    tile = _tile_type(array, vectors)

    def codegen(context, builder, sig, args):
        zero = ir.Constant(context.get_value_type(tile.dtype), None)
        return context.make_tuple(builder, tile, [zero] * len(tile))

    return tile(array, vectors), codegen


@intrinsic
def tile_store(typingctx, array, offset, tile, floor):
    """array[offset : ...] = max(tile, floor), row after row; NaN stays NaN."""

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(tile.dtype)
        pointer = simd.emit_pointer(context, builder, sig.args[0], *args[:2])
        low = simd.emit_splat(builder, args[3], vector)
        for n, value in enumerate(cgutils.unpack_tuple(builder, args[2])):
            below = builder.fcmp_ordered("<", value, low)
            simd.emit_vector_store(
                builder, builder.select(below, low, value), pointer, n
            )

    return types.void(array, types.intp, tile, array.dtype), codegen


@intrinsic
def product(typingctx, tile, left, rows, step, right, first, width, n):
    """tile[r, c] + sum_k left[rows[r] + k step] * right[first + k width + c], k < n.

    One chain of fused multiply-adds for each element, in the order of k.
    """

    def codegen(context, builder, sig, args):
        tile_v, left_v, rows_v, step_v, right_v, first_v, width_v, n_v = args
        vector = context.get_value_type(tile.dtype)
        vectors = len(tile) // len(rows)
        start = cgutils.unpack_tuple(builder, tile_v)
        row_pointers = [
            simd.emit_pointer(context, builder, sig.args[1], left_v, row)
            for row in cgutils.unpack_tuple(builder, rows_v)
        ]
        right_pointer = simd.emit_pointer(
            context, builder, sig.args[4], right_v, first_v
        )

        before = builder.block
        loop = builder.append_basic_block("product")
        after = builder.append_basic_block("product.end")
        builder.cbranch(builder.icmp_signed(">", n_v, _INT(0)), loop, after)

        builder.position_at_end(loop)
        k = builder.phi(_INT)
        k.add_incoming(_INT(0), before)
        sums = [builder.phi(vector) for _ in start]
        for running, value in zip(sums, start, strict=True):
            running.add_incoming(value, before)
        columns = builder.gep(right_pointer, [builder.mul(k, width_v)])
        column_vectors = [
            simd.emit_vector_load(builder, columns, vector, c) for c in range(vectors)
        ]
        element = builder.mul(k, step_v)
        new = []
        for r, pointer in enumerate(row_pointers):
            scalar = builder.load(builder.gep(pointer, [element]))
            row = simd.emit_splat(builder, scalar, vector)
            new += [
                simd.emit_fma(builder, row, column, sums[r * vectors + c])
                for c, column in enumerate(column_vectors)
            ]
        k_next = builder.add(k, _INT(1))
        builder.cbranch(builder.icmp_signed("<", k_next, n_v), loop, after)
        k.add_incoming(k_next, loop)
        for running, value in zip(sums, new, strict=True):
            running.add_incoming(value, loop)

        builder.position_at_end(after)
        result = []
        for value, summed in zip(start, new, strict=True):
            total = builder.phi(vector)
            total.add_incoming(value, before)
            total.add_incoming(summed, loop)
            result.append(total)
        return context.make_tuple(builder, tile, result)

    return (
        tile(tile, left, rows, types.intp, right, types.intp, types.intp, types.intp),
        codegen,
    )
