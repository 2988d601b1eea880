"""The examples run as scripts, print what a reader should see, and save their plots."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: What the output must hold, whatever the luck of a short run.
SAYS = {
    "house_prices": r"step 1000: error 0\.0",
    "xor": r"8 of 8 right",
    "digits": r"other images     0\.[5-9]",
    "gradients": r"ReLU, gain 3: loss after \d+ epochs diverged",
    "overfitting": r"early_stopping",
    "optimizers": r"Adam .* loss",
    "seeds": r"weights of one thread (\w+), of all threads \1",
    "beyond": r"max_grad_norm=None: diverged\nmax_grad_norm=10.0: R\^2 ",
    "tabular": r"network: \d+\.\d+ miles",
}
#: Those that change their process, or start others.
SAY_ALONE = {
    "out_of_core": r"refused[\s\S]*accuracy on other rows 0\.[6-9]",
    "cluster_search": r"Dask, 2 processes.*same scores\nRay, 2 processes.*same scores",
}


def test_every_example_is_checked():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, *SAY_ALONE}


def check(name, output, folder):
    source = (EXAMPLES / f"{name}.py").read_text()
    assert re.search({**SAYS, **SAY_ALONE}[name], output), output
    for picture in re.findall(r'savefig\("(.*)"\)', source):
        assert (folder / picture).stat().st_size > 5000


@pytest.mark.parametrize("name", SAYS)
def test_example(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--short"])
    with mpl.rc_context({"backend": "Agg"}), np.printoptions():
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    plt.close("all")
    check(name, capsys.readouterr().out, tmp_path)


def run_alone(name, folder, *options, arguments=("--short",)):
    result = subprocess.run(
        [sys.executable, *options, EXAMPLES / f"{name}.py", *arguments],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    check(name, result.stdout, folder)
    return result.stdout


def test_out_of_core(tmp_path):
    run_alone("out_of_core", tmp_path, "-W", "error")


@pytest.mark.slow  # starts two clusters: a minute; ``.ci/run`` has it too
def test_cluster_search(tmp_path):
    # without -W error: Dask's and Ray's own warnings change with every release
    run_alone("cluster_search", tmp_path)


@pytest.mark.slow  # half a minute of training; ``.ci/run`` has it too
def test_what_is_beyond_scikit_learn_helps(tmp_path):
    """As README says; the margins leave room for other splits, not for no gain."""
    text = run_alone("beyond", tmp_path, arguments=())

    def score(option):
        return float(re.search(rf"{option}: [\w^ ]* (\S+)$", text, re.MULTILINE)[1])

    assert score("dropout=0.7") > score("dropout=0.0") + 0.04
    assert score("class_weight='balanced'") > score("class_weight=None") + 0.3
    assert score("learning_rate='cosine'") > score("learning_rate='constant'") + 0.04
    assert score("max_grad_norm=1.0") > 0.3  # without: diverged
