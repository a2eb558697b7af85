"""What `lockstep optimizers` prints: the table of all, one of them, and lines to write."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from lockstep.frameworks import NAMES
from lockstep.optimizers import advice
from lockstep.optimizers.advice import missing, reasons, rule
from lockstep.optimizers.measurement import (
    DTYPE,
    Default,
    Distance,
    Measurement,
    defaults,
    differing,
    outdated,
    plain,
)
from lockstep.optimizers.stock import MODULES, stock_name
from lockstep.optimizers.translation import lines
from lockstep.optimizers.variants import UPDATES, VARIANTS
from lockstep.problem.settings import OPTIMIZERS, Optimizer
from lockstep.views.console import say

# A distance is coloured by what it can come from: rounding, float32 settings, another rule.
COLOURS = ((1e-12, "green"), (1e-6, "yellow"), (math.inf, "red"))
# The columns that the table needs if it is to name the libraries' own optimizers too.
WIDE = 96


def show_optimizers(out: Console, known: Mapping[str, Measurement]) -> None:
    """Every variant in every framework: how far off the library's own is, and as it is set here."""
    say(out, "How far each library's own optimizer is from torch.optim's rule", "bold")
    say_distance(out)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nvariant", no_wrap=True)
    for framework in known:
        heads = [NAMES[framework], "", ""] if out.width >= WIDE else [NAMES[framework], ""]
        for over, head in zip(heads, ["own", "naive ", "here"][-len(heads) :], strict=True):
            left = head == "own"
            table.add_column(f"{over}\n{head}", justify="left" if left else "right", no_wrap=True)
    for variant in VARIANTS:
        cells = [optimizer_cells(each.distances[variant]) for each in known.values()]
        named = slice(0 if out.width >= WIDE else 1, None)
        table.add_row(variant, *(cell for row in cells for cell in row[named]))
    out.print(table)
    if any(each.left_out for found in known.values() for each in found.distances.values()):
        say(out, "* the library has no such setting, and the naive port leaves it out")
    show_matches(out, known)
    say(out, "lockstep optimizers adamw             its defaults elsewhere, and what else differs")
    say(out, "lockstep optimizers adamw --to jax    the lines to write")


def show_matches(out: Console, known: Mapping[str, Measurement]) -> None:
    """Which defaults differ from torch.optim's, and what takes its update all the same."""
    cells = {"tensorflow": advice.keras_cell, "jax": advice.optax_cell}
    say(out, "\nWhich defaults are not torch.optim's, and what takes its update", "bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("defaults", ratio=1, overflow="fold")
    table.add_column("what matches: a subclass, a chain", ratio=1, overflow="fold")
    for variant in advice.ROWS:
        for name, cell_of in cells.items():
            if name in known:
                found = differing(name, VARIANTS[variant], known[name])
                defaults = ", ".join(str(each).partition(",")[0] for each in found)
                matches = cell_of(variant).replace("`", "")
                table.add_row(variant, NAMES[name], defaults, matches)
    out.print(table)


def say_distance(out: Console) -> None:
    """What the numbers are."""
    say(
        out,
        "naive  the library's own, with the same learning rate and settings, and its own defaults\n"
        "here   as *_impl/library.py sets it, or adapts it\n"
        f"The largest distance in {UPDATES} updates in {DTYPE}, relative to the largest parameter.",
    )


def optimizer_cells(found: Distance) -> list[str]:
    """The stock optimizer's name and both distances."""
    if found.call is None or found.naive is None:
        return ["none", "", distance(found.here)]
    name = found.call.partition("(")[0].rpartition(".")[2]
    return [name, distance(found.naive) + "* "[not found.left_out], distance(found.here)]


def distance(number: float) -> str:
    """A distance in the colour of what it can come from."""
    colour = next(colour for limit, colour in COLOURS if number <= limit)
    return f"[{colour}]{number:.0e}[/]"


def show_optimizer(out: Console, variant: str, known: Mapping[str, Measurement]) -> None:
    """One variant: what a naive port writes, each library's defaults, and what else differs."""
    settings = VARIANTS[variant]
    say(out, f"{variant}: the rule of {rule(settings)}", "bold")
    say_distance(out)
    table = Table("", "the naive port", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("naive", "here"):
        table.add_column(head, justify="right")
    for framework, measured in known.items():
        found = measured.distances[variant]
        _, naive, here = optimizer_cells(found)
        table.add_row(NAMES[framework], found.call or "[dim]none", naive, here)
    out.print(table)
    out.print(defaults_table(settings, known))
    say(out, "≠ is not torch.optim's\n")
    for framework, measured in known.items():
        take = lines(framework, settings)
        for text in filter(None, [missing(settings, framework, measured), *reasons(take)]):
            say(out, f"{NAMES[framework]:10}  {text}")
    say(out, f"lockstep optimizers {variant} --to jax    the lines to write")


def defaults_table(settings: Optimizer, known: Mapping[str, Measurement]) -> Table:
    """The stock optimizers' defaults side by side, and which of them are not torch.optim's.

    Below them what a library does by default, and torch.optim does not have.
    """
    table = Table("\ndefault", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = []
    for framework, measured in known.items():
        if name := stock_name(framework, settings):
            table.add_column(f"{MODULES[framework]}\n{name}")
            columns.append(defaults(framework, settings, measured))
    for setting in dict.fromkeys([*OPTIMIZERS[settings.name], *(n for c in columns for n in c)]):
        table.add_row(setting, *(default_cell(setting, column.get(setting)) for column in columns))
    return table


def default_cell(setting: str, found: Default | None) -> str:
    """A default, with its name where the library has one of its own."""
    if found is None:
        return "[dim]-"
    text = plain(found.value) if found.names == (setting,) else found.named
    return f"[red]{text} ≠[/]" if found.differs else text


def show_measured(out: Console, known: Mapping[str, Measurement]) -> None:
    """What the numbers hold for, and whether that is what is installed."""
    for cpu, day in dict.fromkeys((each.cpu, each.day) for each in known.values()):
        versions: dict[str, str] = {}
        for each in known.values():
            versions |= each.versions if (each.cpu, each.day) == (cpu, day) else {}
        numpy = versions.pop("numpy")
        words = [f"{package} {version}" for package, version in versions.items()]
        say(out, f"measured on {cpu} ({day}): {', '.join(words)}; numpy {numpy}", "dim")
    old = {name: version for each in known.values() for name, version in outdated(each).items()}
    if old:
        installed = ", ".join(f"{name} {version}" for name, version in old.items())
        say(
            out,
            f"installed is {installed}, of which the numbers may differ."
            " Measure again: lockstep optimizers --measure",
            "yellow",
        )


def show_lines(out: Console, text: str) -> None:
    """Source text, in colours on a terminal; its rows are shorter than any width here."""
    out.print(Syntax(text.rstrip(), "python", theme="ansi_dark", background_color="default"))
