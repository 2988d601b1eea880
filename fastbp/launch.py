"""The one gate to native code: which program runs, on how many threads, from where.

Importing this module does not import Numba. The first call does, and compiles (or loads
from the compile cache) just the program that it needs, for one dtype.

Threads
    At most ``n_jobs`` (``None`` and -1: no limit of its own), never more than Numba's
    number of threads, joblib's cpu count, and ``OMP_NUM_THREADS``. The number of
    threads never changes a result. Training and prediction bring their own threads
    (``fastbp.threads``). The programs on plain arrays are ``prange`` loops of Numba's;
    a call of one runs serially when it is too small to be worth a parallel region, when
    another thread is inside one, in a process forked from this one (OpenMP's threads do
    not survive a fork, and a process pool already uses the cores), and under Numba's
    ``workqueue`` layer anywhere but in the main thread.
Cache
    Machine code is cached on disk by Numba. Numba notices only edits of the file that
    defines a function, so the names of the programs carry a digest of all kernel
    sources and of everything else that the machine code depends on. A cache that
    cannot be read is rebuilt; one that cannot be written is done without.
"""

import functools
import hashlib
import importlib
import multiprocessing
import os
import threading
import types
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Seconds of serial work that make a parallel region worth while, by threading layer: it
# costs about 1 us under OpenMP and up to 100 us under workqueue (two hand-overs through
# condition variables).
_WORTH_A_REGION = {"omp": 20e-6, "tbb": 20e-6, "workqueue": 1e-3}
#: Multiply-adds a second that one core is assumed to reach at least.
_FLOPS = {4: 50e9, 8: 25e9}

#: The programs, and the files of ``fastbp.kernels`` that they are in.
_MODULES = {
    "train_steps": "programs",
    "predict_rows": "programs",
    "predict_single_rows": "rows",
    "multiply_all": "arrays",
    "loss_and_delta": "arrays",
    "update_all": "arrays",
}

# Held inside a parallel region, and while a program is compiled or loaded.
_lock, _compiling, _forked = threading.Lock(), threading.RLock(), False


#: Dispatchers that are compiled for the one signature that they will ever have.
_closed: set[Any] = set()


def _after_fork() -> None:
    global _lock, _compiling, _forked
    _lock, _compiling, _forked = threading.Lock(), threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class TileShape(NamedTuple):
    """The register tiles and panels of this machine for one dtype."""

    lanes: int  # elements of a register
    rows: int
    panel: int  # columns of a panel
    depth: int  # a product of more terms may be summed in parts


@functools.cache
def tile_shape(dtype: np.dtype) -> TileShape:
    """The shapes that the kernels use for ``dtype``."""
    from fastbp.kernels import gemm, simd

    lanes = simd.lanes(dtype)
    return TileShape(lanes, gemm.TILE_ROWS, gemm.panel_elements(lanes), gemm.DEPTH)


def thread_limit(n_jobs: int | None = None) -> int:
    """How many threads a fit or prediction may use; see the module's *Threads*."""
    import joblib
    import numba
    from numba.np.ufunc import parallel

    limits = [joblib.cpu_count(), numba.config.NUMBA_NUM_THREADS]
    if parallel._is_initialized:  # asking for a mask would launch the threading layer
        limits.append(numba.get_num_threads())
    if n_jobs is not None and n_jobs != -1:
        limits.append(joblib.effective_n_jobs(n_jobs))
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        limits.append(int(os.environ["OMP_NUM_THREADS"]))
    return max(1, min(limits))


def serial_seconds(flops: float, dtype: np.dtype) -> float:
    """Seconds that ``flops`` should take at most on one thread."""
    return flops / _FLOPS[dtype.itemsize]


def ready(name: str, dtype: np.dtype, args: tuple) -> Any:
    """The program, compiled for ``args`` or loaded from the compile cache."""
    return _ready(_program(name, dtype.str, False), args)


def run(name: str, args: tuple, dtype: np.dtype, n_threads: int, flops: float) -> None:
    """Call one of the programs on plain arrays, in parallel if that is worth while.

    ``flops`` is the work of the call's parallel region.
    """
    seconds = serial_seconds(flops, dtype)
    wanted = n_threads > 1 and seconds > min(_WORTH_A_REGION.values())
    # Not waiting: when another thread is in a parallel region, the cores are busy.
    if wanted and _lock.acquire(blocking=False):
        try:
            if _parallel_is_worth(seconds):
                _run_parallel(name, args, dtype, n_threads)
                return
        finally:
            _lock.release()
    ready(name, dtype, (*args, 1))(*args, 1)


