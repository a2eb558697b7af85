"""`lockstep run`: the command line."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep import FRAMEWORKS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lockstep.checks import Check
    from lockstep.compare import Comparison
    from lockstep.run import Worker

NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
ROWS = 8
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The same training step in PyTorch, TensorFlow and JAX, compared bit for bit.",
)


@app.callback()
def lockstep() -> None:
    """Keep `run` a command of its own: others will stand beside it."""


@app.command()
def run(
    problems: Annotated[
        list[str] | None,
        typer.Argument(
            help="exact, iris-sgd, iris-adamw, or a file written by Problem.save; all by default",
            show_default=False,
        ),
    ] = None,
    frameworks: Annotated[
        str, typer.Option("--frameworks", "-f", help="which to run, separated by commas")
    ] = ",".join(FRAMEWORKS),
    dtype: Annotated[
        str | None, typer.Option(help="float64 or float32", show_default=False)
    ] = None,
    accumulation_steps: Annotated[
        int | None,
        typer.Option("--accumulation-steps", "-k", help="micro-batches an update"),
    ] = None,
    updates: Annotated[int | None, typer.Option("--updates", "-u", help="how many")] = None,
    eager: Annotated[
        bool, typer.Option("--eager", help="run the bitwise loop op by op, slowly, everywhere")
    ] = False,
    without_zeroing: Annotated[
        bool,
        typer.Option("--without-zeroing", help="show what happens if gradients are never cleared"),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write everything that was measured to a file")
    ] = None,
) -> None:
    """Train in every framework at the same time and compare after every update.

    Exit status 0 if all is the same, or inside its bound; 1 if not; 2 if the call is wrong or a
    framework cannot run.
    """
    names = chosen(frameworks)
    if json_file is not None and not json_file.parent.is_dir():
        raise UsageError(f"--json: the folder {json_file.parent} does not exist, create it first")
    from lockstep.run import workers

    with workers(names) as started:
        # The workers import their frameworks while this process imports its own packages.
        if without_zeroing:
            if problems or dtype or accumulation_steps or updates or eager:
                raise UsageError("--without-zeroing takes no problem, dtype, K, updates or --eager")
            passed, report = show_zeroing(started)
        else:
            from lockstep.checks import CATALOGUE, build

            checks = [
                check
                for name in problems or CATALOGUE
                for check in build(name, dtype, accumulation_steps, updates)
            ]
            passed, report = show_checks(started, checks, eager)
        if json_file is not None:
            write_json(json_file, report)
    raise typer.Exit(0 if passed else 1)


class UsageError(Exception):
    """The call is wrong; the message says what to do."""


def chosen(frameworks: str) -> list[str]:
    """The frameworks of a comma-separated list, each known and installed."""
    from lockstep.run import missing

    names = [name.strip() for name in frameworks.split(",") if name.strip()]
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown or not names:
        raise UsageError(
            f"--frameworks: {', '.join(unknown) or 'nothing'} is not a framework here,"
            f" choose from {', '.join(FRAMEWORKS)}"
        )
    for name in names:
        if command := missing(name):
            rest = ",".join(each for each in names if each != name)
            instead = f" or leave it out: --frameworks {rest}" if rest else ""
            raise UsageError(f"{NAMES[name]} is not installed. Install it: {command}{instead}")
    return list(dict.fromkeys(names))


def show_checks(
    workers: Mapping[str, Worker], checks: Sequence[Check], eager: bool
) -> tuple[bool, dict[str, Any]]:
    """Run the checks and print a table for each as soon as it is complete."""
    from lockstep.run import Refused

    out, waiting = consoles()
    report: dict[str, Any] = {"checks": []}
    tally = Tally()
    with waiting.status("starting") as status, tempfile.TemporaryDirectory() as folder:
        for number, check in enumerate(checks):
            file = Path(folder, f"{number}.safetensors")
            check.problem.save(file)
            for name, worker in workers.items():
                worker.submit(check.port(name, eager), file, check.asked)
        started = time.perf_counter()
        for check in checks:
            _ = check.losses, check.bounds  # the oracle's work, while the frameworks start
        report["seconds"] = {"oracle": time.perf_counter() - started, "comparison": 0.0}
        versions = wait_until_ready(workers, status)
        out.print(" · ".join(versions.values()), style="dim", highlight=False)
        for check in checks:
            comparisons: dict[str, Comparison] = {}
            refusals: dict[str, str] = {}
            for name, worker in workers.items():
                status.update(f"{check.title}, {check.problem.dtype}: {NAMES[name]}")
                try:
                    actual = worker.result()[: check.updates]
                except Refused as refusal:
                    refusals[name] = str(refusal)
                    continue
                started = time.perf_counter()
                comparisons[name] = check.compare(actual)
                report["seconds"]["comparison"] += time.perf_counter() - started
            out.print(f"\n[bold]{check.title}, {check.problem.dtype}[/bold]", highlight=False)
            out.print(
                f"K = {check.problem.accumulation_steps}, {check.updates} updates:"
                f" {EVIDENCE[check.evidence]}",
                highlight=False,
            )
            out.print(check_table(check, comparisons, tuple(workers)))
            for line in details(check, comparisons, refusals):
                out.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
            tally.add(check, comparisons, refusals)
            report["checks"].append(as_json(check, comparisons, refusals))
    print_tally(out, tally)
    return tally.passed, {"versions": versions, "passed": tally.passed} | report


class Tally:
    """What was compared over all checks."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.bits = self.differ = self.bounded = self.outside = self.refused = 0

    def add(
        self, check: Check, comparisons: Mapping[str, Comparison], refusals: Mapping[str, str]
    ) -> None:
        """Count a check's comparisons."""
        for comparison in comparisons.values():
            self.count(comparison)
        self.refused += len(refusals) + (check.updates == 0)

    def count(self, comparison: Comparison) -> None:
        """Count one comparison."""
        if comparison.bounds is None:
            self.bits += comparison.compared
            self.differ += sum(comparison.outside)
        else:
            self.bounded += comparison.compared
            self.outside += sum(comparison.outside)

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it passed."""
        compared = self.bits + self.bounded
        return compared > 0 and not (self.differ or self.outside or self.refused)

    def line(self) -> str:
        """The last line of a run."""
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
        if self.refused:
            parts.append(f"{self.refused} not run")
        return "; ".join(parts or ["nothing was compared"])


def print_tally(out: Console, tally: Tally) -> None:
    """The last line, in one piece whatever the terminal's width."""
    colour = "green" if tally.passed else "red"
    out.print(tally.line(), style=f"bold {colour}", highlight=False, soft_wrap=True)


