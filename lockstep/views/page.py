"""Pages that need nothing else: no network, no script, light and dark."""

from __future__ import annotations

from typing import Any


def page(template: str, command: str, **values: Any) -> str:
    """The page that a command writes; every value is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lockstep.views"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(command=command, **values)
