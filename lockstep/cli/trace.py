"""`lockstep trace`: what one recorded run does otherwise than another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.cli.arguments import Html, Json, UsageError
from lockstep.cli.outputs import check_outputs, write_found


def trace(
    right: Annotated[Path, typer.Argument(metavar="RUN", help="the run that is taken for right")],
    port: Annotated[
        Path | None,
        typer.Argument(metavar="PORT", help="the run to hold against it, and not its own settings"),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--map", help="a JSON file of parameters that belong together"),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option("--again", help="RUN recorded once more: it measures RUN's rounding"),
    ] = None,
    json_file: Json = None,
    html_file: Html = None,
) -> None:
    """Say what a real run does otherwise than another one, and which mistakes that are.

    Both were recorded by lockstep.record, each in an environment of its own; no framework is needed
    to compare them. One run alone is held against its own settings. Exit status 0 if the updates
    are the same, 1 if they differ, 2 if a trace cannot be read.
    """
    check_outputs("trace", {"--json": json_file, "--html": html_file})
    if port is None and (names or again):
        raise UsageError("--map and --again are about two runs: name the port, too")
    from lockstep.trace import check_trace, compare_traces
    from lockstep.views import console
    from lockstep.views import trace as view

    out, progress = console.consoles()
    with progress.status(f"reading {right}"):
        found = check_trace(right) if port is None else compare_traces(right, port, names, again)
    write_found("trace", view, found, json_file, html_file)
    view.show(out, found)
    raise typer.Exit(found.status)
