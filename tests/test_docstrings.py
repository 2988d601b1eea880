"""Examples in docstrings print what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["estimators", "export", "display", "many", "search"])
def test_examples_in_docstrings(module):
    found = doctest.testmod(importlib.import_module(f"fastbp.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
