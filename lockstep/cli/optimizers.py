"""`lockstep optimizers`: how far each library's own are from torch.optim's, and what to write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.arguments import ALL, Json, UsageError, chosen
from lockstep.cli.outputs import check_outputs, replace, telling, write_json
from lockstep.frameworks import FRAMEWORKS

if TYPE_CHECKING:
    from lockstep.optimizers.measurement import Measurement


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
    ] = ALL,
    json_file: Json = None,
) -> None:
    """How far each library's own optimizers are from torch.optim's, and what to write instead.

    The numbers were measured; --measure does so anew. Exit status 2 if the call is wrong or a
    framework cannot run.
    """
    from lockstep.optimizers import measurement

    if target is not None:
        if name is None or measure or json_file:
            raise UsageError("--to needs a NAME, and neither --measure nor --json")
        print_lines(name, (source, target), settings or [], dtype, decay_bias)
        return
    if not measure and frameworks != ALL:
        raise UsageError("--frameworks says what to measure: it needs --measure")
    if settings or source != FRAMEWORKS[0] or dtype != "float32" or not decay_bias:
        raise UsageError(
            "--from, --set, --dtype and --no-decay-bias need --to: the lines' framework"
        )
    check_outputs("optimizers", {"--json": json_file})
    if name is not None:
        measurement.variant(name)
    if measure:
        measure_optimizers(chosen(frameworks))
    known = measurement.known()
    if not known:
        raise UsageError("nothing is measured yet: lockstep optimizers --measure")
    if json_file is not None:
        write_json(json_file, measurement.as_json(known), "optimizers")
    print_table(name, known)


def print_table(name: str | None, known: Mapping[str, Measurement]) -> None:
    """What is known of all optimizers, or of one."""
    from lockstep.views import console
    from lockstep.views import optimizers as view

    out, _ = console.consoles()
    if name is None:
        view.show_optimizers(out, known)
    else:
        view.show_optimizer(out, name, known)
    view.show_measured(out, known)


def print_lines(
    name: str, frameworks: tuple[str, str], settings: list[str], dtype: str, decay_bias: bool
) -> None:
    """The lines of the second framework that take the update of the first's."""
    from lockstep.optimizers import advice, measurement
    from lockstep.problem import DTYPES
    from lockstep.problem.settings import require
    from lockstep.views import console
    from lockstep.views.optimizers import show_lines

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
    show_lines(console.consoles()[0], text)


def measure_optimizers(frameworks: Sequence[str]) -> None:
    """Measure in these frameworks, and keep what was found."""
    from lockstep.optimizers import measurement
    from lockstep.views import console
    from lockstep.workers.pool import workers

    _, progress = console.consoles()
    with workers(frameworks) as started, progress.status("starting") as status:
        console.wait_until_ready(started, status)
        found = measurement.measure(started, status.update)
    file = measurement.own_file()
    with telling("--measure", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, json.dumps(measurement.as_json(measurement.own() | found)).encode())
    console.say(progress, f"kept in {file}", "dim")
