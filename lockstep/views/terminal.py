"""What a run looks like: tables a person can read, and the line that counts what was compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.status import Status
from rich.syntax import Syntax
from rich.table import Table

from lockstep.frameworks import NAMES

if TYPE_CHECKING:
    from lockstep.experiments.checks import Outcome
    from lockstep.experiments.zeroing import Trial
    from lockstep.optimizers.measurement import Default, Distance, Measurement
    from lockstep.oracle.compare import Comparison
    from lockstep.problem.settings import Optimizer
    from lockstep.workers.pool import Worker

ROWS = 8
EVIDENCE = {
    "exact": "every bit equal to exact fractions",
    "bitwise": "every bit equal to NumPy",
    "bound": "inside the rounding bound of the 60-digit oracle",
}


class Tally:
    """What was compared over a whole run."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.bits = self.differ = self.bounded = self.outside = self.failed = 0

    def add(self, comparisons: Iterable[Comparison], failures: int = 0) -> None:
        """Count comparisons, and what could not be compared."""
        for comparison in comparisons:
            if comparison.bounds is None:
                self.bits += comparison.compared
                self.differ += sum(comparison.outside)
            else:
                self.bounded += comparison.compared
                self.outside += sum(comparison.outside)
        self.failed += failures

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it passed."""
        compared = self.bits + self.bounded
        return compared > 0 and not (self.differ or self.outside or self.failed)

    def __str__(self) -> str:
        parts = []
        if self.bits:
            parts.append(
                f"{spaced(self.bits)} numbers compared in bits, {spaced(self.differ)} differ"
            )
        if self.bounded:
            parts.append(
                f"{spaced(self.bounded)} compared with their rounding bound,"
                f" {spaced(self.outside)} outside"
            )
        if self.failed:
            parts.append(f"{self.failed} not compared")
        return "; ".join(parts or ["nothing was compared"])


def spaced(number: int) -> str:
    """12 345 rather than 12345."""
    return f"{number:,}".replace(",", " ")


def consoles() -> tuple[Console, Console]:
    """Standard output for what was found, standard error for progress.

    The tables are given the 80 columns that they need even where a terminal has fewer, so that it
    breaks lines instead of losing digits.
    """
    return Console(width=max(Console().width, 80)), Console(stderr=True)


def say(out: Console, text: str, style: str = "") -> None:
    """A line of plain words, in one piece whatever the terminal's width."""
    out.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def say_tally(out: Console, tally: Tally) -> None:
    """The last line of a run."""
    say(out, str(tally), "bold green" if tally.passed else "bold red")


def wait_until_ready(workers: Mapping[str, Worker], status: Status) -> dict[str, str]:
    """Wait for every import, saying which are left; return each framework's versions."""
    versions = {}
    # TensorFlow takes longest, so that the display changes as each one is done.
    for name in sorted(workers, key=("jax", "pytorch", "tensorflow").index):
        waiting = [NAMES[each] for each in workers if each not in versions]
        status.update(f"importing {', '.join(waiting)}")
        found = workers[name].ready()
        versions[name] = ", ".join(f"{package} {version}" for package, version in found.items())
    return {name: versions[name] for name in workers}


def show_outcome(out: Console, outcome: Outcome) -> None:
    """A check's title, table, and a line for everything that did not pass."""
    check = outcome.check
    compiled = [NAMES[name] for name in outcome.names if outcome.compiled(name)]
    say(out, f"\n{check.title}, {check.problem.dtype}", "bold")
    say(
        out,
        f"K = {check.problem.accumulation_steps}, {check.updates} updates:"
        f" {EVIDENCE[check.evidence]}"
        + (f" (compiled in {' and '.join(compiled)})" if compiled else ""),
    )
    if check.updates:
        out.print(outcome_table(outcome))
    for name, why in outcome.failures.items():
        say(out, f"{NAMES[name]}: {why}", "red")
    for name, comparison in outcome.comparisons.items():
        if comparison.first:
            say(out, f"{NAMES[name]}: first apart at {comparison.first}", "red")
    if check.updates < check.asked:
        say(
            out,
            f"the problem is exact for {check.updates} updates: the other"
            f" {check.asked - check.updates} that were asked for are not compared",
            "yellow",
        )


