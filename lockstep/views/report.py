"""What a check found: for a terminal, as JSON, and as one self-contained page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from lockstep import mistakes
from lockstep.diagnosis.matrix import correct_matrix, plain
from lockstep.diagnosis.naming import Explanation, Part, separation
from lockstep.diagnosis.probes import probes
from lockstep.diagnosis.replay import Replays
from lockstep.diagnosis.verdict import Report
from lockstep.frameworks import NAMES
from lockstep.problem import Array
from lockstep.views.terminal import finite, say, spaced

WIDTH = 100
# How many probes that differ, and how many explanations, a terminal shows one by one.
FEW = 4
# And how many lines of a diff.
LINES = 24
# What an ingredient of a probe stands for, in words.
INGREDIENTS = {
    "windows": "the accumulation over a window: reset, weight, boundary",
    "ragged": "the weight of a micro-batch in a ragged window",
    "partial": "the partial window of an epoch",
    "epochs": "what happens between epochs",
    "rates": "which learning rate an update takes",
    "schedule": "which learning rate an update takes",
    "linear": "which learning rate an update takes",
    "cosine": "which learning rate an update takes",
    "clip": "clipping",
    "decay": "weight decay",
    "groups": "weight decay of W alone",
    "untouched": "a tensor that has no part in a window",
    "precision": "the accumulator's precision",
    "weights": "weighted examples",
    "drop": "the policy for partial windows",
    "carry": "the policy for partial windows",
    "skip": "a window that is not finite",
    "scale": "the loss scale",
}


KINDS = {
    frozenset({"policy"}): "follows another policy",
    frozenset({"library"}): "does what its library does",
}


def headline(report: Report) -> str:
    """The verdict in a line."""
    if report.verdict == "same":
        return "takes the same update"
    if report.verdict == "broken":
        return "is broken, as a port"
    found = report.diagnosis.explanations
    if not found:
        return "differs, and none of the known mistakes explains it"
    if all(len(each.names) == 1 for each in found):
        kinds = {mistakes.load(name).kind for each in found for name in each.names}
        what = KINDS.get(frozenset(kinds), "makes a known mistake")
        named = " or ".join(each.names[0] for each in found[:FEW])
        return f"{what}: {named}" + (" or another" if len(found) > FEW else "")
    both = " and ".join(found[0].names)
    others = f", or {len(found) - 1} other pairs that no probe separates" if found[1:] else ""
    return f"differs in two ways: {both}{others}"


def covered(report: Report) -> str:
    """What was compared, in a line."""
    count = len(report.diagnosis.runs)
    framework = f"{NAMES[report.framework]}, " if report.framework else ""
    left = len(report.refused) + len(report.unread)
    rest = f", {left} not covered" if left else ""
    return (
        f"{framework}{report.dtype}: {count} probes, {spaced(report.compared)} numbers compared"
        f" with their rounding bound, {len(report.diagnosis.parts)} probes differ{rest}"
    )


def stage_words(report: Report) -> str:
    """What must differ: what all probes that differ have in common, and no other has."""
    found = report.diagnosis.suspects
    if not found and any(part.probe.name == "plain" for part in report.diagnosis.parts):
        return "already with one micro-batch of plain SGD an update"
    words = [INGREDIENTS.get(each, f"the optimizer's rule ({each})") for each in found]
    return "; ".join(dict.fromkeys(words))


def text(report: Report) -> str:
    """The report as plain text."""
    out = Console(file=io.StringIO(), width=WIDTH, no_color=True, force_terminal=False)
    show(out, report)
    assert isinstance(out.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in out.file.getvalue().splitlines())


def show(out: Console, report: Report) -> None:
    """The report for a terminal."""
    colour = {"same": "bold green", "differs": "bold red", "broken": "bold yellow"}
    say(out, f"{report.port} {headline(report)}", colour[report.verdict])
    if report.diagnosis.runs:
        say(out, covered(report), "dim")
    for explanation in report.diagnosis.explanations[:FEW]:
        show_explanation(out, report, explanation)
    for line in apart(report):
        say(out, line)
    if report.diagnosis.parts:
        show_parts(out, report)
    if report.diagnosis.differing:
        for name, what in report.diagnosis.differing.items():
            say(out, f"{name}: the parameters are right, but not {', '.join(what)}", "red")
    for names, failure in grouped({n: str(f) for n, f in report.failures.items()}):
        say(out, f"{few(names)}: {failure}", "yellow")
    for note in report.notes:
        say(out, f"note: {note}", "yellow")
    show_uncovered(out, report)


def show_explanation(out: Console, report: Report, explanation: Explanation) -> None:
    """The mistakes of an explanation, and what mends them."""
    for name in explanation.names:
        mistake = mistakes.load(name)
        say(out, f"\n{name}: {mistake.title}", "bold")
        stages = ", ".join(mistake.stages.replaced)
        say(out, f"  replaces {stages} of the reference loop", "dim")
        out.print(Padding(Text(mistake.explanation), (0, 0, 0, 2)))
        if mend := mistakes.mend(name, report.framework):
            say(out, f"  what mends it, in {report.framework}_impl:", "dim")
            out.print(Padding(diff_lines(mend), (0, 0, 0, 2)))
        say(out, f"  lockstep mistakes {name}    all that is known of it", "dim")
    if explanation.differing:
        what = ", ".join(explanation.differing)
        say(out, f"  it does not explain what the port yields as {what}", "yellow")


def diff_lines(diff: str) -> Syntax:
    """The first lines of a diff, in colours, without its file headers."""
    lines = [line for line in diff.splitlines() if not line.startswith(("diff ", "--- "))]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"... and {len(lines) - LINES + 1} lines more"]
    return Syntax(
        "\n".join(lines), "diff", theme="ansi_dark", background_color="default", word_wrap=True
    )


def apart(report: Report) -> Iterator[str]:
    """What would separate the explanations that no probe does."""
    if len(report.diagnosis.explanations) < 2:
        return
    first, *others = report.diagnosis.explanations
    driven = {run.probe.name for run in report.diagnosis.runs}
    rest = [probe for probe in probes() if probe.name not in driven]
    yield f"\nno probe separates these {1 + len(others)}:"
    for other in others[:FEW]:
        how = separation(first, other, report.diagnosis.runs, rest)
        names = " + ".join(first.names), " + ".join(other.names)
        yield f"  {names[0]} from {names[1]}: {how or told(first, other) or 'nothing known here'}"


def told(first: Explanation, other: Explanation) -> str:
    """What the catalogue says separates two mistakes."""
    for one, another in ((first, other), (other, first)):
        for name in one.names:
            for look_alike, how in mistakes.load(name).look_alikes.items():
                if look_alike in another.names:
                    return how
    return ""


def show_parts(out: Console, report: Report) -> None:
    """Where the port parts from the correct loop, and what its matrix says."""
    say(out, "\nwhere it first differs", "bold")
    parts = report.diagnosis.parts
    for part in parts[:FEW]:
        say(out, f"  {part.probe.title}: {part}")
    if len(parts) > FEW:
        say(out, f"  and on {', '.join(part.probe.name for part in parts[FEW:])}")
    if stage := stage_words(report):
        say(out, f"  what must differ: {stage}")
    for sentence in report.words:
        say(out, f"  {sentence}")
    found = report.matrix
    if report.words and found is not None and np.isfinite(found[0]).all():
        out.print(Padding(matrix_table(found[0]), (0, 0, 0, 2)))


def matrix_table(matrix: Array) -> Table:
    """The coefficient matrix: an update a row, a micro-batch a column."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("update", justify="right")
    for index in range(matrix.shape[1]):
        table.add_column(f"m{index + 1}", justify="right")
    for number, row in enumerate(matrix, 1):
        table.add_row(str(number), *(plain(each) if each else "·" for each in row))
    return table


