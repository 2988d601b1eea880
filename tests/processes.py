"""Programs that run in a process of their own, as they could take it down."""

import os
import subprocess
import sys
import textwrap

# Compiling takes some 20 s per program, on a machine that has to do it for the first
# time; a deadlock would take for ever.
TIMEOUT = 280

SETUP = """
import os, signal, sys, warnings
import numpy as np
# a shell has its background processes, and their children, ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
warnings.simplefilter("ignore")  # of fits that are too short to converge

def data(n=600, n_features=784):
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(n, n_features)).astype(np.float32)
    return X, rng.randint(10, size=n)

def fit(n_jobs=None, seed=0):
    # enough work in a step for two threads
    from fastbp import MLPClassifier
    model = MLPClassifier(
        (256, 128), batch_size=200, max_iter=2, random_state=seed, n_jobs=n_jobs
    )
    return model.fit(*data())

def same(a, b):
    return a.loss_curve_ == b.loss_curve_ and all(
        np.array_equal(v, w)
        for v, w in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_)
    )
"""


def start_python(code, tmp_path, new_session=False, **environment):
    """The process of a program; ``SETUP`` comes before the code."""
    path = tmp_path / "program.py"
    path.write_text(SETUP + textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(path)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
    )


def finish(process, timeout=TIMEOUT):
    """Exit status, standard output and errors of a process that has to end by itself."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{errors}") from None
    return process.returncode, output, errors


def run_python(code, tmp_path, timeout=TIMEOUT, **environment):
    """Standard output of a program that has to end by itself, without an error."""
    status, output, errors = finish(start_python(code, tmp_path, **environment), timeout)
    assert status == 0, f"exit status {status}\n{errors}"
    return output
