"""Pictures of a run. Colours are those of Okabe and Ito, which all can tell apart."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.rows import OURS, Row, Run, family

_COLOURS = {
    OURS: "#000000",
    "scikit-learn": "#0072B2",
    "NumPy": "#56B4E9",
    "PyTorch": "#D55E00",
    "PyTorch, compiled": "#E69F00",
    "JAX": "#009E73",
    "skorch": "#CC79A7",
}
_MARKERS = dict(zip(_COLOURS, "osDv^Px", strict=True))
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def _plain(value: float, _) -> str:
    return f"{value:g}"


def _most_threads(rows: list[Row]) -> list[Row]:
    most = max((row.threads for row in rows), default=0)
    return [row for row in rows if row.threads == most]


def speedups(run: Run) -> Figure | None:
    """Bars of each peer's seconds over fastbp's, in float32 on all threads."""
    return _bars(_fits(run), tuple(_COLOURS))


def headline(run: Run) -> Figure | None:
    """The same of the best known peers, where all peers took part."""
    rows = _fits(run)
    most = max((len(row.samples) for row in rows), default=0)
    rows = [row for row in rows if len(row.samples) == most]
    return _bars(rows, ("scikit-learn", "PyTorch", "JAX"))


def _fits(run: Run) -> list[Row]:
    return [row for row in _most_threads(run.of("fits")) if row.dtype == "float32"]


def _bars(rows: list[Row], names: tuple[str, ...]) -> Figure | None:
    bars = [
        (row, name, ratio)
        for row in rows
        for name in names
        if (ratio := row.ratio(name)) is not None
    ]
    if not bars:
        return None
    figure = Figure(figsize=(8, 1.2 + 0.135 * (len(bars) + len(rows))))
    axes = figure.add_subplot()
    y, places, named = 0, {}, set()
    for row, name, ratio in bars:
        y += 1 + (row.case not in places)  # a gap between two cases
        places.setdefault(row.case, []).append(y)
        axes.barh(
            y,
            ratio.median - 1,
            left=1,
            height=0.9,
            color=_COLOURS[name],
            label=None if name in named else name,
            xerr=[[ratio.median - ratio.low], [ratio.high - ratio.median]],
            error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
        )
        named.add(name)
        axes.annotate(
            f"{ratio.median:.1f}" if ratio.median < 99.5 else f"{ratio.median:.0f}",
            (max(ratio.high, 1), y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.axvline(1, color="black", linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([np.mean(ys) for ys in places.values()], list(places))
    axes.set_ylim(y + 1, 0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(min(0.5, *(ratio.low for *_, ratio in bars)), axes.get_xlim()[1] * 1.25)
    axes.set_xlabel(
        "seconds of a fit, over fastbp's (fastbp is faster right of the line)"
    )
    axes.set_title(
        f"The same training, float32, {rows[0].threads} threads; lines: quartiles",
        loc="left",
        fontsize=11,
    )
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        *(handles, labels), loc="outside upper center", ncols=len(named), fontsize=9
    )
    return figure


def roofline(run: Run) -> Figure | None:
    """Each kernel's flops a second against its flops for each byte of its operands."""
    rows = [row for row in _most_threads(run.of("kernels")) if row.dtype == "float32"]
    if not rows:
        return None
    limits = run.machine["by threads"][str(rows[0].threads)]
    peak = limits["gflops"]["float32"]
    figure = Figure(figsize=(8, 5.2))
    axes = figure.add_subplot()
    intensity = np.geomspace(0.05, 400, 200)
    for place, style in (("cache", "--"), ("memory", "-")):
        rate = limits["gigabytes_per_second"][place]
        axes.plot(intensity, np.minimum(peak, rate * intensity), style, color="#777777")
        where = {"cache": "second-level cache", "memory": "memory"}[place]
        x = 0.07
        axes.annotate(
            f"{where}, {rate:.0f} GB/s",
            (x, rate * x),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=8,
            color="#555555",
            rotation=45,  # the slope of the line, in the axes' coordinates
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
    axes.annotate(
        f"registers, {peak:.0f} GFLOP/s",
        (400, peak),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#555555",
    )
    kernels = list(dict.fromkeys(row.facts["kernel"] for row in rows))
    palette = [*list(_COLOURS.values())[1:], "#F0E442", "#999999", "#000000", "#882255"]
    markers = "osDv^PX<>*h"
    sizes = {"small": 28, "medium": 62, "large": 120}
    for i, kernel in enumerate(kernels):
        of = [row for row in rows if row.facts["kernel"] == kernel]
        axes.scatter(
            [row.facts["flops"] / row.facts["bytes"] for row in of],
            [row.facts["flops"] / row.spread().median / 1e9 for row in of],
            [sizes[row.facts["size"]] for row in of],
            color=palette[i],
            marker=markers[i],
            edgecolors="black",
            linewidths=0.5,
            label=kernel,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel("useful flops for each byte of the operands")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(
        f"fastbp's kernels under the machine's limits, float32, {rows[0].threads} "
        "threads; larger marks are larger arrays",
        loc="left",
        fontsize=10,
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure


def scaling(run: Run) -> Figure | None:
    """Seconds of an epoch against rows, width, depth and batch."""
    rows = _most_threads(run.of("scaling"))
    if not rows:
        return None
    along = list(dict.fromkeys(row.facts["along"] for row in rows))
    columns = min(2, len(along))
    lines = -(-len(along) // columns)
    figure = Figure(figsize=(4.4 * columns, 0.5 + 3.3 * lines))
    what = {
        "rows": "rows",
        "width": "units of each of two hidden layers",
        "depth": "hidden layers of 64 units",
        "batch": "rows of a batch",
    }
    for i, name in enumerate(along):
        axes = figure.add_subplot(lines, columns, i + 1)
        of = [row for row in rows if row.facts["along"] == name]
        for peer in dict.fromkeys(family(p) for row in of for p in row.samples):
            names = [OURS if peer == OURS else row.best(peer) for row in of]
            points = [
                (row.facts["value"], row.spread(name).median)
                for row, name in zip(of, names, strict=True)
                if name is not None
            ]
            axes.plot(
                *zip(*points, strict=True),
                marker=_MARKERS[peer],
                color=_COLOURS[peer],
                markersize=4.5,
                linewidth=2 if peer == OURS else 1.2,
                label=peer if i == 0 else None,
            )
        axes.set_xscale("log", base=10 if name == "rows" else 2)
        axes.set_yscale("log")
        if name == "rows":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        else:
            axes.set_xticks([row.facts["value"] for row in of])
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(what[name])
        if i % columns == 0:
            axes.set_ylabel("seconds of an epoch")
    figure.legend(loc="outside upper center", ncols=6, fontsize=9)
    return figure


def scores(run: Run) -> Figure | None:
    """Validation score against the seconds of the training that led to it."""
    rows = [row for row in _most_threads(run.of("scores")) if "seconds" in row.facts]
    if not rows:
        return None
    figure = Figure(figsize=(max(7.8, 4.6 * len(rows)), 4))  # the legend is that wide
    for i, row in enumerate(rows):
        axes = figure.add_subplot(1, len(rows), i + 1)
        for peer in dict.fromkeys(map(family, row.samples)):
            name = OURS if peer == OURS else row.best(peer)
            # a training cannot last longer than one of more epochs, and who stops when
            # it is good keeps the best
            seconds = np.minimum.accumulate(row.facts["seconds"][name][::-1])[::-1]
            axes.plot(
                seconds,
                np.maximum.accumulate(row.facts["scores"][name]),
                marker=_MARKERS[peer],
                markersize=4,
                color=_COLOURS[peer],
                linewidth=2 if name == OURS else 1.2,
                label=peer if i == 0 else None,
            )
        axes.axhline(row.facts["target"], color="#777777", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds of training")
        axes.set_title(f"{row.case}, {row.dtype}", loc="left", fontsize=10)
        if i == 0:
            axes.set_ylabel("best validation accuracy so far")
    figure.legend(loc="outside upper center", ncols=7, fontsize=9)
    return figure


#: A picture's name, and the part of the report that it belongs to.
_PICTURES = {
    "headline": (headline, "README"),
    "speedups": (speedups, "fits"),
    "roofline": (roofline, "kernels"),
    "scaling": (scaling, "scaling"),
    "scores": (scores, "scores"),
}


def draw(run: Run, folder: Path) -> dict[str, list[Path]]:
    """Write the pictures that the run has rows for; their paths by part."""
    drawn: dict[str, list[Path]] = {}
    for name, (picture, group) in _PICTURES.items():
        with mpl.rc_context(_STYLE):
            figure = picture(run)
            if figure is None:
                continue
            figure.set_layout_engine("constrained")
            path = folder / f"{name}.png"
            figure.savefig(path)
            drawn.setdefault(group, []).append(path)
    return drawn
