"""Makes the tree of all pages once for each folder; Sphinx would make it anew for each page.

That took two fifths of a build. The trees of two pages in a folder differ in what is current.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from bs4 import BeautifulSoup, Tag
from bs4.element import AttributeValueList
from sphinx.application import Sphinx

CURRENT = "current"


def share(app: Sphinx, page: str, _template: str, context: dict[str, Any], _: object) -> None:
    """Put a tree in the place of the one that Sphinx would make."""
    if make := context.get("toctree"):
        context["toctree"] = lambda **options: marked(app, page, make, options)


def marked(app: Sphinx, page: str, make: Callable[..., str], options: dict[str, Any]) -> str:
    """Mark a page as the current one, and all that it stands in."""
    address = posixpath.basename(app.builder.get_target_uri(page))
    key = (posixpath.dirname(page), *sorted(options.items()))
    if key not in app.side_bars:
        app.side_bars[key] = BeautifulSoup(make(**options), "html.parser")
        unmark(app.side_bars[key], address)
    tree = app.side_bars[key]
    link = tree.find("a", href=address)
    if link is None:
        return str(tree)
    around = [each for each in link.parents if each.name in ("li", "ul")]
    link["href"], link["class"] = "#", [CURRENT, *link["class"]]
    for each in around:
        each["class"] = [*each.get("class", ()), CURRENT]
    text = str(tree)
    unmark(tree, address)
    return text


def unmark(tree: Tag, address: str) -> None:
    """Take back what says that the page of an address is the current one."""
    for each in tree.find_all(class_=CURRENT):
        each["class"] = AttributeValueList(name for name in each["class"] if name != CURRENT)
        if not each["class"]:
            del each["class"]
        if each.name == "a":
            each["href"] = address


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the theme, which asks for the tree."""
    app.side_bars = {}
    app.connect("html-page-context", share, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
