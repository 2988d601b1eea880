"""Run the benchmarks: ``python -m benchmarks [GROUP ...] [--all]``.

Every contestant has as many threads as there are processors; with ``--all`` what differs
there runs on one of them as well. Writes ``run.json``, ``report.md`` and plots.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import machine, peers, report, session
from benchmarks.rows import from_pytest

#: Groups that say something else on one thread.
_ON_ONE_THREAD = ("kernels", "fits", "searches")


def _sessions(groups, most: int, complete: bool):
    """(group, number of threads) of each session."""
    yield from ((group, most) for group in groups)
    if complete and most > 1:
        yield from ((group, 1) for group in groups if group in _ON_ONE_THREAD)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    groups = ", ".join(session.GROUPS)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"of {groups}; default: all"
    )
    parser.add_argument("--all", action="store_true", help="not only the quick cases")
    parser.add_argument("--rounds", type=float, default=1.0, help="times as many")
    parser.add_argument("--keyword", help="only cases whose names match, as pytest's -k")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark-results"), help="a folder"
    )
    options = parser.parse_args()
    for group in options.groups:
        if group not in session.GROUPS:
            parser.error(f"unknown group {group!r}: choose from {groups}")
    chosen = options.groups or session.GROUPS
    if not options.all:
        chosen = [group for group in chosen if session.has_quick_cases(group)]
    rounds = options.rounds if options.all else options.rounds / 2
    arguments = [f"--rounds={rounds}", *([] if options.all else ["-m", "quick"])]
    arguments += ["-k", options.keyword] if options.keyword else []
    for name in peers.missing():
        print(f"{name} is not installed: its column will be missing")
    options.output.mkdir(parents=True, exist_ok=True)
    most, reports, failed = machine.threads(), [], False
    for group, n_threads in _sessions(chosen, most, options.all):
        found, broken = session.run(group, n_threads, arguments)
        failed |= broken
        if found is None:
            continue
        reports.append(found)
        run = from_pytest(reports)
        run.machine["missing"] = peers.missing()
        run.save(options.output / "run.json")  # now: the rest may be interrupted
    if not reports:
        parser.error("no case was timed: try --all")
    report.write(run, options.output)
    print(report.summary(run))
    print(f"written to {options.output}: run.json, report.md and plots")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
