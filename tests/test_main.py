"""``python -m fastbp``, run as a user runs it."""

import os
import re
import subprocess
import sys

import pytest


def main(*arguments, returncode=0, **environment):
    result = subprocess.run(
        [sys.executable, "-m", "fastbp", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == returncode, result.stderr
    return result.stdout + result.stderr


def test_main_job_finds_scikit_learns_model():
    text = main("--epochs", "5")
    accuracy = re.search(r"Test accuracy\s+(\S+)\s+(\S+)", text)
    assert accuracy[1] == accuracy[2]
    assert float(accuracy[1]) > 0.5
    difference = re.search(r"two loss curves: (\S+)", text)[1]
    assert float(difference) < 1e-10  # float64, 35 steps: a few roundings each
    assert "times as fast" in text
    assert "GridSearchCV" in text


def test_main_job_takes_options():
    text = main("--data", "wine", "--dtype", "float32", "--hidden", "--epochs", "2")
    assert "chemical analyses of wines" in text
    assert "float32" in text


def test_help_explains_the_options():
    text = main("--help")
    for option in ("--data", "--dtype", "--hidden", "--epochs"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "0"), "--epochs must be at least 1"),
        (
            ("--hidden", "-3"),
            "--hidden takes positive numbers",
        ),
        (("--data", "mnist"), "invalid choice"),
        (("--seed", "-1"), "--seed must be from 0"),
    ],
)
def test_bad_options_are_named(arguments, message):
    assert re.search(message, main(*arguments, returncode=2))


def test_doctor_tells_what_a_report_needs():
    text = main("--doctor")
    for name in ("fastbp", "numba", "target", "vectors", "threads", "compile cache"):
        assert re.search(rf"^{name} +\S", text, re.MULTILINE), name
    assert re.search(r"^ +\d+ files, \d+\.\d MB; [1-9]\d* of this version", text, re.M)
    for dtype, deviation in (("float64", 1e-12), ("float32", 1e-5)):
        found = re.search(rf"^trial {dtype} .*its loss within (\S+) of", text, re.M)
        assert float(found[1]) < deviation


def test_doctor_warns_of_workqueue():
    text = main("--doctor", NUMBA_THREADING_LAYER="workqueue")
    assert re.search(r"^WARNING .*workqueue layer", text, re.MULTILINE)


def test_doctor_survives_what_it_reports():
    text = main("--doctor", NUMBA_THREADING_LAYER="nonsense")
    assert re.search(r"^threading layer  none: ValueError", text, re.MULTILINE)
    assert "WARNING" not in text
    assert len(re.findall(r"^trial .*scikit-learn's$", text, re.MULTILINE)) == 2
