"""A SIMD register as a Numba type: the vocabulary in which every kernel is written.

Types    Vector(dtype, lanes) holds one register of floats; a comparison gives a
         Vector of booleans, to be used by ``select``.
Arrays   loads and stores take a one-dimensional C-contiguous array and an element
         offset; they need no alignment.
Lanes    as many as fit the widest register of the target that Numba compiles for,
         which is not always the host (``NUMBA_CPU_NAME``).

Arithmetic carries no fast-math flags: an expression means the same bits wherever it
is inlined, so results do not depend on how a program was compiled or threaded. Only
``fma`` fuses a product with a sum.

Under NUMBA_BOUNDSCHECK=1, with which Numba checks the index of every single element,
every load and store of registers is checked too, and raises IndexError.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.datamodel import models, register_default
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

TARGET = cpu_target.target_context.codegen().magic_tuple()
_FEATURES = set(TARGET[2].split(","))
if "+avx512f" in _FEATURES:
    REGISTER_BYTES, REGISTERS, HAS_FMA = 64, 32, True
elif {"+avx2", "+fma"} <= _FEATURES:
    REGISTER_BYTES, REGISTERS, HAS_FMA = 32, 16, True
elif TARGET[0].startswith(("aarch64", "arm64")):
    REGISTER_BYTES, REGISTERS, HAS_FMA = 16, 32, True
else:
    REGISTER_BYTES, REGISTERS, HAS_FMA = 16, 16, False

#: Whether loads and stores are checked, at several times the running time.
CHECKED = bool(config.BOUNDSCHECK)


def lanes(dtype):
    """Floats of ``dtype`` (a NumPy dtype or scalar type) in one register."""
    return REGISTER_BYTES // np.dtype(dtype).itemsize


class Vector(types.Type):
    """Numba type of one SIMD register holding ``lanes`` values of ``dtype``."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"Vector({dtype}, {lanes})")


def vector_of(scalar):
    """The full-register Vector type of a Numba float type."""
    return Vector(scalar, REGISTER_BYTES * 8 // scalar.bitwidth)


def _mask_of(vector):
    return Vector(types.boolean, vector.lanes)


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        if fe_type.dtype is types.boolean:
            element = ir.IntType(1)
        else:
            element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


# Operators: both operands the same Vector type, so that nothing is widened unseen.
def _define_operator(function, emit, result=lambda vector: vector):
    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(result(args[0]), *args)
            return None

    lower_builtin(function, Vector, Vector)(lambda ctx, b, sig, args: emit(b, *args))


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, lambda b, x, y, op=_instruction: getattr(b, op)(x, y))
for _function, _predicate in (
    (operator.lt, "<"),
    (operator.gt, ">"),
    (operator.eq, "=="),
):
    # ordered comparisons: false where either side is NaN
    _define_operator(
        _function, lambda b, x, y, op=_predicate: b.fcmp_ordered(op, x, y), _mask_of
    )


def _call(builder, name, *operands):
    """Call the LLVM intrinsic ``name`` overloaded on the operands' vector type."""
    vector = operands[0].type
    element = {"float": "f32", "double": "f64"}[str(vector.element)]
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * len(operands)),
        f"llvm.{name}.v{vector.count}{element}",
    )
    return builder.call(function, operands)


def emit_fma(builder, a, b, c):
    """a * b + c, rounded once where the target has the instruction."""
    return _call(builder, "fma" if HAS_FMA else "fmuladd", a, b, c)


def emit_splat(builder, scalar, vector_type):
    """A vector whose lanes all hold ``scalar``."""
    one = builder.insert_element(
        ir.Constant(vector_type, ir.Undefined), scalar, ir.IntType(32)(0)
    )
    lanes_from_0 = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), None)
    return builder.shuffle_vector(one, one, lanes_from_0)


