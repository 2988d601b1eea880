"""Multilayer perceptrons on the CPU behind scikit-learn's interface."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MLPClassifier", "MLPRegressor", "kernels"]

if TYPE_CHECKING:
    from fastbp import kernels
    from fastbp.estimators import MLPClassifier, MLPRegressor


def __getattr__(name: str) -> Any:
    # Lazily: ``fastbp.kernels`` imports Numba, the estimators only when they fit.
    from importlib import import_module

    if name in ("MLPClassifier", "MLPRegressor"):
        return getattr(import_module("fastbp.estimators"), name)
    if name == "kernels":
        return import_module("fastbp.kernels")
    raise AttributeError(f"module 'fastbp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
