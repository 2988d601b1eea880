"""Annotations as a user's type checker sees them."""

import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fastbp
from fastbp import kernels, tables, typing
from fastbp.gradients import GradientReport
from fastbp.initial import INITIALIZATIONS
from fastbp.schedules import MORE_SCHEDULES

PROGRAM = Path(__file__).with_name("typed_program.py")


def test_a_typed_program_passes_the_checker(tmp_path):
    """With every check on; what it marks as errors has to be errors."""
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"),
            "--follow-imports=silent",  # as if the package were installed
            PROGRAM,
        ],
        cwd=Path(fastbp.__file__).parents[1],  # where the package is found
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_typed_program_runs():
    runpy.run_path(str(PROGRAM))


CLASSES = (
    *(fastbp.MLPClassifier, fastbp.MLPRegressor),
    *(fastbp.GridSearchCV, fastbp.RandomizedSearchCV),
    *(fastbp.LossCurveDisplay, GradientReport),
)


def public_functions():
    for name in ("warmup", "clear_cache", "to_onnx", "fit_many"):
        yield name, getattr(fastbp, name)
    for name in kernels.__all__:
        yield f"kernels.{name}", getattr(kernels, name)
    for model in CLASSES:
        for name, method in inspect.getmembers(model, inspect.isroutine):
            module = getattr(method, "__module__", None) or ""
            if module.startswith("fastbp.") and not name.startswith("_"):
                yield f"{model.__name__}.{name}", method
        if model.__init__.__module__.startswith("fastbp."):
            yield f"{model.__name__}.__init__", model.__init__


@pytest.mark.parametrize(("name", "function"), list(public_functions()))
def test_every_argument_and_result_is_annotated(name, function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        if parameter.name not in ("self", "cls"):
            assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize(
    ("annotated", "taken"),
    [
        (typing.ActivationName, {*tables.ACTIVATIONS, *tables.MORE_ACTIVATIONS}),
        (typing.ArrayActivation, set(tables.ACTIVATIONS)),
        (typing.Solver, {"lbfgs", *tables.SOLVER_KINDS}),
        (typing.Schedule, {"constant", "invscaling", "adaptive", *MORE_SCHEDULES}),
        (get_args(typing.Initialization)[0], set(INITIALIZATIONS)),
    ],
    ids=["activation", "array activation", "solver", "learning_rate", "init"],
)
def test_names_are_annotated_as_they_are_taken(annotated, taken):
    assert set(get_args(annotated)) == taken