def emit_pointer(context, builder, array_type, array, offset):
    """Address of element ``offset`` of a one-dimensional contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def emit_bounds_check(context, builder, array_type, array, pointer, count):
    """IndexError unless ``count`` elements of the array begin at ``pointer``.

    Emits nothing where loads and stores are not CHECKED.
    """
    if not CHECKED:
        return
    int64 = ir.IntType(64)
    view = context.make_array(array_type)(context, builder, array)
    begin, at = (builder.ptrtoint(address, int64) for address in (view.data, pointer))
    bytes_of = builder.mul(view.nitems, view.itemsize)
    room = builder.sub(bytes_of, builder.mul(int64(count), view.itemsize))
    offset = builder.sub(at, begin)
    below = builder.icmp_signed("<", offset, int64(0))
    beyond = builder.icmp_signed(">", offset, room)
    with builder.if_then(builder.or_(below, beyond), likely=False):
        message = "a kernel's access to an array is out of bounds"
        context.call_conv.return_user_exc(builder, IndexError, (message,))


def emit_vector_load(builder, pointer, vector_type, n):
    """The ``n``-th vector behind an element pointer, which need not be aligned."""
    size = vector_type.count
    address = builder.gep(pointer, [ir.IntType(64)(n * size)])
    address = builder.bitcast(address, vector_type.as_pointer())
    return builder.load(address, align=4 if str(vector_type.element) == "float" else 8)


def emit_vector_store(builder, value, pointer, n):
    """Store ``value`` as the ``n``-th vector behind an element pointer."""
    address = builder.gep(pointer, [ir.IntType(64)(n * value.type.count)])
    address = builder.bitcast(address, value.type.as_pointer())
    size = 4 if str(value.type.element) == "float" else 8
    builder.store(value, address, align=size)


def integer_constant(array, value):
    """Signature and code of an intrinsic of one argument that is a constant."""

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, value)

    return types.intp(array), codegen


@intrinsic
def lanes_of(typingctx, array):
    """Elements of ``array`` in one register, a constant of the compiled code."""
    return integer_constant(array, vector_of(array.dtype).lanes)


def _dtype_constant(array, field):
    value = getattr(np.finfo(str(array.dtype)), field)

    def codegen(context, builder, sig, args):
        return context.get_constant(types.float64, float(value))

    return types.float64(array), codegen


@intrinsic
def machine_epsilon(typingctx, array):
    """Spacing of the dtype's numbers at 1, a constant."""
    return _dtype_constant(array, "eps")


@intrinsic
def smallest_normal(typingctx, array):
    """The dtype's smallest number that is not denormal, a constant."""
    return _dtype_constant(array, "tiny")


