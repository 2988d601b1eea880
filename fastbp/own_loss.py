"""A user's own loss as the kernels call it: a C function, made from an ``@njit`` one."""

import functools
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
        return function(
            carray(y, (outputs,)), carray(z, (outputs,)), carray(gradient, (outputs,))
        )

    signature = types.float64(pointer, pointer, pointer, types.int64)
    return numba.cfunc(signature, error_model="numpy")(call)


def address(function: Any, dtype: np.dtype) -> int:
    """The address of the loss, compiled for targets and outputs of a dtype."""
    return int(cache.unbroken(_c_function, function, np.dtype(dtype).str).address)


def check_gradient(function: Any, targets: np.ndarray) -> None:
    """Raise ValueError if the gradient is not that of the loss.

    Parameters
    ----------
    function : callable
        ``loss(y, z, gradient)``, compiled by Numba.
    targets : ndarray of shape (n, n_outputs)
        Some of them are tried, with raw outputs near them.
    """
    rng = np.random.default_rng(0)
    for y in targets[:_ROWS].astype(np.float64):
        z = y + rng.standard_normal(len(y))
        gradient = np.zeros(len(y))
        function(y, z, gradient)
        for o in range(len(y)):
            ahead, behind, unused = z.copy(), z.copy(), np.zeros(len(y))
            ahead[o] += _STEP
            behind[o] -= _STEP
            rise = function(y, ahead, unused) - function(y, behind, unused)
            slope = rise / (2 * _STEP)
            if not abs(slope - gradient[o]) <= _TOLERANCE * max(1.0, abs(slope)):
                raise ValueError(
                    "The loss and its gradient do not fit each other: for y="
                    f"{y.tolist()} and z={z.tolist()} the loss changes by {slope:.6g} "
                    f"with z[{o}], but gradient[{o}] is {gradient[o]:.6g}. The function "
                    "must write the derivatives of what it returns to gradient."
                )
