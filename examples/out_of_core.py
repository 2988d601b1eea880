"""
Training from a file larger than memory
=======================================

``partial_fit`` takes a piece of the data at a time. The rows lie in a memory-mapped file,
and this process gives itself less memory than the file is large: loading it is refused by
the system, training goes through.
"""

import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastbp import MLPClassifier

MEGABYTE = 2**20
short = "--short" in sys.argv
file_size, limit = (48, 24) if short else (512, 128)  # megabytes
FEATURES, PIECE = 64, 8192
rows = file_size * MEGABYTE // (4 * FEATURES)

# %%
# A file of float32 rows, written in pieces; the label is whether a hidden network of
# random weights says so.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name, "rows.dat")
rng = np.random.default_rng(0)
teacher = rng.standard_normal((FEATURES, 16)), rng.standard_normal(16)
y = np.empty(rows, np.int8)
writer = np.memmap(path, np.float32, "w+", shape=(rows, FEATURES))
for start in range(0, rows, PIECE):
    piece = rng.standard_normal((min(PIECE, rows - start), FEATURES), np.float32)
    writer[start : start + PIECE] = piece
    y[start : start + PIECE] = np.tanh(piece @ teacher[0]) @ teacher[1] > 0
writer.flush()
del writer
print(f"the file: {rows:,} rows, {path.stat().st_size / MEGABYTE:.0f} MB")

# %%
# One small fit first, so that what is loaded and compiled once is not counted. From then
# on the process may have so many megabytes more than it has now.

X = np.memmap(path, np.float32, "r", shape=(rows, FEATURES))
model = MLPClassifier((64,), batch_size=256, random_state=0)
model.partial_fit(X[:PIECE], y[:PIECE], classes=[0, 1]).predict(X[:PIECE])


def memory():
    """Bytes of this process's own data: not files that are mapped for reading."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) * 1024


started_with = memory()
unlimited = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (started_with + limit * MEGABYTE, unlimited[1]))
try:
    np.array(X)
except MemoryError:
    print(f"loading it: refused, as only {limit} MB more are allowed")
else:
    raise AssertionError("the limit does not hold")

# %%
# Piece after piece, the last tenth apart.

held_out = rows - rows // 10
for epoch in range(1, 3):
    for start in range(0, held_out, PIECE):
        end = min(start + PIECE, held_out)
        model.partial_fit(X[start:end], y[start:end])
    right = [
        model.predict(X[start : start + PIECE]) == y[start : start + PIECE]
        for start in range(held_out, rows, PIECE)
    ]
    print(f"epoch {epoch}: accuracy on other rows {np.concatenate(right).mean():.3f}")
used = (memory() - started_with) / MEGABYTE
print(f"memory that training took: {used:.0f} MB of {limit} MB")
resource.setrlimit(resource.RLIMIT_DATA, unlimited)
folder.cleanup()
