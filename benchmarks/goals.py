"""What was measured, as tables, and which of the goals it reaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.limit import LIMIT
from benchmarks.peers import BY_HAND, FAST, READABLE
from lockstep.frameworks import NAMES

Report = Mapping[str, Any]
Cell = Mapping[str, Any]
# Neither somebody else's loop, nor one that a person would write here.
NO_PEERS = READABLE, LIMIT, "NumPy"
LIBRARIES = "Accelerate", "Fabric", "Keras fit", "Keras fit, steps_per_execution=K"
SMALL = [4, 3]
NUMPY = {"pytorch": 4.5, "tensorflow": 5.0, "jax": 0.55}
MIB = 1 << 20
# The sizes, and K of each, of which a cost is shown where no more than one number fits.
SHOWN = ((SMALL, 8), ([512, 256], 16), ([2048, 2048], 16))
FILE = Path(__file__).with_name("speed.json")


@dataclass(frozen=True)
class Goal:
    """Something that is to be at most so large, in each framework.

    words: what is divided by what; most: the bound, by framework; ratios: what was measured, the
    medians, in a framework.
    """

    words: str
    most: Mapping[str, float]
    ratios: Callable[[Report, str], Iterable[float]]


def cells(report: Report, framework: str) -> list[Cell]:
    """What was timed in a framework."""
    return [each for each in report["cells"] if each["framework"] == framework]


def peers(report: Report, framework: str) -> Iterable[float]:
    """The fast form beside each loop that is not the repository's."""
    for each in cells(report, framework):
        yield from (found[1] for name, found in each["fast"].items() if name not in NO_PEERS)


def libraries(report: Report, framework: str) -> Iterable[float]:
    """The fast form beside the libraries that run a loop, in the smallest size."""
    for each in cells(report, framework):
        if each["size"] == SMALL:
            yield from (found[1] for name, found in each["fast"].items() if name in LIBRARIES)


def limits(report: Report, framework: str) -> Iterable[float]:
    """The fast form beside the limit, in the larger sizes."""
    for each in cells(report, framework):
        if each["size"] != SMALL:
            yield each["fast"][LIMIT][1]


def in_numpy(report: Report, framework: str) -> Iterable[float]:
    """The fast form beside NumPy's loop, with K = 8 and one thread."""
    for each in cells(report, framework):
        if "NumPy" in each["fast"] and each["steps"] == 8 and each["threads"] == 1:
            yield each["fast"]["NumPy"][1]


def readable(report: Report, framework: str) -> Iterable[float]:
    """The readable loop beside one by hand."""
    for each in cells(report, framework):
        yield each["readable"][BY_HAND][1]


def longest(report: Report, framework: str) -> Iterable[float]:
    """A micro-batch of the fast form with K = 64 beside one with K = 4."""
    found = {
        (str(each["size"]), each["threads"], each["steps"]): each["micro-batch"][FAST][1]
        for each in cells(report, framework)
    }
    for (*where, steps), seconds in found.items():
        short = found.get((*where, 4))
        if steps == 64 and short:
            yield seconds / short


def memory(report: Report, framework: str) -> Iterable[float]:
    """The fast form's peak with K = 64 beside that with K = 1."""
    for each in report["memory"]:
        if each["framework"] == framework and each["contestant"] == FAST:
            yield each["peak"]["64"] / each["peak"]["1"]


def everywhere(most: float) -> dict[str, float]:
    """The same bound in each framework."""
    return dict.fromkeys(NAMES, most)


GOALS = (
    Goal("`fast.py` / each other loop", everywhere(1.02), peers),
    Goal("`fast.py` / Accelerate, Fabric, Keras `fit`, at 4x3", everywhere(1 / 3), libraries),
    Goal("`fast.py` / the limit, at the larger sizes", everywhere(1.25), limits),
    Goal("`fast.py` / NumPy's loop, at 4x3, K = 8, one thread", NUMPY, in_numpy),
    Goal("`training.py` / the loop by hand", everywhere(1.1), readable),
    Goal("`fast.py`, time of a micro-batch, K = 64 / K = 4", everywhere(1.0), longest),
    Goal("`fast.py`, peak of memory, K = 64 / K = 1", everywhere(1.05), memory),
)


