"""A run as Markdown, and README's section about speed.

``python -m benchmarks.report`` writes that section anew from the committed run.
"""

import re
from collections import Counter
from pathlib import Path

from benchmarks import plots
from benchmarks.rows import OURS, STEADY, Row, Run, Spread, family, spread_of

ROOT = Path(__file__).parents[1]
#: The run that README's figures come from.
COMMITTED = Path(__file__).parent / "results"
_START, _END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"

_TITLES = {
    "kernels": "Kernels against NumPy",
    "fits": "Fits against peers",
    "scores": "Seconds to a validation score",
    "searches": "Searches",
    "ways": "Other ways to train",
    "latency": "Predictions",
    "start": "The first seconds of a process",
    "scaling": "Seconds of an epoch",
    "memory": "Memory",
}
#: Columns of a ratio, and the peers' names.
_FIT_PEERS = {
    "scikit-learn": "scikit-learn",
    "NumPy": "NumPy",
    "PyTorch": "PyTorch",
    "torch.compile": "PyTorch, compiled",
    "JAX": "JAX",
    "skorch": "skorch",
}

_RATIOS = (
    "A ratio above 1 means that fastbp is sooner. Contestants take turns in every round; "
    "a ratio is the median of the rounds' ratios. Each has as many threads as the row "
    "says; in fits, scores and searches scikit-learn has the better of that and one BLAS "
    "thread, but where joblib's processes share them out. *Of peak*: useful flops a "
    "second over those of a loop that only multiplies and adds registers, timed in the "
    "same rounds. *Swing*: the upper over the lower quartile of fastbp's seconds. Memory "
    "is measured once, of a process of its own."
)

_APART = (
    "These were timed one after the other, not in turns: on a shared machine the gain "
    "is less certain than the ratios above."
)

# ---------------------------------------------------------------- cells


def amount(number: float, unit: str) -> str:
    """Three digits and a readable unit."""
    if unit != "s":
        return f"{number:.3g} {unit}"
    scales = {1: "s", 1e-3: "ms", 1e-6: "µs"}
    scale = next((scale for scale in scales if number >= 0.9995 * scale), 1e-6)
    return f"{number / scale:.3g} {scales[scale]}"


def times(ratio: Spread | None) -> str:
    """How many times sooner; "~" before what is too noisy to believe."""
    if ratio is None:
        return "-"
    size = ratio.median
    digits = f"{size:.1f}" if 0.095 <= size < 99.95 else f"{size:.2g}"
    digits = f"{size:.0f}" if size >= 99.95 else digits
    return f"~{digits}" if ratio.noisy else digits


def share(row: Row) -> str:
    return "-" if row.share is None else f"{row.share:.0%}"


