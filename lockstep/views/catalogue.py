"""What `lockstep mistakes` prints: the catalogue, and one mistake with its diffs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from lockstep import mistakes
from lockstep.experiments.planted import Planted
from lockstep.frameworks import NAMES
from lockstep.mistakes import FAMILIES
from lockstep.oracle.compare import Comparison
from lockstep.views.console import finite, say
from lockstep.views.run import comparison_json


def show_all(out: Console) -> None:
    """Every mistake: its family, its name, what goes wrong."""
    known = {name: mistakes.load(name) for name in mistakes.names()}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("mistake", no_wrap=True)
    table.add_column("what goes wrong", ratio=1)
    for family in FAMILIES:
        table.add_row(f"[bold]{family}", "")
        for name, mistake in known.items():
            if mistake.family == family:
                kind = "" if mistake.kind == "mistake" else f" [dim]({mistake.kind})"
                table.add_row(f"  {name}", mistake.title + kind)
    out.print(table)
    say(out, f"{len(known)} mistakes, the more frequent of a family first")
    say(out, "lockstep mistakes no-divide            what goes wrong, the diffs, the evidence")
    say(out, "lockstep run --mistake no-divide       run it in all three frameworks")
    say(out, "lockstep check my_port.py              which of them a port makes")


def show_one(out: Console, name: str, frameworks: Sequence[str]) -> None:
    """One mistake: in words, in numbers, in each framework, and what it is confused with."""
    mistake = mistakes.load(name)
    say(out, f"{name}: {mistake.title}", "bold")
    stages = ", ".join(mistake.stages.replaced)
    say(out, f"{mistake.family} · {mistake.kind} · replaces {stages} of the reference loop", "dim")
    paragraph(out, "\nWhat goes wrong", mistake.explanation)
    paragraph(out, "\nIn numbers", mistake.signature)
    for framework in frameworks:
        say(out, f"\n{NAMES[framework]}", "bold")
        if why := mistake.impossible.get(framework):
            out.print(Padding(Text(f"It cannot be made here: {why}"), (0, 0, 0, 2)))
        else:
            diff = mistakes.diff(name, framework)
            out.print(Syntax(diff.rstrip(), "diff", theme="ansi_dark", background_color="default"))
    if mistake.look_alikes:
        say(out, "\nConfused with, and what separates them", "bold")
        for other, how in mistake.look_alikes.items():
            out.print(Padding(Text(f"{other}: {how}"), (0, 0, 0, 2)))
    if mistake.evidence:
        say(out, "\nPublic threads", "bold")
        for address, phrase in mistake.evidence:
            say(out, f"  {address}")
            out.print(Padding(Text(phrase), (0, 0, 0, 4)))


def paragraph(out: Console, heading: str, text: str) -> None:
    """A heading and a paragraph."""
    say(out, heading, "bold")
    out.print(Padding(Text(text), (0, 0, 0, 2)))


def show_planted(out: Console, found: Planted) -> None:
    """Update by update, how far each framework is from the correct loop."""
    problem = found.probe.problem
    say(out, f"\n{found.name}: {mistakes.load(found.name).title}", "bold")
    say(
        out,
        f"{found.probe.title}: {problem.optimizer.name}, K = {problem.accumulation_steps},"
        f" {problem.dtype}; how far the parameters are from the correct ones, over the largest",
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (
        "update",
        "loss without",
        "with it",
        *(NAMES[each] for each in found.distances),
    ):
        table.add_column(heading, justify="right")
    due = len(found.losses[0])
    for update in range(max(map(len, found.losses))):
        losses = [f"{each[update]:.4g}" if update < len(each) else "" for each in found.losses]
        cells = [
            distance_cell(each[update], found.correct[name], update) if update < len(each) else ""
            for name, each in found.distances.items()
        ]
        table.add_row(str(update + 1), *losses, *cells)
    out.print(table)
    if len(found.losses[1]) != due:
        say(out, f"{len(found.losses[1])} updates instead of {due}", "red")
    same = [NAMES[name] for name, each in found.mistaken.items() if each.same]
    say(out, f"as the reference loop makes it, within rounding: {', '.join(same) or 'none'}")


def distance_cell(distance: float, correct: Comparison, update: int) -> str:
    """A distance from the correct loop; what rounding explains is no difference."""
    bound = (correct.bounds or [])[update]
    return "[dim]same[/]" if distance <= bound else f"[red]{distance:.1e}[/]"


def planted_json(found: Planted) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "probe": found.probe.name,
        "distances": {name: finite(each) for name, each in found.distances.items()},
        "with": {name: comparison_json(each) for name, each in found.mistaken.items()},
        "without": {name: comparison_json(each) for name, each in found.correct.items()},
        "losses": {
            name: finite(each) for name, each in zip(("without", "with"), found.losses, strict=True)
        },
    }
