"""What a run was measured on: processor, threads, versions, load, and its limits."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import numpy as np

from benchmarks import peak
from fastbp import launch

#: Distributions whose versions matter to some row.
_DISTRIBUTIONS = (
    "fastbp",
    *("numba", "numpy", "scipy", "scikit-learn", "joblib"),
    *("torch", "jax", "skorch", "mlxtend", "pytest-benchmark"),
)
#: Bytes of each thread's arrays when bandwidth is measured: they fit into the
#: second-level cache, or into none.
FOOTPRINTS = {"cache": 2**17, "memory": 2**27}


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def threads() -> int:
    """Threads that fastbp would use, which every contestant gets.

    Processors, quota of the container and the environment decide (``fastbp.launch``).
    """
    return launch.thread_limit()


def versions() -> dict[str, str]:
    """Versions of what is installed of the packages that matter."""
    found = {"Python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sources() -> str:
    """A digest of what is timed and of what times it."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for folder in ("fastbp", "benchmarks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def identity() -> dict:
    """What two runs must have in common to be parts of one."""
    return {"processor": processor(), "versions": versions(), "sources": sources()}


def describe() -> dict:
    """All of it, as it is written to a run's file; takes about a second."""
    n_threads = threads()
    return {
        **identity(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": n_threads,
        "load": round(os.getloadavg()[0], 2),
        "gflops": {
            dtype: round(peak.gflops(np.dtype(dtype), n_threads, 0.2), 1)
            for dtype in ("float32", "float64")
        },
        "gigabytes_per_second": {
            place: round(peak.bandwidth(nbytes * n_threads, n_threads, 0.3), 1)
            for place, nbytes in FOOTPRINTS.items()
        },
    }
