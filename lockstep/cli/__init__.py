"""The command line: `lockstep run | optimizers | check | mistakes | read`."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.frameworks import FRAMEWORKS

if TYPE_CHECKING:
    from lockstep.diagnosis.probes import Probe
    from lockstep.experiments.checks import Check
    from lockstep.workers.pool import Worker

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The same training step in PyTorch, TensorFlow and JAX, compared bit for bit.",
)


@app.command()
def run(
    problems: Annotated[
        list[str] | None,
        typer.Argument(
            help="exact, iris-sgd, iris-adamw (these by default), iris-recipe, or a file that"
            " Problem.save wrote",
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
    mistake: Annotated[
        str | None,
        typer.Option("--mistake", help="run with one of the mistakes that `lockstep mistakes` has"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write everything that was measured to a file")
    ] = None,
) -> None:
    """Train in every framework at the same time and compare after every update.

    Exit status 0 if all is the same, or inside its bound; 1 if not; 2 if the call is wrong or a
    framework cannot run.
    """
    names = chosen(frameworks)
    check_file(json_file, "--json")
    if (without_zeroing or mistake) and (
        problems or dtype or accumulation_steps or updates or eager or (without_zeroing and mistake)
    ):
        option = "--without-zeroing" if without_zeroing else "--mistake"
        raise UsageError(
            f"{option} takes no problem, dtype, K, updates, --eager, and not the other of the two"
        )
    if mistake:
        from lockstep.experiments import planted

        probe, names = planted.shown_by(mistake), planted.able(mistake, names)
    from lockstep.workers.pool import workers

    with workers(names) as started:
        # The workers import their frameworks while this process imports its own packages.
        if without_zeroing:
            passed, report = run_without_zeroing(started)
        elif mistake:
            passed, report = run_mistake(started, mistake, probe)
        else:
            from lockstep.experiments.checks import DEFAULT, build

            checks = [
                check
                for name in problems or DEFAULT
                for check in build(name, dtype, accumulation_steps, updates)
            ]
            passed, report = run_checks(started, checks, eager)
        if json_file is not None:
            write_json(json_file, report)
    raise typer.Exit(0 if passed else 1)


@app.command()
def optimizers(
    name: Annotated[
        str | None,
        typer.Argument(help="one of those that the table names: adamw", show_default=False),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="the framework whose lines you have")
    ] = FRAMEWORKS[0],
    target: Annotated[
        str | None, typer.Option("--to", help="print the lines to write in this framework")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="a setting, in torch.optim's name: eps=1e-6, betas=0.9,0.95"),
    ] = None,
    decay_bias: Annotated[
        bool, typer.Option(help="whether weight decay acts on b as on W, in the lines")
    ] = True,
    dtype: Annotated[
        str, typer.Option(help="float64 or float32: the parameters', in the lines")
    ] = "float32",
    measure: Annotated[
        bool, typer.Option("--measure", help="measure again, with the versions installed here")
    ] = False,
    frameworks: Annotated[
        str, typer.Option("--frameworks", "-f", help="which to measure, separated by commas")
    ] = ",".join(FRAMEWORKS),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write everything that was measured to a file")
    ] = None,
) -> None:
    """How far each library's own optimizers are from torch.optim's, and what to write instead.

    The numbers were measured; --measure does so anew. Exit status 2 if the call is wrong or a
    framework cannot run.
    """
    from lockstep.optimizers import measurement
    from lockstep.views import terminal

    if target is not None:
        if name is None or measure or json_file:
            raise UsageError("--to needs a NAME, and neither --measure nor --json")
        print_lines(name, (source, target), settings or [], dtype, decay_bias)
        return
    if not measure and frameworks != ",".join(FRAMEWORKS):
        raise UsageError("--frameworks says what to measure: it needs --measure")
    if settings or source != FRAMEWORKS[0] or dtype != "float32" or not decay_bias:
        raise UsageError(
            "--from, --set, --dtype and --no-decay-bias need --to: the lines' framework"
        )
    check_file(json_file, "--json")
    if name is not None:
        measurement.variant(name)
    if measure:
        measure_optimizers(chosen(frameworks))
    known = measurement.known()
    if not known:
        raise UsageError("nothing is measured yet: lockstep optimizers --measure")
    out, _ = terminal.consoles()
    if name is None:
        terminal.show_optimizers(out, known)
    else:
        terminal.show_optimizer(out, name, known)
    terminal.show_measured(out, known)
    if json_file is not None:
        write_json(json_file, measurement.as_json(known))


@app.command()
def check(
    port: Annotated[
        str, typer.Argument(help="FILE.py, FILE.py:FUNCTION, MODULE or MODULE:FUNCTION")
    ],
    timeout: Annotated[
        float,
        typer.Option(help="seconds for a probe, the first with its imports", min=0.1, max=86400),
    ] = 120.0,
    pairs: Annotated[
        bool, typer.Option(help="look for pairs of mistakes, where no single one explains")
    ] = True,
    only: Annotated[
        str | None, typer.Option("--probes", help="which probes, separated by commas")
    ] = None,
    seed: Annotated[int, typer.Option(help="other numbers in the probes", min=0)] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write everything that was found to a file")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="write it as one page, with pictures")
    ] = None,
) -> None:
    """Say whether a port takes the same update, and if not, which mistake it makes.

    A port is a function train(problem) that yields W and b, as NumPy arrays, after every update,
    and raises NotImplementedError for what it does not support. Exit status 0 if its update is the
    same, 1 if it differs, 2 if the port or the call is broken.
    """
    check_file(json_file, "--json")
    check_file(html_file, "--html")
    files = [each.resolve() for each in (Path(port), json_file, html_file) if each is not None]
    if len(set(files)) < len(files):
        raise UsageError("the port, --json and --html must be different files")
    from lockstep.diagnosis import check as check_port
    from lockstep.views import report, terminal

    out, progress = terminal.consoles()
    names = [each.strip() for each in only.split(",")] if only is not None else None
    with progress.status(f"driving {port}"):
        found = check_port(port, timeout, pairs, names, seed)
    report.show(out, found)
    if json_file is not None:
        write_json(json_file, report.as_json(found))
    if html_file is not None:
        write_text(html_file, report.html(found), "--html")
    raise typer.Exit(found.status)


@app.command()
def read(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="a file, a function, a concept: recipe, train_window, train_window.accumulate",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--in", help="in which frameworks: --in pytorch jax", show_default=False),
    ] = None,
) -> None:
    """Read the source side by side, or, where it is too wide, concept by concept."""
    from lockstep.source import columns
    from lockstep.views import reading, terminal

    given = [each for name in only or [] for each in name.split(",")]
    # What follows the first framework of --in is an argument for click.
    given += [name for name in names or [] if name in FRAMEWORKS and given]
    frameworks = framework_names(",".join(given), "--in") if given else FRAMEWORKS
    wanted = [name for name in names or [] if name not in given] or ["training"]
    found = [unit for name in wanted for unit in columns.find(name)]
    reading.read(terminal.consoles()[0], found, frameworks)


@app.command(name="mistakes")
def show_mistakes(
    name: Annotated[
        str | None, typer.Argument(help="one of those that the list names", show_default=False)
    ] = None,
    frameworks: Annotated[
        str, typer.Option("--frameworks", "-f", help="whose diffs, separated by commas")
    ] = ",".join(FRAMEWORKS),
) -> None:
    """The catalogue of mistakes: all of them, or one, with its diff in each framework."""
    from lockstep.views import catalogue, terminal

    out, _ = terminal.consoles()
    if name is None:
        catalogue.show_all(out)
    else:
        catalogue.show_one(out, name, framework_names(frameworks))


def print_lines(
    name: str, frameworks: tuple[str, str], settings: list[str], dtype: str, decay_bias: bool
) -> None:
    """The lines of the second framework that take the update of the first's."""
    from lockstep.optimizers import advice, measurement
    from lockstep.problem import DTYPES
    from lockstep.problem.settings import require
    from lockstep.views import terminal

    found = []
    for option, framework in zip(("--from", "--to"), frameworks, strict=True):
        known = measurement.framework_of(framework)
        if known is None:
            raise UsageError(
                f"{option}: {framework} is not a framework here,"
                f" choose from {', '.join(FRAMEWORKS)}"
            )
        found.append(known)
    require(dtype in DTYPES, f"--dtype: {dtype!r} must be one of {', '.join(DTYPES)}")
    changed = advice.changed(measurement.variant(name), settings)
    measured = measurement.known()
    source, target = found
    text = advice.program(name, changed, source, target, measured, dtype, decay_bias)
    terminal.show_lines(terminal.consoles()[0], text)


