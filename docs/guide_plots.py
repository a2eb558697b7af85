"""The plots of the guide's pages, from what `docs.record_guide` has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import goals
from benchmarks.peers import BY_HAND
from docs import plots
from docs.plots import FRAMEWORKS, INK, RIGHT, WRONG
from docs.record_guide import load
from lockstep.frameworks import NAMES

FOLDER = Path(__file__).parent / "_plots"


def zeroing(measured: Mapping[str, Any]) -> Figure:
    """The loss with and without zeroing, at both learning rates."""
    figure, both = pyplot.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    for axes, trial in zip(both, measured["zeroing"], strict=True):
        for title, look in (("zeroed", RIGHT), ("never zeroed", WRONG)):
            losses = trial[title]["pytorch"]
            axes.plot(range(1, len(losses) + 1), losses, look.dash, color=look.colour, label=title)
        axes.set_title(f"learning rate {trial['learning_rate']}", fontsize=10)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("update")
    both[0].set_ylabel("loss over an epoch")
    both[0].legend(loc="upper left")
    return figure


def bounds(measured: Mapping[str, Any]) -> Figure:
    """Each framework's error, its bound, and a run whose clip coefficient is off by 1e-6."""
    figure, axes = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
    found = measured["rounding"]["float64"]
    updates = range(1, len(found["bounds"]) + 1)
    ink = INK["light"]
    axes.plot(
        updates, found["clip-epsilon"], ":", color=ink, label="with 1e-6 in the clip coefficient"
    )
    axes.plot(updates, found["bounds"], "-", color=ink, label="derived bound")
    for name, look in FRAMEWORKS.items():
        axes.plot(
            updates,
            found["errors"][name],
            look.marker,
            color=look.colour,
            markersize=look.size,
            markerfacecolor="none",
            label=NAMES[name],
        )
    decades(axes)
    axes.set_xlabel("update")
    axes.set_ylabel("largest error, over the largest parameter")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9)
    return figure


def decades(axes: Axes) -> None:
    """A logarithmic scale, from the smallest rounding on."""
    axes.set_yscale("log")
    axes.set_ylim(1e-17, 1e-5)


def speed(measured: Mapping[str, Any]) -> Figure:
    """The fast form's time over that of a loop by hand, on one thread, by size and K."""
    cells = [each for each in measured["speed"]["cells"] if each["threads"] == 1]
    sizes = list(dict.fromkeys(tuple(each["size"]) for each in cells))
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(7.2, 3.0), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        for name, look in FRAMEWORKS.items():
            found = [
                each for each in cells if (each["framework"], tuple(each["size"])) == (name, size)
            ]
            axes.plot(
                [each["steps"] for each in found],
                [each["fast"][BY_HAND][1] for each in found],
                look.marker + look.dash,
                color=look.colour,
                markersize=look.size,
                markerfacecolor="none",
                label=NAMES[name],
            )
        axes.axhline(1, color=INK["light"], linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_title("x".join(map(str, size)), fontsize=10)
        axes.set_xlabel("K")
    panels[0][0].set_ylabel("fast.py over the loop by hand")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


PLOTS = {"zeroing": zeroing, "bounds": bounds, "speed": speed}


def make(folder: Path = FOLDER) -> None:
    """Draw all plots, for both themes."""
    measured = load() | {"speed": json.loads(goals.FILE.read_text())}
    for name, draw in PLOTS.items():
        with matplotlib.rc_context(plots.STYLE):
            figure = draw(measured)
        plots.save(figure, folder / name)
