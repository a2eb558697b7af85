"""The directive `region`: a box that scrolls by itself, for the keyboard and screen readers too.

:::{region} The diff in PyTorch
:class: diff
what may be wider than the page
:::
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Region(nodes.General, nodes.Element):
    """A box with a label."""


class RegionDirective(SphinxDirective):
    """Its argument is the label, its content anything."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {"class": directives.class_option}  # noqa: RUF012 - as docutils has it

    def run(self) -> list[nodes.Node]:
        """Parse what it holds."""
        classes = ["region", *self.options.get("class", [])]
        return [
            Region("", *self.parse_content_to_nodes(), label=self.arguments[0], classes=classes)
        ]


def visit(writer: Any, node: Region) -> None:
    """Open the box."""
    label = node["label"]
    attributes = {"role": "region", "tabindex": "0", "aria-label": label}
    writer.body.append(writer.starttag(node, "div", **attributes))


def depart(writer: Any, node: Region) -> None:
    """Close it."""
    writer.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, and how to write it."""
    app.add_node(Region, html=(visit, depart))
    app.add_directive("region", RegionDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