def swing(row: Row) -> str:
    """The upper over the lower quartile of fastbp's samples."""
    spread = row.spread()
    return f"{spread.high / spread.low:.2f}"


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A Markdown table; numbers, which are all columns but the first words, go right."""
    words = sum(head in ("case", "network", "dtype", "size") for head in heads)
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *lines]) + "\n"


# ---------------------------------------------------------------- groups


def fits(rows: list[Row], peers=tuple(_FIT_PEERS)) -> str:
    lines = []
    for row in rows:
        units = "-".join(map(str, row.facts["units"]))
        shape = (
            f"{row.facts['rows']} rows, {units}, batch {row.facts['batch']}, "
            f"{row.facts['epochs']} epochs"
        )
        ratios = [times(row.ratio(_FIT_PEERS[peer])) for peer in peers]
        ours = amount(row.spread().median, row.unit)
        lines.append(
            [
                *(row.case, shape, row.dtype, str(row.threads), ours),
                *(*ratios, share(row), swing(row)),
            ]
        )
    heads = ["case", "network", "dtype", "threads", OURS]
    return table([*heads, *(f"vs {peer}" for peer in peers), "of peak", "swing"], lines)


def kernels(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        shape = " x ".join(str(n).replace(" ", "") for n in row.facts["shape"])
        ratios = [
            times(row.ratio(family(name))) for name in ("NumPy", "NumPy, preallocated")
        ]
        limit = "registers" if row.facts["limited_by"] == "fma" else "memory"
        lines.append(
            [
                *(row.facts["kernel"], shape, row.dtype, str(row.threads)),
                *(amount(row.spread().median, "s"), *ratios, f"{share(row)} {limit}"),
                swing(row),
            ]
        )
    heads = ["case", "size", "dtype", "threads", OURS]
    return table(
        [*heads, "vs NumPy", "vs NumPy, preallocated", "of the limit of", "swing"], lines
    )


def beside_sklearn(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        theirs = row.best("scikit-learn")
        lines.append(
            [
                *(row.case, row.dtype, str(row.threads)),
                amount(row.spread(theirs).median, row.unit) if theirs else "-",
                amount(row.spread().median, row.unit),
                times(row.ratio("scikit-learn")),
            ]
        )
    return table(["case", "dtype", "threads", "scikit-learn", OURS, "ratio"], lines)


def all_seconds(rows: list[Row]) -> str:
    """Seconds of every contestant, and fastbp's advantage over the best of the others."""
    names = list(dict.fromkeys(name for row in rows for name in row.samples))

    def cell(row, name):
        return amount(row.spread(name).median, "s") if name in row.samples else "-"

    lines = [
        [
            *(row.case, row.dtype, str(row.threads)),
            *(cell(row, name) for name in names),
            times(row.ratio()),
        ]
        for row in rows
    ]
    return table(["case", "dtype", "threads", *names, "vs the best"], lines)


def threads(run: Run) -> str:
    """What more threads gain: fastbp's seconds of a fit on one and on all of them.

    They were not timed side by side, but in sessions one after the other.
    """
    seconds: dict = {}
    for row in run.of("fits"):
        seconds.setdefault((row.case, row.dtype), {})[row.threads] = row.spread().median
    lines = [
        [case, dtype, amount(found[1], "s"), amount(found[most], "s")]
        + [f"{found[1] / found[most]:.2f}"]
        for (case, dtype), found in seconds.items()
        if 1 in found and (most := max(found)) > 1
    ]
    return table(["case", "dtype", "1 thread", "all threads", "gain"], lines)


def scores(rows: list[Row]) -> str:
    text = []
    for row in rows:
        reached, target = row.facts["reached"], row.facts["target"]
        lines = [
            [name, str(reached[name]), amount(row.spread(name).median, "s")]
            + ["" if name == OURS else times(spread_of(row.ratios(name)))]
            for name in row.samples
        ]
        heads = ["case", "epochs", f"to {target:.0%} of {row.case}", "vs fastbp"]
        text.append(table(heads, lines))
    return "\n".join(text)


_TABLES = {"kernels": kernels, "fits": fits, "scores": scores, "scaling": all_seconds}


# ---------------------------------------------------------------- the whole


