"""Machine code on disk: found again, never stale, and no reason to fail."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import maintenance
from tests.processes import finish, run_python, start_python

# How code is kept does not depend on what it does: a program that compiles in no time.
TINY_SOURCE = """
def increase(array):
    for i in range(array.size):
        array[i] += 1
"""
TINY = """
import importlib.util
warnings.simplefilter("default")
from fastbp import cache
spec = importlib.util.spec_from_file_location("fastbp.kernels.tiny", os.environ["TINY"])
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
cache._MODULES["increase"] = "tiny"
for dtype in os.environ.get("DTYPES", "f8").split():
    array = np.ones(3, dtype)
    program = cache.ready("increase", array.dtype, (array,))
    program(array)
    print(sum(program.stats.cache_hits.values()), array.sum())
"""

# The smallest of the real ones.
UPDATE = """
warnings.simplefilter("default")
from fastbp import cache, kernels
for dtype in os.environ.get("DTYPES", "f8").split():
    theta = np.linspace(-1, 1, 40, dtype=dtype)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    kernels.adam_update(theta, m, v, np.full_like(theta, 0.5), 1, 0.1)
    (program,) = [p for key, p in cache._programs.items() if np.dtype(key[1]) == dtype]
    print(sum(program.stats.cache_hits.values()), theta.sum(dtype=np.float64))
