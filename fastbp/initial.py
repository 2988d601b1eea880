"""The weights that training starts from, drawn at random."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

#: What ``init`` may be, scikit-learn's first.
INITIALIZATIONS = ("glorot_uniform", "he_normal", "lecun_normal", "orthogonal")


def initial_weights(
    units: Sequence[int],
    activations: str | Sequence[str],
    random_state: np.random.RandomState,
    dtype: Any,
    init: str = "glorot_uniform",
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights (fan_in, fan_out) and biases (fan_out,) of each layer.

    Drawn layer by layer in float64, weights before biases.

    Parameters
    ----------
    units : sequence of int
        Inputs, hidden layers, outputs.
    activations : str or sequence of str
        Of all hidden layers, or of each.
    random_state : RandomState
    dtype : dtype
        What they are rounded to.
    init : str, default='glorot_uniform'
        'glorot_uniform' is scikit-learn's: uniform in +-sqrt(6 / (fan_in + fan_out)),
        biases too (Glorot and Bengio, 2010, equation 16), with 2 for 6 when the hidden
        activation is 'logistic' (that of the layer; of the output layer the last one).
        'he_normal' has the variance 2 / fan_in (He et al., 2015), 'lecun_normal'
        1 / fan_in (LeCun et al., 1998), 'orthogonal' orthonormal rows or columns (Saxe,
        McClelland and Ganguli, 2014), all three with biases of 0.

    Returns
    -------
    coefs, intercepts : list of ndarray
    """
    if isinstance(activations, str):
        of_layers = [activations] * (len(units) - 1)
    else:
        of_layers = [*activations, *activations[-1:]] or ["identity"]
    coefs, intercepts = [], []
    for (fan_in, fan_out), activation in zip(pairwise(units), of_layers, strict=True):
        if init == "glorot_uniform":
            factor = 2.0 if activation == "logistic" else 6.0
            bound = np.sqrt(factor / (fan_in + fan_out))
            W = random_state.uniform(-bound, bound, (fan_in, fan_out))
            b = random_state.uniform(-bound, bound, fan_out)
        else:
            W = random_state.standard_normal((fan_in, fan_out))
            b = np.zeros(fan_out)
            if init == "orthogonal":
                W = _orthogonal(W)
            else:
                W *= np.sqrt((2.0 if init == "he_normal" else 1.0) / fan_in)
        coefs.append(W.astype(dtype))
        intercepts.append(b.astype(dtype))
    return coefs, intercepts


def _orthogonal(W: np.ndarray) -> np.ndarray:
    """The orthonormal factor of a normal W, uniformly distributed (Mezzadri, 2007)."""
    tall = W if W.shape[0] >= W.shape[1] else W.T
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if tall is W else q.T
