"""Lets autodoc read docstrings in plain text: `code`, indented code, items, and `name: what`.

And lets it call an array what the source calls it.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`[^`]+`)")
# What reST would take for a mark: emphasis, a substitution, a reference.
MARKS = re.compile(r"[*|\\]|_(?=\W|$)")
# How Sphinx writes lockstep.problem.Array, and a default that is made anew.
ARRAY = re.compile(
    r"~?numpy\.ndarray\[~?tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?typing\.Any\]\]"
)
FACTORY = "<factory>"
FIELD = re.compile(r"([A-Za-z_]\w*)(?=: )")
BETWEEN = re.compile(r"(?<=[.;]) (?=[A-Za-z_]\w*: )")
FIRST_DASH = re.compile(r"\n(?=- )")


def as_rest(text: str) -> str:
    """A plain text as reST."""
    summary, *blocks = re.split(r"\n\s*\n", text)
    rest = [code(block) if block.startswith("    ") else prose(listed(block)) for block in blocks]
    return "\n\n".join([prose(summary), *rest])


def code(block: str) -> str:
    """A block of code."""
    return f"::\n\n{block}"


def listed(block: str) -> str:
    """A paragraph whose rows with a dash, or whose `name: what`, are a list."""
    if not FIELD.match(block):
        return FIRST_DASH.sub("\n\n", block, count=1)
    items = BETWEEN.split(" ".join(block.split()))
    return "\n".join(FIELD.sub(r"- `\1`", item, count=1).rstrip(";") for item in items)


def prose(block: str) -> str:
    """Text whose code is marked as reST has it, and whose other signs stand for themselves."""
    return "".join(
        f"`{part}`" if CODE.fullmatch(part) else MARKS.sub(r"\\\g<0>", part)
        for part in CODE.split(block)
    )


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place; a decorated function has its own, not its decorator's."""
    text = inspect.getdoc(inspect.unwrap(obj)) if what == "function" else "\n".join(lines)
    lines[:] = [*as_rest(text or "").splitlines(), ""]


def name_types(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, *signature: str | None
) -> tuple[str | None, ...]:
    """The arguments and the result, so that a person can read them."""
    return tuple(each and ARRAY.sub("Array", each).replace(FACTORY, "...") for each in signature)


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to autodoc."""
    app.connect("autodoc-process-docstring", convert)
    app.connect("autodoc-process-signature", name_types)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