"""


@pytest.fixture(scope="module")
def full_cache(tmp_path_factory):
    """A cache that has ``TINY``, and the path of its source."""
    directory, work = (tmp_path_factory.mktemp(name) for name in ("cache", "work"))
    source = work / "tiny.py"
    source.write_text(TINY_SOURCE)
    where = {"NUMBA_CACHE_DIR": str(directory), "DTYPES": "f8 f4", "TINY": str(source)}
    assert run_python(TINY, work, **where).split() == ["0", "6.0", "0", "6.0"]
    return directory, source


@pytest.fixture
def kept(full_cache, tmp_path, monkeypatch):
    """A copy to spoil."""
    directory, source = full_cache
    copied = tmp_path / "cache"
    shutil.copytree(directory, copied)
    monkeypatch.setenv("TINY", str(source))
    return copied


def run(directory, tmp_path, code=TINY, **environment):
    """(cache hits, result, warnings) of a process, which has to end well."""
    environment = {"NUMBA_CACHE_DIR": str(directory), **environment}
    status, output, errors = finish(start_python(code, tmp_path, **environment))
    assert status == 0, errors
    return *output.split(), errors


HIT, MISS = ("1", "6.0", ""), ("0", "6.0", "")


def test_a_second_process_loads_what_the_first_has_compiled(kept, tmp_path):
    assert run(kept, tmp_path) == HIT


def test_a_fit_loads_what_another_process_has_compiled(tmp_path):
    # the cache of this test run, which the first of these two fits fills if it must
    code = """
    from fastbp import cache
    print(repr(fit(n_jobs=1).loss_))
    (program,) = cache._programs.values()
    print(sum(program.stats.cache_hits.values()))
    """
    first, second = run_python(code, tmp_path), run_python(code, tmp_path)
    assert first.split()[0] == second.split()[0]
    assert second.split()[1] == "1"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def nought(path):  # as after a crash of the system
    path.write_bytes(bytes(path.stat().st_size))


def replace_by_a_directory(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("what", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [cut, empty, nought, replace_by_a_directory])
def test_a_damaged_cache_is_rebuilt(kept, tmp_path, what, damage):
    (victim,) = kept.rglob(f"*_f8_*.{what}")
    damage(victim)
    hits, result, warned = run(kept, tmp_path)
    assert (hits, result) == ("0", "6.0")
    # data that is not there is no damage: Numba compiles without a word
    silent = (what, damage) == ("nbc", replace_by_a_directory)
    assert silent or "fastbp's compile cache cannot be used" in warned
    if damage is not replace_by_a_directory:
        assert run(kept, tmp_path) == HIT


@pytest.mark.parametrize("what", ["nbi", "nbc"])
def test_a_cache_that_was_deleted_in_part_is_rebuilt(kept, tmp_path, what):
    for path in kept.rglob(f"*.{what}"):
        path.unlink()
    assert run(kept, tmp_path) == MISS
    assert run(kept, tmp_path) == HIT


def test_files_that_were_swapped_are_noticed(kept, tmp_path):
    (one,), (other,) = kept.rglob("*_f8_*.nbc"), kept.rglob("*_f4_*.nbc")
    one.rename(tmp_path / "one")
    other.rename(one)
    (tmp_path / "one").rename(other)
    where = {"NUMBA_CACHE_DIR": str(kept), "DTYPES": "f8 f4"}
    status, output, warned = finish(start_python(TINY, tmp_path, **where))
    assert (status, output.split()) == (0, ["0", "6.0", "0", "6.0"]), warned
    assert "holds increase_f4" in warned
    assert "holds increase_f8" in warned
    assert run_python(TINY, tmp_path, **where).split() == ["1", "6.0", "1", "6.0"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        # a callee's code and a constant, neither in the file that Numba looks at
        ("updates.py", "w - rate * mean /", "w + rate * mean /"),
        ("simd.py", "else 1e-280", "else 1e280"),
    ],
)
def test_edited_kernels_are_compiled_anew(tmp_path, file, old, new):
    package = tmp_path / "fastbp"
    shutil.copytree(
        Path(fastbp.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    directory, source = tmp_path / "cache", package / "kernels" / file
    where = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    hits, expected, _ = run(directory, tmp_path, UPDATE, **where)
    assert hits == "0"
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    hits, result, _ = run(directory, tmp_path, UPDATE, **where)
    assert hits == "0"
    assert result != expected
    source.write_text(text)
    assert run(directory, tmp_path, UPDATE, **where) == ("1", expected, "")


@pytest.mark.parametrize("switch", ["NUMBA_OPT", "NUMBA_BOUNDSCHECK"])
def test_other_settings_of_numba_are_other_code(kept, tmp_path, switch):
    value = "0" if os.environ.get(switch) == "1" else "1"
    assert run(kept, tmp_path, **{switch: value}) == MISS
    assert run(kept, tmp_path) == HIT


def test_six_processes_start_cold_on_one_empty_cache(kept, tmp_path):
    processes, directory = [], tmp_path / "new"
    for i in range(6):
        (tmp_path / str(i)).mkdir()
        where = {"NUMBA_CACHE_DIR": str(directory)}
        processes.append(start_python(TINY, tmp_path / str(i), **where))
    for process in processes:
        status, output, errors = finish(process)
        assert (status, output.split()[1], errors) == (0, "6.0", "")
    assert run(directory, tmp_path) == HIT


@pytest.mark.slow
def test_six_fits_start_cold_on_one_empty_cache(tmp_path):
    processes = []
    for i in range(6):
        (tmp_path / str(i)).mkdir()
        code = "print(fit(seed=0).loss_)"
        where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        processes.append(start_python(code, tmp_path / str(i), **where))
    ended = [finish(process) for process in processes]
    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * 6
    assert len({output for _, output, _ in ended}) == 1


def test_the_cache_can_be_turned_off(kept, tmp_path):
    directory = tmp_path / "unused"
    assert run(directory, tmp_path, FASTBP_CACHE="0") == MISS
    assert not directory.exists()


UNWRITABLE = """
import resource
# files may not grow beyond this, as on a full disk: an index fits, code does not
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
"""


def test_a_full_disk_is_no_reason_to_fail(kept, tmp_path):
    pytest.importorskip("resource")
    directory = tmp_path / "full"
    hits, result, warned = run(directory, tmp_path, UNWRITABLE + TINY)
    assert (hits, result) == ("0", "6.0")
    assert "fastbp's compile cache cannot be used" in warned
    # whatever the disk has kept does not harm a later process
    assert run(directory, tmp_path)[1:] == ("6.0", "")


WITHOUT_PRIVILEGES = """
import ctypes
if os.getuid() == 0:  # root may write everywhere; without capabilities, as others may
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, nothing) == 0
from fastbp import cache
assert cache.directory() is None, cache.directory()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
def test_a_package_that_cannot_be_written_and_no_home(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(
        Path(fastbp.__file__).parent,
        package / "fastbp",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    everything = [package, *package.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    where = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
    try:
        hits, result, warned = run(
            "",
            tmp_path,
            WITHOUT_PRIVILEGES + UPDATE,
            PYTHONPATH=str(package),
            **where,
        )
    finally:
        for path in everything:
            path.chmod(0o755)
    assert (hits, warned) == ("0", "")
    assert np.isfinite(float(result))


def test_clear_cache_deletes_the_code_of_all_versions(tmp_path):
    directory = tmp_path / "cache"
    run(directory, tmp_path, UPDATE)
    old = next(directory.rglob("*.nbi")).with_name("arrays.old-1.py311.nbi")
    old.write_bytes(b"of an earlier version")
    sizes = sum(path.stat().st_size for path in directory.rglob("*.nb?"))
    code = """
    import fastbp
    print(fastbp.clear_cache(), fastbp.clear_cache())
    """
    freed = run_python(code, tmp_path, NUMBA_CACHE_DIR=str(directory)).split()
    assert freed == [str(sizes), "0"]
    assert not list(directory.rglob("*.nb?"))


def test_warmup_leaves_nothing_to_compile(tmp_path):
    code = """
    import fastbp
    from fastbp import cache
    fastbp.warmup(["float32", float])
    names = set(cache._programs)
    for dtype in (np.float32, np.float64):
        X, y = data(30, 5)
        for model in (fastbp.MLPClassifier(max_iter=1), fastbp.MLPRegressor(max_iter=1)):
            model.fit(X.astype(dtype), y).predict(X.astype(dtype))
            model.predict(X[:1].astype(dtype))
    assert set(cache._programs) == names
    print(len(names))
    fastbp.warmup(["float64"], sparse=True)
    print(len(cache._programs))
    """
    assert run_python(code, tmp_path).split() == ["6", "8"]


def test_warmup_of_another_dtype_is_an_error():
    with pytest.raises(ValueError, match="must be float32 or float64, got float16"):
        fastbp.warmup([np.float16])


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
def test_warmup_takes_one_dtype(dtype, monkeypatch):
    warmed = []
    monkeypatch.setattr(
        maintenance, "_trial", lambda estimator, X, y: warmed.append(X.dtype) or Tried()
    )
    fastbp.warmup(dtype)
    assert warmed == [np.float32]


class Tried:
    def predict(self, X):
        return X


def test_a_switched_off_compiler_is_named(tmp_path):
    process = start_python("fit()", tmp_path, NUMBA_DISABLE_JIT="1")
    status, _, errors = finish(process)
    assert status == 1
    assert "RuntimeError: fastbp's programs exist as machine code only" in errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_another_thread_compiles(tmp_path):
    # Numba's lock, held by a thread that the child does not have, would stop it
    run_python(
        """
        import signal, threading, time
        from numba.core.dispatcher import Dispatcher
        from fastbp import MLPRegressor
        compile_, begun = Dispatcher.compile, threading.Event()

        def slow(self, signature):
            from numba.core.compiler_lock import global_compiler_lock
            with global_compiler_lock:
                begun.set()
                time.sleep(1)
                return compile_(self, signature)

        Dispatcher.compile = slow
        thread = threading.Thread(target=fit)
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs ends by SIGALRM
            os._exit(0 if len(fit(n_jobs=1).coefs_) == 3 else 1)
        thread.join()
        assert os.waitpid(child, 0)[1] == 0
        """,
        tmp_path,
    )
