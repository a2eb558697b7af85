"""The guide's plots: small SVG files for a light and a dark page, the same at every build."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from docs.written import write

# At least 4.5:1 on the page of each theme.
INK = {"light": "#5a5c63", "dark": "#9ca0a5"}
STYLE = {
    "svg.hashsalt": "lockstep",
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        INK["light"],
    ),
}
# Where numbers are so many times apart, a linear scale shows the largest alone.
FAR_APART = 50


@dataclass(frozen=True)
class Look:
    """How a line is told from the others: never by its colour alone.

    The colours are at least 3:1 on both pages, and apart for the colour-blind.
    """

    colour: str
    dash: str
    marker: str
    size: float = 4.0


RIGHT, WRONG = Look("#2b7bd6", "-", "o"), Look("#c8590a", "--", "s")
FRAMEWORKS = {
    "pytorch": Look("#c8590a", "-", "o", 10),
    "tensorflow": Look("#2b7bd6", "--", "s", 6.5),
    "jax": Look("#0b8a6e", ":", "^", 4),
}


@dataclass(frozen=True)
class Line:
    """A named series from one x on; what is None, or 0 on a logarithmic scale, is not shown."""

    name: str
    numbers: Sequence[float | None]
    first: int
    look: Look


def lines(series: Sequence[Line], x: str, y: str, logarithmic: bool | None = None) -> Figure:
    """Lines over whole numbers; on a logarithmic scale if asked for, or if it takes one."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.0), layout="constrained")
        for line in series:
            look = line.look
            places = range(line.first, line.first + len(line.numbers))
            axes.plot(
                places,
                [number or float("nan") for number in line.numbers],
                label=line.name,
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                markersize=look.size,
                markerfacecolor="none",
            )
        known = [n for line in series for n in line.numbers if n]
        if logarithmic if logarithmic is not None else max(known) > FAR_APART * min(known):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        ends = [line.first + len(line.numbers) - 1 for line in series]
        axes.set_xlim(min(line.first for line in series) - 0.3, max(ends) + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
    return figure


def dots(
    series: Mapping[str, tuple[Mapping[str, float], Look]], rows: Sequence[str], x: str, line: float
) -> Figure:
    """A mark for each named number of a series, in a row of its name, and a line between them."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 0.28 * len(rows) + 1), layout="constrained")
        for name, (numbers, look) in series.items():
            axes.plot(
                list(numbers.values()),
                [rows.index(row) for row in numbers],
                label=name,
                color=look.colour,
                linestyle="none",
                marker=look.marker,
                markersize=look.size,
                markerfacecolor="none",
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter("{x:.0e}")
        axes.minorticks_off()
        axes.axvline(line, color=INK["light"], linestyle=":")
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", alpha=0.3)
        axes.invert_yaxis()
        axes.set_xlabel(x)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
    return figure


def files(stem: Path) -> dict[str, Path]:
    """The files of a plot, by theme."""
    return {theme: stem.with_name(f"{stem.name}.{theme}.svg") for theme in INK}


def save(figure: Figure, stem: Path) -> None:
    """Write a plot for each theme."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    pyplot.close(figure)
    text = "".join(f"{row.rstrip()}\n" for row in out.getvalue().splitlines())
    for theme, file in files(stem).items():
        write(file, text.replace(INK["light"], INK[theme]))
