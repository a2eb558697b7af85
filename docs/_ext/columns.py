"""The directive `columns`: files of the three folders side by side, from the source itself."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import DiffLexer, PythonLexer
from sphinx.application import Sphinx

from docs import scenarios
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.source import columns, mirror
from lockstep.source.columns import Cell, Row, Unit, units

PAIRS = list(combinations(FRAMEWORKS, 2))
# Rows that need no heading of their own.
PLAIN = ("signature", "docstring", "body")


class Columns(Directive):
    """The columns of these files, or of one function of them with `only`.

    What stands before `first` is folded away. With `scenarios`, what the loop does stands below it.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {  # noqa: RUF012 - docutils wants it so
        "first": directives.unchanged_required,
        "only": directives.unchanged_required,
        "scenarios": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """Return the page's part, as HTML."""
        files = self.arguments[0].split()
        environment: Any = self.state.document.settings.env
        for file in files:
            for framework in FRAMEWORKS:
                environment.note_dependency(str(Path(f"{framework}_impl/{file}.py").resolve()))
        made_of = [scenarios.FILE, Path(__file__), Path(__file__).with_suffix(".html")]
        made_of += [Path(module.__file__ or "") for module in (columns, mirror)]
        for each in made_of:
            environment.note_dependency(str(each))
        page = template().render(
            files=[
                (file, *folded([view(unit, files[0]) for unit in self.units(file)], self.first))
                for file in files
            ],
            frameworks=FRAMEWORKS,
            names=NAMES,
            pairs=PAIRS,
            show_after=self.options.get("scenarios"),
            recorded=recorded(),
        )
        return [nodes.raw("", page, format="html")]

    @property
    def first(self) -> str | None:
        """What is to be seen before anything else."""
        found: str | None = self.options.get("first")
        return found

    def units(self, file: str) -> Sequence[Unit]:
        """The units of a file that are shown."""
        only = self.options.get("only")
        return columns.find(f"{file}.{only}") if only else units(file)


def template() -> Any:
    """The template of the columns."""
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return found.get_template("columns.html")


def folded(found: list[dict[str, Any]], first: str | None) -> tuple[list[Any], list[Any]]:
    """What stands before a unit, and the rest."""
    place = next((n for n, each in enumerate(found) if each["anchor"] == first), 0)
    return found[:place], found[place:]


def view(unit: Unit, first: str) -> dict[str, Any]:
    """A unit as the template shows it; those of a page's first file have the short address."""
    anchor = unit.name if unit.file == first else unit.path
    return {
        "name": unit.name,
        "anchor": anchor,
        "rows": [row_view(row, place, anchor, unit) for place, row in enumerate(unit.rows, 1)],
        "diffs": {f"{one}-{other}": difference(unit, one, other) for one, other in PAIRS},
        "has": {f"{one}-{other}": bool(text(unit, one)) for one, other in PAIRS},
    }


def row_view(row: Row, place: int, anchor: str, unit: Unit) -> dict[str, Any]:
    """A row of the grid."""
    found: dict[str, Any] = {
        "name": row.name,
        "place": place,
        "anchor": anchor if len(unit.rows) == 1 else f"{anchor}.{row.name}",
        "common": bool(row.common()),
        "headed": row.name not in PLAIN and len(unit.rows) > 1,
    }
    cells = dict(list(row.cells.items())[:1]) if row.common() else row.cells
    found["cells"] = [cell_view(framework, cell) for framework, cell in cells.items()]
    return found


def cell_view(framework: str, cell: Cell) -> dict[str, Any]:
    """A cell of the grid."""
    return {
        "framework": framework,
        "column": FRAMEWORKS.index(framework) + 1,
        "rows": cell.rows,
        "source": cell.source,
        "code": coloured(cell.source, PythonLexer(stripnl=False)),
        "quiet": cell.quiet,
        "note": cell.why,
    }


def text(unit: Unit, framework: str) -> list[str]:
    """The lines of a unit in a framework."""
    cells = [row.cells[framework] for row in unit.rows if framework in row.cells]
    return "\n".join(cell.source for cell in cells if cell.source).splitlines()


def difference(unit: Unit, one: str, other: str) -> str:
    """The plain diff between two frameworks, highlighted; "" where they are equal."""
    lines = list(difflib.ndiff(text(unit, one), text(unit, other)))
    kept = [line for line in lines if not line.startswith("?")]
    if all(line.startswith(" ") for line in kept):
        return ""
    return coloured("\n".join(kept), DiffLexer(stripnl=False))


def coloured(source: str, lexer: Lexer) -> str:
    """Highlighted source as HTML, each line an element that knows its indentation."""
    if not source:
        return ""
    lines = highlight(source, lexer, HtmlFormatter(nowrap=True)).splitlines()
    indents = [len(line) - len(line.lstrip()) for line in source.splitlines()]
    return "".join(
        f'<span class="line" style="--indent:{indent}">{line}\n</span>'
        for line, indent in zip(lines, indents, strict=True)
    )


def recorded() -> dict[str, Any]:
    """The recorded scenarios, as the template shows them."""
    report = json.loads(scenarios.FILE.read_text())
    versions = [f"{p} {v}" for each in report["versions"].values() for p, v in each.items()]
    return {
        "date": report["date"],
        "versions": ", ".join(versions),
        "scenarios": [scenario(name, each) for name, each in report["scenarios"].items()],
    }


def scenario(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A scenario: its micro-batches in their order, and a line for each update."""
    sizes, windows = found["sizes"], found["windows"]
    oracle = found["parameters"]["oracle"]
    return {
        "name": name,
        "id": name.replace(" ", "-"),
        "words": found["words"],
        "windows": [
            {
                "number": update,
                "opens": window[0] == 0,
                "batches": [(j + 1, sizes[j]) for j in window],
                "examples": sum(sizes[j] for j in window),
            }
            for update, window in enumerate(windows, 1)
        ],
        "updates": [
            {
                "number": update,
                "loss": f"{loss:.4f}",
                "cells": [
                    {
                        "framework": framework,
                        "same": values[update - 1] == oracle[update - 1],
                        "values": [f"{value:.6f}" for value in values[update - 1]],
                    }
                    for framework, values in found["parameters"].items()
                ],
            }
            for update, loss in enumerate(found["losses"], 1)
        ],
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("columns", Columns)
    app.add_css_file("columns.css")
    app.add_js_file("columns.js", loading_method="defer")
    return {"parallel_read_safe": True}
