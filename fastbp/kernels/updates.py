"""The weight update: L2 term, optimizer and new weights in one pass.

Arrays   flat runs of theta (weights), m and v (optimizer state) and of the summed
         gradient, one dtype, a whole number of registers each.
Kinds    ADAM uses m and v; SGD keeps its velocity in m; GRADIENT writes the gradient
         to m and changes nothing else.
"""

from fastbp.kernels.simd import (
    constant,
    flush,
    fma,
    kernel,
    lane_sum,
    lanes_of,
    part,
    select,
    smallest_normal,
    splat,
    vload,
    vsqrt,
    vstore,
)
from fastbp.tables import ADAM, SGD, Step


@part
def make_step(theta, kind, scale, alpha, rate, decays, nesterov):
    """A ``Step`` in theta's dtype; ``decays`` are beta_1, beta_2, epsilon, momentum."""
    scalar = theta.dtype.type
    beta_1, beta_2, epsilon, momentum = decays
    return Step(
        kind,
        scalar(scale),
        scalar(alpha),
        scalar(rate),
        scalar(beta_1),
        scalar(1.0 - beta_1),
        scalar(beta_2),
        scalar(1.0 - beta_2),
        scalar(max(epsilon, smallest_normal(theta))),
        scalar(momentum),
        nesterov,
    )


@kernel
def update(theta, m, v, first, count, gradient, at, alpha, step):
    """theta[i] -= optimizer((gradient[at + i - first] + alpha theta[i]) * scale)

    for first <= i < first + count. Returns the sum of theta[i]^2 before the update.

    Adam (Kingma and Ba, 2015, section 2, the form with the bias corrections folded
    into the rate): m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
    theta -= rate m / (sqrt(v) + epsilon).
    SGD: velocity = momentum velocity - rate g; theta += velocity, or with Nesterov's
    look-ahead theta += momentum velocity - rate g.
    """
    lanes = lanes_of(theta)
    scale, decay = splat(step.scale), splat(alpha)
    zero = constant(scale, 0.0)
    squares = zero
    if step.kind == ADAM:
        new_1, new_2 = splat(step.new_1), splat(step.new_2)
        beta_1, beta_2 = splat(step.beta_1), splat(step.beta_2)
        rate, epsilon = splat(step.rate), splat(step.epsilon)
        # the second moment of a unit that has died must not decay into denormals
        least = constant(scale, 1e-36)
        for i in range(0, count, lanes):
            w = vload(theta, first + i)
            squares = fma(w, w, squares)
            g = fma(decay, w, vload(gradient, at + i)) * scale
            mean = fma(beta_1, vload(m, first + i), new_1 * g)
            square = fma(beta_2, vload(v, first + i), new_2 * g * g)
            mean = flush(mean)
            square = select(square < least, zero, square)
            vstore(m, first + i, mean)
            vstore(v, first + i, square)
            vstore(theta, first + i, w - rate * mean / (vsqrt(square) + epsilon))
    elif step.kind == SGD:
        momentum, rate = splat(step.momentum), splat(step.rate)
        for i in range(0, count, lanes):
            w = vload(theta, first + i)
            squares = fma(w, w, squares)
            change = rate * (fma(decay, w, vload(gradient, at + i)) * scale)
            velocity = flush(fma(momentum, vload(m, first + i), zero - change))
            vstore(m, first + i, velocity)
            if step.nesterov:
                velocity = fma(momentum, velocity, zero - change)
            vstore(theta, first + i, w + velocity)
    else:
        for i in range(0, count, lanes):
            w = vload(theta, first + i)
            squares = fma(w, w, squares)
            vstore(m, first + i, fma(decay, w, vload(gradient, at + i)) * scale)
    return lane_sum(squares)
