"""README's example runs as it stands, and its commands are the real ones."""

import re
from pathlib import Path

import pytest

from fastbp import MLPRegressor

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_example_runs_as_printed(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.95


def test_not_yet_supported_options_are_those_that_raise():
    listed = re.search(r"Not yet, and named by.*?:(.*?)\n\n", README, re.DOTALL)[1]
    for option, model in (
        ("solver='lbfgs'", MLPRegressor(solver="lbfgs")),
        ("loss='poisson'", MLPRegressor(loss="poisson")),
        ("early_stopping", MLPRegressor(early_stopping=True)),
        ("warm_start", MLPRegressor(warm_start=True)),
    ):
        assert option in listed
        with pytest.raises(NotImplementedError, match=re.escape(option)):
            model.fit([[0.0], [1.0]], [0.0, 1.0])
