"""Two directives for the porting pages: what to write for what you have, and which settings match.

Both are made from tested source while the guide is built, so that no page holds a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from docs.porting_table import CONCEPTS, Snippet, program, snippets
from lockstep.frameworks import NAMES
from lockstep.optimizers import advice
from lockstep.optimizers.measurement import shipped

CELLS = {"tensorflow": advice.keras_cell, "jax": advice.optax_cell}


class PortingTable(Directive):
    """`{porting-table} pytorch jax`: for each concept, the code of both, side by side."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """A row a concept; what a framework fuses spans its rows."""
        environment = self.state.document.settings.env
        columns = []
        for framework in self.arguments:
            environment.note_dependency(str(program(framework)))
            columns.append(snippets(framework))
        head = ["concept", *(NAMES[framework] for framework in self.arguments)]
        rows = []
        for number, concept in enumerate(CONCEPTS):
            row = [nodes.entry("", nodes.paragraph("", "", nodes.strong(text=concept)))]
            for framework, column in zip(self.arguments, columns, strict=True):
                cell = entry(framework, column[concept], concept)
                if cell is not None:
                    row.append(cell)
            rows.append(nodes.row("", *row, ids=[f"row-{number}"]))
        return [table(head, rows, (1, 5, 5), "porting")]


def entry(framework: str, found: Sequence[Snippet], concept: str) -> nodes.entry | None:
    """A cell; nothing where the concept above, with which it is fused, spans it."""
    first = found[0].concepts
    if first[0] != concept:
        return None
    # Where columns stand below each other, each says whose it is.
    cell = nodes.entry("", nodes.paragraph(text=NAMES[framework], classes=["framework"]))
    cell += [node for each in found for node in shown(each)]
    if len(first) > 1:
        cell["morerows"] = len(first) - 1
    return cell


def shown(snippet: Snippet) -> Iterator[nodes.Node]:
    """What is said of it, and the code."""
    word, space, rest = snippet.sentence.partition(" ")
    # A name of code stays as it is.
    word = word[:1].upper() + word[1:] if word.rstrip(",;").isalpha() else word
    yield nodes.paragraph(text=f"{word}{space}{rest}.")
    yield nodes.literal_block(snippet.code, snippet.code, language="python")


class PortingOptimizers(Directive):
    """`{porting-optimizers} pytorch jax`: what takes torch.optim's update in both."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """A row a variant; cells are from the sources."""
        measured = shipped()
        head = ["variant", *(NAMES[framework] for framework in self.arguments)]
        rows = []
        for variant in advice.ROWS:
            texts = [f"`{variant}`"]
            for framework in self.arguments:
                known = CELLS.get(framework)
                texts.append(known(variant) if known else advice.pytorch_cell(variant, measured))
            rows.append(nodes.row("", *(self.parsed(text) for text in texts)))
        return [table(head, rows, (1, 3, 3), "settings")]

    def parsed(self, text: str) -> nodes.entry:
        """A cell of Markdown."""
        cell = nodes.entry()
        self.state.nested_parse(StringList([text]), self.content_offset, cell)
        return cell


def table(
    head: Sequence[str], rows: Sequence[nodes.row], widths: Sequence[int], name: str
) -> nodes.table:
    """A table of these rows."""
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    top = nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in head))
    group += [nodes.thead("", top), nodes.tbody("", *rows)]
    return nodes.table("", group, classes=[name])


def setup(app: Any) -> dict[str, Any]:
    """Register both, and their style."""
    app.add_directive("porting-table", PortingTable)
    app.add_directive("porting-optimizers", PortingOptimizers)
    app.add_css_file("porting.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
