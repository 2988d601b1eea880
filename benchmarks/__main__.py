"""Run the benchmarks: ``python -m benchmarks [GROUP ...] [--all]``.

Every contestant has as many threads as there are processors; with ``--all`` what differs
there runs on one of them as well. Writes ``run.json``, ``report.md`` and plots.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import machine, peers, report, session
from benchmarks.rows import Run, from_pytest

#: Groups that say something else on one thread.
_ON_ONE_THREAD = ("kernels", "fits", "searches")
_NAMES = ", ".join(session.GROUPS)


def _sessions(groups, most: int, complete: bool) -> list[tuple[str, int]]:
    """(group, number of threads) of each session."""
    found = [(group, most) for group in groups]
    if complete and most > 1:
        found += [(group, 1) for group in groups if group in _ON_ONE_THREAD]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"of {_NAMES}; default: all"
    )
    parser.add_argument("--all", action="store_true", help="not only the quick cases")
    parser.add_argument(
        "--threads", type=int, help="only the sessions on so many; default: all"
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep what the run in the folder has that is not timed now; that must be of "
        "the same sources, versions and machine",
    )
    parser.add_argument("--rounds", type=float, default=1.0, help="times as many")
    parser.add_argument("--keyword", help="only cases whose names match, as pytest's -k")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark-results"), help="a folder"
    )
    return parser


def _earlier(path: Path) -> Run:
    """The run to add to; a ValueError if there is none, or none that fits."""
    if not path.exists():
        raise ValueError(f"there is no {path} to add to: leave --add out")
    run = Run.load(path)
    if not run.belongs_to(machine.identity()):
        raise ValueError(
            f"{path} is of other sources, versions or another machine: leave --add out"
        )
    return run


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    for group in options.groups:
        if group not in session.GROUPS:
            parser.error(f"unknown group {group!r}: choose from {_NAMES}")
    chosen = options.groups or session.GROUPS
    if not options.all:
        chosen = [group for group in chosen if session.has_quick_cases(group)]
    sessions = [
        (group, n_threads)
        for group, n_threads in _sessions(chosen, machine.threads(), options.all)
        if options.threads in (None, n_threads)
    ]
    rounds = options.rounds if options.all else options.rounds / 2
    arguments = [f"--rounds={rounds}", *([] if options.all else ["-m", "quick"])]
    arguments += ["-k", options.keyword] if options.keyword else []
    path, earlier = options.output / "run.json", None
    if options.add:
        try:
            earlier = _earlier(path)
        except ValueError as error:
            parser.error(str(error))
    for name in peers.missing():
        print(f"{name} is not installed: its column will be missing")
    options.output.mkdir(parents=True, exist_ok=True)
    reports, failed = [], False
    for group, n_threads in sessions:
        found, broken = session.run(group, n_threads, arguments)
        failed |= broken
        if found is None:
            continue
        reports.append(found)
        run = from_pytest(reports)
        run.machine["missing"] = peers.missing()
        if earlier is not None:
            run = run.with_rows_of(earlier)
        run.save(path)  # now: the rest may be interrupted
    if not reports:
        parser.error("no case was timed: try --all")
    report.write(run, options.output)
    print(report.summary(run))
    print(f"written to {options.output}: run.json, report.md and plots")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
