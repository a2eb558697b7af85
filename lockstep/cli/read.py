"""`lockstep read`: the source side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.cli.arguments import framework_names
from lockstep.frameworks import FRAMEWORKS


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
    from lockstep.views import console, reading

    given = [each for name in only or [] for each in name.split(",")]
    # What follows the first framework of --in is an argument for click.
    given += [name for name in names or [] if name in FRAMEWORKS and given]
    frameworks = framework_names(",".join(given), "--in") if given else FRAMEWORKS
    wanted = [name for name in names or [] if name not in given] or ["training"]
    found = [unit for name in wanted for unit in columns.find(name)]
    reading.read(console.consoles()[0], found, frameworks)
