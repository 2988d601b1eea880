"""The examples run as scripts, print what a reader should see, and save their plots."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
#: What the output must hold, whatever the luck of a short run.
SAYS = {
    "house_prices": r"step 1000: error 0\.0",
    "xor": r"8 of 8 right",
    "digits": r"other images     0\.[5-9]",
    "gradients": r"ReLU, gain 3: loss after \d+ epochs diverged",
    "overfitting": r"early_stopping",
    "optimizers": r"Adam .* loss",
    "seeds": r"weights of one thread (\w+), of all threads \1",
    "tabular": r"network: \d+\.\d+ miles",
    "out_of_core": r"refused[\s\S]*accuracy on other rows 0\.[6-9]",
    "cluster_search": r"Dask, 2 processes.*same scores\nRay, 2 processes.*same scores",
}


def test_every_example_is_checked():
    assert {path.stem for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    # Dask's and Ray's own warnings change with every release
    strict = [] if path.stem == "cluster_search" else ["-W", "error"]
    result = subprocess.run(
        [sys.executable, *strict, str(path), "--short"],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(SAYS[path.stem], result.stdout), result.stdout
    for name in re.findall(r'savefig\("(.*)"\)', path.read_text()):
        assert (tmp_path / name).stat().st_size > 5000
