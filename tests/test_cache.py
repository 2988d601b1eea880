"""Machine code on disk: found again, never stale, and no reason to fail."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from tests.processes import finish, run_python, start_python

# The smallest program will do: how code is kept does not depend on what it does.
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
    """A cache that has ``UPDATE``, and what it prints when it finds nothing there."""
    directory = tmp_path_factory.mktemp("cache")
    work = tmp_path_factory.mktemp("work")
    where = {"NUMBA_CACHE_DIR": str(directory), "DTYPES": "f8 f4"}
    return directory, run_python(UPDATE, work, **where).split()


@pytest.fixture
def kept(full_cache, tmp_path):
    """A copy to spoil: (directory, results of a process without a cache)."""
    directory, printed = full_cache
    copied = tmp_path / "cache"
    shutil.copytree(directory, copied)
    assert printed[0::2] == ["0", "0"]
    return copied, printed[1::2]


def update(directory, tmp_path, **environment):
    """(cache hits, result, warnings) of a process that updates float64 parameters."""
    process = start_python(
        UPDATE, tmp_path, NUMBA_CACHE_DIR=str(directory), **environment
    )
    status, output, errors = finish(process)
    assert status == 0, errors
    return *output.split(), errors


def test_a_second_process_loads_what_the_first_has_compiled(kept, tmp_path):
    directory, (expected, _) = kept
    assert update(directory, tmp_path) == ("1", expected, "")


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
    directory, (expected, _) = kept
    (victim,) = directory.rglob(f"*_f8_*.{what}")
    damage(victim)
    hits, result, warned = update(directory, tmp_path)
    assert (hits, result) == ("0", expected)
    # data that is not there is no damage: Numba compiles without a word
    silent = (what, damage) == ("nbc", replace_by_a_directory)
    assert silent or "fastbp's compile cache cannot be used" in warned
    if damage is not replace_by_a_directory:
        assert update(directory, tmp_path) == ("1", expected, "")


@pytest.mark.parametrize("what", ["nbi", "nbc"])
def test_a_cache_that_was_deleted_in_part_is_rebuilt(kept, tmp_path, what):
    directory, (expected, _) = kept
    for path in directory.rglob(f"*.{what}"):
        path.unlink()
    assert update(directory, tmp_path) == ("0", expected, "")
    assert update(directory, tmp_path) == ("1", expected, "")


def test_files_that_were_swapped_are_noticed(kept, tmp_path):
    directory, expected = kept
    (one,), (other,) = directory.rglob("*_f8_*.nbc"), directory.rglob("*_f4_*.nbc")
    one.rename(tmp_path / "one")
    other.rename(one)
    (tmp_path / "one").rename(other)
    where = {"NUMBA_CACHE_DIR": str(directory), "DTYPES": "f8 f4"}
    status, output, warned = finish(start_python(UPDATE, tmp_path, **where))
    assert status == 0, warned
    assert output.split()[1::2] == expected
    assert "holds update_all_serial_f4" in warned
    assert "holds update_all_serial_f8" in warned
    output = run_python(UPDATE, tmp_path, **where)
    assert output.split() == ["1", expected[0], "1", expected[1]]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        # a callee's code and a constant, neither in the file that Numba looks at
        ("updates.py", "w - rate * mean /", "w + rate * mean /"),
        ("simd.py", "else 1e-280", "else 1e280"),
    ],
)
def test_edited_kernels_are_compiled_anew(kept, tmp_path, file, old, new):
    directory, (expected, _) = kept
    package = Path(fastbp.__file__).parent
    copy = tmp_path / "fastbp"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = copy / "kernels" / file
    where = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    assert update(directory, tmp_path, **where)[:2] == ("0", expected)
    assert update(directory, tmp_path, **where)[:2] == ("1", expected)
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    hits, result, _ = update(directory, tmp_path, **where)
    assert hits == "0"
    assert result != expected
    source.write_text(text)
    assert update(directory, tmp_path, **where)[:2] == ("1", expected)


@pytest.mark.parametrize("switch", ["NUMBA_OPT", "NUMBA_BOUNDSCHECK"])
def test_other_settings_of_numba_are_other_code(kept, tmp_path, switch):
    directory, (expected, _) = kept
    value = "0" if os.environ.get(switch) == "1" else "1"
    hits, result, _ = update(directory, tmp_path, **{switch: value})
    assert (hits, result) == ("0", expected)


def test_six_processes_start_cold_on_one_empty_cache(kept, tmp_path):
    _, (expected, _) = kept
    directory = tmp_path / "new"
    processes = []
    for i in range(6):
        (tmp_path / str(i)).mkdir()
        processes.append(
            start_python(UPDATE, tmp_path / str(i), NUMBA_CACHE_DIR=str(directory))
        )
    for process in processes:
        status, output, errors = finish(process)
        assert (status, errors) == (0, "")
        assert output.split()[1] == expected
    assert update(directory, tmp_path) == ("1", expected, "")


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
    _, (expected, _) = kept
    directory = tmp_path / "unused"
    assert update(directory, tmp_path, FASTBP_CACHE="0") == ("0", expected, "")
    assert not directory.exists()


UNWRITABLE = """
import resource
# files may not grow beyond this, as on a full disk: an index fits, code does not
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
"""


def test_a_full_disk_is_no_reason_to_fail(kept, tmp_path):
    pytest.importorskip("resource")
    _, (expected, _) = kept
    directory = tmp_path / "full"
    process = start_python(UNWRITABLE + UPDATE, tmp_path, NUMBA_CACHE_DIR=str(directory))
    status, output, errors = finish(process)
    assert status == 0, errors
    assert output.split() == ["0", expected]
    assert "fastbp's compile cache cannot be used" in errors
    # whatever the disk has kept does not harm a later process
    assert update(directory, tmp_path)[1:] == (expected, "")


WITHOUT_PRIVILEGES = """
import ctypes
if os.getuid() == 0:  # root may write everywhere; without capabilities, as others may
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, nothing) == 0
from fastbp import cache
assert cache.directory() is None, cache.directory()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
def test_a_package_that_cannot_be_written_and_no_home(kept, tmp_path):
    _, (expected, _) = kept
    package = tmp_path / "package"
    shutil.copytree(
        Path(fastbp.__file__).parent,
        package / "fastbp",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    everything = [package, *package.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    where = {"NUMBA_CACHE_DIR": "", "HOME": "/dev/null", "PYTHONPATH": str(package)}
    where["XDG_CACHE_HOME"] = "/dev/null/cache"
    try:
        process = start_python(WITHOUT_PRIVILEGES + UPDATE, tmp_path, **where)
        status, output, errors = finish(process)
    finally:
        for path in everything:
            path.chmod(0o755)
    assert (status, output.split()) == (0, ["0", expected]), errors


def test_clear_cache_deletes_the_code_of_all_versions(kept, tmp_path):
    directory, _ = kept
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
    assert update(directory, tmp_path)[0] == "0"


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
