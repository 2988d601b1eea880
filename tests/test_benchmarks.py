"""The benchmarks verify what they time; ratios, verdicts and README's figures hold."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sklearn.neural_network

from benchmarks import calm, guard, peak, peers, problems, report, session
from benchmarks.rows import Row, Run
from fastbp import launch

ROOT = Path(__file__).parents[1]


def row(samples, case="case", **facts):
    return Row("kernels", case, "float32", 2, "s", samples, facts)


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    # the machine became ten times as slow in the third round, for both
    found = row({"fastbp": [1.0, 1.0, 10.0], "NumPy": [2.0, 3.0, 40.0]}).ratio("NumPy")
    assert found.median == 3
    assert (found.low, found.high) == (2.5, 3.5)


def test_scikit_learn_counts_with_its_better_number_of_threads():
    found = row(
        {
            "fastbp": [1.0, 1.0],
            "scikit-learn, 1 BLAS thread": [3.0, 3.0],
            "scikit-learn, 2 BLAS threads": [5.0, 5.0],
            "PyTorch": [2.0, 2.0],
        }
    )
    assert found.ratio("scikit-learn").median == 3
    assert found.ratio("JAX") is None
    assert found.ratio().median == 2


def test_rows_that_are_too_noisy_are_marked():
    steady = row({"fastbp": [1.0] * 5, "NumPy": [2.0, 2.1, 2.2, 2.1, 2.0]})
    noisy = row({"fastbp": [1.0] * 5, "NumPy": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert report.times(steady.ratio("NumPy")) == "2.1"
    assert report.times(noisy.ratio("NumPy")) == "~3.0"
    known = row({"fastbp": [1.0] * 75, "NumPy": [1.0, 2.0, 3.0, 4.0, 5.0] * 15})
    assert report.times(known.ratio("NumPy")) == "~3.0"
    known = row({"fastbp": [1.0] * 125, "NumPy": [1.0, 2.0, 3.0, 4.0, 5.0] * 25})
    assert report.times(known.ratio("NumPy")) == "3.0"  # 2^(3.14 / sqrt(125)) = 1.21
    machine = {}
    assert report.noise(Run(machine, [steady, steady, noisy])).startswith("1 of 3 rows")
    assert "Too noisy" in report.noise(Run(machine, [steady, noisy]))


def test_a_run_can_be_made_in_parts():
    machine = {"processor": "p", "versions": {"numpy": "2"}, "sources": "s"}
    limits = {"by threads": {"2": {"load": 1}}, "left out": ["a", "b"]}
    first = row({"fastbp": [1.0]}, "first")
    again, second = row({"fastbp": [2.0]}, "first"), row({"fastbp": [3.0]}, "second")
    earlier = Run({**machine, **limits}, [first, second])
    limits = {"by threads": {"1": {"load": 2}}, "left out": ["b", "c"]}
    both = Run({**machine, **limits}, [again]).with_rows_of(earlier)
    assert both.rows == [second, again]
    assert both.machine["by threads"] == {"2": {"load": 1}, "1": {"load": 2}}
    assert both.machine["left out"] == ["a", "b", "c"]
    assert earlier.belongs_to(machine)
    for name in machine:
        assert not earlier.belongs_to({**machine, name: "another"})


def test_the_share_is_of_the_limit_that_limits():
    facts = {"flops": 6e9, "bytes": 1e9, "limit": 4.0}
    samples = {"fastbp": [2.0, 2.0, 2.0]}
    assert row(samples, limited_by="fma", **facts).share == 0.75
    assert row(samples, limited_by="memory", **facts).share == 0.125


def test_the_guard_sees_a_kernel_that_lost_a_third_but_not_noise():
    expected = {"a": 3.0, "b": 3.0}
    steady = row({"fastbp": [1.0] * 3, "NumPy": [2.8, 2.5, 2.6]}, "a")
    slower = row({"fastbp": [1.0] * 3, "NumPy": [2.0, 2.1, 2.0]}, "b")
    assert list(guard.slower(Run({}, [steady, slower]), expected)) == ["b"]
    assert guard.slower(Run({}, [slower]), {}) == {}


@pytest.mark.parametrize("seconds", [2.5, 0.9996, 0.0123, 3e-6, 4e-8])
def test_amounts_keep_three_digits(seconds):
    number, unit = report.amount(seconds, "s").split()
    assert "e+" not in number
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]
    assert float(number) * scale == pytest.approx(seconds, rel=0.005)


def test_what_fastbp_loses_is_said():
    samples = {"fastbp": [2.0, 2.0], "JAX": [1.0, 1.0], "NumPy": [1.6, 1.6]}
    lost = row(samples, case="lost")._replace(group="start")
    won = row({"fastbp": [1.0, 1.0], "JAX": [2.0, 2.0]}, case="won")._replace(
        group="fits"
    )
    kernels = [row(samples), row({"fastbp": [1.0, 1.0], "NumPy": [1.0, 1.0]})]
    text = report.losing(Run({}, [lost, won, *kernels]))
    slower = "2.0 times as long as JAX, 1.2 times as long as NumPy"
    assert f"lost, float32, 2 threads ({slower})" in text
    assert "won" not in text
    assert "in 1 of 2 rows" in text
    cases = ["bench_a[1] (no B)", "bench_a[2 (3)] (no B)", "bench_c[4] (no D)"]
    assert report._left_out(cases) == (
        "2 cases of bench_a (no B), 1 case of bench_c (no D)"
    )


def test_the_report_of_the_committed_run_is_written(tmp_path):
    run = Run.load(report.COMMITTED / "run.json")
    report.write(run, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for case in {row.case for row in run.rows if row.group != "kernels"}:
        assert case in text
    for picture in re.findall(r"\]\((.*\.png)\)", text):
        assert (tmp_path / picture).stat().st_size > 10_000


ODD = {problem.name: problem for problem in problems.ODD}


@pytest.mark.filterwarnings("ignore")  # fits too short to converge; peers on themselves
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "peer",
    [
        "NumPy",
        *(pytest.param(n, marks=pytest.mark.slow) for n in peers.PEERS if n != "NumPy"),
    ],
)
def test_peers_train_the_same_model(peer, name):
    if peer in peers.missing():
        pytest.skip(f"{peer} is not installed")
    problem = ODD[name]._replace(epochs=2, batch=64)
    data = problem.data("float64")
    data = data._replace(X=data.X[:640], y=data.y[:640])
    trained = peers.PEERS[peer][0](problem, data)(2)
    package = sklearn.neural_network
    model = (package.MLPClassifier if problem.classifies else package.MLPRegressor)(
        **problem.parameters()
    ).fit(data.X, data.y)
    # PyTorch has Adam's epsilon and the L2 term elsewhere; the others err by roundings
    rtol = 1e-3 if peer.startswith(("PyTorch", "skorch")) else 1e-10
    np.testing.assert_allclose(trained.losses, model.loss_curve_, rtol=rtol)
    # 20 steps, each of which moves a weight by 1e-3 however small its gradient is
    atol = 20 * 1e-3 if rtol == 1e-3 else rtol
    for found, expected in zip(trained.weights()[0], model.coefs_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_readme_has_the_figures_of_the_committed_run():
    run = Run.load(report.COMMITTED / "run.json")
    readme = (ROOT / "README.md").read_text()
    assert report.with_section(readme, report.readme_section(run)) == readme


def test_a_group_without_a_case_that_was_asked_for_is_left_out(capfd):
    assert session.run("scores", 1, ["-k", "nothing"]) == (None, False)
    assert not capfd.readouterr().out.strip()


@pytest.mark.timeout(600)  # with nothing in the cache it compiles most programs
def test_kernels_agree_with_numpy():
    # each once, without timing: a kernel that computes something else fails
    names = "small and not weight_gradient"  # which would be compiled for this test only
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "benchmarks/bench_kernels.py", "-q"),
            *("--benchmark-disable", "-k", names),
        ],
        cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "0"},  # what is timed
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "18 passed" in result.stdout


def test_timings_wait_for_the_rate_that_was_seen(monkeypatch):
    rates = [100, 40, 84, 86, 200, 100, 171]
    monkeypatch.setattr(peak, "gflops", lambda *args: rates.pop(0))
    monkeypatch.setattr(peak, "seconds_to_pass", lambda: 40e-9)
    monkeypatch.setattr(calm, "_PAUSE", 0)
    gate = calm.Calm(2)
    assert gate.wait()
    assert gate.wait()
    assert rates == [200, 100, 171]  # 84 was not enough
    assert gate.wait()
    assert gate.wait()
    assert not rates


def test_timings_wait_for_processors_that_are_near_each_other(monkeypatch):
    # one core of the host, which is slow; near cores; far ones, twice; near ones
    rates, ways = [100, 50, 100, 100, 100, 100], [40e-9, 170e-9, 81e-9, 40e-9, 75e-9]
    monkeypatch.setattr(peak, "gflops", lambda *args: rates.pop(0))
    monkeypatch.setattr(peak, "seconds_to_pass", lambda: ways.pop(0))
    monkeypatch.setattr(calm, "_PAUSE", 0)
    gate = calm.Calm(2)
    assert gate.wait()
    assert gate.wait()
    assert ways == [75e-9]
    assert gate.wait()
    assert not rates


def test_one_thread_is_near_itself(monkeypatch):
    monkeypatch.setattr(peak, "gflops", lambda *args: 100)
    monkeypatch.delattr(peak, "seconds_to_pass")
    assert calm.Calm(1).wait()


def test_timings_do_not_wait_for_ever(monkeypatch):
    rates = [100, 40]
    monkeypatch.setattr(peak, "gflops", lambda *args: rates.pop(0))
    monkeypatch.setattr(peak, "seconds_to_pass", lambda: 40e-9)
    gate = calm.Calm(2, patience=0)
    assert gate.wait()
    assert not gate.wait()


@pytest.mark.skipif(launch.thread_limit() < 2, reason="takes two processors")
def test_a_word_goes_to_and_fro_between_two_threads():
    words = np.zeros(8, np.int64)
    peak._pass_to_and_fro(words, 2 * peak._PASSES)  # compiles
    second = threading.Thread(target=peak._pass_to_and_fro, args=(words, 1))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # it waits for the first one's turn
    assert words[0] == 0
    peak._pass_to_and_fro(words, 0)
    second.join()
    assert words[0] == 2 * peak._PASSES
    assert peak.seconds_to_pass() > 0
