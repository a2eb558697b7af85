"""The plots of the guide's pages, from what `docs.record_guide` has measured.

Transparent SVG, so that one file is legible on the light and on the dark page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.record_guide import load
from lockstep.show import NAMES

FOLDER = Path(__file__).parent / "_plots"
# At least 4:1 on white and on #131416.
INK = "#767a80"
# At least 3:1 on both, and apart for the colour-blind; dashes and markers tell lines apart as well.
BLUE, ORANGE, GREEN = "#2b7bd6", "#c8590a", "#0b8a6e"
STYLE = {
    "svg.hashsalt": "lockstep",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
FRAMEWORKS = {"pytorch": (ORANGE, "o", 7), "tensorflow": (BLUE, "s", 5), "jax": (GREEN, "^", 3)}


def zeroing(measured: Mapping[str, Any]) -> Figure:
    """The loss with and without zeroing, at both learning rates."""
    figure, both = pyplot.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    for axes, trial in zip(both, measured["zeroing"], strict=True):
        for title, colour, dash in (("zeroed", BLUE, "-"), ("never zeroed", ORANGE, "--")):
            losses = trial[title]["pytorch"]
            axes.plot(range(1, len(losses) + 1), losses, dash, color=colour, label=title)
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
    axes.plot(
        updates, found["clip-epsilon"], ":", color=INK, label="with 1e-6 in the clip coefficient"
    )
    axes.plot(updates, found["bounds"], "-", color=INK, label="derived bound")
    for name, (colour, marker, size) in FRAMEWORKS.items():
        look = {"color": colour, "marker": marker, "markersize": size}
        look |= {"linestyle": "", "markerfacecolor": "none"}
        axes.plot(updates, found["errors"][name], label=NAMES[name], **look)
    decades(axes)
    axes.set_xlabel("update")
    axes.set_ylabel("largest error, over the largest parameter")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9)
    return figure


def decades(axes: Axes) -> None:
    """A logarithmic scale, from the smallest rounding on."""
    axes.set_yscale("log")
    axes.set_ylim(1e-17, 1e-5)


PLOTS = {"zeroing": zeroing, "bounds": bounds}


def make(folder: Path = FOLDER) -> None:
    """Draw all plots; a file that would be the same stays."""
    measured = load()
    folder.mkdir(exist_ok=True)
    for name, draw in PLOTS.items():
        with matplotlib.rc_context(STYLE):
            text = svg(draw(measured))
        file = folder / f"{name}.svg"
        if not file.exists() or file.read_text() != text:
            # Two builds at the same time must not see half a file.
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(text)
            part.replace(file)


def svg(figure: Figure) -> str:
    """A figure as a file's text, the same at every call."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    pyplot.close(figure)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
