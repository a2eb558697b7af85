"""What `lockstep check` found: for a terminal, as JSON, and as one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from lockstep.diagnosis.matrix import correct_matrix, plain
from lockstep.diagnosis.naming import Part
from lockstep.diagnosis.replay import replays
from lockstep.diagnosis.verdict import FEW, Report, apart, covered, headline, lines, stage_words
from lockstep.views.console import finite, say
from lockstep.views.page import page

VERDICTS = {
    "same": "bold green",
    "differs": "bold red",
    "broken": "bold yellow",
    "incomplete": "bold yellow",
}
STYLES = {"heading": "bold", "aside": "dim", "differs": "red", "warning": "yellow"}
DIFF = {"+": "green", "-": "red", "@": "cyan"}


def show(out: Console, report: Report) -> None:
    """The report for a terminal."""
    for text, kind in lines(report, out.width):
        if kind == "verdict":
            style = VERDICTS[report.verdict]
        elif kind == "diff":
            style = DIFF.get(text.strip()[:1], "")
        else:
            style = STYLES.get(kind, "")
        say(out, text, style)


def part_json(part: Part) -> dict[str, Any]:
    """Where a probe parts, as JSON."""
    first = part.first
    found: dict[str, Any] = {
        "probe": part.probe.name,
        "updates": part.updates,
        "expected_updates": part.expected,
        "relative": finite([part.relative])[0],
    }
    if first is not None:
        found |= {
            "update": first.update,
            "parameter": first.parameter,
            "index": list(first.index),
            "expected": finite([first.expected])[0],
            "actual": finite([first.actual])[0],
            "ulps": first.ulps,
        }
    return found


def as_json(report: Report) -> dict[str, Any]:
    """Everything that a check found."""
    matrix = report.matrix
    return {
        "port": report.port,
        "verdict": report.verdict,
        "headline": headline(report),
        "framework": report.framework,
        "dtype": report.dtype,
        "probes": [run.probe.name for run in report.diagnosis.runs],
        "compared": report.compared,
        "explanations": [
            {
                "mistakes": list(each.names),
                "titles": [form.mistake.title for form in each.forms],
                "kinds": [form.mistake.kind for form in each.forms],
                "unexplained": list(each.differing),
            }
            for each in report.diagnosis.explanations
        ],
        "separated_by": [line.strip() for line in list(apart(report))[1:]],
        "parts": [part_json(part) for part in report.diagnosis.parts],
        "observations": dict(report.diagnosis.differing),
        "stage": stage_words(report),
        "words": report.words,
        "coefficients": None if matrix is None else [finite(row) for row in matrix[0].tolist()],
        "accepted": list(report.accepted),
        "unasked": report.unasked,
        "missing": report.missing,
        "refused": dict(report.refused),
        "unread": {run.probe.name: list(run.unread) for run in report.diagnosis.runs if run.unread},
        "failures": {name: str(failure) for name, failure in report.failures.items()},
        "notes": list(report.notes),
    }


def html(report: Report) -> str:
    """One page that needs nothing else: pictures, explanation, and the diff that mends."""
    return page(
        "check.html",
        "check",
        report=report,
        headline=headline(report),
        covered=covered(report),
        stage=stage_words(report),
        explanations=[
            [(form.name, form.mistake, report.mend(form)) for form in e.forms]
            for e in report.diagnosis.explanations[:FEW]
        ],
        apart=list(apart(report)),
        matrices=pictures(report),
        plot=plot(report),
    )


def pictures(report: Report) -> list[dict[str, Any]]:
    """The correct coefficient matrix and the port's: cells with a shade and a text."""
    found = report.matrix
    if found is None or not np.isfinite(found[0]).all():
        return []
    matrix, probe = found
    return [
        {
            "title": title,
            "columns": each.shape[1],
            "rows": [
                [{"shade": round(min(1.0, abs(x)), 3), "text": plain(x) if x else ""} for x in row]
                for row in each.tolist()
            ],
        }
        for title, each in (("the correct loop", correct_matrix(probe.problem)), ("port", matrix))
    ]


UNUSUAL = ("coefficients", "wide")
HEIGHT, LEFT = 180.0, 60.0


def plot(report: Report) -> dict[str, Any] | None:
    """The number that is furthest off, over the updates of the first probe that differs."""
    if not report.diagnosis.parts:
        return None
    # Of ordinary numbers, if there are such.
    usual = [part.probe for part in report.diagnosis.parts if part.probe.name not in UNUSUAL]
    probe = (usual or [report.diagnosis.parts[0].probe])[0]
    (run,) = [run for run in report.diagnosis.runs if run.probe is probe]
    right = replays(probe).quick or []
    start = np.vstack([probe.problem.W, probe.problem.b]).astype(np.float64)
    common = min(len(right), len(run.trajectory))
    if not common or not all(np.isfinite(theta).all() for theta in run.trajectory):
        return None
    off = np.max([abs(run.trajectory[u] - right[u]) for u in range(common)], axis=0)
    row, column = np.unravel_index(int(np.argmax(off)), off.shape)
    lines = {
        "the correct loop": [start[row, column], *(theta[row, column] for theta in right)],
        report.port: [start[row, column], *(theta[row, column] for theta in run.trajectory)],
    }
    last = len(start) - 1
    name = f"b[{column}]" if row == last else f"W[{row}, {column}]"
    return {"title": f"{probe.title}: {name} after each update"} | drawn(lines)


def drawn(lines: dict[str, list[Any]]) -> dict[str, Any]:
    """Lines as points of a picture, with the ends of its axis."""
    numbers = [float(number) for line in lines.values() for number in line]
    low, high = min(numbers), max(numbers)
    size = (high - low) or 1.0
    width = 520.0 / max(len(line) - 1 for line in lines.values())

    def points(line: Sequence[float]) -> list[tuple[float, float]]:
        return [
            (round(LEFT + width * i, 1), round(10 + HEIGHT * (high - float(n)) / size, 1))
            for i, n in enumerate(line)
        ]

    return {
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "lines": [{"name": name, "points": points(line)} for name, line in lines.items()],
    }
