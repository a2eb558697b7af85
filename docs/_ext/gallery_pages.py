"""Makes a page for each file of the gallery, and one of all, from what was recorded."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from benchmarks import goals, peers
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
# What is compiled in a fast form, and the loop in it.
PROGRAM = dict.fromkeys(NAMES, ("fast", "train_window")) | {"pytorch": ("fast", "clipped_gradient")}
LOOP = "loop", "window_gradient"
# Under which name the benchmark of speed has a file's loop.
TIMED = {
    "accelerate_loop": "Accelerate",
    "fabric_loop": "Fabric",
    "keras_fit": "Keras fit",
    "tf_function": "tf.function",
    "optax_multisteps": "optax.MultiSteps",
    "optax_microbatching": "optax.microbatching",
}


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
        "readable": source(framework, "training", "train_window"),
        "fast": [source(framework, *each) for each in (PROGRAM[framework], LOOP)],
        "heads": goals.cost_heads(),
        "costs": list(costs(stem, file.name, framework)),
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


def costs(stem: str, file: str, framework: str) -> Iterator[tuple[str, list[str]]]:
    """A loop and what a micro-batch of it takes, of those that were timed."""
    report = json.loads(goals.FILE.read_text())
    loops = {
        TIMED.get(stem): f"as in {file}",
        peers.READABLE: "the readable loop",
        peers.FAST: "the fast form",
    }
    for contestant, name in loops.items():
        if contestant and (found := goals.costs(report, framework, contestant)):
            yield name, found


def source(framework: str, file: str, name: str) -> str:
    """The source of a function of a folder, with its decorators."""
    text = columns.source(framework, file)
    (node,) = (
        each
        for each in ast.parse(text).body
        if isinstance(each, ast.FunctionDef) and each.name == name
    )
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: make())
    app.add_css_file("gallery.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
