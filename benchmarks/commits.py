"""Compare two commits: ``python -m benchmarks.commits OLD [NEW]``.

Both train the same networks, each in a process of its own, in turns (A B A B ...), so
that a machine whose speed varies disturbs both alike. A ratio above 1 means that the new
one, by default the work tree, is faster.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import spread_of

ROOT = Path(__file__).parents[1]
#: rows, features, hidden layers, batch, classes, epochs; some smaller than the suite's
CASES = {
    "digits": (1_797, 64, (100,), 200, 10, 40),
    "small steps": (10_000, 20, (32,), 32, 2, 5),
    "three hidden layers": (20_000, 30, (128, 128, 128), 256, 2, 2),
    "image sized": (8_000, 784, (256, 128), 200, 10, 2),
    "wide": (4_096, 512, (1024, 1024), 1024, 10, 1),
}
_WORKER = """
import json, sys, time, warnings
import numpy as np
import fastbp
warnings.simplefilter("ignore")
rows, features, hidden, batch, classes, epochs, dtype, threads = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
X = rng.standard_normal((rows, features)).astype(dtype)
y = rng.integers(0, classes, rows)
model = fastbp.MLPClassifier(
    tuple(hidden), batch_size=batch, max_iter=epochs, n_iter_no_change=epochs,
    random_state=0, n_jobs=threads,
)
model.fit(X, y)
print(fastbp.__file__, flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    model.fit(X, y)
    print(time.perf_counter() - started, flush=True)
"""


@contextlib.contextmanager
def tree(commit):
    """A folder with the sources of the commit, or of the work tree for None."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", folder, commit], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


@contextlib.contextmanager
def worker(root, case, dtype, threads):
    """A function that times one fit by the sources in ``root``."""
    command = [sys.executable, "-c", _WORKER, json.dumps([*case, dtype, threads])]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        *(command,),
        env=environment,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        file = process.stdout.readline().strip()
        if not file or Path(file).parent.parent.resolve() != Path(root).resolve():
            sys.exit(f"the sources of {root} did not train: {file or 'they failed'}")

        def seconds():
            time.sleep(0.05)
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield seconds
        process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", help="default: the work tree as it is")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--dtypes", nargs="*", default=["float32", "float64"])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, -1])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print("| case | dtype | threads | old | new | ratio | quartiles |")
    print("|---|---|---:|---:|---:|---:|---:|")
    with tree(options.old) as old, tree(options.new) as new:
        for name in options.cases:
            for dtype in options.dtypes:
                for threads in options.threads:
                    case = CASES[name], dtype, threads
                    with worker(old, *case) as before, worker(new, *case) as after:
                        pairs = [(before(), after()) for _ in range(options.rounds)]
                    a, b = (spread_of(c).median for c in zip(*pairs, strict=True))
                    ratio = spread_of(a / b for a, b in pairs)
                    print(
                        f"| {name} | {dtype} | {'all' if threads == -1 else threads} "
                        f"| {a:.4f} s | {b:.4f} s | {ratio.median:.2f} "
                        f"| {ratio.low:.2f} to {ratio.high:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