@intrinsic
def vload(typingctx, array, offset):
    """array[offset : offset + lanes] as a Vector."""
    vector = vector_of(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = emit_pointer(context, builder, sig.args[0], *args)
        emit_bounds_check(context, builder, sig.args[0], args[0], pointer, vector.lanes)
        return emit_vector_load(builder, pointer, context.get_value_type(vector), 0)

    return vector(array, types.intp), codegen


@intrinsic
def vstore(typingctx, array, offset, vector):
    """array[offset : offset + lanes] = vector."""
    if vector != vector_of(array.dtype):
        return None

    def codegen(context, builder, sig, args):
        pointer = emit_pointer(context, builder, sig.args[0], *args[:2])
        emit_bounds_check(context, builder, sig.args[0], args[0], pointer, vector.lanes)
        emit_vector_store(builder, args[2], pointer, 0)

    return types.void(array, types.intp, vector), codegen


@intrinsic
def prefetch(typingctx, array, offset):
    """Ask for the cache line of array[offset], which may lie beyond the array's end."""

    def codegen(context, builder, sig, args):
        pointer = emit_pointer(context, builder, sig.args[0], *args)
        pointer = builder.bitcast(pointer, cgutils.voidptr_t)
        int32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, int32, int32, int32])
        function = cgutils.get_or_insert_function(
            builder.module, kind, "llvm.prefetch.p0"
        )
        read, into_all_levels, data = int32(0), int32(3), int32(1)
        builder.call(function, [pointer, read, into_all_levels, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def splat(typingctx, scalar):
    """A Vector whose lanes all hold ``scalar``, a float32 or float64."""
    vector = vector_of(scalar)

    def codegen(context, builder, sig, args):
        return emit_splat(builder, args[0], context.get_value_type(vector))

    return vector(scalar), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c in each lane."""
    if not (isinstance(a, Vector) and a == b == c):
        return None
    return a(a, a, a), lambda context, builder, sig, args: emit_fma(builder, *args)


@intrinsic
def select(typingctx, mask, a, b):
    """a where the mask is true, else b."""
    if not (isinstance(a, Vector) and a == b and mask == _mask_of(a)):
        return None
    return a(mask, a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def vsqrt(typingctx, a):
    """Square root, correctly rounded."""
    return a(a), lambda context, builder, sig, args: _call(builder, "sqrt", *args)


@intrinsic
def vabs(typingctx, a):
    """Absolute value."""
    return a(a), lambda context, builder, sig, args: _call(builder, "fabs", *args)


@intrinsic
def flush(typingctx, a):
    """A with magnitudes below 1e-25 (float32) or 1e-280 (float64) replaced by 0.

    They mean nothing beside numbers of any size, but their products are denormal, and
    an operation on a denormal number takes a hundred cycles.
    """

    def codegen(context, builder, sig, args):
        vector = args[0].type
        least = 1e-25 if a.dtype == types.float32 else 1e-280
        small = builder.fcmp_ordered(
            "<",
            _call(builder, "fabs", args[0]),
            emit_splat(builder, ir.Constant(vector.element, least), vector),
        )
        return builder.select(small, ir.Constant(vector, None), args[0])

    return a(a), codegen


@intrinsic
def copysign(typingctx, magnitude, sign):
    """The first argument's magnitude with the second one's sign."""
    return magnitude(magnitude, magnitude), lambda context, builder, sig, args: _call(
        builder, "copysign", *args
    )


@intrinsic
def first_lanes(typingctx, like, n):
    """Mask that is true in lanes 0 .. n - 1; ``like`` gives the vector type."""
    mask = _mask_of(like)

    def codegen(context, builder, sig, args):
        int32 = ir.VectorType(ir.IntType(32), like.lanes)
        numbers = ir.Constant(int32, list(range(like.lanes)))
        limit = builder.trunc(args[1], ir.IntType(32))
        return builder.icmp_signed("<", numbers, emit_splat(builder, limit, int32))

    return mask(like, types.intp), codegen


def _bits(builder, vector):
    """The vector's bits as integers, with the integer vector type and mantissa width."""
    single = str(vector.type.element) == "float"
    integers = ir.VectorType(ir.IntType(32 if single else 64), vector.type.count)
    return builder.bitcast(vector, integers), integers, 23 if single else 52


def _every_lane(vector_type, value):
    return ir.Constant(vector_type, [value] * vector_type.count)


@intrinsic
def shift_into_exponent(typingctx, a):
    """Reinterpret a's bits, shift them left by the mantissa's width, reinterpret back.

    For ``a = 1.5 * 2**mantissa + bias + k`` with a whole k this is ``2**k``.
    """

    def codegen(context, builder, sig, args):
        bits, integers, mantissa = _bits(builder, args[0])
        shifted = builder.shl(bits, _every_lane(integers, mantissa))
        return builder.bitcast(shifted, args[0].type)

    return a(a), codegen


@intrinsic
def split_exponent(typingctx, a):
    """(f, e) with a = f * 2**e and sqrt(1/2) <= f < sqrt(2), for positive normal a."""

    def codegen(context, builder, sig, args):
        bits, integers, mantissa = _bits(builder, args[0])
        one = 127 << 23 if mantissa == 23 else 1023 << 52
        root_half = 0x3F3504F3 if mantissa == 23 else 0x3FE6A09E667F3BCD
        # Counted from sqrt(1/2): the exponent field then changes at f = sqrt(2).
        offset = _every_lane(integers, one - root_half)
        counted = builder.add(bits, offset)
        field = builder.ashr(counted, _every_lane(integers, mantissa))
        bias = _every_lane(integers, 127 if mantissa == 23 else 1023)
        exponent = builder.sitofp(builder.sub(field, bias), args[0].type)
        below = _every_lane(integers, (1 << mantissa) - 1)
        fraction = builder.add(
            builder.and_(counted, below), _every_lane(integers, root_half)
        )
        return context.make_tuple(
            builder,
            sig.return_type,
            [builder.bitcast(fraction, args[0].type), exponent],
        )

    return types.UniTuple(a, 2)(a), codegen


def _fold(builder, vector, combine):
    """Combine all lanes in a fixed tree: halves, then halves of the half."""
    count = vector.type.count
    while count > 1:
        count //= 2
        index = ir.VectorType(ir.IntType(32), count)
        low = builder.shuffle_vector(
            vector, vector, ir.Constant(index, list(range(count)))
        )
        high = builder.shuffle_vector(
            vector, vector, ir.Constant(index, list(range(count, 2 * count)))
        )
        vector = combine(low, high)
    return builder.extract_element(vector, ir.IntType(32)(0))


@intrinsic
def lane_sum(typingctx, a):
    """Sum of all lanes, in one fixed order."""
    return a.dtype(a), lambda context, builder, sig, args: _fold(
        builder, args[0], builder.fadd
    )


@intrinsic
def transpose_square(typingctx, source, first, stride, target, to, pitch):
    """target[to + c * pitch + r] = source[first + r * stride + c] for r, c < lanes."""
    if source.dtype != target.dtype:
        return None
    vector = vector_of(source.dtype)

    def codegen(context, builder, sig, args):
        size, int64 = vector.lanes, ir.IntType(64)
        register = context.get_value_type(vector)

        def rows_of(array_type, array, first, apart):
            """Addresses of as many rows as they have columns."""
            top = emit_pointer(context, builder, array_type, array, first)
            rows = [builder.gep(top, [builder.mul(apart, int64(r))]) for r in range(size)]
            for outermost in (rows[0], rows[-1]):
                emit_bounds_check(context, builder, array_type, array, outermost, size)
            return rows

        square = []
        for row in rows_of(sig.args[0], *args[:3]):
            square.append(emit_vector_load(builder, row, register, 0))
        index = ir.VectorType(ir.IntType(32), size)
        width = 1
        while width < size:  # swap the off-diagonal quarters of ever larger squares
            low = [i if not i & width else size + i - width for i in range(size)]
            high = [i + width if not i & width else size + i for i in range(size)]
            for r in range(size):
                if not r & width:
                    a, b = square[r], square[r + width]
                    square[r] = builder.shuffle_vector(a, b, ir.Constant(index, low))
                    square[r + width] = builder.shuffle_vector(
                        a, b, ir.Constant(index, high)
                    )
            width *= 2
        for c, column in enumerate(rows_of(sig.args[3], *args[3:])):
            emit_vector_store(builder, square[c], column, 0)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i), codegen


@intrinsic
def polynomial(typingctx, x, coefficients):
    """c_0 + c_1 x + c_2 x^2 + ...; the coefficients are a tuple of constants."""

    def codegen(context, builder, sig, args):
        vector = args[0].type
        terms = [
            emit_splat(
                builder,
                context.cast(builder, c, types.float64, x.dtype),
                vector,
            )
            for c in cgutils.unpack_tuple(builder, args[1])
        ]
        total = terms.pop()
        while terms:
            total = emit_fma(builder, total, args[0], terms.pop())
        return total

    return x(x, coefficients), codegen


@intrinsic
def chebyshev(typingctx, x, coefficients):
    """c_0 + c_1 T_1(x) + c_2 T_2(x) + ... by Clenshaw's recurrence, |x| <= 1.

    The coefficients of the Chebyshev polynomials T are a tuple of constants, at least 2.
    """

    def codegen(context, builder, sig, args):
        vector = args[0].type
        first, *terms = (
            emit_splat(builder, context.cast(builder, c, types.float64, x.dtype), vector)
            for c in cgutils.unpack_tuple(builder, args[1])
        )
        twice = builder.fadd(args[0], args[0])
        last, before = terms.pop(), ir.Constant(vector, None)
        while terms:
            sum_ = emit_fma(builder, twice, last, builder.fsub(terms.pop(), before))
            last, before = sum_, last
        return emit_fma(builder, args[0], last, builder.fsub(first, before))

    return x(x, coefficients), codegen


@intrinsic
def mixed(typingctx, a, b):
    """A number whose 64 bits all depend on all bits of a and b.

    SplitMix64 (Steele, Lea and Flood, 2014), which starts at a and goes b + 1 steps.
    """

    def codegen(context, builder, sig, args):
        int64 = ir.IntType(64)
        steps = builder.add(args[1], int64(1))
        x = builder.add(args[0], builder.mul(steps, int64(0x9E3779B97F4A7C15)))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = builder.xor(x, builder.lshr(x, int64(shift)))
            x = builder.mul(x, int64(factor))
        return builder.xor(x, builder.lshr(x, int64(31)))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def random_lanes(typingctx, like, key, first, share):
    """Mask that is true in about ``share`` of the lanes, 0 <= share <= 1.

    Counter-based (as Salmon et al., 2011): lane i depends on ``key`` and on the counter
    first + i alone, modulo 2^32. It compares 32 bits: two rounds of shifts, products and
    the two halves of the key, the multipliers of Wellons' "lowbias32".
    """
    mask = _mask_of(like)

    def codegen(context, builder, sig, args):
        _, key, first, share = args
        int32, int64 = ir.IntType(32), ir.IntType(64)
        integers = ir.VectorType(int32, like.lanes)

        def splat32(number):
            return emit_splat(builder, builder.trunc(number, int32), integers)

        numbers = ir.Constant(integers, list(range(like.lanes)))
        x = builder.add(splat32(first), numbers)
        for half in (key, builder.lshr(key, int64(32))):
            x = builder.xor(x, splat32(half))
            for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
                x = builder.xor(x, builder.lshr(x, _every_lane(integers, shift)))
                if factor:
                    x = builder.mul(x, _every_lane(integers, factor))
        scaled = builder.fmul(share, ir.Constant(share.type, 2.0**32))
        limit = splat32(builder.fptoui(scaled, int64))
        below = builder.icmp_unsigned("<", x, limit)
        all_ = builder.fcmp_ordered(">=", share, ir.Constant(share.type, 1.0))
        return builder.or_(below, emit_splat(builder, all_, below.type))

    return mask(like, types.int64, types.int64, types.float64), codegen


@intrinsic
def constant(typingctx, like, value):
    """``value`` rounded to the vector's dtype, in every lane."""

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], types.float64, like.dtype)
        return emit_splat(builder, scalar, args[0].type)

    return like(like, types.float64), codegen


# How every kernel is compiled: plain IEEE arithmetic (division by zero gives inf or NaN;
# Numba's default check for it would stop vectorisation) and no reference counts, with
# which every array that is passed on would cost two atomic operations. Without them a
# kernel that allocates does not compile.
_OPTIONS = {"error_model": "numpy", "_nrt": False}

#: A kernel that other kernels call. It cannot be called from Python. Numba compiles it
#: anew for each number that is written as a constant in a call: np.int64(0) is none.
kernel = njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)

#: A kernel that becomes a part of its caller. Numba optimises and emits code for every
#: function together with all that it calls, so each level of calls compiles again what
#: is below it; a part does not.
part = njit(**_OPTIONS, inline="always")

#: Options of ``numba.extending.overload`` for what kernels call. Not to be joined with
#: its ``inline``: Numba compiles the function all the same, to throw it away.
OVERLOAD = {**_OPTIONS, "no_cfunc_wrapper": True}