def measure_optimizers(frameworks: Sequence[str]) -> None:
    """Measure in these frameworks, and keep what was found."""
    from lockstep.optimizers import measurement
    from lockstep.views import terminal
    from lockstep.workers.pool import workers

    _, progress = terminal.consoles()
    with workers(frameworks) as started, progress.status("starting") as status:
        terminal.wait_until_ready(started, status)
        found = measurement.measure(started, status.update)
    file = measurement.own_file()
    with suppress(OSError):  # writing the file will say so
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, measurement.as_json(measurement.own() | found), "--measure")
    terminal.say(progress, f"kept in {file}", "dim")


class UsageError(Exception):
    """The call is wrong; the message says what to do."""


def check_file(file: Path | None, option: str) -> None:
    """Raise UsageError, before anything is run, unless the file can be one."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        raise UsageError(f"{option}: {file} must be a file in a folder that exists")


def framework_names(frameworks: str, option: str = "--frameworks") -> list[str]:
    """The frameworks of a comma-separated list."""
    names = [name.strip() for name in frameworks.split(",") if name.strip()]
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown or not names:
        raise UsageError(
            f"{option}: {', '.join(unknown) or 'nothing'} is not a framework here,"
            f" choose from {', '.join(FRAMEWORKS)}"
        )
    return list(dict.fromkeys(names))


def chosen(frameworks: str) -> list[str]:
    """The same, each of them installed."""
    from lockstep.workers.pool import missing

    names = framework_names(frameworks)
    for name in names:
        if command := missing(name):
            rest = ",".join(each for each in names if each != name)
            instead = f" or leave it out: --frameworks {rest}" if rest else ""
            raise UsageError(f"{name} is not installed. Install it: {command}{instead}")
    return names


def run_checks(
    workers: Mapping[str, Worker], checks: Sequence[Check], eager: bool
) -> tuple[bool, dict[str, Any]]:
    """Carry out the checks and show each as soon as it is complete."""
    from lockstep.experiments.checks import collect, submit
    from lockstep.views import terminal

    (out, progress), tally, seconds = terminal.consoles(), terminal.Tally(), 0.0
    found: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="lockstep-") as folder,
        progress.status("starting") as status,
    ):
        submit(checks, workers, Path(folder), eager)
        for check in checks:
            check.prepare()
        versions = terminal.wait_until_ready(workers, status)
        terminal.say(out, " · ".join(versions.values()), "dim")
        for check in checks:
            status.update(f"{check.title}, {check.problem.dtype}")
            outcome = collect(check, workers, eager)
            terminal.show_outcome(out, outcome)
            tally.add(outcome.comparisons.values(), failures=len(outcome.failures))
            found.append(terminal.outcome_json(outcome))
            seconds += outcome.seconds
    terminal.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "checks": found}
    return tally.passed, report | {"seconds": {"comparison": seconds}}


def run_without_zeroing(workers: Mapping[str, Worker]) -> tuple[bool, dict[str, Any]]:
    """Losses with and without zeroing, and the equality with momentum 1."""
    from lockstep import mistakes
    from lockstep.experiments import zeroing
    from lockstep.views import terminal

    (out, progress), tally = terminal.consoles(), terminal.Tally()
    trials: list[dict[str, Any]] = []
    with progress.status("starting") as status, zeroing.planted(workers) as ports:
        versions = terminal.wait_until_ready(workers, status)
        terminal.say(out, " · ".join(versions.values()), "dim")
        for name in workers:
            terminal.show_diff(out, name, mistakes.diff(zeroing.MISTAKE, name))
        for learning_rate in zeroing.LEARNING_RATES:
            status.update(f"training with and without zeroing, learning rate {learning_rate}")
            trial = zeroing.trial(workers, ports, learning_rate)
            terminal.show_trial(out, trial)
            tally.add(trial.comparisons)
            trials.append(trial.as_json())
        status.update("comparing with momentum 1")
        equal = zeroing.momentum_equality(workers, ports)
    terminal.show_momentum(out, equal)
    tally.add(equal.values())
    terminal.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "trials": trials}
    momentum = {name: terminal.comparison_json(each) for name, each in equal.items()}
    return tally.passed, report | {"momentum_1": momentum}


def run_mistake(
    workers: Mapping[str, Worker], name: str, probe: Probe
) -> tuple[bool, dict[str, Any]]:
    """Where and by how much a mistake leaves the correct trajectory, in every framework."""
    from lockstep.experiments import planted
    from lockstep.views import catalogue, terminal

    (out, progress), tally = terminal.consoles(), terminal.Tally()
    with progress.status("starting") as status:
        versions = terminal.wait_until_ready(workers, status)
        terminal.say(out, " · ".join(versions.values()), "dim")
        status.update(f"training with and without {name}")
        found = planted.run(name, probe, workers)
    catalogue.show_planted(out, found)
    tally.add([*found.mistaken.values(), *found.correct.values()])
    terminal.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "mistake": name}
    return tally.passed, report | catalogue.planted_json(found)


def write_json(file: Path, report: dict[str, Any], option: str = "--json") -> None:
    """Write a report as JSON."""
    write_text(file, json.dumps(report, indent=1, allow_nan=False) + "\n", option)


def write_text(file: Path, text: str, option: str) -> None:
    """Write a file whole, or leave it as it was; `option` is who asked for it."""
    new = file.with_name(f".{file.name}.new")
    try:
        if file.exists() and not file.is_file():  # a pipe, a terminal
            file.write_text(text)
        else:
            new.write_text(text)
            new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(f"{option}: cannot write {file} ({error.strerror})") from None


def main() -> None:
    """Run the command line; turn errors into one clear line and a status."""
    from lockstep.problem.settings import ProblemError
    from lockstep.workers.pool import WorkerError

    # Leave by the same way on SIGTERM as on Ctrl-C: workers stopped, temporary files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
