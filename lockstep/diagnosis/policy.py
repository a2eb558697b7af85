"""What a project asks of every check, in its pyproject.toml: `[tool.lockstep]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lockstep.problem.settings import require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"


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
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("lockstep", {})
    except (OSError, ValueError) as error:
        require(False, f"{file}: {error}")
    lists, texts = ("accept", "require"), ("dtype",)
    for key, value in table.items():
        place = f"{file}: [tool.lockstep] {key}"
        require(
            key in (*lists, *texts), f"{place}: no such key, they are accept, require and dtype"
        )
        names = value if key in lists and isinstance(value, list) else [value]
        right = isinstance(value, list) == (key in lists)
        right = right and all(isinstance(name, str) for name in names)
        require(right, f"{place} must be {'a list of names' if key in lists else 'a name'}")
    return dict(table)
