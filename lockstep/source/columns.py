"""The three sources side by side: cut by function, and inside a function by concept.

Nothing is copied by hand: a file is a list of units (functions, classes, assignments), a unit is a
list of rows, and a row has a cell in each framework. A concept that a framework fuses with the next
has one cell for both rows, and what a framework lacks has none.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from lockstep.frameworks import FRAMEWORKS
from lockstep.paths import IMPLEMENTATIONS
from lockstep.problem.settings import require
from lockstep.source.mirror import reason

CONCEPTS = ("reset", "forward", "gradient", "accumulate", "update")
# `cut` is where a recurrent model's graph is cut; the others are parts of any function or class.
ROWS = (
    *("signature", "docstring", "body", "setup"),
    *("reset", "loop", "cut", "forward", "gradient", "accumulate", "update", "return"),
)
COMMENT = re.compile(rf" *# ((?:{'|'.join((*CONCEPTS, 'cut'))})(?: \+ \w+)*): (.+)")
# In the order in which the README reads them; files of one framework stand beside their use.
FILES = (
    *("training", "model", "data", "problem", "accumulation", "precision"),
    *("recipe", "window", "safeguards", "progress"),
    *("schedule", "optimizers", "library", "adapted", "adapted_adam", "neutral", "table"),
    *("state", "recurrent", "fast", "loop", "padding", "compiler"),
    *("bitwise", "ordered", "rules", "adam", "constants", "compiled"),
)


@dataclass(frozen=True)
class Cell:
    """A framework's code for one row, or for several that it fuses.

    source: as it stands in the file; "" where there is nothing, and then `note` may say why.
    """

    rows: tuple[str, ...]
    source: str
    note: str = ""

    @property
    def why(self) -> str:
        """What stands in a column where there is no code."""
        if set(self.rows) & set(CONCEPTS):
            return self.note or "No line of its own: the lines above do it."
        return self.note or "Nothing here: no such lines are needed."

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to do: no line, or a comment that says why."""
        return all(line.lstrip().startswith("#") for line in self.source.splitlines())


@dataclass(frozen=True)
class Row:
    """One concept, with the cells that begin in it, by framework; other cells span it."""

    name: str
    cells: Mapping[str, Cell]

    def common(self, frameworks: Sequence[str] = FRAMEWORKS) -> str:
        """The source, if it is the same in all these frameworks; else ""."""
        found = {self.cells.get(framework) for framework in frameworks}
        cell = found.pop()
        return cell.source if not found and cell and cell.rows == (self.name,) else ""


@dataclass(frozen=True)
class Unit:
    """A function, a class or an assignment of a file, or its docstring or imports."""

    file: str
    name: str
    rows: Sequence[Row]

    @property
    def path(self) -> str:
        """Its name with its file's."""
        return f"{self.file}.{self.name}"


@cache
def units(file: str) -> tuple[Unit, ...]:
    """The units of a file of the three folders, for example "training", aligned."""
    found = {framework: pieces(framework, file) for framework in FRAMEWORKS}
    return tuple(
        unit(file, name, found) for name in merged([list(each) for each in found.values()])
    )


def find(name: str) -> list[Unit]:
    """The units of a file, but for its imports; one unit; or one row of it.

    "training", "train_window", "recipe.train", "train_window.accumulate". What several files have
    is taken from the first of FILES. Raises ProblemError for an unknown name.
    """
    if name in FILES:
        return [unit for unit in units(name) if unit.name != "imports"]
    known: dict[str, Unit] = {}
    for file in reversed(FILES):
        for each in reversed(units(file)):
            for start in (each.name, each.path):
                rows = {f"{start}.{row.name}": only(each, row.name) for row in each.rows}
                known |= {start: each, **rows}
    near = difflib.get_close_matches(name, [*FILES, *known], 1)
    hint = f"did you mean {near[0]}?" if near else f"the files are {', '.join(FILES)}"
    require(name in known, f"{name}: no such file, function or concept: {hint}")
    return [known[name]]


def only(unit: Unit, row: str) -> Unit:
    """A unit with this row alone, and the cells that it has or that span it."""
    cells = {
        framework: cell
        for each in unit.rows
        for framework, cell in each.cells.items()
        if row in cell.rows
    }
    return replace(unit, rows=[Row(row, {f: cells[f] for f in FRAMEWORKS})])


def merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """All names, in an order that keeps each one's predecessors."""
    found: list[str] = []
    for order in orders:
        place = 0
        for name in order:
            if name not in found:
                found.insert(place, name)
            place = found.index(name) + 1
    return found