def number(value: float) -> str:
    """Three digits, and no exponent."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"


def goals_table(report: Report) -> str:
    """The largest ratio that each goal is about, and how many of all are small enough."""
    lines = [f"| time / time | {' | '.join(NAMES.values())} |", "|---|" + "---|" * len(NAMES)]
    for goal in GOALS:
        row = [goal.words]
        for name in NAMES:
            most, found = goal.most[name], list(goal.ratios(report, name))
            reached = sum(each <= most for each in found)
            mark = "reached" if reached == len(found) else "missed"
            largest = number(max(found)) if found else ""
            said = f"{largest} of {number(most)}: {mark}, {reached}/{len(found)}"
            row.append(said if found else "")
        lines.append(f"| {' | '.join(row)} |")
    return "".join(f"{line}\n" for line in lines)


def times_table(report: Report, framework: str) -> str:
    """What a micro-batch takes, and the fast form beside each other one: medians and quartiles."""
    found = cells(report, framework)
    others = list(dict.fromkeys(name for each in found for name in each["fast"]))
    titles = ["threads", "size", "K", "`fast.py`, µs", *(f"/ {name}" for name in others)]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for each in found:
        size = "x".join(map(str, each["size"]))
        row = [str(each["threads"]), size, str(each["steps"])]
        row.append(number(1e6 * each["micro-batch"][FAST][1]))
        for name in others:
            low, middle, high = each["fast"].get(name, (0, 0, 0))
            row.append(f"{number(middle)} ({number(low)} to {number(high)})" if middle else "")
        lines.append(f"| {' | '.join(row)} |")
    return "".join(f"{line}\n" for line in lines)


def starts_table(report: Report) -> str:
    """Start-up, the first window, which compiles, and memory, by framework and loop."""
    lines = [
        "| | | import, s | first window, s | peak, MiB, K = 1 | K = 64 |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        for contestant in (FAST, BY_HAND):
            first = [each["first"][contestant] for each in cells(report, name)]
            imported = report["start-up"].get(name) if contestant == FAST else None
            row = [title, contestant, number(imported) if imported else ""]
            row.append(f"{number(min(first))} to {number(max(first))}" if first else "")
            row += peaks(report, name, contestant)
            lines.append(f"| {' | '.join(row)} |")
    return "".join(f"{line}\n" for line in lines)


def peaks(report: Report, framework: str, contestant: str) -> list[str]:
    """The peaks with K = 1 and K = 64."""
    for each in report["memory"]:
        if (each["framework"], each["contestant"]) == (framework, contestant):
            return [number(each["peak"][k] / MIB) for k in ("1", "64")]
    return ["", ""]


def costs(report: Report, framework: str, contestant: str) -> list[str]:
    """The microseconds of a micro-batch on one thread, for what is shown; none without a time."""
    found = {
        (str(each["size"]), each["steps"]): each["micro-batch"][contestant][1]
        for each in cells(report, framework)
        if each["threads"] == 1 and contestant in each["micro-batch"]
    }
    seconds = [found.get((str(size), steps)) for size, steps in SHOWN]
    return [number(1e6 * each) for each in seconds if each is not None]


def cost_heads() -> list[str]:
    """What `costs` are of."""
    return [f"{'x'.join(map(str, size))}, K = {steps}" for size, steps in SHOWN]


def costs_table(report: Report) -> str:
    """The readable loop and the fast form of each framework: what a micro-batch takes, in µs."""
    heads = ["framework", "loop", *cost_heads()]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, title in NAMES.items():
        for contestant in (READABLE, FAST):
            found = costs(report, name, contestant)
            lines.append(f"| {title} | `{contestant}` | {' | '.join(found)} |")
    return "".join(f"{line}\n" for line in lines)


def system_table(report: Report) -> str:
    """The machine and the versions."""
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in report["system"].items()]
    return "".join(f"{line}\n" for line in lines)


def tables(report: Report) -> dict[str, str]:
    """All, by the name that the guide's page has for it."""
    return {
        "goals": goals_table(report),
        **{name: times_table(report, name) for name in NAMES},
        "starts": starts_table(report),
        "system": system_table(report),
    }
