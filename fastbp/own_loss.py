"""A user's own loss as the kernels call it: a C function, made from an ``@njit`` one."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastbp import cache

#: Rows on which the gradient is compared with finite differences.
_ROWS = 10
#: Central differences of float64 err by about the square of the step, and by the rounding
#: error over it; this is much, but finds every wrong sign or factor. Slopes that are that
#: small beside the largest one need not be as exact.
_STEP, _TOLERANCE, _SMALL = 1e-5, 1e-3, 1e-3
#: How far from a target is near, as a share of it.
_NEAR = 0.01


def is_compiled(function: Any) -> bool:
    """Whether it is a function of Numba's."""
    return hasattr(function, "py_func") and hasattr(function, "overloads")


@functools.cache  # for good: compiled code may hold the address
def _c_function(function: Any, dtype: str) -> Any:
    import numba
    from numba import carray, types

    number = numba.from_dtype(np.dtype(dtype))
    pointer = types.CPointer(number)

    def call(y, z, gradient, outputs):
        rows = carray(y, (outputs,)), carray(z, (outputs,)), carray(gradient, (outputs,))
        try:
            return function(*rows)
        except Exception:  # there is no caller to catch it: the training diverges
            return np.nan

    signature = types.float64(pointer, pointer, pointer, types.int64)
    return numba.cfunc(signature, error_model="numpy")(call)


def address(function: Any, dtype: np.dtype) -> int:
    """The address of the loss, compiled for targets and outputs of a dtype."""
    return int(cache.unbroken(_c_function, function, np.dtype(dtype).str).address)


def check_gradient(function: Any, targets: np.ndarray) -> None:
    """Raise ValueError if the gradient is not that of the loss.

    It is tried at raw outputs of the size of 1 and near the targets. Where loss or
    gradient are not finite nothing can be said, and at a kink they may differ: the
    gradient is wrong if one of its numbers is so at several points, or at all of few.

    Parameters
    ----------
    function : callable
        ``loss(y, z, gradient)``, compiled by Numba.
    targets : ndarray of shape (n, n_outputs)
        Some of them are tried.

    Raises
    ------
    TypeError
        If it does not take three arguments, or returns something else than a float.
    ValueError
        If the gradient is wrong.
    """
    n_parameters = len(inspect.signature(function.py_func).parameters)
    if n_parameters != 3:
        raise TypeError(
            "A loss of your own must be a function of (y, z, gradient), which returns "
            "the loss of a row and writes its gradient; got one of "
            f"{n_parameters} parameters."
        )
    rng = np.random.default_rng(0)
    slopes = [
        slope
        for y in targets[:_ROWS].astype(np.float64)
        for noise in [rng.standard_normal(len(y))]
        # much farther from a kink at the target than a step
        for z in (noise, y + noise * np.maximum(1.0, _NEAR * abs(y)))
        for slope in _slopes(function, y, z)
    ]
    largest = max((abs(slope.measured) for slope in slopes), default=0.0)
    for output in range(targets.shape[1]):
        tried = [slope for slope in slopes if slope.output == output]
        wrong = [slope for slope in tried if slope.is_wrong(largest)]
        if len(wrong) >= min(2, max(1, len(tried))):
            raise ValueError(
                f"The loss and its gradient do not fit each other: {wrong[0].text}. The "
                "function must write the derivatives of what it returns to gradient."
            )


class _Slope(NamedTuple):
    """The derivative with respect to one raw output at one point."""

    output: int
    measured: float
    told: float  # by the function
    rounding: float  # error of what is measured
    text: str

    def is_wrong(self, largest: float) -> bool:
        """Whether the two differ; ``largest`` is the size of the largest slope."""
        error = abs(self.measured - self.told) - self.rounding
        return error > _TOLERANCE * max(abs(self.measured), _SMALL * largest)


def _slopes(function: Any, y: np.ndarray, z: np.ndarray) -> Iterator[_Slope]:
    """The derivatives at z that can be measured."""
    gradient, unused = np.zeros(len(y)), np.zeros(len(y))
    loss = function(y, z.copy(), gradient)
    if not isinstance(loss, float):
        raise TypeError(f"A loss of your own must return a float, got {loss!r}.")
    for o in range(len(y)):
        ahead, behind = z.copy(), z.copy()
        step = _STEP * max(1.0, abs(z[o]))
        ahead[o] += step
        behind[o] -= step
        ends = function(y, ahead, unused), function(y, behind, unused)
        if not np.isfinite([*ends, gradient[o]]).all():
            continue
        measured = (ends[0] - ends[1]) / (2 * step)
        yield _Slope(
            *(o, measured, gradient[o]),
            rounding=np.finfo(float).eps * max(map(abs, ends)) / step,
            text=f"for y={y.tolist()} and z={z.tolist()} the loss changes by "
            f"{measured:.6g} with z[{o}], but gradient[{o}] is {gradient[o]:.6g}",
        )