def spaced(number: int) -> str:
    """12 345 rather than 12345."""
    return f"{number:,}".replace(",", " ")


def consoles() -> tuple[Console, Console]:
    """Standard output for what was found, standard error for progress."""
    from rich.console import Console

    return Console(), Console(stderr=True)


def wait_until_ready(workers: Mapping[str, Worker], status: Any) -> dict[str, str]:
    """Wait for every import; return each framework's versions as one string."""
    waiting = set(workers)
    versions = {}
    # TensorFlow takes longest, so that the display changes as each one is done.
    for name in sorted(workers, key=("jax", "pytorch", "tensorflow").index):
        status.update(f"importing {', '.join(NAMES[each] for each in workers if each in waiting)}")
        found = workers[name].ready()
        versions[name] = ", ".join(f"{package} {version}" for package, version in found.items())
        waiting.remove(name)
    return {name: versions[name] for name in workers}


EVIDENCE = {
    "exact": "every bit equal to exact fractions",
    "bitwise": "every bit equal to NumPy",
    "bound": "inside the rounding bound of the 60-digit oracle",
}


def check_table(check: Check, comparisons: Mapping[str, Comparison], names: Sequence[str]) -> Table:
    """Update, loss, and how each framework compares."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("update", justify="right")
    table.add_column("loss", justify="right")
    for name in names:
        table.add_column(NAMES[name], justify="right")
    for update in shown_updates(check.updates, comparisons):
        cells = [
            cell(comparisons[name], update) if name in comparisons else "[red]not supported"
            for name in names
        ]
        table.add_row(str(update + 1), f"{check.losses[update]:.4g}", *cells)
    return table


def shown_updates(updates: int, comparisons: Mapping[str, Comparison]) -> list[int]:
    """About ROWS updates, dense at the beginning, and each framework's first that is outside."""
    rows = (
        {round((updates - 1) * (row / (ROWS - 1)) ** 2) for row in range(ROWS)}
        if updates
        else set()
    )
    for comparison in comparisons.values():
        if comparison.first:
            rows.add(comparison.first.update - 1)
    return sorted(rows)


def cell(comparison: Comparison, update: int) -> str:
    """One comparison after one update."""
    outside, distance = comparison.outside[update], comparison.distances[update]
    if comparison.bounds is not None:
        sign, colour = ("≤", "green") if not outside else ("beyond", "red")
        return f"[{colour}]{distance:.1e} {sign} {comparison.bounds[update]:.1e}"
    if outside:
        return f"[red]{outside} differ, {distance:.1e}"
    return "[green]same bits"


def details(
    check: Check, comparisons: Mapping[str, Comparison], refusals: Mapping[str, str]
) -> list[str]:
    """A line for everything that did not pass."""
    lines = [f"{NAMES[name]}: does not support it: {why}" for name, why in refusals.items()]
    for name, comparison in comparisons.items():
        if comparison.first:
            lines.append(f"{NAMES[name]}: first apart at {comparison.first}")
    if check.updates == 0:
        lines.append("no update of this problem is exact: nothing was compared")
    elif check.updates < check.asked:
        lines.append(
            f"the problem is exact for {check.updates} updates: the other"
            f" {check.asked - check.updates} that were asked for are not compared"
        )
    return lines


