"""Multilayer perceptrons on the CPU behind scikit-learn's interface."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "GridSearchCV",
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPRegressor",
    "RandomizedSearchCV",
    "clear_cache",
    "fit_many",
    "kernels",
    "to_onnx",
    "warmup",
]

if TYPE_CHECKING:
    from fastbp import kernels
    from fastbp.cache import clear_cache
    from fastbp.display import LossCurveDisplay
    from fastbp.estimators import MLPClassifier, MLPRegressor
    from fastbp.export import to_onnx
    from fastbp.maintenance import warmup
    from fastbp.many import fit_many
    from fastbp.search import GridSearchCV, RandomizedSearchCV

_MODULES = {
    "LossCurveDisplay": "display",
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "GridSearchCV": "search",
    "RandomizedSearchCV": "search",
    "clear_cache": "cache",
    "fit_many": "many",
    "to_onnx": "export",
    "warmup": "maintenance",
}


if not TYPE_CHECKING:  # or every name would exist for a type checker

    def __getattr__(name: str) -> Any:
        # Lazily: ``fastbp.kernels`` imports Numba, the estimators only when they fit.
        from importlib import import_module

        if name in _MODULES:
            return getattr(import_module(f"fastbp.{_MODULES[name]}"), name)
        if name == "kernels":
            return import_module("fastbp.kernels")
        raise AttributeError(f"module 'fastbp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
