"""Warnings that point to the caller's line, however deep they arise."""

import sys
import warnings

_INTERNAL = ("fastbp", "sklearn")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as if the first caller outside fastbp and scikit-learn did."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_internal(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_internal(module: str) -> bool:
    return module.split(".")[0] in _INTERNAL