def show_zeroing(workers: Mapping[str, Worker]) -> tuple[bool, dict[str, Any]]:
    """Losses with and without zeroing, and the equality with momentum 1."""
    from lockstep import mistakes, zeroing

    out, waiting = consoles()
    tally = Tally()
    report: dict[str, Any] = {"trials": []}
    with waiting.status("starting") as status, zeroing.planted(workers) as ports:
        versions = wait_until_ready(workers, status)
        out.print(" · ".join(versions.values()), style="dim", highlight=False)
        for name in workers:
            out.print(f"\n[bold]{NAMES[name]} without zeroing[/bold]: the change to {name}_impl/")
            print_diff(out, mistakes.diff(zeroing.MISTAKE, name))
        for learning_rate in zeroing.LEARNING_RATES:
            status.update(f"training with and without zeroing, learning rate {learning_rate}")
            trial = zeroing.trial(workers, ports, learning_rate)
            out.print(
                f"\n[bold]Learning rate {learning_rate}: without zeroing the loss"
                f" {trial.outcome}[/bold]\nSGD on Iris, K = 1; the loss over all 150 examples",
                highlight=False,
            )
            out.print(zeroing_table(trial))
            for comparison in (
                *trial.comparisons_with.values(),
                *trial.comparisons_without.values(),
            ):
                tally.count(comparison)
            report["trials"].append(
                {
                    "learning_rate": learning_rate,
                    "losses_with": trial.losses_with,
                    "losses_without": trial.losses_without,
                }
            )
        status.update("comparing with momentum 1")
        equal = zeroing.momentum_equality(workers, ports)
    out.print("\n[bold]Not zeroing is SGD with momentum 1[/bold], in bits, on the exact problem:")
    for name, comparison in equal.items():
        tally.count(comparison)
        verdict = f"{sum(comparison.outside)} differ"
        out.print(
            f"  {NAMES[name]}: {spaced(comparison.compared // 2)} numbers without zeroing against"
            f" {spaced(comparison.compared // 2)} with momentum 1, {verdict}",
            highlight=False,
        )
    out.print(
        f"\n{tally.line()}", style="bold green" if tally.passed else "bold red", highlight=False
    )
    report["momentum_1"] = {name: comparison_json(each) for name, each in equal.items()}
    return tally.passed, {"versions": versions, "passed": tally.passed} | report


def print_diff(out: Console, text: str) -> None:
    """A diff in colours."""
    from rich.syntax import Syntax

    out.print(Syntax(text.rstrip(), "diff", theme="ansi_dark", background_color="default"))


def zeroing_table(trial: Any) -> Table:
    """The losses with and without, in each framework."""
    from rich import box
    from rich.table import Table

    last = len(next(iter(trial.losses_with.values()))) - 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("update", justify="right")
    for word, losses in (("with", trial.losses_with), ("without", trial.losses_without)):
        for name in losses:
            table.add_column(f"{NAMES[name]}\n{word}", justify="right")
    for update in shown_updates(last + 1, {}):
        numbers = [
            f"{losses[name][update]:.4f}"
            for losses in (trial.losses_with, trial.losses_without)
            for name in losses
        ]
        table.add_row(str(update + 1), *numbers)
    return table


def as_json(
    check: Check, comparisons: Mapping[str, Comparison], refusals: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that was measured in a check."""
    return {
        "problem": check.name,
        "title": check.title,
        "dtype": check.problem.dtype,
        "accumulation_steps": check.problem.accumulation_steps,
        "updates": check.updates,
        "evidence": EVIDENCE[check.evidence],
        "losses": check.losses,
        "frameworks": {name: comparison_json(each) for name, each in comparisons.items()},
        "not_supported": dict(refusals),
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON; distances and bounds are relative to the largest parameter."""
    return {
        "same": comparison.same,
        "compared": comparison.compared,
        "outside": list(comparison.outside),
        "distances": list(comparison.distances),
        "bounds": comparison.bounds and list(comparison.bounds),
        "first": comparison.first and str(comparison.first),
    }


def write_json(file: Path, report: dict[str, Any]) -> None:
    """Write the report whole, or leave the file as it was."""
    text = json.dumps(report, indent=1, allow_nan=True)
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as new:
            new.write(text + "\n")
        Path(new.name).replace(file)
    except OSError as error:
        raise UsageError(f"--json: cannot write {file} ({error.strerror})") from None


def main() -> None:
    """Run the command line; turn errors into one clear line and a status."""
    from lockstep.problem import ProblemError
    from lockstep.run import WorkerError

    try:
        status = app(standalone_mode=False)
    except typer.exceptions.TyperException as error:
        # A call without a command has printed its help, and has no message.
        if message := error.format_message():
            print(f"lockstep: {message}", file=sys.stderr)
        status = 2
    except (UsageError, ProblemError, WorkerError) as error:
        print(f"lockstep: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("lockstep: interrupted", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
