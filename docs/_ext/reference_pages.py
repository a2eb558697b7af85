"""Makes a page for each module of the implementation folders, with the three next to each other."""

from __future__ import annotations

import ast
from pathlib import Path

from sphinx.application import Sphinx

from docs._ext.prose import render
from docs.written import write
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.paths import IMPLEMENTATIONS

FOLDER = Path(__file__).parent.parent / "reference" / "implementations"
MODULES = (
    *("model", "data", "training", "recipe", "window", "safeguards", "progress", "schedule"),
    *("optimizers", "library", "state", "bitwise", "compiled", "recurrent"),
    *("fast", "loop", "padding"),
)


def make(folder: Path = FOLDER) -> None:
    """Write all pages."""
    for module in MODULES:
        write(folder / f"{module}.md", page(module))


def page(module: str) -> str:
    """A module: what one folder or more define, in their order."""
    defined = {each: definitions(each, module) for each in FRAMEWORKS}
    names = {name: kind for found in defined.values() for name, kind in found.items()}
    found = {(each, name) for each in FRAMEWORKS for name in defined[each]}
    values = {"module": module, "names": names, "found": found, "frameworks": NAMES}
    return render("implementation.md.jinja", values)


def definitions(framework: str, module: str) -> dict[str, str]:
    """The functions and classes of a module, and which of these each is."""
    source = (IMPLEMENTATIONS / f"{framework}_impl" / f"{module}.py").read_text()
    return {
        node.name: "class" if isinstance(node, ast.ClassDef) else "function"
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: make())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
