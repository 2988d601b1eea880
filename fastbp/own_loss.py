"""A user's own loss as the kernels call it: a C function, made from an ``@njit`` one."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastbp import cache

#: Rows on which the gradient is compared with finite differences.
_ROWS = 5
#: Central differences of float64 err by about the square of the step, and by the rounding
#: error over it; this is much, but finds every wrong sign or factor.
_STEP, _TOLERANCE = 1e-5, 1e-3


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
    gradient is wrong if it is so at most points.

    Parameters
    ----------
    function : callable
        ``loss(y, z, gradient)``, compiled by Numba.
    targets : ndarray of shape (n, n_outputs)
        Some of them are tried.
    """
    rng = np.random.default_rng(0)
    wrong, tried = [], 0
    for y in targets[:_ROWS].astype(np.float64):
        noise = rng.standard_normal(len(y))
        for z in (noise, y + noise):
            for difference in _differences(function, y, z):
                tried += 1
                wrong += [difference] if difference else []
    if len(wrong) > tried / 2:
        raise ValueError(
            f"The loss and its gradient do not fit each other: {wrong[0]}. The function "
            "must write the derivatives of what it returns to gradient."
        )


def _differences(function: Any, y: np.ndarray, z: np.ndarray) -> Iterator[str]:
    """What is wrong with each derivative at z, or nothing; those that can be told."""
    gradient, unused = np.zeros(len(y)), np.zeros(len(y))
    n_parameters = len(inspect.signature(function.py_func).parameters)
    if n_parameters != 3:
        raise TypeError(
            "A loss of your own must be a function of (y, z, gradient), which returns "
            "the loss of a row and writes its gradient; got one of "
            f"{n_parameters} parameters."
        )
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
        slope = (ends[0] - ends[1]) / (2 * step)
        rounding = np.finfo(float).eps * max(map(abs, ends)) / step
        if abs(slope - gradient[o]) <= _TOLERANCE * max(1.0, abs(slope)) + rounding:
            yield ""
        else:
            yield (
                f"for y={y.tolist()} and z={z.tolist()} the loss changes by {slope:.6g} "
                f"with z[{o}], but gradient[{o}] is {gradient[o]:.6g}"
            )
