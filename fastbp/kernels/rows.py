"""Prediction of single rows, from the weights where the user has them.

Packing the weights into panels costs more than one row's arithmetic. So here the
matrices are read in place, row by row: layer l is ``coefs[l]`` (fan_in, fan_out) and
``intercepts[l]`` (fan_out,), C-contiguous, given by their addresses. Each number is
summed in the order of the register tiles, so the bits are the same.
"""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastbp.kernels.activations import activate
from fastbp.kernels.losses import predict_lanes
from fastbp.kernels.simd import (
    constant,
    fma,
    lanes_of,
    part,
    select,
    splat,
    vload,
    vstore,
)
from fastbp.tables import RELU

#: Registers of columns that are summed side by side.
_ABREAST = 4


@intrinsic
def _array_at(typingctx, address, n, like):
    """The ``n`` elements at an address as an array of the type of ``like``."""

    def codegen(context, builder, sig, args):
        array = context.make_array(like)(context, builder)
        element = context.get_data_type(like.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(element))
        populate_array(
            array,
            data=builder.inttoptr(args[0], element.as_pointer()),
            shape=cgutils.pack_array(builder, [args[1]]),
            strides=cgutils.pack_array(builder, [size]),
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return like(types.int64, types.intp, like), codegen


@part
def _multiply_row(z, x, W, b, fan_in, fan_out):
    """z[o] = b[o] + sum_k x[k] W[k, o], and 0 up to a whole register."""
    lanes = lanes_of(x)
    wide = _ABREAST * lanes
    for o in range(0, fan_out - wide + 1, wide):
        z0, z1 = vload(b, o), vload(b, o + lanes)
        z2, z3 = vload(b, o + 2 * lanes), vload(b, o + 3 * lanes)
        for k in range(fan_in):
            row, a = k * fan_out + o, splat(x[k])
            z0 = fma(a, vload(W, row), z0)
            z1 = fma(a, vload(W, row + lanes), z1)
            z2 = fma(a, vload(W, row + 2 * lanes), z2)
            z3 = fma(a, vload(W, row + 3 * lanes), z3)
        vstore(z, o, z0)
        vstore(z, o + lanes, z1)
        vstore(z, o + 2 * lanes, z2)
        vstore(z, o + 3 * lanes, z3)
    done = fan_out // wide * wide
    for o in range(done, fan_out - lanes + 1, lanes):
        total = vload(b, o)
        for k in range(fan_in):
            total = fma(splat(x[k]), vload(W, k * fan_out + o), total)
        vstore(z, o, total)
    for o in range(fan_out // lanes * lanes, fan_out):
        total = splat(b[o])
        for k in range(fan_in):
            total = fma(splat(x[k]), splat(W[k * fan_out + o]), total)
        vstore(z, o, total)  # all lanes; the next ones are overwritten
    for o in range(fan_out, -(-fan_out // lanes) * lanes):
        z[o] = 0


@part
def _activate_row(kind, z, units):
    """z = f(z), relu included: there is no tile here to apply it."""
    lanes = lanes_of(z)
    padded = -(-units // lanes) * lanes
    if kind == RELU:
        zero = constant(vload(z, 0), 0.0)
        for i in range(0, padded, lanes):
            a = vload(z, i)
            vstore(z, i, select(a < zero, zero, a))  # NaN stays NaN
    else:
        activate(kind, z, 0, padded, padded, units, 1)


def predict_single_rows(X, out, units, addresses, activation, loss, scratch, width):
    """out[n, O] = the network's predictions for X[n, I], one row at a time.

    Returns whether all numbers of X are finite.

    ``addresses[l]`` are those of coefs[l] and intercepts[l]. ``scratch`` has two runs
    of ``width`` elements, the units of any layer and two registers, and [O][lanes].
    """
    lanes, depth = lanes_of(out), units.size - 1
    inputs, outputs = units[0], units[depth]
    columns = 2 * width
    finite = True
    for row in range(out.size // outputs):
        x, z = scratch[:width], scratch[width:columns]
        for i in range(inputs):
            x[i] = X[row * inputs + i]
            finite &= x[i] - x[i] == 0
        for layer in range(depth):
            fan_in, fan_out = units[layer], units[layer + 1]
            W = _array_at(addresses[layer, 0], fan_in * fan_out, out)
            b = _array_at(addresses[layer, 1], fan_out, out)
            _multiply_row(z, x, W, b, fan_in, fan_out)
            if layer + 1 < depth:
                _activate_row(activation, z, fan_out)
            x, z = z, x
        for o in range(outputs):
            vstore(scratch, columns + o * lanes, splat(x[o]))
        predict_lanes(loss, outputs, scratch, columns)
        for o in range(outputs):
            out[row * outputs + o] = scratch[columns + o * lanes]
    return finite
