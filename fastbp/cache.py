"""The programs' machine code: compiled when first needed, and kept on disk.

Importing this module does not import Numba. The first call of a program does, and
compiles (or loads from disk) just that program, for one dtype.

Where   Numba decides: in ``NUMBA_CACHE_DIR`` if that is set, else beside the kernels'
        sources, else in the user's cache directory, whichever can be written first. If
        none can, or under ``FASTBP_CACHE=0``, every process compiles for itself.
Names   Numba notices only edits of the file that defines a function, so the names of
        the programs carry a digest of all kernel sources and of everything else that
        the machine code depends on: no process loads what another version has compiled.
Writers Each program has a file of its own, which is written under another name and then
        renamed, so that processes that compile at the same time do no harm.
Damage  What cannot be loaded, or turns out to be another program, is compiled anew.
"""

import atexit
import functools
import hashlib
import importlib
import importlib.resources
import os
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastbp.aside import Aside, Pool
from fastbp.messages import warn

T = TypeVar("T")

#: The programs, and the files of ``fastbp.kernels`` that they are in.
_MODULES = {
    "train_steps": "programs",
    "predict_rows": "programs",
    "predict_single_rows": "rows",
    "multiply_all": "arrays",
    "loss_and_delta": "arrays",
    "update_all": "arrays",
}

_programs: dict[tuple[str, str], Any] = {}

# Held while Numba is imported, while a program is compiled or loaded, and while this
# process is forked: locks of Numba's and of imports, held by a thread that the child does
# not have, would never be released there.
_compiling = threading.RLock()
_waited = threading.local()
# LLVM must not be taken down while it works: the end of the interpreter waits too.
atexit.register(_compiling.acquire)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_parent=_compiling.release,
        after_in_child=_compiling.release,
    )


def is_on() -> bool:
    """Whether machine code is kept on disk: not under ``FASTBP_CACHE=0``."""
    return os.environ.get("FASTBP_CACHE", "1") != "0"


def ready(name: str, dtype: np.dtype, args: tuple) -> Any:
    """A program, compiled for ``args`` or loaded from disk.

    After a colon the name may have a word for arguments of other types.

    Raises
    ------
    RuntimeError
        If Numba's compiler is switched off.
    """
    program = _programs.get((name, dtype.str))
    if program is None:
        started = time.monotonic()
        try:
            program, complaint = unbroken(_load, name, dtype.str, args)
        finally:
            _waited.seconds = _waiting() + time.monotonic() - started
        if complaint:
            warn(complaint)
    return program


def _waiting() -> float:
    """Seconds that this thread has waited for programs."""
    return getattr(_waited, "seconds", 0.0)


def working_seconds() -> float:
    """A clock that stands still while this thread waits for a program."""
    return time.monotonic() - _waiting()


def unbroken(work: Callable[..., T], *args: Any) -> T:
    """work(*args), where Ctrl-C cannot stop it half-way, and no fork either.

    Numba does not survive that its import is interrupted. So the main thread, which is
    the one that Ctrl-C reaches, waits for another to do it. When interrupted it leaves
    at once, while the work goes on.
    """
    aside = Aside(_locked, work, *args)
    if threading.current_thread() is threading.main_thread() and aside.start(_worker()):
        return aside.outcome()
    return _locked(work, *args)


def _locked(work: Callable[..., T], *args: Any) -> T:
    with _compiling:
        return work(*args)


@functools.cache
def _worker() -> Pool:
    return Pool(1, "fastbp-compiler")


if hasattr(os, "register_at_fork"):  # its thread does not survive
    os.register_at_fork(after_in_child=_worker.cache_clear)


def _load(name: str, dtype: str, args: tuple) -> tuple[Any, str]:
    """The program, and what there is to complain of."""
    key, complaint = (name, dtype), ""
    if key not in _programs:  # another thread may have been here in the meantime
        _programs[key], complaint = _compiled(*key, args)
    return _programs[key], complaint


