"""`lockstep run`: the frameworks side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.arguments import ALL, Json, UsageError, chosen
from lockstep.cli.outputs import check_outputs, write_json

# Whether all passed, and the report.
Found = tuple[bool, dict[str, Any]]
Work = Callable[[Mapping[str, "Worker"]], Found]

if TYPE_CHECKING:
    from lockstep.diagnosis.probes import Probe
    from lockstep.experiments.checks import Check, Form
    from lockstep.workers.pool import Device, Worker


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
    ] = ALL,
    dtype: Annotated[
        str | None, typer.Option(help="float64 or float32", show_default=False)
    ] = None,
    accumulation_steps: Annotated[
        int | None, typer.Option("--accumulation-steps", "-k", help="micro-batches an update")
    ] = None,
    updates: Annotated[int | None, typer.Option("--updates", "-u", help="how many")] = None,
    eager: Annotated[
        bool, typer.Option("--eager", help="run the bitwise loop op by op, slowly, everywhere")
    ] = False,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="run the fast form: each window one compiled program"),
    ] = False,
    device: Annotated[
        str, typer.Option(help="cpu, or gpu: the exact problems and those with bounds")
    ] = "cpu",
    without_zeroing: Annotated[
        bool,
        typer.Option("--without-zeroing", help="show what happens if gradients are never cleared"),
    ] = False,
    mistake: Annotated[
        str | None,
        typer.Option("--mistake", help="run with one of the mistakes that `lockstep mistakes` has"),
    ] = None,
    json_file: Json = None,
) -> None:
    """Train in every framework at the same time and compare after every update.

    Exit status 0 if all is the same, or inside its bound; 1 if not; 2 if the call is wrong or a
    framework cannot run.
    """
    names = chosen(frameworks)
    check_outputs("run", {"--json": json_file})
    if without_zeroing or mistake is not None:
        given = [each is not None for each in (dtype, accumulation_steps, updates)]
        more = bool(problems or eager or fast or any(given))
        require_one_mistake(without_zeroing, mistake, more)
    if eager and fast:
        raise UsageError("--fast runs compiled programs, and --eager none: choose one")
    on = device_of(device, problems, eager or fast or without_zeroing or mistake is not None)
    form: Form = "fast" if fast else "eager" if eager else "readable"
    work: Work = run_without_zeroing
    if mistake is not None:
        names, work = planted_in(names, mistake)
    elif not without_zeroing:
        if on == "gpu":
            problems = problems or ["exact"]
        work = partial(run_problems, problems, dtype, accumulation_steps, updates, form)
    from lockstep.workers.pool import workers

    # The workers import their frameworks while this process imports its own packages.
    with workers(names, on) as started:
        passed, report = work(started)
    if json_file is not None:
        write_json(json_file, report, "run")
    raise typer.Exit(0 if passed else 1)


def device_of(name: str, problems: Sequence[str] | None, otherwise: bool) -> Device:
    """The device of a name; raises UsageError for another, and for what CPUs alone can promise."""
    if name not in ("cpu", "gpu"):
        raise UsageError(f"--device must be cpu or gpu, not {name!r}")
    if name == "gpu" and (otherwise or set(problems or ()) - {"exact", "iris-sgd"}):
        raise UsageError(
            "--device gpu runs the readable loops on exact and iris-sgd: the rest is for CPUs"
        )
    return "gpu" if name == "gpu" else "cpu"


def require_one_mistake(without_zeroing: bool, mistake: str | None, more: bool) -> None:
    """Raise UsageError for two mistakes, or for more options, and where none can be planted."""
    from lockstep.mistakes import require_patching

    if more or (without_zeroing and mistake is not None):
        option = "--without-zeroing" if without_zeroing else "--mistake"
        raise UsageError(
            f"{option} takes no problem, dtype, K, updates, --eager or --fast, and not the other"
            " of the two"
        )
    require_patching()


def run_problems(
    names: Sequence[str] | None,
    dtype: str | None,
    accumulation_steps: int | None,
    updates: int | None,
    form: Form,
    workers: Mapping[str, Worker],
) -> Found:
    """Build the checks of these problems, or of those that are run by default; carry them out."""
    from lockstep.experiments.checks import DEFAULT, build

    checks = [
        check
        for name in names or DEFAULT
        for check in build(name, dtype, accumulation_steps, updates)
    ]
    if form == "fast":
        checks = [check.fast() for check in checks]
    return run_checks(workers, checks, form)


def run_checks(workers: Mapping[str, Worker], checks: Sequence[Check], form: Form) -> Found:
    """Carry out the checks and show each as soon as it is complete."""
    from lockstep.experiments.checks import collect, submit
    from lockstep.views import console
    from lockstep.views.run import outcome_json, show_outcome
    from lockstep.workers.folders import TemporaryFolder

    (out, progress), tally, seconds = console.consoles(), console.Tally(), 0.0
    found: list[dict[str, Any]] = []
    with TemporaryFolder() as folder, progress.status("starting") as status:
        submit(checks, workers, Path(folder), form)
        for check in checks:
            check.prepare()
        versions = console.wait_until_ready(workers, status)
        console.say(out, " · ".join(versions.values()), "dim")
        for check in checks:
            status.update(f"{check.title}, {check.problem.dtype}")
            outcome = collect(check, workers, form)
            show_outcome(out, outcome)
            tally.add(outcome.comparisons.values(), failures=len(outcome.failures))
            found.append(outcome_json(outcome))
            seconds += outcome.seconds
    console.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "checks": found}
    return tally.passed, report | {"seconds": {"comparison": seconds}}


def run_without_zeroing(workers: Mapping[str, Worker]) -> Found:
    """Losses with and without zeroing, and the equality with momentum 1."""
    from lockstep import mistakes
    from lockstep.experiments import zeroing
    from lockstep.views import console
    from lockstep.views.run import comparison_json, show_diff, show_momentum, show_trial

    (out, progress), tally = console.consoles(), console.Tally()
    trials: list[dict[str, Any]] = []
    with progress.status("starting") as status, zeroing.planted(workers) as ports:
        versions = console.wait_until_ready(workers, status)
        console.say(out, " · ".join(versions.values()), "dim")
        for name in workers:
            show_diff(out, name, mistakes.diff(zeroing.MISTAKE, name))
        for learning_rate in zeroing.LEARNING_RATES:
            status.update(f"training with and without zeroing, learning rate {learning_rate}")
            trial = zeroing.trial(workers, ports, learning_rate)
            show_trial(out, trial)
            tally.add(trial.comparisons)
            trials.append(trial.as_json())
        status.update("comparing with momentum 1")
        equal = zeroing.momentum_equality(workers, ports)
    show_momentum(out, equal)
    tally.add(equal.values())
    console.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "trials": trials}
    momentum = {name: comparison_json(each) for name, each in equal.items()}
    return tally.passed, report | {"momentum_1": momentum}


def planted_in(frameworks: Sequence[str], mistake: str) -> tuple[list[str], Work]:
    """Those of the frameworks in which a mistake can be made, and its run."""
    from lockstep.experiments import planted

    probe = planted.shown_by(mistake)
    return planted.able(mistake, frameworks), partial(run_mistake, mistake, probe)


def run_mistake(name: str, probe: Probe, workers: Mapping[str, Worker]) -> Found:
    """Where and by how much a mistake leaves the correct trajectory, in every framework."""
    from lockstep.experiments import planted
    from lockstep.views import catalogue, console

    (out, progress), tally = console.consoles(), console.Tally()
    with progress.status("starting") as status:
        versions = console.wait_until_ready(workers, status)
        console.say(out, " · ".join(versions.values()), "dim")
        status.update(f"training with and without {name}")
        found = planted.run(name, probe, workers)
    catalogue.show_planted(out, found)
    tally.add([*found.mistaken.values(), *found.correct.values()])
    console.say_tally(out, tally)
    report = {"versions": versions, "passed": tally.passed, "mistake": name}
    return tally.passed, report | catalogue.planted_json(found)