def unit(file: str, name: str, found: Mapping[str, Mapping[str, list[Cell]]]) -> Unit:
    """The rows of a unit: every row has a cell of each framework, or is spanned by one."""
    cells = {framework: found[framework].get(name, []) for framework in FRAMEWORKS}
    texts = {"\n".join(cell.source for cell in each) for each in cells.values()}
    if len(texts) == 1:
        cells = {framework: [Cell(("body",), *texts)] for framework in FRAMEWORKS}
    orders = [[row for cell in each for row in cell.rows] for each in cells.values()]
    rows = merged([[row for row in ROWS if any(row in order for order in orders)], *orders])
    for framework, each in cells.items():
        if not each:
            each.append(Cell(tuple(rows), "", reason(framework, file, name)))
        spanned = {row for cell in each for row in cell.rows}
        each += [Cell((row,), "") for row in rows if row not in spanned]
    return Unit(file, name, [row_of(row, cells) for row in rows])


def row_of(name: str, cells: Mapping[str, Sequence[Cell]]) -> Row:
    """A row, of the cells that begin in it."""
    return Row(
        name,
        {
            framework: cell
            for framework, each in cells.items()
            for cell in each
            if cell.rows[0] == name
        },
    )


def source(framework: str, file: str) -> str:
    """The text of a file of a folder; empty where the folder does not have it."""
    path = IMPLEMENTATIONS / f"{framework}_impl" / f"{file}.py"
    return path.read_text() if path.exists() else ""


def pieces(framework: str, file: str) -> dict[str, list[Cell]]:
    """The cells of each unit of one framework's file, in their order."""
    text = source(framework, file)
    lines = text.splitlines()
    found: dict[str, list[Cell]] = {}
    end = 0
    for node in ast.parse(text).body:
        cuts = cuts_of(node, end, lines)
        end = node.end_lineno or end
        found.setdefault(title(node), []).extend(cells_between(cuts, lines[:end]))
    if "imports" in found:
        found["imports"] = [Cell(("body",), "\n".join(each.source for each in found["imports"]))]
    return found


def title(node: ast.stmt) -> str:
    """What a unit is called."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "imports"
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return "about"


class Cut(NamedTuple):
    """Where a cell begins: the line, from 0, and the rows that it is for."""

    line: int
    rows: tuple[str, ...]


def cells_between(cuts: Sequence[Cut], lines: Sequence[str]) -> Iterator[Cell]:
    """The cells from cut to cut, without those that have no line."""
    ends = [cut.line for cut in cuts[1:]] + [len(lines)]
    for cut, end in zip(cuts, ends, strict=True):
        text = "\n".join(lines[cut.line : end]).strip("\n")
        if text:
            yield Cell(cut.rows, text)


def cuts_of(node: ast.stmt, start: int, lines: Sequence[str]) -> list[Cut]:
    """Where a unit is cut, from `start` on, since comments above a unit belong to it."""
    if isinstance(node, ast.FunctionDef):
        return list(function_cuts(node, start, lines))
    methods = [each for each in getattr(node, "body", []) if isinstance(each, ast.FunctionDef)]
    return [Cut(start, ("body",)), *(Cut(first_line(each), (each.name,)) for each in methods)]


def first_line(node: ast.FunctionDef) -> int:
    """The line, from 0, of the first decorator, or of the name."""
    return min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1


def function_cuts(node: ast.FunctionDef, start: int, lines: Sequence[str]) -> Iterator[Cut]:
    """The cuts of a function: at its docstring, and at its concepts or at the first statement."""
    documented = node.body[0]
    yield Cut(start, ("signature",))
    yield Cut(documented.lineno - 1, ("docstring",))
    numbers = range(documented.end_lineno or 0, node.end_lineno or 0)
    concepts = [
        Cut(number, tuple(match[1].split(" + ")))
        for number in numbers
        if (match := COMMENT.fullmatch(lines[number]))
    ]
    yield Cut(numbers.start, ("setup" if concepts else "body",))
    if concepts:
        yield from sorted([*concepts, *loops(node, concepts)])
        yield Cut(node.body[-1].lineno - 1, ("return",))


def loops(node: ast.FunctionDef, concepts: Sequence[Cut]) -> Iterator[Cut]:
    """The loops that hold a concept."""
    for loop in [each for each in ast.walk(node) if isinstance(each, ast.For)]:
        inside = range(loop.lineno, loop.end_lineno or 0)
        if any(concept.line in inside for concept in concepts):
            yield Cut(loop.lineno - 1, ("loop",))