def _compiled(name: str, dtype: str, args: tuple) -> tuple[Any, str]:
    import numba
    from numba.core.errors import NumbaError

    if numba.config.DISABLE_JIT:
        raise RuntimeError(
            "fastbp's programs exist as machine code only, and NUMBA_DISABLE_JIT=1 "
            "switches Numba's compiler off: unset it."
        )
    signature = tuple(numba.typeof(arg) for arg in args)
    complaint = ""
    program = dispatcher(name, dtype, is_on())
    try:
        program.compile(signature)
        _check_identity(program)
    except NumbaError:
        raise
    except Exception as error:  # unpickling a damaged file can raise anything
        if not is_on():
            raise
        complaint = (
            "fastbp's compile cache cannot be used, so a program is compiled anew "
            f"({type(error).__name__}: {error}). It is in "
            f"{program.stats.cache_path}; fastbp.clear_cache() empties it."
        )
        program = _rebuilt(name, dtype, signature)
    program.disable_compile()
    return program, complaint


def _check_identity(program: Any) -> None:
    """Raise ValueError if the file of the program has held another one."""
    own = program.py_func.__qualname__
    for compiled in program.overloads.values():
        if compiled.fndesc.qualname != own:
            raise ValueError(f"the file of {own} holds {compiled.fndesc.qualname}")


def _rebuilt(name: str, dtype: str, signature: tuple) -> Any:
    """The program without what is on disk, which it replaces if that is possible."""
    for kept in (True, False):
        program = dispatcher(name, dtype, kept)
        try:
            if kept:
                program._cache.flush()
            program.compile(signature)
            break
        except OSError:  # a full disk, or a directory that has become read-only
            if not kept:
                raise
    return program


@functools.cache
def stamp() -> str:
    """Digest of everything that the programs' machine code depends on."""
    import llvmlite
    import numba

    from fastbp.kernels import simd

    digest = hashlib.sha256()
    package = importlib.resources.files("fastbp")
    sources = [
        *(package / "kernels").iterdir(),
        package / "tables.py",
        package / "cache.py",
    ]
    for source in sorted(sources, key=lambda source: source.name):
        if source.name.endswith(".py"):
            digest.update(source.read_bytes())
    config = numba.config
    switches = (config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, simd.CHECKED)
    versions = (numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((versions, switches, simd.TARGET)).encode())
    return digest.hexdigest()[:12]


def dispatcher(name: str, dtype: str, kept: bool) -> Any:
    """One program, not compiled, under a name that no other machine code shares."""
    import numba

    name, _, variant = name.partition(":")
    module = importlib.import_module(f"fastbp.kernels.{_MODULES[name]}")
    function = getattr(module, name)
    suffix = f"_{dtype[1:]}{variant}_{stamp()}"
    twin = types.FunctionType(
        function.__code__, function.__globals__, function.__name__ + suffix
    )
    twin.__module__ = function.__module__
    twin.__qualname__ = function.__qualname__ + suffix
    options = {
        "error_model": "numpy",
        "nogil": True,
        # they allocate nothing; reference counts would cost atomic operations
        "_nrt": False,
    }
    try:
        return numba.njit(cache=kept, **options)(twin)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(**options)(twin)


def directory() -> Path | None:
    """Where machine code is kept, or None if nowhere can be written."""
    any_program = unbroken(dispatcher, "predict_single_rows", "<f8", True)
    path = any_program.stats.cache_path
    return None if path is None else Path(path)


def files() -> list[Path]:
    """All files of machine code that are kept, those of other versions included."""
    kept = directory()
    if kept is None:
        return []
    return sorted(path for path in kept.glob("*.nb[ic]*") if path.is_file())


def clear_cache() -> int:
    """Delete the machine code that fastbp has kept on disk, of all its versions.

    The next fit of a new process compiles anew, which takes some seconds. What this
    process has loaded stays loaded.

    Returns
    -------
    int
        How many bytes were freed.
    """
    freed = 0
    for path in files():
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:  # another process does the same
            continue
        freed += size
    return freed
