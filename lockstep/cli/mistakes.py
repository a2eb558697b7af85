"""`lockstep mistakes`: the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.cli.arguments import ALL, framework_names


def mistakes(
    name: Annotated[
        str | None, typer.Argument(help="one of those that the list names", show_default=False)
    ] = None,
    frameworks: Annotated[
        str, typer.Option("--frameworks", "-f", help="whose diffs, separated by commas")
    ] = ALL,
) -> None:
    """The catalogue of mistakes: all of them, or one, with its diff in each framework."""
    from lockstep.views import catalogue, console

    names, (out, _) = framework_names(frameworks), console.consoles()
    if name is None:
        catalogue.show_all(out)
    else:
        catalogue.show_one(out, name, names)
