"""`lockstep trace init`: a run's initial parameters, ready to load in another framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.cli.arguments import UsageError
from lockstep.cli.outputs import check_outputs, write_tensors

COMMAND = "trace init"


def initial(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="the run whose parameters they are")],
    to: Annotated[str, typer.Option("--to", help="who is to load them: jax, pytorch or keras")],
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE.safetensors", help="the file to write")
    ],
    names: Annotated[
        Path | None,
        typer.Option("--map", help="a JSON file of parameters that belong together"),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="PORT", help="a run of the other side, whose names and shapes they get"
        ),
    ] = None,
) -> None:
    """Write the parameters that a run begins with as another framework holds them.

    So a port can be recorded from the same values. --like tells the names and shapes, whatever
    values that run begins with; without it they are those of the framework's own layers. Nothing is
    written, and the exit status is 2, where a parameter has no place: --map says which it is, or
    null. To compare a folder that is called init, write ./init.
    """
    check_outputs(COMMAND, {"--out": out_file})
    from lockstep.trace import initial_values
    from lockstep.views import console
    from lockstep.views import initial as view

    out, progress = console.consoles()
    with progress.status(f"reading {run}"):
        found = initial_values(run, to, like, names)
    view.show(out, found, out_file)
    if not found.complete:
        count = len(found.left) + len(found.other_left)
        raise UsageError(
            f"{count} parameters have no place, and nothing was written: name a JSON file of the"
            " first run's names to the other's with --map"
        )
    write_tensors(out_file, found.arrays, "--out", COMMAND)