def machine(run: Run) -> str:
    """Where, when and with what a run was made."""
    m = run.machine
    limits = "; ".join(
        f"{n} thread{'s' * (n != '1')}: {found['gflops']['float32']:.0f} and "
        f"{found['gflops']['float64']:.0f} GFLOP/s in float32 and float64, "
        f"{found['gigabytes_per_second']['memory']:.0f} GB/s from memory"
        for n, found in m["by threads"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    missing = "".join(f" {name} was not installed." for name in m.get("missing", ()))
    if m.get("left out"):
        missing += f" Left out: {_left_out(m['left out'])}."
    return (
        f"{m['processor']}, {m['date']}, commit {m['commit']}"
        f"{' with changes' if m['dirty'] else ''}. {versions}.{missing} "
        f"Measured limits: {limits}."
    )


def _left_out(cases: list[str]) -> str:
    """Cases by benchmark and reason: they are named "benchmark[case] (reason)"."""
    counts = Counter(
        (case.partition("[")[0], case.rpartition(" (")[2].rstrip(")")) for case in cases
    )
    return ", ".join(
        f"{n} case{'s' * (n > 1)} of {name} ({reason})"
        for (name, reason), n in counts.items()
    )


def noise(run: Run) -> str:
    """How far the run can be believed."""
    rated = [row for row in run.rows if row.peers and len(row.samples[OURS]) > 1]
    noisy = [row for row in rated if row.noisy]
    share = len(noisy) / max(1, len(rated))
    verdict = "**Too noisy to believe as a whole**: " if share > 1 / 3 else ""
    return (
        f"{verdict}{len(noisy)} of {len(rated)} rows are too noisy; their ratios have a "
        f"~ (the 95 % interval of the median spans more than a factor {STEADY})."
    )


def _ahead(row: Row) -> list[str]:
    """The peers that are faster by more than 5 %, as "2.0 times as long as NumPy"."""
    ratios = {name: row.ratio(name) for name in map(family, row.peers)}
    return [
        f"{'~' if ratio.noisy else ''}{1 / ratio.median:.1f} times as long as {name}"
        for name, ratio in ratios.items()
        if ratio.median < 0.95
    ]


def losing(run: Run) -> str:
    """Where peers are faster, which they are, and how many times as long fastbp takes."""
    groups = ("fits", "scaling", "scores", "searches", "latency", "start", "ways")
    cases = []
    for row in run.of(*groups, "memory"):
        if slower := _ahead(row):
            threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
            epoch = "an epoch, " * (row.group == "scaling")
            case = f"{epoch}{row.case}, {row.dtype}, {threads}"
            cases.append(f"{case} ({', '.join(slower)})")
    text = "; ".join(cases) if cases else "no case"
    sentence = f"fastbp loses to a peer by more than 5 % in: {text}."
    if kernels := run.of("kernels"):
        n = sum(bool(_ahead(row)) for row in kernels)
        sentence += f" Called from Python, kernels on arrays lose to NumPy in {n} of "
        sentence += f"{len(kernels)} rows of the whole report."
    return sentence


def summary(run: Run) -> str:
    """What the terminal shows: the fits and the noise."""
    parts = [fits(run.of("fits"))] if run.of("fits") else []
    return "\n".join([*parts, noise(run)])


def markdown(run: Run, pictures: dict[str, Path]) -> str:
    parts = ["# Benchmarks", machine(run), noise(run), losing(run), _RATIOS]
    for group, title in _TITLES.items():
        if rows := run.of(group):
            parts += [f"## {title}", _TABLES.get(group, beside_sklearn)(rows)]
            parts += [f"![{title}]({path.name})" for path in pictures.get(group, [])]
    if len(run.machine["by threads"]) > 1:
        parts += ["## What more threads gain", _APART, threads(run)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def write(run: Run, folder: Path) -> None:
    """``report.md`` and the plots."""
    pictures = plots.draw(run, folder)
    (folder / "report.md").write_text(markdown(run, pictures))


def readme_section(run: Run) -> str:
    """The part of README between the markers."""
    most = max(row.threads for row in run.rows)
    rows = [row for row in run.of("fits") if row.threads == most]
    uses = [
        row
        for row in run.of("searches", "latency", "start", "ways", "memory")
        if row.threads == most
    ]
    parts = [
        machine(run),
        noise(run),
        fits(rows),
        losing(run),
        beside_sklearn(uses),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts)


def with_section(readme: str, section: str) -> str:
    """README's text with this section between the markers."""
    pattern = re.compile(f"{_START}.*{_END}", re.DOTALL)
    assert len(pattern.findall(readme)) == 1, "README has no place for the section"
    return pattern.sub(lambda _: f"{_START}\n{section}\n{_END}", readme)


def main() -> None:
    run = Run.load(COMMITTED / "run.json")
    write(run, COMMITTED)
    readme = ROOT / "README.md"
    readme.write_text(with_section(readme.read_text(), readme_section(run)))


if __name__ == "__main__":
    main()
