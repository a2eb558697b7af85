"""What `lockstep run` prints: a table for each check, and the losses without zeroing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from lockstep.frameworks import NAMES
from lockstep.views.console import finite, say, spaced

if TYPE_CHECKING:
    from lockstep.experiments.checks import Outcome
    from lockstep.experiments.zeroing import Trial
    from lockstep.oracle.compare import Comparison

ROWS = 8
EVIDENCE = {
    "exact": "every bit equal to exact fractions",
    "bitwise": "every bit equal to NumPy",
    "bound": "inside the rounding bound of the 60-digit oracle",
}


def show_outcome(out: Console, outcome: Outcome) -> None:
    """A check's title, table, and a line for everything that did not pass."""
    check = outcome.check
    compiled = [NAMES[name] for name in outcome.names if outcome.compiled(name)]
    say(out, f"\n{check.title}, {check.problem.dtype}", "bold")
    say(
        out,
        f"K = {check.problem.accumulation_steps}, {check.updates} updates:"
        f" {EVIDENCE[check.evidence]}"
        + (f" (compiled in {', '.join(compiled)})" if compiled else ""),
    )
    if check.updates:
        out.print(outcome_table(outcome))
    for name, told in outcome.told.items():
        if told:
            say(out, f"{NAMES[name]}: {form_words(told)}")
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


def form_words(told: Mapping[str, bool]) -> str:
    """Which of its fast forms PyTorch ran."""
    optimizer = "a fused optimizer" if told["fused"] else "the optimizer as it is, none is fused"
    if told["compiled"]:
        return f"each window compiled, and {optimizer}"
    return f"eager, for want of a C++ compiler or a newer torch, and {optimizer}"


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
        "form": outcome.form,
        "told": {name: told for name, told in outcome.told.items() if told},
    }
