"""How contestants are timed: side by side, in rounds, and never before they agree."""

import math
import time

import pytest

from benchmarks import machine
from benchmarks.calm import Calm
from benchmarks.rows import OURS, Row

#: A timing takes at least so long, of as many calls as that takes: neither the clock's
#: own steps matter then, nor that sleeping threads take milliseconds to wake.
_LEAST = 20e-3
#: Seconds of a case's rounds: short ones have more of them, up to a limit.
_SECONDS, _MOST = 40.0, 25
#: A first call that takes longer, compilation included, is not of the kind that would
#: have to be timed in bundles.
_LONG = 20.0


def pytest_addoption(parser):
    parser.addoption(
        "--rounds", type=float, default=1.0, help="times as many rounds as usual"
    )


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["benchmarks"] = machine.describe()


def _timing(function, calls):
    """A function that calls the function so many times."""

    def repeat():
        for _ in range(calls):
            result = function()
        return result

    return repeat


def _warm_seconds(function, bundled):
    """Seconds of a call; the first one may compile, and has to do if calls are long."""
    seconds = _seconds(function)
    return _seconds(function) if bundled and seconds < _LONG else seconds


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started + 1e-9


def _rounded(number):
    return float(f"{number:.4g}")


def _rounds(request, least, seconds=math.inf):
    """How many rounds of so many seconds to take, ``least`` of them if time is short."""
    rounds = max(least, min(_MOST, _SECONDS / seconds))
    return max(3, round(rounds * request.config.getoption("rounds")))


@pytest.fixture(scope="session")
def calm():
    return Calm(machine.threads())


@pytest.fixture
def race(benchmark, request, calm):
    """Time the contestants in rounds (A B C A B C ...) and keep the row.

    A row's samples are seconds of one call. pytest-benchmark times fastbp; before each of
    its timings the peers have theirs, and the limit is measured, so that all of a round
    see the machine in the same state. Each waits until the machine is calm. Calls that
    are ``bundled`` are as many in a timing as take ``_LEAST`` seconds. There are
    ``rounds`` or more, as many as time allows.
    ``check(name, result)`` is called after a timing with what the last call returned.
    """

    def run(
        group,
        case,
        dtype,
        contestants,
        rounds,
        pause=0.0,
        check=None,
        limit=None,
        facts=None,
        bundled=True,
    ):
        samples = {name: [] for name in contestants}
        limits, last = [], {}
        warm = {n: _warm_seconds(f, bundled) for n, f in contestants.items()}
        calls = {n: math.ceil(_LEAST / warm[n]) if bundled else 1 for n in warm}
        one_round = sum(calls[n] * warm[n] + pause for n in warm)
        rounds = _rounds(request, rounds, one_round)
        timings = {n: _timing(f, calls[n]) for n, f in contestants.items()}

        def checked(name):
            if check is not None:
                check(name, last[name])

        def others():
            if OURS in last:
                checked(OURS)
            for name, timing in timings.items():
                if name == OURS:
                    continue
                time.sleep(pause)
                calm.wait()
                started = time.perf_counter()
                last[name] = timing()
                seconds = time.perf_counter() - started
                samples[name].append(_rounded(seconds / calls[name]))
                checked(name)
            time.sleep(pause)
            calm.wait()
            if limit is not None:
                limits.append(limit())

        def ours():
            last[OURS] = timings[OURS]()

        benchmark.pedantic(ours, setup=others, rounds=rounds, iterations=1)
        checked(OURS)
        if benchmark.disabled:
            return None
        data = benchmark.stats.stats.data
        samples[OURS] = [_rounded(seconds / calls[OURS]) for seconds in data]
        facts = dict(facts or {})
        if limits:
            facts["limit"] = _rounded(sorted(limits)[len(limits) // 2])
        return keep(
            benchmark, Row(group, case, dtype, machine.threads(), "s", samples, facts)
        )

    return run


def keep(benchmark, row):
    """Attach the row to what pytest-benchmark writes."""
    benchmark.group = row.group
    benchmark.extra_info["row"] = row._asdict()
    return row


@pytest.fixture
def measured(benchmark, request, calm):
    """Keep numbers that the contestants measure by themselves, in rounds too.

    A contestant is a function that returns its number.
    """

    def run(group, case, dtype, contestants, rounds, unit, facts=None):
        samples = {name: [] for name in contestants}
        if rounds > 1:
            rounds = _rounds(request, rounds)

        def measure_once():
            for name, measure in contestants.items():
                calm.wait()
                samples[name].append(_rounded(measure()))

        benchmark.pedantic(measure_once, rounds=rounds, iterations=1)
        if benchmark.disabled:
            return None
        row = Row(group, case, dtype, machine.threads(), unit, samples, dict(facts or {}))
        return keep(benchmark, row)

    return run
