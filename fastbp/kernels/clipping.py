"""Clipping by the global norm, which makes a third region of a training step.

g becomes g c / |g| where |g| > c = max_grad_norm, |g| the norm over all weights and
biases (Pascanu, Mikolov and Bengio, 2013). Region 2 writes the gradient of the objective
to ``work.gradient``, laid out as theta, and the squares of each task's part of it; region
3 takes the same tasks, scales and updates.
"""

import math

from fastbp.kernels.dense import transpose_weights
from fastbp.kernels.gemm import panel_width
from fastbp.kernels.more_updates import apply_update
from fastbp.kernels.simd import constant, fma, kernel, lane_sum, lanes_of, part, vload


@part
def _sum_of_squares(g, first, count):
    """The sum of g[i]^2 for first <= i < first + count, in float64 from registers on."""
    total = constant(vload(g, first), 0.0)
    for i in range(first, first + count, lanes_of(g)):
        x = vload(g, i)
        total = fma(x, x, total)
    return float(lane_sum(total))


@kernel
def gradient_squares(net, task, g):
    """|g|^2 over the weights of a task, and over the biases that come with them."""
    pitch, total = panel_width(g), 0.0
    outputs = net.layers[task.layer + 1]
    for start in range(task.first_output, task.end_output, pitch):
        width = min(pitch, outputs.columns - start)
        top = outputs.weights + start * outputs.rows
        count = (task.end_input - task.first_input) * width
        total += _sum_of_squares(g, top + task.first_input * width, count)
        if task.first_input == 0:
            total += _sum_of_squares(g, outputs.biases + start, width)
    return total


@part
def clip_factor(work, max_grad_norm):
    """What the gradient is multiplied by, once all its squares are known."""
    total = 0.0
    for task in range(work.tasks.shape[0]):
        total += work.gradient_squares[task]
    norm = math.sqrt(total)
    return max_grad_norm / norm if norm > max_grad_norm else 1.0


@kernel
def update_clipped(net, task, parameters, work, step):
    """theta -= optimizer(scale g) for the weights of a task, and for their biases."""
    theta, m, v = parameters
    g, layer, pitch = work.gradient, task.layer, panel_width(theta)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    for first in range(task.first_input, task.end_input, pitch):
        height = min(pitch, task.end_input - first)
        for start in range(task.first_output, task.end_output, pitch):
            width = min(pitch, outputs.columns - start)
            at = outputs.weights + start * outputs.rows + first * width
            apply_update(theta, m, v, at, height * width, g, at, True, step)
            if layer > 0:
                to = work.transposed
                transpose_weights(inputs, outputs, start, first, height, width, theta, to)
            if first == 0:
                at = outputs.biases + start
                apply_update(theta, m, v, at, width, g, at, False, step)
