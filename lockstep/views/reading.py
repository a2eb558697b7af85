"""What `lockstep read` prints: the source in columns, or concept by concept if they do not fit."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import zip_longest

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from lockstep.frameworks import NAMES
from lockstep.source.columns import Cell, Unit

BETWEEN = " │ "
NARROWEST = 40


def read(out: Console, units: Sequence[Unit], frameworks: Sequence[str]) -> None:
    """Print units; through a pager where they are longer than the screen."""
    sources = [
        cell.source
        for unit in units
        for row in unit.rows
        for framework, cell in row.cells.items()
        if framework in frameworks
    ]
    lengths = [len(line) for source in sources for line in source.splitlines()]
    width = max([NARROWEST, *lengths])
    if len(frameworks) * (width + len(BETWEEN)) <= out.width:
        lines = [line for unit in units for line in beside(unit, frameworks, width)]
    else:
        lines = [line for unit in units for line in below(unit, frameworks, out.width)]
    # Unless told otherwise, less shows the codes of colours.
    os.environ.setdefault("LESS", "-R")
    long = out.is_terminal and len(lines) > out.height
    with out.pager(styles=out.color_system is not None) if long else nullcontext():
        for line in lines:
            out.print(line, soft_wrap=True)


def beside(unit: Unit, frameworks: Sequence[str], width: int) -> Iterator[Text]:
    """A unit in columns: cells that begin in the same row begin in the same line."""
    yield heading(unit)
    yield in_columns([Text(NAMES[each], "bold") for each in frameworks], width)
    columns: dict[str, list[Text]] = {framework: [] for framework in frameworks}
    for row in unit.rows:
        begin = {each: row.cells[each] for each in frameworks if each in row.cells}
        start = max((len(columns[each]) for each in begin), default=0)
        if common := row.common(frameworks):
            yield from flushed(columns, width)
            yield from coloured(common)
            continue
        for framework, cell in begin.items():
            column = columns[framework]
            column += [Text()] * (start - len(column)) + lines_of(cell, width)
    yield from flushed(columns, width)
    yield Text()


def flushed(columns: dict[str, list[Text]], width: int) -> Iterator[Text]:
    """The lines of all columns, which begin anew."""
    for lines in zip_longest(*columns.values(), fillvalue=Text()):
        yield in_columns(lines, width)
    for column in columns.values():
        column.clear()


def in_columns(lines: Sequence[Text], width: int) -> Text:
    """One line of all columns."""
    found = Text(BETWEEN, "dim").join([filled(line, width) for line in lines[:-1]] + [lines[-1]])
    found.rstrip()
    return found


def filled(line: Text, width: int) -> Text:
    """A line of this many characters."""
    found = line.copy()
    found.pad_right(width - len(line))
    return found


def below(unit: Unit, frameworks: Sequence[str], width: int) -> Iterator[Text]:
    """A unit concept by concept, the frameworks under each other."""
    yield heading(unit)
    for row in unit.rows:
        if common := row.common(frameworks):
            yield label("in all of them", (row.name,))
            yield from coloured(common)
            continue
        for framework in frameworks:
            if framework in row.cells:
                cell = row.cells[framework]
                yield label(NAMES[framework], cell.rows)
                yield from lines_of(cell, width)
    yield Text()


def heading(unit: Unit) -> Text:
    """What stands above a unit."""
    return Text.assemble((unit.name, "bold"), (f"  {unit.file}.py", "dim"))


def label(whose: str, rows: Sequence[str]) -> Text:
    """What stands above a cell."""
    return Text(f"── {whose}: {' + '.join(rows)}", "dim")


def lines_of(cell: Cell, width: int) -> list[Text]:
    """A cell's source, or why there is none."""
    if cell.source:
        return coloured(cell.source)
    return [Text(line, "dim italic") for line in textwrap.wrap(cell.why, width)]


def coloured(source: str) -> list[Text]:
    """The lines of a source, with the colours that the terminal has for its syntax."""
    syntax = Syntax("", "python", theme="ansi_dark", background_color="default")
    return list(syntax.highlight(source).split("\n"))
