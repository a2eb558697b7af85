"""What a project asks of every check, in its pyproject.toml: `[tool.lockstep]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lockstep.problem.settings import ProblemError, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
# What can be set, and as what.
KINDS = {"accept": list, "require": list, "dtype": str}


def policy(folder: Path) -> dict[str, Any]:
    """The arguments of `check` that a folder's project sets: `accept`, `require`, `dtype`.

    They stand in the nearest pyproject.toml, from the folder upwards; {} where none sets any.
    Raises ProblemError for a file that cannot be read, another key, or a value of another type.
    """
    file = next(
        (each / FILE for each in (folder, *folder.parents) if (each / FILE).is_file()), None
    )
    if file is None:
        return {}
    try:
        tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        raise ProblemError(f"{file}: {error}") from None
    require(isinstance(tool, dict), f"{file}: tool must be a table")
    table = tool.get("lockstep", {})
    require(isinstance(table, dict), f"{file}: tool.lockstep must be a table")
    for key, value in table.items():
        place = f"{file}: [tool.lockstep] {key}"
        require(key in KINDS, f"{place}: no such key, they are {', '.join(KINDS)}")
        names = value if KINDS[key] is list else [value]
        right = isinstance(value, KINDS[key]) and all(isinstance(name, str) for name in names)
        require(right, f"{place} must be {'a list of names' if KINDS[key] is list else 'a name'}")
    return dict(table)
