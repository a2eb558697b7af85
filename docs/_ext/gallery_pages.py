"""Makes a page for each file of the gallery, and one of all, from what was recorded."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from docs import record_gallery
from docs._ext.prose import render
from docs.gallery_words import TITLES, WHY
from docs.record_gallery import ASPECTS, EVERY, FOLDER, LIBRARIES, Found, file_of, ports
from docs.written import write
from lockstep import mistakes
from lockstep.frameworks import NAMES
from lockstep.source import columns

PAGES = Path(__file__).parent.parent / "gallery"
PLAIN = ("the same", "refused")


def make(folder: Path = PAGES) -> None:
    """Write all pages."""
    recorded = record_gallery.load()
    for stem in TITLES:
        own = {port: recorded[port] for port in ports() if file_of(port).stem == stem}
        write(folder / f"{stem}.md", page(stem, own))
    write(folder / "index.md", overview(recorded))


def overview(recorded: dict[str, Found]) -> str:
    """All ports, in the order of their titles."""
    values = {
        "files": len(TITLES),
        "heads": [EVERY, *ASPECTS],
        "rows": [
            {
                "title": titled(port),
                "page": stem,
                "cells": [linked(c) for c in found["table"].values()],
            }
            for stem in TITLES
            for port, found in recorded.items()
            if file_of(port).stem == stem
        ],
        "same": sum(found["verdict"] == "same" for found in recorded.values()),
        "bugs": {
            file.name: first_line(file) for file in sorted((FOLDER / "upstream").glob("*.py"))
        },
    }
    return render("galleries.md.jinja", values)


def page(stem: str, own: dict[str, Found]) -> str:
    """One file, with all its ports."""
    file = FOLDER / f"{stem}.py"
    framework = next(iter(own.values()))["framework"].removeprefix("keras-")
    values = {
        "title": TITLES[stem],
        "about": first_line(file),
        "file": file.name,
        "ports": [port_view(port, found) for port, found in own.items()],
        "source": file.read_text().rstrip(),
        "framework": NAMES[framework],
        "readable": readable(framework),
    }
    return render("gallery.md.jinja", values)


def port_view(port: str, found: Found) -> dict[str, Any]:
    """A port as its page shows it."""
    why = WHY[port.removeprefix("gallery/")]
    first = found["explanations"][0] if found["explanations"] else []
    others = {name for each in found["explanations"] for name in each} - set(first)
    return {
        "name": port,
        "function": port.rpartition(":")[2] if ":" in port else "train",
        "headline": found["headline"],
        "compared": found["compared"],
        "refused": len(found["refused"]),
        "versions": ", ".join(f"{LIBRARIES[name]} {v}" for name, v in found["versions"].items()),
        "rows": [
            {
                "what": what,
                "does": linked(cell),
                "why": " ".join(why[name] for name in cell.split("; ") if cell not in PLAIN),
            }
            for what, cell in found["table"].items()
        ],
        "others": " and ".join(f"`{name}`" for name in sorted(others)),
    }


def titled(port: str) -> str:
    """A port's title, with its function if that is not the first."""
    title = TITLES[file_of(port).stem]
    return f"{title}: {port.rpartition(':')[2]}" if ":" in port else title


def linked(cell: str) -> str:
    """A cell, in which names of mistakes are code, and so become links."""
    known = mistakes.names()
    return "; ".join(f"`{each}`" if each in known else each for each in cell.split("; "))


def first_line(file: Path) -> str:
    """The first sentence of a file's docstring."""
    found = ast.get_docstring(ast.parse(file.read_text())) or ""
    return found.partition("\n")[0]


def readable(framework: str) -> str:
    """The source of `train_window`."""
    (unit,) = columns.find("training.train_window")
    cells = [row.cells[framework] for row in unit.rows if framework in row.cells]
    return "\n".join(cell.source for cell in cells if cell.source)


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: make())
    app.add_css_file("gallery.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
