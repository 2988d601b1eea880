"""One row of a run: what each contestant needed, and what can be concluded from it.

A contestant has one sample for each round; the samples of a round were taken one after
another, so a ratio is the median over the rounds of the ratios within a round, which a
machine that slows down for a while disturbs little.
"""

import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

OURS = "fastbp"
#: The median's 95 % interval lies within this factor, or it is too noisy to believe.
STEADY = 1.25


class Spread(NamedTuple):
    """The median and the quartiles of some numbers."""

    low: float
    median: float
    high: float
    count: int

    @property
    def noisy(self) -> bool:
        """Whether little is known of the median.

        Its 95 % interval is 1.57 (high - low) / sqrt(count) to each side (McGill, Tukey
        and Larsen, 1978); here of logarithms, as the numbers are ratios.
        """
        if not 0 < self.low <= self.high < math.inf:
            return True
        width = 2 * 1.57 / math.sqrt(self.count) * math.log(self.high / self.low)
        return width > math.log(STEADY)


def spread_of(numbers) -> Spread:
    numbers = list(numbers)
    if len(numbers) == 1:
        return Spread(*numbers * 3, 1)
    quartiles = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(*quartiles, len(numbers))


def family(name: str) -> str:
    """The peer that a contestant is: scikit-learn's are one, whatever BLAS's threads."""
    return "scikit-learn" if name.startswith("scikit-learn") else name


class Row(NamedTuple):
    """What was measured of one case."""

    group: str
    case: str
    dtype: str
    threads: int
    unit: str  # of the samples: less is better
    samples: dict[str, list[float]]  # by contestant, a number for each round
    facts: dict  # flops, bytes, limits and whatever else belongs to the case

    @property
    def key(self) -> tuple:
        """What it is of: a later row of the same takes its place."""
        return self.group, self.case, self.dtype, self.threads

    @property
    def peers(self) -> list[str]:
        return [name for name in self.samples if name != OURS]

    def spread(self, name: str = OURS) -> Spread:
        return spread_of(self.samples[name])

    def ratios(self, name: str) -> list[float]:
        """Of each round: the peer's sample over fastbp's."""
        pairs = zip(self.samples[name], self.samples[OURS], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    def best(self, peer: str | None = None) -> str | None:
        """The fastest of this peer's contestants, or of all but fastbp."""
        names = [name for name in self.peers if peer in (None, family(name))]
        return min(names, key=lambda name: self.spread(name).median, default=None)

    def ratio(self, peer: str | None = None) -> Spread | None:
        """How many times sooner fastbp is than this peer, or than the best of them."""
        name = self.best(peer)
        return None if name is None else spread_of(self.ratios(name))

    @property
    def noisy(self) -> bool:
        """Whether some ratio of the row is."""
        return any(self.ratio(family(name)).noisy for name in self.peers)

    @property
    def share(self) -> float | None:
        """Of the limit that was measured in the same rounds; None without one."""
        if "limit" not in self.facts:
            return None
        work = self.facts["flops" if self.facts["limited_by"] == "fma" else "bytes"]
        return work / self.spread().median / 1e9 / self.facts["limit"]


class Run(NamedTuple):
    """A run of the suite, as its file holds it."""

    machine: dict
    rows: list[Row]

    def of(self, *groups: str) -> list[Row]:
        return [row for row in self.rows if row.group in groups]

    def belongs_to(self, identity: dict) -> bool:
        """Whether it was made on this machine, of these sources and versions."""
        return all(self.machine.get(name) == known for name, known in identity.items())

    def with_rows_of(self, earlier: "Run") -> "Run":
        """This run, and the rows that only an earlier one has."""
        timed = {row.key for row in self.rows}
        kept = [row for row in earlier.rows if row.key not in timed]
        both = {**earlier.machine["by threads"], **self.machine["by threads"]}
        left_out = [*earlier.machine["left out"], *self.machine["left out"]]
        left_out = list(dict.fromkeys(left_out))
        machine = {**self.machine, "by threads": both, "left out": left_out}
        return Run(machine, [*kept, *self.rows])

    def save(self, path: Path) -> None:
        rows = [json.dumps(row._asdict()) for row in self.rows]
        text = f'{{"machine": {json.dumps(self.machine, indent=1)},\n"rows": [\n'
        path.write_text(text + ",\n".join(rows) + "\n]}\n")

    @classmethod
    def load(cls, path: Path) -> "Run":
        found = json.loads(path.read_text())
        return cls(found["machine"], [Row(**row) for row in found["rows"]])


def from_pytest(reports: list[dict]) -> Run:
    """The run that pytest-benchmark's reports tell of, one for each session.

    Its own file has the host's name and paths; this one does not.
    """
    last = reports[-1]
    machine = dict(last["machine_info"]["benchmarks"])
    machine["date"] = last["datetime"][:10]
    commit = reports[0]["commit_info"]  # before results were written beside the sources
    machine["commit"] = commit.get("id", "unknown")[:10]
    machine["dirty"] = bool(commit.get("dirty"))
    machine["by threads"] = {
        str(found["threads"]): {
            name: found[name] for name in ("gflops", "gigabytes_per_second", "load")
        }
        for found in (report["machine_info"]["benchmarks"] for report in reports)
    }
    left_out = (report.get("left_out", ()) for report in reports)
    machine["left out"] = [case for cases in left_out for case in cases]
    for name in ("gflops", "gigabytes_per_second", "load", "threads"):
        del machine[name]
    rows = [
        Row(**benchmark["extra_info"]["row"])
        for report in reports
        for benchmark in report["benchmarks"]
        if "row" in benchmark["extra_info"]  # which a case that failed has not
    ]
    return Run(machine, rows)
