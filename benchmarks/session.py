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


def run(group: str, n_threads: int, arguments) -> tuple[dict | None, bool]:
    """pytest-benchmark's report of a group, or None, and whether a case failed.

    There is no report if no case was timed: none was asked for, or all were left out.
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
    failed = status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return (json.loads(text) if text else None), failed


def main(path: str, file: str, *arguments: str) -> int:
    """The session itself."""
    threads = machine.threads()
    title = f"{Path(file).stem.removeprefix('bench_')}, {threads} thread"
    bar = Bar(title + "s" * (threads > 1))
    status = pytest.main(
        [
            *(file, f"--benchmark-json={path}"),
            *("-qq", "--no-header", "--no-summary", "--benchmark-quiet"),
            *arguments,
        ],
        plugins=[bar],
    )
    report = Path(path)
    if bar.left_out and report.exists() and (text := report.read_text()):
        report.write_text(json.dumps({**json.loads(text), "left_out": bar.left_out}))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
