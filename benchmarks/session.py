"""A group of the suite, in a process of its own that may use so many processors.

A library that has started its threads cannot be held to fewer, so every number of threads
takes a session.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.progress import Bar

HERE = Path(__file__).parent
GROUPS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def has_quick_cases(group: str) -> bool:
    """Whether a quick run has anything to time in it."""
    return "mark.quick" in (HERE / f"bench_{group}.py").read_text()


def run(group: str, n_threads: int, arguments) -> dict | None:
    """pytest-benchmark's report of a group, and whether a case ``failed``.

    None if the group has no case of those that were asked for.
    """
    file = str(HERE / f"bench_{group}.py")
    processors = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        command = [sys.executable, "-m", "benchmarks.session", str(path)]
        os.sched_setaffinity(0, sorted(processors)[:n_threads])  # children inherit it
        try:
            status = subprocess.run(
                [*command, file, *arguments], cwd=HERE.parent, check=False
            ).returncode
        finally:
            os.sched_setaffinity(0, processors)
        text = path.read_text() if path.exists() else ""
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        return None
    if not text:
        sys.exit(f"{group} on {n_threads} threads ended with status {status}")
    return {**json.loads(text), "failed": status != 0}


def main(path: str, file: str, *arguments: str) -> int:
    """The session itself."""
    threads = machine.threads()
    title = f"{Path(file).stem.removeprefix('bench_')}, {threads} thread"
    return pytest.main(
        [
            *(file, f"--benchmark-json={path}"),
            *("-qq", "--no-header", "--no-summary", "--benchmark-quiet"),
            *arguments,
        ],
        plugins=[Bar(title + "s" * (threads > 1))],
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