def show_uncovered(out: Console, report: Report) -> None:
    """What was not compared, and why."""
    reasons = {name: report.uncovered(name) for name in [*report.refused, *report.unread]}
    if reasons:
        say(out, "\nnot covered", "dim")
    for names, why in grouped(reasons):
        say(out, f"  {', '.join(names)}: {why}", "dim")


def grouped(reasons: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """The names of all that have a reason, and the reason."""
    for why in dict.fromkeys(reasons.values()):
        yield [name for name, reason in reasons.items() if reason == why], why


def few(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


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
                "titles": [mistakes.load(name).title for name in each.names],
                "kinds": [mistakes.load(name).kind for name in each.names],
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
        "refused": dict(report.refused),
        "unread": {name: list(fields) for name, fields in report.unread.items()},
        "failures": {name: str(failure) for name, failure in report.failures.items()},
        "notes": list(report.notes),
    }


def html(report: Report) -> str:
    """One page that needs nothing else: pictures, explanation, and the diff that mends."""
    import jinja2

    source = resources.files("lockstep.views").joinpath("templates/check.html").read_text()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source).render(
        report=report,
        headline=headline(report),
        covered=covered(report),
        stage=stage_words(report),
        explanations=[
            [(name, mistakes.load(name), mistakes.mend(name, report.framework)) for name in e.names]
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
    right = Replays(probe).quick or []
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
