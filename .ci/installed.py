"""Lists the installed distributions with their sizes; fails if one is not expected."""

import sys
from importlib.metadata import distributions

EXPECTED = {
    "fastbp",
    *("numba", "llvmlite", "numpy", "scipy", "scikit-learn"),
    *("joblib", "threadpoolctl", "narwhals", "cloudpickle"),  # scikit-learn's
    *("pip", "setuptools"),
}

sizes = {}
for found in distributions():
    files = [found.locate_file(file) for file in found.files or ()]
    name = found.metadata["Name"].lower()
    sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
    print(f"{name:15} {size / 1e6:7.1f} MB")
print(f"{'together':15} {sum(sizes.values()) / 1e6:7.1f} MB")
if unexpected := set(sizes) - EXPECTED:
    sys.exit(f"not expected: {', '.join(sorted(unexpected))}")