def outcome_table(outcome: Outcome) -> Table:
    """Update, loss, and how each framework compares."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("update", "loss", *(NAMES[name] for name in outcome.names)):
        table.add_column(heading, justify="right")
    first = [each.first.update - 1 for each in outcome.comparisons.values() if each.first]
    for update in sorted({*some_updates(outcome.check.updates), *first}):
        cells = [
            cell(outcome.comparisons[name], update) if name in outcome.comparisons else "[red]none"
            for name in outcome.names
        ]
        table.add_row(str(update + 1), f"{outcome.check.losses[update]:.4g}", *cells)
    return table


def some_updates(updates: int) -> list[int]:
    """About ROWS of the updates, from the first to the last, dense at the beginning."""
    return sorted({round((updates - 1) * (row / (ROWS - 1)) ** 2) for row in range(ROWS)})


def cell(comparison: Comparison, update: int) -> str:
    """One comparison after one update."""
    outside, distance = comparison.outside[update], comparison.distances[update]
    if comparison.bounds is not None:
        sign, colour = ("beyond", "red") if outside else ("≤", "green")
        return f"[{colour}]{distance:.1e} {sign} {comparison.bounds[update]:.1e}"
    if outside:
        return f"[red]{outside} differ, {distance:.1e}"
    return "[green]same bits"


def show_diff(out: Console, framework: str, text: str) -> None:
    """The change to a framework's folder, in colours."""
    say(out, f"\n{NAMES[framework]} without zeroing, the change to {framework}_impl/:", "bold")
    out.print(Syntax(text.rstrip(), "diff", theme="ansi_dark", background_color="default"))


def show_trial(out: Console, trial: Trial) -> None:
    """The losses with and without zeroing, in each framework."""
    say(
        out,
        f"\nLearning rate {trial.learning_rate}: without zeroing the loss {trial.outcome}",
        "bold",
    )
    say(out, "SGD on Iris, K = 1; the loss over all 150 examples")
    table = Table("update", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].justify = "right"
    columns = []
    for word, losses in (("with", trial.losses_with), ("without", trial.losses_without)):
        for name, column in losses.items():
            table.add_column(f"{NAMES[name]}\n{word}", justify="right")
            columns.append(column)
    for update in some_updates(len(columns[0])):
        table.add_row(str(update + 1), *(f"{column[update]:.4f}" for column in columns))
    out.print(table)


def show_momentum(out: Console, equal: Mapping[str, Comparison]) -> None:
    """That not zeroing and momentum 1 are the same trajectory."""
    say(out, "\nNot zeroing is SGD with momentum 1, in bits, on the exact problem:", "bold")
    for name, comparison in equal.items():
        half = spaced(comparison.compared // 2)
        say(
            out,
            f"  {NAMES[name]}: {half} numbers without zeroing against {half} with momentum 1,"
            f" {sum(comparison.outside)} differ",
        )
    out.print()


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON: distances relative to the largest parameter, null if not finite."""
    return {
        "same": comparison.same,
        "compared": comparison.compared,
        "outside": list(comparison.outside),
        "distances": finite(comparison.distances),
        "bounds": comparison.bounds and finite(comparison.bounds),
        "first": comparison.first and str(comparison.first),
    }


def finite(numbers: Sequence[float]) -> list[float | None]:
    """The numbers as JSON has them, which knows neither NaN nor infinity."""
    return [number if math.isfinite(number) else None for number in numbers]


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that was measured in a check."""
    check = outcome.check
    return {
        "problem": check.name,
        "title": check.title,
        "dtype": check.problem.dtype,
        "accumulation_steps": check.problem.accumulation_steps,
        "updates": check.updates,
        "evidence": EVIDENCE[check.evidence],
        "losses": finite(check.losses),
        "frameworks": {name: comparison_json(each) for name, each in outcome.comparisons.items()},
        "failures": outcome.failures,
    }


# A distance is coloured by what it can come from: rounding, float32 settings, another rule.
COLOURS = ((1e-12, "green"), (1e-6, "yellow"), (math.inf, "red"))
# The columns that the table needs if it is to name the libraries' own optimizers too.
WIDE = 96


def show_optimizers(out: Console, known: Mapping[str, Measurement]) -> None:
    """Every variant in every framework: how far off the library's own is, and as it is set here."""
    from lockstep.optimizers.variants import VARIANTS

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
    from lockstep.optimizers import advice
    from lockstep.optimizers.measurement import differing
    from lockstep.optimizers.variants import VARIANTS

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
    from lockstep.optimizers.measurement import DTYPE
    from lockstep.optimizers.variants import UPDATES

    say(
        out,
        "naive  the library's own, with the same learning rate and settings, and its own defaults\n"
        "here   as *_impl/optimizers.py sets it, or adapts it\n"
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
    from lockstep.optimizers.advice import missing, reasons, rule
    from lockstep.optimizers.translation import lines
    from lockstep.optimizers.variants import VARIANTS

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
    from lockstep.optimizers.measurement import defaults
    from lockstep.optimizers.stock import MODULES, stock_name
    from lockstep.problem.settings import OPTIMIZERS

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
    from lockstep.optimizers.measurement import plain

    if found is None:
        return "[dim]-"
    text = plain(found.value) if found.names == (setting,) else found.named
    return f"[red]{text} ≠[/]" if found.differs else text


def show_measured(out: Console, known: Mapping[str, Measurement]) -> None:
    """What the numbers hold for, and whether that is what is installed."""
    from lockstep.optimizers.measurement import outdated

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
