"""The weight update of extended networks: more optimizers, and weight decay.

Arrays   as in ``updates``.
Steps    the t-th of them, with the gradient g of the objective and the rate r:

           adam     as in ``updates``; with weight decay AdamW (Loshchilov & Hutter, 2019)
           sgd      as in ``updates``
           rmsprop  v = b2 v + (1 - b2) g^2, theta -= r g / (sqrt(v) + epsilon)
                    (Tieleman and Hinton, 2012)
           nadam    m and v as Adam's, theta -= r m' / (sqrt(v') + epsilon) with
                    m' = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t) and
                    v' = v / (1 - b2^t) (Dozat, 2016, for a constant b1; biases are
                    corrected in the rate, as Adam's are)

         Weight decay takes ``r weight_decay`` of each weight, whatever the optimizer
         does, and leaves biases alone: it is decoupled from g.
"""

from numba.extending import overload

from fastbp.kernels.simd import (
    OVERLOAD,
    constant,
    flush,
    fma,
    kernel,
    lane_sum,
    lanes_of,
    part,
    select,
    splat,
    vload,
    vsqrt,
    vstore,
)
from fastbp.kernels.updates import update
from fastbp.tables import GRADIENT, NADAM, RMSPROP, SGD, MoreStep


@part
def make_more_step(theta, step, optimizer, rate, t):
    """The ``MoreStep`` of the t-th update; ``step`` is what ``make_step`` has made."""
    scalar = theta.dtype.type
    b1 = optimizer.beta_1
    return MoreStep(
        step.kind,
        step.scale,
        step.alpha,
        step.rate,
        step.beta_1,
        step.new_1,
        step.beta_2,
        step.new_2,
        step.epsilon,
        step.momentum,
        step.nesterov,
        scalar(1.0 - rate * optimizer.weight_decay),
        scalar(b1 * (1.0 - b1**t) / (1.0 - b1 ** (t + 1))),
    )


@kernel
def update_more(theta, m, v, first, count, gradient, at, alpha, kept, step):
    """theta[i] = kept theta[i] - optimizer((gradient[at + i - first] + alpha theta[i]) s)

    for first <= i < first + count, s the step's scale. Returns the sum of theta[i]^2
    before the update.
    """
    lanes = lanes_of(theta)
    scale, decay, kept = splat(step.scale), splat(alpha), splat(kept)
    zero = constant(scale, 0.0)
    new_1, new_2 = splat(step.new_1), splat(step.new_2)
    beta_1, beta_2 = splat(step.beta_1), splat(step.beta_2)
    ahead = splat(step.ahead)
    rate, epsilon = splat(step.rate), splat(step.epsilon)
    momentum = splat(step.momentum)
    least = constant(scale, 1e-36)  # as in ``update``
    squares = zero
    for i in range(0, count, lanes):
        w = vload(theta, first + i)
        squares = fma(w, w, squares)
        g = fma(decay, w, vload(gradient, at + i)) * scale
        if step.kind == GRADIENT:
            vstore(m, first + i, g)
        elif step.kind == SGD:
            velocity = flush(fma(momentum, vload(m, first + i), zero - rate * g))
            vstore(m, first + i, velocity)
            if step.nesterov:
                velocity = fma(momentum, velocity, zero - rate * g)
            vstore(theta, first + i, fma(kept, w, velocity))
        else:
            square = fma(beta_2, vload(v, first + i), new_2 * g * g)
            square = select(square < least, zero, square)
            vstore(v, first + i, square)
            direction = g
            if step.kind != RMSPROP:
                direction = flush(fma(beta_1, vload(m, first + i), new_1 * g))
                vstore(m, first + i, direction)
            if step.kind == NADAM:
                direction = fma(ahead, direction, new_1 * g)
            change = rate * direction / (vsqrt(square) + epsilon)
            vstore(theta, first + i, kept * w - change)
    return lane_sum(squares)


def apply_update(theta, m, v, first, count, gradient, at, are_weights, step):
    """``update`` or ``update_more`` as the type of ``step`` says.

    Biases, which are no weights, have neither penalty nor decay.
    """
    raise NotImplementedError("only inside kernels")


@overload(apply_update, jit_options=OVERLOAD)
def _overload_apply_update(theta, m, v, first, count, gradient, at, are_weights, step):
    def more(theta, m, v, first, count, gradient, at, are_weights, step):
        alpha = step.alpha if are_weights else theta.dtype.type(0)
        kept = step.kept if are_weights else theta.dtype.type(1)
        return update_more(theta, m, v, first, count, gradient, at, alpha, kept, step)

    def plain(theta, m, v, first, count, gradient, at, are_weights, step):
        alpha = step.alpha if are_weights else theta.dtype.type(0)
        return update(theta, m, v, first, count, gradient, at, alpha, step)

    return more if step.instance_class is MoreStep else plain
