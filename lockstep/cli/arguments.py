"""What several commands take: frameworks, and files to write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.frameworks import FRAMEWORKS

ALL = ",".join(FRAMEWORKS)
Json = Annotated[
    Path | None, typer.Option("--json", help="write everything that was measured to a file")
]
Html = Annotated[Path | None, typer.Option("--html", help="write it as one page, with pictures")]


class UsageError(Exception):
    """The call is wrong; the message says what to do."""


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
    """The same, each of them installed, in a version that will do."""
    from lockstep.workers.installed import command, missing

    names = framework_names(frameworks)
    for name in names:
        if why := missing(name):
            rest = ",".join(each for each in names if each != name)
            instead = f" or leave it out: --frameworks {rest}" if rest else ""
            raise UsageError(f"{why}. Install it: {command(name)}{instead}")
    return names
