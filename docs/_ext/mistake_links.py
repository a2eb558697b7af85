"""Makes a link to its page of inline code that is the name of a mistake."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

from lockstep import mistakes


def link(app: Sphinx, document: nodes.document, page: str) -> None:
    """Not in headings, in other links, nor on the mistake's own page."""
    for code in list(document.findall(nodes.literal)):
        target = f"mistakes/{code.astext()}"
        if code.astext() in mistakes.names() and target != page and not taken(code):
            address = app.builder.get_relative_uri(page, target)
            code.replace_self(nodes.reference("", "", code.deepcopy(), refuri=address))


def taken(node: nodes.Node) -> bool:
    """Whether it stands in a heading or in a link."""
    while node := node.parent:
        if isinstance(node, nodes.title | nodes.reference):
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Link on every page."""
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
