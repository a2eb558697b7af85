"""`lockstep check`: whether a port takes the same update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.cli.arguments import Json
from lockstep.cli.outputs import check_outputs, write_json, write_text


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
    json_file: Json = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="write it as one page, with pictures")
    ] = None,
) -> None:
    """Say whether a port takes the same update, and if not, which mistake it makes.

    A port is a function train(problem) that yields W and b, as NumPy arrays, after every update,
    and raises NotImplementedError for what it does not support. Exit status 0 if its update is the
    same, 1 if it differs, 2 if the port or the call is broken.
    """
    check_outputs("check", {"--json": json_file, "--html": html_file})
    from lockstep.diagnosis import check as check_port
    from lockstep.views import console, report

    out, progress = console.consoles()
    names = [each.strip() for each in only.split(",")] if only is not None else None
    with progress.status(f"driving {port}"):
        found = check_port(port, timeout, pairs, names, seed)
    report.show(out, found)
    if json_file is not None:
        write_json(json_file, report.as_json(found), "check")
    if html_file is not None:
        write_text(html_file, report.html(found), "--html", "check")
    raise typer.Exit(found.status)