def _run_parallel(name: str, args: tuple, dtype: np.dtype, n_threads: int) -> None:
    import numba

    mask = numba.get_num_threads()
    workers = min(n_threads, mask)
    program = _ready(_program(name, dtype.str, True), (*args, workers))
    numba.set_num_threads(workers)
    try:
        program(*args, workers)
    finally:
        numba.set_num_threads(mask)


def _parallel_is_worth(seconds: float) -> bool:
    """Whether a step of ``seconds`` gains from a region of the layer that is in use."""
    if _forked:
        return False
    layer = _threading_layer()
    if layer == "workqueue" and (
        threading.current_thread() is not threading.main_thread()
    ):
        return False
    return seconds > _WORTH_A_REGION[layer]


def _threading_layer() -> str:
    """The threading layer's name. Asking launches it."""
    import numba

    unset = multiprocessing.get_start_method(allow_none=True) is None
    numba.get_num_threads()
    if unset:  # launching asked for the start method, which fixed it: undo that
        multiprocessing.set_start_method(None, force=True)
    return numba.threading_layer()


def only_prange() -> Any:
    """``parallel=`` for Numba: of its rewrites for parallel code, none but prange."""
    from numba.core.cpu_options import ParallelOptions

    # a dict of the same content is emptied by the first compilation that reads it
    others = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy")
    return ParallelOptions(dict.fromkeys((*others, "stencil", "fusion"), False))


@functools.cache
def _stamp() -> str:
    """Digest of everything that the programs' machine code depends on."""
    import llvmlite
    import numba

    from fastbp.kernels import simd

    digest = hashlib.sha256()
    kernels = Path(simd.__file__).parent
    for path in sorted([*kernels.glob("*.py"), kernels.parent / "tables.py"]):
        digest.update(path.read_bytes())
    config = numba.config
    switches = (config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    versions = (numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((versions, switches, simd.TARGET)).encode())
    return digest.hexdigest()[:12]


@functools.cache
def _program(name: str, dtype: str, parallel: bool) -> Any:
    """One program's dispatcher, under a name that no other machine code shares.

    After a colon the name may have a word for arguments of other types.
    """
    import numba

    name, _, variant = name.partition(":")
    module = importlib.import_module(f"fastbp.kernels.{_MODULES[name]}")
    function = getattr(module, name)
    how = "parallel" if parallel else "serial"
    suffix = f"_{how}_{dtype[1:]}{variant}_{_stamp()}"
    twin = types.FunctionType(
        function.__code__, function.__globals__, function.__name__ + suffix
    )
    twin.__module__ = function.__module__
    twin.__qualname__ = function.__qualname__ + suffix
    options = {
        "error_model": "numpy",
        "nogil": True,
        "parallel": only_prange() if parallel else False,
        # the others allocate nothing; reference counts would cost atomic operations
        "_nrt": _MODULES[name] == "arrays",
    }
    try:
        return numba.njit(cache=True, **options)(twin)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(**options)(twin)


def _ready(dispatcher: Any, args: tuple) -> Any:
    """The dispatcher, compiled for ``args`` or loaded from the cache, and closed."""
    import numba

    if dispatcher not in _closed and not numba.config.DISABLE_JIT:
        with _compiling:  # another thread may have been here in the meantime
            if dispatcher not in _closed:
                _compile(dispatcher, tuple(numba.typeof(arg) for arg in args))
                dispatcher.disable_compile()
                _closed.add(dispatcher)
    return dispatcher


def _compile(dispatcher: Any, signature: tuple) -> None:
    from numba.core.errors import NumbaError

    unset = multiprocessing.get_start_method(allow_none=True) is None
    try:
        dispatcher.compile(signature)
    except NumbaError:
        raise
    except Exception as error:  # unpickling a damaged file can raise anything
        warnings.warn(
            f"fastbp rebuilds an unreadable compile cache ({type(error).__name__}).",
            stacklevel=4,
        )
        try:
            dispatcher._cache.flush()
        except OSError:
            dispatcher._cache.disable()
        dispatcher.compile(signature)
    finally:
        if unset:  # compiling a parallel program launches the threading layer
            multiprocessing.set_start_method(None, force=True)
