"""`lockstep check`: whether a port takes the same update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.cli.arguments import Html, Json
from lockstep.cli.outputs import check_outputs, write_found


def check(
    port: Annotated[
        str, typer.Argument(help="FILE.py, FILE.py:FUNCTION, MODULE or MODULE:FUNCTION")
    ],
    timeout: Annotated[
        float,
        typer.Option(help="seconds for a probe, the first with its imports", min=0.1, max=86400),
    ] = 120.0,
    pairs: Annotated[bool, typer.Option(help="look for more than one difference")] = True,
    only: Annotated[
        str | None, typer.Option("--probes", help="which probes, separated by commas")
    ] = None,
    seed: Annotated[int, typer.Option(help="other numbers in the probes", min=0)] = 0,
    accept: Annotated[
        str | None, typer.Option(help="mistakes that are this port's policy, separated by commas")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help="what must be looked at: all, clip, adamw, ..., separated by commas"),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 for a port that is float32 in parts")
    ] = None,
    json_file: Json = None,
    html_file: Html = None,
) -> None:
    """Say whether a port takes the same update, and if not, which mistake it makes.

    A port is a function train(problem) that yields W and b, as NumPy arrays, after every update,
    and raises NotImplementedError for what it does not support. Exit status 0 if its update is the
    same, 1 if it differs, 2 if the port or the call is broken, 3 if what is required was not looked
    at. What to accept and to require, and the dtype, may stand in pyproject.toml: tool.lockstep.
    """
    check_outputs("check", {"--json": json_file, "--html": html_file})
    from lockstep.workers.pool import loading

    # The worker imports the port while this process imports its own packages.
    with loading(port) as worker:
        from lockstep.diagnosis import check as check_port
        from lockstep.diagnosis import policy
        from lockstep.views import console, report

        out, progress = console.consoles()
        asked = {"accept": separated(accept), "require": separated(require), "dtype": dtype}
        given = {name: value for name, value in asked.items() if value is not None}
        settings = policy(Path.cwd()) | given
        with progress.status(f"driving {port}"):
            found = check_port(
                port, timeout, pairs, separated(only), seed, **settings, worker=worker
            )
    write_found("check", report, found, json_file, html_file)
    report.show(out, found)
    raise typer.Exit(found.status)


def separated(names: str | None) -> list[str] | None:
    """The names of a comma-separated list; None where there is none."""
    return None if names is None else [each for name in names.split(",") if (each := name.strip())]
