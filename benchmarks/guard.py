"""Has a kernel become slower? ``python -m benchmarks.guard``; ``--record`` sets the mark.

Seconds mean nothing on a machine that others use, so what is compared is each kernel's
advantage over NumPy doing the same in the same rounds. A case fails if three times in a
row its upper quartile is below ``MARGIN`` times the recorded advantage, which belongs to
a processor and a number of threads.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import machine, session
from benchmarks.rows import Run, from_pytest

MARGIN = 0.75
_TRIES = 3
EXPECTED = Path(__file__).parent / "expected.json"


def key() -> str:
    """Whose record counts here."""
    return f"{machine.processor()}, {machine.threads()} threads"


def measure(cases=()) -> Run:
    """The quick kernels, or these cases of them."""
    keyword = " or ".join(f"({' and '.join(case.split())})" for case in cases)
    arguments = ["-m", "quick", *(["-k", keyword] if keyword else [])]
    found, failed = session.run("kernels", machine.threads(), arguments)
    if found is None or failed:
        sys.exit("a kernel and NumPy do not agree, or a recorded case is gone")
    return from_pytest([found])


def advantages(run: Run) -> dict[str, float]:
    """How many times sooner than the better NumPy, by case."""
    return {row.case: round(row.ratio().median, 3) for row in run.rows}


def slower(run: Run, expected: dict[str, float]) -> dict[str, str]:
    """What has become slower, and by how much."""
    found = {}
    for row in run.rows:
        now, mark = row.ratio().high, expected.get(row.case)
        if mark is not None and now < MARGIN * mark:
            found[row.case] = f"{now:.2f} times NumPy's rate; it was {mark:.2f}"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--record", action="store_true", help="for this processor")
    options = parser.parse_args()
    recorded = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    if options.record:
        recorded[key()] = advantages(measure())
        EXPECTED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
        print(f"recorded for {key()}")
        return 0
    if key() not in recorded:
        print(f"nothing is recorded for {key()}: run it with --record on the old commit")
        return 2
    run = measure()
    if gone := recorded[key()].keys() - advantages(run).keys():
        print(f"no longer timed, so record anew: {', '.join(sorted(gone))}")
        return 1
    failing = slower(run, recorded[key()])
    for _ in range(_TRIES - 1):
        if failing:
            print(f"once more: {', '.join(failing)}")
            failing = slower(measure(failing), recorded[key()])
    for case, what in failing.items():
        print(f"slower: {case}: {what}")
    print("no kernel is slower" if not failing else f"{len(failing)} kernels are slower")
    return int(bool(failing))


if __name__ == "__main__":
    sys.exit(main())
