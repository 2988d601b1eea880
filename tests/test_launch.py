"""The gate: thread counts, the pace of calls, the compile cache."""

import os
import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest

from fastbp import launch

FIT = """
import time, warnings
import numpy as np
from fastbp import MLPClassifier, launch
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((300, 20))
y = (X[:, 0] > 0).astype(int)
model = MLPClassifier(max_iter=3, random_state=0, n_jobs=1).fit(X, y)
hits = launch._program("train_steps", "<f8", False).stats.cache_hits
print(sum(hits.values()), repr(model.loss_))
"""


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_thread_limit_obeys_n_jobs_and_the_environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    everything = launch.thread_limit()
    assert launch.thread_limit(1) == 1
    assert launch.thread_limit(-1) == everything
    assert launch.thread_limit(1000) == everything
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch.thread_limit() == 1


def test_thread_mask_is_restored_when_a_program_fails(monkeypatch):
    def fail(*args):
        raise RuntimeError("no")

    monkeypatch.setattr(launch, "_ready", lambda program, args: fail)
    mask = numba.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        launch._run_parallel("update_all", (), np.dtype("f8"), 1)
    assert numba.get_num_threads() == mask


def test_second_process_loads_the_compiled_program(tmp_path):
    first = run(FIT, NUMBA_CACHE_DIR=str(tmp_path))
    second = run(FIT, NUMBA_CACHE_DIR=str(tmp_path))
    assert first[0] == "0"
    assert second[0] == "1"
    assert first[1] == second[1]

    for damaged in list(tmp_path.rglob("*.nbi")) + list(tmp_path.rglob("*.nbc")):
        damaged.write_bytes(damaged.read_bytes()[:50])
    assert run(FIT, NUMBA_CACHE_DIR=str(tmp_path))[1] == first[1]
    assert run(FIT, NUMBA_CACHE_DIR=str(tmp_path))[0] == "1"
